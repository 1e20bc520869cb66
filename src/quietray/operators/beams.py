"""The projector of any beam, and what filtered backprojection needs instead of one."""

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
    """Return what projects volumes ``(z, y, x)`` to sinograms ``(row, view, col)`` in this geometry, here.

    Parallel and fan beams on the CPU; cone beams on the GPU where there is one, else on the CPU through RTK.

    Parameters
    ----------
    geometry
        Of the views.
    grid
        Voxels; those of ``geometry.grid()`` by default.
    many
        Whether it is used many times, so that a matrix is worth its making where it is small.

    Raises
    ------
    GeometryError
        The grid does not fit.
    MissingExtra
        A cone beam without a GPU and without RTK.

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
        raise MissingExtra(f"{error}, or run this where a CUDA GPU is") from error


def rays(
    geometry: Geometry, grid: VolumeGrid | None = None, device: torch.device | None = None
) -> ParallelRays | FanProjector | ConeRays:
    """Return what filtered backprojection needs of a beam instead of a projector, where there is something simpler.

    Parameters
    ----------
    geometry
        Of the views.
    grid
        Voxels; those of ``geometry.grid()`` by default.
    device
        Where to project back; None is the processors, which do it for other than parallel beams in any case.

    Raises
    ------
    GeometryError
        The grid does not fit.

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
