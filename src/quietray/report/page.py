"""The report page: contents of the template, and a file that is written completely or not at all."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from quietray.errors import ResourceError
from quietray.pictures import (
    LONGEST,
    Region,
    Window,
    data_uri,
    detailed_region,
    grey,
    grey_window,
    outline_uri,
    round_length,
    shrink,
)
from quietray.report.comparison import Gallery, board_of, gallery_of
from quietray.report.data import Cut, ReportData
from quietray.report.evidence import resolution_and_noise
from quietray.report.plots import histogram_figure, judged, profile_figure, ranking_figure, training_figure
from quietray.report.reel import Film, film_of, fitting
from quietray.report.trust import trust_picture
from quietray.report.words import interval, length, number, sections, with_units
from quietray.running.planes import spread

__all__ = ["write_report"]

LARGEST = 4_900_000  # bytes of the page, at most
BUDGET = 1_500_000  # characters for the images of all cuts; the largest are binned until they fit
_SLIDES = 2_600_000  # characters for the slices to scroll through, at most
_STEPS = 600_000  # characters for the images of steps, at most


@dataclass(frozen=True)
class _ScaleBar:
    """Length of the bar, in percent of the width of the image and as text."""

    percent: float
    text: str


@dataclass(frozen=True)
class _Inset:
    """An enlarged region."""

    before: str
    after: str
    difference: str
    region: Region
    outline: str
    span: str


@dataclass(frozen=True)
class _Panel:
    """Contents of the template for one cut."""

    name: str
    axes: tuple[str, str]
    before: str
    after: str
    height: int
    width: int
    factor: int
    extent: str
    empty: str
    crisp: bool
    shape: str
    bar: _ScaleBar | None
    inset: _Inset
    object: str


@dataclass(frozen=True)
class _Step:
    """Small images of one step or channel."""

    name: str
    before: str
    after: str


def write_report(path: Path, data: ReportData) -> Path:
    """Write one self-contained HTML file, replacing an older one atomically.

    All cuts share one grey window; if none is given, it is taken from the denoised images.

    Parameters
    ----------
    path
        Path of the file; its folder must exist.
    data
        Contents of the report.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ResourceError
        The file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(Path(folder) / "report.html", ReportData("<tooth>", unit="1/mm", voxel_size=None))
    ...     "<h1>&lt;tooth&gt;</h1>" in page.read_text(encoding="utf-8")
    True
    """
    _replace(path, _render(data).encode("utf-8", errors="backslashreplace"))
    return path


def _render(data: ReportData) -> str:
    """Return the page as text; strings are escaped by the template, those in figures by matplotlib."""
    window = grey_window([cut.after for cut in data.cuts]) if data.window is None else Window(*data.window)
    compared = data.metrics.get("comparison")
    element = "pixel" if data.images else "voxel"
    beside = "estimate" in data.metrics
    board = board_of(compared, data.unit, beside) if compared else None
    panels, board_pictures = _panels(data, window), gallery_of(data.pictures, board, data.unit) if board else None
    templates = Environment(
        loader=PackageLoader("quietray.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    numbers = {key: item for key, item in data.metrics.items() if key != "comparison"}
    template = templates.get_template("report.html.j2")
    shown: dict[str, Any] = {
        "data": data,
        "panels": panels,
        "board": board,
        "ranking": Markup(ranking_figure(compared["methods"]) if compared and not beside else ""),
        "gallery": board_pictures,
        "trust": None
        if data.trust is None
        else trust_picture(data.cuts[0].after, data.trust, data.metrics["trust"], window, data.unit),
        "window": f"{interval(window.low, window.high)} {data.unit}",
        "greys": (window.low, window.high),
        "element": element,
        "object": ((data.metrics.get("estimate") or {}).get("object") or {}).get("found", ""),
        "voxel": length(data.voxel_size) if data.voxel_size else None,
        "profile": Markup(profile_figure(data.cuts[0], data.unit, data.voxel_size) if data.cuts else ""),
        "detail": resolution_and_noise(data.evidence, data.unit),
        "profile_row": data.cuts[0].before.shape[0] // 2 if data.cuts else 0,
        "histogram": Markup(histogram_figure(data.histogram, data.unit, window, element) if data.histogram else ""),
        "training": Markup(training_figure(data.history)),
        "judged": judged(data.history),
        "metrics": sections(with_units(numbers, data.unit), "Run"),
        "provenance": sections(data.provenance, "This run"),
        "steps": _steps(data, window),
        "channels": _channels(data),
        "films": {},
    }
    if not data.stacks and all(cut.stack is None for cut in data.cuts):
        return template.render(shown)
    room = min(_SLIDES, LARGEST - len(template.render(shown)))
    return template.render({**shown, "films": _films(data, window, board_pictures, room)})


def _films(data: ReportData, window: Window, gallery: Gallery | None, room: int) -> dict[str, dict[str, Any]]:
    """Return slices to scroll through for the script, by name of the panel: ``cut-1`` and so on, ``gallery``."""
    found: dict[str, Film] = {}
    for place, cut in enumerate(data.cuts, 1):
        if cut.stack is not None and len(cut.labels) > 1:
            pictures = {"before": cut.stack.before, "after": cut.stack.after}
            found[f"cut-{place}"] = film_of(cut.labels, pictures, window, cut.stack.factor)
    if gallery is not None and data.stacks:
        factor = max(1, round(max(gallery.height, gallery.width) / 220))
        count = len(next(iter(data.stacks.values())))
        pixels = len(data.stacks) * (gallery.height // factor + 1) * (gallery.width // factor + 1)
        kept = spread(count, max(1, room // (2 * pixels // 3)))
        if len(kept) > 1:
            shown = {name: np.stack([shrink(stack[z], factor) for z in kept]) for name, stack in data.stacks.items()}
            found["gallery"] = film_of([f"slice {z + 1} of {count}" for z in kept], shown, gallery.greys, factor)
    fit = fitting(tuple(found.values()), room)
    return {name: film.record() for name, film in zip(found, fit, strict=False)}


def _channels(data: ReportData) -> bool:
    """Return whether the steps are channels."""
    return any(name.startswith("channel") for name in data.steps)


def _steps(data: ReportData, window: Window) -> list[_Step]:
    """Return the middle slices of the steps, binned until they fit; each channel has its own grey window."""
    factor = 1
    windows = {name: grey_window([after]) if _channels(data) else window for name, (_, after) in data.steps.items()}
    while data.steps:
        found = [
            _Step(name, *(data_uri(grey(shrink(one, factor), windows[name])) for one in pair))
            for name, pair in data.steps.items()
        ]
        if sum(len(one.before) + len(one.after) for one in found) <= _STEPS:
            return found
        factor += 1
    return []


def _panels(data: ReportData, window: Window) -> list[_Panel]:
    """Return all cuts with their images, binned until the file is small enough."""
    factors = [math.ceil(max(cut.before.shape) / LONGEST) for cut in data.cuts]
    images = [_images(cut, window, factor) for cut, factor in zip(data.cuts, factors, strict=True)]
    weights = [len(before) + len(after) for before, after in images]
    while sum(weights) > BUDGET:
        largest = weights.index(max(weights))
        factors[largest] += 1
        images[largest] = _images(data.cuts[largest], window, factors[largest])
        weights[largest] = sum(map(len, images[largest]))
    return [
        _panel(cut, window, factor, pair, data.unit, data.voxel_size, data.object if place == 0 else None)
        for place, (cut, factor, pair) in enumerate(zip(data.cuts, factors, images, strict=True))
    ]


def _images(cut: Cut, window: Window, factor: int) -> tuple[str, str]:
    """Return both images of a cut as PNG data URIs."""
    before, after = (data_uri(grey(shrink(image, factor), window)) for image in (cut.before, cut.after))
    return before, after


def _panel(
    cut: Cut,
    window: Window,
    factor: int,
    images: tuple[str, str],
    unit: str,
    voxel_size: float | None,
    object: Bool[np.ndarray, "_ _"] | None = None,
) -> _Panel:
    """Return the contents of the template for one cut, with the outline of the object."""
    height, width = cut.before.shape
    return _Panel(
        name=cut.name,
        axes=cut.axes,
        before=images[0],
        after=images[1],
        height=height,
        width=width,
        factor=factor,
        extent=f"{length(width * voxel_size)} by {length(height * voxel_size)}" if voxel_size else "",
        empty=number(int(np.count_nonzero(~np.isfinite(cut.before) | ~np.isfinite(cut.after)))),
        crisp=max(height, width) <= 480 or min(height, width) <= 32,
        shape=_shape(width / height),
        bar=_scale_bar(width, voxel_size),
        inset=_inset(cut, window, unit),
        object="" if object is None else outline_uri(object[::factor, ::factor]),
    )


def _shape(ratio: float) -> str:
    """Return the layout for images of this aspect ratio, width over height."""
    return next((name for most, name in ((0.2, "slim"), (1.6, "even"), (9, "broad")) if ratio <= most), "thin broad")


def _scale_bar(width: int, voxel_size: float | None) -> _ScaleBar | None:
    """Return a scale bar of at most a fifth of the image's width; None for very narrow images."""
    if width < 10:
        return None
    pixels = round_length(width / 5 * (voxel_size or 1)) / (voxel_size or 1)
    text = length(pixels * voxel_size) if voxel_size else f"{number(pixels)} px"
    return _ScaleBar(percent=round(100 * pixels / width, 3), text=text)


def _inset(cut: Cut, window: Window, unit: str) -> _Inset:
    """Return the most detailed region before, after, and the difference."""
    region = detailed_region(cut.after, window)
    before, after = region.of(cut.before), region.of(cut.after)
    with np.errstate(invalid="ignore"):
        difference = before.astype(np.float64) - after
    spread = np.abs(difference[np.isfinite(difference)])
    half = float(np.percentile(spread, 99.5)) if spread.size else 0.0
    half = half or (window.high - window.low) / 10
    rows, cols = cut.before.shape
    place = (region.left / cols, region.top / rows, region.width / cols, region.height / rows)
    return _Inset(
        before=data_uri(grey(before, window)),
        after=data_uri(grey(after, window)),
        difference=data_uri(grey(difference, Window(-half, half))),
        region=region,
        outline=";".join(
            f"{name}:{100 * share:.3f}%" for name, share in zip(("left", "top", "width", "height"), place, strict=True)
        ),
        span=f"±{number(half, 3)} {unit}",
    )


def _replace(path: Path, content: bytes) -> None:
    """Write a temporary file beside `path` and rename it."""
    fresh = path.with_name(f".{path.name}.partial")  # may be left by a killed process; the next report replaces it
    try:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            with open(os.open(fresh, flags, 0o666), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise ResourceError(
            f"{path} must be writable, got: {error.strerror}; free some space or give another folder"
        ) from error
