"""Cone-beam projection on a CUDA GPU with the ASTRA toolbox (GPL-3, imported at run time)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quietray.geometry import ConeBeam, VolumeGrid
from quietray.operators.astra import require_gpu, voxel_edge
from quietray.operators.linear import LinearOperator

__all__ = ["CudaConeProjector", "astra_geometries"]


class CudaConeProjector(LinearOperator):
    """Cone-beam projection of ``(z, y, x)`` to sinograms ``(row, view, col)``; tensors stay on the GPU.

    ASTRA's projection interpolates along rays, its backprojection at the voxels.  The adjoint is therefore that of a
    slightly different operator; see `matched`.  The unit of the line integrals is the unit of the volume times the
    voxel size.

    Parameters
    ----------
    geometry
        Any cone beam.
    grid
        Voxel grid; by default as many voxels as the detector has rows and columns, each as large as a pixel at the
        origin.

    Raises
    ------
    ResourceError
        There is no CUDA GPU; ASTRA would terminate the process.
    GeometryError
        The grid has a size in mm although the beam has none.

    Examples
    --------
    >>> beam = ConeBeam.circular(np.linspace(0, 6, 4), 6, 8, source_axis=20.0, source_detector=30.0)
    >>> CudaConeProjector(beam).domain_shape  # doctest: +SKIP
    (6, 8, 8)
    """

    matched = False  # adjoint and projection discretise rays differently

    def __init__(self, geometry: ConeBeam, grid: VolumeGrid | None = None) -> None:
        require_gpu("cone-beam projection")
        self.geometry = geometry
        self.grid = grid or geometry.grid()
        self.edge = voxel_edge(geometry, self.grid)

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """Shape of the volume, ``(z, y, x)``."""
        return self.grid.shape

    @property
    def range_shape(self) -> tuple[int, ...]:
        """Shape of the sinograms, ``(row, view, col)``."""
        return (self.geometry.n_rows, self.geometry.n_views, self.geometry.n_cols)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Project the volume."""
        return np.asarray(self.forward_tensor(torch.from_numpy(x)).cpu().numpy())

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        """Backproject the sinograms."""
        return np.asarray(self.adjoint_tensor(torch.from_numpy(y)).cpu().numpy())

    def forward_tensor(self, x: Tensor) -> Tensor:
        """Project the volume; data on the GPU is not copied."""
        volume, out = self._on_gpu(x), torch.zeros(self.range_shape, dtype=torch.float32, device="cuda")
        self._run("direct_FP", volume, out)
        return (out * (self.grid.voxel_size or 1.0)).to(device=x.device, dtype=x.dtype)

    def adjoint_tensor(self, y: Tensor) -> Tensor:
        """Backproject the sinograms; data on the GPU is not copied."""
        sinograms, out = self._on_gpu(y), torch.zeros(self.domain_shape, dtype=torch.float32, device="cuda")
        self._run("direct_BP", sinograms, out)
        return (out * (self.grid.voxel_size or 1.0)).to(device=y.device, dtype=y.dtype)

    @staticmethod
    def _on_gpu(x: Tensor) -> Tensor:
        return x.detach().to(device="cuda", dtype=torch.float32).contiguous()

    @cached_property
    def _geometries(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return astra_geometries(self.geometry, self.grid)

    def _run(self, name: str, source: Tensor, out: Tensor) -> None:
        import astra

        torch.cuda.synchronize()  # ASTRA uses its own CUDA stream
        projector = astra.create_projector("cuda3d", *self._geometries)
        try:
            getattr(astra.projector3d, name)(projector, source, out=out)
        finally:
            astra.projector3d.delete(projector)


def astra_geometries(geometry: ConeBeam, grid: VolumeGrid) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ASTRA's geometries of the projections and of the volume, in voxels; works without a GPU.

    All axes of ASTRA increase with the index.  Ours do not, so y and z are reversed.

    Examples
    --------
    >>> beam = ConeBeam.circular(np.zeros(1), 6, 8, source_axis=20.0, source_detector=30.0)
    >>> rays, volume = astra_geometries(beam, beam.grid())
    >>> rays["Vectors"][0, :3].tolist()
    [0.0, 30.0, 0.0]
    """
    import astra

    flip, edge = np.array([1.0, -1.0, -1.0]), voxel_edge(geometry, grid)
    vectors = np.concatenate(
        [one * flip / edge for one in (geometry.sources, geometry.centres, geometry.us, geometry.vs)], axis=1
    )
    n_z, n_y, n_x = grid.shape
    z, row, col = grid.first
    x0, y0, z0 = col - 0.5, -row - 0.5, -z - 0.5
    volume = astra.create_vol_geom(n_y, n_x, n_z, x0, x0 + n_x, y0, y0 + n_y, z0, z0 + n_z)
    return astra.create_proj_geom("cone_vec", geometry.n_rows, geometry.n_cols, vectors), volume
