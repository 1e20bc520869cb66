"""The command line: one dataclass per command.  Nothing heavy is imported before a command runs."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from quietray.errors import QuietrayError, ResourceError, SettingsError

if TYPE_CHECKING:
    from rich.console import Console

    from quietray.scan import Scan
    from quietray.workflows import Settings

__all__ = ["main"]

# Options without a default of their own tell it in their text: most take it from --config or from the settings.
_Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
_Choice = tyro.conf.arg(help_behavior_hint="")
_Text = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")]
_File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
_Number = Annotated[float | None, tyro.conf.arg(metavar="NUMBER", help_behavior_hint="")]
_Count = Annotated[int | None, tyro.conf.arg(metavar="COUNT", help_behavior_hint="")]


@dataclass(frozen=True)
class _ScanFlags:
    """How to read the scan; what is given here overrules the file."""

    scan: tyro.conf.Positional[Path]
    """HDF5 (DXchange, NXtomo, or any layout with the flags below), TIFF stack or folder, or Zarr."""
    data: _Text = None
    """Dataset path of the radiographs; in a TIFF folder, a pattern of file names."""
    flats: _Text = None
    """Dataset path, or TIFF file, folder or pattern of the open-beam frames."""
    darks: _Text = None
    """Dataset path, or TIFF file, folder or pattern of the beam-off frames."""
    angles: _Text = None
    """Dataset path, text, csv or npy file, or start:stop for evenly spaced views; degrees."""
    image_key: _Text = None
    """Dataset path of the kind of each frame (0 projection, 1 flat, 2 dark)."""
    angle_unit: Annotated[Literal["deg", "rad"] | None, _Choice] = None
    """Unit of the angles, where the file is wrong or silent."""
    pixel_size: _Number = None
    """Edge of a pixel at the object, in mm."""
    rotation_axis: _Number = None
    """Column of the rotation axis; found automatically when not given."""

    def read(self) -> Scan:
        """Open the scan."""
        from quietray.io import read

        names = [entry.name for entry in dataclasses.fields(_ScanFlags) if entry.name != "scan"]
        return read(self.scan, **{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class _RunFlags:
    """What both halves of reconstructing share; None means the value in --config, or the default in brackets."""

    config: _File = None
    """Settings in TOML, such as the run.toml of an earlier run."""
    rows: _Text = None
    """Detector rows, start:stop (default: all)."""
    region: _Text = None
    """Part of the slices, y0:y1,x0:x1 in pixels (default: all)."""
    filter: Annotated[Literal["ram-lak", "shepp-logan", "hann"] | None, _Choice] = None
    """Filter of the backprojection (default: ram-lak)."""
    air: _Text = None
    """Columns that see the open beam in every view, such as 0:90,745:835; auto; none (default: auto)."""
    rings: Annotated[Literal["auto", "none", "sorting", "large", "all"] | None, _Choice] = None
    """Ring removal (default: auto: only where stripes stand out of the noise)."""
    zingers: _Number = None
    """Threshold of the zinger filter in noise sds; 0 switches it off (default: 6)."""
    max_memory: _Text = None
    """What the process may use, such as 8G (default: 60 % of the free memory)."""
    format: Annotated[Literal["zarr", "h5", "tiff"] | None, _Choice] = None
    """Format of the volume (default: zarr)."""
    overwrite: _Flag = False
    """Replace what is there."""
    json: _Flag = False
    """Print the figures as JSON on standard output."""

    def settings(self, **more: Any) -> Settings:
        """Return the settings of --config with the flags put over them."""
        from quietray.settings import from_dict, read_toml
        from quietray.workflows import Settings

        table = read_toml(self.config) if self.config else {}
        places = {
            "rows": self.rows,
            "region": self.region,
            "max_memory": self.max_memory,
            "format": self.format,
            "reconstruction.filter": self.filter,
            "correction.air": self.air,
            "correction.rings": self.rings,
            "correction.zingers": self.zingers,
            **more,
        }
        for place, value in places.items():
            if value is not None:
                *groups, name = place.split(".")
                inner = table
                for group in groups:
                    inner = inner.setdefault(group, {})
                    if not isinstance(inner, dict):
                        raise SettingsError(
                            f"'{group}' must be a table, got {inner!r}; write [{group}] in {self.config}"
                        )
                inner[name] = value
        return from_dict(Settings, table)


@dataclass(frozen=True)
class Denoise(_RunFlags, _ScanFlags):
    """Denoise a scan without clean data: volume, model, figures and report into one folder."""

    out: Path = Path("out")
    """Output folder."""
    method: Annotated[Literal["auto", "noise2inverse", "noise2self", "noise2void"] | None, _Choice] = None
    """Noise2Inverse denoises the volume; Noise2Self and Noise2Void the radiographs, before they are reconstructed
    (default: auto, which is noise2inverse)."""
    whiten: Annotated[Literal["auto", "always", "never"] | None, _Choice] = None
    """Whether the detector's point response is undone before radiographs are denoised (default: auto, where the noise
    is not white)."""
    reblur: _Flag = False
    """Give denoised radiographs the detector's own resolution again."""
    budget: _Text = None
    """Time for training and inference, such as 90s, 10m, 1.5h (default: 4m)."""
    steps: _Count = None
    """Optimisation steps instead of a time budget; makes a run repeatable to the last bit."""
    parts: _Count = None
    """Angular subsets (default: 4, or 2 where a subset would have few views for the width of the detector)."""
    slices: _Count = None
    """Adjacent slices that the network sees, odd; 1 is 2-D (default: 7)."""
    seed: _Count = None
    """Seed of everything random (default: 0)."""
    resume: _Flag = False
    """Go on with an unfinished run in the output folder."""

    def run(self, console: Console) -> dict[str, Any]:
        """Denoise."""
        from rich.markup import escape

        from quietray.console import TerminalWatch, show_table
        from quietray.report import gain_text
        from quietray.workflows import denoise

        scan = self.read()
        settings = self.settings(
            **{
                "method": self.method,
                "budget": self.budget,
                "seed": self.seed,
                "rotation_axis": self.rotation_axis,
                "training.steps": self.steps,
                "noise2inverse.parts": self.parts,
                "noise2inverse.slices": self.slices,
                "whiten": self.whiten,
                "reblur": self.reblur or None,
            }
        )
        result = denoise(
            scan, self.out, settings, resume=self.resume, overwrite=self.overwrite, watch=TerminalWatch(console)
        )
        estimate = result.metrics["estimate"]
        show_table(
            console,
            "Result",
            {
                "estimated PSNR": f"{_db(estimate['psnr_noisy_db'])} noisy, {_db(estimate['psnr_db'])} denoised",
                "estimated gain": gain_text(estimate),
                "trained": "{steps} steps, {seconds:.0f} s".format_map(result.metrics["training"]),
                "peak memory": f"{result.metrics['memory']['peak'] / 2**30:.2f} GiB",
                "volume": str(self.out / {"zarr": "volume.zarr", "h5": "volume.h5", "tiff": "tiff"}[settings.format]),
                "report": str(self.out / "report.html"),
            },
        )
        for warning in result.warnings:
            console.print(f"[yellow]warning:[/yellow] {escape(warning)}", highlight=False)
        return {**result.metrics, "warnings": list(result.warnings), "out": str(self.out)}


@dataclass(frozen=True)
class Diagnose(_ScanFlags):
    """Measure the noise of a scan: gain, correlation, point response, and which methods it allows."""

    static: Path | None = None
    """Repeated frames of one static scene, in any format that a scan can have; else flats, air or views are used."""
    out: Path | None = None
    """Folder for the picture and the figures (default: only shown)."""
    json: _Flag = False
    """Print JSON on standard output."""

    def run(self, console: Console) -> dict[str, Any]:
        """Diagnose."""
        from quietray.console import show_diagnosis
        from quietray.inspect import diagnosed

        with console.status("measuring the noise"):
            found = diagnosed(self.read(), self.static, self.out)
        show_diagnosis(console, found)
        if self.out is not None:
            console.print(f"picture and figures: {self.out}", highlight=False)
        return found.record()


@dataclass(frozen=True)
class Decorrelate(_ScanFlags):
    """Estimate the detector's point response, whiten radiographs, flats and darks, write them as a scan."""

    out: Path = Path("white.h5")
    """The new scan, DXchange HDF5; the point response is kept in it."""
    static: Path | None = None
    """Repeated frames of one static scene to estimate the response from; else flats, air or views are used."""
    reblur: _Flag = False
    """Go the other way: apply the point response that is kept in a whitened scan."""
    overwrite: _Flag = False
    """Replace a file of that name."""
    json: _Flag = False
    """Print JSON on standard output."""

    def run(self, console: Console) -> dict[str, Any]:
        """Whiten."""
        from quietray.inspect import write_white

        if self.out.exists() and not self.overwrite:
            raise ResourceError(f"{self.out} must not exist yet; give another name or --overwrite")
        with console.status("whitening"):
            facts = write_white(self.read(), self.static, self.out, back=self.reblur, overwrite=self.overwrite)
        console.print(f"{self.out}: {facts['note']}", highlight=False)
        return facts


@dataclass(frozen=True)
class Reconstruct(_RunFlags, _ScanFlags):
    """Reconstruct a scan as it is, without denoising."""

    out: Path = Path("volume.zarr")
    """The new volume."""
    algorithm: Literal["fbp"] = "fbp"
    """Reconstruction algorithm."""

    def run(self, console: Console) -> dict[str, Any]:
        """Reconstruct."""
        from quietray.console import TerminalWatch
        from quietray.workflows import reconstruct

        endings = {".zarr": "zarr", ".h5": "h5", ".hdf5": "h5"}
        chosen = self.format or endings.get(self.out.suffix, "tiff" if self.out.suffix == "" else None)
        if chosen is None:
            raise SettingsError(f"--out must end in .zarr or .h5, or be a folder for TIFF, got {self.out}")
        settings = self.settings(format=chosen, rotation_axis=self.rotation_axis)
        place = reconstruct(self.read(), self.out, settings, overwrite=self.overwrite, watch=TerminalWatch(console))
        console.print(f"volume: {place}", highlight=False, markup=False)
        return {"volume": str(place)}


@dataclass(frozen=True)
class Info(_ScanFlags):
    """Show what is in a scan, and how a run would fit into memory."""

    max_memory: _Text = None
    """Memory to plan with, such as 8G (default: 60 % of the free memory)."""
    json: _Flag = False
    """Print JSON on standard output."""

    def run(self, console: Console) -> dict[str, Any]:
        """Show."""
        from quietray.console import show_table
        from quietray.inspect import describe

        facts = describe(self.read(), self.max_memory)
        show_table(console, str(self.scan), facts)
        return facts


@dataclass(frozen=True)
class Evaluate:
    """Compare a volume with a reference: PSNR, SSIM, RMSE, with range, mask and reference stated."""

    result: tyro.conf.Positional[Path]
    """The volume: Zarr, HDF5 or TIFF."""
    reference: tyro.conf.Positional[Path]
    """Another volume, or a simulated scan that holds the truth."""
    against: Literal["clean-fbp", "phantom"] = "clean-fbp"
    """In a simulated scan: the reconstruction of its noise-free projections, or the phantom itself."""
    rows: _Text = None
    """Slices of the reference that the result holds, start:stop (default: all)."""
    radius: float = 0.97
    """Only voxels within this share of the slice's half-width are compared; 2 compares all."""
    data_range: _Number = None
    """Range of PSNR and SSIM (default: max - min of the reference within the mask)."""
    json: _Flag = False
    """Print JSON on standard output."""

    def run(self, console: Console) -> dict[str, Any]:
        """Compare."""
        from quietray.console import show_table
        from quietray.inspect import evaluate

        figures = evaluate(
            self.result,
            self.reference,
            against=self.against,
            rows=self.rows,
            radius=self.radius,
            data_range=self.data_range,
        )
        show_table(console, f"{self.result} against {self.reference}", _rounded(figures))
        return figures


@dataclass(frozen=True)
class Simulate:
    """Simulate a scan of a foam, the truth included."""

    out: Path
    """The new scan, DXchange HDF5."""
    views: int = 256
    """Radiographs."""
    rows: int = 32
    """Detector rows."""
    cols: int = 128
    """Detector columns."""
    degrees: float = 180.0
    """Range of the views, half open."""
    photons: float = 100.0
    """Expected photons per pixel and view in the open beam."""
    absorption: float = 0.5
    """Mean absorption of the rays that hit the object."""
    spheres: int = 300
    """Voids in the foam, in a height of 0.7 detector half-widths or the detector's, whichever is more."""
    largest: float = 0.08
    """Radius of the largest voids, in half-widths of the detector."""
    rotation_axis: _Number = None
    """Column of the rotation axis (default: the middle)."""
    pixel_size: _Number = None
    """Edge of a pixel in mm (default: unknown: attenuation in 1/pixel)."""
    flats: int = 400
    """Open-beam frames."""
    darks: int = 20
    """Beam-off frames."""
    gain: _Number = None
    """Counts per photon (default: 10, less where 16 bits would overflow)."""
    dark_level: float = 100.0
    """Counts without beam."""
    read_noise: float = 2.0
    """Standard deviation of the readout, in counts."""
    response_width: float = 0.0
    """Decay length of the scintillator's Laplace point response in pixels; 0.5 gives about 390 % correlation."""
    excess: float = 1.0
    """Excess (Swank) factor of the light per photon."""
    flicker: float = 0.0
    """Relative sd of the beam from frame to frame."""
    row_noise: float = 0.0
    """Sd in counts of an offset common to a row."""
    afterglow: float = 0.0
    """Share of the previous frame's light that is seen again."""
    dead: float = 0.0
    """Share of dead pixels."""
    hot: float = 0.0
    """Share of hot pixels."""
    zingers: float = 0.0
    """Share of samples hit by a zinger."""
    seed: int = 0
    """Seed of phantom and noise."""
    overwrite: _Flag = False
    """Replace a file of that name."""
    json: _Flag = False
    """Print JSON on standard output."""

    def run(self, console: Console) -> dict[str, Any]:
        """Simulate."""
        from quietray.inspect import simulate_foam

        if self.out.exists() and not self.overwrite:
            raise ResourceError(f"{self.out} must not exist yet; give another name or --overwrite")
        with console.status("simulating"):
            facts = simulate_foam(**{k: v for k, v in vars(self).items() if k != "json"})
        console.print(
            f"{self.out}: {self.views} views of {self.rows} x {self.cols}, {self.photons:g} photons, seed {self.seed}",
            highlight=False,
            markup=False,
        )
        return facts


@dataclass(frozen=True)
class Demo:
    """Simulate a low-dose scan, denoise it, compare with the truth, write the report."""

    out: Path = Path("out/demo")
    """Output folder."""
    budget: str = "75s"
    """Time for training and inference."""
    json: _Flag = False
    """Print JSON on standard output."""

    def run(self, console: Console) -> dict[str, Any]:
        """Run the whole story."""
        from rich.table import Table

        scan, run = self.out / "foam.h5", self.out / "run"
        console.rule("1. a scan with 100 photons a pixel")
        Simulate(scan, overwrite=True).run(console)
        console.rule("2. noise out, no clean data")
        figures = Denoise(scan, out=run, budget=self.budget, overwrite=True).run(console)
        console.rule("3. now look at the truth")
        noisy = Reconstruct(scan, out=self.out / "noisy.zarr", overwrite=True).run(console)["volume"]
        table = Table("", "PSNR", "SSIM", title="Against the reconstruction of the noise-free projections")
        found: dict[str, Any] = {}
        for name, volume in (("before (FBP)", Path(noisy)), ("after (quietray)", run / "volume.zarr")):
            found[name] = _compare(volume, scan)
            table.add_row(name, f"{found[name]['psnr_db']:.2f} dB", f"{found[name]['ssim']:.3f}")
        gain = found["after (quietray)"]["psnr_db"] - found["before (FBP)"]["psnr_db"]
        table.add_section()
        table.add_row("gain", f"{gain:+.2f} dB", "")
        table.add_row("gain, estimated without truth", f"{figures['estimate']['psnr_gain_db']:+.2f} dB", "")
        console.print(table)
        console.print(f"report: {run / 'report.html'}", highlight=False, markup=False)
        return {"comparison": found, "gain_db": gain, "estimated_gain_db": figures["estimate"]["psnr_gain_db"]}


def _compare(volume: Path, scan: Path) -> dict[str, Any]:
    from quietray.inspect import evaluate

    return evaluate(volume, scan)


def _db(value: float | None) -> str:
    return "not known" if value is None else f"{value:.1f} dB"


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: f"{value:.5g}" if isinstance(value, float) else value for name, value in figures.items()}


def _finite(value: Any) -> Any:
    """Return figures with None, which JSON knows, in place of infinities and NaN, which it does not."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Info, tyro.conf.subcommand("info")]
    | Annotated[Diagnose, tyro.conf.subcommand("diagnose")]
    | Annotated[Denoise, tyro.conf.subcommand("denoise")]
    | Annotated[Decorrelate, tyro.conf.subcommand("decorrelate")]
    | Annotated[Reconstruct, tyro.conf.subcommand("reconstruct")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Simulate, tyro.conf.subcommand("simulate")]
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with 0, 2 (something that the user can mend) or 1 (our fault)."""
    command = tyro.cli(
        _Command,
        prog="quietray",
        description="Remove the noise from X-ray radiographs and CT volumes, without any clean data.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it reports the precision that we chose
    try:
        figures = command.run(console)
    except QuietrayError as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except MemoryError:
        console.print("[red]error:[/red] the machine ran out of memory; give a smaller --max-memory", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        kept = "; what was learned and written is kept, go on with --resume" if isinstance(command, Denoise) else ""
        console.print(f"stopped{kept}", highlight=False)
        sys.exit(130)
    except Exception:
        traceback.print_exc()
        console.print("[red]this is a fault of quietray, not yours:[/red] please report it with the lines above")
        sys.exit(1)
    if getattr(command, "json", False):
        print(json.dumps(_finite(figures), indent=2, default=str, allow_nan=False))


if __name__ == "__main__":
    main()
