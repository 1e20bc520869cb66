"""Union of all beams, and checks for a particular kind."""

from __future__ import annotations

import numpy as np

from quietray.errors import GeometryError
from quietray.geometry.cone import ConeBeam
from quietray.geometry.fan import FanBeam
from quietray.geometry.grid import coverage
from quietray.geometry.parallel import ParallelBeam

__all__ = ["Geometry", "beam_told", "field_told", "require_parallel"]

Geometry = ParallelBeam | FanBeam | ConeBeam


def beam_told(geometry: Geometry) -> str:
    """Return the kind of a beam, with the distances of the source.

    Examples
    --------
    >>> beam_told(FanBeam(np.zeros(1), 1, 8, 100.0, 150.0))
    'fan, from the source 100 pixels to the axis and 150 to the detector, magnified 1.5 times'
    """
    if isinstance(geometry, ParallelBeam):
        return "parallel"
    if isinstance(geometry, FanBeam):
        kind, unit = "fan", "mm" if geometry.pixel_size else "pixels"
        to_axis, to_detector = geometry.source_axis, geometry.source_detector
    else:
        kind, unit = "cone", "mm" if geometry.unit == "mm" else "pixels"
        to_axis, to_detector = geometry.reach.mean(axis=0).tolist()
    said = f"{kind}, from the source {to_axis:.6g} {unit} to the axis and {to_detector:.6g} to the detector, magnified "
    said += f"{geometry.magnification:.4g} times"
    still = isinstance(geometry, ConeBeam) and not geometry.turning
    return f"{said}, from {len(np.unique(geometry.angles.round(6)))} fixed directions" if still else said


def field_told(geometry: Geometry) -> str:
    """Return a description of how much of the object each view sees.

    Examples
    --------
    >>> field_told(ParallelBeam(np.linspace(0, 2 * np.pi, 8, endpoint=False), 1, 16, rotation_axis=3.0))
    'half, slices of 25 x 25 (a full turn around an axis near an edge)'
    """
    full = coverage(geometry.angles) > 1.94 * np.pi
    if geometry.half and not full:
        return "half, as stated, but the views make no full turn: give --angles 0:360, or --half no"
    if geometry.rotation_axis is None and not (isinstance(geometry, ParallelBeam) and geometry.half is None):
        return "half, as stated" if geometry.half else "full, as stated" if geometry.half is False else "full"
    if geometry.rotation_axis is None:
        return "full, or half if the axis is near an edge" if full else "full"
    beam = geometry.settled()
    why = "as stated" if geometry.half is not None else "a full turn around an axis near an edge"
    return f"half, slices of {beam.across} x {beam.across} ({why})" if beam.half else "full"


def require_parallel(geometry: Geometry, what: str) -> ParallelBeam:
    """Return the geometry if it is a parallel beam, else raise.

    Parameters
    ----------
    geometry
        Beam of a scan.
    what
        Name of the operation that needs it, as the start of the error message.

    Raises
    ------
    GeometryError
        The beam is not parallel.

    Examples
    --------
    >>> require_parallel(FanBeam(np.zeros(1), 1, 8, 100.0, 150.0), "finding the rotation axis")
    Traceback (most recent call last):
    quietray.errors.GeometryError: finding the rotation axis must have a parallel beam, got a fan beam; denoise the
    radiographs (noise2self) and reconstruct this scan with fbp, sirt, cgls or tv
    """
    if isinstance(geometry, ParallelBeam):
        return geometry
    kind, direct = ("fan", "fbp") if isinstance(geometry, FanBeam) else ("cone", "fdk")
    raise GeometryError(
        f"{what} must have a parallel beam, got a {kind} beam; denoise the radiographs (noise2self) and reconstruct "
        f"this scan with {direct}, sirt, cgls or tv"
    )
