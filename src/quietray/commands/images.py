"""Series of images: denoise them, filter them, train on them, apply a model to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from quietray.commands.flags import File, FirstFlags, OutFlags, Paths, RunFlags
from quietray.errors import SettingsError

if TYPE_CHECKING:
    from rich.console import Console

    from quietray.result import Result
    from quietray.running.settings import Settings

__all__ = ["Filter", "applied_to_images", "denoised_images", "of_images", "refuse_flags_of_scans", "trained_on_images"]

_OF_SCANS = (  # flags that do not apply to images
    *("data", "flats", "darks", "angles", "image_key", "angle_unit", "pixel_size", "rotation_axis", "half"),
    *("order", "rotate", "source_axis", "source_detector", "raw", "ignore_scanner", "dtype", "window"),
    *("rows", "region", "algorithm", "iterations", "weight", "box", "filter", "air", "rings", "own_flats", "zingers"),
    *("delta_beta", "alpha", "energy", "distance", "retrieval"),
    *("line_integrals", "format", "whiten", "parts", "times", "equivariance"),
    *("reblur", "series", "channels", "views_per_step", "trust", "cluster"),
)


@dataclass(frozen=True)
class _Images:
    """The input."""

    images: tyro.conf.Positional[Path]
    """DICOM, PNG, TIFF or NPY: a file, or the folder of one series."""


@dataclass(frozen=True)
class Filter(FirstFlags, OutFlags, _Images):
    """Filter a series of images, with the best strength, found without ground truth."""

    ENDING: ClassVar[str] = "-filtered"

    filter: Literal["gaussian", "median", "bilateral", "nlm", "wavelet", "tv"] = "bilateral"
    """Name of the filter."""
    repeats: Paths = ()
    """Further measurements of the same images, used to tune the filter; the mean of all is filtered."""
    out: File = None
    """Output folder (default: named after the images, such as series-filtered)."""
    seed: Annotated[int, tyro.conf.arg(metavar="COUNT")] = 0
    """Seed, stored in the settings; filters are not random."""

    def run(self, console: Console) -> dict[str, Any]:
        """Filter the images."""
        from quietray.io import read_images

        # Read first: errors of files come before large libraries are imported.
        images, repeats = read_images(self.images), [read_images(path) for path in self.repeats]
        from quietray.console import TerminalWatch
        from quietray.filters import FILTERS
        from quietray.workflows import Settings, denoise

        result = denoise(
            images,
            self.place,
            Settings(method=FILTERS[self.filter](), seed=self.seed),
            overwrite=self.overwrite,
            repeats=repeats,
            watch=TerminalWatch(console),
        )
        return told_of_images(console, result, self.place)


def of_images(
    path: Path,
    method: str | None,
    angles: str | None,
    repeats: bool = False,
    *,
    pairs: bool = False,
    clean: Path | None = None,
    model: Path | None = None,
) -> bool:
    """Return whether the input of a command is images, not a scan.

    DICOM, PNG and NPY files, volumes with a unit and folders of pairs are images. TIFF files are images if the method
    or the model is for single images and no angles are given.

    Parameters
    ----------
    path
        Path of the input.
    method, angles
        Flags of the command.
    repeats
        Whether there are further measurements.
    pairs
        Whether the command takes pairs.
    clean
        Clean volume or images to train on.
    model
        Folder of the model to apply.
    """
    from quietray.io import image_format, is_pairs

    if pairs and angles is None and is_pairs(path):
        return True
    kind = image_format(path)
    if kind != "tiff":
        return kind is not None and not (kind == "npy" and angles is not None)  # npy may be projections
    from quietray.inference.denoiser import Denoiser
    from quietray.running.settings import METHODS

    if model is not None:
        return Denoiser.load(model).facts.get("domain") == "images"
    known = METHODS.get(method) if method else None
    alone = known is not None and (known.of_images or (known.takes_repeats and repeats))
    alone |= clean is not None and image_format(clean) is not None
    return alone and angles is None


def denoised_images(
    console: Console,
    images: Path,
    out: Path,
    settings: Settings,
    repeats: Sequence[Path],
    *,
    resume: bool,
    overwrite: bool,
) -> dict[str, Any]:
    """Denoise a series of images; the arguments are those of the command."""
    from quietray.console import TerminalWatch
    from quietray.io import read_images
    from quietray.workflows import denoise

    result = denoise(
        read_images(images),
        out,
        settings,
        resume=resume,
        overwrite=overwrite,
        repeats=[read_images(path) for path in repeats],
        watch=TerminalWatch(console, folder=out),
    )
    return told_of_images(console, result, out)


def trained_on_images(
    console: Console, places: Sequence[Path], clean: Path | None, out: Path, settings: Settings, *, overwrite: bool
) -> dict[str, Any]:
    """Train a model on pairs of images, or on noisy images; `clean` is for a single noisy series.

    Raises
    ------
    SettingsError
        Clean images are given in addition to pairs.
    """
    from quietray.console import TerminalWatch
    from quietray.io import ImagePairs, is_pairs, read_images, read_pairs
    from quietray.workflows import train

    if clean is not None and (is_pairs(places[0]) or len(places) > 1):
        raise SettingsError(
            "--clean must go with one series of noisy images; with pairs, put the clean images into the folder 'clean'"
        )
    truth = None if clean is None else read_images(clean)
    pairs = [read_pairs(path) if is_pairs(path) else ImagePairs((read_images(path),), truth) for path in places]
    denoiser = train(pairs, out, settings, overwrite=overwrite, watch=TerminalWatch(console))
    count, steps = sum(pair.noisy[0].n_images for pair in pairs), denoiser.facts["steps"]
    console.print(
        f"model: {out}, {steps} steps on {count} images of {len(pairs)} series", highlight=False, markup=False
    )
    return {"model": str(out), **denoiser.facts}


def applied_to_images(
    console: Console, model: Path, images: Path, out: Path, settings: Settings, *, strict: bool, overwrite: bool
) -> dict[str, Any]:
    """Denoise a series of images with a trained model; the arguments are those of the command."""
    from quietray.console import TerminalWatch
    from quietray.io import read_images
    from quietray.workflows import apply

    watch = TerminalWatch(console, folder=out)
    result = apply(model, read_images(images), out, settings, strict=strict, overwrite=overwrite, watch=watch)
    return told_of_images(console, result, out)


def refuse_flags_of_scans(command: RunFlags, *more: str) -> None:
    """Raise if a flag is given that does not apply to images.

    Parameters
    ----------
    command
        The command with its flags.
    more
        Further flags of this command that do not apply to images.

    Raises
    ------
    SettingsError
        Such a flag is given.
    """
    for entry in dataclasses.fields(command):
        if entry.name in (*_OF_SCANS, *more) and getattr(command, entry.name) != entry.default:
            raise SettingsError(
                f"--{entry.name.replace('_', '-')} must be left out for images, which are not reconstructed, got "
                f"{getattr(command, entry.name)}"
            )


def told_of_images(console: Console, result: Result, out: Path) -> dict[str, Any]:
    """Show the figures of a run; return them for --json."""
    from rich.markup import escape

    from quietray.assessment.gains import gain_text, headline
    from quietray.console import show_table, show_verdict

    show_verdict(console, result.metrics["verdict"])
    estimate, noise, scan = (result.metrics[name] for name in ("estimate", "noise", "scan"))
    settings = result.metrics["method"]["settings"]
    told = ", ".join(f"{name} {value:.3g}" for name, value in settings.items() if isinstance(value, (int, float)))
    show_table(
        console,
        "Result",
        {
            "method": result.metrics["method"]["name"]
            + (f" ({told})" if not result.denoiser.trained else "")
            + (", tried only" if result.metrics.get("given_back") else ""),
            "noise": "not known"
            if noise is None
            else f"sd {noise['sd']:.3g} {scan['unit']}, neighbours correlate by {noise['neighbour_correlation']:+.2f}",
            "estimated gain": gain_text(estimate),
            "estimated error": _rmse(headline(estimate), scan["unit"]),
            "error from": estimate["domain"],
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
