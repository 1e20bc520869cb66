"""Any of the beams, and how to insist on one of them."""

from __future__ import annotations

from quietray.errors import GeometryError
from quietray.geometry.cone import ConeBeam
from quietray.geometry.fan import FanBeam
from quietray.geometry.parallel import ParallelBeam

__all__ = ["Geometry", "require_parallel"]

Geometry = ParallelBeam | FanBeam | ConeBeam


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
    >>> import numpy as np
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
