"""Auto-correlation of noise and its Fourier transform, the noise power spectrum, with errors.

Lags are ``(dy, dx)`` arrays of odd sizes with lag zero in the centre.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import fft

from quietray.types import PixelMask, Radiographs

__all__ = [
    "GRID",
    "LagSums",
    "Lags",
    "Region",
    "autocorrelation",
    "error_of",
    "infill_correlation",
    "noise_power_spectrum",
    "spectrum",
]

Lags = Float[np.ndarray, "_dy _dx"]
Region = tuple[slice, slice]
GRID = 64  # points per direction of a sampled noise spectrum
DONUT = np.array([[0.5, 1, 0.5], [1, 0, 1], [0.5, 1, 0.5]]) / 6


def autocorrelation(residuals: Radiographs, good: PixelMask, radius: int | tuple[int, int]) -> Lags:
    """Return the mean of ``residual(x) residual(x + lag)`` over frames and pairs of good pixels, by FFT.

    Parameters
    ----------
    residuals
        Zero-mean noise, ``(frame, row, col)``.
    good
        Mask ``(row, col)``; pairs with other pixels are left out of the sum and the count.
    radius
        Largest lag, for both directions or for rows and columns separately.

    Returns
    -------
    ndarray
        Auto-correlation ``(2 radius + 1, 2 radius + 1)``, symmetric, with lag zero in the centre.

    Examples
    --------
    >>> autocorrelation(np.array([[[1.0, 2.0, 9.0]]], np.float32), np.array([[True, True, False]]), (0, 1)).round(4)
    array([[2. , 2.5, 2. ]])
    """
    power = LagSums((slice(0, good.shape[0]), slice(0, good.shape[1])), good, _radii(radius))
    for index in range(len(residuals)):
        power.add(np.where(good, residuals[index : index + 1], 0))
    return power.finish()


def _radii(radius: int | tuple[int, int]) -> tuple[int, int]:
    return (radius, radius) if isinstance(radius, int) else radius


class LagSums:
    """Power spectrum of one region, summed over frames; padded, so that lags do not wrap around."""

    def __init__(self, region: Region, good: PixelMask, radii: tuple[int, int]) -> None:
        self.region, self.radii, self.n_frames = region, radii, 0
        mask = good[region].astype(np.float32)
        self.padded = [
            fft.next_fast_len(size + radius, real=True) for size, radius in zip(mask.shape, radii, strict=True)
        ]
        self.pairs = np.maximum(np.rint(self._lags(self._of(mask[None]))), 1)
        self.n_pixels, self.share = int(mask.sum()), float(mask.mean())
        self.total = np.zeros((self.padded[0], self.padded[1] // 2 + 1))

    def _of(self, frames: np.ndarray) -> np.ndarray:
        """Return the power spectrum summed over frames, one at a time, because a single frame fits into the cache."""
        total = np.zeros((self.padded[0], self.padded[1] // 2 + 1))
        field = np.zeros(self.padded, np.float32)
        for frame in frames:
            field[: frame.shape[0], : frame.shape[1]] = frame
            transform = fft.rfft2(field)
            parts = transform.view(np.float32)
            np.multiply(parts, parts, out=parts)
            total += parts[:, ::2]
            total += parts[:, 1::2]
        return total

    def _lags(self, power: np.ndarray) -> Lags:
        ry, rx = self.radii
        full = fft.irfft2(power, s=self.padded)
        return np.asarray(np.roll(full, (ry, rx), (0, 1))[: 2 * ry + 1, : 2 * rx + 1])

    def add(self, residuals: Radiographs) -> None:
        """Add frames of the whole detector; excluded samples must be zero."""
        self.total += self._of(residuals[(slice(None), *self.region)])
        self.n_frames += len(residuals)

    def finish(self) -> Lags:
        """Return the mean product at every lag."""
        lags = self._lags(self.total) / (self.pairs * max(self.n_frames, 1))
        return np.asarray((lags + lags[::-1, ::-1]) / 2)


def spectrum(lags: Lags, size: int = GRID) -> Float[np.ndarray, "ky kx"]:
    """Return the noise power at ``size x size`` frequencies, in the order of an FFT, from its lags.

    Examples
    --------
    >>> spectrum(np.array([[0.0, 0, 0], [0.25, 1, 0.25], [0, 0, 0]]), 4)[0].round(6).tolist()
    [1.5, 1.0, 0.5, 1.0]
    """
    ry, rx = lags.shape[0] // 2, lags.shape[1] // 2
    field = np.zeros((size, size))
    field[: lags.shape[0], : lags.shape[1]] = lags
    return np.asarray(fft.fft2(np.roll(field, (-ry, -rx), (0, 1))).real)


def error_of(weights: Lags, lags: Lags, samples: float) -> float:
    """Return the standard error of ``sum(weights * estimated lags)`` for normal noise.

    ``var = (2 / samples) mean over f of (W(f) S(f))^2``, where S is the noise spectrum and W the transform of symmetric
    weights.

    Examples
    --------
    >>> white = np.zeros((5, 5)); white[2, 2] = 1.0
    >>> weights = np.zeros((5, 5)); weights[2, 1] = weights[2, 3] = 0.5
    >>> round(error_of(weights, white, 100.0), 3)
    0.1
    """
    power = (spectrum(weights) * np.maximum(spectrum(lags), 0)) ** 2
    return float(np.sqrt(2 / samples * power.mean()))


def infill_correlation(lags: Lags) -> float:
    """Return the correlation between the noise of a masked pixel and that of its filling from 3x3 neighbours.

    It measures how much of the hidden noise a blind-spot network can learn; 0 for white noise.

    Examples
    --------
    >>> lags = np.zeros((5, 5)); lags[2, 2] = 1.0
    >>> infill_correlation(lags)
    0.0
    """
    size = max(5, *lags.shape)
    wide = np.zeros((size, size))
    y, x = (size - lags.shape[0]) // 2, (size - lags.shape[1]) // 2
    wide[y : y + lags.shape[0], x : x + lags.shape[1]] = lags
    c = size // 2
    shared = float((DONUT * wide[c - 1 : c + 2, c - 1 : c + 2]).sum())
    points = [(dy, dx, DONUT[dy + 1, dx + 1]) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    own = sum(a * b * wide[c + y1 - y2, c + x1 - x2] for y1, x1, a in points for y2, x2, b in points)
    return shared / float(np.sqrt(max(own, 1e-12) * wide[c, c]))


def noise_power_spectrum(
    lags: Lags, variance: float = 1.0
) -> tuple[Float[np.ndarray, " bin"], Float[np.ndarray, " bin"]]:
    """Return frequencies in cycles per pixel and the noise power averaged over directions (the mean is the variance).

    Examples
    --------
    >>> frequency, power = noise_power_spectrum(np.array([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]), 4.0)
    >>> round(float(frequency[0]), 6), round(float(power[0]), 6), round(float(power[-1]), 6)
    (0.0, 4.0, 4.0)
    """
    line = np.fft.fftfreq(GRID)
    radius = np.hypot(line[:, None], line[None])
    ring = np.rint(radius * GRID).astype(int)
    inside = ring <= GRID // 2
    power = np.bincount(ring[inside], spectrum(lags)[inside]) / np.bincount(ring[inside])
    return np.arange(len(power)) / GRID, variance * power
