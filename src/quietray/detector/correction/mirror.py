"""Rotation axis from opposite views, which are mirror images of each other."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from quietray.detector.correction.frames import robust_sd
from quietray.types import Sinograms

__all__ = ["axis_of_opposite_views", "mirrored_alike"]

_PAIRS = 180


def axis_of_opposite_views(
    sinograms: Sinograms, angles: Float[np.ndarray, " view"], least: float = 0.1
) -> tuple[float, float] | None:
    """Return the axis about which opposite views mirror each other, and its spread over rows; None if unclear.

    All pairs of views half a turn apart are used (for a scan over half a turn, the first and the last view,
    extrapolated by up to one step).  Their mirrored cross-correlation, normalised by the energy in the overlap, peaks
    at twice the axis.  Views must overlap by the fraction `least` of the columns, and by at least four columns.
    """
    first, below, share = _opposite_pairs(angles)
    if first.size == 0:
        return None
    best: tuple[float, float] | None = None
    for blur in (1.5, 3.0, 6.0):  # noisy radiographs correlate badly and are smoothed more
        slopes = ndimage.gaussian_filter1d(sinograms, blur, axis=2, order=1, mode="nearest")
        ahead = slopes[:, first]
        behind = slopes[:, below] * (1 - share)[:, None] + slopes[:, below + 1] * share[:, None]
        if answer := _mirror(ahead, -behind[:, :, ::-1], blur, least):
            best = answer[:2]
            if answer[2] > 0.5:
                break
    return best


def _mirror(ahead: Sinograms, mirrored: Sinograms, blur: float, least: float) -> tuple[float, float, float] | None:
    """Return the axis about which `ahead` and `mirrored` coincide, its spread over rows, and their correlation.

    None if fewer than half of the rows agree, or if noise blurred over `blur` columns could explain the result.
    """
    n_rows, n_pairs, n = ahead.shape
    lags, shared, energy, allowed = _correlated(ahead, mirrored, least)
    chance = np.sqrt(3 * blur / (n_pairs * n))  # standard deviation of the score of pure noise in one row
    each = [peak[0] for row in range(n_rows) if (peak := _peak(shared[row], energy[row], lags, allowed, 6 * chance))]
    whole = _peak(shared.sum(axis=0), energy.sum(axis=0), lags, allowed, 8 * chance / np.sqrt(n_rows))
    if whole is None:
        return None
    found = np.array(each)
    near = np.abs(found - whole[0]) < max(4.0, 0.02 * n)
    if n_rows > 1 and len(found) and 2 * np.count_nonzero(near) < len(found):
        return None
    return (n - 1 - whole[0]) / 2, robust_sd(found / 2), whole[1]


def mirrored_alike(ahead: Sinograms, mirrored: Sinograms, least: float = 0.1) -> float:
    """Return the correlation of views with the mirror images of others, about the best common axis.

    Parameters
    ----------
    ahead, mirrored
        Slopes along the columns with zero mean: one view of each pair, and the other one mirrored.
    least
        Fraction of the columns that must overlap.

    Examples
    --------
    >>> views = np.random.default_rng(0).normal(size=(3, 4, 50)).astype(np.float32)
    >>> mirrored_alike(views, views) > 0.9, mirrored_alike(views, views[:, :, ::-1]) < 0.5
    (True, True)
    """
    _, shared, energy, allowed = _correlated(ahead, mirrored, least)
    energy, shared = energy.sum(axis=0), shared.sum(axis=0)
    return float((shared / np.maximum(energy, 0.05 * energy.max() + 1e-30))[allowed].max())


def _correlated(
    ahead: Sinograms, mirrored: Sinograms, least: float
) -> tuple[np.ndarray, Float[np.ndarray, "row lag"], Float[np.ndarray, "row lag"], np.ndarray]:
    """Return lags, correlations over all pairs, the energies that normalise them, and which lags are allowed."""
    n = ahead.shape[2]
    spectrum = np.conj(np.fft.rfft(ahead, 2 * n, axis=2)) * np.fft.rfft(mirrored, 2 * n, axis=2)
    shared = np.fft.fftshift(np.fft.irfft(spectrum.sum(axis=1), 2 * n, axis=1), axes=1)
    lags = np.arange(-n, n)
    energy = np.sqrt(_energy(ahead, lags, False) * _energy(mirrored, lags, True))
    return lags, shared, energy, np.abs(lags) <= n - max(4, int(n * least))


def _opposite_pairs(
    angles: Float[np.ndarray, " view"],
) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, " pair"]]:
    """Return views, and for each the two views around the opposite angle and the weight of the second."""
    step = float(np.median(np.diff(angles)))
    wanted = angles + np.pi
    first = np.flatnonzero(wanted <= angles[-1] + 1.2 * step)
    first = first[:: -(-len(first) // _PAIRS)] if first.size else first
    below = np.clip(np.searchsorted(angles, wanted[first], side="right") - 1, 0, len(angles) - 2)
    gap = angles[below + 1] - angles[below]
    share = (wanted[first] - angles[below]) / np.maximum(gap, 1e-12)
    near = (gap < 3 * step + 1e-9) & (gap > 1e-9)
    return first[near], below[near], share[near].astype(np.float32)


def _energy(slopes: Sinograms, lags: np.ndarray, mirrored: bool) -> Float[np.ndarray, "row lag"]:
    """Return the sum of squares over the overlapping columns at each lag, for the first or the mirrored partner."""
    n = slopes.shape[2]
    summed = np.pad(np.cumsum((slopes.astype(np.float64) ** 2).sum(axis=1), axis=1), ((0, 0), (1, 0)))
    start, stop = np.maximum(0, -lags), np.minimum(n, n - lags)
    if mirrored:
        start, stop = start + lags, stop + lags
    return np.asarray(summed[:, np.clip(stop, 0, n)] - summed[:, np.clip(start, 0, n)])


def _peak(
    shared: Float[np.ndarray, " lag"],
    energy: Float[np.ndarray, " lag"],
    lags: np.ndarray,
    allowed: np.ndarray,
    least: float,
) -> tuple[float, float] | None:
    """Return the lag and value of the largest normalised correlation, with parabolic interpolation.

    None if it is below `least` or at the end of the allowed lags.
    """
    if energy.max() <= 0:
        return None
    score = np.where(allowed, shared / (energy + 0.05 * energy.max()), -1.0)
    best = int(np.argmax(score))
    if score[best] < least or not 0 < best < len(score) - 1 or not (allowed[best - 1] and allowed[best + 1]):
        return None
    left, middle, right = score[best - 1 : best + 2]
    bend = left - 2 * middle + right
    return float(lags[best] + (0.5 * (left - right) / bend if bend < 0 else 0.0)), float(middle)
