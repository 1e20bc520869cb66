"""Projectors based on the ASTRA toolbox (GPL-3, imported at run time).

Slices of a parallel or fan beam are independent.  They run in a thread pool, as ASTRA releases the interpreter lock.
"""

from __future__ import annotations

import copy
import os
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from types import ModuleType
from typing import Any, Literal

import numpy as np

from quietray.errors import GeometryError, ResourceError
from quietray.geometry import ConeBeam, FanBeam, ParallelBeam, VolumeGrid, require_parallel
from quietray.operators.linear import LinearOperator

__all__ = [
    "FanProjector",
    "ParallelProjector",
    "SliceProjector",
    "gpu_usable",
    "n_threads",
    "require_gpu",
    "voxel_edge",
]


def n_threads() -> int:
    """Return the number of CPUs that this process may use.

    Examples
    --------
    >>> n_threads() >= 1
    True
    """
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1))


def _astra() -> ModuleType:
    import astra

    return astra  # type: ignore[no-any-return]


def require_gpu(what: str) -> None:
    """Raise unless ASTRA can use a GPU.

    Without a GPU, a 3-D call of ASTRA terminates the whole process, so each is preceded by this check.

    Raises
    ------
    ResourceError
        There is no usable CUDA device.

    Examples
    --------
    >>> require_gpu("cone-beam projection")  # doctest: +SKIP
    """
    if not gpu_usable():
        raise ResourceError(
            f"{what} through ASTRA must have a CUDA GPU, got a machine without one; use a parallel-beam geometry or "
            "run it on a machine with one"
        )


def gpu_usable() -> bool:
    """Return whether ASTRA can use a GPU.

    Examples
    --------
    >>> gpu_usable() in (False, True)
    True
    """
    return bool(_astra().use_cuda())


class SliceProjector(LinearOperator):
    """Projection of independent slices: volume ``(z, y, x)`` to sinograms ``(row, view, col)``.

    Parameters
    ----------
    geometry
        Beam; ``geometry.n_rows`` is the number of slices.
    grid
        Voxel grid of the volume.
    threads
        Number of slices processed in parallel.

    Raises
    ------
    GeometryError
        The grid does not have one slice per detector row.
    """

    geometry: ParallelBeam | FanBeam

    def __init__(self, geometry: ParallelBeam | FanBeam, grid: VolumeGrid, threads: int) -> None:
        self.geometry = geometry
        self.grid = grid.of_rows(geometry.n_rows)
        self.threads = threads
        self._n_rays = (geometry.n_views, geometry.n_cols)

    @property
    @abstractmethod
    def _kind(self) -> str:
        """ASTRA's name of the CPU projector."""

    @property
    @abstractmethod
    def _geometries(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """ASTRA's projection and volume geometries of one slice, in voxels."""

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """Shape of the volume, ``(z, y, x)``."""
        return self.grid.shape

    @property
    def range_shape(self) -> tuple[int, ...]:
        """Shape of the sinograms, ``(row, view, col)``."""
        return (self.grid.shape[0], *self._n_rays)

    @property
    def slicewise(self) -> bool:
        """True: every detector row sees one slice."""
        return True

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Project every slice."""
        return self._each_slice(x, np.empty(self.range_shape, np.float32), self._project)

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        """Backproject every sinogram."""
        return self._each_slice(y, np.empty(self.domain_shape, np.float32), self._backproject)

    def with_slices(self, n: int) -> SliceProjector:
        """Return the same projector for `n` slices."""
        other = copy.copy(self)
        other.geometry, other.grid = self.geometry.rows(n), self.grid.with_slices(n)
        return other

    def matrix(self) -> Any:
        """Return the projection of one slice as a scipy sparse matrix ``(view * col, y * x)``, for voxels of size 1."""
        astra = _astra()
        with _Projector(self) as projector:
            handle = astra.projector.matrix(projector)
            matrix = astra.matrix.get(handle)
            astra.matrix.delete(handle)
        return matrix

    def _each_slice(
        self, source: np.ndarray, out: np.ndarray, work: Callable[[np.ndarray, np.ndarray], None]
    ) -> np.ndarray:
        if len(out) == 1:
            work(source[0], out[0])
        else:
            with ThreadPoolExecutor(min(self.threads, len(out))) as pool:
                list(pool.map(work, source, out))
        out *= np.float32(self.grid.voxel_size or 1.0)
        return out

    def _project(self, volume: np.ndarray, sinogram: np.ndarray) -> None:
        self._run("FP", volume, sinogram)

    def _backproject(self, sinogram: np.ndarray, volume: np.ndarray) -> None:
        self._run("BP", volume, sinogram)

    def _run(self, kind: str, volume: np.ndarray, sinogram: np.ndarray) -> None:
        astra = _astra()
        proj_geom, vol_geom = self._geometries
        with _Projector(self) as projector:
            volume_id = astra.data2d.link("-vol", vol_geom, volume)
            sinogram_id = astra.data2d.link("-sino", proj_geom, sinogram)
            settings = astra.astra_dict(kind)
            settings["ProjectorId"] = projector
            settings["ProjectionDataId"] = sinogram_id
            settings["VolumeDataId" if kind == "FP" else "ReconstructionDataId"] = volume_id
            algorithm = astra.algorithm.create(settings)
            try:
                astra.algorithm.run(algorithm)
            finally:
                astra.algorithm.delete(algorithm)
                astra.data2d.delete([volume_id, sinogram_id])


class ParallelProjector(SliceProjector):
    """Parallel-beam projection of a stack of slices: volume ``(z, y, x)`` to sinograms ``(row, view, col)``.

    The unit of the line integrals is the unit of the volume times the voxel size (pixels if that is unknown).

    Parameters
    ----------
    geometry
        Beam; ``geometry.n_rows`` is the number of slices.
    grid
        Voxel grid; by default, slices as wide as the detector, centred on the rotation axis.
    interpolation
        ASTRA's CPU projector: ``strip`` (area of the ray within a voxel), ``linear`` (Joseph) or ``line`` (Siddon).
        The adjoint of ``linear`` is twice as fast, but it adds a texture of about 0.5 % that differs between subsets of
        the views and that Noise2Inverse would have to learn; the adjoint of ``strip`` does not.  Filtered
        backprojection does not use this projector, but :class:`~quietray.operators.nufft.ParallelRays`.
    threads
        Number of slices processed in parallel; by default, one for each CPU.

    Raises
    ------
    GeometryError
        The grid does not have one slice per detector row.

    Examples
    --------
    >>> A = ParallelProjector(ParallelBeam(np.linspace(0, np.pi, 4, endpoint=False), n_rows=1, n_cols=8))
    >>> A.domain_shape, A.range_shape
    ((1, 8, 8), (1, 4, 8))
    """

    geometry: ParallelBeam

    def __init__(
        self,
        geometry: ParallelBeam,
        grid: VolumeGrid | None = None,
        interpolation: Literal["strip", "linear", "line"] = "strip",
        threads: int | None = None,
    ) -> None:
        beam = require_parallel(geometry, "projection by ParallelProjector")
        self.interpolation = interpolation
        super().__init__(beam, grid or beam.grid(), threads or n_threads())

    @property
    def _kind(self) -> str:
        return self.interpolation

    @cached_property
    def _geometries(self) -> tuple[dict[str, Any], dict[str, Any]]:
        astra = _astra()
        angles, n_cols = self.geometry.angles, self.geometry.n_cols
        middle = (n_cols - 1) / 2 - self.geometry.axis
        cos, sin = np.cos(angles), np.sin(angles)
        vectors = np.stack([sin, -cos, middle * cos, middle * sin, cos, sin], axis=1)
        return astra.create_proj_geom("parallel_vec", n_cols, vectors), _slice(self.grid)


class FanProjector(SliceProjector):
    """Fan-beam projection of a stack of slices: volume ``(z, y, x)`` to sinograms ``(row, view, col)``.

    A ray is a line through the centre of a pixel; its integral is the sum over voxels, weighted by the length of the
    ray in each (Siddon 1985, doi:10.1118/1.595715).  The unit of the line integrals is the unit of the volume times the
    voxel size.

    Parameters
    ----------
    geometry
        Beam; ``geometry.n_rows`` is the number of slices.
    grid
        Voxel grid; by default, slices as wide as the detector appears at the object, centred on the rotation axis.
    threads
        Number of slices processed in parallel; by default, one for each CPU.

    Raises
    ------
    GeometryError
        The grid does not have one slice per detector row, has a size in mm although the beam has none, or contains the
        source.

    Examples
    --------
    >>> A = FanProjector(FanBeam(np.linspace(0, 6, 4), 1, 8, source_axis=20.0, source_detector=30.0))
    >>> A.domain_shape, A.range_shape
    ((1, 8, 8), (1, 4, 8))
    """

    geometry: FanBeam

    def __init__(self, geometry: FanBeam, grid: VolumeGrid | None = None, threads: int | None = None) -> None:
        grid = grid or geometry.grid()
        self.edge = voxel_edge(geometry, grid)
        far = max(abs(grid.centre[0]) + grid.shape[1] / 2, abs(grid.centre[1]) + grid.shape[2] / 2) * self.edge
        if far >= geometry.source_axis:
            raise GeometryError(
                f"the source must stand outside the grid, got a grid that reaches {far:g} from the axis and the source "
                f"at {geometry.source_axis:g}; correct the distances, or choose a region"
            )
        super().__init__(geometry, grid, threads or n_threads())

    @property
    def _kind(self) -> str:
        return "line_fanflat"

    @cached_property
    def _geometries(self) -> tuple[dict[str, Any], dict[str, Any]]:
        vectors = self.geometry.vectors / self.edge
        return _astra().create_proj_geom("fanflat_vec", self.geometry.n_cols, vectors), _slice(self.grid)


def voxel_edge(geometry: FanBeam | ConeBeam, grid: VolumeGrid) -> float:
    """Return the edge of a voxel in the unit of length of the beam.

    Raises
    ------
    GeometryError
        The grid has a size in mm although the beam has none.

    Examples
    --------
    >>> voxel_edge(FanBeam(np.zeros(1), 1, 8, 20.0, 40.0), VolumeGrid((1, 8, 8)))
    0.5
    """
    if grid.voxel_size and geometry.pixel_size is None:
        raise GeometryError(
            f"the grid must have no voxel size if the beam has no pixel size, got {grid.voxel_size} mm; give the pixel "
            "size"
        )
    return grid.voxel_size or geometry.voxel


def _slice(grid: VolumeGrid) -> dict[str, Any]:
    """Return ASTRA's geometry of one slice, in voxels."""
    _, n_y, n_x = grid.shape
    y, x = grid.centre
    geometry: dict[str, Any] = _astra().create_vol_geom(n_y, n_x, x - n_x / 2, x + n_x / 2, y - n_y / 2, y + n_y / 2)
    return geometry


class _Projector:
    """ASTRA's handle of a CPU projector, deleted on exit."""

    def __init__(self, operator: SliceProjector) -> None:
        self._operator = operator

    def __enter__(self) -> int:
        self._id = int(_astra().create_projector(self._operator._kind, *self._operator._geometries))
        return self._id

    def __exit__(self, *exception: object) -> None:
        _astra().projector.delete(self._id)
