"""The picture of a diagnosis: what the noise is, before and after whitening."""

from __future__ import annotations

import textwrap
from io import BytesIO
from typing import Any

import numpy as np

from quietray.detector.correlation import Correlation
from quietray.detector.findings import shared_noise
from quietray.diagnose import Diagnosis

__all__ = ["noise_figure"]


def noise_figure(found: Diagnosis) -> bytes:
    """Return a PNG: correlation maps, auto-correlation, point response, noise power, photon transfer.

    Parameters
    ----------
    found
        From :func:`quietray.diagnose`.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    arrays = found.arrays
    figure, axes = plt.subplots(2, 4, figsize=(17, 7.5), layout="constrained")
    figure.suptitle(f"noise: {found.label}   (read from {found.source})", fontsize=13)
    limit = max(0.5, 1.2 * abs(found.before.summed))
    for ax, name, title in (
        (axes[0, 0], "map_before", "correlation summed over 7 x 7 pixels"),
        (axes[1, 0], "map_after", "the same, whitened"),
    ):
        _image(ax, arrays.get(name), title, limit, "pixel")
    for ax, name, title in (
        (
            axes[0, 1],
            "lags_before",
            f"auto-correlation (sum {found.before.summed:.2f} over {_size(found.before)} lags)",
        ),
        (axes[1, 1], "lags_after", "the same, whitened"),
    ):
        lags = arrays.get(name)
        if lags is not None:
            lags = np.where(lags >= 0.999, np.nan, lags)
        _image(ax, lags, title, 0.15 if lags is None else max(0.02, float(np.nanmax(np.abs(lags)))), "lag")
    _image(axes[0, 2], arrays.get("kernel"), "point response (root of the auto-correlation)", None, "pixel")
    _power(axes[1, 2], arrays)
    _transfer(axes[0, 3], found)
    _verdicts(axes[1, 3], found)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=80, format="png")
    plt.close(figure)
    return buffer.getvalue()


def _size(seen: Correlation) -> str:
    return " x ".join(map(str, seen.lags.shape))


def _image(ax: Any, image: np.ndarray | None, title: str, limit: float | None, unit: str) -> None:
    ax.set_title(title, fontsize=10)
    if image is None:
        ax.text(0.5, 0.5, "not whitened", ha="center", va="center", color="0.5")
        ax.set_axis_off()
        return
    colours = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} if limit else {"cmap": "viridis"}
    rows, cols = image.shape
    extent = (-cols / 2, cols / 2, rows / 2, -rows / 2) if unit == "lag" else None
    shown = ax.imshow(image, extent=extent, aspect="equal" if 0.1 < rows / cols < 10 else "auto", **colours)
    ax.figure.colorbar(shown, ax=ax, shrink=0.8)
    ax.set_xlabel(f"{unit} (columns)")


def _power(ax: Any, arrays: Any) -> None:
    ax.set_title("noise power spectrum", fontsize=10)
    for name, label in (("radial_before", "as measured"), ("radial_after", "whitened")):
        curve = arrays.get(name)
        if curve is not None:
            ax.plot(curve[0], curve[1], label=label)
    ax.set_xlabel("frequency (cycles per pixel)")
    ax.set_ylabel("power (white = 1)")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8)


def _transfer(ax: Any, found: Diagnosis) -> None:
    ax.set_title("photon transfer", fontsize=10)
    curve = found.arrays.get("transfer_curve")
    if curve is None:
        ax.text(0.5, 0.5, "not measured", ha="center", va="center", color="0.5")
        ax.set_axis_off()
        return
    ax.plot(curve[0], curve[1], ".", color="tab:blue")
    ax.set_xlabel("mean (counts)")
    ax.set_ylabel("variance (counts squared)")


def _verdicts(ax: Any, found: Diagnosis) -> None:
    ax.set_axis_off()
    ax.set_title("what is valid", fontsize=10)
    colours = {"valid": "tab:green", "valid with a warning": "tab:orange", "not valid": "tab:red"}
    for index, verdict in enumerate(found.verdicts):
        ax.text(0.0, 0.9 - 0.17 * index, verdict.method, fontsize=10, transform=ax.transAxes)
        ax.text(
            0.0, 0.83 - 0.17 * index, verdict.answer, fontsize=9, color=colours[verdict.answer], transform=ax.transAxes
        )
    shared = [textwrap.fill(f"{name}: {text}", 60) for name, text in shared_noise(found.figures).items()]
    ax.text(0.0, 0.09, "\n".join(shared), fontsize=7, color="0.3", transform=ax.transAxes, va="top")
