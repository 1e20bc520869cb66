"""Line integrals of balls, ellipsoids and cylinders along the rays of any beam, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float

from quietray.geometry import FanBeam, Geometry, ParallelBeam
from quietray.types import Radiographs

__all__ = ["Bodies"]

_ENDLESS = 1e30


@dataclass(frozen=True, eq=False)
class Bodies:
    """Homogeneous bodies ``|shapes @ (x - centres)| <= 1``; where they overlap, attenuations add up.

    Parameters
    ----------
    centres
        Positions x, y, z, ``(body, 3)``.
    shapes
        Shape matrices ``(body, 3, 3)``; for a ball, the identity divided by its radius.  A zero row makes a body
        infinite in that direction.
    extents
        Half edges of a box around each body, ``(body, 3)``; large for infinite bodies.
    values
        Attenuations, ``(body,)``.

    Examples
    --------
    >>> ball = Bodies.balls(np.array([[0.0, 0.0, 0.0, 3.0]]), 1.0)
    >>> round(float(ball.project(ParallelBeam(np.zeros(1), 1, 3), 1.0)[0, 0, 1]), 4)
    6.0
    """

    centres: Float[np.ndarray, "body 3"]
    shapes: Float[np.ndarray, "body 3 3"]
    extents: Float[np.ndarray, "body 3"]
    values: Float[np.ndarray, " body"]

    @classmethod
    def balls(cls, spheres: Float[np.ndarray, "sphere 4"], value: float) -> Bodies:
        """Return balls ``(x, y, z, radius)``, all with the same attenuation."""
        radii = spheres[:, 3]
        extents = np.repeat(radii[:, None], 3, axis=1)
        return cls(spheres[:, :3].copy(), np.eye(3) / radii[:, None, None], extents, np.full(len(radii), value))

    @classmethod
    def cylinder(cls, radius: float) -> Bodies:
        """Return an infinite cylinder of attenuation 1 around the z axis."""
        shape = np.diag([1 / radius, 1 / radius, 0.0])
        return cls(np.zeros((1, 3)), shape[None], np.array([[radius, radius, _ENDLESS]]), np.ones(1))

    def __add__(self, other: Bodies) -> Bodies:
        pairs = zip(
            (self.centres, self.shapes, self.extents, self.values),
            (other.centres, other.shapes, other.extents, other.values),
            strict=True,
        )
        return Bodies(*(np.concatenate(pair) for pair in pairs))

    def project(
        self, geometry: Geometry, scale: float, *, supersampling: int = 1, rows: slice = slice(None)
    ) -> Radiographs:
        """Return line integrals ``(view, row, col)``, averaged over several rays per pixel.

        Parameters
        ----------
        geometry
            Beam.  For parallel and fan beams, every row is a slice, and the middle row is at z = 0.
        scale
            Number of voxels of the beam's grid per unit of length of the bodies; lengths along rays are in voxels, too.
        supersampling
            Number of rays per pixel in each direction.
        rows
            Consecutive detector rows to project.
        """
        chosen = range(geometry.n_rows)[rows]
        rays, kind = _rays(geometry)
        rays[:, 3:6] += rays[:, 9:] * (chosen.start + (len(chosen) - geometry.n_rows) / 2)
        out = np.zeros((geometry.n_views, len(chosen), geometry.n_cols), np.float32)
        centres, shapes, extents = self.centres * scale, self.shapes / scale, self.extents * scale
        _project(centres, shapes, extents, self.values, rays, kind, supersampling, out)
        return out


def _rays(geometry: Geometry) -> tuple[Float[np.ndarray, "view 12"], int]:
    """Return source (or direction), detector centre, u and v in voxels, and the kind: 0 parallel, 1 fan, 2 cone."""
    none, down = np.zeros((geometry.n_views, 1)), np.tile([0.0, 0.0, -1.0], (geometry.n_views, 1))
    if isinstance(geometry, ParallelBeam):
        cos, sin = np.cos(geometry.angles)[:, None], np.sin(geometry.angles)[:, None]
        u, aside = np.concatenate([cos, sin, none], axis=1), (geometry.n_cols - 1) / 2 - geometry.axis
        return np.concatenate([-sin, cos, none, aside * u, u, down], axis=1), 0
    if isinstance(geometry, FanBeam):
        source, middle, u = (np.split(geometry.vectors / geometry.voxel, 3, axis=1)[k] for k in range(3))
        return np.concatenate([source, none, middle, none, u, none, down], axis=1), 1
    parts = (geometry.sources, geometry.centres, geometry.us, geometry.vs)
    return np.concatenate(parts, axis=1) / geometry.voxel, 2


@numba.njit(cache=True, fastmath=True)
@no_type_check  # numba must compile the plain function, not one wrapped by a run-time type checker
def _shadow(ray: np.ndarray, kind: int, centre: np.ndarray, extent: np.ndarray, out: np.ndarray) -> bool:
    """Set the range of rows and columns of a box's corners, from the centre; False if a corner has no projection."""
    ux, uy, uz, vx, vy, vz = ray[6], ray[7], ray[8], ray[9], ray[10], ray[11]
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    uu, uv, vv = ux * ux + uy * uy + uz * uz, ux * vx + uy * vy + uz * vz, vx * vx + vy * vy + vz * vz
    out[0], out[1], out[2], out[3] = 1e30, -1e30, 1e30, -1e30
    for corner in range(8):
        px = centre[0] + (extent[0] if corner & 1 else -extent[0])
        py = centre[1] + (extent[1] if corner & 2 else -extent[1])
        pz = centre[2] + (extent[2] if corner & 4 else -extent[2])
        if kind == 0:
            dx, dy, dz = px - ray[3], py - ray[4], pz - ray[5]
        else:
            sz = pz if kind == 1 else ray[2]
            sx, sy = ray[0], ray[1]
            towards = (ray[3] - sx) * nx + (ray[4] - sy) * ny + (0.0 if kind == 1 else ray[5] - sz) * nz
            depth = ((px - sx) * nx + (py - sy) * ny + (pz - sz) * nz) / towards
            if depth <= 1e-6:
                return False
            dx = sx + (px - sx) / depth - ray[3]
            dy = sy + (py - sy) / depth - ray[4]
            dz = sz + (pz - sz) / depth - ray[5]
        du, dv = dx * ux + dy * uy + dz * uz, dx * vx + dy * vy + dz * vz
        det = uu * vv - uv * uv
        col, row = (du * vv - dv * uv) / det, (dv * uu - du * uv) / det
        out[0], out[1] = min(out[0], row), max(out[1], row)
        out[2], out[3] = min(out[2], col), max(out[3], col)
    return True


@numba.njit(cache=True, fastmath=True)
@no_type_check
def _chord(ray: np.ndarray, kind: int, row: float, col: float, centre: np.ndarray, m: np.ndarray) -> float:
    """Return the length inside a body of the ray to a point of the detector, given relative to its centre."""
    px = ray[3] + col * ray[6] + row * ray[9]
    py = ray[4] + col * ray[7] + row * ray[10]
    pz = ray[5] + col * ray[8] + row * ray[11]
    if kind == 0:
        dx, dy, dz = ray[0], ray[1], ray[2]
    else:
        dx, dy, dz = px - ray[0], py - ray[1], 0.0 if kind == 1 else pz - ray[2]
    length = np.sqrt(dx * dx + dy * dy + dz * dz)
    px, py, pz = px - centre[0], py - centre[1], pz - centre[2]
    a = b = c = 0.0
    for i in range(3):
        d = (m[i, 0] * dx + m[i, 1] * dy + m[i, 2] * dz) / length
        p = m[i, 0] * px + m[i, 1] * py + m[i, 2] * pz
        a, b, c = a + d * d, b + d * p, c + p * p
    inside = b * b - a * (c - 1)
    return 2 * np.sqrt(inside) / a if inside > 0 else 0.0


@numba.njit(cache=True, parallel=True, fastmath=True)
@no_type_check
def _project(
    centres: np.ndarray,
    shapes: np.ndarray,
    extents: np.ndarray,
    values: np.ndarray,
    rays: np.ndarray,
    kind: int,
    n_sub: int,
    out: np.ndarray,
) -> None:
    """Add the chord lengths of all bodies."""
    n_views, n_rows, n_cols = out.shape
    for view in numba.prange(n_views):
        box = np.empty(4)
        for body in range(len(values)):
            r0, r1, c0, c1 = 0, n_rows, 0, n_cols
            if _shadow(rays[view], kind, centres[body], extents[body], box):
                r0 = int(min(max(np.floor(box[0] + (n_rows - 1) / 2), 0), n_rows))
                r1 = int(max(min(np.ceil(box[1] + (n_rows - 1) / 2) + 1, n_rows), 0))
                c0 = int(min(max(np.floor(box[2] + (n_cols - 1) / 2), 0), n_cols))
                c1 = int(max(min(np.ceil(box[3] + (n_cols - 1) / 2) + 1, n_cols), 0))
            for row in range(r0, r1):
                for col in range(c0, c1):
                    chord = 0.0
                    for i in range(n_sub):
                        at_row = row - n_rows / 2 + (i + 0.5) / n_sub
                        for j in range(n_sub):
                            at_col = col - n_cols / 2 + (j + 0.5) / n_sub
                            chord += _chord(rays[view], kind, at_row, at_col, centres[body], shapes[body])
                    out[view, row, col] += values[body] * chord / (n_sub * n_sub)
