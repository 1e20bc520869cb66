"""Series of images: denoise them, filter them, compare them, look at them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from quietray.commands.flags import Flag, Paths

if TYPE_CHECKING:
    from rich.console import Console

    from quietray.inference.result import Result

__all__ = ["Filter", "told_of_images"]


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
        return told_of_images(console, result, self.out)


def told_of_images(console: Console, result: Result, out: Path) -> dict[str, Any]:
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
