"""Variational reconstruction with total variation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from quietray.errors import SettingsError
from quietray.operators.linear import LinearOperator
from quietray.reconstruct.base import Algorithm
from quietray.reconstruct.iterative import Array, Callback, checked_start, inverse, require_box, require_count
from quietray.types import Sinograms

__all__ = ["TV"]

_RAYS = 6  # mean row sum of the projector with the fastest convergence, for weak and strong weights
_FACTORS = (4.0, 2.0, 2.0**0.5)  # factor between successive weights
_TRIALS = 12  # largest number of weights in one direction
_ITERATIONS = 50  # iterations per trial weight; the next trial continues from there


@dataclass(frozen=True)
class TV(Algorithm):
    r"""Total variation reconstruction: the volume of least total variation that explains the data.

    .. math:: \min_x \tfrac12 \|A x - y\|^2 + \lambda \sum |\nabla x|, \quad x \in [\mathrm{box}]

    solved with the primal-dual hybrid gradient method, with individual step sizes for every ray and voxel.  The
    gradient, in attenuation per voxel, is taken within slices if these do not share rays, else in the whole volume.

    Parameters
    ----------
    weight
        Weight :math:`\lambda`; None chooses the weight that predicts held-out views best, see
        :func:`~quietray.reconstruct.choose.chosen`.
    iterations
        Number of iterations.
    box
        Smallest and largest attenuation.

    Notes
    -----
    Rudin, Osher & Fatemi (1992), doi:10.1016/0167-2789(92)90242-F; Chambolle & Pock (2011),
    doi:10.1007/s10851-010-0251-1; steps: Pock & Chambolle (2011), doi:10.1109/ICCV.2011.6126441; in CT: Sidky,
    Jorgensen & Pan (2012), doi:10.1088/0031-9155/57/10/3065.

    Examples
    --------
    >>> import numpy as np
    >>> from quietray.geometry import ParallelBeam
    >>> from quietray.operators.astra import ParallelProjector
    >>> A = ParallelProjector(ParallelBeam(np.linspace(0, np.pi, 8, endpoint=False), n_rows=1, n_cols=32))
    >>> x = np.zeros((1, 32, 32), np.float32); x[0, 10:18, 12:24] = 1
    >>> bool(np.abs(TV(weight=0.1, iterations=300)(A, A(x)) - x).max() < 0.05)
    True
    """

    needs_adjoint: ClassVar[bool] = True
    chosen_by_views: ClassVar[str] = "weight"
    held: ClassVar[tuple[int, int]] = (15, 7)

    weight: float | None = None
    iterations: int = 200
    box: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        require_count(self.iterations)
        require_box(self.box)
        if self.weight is not None and not self.weight >= 0:
            raise SettingsError(
                f"weight must be 0 or more, got {self.weight}; leave it out to choose it on held-out views"
            )

    @property
    def linear(self) -> bool:
        """False: total variation is nonlinear."""
        return False

    def chosen(self, A: LinearOperator, y: Sinograms, missed: Callable[[Array], float]) -> TV:
        """Return the algorithm with the weight that predicts held-out views best.

        The weight is varied by ever smaller factors as long as the error decreases.  Each trial starts from the best
        volume so far.
        """

        def tried(weight: float, start: Array | None) -> tuple[float, Array]:
            trial = replace(self, weight=weight, iterations=min(_ITERATIONS, self.iterations))
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
        return replace(self, weight=best)

    def __call__(self, A: LinearOperator, y: Any, *, start: Any = None, callback: Callback = lambda k, x: None) -> Any:
        """Reconstruct a volume; parameters and errors as for :meth:`~quietray.reconstruct.iterative.SIRT.__call__`."""
        if self.weight is None:
            raise SettingsError("weight must be known, got None; choose it on held-out views with chosen()")
        x, y_, kind = checked_start(A, y, start)
        axes = (1, 2) if A.slicewise else (0, 1, 2)
        with torch.no_grad():
            rows, columns = A(torch.ones_like(x)), A.T(torch.ones_like(y_))
            unit = float(rows.mean()) / _RAYS or 1.0  # the problem is solved for A / unit and y / unit
            y_, sigma, columns = y_ / unit, unit * inverse(rows), columns / unit
            scale = float(columns.mean()) / (2 * len(axes))  # balances the norms of gradient and projector
            radius, tau = self.weight / (scale * unit**2), inverse(columns + 2 * len(axes) * scale)
            p, q, ahead = torch.zeros_like(y_), torch.zeros(len(axes), *x.shape), x.clone()
            for k in range(self.iterations):
                p = (p + sigma * (A(ahead) / unit - y_)) / (1 + sigma)
                q += gradient(ahead, axes) / 2
                q /= (q.square().sum(dim=0).sqrt() / max(radius, 1e-30)).clamp_min_(1)
                before = x.clone()
                x -= tau * (A.T(p) / unit - scale * divergence(q, axes))
                if self.box is not None:
                    x.clamp_(*self.box)
                ahead = 2 * x - before
                if callback(k + 1, kind(x)):
                    break
        return kind(x)


def gradient(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return forward differences along the axes, ``(axis, z, y, x)``; zero at the upper border.

    Examples
    --------
    >>> gradient(torch.tensor([[[1.0, 3.0]]]), (1, 2)).flatten().tolist()
    [0.0, 0.0, 2.0, 0.0]
    """
    out = torch.zeros(len(axes), *x.shape, dtype=x.dtype, device=x.device)
    for each, axis in zip(out, axes, strict=True):
        each.narrow(axis, 0, x.shape[axis] - 1).copy_(x.diff(dim=axis))
    return out


def divergence(q: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the negative adjoint of :func:`gradient`.

    Examples
    --------
    >>> x, q = torch.rand(2, 3, 4), torch.rand(2, 2, 3, 4)
    >>> products = (gradient(x, (1, 2)) * q).sum(), -(x * divergence(q, (1, 2))).sum()
    >>> bool(torch.isclose(*products))
    True
    """
    out = torch.zeros_like(q[0])
    for each, axis in zip(q, axes, strict=True):
        inner = each.narrow(axis, 0, each.shape[axis] - 1)
        out.narrow(axis, 0, each.shape[axis] - 1).add_(inner)
        out.narrow(axis, 1, each.shape[axis] - 1).sub_(inner)
    return out
