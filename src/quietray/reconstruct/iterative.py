"""Algebraic reconstruction: SIRT and CGLS, for few views, any geometry, and constraints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quietray.errors import GeometryError, SettingsError
from quietray.operators.linear import LinearOperator
from quietray.reconstruct.base import Algorithm
from quietray.types import Sinograms

__all__ = ["CGLS", "SIRT", "Callback", "checked_start", "inverse", "require_count"]

Array = Float[np.ndarray, "..."] | Float[Tensor, "..."]
Callback = Callable[[int, Array], bool | None]  # called with the number of iterations and the volume; True stops

_PATIENCE = 1.3  # stop after this factor more iterations without a better prediction


@dataclass(frozen=True)
class SIRT(Algorithm):
    r"""Simultaneous iterative reconstruction technique, optionally with box constraints.

    .. math:: x \leftarrow P\,(x + C A^T R\,(y - A x))

    where R and C are the inverse row and column sums of A, and P is the projection onto the box.  SIRT converges to the
    weighted least-squares solution, smooth structures first, so stopping early regularises.

    Parameters
    ----------
    iterations
        Number of iterations; None chooses the number that predicts held-out views best, see
        :func:`~quietray.reconstruct.choose.chosen`.
    box
        Smallest and largest attenuation.  A box makes the reconstruction nonlinear.
    relaxation
        Factor of every step, above 0 and below 2.

    Notes
    -----
    Gilbert (1972), doi:10.1016/0022-5193(72)90180-4; convergence: Gregor & Benson (2008), doi:10.1109/TMI.2008.923696.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> from quietray.operators.astra import ParallelProjector
    >>> A = ParallelProjector(ParallelBeam(np.linspace(0, np.pi, 32, endpoint=False), n_rows=1, n_cols=16))
    >>> x = np.zeros((1, 16, 16), np.float32); x[0, 5:9, 6:12] = 1
    >>> error = SIRT(iterations=100, box=(0.0, 1.0))(A, A(x)) - x
    >>> bool(np.abs(error).max() < 0.15)
    True
    """

    chosen_by_views: ClassVar[str] = "iterations"
    held: ClassVar[tuple[int, int]] = (6, 7)

    iterations: int | None = None
    box: tuple[float, float] | None = None
    relaxation: float = 1.0

    def __post_init__(self) -> None:
        require_count(self.iterations)
        require_box(self.box)
        if not 0 < self.relaxation < 2:
            raise SettingsError(f"relaxation must be above 0 and below 2, got {self.relaxation}; 1 is usual")

    @property
    def linear(self) -> bool:
        """Whether the result depends linearly on the data, as Noise2Inverse requires."""
        return self.box is None

    def chosen(self, A: LinearOperator, y: Sinograms, missed: Callable[[Array], float]) -> SIRT:
        """Return the algorithm with the number of iterations that predicts held-out views best."""
        return replace(self, iterations=best_iterations(replace(self, iterations=1000), A, y, missed))

    def __call__(self, A: LinearOperator, y: Any, *, start: Any = None, callback: Callback = lambda k, x: None) -> Any:
        """Reconstruct a volume.

        Parameters
        ----------
        A
            Projector.
        y
            Line integrals in its range, a numpy array or a torch tensor; the volume is returned as the same type.
        start
            Volume to start from; zeros by default.
        callback
            Called with the number of iterations and the volume; the reconstruction stops if it returns True.

        Raises
        ------
        GeometryError
            The shapes do not match.
        SettingsError
            The number of iterations has not been chosen.
        """
        if self.iterations is None:
            raise SettingsError("iterations must be known, got None; choose them on held-out views with chosen()")
        x, y_, kind = checked_start(A, y, start)
        with torch.no_grad():
            R, C = inverse(A(torch.ones_like(x))), inverse(A.T(torch.ones_like(y_)))
            for k in range(self.iterations):
                x += self.relaxation * C * A.T(R * (y_ - A(x)))
                if self.box is not None:
                    x.clamp_(*self.box)
                if callback(k + 1, kind(x)):
                    break
        return kind(x)


@dataclass(frozen=True)
class CGLS(Algorithm):
    r"""Conjugate gradients on the normal equations :math:`A^T A x = A^T y`.

    CGLS needs far fewer iterations than :class:`SIRT` for the same residual, and noise appears correspondingly earlier.
    Slices that do not share rays are solved independently, so the result does not depend on their number.

    Parameters
    ----------
    iterations
        Number of iterations; None chooses the number that predicts held-out views best, see
        :func:`~quietray.reconstruct.choose.chosen`.

    Notes
    -----
    Hestenes & Stiefel (1952), doi:10.6028/jres.049.044; in this form Bjorck (1996), algorithm 7.4.1.
    Strictly speaking, CGLS is not linear, because the step lengths depend on the data.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> from quietray.operators.astra import ParallelProjector
    >>> A = ParallelProjector(ParallelBeam(np.linspace(0, np.pi, 32, endpoint=False), n_rows=1, n_cols=16))
    >>> x = np.zeros((1, 16, 16), np.float32); x[0, 5:9, 6:12] = 1
    >>> bool(np.abs(CGLS(iterations=100)(A, A(x)) - x).max() < 0.1)
    True
    """

    needs_adjoint: ClassVar[bool] = True
    chosen_by_views: ClassVar[str] = "iterations"
    held: ClassVar[tuple[int, int]] = (7, 6)

    iterations: int | None = None

    def __post_init__(self) -> None:
        require_count(self.iterations)

    @property
    def linear(self) -> bool:
        """True, as a good approximation: the step lengths hardly depend on the noise."""
        return True

    def chosen(self, A: LinearOperator, y: Sinograms, missed: Callable[[Array], float]) -> CGLS:
        """Return the algorithm with the number of iterations that predicts held-out views best."""
        return replace(self, iterations=best_iterations(replace(self, iterations=100), A, y, missed))

    def __call__(self, A: LinearOperator, y: Any, *, start: Any = None, callback: Callback = lambda k, x: None) -> Any:
        """Reconstruct a volume; parameters and errors as for :meth:`SIRT.__call__`."""
        if self.iterations is None:
            raise SettingsError("iterations must be known, got None; choose them on held-out views with chosen()")
        x, y_, kind = checked_start(A, y, start)
        axes = tuple(range(1 if A.slicewise else 0, x.ndim))

        def square(u: Tensor) -> Tensor:
            return u.square().sum(dim=axes, keepdim=True, dtype=torch.float64)

        def ratio(u: Tensor, v: Tensor) -> Tensor:
            return (u * inverse(v)).float()

        with torch.no_grad():
            r = y_ - A(x)
            s = A.T(r)
            p, gamma = s.clone(), square(s)
            for k in range(self.iterations):
                q = A(p)
                alpha = ratio(gamma, square(q))
                x += alpha * p
                r -= alpha * q
                s = A.T(r)
                gamma, before = square(s), gamma
                p = s + ratio(gamma, before) * p
                if callback(k + 1, kind(x)):
                    break
        return kind(x)


def checked_start(A: LinearOperator, y: Any, start: Any) -> tuple[Tensor, Tensor, Callable[[Tensor], Any]]:
    """Return a start volume, the data as a tensor, and a function that converts a tensor back to the type of `y`.

    Raises
    ------
    GeometryError
        The data or the volume do not match the operator.
    """
    for what, given, wanted in (("data", y, A.range_shape), ("volume to start from", start, A.domain_shape)):
        if given is not None and tuple(given.shape) != wanted:
            raise GeometryError(f"the {what} must have shape {wanted}, got {tuple(given.shape)}")
    data = torch.as_tensor(y, dtype=torch.float32)
    if start is None:
        x = torch.zeros(A.domain_shape, dtype=torch.float32, device=data.device)
    else:
        x = torch.as_tensor(start, dtype=torch.float32, device=data.device).clone()
    return x, data, (lambda u: u) if isinstance(y, Tensor) else (lambda u: u.numpy())


def inverse(x: Tensor) -> Tensor:
    """Return 1 / x, and 0 where x is 0, for rays that miss the volume and voxels that no ray crosses.

    Examples
    --------
    >>> inverse(torch.tensor([0.0, 4.0])).tolist()
    [0.0, 0.25]
    """
    return torch.where(x > 0, 1 / x, torch.zeros_like(x))


def require_count(iterations: int | None) -> None:
    """Raise unless there is at least one iteration, or None.

    Examples
    --------
    >>> require_count(0)
    Traceback (most recent call last):
    quietray.errors.SettingsError: iterations must be at least 1, got 0; leave them out to choose them on held-out views
    """
    if iterations is not None and iterations < 1:
        raise SettingsError(
            f"iterations must be at least 1, got {iterations}; leave them out to choose them on held-out views"
        )


def require_box(box: tuple[float, float] | None) -> None:
    """Raise unless the lower end of the box is below its upper end.

    Examples
    --------
    >>> require_box((1.0, 0.0))
    Traceback (most recent call last):
    quietray.errors.SettingsError: box must be a least and a largest attenuation, got 1.0 and 0.0; write 0 1
    """
    if box is not None and not box[0] < box[1]:
        raise SettingsError(f"box must be a least and a largest attenuation, got {box[0]} and {box[1]}; write 0 1")


def best_iterations(algorithm: Any, A: LinearOperator, y: Sinograms, missed: Callable[[Array], float]) -> int:
    """Return the number of iterations that predicts held-out views best, testing at increasing intervals.

    Parameters
    ----------
    algorithm
        The algorithm, with the largest number of iterations to try.
    A, y, missed
        As for :meth:`~quietray.reconstruct.base.Algorithm.chosen`.
    """
    found = {0: missed(np.zeros(A.domain_shape, np.float32))}

    def look(done: int, x: Array) -> bool:
        step = max(1, done // 10)
        if done % step == 0:
            found[done] = missed(x)
        best = min(found, key=lambda k: found[k])
        return done > max(best + 5, _PATIENCE * best)

    algorithm(A, y, callback=look)
    return max(1, min(found, key=lambda k: found[k]))
