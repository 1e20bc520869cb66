"""Where the rays go: frozen values that you slice.

``geometry[1::4]`` holds every fourth view with *its own* angles, which is all that the Noise2Inverse split needs.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from quietray.errors import GeometryError

__all__ = ["ParallelBeam", "VolumeGrid"]


@dataclass(frozen=True)
class VolumeGrid:
    """A grid of voxels ``(z, y, x)``; row 0 of a slice is its largest y.

    Parameters
    ----------
    shape
        ``(n_z, n_y, n_x)`` in voxels.
    centre
        ``(y, x)`` position of the middle of a slice relative to the rotation axis, in voxels; y points up.
    voxel_size
        Edge of a voxel in mm, or None when the pixel size is unknown.

    Examples
    --------
    >>> VolumeGrid((2, 64, 64)).n_pixels
    4096
    """

    shape: tuple[int, int, int]
    centre: tuple[float, float] = (0.0, 0.0)
    voxel_size: float | None = None

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise GeometryError(f"the volume grid must have three positive sizes (z, y, x), got {self.shape}")

    @property
    def n_pixels(self) -> int:
        """Pixels in one slice."""
        return self.shape[1] * self.shape[2]

    @property
    def unit(self) -> str:
        """Unit of the attenuation on this grid."""
        return "1/mm" if self.voxel_size else "1/pixel"

    def with_slices(self, n_z: int) -> VolumeGrid:
        """Return the same grid with `n_z` slices."""
        return dataclasses.replace(self, shape=(n_z, *self.shape[1:]))


@dataclass(frozen=True, eq=False)
class ParallelBeam:
    """A parallel-beam scan around a vertical axis.

    Parameters
    ----------
    angles
        ``(n_views,)`` in radians.
    n_rows, n_cols
        Detector size in pixels.
    rotation_axis
        Column (0-based, pixel centres at integers) that the rotation axis projects to; None until it is known, then
        the middle of the detector is assumed.
    pixel_size
        Edge of a detector pixel in mm, at the object; None when unknown.

    Examples
    --------
    >>> beam = ParallelBeam(np.linspace(0, np.pi, 8, endpoint=False), n_rows=2, n_cols=16)
    >>> len(beam[1::4].angles), beam.axis
    (2, 7.5)
    """

    angles: Float[np.ndarray, " view"]
    n_rows: int
    n_cols: int
    rotation_axis: float | None = None
    pixel_size: float | None = None

    def __post_init__(self) -> None:
        angles = np.array(self.angles, dtype=np.float64)
        if angles.ndim != 1 or angles.size == 0:
            raise GeometryError(f"angles must be a list with one entry per view, got shape {angles.shape}")
        if not np.isfinite(angles).all():
            raise GeometryError("angles must be finite numbers, got NaN or infinity; mend the angle list")
        if min(self.n_rows, self.n_cols) < 1:
            raise GeometryError(f"the detector must have rows and columns, got {self.n_rows} x {self.n_cols}")
        if self.pixel_size is not None and not self.pixel_size > 0:
            raise GeometryError(f"pixel_size must be positive (mm), got {self.pixel_size}")
        if self.rotation_axis is not None and not 0 <= self.rotation_axis <= self.n_cols - 1:
            raise GeometryError(
                f"rotation_axis must lie on the detector (0 to {self.n_cols - 1}), got {self.rotation_axis}"
            )
        angles.setflags(write=False)
        object.__setattr__(self, "angles", angles)

    def __getitem__(self, views: slice | np.ndarray) -> ParallelBeam:
        return dataclasses.replace(self, angles=self.angles[views])

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ParallelBeam)
            and np.array_equal(self.angles, other.angles)
            and all(
                getattr(self, name) == getattr(other, name)
                for name in ("n_rows", "n_cols", "rotation_axis", "pixel_size")
            )
        )

    @property
    def n_views(self) -> int:
        """Number of views."""
        return int(self.angles.size)

    @property
    def axis(self) -> float:
        """Column of the rotation axis; the middle of the detector while it is unknown."""
        return (self.n_cols - 1) / 2 if self.rotation_axis is None else self.rotation_axis

    @property
    def coverage(self) -> float:
        """Angle swept, in radians, each view standing for one step of its own."""
        ordered = np.sort(self.angles)
        if ordered.size == 1:
            return 0.0
        return float((ordered[-1] - ordered[0]) * ordered.size / (ordered.size - 1))

    @property
    def turns(self) -> int:
        """1 for a 180 degree scan, 2 for a full turn (0 when the scan covers less than about 170 degrees)."""
        return math.floor(self.coverage / math.pi + 0.06)

    @property
    def repeated_last_view(self) -> bool:
        """Whether the last view repeats the first one (a full turn later) or mirrors it (half a turn later)."""
        if self.n_views < 4:
            return False
        step = float(np.median(np.abs(np.diff(self.angles))))
        swept = abs(float(self.angles[-1] - self.angles[0]))
        return any(abs(swept - whole) < 0.25 * step for whole in (math.pi, 2 * math.pi))

    def rows(self, n_rows: int) -> ParallelBeam:
        """Return the same beam on a band of `n_rows` detector rows."""
        return dataclasses.replace(self, n_rows=n_rows)

    def with_axis(self, rotation_axis: float) -> ParallelBeam:
        """Return the same beam with its rotation axis at column `rotation_axis`."""
        return dataclasses.replace(self, rotation_axis=float(rotation_axis))

    def grid(self, region: tuple[int, int, int, int] | None = None) -> VolumeGrid:
        """Return the grid of detector-sized slices, or of a region of them.

        Parameters
        ----------
        region
            ``(y0, y1, x0, x1)`` in pixels of the whole slice, half open.

        Raises
        ------
        GeometryError
            The region is empty or leaves the slice.
        """
        n = self.n_cols
        y0, y1, x0, x1 = region if region is not None else (0, n, 0, n)
        if not (0 <= y0 < y1 <= n and 0 <= x0 < x1 <= n):
            raise GeometryError(f"the region must lie within 0:{n} and not be empty, got {y0}:{y1},{x0}:{x1}")
        centre = ((n - y0 - y1) / 2, (x0 + x1 - n) / 2)
        return VolumeGrid((self.n_rows, y1 - y0, x1 - x0), centre, self.pixel_size)
