"""Square roots of an auto-correlation: the symmetric kernel whose convolution with itself gives it."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy import fft

from quietray.detector.noise.lags import Lags, error_of, spectrum
from quietray.errors import SettingsError

__all__ = ["Kernel", "check_window", "kernel_errors", "root_by_covariance", "root_by_spectrum"]

Kernel = Float[np.ndarray, "_i _j"]


def root_by_spectrum(lags: Lags) -> Kernel:
    """Return the symmetric kernel of sum 1 whose auto-correlation is `lags`: ``F^-1 sqrt(max(F(lags), 0))``.

    Examples
    --------
    >>> np.abs(root_by_spectrum(np.array([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]))).round(6).tolist()
    [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    root = fft.ifft2(np.sqrt(np.maximum(spectrum(lags), 0))).real
    ry, rx = lags.shape[0] // 2, lags.shape[1] // 2
    kernel = np.roll(root, (ry, rx), (0, 1))[: lags.shape[0], : lags.shape[1]]
    kernel = (kernel + kernel[::-1, ::-1]) / 2
    return np.asarray(kernel / kernel.sum())


def root_by_covariance(lags: Lags) -> Kernel:
    """Return the kernel from the matrix square root of a small covariance (Graas and Lucka 2025).

    The lags define a block-Toeplitz matrix on an image of ``(window // 2 + 1)`` squared pixels; the middle row of its
    principal square root is the kernel.

    Parameters
    ----------
    lags
        ``(window, window)`` auto-correlation, with lag zero in the centre.  The window must be 1 mod 4 (9, 13, 17), so
        that the small image has a central pixel and the kernel an odd size.

    Raises
    ------
    SettingsError
        The window is not square or not 1 mod 4.

    Examples
    --------
    >>> lags = np.zeros((9, 9)); lags[4, 4] = 4.0
    >>> np.abs(root_by_covariance(lags)[2]).round(6).tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0]
    """
    from scipy import linalg

    check_window(lags.shape[0])
    if lags.shape[0] != lags.shape[1]:
        raise SettingsError(f"the window of the auto-correlation must be square, got {lags.shape}")
    size, middle = lags.shape[0] // 2 + 1, lags.shape[0] // 2
    y, x = (index.ravel() for index in np.mgrid[:size, :size])
    covariance = lags[middle + y[:, None] - y[None], middle + x[:, None] - x[None]]
    root = np.real(linalg.sqrtm(covariance))
    kernel = root[len(root) // 2].reshape(size, size)
    kernel = (kernel + kernel[::-1, ::-1]) / 2
    return np.asarray(kernel / kernel.sum())


def check_window(window: int) -> None:
    """Raise unless a window of lags is 1 mod 4, so that the small image has a central pixel.

    Raises
    ------
    SettingsError
        It does not.

    Examples
    --------
    >>> check_window(13)
    """
    if window % 4 != 1 or window < 5:
        near = max(9, 4 * round((window - 1) / 4) + 1)
        raise SettingsError(
            f"the window of the auto-correlation must be 1 mod 4 (9, 13, 17, 21), got {window}; use {near}: "
            "other sizes give kernels without a middle"
        )


def kernel_errors(lags: Lags, shape: tuple[int, ...], samples: float, unsure: float) -> Kernel:
    """Return the standard errors of the kernel, propagated from the lags through the square root.

    The root changes by ``F^-1(dS / (2 sqrt S))``; the kernel, which has sum 1, also changes with the sum of the root.
    """
    power = np.maximum(spectrum(lags), 1e-4 * spectrum(lags).max())
    slope, height = fft.ifft2(0.5 / np.sqrt(power)).real, math.sqrt(power[0, 0])
    root = fft.ifft2(np.sqrt(power)).real / height
    c, r = lags.shape[0] // 2, (shape[0] // 2, shape[1] // 2)
    out = np.zeros(shape)
    y, x = (np.arange(-c, c + 1) for _ in range(2))
    for i, j in np.ndindex(shape):
        dy, dx = i - r[0], j - r[1]
        weights = slope[np.ix_(dy - y, dx - x)] + slope[np.ix_(dy + y, dx + x)]
        weights = weights / 2 / height - root[dy, dx] * 0.5 / power[0, 0]
        out[i, j] = math.hypot(error_of(weights, lags, samples), unsure * float(np.sqrt((weights**2).sum())))
    return out
