"""Common interface of HDF5 files and Zarr groups, so that one function reads a layout in both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from quietray.errors import FormatError, nearest
from quietray.io.frames import LazyFrames, OnDisk, Rearranged, check_stack
from quietray.io.hdf5 import is_hdf5, open_hdf5
from quietray.io.zarr import is_zarr, open_zarr
from quietray.types import Frames

__all__ = [
    "Container",
    "as_text",
    "energy_kev",
    "length_factor",
    "length_mm",
    "number",
    "open_container",
    "open_frames",
    "require_array",
    "seconds",
]

_MM_PER = {"m": 1e3, "met": 1e3, "cm": 10.0, "cent": 10.0, "mm": 1.0, "mill": 1.0, "um": 1e-3, "micr": 1e-3, "nm": 1e-6}
_KEV_PER = {"": 1.0, "kev": 1.0, "ev": 1e-3, "mev": 1e3, "j": 6.241509074e15}
_SECONDS_PER = {"": 1.0, "s": 1.0, "sec": 1.0, "ms": 1e-3, "mill": 1e-3, "us": 1e-6, "micr": 1e-6, "min": 60.0}


@runtime_checkable
class Container(Protocol):
    """A tree of named arrays in one file or folder."""

    path: Path
    kind: str

    def array(self, name: str) -> Any | None:
        """Return the array called `name` (not yet read), or None."""

    def frames(self, name: str) -> OnDisk:
        """Return the existing array of that name, in a form from which any process can read parts."""

    def attributes(self, name: str) -> Mapping[str, Any]:
        """Return the attributes of an array or group; empty if there is none of that name."""

    def listing(self) -> Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Return shape and dtype of every array, by path, shallowest first."""

    def broken_links(self) -> tuple[str, ...]:
        """Return sentences about broken links."""

    def check_readable(self, name: str) -> None:
        """Raise FormatError if the array cannot be read because of a missing filter or a missing linked file."""


def open_container(path: Path) -> Container | None:
    """Open an HDF5 file or Zarr folder; None for anything else.

    Raises
    ------
    FormatError
        It is one, but it cannot be read.
    """
    if path.is_dir():
        return open_zarr(path) if is_zarr(path) else None
    return open_hdf5(path) if is_hdf5(path) else None


def require_array(container: Container, name: str, flag: str) -> Any:
    """Return the array called `name`, which the user specified with `flag`.

    Raises
    ------
    FormatError
        There is none; the message gives the nearest name.
    """
    found = container.array(name)
    if found is not None:
        return found
    known = list(container.listing())
    relative = [path.lstrip("/") for path in known]
    hint = nearest("/" + name.strip("/"), known) if name.startswith("/") else nearest(name, relative)
    some = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    raise FormatError(
        f"{flag} must name a dataset in {container.path}, got '{name}'{hint}; it holds: {some or 'no datasets'}"
    )


def open_frames(container: Container, name: str, what: str) -> LazyFrames:
    """Return the stack called `name`; a single frame ``(row, col)`` counts as a stack of one.

    Raises
    ------
    FormatError
        There is no such stack, or it cannot be read.
    """
    array = require_array(container, name, what)
    place = f"{container.path}:/{name.strip('/')}"
    single = len(array.shape) == 2 and what != "data" and np.dtype(array.dtype).kind in "iuf"
    frame = np.asarray(array[()])[None] if single else None
    del array  # a dataset that stays open would keep its present chunk cache
    stack: Frames = container.frames(name) if frame is None else frame
    if len(stack.shape) == 4 and 1 in stack.shape[1:]:  # for example (frame, 1, row, col)
        lone = 1 + tuple(stack.shape[1:]).index(1)
        first, second, third = (axis for axis in range(4) if axis != lone)
        stack = Rearranged(stack, (first, second, third))
    check_stack(stack, "projections" if what == "data" else what, place)
    container.check_readable(name)
    return LazyFrames(stack, place=place)


def as_text(value: Any) -> str:
    """Return a string attribute or scalar dataset as text; an empty string for anything else.

    Examples
    --------
    >>> as_text(b"mm"), as_text(np.array(["deg"])), as_text(3)
    ('mm', 'deg', '')
    """
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    return value.strip() if isinstance(value, str) else ""


def number(container: Container, name: str) -> float | None:
    """Return the median of a numeric array (a single number, or one per frame), or None."""
    array = container.array(name)
    if array is None or np.dtype(array.dtype).kind not in "iuf" or len(array.shape) > 1:
        return None
    values = np.asarray(array[()], dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else None


def energy_kev(container: Container, name: str) -> float | None:
    """Return the photon energy in keV, which NeXus and DXchange assume if no unit is given."""
    value, factor = number(container, name), _factor(container, name, _KEV_PER)
    return value * factor if value and factor and value > 0 else None


def seconds(container: Container, name: str) -> float | None:
    """Return a duration in seconds, which NeXus and DXchange assume if no unit is given."""
    value, factor = number(container, name), _factor(container, name, _SECONDS_PER)
    return value * factor if value and factor and value > 0 else None


def length_mm(container: Container, name: str) -> tuple[float | None, str | None]:
    """Return a length in mm, and a sentence for the user if the file gives no unit."""
    value = number(container, name)
    if value is None or not value > 0:
        return None, None
    factor = _factor(container, name, _MM_PER)
    if factor is None:
        return None, (
            f"The file gives {value:g} for /{name.strip('/')} without a unit of length; it was not used. "
            "Pass --pixel-size in mm if the attenuation should be in 1/mm."
        )
    return value * factor, None


def length_factor(container: Container, name: str) -> float | None:
    """Return the unit of an array in mm, or None if it is not a length."""
    return _factor(container, name, _MM_PER)


def _factor(container: Container, name: str, table: Mapping[str, float]) -> float | None:
    attributes = container.attributes(name)
    word = as_text(attributes.get("units", attributes.get("unit", ""))).lower().replace("\u00b5", "u")
    word = word.replace("\u03bc", "u")
    if word in table:
        return table[word]
    matches = [factor for stem, factor in table.items() if len(stem) > 2 and word.startswith(stem)]
    return matches[0] if matches else None
