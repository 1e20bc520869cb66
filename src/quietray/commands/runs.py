"""The commands that denoise, compare, train, apply and reconstruct."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from quietray.commands.flags import (
    CleanFlags,
    ClusterFlags,
    Count,
    File,
    FirstFlags,
    Flag,
    MethodFlags,
    Number,
    OutFlags,
    Paths,
    RunFlags,
    ScanFlags,
)
from quietray.commands.images import (
    applied_to_images,
    denoised_images,
    of_images,
    refuse_flags_of_scans,
    trained_on_images,
)
from quietray.errors import ResourceError, SettingsError
from quietray.running.places import named_after

if TYPE_CHECKING:
    from rich.console import Console

    from quietray.result import Result
    from quietray.running.settings import Settings

__all__ = ["Apply", "Batch", "Compare", "Denoise", "Reconstruct", "Train"]

_ENDINGS = {"zarr": ".zarr", "h5": ".h5", "bigtiff": ".tif", "mhd": ".mhd", "nii": ".nii"}  # tiff is a folder


@dataclass(frozen=True)
class Denoise(FirstFlags, OutFlags, ClusterFlags, CleanFlags, MethodFlags, RunFlags, ScanFlags):
    """Denoise a scan or a series of images without clean data; write result, model, figures, report to one folder."""

    ENDING: ClassVar[str] = "-denoised"

    out: File = None
    """Output folder (default: named after the scan, such as scan-denoised)."""
    reblur: Flag = False
    """After whitening, restore the detector's own resolution in the denoised radiographs."""
    repeats: Paths = ()
    """Further scans of the same object, or series of the same images, for noise2noise."""
    series: Paths = ()
    """Further steps of a time series, in order."""
    channels: Paths = ()
    """Further channels of a spectral series; each keeps its own scale."""
    views_per_step: Count = None
    """Number of views in each step, to divide one acquisition into a time series."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from", metavar="START", help_behavior_hint="")] = None
    """Initial weights: scratch, random; prior, the shipped network if it fits; auto, the model on this machine with the
    most similar noise (see `quietray models`), else the prior; or the folder of a model (default: prior if there is
    time for few steps only, else scratch; with --config, as the file says)."""
    remember: Flag = False
    """Keep the model on this machine for later runs; see `quietray models`."""
    preview: Flag = False
    """During training, update preview.png and report.html in the output folder whenever the error is estimated."""
    trust: Number = None
    """Fraction of the budget for two more networks, whose disagreement gives an uncertainty map (default: 0, no
    map)."""
    resume: Flag = False
    """Continue an unfinished run in the output folder."""

    def run(self, console: Console) -> dict[str, Any]:
        """Denoise the input."""
        if of_images(self.scan, self.method, self.angles, bool(self.repeats)):
            refuse_flags_of_scans(self, "clean")
            places = self.places()
            if self.slices is not None and not (self.method or self.config):  # a method that has this setting
                places["method.name"] = "noise2noise" if self.repeats else "recorrupted"
            images = self.settings(**places, start=None if self.from_ is None else str(self.from_))
            return denoised_images(
                console, self.scan, self.place, images, self.repeats, resume=self.resume, overwrite=self.overwrite
            )
        from quietray.io.repeated import read_frames

        frames = self.method == "noise2noise" and not self.repeats
        if self.series and self.channels:
            raise SettingsError("a series must be one of steps or of channels; give --series or --channels, not both")
        # Read first: errors of files come before large libraries are imported.
        scan = read_frames(self.scan) if frames else self.read()
        repeats, series = self.also(self.repeats), self.also(self.series or self.channels)
        from quietray.console import TerminalWatch
        from quietray.workflows import denoise

        steps = bool(self.series) or self.views_per_step is not None
        neighbours = steps and not self.config and self.times is None and self.method in (None, "noise2inverse")
        settings = self.settings(
            **self.places() | ({"method.times": 3} if neighbours else {}),
            **({"method.channels": 1 + len(self.channels)} if self.channels else {}),
            views_per_step=self.views_per_step,
            rotation_axis=self.rotation_axis,
            reblur=self.reblur or None,
            start=self._start(),
            clean=None if self.clean is None else str(self.clean),
            trust=self.trust,
        )
        with self.workers(console):
            result = denoise(
                scan,
                self.place,
                settings,
                resume=self.resume,
                overwrite=self.overwrite,
                repeats=repeats,
                series=series,
                watch=TerminalWatch(console, self.preview, self.place),
            )
        told = _told(console, result, self.scan, self.place, settings)
        if self.remember:
            from quietray.workflows import remember

            name = remember(result, scan)
            console.print(f"remembered as: {name}", highlight=False, markup=False)
            told["remembered"] = name
        return told

    def _start(self) -> str | None:
        """Return the setting for initial weights; None if the settings file determines it."""
        from quietray.workflows import first_start

        if self.from_ is not None:
            return str(self.from_)
        return None if self.config else first_start(self.place, self.resume)


@dataclass(frozen=True)
class _Scans:
    """The input of a batch."""

    scans: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SCANS")]
    """The scans; those that are done already are skipped."""


@dataclass(frozen=True)
class Batch(FirstFlags, OutFlags, ClusterFlags, MethodFlags, RunFlags, ScanFlags, _Scans):
    """Denoise many scans, each into its own folder; a model is trained once, and applied if the noise is similar."""

    scan: tyro.conf.Suppress[Path] = Path()
    out: File = None
    """Output folder, with a folder for each scan and index.html (default: batch)."""
    each: Flag = False
    """Train a model for every scan, instead of applying one that was trained on similar noise."""

    @property
    def place(self) -> Path:
        """Path of the output."""
        return self.out or Path("batch")

    def check_place(self) -> None:
        """Accept any folder: an interrupted batch is continued."""

    def run(self, console: Console) -> dict[str, Any]:
        """Denoise all scans."""
        if not self.scans:
            raise SettingsError("SCANS must name at least one scan, got none")
        from quietray.batch import batch, failures
        from quietray.console import TerminalWatch

        start = None if self.config else "default"
        settings = self.settings(**self.places(), rotation_axis=self.rotation_axis, start=start)
        with self.workers(console):
            entries = batch(
                self.scans,
                self.place,
                settings,
                reuse=not self.each,
                overwrite=self.overwrite,
                open=self.opened,
                watch=TerminalWatch(console),
            )
        console.print(f"report: {self.place / 'index.html'}", highlight=False, markup=False)
        failed = failures(entries)
        if failed:
            told = "\n".join(failed)
            raise ResourceError(
                f"all scans must be denoised, got {len(failed)} of {len(entries)} that were not:\n{told}\n"
                "correct them and give the same command again; finished scans are kept"
            )
        return {"entries": [dataclasses.asdict(one) for one in entries], "out": str(self.place)}

    def opened(self, path: Path) -> Any:
        """Open a scan with the flags."""
        return dataclasses.replace(self, scan=path).read()


@dataclass(frozen=True)
class Compare(FirstFlags, OutFlags, ClusterFlags, MethodFlags, RunFlags, ScanFlags):
    """Rank every method and filter on a scan by held-out views, without ground truth."""

    ENDING: ClassVar[str] = "-compared"
    WHAT: ClassVar[str] = "output"

    out: File = None
    """Output folder (default: named after the scan, such as scan-compared)."""

    def run(self, console: Console) -> dict[str, Any]:
        """Compare the methods."""
        if self.method not in (None, "auto"):
            raise SettingsError(f"compare must be free to try every method, got --method {self.method}; leave it out")
        scan = self.read()
        from quietray.console import TerminalWatch, show_comparison, show_verdict
        from quietray.workflows import compare

        start = None if self.config else "default"
        settings = self.settings(**self.places(), rotation_axis=self.rotation_axis, start=start)
        with self.workers(console):
            found = compare(scan, self.place, settings, overwrite=self.overwrite, watch=TerminalWatch(console))
        show_verdict(console, found.verdict)
        show_comparison(console, found.record())
        console.print(f"report: {self.place / 'report.html'}", highlight=False, markup=False)
        return {**found.record(), "verdict": found.verdict, "out": str(self.place)}


@dataclass(frozen=True)
class Train(FirstFlags, OutFlags, CleanFlags, MethodFlags, RunFlags, ScanFlags):
    """Train one model on scans, or on pairs of images, to apply it to similar ones.

    A folder of pairs contains 'clean', 'noisy', and possibly 'noisy2' and more: each a file or the folder of a series.
    """

    ENDING: ClassVar[str] = "-model"
    WHAT: ClassVar[str] = "model"

    out: File = None
    """Folder of the model (default: named after the first scan, such as scan-model)."""
    more: Paths = ()
    """Further scans to train on, or folders of pairs, one for each subject."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from", metavar="MODEL", help_behavior_hint="")] = None
    """Folder of a trained model to start from, instead of random weights."""
    noise_models: Flag = False
    """Also train a model of the noise of each subject, a default U-Net, for pseudo-ct; requires clean images, takes
    half the time."""

    def run(self, console: Console) -> dict[str, Any]:
        """Train the model."""
        if of_images(self.scan, self.method, self.angles, pairs=True, clean=self.clean):
            return self._train_on_images(console)
        if self.noise_models:
            raise SettingsError("--noise-models must be left out for scans; it is for pairs of images")
        scans = [self.read(), *self.also(self.more)]
        from quietray.console import TerminalWatch
        from quietray.workflows import train

        settings = self.settings(
            **self.places(),
            rotation_axis=self.rotation_axis,
            start=None if self.from_ is None else str(self.from_),
            clean=None if self.clean is None else str(self.clean),
        )
        denoiser = train(scans, self.place, settings, overwrite=self.overwrite, watch=TerminalWatch(console))
        console.print(
            f"model: {self.place}, {denoiser.facts['steps']} steps on {len(scans)} scans", highlight=False, markup=False
        )
        return {"model": str(self.place), **denoiser.facts}

    def _train_on_images(self, console: Console) -> dict[str, Any]:
        refuse_flags_of_scans(self, "slices", "max_memory")
        settings = self.settings(
            **self.places(),
            start=None if self.from_ is None else str(self.from_),
            noise_models=self.noise_models or None,
        )
        places = (self.scan, *self.more)
        return trained_on_images(console, places, self.clean, self.place, settings, overwrite=self.overwrite)


@dataclass(frozen=True)
class _Model:
    """The model."""

    model: tyro.conf.Positional[Path]
    """Folder of the model."""


@dataclass(frozen=True)
class Apply(FirstFlags, OutFlags, ClusterFlags, CleanFlags, RunFlags, ScanFlags, _Model):
    """Denoise a scan or images with a trained model; warns if they differ from those that it was trained on."""

    ENDING: ClassVar[str] = "-applied"

    out: File = None
    """Output folder (default: named after the scan, such as scan-applied)."""
    strict: Flag = False
    """Refuse data that differ, instead of warning."""

    def run(self, console: Console) -> dict[str, Any]:
        """Apply the model."""
        if of_images(self.scan, None, self.angles, model=self.model):
            refuse_flags_of_scans(self, "clean")
            return applied_to_images(
                console,
                self.model,
                self.scan,
                self.place,
                self.settings(),
                strict=self.strict,
                overwrite=self.overwrite,
            )
        scan = self.read()
        from quietray.console import TerminalWatch
        from quietray.workflows import apply

        settings = self.settings(
            rotation_axis=self.rotation_axis, clean=None if self.clean is None else str(self.clean)
        )
        with self.workers(console):
            result = apply(
                self.model,
                scan,
                self.place,
                settings,
                strict=self.strict,
                overwrite=self.overwrite,
                watch=TerminalWatch(console, folder=self.place),
            )
        return _told(console, result, self.scan, self.place, settings)


def _told(console: Console, result: Result, scan: Path, out: Path, settings: Settings) -> dict[str, Any]:
    """Show the figures of a run; return them for --json."""
    from rich.markup import escape

    from quietray.assessment.gains import gain_text, headline, psnr_text
    from quietray.console import show_comparison, show_table, show_verdict
    from quietray.io import VolumeFormat
    from quietray.report.words import size

    estimate = result.metrics["estimate"]
    told = headline(estimate)
    show_verdict(console, result.metrics["verdict"])
    if result.metrics["verdict"]["kind"] == "Do not use it":
        again = shlex.join(["quietray", "reconstruct", str(scan), "--out", str(out / "measured.zarr")])
        console.print(f"the volume without denoising: {again}", highlight=False, markup=False, soft_wrap=True)
    back = result.metrics.get("given_back")
    if back:
        again = shlex.join(["quietray", "apply", str(out / "model"), str(scan), "--out", str(out / "denoised")])
        console.print(f"the denoised volume anyway: {again}", highlight=False, markup=False, soft_wrap=True)
    if "comparison" in result.metrics:
        show_comparison(console, result.metrics["comparison"], relative=True)
    show_table(
        console,
        "Result",
        {
            "method": result.metrics["method"]["name"] + (", tried only" if back else ""),
            "estimated PSNR": f"{_db(told['psnr_noisy_db'])} noisy, {psnr_text(told)} denoised",
            "estimated gain": gain_text(estimate),
            **_trained(result),
            "peak memory": size(result.metrics["memory"]["peak"]),
            "volume": str(out / VolumeFormat.registry[settings.format].volume),
            "report": str(out / "report.html"),
        },
    )
    for warning in result.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", highlight=False)
    begun = result.denoiser.facts.get("started_from")
    told = {**result.metrics, "warnings": list(result.warnings), "out": str(out)}
    return told if begun is None else {**told, "started_from": begun}


def _trained(result: Result) -> dict[str, str]:
    """Return what the network learned for how long, and from which weights; nothing for a filter."""
    from quietray.assessment.gains import means_text

    if not result.denoiser.trained:
        return {}
    training = result.metrics["training"]
    return {
        "trained": f"{training['steps']} steps{means_text(training)}, {training['seconds']:.0f} s",
        "started from": str(result.denoiser.facts.get("started_from", "")),
    }


@dataclass(frozen=True)
class Reconstruct(FirstFlags, OutFlags, ClusterFlags, RunFlags, ScanFlags):
    """Reconstruct a scan without denoising it."""

    WHAT: ClassVar[str] = "volume"

    out: File = None
    """The new volume (default: named after the scan and --format, such as scan-reconstructed.zarr)."""

    @property
    def place(self) -> Path:
        """Path of the output."""
        return self.out or named_after(self.scan, f"-reconstructed{_ENDINGS.get(self.format or 'zarr', '')}")

    def run(self, console: Console) -> dict[str, Any]:
        """Reconstruct the scan."""
        scan = self.read()
        from quietray.console import TerminalWatch
        from quietray.io import VolumeFormat, volume_format
        from quietray.workflows import reconstruct

        chosen = self.format or volume_format(self.place)
        if chosen is None:
            endings = [kind.endings[0] for kind in VolumeFormat.registry.values() if kind.endings[0]]
            raise SettingsError(f"--out must end in {' or '.join(endings)}, or be a folder for TIFF, got {self.place}")
        settings = self.settings(format=chosen, rotation_axis=self.rotation_axis)
        with self.workers(console):
            place = reconstruct(scan, self.place, settings, overwrite=self.overwrite, watch=TerminalWatch(console))
        console.print(f"volume: {place}", highlight=False, markup=False)
        return {"volume": str(place)}


def _db(value: float | None) -> str:
    return "not known" if value is None else f"{value:.1f} dB"
