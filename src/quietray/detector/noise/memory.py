"""Correlation of the noise between views, and between angular subsets of the views.

Noise2Inverse assumes that the interleaved subsets ``j::K`` of the views are independent.  Two effects correlate them:
detector memory (light of one view appears again in the next), and errors common to all views (rings).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import linalg

from quietray.detector.correction.calibration import Calibration
from quietray.detector.correction.frames import sampled_rows
from quietray.detector.noise.lags import Lags
from quietray.detector.noise.sources import neighbouring_views
from quietray.detector.noise.static import NoiseSource
from quietray.scan import Scan
from quietray.types import Frame, Frames, PixelMask

__all__ = ["FEWEST", "Memory", "Subsets", "measure_memory", "memory_of_views", "subsets_of"]

FEWEST = 10  # least number of consecutive frames
REACH = 3  # number of frames over which memory is assumed to extend
_WINDOW = 16
_MOTION = 0.02  # correlation with the view after next that only an object can cause
_MOST_WINDOWS = 64


@dataclass(frozen=True)
class Memory:
    """Correlation of the noise of a pixel between a view and the next three views.

    Parameters
    ----------
    correlations
        Correlation with the next view, the one after it, and the third.
    covariance
        Covariance of their errors, ``(3, 3)``, as nested tuples.
    source
        Description of the source.
    frames
        Number of frames used.

    Examples
    --------
    >>> memory = Memory((0.05, 0.0, 0.0), ((1e-6, 0, 0), (0, 1e-6, 0), (0, 0, 1e-6)), "air columns", 64)
    >>> [round(number, 4) for number in memory.between(2)]
    [0.1, 0.0028]
    """

    correlations: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    source: str
    frames: int

    @property
    def errors(self) -> tuple[float, ...]:
        """Standard errors of `correlations`."""
        return tuple(float(np.sqrt(max(row[index], 0.0))) for index, row in enumerate(self.covariance))

    @property
    def alternating(self) -> float:
        """Variance of the difference of even and odd views, relative to that of independent views."""
        signs = np.array([(-1) ** lag for lag in range(1, REACH + 1)])
        return max(1 + 2 * float(signs @ np.array(self.correlations)), 0.1)

    def between(self, parts: int) -> tuple[float, float]:
        """Return the mean correlation between the means of two of the subsets ``j::parts``, and its standard error.

        At any given distance, a view has on average ``2 / (parts - 1)`` neighbours in each other subset, unless the
        distance is a multiple of `parts`.  The correlation is this number times the sum over the other distances.
        """
        weights = np.array([2 / (parts - 1) if lag % parts else 0.0 for lag in range(1, REACH + 1)])
        value = float(weights @ np.array(self.correlations))
        return value, float(np.sqrt(max(weights @ np.array(self.covariance) @ weights, 0.0)))


@dataclass(frozen=True)
class Subsets:
    """Correlation of the noise between interleaved subsets of the views.

    Parameters
    ----------
    parts
        Number of subsets K; subset j contains the views ``j::K``.
    correlation, error
        Correlation between the noise of two subsets, and its standard error.
    memory, static
        The contribution of neighbouring views, and that of errors common to all views (rings), such as the noise of the
        flats.
    with_rest
        Correlation of one subset with the mean of all others: of Noise2Inverse's target with its input.

    Examples
    --------
    >>> found = subsets_of(None, 0.1, 0.01, 2)
    >>> found.parts, round(found.correlation, 6), found.memory, found.static, round(found.with_rest, 6)
    (2, 0.1, None, 0.1, 0.1)
    """

    parts: int
    correlation: float
    error: float
    memory: float | None
    static: float
    with_rest: float


def subsets_of(memory: Memory | None, static: float, static_error: float, parts: int) -> Subsets:
    """Return the correlation of the noise between `parts` interleaved subsets.

    Parameters
    ----------
    memory
        Memory of the views; None if unknown, which is neglected.
    static, static_error
        Fraction of the noise variance of a view that is the same in all views, and its standard error, for a voxel that
        falls on different pixels in the views of a subset and on the same pixels in other subsets.
    parts
        Number of subsets.

    Examples
    --------
    >>> subsets_of(None, 1 / 11, 0.0, 4).with_rest.__round__(3)
    0.145
    """
    dynamic, error = (0.0, 0.0) if memory is None else memory.between(parts)
    both = static + (1 - static) * dynamic
    rest = both / float(np.sqrt(max(1 + (parts - 2) * both, 1e-6) / (parts - 1)))
    error = float(np.hypot((1 - dynamic) * static_error, (1 - static) * error))
    return Subsets(parts, both, error, None if memory is None else dynamic, static, rest)


def memory_of_views(
    scan: Scan, calibration: Calibration, sources: tuple[NoiseSource, ...], lags: Lags
) -> Memory | None:
    """Measure the memory of a single detector where the scan shows it best; None if that is not possible.

    The preferred source is air beside the object, as it is in the views themselves; then repeated frames or flats, if
    ten were taken in a row; else the pixels where the object changes least between views.  These are not used if they
    show the object, so that views two apart seem to share noise.

    Parameters
    ----------
    scan, calibration
        The scan and its calibration.
    sources
        Sources of noise in the scan.
    lags
        Correlation of the noise of neighbouring pixels.
    """
    named = {source.name: source for source in sources}
    for name in ("air columns", "static frames", "flats"):
        source = named.get(name)
        if source is not None and source.n_frames >= FEWEST and source.use is not None:
            return measure_memory(source.frames, source.use, lags, name, offset=source.offset)
    if scan.n_views < FEWEST:
        return None
    moving = named.get("neighbouring views") or neighbouring_views(scan, calibration.dark, ~calibration.bad)
    assert moving.use is not None
    found = measure_memory(scan.projections, moving.use, lags, moving.name, offset=calibration.dark, moving=True)
    return None if found is None or found.correlations[1] > max(_MOTION, 3 * found.errors[1]) else found


def measure_memory(
    frames: Frames,
    use: PixelMask,
    lags: Lags,
    source: str = "static frames",
    *,
    offset: Frame | None = None,
    moving: bool = False,
) -> Memory | None:
    """Measure the correlation of a frame's noise with the frames after it; None for fewer than ten frames.

    In windows of up to 16 frames (ten if an object moves), a straight line is subtracted from every pixel, and the mean
    over the pixels from every frame.  This removes fixed patterns, drift and flicker.  Its known effect on the
    covariances is corrected by solving four linear equations; covariances beyond three frames are assumed to be zero.

    Parameters
    ----------
    frames
        Frames ``(frame, row, col)`` in the order of acquisition; may be lazy.
    use
        Mask ``(row, col)`` of pixels that are good and static (or nearly so: see `moving`).
    lags
        Correlation between neighbouring pixels, which determines the number of independent samples.
    source
        Description of the frames.
    offset
        Dark ``(row, col)``, subtracted first.
    moving
        Whether an object moves through the pixels; a parabola is then subtracted instead of a line.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(100, 5, (65, 20, 30))
    >>> white = np.zeros((3, 3)); white[1, 1] = 1.0
    >>> found = measure_memory(noise[1:] + 0.3 * noise[:-1], np.ones((20, 30), bool), white, "flats")
    >>> abs(found.correlations[0] - 0.3 / 1.09) < 4 * found.errors[0] < 0.06
    True
    """
    n_frames, n_rows, _ = (int(size) for size in frames.shape)
    rows = sampled_rows(n_rows)
    good = use[rows]
    if n_frames < FEWEST or np.count_nonzero(good) < 64:
        return None
    size, degree = (FEWEST, 2) if moving else (min(_WINDOW, n_frames), 1)
    starts = np.unique(np.linspace(0, n_frames - size, min(n_frames // size, _MOST_WINDOWS)).round().astype(int))
    fit = _polynomials(size, degree)
    solver, forms = _forms(size, degree)
    products = np.zeros(REACH + 1)
    for start in starts:
        block = np.asarray(frames[int(start) : int(start) + size, rows], dtype=np.float32)
        block = (block if offset is None else block - offset[rows])[:, good]
        levels = np.maximum(np.median(block, axis=1, keepdims=True), 1e-6)
        block = block * (levels.mean() / levels) if levels.min() > 0.5 * levels.mean() else block
        left = _without_outliers(block - fit @ (fit.T @ block))
        left -= left.mean(axis=1, keepdims=True)
        products += [float((left[: size - lag] * left[lag:]).mean(axis=1).sum()) for lag in range(REACH + 1)]
    solved = solver @ products
    ratios = solved[1:] / solved[0]
    step = rows.step or 1
    samples = len(starts) * np.count_nonzero(good) / float((lags[lags.shape[0] // 2 % step :: step] ** 2).sum())
    centred = [forms[lag] - ratio * forms[0] for lag, ratio in enumerate(ratios, 1)]
    covariance = [[2 * float((one * other).sum()) / samples for other in centred] for one in centred]
    return Memory(tuple(ratios.tolist()), tuple(map(tuple, covariance)), source, len(starts) * size)


def _without_outliers(left: Float[np.ndarray, "frame pixel"]) -> Float[np.ndarray, "frame pixel"]:
    """Return the residuals, zero for pixels with a zinger in the window, so that all distances are affected alike."""
    spread = 1.4826 * np.median(np.abs(left), axis=1, keepdims=True)
    return np.where((np.abs(left) > 6 * np.maximum(spread, 1e-12)).any(axis=0), 0, left)


@lru_cache
def _polynomials(size: int, degree: int) -> Float[np.ndarray, "frame term"]:
    """Return an orthonormal basis of the polynomials over a window."""
    powers = np.polynomial.legendre.legvander(np.linspace(-1, 1, size), degree)
    return np.asarray(np.linalg.qr(powers)[0], dtype=np.float32)


@lru_cache
def _forms(size: int, degree: int) -> tuple[Float[np.ndarray, "lag lag"], Float[np.ndarray, "lag frame frame"]]:
    """Return the relation between noise covariances and sums of products of residuals, as a matrix and as forms.

    The residuals of a window are ``M x``, where M removes the polynomials.  The sum of products at distance l is the
    quadratic form ``M U_l M``, where U_l has ones on diagonal l.  Noise with covariance ``T_k`` at distance k gives
    ``trace(U_l M T_k M)``.
    """
    basis = _polynomials(size, degree).astype(np.float64)
    rest = np.eye(size) - basis @ basis.T
    bands = np.array([linalg.toeplitz(np.arange(size) == lag) for lag in range(REACH + 1)], dtype=np.float64)
    ones = np.array([band if lag == 0 else band / 2 for lag, band in enumerate(bands)])
    solver = np.linalg.inv(np.einsum("lij,kij->lk", ones, rest @ bands @ rest))
    return solver, np.einsum("kl,lij->kij", solver, rest @ ones @ rest)
