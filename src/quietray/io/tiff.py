"""TIFF files as stacks: multi-page files and folders of frames, read in place."""

from __future__ import annotations

import glob
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError
from quietray.io.one_each import FileFrames
from quietray.io.paths import natural_key

__all__ = ["TiffFolder", "TiffPages", "is_tiff", "series_folders", "tiff_files"]

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_tiff(path: Path) -> bool:
    """Return whether a file starts like a TIFF."""
    try:
        with path.open("rb") as stream:
            return stream.read(4) in _MAGIC
    except OSError:
        return False


def tiff_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the TIFF files in a folder in natural order; one file of each kind of name is checked for its content."""
    by_suffix: dict[str, list[Path]] = {}
    for name in glob.glob(pattern, root_dir=folder):
        path = folder / name
        if not name.startswith(".") and path.is_file():
            by_suffix.setdefault(path.suffix.lower(), []).append(path)
    chosen = [path for paths in by_suffix.values() if is_tiff(min(paths, key=natural_key)) for path in paths]
    return sorted(chosen, key=natural_key)


def series_folders(path: Path) -> list[Path]:
    """Return the folders of the steps or channels of a series; empty if the path is not a series."""
    if not path.is_dir() or tiff_files(path):
        return []
    found = [folder for kind in ("step", "channel") for folder in path.glob(f"{kind}_[0-9]*") if tiff_files(folder)]
    return sorted(found, key=natural_key)


def _open_page(path: Path, page: int = 0) -> np.ndarray:
    """Return one page, memory-mapped if its pixels are stored contiguously and uncompressed."""
    import tifffile

    try:
        return tifffile.memmap(path, page=page, mode="r")
    except ValueError:  # compressed, tiled or in separate strips
        pass
    except Exception as error:
        raise _damaged(path, error) from error
    try:
        return np.asarray(tifffile.imread(path, key=page))
    except Exception as error:  # tifffile and its codecs raise many types of exceptions
        raise _damaged(path, error) from error


def _white(page: Any) -> int | None:
    """Return the number for black if a page is stored with white as zero, else None."""
    if page.photometric != 0:
        return None
    if np.dtype(page.dtype).kind != "u":
        raise FormatError(
            f"{page.parent.filename} must hold integers if white is zero, got {page.dtype}; save it with black as zero"
        )
    return int(2**page.bitspersample - 1)


def _white_of(path: Path) -> int | None:
    """Return the same for the first page of a file."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            return _white(file.pages[0])
    except FormatError:
        raise
    except Exception as error:  # tifffile raises many types of exceptions for damaged files
        raise _damaged(path, error) from error


def _as_light(frame: np.ndarray, white: int | None) -> np.ndarray:
    """Return numbers that increase with the light."""
    return frame if white is None else frame.dtype.type(white) - frame


def _damaged(path: Path, error: Exception) -> FormatError:
    return FormatError(
        f"{path} must be a readable TIFF image, got: {type(error).__name__}: {error}; "
        "it may be truncated: copy it again from where it was measured"
    )


class TiffFolder(FileFrames):
    """One frame per file.

    Parameters
    ----------
    files
        Files in the order of the views.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        super().__init__(files, _open_page)
        self._white = _white_of(self._files[0])

    def _frame(self, number: int, rest: tuple[Any, ...]) -> np.ndarray:
        return _as_light(super()._frame(number, rest), self._white)


class TiffPages:
    """The pages of one TIFF file, memory-mapped if they are contiguous, else read one by one.

    Parameters
    ----------
    path
        Path of the file.
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
            self._white = _white(self._file.pages[0])
            self._check_size(series)
            if series.dataoffset is not None and len(self._pages) == len(series.pages):
                self._mapped = tifffile.memmap(path, mode="r")
                self._file.close()
        except FormatError:
            raise
        except Exception as error:  # tifffile raises many types of exceptions for damaged files
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
                f"{self._path} must be a complete TIFF stack, got {os.path.getsize(self._path)} of {needed} bytes; it "
                "is truncated: copy it again from where it was measured"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``(n_frames, n_rows, n_cols)``."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return self._dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if self._mapped is not None:
            return _as_light(np.array(self._mapped[(first, *rest)]), self._white)
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
                return _as_light(np.asarray(page.asarray()).reshape(self._shape[1:]), self._white)
        except Exception as error:  # tifffile and its codecs raise many types of exceptions
            raise _damaged(self._path, error) from error


def _pages_alike(file: Any) -> list[Any]:
    """Return the pages of the size of the first; frames written singly, and thumbnails, are separate series."""
    first = file.series[0]
    if len(first.shape) != 2:
        return list(first.pages)
    return [
        page
        for series in file.series
        if series.shape == first.shape and series.dtype == first.dtype
        for page in series.pages
    ]
