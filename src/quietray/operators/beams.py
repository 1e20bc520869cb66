"""Projectors for all kinds of beams, and the rays that filtered backprojection needs instead."""

from __future__ import annotations

import torch

from quietray.errors import MissingExtra
from quietray.geometry import ConeBeam, Geometry, ParallelBeam, VolumeGrid
from quietray.operators.astra import FanProjector, ParallelProjector, gpu_usable
from quietray.operators.backprojection import ConeRays
from quietray.operators.linear import LinearOperator
from quietray.operators.nufft import ParallelRays, gpu_transforms
from quietray.operators.sparse import many_slices

__all__ = ["projector", "rays"]


def projector(geometry: Geometry, grid: VolumeGrid | None = None, *, many: bool = False) -> LinearOperator:
    """Return a projector from volumes ``(z, y, x)`` to sinograms ``(row, view, col)`` for this beam and machine.

    Parallel and fan beams are projected on the CPU; cone beams on the GPU if there is one, else on the CPU with RTK.

    Parameters
    ----------
    geometry
        Beam of the views.
    grid
        Voxel grid; ``geometry.grid()`` by default.
    many
        Whether the projector is used many times, so that computing a sparse matrix pays off if it is small.

    Raises
    ------
    GeometryError
        The grid does not match the beam.
    MissingExtra
        The beam is a cone beam, and there is neither a GPU nor RTK.

    Examples
    --------
    >>> import numpy as np
    >>> from quietray.geometry import FanBeam
    >>> projector(FanBeam(np.linspace(0, 6, 4), 1, 8, source_axis=20.0, source_detector=30.0)).range_shape
    (1, 4, 8)
    """
    if not isinstance(geometry, ConeBeam):
        slices = (
            ParallelProjector(geometry, grid) if isinstance(geometry, ParallelBeam) else FanProjector(geometry, grid)
        )
        return many_slices(slices) if many else slices
    if gpu_usable():
        from quietray.operators.cuda import CudaConeProjector

        return CudaConeProjector(geometry, grid)
    from quietray.operators.cone import ConeProjector

    try:
        return ConeProjector(geometry, grid)
    except MissingExtra as error:
        raise MissingExtra(f"{error}, or run this on a machine with a CUDA GPU") from error


def rays(
    geometry: Geometry, grid: VolumeGrid | None = None, device: torch.device | None = None
) -> ParallelRays | FanProjector | ConeRays:
    """Return the rays that filtered backprojection needs; if there is no simpler form, a projector.

    Parameters
    ----------
    geometry
        Beam of the views.
    grid
        Voxel grid; ``geometry.grid()`` by default.
    device
        Device for the backprojection; None is the CPU, which is used for all but parallel beams in any case.

    Raises
    ------
    GeometryError
        The grid does not match the beam.

    Examples
    --------
    >>> import numpy as np
    >>> rays(ParallelBeam(np.linspace(0, 3, 4), n_rows=1, n_cols=8)).range_shape
    (1, 4, 8)
    """
    if isinstance(geometry, ConeBeam):
        return ConeRays(geometry, grid or geometry.grid())
    if isinstance(geometry, ParallelBeam):
        return ParallelRays(geometry, grid, device=device if gpu_transforms(device) else None)
    return FanProjector(geometry, grid)
