"""Comparison of a result of any kind with a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from quietray.assessment.against import both_images, evaluate_images, evaluate_volumes
from quietray.errors import SettingsError
from quietray.images import ImageSeries
from quietray.io import LazyFrames, StoredVolume
from quietray.result import Result
from quietray.scan import Scan

__all__ = ["evaluate"]

_RADIUS = 0.97  # for volumes, whose corners no view sees


def evaluate(
    result: Any,
    reference: Any,
    *,
    against: Literal["clean-fbp", "phantom"] = "clean-fbp",
    rows: str | None = None,
    step: int | None = None,
    radius: float | None = None,
    window: tuple[float, float] | None = None,
    data_range: float | None = None,
) -> dict[str, Any]:
    """Compare a volume or images with a reference: PSNR, SSIM, RMSE, bias; bias by tissue if both are in HU.

    Parameters
    ----------
    result
        A :class:`quietray.Result`, an array ``(z, y, x)`` (may be lazy), an :class:`quietray.ImageSeries`, or the path
        of a volume or of images.
    reference
        Any of these, or a simulated scan with ground truth; a single image is used for all.
    against
        For a simulated scan: ``clean-fbp`` is the reconstruction (Ram-Lak, known axis) of its noise-free projections,
        ``phantom`` the phantom on the voxel grid.
    rows
        Slices of the reference that the result covers, ``start:stop``; not needed for a :class:`quietray.Result`.
    step
        Step or channel to compare, if the result is a series, or both are.
    radius
        Only pixels within this fraction of the half-width of a slice are compared; 2 for all.  None is 0.97 for
        volumes; for images, all measured pixels.
    window
        Lowest and highest value in the unit of the data: both sides are clipped to them, and the range for PSNR is
        their difference.
    data_range
        Range for PSNR and SSIM; None for that of the window, else that of the reference.

    Returns
    -------
    dict
        The figures, and descriptions of how they were computed, ready for JSON.

    Raises
    ------
    QuietrayError
        Something cannot be read, or shapes, sizes or units differ.

    Examples
    --------
    >>> truth = np.random.default_rng(0).random((2, 32, 32), dtype=np.float32)
    >>> found = evaluate(truth + np.float32(0.1), truth)
    >>> round(found["psnr_db"], 1), round(found["bias"], 3), found["mask"]
    (20.0, 0.1, 'disc of 0.97 half-widths')
    """
    if rows is None and isinstance(result, Result):
        rows = _rows_of(result, reference)
    one, other = _plain(result), _plain(reference)
    images = _images(one, other)
    if images is None:
        radius = _RADIUS if radius is None else radius
        return evaluate_volumes(
            one, other, against=against, rows=rows, radius=radius, window=window, data_range=data_range, step=step
        )
    if rows is not None or step is not None:
        raise SettingsError("--rows and --step must be left out for images; give the same images")
    return evaluate_images(*images, window=window, data_range=data_range, radius=radius)


def _plain(given: Any) -> Any:
    """Return images, a volume with its unit, a scan or a path for any kind of input."""
    if isinstance(given, str):
        return Path(given)
    if isinstance(given, Result):
        scan = given.metrics["scan"]
        if given.metrics["method"]["domain"] == "images":
            edge = scan["pixel_size_mm"]
            spacing = None if edge is None else (edge, edge)
            return ImageSeries(np.asarray(given.volume), None, scan["source"], scan["unit"], spacing=spacing)
        if not isinstance(given.volume, StoredVolume):
            return StoredVolume(LazyFrames(given.volume), Path("the result"), scan["unit"], scan["voxel_size_mm"])
        return given.volume
    if isinstance(given, (Path, Scan, ImageSeries)) or not hasattr(given, "shape"):
        return given
    return given[None] if len(given.shape) == 2 else given


def _images(one: Any, other: Any) -> tuple[Path | ImageSeries, Path | ImageSeries] | None:
    """Return both as images if they are; an array next to images counts as images."""
    if isinstance(one, Path) and isinstance(other, Path):
        return both_images(one, other)
    if not any(isinstance(each, ImageSeries) for each in (one, other)):
        return None
    return _as_images(one), _as_images(other)


def _as_images(given: Any) -> Path | ImageSeries:
    if isinstance(given, Path):
        return given / "series" if (given / "series").is_dir() else given
    if isinstance(given, ImageSeries):
        return given
    if isinstance(given, Scan):
        raise SettingsError(f"images must be compared with images, got {given!r}; give images, or an array")
    return ImageSeries(np.asarray(given, np.float32), None, "an array")


def _rows_of(result: Result, reference: Any) -> str | None:
    """Return the rows of a run, unless the reference only covers these."""
    shape = getattr(_plain(reference), "shape", None)
    return result.settings.rows if shape is None or shape[-3] != result.volume.shape[-3] else None
