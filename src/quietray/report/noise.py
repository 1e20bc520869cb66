"""Figure of a diagnosis: properties of the noise, before and after whitening."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np

from quietray.detector.findings import shared_noise
from quietray.detector.noise.correlation import Correlation
from quietray.diagnose import Diagnosis

__all__ = ["noise_figure"]

_RAW, _WHITE = "tab:blue", "tab:orange"
_COLOURS = {"valid": "tab:green", "valid with a warning": "tab:orange", "not valid": "tab:red"}


def noise_figure(found: Diagnosis) -> bytes:
    """Return a PNG: correlation maps, histogram, auto-correlation, noise power, point response, photon transfer.

    Panels before and after whitening use the same frames, those used to check the point response.

    Parameters
    ----------
    found
        Result of :func:`quietray.diagnose`.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    arrays = found.arrays
    checked = found.figures.get("checked_on", found.source)
    seen = "check" if "map_after" in arrays else "before"
    figure = plt.figure(figsize=(20, 8), layout="constrained")
    grid = figure.add_gridspec(2, 5, width_ratios=(1, 1, 0.9, 1, 1.15))
    axes = [[figure.add_subplot(grid[row, column]) for column in range(4)] for row in range(2)]
    figure.suptitle(f"noise: {found.label}   (measured on {found.source}; maps and lags of {checked})", fontsize=13)
    limit = max(0.5, 1.2 * abs(found.before.summed), 2 * (found.after or found.before).null_sd)
    _map(axes[0][0], arrays.get(f"map_{seen}"), "summed correlation with 7 x 7 pixels", limit)
    _map(axes[1][0], arrays.get("map_after"), "the same, whitened", limit)
    _histogram(axes[0][1], found, seen, limit)
    _power(axes[1][1], arrays, seen)
    _lags(axes[0][2], arrays.get(f"lags_{seen}"), f"auto-correlation, {_size(found.before)} lags")
    _lags(axes[1][2], arrays.get("lags_after"), "the same, whitened")
    _response(axes[0][3], arrays)
    _transfer(axes[1][3], found)
    _verdicts(figure.add_subplot(grid[:, 4]), found)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=80, format="png")
    plt.close(figure)
    return buffer.getvalue()


def _size(seen: Correlation) -> str:
    return " x ".join(map(str, seen.lags.shape))


def _empty(ax: Any, text: str) -> None:
    ax.text(0.5, 0.5, text, ha="center", va="center", color="0.5", transform=ax.transAxes)
    ax.set_axis_off()


def _map(ax: Any, image: np.ndarray | None, title: str, limit: float) -> None:
    """Show a map of the detector, cropped to rows and columns with data."""
    ax.set_title(title, fontsize=10)
    if image is None or not np.isfinite(image).any():
        _empty(ax, "not whitened")
        return
    aspect = "equal" if 0.4 < image.shape[0] / image.shape[1] < 2.5 else "auto"
    ax.set_facecolor("0.85")
    shown = ax.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect=aspect, interpolation="antialiased")
    ax.figure.colorbar(shown, ax=ax, shrink=0.8)
    ax.set_xlabel("column (grey: not examined)")
    ax.set_ylabel("row")


def _histogram(ax: Any, found: Diagnosis, seen: str, limit: float) -> None:
    """Show the histogram of the summed correlations of the pixels, and the one expected of white noise."""
    ax.set_title("the maps' pixels, and white noise (dashed)", fontsize=10)
    null = found.before.null_sd
    for name, label, colour in ((seen, "as measured", _RAW), ("after", "whitened", _WHITE)):
        values = found.arrays.get(f"map_{name}")
        if values is None or not np.isfinite(values).any():
            continue
        null = found.after.null_sd if found.after is not None and name == "after" else null
        some = values[np.isfinite(values)]
        label = f"{label}: mean {some.mean():.2f}"
        ax.hist(some, 80, range=(-2 * limit, 2 * limit), density=True, alpha=0.6, color=colour, label=label)
    x = np.linspace(-2 * limit, 2 * limit, 400)
    ax.plot(x, np.exp(-((x / null) ** 2) / 2) / null / np.sqrt(2 * np.pi), "k--", linewidth=1)
    ax.set_xlabel("summed correlation of a pixel")
    ax.set_yticks([])
    ax.set_ylim(top=1.35 * ax.get_ylim()[1])  # room for the legend
    ax.legend(fontsize=8)


def _lags(ax: Any, lags: np.ndarray | None, title: str) -> None:
    if lags is None:
        ax.set_title(title, fontsize=10)
        _empty(ax, "not whitened")
        return
    shown = np.where(lags >= 0.999, np.nan, lags)
    limit = max(0.02, float(np.nanmax(np.abs(shown))))
    ax.set_title(f"{title} (sum {lags.sum() - 1:.2f})", fontsize=10)
    rows, cols = lags.shape
    extent = (-cols / 2, cols / 2, rows / 2, -rows / 2)
    picture = ax.imshow(shown, extent=extent, cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.figure.colorbar(picture, ax=ax, shrink=0.8)
    ax.set_xlabel("lag (columns)")
    ax.set_ylabel("lag (rows)")


def _response(ax: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Show the middle row and column of the point response, on a logarithmic scale because of the tails."""
    ax.set_title("point response", fontsize=10)
    kernel, errors = arrays.get("kernel"), arrays.get("kernel_errors")
    if kernel is None:
        _empty(ax, "could not be estimated")
        return
    cy, cx = kernel.shape[0] // 2, kernel.shape[1] // 2
    for line, error, label, mark in (
        (kernel[cy], None if errors is None else errors[cy], "along the row", "o-"),
        (kernel[:, cx], None if errors is None else errors[:, cx], "along the column", "s--"),
    ):
        at = np.arange(len(line)) - len(line) // 2
        ax.errorbar(at, line, error, fmt=mark, markersize=3, linewidth=1, capsize=2, label=label)
    ax.set_yscale("symlog", linthresh=0.01)
    ax.axhline(0, color="0.8", linewidth=0.8)
    ax.set_ylim(top=1.2)
    ax.set_xlabel("pixels from the middle")
    ax.legend(fontsize=8)


def _power(ax: Any, arrays: Mapping[str, np.ndarray], seen: str) -> None:
    ax.set_title("noise power spectrum", fontsize=10)
    for name, label, colour in ((seen, "as measured", _RAW), ("after", "whitened", _WHITE)):
        curve = arrays.get(f"radial_{name}")
        if curve is not None:
            ax.plot(curve[0], curve[1], label=label, color=colour)
    ax.axhline(1, color="k", linestyle="--", linewidth=1)
    ax.set_xlabel("frequency (cycles per pixel)")
    ax.set_ylabel("power (white = 1)")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8)


def _transfer(ax: Any, found: Diagnosis) -> None:
    """Show variance and summed correlation against brightness, of pixels or, if there are several, of exposures."""
    ax.set_title("photon transfer", fontsize=10)
    curve, exposures = found.arrays.get("transfer_curve"), found.figures["exposures"]
    if curve is None or not curve.size:
        _empty(ax, "not measured")
        return
    if len(exposures) > 1:
        curve = np.array([[one[name] for one in exposures] for name in ("mean", "variance", "summed")])
    ax.plot(curve[0], curve[1], "o", color=_RAW, markersize=4)
    ax.set_xlabel("mean (counts)")
    ax.set_ylabel("variance (counts squared)", color=_RAW)
    other = ax.twinx()
    other.plot(curve[0], curve[2], "x", color="tab:purple", markersize=4)
    other.set_ylabel("summed correlation", color="tab:purple")
    other.set_ylim(min(-0.5, 1.5 * float(curve[2].min())), max(1.0, 1.5 * float(curve[2].max())))


def _verdicts(ax: Any, found: Diagnosis) -> None:
    ax.set_axis_off()
    ax.set_title("which methods are valid", fontsize=10)
    place = {"transform": ax.transAxes, "va": "top"}
    y, line = 0.99, 0.021
    for verdict in found.verdicts:
        ax.text(0.0, y, verdict.method, fontsize=10, **place)
        ax.text(1.0, y, verdict.answer, fontsize=10, color=_COLOURS[verdict.answer], ha="right", **place)
        reason = textwrap.wrap(verdict.reason, 68)
        ax.text(0.0, y - 1.3 * line, "\n".join(reason), fontsize=7.5, color="0.25", **place)
        y -= line * (len(reason) + 2.6)
    for name, text in shared_noise(found.figures).items():
        lines = textwrap.wrap(f"{name}: {text}", 68)
        ax.text(0.0, y, "\n".join(lines), fontsize=7.5, color="0.4", **place)
        y -= line * (len(lines) + 0.5)
