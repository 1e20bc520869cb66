"""Which algorithm suits a beam, and how long to iterate and how much to regularise, told by unseen views."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from quietray.errors import GeometryError
from quietray.geometry import ConeBeam, Geometry, ParallelBeam
from quietray.operators.linear import LinearOperator
from quietray.reconstruct import Algorithm
from quietray.reconstruct.analytic import FBP
from quietray.reconstruct.diverging import FDK, require_turn
from quietray.reconstruct.iterative import CGLS, SIRT, Array
from quietray.reconstruct.variational import TV
from quietray.types import Sinograms

__all__ = ["chosen", "held_out_every", "suited"]

Iterative = SIRT | CGLS | TV
Numbers = Int[np.ndarray, " view"]
Views = tuple[np.ndarray, np.ndarray]  # to work with, and held out
Project = Callable[[np.ndarray], LinearOperator]  # the projector of some of the views

_EVERY = 8  # view is held out
_FEWEST = 3  # views, to hold one out
_MOST = {SIRT: 1000, CGLS: 100}  # iterations
_PATIENCE = 1.3  # times as many iterations without a better prediction
_FACTORS = (4.0, 2.0, 2.0**0.5)  # from one weight to the next
_TRIALS = 12  # of weights in one direction
_ITERATIONS = 50  # with a weight on trial; the next one goes on from there


def suited(algorithm: Algorithm, geometry: Geometry) -> Algorithm:
    """Return the algorithm for this beam: filtered backprojection of a cone beam is FDK.

    Raises
    ------
    GeometryError
        It is not for this beam, or the views do not turn far enough for it.

    Examples
    --------
    >>> beam = ConeBeam.circular(np.linspace(0, 6.2, 90), 9, 33, source_axis=100.0, source_detector=150.0)
    >>> suited(FBP("hann"), beam)
    FDK(filter='hann')
    """
    if isinstance(algorithm, FDK) and not isinstance(geometry, ConeBeam):
        raise GeometryError(f"FDK must have a cone beam, got {type(geometry).__name__}; use fbp")
    if isinstance(algorithm, FBP) and isinstance(geometry, ConeBeam):
        algorithm = FDK(algorithm.filter)
    if isinstance(algorithm, (FBP, FDK)) and not isinstance(geometry, ParallelBeam):
        require_turn(geometry)
    return algorithm


def held_out_every(angles: Float[np.ndarray, " view"], detectors: Numbers | None = None) -> Views:
    """Return the views to work with and those held out: one in eight of each detector's, and at least one.

    If it were one in eight of all, those of two detectors that take turns would all be of one.  Each detector begins
    where its views look least along those already held out.  A detector with fewer than three views has none to spare:
    then they are not told apart.

    Parameters
    ----------
    angles
        ``(view,)`` in radians.
    detectors
        ``(view,)`` number of the detector that took each; None for a single one.

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
    """Return the least angle between two directions, in radians; nothing is far from no other."""
    between = np.mod(angles[:, None] - others + np.pi, 2 * np.pi) - np.pi
    return float(np.abs(between).min(initial=np.pi).round(6))


def chosen(algorithm: Iterative, project: Project, y: Sinograms, views: Views | None = None) -> Iterative:
    """Return the algorithm with the number of iterations, or the weight, that predicts held-out views best.

    Those views are only held out here; reconstruct with all of them afterwards.

    Parameters
    ----------
    algorithm
        Returned as it is where nothing is left to be chosen.
    project
        Gives the projector of some of the views.
    y
        Line integrals ``(row, view, col)`` of some rows.
    views
        To work with and to hold out, from :func:`held_out_every`; one in eight is held out by default.

    Raises
    ------
    GeometryError
        There are too few views.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> from quietray.operators.astra import ParallelProjector
    >>> beam = ParallelBeam(np.linspace(0, np.pi, 24, endpoint=False), n_rows=1, n_cols=24)
    >>> x = np.zeros((1, 24, 24), np.float32); x[0, 8:14, 9:18] = 0.1
    >>> y = ParallelProjector(beam)(x) + np.random.default_rng(0).normal(0, 0.1, (1, 24, 24)).astype(np.float32)
    >>> 5 < chosen(SIRT(), lambda views: ParallelProjector(beam[views]), y).iterations < 200
    True
    """
    if not isinstance(algorithm, TV) and algorithm.iterations is not None:
        return algorithm
    if isinstance(algorithm, TV) and algorithm.weight is not None:
        return algorithm
    seen, held = views or held_out_every(np.zeros(y.shape[1]))
    A, B = project(seen), project(held)
    data, wanted = (np.ascontiguousarray(y[:, views]) for views in (seen, held))

    def missed(x: Array) -> float:
        return float(np.square(B(np.asarray(x)) - wanted).mean(dtype=np.float64))

    if isinstance(algorithm, TV):
        return dataclasses.replace(algorithm, weight=_best_weight(algorithm, A, data, missed))
    return dataclasses.replace(algorithm, iterations=_best_iterations(algorithm, A, data, missed))


def _best_iterations(algorithm: SIRT | CGLS, A: LinearOperator, y: Sinograms, missed: Callable[[Array], float]) -> int:
    """Iterate until the prediction gets worse; SIRT is looked at ever more seldom."""
    found = {0: missed(np.zeros(A.domain_shape, np.float32))}

    def look(done: int, x: Array) -> bool:
        step = max(1, done // 10)
        if done % step == 0:
            found[done] = missed(x)
        best = min(found, key=lambda k: found[k])
        return done > max(best + 5, _PATIENCE * best)

    dataclasses.replace(algorithm, iterations=_MOST[type(algorithm)])(A, y, callback=look)
    return max(1, min(found, key=lambda k: found[k]))


def _best_weight(algorithm: TV, A: LinearOperator, y: Sinograms, missed: Callable[[Array], float]) -> float:
    """Go downhill in ever smaller factors; every weight starts from the volume of the best one so far."""

    def tried(weight: float, start: Array | None) -> tuple[float, Array]:
        trial = dataclasses.replace(algorithm, weight=weight, iterations=min(_ITERATIONS, algorithm.iterations))
        volume = trial(A, y, start=start)
        return missed(volume), volume

    best = 0.01 * float(np.abs(A.T(y)).max())
    least, volume = tried(best, None)
    for factor in _FACTORS:
        for direction in (factor, 1 / factor):
            moved = False
            for _ in range(_TRIALS):
                weight = best * direction
                found, there = tried(weight, volume)
                if found >= least:
                    break
                best, least, volume, moved = weight, found, there, True
            if moved:
                break
    return best
