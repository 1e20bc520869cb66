"""Point response of a detector, estimated from the correlation of its noise.

Light that spreads over neighbouring pixels correlates their noise: the auto-correlation of the noise is the point
response convolved with itself.  Its square root is the symmetric response that whitens the noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from quietray.detector.noise.correlation import Correlation, measure_correlation
from quietray.detector.noise.correlation import tiles_of as _tiles_of
from quietray.detector.noise.lags import Lags, Region, error_of
from quietray.detector.noise.static import NoiseSource, StaticFrames, survey_frames
from quietray.detector.response.response import FLOOR, PointResponse
from quietray.detector.response.roots import check_window, kernel_errors, root_by_covariance, root_by_spectrum
from quietray.errors import NoiseError, SettingsError
from quietray.types import Frame, Frames, PixelMask

__all__ = [
    "FLOOR",
    "PointResponse",
    "estimate_point_response",
    "point_response",
    "unevenness",
]


def point_response(
    correlation: Correlation,
    root: Literal["spectrum", "covariance"] = "spectrum",
    window: int | None = None,
    *,
    uneven: bool | None = None,
    blend: bool = True,
    facts: Mapping[str, Any] | None = None,
) -> PointResponse:
    """Return the point response that follows from the measured correlation.

    Parameters
    ----------
    correlation
        Correlation of the noise.
    root
        Method for the square root, by spectrum or by a small covariance matrix; they agree within their errors.
    window
        Number of lags to use, 1 mod 4; by default all that were measured.
    uneven
        Whether each measured tile gets its own response; by default, if they differ significantly.
    blend
        Whether the responses of neighbouring tiles blend into each other.
    facts
        Information stored with the response.

    Raises
    ------
    NoiseError
        The detector has too few rows or columns for a kernel.

    Examples
    --------
    >>> lags = np.zeros((9, 9)); lags[4, 4] = 1.0
    >>> white = Correlation("mean", lags, 1e6, 1.0, 9, 8.0, np.zeros((3, 3)), 0.0, 0.0, None)
    >>> round(float(point_response(white).kernel.max()), 6)
    1.0
    """
    if root not in ("spectrum", "covariance"):
        raise SettingsError(f"the square root must be by spectrum or by covariance, got '{root}'")
    lags = _cropped(correlation.lags, window)
    rooted = root_by_spectrum if root == "spectrum" else root_by_covariance
    many = (unevenness(correlation)[1] if uneven is None else uneven) and bool(correlation.tiles)
    regions = [(region, rooted(_cropped(tile / tile.max(), window))) for region, tile, _ in correlation.tiles if many]
    kernel = rooted(lags)
    known = {"summed": correlation.summed, "summed_error": correlation.summed_error, "frames": correlation.n_frames}
    errors = correlation.inflation * kernel_errors(lags, kernel.shape, correlation.samples, correlation.unsure)
    return PointResponse(
        kernel,
        errors,
        lags,
        f"{correlation.method}, {root}",
        regions=tuple(regions),
        blend=blend,
        facts={**known, **dict(facts or {})},
    )


def _cropped(lags: Lags, window: int | None) -> Lags:
    """Return the central lags, `window` wide; by default the largest square that is 1 mod 4."""
    most = min(lags.shape)
    size = (most - 1) // 4 * 4 + 1 if window is None else window
    if window is not None:
        check_window(window)
    if size > most or size < 5:
        raise NoiseError(
            f"the detector must be large enough for lags of {max(size, 5)} x {max(size, 5)} pixels, got lags of "
            f"{lags.shape[0]} x {lags.shape[1]}; a kernel needs at least 12 rows and columns"
        )
    cy, cx, r = lags.shape[0] // 2, lags.shape[1] // 2, size // 2
    return lags[cy - r : cy + r + 1, cx - r : cx + r + 1]


def unevenness(correlation: Correlation) -> tuple[float, bool]:
    """Return how much the summed correlation varies between tiles (beyond the errors), and whether it matters.

    Examples
    --------
    >>> lags = np.zeros((9, 9)); lags[4, 4] = 1.0
    >>> unevenness(Correlation("mean", lags, 1e6, 1.0, 9, 8.0, np.zeros((3, 3)), 0.0, 0.0, None))
    (0.0, False)
    """
    if len(correlation.tiles) < 2 or min(samples for _, _, samples in correlation.tiles) <= 0:
        return 0.0, False
    sums = np.array([tile.sum() / tile.max() for _, tile, _ in correlation.tiles])
    error = np.array([_tile_error(tile, samples) for _, tile, samples in correlation.tiles])
    error *= correlation.inflation
    middle = float(np.average(sums, weights=1 / error**2))
    chi, n = float((((sums - middle) / error) ** 2).sum()), len(sums) - 1
    beyond = math.sqrt(max(float(sums.var(ddof=1)) - float((error**2).mean()), 0.0))
    return beyond, chi > n + 4 * math.sqrt(2 * n) and beyond > 0.05 * abs(middle)


def _tile_error(tile: Lags, samples: float) -> float:
    weights = np.ones(tile.shape)
    weights[tile.shape[0] // 2, tile.shape[1] // 2] -= tile.sum() / tile.max()
    return error_of(weights, tile / tile.max(), samples)


def estimate_point_response(
    frames: Frames,
    dark: Frame | None = None,
    *,
    method: Literal["differences", "mean"] = "differences",
    root: Literal["spectrum", "covariance"] = "spectrum",
    window: int | None = None,
    use: PixelMask | None = None,
    tiles: tuple[Region, ...] | Literal["auto", "none"] = "none",
    blend: bool = True,
) -> PointResponse:
    """Estimate the point response of a detector from repeated frames of one static scene.

    Parameters
    ----------
    frames
        Counts ``(frame, row, col)``; may be lazy: they are read twice, in blocks.
    dark
        Mean dark ``(row, col)``, subtracted first; it only matters for flicker.
    method, root, window
        Estimator, square root, and lags to use.
    use
        Mask ``(row, col)`` of pixels to use; bad pixels are detected and left out in any case.
    tiles
        Regions of the detector with separate responses.  ``"auto"`` divides it into up to 4 x 4 tiles, which are only
        used if they differ; modules of a detector can be given as ``((rows, cols),...)``.
    blend
        Whether neighbouring tiles blend into each other; False for modules.

    Raises
    ------
    NoiseError
        There are fewer than two frames, they do not vary, or the detector is too small.

    Examples
    --------
    >>> from quietray.simulate.noise import Scintillator
    >>> rng = np.random.default_rng(0)
    >>> frames = Scintillator(response_width=0.5).sample(np.full((40, 96, 96), 400.0), rng)
    >>> kernel = estimate_point_response(frames).kernel
    >>> bool(abs(kernel[6, 6] - 0.3996) < 0.02)
    True
    """
    static: StaticFrames = survey_frames(NoiseSource("static frames", frames, dark, use))
    named = _tiles_of(static.good.shape) if tiles == "auto" else () if tiles == "none" else tuple(tiles)
    correlation = measure_correlation(static, method, tiles=named)
    facts = {"source": "static frames", "bad_pixels": int(np.count_nonzero(~static.good)), "zingers": static.zingers}
    uneven = None if tiles == "auto" else bool(named)
    return point_response(correlation, root, window, uneven=uneven, blend=blend, facts=facts)
