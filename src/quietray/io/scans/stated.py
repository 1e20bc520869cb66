"""Diverging beams as stated in a file; together with angles and detector they define a geometry."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from quietray.errors import GeometryError
from quietray.geometry import ConeBeam, FanBeam, Geometry

__all__ = ["Distances", "FileBeam", "Vectors", "is_parallel"]

_PARALLEL = 1.0  # largest deviation, in pixels, of rays at the edge of the detector on their way through the object


def is_parallel(pixel: float, source_detector: float, n_cols: int) -> bool:
    """Return whether rays are parallel to within a pixel because the source is far away, as at a synchrotron.

    Examples
    --------
    >>> is_parallel(0.005, 50_000.0, 2000), is_parallel(0.1, 500.0, 2000)
    (True, False)
    """
    return n_cols / 2 * pixel / source_detector * n_cols < _PARALLEL


@dataclass(frozen=True, eq=False)
class Distances:
    """Distances of a circular source and detector path, as stated in a file.

    Parameters
    ----------
    kind
        ``fan`` or ``cone``.
    source_axis, source_detector
        Distances in mm, or in detector pixels if their size is unknown.
    source_row
        Row at the height of the source; None for the middle.
    shifts
        Rows and columns by which each view of a cone beam must be moved down and to the right to correspond to a
        circular path, ``(view, 2)``; None for none.

    Examples
    --------
    >>> Distances("fan", 100.0, 150.0).beam(np.zeros(1), 2, 8, None, 0.3).magnification
    1.5
    """

    kind: Literal["fan", "cone"]
    source_axis: float
    source_detector: float
    source_row: float | None = None
    shifts: Float[np.ndarray, "view 2"] | None = None

    def beam(
        self,
        angles: Float[np.ndarray, " view"],
        n_rows: int,
        n_cols: int,
        rotation_axis: float | None,
        pixel_size: float | None,
    ) -> Geometry:
        """Return the geometry of the views.

        Raises
        ------
        GeometryError
            The distances are impossible.
        """
        lengths = (self.source_axis, self.source_detector)
        if self.kind == "fan":
            return FanBeam(angles, n_rows, n_cols, *lengths, rotation_axis, pixel_size)
        beam = ConeBeam.circular(angles, n_rows, n_cols, *lengths, pixel_size, rotation_axis, self.source_row)
        if self.shifts is None:
            return beam
        down, right = self.shifts[:, :1], self.shifts[:, 1:]
        return dataclasses.replace(beam, centres=beam.centres + down * beam.vs + right * beam.us)


@dataclass(frozen=True, eq=False)
class Vectors:
    """Source and detector of every view, as stated in a file.

    Parameters
    ----------
    sources, centres, us, vs
        See :class:`~quietray.geometry.ConeBeam`.
    unit
        ``mm`` or ``pixel``.
    """

    sources: Float[np.ndarray, "_ _"]
    centres: Float[np.ndarray, "_ _"]
    us: Float[np.ndarray, "_ _"]
    vs: Float[np.ndarray, "_ _"]
    unit: Literal["mm", "pixel"]

    def beam(
        self,
        angles: Float[np.ndarray, " view"],
        n_rows: int,
        n_cols: int,
        rotation_axis: float | None,
        pixel_size: float | None,
    ) -> Geometry:
        """Return the geometry of the views; the vectors define the pixel size.

        Raises
        ------
        GeometryError
            The vectors do not define a detector, or are not given for each view.
        """
        beam = ConeBeam(angles, n_rows, n_cols, self.sources, self.centres, self.us, self.vs, self.unit)
        if pixel_size is not None and beam.pixel_size is not None and abs(pixel_size / beam.pixel_size - 1) > 1e-3:
            raise GeometryError(
                f"the pixel size must be that of the vectors in the file, {beam.pixel_size:g} mm, got {pixel_size:g}; "
                "leave it out, or correct the vectors"
            )
        return beam if rotation_axis is None else beam.with_axis(rotation_axis)


FileBeam = Distances | Vectors
