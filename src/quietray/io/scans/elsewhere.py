"""Flats, darks and angles outside the file of the scan: in other files, or as a number."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from quietray.errors import FormatError
from quietray.io.containers import Container, as_text, open_container, open_frames, require_array
from quietray.io.frames import LazyFrames, OnDisk, check_stack
from quietray.io.scans.angles import AngleList, read_angle_file, unit_of
from quietray.io.scans.pages import frames_on_disk
from quietray.types import Frames

__all__ = ["angles_elsewhere", "frames_elsewhere", "side_elsewhere"]

_KEYS = {"flats": 1, "darks": 2}
_OURS = {"flats": "/exchange/data_white", "darks": "/exchange/data_dark"}
_ANGLES = ("theta", "rotation_angle", "angles", "angle")


def frames_elsewhere(place: str, what: str, beside: Path) -> Frames | float | None:
    """Return flats or darks from `place`, outside the scan; None if it names nothing.

    Parameters
    ----------
    place
        A number (the level of all pixels), an HDF5 or Zarr file with or without ``:/dataset``, TIFF, or npy.
    what
        ``flats`` or ``darks``.
    beside
        Folder of the scan, where relative paths are also looked up.

    Raises
    ------
    FormatError
        The content cannot be frames.

    Examples
    --------
    >>> frames_elsewhere("60000", "flats", Path("."))
    60000.0
    """
    try:
        return float(place)
    except ValueError:
        pass
    if (found := _container(place, beside)) is not None:
        container, name = found
        return open_frames(container, name, f"--{what}") if name else _only_stack(container, what)
    for path in (Path(place), beside / place):
        if path.is_file() and path.suffix.lower() == ".npy":
            stack = OnDisk(np.load, path, "r")
            if len(stack.shape) == 2:
                return np.asarray(np.load(path))[None]
            check_stack(stack, what, str(path))
            return LazyFrames(stack, place=str(path))
    return frames_on_disk(place, what, beside)


def side_elsewhere(flag: str | None, what: str, beside: Path) -> Frames | float | None:
    """Return the flats or darks that a flag names; None if it is not given.

    Raises
    ------
    FormatError
        The flag names nothing that can be read.

    Examples
    --------
    >>> side_elsewhere("100", "darks", Path(".")), side_elsewhere(None, "flats", Path("."))
    (100.0, None)
    """
    found = frames_elsewhere(flag, what, beside) if flag else None
    if flag and found is None:
        raise FormatError(
            f"--{what} must be a TIFF file, a folder of them, a pattern such as 'flat_*.tif', an HDF5 or npy file, or "
            f"a number, got '{flag}'; check the path"
        )
    return found


def angles_elsewhere(place: str, beside: Path) -> AngleList | None:
    """Return the angles in another file (HDF5, optionally with ``:/dataset``, text, csv or npy); None if it is none.

    Raises
    ------
    FormatError
        The file contains no list of angles, or several.
    """
    if (found := _container(place, beside)) is not None:
        container, name = found
        name = name or _only_list(container)
        array = require_array(container, name, "--angles")
        units = container.attributes(name).get("units", container.attributes(name).get("unit"))
        declared = unit_of(as_text(units))
        return AngleList(np.asarray(array[()], np.float64).ravel(), declared, f"{container.path}:/{name.strip('/')}")
    for path in (Path(place), beside / place):
        if path.is_file():
            return read_angle_file(path)
    return None


def _container(place: str, beside: Path) -> tuple[Container, str] | None:
    """Return the HDF5 or Zarr file that a place names, and the dataset in it, if given."""
    for text, name in ((place, ""), (place.rpartition(":")[0], place.rpartition(":")[2])):
        for path in (Path(text), beside / text):
            if text and path.exists() and (container := open_container(path)) is not None:
                return container, name
    return None


def _only_stack(container: Container, what: str) -> Frames:
    """Return the only stack of a file; from a whole scan, its flats or darks."""
    listing = container.listing()
    if _OURS[what] in listing:
        return open_frames(container, _OURS[what], f"--{what}")
    stacks = [name for name, (shape, dtype) in listing.items() if len(shape) == 3 and dtype.kind in "iuf"]
    keyed = [name for name in listing if name.rpartition("/")[2] in ("image_key", "image_key_control")]
    if len(stacks) >= 1 and keyed:
        keys = np.asarray(require_array(container, keyed[0], "image_key")[()]).ravel()
        fitting = [name for name in stacks if listing[name][0][0] == keys.size]
        if fitting and (keys == _KEYS[what]).any():
            return open_frames(container, fitting[0], f"--{what}").pick(np.flatnonzero(keys == _KEYS[what]))
    stacks = stacks or [name for name, (shape, dtype) in listing.items() if len(shape) == 2 and dtype.kind in "iuf"]
    if len(stacks) != 1:
        raise FormatError(
            f"--{what} must name one stack of frames, got {container.path}, which holds "
            f"{', '.join(stacks[:8]) or 'none'}; pass --{what} {container.path}:/DATASET"
        )
    return open_frames(container, stacks[0], f"--{what}")


def _only_list(container: Container) -> str:
    """Return the name of the only list of numbers in a file, or the only one that is named like an angle."""
    listing = container.listing()
    lists = [name for name, (shape, dtype) in listing.items() if len(shape) == 1 and dtype.kind in "iuf"]
    told = [name for name in lists if name.rpartition("/")[2].lower() in _ANGLES]
    chosen = told if len(told) == 1 else lists
    if len(chosen) != 1:
        raise FormatError(
            f"--angles must name one list of angles, got {container.path}, which holds "
            f"{', '.join(lists[:8]) or 'none'}; pass --angles {container.path}:/DATASET"
        )
    return chosen[0]
