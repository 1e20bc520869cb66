"""Filtered backprojection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float

from quietray.errors import GeometryError
from quietray.geometry import ConeBeam, FanBeam, Geometry, ParallelBeam
from quietray.operators.astra import SliceProjector
from quietray.operators.backprojection import FanRays
from quietray.operators.nufft import ParallelRays, Views
from quietray.operators.sparse import SparseProjector
from quietray.reconstruct.base import Algorithm
from quietray.reconstruct.diverging import FDK, fan_backprojection, require_turn
from quietray.reconstruct.ramp import RampFilter, ramp_filtered, ramp_response, require_filter
from quietray.types import Sinograms, Volume

__all__ = ["FBP", "angular_weights"]

_GAP = 4.0  # largest weight of a view, in angular steps


@dataclass(frozen=True)
class FBP(Algorithm):
    """Filtered backprojection of a parallel beam, or of a fan beam on a flat detector.

    A fan beam needs a full turn, or half a turn plus the fan angle; rays that are measured twice are weighted with
    Parker's weights.  Rays that two views of a half acquisition share are weighted with
    :attr:`ParallelBeam.redundancy`.  Cone beams are reconstructed by :class:`~quietray.reconstruct.diverging.FDK`.

    Parallel views are backprojected by non-uniform FFT; of the projector, only the geometry and grid are used.  To
    reconstruct many bands of rows, use one :class:`~quietray.operators.nufft.ParallelRays`, which keeps the plan of the
    transform.

    Parameters
    ----------
    filter
        ``ram-lak`` (the ramp alone), ``shepp-logan`` (times a sinc) or ``hann`` (times a raised cosine).

    Notes
    -----
    Kak & Slaney (1988), doi:10.1137/1.9780898719277.

    Examples
    --------
    A disc of attenuation 1 comes back as 1:

    >>> from quietray.geometry import ParallelBeam
    >>> from quietray.operators.astra import ParallelProjector
    >>> A = ParallelProjector(ParallelBeam(np.linspace(0, np.pi, 64, endpoint=False), n_rows=1, n_cols=65))
    >>> offset = np.arange(65) - 32
    >>> chord = 2 * np.sqrt(np.clip(20.0**2 - offset**2, 0, None)).astype(np.float32)
    >>> volume = FBP()(A, np.broadcast_to(chord, (1, 64, 65)))
    >>> bool(abs(volume[0, 27:38, 27:38].mean() - 1) < 0.01)
    True
    """

    iterates: ClassVar[bool] = False

    filter: RampFilter = "ram-lak"

    def __post_init__(self) -> None:
        require_filter(self.filter)

    @property
    def linear(self) -> bool:
        """Whether the result depends linearly on the data, as Noise2Inverse requires."""
        return True

    def for_beam(self, geometry: Geometry) -> Algorithm:
        """Return the algorithm for this beam: :class:`~quietray.reconstruct.diverging.FDK` for a cone beam."""
        if isinstance(geometry, ConeBeam):
            return FDK(self.filter).for_beam(geometry)
        if not isinstance(geometry, ParallelBeam):
            require_turn(geometry)
        return self

    def __call__(self, A: SliceProjector | SparseProjector | ParallelRays | FanRays, y: Views) -> Volume:
        """Reconstruct a volume.

        Parameters
        ----------
        A
            Projector or rays of the views in `y`.  A parallel beam must cover at least half a turn, a fan beam more.
        y
            Line integrals ``(row, view, col)``, dimensionless.

        Returns
        -------
        Volume
            Attenuation ``(z, y, x)`` in 1/mm, or 1/pixel if the pixel size is unknown.

        Raises
        ------
        GeometryError
            The sinograms do not match the projector, the beam is of another kind, or the views cover too small an
            angle.
        """
        if not isinstance(A, (SliceProjector, SparseProjector, ParallelRays, FanRays)):
            raise GeometryError(
                f"filtered backprojection must have a parallel or a fan beam, got {type(A).__name__}; use fdk for a "
                "cone beam"
            )
        if tuple(y.shape) != A.range_shape:
            raise GeometryError(f"sinograms must have shape {A.range_shape} (row, view, col), got {tuple(y.shape)}")
        if isinstance(A.geometry, FanBeam):
            return fan_backprojection(A if isinstance(A, FanRays) else FanRays(A.geometry, A.grid), y, self.filter)
        assert not isinstance(A, FanRays)
        rays = A if isinstance(A, ParallelRays) else ParallelRays(A.geometry, A.grid, A.threads)
        return rays.backproject(_weighted(rays, y), ramp_response(self.filter, rays.width), _shares(rays))

    def adjoint(self, A: ParallelRays, x: Volume) -> Sinograms:
        """Apply the adjoint of the reconstruction of parallel views to a volume ``(z, y, x)``.

        Parameters
        ----------
        A
            Rays of the views.
        x
            Any array of the volume's shape.

        Returns
        -------
        Sinograms
            ``(row, view, col)``.
        """
        return np.asarray(_weighted(A, A.project(x, ramp_response(self.filter, A.width), _shares(A))))

    def filtered(self, y: Sinograms) -> Sinograms:
        """Return the sinograms convolved with the windowed ramp, in 1/pixel."""
        return ramp_filtered(y, self.filter)


def _shares(rays: ParallelRays) -> Float[np.ndarray, " view"]:
    """Return the part of half a turn that each view represents, divided by the pixel size: converts 1/pixel to 1/mm."""
    n_views, turn = rays.geometry.n_views, 2 * np.pi if rays.geometry.half else np.pi
    weights = angular_weights(rays.geometry.angles, turn)
    share = np.pi / (n_views * (rays.grid.voxel_size or 1.0))
    return share * (np.ones(n_views) if weights is None else weights)


def _weighted(rays: ParallelRays, y: Any) -> Any:
    """Return the sinograms; those of a half acquisition appear twice, with weights shared between opposite views."""
    if not rays.geometry.half:
        return y
    weights = (2 * rays.geometry.redundancy).astype(np.float32)
    return y * (weights if isinstance(y, np.ndarray) else torch.from_numpy(weights).to(y.device))


def angular_weights(angles: Float[np.ndarray, " view"], turn: float = np.pi) -> Float[np.ndarray, " view"] | None:
    """Return the weight of each view, the angle it represents relative to the mean; None if all are equal.

    At a single gap, where views are missing, the weight is limited to four angular steps.  Otherwise the whole gap
    would be filled from two views, and their noise and edges would appear as streaks.

    Parameters
    ----------
    angles
        Angles in radians, in any order.
    turn
        Angle after which views repeat: half a turn for a parallel beam that covers the whole object.

    Examples
    --------
    >>> angular_weights(np.deg2rad([0.0, 60.0, 120.0])) is None
    True
    >>> angular_weights(np.deg2rad([0.0, 45.0, 135.0])).round(6).tolist()
    [0.75, 1.125, 1.125]
    """
    within = np.mod(angles - angles.min(), turn)
    order = np.argsort(within, kind="stable")
    steps = np.diff(within[order], append=turn)
    if np.ptp(angles) + 2 * np.median(steps) < turn:  # missing directions have no weight
        steps[-1] = 0.0
    usual = np.median(steps[steps > 0]) if (steps > 0).any() else 0.0
    steps = np.minimum(steps, _GAP * np.maximum.reduce([np.roll(steps, 1), np.roll(steps, -1), steps * 0 + usual]))
    weights = np.empty(len(angles))
    weights[order] = (steps + np.roll(steps, 1)) / 2
    weights *= len(angles) / max(float(weights.sum()), 1e-12)
    return None if np.abs(weights - 1).max() < 0.1 else weights.astype(np.float32)
