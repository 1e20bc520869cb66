"""Figures as inline SVG in the colours of the page, which follow its light or dark scheme."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import AutoMinorLocator, FuncFormatter, LogLocator, NullFormatter

from quietray.pictures import Window
from quietray.report.data import Cut, Histogram
from quietray.report.words import number

__all__ = [
    "agreement_figure", "histogram_figure", "judged", "noise_figure", "profile_figure", "ranking_figure",
    "training_figure",
]  # fmt: skip

# Placeholders that are replaced by CSS variables, which matplotlib does not support.
INK, SOFT, BEFORE, AFTER, MARK = "#010203", "#010204", "#010205", "#010206", "#010207"
_VARIABLES = {INK: "ink", SOFT: "rule", BEFORE: "before", AFTER: "after", MARK: "mark"}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "quietray",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": SOFT,
    "grid.linewidth": 0.6,
    "grid.alpha": 0.45,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "text.parse_math": False,
}


def profile_figure(cut: Cut, unit: str, voxel_size: float | None) -> str:
    """Return the grey values along the middle row of `cut`, or an empty string if there are none."""
    row, n_cols = cut.before.shape[0] // 2, cut.before.shape[1]
    before, after = cut.before[row].astype(np.float64), cut.after[row].astype(np.float64)
    if n_cols < 2 or not np.isfinite(after).any():
        return ""
    places = np.arange(n_cols) * (voxel_size or 1)
    with matplotlib.rc_context(_STYLE):
        figure, (axes,) = _figure(8.6, 2.5)
        axes.plot(places, _finite(before), color=BEFORE, linewidth=0.8, alpha=0.8, label="before")
        axes.plot(places, _finite(after), color=AFTER, linewidth=1.5, label="after")
        axes.set_xlim(0, places[-1])
        _robust_limits(axes, before, after)
        axes.set_xlabel(f"{cut.axes[1]} ({'mm' if voxel_size else 'pixel'})")
        axes.set_ylabel(_values(unit))
        _legend(axes)
        return _svg(figure, "profile-", "Grey values along one row, before and after")


def _values(unit: str) -> str:
    return f"{'attenuation' if unit.startswith('1/') else 'grey value'} ({unit})"


def histogram_figure(histogram: Histogram, unit: str, window: Window, element: str = "voxel") -> str:
    """Return the histogram of the volume before and after with logarithmic counts, or an empty string."""
    filled = np.flatnonzero(np.nan_to_num(histogram.before) + np.nan_to_num(histogram.after))
    if not filled.size:
        return ""
    with matplotlib.rc_context(_STYLE):
        figure, (axes,) = _figure(4.9, 2.7)
        axes.axvspan(window.low, window.high, color=MARK, alpha=0.10, linewidth=0)
        axes.stairs(histogram.before, histogram.edges, color=BEFORE, fill=True, alpha=0.35, linewidth=0)
        axes.stairs(histogram.before, histogram.edges, color=BEFORE, linewidth=0.9, label="before")
        axes.stairs(histogram.after, histogram.edges, color=AFTER, linewidth=1.5, label="after")
        _logarithmic(axes)
        axes.set_ylim(bottom=0.7)
        axes.set_xlim(histogram.edges[filled[0]], histogram.edges[filled[-1] + 1])
        axes.set_xlabel(_values(unit))
        axes.set_ylabel(f"{element}s")
        _legend(axes)
        return _svg(figure, "histogram-", "Histogram of the grey values, before and after")


def training_figure(history: Sequence[Mapping[str, float | int | None]]) -> str:
    """Return the estimated PSNR relative to the best step, and the loss, over the time of training.

    Empty if nothing was recorded. Absolute PSNR is not shown, because it is estimated from fewer pixels than that of
    the result and would differ from it.
    """
    seconds, over = _column(history, "seconds"), "training time"
    if not np.isfinite(seconds).all() or not np.any(seconds):
        seconds, over = _column(history, "step"), "step"
    minutes = over != "step" and len(seconds) > 0 and seconds.max() > 240
    places = seconds / 60 if minutes else seconds
    over = over if over == "step" else f"{over} ({'min' if minutes else 's'})"
    drawn = [(key, values) for key in ("psnr", "loss") if np.isfinite(values := _column(history, key)).any()]
    if judged(history) == "few":  # the best of those few would not be the best step
        drawn = [(key, values) for key, values in drawn if key != "psnr"]
    if not drawn or not np.isfinite(places).all():
        return ""
    with matplotlib.rc_context(_STYLE):
        figure, panels = _figure(4.9, 2.7, len(drawn))
        for axes, (key, values) in zip(panels, drawn, strict=True):
            colour = AFTER if key == "psnr" else BEFORE
            values = values - np.nanmax(values) if key == "psnr" else values
            axes.plot(places, values, color=colour, linewidth=1.4, marker="o" if len(values) < 40 else "", markersize=3)
            axes.set_ylabel("PSNR to best (dB)" if key == "psnr" else "loss")
            if key == "psnr":
                _mark_best(axes, places, values, _column(history, "step"))
            elif np.nanmin(values) > 0 and np.nanmax(values) > 20 * np.nanmin(values):
                _logarithmic(axes)
        panels[-1].set_xlabel(over)
        return _svg(figure, "training-", "Progress of the training")


def judged(history: Sequence[Mapping[str, float | int | None]]) -> str:
    """Return of how many steps the error was told from zero: ``most``, ``few`` (less than half), or nothing for none.

    Examples
    --------
    >>> judged([{"psnr": 30.0}, {"psnr": None}]), judged([{"psnr": 30.0}, {}, {}]), judged([{"psnr": None}])
    ('most', 'few', '')
    """
    known = [record.get("psnr") is not None for record in history]
    return ("most" if 2 * sum(known) >= len(known) else "few") if any(known) else ""


def ranking_figure(methods: Sequence[Mapping[str, Any]]) -> str:
    """Return the estimated PSNR of each method with its interval, the first on top, or an empty string."""
    middle, least, most = (_finite(_column(methods, f"psnr_db{end}")) for end in ("", "_at_least", "_at_most"))
    if not np.isfinite(middle).any():
        return ""
    behind = np.array([bool(method["clearly_behind"]) for method in methods])
    places = np.arange(len(methods))
    with matplotlib.rc_context(_STYLE):
        figure, (axes,) = _figure(6.4, 0.75 + 0.25 * len(methods))
        low, high = np.nanmin([middle, least]), np.nanmax([middle, most])
        margin = 0.04 * (high - low) or 0.5
        axes.set_xlim(low - margin, high + margin)
        ends = np.where(np.isnan(least), low - margin, least), np.where(np.isnan(most), high + margin, most)
        for these, colour, name in ((~behind, AFTER, "not clearly behind"), (behind, BEFORE, "clearly behind")):
            drawn = these & np.isfinite(middle)
            if drawn.any():
                axes.hlines(places[drawn], ends[0][drawn], ends[1][drawn], color=colour, linewidth=2.4, alpha=0.55)
                axes.plot(middle[drawn], places[drawn], "o", color=colour, markersize=5.5, label=name)
        axes.set_yticks(places, [method["method"] for method in methods])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(methods) - 0.4, -0.6)
        axes.set_xlabel("estimated PSNR (dB)")
        _legend(axes)
        return _svg(figure, "ranking-", "Estimated PSNR of each method with its interval")


def agreement_figure(curve: Mapping[str, Sequence[float]], kept: Mapping[str, Sequence[Any]] | None = None) -> str:
    """Return the Fourier ring correlation of two halves before and after, with the threshold curves.

    The preserved detail, `kept`, is drawn where its error is below 0.2.
    """
    with matplotlib.rc_context(_STYLE):
        figure, (axes,) = _figure(4.9, 2.7)
        _before_and_after(axes, curve)
        axes.plot(curve["cycles_per_pixel"], curve["half_bit"], color=INK, linewidth=0.9, linestyle="--")
        axes.axhline(1 / 7, color=INK, linewidth=0.9, linestyle=":")
        if kept is not None:
            share, error = (np.array(kept[name], np.float64) for name in ("kept", "error"))
            share[~(error < 0.2)] = np.nan
            axes.plot(kept["cycles_per_pixel"], share, color=MARK, linewidth=1.1, linestyle="-.", label="detail kept")
        axes.set_ylim(min(-0.1, *curve["before"], *curve["after"]) - 0.03, 1.05 if kept is None else 1.2)
        axes.set_ylabel("correlation of halves")
        _legend(axes)
        return _svg(figure, "agreement-", "Fourier ring correlation of two halves, before and after")


def noise_figure(curve: Mapping[str, Sequence[float]]) -> str:
    """Return the noise power spectrum before and after, on a logarithmic axis."""
    with matplotlib.rc_context(_STYLE):
        figure, (axes,) = _figure(4.9, 2.7)
        _before_and_after(axes, curve)
        if max(max(curve[when]) for when in ("before", "after")) > 0:
            _logarithmic(axes)
        axes.set_ylabel("noise power")
        _legend(axes)
        return _svg(figure, "noise-", "Power of the noise by frequency, before and after")


def _before_and_after(axes: Axes, curve: Mapping[str, Sequence[float]]) -> None:
    """Draw two curves over frequency."""
    axes.plot(curve["cycles_per_pixel"], curve["before"], color=BEFORE, linewidth=1.1, label="before")
    axes.plot(curve["cycles_per_pixel"], curve["after"], color=AFTER, linewidth=1.5, label="after")
    axes.set_xlim(0, 0.5)
    axes.set_xlabel("frequency (cycles per pixel)")


def _column(history: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """Return one column of the history, with NaN for missing values."""
    values = [record.get(key) for record in history]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _mark_best(axes: Axes, places: np.ndarray, values: np.ndarray, steps: np.ndarray) -> None:
    """Mark the highest estimate."""
    best = int(np.nanargmax(values))
    axes.plot(places[best], values[best], marker="o", markersize=8, markerfacecolor="none", color=AFTER, clip_on=False)
    axes.margins(y=0.12)
    late = places[best] > 0.5 * (places[0] + places[-1])
    axes.annotate(
        "best" + (f": step {number(steps[best])}" if np.isfinite(steps[best]) else ""),
        (float(places[best]), float(values[best])),
        xytext=(-8 if late else 8, -14),
        textcoords="offset points",
        ha="right" if late else "left",
    )


def _logarithmic(axes: Axes) -> None:
    """Make the vertical axis logarithmic, with labels in plain text."""
    axes.set_yscale("log", nonpositive="clip")
    axes.yaxis.set_major_locator(LogLocator(base=10, numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: _power(tick)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _power(tick: float) -> str:
    """Return a power of ten as text: plain from 0.01 to 1000, else as 10 with superscript digits."""
    exponent = round(float(np.log10(tick))) if tick > 0 else 0
    if -2 <= exponent <= 3:
        return f"{10.0**exponent:g}"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _finite(values: np.ndarray) -> np.ndarray:
    """Return `values` with infinities replaced by NaN, which leave gaps in a line."""
    return np.where(np.isfinite(values), values, np.nan)


def _robust_limits(axes: Axes, *lines: np.ndarray) -> None:
    """Limit the vertical axis to the central 99.6 % of the values."""
    values = np.concatenate([line[np.isfinite(line)] for line in lines])
    low, high = np.percentile(values, (0.2, 99.8))
    if high > low:
        margin = 0.06 * (high - low)
        axes.set_ylim(low - margin, high + margin)


def _figure(width: float, height: float, n_panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a transparent figure (sizes in inches) and its panels, one above the other."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    panels = [figure.add_subplot(n_panels, 1, place + 1) for place in range(n_panels)]
    for axes in panels:
        axes.patch.set_alpha(0)
        axes.grid(True)
        axes.set_axisbelow(True)
        axes.xaxis.set_minor_locator(AutoMinorLocator())
        if axes is not panels[-1]:
            axes.tick_params(labelbottom=False)
    figure.align_ylabels(panels)
    return figure, panels


def _legend(axes: Axes) -> None:
    """Put the legend above the axes, where it hides nothing."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2, handlelength=1.6)


def _svg(figure: Figure, prefix: str, title: str) -> str:
    """Return `figure` as an SVG element in the colours and font of the page; its ids begin with `prefix`."""
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'href="#', f'href="#{prefix}', text)
    text = text.replace("url(#", f"url(#{prefix}")
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, f"var(--{variable})")
    text = text.replace("'DejaVu Sans'", "var(--sans)")
    opening = f'<svg role="img" aria-label="{title}" '
    return text.replace("<svg ", opening, 1)
