"""What the noise of a view has in common with that of the next views, and so the subsets of the views with each other.

Noise2Inverse takes the interleaved subsets ``j::K`` of the views for independent.  Two things make them alike: memory
of the detector (light of one view is seen again in the next), and whatever is the same in all views (rings).
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

FEWEST = 10  # frames in a row that can tell
REACH = 3  # frames that a frame is taken to remember
_WINDOW = 16
_MOTION = 0.02  # correlation with the view after the next one that only an object has
_MOST_WINDOWS = 64


@dataclass(frozen=True)
class Memory:
    """Correlation of the noise of a pixel in one view with that in the next three.

    Parameters
    ----------
    correlations
        With the next view, the one after it, and the third.
    covariance
        ``(3, 3)`` of their errors, as nested tuples.
    source
        Where it was read.
    frames
        Frames used.

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
        """Return the mean correlation between the means over two of the subsets ``j::parts``, and its standard error.

        A view has ``2 / (parts - 1)`` neighbours at a distance in each other subset, on average, unless the distance is
        a multiple of `parts`: so the correlation is that times the sum over the other distances.
        """
        weights = np.array([2 / (parts - 1) if lag % parts else 0.0 for lag in range(1, REACH + 1)])
        value = float(weights @ np.array(self.correlations))
        return value, float(np.sqrt(max(weights @ np.array(self.covariance) @ weights, 0.0)))


@dataclass(frozen=True)
class Subsets:
    """How far the noise of interleaved subsets of the views is from independent.

    Parameters
    ----------
    parts
        Number of subsets K; subset j holds the views ``j::K``.
    correlation, error
        Between the noise of two of them, and standard error.
    memory, static
        The part that neighbouring views share, and the part that all views share: rings, such as the flats' own noise.
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
    """Return how alike the noise of `parts` interleaved subsets is.

    Parameters
    ----------
    memory
        Of the views; None where it is not known, and then left out.
    static, static_error
        Share of the noise variance of a view that is the same in all views, and standard error: as a voxel meets it
        that falls on another pixel in each view of a subset, and in the other subsets on the same ones.
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
    """Measure the memory of the detector where a scan of one detector shows it best; None where it does not.

    The air beside the object, for it is in the views themselves; repeated frames or flats, if ten were taken in a row;
    else the pixels where the object changes least from view to view, unless they, too, show it: then views that are two
    apart seem to share noise.

    Parameters
    ----------
    scan, calibration
        The scan, and what is known about it.
    sources
        Where its noise can be read.
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
    """Measure how the noise of a frame goes with that of the frames right after it; None for fewer than ten frames.

    In windows of up to 16 frames (ten where an object moves) a straight line is taken from every pixel, and its mean
    over the pixels from every frame: fixed patterns, drift and flicker go.  What this takes from the covariances of the
    rest is known, so that those of the noise follow from them by solving four linear equations; beyond three frames
    they are taken to be zero.

    Parameters
    ----------
    frames
        ``(frame, row, col)`` in the order they were taken; may be lazy.
    use
        ``(row, col)`` pixels that are static (or nearly so: see `moving`) and good.
    lags
        Correlation between neighbouring pixels, which says how many independent samples there are.
    source
        What the frames are.
    offset
        ``(row, col)`` dark, subtracted first.
    moving
        Whether an object moves through the pixels: then a parabola is taken away instead of a line.

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
    """Return the residuals, zero for a pixel with a zinger in the window: so no distance is treated unlike others."""
    spread = 1.4826 * np.median(np.abs(left), axis=1, keepdims=True)
    return np.where((np.abs(left) > 6 * np.maximum(spread, 1e-12)).any(axis=0), 0, left)


@lru_cache
def _polynomials(size: int, degree: int) -> Float[np.ndarray, "frame term"]:
    """Return an orthonormal basis of the polynomials over a window."""
    powers = np.polynomial.legendre.legvander(np.linspace(-1, 1, size), degree)
    return np.asarray(np.linalg.qr(powers)[0], dtype=np.float32)


@lru_cache
def _forms(size: int, degree: int) -> tuple[Float[np.ndarray, "lag lag"], Float[np.ndarray, "lag frame frame"]]:
    """Return what makes the covariances of the noise of sums of products of its residuals, as matrix and as forms.

    Residuals of a window are ``M x``, M taking the polynomials away.  The sum of products at distance l is the form
    ``M U_l M``, U_l with ones on diagonal l; noise of covariance ``T_k`` at distance k gives ``trace(U_l M T_k M)``.
    """
    basis = _polynomials(size, degree).astype(np.float64)
    rest = np.eye(size) - basis @ basis.T
    bands = np.array([linalg.toeplitz(np.arange(size) == lag) for lag in range(REACH + 1)], dtype=np.float64)
    ones = np.array([band if lag == 0 else band / 2 for lag, band in enumerate(bands)])
    solver = np.linalg.inv(np.einsum("lij,kij->lk", ones, rest @ bands @ rest))
    return solver, np.einsum("kl,lij->kij", solver, rest @ ones @ rest)
