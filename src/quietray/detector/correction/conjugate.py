"""Rotation axis of a fan or cone beam, from rays that are measured in opposite directions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from quietray.detector.correction.correct import Calibration, correct_rows
from quietray.geometry import ConeBeam, FanBeam
from quietray.scan import Scan

__all__ = ["axis_of_conjugate_rays", "find_diverging_axis"]

_ROWS = 8  # rows around the plane of the source, where cone beams are close to fan beams
_SEARCHED = 0.25  # search range as a fraction of the columns on either side of the middle
_CLEAR = 0.3  # largest ratio of the smallest difference to the typical one
_FEWEST = 60  # least number of views
_STEP = 0.1


def find_diverging_axis(scan: Scan, calibration: Calibration) -> float | None:
    """Return the column of the axis of a full turn; None if it cannot be determined reliably.

    Parameters
    ----------
    scan
        Fan-beam scan, or cone-beam scan with a circular source path.
    calibration
        Calibration of the scan.
    """
    beam = scan.geometry.as_cone() if isinstance(scan.geometry, FanBeam) else scan.geometry
    if (
        not isinstance(beam, ConeBeam)
        or scan.detectors is not None
        or beam.n_views < _FEWEST
        or beam.coverage < 1.97 * np.pi
    ):
        return None
    middle = float(beam.shadow(np.zeros(3))[:, 0].mean())
    first = int(np.clip(round(middle - _ROWS / 2), 0, max(0, scan.n_rows - _ROWS)))
    rows = slice(first, min(first + _ROWS, scan.n_rows))
    sinograms, _ = correct_rows(scan.read(rows), calibration, rows)
    pixel = float(np.linalg.norm(beam.us, axis=1).mean() / beam.reach[:, 1].mean())
    return axis_of_conjugate_rays(sinograms.mean(axis=0), scan.geometry.angles, pixel)


def axis_of_conjugate_rays(
    sinogram: Float[np.ndarray, "view col"], angles: Float[np.ndarray, " view"], pixel: float
) -> float | None:
    """Return the column around which opposite rays of a fan beam agree; None if it is not clear.

    The ray at an angle g from the central ray, in the view at angle b, coincides with the ray at -g in the view at b +
    pi - 2 g.

    Parameters
    ----------
    sinogram
        Line integrals of a full turn.
    angles
        Angles in radians, increasing with counter-clockwise rotation of the beam.
    pixel
        Width of a column divided by the distance from source to detector.

    Examples
    --------
    >>> from quietray.simulate.bodies import Bodies
    >>> turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    >>> beam = FanBeam(turn, 1, 64, 200.0, 300.0, rotation_axis=28.6)
    >>> balls = Bodies.balls(np.array([[6.0, 2.0, 0.0, 8.0], [-9.0, 4.0, 0.0, 3.0]]), 1.0)
    >>> found = axis_of_conjugate_rays(balls.project(beam, 1.0, supersampling=3)[:, 0], turn, 1 / 300)
    >>> bool(abs(found - 28.6) < 0.3)
    True
    """
    n_views, n_cols = sinogram.shape
    order = np.argsort(np.mod(angles, 2 * np.pi))
    known = np.mod(angles, 2 * np.pi)[order]
    views = ndimage.gaussian_filter(np.asarray(sinogram, np.float64)[order], (0, 1))
    views = np.concatenate([views, views[:1]])
    places, numbers = np.append(known, known[0] + 2 * np.pi), np.arange(n_views + 1.0)
    some = slice(None, None, max(1, n_views // 180))

    def difference(axis: float) -> float:
        reach = min(axis, n_cols - 1 - axis)
        columns = np.arange(np.ceil(axis - reach), np.floor(axis + reach) + 1)
        fan = np.arctan((columns - axis) * pixel)
        there = np.mod(known[some, None] + np.pi - 2 * fan - known[0], 2 * np.pi) + known[0]
        where = np.stack([np.interp(there, places, numbers), np.broadcast_to(2 * axis - columns, there.shape)])
        opposite = ndimage.map_coordinates(views, where, order=1, mode="nearest")
        return float(np.mean((views[:-1][some][:, columns.astype(int)] - opposite) ** 2))

    middle, room = (n_cols - 1) / 2, int(_SEARCHED * n_cols)
    coarse = middle + np.arange(-room, room + 1)
    differences = np.array([difference(axis) for axis in coarse])
    best = int(np.argmin(differences))
    if best in (0, len(coarse) - 1) or not differences[best] < _CLEAR * np.median(differences):
        return None
    fine = coarse[best] + np.arange(-1.5, 1.5 + _STEP / 2, _STEP)
    least = int(np.argmin(nearby := [difference(axis) for axis in fine]))
    if least in (0, len(fine) - 1):
        return float(fine[least])
    before, there, after = nearby[least - 1 : least + 2]
    return float(fine[least] + _STEP * (before - after) / (2 * (before - 2 * there + after) or 1.0))
