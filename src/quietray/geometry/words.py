"""One-line descriptions of beams; representations never print arrays."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from quietray.geometry.grid import in_order, step_between

__all__ = ["Beam", "angles_told", "beam_repr"]


@runtime_checkable
class Beam(Protocol):
    """The attributes that all beams have, and that their description needs."""

    @property
    def angles(self) -> Float[np.ndarray, " view"]:
        """Angles in radians, ``(n_views,)``."""

    @property
    def n_rows(self) -> int:
        """Number of detector rows."""

    @property
    def n_cols(self) -> int:
        """Number of detector columns."""

    @property
    def rotation_axis(self) -> float | None:
        """Column of the rotation axis, if known."""

    @property
    def pixel_size(self) -> float | None:
        """Pixel size in mm, if known."""

    @property
    def coverage(self) -> float:
        """Angular range in radians."""


def angles_told(beam: Beam) -> str:
    """Return the range of the views, their step and their coverage, in degrees.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> angles_told(ParallelBeam(np.linspace(0, np.pi, 8, endpoint=False), 2, 16))
    '0.000 to 157.500 degrees, step 22.5, covering 180.0'
    >>> angles_told(ParallelBeam(np.deg2rad([0, 60, 120, 30, 90, 150]), 2, 16))
    '0.000 to 150.000 degrees, not in order, neighbours 30 apart, covering 180.0'
    """
    degrees = np.rad2deg(beam.angles)
    if degrees.size == 1:
        return f"{degrees[0]:.3f} degrees"
    if not in_order(beam.angles):
        step, covered = (np.rad2deg(angle) for angle in (step_between(beam.angles), beam.coverage))
        turned = f"{degrees.min():.3f} to {degrees.max():.3f} degrees, not in order"
        return f"{turned}, neighbours {step:.4g} apart, covering {covered:.1f}"
    steps = np.diff(degrees)
    typical = float(np.median(steps)) or float(np.rad2deg(step_between(beam.angles)))  # 0 if each is repeated
    even = "" if np.allclose(steps, typical, atol=0.05 * abs(typical)) else " (uneven)"
    covered = np.rad2deg(beam.coverage)
    return f"{degrees[0]:.3f} to {degrees[-1]:.3f} degrees, step {typical:.4g}{even}, covering {covered:.1f}"


def beam_repr(beam: Beam, *more: str) -> str:
    """Return a one-line description of a beam; `more` is added for its kind.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> beam_repr(ParallelBeam(np.zeros(1), 2, 16, pixel_size=0.05), "at rest")
    'ParallelBeam(1 view of 2 x 16 pixels, 0.000 degrees, at rest, axis to be found, pixels of 0.05 mm)'
    """
    views = f"{beam.angles.size} view{'s' * (beam.angles.size != 1)} of {beam.n_rows} x {beam.n_cols} pixels"
    axis = "axis to be found" if beam.rotation_axis is None else f"axis at column {beam.rotation_axis:.2f}"
    size = "pixel size not known" if beam.pixel_size is None else f"pixels of {beam.pixel_size:g} mm"
    return f"{type(beam).__name__}({', '.join((views, angles_told(beam), *more, axis, size))})"
