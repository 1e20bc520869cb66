"""Half acquisition: a full turn around an axis near an edge of the detector, where a view sees half of the object."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from quietray.errors import GeometryError

__all__ = ["MIDDLE", "settled", "share"]

MIDDLE = 0.1  # of the detector to either side of its middle, where the axis of a plain scan lies


def share(away: Float[np.ndarray, "*rays"], near: Float[np.ndarray, "*_"] | float) -> Float[np.ndarray, "*rays"]:
    """Return how much each ray counts of a line that two views of a half acquisition see; both together count 1.

    It rises smoothly from the edge near the axis to as far beyond the axis, where no other view sees the line.

    Parameters
    ----------
    away
        Distance of rays from the axis, or their angle with the ray through it; positive on the side that reaches
        farther.
    near
        Of the outer edge on the other side.

    Examples
    --------
    >>> share(np.array([-1.0, -0.5, 0.0, 0.5, 1.0, 2.0]), 1.0).round(2).tolist()
    [0.0, 0.15, 0.5, 0.85, 1.0, 1.0]
    """
    return np.asarray(np.sin(np.pi / 4 * (1 + np.clip(away / near, -1, 1))) ** 2)


def settled(half: bool | None, coverage: float, off_centre: bool) -> bool:
    """Return whether a scan is a half acquisition: as was said, else if it turns fully around an axis off centre.

    Raises
    ------
    GeometryError
        It is said to be one, but the views do not make a full turn.

    Examples
    --------
    >>> settled(None, 2 * np.pi, off_centre=True), settled(False, 2 * np.pi, off_centre=True)
    (True, False)
    """
    full = math.floor(coverage / math.pi + 0.06) >= 2
    if half and not full:
        raise GeometryError(
            f"a half acquisition must make a full turn, got {np.rad2deg(coverage):.0f} degrees; give the right angles "
            "(--angles 0:360), or say that it is none with --half no"
        )
    return full and off_centre if half is None else half
