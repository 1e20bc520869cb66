"""DICOM-CT-PD: geometry in the private tags of CT projections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from quietray.errors import FormatError

__all__ = ["is_projection", "projection_facts"]

# Name, tag, type of a value, as in Moen et al. (2021), doi:10.1002/mp.14594, table IV.
_OF_SERIES: tuple[tuple[str, int, str], ...] = (
    ("detector_rows", 0x70291010, "<u2"),
    ("detector_columns", 0x70291011, "<u2"),
    ("column_width_mm", 0x70291002, "<f4"),
    ("row_height_mm", 0x70291006, "<f4"),
    ("detector_shape", 0x7029100B, "text"),
    ("source_to_detector_mm", 0x70311031, "<f4"),
    ("central_element", 0x70311033, "<f4"),
    ("flying_focal_spot", 0x7033100E, "text"),
    ("views_per_turn", 0x70331013, "<u2"),
    ("scan", 0x70371009, "text"),
    ("beam", 0x7037100A, "text"),
)
_OF_VIEW: tuple[tuple[str, int, str], ...] = (
    ("angles_rad", 0x70311001, "<f4"),
    ("axial_mm", 0x70311002, "<f4"),
    ("source_to_centre_mm", 0x70311003, "<f4"),
    ("angular_shift_rad", 0x7033100B, "<f4"),
    ("axial_shift_mm", 0x7033100C, "<f4"),
    ("radial_shift_mm", 0x7033100D, "<f4"),
)
_ANGLE = 0x70311001


def is_projection(header: Any) -> bool:
    """Return whether a DICOM header belongs to a projection."""
    return _ANGLE in header


def projection_facts(headers: Sequence[Any]) -> dict[str, Any]:
    """Return the geometry of a series of projections, ready for JSON.

    Parameters
    ----------
    headers
        Headers of all views, in order.

    Returns
    -------
    dict
        Common values by name, and values that differ between views as a list with one number per view.  Angles are the
        azimuth of the focal centre of the detector; shifts are those of a flying focal spot relative to it.

    Raises
    ------
    FormatError
        A tag has another type, or is missing in some of the views.
    """
    facts: dict[str, Any] = {}
    for name, tag, kind in _OF_SERIES:
        if tag in headers[0]:
            found = _values(headers[0], tag, kind)
            facts[name] = found[0] if len(found) == 1 else found
    for name, tag, kind in _OF_VIEW:
        there = [header for header in headers if tag in header]
        if there and len(there) < len(headers):
            raise FormatError(
                f"every projection must state its {name.replace('_', ' ')} (tag {tag >> 16:04X},{tag & 0xFFFF:04X}), "
                f"got {len(there)} of {len(headers)} that do; copy the projections again"
            )
        if there:
            facts[name] = [_values(header, tag, kind)[0] for header in headers]
    angles = np.unwrap(facts["angles_rad"])
    return {**facts, "turns": round(float(abs(angles[-1] - angles[0])) / (2 * np.pi), 4)}


def _values(header: Any, tag: int, kind: str) -> list[Any]:
    """Return the values of a private tag; if its type is unknown, they are decoded from its bytes."""
    found = header[tag].value
    try:
        if kind == "text":
            return [(found.decode("ascii") if isinstance(found, bytes) else str(found)).strip(" \0")]
        if isinstance(found, bytes):
            numbers = np.frombuffer(found, kind).tolist()
        else:
            numbers = [float(one) for one in (found if np.iterable(found) else [found])]
        if not numbers or not np.isfinite(numbers).all():
            raise ValueError("no number")
    except (ValueError, TypeError) as error:
        raise FormatError(
            f"the tag {tag >> 16:04X},{tag & 0xFFFF:04X} of a projection must be as in DICOM-CT-PD, got {found!r}: "
            f"{error}; convert the projections again"
        ) from error
    return [int(one) for one in numbers] if kind == "<u2" else [float(one) for one in numbers]
