"""Stacks of files with one frame each, of any format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError

__all__ = ["FileFrames"]


class FileFrames:
    """Files with one frame each; a band of rows is cut out of every file.

    Parameters
    ----------
    files
        Files in the order of the frames.
    open
        Module-level function that reads the frame ``(row, col)`` of a file.

    Raises
    ------
    FormatError
        The first file cannot be read, or contains no frame.

    Examples
    --------
    >>> import tempfile
    >>> places = [Path(tempfile.mkdtemp()) / f"{number}.npy" for number in range(3)]
    >>> for number, place in enumerate(places):
    ...     np.save(place, np.full((2, 3), number))
    >>> FileFrames(places, np.load)[1:, 0, 0].tolist()
    [1, 2]
    """

    def __init__(self, files: Sequence[Path], open: Callable[[Path], np.ndarray]) -> None:
        self._files, self._open = list(files), open
        first = open(self._files[0])
        if first.ndim != 2:
            raise FormatError(f"{self._files[0]} must hold one frame (row, col), got shape {first.shape}; convert it")
        self._frame_shape, self._dtype = first.shape, first.dtype

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_files": [path.absolute() for path in self._files]}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``(n_frames, n_rows, n_cols)``."""
        return (len(self._files), *self._frame_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel, in native byte order."""
        return np.dtype(self._dtype).newbyteorder("=")

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, int):
            return self._frame(first, tuple(rest))
        numbers = range(*first.indices(len(self._files)))
        if not numbers:
            return np.empty((0, *self._frame_shape), self.dtype)[(slice(None), *rest)]
        return np.stack([self._frame(number, tuple(rest)) for number in numbers])

    def _frame(self, number: int, rest: tuple[Any, ...]) -> np.ndarray:
        """Return a copy of part of a frame, so that the rest is released."""
        frame = np.asarray(self._open(self._files[number]))
        if frame.shape != self._frame_shape:
            raise FormatError(
                f"all frames of a scan must have one size, got {frame.shape} in {self._files[number]} and "
                f"{self._frame_shape} in {self._files[0].name}; remove the files that do not belong to the scan"
            )
        return np.array(frame[rest], self.dtype)
