"""Phantoms of ellipsoids with line integrals in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from quietray.geometry import Geometry, VolumeGrid
from quietray.simulate.bodies import Bodies
from quietray.types import Radiographs, Volume

__all__ = ["Ellipsoids"]

# Value, half axes a, b, c, centre x, y, z, rotation about z in degrees.
_HEAD = (
    (1.0, 0.69, 0.92, 0.81, 0.0, 0.0, 0.0, 0.0),
    (-0.8, 0.6624, 0.874, 0.78, 0.0, -0.0184, 0.0, 0.0),
    (-0.2, 0.11, 0.31, 0.22, 0.22, 0.0, 0.0, -18.0),
    (-0.2, 0.16, 0.41, 0.28, -0.22, 0.0, 0.0, 18.0),
    (0.1, 0.21, 0.25, 0.41, 0.0, 0.35, -0.15, 0.0),
    (0.1, 0.046, 0.046, 0.05, 0.0, 0.1, 0.25, 0.0),
    (0.1, 0.046, 0.046, 0.05, 0.0, -0.1, 0.25, 0.0),
    (0.1, 0.046, 0.023, 0.05, -0.08, -0.605, 0.0, 0.0),
    (0.1, 0.023, 0.023, 0.02, 0.0, -0.606, 0.0, 0.0),
    (0.1, 0.023, 0.046, 0.02, 0.06, -0.605, 0.0, 0.0),
)


@dataclass(frozen=True, eq=False)
class Ellipsoids:
    """Ellipsoids whose attenuations add up, in units of half the detector's width at the object.

    Parameters
    ----------
    table
        ``(ellipsoid, 8)``: attenuation; half axes along x, y, z; position x, y, z; rotation about z in radians.

    Examples
    --------
    >>> head = Ellipsoids.shepp_logan()
    >>> round(float(head.volume(VolumeGrid((1, 16, 16)))[0, 2, 8]), 2)
    0.2
    """

    table: Float[np.ndarray, "ellipsoid 8"]

    @classmethod
    def shepp_logan(cls, size: float = 1.0) -> Ellipsoids:
        """Return a head phantom of ten ellipsoids with Toft's contrasts, scaled by `size`.

        Shepp & Logan (1974), doi:10.1109/TNS.1974.6499235; three-dimensional version: Kak & Slaney (1988), table 3.1;
        contrasts: Toft, The Radon Transform, 1996, table B.1.
        """
        table = np.array(_HEAD)
        table[:, 1:7] *= size
        table[:, 7] = np.deg2rad(table[:, 7])
        return cls(table)

    def project(self, geometry: Geometry, *, supersampling: int = 2, rows: slice = slice(None)) -> Radiographs:
        """Return line integrals ``(view, row, col)`` in voxels; parameters as for ``Foam.project``."""
        return self._bodies.project(geometry, geometry.n_cols / 2, supersampling=supersampling, rows=rows)

    def volume(self, grid: VolumeGrid, *, supersampling: int = 2, n_cols: int | None = None) -> Volume:
        """Return the attenuation ``(z, y, x)``, averaged over ``supersampling ** 3`` points per voxel.

        Parameters
        ----------
        grid
            Voxel grid.
        supersampling
            Number of points per voxel in each direction.
        n_cols
            Width of the detector that sets the scale; the grid's width by default.
        """
        out, scale = np.zeros(grid.shape, np.float32), (n_cols or grid.shape[2]) / 2
        offsets = (np.arange(supersampling) + 0.5) / supersampling - 0.5
        axes = [start - np.arange(n) for start, n in zip(grid.first, grid.shape, strict=True)]
        axes[2] = grid.first[2] + np.arange(grid.shape[2])
        bodies, share = self._bodies, 1 / supersampling**3
        for dz, dy, dx in np.array(np.meshgrid(offsets, offsets, offsets)).reshape(3, -1).T:
            points = [(axis + offset) / scale for axis, offset in zip(axes, (dz, dy, dx), strict=True)]
            for centre, extent, shape, value in zip(
                bodies.centres, bodies.extents, bodies.shapes, bodies.values, strict=True
            ):
                near = [np.flatnonzero(abs(points[k] - centre[2 - k]) <= extent[2 - k]) for k in range(3)]
                z, y, x = np.ix_(*(points[k][near[k]] for k in range(3)))
                px, py, pz = x - centre[0], y - centre[1], z - centre[2]
                reach = sum((row[0] * px + row[1] * py + row[2] * pz) ** 2 for row in shape)
                out[np.ix_(*near)] += np.float32(value * share) * (reach <= 1)
        return out

    @property
    def _bodies(self) -> Bodies:
        value, half, middle, turn = self.table[:, 0], self.table[:, 1:4], self.table[:, 4:7], self.table[:, 7]
        cos, sin = np.cos(turn), np.sin(turn)
        shapes = np.zeros((len(value), 3, 3))
        shapes[:, 0, 0], shapes[:, 0, 1] = cos / half[:, 0], sin / half[:, 0]
        shapes[:, 1, 0], shapes[:, 1, 1] = -sin / half[:, 1], cos / half[:, 1]
        shapes[:, 2, 2] = 1 / half[:, 2]
        around = np.maximum(half[:, :1], half[:, 1:2])
        return Bodies(middle.copy(), shapes, np.concatenate([around, around, half[:, 2:]], axis=1), value.copy())
