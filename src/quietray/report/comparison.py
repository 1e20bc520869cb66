"""A comparison of methods in words and pictures: the same ones on the page and in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quietray.pictures import LONGEST, Window, data_uri, detailed_region, grey, grey_window, shrink
from quietray.report.words import MINUS, NOT_KNOWN, duration, interval, label, number
from quietray.types import Slice

__all__ = ["Board", "Gallery", "Picture", "Row", "board_of", "gallery_of"]

ROOM = 1_400_000  # characters for all pictures

_SETTINGS = {
    "sigma": "sigma {} px", "sigma_value": "sigma {} in value", "sigma_space": "sigma {} px in place",
    "radius": "radius {} px",
    "h": "strength {}", "patch": "patches of {} px", "distance": "up to {} px apart", "threshold": "threshold {}",
    "decay": "decay {}", "levels": "{} scales", "wavelet": "{}", "weight": "weight {}", "parts": "{} angular subsets",
    "slices": "slices seen: {}", "grid": "every {} px hidden", "inference": "{} inference",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One method of the table, in words.

    Parameters
    ----------
    method
        Its name.
    psnr, interval
        Estimated PSNR, and its interval.
    behind
        Whether it is clearly behind the best.
    seconds
        What it took.
    setting
        That it was run with.
    marks
        Of ``best`` and ``recommended``, those that it is.
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
    """The table, best first, and what belongs below it.

    Parameters
    ----------
    rows
        Of the table.
    left_out
        Method and why it was not run.
    why
        What the choice rests on.
    of
        What the figures are of.
    relative
        Whether the PSNR is told against the best only, as beside the figures of a run: those are of the error against
        the same views without noise, these of views that no method saw, and two figures would be told of one thing.
    """

    rows: tuple[Row, ...]
    left_out: tuple[tuple[str, str], ...]
    why: str
    of: str
    relative: bool = False


@dataclass(frozen=True)
class Picture:
    """The slice by one method, as PNG inside a URI, and its row of the table."""

    source: str
    row: Row


@dataclass(frozen=True)
class Gallery:
    """Slices side by side.

    Parameters
    ----------
    pictures
        Best first.
    height, width
        Of a slice.
    factor
        Edge of the block that one pixel of a picture is the mean of.
    crisp
        Whether pixels are shown as squares.
    window
        The values shown black and white, the same in all.
    at
        Left and top of what is worth a closer look, in percent.
    greys
        The window as values.
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
    """Return a comparison in words.

    Parameters
    ----------
    record
        As :meth:`quietray.assessment.comparison.Comparison.record` returns it.
    unit
        Of the grey values; None is not known.
    relative
        Whether to tell the PSNR against the best only.

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
        of=f"Error of the {record['domain']}{where}, estimated from views that no method saw, without a clean "
        + (
            "reference." if relative else f"reference. PSNR for a data range of {span}. Interval: {record['interval']}."
        ),
        relative=relative,
    )


def gallery_of(pictures: Mapping[str, Slice], board: Board, unit: str, room: int = ROOM) -> Gallery | None:
    """Return slices of one shape through one grey window, that of the best; None where there is none.

    Parameters
    ----------
    pictures
        By method.
    board
        With a row for each.
    unit
        Of the grey values.
    room
        Characters for all pictures; if need be, they are averaged until they fit, all alike.

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
    """Return by how much a PSNR is below the best one."""
    if value is None or best is None or not math.isfinite(value - best):
        return NOT_KNOWN
    return f"{value - best:+.2f} dB".replace("-", MINUS) if value != best else "0 dB"


def _between(least: float | int | None, most: float | int | None) -> str:
    """Return an interval whose ends may be unknown: an error may be estimated as less than nothing."""
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
    """Return a method's settings in words: those that have some, else all; a filter of no strength is none."""
    first = next(iter(settings.values()), None)
    if isinstance(first, (int, float)) and not isinstance(first, bool) and first == 0:
        return "no filter"
    words = {key: _SETTINGS[key] for key in settings if key in _SETTINGS}
    words = words or {key: f"{label(key).lower()} {{}}" for key in settings}
    plain = {key: number(item, 3) if isinstance(item, (int, float)) else str(item) for key, item in settings.items()}
    return ", ".join(form.format(plain[key]) for key, form in words.items())
