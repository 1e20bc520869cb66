"""Choice of the number of iterations or the regularisation weight on held-out views."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from quietray.errors import GeometryError
from quietray.operators.linear import LinearOperator
from quietray.reconstruct.base import Algorithm
from quietray.reconstruct.iterative import Array
from quietray.types import Sinograms

__all__ = ["chosen", "held_out_every"]

Numbers = Int[np.ndarray, " view"]
Views = tuple[np.ndarray, np.ndarray]  # indices of the views to use and of those held out
Project = Callable[[np.ndarray], LinearOperator]  # returns the projector of some of the views

_EVERY = 8  # one view in this many is held out
_FEWEST = 3  # least number of views to hold one out


def held_out_every(angles: Float[np.ndarray, " view"], detectors: Numbers | None = None) -> Views:
    """Return the views to use and those to hold out: one in eight of each detector's views, and at least one.

    Views are chosen per detector because, with two alternating detectors, every eighth view belongs to the same one.
    For each detector, the first held-out view is the one furthest in direction from those already held out.  If a
    detector has fewer than three views, all views are treated as those of one detector.

    Parameters
    ----------
    angles
        Angles in radians, ``(view,)``.
    detectors
        Number of the detector that took each view, ``(view,)``; None for a single detector.

    Raises
    ------
    GeometryError
        There are fewer than three views.

    Examples
    --------
    >>> held_out_every(np.linspace(0, np.pi, 10))[1].tolist()
    [4]
    >>> held_out_every(np.linspace(0, np.pi, 20), np.arange(20) % 2)[1].tolist()
    [8, 15]
    """
    n_views = len(angles)
    if n_views < _FEWEST:
        raise GeometryError(
            f"there must be at least {_FEWEST} views to hold one out, got {n_views}; give the iterations or the weight"
        )
    numbers = np.zeros(n_views, int) if detectors is None else detectors
    known, counts = np.unique(numbers, return_counts=True)
    if counts.min() < _FEWEST:
        known, numbers = np.zeros(1, int), np.zeros(n_views, int)
    held = np.empty(0, int)
    for number in known:
        own = np.flatnonzero(numbers == number)
        every = min(_EVERY, len(own))
        choices = [own[(every // 2 + k) % every :: _EVERY] for k in range(every)]
        held = np.append(held, max(choices, key=lambda one: _apart(angles[one], angles[held])))
    return np.setdiff1d(np.arange(n_views), held), np.sort(held)


def _apart(angles: Float[np.ndarray, " view"], others: Float[np.ndarray, " other"]) -> float:
    """Return the smallest angle between two directions in radians; pi if there is nothing to compare with."""
    between = np.mod(angles[:, None] - others + np.pi, 2 * np.pi) - np.pi
    return float(np.abs(between).min(initial=np.pi).round(6))


def chosen(algorithm: Algorithm, project: Project, y: Sinograms, views: Views | None = None) -> Algorithm:
    """Return the algorithm with the number of iterations or the weight that predicts held-out views best.

    The views are held out only for this choice; use all of them for the reconstruction.

    Parameters
    ----------
    algorithm
        Returned unchanged if no setting is open.
    project
        Returns the projector of some of the views.
    y
        Line integrals of some rows, ``(row, view, col)``.
    views
        Views to use and to hold out, from :func:`held_out_every`; by default, one in eight is held out.

    Raises
    ------
    GeometryError
        There are too few views.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> from quietray.operators.astra import ParallelProjector
    >>> from quietray.reconstruct import SIRT
    >>> beam = ParallelBeam(np.linspace(0, np.pi, 24, endpoint=False), n_rows=1, n_cols=24)
    >>> x = np.zeros((1, 24, 24), np.float32); x[0, 8:14, 9:18] = 0.1
    >>> y = ParallelProjector(beam)(x) + np.random.default_rng(0).normal(0, 0.1, (1, 24, 24)).astype(np.float32)
    >>> 5 < chosen(SIRT(), lambda views: ParallelProjector(beam[views]), y).iterations < 200
    True
    """
    if not algorithm.open:
        return algorithm
    seen, held = views or held_out_every(np.zeros(y.shape[1]))
    A, B = project(seen), project(held)
    data, wanted = (np.ascontiguousarray(y[:, views]) for views in (seen, held))

    def missed(x: Array) -> float:
        return float(np.square(B(np.asarray(x)) - wanted).mean(dtype=np.float64))

    return algorithm.chosen(A, data, missed)
