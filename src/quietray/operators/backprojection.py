"""Backprojection of filtered views of a diverging beam, voxel by voxel.

No library does this for fan beams without a GPU, and the one for cone beams is an optional dependency.  On the CPU,
numba compiles it, slice by slice; on a GPU, torch samples the views, one by one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quietray.errors import GeometryError
from quietray.geometry import ConeBeam, FanBeam, VolumeGrid
from quietray.operators.astra import n_threads, voxel_edge
from quietray.types import Sinograms, Volume

__all__ = ["ConeRays", "FanRays", "sampled"]

_AT_ONCE = 2**25  # voxels per sampling on a GPU; each takes about 40 bytes


@dataclass(frozen=True, eq=False)
class ConeRays:
    """The rays of some detector rows and the voxels they cross: what FDK needs instead of a projector.

    Parameters
    ----------
    geometry
        Beam with the whole detector.
    grid
        Voxel grid.
    rows
        Consecutive detector rows that are available; None for all.  The rows in :attr:`seen` are sufficient.
    device
        Device of the backprojection, by torch; None is the CPU, by numba.

    Examples
    --------
    >>> beam = ConeBeam.circular(np.linspace(0, 6, 4), 6, 8, source_axis=20.0, source_detector=30.0)
    >>> ConeRays(beam, beam.grid().slab(0, 1)).seen
    range(0, 2)
    """

    geometry: ConeBeam
    grid: VolumeGrid
    rows: range | None = None
    device: torch.device | None = None

    @property
    def band(self) -> range:
        """Available detector rows."""
        return range(self.geometry.n_rows) if self.rows is None else self.rows

    @property
    def range_shape(self) -> tuple[int, ...]:
        """Shape of the sinograms, ``(row, view, col)``."""
        return (len(self.band), self.geometry.n_views, self.geometry.n_cols)

    @property
    def edge(self) -> float:
        """Edge of a voxel, in the unit of length of the beam."""
        return voxel_edge(self.geometry, self.grid)

    @cached_property
    def seen(self) -> range:
        """Detector rows that the voxels project to, including those needed for interpolation."""
        n_rows = self.geometry.n_rows
        depth, row = self._corners()
        if depth.min() <= 0:  # the grid extends beyond the source: any row may be needed
            return range(n_rows)
        first, last = int(np.floor(row.min())), int(np.ceil(row.max())) + 1
        return range(min(max(first, 0), n_rows - 1), max(min(last, n_rows), 1))

    def _corners(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the depth and the detector row of the corners of the grid, ``(view, corner)``."""
        steps = np.array(np.meshgrid(*((0, n - 1) for n in self.grid.shape), indexing="ij")).reshape(3, -1)
        z, y, x = (start - sign * step for start, sign, step in zip(self.grid.first, (1, 1, -1), steps, strict=True))
        cast = self.geometry.matrices @ np.stack([*(self.edge * np.stack([x, y, z])), np.ones_like(x)])
        return cast[:, 2], cast[:, 1] / np.where(cast[:, 2] > 0, cast[:, 2], np.inf)

    def backproject(self, filtered: Sinograms | Tensor, factors: Float[np.ndarray, " view"]) -> Volume:
        """Return the sum over the views of ``factors / depth ** 2`` times the filtered value that a voxel projects to.

        The depth is the distance of a voxel from the source along the detector's normal, in the unit of length of the
        beam.  Voxels that project outside the detector get nothing.

        Parameters
        ----------
        filtered
            Filtered views of the available rows, ``(row, view, col)``; may already be on the device.
        factors
            One factor per view.

        Raises
        ------
        GeometryError
            The shape of the sinograms is wrong.
        """
        if tuple(filtered.shape) != self.range_shape:
            raise GeometryError(
                f"sinograms must have shape {self.range_shape} (row, view, col), got {tuple(filtered.shape)}"
            )
        if self.device is not None:
            there = torch.as_tensor(filtered, dtype=torch.float32).to(self.device)
            return np.asarray(sampled(self, there[None], factors)[0].cpu().numpy())
        out = np.zeros(self.grid.shape, np.float32)
        z, y, x = self.grid.first
        data, matrices = np.ascontiguousarray(filtered, np.float32), self.geometry.matrices
        rows = (self.band.start, self.geometry.n_rows)

        def work(index: int) -> None:
            _backproject_slice(
                data, matrices, factors.astype(np.float64), (z - index, y, x, self.edge), rows, out[index]
            )

        with ThreadPoolExecutor(min(n_threads(), len(out))) as pool:
            list(pool.map(work, range(len(out))))
        return out


@dataclass(frozen=True, eq=False)
class FanRays:
    """The rays of a fan beam, whose slices are independent: what filtered backprojection needs instead of a projector.

    Parameters
    ----------
    geometry
        Beam; ``geometry.n_rows`` is the number of slices.
    grid
        Voxel grid.
    device
        Device of the backprojection, by torch; None is the CPU, by numba.

    Examples
    --------
    >>> beam = FanBeam(np.linspace(0, 6, 4), 1, 8, source_axis=20.0, source_detector=30.0)
    >>> FanRays(beam, beam.grid()).range_shape
    (1, 4, 8)
    """

    geometry: FanBeam
    grid: VolumeGrid
    device: torch.device | None = None

    @property
    def range_shape(self) -> tuple[int, ...]:
        """Shape of the sinograms, ``(row, view, col)``."""
        return (self.grid.shape[0], self.geometry.n_views, self.geometry.n_cols)


def sampled(
    rays: ConeRays, images: Float[Tensor, "channel row view col"], factors: Float[np.ndarray, " view"]
) -> Float[Tensor, "channel z y x"]:
    """Return what :meth:`ConeRays.backproject` returns, of several sets of views at once, on the device of the images.

    Parameters
    ----------
    rays
        Rays of one set.
    images
        Filtered views of the available rows of every set.
    factors
        One factor per view.

    Examples
    --------
    >>> beam = ConeBeam.circular(np.linspace(0, 6, 4), 6, 8, source_axis=20.0, source_detector=30.0)
    >>> rays, ones = ConeRays(beam, beam.grid()), np.ones(4)
    >>> filtered = np.random.default_rng(0).random((6, 4, 8), np.float32)
    >>> there = sampled(rays, torch.from_numpy(filtered)[None], ones)[0].numpy()
    >>> bool(np.allclose(there, rays.backproject(filtered, ones), rtol=1e-3))
    True
    """
    shape, n_channels = rays.grid.shape, len(images)
    out = torch.zeros((n_channels, *shape), dtype=torch.float32, device=images.device)
    at_once = max(1, _AT_ONCE // (shape[1] * shape[2]))
    for first in range(0, shape[0], at_once):
        some = out[:, first : first + at_once]
        signs = ((0, first, -1), (1, 0, -1), (2, 0, 1))  # the third axis alone increases with its index
        z, y, x = (
            rays.edge * (rays.grid.first[axis] + sign * (start + np.arange(some.shape[1 + axis])))
            for axis, start, sign in signs
        )
        for view, (matrix, factor) in enumerate(zip(rays.geometry.matrices, factors, strict=True)):
            col, row, depth = (
                _plane(line[2] * z + line[3], line[1] * y, line[0] * x, images.device) for line in matrix
            )
            near = torch.where(depth > 0, 1 / depth, 0.0)
            col, row = col * near, row * near
            weight = float(factor) * near.square()
            for place, n in ((col, rays.geometry.n_cols), (row, rays.geometry.n_rows)):
                weight = torch.where((place < -0.5) | (place > n - 0.5), 0.0, weight)
            columns, lines = (
                2 * (place - start) / max(n - 1, 1) - 1  # from the centre of the first pixel, -1, to the last, 1
                for place, start, n in ((col, 0, images.shape[3]), (row, rays.band.start, images.shape[1]))
            )
            where = torch.stack([columns, lines], dim=-1).reshape(1, -1, shape[2], 2)
            found = torch.nn.functional.grid_sample(
                images[None, :, :, view], where, mode="bilinear", padding_mode="border", align_corners=True
            )
            some += weight * found.reshape(n_channels, *weight.shape)
    return out


def _plane(z: np.ndarray, y: np.ndarray, x: np.ndarray, device: torch.device) -> Float[Tensor, "z y x"]:
    """Return the sums of three terms, each of which depends on one axis."""
    deep, down, across = (torch.from_numpy(each).to(device, torch.float32) for each in (z, y, x))
    return deep[:, None, None] + down[None, :, None] + across[None, None, :]


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check  # numba must compile the plain function, not one wrapped by a run-time type checker
def _backproject_slice(
    data: np.ndarray,
    matrices: np.ndarray,
    factors: np.ndarray,
    place: tuple[float, float, float, float],
    rows: tuple[int, int],
    out: np.ndarray,
) -> None:
    """Add all views to one slice; linear interpolation between the pixels.

    `place` holds the position ``(z, y, x)`` of the first voxel, in voxels, and the edge of a voxel; `rows` holds the
    first available row and the number of rows of the detector.
    """
    (z, y0, x0, edge), (first_row, n_rows) = place, rows
    n_here, n_views, n_cols = data.shape
    last_col, last_row = n_cols - 1.0, n_rows - 1.0
    for view in range(n_views):
        m, factor = matrices[view], factors[view]
        step = edge * m[:, 0]
        for i in range(out.shape[0]):
            start = m[:, 3] + edge * (m[:, 2] * z + m[:, 1] * (y0 - i) + m[:, 0] * x0)
            for j in range(out.shape[1]):
                depth = start[2] + j * step[2]
                if depth <= 0:
                    continue
                nearness = 1 / depth
                col, row = (start[0] + j * step[0]) * nearness, (start[1] + j * step[1]) * nearness
                if col < -0.5 or col > last_col + 0.5 or row < -0.5 or row > last_row + 0.5:
                    continue
                col, row = min(max(col, 0.0), last_col), min(max(row, 0.0), last_row)
                c, r = int(col), int(row)
                a, b = col - c, row - r
                d, r = min(c + 1, n_cols - 1), r - first_row
                s = min(r + 1, n_here - 1)
                above = data[r, view, c] * (1 - a) + data[r, view, d] * a
                below = data[s, view, c] * (1 - a) + data[s, view, d] * a
                out[i, j] += factor * nearness * nearness * (above * (1 - b) + below * b)
