"""Examine scans, compare volumes, simulate a scan, run the demonstration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from quietray.commands.flags import Count, FirstFlags, Flag, Number, ScanFlags, Text
from quietray.commands.runs import Denoise, Reconstruct
from quietray.running.places import require_new
from quietray.simulate.foam_scan import FoamScan

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Check", "Demo", "Evaluate", "Info", "Simulate"]


_SECONDS = {"info": 3.0, "check": 6.0}  # for examining views


@dataclass(frozen=True)
class Info(FirstFlags, ScanFlags):
    """Show what a scan contains, what a run would report about it, and how it would fit into memory."""

    max_memory: Text = None
    """Memory to plan with, such as 8G (default: 60 % of the free memory)."""

    def run(self, console: Console) -> dict[str, Any]:
        """Show the table."""
        facts = self._images() or self._described()
        from quietray.console import show_table

        show_table(console, str(self.scan), facts)
        return facts

    def _described(self) -> dict[str, Any]:
        scan = self.read()
        from quietray.detector.correction.correct import Correction
        from quietray.preparation.examine import examine
        from quietray.running.describe import describe

        found = examine(scan, Correction(), _SECONDS["info"], axis=False)
        return {**describe(scan, self.max_memory), **found.record()}

    def _images(self) -> dict[str, Any]:
        """Return the contents of a series of images; empty for a scan."""
        from quietray.io import image_format, read_images

        kind = image_format(self.scan)
        alone = kind not in (None, "tiff") and not (kind == "npy" and self.angles)  # npy may be projections
        return read_images(self.scan).describe() if alone else {}


@dataclass(frozen=True)
class Check(FirstFlags, ScanFlags):
    """Examine a scan in a few seconds: its contents, anything unusual, and whether a run would be refused."""

    line_integrals: Flag = False
    """The projections are line integrals already."""
    air: Text = None
    """Columns with the open beam in every view, such as 0:90,745:835; auto; none (default: auto)."""
    max_memory: Text = None
    """Memory to plan with, such as 8G (default: 60 % of the free memory)."""

    def run(self, console: Console) -> dict[str, Any]:
        """Show the table, then raise the error if a run would be refused."""
        scan = self.read()
        from quietray.console import show_table
        from quietray.detector.correction.correct import Correction
        from quietray.preparation.examine import examine
        from quietray.running.describe import describe

        correction = Correction(line_integrals=self.line_integrals, air=self.air or "auto")
        found = examine(scan, correction, _SECONDS["check"], axis=True)
        facts = {**describe(scan, self.max_memory), **found.record()}
        show_table(console, str(self.scan), facts)
        if found.refusal is not None:
            found.refusal.facts = facts
            raise found.refusal
        return facts


@dataclass(frozen=True)
class _Compared:
    """The two volumes to compare."""

    result: tyro.conf.Positional[Path]
    """The volume: Zarr, HDF5 or TIFF; or images: DICOM, PNG, TIFF or NPY, or the folder of a run on images."""
    reference: tyro.conf.Positional[Path]
    """Another volume, a simulated scan with its ground truth, or images."""


@dataclass(frozen=True)
class Evaluate(FirstFlags, _Compared):
    """Compare a volume with a reference: PSNR, SSIM, RMSE, with their range, window and mask; bias of tissues in HU."""

    against: Literal["clean-fbp", "phantom"] = "clean-fbp"
    """Compare with the reconstruction of noise-free projections, or with the phantom itself, for a simulated scan."""
    rows: Text = None
    """Slices of the reference that correspond to the result, start:stop (default: all)."""
    radius: Number = None
    """Compare only voxels within this fraction of the slice's half-width; 2 compares all (default: 0.97; of images
    all that was measured)."""
    window: Annotated[tuple[float, float] | None, tyro.conf.arg(metavar="LOW HIGH", help_behavior_hint="")] = None
    """Clip values outside this window, such as -160 240 HU, and use its width as data range (default: none)."""
    data_range: Number = None
    """Data range of PSNR and SSIM (default: the window's, else max - min of the reference within the mask)."""
    step: Count = None
    """Step or channel to compare, for a series."""

    def run(self, console: Console) -> dict[str, Any]:
        """Show the figures."""
        from quietray.console import show_table, show_tissues
        from quietray.evaluate import evaluate

        figures = evaluate(
            self.result,
            self.reference,
            against=self.against,
            rows=self.rows,
            step=self.step,
            radius=self.radius,
            window=self.window,
            data_range=self.data_range,
        )
        others = {name: value for name, value in figures.items() if not name.startswith("tissues")}
        show_table(console, f"{self.result} against {self.reference}", _rounded(others))
        if "tissues" in figures:
            show_tissues(console, figures["tissues"], figures["tissues_are"])
        return figures


@dataclass(frozen=True)
class _New:
    """The output file."""

    out: Path
    """The new scan: NXtomo if the name ends in .nx or .nxs, else DXchange HDF5."""


@dataclass(frozen=True)
class Simulate(FirstFlags, FoamScan, _New):
    """Simulate a scan of a foam with any beam, including the ground truth."""

    # Options without a default of their own, described in FoamScan.
    source_axis: Number = None
    source_detector: Number = None
    degrees: Number = None
    rotation_axis: Number = None
    pixel_size: Number = None
    gain: Number = None

    overwrite: Flag = False
    """Replace an existing file."""

    def run(self, console: Console) -> dict[str, Any]:
        """Write the scan."""
        require_new("scan", self.out, self.overwrite)
        with console.status("simulating"):
            facts = self.write(self.out, overwrite=self.overwrite)
        console.print(
            f"{self.out}: {self.views} views of {self.rows} x {self.cols}, {self.photons:g} photons, seed {self.seed}",
            highlight=False,
            markup=False,
        )
        return facts


@dataclass(frozen=True)
class Demo(FirstFlags):
    """Simulate a low-dose scan, denoise it, compare with the ground truth, write the report."""

    out: Path = Path("out/demo")
    """Output folder."""
    budget: str = "75s"
    """Time for training and inference."""

    def run(self, console: Console) -> dict[str, Any]:
        """Run all steps of the demonstration."""
        from rich.table import Table

        from quietray.assessment.gains import gain_text
        from quietray.evaluate import evaluate

        scan, run = self.out / "foam.h5", self.out / "run"
        console.rule("1. a scan with 100 photons per pixel")
        Simulate(scan, overwrite=True).run(console)
        console.rule("2. denoised without clean data")
        fresh = Path("scratch")  # the demo shows that one noisy scan is enough
        figures = Denoise(scan, out=run, method="noise2inverse", from_=fresh, budget=self.budget, overwrite=True).run(
            console
        )
        console.rule("3. compared with the ground truth")
        noisy = Reconstruct(scan, out=self.out / "noisy.zarr", overwrite=True).run(console)["volume"]
        table = Table("", "PSNR", "SSIM", title="Against the reconstruction of the noise-free projections")
        found: dict[str, Any] = {}
        for name, volume in (("before (FBP)", Path(noisy)), ("after (quietray)", run / "volume.zarr")):
            found[name] = evaluate(volume, scan)
            table.add_row(name, f"{found[name]['psnr_db']:.2f} dB", f"{found[name]['ssim']:.3f}")
        gain = found["after (quietray)"]["psnr_db"] - found["before (FBP)"]["psnr_db"]
        table.add_section()
        table.add_row("gain", f"{gain:+.2f} dB", "")
        seen = {name: value for name, value in figures["estimate"].items() if name != "object"}  # as compared here
        table.add_row("estimated gain", gain_text(seen), "")
        console.print(table)
        console.print(f"report: {run / 'report.html'}", highlight=False, markup=False)
        estimated = {f"estimated_gain_db{end}": seen[f"psnr_gain_db{end}"] for end in ("", "_at_least")}
        return {"comparison": found, "gain_db": gain, **estimated}


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: f"{value:.5g}" if isinstance(value, float) else value for name, value in figures.items()}
