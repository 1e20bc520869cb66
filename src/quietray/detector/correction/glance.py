"""A few samples of every frame, read once, for checking what each frame shows."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from quietray.detector.correction.frames import SAMPLES
from quietray.types import Frames
from quietray.wording import listed

__all__ = ["Glance", "glance", "named"]

_ROWS, _COLS = 12, 256  # samples per frame, at most about twice as many
_PASSES = 16  # order in which frames are read if time is short


@dataclass(frozen=True, eq=False)
class Glance:
    """Samples of the frames of a stack.

    Parameters
    ----------
    samples
        ``(frame, row, col)`` as stored, at evenly spaced rows and columns that include the last row.
    numbers
        Numbers of these frames, ``(frame,)``.
    total
        Number of all frames.
    rows, cols
        Positions of the samples in a frame.
    """

    samples: np.ndarray
    numbers: Int[np.ndarray, " frame"]
    total: int
    rows: slice
    cols: slice

    @property
    def known(self) -> bool:
        """Whether there are enough samples per frame."""
        return self.samples[0].size >= 16 and len(self.samples) > 1

    def flat(self) -> np.ndarray:
        """Return the samples of each frame in a single axis, ``(frame, sample)``."""
        return self.samples.reshape(len(self.samples), -1)

    def constant(self) -> Bool[np.ndarray, " frame"]:
        """Return which frames hold a single value or nothing finite, like frames that were never written."""
        flat = self.flat()
        return np.asarray((flat == flat[:, :1]).all(axis=1) | ~np.isfinite(flat).any(axis=1))

    def torn(self) -> Bool[np.ndarray, " frame"]:
        """Return which frames have constant rows where other frames do not: they were only partly written."""
        first = self.samples[:, :, :1]
        idle = ((self.samples == first) & np.isfinite(first)).all(axis=2)
        return np.asarray((idle & (idle.mean(axis=0) < 0.5)).any(axis=1) & (self.samples.shape[2] >= 16))

    def repeated(self) -> Bool[np.ndarray, " frame"]:
        """Return which frames are identical to the previous frame."""
        same = (self.flat()[1:] == self.flat()[:-1]).all(axis=1) & (np.diff(self.numbers) == 1)
        return np.concatenate([[False], same])

    def levels(self, used: Bool[np.ndarray, "row col"]) -> Float[np.ndarray, " frame"]:
        """Return the mean of each frame over the given samples."""
        samples = self.samples[:, used].astype(np.float32)
        finite = np.isfinite(samples)
        total = np.where(finite, samples, 0).sum(axis=1, dtype=np.float64)
        return np.asarray(total / np.maximum(finite.sum(axis=1), 1))

    def varying(self, whole: Bool[np.ndarray, " frame"]) -> Bool[np.ndarray, "row col"]:
        """Return the samples that vary between complete frames."""
        some = self.samples[whole]
        return np.asarray((some != some[:1]).any(axis=0))


def glance(frames: Frames, seconds: float = math.inf) -> Glance:
    """Read a few rows of every frame, or of as many evenly spaced frames as time permits.

    Examples
    --------
    >>> seen = glance(np.arange(24.0).reshape(3, 2, 4))
    >>> seen.samples.shape, seen.numbers.tolist()
    ((3, 2, 4), [0, 1, 2])
    """
    n_frames, n_rows, n_cols = (int(size) for size in frames.shape)
    row_step, col_step = max(1, (n_rows - 1) // _ROWS), max(1, n_cols // _COLS)
    rows, cols = slice((n_rows - 1) % row_step, None, row_step), slice(col_step // 2, None, col_step)
    at_once = max(1, SAMPLES // (len(range(n_rows)[rows]) * n_cols))
    passes = _PASSES if math.isfinite(seconds) and n_frames >= 16 * _PASSES else 1
    parts: list[np.ndarray] = []
    numbers: list[np.ndarray] = []
    begun = time.monotonic()
    for turn in sorted(range(passes), key=lambda number: f"{number:04b}"[::-1]):
        chosen = np.arange(turn, n_frames, passes)
        for first in range(0, len(chosen), at_once):
            some = chosen[first : first + at_once]
            key: tuple[Any, ...] = (slice(int(some[0]), int(some[-1]) + 1, passes), rows)
            parts.append(np.array(np.asarray(frames[key])[:, :, cols]))
            numbers.append(some)
        if time.monotonic() - begun > seconds:
            break
    order = np.argsort(np.concatenate(numbers))
    return Glance(np.concatenate(parts)[order], np.concatenate(numbers)[order], n_frames, rows, cols)


def named(numbers: Int[np.ndarray, " frame"]) -> str:
    """Return frame numbers in words.

    Examples
    --------
    >>> named(np.array([4, 5, 6, 9])), named(np.arange(0, 90, 10)), named(np.array([3]))
    ('4 to 6 and 9', 'every 10th from 0 to 80', '3')
    """
    steps = np.diff(numbers)
    if len(numbers) > 3 and steps[0] > 1 and (steps == steps[0]).all():
        last = int(steps[0]) % 10 if int(steps[0]) // 10 % 10 != 1 else 0
        ending = {1: "st", 2: "nd", 3: "rd"}.get(last, "th")
        return f"every {steps[0]}{ending} from {numbers[0]} to {numbers[-1]}"
    parts = np.split(numbers, np.flatnonzero(steps != 1) + 1)
    words = [f"{part[0]} to {part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts]
    if len(words) > 6:
        return f"{', '.join(words[:5])} and others up to {words[-1].split()[-1]}"
    return listed(words)
