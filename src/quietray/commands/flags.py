"""Flags that commands share."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from quietray.errors import FormatError, SettingsError, nearest, require_path
from quietray.running.places import named_after, require_free, require_new, require_no_other_run
from quietray.settings import parse_bytes, parse_seconds

if TYPE_CHECKING:
    from rich.console import Console

    from quietray.running.settings import Settings
    from quietray.scan import Scan

__all__ = [
    "NAMES",
    "Choice",
    "CleanFlags",
    "ClusterFlags",
    "Count",
    "File",
    "FirstFlags",
    "Flag",
    "MethodFlags",
    "Number",
    "OutFlags",
    "Paths",
    "PhaseFlags",
    "RunFlags",
    "ScanFlags",
    "Text",
    "check_at_once",
]

# What a command reads, by its flags.
_INPUTS = {
    **dict.fromkeys(("scan", "more", "repeats", "series", "channels"), "scan"),
    **dict.fromkeys(("model", "from_"), "model"),
    **dict.fromkeys(("result", "reference", "clean"), "volume"),
    "images": "images",
    "static": "stack of frames",
    "folder": "output folder",
    "config": "settings file",
}

NAMES = {
    "method": (
        *("auto", "noise2inverse", "noise2self", "noise2void", "noisier2noise", "noise2projection", "noise2noise"),
        *(
            "noise2clean",
            "recorrupted",
            "apbsn",
            "pseudo-ct",
            "gaussian",
            "median",
            "bilateral",
            "nlm",
            "wavelet",
            "tv",
        ),
    ),
    "network": ("unet", "lehtinen", "msd", "redcnn", "dncnn"),
    "format": ("zarr", "h5", "tiff", "bigtiff", "mhd", "nii"),
}
"""What may be named without asking the modules that bring it, which take seconds to import; others bring more."""

_OTHERS = {
    "method": ("quietray.splits", "quietray.filters"),
    "network": ("quietray.networks",),
    "format": ("quietray.volumes",),
}
_RANGES = {
    "rows": (r"\s*\d*\s*:\s*\d*\s*", "like 55:128 (first:last), either may be left out"),
    "region": (r"\s*\d*\s*:\s*\d*\s*,\s*\d*\s*:\s*\d*\s*", "like 100:300,150:400 (y0:y1,x0:x1 in pixels)"),
}
_STARTS = ("default", "scratch", "prior", "auto")

# Options without a default of their own tell it in their text: most take it from --config or from the settings.
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
Choice = tyro.conf.arg(help_behavior_hint="")
Text = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")]
File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
Number = Annotated[float | None, tyro.conf.arg(metavar="NUMBER", help_behavior_hint="")]
Paths = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILES", help_behavior_hint="")]
Count = Annotated[int | None, tyro.conf.arg(metavar="COUNT", help_behavior_hint="")]


def _window(words: list[str]) -> tuple[float, float] | None:
    """Return a window, None for auto."""
    if words == ["auto"]:
        return None
    if len(words) != 2:
        raise ValueError(f"must be auto, or LOW HIGH, got {' '.join(words)}")
    return float(words[0]), float(words[1])


Window = Annotated[
    tuple[float, float] | None,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=(1, 2),
        metavar="auto|LOW HIGH",
        instance_from_str=_window,
        is_instance=lambda value: value is None or isinstance(value, tuple),
        str_from_instance=lambda value: ["auto"] if value is None else [str(one) for one in value],
    ),
    tyro.conf.arg(help_behavior_hint=""),
]


def check_at_once(command: Any) -> None:
    """Check what can be checked of a command before libraries are imported that take seconds.

    Raises
    ------
    QuietrayError
        What it is to read does not exist, what it is to write does, a time, a size or a range is none, or there is no
        method, network or format of that name.

    Examples
    --------
    >>> check_at_once(ScanFlags(Path("nowhere.h5")))
    Traceback (most recent call last):
    quietray.errors.FormatError: the scan must exist, got nowhere.h5; check the path
    """
    for name, what in _INPUTS.items():
        given = getattr(command, name, None)
        for path in given if isinstance(given, tuple) else [given]:
            if path is not None and not (name == "from_" and str(path) in _STARTS):
                require_path(what, path)
                if what == "model" and not (path / "model.json").exists():
                    raise FormatError(f"{path} must hold a model.json written by quietray, got none; check the path")
    for name, parse in (("budget", parse_seconds), ("max_memory", parse_bytes), ("device_memory", parse_bytes)):
        if (text := getattr(command, name, None)) is not None:
            parse(text)
    for name, (pattern, like) in _RANGES.items():
        text = getattr(command, name, None)
        if isinstance(text, str) and not re.fullmatch(pattern, text):
            raise SettingsError(f"--{name} must be {like}, got '{text}'")
    for name, known in NAMES.items():
        text = getattr(command, name, None)
        if isinstance(text, str) and text not in known and not _brought(name):
            raise SettingsError(f"--{name} must be one of {', '.join(known)}, got '{text}'{nearest(text, known)}")
    if isinstance(command, OutFlags):
        command.check_place()


def _brought(name: str) -> bool:
    """Return whether there may be others than our own: of other packages, or of this process."""
    here = sys.modules.get({"method": "quietray.method", "network": "quietray.networks", "format": "quietray.io"}[name])
    return here is not None or any(entry_points(group=group) for group in _OTHERS[name])


@dataclass(frozen=True)
class FirstFlags:
    """What every command tells, how much of it, and where."""

    _: KW_ONLY
    log: File = None
    """Also write everything that is told into FILE, with the time of each line; what is in it stays."""
    quiet: Flag = False
    """Tell errors and the last line only."""
    verbose: Flag = False
    """Also tell how long each stage took and how much memory it needed."""
    json: Flag = False
    """Print the figures as one JSON document on standard output; errors, too."""

    def last_line(self, figures: Mapping[str, Any]) -> str:
        """Return what --quiet leaves of all that is told: what was written, and the gain where one was estimated."""
        place = next((figures[name] for name in ("out", "volume", "model", "scan") if name in figures), None)
        gain = (figures.get("estimate") or {}).get("psnr_gain_db")
        told = [] if gain is None else [f"estimated gain {gain:+.1f} dB"]
        told += [f"{len(figures['warnings'])} warnings"] if figures.get("warnings") else []
        return ", ".join([f"written: {place}" if place else "done", *told])


@dataclass(frozen=True)
class OutFlags:
    """Where a command writes."""

    ENDING: ClassVar[str] = ""
    """Of the name of the output, after the name of what it is made from."""
    WHAT: ClassVar[str] = "run"
    """What is written: a run, a folder that must be empty (output, model), or a file (scan, volume)."""

    out: File = None
    overwrite: Flag = False
    """Replace what is there."""

    @property
    def place(self) -> Path:
        """Where to write: ``--out``, else a place named after what is read."""
        if self.out is not None:
            return self.out
        given = next(getattr(self, name) for name in ("scan", "images") if hasattr(self, name))
        return named_after(given, self.ENDING)

    def check_place(self) -> None:
        """Refuse a place that holds something else.

        Raises
        ------
        ResourceError
            It does.
        """
        if self.WHAT == "run":
            if not (self.overwrite or getattr(self, "resume", False)):
                require_no_other_run(self.place, resumable=hasattr(self, "resume"))
        elif self.WHAT in ("output", "model"):
            require_free(self.place, self.WHAT, self.overwrite)
        else:
            require_new(self.WHAT, self.place, self.overwrite)


@dataclass(frozen=True)
class ScanFlags:
    """How to read the scan; what is given here overrules the file."""

    scan: tyro.conf.Positional[Path]
    """HDF5 (DXchange, NXtomo, or any layout with the flags below), TIFF stack or folder, or Zarr."""
    data: Text = None
    """Dataset path of the radiographs; in a TIFF folder, a pattern of file names."""
    flats: Text = None
    """Open-beam frames: dataset path, file or folder. That is a path in the scan, another file such as flats.h5 or
    flats.h5:/dataset, a TIFF file, folder or pattern; or a number, the white level."""
    darks: Text = None
    """Beam-off frames, in the same way."""
    angles: Text = None
    """Dataset path, another HDF5 file, text, csv or npy file, or start:stop for evenly spaced views; degrees."""
    image_key: Text = None
    """Dataset path of the kind of each frame (0 projection, 1 flat, 2 dark)."""
    angle_unit: Annotated[Literal["deg", "rad"] | None, Choice] = None
    """Unit of the angles, where the file is wrong or silent."""
    pixel_size: Number = None
    """Edge of a pixel at the object, in mm."""
    rotation_axis: Number = None
    """Column of the rotation axis; found automatically when not given."""
    half: Annotated[Literal["auto", "yes", "no"] | None, Choice] = None
    """Whether this is a half acquisition: a full turn around an axis near an edge of the detector, with slices up to
    twice as wide (default: auto, as the file says, else where the axis lies outside of the middle fifth)."""
    order: Annotated[Literal["view", "sinogram"] | None, Choice] = None
    """Axes of the stack: sinogram is (row, view, col) or one image (view, col); view is (view, row, col)."""
    rotate: Annotated[Literal[90, 270] | None, Choice] = None
    """Turn radiographs whose rotation axis runs along their rows."""
    source_axis: Number = None
    """From source to rotation axis, of a fan or cone beam, in mm (in pixels where their size is not known)."""
    source_detector: Number = None
    """Distance from source to detector, likewise."""
    raw: Text = None
    """Of a file of numbers alone: TYPE:VIEWSxROWSxCOLS, such as uint16:1500x2048x2048; >uint16 for big-endian numbers,
    +BYTES after it for a header."""
    ignore_scanner: Flag = False
    """Read images as if there were no file of a laboratory scanner beside them; other flags tell angles and beam."""

    def read(self) -> Scan:
        """Open the scan."""
        from quietray.io import read

        names = [entry.name for entry in dataclasses.fields(ScanFlags) if entry.name != "scan"]
        stated = {name: getattr(self, name) for name in names}
        return read(self.scan, **stated | {"half": {"yes": True, "no": False}.get(self.half or "auto")})

    def also(self, others: tuple[Path, ...]) -> list[Scan]:
        """Open further scans in the same way."""
        return [dataclasses.replace(self, scan=path).read() for path in others]


@dataclass(frozen=True)
class MethodFlags:
    """What a method is told; None means the value in --config, or the default in brackets."""

    method: Text = None
    """Name of the method (default: auto). In the volume: noise2inverse, or a filter (gaussian, median, bilateral, nlm,
    wavelet, tv). On the radiographs, before they are reconstructed: noise2self, noise2void, noisier2noise or apbsn. On
    few views: noise2projection. On repeated scans or frames: noise2noise. With a clean volume: noise2clean. On images:
    recorrupted, and pseudo-ct with a model to start from."""
    network: Text = None
    """unet, lehtinen, msd, redcnn or dncnn (default: unet)."""
    whiten: Annotated[Literal["auto", "always", "never"] | None, Choice] = None
    """Whether the detector's point response is undone before radiographs are denoised (default: auto, where the noise
    is not white)."""
    budget: Text = None
    """Time for training and inference, such as 90s, 10m, 1.5h (default: 4m)."""
    steps: Count = None
    """Optimisation steps instead of a time budget; makes a run repeatable to the last bit."""
    loss: Annotated[Literal["mse", "mae"] | None, Choice] = None
    """What training minimises: mse leads to the mean of what the noise allows, mae to the median (default: mse)."""
    parts: Count = None
    """Angular subsets (default: 4, or 2 where a subset would have few views for the width of the detector)."""
    slices: Count = None
    """Adjacent slices that the network sees, odd; 1 is 2-D (default: 7)."""
    times: Count = None
    """Steps of a series that the network sees, odd: the one to be denoised and its neighbours in time (default: 3)."""
    equivariance: Number = None
    """Weight of turned objects in the loss of noise2projection (default: 0, none)."""
    seed: Count = None
    """Seed of everything random (default: 0)."""

    def places(self) -> dict[str, Any]:
        """Return the flags by the settings that they stand for."""
        return {
            "method.name": self.method,
            "network.name": self.network,
            "whiten": self.whiten,
            "budget": self.budget,
            "training.steps": self.steps,
            "training.loss": self.loss,
            "method.parts": self.parts,
            "method.slices": self.slices,
            "method.equivariance": self.equivariance,
            "method.times": self.times,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class CleanFlags:
    """What noise2clean learns from."""

    clean: File = None
    """Clean volume on the grid of the scan, or clean images, for noise2clean (default: the truth that a simulated scan
    holds)."""


@dataclass(frozen=True)
class ClusterFlags:
    """Who computes the slabs; see docs/cluster.md."""

    cluster: Text = None
    """Compute slabs on a Dask cluster: local:4 for four processes here, tcp://HOST:8786 for a scheduler that runs, or a
    TOML file that says how SLURM, PBS, LSF or SGE start workers (default: on this machine, one after the other)."""

    def workers(self, console: Console) -> AbstractContextManager[None]:
        """Return a context in which runs compute their slabs there."""
        if self.cluster is None:
            return nullcontext()
        from quietray.console import TerminalWatch
        from quietray.running.cluster import on_cluster

        return on_cluster(self.cluster, max_memory=getattr(self, "max_memory", None), tell=TerminalWatch(console).note)


@dataclass(frozen=True)
class PhaseFlags:
    """How the phase of radiographs at a distance is retrieved; none is without --delta-beta or --alpha."""

    delta_beta: Number = None
    """Retrieve the phase with this ratio of refraction to absorption of the material, such as 500 (default: do not)."""
    alpha: Number = None
    """Instead of --delta-beta, energy, distance and pixel size: the squared length of the filter, in pixels squared."""
    energy: Number = None
    """Of the photons, in keV, for --delta-beta (default: as the file says)."""
    distance: Number = None
    """From the object to the detector, in mm, for --delta-beta (default: as the file says)."""
    retrieval: Annotated[Literal["paganin", "generalised"] | None, Choice] = None
    """Paganin's filter, or its generalised form, which blurs the finest details less (default: paganin)."""

    def of_phase(self) -> dict[str, Any]:
        """Return the flags by the settings that they stand for."""
        return {f"phase.{entry.name}": getattr(self, entry.name) for entry in dataclasses.fields(PhaseFlags)}


@dataclass(frozen=True)
class RunFlags(PhaseFlags):
    """What both halves of reconstructing share; None means the value in --config, or the default in brackets."""

    config: File = None
    """Settings in TOML, such as the run.toml of an earlier run."""
    rows: Text = None
    """Detector rows, start:stop (default: all)."""
    region: Text = None
    """Part of the slices, y0:y1,x0:x1 in pixels (default: all)."""
    algorithm: Annotated[Literal["fbp", "fdk", "sirt", "cgls", "tv"] | None, Choice] = None
    """Reconstruction: filtered backprojection, of a cone beam that of Feldkamp, Davis and Kress; SIRT or CGLS, for few
    views; least total variation (default: fbp, of a cone beam fdk)."""
    iterations: Count = None
    """How long sirt, cgls and tv iterate (default: sirt and cgls until held-out views are told best, tv 200)."""
    weight: Number = None
    """Weight of the total variation (default: the one that tells held-out views best)."""
    box: Annotated[tuple[float, float] | None, tyro.conf.arg(metavar="MIN MAX", help_behavior_hint="")] = None
    """Least and largest attenuation, for sirt and tv (default: any)."""
    filter: Annotated[Literal["ram-lak", "shepp-logan", "hann"] | None, Choice] = None
    """Filter of the backprojection (default: ram-lak)."""
    air: Text = None
    """Columns that see the open beam in every view, such as 0:90,745:835; auto; none (default: auto)."""
    rings: Annotated[Literal["auto", "none", "sorting", "large", "all"] | None, Choice] = None
    """Ring removal (default: auto: only where stripes stand out of the noise)."""
    own_flats: Annotated[Literal["auto", "yes", "no"] | None, Choice] = None
    """Whether every angular subset is corrected with flats of its own, so that the flats' noise is learned away, too,
    in place of becoming rings (default: auto: where those would show)."""
    zingers: Number = None
    """Threshold of the zinger filter in noise sds; 0 switches it off (default: 6)."""
    line_integrals: Flag = False
    """The projections are line integrals already (XRD-CT, fluorescence, preprocessed data): no flat, no logarithm."""
    device: Text = None
    """Where to compute: auto, a GPU where there is one; cpu; cuda, or one of several such as cuda:1 (default: auto)."""
    max_memory: Text = None
    """What the process may use, such as 8G (default: 60 % of the free memory)."""
    device_memory: Text = None
    """What the volume that is trained on may take of a GPU, such as 8G (default: 80 % of what is free there)."""
    format: Text = None
    """Format of the volume: zarr, h5, tiff (a file per slice), bigtiff (one file), mhd (with a raw file), nii, or one
    that another package brings (default: zarr)."""
    dtype: Annotated[Literal["float32", "uint16", "uint8"] | None, Choice] = None
    """What the volume is stored as, in tiff, bigtiff, mhd and nii: whole numbers stand for values over a window, which
    the file tells (default: float32)."""
    window: Window = None
    """Least and largest value of whole numbers, LOW HIGH; what is outside is clipped (default: auto, the range of the
    volume)."""

    def settings(self, **more: Any) -> Settings:
        """Return the settings of --config with the flags put over them."""
        from quietray.settings import from_dict, read_toml
        from quietray.workflows import Settings

        table = read_toml(self.config) if self.config else {}
        places = {
            "rows": self.rows,
            "region": self.region,
            "half": {"yes": True, "no": False}.get(getattr(self, "half", None) or "auto"),
            "device": self.device,
            "max_memory": self.max_memory,
            "device_memory": self.device_memory,
            "format": self.format,
            "dtype": self.dtype,
            "window": self.window and list(self.window),
            "reconstruction.name": self.algorithm,
            "reconstruction.filter": self.filter,
            "reconstruction.iterations": self.iterations,
            "reconstruction.weight": self.weight,
            "reconstruction.box": self.box and list(self.box),
            "correction.air": self.air,
            "correction.rings": self.rings,
            "correction.own_flats": {None: None, "auto": "none", "yes": True, "no": False}[self.own_flats],
            "correction.zingers": self.zingers,
            "correction.line_integrals": self.line_integrals or None,
            **self.of_phase(),
            **more,
        }
        for place, value in places.items():
            if value is not None:
                *groups, name = place.split(".")
                inner = table
                for group in groups:
                    if isinstance(inner.get(group), str):  # a name stands for a table
                        inner[group] = {"name": inner[group]}
                    inner = inner.setdefault(group, {})
                    if not isinstance(inner, dict):
                        raise SettingsError(
                            f"'{group}' must be a table, got {inner!r}; write [{group}] in {self.config}"
                        )
                inner[name] = value
        method = table.get("method")
        if (
            isinstance(method, dict)
            and "name" not in method
            and method.keys() & {"parts", "slices", "times", "channels"}
        ):
            method["name"] = "noise2inverse"  # whose settings they are
        return from_dict(Settings, table)
