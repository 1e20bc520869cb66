"""TIFF on disk as stacks of frames: a multi-page file, a folder, or files that match a pattern."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from quietray.errors import FormatError
from quietray.io.frames import LazyFrames, OnDisk, check_stack
from quietray.io.tiff import TiffFolder, TiffPages, is_tiff, tiff_files

__all__ = ["frames_on_disk", "in_file", "in_folder", "running_numbers"]


def frames_on_disk(place: str, what: str, beside: Path) -> LazyFrames | None:
    """Return flats or darks in a TIFF file, a folder or files that match a pattern; None when nothing is there.

    Parameters
    ----------
    place
        A path, absolute or relative to the working folder or to `beside`; its last part may be a pattern.
    what
        ``flats`` or ``darks``, for messages.
    beside
        The folder of the scan.
    """
    for path in (Path(place), beside / place):
        if path.is_dir() and tiff_files(path):
            return in_folder(path, "*", several_series=True)
        if path.is_file() and is_tiff(path):
            return in_file(path, what)
        if glob.has_magic(path.name) and (files := tiff_files(path.parent, path.name)):
            return _from_files(files)
    return None


def in_file(path: Path, what: str) -> LazyFrames:
    """Return the pages of a TIFF file as frames."""
    pages = OnDisk(TiffPages, path)
    check_stack(pages, what, str(path))
    return LazyFrames(pages, place=str(path))


def in_folder(folder: Path, pattern: str, several_series: bool = False) -> LazyFrames:
    """Return the TIFF images in a folder as frames; of one series, if not of several."""
    files = tiff_files(folder, pattern)
    if not files:
        raise FormatError(
            f"the folder {folder} must hold TIFF images matching '{pattern}', got none; "
            "give the folder of the radiographs, an HDF5 file or a Zarr folder"
        )
    series = _series(files)
    if len(series) > 1 and not several_series:
        kinds = ", ".join(f"{len(members)} x {name}*" for name, members in list(series.items())[:6])
        raise FormatError(
            f"the folder {folder} must hold one series of radiographs, got {kinds}; "
            "pick with --data 'PATTERN*', and pass the others with --flats and --darks"
        )
    return _from_files(files)


def _from_files(files: list[Path]) -> LazyFrames:
    if len(files) == 1:
        return in_file(files[0], "frames")
    return LazyFrames(TiffFolder(files), place=str(files[0].parent))


def _series(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Sort names by what stands before their running number."""
    found: dict[str, list[Path]] = {}
    for path in files:
        found.setdefault(re.sub(r"\d+$", "", path.stem), []).append(path)
    return found


def running_numbers(folder: Path, pattern: str) -> Int[np.ndarray, " frame"] | None:
    """Return the running number of every file of a series, None where the names hold none.

    Examples
    --------
    >>> running_numbers(Path("nowhere"), "*") is None
    True
    """
    ends = [re.search(r"(\d+)$", path.stem) for path in tiff_files(folder, pattern)]
    if len(ends) < 2 or not all(ends):
        return None
    return np.array([int(end[1]) for end in ends if end])
