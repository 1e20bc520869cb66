"""Images against a reference: how far apart, with range, window and mask stated beside every figure."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import GeometryError, SettingsError
from quietray.io import ImageSeries, image_format, read_images
from quietray.metrics.image import compare, disc

__all__ = ["evaluate_images", "images_of"]


def images_of(path: Path) -> Path | None:
    """Return where the images of a path lie: the path itself, or ``series`` in the folder of a run; None if none do.

    A TIFF stack is taken for a volume.

    Examples
    --------
    >>> images_of(Path("nowhere")) is None
    True
    """
    inner = path / "series"
    if inner.is_dir() and image_format(inner) is not None:
        return inner
    return path if image_format(path) not in (None, "tiff") else None


def evaluate_images(
    result: Path,
    reference: Path,
    *,
    window: tuple[float, float] | None = None,
    data_range: float | None = None,
    radius: float | None = None,
) -> dict[str, Any]:
    """Compare images with a reference.

    Parameters
    ----------
    result, reference
        Series of images; a reference of one image serves all.
    window
        Lowest and highest grey value that count: both are clipped to them, and the range is their distance.
    data_range
        Range of PSNR and SSIM; by default the window's, else that of the reference within the mask.
    radius
        Only pixels within this share of the half-width count; None are all that both measured.

    Returns
    -------
    dict
        The figures, and in words what they were computed from; JSON.

    Raises
    ------
    QuietrayError
        A file cannot be read, or sizes or units differ.
    """
    images, truth = read_images(result), read_images(reference)
    wanted, got = truth.images, images.images
    if len(wanted) == 1:
        wanted = np.broadcast_to(wanted, (len(got), *wanted.shape[1:]))
    if wanted.shape != got.shape:
        raise GeometryError(f"the images must have the reference's size {truth.images.shape}, got {got.shape}")
    if images.unit != truth.unit and "raw" not in (images.unit, truth.unit):
        raise GeometryError(f"the images must have the reference's unit {truth.unit}, got {images.unit}")
    for name, number in (("data-range", data_range), ("radius", radius)):
        if number is not None and not number > 0:
            raise SettingsError(f"{name} must be positive, got {number:g}")
    mask, words = _mask(images, truth, radius)
    span, said = data_range, "as asked"
    if window is not None:
        if not window[0] < window[1]:
            raise SettingsError(f"the window must be a lower and a higher grey value, got {window[0]:g} {window[1]:g}")
        wanted, got = np.clip(wanted, *window), np.clip(got, *window)
        span, said = (span, said) if span is not None else (window[1] - window[0], "the window's")
    if span is None:
        inside = wanted[:, mask]
        span, said = float(inside.max() - inside.min()), "max - min of the reference within the mask"
    figures = asdict(compare(np.asarray(got), np.asarray(wanted), data_range=span, mask=mask, mask_name=words))
    figures["psnr_db"] = figures.pop("psnr")
    return figures | {
        "data_range_is": said,
        "window": "none" if window is None else f"{window[0]:g} to {window[1]:g} {images.unit}",
        "unit": images.unit,
        "images": images.n_images,
        "reference": truth.source,
    }


def _mask(images: ImageSeries, truth: ImageSeries, radius: float | None) -> tuple[np.ndarray, str]:
    """Return the pixels that count, in every image alike, and what they are."""
    measured = np.asarray((images.weight > 0) & (truth.weight > 0))
    padded = images.padding is not None or truth.padding is not None
    words = "all pixels but padding" if padded else "all pixels"
    if radius is None or radius >= 2:
        return measured, words
    n_y, n_x = measured.shape
    return measured & disc(n_y, n_x, radius), f"disc of {radius:g} half-widths" + (", no padding" if padded else "")
