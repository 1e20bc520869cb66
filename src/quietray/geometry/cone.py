"""Cone beams: a point source and a flat detector, at arbitrary positions described view by view."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from quietray.errors import GeometryError
from quietray.geometry.grid import (
    VolumeGrid,
    checked_angles,
    checked_detector,
    checked_distances,
    coverage,
    detector_grid,
    ends_where_it_began,
)
from quietray.geometry.half import MIDDLE, settled
from quietray.geometry.words import beam_repr

__all__ = ["ConeBeam"]

_CAMERAS = 4  # largest number of directions for pairs that do not move
_VECTORS = ("sources", "centres", "us", "vs")
Vectors = Float[np.ndarray, "_ 3"]  # one per view; ConeBeam has its own description


@dataclass(frozen=True, eq=False)
class ConeBeam:
    """A cone-beam scan: for every view, the source, the detector centre and its two directions, as ``(x, y, z)``.

    Parameters
    ----------
    angles
        Angles in radians as given by the scanner, ``(n_views,)``; the rays are defined by the vectors.
    n_rows, n_cols
        Detector size in pixels.
    sources, centres
        Positions of the source and of the detector centre, ``(n_views, 3)``; the rotation axis is the z axis.
    us, vs
        Steps between adjacent columns and between adjacent rows (downwards), ``(n_views, 3)``.
    unit
        Unit of the vectors: ``mm``, or ``pixel`` (of the detector) if sizes are unknown.
    half
        Whether this is a half acquisition, with a shifted detector: see :class:`~quietray.geometry.ParallelBeam`.

    Examples
    --------
    >>> angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    >>> beam = ConeBeam.circular(angles, 4, 16, source_axis=100.0, source_detector=150.0, pixel_size=0.3)
    >>> beam[1::4].n_views, round(beam.axis, 6), round(beam.grid().voxel_size, 3)
    (2, 7.5, 0.2)

    Three fixed cameras around a column, as one geometry of 30 views:

    >>> cameras = [ConeBeam.circular(np.full(10, one), 4, 16, 100.0, 150.0) for one in np.deg2rad([0.0, 120.0, 240.0])]
    >>> ConeBeam.joined(cameras).n_views
    30
    """

    angles: Float[np.ndarray, " view"]
    n_rows: int
    n_cols: int
    sources: Vectors
    centres: Vectors
    us: Vectors
    vs: Vectors
    unit: Literal["mm", "pixel"] = "mm"
    half: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "angles", checked_angles(self.angles))
        checked_detector(self.n_rows, self.n_cols, None, None)
        for name in _VECTORS:
            vectors = np.array(getattr(self, name), dtype=np.float64)
            if vectors.shape != (self.n_views, 3) or not np.isfinite(vectors).all():
                raise GeometryError(
                    f"{name} must be {self.n_views} vectors (x, y, z) of finite numbers, one for each view, got shape "
                    f"{vectors.shape}; correct the list"
                )
            vectors.setflags(write=False)
            object.__setattr__(self, name, vectors)
        if self.unit not in ("mm", "pixel"):
            raise GeometryError(f"the unit of the vectors must be mm or pixel, got '{self.unit}'")
        normals = np.cross(self.us, self.vs)
        reach = np.abs(np.einsum("vi,vi->v", normals, self.centres - self.sources))
        if not (reach > 1e-9 * np.linalg.norm(normals, axis=1)).all():
            raise GeometryError(
                "the detector must be a plane that does not contain the source, got one that does, or parallel u and "
                "v; correct the vectors"
            )

    @classmethod
    def circular(
        cls,
        angles: Float[np.ndarray, " view"],
        n_rows: int,
        n_cols: int,
        source_axis: float,
        source_detector: float,
        pixel_size: float | None = None,
        rotation_axis: float | None = None,
        source_row: float | None = None,
    ) -> ConeBeam:
        """Return the beam of a source that moves on a circle around the object, or of a rotating object.

        Parameters
        ----------
        angles
            Angles in radians, ``(n_views,)``.
        n_rows, n_cols
            Detector size in pixels.
        source_axis, source_detector
            Distances from the source to the rotation axis and to the detector, in mm, or in pixels if their size is
            unknown.
        pixel_size
            Edge of a pixel on the detector in mm.
        rotation_axis, source_row
            Column that the rotation axis projects to, and row at the height of the source; the middle by default.

        Raises
        ------
        GeometryError
            The distances are impossible.
        """
        angles = checked_angles(angles)
        checked_detector(n_rows, n_cols, pixel_size, rotation_axis)
        checked_distances(source_axis, source_detector)
        pixel = pixel_size or 1.0
        aside = 0.0 if rotation_axis is None else ((n_cols - 1) / 2 - rotation_axis) * pixel
        below = 0.0 if source_row is None else ((n_rows - 1) / 2 - source_row) * pixel
        cos, sin, none = np.cos(angles), np.sin(angles), np.zeros(len(angles))
        away, across = np.stack([-sin, cos, none], axis=1), np.stack([cos, sin, none], axis=1)
        down = np.tile([0.0, 0.0, -1.0], (len(angles), 1))
        return cls(
            angles,
            n_rows,
            n_cols,
            -source_axis * away,
            (source_detector - source_axis) * away + aside * across + below * down,
            pixel * across,
            pixel * down,
            "pixel" if pixel_size is None else "mm",
        )

    @classmethod
    def joined(cls, beams: Sequence[ConeBeam]) -> ConeBeam:
        """Return the views of several source-detector pairs as one geometry, pair after pair.

        Raises
        ------
        GeometryError
            The detectors have different sizes, or the vectors different units.
        """
        kinds = {(beam.n_rows, beam.n_cols, beam.unit) for beam in beams}
        if len(kinds) != 1:
            raise GeometryError(
                f"the detectors of joined beams must have one size and unit (rows, columns, unit), got {sorted(kinds)}"
            )
        parts: dict[str, Any] = {
            name: np.concatenate([getattr(beam, name) for beam in beams]) for name in ("angles", *_VECTORS)
        }
        return dataclasses.replace(beams[0], **parts)

    def __getitem__(self, views: slice | np.ndarray) -> ConeBeam:
        return dataclasses.replace(self, **{name: getattr(self, name)[views] for name in ("angles", *_VECTORS)})

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ConeBeam)
            and (self.n_rows, self.n_cols, self.unit, self.half) == (other.n_rows, other.n_cols, other.unit, other.half)
            and all(np.array_equal(getattr(self, name), getattr(other, name)) for name in ("angles", *_VECTORS))
        )

    def __repr__(self) -> str:
        unit = "mm" if self.unit == "mm" else "pixels"
        to_axis, to_detector = self.reach.mean(axis=0)
        return beam_repr(self, f"source to axis {to_axis:.6g} and to detector {to_detector:.6g} {unit}")

    @property
    def n_views(self) -> int:
        """Number of views."""
        return int(self.angles.size)

    @property
    def coverage(self) -> float:
        """Angular range in radians, including one step for each view."""
        return coverage(self.angles)

    @property
    def repeated_last_view(self) -> bool:
        """Whether the last view repeats the first one, after a full turn."""
        return ends_where_it_began(self.angles, "full") and bool(
            np.allclose(
                self.sources[0], self.sources[-1], atol=0.25 * np.linalg.norm(self.sources[1] - self.sources[0])
            )
        )

    @property
    def pixel_size(self) -> float | None:
        """Distance between columns on the detector in mm; None if unknown."""
        return float(np.linalg.norm(self.us, axis=1).mean()) if self.unit == "mm" else None

    @property
    def axis(self) -> float:
        """Column that the origin projects to, on average."""
        return float(self.shadow(np.zeros(3))[:, 1].mean())

    @property
    def rotation_axis(self) -> float | None:
        """Same as :attr:`axis`, because the vectors define it."""
        return self.axis

    @property
    def reach(self) -> Float[np.ndarray, "view 2"]:
        """Distances from the source to the origin and to the detector, along the detector's normal."""
        normals = np.cross(self.us, self.vs)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        to_detector = np.einsum("vi,vi->v", normals, self.centres - self.sources)
        to_origin = -np.einsum("vi,vi->v", normals, self.sources)
        return np.stack([np.sign(to_detector) * to_origin, np.abs(to_detector)], axis=1)

    @property
    def magnification(self) -> float:
        """Mean magnification of an object at the origin."""
        return float((self.reach[:, 1] / self.reach[:, 0]).mean())

    @property
    def voxel(self) -> float:
        """Mean edge of a detector pixel, demagnified to the origin, in the unit of the vectors."""
        return float((np.linalg.norm(self.us, axis=1) * self.reach[:, 0] / self.reach[:, 1]).mean())

    @property
    def seen_radius(self) -> float:
        """Radius around the z axis within which all views, or opposite pairs of views, see the volume, in voxels.

        This is the distance of the outer rays of the first and last columns, at the height of the origin.
        """
        row = self.shadow(np.zeros(3))[:, 0] - (self.n_rows - 1) / 2
        nearest = []
        for end in (-self.n_cols / 2, self.n_cols / 2):
            rays = self.centres + end * self.us + row[:, None] * self.vs - self.sources
            across = np.abs(self.sources[:, 0] * rays[:, 1] - self.sources[:, 1] * rays[:, 0])
            nearest.append(float((across / np.hypot(rays[:, 0], rays[:, 1])).min()))
        return (max(nearest) if self.half else min(nearest)) / self.voxel

    @property
    def off_centre(self) -> bool:
        """Whether the origin projects outside the middle fifth of the detector, on the same side in all views."""
        aside = self.shadow(np.zeros(3))[:, 1] - (self.n_cols - 1) / 2
        return abs(float(np.sign(aside).sum())) == self.n_views and bool(np.abs(aside).min() > MIDDLE * self.n_cols)

    @property
    def across(self) -> int:
        """Voxels across a slice: the number of columns; for a half acquisition, the width that all views see."""
        return max(self.n_cols, int(2 * self.seen_radius)) if self.half else self.n_cols

    def settled(self) -> ConeBeam:
        """Return the beam after deciding whether it is a half acquisition; see :class:`ParallelBeam`."""
        return dataclasses.replace(self, half=settled(self.half, self.coverage, self.turning and self.off_centre))

    @property
    def turning(self) -> bool:
        """Whether the views have more directions than a set of fixed cameras would."""
        return len(np.unique(np.mod(self.angles, 2 * np.pi).round(6))) > _CAMERAS

    @property
    def matrices(self) -> Float[np.ndarray, "view 3 4"]:
        """Matrices from ``(x, y, z, 1)`` to ``depth * (column, row, 1)``, with the depth along the detector's normal.

        Hartley & Zisserman, Multiple View Geometry in Computer Vision, 2004, chapter 6.
        """
        corner = self.centres - (self.n_cols - 1) / 2 * self.us - (self.n_rows - 1) / 2 * self.vs
        inverse = np.linalg.inv(np.stack([self.us, self.vs, corner - self.sources], axis=2))
        moved = -np.einsum("vij,vj->vi", inverse, self.sources)
        return np.asarray(np.concatenate([inverse, moved[:, :, None]], axis=2) * self.reach[:, 1, None, None])

    def shadow(self, point: Float[np.ndarray, " xyz"]) -> Float[np.ndarray, "view 2"]:
        """Return the row and column that a point ``(x, y, z)`` projects to in each view."""
        cast = self.matrices @ np.append(point, 1.0)
        return np.asarray(cast[:, 1::-1] / cast[:, 2:])

    def rows(self, n_rows: int, first: int | None = None) -> ConeBeam:
        """Return the beam restricted to `n_rows` detector rows from row `first`, or to the middle ones by default."""
        start = (self.n_rows - n_rows) / 2 if first is None else first
        return dataclasses.replace(
            self, n_rows=n_rows, centres=self.centres + (start + (n_rows - self.n_rows) / 2) * self.vs
        )

    def with_axis(self, rotation_axis: float) -> ConeBeam:
        """Return the beam with the detector moved along its rows, so that the origin projects to this column."""
        column = self.shadow(np.zeros(3))[:, 1:]
        return dataclasses.replace(self, centres=self.centres + (column - float(rotation_axis)) * self.us)

    def tilted(self, roll: float = 0.0, pitch: float = 0.0, yaw: float = 0.0) -> ConeBeam:
        """Return the beam with the detector rotated about the point that the origin projects to.

        Parameters
        ----------
        roll
            Rotation in the plane of the detector in radians, from the direction of the columns towards that of the
            rows.
        pitch, yaw
            Subsequent rotations about the row direction and about the column direction, in radians.
        """
        rows_and_columns = self.shadow(np.zeros(3)) - [(self.n_rows - 1) / 2, (self.n_cols - 1) / 2]
        us, vs = self.us, self.vs
        pivots = self.centres + rows_and_columns[:, 1:] * us + rows_and_columns[:, :1] * vs
        us, vs = _turned(us, np.cross(us, vs), roll), _turned(vs, np.cross(us, vs), roll)
        vs = _turned(vs, us, pitch)
        us = _turned(us, vs, yaw)
        centres = pivots - rows_and_columns[:, 1:] * us - rows_and_columns[:, :1] * vs
        return dataclasses.replace(self, centres=centres, us=us, vs=vs)

    def tall_grid(self, grid: VolumeGrid) -> VolumeGrid:
        """Return a grid extended above and below by the slices that the rays cross within its width.

        Iterative algorithms need these slices to explain the data if the object is taller than the detector.

        Examples
        --------
        >>> beam = ConeBeam.circular(np.linspace(0, 6, 8), 20, 16, 100.0, 150.0)
        >>> beam.tall_grid(beam.grid()).shape
        (22, 16, 16)
        """
        edge = grid.voxel_size or self.voxel
        radius = edge * max(abs(middle) + n / 2 for middle, n in zip(grid.centre, grid.shape[1:], strict=True))
        highest = 0.0
        for end in (-self.n_rows / 2, self.n_rows / 2):
            rise = self.centres[:, 2] + end * self.vs[:, 2] - self.sources[:, 2]
            for depth in (self.reach[:, 0] - radius, self.reach[:, 0] + radius):
                highest = max(highest, float(np.abs(self.sources[:, 2] + rise * depth / self.reach[:, 1]).max()))
        more = max(0, math.ceil(highest / edge - grid.shape[0] / 2 - 1e-6))
        return grid.with_slices(grid.shape[0] + 2 * more)

    def grid(self, region: tuple[int, int, int, int] | None = None) -> VolumeGrid:
        """Return a grid with the rows and columns of the detector, and voxels as large as a pixel at the origin.

        Parameters
        ----------
        region
            ``(y0, y1, x0, x1)`` in pixels of the whole slice, end exclusive.

        Raises
        ------
        GeometryError
            The region is empty or outside the slice.
        """
        return detector_grid(self.n_rows, self.across, region, self.voxel if self.unit == "mm" else None)


def _turned(vectors: Vectors, axes: Vectors, angle: float) -> Vectors:
    """Return vectors rotated about axes (Rodrigues' formula)."""
    k = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    along = np.einsum("vi,vi->v", k, vectors)[:, None] * k
    return np.asarray(math.cos(angle) * (vectors - along) + math.sin(angle) * np.cross(k, vectors) + along)
