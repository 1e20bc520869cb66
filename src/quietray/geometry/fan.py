"""Fan beams: a point source and a line of pixels, one slice per detector row."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from quietray.geometry.cone import ConeBeam
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

__all__ = ["FanBeam"]


@dataclass(frozen=True, eq=False)
class FanBeam:
    """A fan-beam scan with a flat line detector; every detector row is a separate slice.

    Parameters
    ----------
    angles
        Angles in radians, ``(n_views,)``.
    n_rows, n_cols
        Detector size in pixels.
    source_axis, source_detector
        Distances from the source to the rotation axis and to the detector, in mm, or in detector pixels if the pixel
        size is unknown.
    rotation_axis
        Column (0-based, pixel centres at integers) that the rotation axis projects to, at the foot of the perpendicular
        from the source.  None if it is not known yet; the middle is then assumed.
    pixel_size
        Edge of a pixel on the detector in mm; None if unknown.
    half
        Whether this is a half acquisition, with a shifted detector: see :class:`~quietray.geometry.ParallelBeam`.

    Examples
    --------
    >>> beam = FanBeam(np.linspace(0, 2 * np.pi, 8, endpoint=False), 2, 16, 100.0, 150.0, pixel_size=0.3)
    >>> beam[1::4].n_views, beam.magnification, round(beam.grid().voxel_size, 3)
    (2, 1.5, 0.2)
    """

    angles: Float[np.ndarray, " view"]
    n_rows: int
    n_cols: int
    source_axis: float
    source_detector: float
    rotation_axis: float | None = None
    pixel_size: float | None = None
    half: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "angles", checked_angles(self.angles))
        checked_detector(self.n_rows, self.n_cols, self.pixel_size, self.rotation_axis)
        checked_distances(self.source_axis, self.source_detector)

    def __getitem__(self, views: slice | np.ndarray) -> FanBeam:
        return dataclasses.replace(self, angles=self.angles[views])

    def __eq__(self, other: object) -> bool:
        names = ("n_rows", "n_cols", "source_axis", "source_detector", "rotation_axis", "pixel_size", "half")
        return (
            isinstance(other, FanBeam)
            and np.array_equal(self.angles, other.angles)
            and all(getattr(self, name) == getattr(other, name) for name in names)
        )

    def __repr__(self) -> str:
        unit = "mm" if self.pixel_size else "pixels"
        return beam_repr(self, f"source to axis {self.source_axis:g} and to detector {self.source_detector:g} {unit}")

    @property
    def n_views(self) -> int:
        """Number of views."""
        return int(self.angles.size)

    @property
    def axis(self) -> float:
        """Column of the rotation axis; the middle of the detector as long as it is unknown."""
        return (self.n_cols - 1) / 2 if self.rotation_axis is None else self.rotation_axis

    @property
    def coverage(self) -> float:
        """Angular range in radians, including one step for each view."""
        return coverage(self.angles)

    @property
    def repeated_last_view(self) -> bool:
        """Whether the last view repeats the first one, after a full turn."""
        return ends_where_it_began(self.angles, "full")

    @property
    def magnification(self) -> float:
        """Magnification of the object."""
        return self.source_detector / self.source_axis

    @property
    def voxel(self) -> float:
        """Edge of a detector pixel at the object, in mm, or in detector pixels if their size is unknown."""
        return (self.pixel_size or 1.0) / self.magnification

    @property
    def vectors(self) -> Float[np.ndarray, "view 6"]:
        """Source, detector centre, and step between pixels, each ``(x, y)``, for every view."""
        cos, sin, pixel = np.cos(self.angles), np.sin(self.angles), self.pixel_size or 1.0
        behind = self.source_detector - self.source_axis
        aside = ((self.n_cols - 1) / 2 - self.axis) * pixel
        source = (self.source_axis * sin, -self.source_axis * cos)
        middle = (-behind * sin + aside * cos, behind * cos + aside * sin)
        return np.stack([*source, *middle, pixel * cos, pixel * sin], axis=1)

    @property
    def seen_radius(self) -> float:
        """Radius around the axis within which all views, or opposite pairs of views, see a slice, in voxels."""
        sides = (self.axis, self.n_cols - 1 - self.axis)
        aside = ((max(sides) if self.half else min(sides)) + 0.5) * (self.pixel_size or 1.0)
        return self.source_axis * aside / math.hypot(aside, self.source_detector) / self.voxel

    @property
    def off_centre(self) -> bool:
        """Whether the axis projects outside the middle fifth of the detector."""
        return abs(self.axis - (self.n_cols - 1) / 2) > MIDDLE * self.n_cols

    @property
    def across(self) -> int:
        """Voxels across a slice: the number of columns; for a half acquisition, the width that all views see."""
        return max(self.n_cols, int(2 * self.seen_radius)) if self.half else self.n_cols

    def settled(self) -> FanBeam:
        """Return the beam after deciding whether it is a half acquisition; see :class:`ParallelBeam`."""
        return dataclasses.replace(self, half=settled(self.half, self.coverage, self.off_centre))

    def as_cone(self) -> ConeBeam:
        """Return one row as a cone beam restricted to its central plane."""
        distances = (self.source_axis, self.source_detector, self.pixel_size, self.axis)
        return dataclasses.replace(ConeBeam.circular(self.angles, 1, self.n_cols, *distances), half=self.half)

    def rows(self, n_rows: int) -> FanBeam:
        """Return the beam restricted to a band of `n_rows` detector rows."""
        return dataclasses.replace(self, n_rows=n_rows)

    def with_axis(self, rotation_axis: float) -> FanBeam:
        """Return the beam with the rotation axis at column `rotation_axis`."""
        return dataclasses.replace(self, rotation_axis=float(rotation_axis))

    def grid(self, region: tuple[int, int, int, int] | None = None) -> VolumeGrid:
        """Return the grid of slices as wide as the detector, with voxels as large as a pixel at the object.

        Parameters
        ----------
        region
            ``(y0, y1, x0, x1)`` in pixels of the whole slice, end exclusive.

        Raises
        ------
        GeometryError
            The region is empty or outside the slice.
        """
        return detector_grid(self.n_rows, self.across, region, self.voxel if self.pixel_size else None)
