"""Statistics of repeated frames of a static scene, such as flats and darks, without zingers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float

from quietray.errors import NoiseError
from quietray.types import Frame, Frames, PixelMask, Radiographs

__all__ = [
    "SAMPLES",
    "FrameStatistics",
    "Pile",
    "dealt_means",
    "frame_statistics",
    "robust_sd",
    "sampled_rows",
    "typical_variance",
]

SAMPLES = 2**23  # pixels in memory at a time, as float32
_SURVEY_ROWS = 64


def robust_sd(values: Float[np.ndarray, " ..."]) -> float:
    """Return the standard deviation of normal `values` from their median absolute deviation (0 if there are none).

    Examples
    --------
    >>> round(robust_sd(np.array([-1.0, 0.0, 1.0, 0.0, 1e9])), 2)
    1.48
    """
    if values.size == 0:
        return 0.0
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def sampled_rows(n_rows: int, at_most: int = _SURVEY_ROWS) -> slice:
    """Return a slice of evenly spaced rows, at most `at_most` of them.

    Examples
    --------
    >>> sampled_rows(128), len(range(2160)[sampled_rows(2160)])
    (slice(1, None, 2), 64)
    """
    step = -(-n_rows // at_most)
    return slice(step // 2, None, step)


@dataclass(frozen=True, eq=False)
class FrameStatistics:
    """Statistics of repeated frames of a static scene, pixel by pixel.

    Parameters
    ----------
    mean
        Mean over the frames without zingers, in counts, ``(row, col)``.
    spread
        Standard deviation over the frames without the largest deviations, ``(row, col)``; None for fewer than 3 frames.
    constant
        Whether all frames agree exactly, ``(row, col)``.
    n_frames, zingers
        Numbers of frames that were read, and of samples left out of the mean.
    """

    mean: Frame
    spread: Frame | None
    constant: PixelMask
    n_frames: int
    zingers: int


def frame_statistics(frames: Frames, what: str, offset: Frame | None = None, drift: bool = False) -> FrameStatistics:
    """Measure the mean and standard deviation of repeated frames without zingers.

    Parameters
    ----------
    frames
        Frames ``(frame, row, col)`` in counts.
    what
        Their name in messages: "flats" or "darks".
    offset
        Counts that are subtracted first, ``(row, col)``.
    drift
        Whether the overall brightness may differ between frames; frames are then scaled to the same level before the
        comparison.

    Raises
    ------
    NoiseError
        The frames contain NaN, or integer frames are saturated in more than 1 % of their samples.

    Examples
    --------
    >>> frames = np.full((5, 2, 3), 100.0); frames[2, 1, 1] = 9000
    >>> statistics = frame_statistics(frames, "flats")
    >>> float(statistics.mean[1, 1]), statistics.zingers
    (100.0, 1)
    """
    n_frames, n_rows, n_cols = frames.shape
    levels = _levels(frames, offset) if drift else np.ones(n_frames, np.float32)
    mean, spread = np.empty((n_rows, n_cols), np.float32), np.zeros((n_rows, n_cols), np.float32)
    constant = np.zeros((n_rows, n_cols), bool)
    top, zingers, step = Pile(frames.dtype), 0, max(1, SAMPLES // (n_frames * n_cols))
    for start in range(0, n_rows, step):
        rows = slice(start, min(start + step, n_rows))
        raw = np.asarray(frames[:, rows])
        top.add(raw)
        stack = raw.astype(np.float32)
        if n_bad := int(np.count_nonzero(~np.isfinite(stack))):
            raise NoiseError(f"{what} must be finite counts, got {n_bad} NaN or infinite samples; measure them again")
        constant[rows] = (stack == stack[:1]).all(axis=0)
        if offset is not None:
            stack -= offset[rows]
        stack /= levels[:, None, None]
        mean[rows], spread[rows], found = _clipped(stack)
        zingers += found
    top.check(what, noisy=n_frames > 1 and float(constant.mean()) < 0.5)
    return FrameStatistics(mean, spread if n_frames >= 3 else None, constant, n_frames, zingers)


def dealt_means(
    frames: Frames, n_subsets: int, offset: Frame | None = None, drift: bool = False
) -> Float[np.ndarray, "subset row col"]:
    """Return the means of the frames ``j::n_subsets``, without the zingers found in all frames together.

    Parameters
    ----------
    frames
        Frames ``(frame, row, col)`` in counts, in the order of acquisition.
    n_subsets
        Number of subsets; at most the number of frames.
    offset, drift
        As in `frame_statistics`.

    Notes
    -----
    A pixel with a zinger in every frame of a subset gets the mean of all frames.

    Examples
    --------
    >>> frames = np.full((6, 2, 3), 100.0); frames[1::2] = 104; frames[2, 1, 1] = 9000
    >>> dealt_means(frames, 2)[:, 1, 1].tolist()
    [100.0, 104.0]
    """
    n_frames, n_rows, n_cols = frames.shape
    levels = _levels(frames, offset) if drift else np.ones(n_frames, np.float32)
    out = np.empty((n_subsets, n_rows, n_cols), np.float32)
    step = max(1, SAMPLES // (n_frames * n_cols))
    for start in range(0, n_rows, step):
        rows = slice(start, min(start + step, n_rows))
        stack = np.asarray(frames[:, rows], np.float32) - (0 if offset is None else offset[rows])
        stack /= levels[:, None, None]
        middle, residual, keep = _without_zingers(stack)
        kept = np.where(keep, residual, 0)
        whole = kept.sum(axis=0) / np.maximum(keep.sum(axis=0), 1)
        for subset in range(n_subsets):
            own = slice(subset, None, n_subsets)
            count = keep[own].sum(axis=0)
            out[subset, rows] = middle + np.where(count > 0, kept[own].sum(axis=0) / np.maximum(count, 1), whole)
    return out


def _levels(frames: Frames, offset: Frame | None) -> Float[np.ndarray, " frame"]:
    """Return the brightness of each frame relative to their mean; ones if there is nothing to compare."""
    n_frames, n_rows = frames.shape[:2]
    rows = sampled_rows(n_rows, max(1, min(_SURVEY_ROWS, SAMPLES // (n_frames * frames.shape[2]))))
    stack = np.asarray(frames[:, rows], dtype=np.float32)
    if offset is not None:
        stack = stack - offset[rows]
    levels = np.array([np.median(frame) for frame in stack], dtype=np.float32)
    middle = float(np.mean(levels))
    if not (np.isfinite(middle) and middle > 0) or levels.min() <= 0.2 * middle:
        return np.ones(n_frames, np.float32)
    return (levels / middle).astype(np.float32)


def _clipped(stack: Radiographs) -> tuple[Frame, Frame, int]:
    """Return the mean without zingers, the trimmed standard deviation, and how many samples were left out."""
    n = len(stack)
    if n == 1:
        return stack[0], np.zeros_like(stack[0]), 0
    middle, residual, keep = _without_zingers(stack)
    kept = np.maximum(keep.sum(axis=0), 1)
    mean = middle + np.where(keep, residual, 0).sum(axis=0) / kept
    if n < 3:
        return mean.astype(np.float32), np.zeros_like(middle), int(np.count_nonzero(~keep))
    order = np.sort(np.abs(residual), axis=0)[: _kept(n)]
    spread = np.sqrt((order**2).mean(axis=0)) * np.float32(_trimming(n))
    return mean.astype(np.float32), spread, int(np.count_nonzero(~keep))


def _without_zingers(stack: Radiographs) -> tuple[Frame, Radiographs, Bool[np.ndarray, "frame row col"]]:
    """Return the typical value of two or more frames, the deviation of each frame, and a mask without zingers."""
    n = len(stack)
    middle = np.median(stack, axis=0) if n > 2 else stack.min(axis=0)
    weight = np.sqrt(np.maximum(middle, max(0.05 * float(np.median(middle)), 1e-6)))
    noise = robust_sd((np.diff(stack, axis=0) / (np.sqrt(2) * weight)).ravel())
    residual = stack - middle
    limit = np.maximum(6 * noise * weight, 0.02 * np.abs(middle))
    return middle, residual, residual <= limit


def _kept(n_frames: int) -> int:
    """Return how many of the smallest deviations are used for the standard deviation."""
    return max(n_frames - max(1, int(np.sqrt(n_frames) / 1.5)), 2)


@lru_cache
def _trimming(n_frames: int) -> float:
    """Return the factor from trimmed to true standard deviation of normal noise, from 20 000 simulated pixels."""
    noise = np.random.default_rng(0).standard_normal((n_frames, 20000))
    deviations = np.sort(np.abs(noise - np.median(noise, axis=0)), axis=0)[: _kept(n_frames)]
    return float(1 / np.sqrt((deviations**2).mean()))


@lru_cache
def typical_variance(n_frames: int) -> float:
    """Return the median over pixels of the measured variance of normal noise, relative to the true one.

    It is below 1, because few frames often agree by chance.

    Examples
    --------
    >>> [f"{typical_variance(n):.1f}" for n in (3, 4, 10, 1000)]
    ['0.4', '0.6', '0.9', '1.0']
    """
    noise = np.random.default_rng(1).standard_normal((n_frames, max(2000, 200_000 // n_frames)))
    deviations = np.sort(np.abs(noise - np.median(noise, axis=0)), axis=0)[: _kept(n_frames)]
    return float(np.median((deviations**2).mean(axis=0)) * _trimming(n_frames) ** 2)


class Pile:
    """Counts how many integer samples have the largest value, a sign of saturation."""

    def __init__(self, dtype: np.dtype[np.generic]) -> None:
        self.integer = np.issubdtype(dtype, np.integer)
        self.limit = int(np.iinfo(dtype.name).max) if self.integer else 0
        self.value, self.at_top, self.total = -1, 0, 0

    def add(self, raw: np.ndarray) -> None:
        """Include more samples."""
        if not self.integer or raw.size == 0:
            return
        largest = int(raw.max())
        if largest > self.value:
            self.value, self.at_top = largest, 0
        if largest == self.value:
            self.at_top += int(np.count_nonzero(raw == raw.dtype.type(largest)))
        self.total += raw.size

    def check(self, what: str, noisy: bool) -> None:
        """Raise if more than 1 % of the samples have the largest value.

        Without noise, a plateau is no sign of saturation unless it is at full scale: 2^k - 1, possibly shifted left.
        """
        if not self.integer or self.at_top <= max(0.01 * self.total, 20) or self.value < 255:
            return
        lowest_bit = self.value & -self.value
        full_scale = self.value == self.limit or (self.value & (self.value + lowest_bit)) == 0
        if noisy or (full_scale and self.value >= 255 * lowest_bit):
            raise NoiseError(
                f"{what} must not be saturated, got {self.at_top / self.total:.1%} of the samples at the top value "
                f"{self.value}; expose shorter, or leave the saturated frames out"
            )
