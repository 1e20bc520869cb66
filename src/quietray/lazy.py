"""Lazy stacks of frames made from other stacks: a selection of frames, or frames of several detectors in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from quietray.types import Frames

__all__ = ["banded_frames", "chosen_frames", "interleaved", "mended_frames"]


def interleaved(parts: Mapping[int, Frames], numbers: Int[np.ndarray, " frame"]) -> Frames:
    """Return frames of several detectors as one lazy stack, which reverses `Scan.by_detector`.

    Parameters
    ----------
    parts
        Frames ``(frame, row, col)`` of each detector, in order.
    numbers
        Detector of each frame of the stack, ``(frame,)``.

    Examples
    --------
    >>> parts = {0: np.zeros((2, 1, 3)), 1: np.ones((2, 1, 3))}
    >>> interleaved(parts, np.array([0, 1, 1, 0]))[1:, 0, 0].tolist()
    [1.0, 1.0, 0.0]
    """
    return _Interleaved(dict(parts), numbers)


def chosen_frames(frames: Frames, chosen: Int[np.ndarray, " frame"]) -> Frames:
    """Return some of the frames of a stack, without reading them.

    Examples
    --------
    >>> chosen_frames(np.arange(4.0)[:, None, None], np.array([3, 0]))[:, 0, 0].tolist()
    [3.0, 0.0]
    """
    return _Chosen(frames, chosen)


@dataclass(frozen=True, eq=False)
class _Chosen:
    """A selection of the frames of a stack, read on demand."""

    frames: Frames
    chosen: Int[np.ndarray, " frame"]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.chosen), *self.frames.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.frames.dtype)

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) else (key,)
        inner = self.chosen[first]
        return self.frames[(int(inner), *rest)] if np.ndim(inner) == 0 else _picked(self.frames, inner, rest)


@dataclass(frozen=True, eq=False)
class _Interleaved:
    """Frames of several stacks in turn."""

    parts: dict[int, Frames]
    numbers: Int[np.ndarray, " frame"]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.numbers), *next(iter(self.parts.values())).shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.result_type(*(np.dtype(frames.dtype) for frames in self.parts.values()))

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) else (key,)
        chosen = np.arange(len(self.numbers))[first]
        if np.ndim(chosen) == 0:
            return self[(slice(int(chosen), int(chosen) + 1), *rest)][0]
        out = np.empty(0, self.dtype)
        for number, frames in self.parts.items():
            mine = self.numbers[chosen] == number
            rank = np.cumsum(self.numbers == number) - 1  # number of earlier frames of the same detector
            block = _picked(frames, rank[chosen[mine]], rest)
            out = out if out.ndim > 1 else np.empty((len(chosen), *block.shape[1:]), self.dtype)
            out[mine] = block
        return out


def _picked(frames: Frames, index: Int[np.ndarray, " frame"], rest: list[Any]) -> Any:
    """Read some frames, with a single slice if they are evenly spaced."""
    step = int(index[1] - index[0]) if len(index) > 1 else 1
    if len(index) == 0:
        return frames[(slice(0, 0), *rest)]
    if step == 0 or (np.diff(index) != step).any():
        return np.stack([np.asarray(frames[(slice(int(one), int(one) + 1), *rest)])[0] for one in index])
    if step > 0:
        return frames[(slice(int(index[0]), int(index[-1]) + 1, step), *rest)]
    return frames[(slice(int(index[-1]), int(index[0]) + 1, -step), *rest)][::-1]


def mended_frames(
    frames: Frames, masked: Bool[np.ndarray, "row col"] | None = None, kind: np.dtype[Any] | None = None
) -> Frames:
    """Return frames, still on disk, with 0 in masked pixels and their bits reinterpreted as another type.

    Parameters
    ----------
    frames
        Frames ``(frame, row, col)``.
    masked
        Mask ``(row, col)`` of pixels that hold no counts.
    kind
        The type, of the same size in bits.

    Examples
    --------
    >>> counts = np.array([[[-1, -25536]]], np.int16)
    >>> mended_frames(counts, np.array([[True, False]]), np.dtype(np.uint16))[0:1].tolist()
    [[[0, 40000]]]
    """
    return _Mended(frames, masked, kind)


@dataclass(frozen=True, eq=False)
class _Mended:
    """Frames with masked pixels set to 0 and numbers reinterpreted as another type."""

    frames: Frames
    masked: Bool[np.ndarray, "row col"] | None
    kind: np.dtype[Any] | None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.frames.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.frames.dtype) if self.kind is None else self.kind

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) else (key,)
        block = np.array(self.frames[(first, *rest)])
        if self.kind is not None:
            block = block.astype(block.dtype.newbyteorder("=")).view(self.kind)
        if self.masked is not None:
            block[..., self.masked[tuple(rest)]] = 0
        return block


def banded_frames(band: Frames, first: int, n_rows: int, beyond: float) -> Frames:
    """Return frames of `n_rows` rows of which only a band from row `first` is known; the rest is `beyond`.

    Examples
    --------
    >>> banded_frames(np.zeros((2, 1, 3)), 1, 4, 1.0)[0, :3, 0].tolist()
    [1.0, 0.0, 1.0]
    """
    return _Banded(band, first, n_rows, beyond)


@dataclass(frozen=True, eq=False)
class _Banded:
    """Frames that are only known in a band of rows."""

    band: Frames
    first: int
    n_rows: int
    beyond: float

    @property
    def shape(self) -> tuple[int, ...]:
        n_frames, _, n_cols = self.band.shape
        return (n_frames, self.n_rows, n_cols)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.band.dtype)

    def __getitem__(self, key: Any) -> Any:
        views, rows, cols = (*(key if isinstance(key, tuple) else (key,)), slice(None), slice(None))[:3]
        chosen = np.arange(self.n_rows)[rows]
        numbers = np.atleast_1d(chosen)
        known = (numbers >= self.first) & (numbers < self.first + self.band.shape[1])
        some = np.asarray(self.band[views])
        out = np.full((*some.shape[:-2], len(numbers), some.shape[-1]), self.beyond, self.dtype)
        out[..., known, :] = some[..., numbers[known] - self.first, :]
        return out[..., cols] if np.ndim(chosen) else out[..., 0, :][..., cols]
