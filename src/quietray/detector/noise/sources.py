"""Where the noise of a scan can be measured: static frames, flats, air beside the object, or neighbouring views."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from quietray.detector.correction.correct import Calibration
from quietray.detector.noise.static import NoiseSource
from quietray.errors import NoiseError
from quietray.scan import Scan
from quietray.types import Frame, Frames, PixelMask, Radiographs

__all__ = ["ViewDifferences", "find_sources", "neighbouring_views"]

FEWEST_FLATS = 5


class ViewDifferences:
    """Second differences of neighbouring views, ``(v[t-1] - 2 v[t] + v[t+1]) / sqrt(6)`` for t = 1, 4, 7, ...

    They contain noise, and changes due to the object.  Views are first scaled to equal brightness.

    Parameters
    ----------
    views
        Views ``(view, row, col)`` in counts.

    Examples
    --------
    >>> brighter = np.array([1.0, 2, 3, 4, 5, 6])[:, None, None] * np.ones((6, 2, 2))
    >>> bool(np.allclose(ViewDifferences(brighter)[0:2], 0, atol=1e-5))
    True
    """

    def __init__(self, views: Frames) -> None:
        self._views = views

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``(n_differences, n_rows, n_cols)``."""
        return (int(self._views.shape[0]) // 3, *(int(size) for size in self._views.shape[1:]))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Single precision."""
        return np.dtype(np.float32)

    def __getitem__(self, key: slice) -> Radiographs:
        start, stop, _ = key.indices(self.shape[0])
        views = np.asarray(self._views[3 * start : 3 * stop], dtype=np.float32)
        threes = views.reshape(-1, 3, *views.shape[1:])
        levels = np.maximum(threes.mean(axis=(2, 3), keepdims=True), 1e-6)
        threes *= levels.mean(axis=1, keepdims=True) / levels
        return np.asarray((threes[:, 0] - 2 * threes[:, 1] + threes[:, 2]) / np.float32(np.sqrt(6)))


def find_sources(scan: Scan, calibration: Calibration, static: Frames | None = None) -> tuple[NoiseSource, ...]:
    """Find where the noise of a scan can be measured, the best source first.

    In this order: frames of a static scene, if given; flats, if there are at least five; air beside the object; two to
    four flats.  Only if there are none of these, differences of neighbouring views are used, where the object changes
    little.

    Parameters
    ----------
    scan, calibration
        The scan and its calibration, for bad pixels and air columns.
    static
        Repeated frames ``(frame, row, col)`` of one static scene, preferably with the object in it.

    Examples
    --------
    >>> from quietray.detector.correction.correct import calibrate
    >>> from quietray.geometry import ParallelBeam
    >>> rng = np.random.default_rng(0)
    >>> scan = Scan(rng.poisson(90, (9, 8, 30)), ParallelBeam(np.linspace(0, 3, 9), 8, 30), rng.poisson(90, (6, 8, 30)))
    >>> [source.name for source in find_sources(scan, calibrate(scan))]
    ['flats']
    """
    good = ~calibration.bad
    dark = calibration.dark if scan.darks is not None else None
    found: list[NoiseSource] = []
    second: list[NoiseSource] = []
    if static is not None:
        why = f"The noise was measured on {static.shape[0]} repeated frames of one static scene."
        if tuple(static.shape[1:]) != (scan.n_rows, scan.n_cols):
            raise NoiseError(
                f"static frames must have the size of the projections {(scan.n_rows, scan.n_cols)}, "
                f"got {tuple(static.shape[1:])}; give frames of the same detector and binning"
            )
        found.append(NoiseSource("static frames", static, dark, good, why=why))
    if scan.flats is not None and scan.flats.shape[0] >= 2:
        why = f"The noise was measured on the {scan.flats.shape[0]} flats: the whole detector, without the object."
        flats = NoiseSource("flats", scan.flats, dark, good, why=why)
        (found if scan.flats.shape[0] >= FEWEST_FLATS else second).append(flats)
    if calibration.air_columns and scan.n_views >= 8:
        air = np.zeros_like(good)
        for start, stop in calibration.air_columns:
            air[:, start:stop] = True
        where = ", ".join(f"{start}:{stop}" for start, stop in calibration.air_columns)
        why = f"The noise was measured in the air columns {where}, which are static over all {scan.n_views} views."
        found.append(NoiseSource("air columns", scan.projections, dark, good & air, why=why))
    found += second
    if not found and scan.n_views >= 9:
        found.append(neighbouring_views(scan, calibration.dark, good))
    return tuple(found)


def neighbouring_views(scan: Scan, dark: Frame, good: PixelMask) -> NoiseSource:
    """Return the last resort: views, at the pixels where the object changes least relative to the brightness."""
    differences = ViewDifferences(scan.projections)
    n = differences.shape[0]
    square, total, used = np.zeros(good.shape), np.zeros(good.shape), 0
    for index in np.unique(np.linspace(0, n - 1, min(n, 64)).round().astype(int)):
        square += differences[index : index + 1][0] ** 2
        total += scan.read(slice(None), slice(3 * int(index) + 1, 3 * int(index) + 2))[0] - dark
        used += 1
    bright = (total / used).astype(np.float32)
    weight = good.astype(np.float32)
    level = np.maximum(ndimage.uniform_filter(bright * weight, 7), 1e-6)
    activity = ndimage.uniform_filter(square * weight, 7) / level
    low = np.percentile(activity[good], 20) if good.any() else 0.0
    quiet = good & (activity < 1.3 * low)
    why = (
        f"The noise was measured on differences of neighbouring views, in the {quiet.mean():.0%} of the pixels where "
        "the object changes least; its changes there count as noise."
    )
    return NoiseSource("neighbouring views", differences, None, quiet, False, False, bright, why)
