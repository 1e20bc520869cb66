"""Series of images: denoise them, filter them, compare them, look at them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from quietray.commands.flags import Flag, Paths
from quietray.errors import SettingsError

if TYPE_CHECKING:
    from rich.console import Console

    from quietray.commands.runs import Denoise
    from quietray.inference.result import Result

__all__ = ["Filter", "are_images", "denoise_series"]

_OF_IMAGES = ("noise2void", "noise2self", "noisier2noise", "apbsn", "recorrupted")
_FILTERS = ("gaussian", "median", "bilateral", "nlm", "wavelet", "tv")
_OF_SCANS = (  # flags of denoise that mean nothing to images
    *("data", "flats", "darks", "angles", "image_key", "angle_unit", "pixel_size", "rotation_axis"),
    *("rows", "region", "algorithm", "iterations", "weight", "box", "filter", "air", "rings", "zingers"),
    *("line_integrals", "format", "max_memory", "whiten", "parts", "times", "equivariance"),
    *("reblur", "series", "channels", "views_per_step", "trust", "clean"),
)


def are_images(command: Denoise) -> bool:
    """Return whether what a command was given is a series of images, not a scan.

    DICOM, PNG and NPY are.  TIFF is where the method is one for single images and no angles are given.
    """
    from quietray.io import image_format

    kind = image_format(command.scan)
    if kind != "tiff":
        return kind is not None
    alone = command.method in (*_OF_IMAGES, *_FILTERS) or (command.method == "noise2noise" and bool(command.repeats))
    return alone and command.angles is None


def denoise_series(command: Denoise, console: Console) -> dict[str, Any]:
    """Denoise a series of images.

    Raises
    ------
    SettingsError
        A flag is given that means nothing to images.
    """
    from quietray.console import TerminalWatch
    from quietray.io import read_images
    from quietray.workflows import denoise_images

    usual = {entry.name: entry.default for entry in dataclasses.fields(command)}
    for name in _OF_SCANS:
        if getattr(command, name) != usual[name]:
            raise SettingsError(
                f"--{name.replace('_', '-')} must be left out for images, from which nothing is reconstructed, got "
                f"{getattr(command, name)}"
            )
    settings = command.settings(**command.places(), start=None if command.from_ is None else str(command.from_))
    result = denoise_images(
        read_images(command.scan),
        command.out,
        settings,
        resume=command.resume,
        overwrite=command.overwrite,
        repeats=[read_images(path) for path in command.repeats],
        watch=TerminalWatch(console),
    )
    return _told(console, result, command.out)


@dataclass(frozen=True)
class Filter:
    """Filter a series of images, with the strength that serves them best, found without ground truth."""

    images: tyro.conf.Positional[Path]
    """DICOM, PNG, TIFF or NPY: a file, or the folder of one series."""
    filter: Literal["gaussian", "median", "bilateral", "nlm", "wavelet", "tv"] = "bilateral"
    """The filter."""
    repeats: Paths = ()
    """Further measurements of the same images, to tune the filter by; their mean is filtered."""
    out: Path = Path("out")
    """Output folder."""
    seed: Annotated[int, tyro.conf.arg(metavar="COUNT")] = 0
    """Seed, kept in the settings; filters need no chance."""
    overwrite: Flag = False
    """Replace what is there."""
    json: Flag = False
    """Print the figures as JSON on standard output."""

    def run(self, console: Console) -> dict[str, Any]:
        """Filter."""
        from quietray.console import TerminalWatch
        from quietray.filters import FILTERS
        from quietray.io import read_images
        from quietray.runs.settings import as_method
        from quietray.workflows import Settings, denoise_images

        result = denoise_images(
            read_images(self.images),
            self.out,
            Settings(method=as_method(FILTERS[self.filter]()), seed=self.seed),
            overwrite=self.overwrite,
            repeats=[read_images(path) for path in self.repeats],
            watch=TerminalWatch(console),
        )
        return _told(console, result, self.out)


def _told(console: Console, result: Result, out: Path) -> dict[str, Any]:
    """Show the figures of a run; return them for --json."""
    from rich.markup import escape

    from quietray.console import show_table
    from quietray.report import gain_text

    estimate, noise, scan = (result.metrics[name] for name in ("estimate", "noise", "scan"))
    settings = result.metrics["method"]["settings"]
    told = ", ".join(f"{name} {value:.3g}" for name, value in settings.items() if isinstance(value, (int, float)))
    show_table(
        console,
        "Result",
        {
            "method": result.metrics["method"]["name"] + (f" ({told})" if not result.denoiser.trained else ""),
            "noise": "not known"
            if noise is None
            else f"sd {noise['sd']:.3g} {scan['unit']}, neighbours correlate by {noise['neighbour_correlation']:+.2f}",
            "estimated gain": gain_text(estimate),
            "estimated error": _rmse(estimate, scan["unit"]),
            "judged by": estimate["domain"],
            "images": str(out / "series"),
            "report": str(out / "report.html"),
        },
    )
    for warning in result.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", highlight=False)
    return {**result.metrics, "warnings": list(result.warnings), "out": str(out)}


def _rmse(estimate: Any, unit: str) -> str:
    before, after = (estimate[name] for name in ("rmse_noisy", "rmse"))
    return " -> ".join("not known" if value is None else f"{value:.3g}" for value in (before, after)) + f" {unit}"
