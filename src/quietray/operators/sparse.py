"""Projection of many slices at once with the sparse matrix of a single slice."""

from __future__ import annotations

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quietray.geometry import FanBeam, ParallelBeam, VolumeGrid
from quietray.operators.astra import SliceProjector, n_threads
from quietray.operators.linear import LinearOperator

__all__ = ["SparseProjector", "has_small_matrix", "many_slices"]

_MOST_BYTES = 2**30  # total size of the matrix and its transpose
_FEWEST_SLICES = 4
_BYTES = 16  # size of one entry in both
_AT_ONCE = 32  # largest number of slices per product


class SparseProjector(LinearOperator):
    """A projector of independent slices in the form of a sparse matrix, which is computed once.

    If there are few views, the matrix fits in memory, and multiplying many slices by it is faster than tracing every
    ray again in each slice.

    Parameters
    ----------
    projector
        Projector of the slices.
    threads
        Number of products computed in parallel; by default, one for each CPU.
    device
        Device where tensors are multiplied, with the same matrix and therefore the exact adjoint; None is the CPU.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> from quietray.operators.astra import ParallelProjector
    >>> beam = ParallelBeam(np.linspace(0, np.pi, 4, endpoint=False), n_rows=2, n_cols=8)
    >>> A, x = ParallelProjector(beam), np.random.default_rng(0).random((2, 8, 8), dtype=np.float32)
    >>> bool(np.allclose(SparseProjector(A)(x), A(x), atol=1e-5))
    True
    """

    def __init__(
        self, projector: SliceProjector, threads: int | None = None, device: torch.device | None = None
    ) -> None:
        self.projector, self.device = projector, device
        self.threads = threads or n_threads()
        self._matrix = projector.matrix().tocsr().astype(np.float32)
        self._transposed = self._matrix.T.tocsr()
        self._unit = np.float32(self.grid.voxel_size or 1.0)

    def with_slices(self, n: int) -> SparseProjector:
        """Return the same projector for `n` slices; the matrix is shared."""
        projector, other = self.projector, copy.copy(self)
        other.projector = projector.with_slices(n)
        return other

    @property
    def geometry(self) -> ParallelBeam | FanBeam:
        """Beam of the slices."""
        return self.projector.geometry

    @property
    def grid(self) -> VolumeGrid:
        """Voxel grid."""
        return self.projector.grid

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """Shape of the volume, ``(z, y, x)``."""
        return self.projector.domain_shape

    @property
    def range_shape(self) -> tuple[int, ...]:
        """Shape of the sinograms, ``(row, view, col)``."""
        return self.projector.range_shape

    @property
    def slicewise(self) -> bool:
        """True: every detector row sees one slice."""
        return True

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Project every slice."""
        return self._product(self._matrix, x, self.range_shape)

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        """Backproject every sinogram."""
        return self._product(self._transposed, y, self.domain_shape)

    def forward_tensor(self, x: Tensor) -> Tensor:
        """Project every slice, on the device of the operator if `x` is there."""
        if x.device != self.device:
            return super().forward_tensor(x)
        return self._product_there(self._there[0], x, self.range_shape)

    def adjoint_tensor(self, y: Tensor) -> Tensor:
        """Backproject every sinogram, on the device of the operator if `y` is there."""
        if y.device != self.device:
            return super().adjoint_tensor(y)
        return self._product_there(self._there[1], y, self.domain_shape)

    @cached_property
    def _there(self) -> tuple[Tensor, Tensor]:
        """The matrix and its transpose on the device."""
        matrix, transposed = (_on(self.device, each) for each in (self._matrix, self._transposed))
        return matrix, transposed

    def _product_there(self, matrix: Tensor, source: Tensor, shape: tuple[int, ...]) -> Tensor:
        columns = source.reshape(len(source), -1).T.to(torch.float32).contiguous()
        return (matrix @ columns * float(self._unit)).T.reshape(shape).to(source.dtype)

    def _product(self, matrix: Any, source: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        out = np.empty(shape, np.float32)
        at_once = min(_AT_ONCE, -(-shape[0] // self.threads))

        def work(first: int) -> None:
            some = np.ascontiguousarray(source[first : first + at_once].reshape(-1, matrix.shape[1]).T)
            out[first : first + at_once] = (matrix @ some * self._unit).T.reshape(-1, *shape[1:])

        starts = range(0, shape[0], at_once)
        if len(starts) == 1:
            work(0)
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                list(pool.map(work, starts))
        return out


def _on(device: torch.device | None, matrix: Any) -> Tensor:
    """Return a sparse matrix of SciPy as a tensor."""
    with warnings.catch_warnings():  # torch warns that its sparse matrices are new
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr),
            torch.from_numpy(matrix.indices),
            torch.from_numpy(matrix.data),
            matrix.shape,
            device=device,
        )


def many_slices(projector: SliceProjector, device: torch.device | None = None) -> SliceProjector | SparseProjector:
    """Return the fastest projector for this number of slices: a matrix if it is small, else ray by ray.

    Parameters
    ----------
    projector
        Projector of the slices.
    device
        Device for the products of a matrix; None is the CPU.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> from quietray.operators.astra import ParallelProjector
    >>> type(many_slices(ParallelProjector(ParallelBeam(np.zeros(3), n_rows=8, n_cols=16)))).__name__
    'SparseProjector'
    """
    small = has_small_matrix(projector.range_shape, projector.grid)
    return SparseProjector(projector, device=device) if small else projector


def has_small_matrix(sinograms: tuple[int, ...], grid: VolumeGrid) -> bool:
    """Return whether slices are projected by a matrix: there are several, and few views.

    Parameters
    ----------
    sinograms
        Shape of the sinograms, ``(row, view, col)``.
    grid
        Voxel grid of the slices.

    Examples
    --------
    >>> grid = VolumeGrid((8, 512, 512))
    >>> has_small_matrix((8, 60, 512), grid), has_small_matrix((8, 720, 512), grid)
    (True, False)
    """
    rows, views, cols = sinograms
    entries = 3 * views * cols * max(grid.shape[1:])  # a ray as wide as a voxel crosses about three voxels per line
    return rows >= _FEWEST_SLICES and entries * _BYTES <= _MOST_BYTES
