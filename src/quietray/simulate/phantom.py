"""Foam phantoms, with line integrals in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float

from quietray.brief import brief
from quietray.errors import SettingsError
from quietray.geometry import Geometry, ParallelBeam, VolumeGrid
from quietray.simulate.bodies import Bodies
from quietray.simulate.packing import pack
from quietray.simulate.tight import pack_tightly
from quietray.types import Radiographs, Volume

__all__ = ["Foam"]

Spheres = Float[np.ndarray, "sphere 4"]


@dataclass(frozen=True, eq=False)
class Foam:
    """A cylinder with non-overlapping spherical voids, in units of half the detector's width.

    The cylinder is centred on the rotation axis and extends beyond the detector at the top and the bottom.

    Parameters
    ----------
    spheres
        Position x, y, z and radius of each void, ``(sphere, 4)``.
    radius
        Radius of the cylinder.

    Notes
    -----
    Foam phantoms as a test of tomography: Pelt, Hendriksen & Batenburg (2022), doi:10.1107/S1600577521011322.

    Examples
    --------
    >>> foam = Foam.packed(100, height=0.5, rng=np.random.default_rng(0))
    >>> foam.spheres.shape
    (100, 4)
    """

    spheres: Spheres
    radius: float = 0.9

    __repr__ = brief

    @classmethod
    def packed(
        cls,
        n_spheres: int,
        height: float,
        rng: np.random.Generator,
        *,
        largest: float = 0.2,
        smallest: float = 0.005,
        radius: float = 0.9,
    ) -> Foam:
        """Pack `n_spheres` voids into a cylinder of half-height `height`, largest first.

        Each round tries many random centres.  A void is made as large as possible, up to a limit that decreases from
        round to round, so that gaps between large voids are filled with small ones.

        Raises
        ------
        SettingsError
            The voids do not fit.
        """
        return cls(_fitted(pack, n_spheres, height, rng, (smallest, largest, radius)), radius)

    @classmethod
    def tight(
        cls,
        n_spheres: int,
        height: float,
        rng: np.random.Generator,
        *,
        largest: float = 0.2,
        smallest: float = 0.005,
        radius: float = 0.9,
    ) -> Foam:
        """Pack more tightly than :meth:`packed`: each void is the largest that fits among very many trial centres.

        The foams of the Noise2Inverse papers are made this way: less of them is solid, and their voids touch.

        Raises
        ------
        SettingsError
            The voids do not fit.
        """
        return cls(_fitted(pack_tightly, n_spheres, height, rng, (smallest, largest, radius)), radius)

    def project(self, geometry: Geometry, *, supersampling: int = 2, rows: slice = slice(None)) -> Radiographs:
        """Return line integrals ``(view, row, col)`` in voxels (pixels at the object), averaged over sub-rays.

        Parameters
        ----------
        geometry
            Beam.  For parallel and fan beams, the middle row is at z = 0 and the axis at ``geometry.axis``.
        supersampling
            Number of rays per pixel in each direction.
        rows
            Detector rows to project.
        """
        chosen = range(geometry.n_rows)[rows]
        if chosen.step != 1:
            raise SettingsError(f"rows must be consecutive, got a step of {chosen.step}")
        if not isinstance(geometry, ParallelBeam):
            bodies = Bodies.cylinder(self.radius) + Bodies.balls(self.spheres, -1.0)
            return bodies.project(geometry, geometry.n_cols / 2, supersampling=supersampling, rows=rows)
        out = np.empty((geometry.n_views, len(chosen), geometry.n_cols), np.float32)
        _project(
            self.spheres,
            self.radius,
            geometry.angles,
            geometry.axis,
            geometry.n_cols / 2,
            chosen.start - (geometry.n_rows - 1) / 2,
            supersampling,
            out,
        )
        return out

    def volume(self, grid: VolumeGrid, *, supersampling: int = 2, n_cols: int | None = None) -> Volume:
        """Return the attenuation ``(z, y, x)``, 1 in the material, averaged over ``supersampling ** 3`` points.

        Parameters
        ----------
        grid
            Voxel grid.
        supersampling
            Number of points per voxel in each direction.
        n_cols
            Width of the detector that sets the scale; the grid's width by default.
        """
        out = np.zeros(grid.shape, np.float32)
        scale = (n_cols or grid.shape[2]) / 2
        _voxelise(self.spheres, self.radius, scale, (*grid.centre, grid.z), supersampling, out)
        return out


@numba.njit(cache=True, parallel=True, fastmath=True)
@no_type_check  # numba must compile the plain function, not one wrapped by a run-time type checker
def _project(
    spheres: np.ndarray,
    radius: float,
    angles: np.ndarray,
    axis: float,
    scale: float,
    first_row: float,
    supersampling: int,
    out: np.ndarray,
) -> None:
    """Add the chord lengths of the cylinder and subtract those of the spheres, in detector pixels."""
    n_views, n_rows, n_cols = out.shape
    n_sub = supersampling
    for view in numba.prange(n_views):
        cos, sin = np.cos(angles[view]), np.sin(angles[view])
        cylinder = radius * scale
        for col in range(n_cols):
            chord = 0.0
            for i in range(n_sub):
                u = col + (i + 0.5) / n_sub - 0.5 - axis
                chord += 2 * np.sqrt(max(cylinder * cylinder - u * u, 0.0))
            out[view, :, col] = chord / n_sub
        for index in range(spheres.shape[0]):
            u0 = (spheres[index, 0] * cos + spheres[index, 1] * sin) * scale + axis
            v0 = -spheres[index, 2] * scale - first_row
            r = spheres[index, 3] * scale
            for row in range(max(0, int(np.floor(v0 - r))), min(n_rows, int(np.ceil(v0 + r)) + 1)):
                for col in range(max(0, int(np.floor(u0 - r))), min(n_cols, int(np.ceil(u0 + r)) + 1)):
                    chord = 0.0
                    for i in range(n_sub):
                        dv = row + (i + 0.5) / n_sub - 0.5 - v0
                        for j in range(n_sub):
                            du = col + (j + 0.5) / n_sub - 0.5 - u0
                            chord += 2 * np.sqrt(max(r * r - du * du - dv * dv, 0.0))
                    out[view, row, col] -= chord / (n_sub * n_sub)


@numba.njit(cache=True, parallel=True, fastmath=True)
@no_type_check  # numba must compile the plain function, not one wrapped by a run-time type checker
def _voxelise(
    spheres: np.ndarray,
    radius: float,
    scale: float,
    centre: tuple[float, float, float],
    supersampling: int,
    out: np.ndarray,
) -> None:
    """Set each voxel to the fraction of its sample points that lie in the material."""
    n_z, n_y, n_x = out.shape
    n_sub = supersampling
    weight = 1.0 / n_sub**3
    for z in numba.prange(n_z):
        for k in range(n_sub):
            height = centre[2] + (n_z - 1) / 2 - (z + (k + 0.5) / n_sub - 0.5)
            for row in range(n_y):
                for i in range(n_sub):
                    y = centre[0] + (n_y - 1) / 2 - (row + (i + 0.5) / n_sub - 0.5)
                    for col in range(n_x):
                        for j in range(n_sub):
                            x = centre[1] + col + (j + 0.5) / n_sub - 0.5 - (n_x - 1) / 2
                            if x * x + y * y <= (radius * scale) ** 2:
                                out[z, row, col] += weight
            for index in range(spheres.shape[0]):
                r = spheres[index, 3] * scale
                dz = height - spheres[index, 2] * scale
                if abs(dz) >= r:
                    continue
                x0 = spheres[index, 0] * scale - centre[1] + (n_x - 1) / 2
                y0 = centre[0] + (n_y - 1) / 2 - spheres[index, 1] * scale
                for row in range(max(0, int(y0 - r) - 1), min(n_y, int(y0 + r) + 3)):
                    for col in range(max(0, int(x0 - r) - 1), min(n_x, int(x0 + r) + 3)):
                        for i in range(n_sub):
                            dy = row + (i + 0.5) / n_sub - 0.5 - y0
                            for j in range(n_sub):
                                dx = col + (j + 0.5) / n_sub - 0.5 - x0
                                if dx * dx + dy * dy + dz * dz < r * r:
                                    out[z, row, col] -= weight


def _fitted(
    packing: Callable[..., Spheres],
    n_spheres: int,
    height: float,
    rng: np.random.Generator,
    sizes: tuple[float, float, float],
) -> Spheres:
    """Return the spheres found by a packing; all must fit.  Sizes are smallest, largest, and the cylinder's radius."""
    smallest, largest, radius = sizes
    if n_spheres < 1 or not 0 < smallest <= largest < radius:
        raise SettingsError(
            f"a foam must have at least one sphere and 0 < smallest <= largest < radius, got {n_spheres} spheres, "
            f"{smallest}, {largest}, {radius}"
        )
    found = packing(n_spheres, height, rng, largest, smallest, radius)
    if len(found) < n_spheres:
        raise SettingsError(
            f"{n_spheres} spheres must fit into the cylinder, got room for {len(found)}; ask for fewer or for "
            "smaller ones"
        )
    return found
