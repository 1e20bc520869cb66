"""Flags shared by several commands."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass
from importlib.metadata import entry_points
from operator import attrgetter
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

# Kind of the input that each flag names.
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
"""Known names; the modules that define them take seconds to import.  Other packages may add more."""

_OTHERS = {
    "method": ("quietray.splits", "quietray.filters"),
    "network": ("quietray.networks",),
    "format": ("quietray.volumes",),
}
_HOMES = {
    "method": ("quietray.method", "METHODS"),
    "network": ("quietray.networks.base", "Architecture.registry"),
    "format": ("quietray.io.volumes.base", "VolumeFormat.registry"),
}
_RANGES = {
    "rows": (r"\s*\d*\s*:\s*\d*\s*", "like 55:128"),
    "region": (r"\s*\d*\s*:\s*\d*\s*,\s*\d*\s*:\s*\d*\s*", "like 100:300,150:400 (y0:y1,x0:x1 in pixels of the slice)"),
}
_STARTS = ("default", "scratch", "prior", "auto")

# Options that are None by default state their default in the text: most take it from --config or from the settings.
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
Choice = tyro.conf.arg(help_behavior_hint="")
Text = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")]
File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
Number = Annotated[float | None, tyro.conf.arg(metavar="NUMBER", help_behavior_hint="")]
Paths = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILES", help_behavior_hint="")]
Count = Annotated[int | None, tyro.conf.arg(metavar="COUNT", help_behavior_hint="")]


def _window(words: list[str]) -> tuple[float, float] | None:
    """Return a window, or None for auto."""
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
    """Check the values of flags before large libraries are imported.

    Raises
    ------
    QuietrayError
        An input does not exist, an output does, a time, a size or a range is invalid, or a method, network or format is
        unknown.

    Examples
    --------
    >>> check_at_once(ScanFlags(Path("nowhere.h5")))
    Traceback (most recent call last):
    quietray.errors.FormatError: the scan must exist, got nowhere.h5; check the path
    """
    for name, parse in (("budget", parse_seconds), ("max_memory", parse_bytes), ("device_memory", parse_bytes)):
        if (text := getattr(command, name, None)) is not None:
            parse(text)
    for name, (pattern, like) in _RANGES.items():
        text = getattr(command, name, None)
        if isinstance(text, str) and not re.fullmatch(pattern, text):
            raise SettingsError(f"--{name} must be {like}, got '{text}'")
    for name in NAMES:
        text, known = getattr(command, name, None), _known(name)
        if isinstance(text, str) and known and text not in known:
            raise SettingsError(f"--{name} must be one of {', '.join(known)}, got '{text}'{nearest(text, known)}")
    for name, what in _INPUTS.items():
        given = getattr(command, name, None)
        for path in given if isinstance(given, tuple) else [given]:
            if path is not None and not (name == "from_" and str(path) in _STARTS):
                require_path(what, path)
                if what == "model" and not (path / "model.json").exists():
                    raise FormatError(f"{path} must hold a model.json written by quietray, got none; check the path")
    if isinstance(command, OutFlags):
        command.check_place()


def _known(name: str) -> tuple[str, ...]:
    """Return all known names; none if other packages add some and are not loaded yet."""
    home, place = _HOMES[name]
    if home in sys.modules:
        return tuple(dict.fromkeys([*NAMES[name], *attrgetter(place)(sys.modules[home])]))
    return () if any(entry_points(group=group) for group in _OTHERS[name]) else NAMES[name]


@dataclass(frozen=True)
class FirstFlags:
    """Flags for the messages of every command."""

    _: KW_ONLY
    log: File = None
    """Also append all messages to FILE, with the time of each line."""
    quiet: Flag = False
    """Show only errors and the last line."""
    verbose: Flag = False
    """Also show how long each stage took and how much memory it needed."""
    json: Flag = False
    """Print the figures as one JSON document on standard output; errors, too."""

    def last_line(self, figures: Mapping[str, Any]) -> str:
        """Return the line that --quiet shows: what was written, and the gain if it was estimated."""
        place = next((figures[name] for name in ("out", "volume", "model", "scan") if name in figures), None)
        estimate = figures.get("estimate") or {}
        gain, least, most = (estimate.get(f"psnr_gain_db{end}") for end in ("", "_at_least", "_at_most"))
        told = [] if gain is None else [f"estimated gain {gain:+.1f} dB"]
        if gain is None and least is not None:
            upwards = "or more" if most is None else f"to {most:+.1f} dB"
            told = [f"estimated gain {least:+.1f} dB {upwards}"]
        told += [f"{len(figures['warnings'])} warnings"] if figures.get("warnings") else []
        return ", ".join([f"written: {place}" if place else "done", *told])


@dataclass(frozen=True)
class OutFlags:
    """Where a command writes."""

    ENDING: ClassVar[str] = ""
    """Ending of the default name of the output, after the name of the input."""
    WHAT: ClassVar[str] = "run"
    """Kind of the output: a run, a folder that must be empty (output, model), or a file (scan, volume)."""

    out: File = None
    overwrite: Flag = False
    """Replace existing output."""

    @property
    def place(self) -> Path:
        """Path of the output: ``--out``, or else named after the input."""
        if self.out is not None:
            return self.out
        given = next(getattr(self, name) for name in ("scan", "images") if hasattr(self, name))
        return named_after(given, self.ENDING)

    def check_place(self) -> None:
        """Check that nothing else would be overwritten.

        Raises
        ------
        ResourceError
            Something else is there.
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
    """How to read the scan; these flags override the file."""

    scan: tyro.conf.Positional[Path]
    """HDF5 (DXchange, NXtomo, or any layout with the flags below), TIFF stack or folder, or Zarr."""
    data: Text = None
    """Dataset path of the radiographs; in a TIFF folder, a pattern of file names."""
    flats: Text = None
    """Open-beam frames, as dataset path, file or folder: a path in the scan, another file such as flats.h5 or
    flats.h5:/dataset, a TIFF file, folder or pattern; or a number, the white level."""
    darks: Text = None
    """Beam-off frames, in the same way."""
    angles: Text = None
    """Dataset path, another HDF5 file, text, csv or npy file, or start:stop for evenly spaced views; degrees."""
    image_key: Text = None
    """Dataset path of the type of each frame (0 projection, 1 flat, 2 dark)."""
    angle_unit: Annotated[Literal["deg", "rad"] | None, Choice] = None
    """Unit of the angles, if the file states none or a wrong one."""
    pixel_size: Number = None
    """Edge of a pixel at the object, in mm."""
    rotation_axis: Number = None
    """Column of the rotation axis; found automatically if not given."""
    half: Annotated[Literal["auto", "yes", "no"] | None, Choice] = None
    """Whether this is a half acquisition: a rotation by 360 degrees around an axis near an edge of the detector, with
    slices up to twice as wide (default: auto, as the file says, else if the axis lies outside the middle
    fifth)."""
    order: Annotated[Literal["view", "sinogram"] | None, Choice] = None
    """Axes of the stack: sinogram is (row, view, col) or one image (view, col); view is (view, row, col)."""
    rotate: Annotated[Literal[90, 270] | None, Choice] = None
    """Rotate radiographs whose rotation axis is parallel to their rows, by this many degrees."""
    source_axis: Number = None
    """Distance from source to rotation axis, for a fan or cone beam, in mm (in pixels if the pixel size is not
    known)."""
    source_detector: Number = None
    """Distance from source to detector, in the same unit."""
    raw: Text = None
    """Layout of a raw binary file: TYPE:VIEWSxROWSxCOLS, such as uint16:1500x2048x2048; >uint16 for big-endian numbers,
    +BYTES at the end for a header."""
    ignore_scanner: Flag = False
    """Read the images without the file of a laboratory scanner beside them; give angles and beam with other flags."""

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
    """Settings of the method; None means the value in --config, or the default in brackets."""

    method: Text = None
    """Name of the method (default: auto). In the volume: noise2inverse, or a filter (gaussian, median, bilateral, nlm,
    wavelet, tv). On the radiographs, before they are reconstructed: noise2self, noise2void, noisier2noise or apbsn. On
    few views: noise2projection. On repeated scans or frames: noise2noise. With a clean volume: noise2clean. On images:
    recorrupted, and pseudo-ct with a model to start from."""
    network: Text = None
    """unet, lehtinen, msd, redcnn or dncnn (default: unet)."""
    whiten: Annotated[Literal["auto", "always", "never"] | None, Choice] = None
    """Whether to deconvolve the detector's point response before radiographs are denoised (default: auto, if the
    noise is not white)."""
    budget: Text = None
    """Time for training and inference, such as 90s, 10m, 1.5h (default: 4m)."""
    steps: Count = None
    """Number of optimisation steps, instead of a time budget; the run can then be repeated bit for bit."""
    loss: Annotated[Literal["mse", "mae"] | None, Choice] = None
    """Training loss: mse estimates the mean of the values that the noise allows, mae their median (default: mse)."""
    parts: Count = None
    """Number of angular subsets (default: 4, or 2 if a subset would have few views for the width of the
    detector)."""
    slices: Count = None
    """Number of adjacent slices in the network's input, odd; 1 is 2-D (default: 7, in volumes given as slices 5 if
    these share no noise, in unrelated images 1)."""
    times: Count = None
    """Number of steps of a series in the network's input, odd: the one to be denoised and its neighbours in time
    (default: 3)."""
    equivariance: Number = None
    """Weight of rotated objects in the loss of noise2projection (default: 0, none)."""
    gpus: Count = None
    """Number of GPUs that train a network together, each with its share of every batch; with --device cpu, number of
    processes that do (default: 1)."""
    seed: Count = None
    """Seed of everything random (default: 0)."""

    def places(self) -> dict[str, Any]:
        """Return the values of the flags, by the names of the settings."""
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
            "gpus": self.gpus,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class CleanFlags:
    """Training targets of noise2clean."""

    clean: File = None
    """Clean volume on the grid of the scan, or clean images, for noise2clean (default: the ground truth in a
    simulated scan)."""


@dataclass(frozen=True)
class ClusterFlags:
    """Where the slabs are computed; see docs/cluster.md."""

    cluster: Text = None
    """Compute slabs on a Dask cluster: local:4 for four processes on this machine, tcp://HOST:8786 for a running
    scheduler, or a TOML file that describes how SLURM, PBS, LSF or SGE start workers (default: on this machine, one
    after the other)."""

    def workers(self, console: Console) -> AbstractContextManager[None]:
        """Return a context in which runs compute their slabs on the cluster."""
        if self.cluster is None:
            return nullcontext()
        from quietray.console import TerminalWatch
        from quietray.running.cluster import on_cluster

        return on_cluster(self.cluster, max_memory=getattr(self, "max_memory", None), tell=TerminalWatch(console).note)


@dataclass(frozen=True)
class PhaseFlags:
    """Phase retrieval for radiographs measured at a distance; off without --delta-beta or --alpha."""

    delta_beta: Number = None
    """Retrieve the phase with this ratio of refraction to absorption of the material, such as 500 (default: off)."""
    alpha: Number = None
    """Squared length of the filter in pixels squared, instead of --delta-beta, energy, distance and pixel size."""
    energy: Number = None
    """Photon energy in keV, for --delta-beta (default: as the file says)."""
    distance: Number = None
    """Distance from the object to the detector in mm, for --delta-beta (default: as the file says)."""
    retrieval: Annotated[Literal["paganin", "generalised"] | None, Choice] = None
    """Paganin's filter, or its generalised form, which blurs the finest details less (default: paganin)."""

    def of_phase(self) -> dict[str, Any]:
        """Return the values of the flags, by the names of the settings."""
        return {f"phase.{entry.name}": getattr(self, entry.name) for entry in dataclasses.fields(PhaseFlags)}


@dataclass(frozen=True)
class RunFlags(PhaseFlags):
    """Settings of all commands that reconstruct; None means the value in --config, or the default in brackets."""

    config: File = None
    """Settings in TOML, such as the run.toml of an earlier run."""
    rows: Text = None
    """Detector rows, start:stop (default: all)."""
    region: Text = None
    """Region of interest in the slices, y0:y1,x0:x1 in pixels (default: all)."""
    algorithm: Annotated[Literal["fbp", "fdk", "sirt", "cgls", "tv"] | None, Choice] = None
    """Reconstruction algorithm: fbp, filtered backprojection; fdk, that of Feldkamp, Davis and Kress for cone beams;
    sirt or cgls, for few views; tv, total variation minimisation (default: fbp, of a cone beam fdk)."""
    iterations: Count = None
    """Number of iterations of sirt, cgls and tv (default: tv 200, else until held-out views are predicted best)."""
    weight: Number = None
    """Weight of the total variation (default: the one that predicts held-out views best)."""
    box: Annotated[tuple[float, float] | None, tyro.conf.arg(metavar="MIN MAX", help_behavior_hint="")] = None
    """Minimum and maximum attenuation, for sirt and tv (default: any)."""
    filter: Annotated[Literal["ram-lak", "shepp-logan", "hann"] | None, Choice] = None
    """Filter of the backprojection (default: ram-lak)."""
    air: Text = None
    """Columns with the open beam in every view, such as 0:90,745:835; auto; none (default: auto)."""
    rings: Annotated[Literal["auto", "none", "sorting", "large", "all"] | None, Choice] = None
    """Ring removal (default: auto: only if stripes stand out from the noise)."""
    own_flats: Annotated[Literal["auto", "yes", "no"] | None, Choice] = None
    """Whether to use separate flats for each angular subset, so that training also removes the noise of the flats,
    which would otherwise become rings (default: auto: if these would be visible)."""
    zingers: Number = None
    """Threshold of the zinger filter in standard deviations of the noise; 0 switches it off (default: 6)."""
    line_integrals: Flag = False
    """The projections are line integrals already (XRD-CT, fluorescence, preprocessed data): no flat, no logarithm."""
    device: Text = None
    """Where to compute: auto, a GPU if there is one; cpu; cuda, or one of several such as cuda:1 (default: auto)."""
    max_memory: Text = None
    """Memory that the process may use, such as 8G (default: 60 % of the free memory)."""
    device_memory: Text = None
    """GPU memory for training, half of it for the data or a window of them, such as 8G (default: 80 % of what is free
    there)."""
    format: Text = None
    """Format of the volume: zarr, h5, tiff (a file per slice), bigtiff (one file), mhd (with a raw file), nii, or one
    that another package adds (default: zarr)."""
    dtype: Annotated[Literal["float32", "uint16", "uint8"] | None, Choice] = None
    """Data type of the stored volume, in tiff, bigtiff, mhd and nii: integers represent the values of a window that is
    stored in the file (default: float32)."""
    window: Window = None
    """Values stored as the smallest and the largest integer, LOW HIGH; values outside are clipped (default: auto, the
    range of the volume)."""

    def settings(self, **more: Any) -> Settings:
        """Return the settings of --config, replaced by flags where they are given."""
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
            method["name"] = "noise2inverse"  # the method that has these settings
        return from_dict(Settings, table)
