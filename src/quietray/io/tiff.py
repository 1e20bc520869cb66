"""TIFF: multi-page stacks and folders of frames, read where they lie."""

from __future__ import annotations

import glob
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError, GeometryError
from quietray.io.angles import AngleList, angle_range, read_angle_file
from quietray.io.frames import LazyFrames
from quietray.io.raw import Flags, RawScan, check_stack

__all__ = [
    "TiffFolder",
    "TiffPages",
    "frames_on_disk",
    "is_tiff",
    "natural_key",
    "read_tiff",
    "series_folders",
    "tiff_files",
]

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_tiff(path: Path) -> bool:
    """Return whether a file starts like a TIFF."""
    try:
        with path.open("rb") as stream:
            return stream.read(4) in _MAGIC
    except OSError:
        return False


def natural_key(path: Path) -> list[tuple[int, str]]:
    """Return a sorting key that puts ``frame_2`` before ``frame_10``.

    Examples
    --------
    >>> [path.name for path in sorted([Path("f10"), Path("f9")], key=natural_key)]
    ['f9', 'f10']
    """
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), part) if part.isdigit() else (-1, part) for part in parts]


def tiff_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the TIFF files in a folder in natural order; each kind of name is judged by the content of one file."""
    by_suffix: dict[str, list[Path]] = {}
    for name in glob.glob(pattern, root_dir=folder):
        path = folder / name
        if not name.startswith(".") and path.is_file():
            by_suffix.setdefault(path.suffix.lower(), []).append(path)
    chosen = [path for paths in by_suffix.values() if is_tiff(min(paths, key=natural_key)) for path in paths]
    return sorted(chosen, key=natural_key)


def series_folders(path: Path) -> list[Path]:
    """Return the folders of the steps or channels of a series, each with its slices; none where it is no series."""
    if not path.is_dir() or tiff_files(path):
        return []
    found = [folder for kind in ("step", "channel") for folder in path.glob(f"{kind}_[0-9]*") if tiff_files(folder)]
    return sorted(found, key=natural_key)


def read_tiff(path: Path, flags: Flags) -> RawScan:
    """Read a folder of TIFF frames or a multi-page TIFF; flats, darks and angles come from the flags.

    Raises
    ------
    FormatError, GeometryError
        A part is missing or does not fit.
    """
    if flags.image_key:
        raise FormatError("--image-key must be left out for TIFF, which has no datasets; pass --flats and --darks")
    projections = _folder(path, flags.data or "*") if path.is_dir() else _file(path, "projections")
    check_stack(projections, "projections", str(path))
    angles = _angles(path, flags.angles, len(projections))
    sides = {}
    for what, flag in (("flats", flags.flats), ("darks", flags.darks)):
        sides[what] = frames_on_disk(flag, what, path if path.is_dir() else path.parent) if flag else None
        if flag and sides[what] is None:
            raise FormatError(
                f"--{what} must be a TIFF file, a folder of them, or a pattern such as 'flat_*.tif', got '{flag}'; "
                "check the path"
            )
    return RawScan(
        projections,
        angles.radians(flags.angle_unit),
        flats=sides["flats"],
        darks=sides["darks"],
        provenance={
            "format": "TIFF folder" if path.is_dir() else "TIFF stack",
            "data": str(path),
            "angles": angles.place,
        },
    )


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
            return _folder(path, "*", several_series=True)
        if path.is_file() and is_tiff(path):
            return _file(path, what)
        if glob.has_magic(path.name) and (files := tiff_files(path.parent, path.name)):
            return _from_files(files)
    return None


def _angles(path: Path, flag: str | None, n_views: int) -> AngleList:
    if not flag:
        raise GeometryError(
            f"the scan {path} must come with one angle for each of its {n_views} views, TIFF holds none; "
            "pass --angles 0:180 (or 0:360) for evenly spaced views, or a text file in degrees"
        )
    spread = angle_range(flag, n_views)
    return spread or read_angle_file(Path(flag)).for_frames(np.arange(n_views), n_views)


def _file(path: Path, what: str) -> LazyFrames:
    pages = TiffPages(path)
    check_stack(pages, what, str(path))
    return LazyFrames(pages, place=str(path))


def _folder(folder: Path, pattern: str, several_series: bool = False) -> LazyFrames:
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
        return _file(files[0], "frames")
    return LazyFrames(TiffFolder(files), place=str(files[0].parent))


def _series(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Sort names by what stands before their running number."""
    found: dict[str, list[Path]] = {}
    for path in files:
        found.setdefault(re.sub(r"\d+$", "", path.stem), []).append(path)
    return found


def _open_page(path: Path, page: int = 0) -> np.ndarray:
    """Return one page, memory-mapped when its pixels lie in the file as they are."""
    import tifffile

    try:
        return tifffile.memmap(path, page=page, mode="r")
    except ValueError:  # compressed, tiled or in strips apart
        pass
    except Exception as error:
        raise _damaged(path, error) from error
    try:
        return np.asarray(tifffile.imread(path, key=page))
    except Exception as error:  # tifffile and its codecs raise many kinds
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> FormatError:
    return FormatError(
        f"{path} must be a readable TIFF image, got: {type(error).__name__}: {error}; "
        "it may be truncated: copy it again from where it was measured"
    )


class TiffFolder:
    """One frame per file.

    Parameters
    ----------
    files
        In the order of the views.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = list(files)
        first = _open_page(self._files[0])
        self._frame_shape, self._dtype = first.shape, first.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_frames, n_rows, n_cols)``."""
        return (len(self._files), *self._frame_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one pixel."""
        return np.dtype(self._dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, int):
            return self._frame(first, tuple(rest))
        numbers = range(*first.indices(len(self._files)))
        if not numbers:
            return np.empty((0, *self._frame_shape), self._dtype)[(slice(None), *rest)]
        return np.stack([self._frame(number, tuple(rest)) for number in numbers])

    def _frame(self, number: int, rest: tuple[Any, ...]) -> np.ndarray:
        path = self._files[number]
        frame = _open_page(path)
        if frame.shape != self._frame_shape:
            raise FormatError(
                f"all frames of a scan must have one size, got {frame.shape} in {path} and {self._frame_shape} in "
                f"{self._files[0].name}; remove the files that do not belong to the scan"
            )
        return np.array(frame[rest])


class TiffPages:
    """The pages of one TIFF file, memory-mapped when they lie in one piece, else read page by page.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        import tifffile

        self._path = path
        self._mapped: np.ndarray | None = None
        self._lock = threading.Lock()
        try:
            self._file = tifffile.TiffFile(path)
            series = self._file.series[0]
            self._dtype = np.dtype(series.dtype)
            self._pages = _pages_alike(self._file)
            self._check_size(series)
            if series.dataoffset is not None and len(self._pages) == len(series.pages):
                self._mapped = tifffile.memmap(path, mode="r")
                self._file.close()
        except FormatError:
            raise
        except Exception as error:  # tifffile raises many kinds for damaged files
            raise _damaged(path, error) from error
        self._shape = tuple(int(size) for size in series.shape)
        if len(self._shape) == 2:
            self._shape = (1 if self._mapped is not None else len(self._pages), *self._shape)
        if len(self._shape) != 3 or series.axes.endswith("S"):
            raise FormatError(
                f"{path} must be a stack of grey frames (frame, row, col), got axes {series.axes} of shape "
                f"{series.shape}; convert it to grey"
            )
        if self._mapped is not None:
            self._mapped = self._mapped.reshape(self._shape)

    def _check_size(self, series: Any) -> None:
        needed = series.dataoffset + series.nbytes if series.dataoffset is not None else 0
        if os.path.getsize(self._path) < needed:
            raise FormatError(
                f"{self._path} must be a whole TIFF stack, got {os.path.getsize(self._path)} of {needed} bytes; "
                "it is truncated: copy it again from where it was measured"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_frames, n_rows, n_cols)``."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one pixel."""
        return self._dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if self._mapped is not None:
            return np.array(self._mapped[(first, *rest)])
        if isinstance(first, int):
            return np.asarray(self._page(first)[tuple(rest)])
        numbers = range(*first.indices(self._shape[0]))
        if not numbers:
            return np.empty((0, *self._shape[1:]), self._dtype)[(slice(None), *rest)]
        return np.stack([self._page(number)[tuple(rest)] for number in numbers])

    def _page(self, number: int) -> np.ndarray:
        try:
            with self._lock:
                page: Any = self._pages[number]
                return np.asarray(page.asarray()).reshape(self._shape[1:])
        except Exception as error:  # tifffile and its codecs raise many kinds
            raise _damaged(self._path, error) from error


def _pages_alike(file: Any) -> list[Any]:
    """Return the pages as large as the first: frames written one by one are series of their own, as are thumbnails."""
    first = file.series[0]
    if len(first.shape) != 2:
        return list(first.pages)
    return [
        page
        for series in file.series
        if series.shape == first.shape and series.dtype == first.dtype
        for page in series.pages
    ]
