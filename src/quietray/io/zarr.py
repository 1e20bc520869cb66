"""Zarr folders (version 2 or 3) as containers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError
from quietray.io.frames import OnDisk

__all__ = ["ZarrContainer", "is_zarr", "open_array", "open_zarr"]


def is_zarr(path: Path) -> bool:
    """Return whether a folder contains metadata of a Zarr array or group."""
    return path.is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def open_zarr(path: Path) -> ZarrContainer:
    """Open a Zarr folder for reading.

    Raises
    ------
    FormatError
        The metadata is damaged or of an unknown version.
    """
    import zarr

    try:
        return ZarrContainer(path, zarr.open(str(path), mode="r"))
    except Exception as error:  # zarr raises KeyError, ValueError, JSONDecodeError and its own exceptions
        raise FormatError(
            f"{path} must be a Zarr array or group of version 2 or 3, got: {type(error).__name__}: {error}; "
            "copy the whole folder again"
        ) from error


def open_array(path: Path, name: str) -> Any:
    """Open one array of a Zarr folder.

    Raises
    ------
    FormatError
        There is no such array.
    """
    found = open_zarr(path).array(name)
    if found is None:
        raise FormatError(f"{path} must hold the array '{name}', got none of that name; copy the whole folder again")
    return found


class ZarrContainer:
    """An open Zarr group; an array at the root is called ``/``.

    Parameters
    ----------
    path
        Path of the folder.
    root
        The group or array in it.
    """

    kind = "Zarr"

    def __init__(self, path: Path, root: Any) -> None:
        self.path = path
        self.root = root

    def array(self, name: str) -> Any | None:
        """Return the array called `name`, or None."""
        found = self._get(name)
        return found if hasattr(found, "shape") else None

    def frames(self, name: str) -> OnDisk:
        """Return the existing array of that name, in a form from which any process can read parts."""
        return OnDisk(open_array, self.path, name)

    def attributes(self, name: str) -> Mapping[str, Any]:
        """Return the attributes of an array or group."""
        found = self._get(name)
        return {} if found is None else found.attrs.asdict()

    def listing(self) -> Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Return shape and dtype of every array, by path, shallowest first."""
        return self._arrays

    def broken_links(self) -> tuple[str, ...]:
        """Return nothing: Zarr has no links."""
        return ()

    def check_readable(self, name: str) -> None:
        """Do nothing: Zarr reports a missing codec when the array is opened."""

    def _get(self, name: str) -> Any:
        inner = name.strip("/")
        if not inner:
            return self.root
        if hasattr(self.root, "shape"):
            return None
        try:
            return self.root[inner]
        except (KeyError, ValueError):
            return None

    @cached_property
    def _arrays(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        if hasattr(self.root, "shape"):
            return {"/": (self.root.shape, np.dtype(self.root.dtype))}
        members = [(path, entry) for path, entry in self.root.members(max_depth=None) if hasattr(entry, "shape")]
        members.sort(key=lambda member: (member[0].count("/"), member[0]))
        return {f"/{path}": (entry.shape, np.dtype(entry.dtype)) for path, entry in members}
