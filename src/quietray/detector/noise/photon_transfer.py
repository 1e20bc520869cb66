"""Photons per count, from the relation between noise and signal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from quietray.brief import brief
from quietray.detector.correction.correct import Calibration
from quietray.detector.noise.correlation import Correlation
from quietray.detector.noise.static import StaticFrames
from quietray.errors import NoiseError
from quietray.types import Sinograms

__all__ = ["PhotonTransfer", "log_bias", "log_variance", "photon_transfer"]

Level = tuple[StaticFrames, Correlation]
_BINS = 16


def log_bias(sinograms: Sinograms, calibration: Calibration, rows: slice) -> tuple[float, float] | None:
    """Return the bias of the line integrals caused by the logarithm of noisy counts.

    ``E[-log(counts)]`` exceeds ``-log E[counts]`` by about ``1 / (2 n)`` for n detected quanta.  The bias is the same
    in all subsets of the views, so no self-supervised method removes it.

    Parameters
    ----------
    sinograms
        Line integrals ``(row, view, col)``.
    calibration
        Calibration with the counts per quantum.
    rows
        The detector rows of the sinograms.

    Returns
    -------
    tuple of float, or None
        The largest bias of a column, averaged over views, and the mean bias, both dimensionless; None if the counts per
        quantum are unknown.

    Examples
    --------
    >>> from quietray.detector.correction.correct import Correction, calibrate
    >>> from quietray.geometry import ParallelBeam
    >>> from quietray.scan import Scan
    >>> rng = np.random.default_rng(0)
    >>> beam = ParallelBeam(np.linspace(0, 3, 16), 2, 40)
    >>> scan = Scan(rng.poisson(50, (16, 2, 40)), beam, rng.poisson(100, (50, 2, 40)), np.zeros((5, 2, 40)))
    >>> calibration = calibrate(scan)
    >>> worst, mean = log_bias(np.full((2, 16, 40), np.log(2), np.float32), calibration, slice(0, 2))
    >>> 0.007 < mean < 0.013
    True
    """
    if calibration.quantum <= 0:
        return None
    quanta = np.exp(-sinograms) * (calibration.flat[rows, None] / calibration.quantum)
    bias = 0.5 / np.maximum(quanta, 0.5)
    return float(bias.mean(axis=1).max()), float(bias.mean())


def log_variance(sinograms: Sinograms, calibration: Calibration, rows: slice) -> Sinograms:
    """Return the noise variance of line integrals.

    For n quanta, it is ``1/n + 3/(2 n^2)``.  Measured counts overestimate ``1/n`` by ``1/n^2``, which is subtracted.

    Parameters
    ----------
    sinograms
        Noisy line integrals ``(row, view, col)``.
    calibration
        Calibration with the counts per quantum and the read noise.
    rows
        The detector rows of the sinograms.

    Raises
    ------
    NoiseError
        The counts per quantum are unknown.

    Examples
    --------
    >>> from quietray.detector.correction.correct import Correction, calibrate
    >>> from quietray.geometry import ParallelBeam
    >>> from quietray.scan import Scan
    >>> rng = np.random.default_rng(0)
    >>> beam = ParallelBeam(np.linspace(0, 3, 16), 2, 400)
    >>> scan = Scan(rng.poisson(50, (16, 2, 400)), beam, rng.poisson(100, (400, 2, 400)), np.zeros((5, 2, 400)))
    >>> y = -np.log(scan.projections / 100).swapaxes(0, 1).astype(np.float32)
    >>> variance = log_variance(y, calibrate(scan, Correction(air="none")), slice(0, 2))
    >>> bool(abs(variance.mean() / y.var() - 1) < 0.05)
    True
    """
    if calibration.quantum <= 0:
        raise NoiseError(
            "the counts per quantum must be known, got too few flats to measure them; take ten flats in a row"
        )
    counts = np.exp(-sinograms) * calibration.flat[rows, None]
    one = calibration.quantum / counts
    return np.asarray(one + 0.5 * one**2 + (calibration.read_noise / counts) ** 2, np.float32)


@dataclass(frozen=True, eq=False)
class PhotonTransfer:
    """Gain and photons of a detector, from the growth of noise with signal.

    Parameters
    ----------
    gain, gain_error
        Counts per detected photon, and its standard error.  If a photon gives a random amount of light, this is the
        gain times the excess factor; mean and variance alone cannot separate the two.
    apparent_gain
        Variance divided by mean, without corrections: too small because of correlations, too large because of read
        noise.
    read_noise, read_noise_from
        Standard deviation without light in counts, and its source: ``"darks"``, ``"fit"`` (extrapolated to no light) or
        ``"not known"`` (taken as zero).
    photons
        Detected photons per pixel and frame, median over the pixels.
    excess
        Excess (Swank) factor; None unless the counts per photon are given.
    curve
        Mean counts, variance, summed neighbour correlation and number of pixels, by brightness, ``(4, bin)``.
    levels
        Mean counts and large-area variance of each exposure, including the darks, ``(2, level)``.
    nonlinearity
        Relative change of variance over mean from the darkest to the brightest level; None for fewer than three levels.

    Examples
    --------
    >>> curve, levels = np.zeros((4, 0)), np.zeros((2, 0))
    >>> found = PhotonTransfer(2.0, 0.1, 1.0, 3.0, "darks", 50.0, None, curve, levels, None)
    >>> round(found.share_of_read_noise, 6)
    0.045
    """

    gain: float
    gain_error: float
    apparent_gain: float
    read_noise: float
    read_noise_from: str
    photons: float
    excess: float | None
    curve: Float[np.ndarray, "4 bin"]
    levels: Float[np.ndarray, "2 level"]
    nonlinearity: float | None

    __repr__ = brief

    @property
    def share_of_read_noise(self) -> float:
        """Variance of the read noise relative to that of the photons, at the median brightness."""
        return self.read_noise**2 / max(self.gain**2 * self.photons, 1e-30)


def photon_transfer(
    static: StaticFrames,
    correlation: Correlation,
    darks: Level | None = None,
    *,
    series: Sequence[Level] = (),
    counts_per_photon: float | None = None,
) -> PhotonTransfer:
    """Measure gain and read noise from mean and variance, corrected for the correlation between pixels.

    A point response h of sum 1 reduces the variance of a pixel to ``gain^2 sum(h^2) photons``.  The rest is in the
    covariances: summed over all lags, they give ``gain^2 photons`` for any h.  Therefore ``gain = (sum of covariances -
    that of the darks) / mean``.

    Parameters
    ----------
    static, correlation
        Frames with light, and the correlation of their noise.
    darks
        Frames without light, and their correlation.
    series
        The same for other exposures; the gain is then the slope over all of them.
    counts_per_photon
        Mean counts per photon, if known independently; this also gives the excess factor.

    Raises
    ------
    NoiseError
        The frames contain no light.

    Examples
    --------
    >>> from quietray.detector.noise.correlation import measure_correlation
    >>> from quietray.detector.noise.static import NoiseSource, survey_frames
    >>> frames = 5.0 * np.random.default_rng(0).poisson(200, (40, 64, 64)).astype(np.float32)
    >>> static = survey_frames(NoiseSource("flats", frames))
    >>> found = photon_transfer(static, measure_correlation(static))
    >>> abs(found.gain - 5) < 4 * found.gain_error < 1.5
    True
    """
    levels = [_large_area(*level) for level in ((static, correlation), *series)]
    if levels[0][0] <= 0:
        raise NoiseError(f"frames for the gain must be exposed, got a mean of {levels[0][0]:.3g} counts above the dark")
    curve = _curve(static, correlation)
    dark, origin = _dark_variance(static, darks, curve)
    points = np.array([(0.0, dark, 0.0), *levels] if origin != "not known" or len(levels) == 1 else levels)
    slope, error, nonlinearity = _slope(points)
    memory = _afterglow_factor(correlation)
    light = static.brightness[static.good]
    bright = light[light > 0.1 * np.median(light)]
    gain = max(slope * memory, 1e-12)
    single = dark if darks is None else _typical(darks[0])
    return PhotonTransfer(
        gain,
        error * memory,
        float(np.mean(static.variance[static.good]) / np.mean(light)),
        float(np.sqrt(max(single, 0.0))),
        origin,
        float(np.median(bright)) / gain,
        None if counts_per_photon is None else gain / counts_per_photon,
        curve,
        points[:, :2].T,
        nonlinearity,
    )


def _typical(static: StaticFrames) -> float:
    """Return the variance of a typical pixel; for few frames, the median of variances is below their mean."""
    low = (1 - 2 / (9 * max(len(static.levels) - 1, 1))) ** 3
    return float(np.median(static.variance[static.good])) / low


def _large_area(static: StaticFrames, correlation: Correlation) -> tuple[float, float, float]:
    """Return mean, variance and its error for a pixel that would hold all the light of its photons."""
    light, good = static.brightness, static.good
    use = good & (light > 0.1 * np.median(light[good]))
    if not use.any():
        return 0.0, 0.0, 0.0
    mean = float(1 / np.mean(1 / light[use]))
    ratio = float(np.mean(static.variance[use] / light[use]))
    summed, relative = correlation.large_area
    variance = mean * ratio * summed
    return mean, variance, abs(variance) * relative


def _dark_variance(static: StaticFrames, darks: Level | None, curve: Float[np.ndarray, "4 bin"]) -> tuple[float, str]:
    """Return the variance without light, summed over lags, and its source; rounding alone adds 1/12."""
    rounding = 1 / 12 if np.issubdtype(static.source.frames.dtype, np.integer) else 0.0
    if darks is not None:
        found, seen = darks
        variance = float(np.mean(np.minimum(found.variance[found.good], 25 * np.median(found.variance[found.good]))))
        return max(variance * seen.large_area[0], rounding), "darks"
    mean, variance = curve[0], curve[1]
    if mean.size >= 4 and mean[0] > 0 and mean[-1] > 2 * mean[0]:
        offset = float(np.polynomial.polynomial.polyfit(mean, variance, 1, w=1 / np.maximum(variance, 1e-30))[0])
        return max(offset, rounding), "fit"
    return rounding, "not known"


def _slope(points: Float[np.ndarray, "level 3"]) -> tuple[float, float, float | None]:
    """Return the slope of variance against mean, its error, and its relative change."""
    mean, variance, error = points.T
    if len(points) <= 2:
        step = mean[-1] - mean[0] if len(points) == 2 else mean[-1]
        rise = variance[-1] - variance[0] if len(points) == 2 else variance[-1]
        return float(rise / step), float(np.hypot(*error[[0, -1]]) / step), None
    weight = 1 / np.maximum(error, 0.01 * variance.max())
    design = np.stack([np.ones_like(mean), mean], axis=1) * weight[:, None]
    fit, *_ = np.linalg.lstsq(design, variance * weight, rcond=None)
    cov = np.linalg.inv(design.T @ design)
    bent = np.polynomial.polynomial.polyfit(mean, variance, 2, w=weight)
    return float(fit[1]), float(np.sqrt(cov[1, 1])), float(bent[2] * (mean.max() - mean.min()) / fit[1])


def _afterglow_factor(correlation: Correlation) -> float:
    """Return the effect of afterglow in the next frame on variance over mean: ``(1 + a) / (1 + a^2)``."""
    if correlation.successive is None or correlation.successive[0] < 3 * correlation.successive[1]:
        return 1.0
    rho = min(correlation.successive[0], 0.45)
    share = (1 - np.sqrt(1 - 4 * rho**2)) / (2 * rho)
    return float((1 + share) / (1 + share**2))


def _curve(static: StaticFrames, correlation: Correlation) -> Float[np.ndarray, "4 bin"]:
    """Return mean, variance, summed correlation and pixels, in bins of equal numbers of pixels sorted by brightness."""
    smooth = ndimage.uniform_filter(np.where(static.good, static.brightness, 0), 3)
    smooth /= np.maximum(ndimage.uniform_filter(static.good.astype(np.float32), 3), 1e-6)
    light, variance = smooth[static.good], static.variance[static.good]
    near = correlation.neighbours[static.good]
    edges = np.quantile(light, np.linspace(0, 1, _BINS + 1))
    index = np.clip(np.searchsorted(edges, light, side="right") - 1, 0, _BINS - 1)
    rows = []
    for number in range(_BINS):
        chosen = index == number
        if np.count_nonzero(chosen) >= 16:
            around = near[chosen & np.isfinite(near)]
            summed = float(around.mean()) if around.size else 0.0
            rows.append((light[chosen].mean(), variance[chosen].mean(), summed, float(chosen.sum())))
    return np.array(rows, dtype=np.float64).T if rows else np.zeros((4, 0))
