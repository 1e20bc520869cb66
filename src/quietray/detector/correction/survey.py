"""Global measurements over the whole detector, before any row is corrected.

Frames are read in bands of rows and views in blocks, so that the memory does not grow with the scan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from quietray.detector.correction.frames import SAMPLES, FrameStatistics, Pile, robust_sd
from quietray.errors import NoiseError
from quietray.scan import Scan
from quietray.types import Frame, PixelMask, Radiographs

__all__ = [
    "BadPixels",
    "ViewSurvey",
    "blocks_of_views",
    "find_bad_pixels",
    "local_median",
    "survey_views",
]

_SURVEY_VIEWS = 32


def blocks_of_views(scan: Scan, rows: slice) -> Iterator[tuple[slice, Radiographs]]:
    """Read `rows` of all views in blocks; yields counts ``(view, row, col)`` and the slice of views they belong to.

    Raises
    ------
    NoiseError
        The counts contain NaN or infinity.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> scan = Scan(np.ones((4, 3, 5), np.float32), ParallelBeam(np.arange(4.0), 3, 5))
    >>> [block.shape for _, block in blocks_of_views(scan, slice(1, None, 2))]
    [(4, 1, 5)]
    """
    n_rows = len(range(scan.n_rows)[rows])
    step = max(1, SAMPLES // max(1, n_rows * scan.n_cols))
    for start in range(0, scan.n_views, step):
        views = slice(start, min(start + step, scan.n_views))
        counts = scan.read(rows, views)
        if n_bad := int(np.count_nonzero(~np.isfinite(counts))):
            raise NoiseError(
                f"projections must be finite counts, got {n_bad} NaN or infinite samples in views "
                f"{views.start}:{views.stop}; correct the file or leave these views out"
            )
        yield views, counts


@dataclass(frozen=True, eq=False)
class ViewSurvey:
    """Statistics of a few whole views, pixel by pixel.

    Parameters
    ----------
    mean
        Mean counts over the views, ``(row, col)``.
    constant
        Whether all these views agree exactly, ``(row, col)``.
    n_views
        Number of views that were read.
    top
        Number of samples at the largest value.
    """

    mean: Frame
    constant: PixelMask
    n_views: int
    top: Pile


def survey_views(scan: Scan, at_most: int = _SURVEY_VIEWS) -> ViewSurvey:
    """Read a few evenly spaced whole views, one at a time.

    Raises
    ------
    NoiseError
        They contain NaN.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> scan = Scan(np.ones((4, 3, 5), np.float32), ParallelBeam(np.arange(4.0), 3, 5))
    >>> bool(survey_views(scan).constant.all())
    True
    """
    chosen = np.unique(np.linspace(0, scan.n_views - 1, min(at_most, scan.n_views)).round().astype(int))
    shape = (scan.n_rows, scan.n_cols)
    total, low, high = np.zeros(shape), np.full(shape, np.inf, np.float32), np.full(shape, -np.inf, np.float32)
    top = Pile(scan.projections.dtype)
    for view in chosen:
        image = scan.read(slice(0, scan.n_rows), slice(int(view), int(view) + 1))[0]
        if n_bad := int(np.count_nonzero(~np.isfinite(image))):
            raise NoiseError(
                f"projections must be finite counts, got {n_bad} NaN or infinite pixels in view {view}; correct the "
                "file or leave this view out"
            )
        top.add(image.astype(np.int64) if top.integer else image)
        total += image
        low, high = np.minimum(low, image), np.maximum(high, image)
    return ViewSurvey((total / len(chosen)).astype(np.float32), low == high, len(chosen), top)


def local_median(values: Frame, good: PixelMask, size: int = 5) -> Frame:
    """Return the median around each pixel, with bad pixels first replaced by the nearest good ones.

    Examples
    --------
    >>> values = np.ones((6, 6), np.float32); values[2:4, 2:4] = 50
    >>> float(local_median(values, values < 10).max())
    1.0
    """
    import torch  # a slow import, not needed for the settings of a correction

    from quietray.detector.correction.ranks import square_median

    if good.all():
        return square_median(torch.from_numpy(np.require(values, requirements="W")), size).numpy()
    if not good.any():
        return np.full_like(values, np.median(values))
    nearest = ndimage.distance_transform_edt(~good, return_distances=False, return_indices=True)
    return square_median(torch.from_numpy(values[tuple(nearest)]), size).numpy()


@dataclass(frozen=True, eq=False)
class BadPixels:
    """Masks of unreliable pixels by reason, each ``(row, col)``."""

    dead: PixelMask
    hot: PixelMask
    stuck: PixelMask
    unstable: PixelMask

    @property
    def mask(self) -> PixelMask:
        """Mask ``(row, col)`` of pixels that are bad for any reason."""
        return np.asarray(self.dead | self.hot | self.stuck | self.unstable)


def find_bad_pixels(
    flat: Frame, flats: FrameStatistics | None, darks: FrameStatistics | None, views: ViewSurvey
) -> BadPixels:
    """Find dead, hot, stuck and unstable pixels.

    Dead: the flat is below a quarter of the median of its good neighbours, or not above zero.  Hot: the dark exceeds
    its neighbours by 10 standard deviations of the noise and by 2 % of the flat.  Stuck: constant over three or more
    flats and over the views while the neighbours vary.  Unstable: the standard deviation over flats or darks exceeds
    that of the neighbours by 7 standard deviations of its logarithm.

    Parameters
    ----------
    flat
        Flat minus dark in counts, ``(row, col)``.
    flats, darks, views
        Statistics of the frames; None if there are none.

    Examples
    --------
    >>> flat = np.full((8, 8), 100.0, np.float32); flat[3, 4] = 1
    >>> survey = ViewSurvey(flat, np.zeros((8, 8), bool), 3, Pile(flat.dtype))
    >>> np.argwhere(find_bad_pixels(flat, None, None, survey).mask).tolist()
    [[3, 4]]
    """
    none = np.zeros(flat.shape, bool)
    beam = flat > 0.005 * float(np.percentile(flat, 95))
    dead = ~beam | (flat < 0.25 * local_median(flat, beam))
    dead |= flat < 0.25 * local_median(flat, ~dead)
    hot, unstable = none, none
    if darks is not None:
        excess = darks.mean - local_median(darks.mean, ~dead)
        limit = np.maximum(10 * robust_sd(excess), 0.02 * local_median(flat, ~dead))
        hot = (excess > limit) & ~dead
        unstable = unstable | _unstable(darks, ~(dead | hot))
    stuck = none
    if flats is not None and flats.n_frames >= 3:
        idle = flats.constant & views.constant
        moving = ~flats.constant & ~views.constant
        stuck = idle & (ndimage.uniform_filter(moving.astype(np.float32), size=5) > 0.5)
        unstable = unstable | _unstable(flats, ~(dead | hot | stuck))
    return BadPixels(dead, hot, stuck, unstable & ~(dead | hot | stuck))


def _unstable(frames: FrameStatistics, good: Bool[np.ndarray, "row col"]) -> PixelMask:
    """Return pixels whose standard deviation over the frames is far above that of their neighbours."""
    if frames.spread is None or frames.n_frames < 5:
        return np.zeros(good.shape, bool)
    expected = local_median(frames.spread, good)
    usable = good & (expected > 0) & (frames.spread > 0)
    ratio = np.log(np.where(usable, frames.spread, 1) / np.where(usable, expected, 1))
    limit = max(7 * robust_sd(ratio[usable]), np.log(3.0))
    return np.asarray(usable & (ratio > limit))
