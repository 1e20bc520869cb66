"""Half acquisition: a full turn around an axis near an edge of the detector; each view sees half of the object."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from quietray.errors import GeometryError

__all__ = ["MIDDLE", "settled", "share"]

MIDDLE = 0.1  # range around the middle of the detector, as a fraction, in which the axis of an ordinary scan lies


def share(away: Float[np.ndarray, "*rays"], near: Float[np.ndarray, "*_"] | float) -> Float[np.ndarray, "*rays"]:
    """Return the weight of each ray of a line that two views of a half acquisition see; the two weights add up to 1.

    It rises smoothly from the detector edge near the axis to the same distance beyond the axis, where no other view
    sees the line.

    Parameters
    ----------
    away
        Distance of rays from the axis, or their angle with the ray through the axis; positive on the side where the
        detector extends farther.
    near
        The same quantity for the outer edge on the other side.

    Examples
    --------
    >>> share(np.array([-1.0, -0.5, 0.0, 0.5, 1.0, 2.0]), 1.0).round(2).tolist()
    [0.0, 0.15, 0.5, 0.85, 1.0, 1.0]
    """
    return np.asarray(np.sin(np.pi / 4 * (1 + np.clip(away / near, -1, 1))) ** 2)


def settled(half: bool | None, coverage: float, off_centre: bool) -> bool:
    """Return whether a scan is a half acquisition: as stated, else if it makes a full turn about an off-centre axis.

    Raises
    ------
    GeometryError
        It is said to be a half acquisition, but the views do not make a full turn.

    Examples
    --------
    >>> settled(None, 2 * np.pi, off_centre=True), settled(False, 2 * np.pi, off_centre=True)
    (True, False)
    """
    full = math.floor(coverage / math.pi + 0.06) >= 2
    if half and not full:
        raise GeometryError(
            f"a half acquisition must make a full turn, got {np.rad2deg(coverage):.0f} degrees; give the right angles "
            "(--angles 0:360), or use --half no if it is not one"
        )
    return full and off_centre if half is None else half
