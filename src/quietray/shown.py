"""Displays of a result: a few lines of text, HTML for notebooks, a figure."""

from __future__ import annotations

import io
import math
import operator
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from quietray.assessment.gains import gain_text, headline
from quietray.errors import GeometryError, SettingsError
from quietray.pictures import Window, data_uri, detailed_region, grey, grey_window, shrink, stated_window
from quietray.types import Slice

__all__ = ["Look", "Panels", "facts_of", "figure_of", "look_of", "page_of", "text_of"]

_LONGEST = 512  # pixels of an image in a notebook; a larger slice is averaged, and a part is shown at full resolution
_SEEN = 320  # pixels that a smaller image is enlarged to
_CUTS = {"z": ("axial", ("y", "x")), "y": ("coronal", ("z", "x")), "x": ("sagittal", ("z", "y"))}
_WARNINGS, _WORDS = 4, 110  # number of warnings printed, and characters of each


@dataclass(frozen=True, eq=False)
class Look:
    """One slice of a result.

    Parameters
    ----------
    after, before
        ``(y, x)``, denoised and noisy; `before` is None if it is not available.
    place
        Position of the slice, as text.
    window
        Values shown black and white in both.
    unit
        Unit of the values.
    axes
        Names of the axes along the rows and along the columns.
    lacking
        Why there is no `before`, and how to get it.
    """

    after: Slice
    before: Slice | None
    place: str
    window: Window
    unit: str
    axes: tuple[str, str] = ("y", "x")
    lacking: str = ""


class Panels(NamedTuple):
    """The axes of a figure of a slice, which a notebook shows exactly once."""

    before: Any
    after: Any
    difference: Any

    @property
    def figure(self) -> Any:
        """The figure, which can be saved: ``panels.figure.savefig("slice.png")``."""
        return self.after.figure

    def __repr__(self) -> str:
        return f"Panels({', '.join(axis.get_title() for axis in self if axis.get_title())})"

    def _repr_png_(self) -> bytes:
        """Return the image, and close the figure, which the notebook would otherwise show again."""
        import matplotlib.pyplot as plt

        picture = io.BytesIO()
        self.figure.savefig(picture, format="png")
        plt.close(self.figure)
        return picture.getvalue()


def look_of(
    volume: Any,
    metrics: Mapping[str, Any],
    cuts: Mapping[str, tuple[Slice, Slice]],
    at: tuple[str, int | None] = ("z", None),
    step: int | None = None,
    before: Any = None,
) -> Look:
    """Return one slice of a result, without reading the others.

    Parameters
    ----------
    volume
        ``(z, y, x)``, ``(step, z, y, x)`` or ``(image, row, col)``; may be lazy.
    metrics
        Figures of the run.
    cuts
        Middle slices, noisy and denoised, stored by the run.
    at
        Axis that the slice is perpendicular to, and its index; the middle if None. Negative indices count from the end.
    step
        Step or channel of a series; the middle one if None.
    before
        Noisy volume to compare with, of the same shape as the volume.

    Raises
    ------
    GeometryError
        The slice does not exist, or `before` has another shape.
    SettingsError
        A step is given, but the result is not a series.
    """
    shape = tuple(int(size) for size in volume.shape)
    images, series = metrics["method"]["domain"] == "images", len(shape) == 4
    if step is not None and not series:
        raise SettingsError(f"step must be left out if the result is not a series, got {step}")
    if before is not None and tuple(before.shape) != shape:
        raise GeometryError(f"before must be of the result's shape {shape}, got {tuple(before.shape)}")
    axis = "zyx".index(at[0])
    names = ("image", "row", "column") if images else ("z", "y", "x")
    kept, size = cuts.get(_CUTS[at[0]][0]), shape[axis - 3]
    number, middle = _index(names[axis], at[1], size), size // 2
    key: tuple[Any, ...] = (*[slice(None)] * axis, number)
    place = f"{names[axis]} {number} of {size}" if images else f"{names[axis]} = {number} of {size}"
    if series:
        of = (metrics.get("series") or {}).get("of", "step")
        entry = _index(of, step, shape[0])
        key, place = (entry, *key), f"{place}, {of} {entry}"
        middle = middle if entry == shape[0] // 2 else -1
    noisy, clean, lacking = None, None, ""
    if kept is not None and number == middle:
        noisy, clean = kept
    if clean is None:
        clean = np.asarray(volume[key], np.float32)
    if before is not None:
        noisy = np.asarray(before[key], np.float32)
    elif noisy is None:
        what, such_as = ("images", "read_images(...)") if images else ("volume", "reconstruct(scan)")
        some = "only the middle slice is kept."
        if kept is None:
            some = "nothing is in memory; the run's report.html shows it."
        lacking = f"Of the noisy {what} {some}\nTo see more of it:\nplot(before=quietray.{such_as})"
    unit, stated = metrics["scan"]["unit"], metrics["scan"].get("window")
    chosen = stated_window(None if stated is None else tuple(stated), unit)
    window = grey_window([clean]) if chosen is None else Window(*chosen)
    first, second = (name for name in names if name != names[axis])
    return Look(clean, noisy, place, window, unit, (first, second), lacking)


def facts_of(volume: Any, metrics: Mapping[str, Any], trust: Any, folder: Path | None) -> dict[str, str]:
    """Return a summary of a result, as text by name."""
    method, training, scan, estimate = (metrics[name] for name in ("method", "training", "scan", "estimate"))
    images = method["domain"] == "images"
    axes = ["image", "row", "col"] if images else ["z", "y", "x"]
    if len(volume.shape) == 4:
        axes = [(metrics.get("series") or {}).get("of", "step"), *axes]
    size = scan.get("pixel_size_mm") if images else scan.get("voxel_size_mm")
    edge = f", {'pixels' if images else 'voxels'} of {size:g} mm" if size else ""
    known = [headline(estimate)[name] for name in ("psnr_noisy_db", "psnr_db")]
    levels = "" if None in known else f"; PSNR from {known[0]:.1f} to {known[1]:.1f} dB"
    verdict = metrics.get("verdict")
    facts = {"verdict": f"{verdict['kind']}: {verdict['reason']}"} if verdict else {}
    facts |= {
        "images" if images else "volume": f"{_by(volume.shape)} ({', '.join(axes)}), {scan['unit']}{edge}",
        "estimated gain": gain_text(estimate) + levels,
        "method": _made_by(method, training) + (", tried only" if metrics.get("given_back") else ""),
    }
    seconds = metrics.get("seconds")
    facts |= {} if seconds is None else {"whole run": _time(seconds)}
    facts |= {} if trust is None else {"trust": "an uncertainty map, in .trust"}
    return facts | {"folder": "none, all in memory" if folder is None else _ended(str(folder))}


def text_of(title: str, facts: Mapping[str, str], warnings: Sequence[str]) -> str:
    """Return a result as text.

    Examples
    --------
    >>> print(text_of("Result", {"volume": "3 x 4 x 5"}, ["Too few views.  " * 20]))
    Result
      volume: 3 x 4 x 5
      warnings: 1
        Too few views. Too few views. Too few views. Too few views. Too few views. Too few views. Too few views. ...
    """
    lines = [title, *(f"  {name}: {fact}" for name, fact in facts.items())]
    lines.append(f"  warnings: {len(warnings) or 'none'}")
    lines += [f"    {textwrap.shorten(one, _WORDS, placeholder=' ...')}" for one in warnings[:_WARNINGS]]
    if len(warnings) > _WARNINGS:
        lines.append(f"    and {len(warnings) - _WARNINGS} more, in .warnings")
    return "\n".join(lines)


def page_of(title: str, facts: Mapping[str, str], warnings: Sequence[str], look: Look | str) -> str:
    """Return a result as self-contained HTML, in which all text is escaped.

    Parameters
    ----------
    title, facts, warnings
        As in :func:`text_of`, but warnings are not shortened.
    look
        Slice to show, or the reason why there is none.

    Examples
    --------
    >>> page_of("Result of <scan>", {"volume": "3 x 4 x 5"}, (), "gone")[:60]
    '<div style="max-width:70em"><p><b>Result of &lt;scan&gt;</b>'
    """
    lines = [f"<b>{escape(title)}</b>", *(f"{escape(name)}: {escape(fact)}" for name, fact in facts.items())]
    told = "" if warnings else "<p>no warnings</p>"
    if warnings:
        items = "".join(f"<li>{escape(one)}</li>" for one in warnings)
        told = f"<p><b>warnings</b></p><ul>{items}</ul>"
    shown = f"<p>{escape(look)}</p>" if isinstance(look, str) else _pictures(look)
    return f'<div style="max-width:70em"><p>{"<br>".join(lines)}</p>{shown}{told}</div>'


def figure_of(look: Look, title: str) -> Panels:
    """Draw a slice before, after, and their difference; return the three axes.

    If an image is not available, the reason is shown in its place.
    """
    import matplotlib.pyplot as plt  # only here, because it may need a display

    height, width = look.after.shape
    tall = float(np.clip(4.0 * height / width, 1.2, 9.0))
    figure, axes = plt.subplots(1, 3, figsize=(14, tall + 1.0), sharex=True, sharey=True, layout="constrained")
    figure.suptitle(title, parse_math=False)
    shades = {"vmin": look.window.low, "vmax": look.window.high}
    taken = None if look.before is None else np.asarray(look.before, np.float64) - look.after
    half = 1.0 if taken is None else _spread(taken, look.window)
    panels = (
        ("before", look.before, shades),
        ("after", look.after, shades),
        ("before - after", taken, {"vmin": -half, "vmax": half}),
    )
    for axis, (name, image, limits) in zip(axes, panels, strict=True):
        if image is None:
            told = look.lacking if name == "before" else ""
            axis.text(0.5, 0.5, told, transform=axis.transAxes, ha="center", va="center", parse_math=False)
            axis.set_box_aspect(height / width)
            axis.set_axis_off()
            continue
        axis.set_title(f"{name}, {look.place}", parse_math=False)
        axis.set_xlabel(f"{look.axes[1]} (pixel)")
        drawn = axis.imshow(image, cmap="gray", interpolation="nearest", **limits)
        figure.colorbar(drawn, ax=axis, label=look.unit, fraction=0.046, pad=0.03)
    first = axes[0 if look.before is not None else 1]
    first.tick_params(labelleft=True)
    first.set_ylabel(f"{look.axes[0]} (pixel)")
    return Panels(*axes)


def _index(what: str, asked: int | None, size: int) -> int:
    """Return an index along an axis; the middle if none is given."""
    number = size // 2 if asked is None else operator.index(asked)
    if not -size <= number < size:
        raise GeometryError(f"{what} must be from 0 to {size - 1}, got {number}")
    return number % size


def _spread(difference: np.ndarray, window: Window) -> float:
    """Return the largest magnitude of the difference that is shown."""
    sizes = np.abs(difference[np.isfinite(difference)])
    half = float(np.percentile(sizes, 99.5)) if sizes.size else 0.0
    return half or (window.high - window.low) / 10


def _pictures(look: Look) -> str:
    """Return the slice before and after, side by side; for a large slice, also a part at full resolution."""
    factor = math.ceil(max(look.after.shape) / _LONGEST)
    low, high = (f"{end:.3g}" for end in (look.window.low, look.window.high))
    averaged = f", each pixel the mean of {factor} x {factor}" if factor > 1 else ""
    rows = [_row(look, f"{look.place}{averaged}", factor)]
    if factor > 1:
        region = detailed_region(look.after, look.window)
        before = None if look.before is None else region.of(look.before)
        place = f"rows {region.top} to {region.top + region.height}, columns {region.left} to "
        part = Look(region.of(look.after), before, "", look.window, look.unit)
        rows.append(_row(part, f"{place}{region.left + region.width}, pixel by pixel", 1))
    both = "" if look.before is None else ", in both alike"
    said = f"grey from {low} to {high} {look.unit}{both}"
    said += "" if look.before is not None else ". " + look.lacking.split("\n")[0]
    return f'<table style="border:0;font-size:inherit">{"".join(rows)}</table><p><small>{escape(said)}</small></p>'


def _row(look: Look, place: str, factor: int) -> str:
    cells = []
    for name, image in (("before", look.before), ("after", look.after)):
        if image is None:
            continue
        picture = grey(shrink(image, factor), look.window)
        height, width = (max(1, round(size * max(1.0, _SEEN / max(picture.shape)))) for size in picture.shape)
        sharp = ";image-rendering:pixelated" if width > picture.shape[1] else ""
        style, alt = f"max-width:100%;height:auto{sharp}", escape(f"{name}: {place}", quote=True)
        cells.append(
            '<td style="text-align:left;vertical-align:top;background:none;border:0;padding:0 0.6em 0.6em 0">'
            f"<b>{name}</b>, {escape(place)}<br>"
            f'<img alt="{alt}" width="{width}" height="{height}" style="{style}" src="{data_uri(picture)}">'
            "</td>"
        )
    return f'<tr style="background:none">{"".join(cells)}</tr>'


def _made_by(method: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    """Return method and training, as text."""
    if method["parameters"]:
        steps, seconds = training["steps"], training["seconds"]
        learned = f"{steps} steps in {_time(seconds)}" if steps else "trained before"
        return f"{method['name']} ({method['domain']}), network {method['network']}, {learned}"
    tuned = method["settings"].items()
    values = (f"{name} {item:.3g}" if isinstance(item, float) else f"{name} {item}" for name, item in tuned)
    return ", ".join([f"filter {method['name']}", *values])


def _time(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _by(shape: Sequence[int]) -> str:
    return " x ".join(str(int(size)) for size in shape)


def _ended(path: str) -> str:
    """Return a path, or only its end if it is long."""
    return path if len(path) <= _WORDS else f"...{path[-_WORDS:]}"
