"""Texts and images of a comparison of methods, for the page and the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quietray.pictures import LONGEST, Window, data_uri, detailed_region, grey, grey_window, shrink
from quietray.report.words import MINUS, NOT_KNOWN, duration, interval, label, number
from quietray.types import Slice

__all__ = ["Board", "Gallery", "Picture", "Row", "board_of", "gallery_of"]

ROOM = 1_400_000  # characters for all images

_SETTINGS = {
    "sigma": "sigma {} px", "sigma_value": "sigma {} in value", "sigma_space": "sigma {} px in place",
    "radius": "radius {} px",
    "h": "strength {}", "patch": "patches of {} px", "distance": "up to {} px apart", "threshold": "threshold {}",
    "decay": "decay {}", "levels": "{} scales", "wavelet": "{}", "weight": "weight {}", "parts": "{} angular subsets",
    "slices": "slices seen: {}", "grid": "every {} px hidden", "inference": "{} inference",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row of the table: a method, as text.

    Parameters
    ----------
    method
        Name of the method.
    psnr, interval
        Estimated PSNR and its interval.
    behind
        ``clearly behind`` or ``not clearly behind`` the best; empty for the best.
    seconds
        Run time.
    setting
        Settings of the method.
    marks
        Those of ``best`` and ``recommended`` that apply.
    """

    method: str
    psnr: str
    interval: str
    behind: str
    seconds: str
    setting: str
    marks: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """The table, best first, and what is shown below it.

    Parameters
    ----------
    rows
        Rows of the table.
    left_out
        Methods that were not run, with the reason.
    why
        Reason for the choice.
    of
        What the figures were measured on.
    relative
        Whether to show PSNR only relative to the best. Beside the figures of a run, absolute values would be confusing:
        those are estimated against noise-free data of the same views, these on held-out views.
    """

    rows: tuple[Row, ...]
    left_out: tuple[tuple[str, str], ...]
    why: str
    of: str
    relative: bool = False


@dataclass(frozen=True)
class Picture:
    """The slice by one method, as a PNG data URI, and the row of the table."""

    source: str
    row: Row


@dataclass(frozen=True)
class Gallery:
    """Slices side by side.

    Parameters
    ----------
    pictures
        Slices, best method first.
    height, width
        Size of a slice in pixels.
    factor
        Binning factor: each pixel is the mean of a block of this width.
    crisp
        Whether pixels are shown as squares, without interpolation.
    window
        Values shown black and white, the same for all.
    at
        Left and top of the region to enlarge, in percent.
    greys
        The same window, as numbers.
    """

    pictures: tuple[Picture, ...]
    height: int
    width: int
    factor: int
    crisp: bool
    window: str
    at: tuple[float, float]
    greys: Window


def board_of(record: Mapping[str, Any], unit: str | None = None, relative: bool = False) -> Board:
    """Return the texts of a comparison.

    Parameters
    ----------
    record
        Record from :meth:`quietray.assessment.comparison.Comparison.record`.
    unit
        Unit of the grey values; None if not known.
    relative
        Whether to show PSNR only relative to the best.

    Examples
    --------
    >>> figures = {"psnr_db": 31.4159, "psnr_db_at_least": 31.1, "psnr_db_at_most": None, "clearly_behind": False}
    >>> tv = {"method": "tv", **figures, "rmse": 0.01, "seconds": 75.0, "settings": {"weight": 0.125}}
    >>> about = {"data_range": 0.5, "domain": "volume", "interval": "90 %", "why": "tv has the smallest error."}
    >>> record = {"methods": [tv], "left_out": [], "winner": "tv", "recommended": "tv", **about}
    >>> (row,) = board_of(record).rows
    >>> row.psnr, row.interval, row.behind, row.setting, row.marks
    ('31.42 dB', 'at least 31.10 dB', '', 'weight 0.125', ('best', 'recommended'))
    """
    best = next((one["psnr_db"] for one in record["methods"] if one["method"] == record["winner"]), None)
    marks = (("best", record["winner"]), ("recommended", record["recommended"]))
    rows = tuple(
        Row(
            method=figures["method"],
            psnr=_against(figures["psnr_db"], best) if relative else _decibel(figures["psnr_db"]),
            interval="" if relative else _between(figures["psnr_db_at_least"], figures["psnr_db_at_most"]),
            behind=_behind(figures, record["winner"]),
            seconds=duration(figures["seconds"]),
            setting=_setting(figures["settings"]),
            marks=tuple(mark for mark, name in marks if name == figures["method"]),
        )
        for figures in record["methods"]
    )
    where = f" in {record['judged_in']}" if record["domain"] == "volume" and "judged_in" in record else ""
    span = number(record["data_range"], 3) + (f" {unit}" if unit and record["domain"] == "volume" else "")
    return Board(
        rows=rows,
        left_out=tuple((left["method"], left["reason"]) for left in record["left_out"]),
        why=record["why"],
        of=f"Error of the {record['domain']}{where}, estimated from views that no method used, without a clean "
        + (
            "reference." if relative else f"reference. PSNR for a data range of {span}. Interval: {record['interval']}."
        ),
        relative=relative,
    )


def gallery_of(pictures: Mapping[str, Slice], board: Board, unit: str, room: int = ROOM) -> Gallery | None:
    """Return slices of one shape with one grey window, that of the best method; None if there are no slices.

    Parameters
    ----------
    pictures
        Slices by method.
    board
        Table with a row for each method.
    unit
        Unit of the grey values.
    room
        Characters for all images; if necessary, all are binned by the same factor until they fit.

    Examples
    --------
    >>> import numpy as np
    >>> row = Row("tv", "31.4 dB", "", "", "1 s", "weight 0.1", ("best",))
    >>> shown = gallery_of({"tv": np.eye(40)}, Board((row,), (), "", ""), "1/mm")
    >>> shown.width, shown.factor, shown.pictures[0].row.method
    (40, 1, 'tv')
    """
    rows = [row for row in board.rows if row.method in pictures]
    if not rows:
        return None
    best = pictures[rows[0].method]
    window = grey_window([best])
    height, width = best.shape

    def encoded(factor: int) -> list[str]:
        return [data_uri(grey(shrink(pictures[row.method], factor), window)) for row in rows]

    factor = math.ceil(max(height, width) / LONGEST)
    sources = encoded(factor)
    while sum(map(len, sources)) > room and factor < max(height, width):
        factor += 1
        sources = encoded(factor)
    region = detailed_region(best, window)
    centre = (region.left + region.width / 2) / width, (region.top + region.height / 2) / height
    return Gallery(
        pictures=tuple(Picture(source, row) for source, row in zip(sources, rows, strict=True)),
        height=height,
        width=width,
        factor=factor,
        crisp=max(height, width) <= 240,
        window=f"{interval(window.low, window.high)} {unit}",
        at=(round(100 * centre[0], 2), round(100 * centre[1], 2)),
        greys=window,
    )


def _known(value: float | int | None) -> bool:
    return value is not None and math.isfinite(value)


def _decibel(value: float | int | None) -> str:
    return f"{value:.2f} dB".replace("-", MINUS) if value is not None and math.isfinite(value) else NOT_KNOWN


def _against(value: float | None, best: float | None) -> str:
    """Return the difference of a PSNR from the best one."""
    if value is None or best is None or not math.isfinite(value - best):
        return NOT_KNOWN
    return f"{value - best:+.2f} dB".replace("-", MINUS) if value != best else "0 dB"


def _between(least: float | int | None, most: float | int | None) -> str:
    """Return an interval; either end may be unknown, because an estimated squared error can be negative."""
    if _known(least) and _known(most):
        return f"{_decibel(least).removesuffix(' dB')} to {_decibel(most)}"
    if _known(least):
        return f"at least {_decibel(least)}"
    return f"at most {_decibel(most)}" if _known(most) else NOT_KNOWN


def _behind(figures: Mapping[str, Any], winner: str) -> str:
    if figures["method"] == winner:
        return ""
    return "clearly behind" if figures["clearly_behind"] else "not clearly behind"


def _setting(settings: Mapping[str, Any]) -> str:
    """Return the settings of a method as text."""
    first = next(iter(settings.values()), None)
    if isinstance(first, (int, float)) and not isinstance(first, bool) and first == 0:
        return "no filter"
    words = {key: _SETTINGS[key] for key in settings if key in _SETTINGS}
    words = words or {key: f"{label(key).lower()} {{}}" for key in settings}
    plain = {key: number(item, 3) if isinstance(item, (int, float)) else str(item) for key, item in settings.items()}
    return ", ".join(form.format(plain[key]) for key, form in words.items())
