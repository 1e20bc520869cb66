"""Stacks of frames that stay on disk until a band of rows is requested."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from jaxtyping import Int

from quietray.errors import FormatError
from quietray.io.damage import damage_told
from quietray.types import Frames

__all__ = ["LazyFrames", "OnDisk", "Rearranged", "check_stack", "runs"]

_MOST_FRAMES, _LARGEST_FRAME = 10**7, 2**32  # beyond any detector: a damaged header claims more


class OnDisk:
    """A stored array that every process opens for itself, by its path.

    It is opened at once, so that a damaged file is reported early.  When pickled, only the function that opens it and
    its arguments are stored.  Copies and forked processes open the array when they first read it, so processes never
    share a handle.

    Parameters
    ----------
    open
        Function or class at module level that returns the array.
    arguments
        Arguments of `open`; in other processes, paths are absolute.

    Raises
    ------
    FormatError
        In another process: the file now holds a different array.

    Examples
    --------
    >>> import pickle, tempfile
    >>> path = Path(tempfile.mkdtemp()) / "frames.npy"
    >>> np.save(path, np.arange(24).reshape(6, 2, 2))
    >>> frames = OnDisk(np.load, path, "r")
    >>> len(pickle.dumps(frames)) < 1000, pickle.loads(pickle.dumps(frames))[1:3, 0].tolist()
    (True, [[4, 5], [8, 9]])
    """

    def __init__(self, open: Callable[..., Frames], *arguments: Any) -> None:
        self._open, self._arguments = open, arguments
        self._frames: Frames | None = open(*arguments)
        self.shape = tuple(int(size) for size in self._frames.shape)
        self.dtype: np.dtype[Any] = np.dtype(self._frames.dtype)
        _HELD.add(self)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        return self._opened()[key]

    def __getstate__(self) -> dict[str, Any]:
        arguments = tuple(one.absolute() if isinstance(one, Path) else one for one in self._arguments)
        return {"open": self._open, "arguments": arguments, "shape": self.shape, "dtype": self.dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._open, self._arguments = state["open"], state["arguments"]
        self.shape, self.dtype = state["shape"], state["dtype"]
        self._frames = None
        _HELD.add(self)

    def _opened(self) -> Frames:
        if self._frames is not None and os.getpid() == _owner:
            return self._frames
        with _LOCKS.setdefault(os.getpid(), threading.RLock()):  # a lock held during a fork stays locked
            _leave_inherited()
            if self._frames is None:
                found = self._open(*self._arguments)
                if (tuple(found.shape), np.dtype(found.dtype)) != (self.shape, self.dtype):
                    raise FormatError(
                        f"{self._arguments[0]} must stay as it was when it was opened, {self.shape} in {self.dtype}, "
                        f"got {tuple(found.shape)} in {found.dtype}; open the scan again"
                    )
                self._frames = found
            return self._frames


_HELD: WeakSet[OnDisk] = WeakSet()
_LOCKS: dict[int, Any] = {}
_owner = os.getpid()


def _leave_inherited() -> None:
    """Drop all handles that a forked process has inherited."""
    global _owner
    if os.getpid() != _owner:
        for array in list(_HELD):
            array._frames = None
        _owner = os.getpid()


class LazyFrames:
    """Selected frames of a stored stack, in a given order; only what is requested is read.

    Frames are read in runs, each with one slice, because reading them one by one is many times slower in HDF5.

    Parameters
    ----------
    stored
        The whole stack ``(frame, row, col)``; an :class:`OnDisk` if other processes are to read it, too.
    index
        Positions in `stored`, ``(n_chosen,)``; None for all.
    place
        Name of the stack in messages, such as ``scan.h5:/exchange/data``.

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
        """Shape ``(n_frames, n_rows, n_cols)``."""
        return (len(self._index), *(int(size) for size in self._stored.shape[1:]))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel, as stored."""
        return np.dtype(self._stored.dtype)

    def pick(self, index: Int[np.ndarray, " frame"]) -> LazyFrames:
        """Return a selection of these frames, still on disk."""
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
        with damage_told(self.place or "the stack"):
            return np.asarray(self._stored[key])


class Rearranged:
    """A stored array with permuted axes, some of them reversed, and without axes of length 1.

    Parameters
    ----------
    stored
        The array.
    axes
        Which of its axes are the views, the rows and the columns; the others have length 1.
    reversed_axes
        Axes that are read backwards.

    Examples
    --------
    >>> Rearranged(np.arange(6).reshape(1, 2, 3), (1, 0, 2))[1, :, 1:].tolist()
    [[4, 5]]
    >>> Rearranged(np.arange(6).reshape(1, 2, 3), (0, 2, 1), (2,))[0].tolist()
    [[2, 5], [1, 4], [0, 3]]
    """

    def __init__(self, stored: Frames, axes: tuple[int, int, int], reversed_axes: tuple[int, ...] = ()) -> None:
        self._stored, self._axes, self._reversed = stored, axes, reversed_axes

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``(n_frames, n_rows, n_cols)``."""
        return tuple(int(self._stored.shape[axis]) for axis in self._axes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel, as stored."""
        return np.dtype(self._stored.dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        keys = [*_without_ellipsis(key, 3), slice(None), slice(None), slice(None)][:3]
        inner: list[Any] = [slice(0, 1)] * len(self._stored.shape)
        after: list[Any] = []
        for axis, length, wanted in zip(self._axes, self.shape, keys, strict=True):
            chosen = np.arange(length)[wanted]
            numbers = np.atleast_1d(length - 1 - chosen if axis in self._reversed else chosen)
            first = int(numbers.min(initial=length if not numbers.size else length - 1))
            inner[axis] = slice(first, int(numbers.max(initial=-1)) + 1)
            after.append(int(numbers[0]) - first if np.ndim(chosen) == 0 else numbers - first)
        block = np.asarray(self._stored[tuple(inner)])
        others = [axis for axis in range(block.ndim) if axis not in self._axes]
        block = block.transpose(*self._axes, *others).reshape(tuple(block.shape[axis] for axis in self._axes))
        for place, wanted in reversed(list(enumerate(after))):
            block = block.take(wanted, axis=place)
        return block


def check_stack(frames: Frames, what: str, place: str) -> None:
    """Raise unless an array can hold radiographs: real numbers with three non-empty axes (or four for a volume).

    Raises
    ------
    FormatError
        It cannot.

    Examples
    --------
    >>> check_stack(np.ones((2, 3, 4)), "projections", "here")
    """
    shape, dtype = tuple(frames.shape), np.dtype(frames.dtype)
    if dtype.kind not in "iuf":
        raise FormatError(
            f"{what} must be real numbers (integers or floats), got type {dtype} in {place}; "
            "convert them, or name another dataset"
        )
    if len(shape) != 3 and not (what == "volume" and len(shape) == 4):
        raise FormatError(
            f"{what} must be a stack (frame, row, col), got shape {shape} in {place}; name a dataset with three axes"
        )
    if min(shape) < 1:
        raise FormatError(f"{what} must hold frames, got shape {shape} in {place}; the scan seems never to have run")
    if math.prod(shape[:-2]) > _MOST_FRAMES or math.prod(shape[-2:]) > _LARGEST_FRAME:
        raise FormatError(
            f"{what} must be at most {_MOST_FRAMES} frames of {_LARGEST_FRAME} pixels, got shape {shape} in {place}; "
            "its header may be damaged: copy it again from where it was measured"
        )


def runs(index: Int[np.ndarray, " frame"]) -> Iterator[slice]:
    """Split a list of frame numbers into slices of constant positive step that cover it in order.

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
