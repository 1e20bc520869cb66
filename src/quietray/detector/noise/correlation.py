"""Correlation of the noise between neighbouring pixels, frames and rows, with errors.

Frames are read once and power spectra are summed, so that memory does not grow with the number of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from quietray.brief import brief
from quietray.detector.noise.lags import Lags, LagSums, Region, error_of
from quietray.detector.noise.residuals import MAP_WINDOW, Residuals, pairs_apart
from quietray.detector.noise.static import StaticFrames
from quietray.errors import SettingsError
from quietray.types import Frame

__all__ = ["Correlation", "measure_correlation", "tiles_of"]

RADIUS = 10
METHODS = ("differences", "mean")


@dataclass(frozen=True, eq=False)
class Correlation:
    """Measured noise correlation.

    Parameters
    ----------
    method
        ``"differences"`` (of frames three to six apart) or ``"mean"`` (frames minus their mean).
    covariance
        ``(dy, dx)`` in units of the variance of a pixel including row offsets; lag zero in the centre.
    samples
        Independent samples for each lag: pixels times effective frames.
    inflation
        Factor, at least 1, by which the removal of row means increases the error of a sum over lags.
    n_frames, effective_frames
        Numbers of frames, and of independent frames they are equivalent to.
    neighbours
        Summed correlation of each pixel with its 48 neighbours, ``(row, col)``; NaN for pixels that are left out.
    row_share, column_share
        Fraction of the variance that a whole row or column has in common within a frame.
    successive
        Correlation of a pixel between consecutive frames, and its standard error; None if unknown.
    long_range
        Mean correlation at the outermost lags, where the point response is negligible: a change of the beam or of the
        scene as a whole.  It was subtracted if significant.
    unsure
        Deviation of the outermost lags from zero beyond their errors; included in `errors`.
    tiles
        Correlations of the requested regions, each ``(region, covariance, samples)``.

    Examples
    --------
    >>> lags = np.zeros((5, 5)); lags[2, 2], lags[2, 1], lags[2, 3] = 2, 0.5, 0.5
    >>> white = Correlation("mean", lags, 1e6, 1.0, 9, 8.0, np.zeros((3, 3)), 0.0, 0.0, None)
    >>> round(white.summed, 6), white.lags[2].round(6).tolist()
    (0.5, [0.0, 0.25, 1.0, 0.25, 0.0])
    """

    method: str
    covariance: Lags
    samples: float
    inflation: float
    n_frames: int
    effective_frames: float
    neighbours: Frame
    row_share: float
    column_share: float
    successive: tuple[float, float] | None
    long_range: float = 0.0
    unsure: float = 0.0
    tiles: tuple[tuple[Region, Lags, float], ...] = field(default=(), repr=False)

    __repr__ = brief

    @property
    def lags(self) -> Lags:
        """Pearson correlation ``(dy, dx)``, 1 in the centre."""
        middle = self.covariance.shape[0] // 2, self.covariance.shape[1] // 2
        return np.asarray(self.covariance / self.covariance[middle])

    @property
    def summed(self) -> float:
        """Correlation summed over all neighbours in the window of `lags`; 3.3 corresponds to 330 %."""
        return float(self.lags.sum() - 1)

    def summed_in(self, window: int) -> float:
        """Correlation summed over the neighbours in a window of ``window x window`` lags; `window` is odd.

        A summed correlation is only meaningful together with its window.  In air, the neutron scan used in the tests
        has about 0.9 for 3 x 3 lags, 2.9 for 7 x 7, 3.3 for 9 x 9 (often quoted as 330 %), and 3.5 for 11 x 11 and 13 x
        13.
        """
        middle, reach = np.array(self.lags.shape) // 2, window // 2
        near = tuple(slice(max(centre - reach, 0), centre + reach + 1) for centre in middle)
        return float(self.lags[near].sum() - 1)

    @property
    def summed_error(self) -> float:
        """Standard error of `summed`."""
        n_y, n_x = self.covariance.shape
        weights = np.ones((n_y, n_x))
        weights[n_y // 2, n_x // 2] -= 1 + self.summed
        return float(np.hypot(self.inflation * error_of(weights, self.lags, self.samples), 8 * self.unsure))

    @property
    def large_area(self) -> tuple[float, float]:
        """Covariance summed over all lags, in units of the variance of a pixel, and its relative error.

        It is the variance a pixel would have if it kept all the light of its photons.
        """
        lags = self.lags
        ring, last = _rings(lags), max(lags.shape) // 2
        seen = max((r for r in range(1, last + 1) if _is_seen(lags, ring == r, self.samples, 0.001)), default=-1)
        weights = (ring <= seen + 1).astype(np.float64)
        total = float((weights * lags).sum())
        error = self.inflation * error_of(weights, lags, self.samples) / max(total, 0.1)
        return total * float(self.covariance.max()), error

    @property
    def errors(self) -> Lags:
        """Standard errors of `lags`, ``(dy, dx)``: Bartlett's formula plus `unsure`."""
        lags, out = self.lags, np.zeros(self.covariance.shape)
        cy, cx = (size // 2 for size in lags.shape)
        for y, x in np.ndindex(lags.shape):
            weights = np.zeros(lags.shape)
            weights[y, x] += 0.5
            weights[2 * cy - y, 2 * cx - x] += 0.5
            weights[cy, cx] -= lags[y, x]
            out[y, x] = np.hypot(error_of(weights, lags, self.samples), self.unsure if (y, x) != (cy, cx) else 0.0)
        return out

    @property
    def null_sd(self) -> float:
        """Standard deviation of `neighbours` for uncorrelated noise: ``sqrt(48 / frames)``."""
        return float(np.sqrt((MAP_WINDOW**2 - 1) / self.effective_frames))


def tiles_of(shape: tuple[int, int], smallest: int = 64, most: int = 4) -> tuple[Region, ...]:
    """Divide a detector into up to 4 x 4 equal tiles of at least `smallest` pixels; no tiles if it is too small.

    Examples
    --------
    >>> [(rows.stop, cols.start) for rows, cols in tiles_of((64, 200))]
    [(64, 0), (64, 66), (64, 133)]
    """
    n_y, n_x = (int(np.clip(size // smallest, 1, most)) for size in shape)
    if n_y * n_x == 1:
        return ()
    y, x = np.arange(n_y + 1) * shape[0] // n_y, np.arange(n_x + 1) * shape[1] // n_x
    return tuple(
        (slice(int(y[i]), int(y[i + 1])), slice(int(x[j]), int(x[j + 1]))) for i in range(n_y) for j in range(n_x)
    )


def measure_correlation(
    static: StaticFrames,
    method: Literal["differences", "mean"] = "differences",
    *,
    apart: int = 3,
    radius: int | None = None,
    tiles: Sequence[Region] = (),
) -> Correlation:
    """Measure the noise correlation of a static scene in one more pass over its frames.

    Residuals are frames minus their mean, or differences of all pairs of frames at distances from `apart` to twice that
    (see `pairs_apart`), divided by the standard deviation of the pixel's noise.  The mean residual of each row is
    subtracted (readout noise), and the effect on the lags is corrected.

    Parameters
    ----------
    static
        The frames, surveyed.
    method
        ``"differences"`` is not affected by slow drift and afterglow, ``"mean"`` has smaller errors.
    apart
        Smallest distance of the frames of a difference; reduced if there are few frames.
    radius
        Largest lag; by default 10, or less for a small detector.
    tiles
        Regions to measure separately; those with less than a quarter of good pixels count as empty.

    Examples
    --------
    >>> from quietray.detector.noise.static import NoiseSource, survey_frames
    >>> frames = np.random.default_rng(0).poisson(100, (40, 64, 64)).astype(np.float32)
    >>> found = measure_correlation(survey_frames(NoiseSource("static frames", frames)))
    >>> abs(found.summed) < 4 * found.summed_error < 0.6
    True
    """
    if method not in METHODS:
        raise SettingsError(f"the estimator must be one of {', '.join(METHODS)}, got '{method}'")
    n_frames = len(static.levels)
    if apart < 1:
        raise SettingsError(f"the frames of a difference must be at least 1 apart, got {apart}")
    if method == "differences":
        apart = max(1, min(apart, n_frames // 3))
    ry, rx = (min(RADIUS if radius is None else radius, max(size // 5, min(size - 1, 1))) for size in static.good.shape)
    whole = (slice(0, static.good.shape[0]), slice(0, static.good.shape[1]))
    powers = [LagSums(region, static.good, (ry, rx)) for region in (whole, *tiles)]
    sums = Residuals(static, method, apart)
    for residuals in sums:
        for power in powers:
            power.add(residuals)
    width = sums.row_width()
    raw = [power.finish() for power in powers]
    found = [_with_row_means(lags, width, rx) for lags in raw]
    effective = float(n_frames - 1) if method == "mean" else pairs_apart(n_frames, apart)[1]
    samples = [power.n_pixels * effective * (power.share > 0.25 or power is powers[0]) for power in powers]
    row_share, column_share = sums.shares(found[0], width)
    neighbours, successive = sums.neighbours(found[0], width), sums.successive(found[0], samples[0])
    shared, unsure = _outermost(found[0], samples[0])
    reach = _reach(found[0], samples[0], shared)
    found = [_within(_with_row_means(lags, width, reach) - shared * lags.max(), reach) for lags in raw]
    return Correlation(
        method,
        found[0],
        samples[0],
        float(1 / (1 - min(found[0].shape[1] / width, 0.9))),
        n_frames,
        effective,
        neighbours,
        row_share,
        column_share,
        successive,
        shared,
        unsure,
        tuple((region, lags, n) for region, lags, n in zip(tiles, found[1:], samples[1:], strict=True)),
    )


def _with_row_means(lags: Lags, width: float, radius: int) -> Lags:
    """Undo the subtraction of row means, which lowers every lag by ``sum of the row's lags / width``.

    The lags of a row are summed up to `radius`; beyond, there is only noise.
    """
    middle = lags.shape[1] // 2
    near = lags[:, max(0, middle - radius) : middle + radius + 1]
    taken = near.sum(axis=1, keepdims=True) / (1 - min(near.shape[1] / width, 0.9)) / width
    return np.asarray(lags + taken)


def _rings(lags: Lags) -> np.ndarray:
    """Return the distance of each lag from the centre, as the larger of its two components."""
    y, x = (np.abs(np.arange(size) - size // 2) for size in lags.shape)
    return np.asarray(np.maximum(y[:, None], x[None]))


def _outermost(lags: Lags, samples: float) -> tuple[float, float]:
    """Return the mean correlation of the outermost lags (0 if not significant), and their scatter beyond the errors."""
    ring, scaled = _rings(lags), lags / lags.max()
    if min(lags.shape) < 2 * RADIUS + 1:
        return 0.0, 0.0
    far = scaled[ring > RADIUS - 3]
    error = error_of(np.where(ring > RADIUS - 3, 1 / far.size, 0.0), scaled, samples)
    shared = float(far.mean())
    single = float((scaled**2).sum() / samples)
    unsure = float(np.sqrt(max(float(far.var()) - single, 0.0)))
    shared = shared if abs(shared) > 4 * error else 0.0
    return shared, float(np.hypot(unsure if unsure > np.sqrt(single) / 2 else 0.0, shared))


def _reach(lags: Lags, samples: float, shared: float) -> int:
    """Return the smallest radius (6, 8 or 10, or less for small detectors) beyond which all rings of lags are zero."""
    ring, scaled, radius = _rings(lags), lags / lags.max() - shared, min(lags.shape) // 2
    if radius < 6:
        return int(radius // 2 * 2)
    seen = max((r for r in range(7, radius + 1) if _is_seen(scaled, ring == r, samples, 0.004)), default=6)
    return next((r for r in (6, 8, 10) if seen <= r <= radius), int(radius // 2 * 2))


def _is_seen(lags: Lags, ring: np.ndarray, samples: float, least: float) -> bool:
    """Return whether the mean over a ring of lags is above zero."""
    weights = ring / np.count_nonzero(ring)
    return float((weights * lags).sum()) > max(least, 4 * error_of(weights, lags, samples))


def _within(lags: Lags, radius: int) -> Lags:
    """Return the lags up to `radius`; fewer for detectors with fewer rows."""
    cy, cx = lags.shape[0] // 2, lags.shape[1] // 2
    ry, rx = min(cy, max(radius, 1)), min(cx, max(radius, 6 if cy < 2 else 1))
    return lags[cy - ry : cy + ry + 1, cx - rx : cx + rx + 1]
