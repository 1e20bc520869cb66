"""Projectors for all kinds of beams, and the rays that filtered backprojection needs instead."""

from __future__ import annotations

import torch

from quietray.errors import MissingExtra
from quietray.geometry import ConeBeam, FanBeam, Geometry, ParallelBeam, VolumeGrid
from quietray.operators.astra import FanProjector, ParallelProjector, gpu_usable
from quietray.operators.backprojection import ConeRays, FanRays
from quietray.operators.linear import LinearOperator
from quietray.operators.nufft import ParallelRays, gpu_transforms
from quietray.operators.sparse import SparseProjector, many_slices

__all__ = ["projector", "rays"]


def projector(
    geometry: Geometry,
    grid: VolumeGrid | None = None,
    *,
    many: bool = False,
    device: torch.device | None = None,
    matched: bool = True,
) -> LinearOperator:
    """Return a projector from volumes ``(z, y, x)`` to sinograms ``(row, view, col)`` for this beam and machine.

    Parallel and fan beams are projected on the CPU, unless `device` is a GPU and a matrix is small enough, or the
    adjoint of a parallel beam may be approximate; cone beams on the GPU if there is one, else on the CPU with RTK.

    Parameters
    ----------
    geometry
        Beam of the views.
    grid
        Voxel grid; ``geometry.grid()`` by default.
    many
        Whether the projector is used many times, so that computing a sparse matrix pays off if it is small.
    device
        Device for the projection; None is the CPU, except for cone beams.
    matched
        Whether the adjoint must be exact for parallel and fan beams.

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
    there = device if device is not None and device.type == "cuda" else None
    if not isinstance(geometry, ConeBeam):
        slices = (
            ParallelProjector(geometry, grid) if isinstance(geometry, ParallelBeam) else FanProjector(geometry, grid)
        )
        found = many_slices(slices, there) if many else slices
        if there is None or matched or isinstance(found, SparseProjector) or not gpu_usable():
            return found
        from quietray.operators.cuda import CudaParallelProjector

        return CudaParallelProjector(geometry, grid, there) if isinstance(geometry, ParallelBeam) else found
    if gpu_usable():
        from quietray.operators.cuda import CudaConeProjector

        return CudaConeProjector(geometry, grid, there)
    from quietray.operators.cone import ConeProjector

    try:
        return ConeProjector(geometry, grid)
    except MissingExtra as error:
        raise MissingExtra(f"{error}, or run this on a machine with a CUDA GPU") from error


def rays(
    geometry: Geometry, grid: VolumeGrid | None = None, device: torch.device | None = None
) -> ParallelRays | FanRays | ConeRays:
    """Return the rays that filtered backprojection needs instead of a projector.

    Parameters
    ----------
    geometry
        Beam of the views.
    grid
        Voxel grid; ``geometry.grid()`` by default.
    device
        Device for the backprojection; None is the CPU.

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
    there = device if device is not None and device.type != "cpu" else None
    if isinstance(geometry, ConeBeam):
        return ConeRays(geometry, grid or geometry.grid(), device=there)
    if isinstance(geometry, FanBeam):
        return FanRays(geometry, grid or geometry.grid(), there)
    return ParallelRays(geometry, grid, device=there if gpu_transforms(there) else None)
