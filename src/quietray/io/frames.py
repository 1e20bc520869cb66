"""Stacks of frames that stay on disk until a band of them is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int

from quietray.errors import FormatError
from quietray.types import Frames

__all__ = ["LazyFrames", "runs"]


class LazyFrames:
    """Chosen frames of a stored stack, in a chosen order; reading touches only what is asked for.

    Frames are read in runs, each with one slice: picking them one by one is many times slower in HDF5.

    Parameters
    ----------
    stored
        The whole stack ``(frame, row, col)``, such as an HDF5 dataset, a Zarr array or a memory map.
    index
        ``(n_chosen,)`` positions in `stored`; None for all of them.
    place
        What to call the stack in messages, such as ``scan.h5:/exchange/data``.

    Examples
    --------
    >>> picked = LazyFrames(np.arange(24).reshape(6, 2, 2), np.array([1, 2, 5]))
    >>> picked[1:, 0].tolist()
    [[8, 9], [20, 21]]
    """

    def __init__(self, stored: Frames, index: Int[np.ndarray, " frame"] | None = None, place: str = "") -> None:
        self._stored = stored
        self._index = np.arange(int(stored.shape[0])) if index is None else np.asarray(index)
        self.place = place

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_frames, n_rows, n_cols)``."""
        return (len(self._index), *(int(size) for size in self._stored.shape[1:]))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one pixel, as stored."""
        return np.dtype(self._stored.dtype)

    def pick(self, index: Int[np.ndarray, " frame"]) -> LazyFrames:
        """Return some of these frames, still on disk."""
        return LazyFrames(self._stored, self._index[index], self.place)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, key: Any) -> Any:
        first, *rest = _without_ellipsis(key, len(self._stored.shape))
        chosen = self._index[first]
        if np.ndim(chosen) == 0:
            return self._read((int(chosen), *rest))
        pieces = list(runs(chosen)) or [slice(0, 0)]
        first_piece = self._read((pieces[0], *rest))
        if len(pieces) == 1:
            return first_piece
        out = np.empty((len(chosen), *first_piece.shape[1:]), first_piece.dtype)
        filled = len(first_piece)
        out[:filled] = first_piece
        for piece in pieces[1:]:
            block = self._read((piece, *rest))
            out[filled : filled + len(block)] = block
            filled += len(block)
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def __repr__(self) -> str:
        return f"LazyFrames({self.place or 'array'}, shape={self.shape}, dtype={self.dtype})"

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        try:
            return np.asarray(self._stored[key])
        except (OSError, RuntimeError) as error:
            raise FormatError(
                f"{self.place or 'the stack'} must be readable, got: {error}; "
                "the file may be damaged: copy it again from where it was measured"
            ) from error


def runs(index: Int[np.ndarray, " frame"]) -> Iterator[slice]:
    """Cut a list of frame numbers into slices of constant positive step that cover it in order.

    Examples
    --------
    >>> list(runs(np.array([3, 4, 5, 8, 7])))
    [slice(3, 6, 1), slice(8, 9, 1), slice(7, 8, 1)]
    """
    steps = np.diff(index)
    start = 0
    while start < len(index):
        stop = start + 1
        step = int(steps[start]) if start < len(steps) else 0
        if step > 0:
            changes = np.flatnonzero(steps[start:] != step)
            stop = start + (int(changes[0]) if changes.size else len(steps) - start) + 1
        yield slice(int(index[start]), int(index[stop - 1]) + 1, max(step, 1))
        start = stop


def _without_ellipsis(key: Any, n_axes: int) -> tuple[Any, ...]:
    keys = key if isinstance(key, tuple) else (key,)
    spots = [spot for spot, part in enumerate(keys) if part is Ellipsis]
    if not spots:
        return keys
    missing = n_axes - (len(keys) - 1)
    return (*keys[: spots[0]], *[slice(None)] * missing, *keys[spots[0] + 1 :])
