"""Statistics of frames of a static scene, from which noise is measured, without holding all frames in memory.

Frames are read in blocks, and only a few maps of the size of one frame are kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from quietray.detector.correction.frames import robust_sd
from quietray.detector.correction.survey import local_median
from quietray.errors import NoiseError
from quietray.types import Frame, Frames, PixelMask, Radiographs

__all__ = ["NoiseSource", "StaticFrames", "survey_frames"]

BLOCK = 2**22  # pixels of all frames in memory at a time, as float32
LIMIT = 6.0  # standard deviations of the noise beyond which a sample is a zinger
MOST_SAMPLES = 2**30


@dataclass(frozen=True, eq=False)
class NoiseSource:
    """Repeated frames that differ only in noise.

    Parameters
    ----------
    name
        Short name: "static frames", "flats", "air columns", "neighbouring views", "darks".
    frames
        Counts ``(frame, row, col)`` in the order of acquisition; may be lazy.
    offset
        Dark counts ``(row, col)``, subtracted first; None for none.
    use
        Mask ``(row, col)`` of static and good pixels; None for all.
    levelled
        Whether each frame is first scaled to the common brightness; only for frames with light.
    consecutive
        Whether the frames were taken one right after another.
    brightness
        Mean counts ``(row, col)`` behind the noise, if these differ from the mean of the frames.
    why
        A sentence about what was used, and why.
    most
        Largest number of frames to read.

    Examples
    --------
    >>> frames = np.random.default_rng(0).poisson(100, (6, 4, 5)).astype(np.float32)
    >>> NoiseSource("static frames", frames).n_frames
    6
    """

    name: str
    frames: Frames
    offset: Frame | None = None
    use: PixelMask | None = None
    levelled: bool = True
    consecutive: bool = True
    brightness: Frame | None = None
    why: str = ""
    most: int = 2**31

    def __post_init__(self) -> None:
        if len(self.frames.shape) != 3 or self.frames.shape[0] < 2:
            raise NoiseError(
                "noise must be measured on two or more frames (frame, row, col), got shape "
                f"{tuple(self.frames.shape)}; repeat the exposure"
            )

    @property
    def n_frames(self) -> int:
        """Number of frames that are read, limited by `most`."""
        n_frames, n_rows, n_cols = self.frames.shape
        return int(min(n_frames, self.most, max(16, MOST_SAMPLES // (n_rows * n_cols))))

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of a frame, ``(n_rows, n_cols)``."""
        return int(self.frames.shape[1]), int(self.frames.shape[2])

    def replaced(self, frames: Frames, most: int = 2**31) -> NoiseSource:
        """Return the same source with other frames of the same scene, without a dark, such as whitened frames."""
        return dataclasses.replace(self, frames=frames, offset=None, most=most)

    def blocks(self) -> Iterator[Radiographs]:
        """Read all frames in order, in blocks, as float32 minus the offset.

        Raises
        ------
        NoiseError
            The frames contain NaN or infinity.
        """
        step = max(1, BLOCK // (self.shape[0] * self.shape[1]))
        for start in range(0, self.n_frames, step):
            block = np.array(self.frames[start : min(start + step, self.n_frames)], dtype=np.float32)
            if n_bad := int(np.count_nonzero(~np.isfinite(block))):
                raise NoiseError(
                    f"{self.name} must be finite counts, got {n_bad} NaN or infinite samples; measure them again"
                )
            yield block if self.offset is None else block - self.offset


@dataclass(frozen=True, eq=False)
class StaticFrames:
    """A noise source with its statistics.

    Parameters
    ----------
    source
        The frames.
    mean, variance
        Mean and variance over the frames, ``(row, col)``, in counts and counts squared, without zingers and flicker.
    good
        Mask ``(row, col)`` of static pixels that are not dead, stuck or unstable.
    levels
        Brightness of each frame relative to their mean, ``(frame,)``.
    limit
        Deviations beyond which a sample is left out, ``(row, col)``.
    zingers
        Number of samples left out in good pixels.
    """

    source: NoiseSource
    mean: Frame
    variance: Frame
    good: PixelMask
    levels: Float[np.ndarray, " frame"]
    limit: Frame
    zingers: int

    @property
    def brightness(self) -> Frame:
        """Mean counts ``(row, col)`` that the noise belongs to."""
        return self.mean if self.source.brightness is None else self.source.brightness

    @property
    def flicker(self) -> float:
        """Relative standard deviation of the brightness of frames, without the contribution of pixel noise."""
        own = float(self.variance[self.good].sum()) / max(float(self.mean[self.good].sum()), 1e-30) ** 2
        return float(np.sqrt(max(float(np.var(self.levels)) - own, 0.0))) if self.source.levelled else 0.0

    def spread(self) -> Frame:
        """Return the noise ``(row, col)``: of the pixel for 100 frames or more, else averaged over its surroundings."""
        weight = self.good.astype(np.float32)
        near = ndimage.uniform_filter(weight, 9)
        smooth = ndimage.uniform_filter(self.variance * weight, 9) / np.maximum(near, 1e-6)
        n_frames = len(self.levels)
        own = n_frames / (n_frames + 50) if n_frames >= 100 else 0.0
        variance = own * self.variance + (1 - own) * smooth
        return np.asarray(np.sqrt(np.maximum(variance, 1e-30)), dtype=np.float32)

    def blocks(self) -> Iterator[tuple[Radiographs, Bool[np.ndarray, "frame row col"]]]:
        """Yield frames minus their mean at common brightness, and the mask of samples to use."""
        start = 0
        for block in self.source.blocks():
            levels = self.levels[start : start + len(block)]
            residual = block / levels[:, None, None] - self.mean
            yield residual, (np.abs(residual) <= self.limit) & self.good
            start += len(block)


def survey_frames(source: NoiseSource) -> StaticFrames:
    """Measure mean and variance of every pixel in one pass, and find flicker, zingers and bad pixels.

    The first 15 frames give a median and a scale, with which every frame is compared.  A sample more than 6 standard
    deviations of the noise away is a zinger and left out.  A pixel with too many zingers, with a variance unlike that
    of its neighbours, or without any variation is bad.

    Raises
    ------
    NoiseError
        The frames contain NaN, or no pixel varies.

    Examples
    --------
    >>> frames = np.random.default_rng(0).poisson(100, (40, 16, 16)).astype(np.float32)
    >>> frames[:, 3, 4] = 70; frames[7, 9, 9] = 5000
    >>> found = survey_frames(NoiseSource("static frames", frames))
    >>> np.argwhere(~found.good).tolist(), found.zingers
    ([[3, 4]], 1)
    """
    middle, limit = _first_look(source)
    use = np.ones(source.shape, bool) if source.use is None else source.use
    total, square = np.zeros(source.shape), np.zeros(source.shape)
    count, moved = np.zeros(source.shape, np.int32), np.zeros(source.shape, bool)
    levels: list[float] = []
    first = None
    for block in source.blocks():
        first = block[0].copy() if first is None else first
        moved |= (block != first).any(axis=0)
        for frame in block:
            levels.append(_level(frame, middle, limit, use) if source.levelled else 1.0)
            residual = frame / np.float32(levels[-1]) - middle
            fine = np.abs(residual) <= limit
            residual[~fine] = 0
            total, square, count = total + residual, square + residual.astype(np.float64) ** 2, count + fine
    n = np.maximum(count, 1)
    shift = total / n
    variance = ((square / n - shift**2) * n / np.maximum(n - 1, 1)).astype(np.float32)
    lost = len(levels) - count
    mean = (middle + shift).astype(np.float32)
    good = use & moved & (lost <= max(2, 0.02 * len(levels)))
    good &= ~_odd_ones(variance, good, len(levels))
    if source.levelled:
        good &= mean > 0.25 * local_median(mean, good)
    if np.count_nonzero(good) < 9:
        raise NoiseError(
            f"{source.name} must hold pixels that vary from frame to frame, got {np.count_nonzero(good)} of "
            f"{good.size}; give frames that were measured one by one, not averages"
        )
    return StaticFrames(source, mean, variance, good, np.array(levels), limit, int(lost[good].sum()))


def _first_look(source: NoiseSource) -> tuple[Frame, Frame]:
    """Return the median of a few frames, and 6 standard deviations of the noise, which grow with the signal."""
    n_pixels = source.shape[0] * source.shape[1]
    chosen = np.unique(np.linspace(0, source.n_frames - 1, min(15, max(3, 4 * BLOCK // n_pixels))).round().astype(int))
    few = np.stack([np.asarray(source.frames[int(index) : int(index) + 1], dtype=np.float32)[0] for index in chosen])
    if source.offset is not None:
        few -= source.offset
    if source.levelled:
        typical = np.array([max(float(np.median(frame)), 1e-6) for frame in few])
        few *= (typical.mean() / typical)[:, None, None] if typical.min() > 0.2 * typical.mean() else 1.0
    middle = np.median(few, axis=0) if len(few) > 2 else few.min(axis=0)
    bright = np.maximum(middle if source.brightness is None else source.brightness, 0)
    weight = np.sqrt(np.maximum(bright, max(0.05 * float(np.median(bright)), 1e-6)))
    apart = np.diff(few, axis=0) / (np.sqrt(2) * weight)
    scale = robust_sd(apart[np.isfinite(apart)])
    scale = scale or float(np.abs(apart).mean()) * 1.25
    more = np.sqrt(1 + np.pi / 2 / len(few))  # the median itself is noisy
    return middle.astype(np.float32), np.asarray(LIMIT * more * scale * weight + 1e-12, dtype=np.float32)


def _level(frame: Frame, middle: Frame, limit: Frame, use: PixelMask) -> float:
    """Return the brightness of a frame relative to `middle`, without zingers."""
    near = use & (np.abs(frame - middle) <= limit + 0.2 * np.abs(middle))
    expected = float(middle[near].sum(dtype=np.float64))
    level = float(frame[near].sum(dtype=np.float64)) / expected if expected > 0 else 1.0
    return level if level > 0.2 else 1.0


def _odd_ones(variance: Frame, good: PixelMask, n_frames: int) -> PixelMask:
    """Return the pixels whose variance is unlike that of their neighbours."""
    expected = local_median(variance, good)
    ratio = np.log(np.maximum(variance, 1e-30) / np.maximum(expected, 1e-30))
    spread = max(robust_sd(ratio[good]), float(np.sqrt(2 / max(n_frames - 1, 1)))) if good.any() else 1.0
    return np.asarray(np.abs(ratio) > max(7 * spread, np.log(2.0)) if n_frames >= 5 else ~np.isfinite(ratio))
