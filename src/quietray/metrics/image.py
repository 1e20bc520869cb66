"""Image quality with respect to a reference; every figure comes with its range, mask and reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from quietray.errors import GeometryError
from quietray.types import Slice, Volume

__all__ = ["Agreement", "compare", "disc", "psnr"]


@dataclass(frozen=True)
class Agreement:
    """Agreement of a volume with a reference.

    Parameters
    ----------
    psnr
        Peak signal-to-noise ratio in dB.
    ssim
        Mean structural similarity over slices; NaN if slices are less than 3 pixels wide.
    rmse
        Root mean squared error, in the volume's unit.
    bias
        Mean difference, in the volume's unit.
    data_range
        The range used for PSNR and SSIM.
    mask
        Description of the pixels that were compared.
    ssim_window
        Description of the window of SSIM.
    """

    psnr: float
    ssim: float
    rmse: float
    bias: float
    data_range: float
    mask: str
    ssim_window: str


def psnr(mse: float, data_range: float) -> float:
    """Return the PSNR in dB of a mean squared error; NaN if the error is not positive.

    Examples
    --------
    >>> round(psnr(0.01, 1.0), 6)
    20.0
    """
    if not (mse > 0 and data_range > 0):
        return float("nan") if mse != 0 else float("inf")
    return float(20 * np.log10(data_range) - 10 * np.log10(mse))


def disc(n_y: int, n_x: int, radius: float = 1.0, centre: tuple[float, float] = (0.0, 0.0)) -> Bool[np.ndarray, "y x"]:
    """Return the pixels within `radius` half-widths of the centre, the field of view of a scan.

    Parameters
    ----------
    n_y, n_x
        Size of the slice.
    radius
        Radius in half-widths of the slice.
    centre
        Centre of the disc, ``(y, x)`` in pixels below and to the right of the middle of the slice.

    Examples
    --------
    >>> round(float(disc(100, 100).mean()), 2)
    0.79
    """
    y = np.arange(n_y)[:, None] - (n_y - 1) / 2 - centre[0]
    x = np.arange(n_x)[None, :] - (n_x - 1) / 2 - centre[1]
    return np.asarray(np.hypot(y, x) <= radius * n_x / 2)


def compare(
    volume: Volume,
    reference: Float[np.ndarray, "_ _ _"],  # the shape is checked below, with a clearer message
    *,
    data_range: float | None = None,
    mask: Bool[np.ndarray, "_ _"] | None = None,
    mask_name: str = "all pixels",
) -> Agreement:
    """Compare a volume with a reference.

    Parameters
    ----------
    volume, reference
        Volumes ``(z, y, x)`` in the same unit.
    data_range
        Range for PSNR and SSIM; by default, maximum minus minimum of the reference.
    mask
        Pixels ``(y, x)`` to compare in every slice; all by default.
    mask_name
        Description of the mask, for the record.

    Raises
    ------
    GeometryError
        The shapes differ, or the mask is empty.

    Examples
    --------
    >>> reference = np.random.default_rng(0).random((2, 16, 16), dtype=np.float32)
    >>> compare(reference + np.float32(0.1), reference, data_range=1.0).rmse.__round__(3)
    0.1
    """
    from skimage.metrics import structural_similarity

    if volume.shape != reference.shape:
        raise GeometryError(
            f"the volume must have the reference's shape {reference.shape}, got {volume.shape}; "
            "compare the same rows and region"
        )
    if mask is not None and (mask.shape != volume.shape[1:] or not mask.any()):
        raise GeometryError(
            f"the mask must have the slices' shape {volume.shape[1:]} and choose a pixel, got {mask.shape} with "
            f"{int(mask.sum())} pixels"
        )
    span = float(reference.max() - reference.min()) if data_range is None else data_range
    chosen: Slice = np.ones(volume.shape[1:], bool) if mask is None else mask
    window = min(11, *[size - (size + 1) % 2 for size in volume.shape[1:]])
    squares = bias = similarity = 0.0
    for one, other in zip(volume, reference, strict=True):
        difference = (one - other)[chosen].astype(np.float64)
        squares += float((difference**2).sum())
        bias += float(difference.sum())
        if window < 3:
            similarity = float("nan")
            continue
        _, full = structural_similarity(
            one, other, data_range=span, gaussian_weights=window >= 11, win_size=window, full=True
        )
        similarity += float(full[chosen].mean())
    count = int(chosen.sum()) * len(volume)
    mse, ssim = squares / count, similarity / len(volume)
    words = "Gaussian of sd 1.5 pixels" if window >= 11 else f"square of {window} pixels" if window >= 3 else "none"
    return Agreement(psnr(mse, span), ssim, float(np.sqrt(mse)), bias / count, span, mask_name, words)
