"""Any of the beams, and how to insist on one of them."""

from __future__ import annotations

import numpy as np

from quietray.errors import GeometryError
from quietray.geometry.cone import ConeBeam
from quietray.geometry.fan import FanBeam
from quietray.geometry.parallel import ParallelBeam

__all__ = ["Geometry", "beam_told", "require_parallel"]

Geometry = ParallelBeam | FanBeam | ConeBeam


def beam_told(geometry: Geometry) -> str:
    """Return the kind of a beam, with the distances of a source.

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


def require_parallel(geometry: Geometry, what: str) -> ParallelBeam:
    """Return the geometry, which must be a parallel beam.

    Parameters
    ----------
    geometry
        Of a scan.
    what
        That needs it, as the start of a sentence.

    Raises
    ------
    GeometryError
        The beam diverges.

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
