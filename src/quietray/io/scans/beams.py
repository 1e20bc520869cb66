"""The beam stored with a scan: nothing for a parallel beam, else a group as described in docs/scan-file.md."""

from __future__ import annotations

from typing import Any, Literal

import h5py
import numpy as np

from quietray.errors import FormatError
from quietray.geometry import FanBeam, Geometry, ParallelBeam
from quietray.io.containers import Container, as_text, length_factor, number
from quietray.io.scans.stated import Distances, FileBeam, Vectors

__all__ = ["pixel_edges", "read_beam", "write_beam"]

_VECTORS = {"source": "sources", "detector": "centres", "u": "us", "v": "vs"}  # names in the file and in ConeBeam


def write_beam(parent: h5py.Group, geometry: Geometry) -> None:
    """Write a diverging beam into its group ``geometry``; for a parallel beam, nothing is written.

    Examples
    --------
    >>> with h5py.File("none.h5", "w", driver="core", backing_store=False) as file:
    ...     write_beam(file, FanBeam(np.zeros(1), 2, 8, 100.0, 150.0, pixel_size=0.3))
    ...     file["geometry"].attrs["beam"], float(file["geometry/source_axis"][()])
    ('fan', 100.0)
    """
    if isinstance(geometry, ParallelBeam):
        return
    group = parent.create_group("geometry")
    values: dict[str, Any]
    if isinstance(geometry, FanBeam):
        group.attrs["beam"], unit = "fan", "mm" if geometry.pixel_size else "pixel"
        values = {name: getattr(geometry, name) for name in ("source_axis", "source_detector")}
    else:
        group.attrs["beam"], unit = "cone", geometry.unit
        values = {name: getattr(geometry, own) for name, own in _VECTORS.items()}
    for name, value in values.items():
        group[name] = value
        group[name].attrs["units"] = unit


def pixel_edges(geometry: Geometry) -> tuple[float | None, float | None]:
    """Return the width and height of a detector pixel in mm; None if unknown."""
    height = geometry.row_height if isinstance(geometry, ParallelBeam) else None
    return geometry.pixel_size, height or geometry.pixel_size


def read_beam(container: Container, group: str = "exchange/geometry") -> FileBeam | None:
    """Return the beam described by a group in our layout, or None for a parallel beam.

    Raises
    ------
    FormatError
        An entry of the group is missing or not a number.
    """
    kind = as_text(container.attributes(group).get("beam")).lower()
    inside = any(container.array(f"{group}/{name}") is not None for name in (*_VECTORS, "source_axis"))
    if kind == "parallel" or not (kind or inside):
        return None
    if kind not in ("fan", "cone"):
        raise FormatError(
            f"{container.path}:/{group} must state beam = parallel, fan or cone, got '{kind}'; correct its attribute"
        )
    if kind == "cone" and any(container.array(f"{group}/{name}") is not None for name in _VECTORS):
        return _vectors(container, group)
    source_axis, source_detector = (_length(container, group, name) for name in ("source_axis", "source_detector"))
    row = number(container, f"{group}/source_row")
    return Distances("fan" if kind == "fan" else "cone", source_axis, source_detector, row)


def _vectors(container: Container, group: str) -> Vectors:
    found: dict[str, np.ndarray] = {}
    units: set[Literal["mm", "pixel"]] = set()
    for name, own in _VECTORS.items():
        place = f"{group}/{name}"
        array = container.array(place)
        if array is None or len(array.shape) != 2 or array.shape[1] != 3 or np.dtype(array.dtype).kind not in "iuf":
            got = "none" if array is None else f"shape {tuple(array.shape)} of {np.dtype(array.dtype)}"
            raise FormatError(
                f"{container.path}:/{place} must hold a vector (x, y, z) for each view, got {got}; "
                "see docs/scan-file.md"
            )
        factor, unit = _unit(container, place)
        found[own], units = np.asarray(array[()], np.float64) * factor, units | {unit}
    if len(units) > 1:
        raise FormatError(f"the vectors in {container.path}:/{group} must be all in mm or all in pixels, got both")
    return Vectors(**found, unit=units.pop())


def _length(container: Container, group: str, name: str) -> float:
    value = number(container, f"{group}/{name}")
    if value is None:
        raise FormatError(
            f"{container.path}:/{group} must hold the number {name}, got none; write it, or the vectors of every view "
            "(docs/scan-file.md)"
        )
    return value * _unit(container, f"{group}/{name}")[0]


def _unit(container: Container, place: str) -> tuple[float, Literal["mm", "pixel"]]:
    """Return the factor to mm or to pixels, and which of the two it is."""
    attributes = container.attributes(place)
    if as_text(attributes.get("units")).lower() in ("pixel", "pixels", "px"):
        return 1.0, "pixel"
    factor = length_factor(container, place)
    if factor is None:
        raise FormatError(
            f"{container.path}:/{place} must have the attribute units = mm (or m, um, pixel), got "
            f"'{as_text(attributes.get('units'))}'; write it"
        )
    return factor, "mm"
