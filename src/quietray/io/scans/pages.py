"""TIFF stacks: a multi-page file, a folder, or files that match a pattern."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from quietray.errors import FormatError
from quietray.io.frames import LazyFrames, OnDisk, check_stack
from quietray.io.tiff import TiffFolder, TiffPages, is_tiff, tiff_files

__all__ = ["angles_in_names", "frames_on_disk", "in_file", "in_folder", "places_in_series", "running_numbers"]


def frames_on_disk(place: str, what: str, beside: Path) -> LazyFrames | None:
    """Return flats or darks in a TIFF file, a folder or files that match a pattern; None if nothing exists there.

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
    """Return the TIFF images in a folder as frames, from a single series unless several are allowed."""
    files = tiff_files(folder, pattern)
    if not files:
        raise FormatError(
            f"the folder {folder} must hold TIFF images matching '{pattern}', got none; "
            "give the folder of the radiographs, an HDF5 file or a Zarr folder"
        )
    series = _series(files)
    if len(series) > 1 and not several_series and angles_in_names(files) is None:
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
    """Group names by what precedes their running number."""
    found: dict[str, list[Path]] = {}
    for path in files:
        found.setdefault(re.sub(r"\d+$", "", path.stem), []).append(path)
    return found


def running_numbers(folder: Path, pattern: str) -> Int[np.ndarray, " frame"] | None:
    """Return the running number of every file of a series; None if the names have none.

    Examples
    --------
    >>> running_numbers(Path("nowhere"), "*") is None
    True
    """
    ends = [re.search(r"(\d+)$", path.stem) for path in tiff_files(folder, pattern)]
    if len(ends) < 2 or not all(ends):
        return None
    return np.array([int(end[1]) for end in ends if end])


def angles_in_names(files: Sequence[Path]) -> Float[np.ndarray, " frame"] | None:
    """Return the angles in degrees encoded in names, as at HFIR and SNS: ``..._DEGREES_THOUSANDTHS_NUMBER``.

    Examples
    --------
    >>> angles_in_names([Path("20220825_Ti_000_170_0042.tiff"), Path("20220825_Ti_012_340_0043.tiff")]).tolist()
    [0.17, 12.34]
    >>> angles_in_names([Path("a_001.tif"), Path("a_002.tif")]) is None
    True
    """
    found = [re.search(r"_(\d{3})_(\d{3})_\d+$", path.stem) for path in files]
    if len(found) < 2 or not all(found):
        return None
    degrees = np.array([int(one[1]) + int(one[2]) / 1000 for one in found if one])
    return degrees if np.unique(degrees).size > len(degrees) // 2 else None


def places_in_series(
    numbers: Int[np.ndarray, " view"] | None, n_views: int
) -> tuple[Int[np.ndarray, " view"], list[int]]:
    """Return the position of each view in its series, and the numbers without a file.

    Parameters
    ----------
    numbers
        Running number of every view; None if there are none.
    n_views
        Number of views.

    Examples
    --------
    >>> places, missing = places_in_series(np.array([3, 4, 6]), 3)
    >>> places.tolist(), missing
    ([0, 1, 3], [5])
    """
    whole = np.arange(n_views), list[int]()
    if numbers is None or len(numbers) != n_views or n_views < 3:
        return whole
    steps = np.diff(numbers)
    if (steps < 1).any():
        return whole
    step = int(np.gcd.reduce(steps))
    places = (numbers - numbers[0]) // step
    if places[-1] + 1 > 2 * n_views:
        return whole  # the numbers are something else, such as times
    lacking = np.setdiff1d(np.arange(places[-1] + 1), places)
    return places, [int(numbers[0] + step * place) for place in lacking]
