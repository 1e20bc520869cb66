"""Voxel grids, and checks that are common to all beams."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from numbers import Real
from typing import Literal

import numpy as np
from jaxtyping import Float

from quietray.errors import GeometryError

__all__ = [
    "VolumeGrid",
    "checked_angles",
    "checked_detector",
    "checked_distances",
    "coverage",
    "detector_grid",
    "ends_where_it_began",
    "field_of_view",
    "in_order",
    "step_between",
]


_TURNS = 4 * math.pi  # two: no list of degrees worth the name covers less
_NEAR, _WHOLE = 0.02, 0.01  # of 180 and 360, and of half a turn


@dataclass(frozen=True)
class VolumeGrid:
    """A grid of voxels ``(z, y, x)``; row 0 of a slice has the largest y, slice 0 the largest z.

    Parameters
    ----------
    shape
        Numbers of voxels, ``(n_z, n_y, n_x)``.
    centre
        Position ``(y, x)`` of the centre of a slice relative to the rotation axis, in voxels; y points up.
    voxel_size
        Edge of a voxel in mm; None if the pixel size is unknown.
    z
        Height of the centre of the grid above the plane of the source, in voxels; only used for cone beams.
    spacing
        Distance between slices in mm, for pixels that are not square; None for cubic voxels.
    values
        Unit of the values; None for attenuation, in 1/mm or 1/pixel.

    Examples
    --------
    >>> VolumeGrid((2, 64, 64)).n_pixels, VolumeGrid((2, 64, 64)).unit
    (4096, '1/pixel')
    """

    shape: tuple[int, int, int]
    centre: tuple[float, float] = (0.0, 0.0)
    voxel_size: float | None = None
    z: float = 0.0
    spacing: float | None = None
    values: str | None = None

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise GeometryError(f"the volume grid must have three positive sizes (z, y, x), got {self.shape}")

    @property
    def n_pixels(self) -> int:
        """Number of pixels in a slice."""
        return self.shape[1] * self.shape[2]

    @property
    def unit(self) -> str:
        """Unit of the values on this grid."""
        return self.values or ("1/mm" if self.voxel_size else "1/pixel")

    @property
    def steps(self) -> tuple[float, float, float] | None:
        """Distances between voxels along z, y and x in mm; None if the pixel size is unknown."""
        size = self.voxel_size
        return None if size is None else (self.spacing or size, size, size)

    @property
    def first(self) -> tuple[float, float, float]:
        """Position ``(z, y, x)`` of the centre of voxel ``[0, 0, 0]``, in voxels; z and y point up, x to the right."""
        n_z, n_y, n_x = self.shape
        return self.z + (n_z - 1) / 2, self.centre[0] + (n_y - 1) / 2, self.centre[1] - (n_x - 1) / 2

    def with_slices(self, n_z: int) -> VolumeGrid:
        """Return the same grid with `n_z` slices."""
        return dataclasses.replace(self, shape=(n_z, *self.shape[1:]))

    def of_rows(self, n_rows: int) -> VolumeGrid:
        """Return this grid if it has one slice for each of `n_rows` detector rows, else raise.

        Raises
        ------
        GeometryError
            The number of slices is another one.

        Examples
        --------
        >>> VolumeGrid((4, 8, 8)).of_rows(4).shape
        (4, 8, 8)
        """
        if self.shape[0] != n_rows:
            raise GeometryError(f"the grid must have one slice per detector row ({n_rows}), got {self.shape[0]}")
        return self

    def slab(self, first: int, last: int) -> VolumeGrid:
        """Return slices ``first:last`` of this grid, at their positions.

        Examples
        --------
        >>> VolumeGrid((4, 8, 8)).slab(0, 2).z
        1.0
        """
        if not 0 <= first < last <= self.shape[0]:
            raise GeometryError(f"a slab must lie within 0:{self.shape[0]} and not be empty, got {first}:{last}")
        return dataclasses.replace(self.with_slices(last - first), z=self.z + (self.shape[0] - first - last) / 2)


def checked_angles(angles: np.ndarray) -> Float[np.ndarray, " view"]:
    """Return a copy of the angles that cannot be written to.

    Raises
    ------
    GeometryError
        They are not one finite number for each view, or a list of degrees.
    """
    angles = np.array(angles, dtype=np.float64)
    if angles.ndim != 1 or angles.size == 0:
        raise GeometryError(f"angles must be a list with one entry per view, got shape {angles.shape}")
    if not np.isfinite(angles).all():
        raise GeometryError("angles must be finite numbers, got NaN or infinity; correct the list")
    if why := _no_radians(angles):
        raise GeometryError(
            f"angles must be in radians, got {angles.size} from {angles[0]:g} to {angles[-1]:g}, {why}; give "
            "np.deg2rad(angles), or for gon np.deg2rad(0.9 * angles)"
        )
    angles.setflags(write=False)
    return angles


def _no_radians(angles: Float[np.ndarray, " view"]) -> str:
    """Return why angles cannot be radians, or nothing: they are multiples of 0.01, cover 180, 360, 200 or 400, or leap.

    A scan of many turns is a whole number of half ones.
    """
    covered, swept = coverage(angles), float(np.ptp(angles))
    if angles.size < 4 or swept < _TURNS:
        return ""
    steps = np.abs(np.diff(angles))
    step = float(np.median(steps))
    if step > 2 * np.pi:
        return f"which would be {step / (2 * np.pi):.0f} turns from view to view: they are degrees"
    tidy = np.abs(np.round(angles * 100) - angles * 100).max() < 1e-6
    even = np.allclose(steps, step, rtol=0, atol=1e-6 * swept) and step > np.pi / 3  # as golden angles are
    apart = np.abs(np.array([[covered], [swept]]) / [180.0, 360.0, 200.0, 400.0] - 1).min(axis=0)
    halves = np.array([covered, swept]) / np.pi
    whole_turns = np.abs(halves - np.round(halves)).min() < _WHOLE
    near = apart.min() < 1e-6 or (apart.min() < _NEAR and not even and not whole_turns)
    return f"which are {'gon' if apart.argmin() > 1 and near else 'degrees'}" if tidy or near else ""


def checked_detector(n_rows: int, n_cols: int, pixel_size: float | None, rotation_axis: float | None) -> None:
    """Raise unless there are pixels of positive size, and the axis projects onto the detector.

    Raises
    ------
    GeometryError
        One of these conditions is not met.
    """
    if min(n_rows, n_cols) < 1:
        raise GeometryError(f"the detector must have rows and columns, got {n_rows} x {n_cols}")
    for name, value in (("pixel_size", pixel_size), ("rotation_axis", rotation_axis)):
        if not (value is None or isinstance(value, Real)):
            raise GeometryError(f"{name} must be a number, or None if it is not known, got {value!r}; give a number")
    if pixel_size is not None and not 0 < pixel_size < math.inf:
        raise GeometryError(f"pixel_size must be positive (mm), got {pixel_size}; leave it out if it is not known")
    if rotation_axis is not None and not 0 <= rotation_axis <= n_cols - 1:
        raise GeometryError(
            f"rotation_axis must lie on the detector (0 to {n_cols - 1}), got {rotation_axis}; give one of its columns"
        )


def checked_distances(source_axis: float, source_detector: float) -> None:
    """Raise unless the object is between the source and the detector.

    Raises
    ------
    GeometryError
        It is not.
    """
    if not 0 < source_axis <= source_detector < math.inf:
        raise GeometryError(
            "the distances must be positive, and the detector behind the rotation axis, got "
            f"{source_axis} from source to axis and {source_detector} from source to detector"
        )


def coverage(angles: Float[np.ndarray, " view"]) -> float:
    """Return the angular range in radians, including one step for each view.

    Examples
    --------
    >>> coverage(np.array([0.0, 1.0, 2.0]))
    3.0
    """
    ordered = np.sort(angles)
    if ordered.size == 1:
        return 0.0
    return float((ordered[-1] - ordered[0]) * ordered.size / (ordered.size - 1))


def ends_where_it_began(angles: Float[np.ndarray, " view"], period: Literal["half", "full"]) -> bool:
    """Return whether the last view is one `period` after the first (a full turn, or half a turn for mirrored views).

    Examples
    --------
    >>> ends_where_it_began(np.linspace(0, 2 * np.pi, 9), "full")
    True
    """
    if angles.size < 4 or not in_order(angles):
        return False
    step = float(np.median(np.abs(np.diff(angles))))
    swept = abs(float(angles[-1] - angles[0]))
    turns = (math.pi, 2 * math.pi) if period == "half" else (2 * math.pi,)
    return any(abs(swept - whole) < 0.25 * step for whole in turns)


def in_order(angles: Float[np.ndarray, " view"]) -> bool:
    """Return whether the object turned in one direction in small steps, not interlaced or by the golden angle.

    Examples
    --------
    >>> in_order(np.arange(9) * 0.1), in_order(np.array([0.0, 0.2, 0.1, 0.3])), in_order(np.arange(9) * 2.4)
    (True, False, False)
    """
    steps = np.diff(angles)
    one_way = bool((steps >= 0).all() or (steps <= 0).all())
    return one_way and not (angles.size > 8 and np.abs(np.median(steps)) > np.pi / 3)


def step_between(angles: Float[np.ndarray, " view"]) -> float:
    """Return the angle between neighbouring views in radians, regardless of their order in time.

    Examples
    --------
    >>> round(step_between(np.array([0.0, 0.2, 0.4, 0.1, 0.3])), 3)
    0.1
    """
    directions = np.unique(np.mod(angles - angles.min(), 2 * np.pi).round(9))
    return float(np.median(np.diff(directions))) if directions.size > 1 else 0.0


def detector_grid(
    n_rows: int, n_cols: int, region: tuple[int, int, int, int] | None, voxel_size: float | None
) -> VolumeGrid:
    """Return the grid of slices as wide as the detector, or of a region of them.

    Parameters
    ----------
    n_rows, n_cols
        Size of the detector in pixels.
    region
        ``(y0, y1, x0, x1)`` in pixels of the whole slice, end exclusive.
    voxel_size
        Edge of a voxel in mm, if known.

    Raises
    ------
    GeometryError
        The region is empty or outside the slice.
    """
    n = n_cols
    y0, y1, x0, x1 = region if region is not None else (0, n, 0, n)
    if not (0 <= y0 < y1 <= n and 0 <= x0 < x1 <= n):
        raise GeometryError(f"the region must lie within 0:{n} and not be empty, got {y0}:{y1},{x0}:{x1}")
    return VolumeGrid((n_rows, y1 - y0, x1 - x0), ((n - y0 - y1) / 2, (x0 + x1 - n) / 2), voxel_size)


def field_of_view(n_y: int, n_x: int, radius: float, centre: tuple[float, float]) -> Float[np.ndarray, "y x"]:
    """Return 1 for voxels that every view sees, else 0.

    Parameters
    ----------
    n_y, n_x
        Size of the slice or region.
    radius
        Radius of the disc that all views see, in voxels.
    centre
        Centre of the slice relative to the rotation axis, ``(y, x)`` with y up, in voxels.

    Examples
    --------
    >>> field_of_view(3, 3, 1.0, (0.0, 0.0)).tolist()
    [[0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]
    """
    y = centre[0] + (n_y - 1) / 2 - np.arange(n_y)[:, None]
    x = centre[1] - (n_x - 1) / 2 + np.arange(n_x)[None, :]
    return np.asarray(np.hypot(y, x) <= radius, dtype=np.float32)
