"""Parallel beams, as at synchrotrons and neutron sources."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from quietray.geometry.grid import (
    VolumeGrid,
    checked_angles,
    checked_detector,
    coverage,
    detector_grid,
    ends_where_it_began,
)
from quietray.geometry.half import MIDDLE, settled, share
from quietray.geometry.words import beam_repr

__all__ = ["ParallelBeam"]


@dataclass(frozen=True, eq=False)
class ParallelBeam:
    """A parallel-beam scan around a vertical axis.

    Parameters
    ----------
    angles
        Angles in radians, ``(n_views,)``.
    n_rows, n_cols
        Detector size in pixels.
    rotation_axis
        Column (0-based, pixel centres at integers) that the rotation axis projects to; None if it is not known yet; the
        middle of the detector is then assumed.
    pixel_size
        Edge of a detector pixel in mm, at the object; None if unknown.
    half
        Whether this is a half acquisition: a full turn around an axis near an edge of the detector, so that each view
        sees one half of the object and the view half a turn later the other.  Slices are then as wide as both together.
        None if this has not been decided yet (see :meth:`settled`), which counts as no.
    row_height
        Distance between rows in mm, for pixels that are not square; None for square pixels.

    Examples
    --------
    >>> beam = ParallelBeam(np.linspace(0, np.pi, 8, endpoint=False), n_rows=2, n_cols=16)
    >>> len(beam[1::4].angles), beam.axis
    (2, 7.5)
    >>> beam
    ParallelBeam(8 views of 2 x 16 pixels, 0.000 to 157.500 degrees, step 22.5, covering 180.0, axis to be found, pixel
    size not known)
    """

    angles: Float[np.ndarray, " view"]
    n_rows: int
    n_cols: int
    rotation_axis: float | None = None
    pixel_size: float | None = None
    half: bool | None = None
    row_height: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "angles", checked_angles(self.angles))
        checked_detector(self.n_rows, self.n_cols, self.pixel_size, self.rotation_axis)
        checked_detector(self.n_rows, self.n_cols, self.row_height, None)

    def __getitem__(self, views: slice | np.ndarray) -> ParallelBeam:
        return dataclasses.replace(self, angles=self.angles[views])

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ParallelBeam)
            and np.array_equal(self.angles, other.angles)
            and all(
                getattr(self, name) == getattr(other, name)
                for name in ("n_rows", "n_cols", "rotation_axis", "pixel_size", "half", "row_height")
            )
        )

    def __repr__(self) -> str:
        return beam_repr(self, *(["half acquisition"] if self.half else []))

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
    def turns(self) -> int:
        """Number of half turns: 1 for 180 degrees, 2 for a full turn, 0 below about 170 degrees."""
        return math.floor(self.coverage / math.pi + 0.06)

    @property
    def repeated_last_view(self) -> bool:
        """Whether the last view repeats the first one (after a full turn) or mirrors it (after half a turn)."""
        return ends_where_it_began(self.angles, "half")

    @property
    def seen_radius(self) -> float:
        """Radius around the axis within which all views, or opposite pairs of views, see a slice, in pixels."""
        near, far = self._sides
        return (far if self.half else near) + 0.5

    @property
    def across(self) -> int:
        """Voxels across a slice: the number of columns; for a half acquisition, the width that all views see.

        Examples
        --------
        >>> turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
        >>> [ParallelBeam(turn, 1, 16, rotation_axis=3.0, half=half).across for half in (False, True)]
        [16, 25]
        """
        return int(2 * self.seen_radius) if self.half else self.n_cols

    @property
    def off_centre(self) -> bool:
        """Whether the axis projects outside the middle fifth of the detector."""
        return abs(self.axis - (self.n_cols - 1) / 2) > MIDDLE * self.n_cols

    @property
    def redundancy(self) -> Float[np.ndarray, " col"]:
        """Weight of each column for rays that two views of a half acquisition see; the two weights add up to 1.

        It rises smoothly from the detector edge near the axis to the same distance beyond the axis, where no other view
        sees the ray.

        Examples
        --------
        >>> turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
        >>> ParallelBeam(turn, 1, 6, rotation_axis=1.0, half=True).redundancy.round(2).tolist()
        [0.07, 0.5, 0.93, 1.0, 1.0, 1.0]
        """
        near, _ = self._sides
        away = np.arange(self.n_cols) - self.axis
        if self.axis > (self.n_cols - 1) / 2:
            away = -away
        return share(away, near + 0.5)

    @property
    def _sides(self) -> tuple[float, float]:
        """Distance from the axis to the centres of the nearest and of the farthest column."""
        sides = (self.axis, self.n_cols - 1 - self.axis)
        return min(sides), max(sides)

    def settled(self) -> ParallelBeam:
        """Return the beam, with a known axis, after deciding whether it is a half acquisition.

        Unless stated, it is one if the views make a full turn around an axis outside the middle fifth of the detector.

        Raises
        ------
        GeometryError
            It is said to be a half acquisition, but the views do not make a full turn.

        Examples
        --------
        >>> turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
        >>> [ParallelBeam(turn, 1, 16, rotation_axis=axis).settled().half for axis in (3.0, 7.0)]
        [True, False]
        """
        return dataclasses.replace(self, half=settled(self.half, self.coverage, self.off_centre))

    def rows(self, n_rows: int) -> ParallelBeam:
        """Return the beam restricted to a band of `n_rows` detector rows."""
        return dataclasses.replace(self, n_rows=n_rows)

    def with_axis(self, rotation_axis: float) -> ParallelBeam:
        """Return the beam with the rotation axis at column `rotation_axis`."""
        return dataclasses.replace(self, rotation_axis=float(rotation_axis))

    def grid(self, region: tuple[int, int, int, int] | None = None) -> VolumeGrid:
        """Return the grid of whole slices, :attr:`across` voxels wide, or of a region of them.

        Parameters
        ----------
        region
            ``(y0, y1, x0, x1)`` in pixels of the whole slice, end exclusive.

        Raises
        ------
        GeometryError
            The region is empty or outside the slice.
        """
        grid = detector_grid(self.n_rows, self.across, region, self.pixel_size)
        return dataclasses.replace(grid, spacing=self.row_height)
