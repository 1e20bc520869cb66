"""Zingers: samples that a stray gamma or cosmic ray made too bright in one single view."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from quietray.types import Radiographs

__all__ = ["find_zingers", "replace_zingers", "without_frame_zingers"]

Sinogram = Float[np.ndarray, "view col"]


def find_zingers(
    counts: Sinogram, threshold: float, reach: int, quantum: float = 0.0, read_noise: float = 0.0
) -> Bool[np.ndarray, "view col"]:
    """Find the samples that are too bright for their neighbours in the views before and after.

    A zinger exceeds, by `threshold` noise sds, both the same column in the four nearest views and every straight path
    through (view, column) of up to `reach` columns per view: a thin gap that moves through the radiographs lies on such
    a path and is kept.  Samples beside a zinger, in the same view, go with it when they exceed half the threshold.

    Parameters
    ----------
    counts
        ``(view, col)`` of one row, views in the order of their angles, dark-subtracted and corrected for flat and beam,
        times the mean of the flat: the noise variance must be about proportional to them.
    threshold
        In noise sds; 0 finds nothing.
    reach
        Columns that a detail can move between neighbouring views.
    quantum, read_noise
        Counts per detected quantum and sd of the dark, where known; the noise is measured in the row, these bound it.

    Examples
    --------
    >>> counts = np.random.default_rng(0).poisson(1000, (40, 60)).astype(np.float32); counts[20, 30:33] += 900
    >>> np.argwhere(find_zingers(counts, 6.0, 3)).tolist()
    [[20, 30], [20, 31], [20, 32]]
    """
    n_views = len(counts)
    if threshold <= 0 or n_views < 5:
        return np.zeros(counts.shape, bool)
    level = _four_nearest(counts)
    gain = max(_noise_gain(counts, read_noise), 0.5 * quantum)
    least = 0.002 * float(np.median(np.abs(counts)))
    excess = counts - level
    view, col = np.nonzero(excess > 0.5 * threshold * _noise(level, gain, read_noise, least))
    path = np.maximum(level[view, col], _brightest_path(counts, view, col, reach))
    over = (counts[view, col] - path) / np.maximum(_noise(path, gain, read_noise, least), _change(counts, view, col))
    seeds, grown = np.zeros(counts.shape, bool), np.zeros(counts.shape, bool)
    seeds[view, col], grown[view, col] = over > threshold, over > 0.5 * threshold
    if not seeds.any():
        return seeds
    along = np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0]], bool)
    return np.asarray(ndimage.binary_dilation(seeds, along, iterations=4, mask=grown))


def replace_zingers(values: Sinogram, zingers: Bool[np.ndarray, "view col"]) -> Sinogram:
    """Return `values` with zingers replaced by the median of the six nearest samples in the views before and after.

    Parameters
    ----------
    values
        ``(view, col)``, views in the order of their angles.
    zingers
        ``(view, col)`` samples to replace; they are not used as neighbours either, while others are left.

    Examples
    --------
    >>> values = np.ones((5, 5), np.float32); values[2, 2] = 99
    >>> float(replace_zingers(values, values > 9).max())
    1.0
    """
    view, col = np.nonzero(zingers)
    if view.size == 0:
        return values
    n_views, n_cols = values.shape
    before, after = np.where(view > 0, view - 1, view + 1), np.where(view < n_views - 1, view + 1, view - 1)
    around = np.clip(col + np.array([[-1], [0], [1]]), 0, n_cols - 1)
    rows = np.concatenate([np.broadcast_to(before, around.shape), np.broadcast_to(after, around.shape)])
    cols = np.concatenate([around, around])
    near = np.where(zingers[rows, cols], np.nan, values[rows, cols])
    lost = np.isnan(near).all(axis=0)
    near[:, lost] = _four_nearest(values)[view, col][lost]
    out = values.copy()
    out[view, col] = np.nanmedian(near, axis=0)
    return out


def without_frame_zingers(
    counts: Radiographs,
    before: Radiographs,
    after: Radiographs,
    away: Int[np.ndarray, "2 frame"],
    threshold: float,
    noise: tuple[float, float],
    reach: int,
) -> Radiographs:
    """Return whole frames with the samples replaced that are too bright for the two frames beside each.

    A zinger exceeds, by `threshold` noise sds, every straight path through it: on a path lies a detail that moves by up
    to `reach` columns per frame, and shows in *both* frames beside.  So a zinger near it in one of them does not hide
    it.  Samples around a zinger go with it when they exceed half the threshold.

    Parameters
    ----------
    counts, before, after
        ``(frame, row, col)`` frames, and for each the two that are beside it in order of their angles, less the dark.
    away
        ``(2, frame)`` how many frames away `before` and `after` are: -1 and 1, or at the ends both on one side.
    threshold
        In noise sds.
    noise
        Variance per count, and variance without light.
    reach
        Columns that a detail can move between neighbouring frames.

    Examples
    --------
    >>> frames = np.random.default_rng(0).poisson(1000, (3, 20, 30)).astype(np.float32)
    >>> hit = frames[1:2].copy(); hit[0, 5, 7] += 900
    >>> mended = without_frame_zingers(hit, frames[:1], frames[2:], np.array([[-1], [1]]), 8.0, (1.0, 0.0), 2)
    >>> np.argwhere(mended != hit).tolist()
    [[0, 5, 7]]
    """

    def sd(level: np.ndarray) -> np.ndarray:
        return np.asarray(np.sqrt(noise[0] * np.maximum(level, 0) + noise[1] + 1e-12), dtype=np.float32)

    half, low = np.float32(0.5 * threshold), np.minimum(before, after)
    found = np.nonzero(counts > low + half * sd(low))
    wide = [ndimage.maximum_filter(frames, (1, 3, 3), mode="nearest") for frames in (before, after)]
    path = np.full(found[0].shape, -np.inf, np.float32)
    for shift in sorted(range(-reach, reach + 1), key=abs):
        frame, row, col = found
        seen = [
            frames[frame, row, np.clip(col + shift * steps[frame], 0, counts.shape[2] - 1)]
            for frames, steps in zip(wide, away, strict=True)
        ]
        path = np.maximum(path, np.minimum(*seen))
        left = counts[found] > path + half * sd(path)
        found, path = tuple(index[left] for index in found), path[left]
    frame, row, col = found
    beside = np.clip(col + np.arange(-3, 4)[:, None], 0, counts.shape[2] - 1)
    change = (
        np.median(np.abs(before[frame, row, beside] - after[frame, row, beside]), axis=0) * 0.75 * 1.4826 / np.sqrt(2)
    )
    over = (counts[found] - path) / np.maximum(sd(path), change)
    seeds, grown = np.zeros(counts.shape, bool), np.zeros(counts.shape, bool)
    seeds[found], grown[found] = over > threshold, over > 0.5 * threshold
    zingers = ndimage.binary_dilation(seeds, np.ones((1, 3, 3), bool)) & grown
    alike = np.abs(before - after) < threshold * sd(low)
    return np.where(zingers, np.where(alike, (before + after) / 2, low), counts)


def _four_nearest(counts: Sinogram) -> Sinogram:
    """Return the mean of the middle two of the four nearest views, column by column."""
    padded = np.pad(counts, ((2, 2), (0, 0)), mode="reflect")
    n = len(counts)
    a, b, c, d = padded[:n], padded[1 : n + 1], padded[3 : n + 3], padded[4:]
    low, high = np.minimum(np.minimum(a, b), np.minimum(c, d)), np.maximum(np.maximum(a, b), np.maximum(c, d))
    return np.asarray((a + b + c + d - low - high) / 2)


def _noise_gain(counts: Sinogram, read_noise: float) -> float:
    """Return the variance per count of the brighter half of the samples, from second differences along the views."""
    level = np.maximum((counts[:-2] + counts[1:-1] + counts[2:]) / 3, 0)
    bright = level > max(float(np.median(level)), 0.0)
    if not bright.any():
        bright = level > 0
    if not bright.any():
        return 0.0
    second = np.abs(counts[:-2] - 2 * counts[1:-1] + counts[2:])[bright]
    spread = 1.4826 * float(np.median(second / np.sqrt(6 * level[bright])))
    return max(spread**2 - read_noise**2 / float(np.median(level[bright])), 0.0)


def _noise(level: Float[np.ndarray, " ..."], gain: float, read_noise: float, least: float) -> Float[np.ndarray, " ..."]:
    """Return the noise sd at a level; two quanta more than the level keep it fair where only few quanta arrive."""
    variance = gain * (np.maximum(level, 0) + 2 * gain) + read_noise**2
    return np.asarray(np.maximum(np.sqrt(variance), max(least, 1e-12)), dtype=level.dtype)


def _change(counts: Sinogram, view: Int[np.ndarray, " n"], col: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return how much the views around differ beside each sample: three quarters of the sd, over seven columns."""
    n_views, n_cols = counts.shape
    before = np.where(view > 0, view - 1, 1)
    after = np.where(view == 0, 2, np.where(view < n_views - 1, view + 1, n_views - 3))
    around = np.clip(col + np.arange(-3, 4)[:, None], 0, n_cols - 1)
    apart = np.median(np.abs(counts[before, around] - counts[after, around]), axis=0)
    return np.asarray(0.75 * 1.4826 / np.sqrt(2) * apart, dtype=counts.dtype)


def _brightest_path(
    counts: Sinogram, view: Int[np.ndarray, " n"], col: Int[np.ndarray, " n"], reach: int
) -> Float[np.ndarray, " n"]:
    """Return, for each sample, the largest level of a straight path through it, over paths of different slope.

    The level of a path is the smaller of its samples in the views before and after, each the largest of three columns,
    which forgives curved paths and details between two pixels.  At the first and last view there is only one of them.
    """
    n_views, n_cols = counts.shape
    wide = ndimage.maximum_filter1d(counts, 3, axis=1, mode="nearest")
    best = np.full(view.shape, -np.inf, counts.dtype)
    first, last = view == 0, view == n_views - 1
    before, after = np.maximum(view - 1, 0), np.minimum(view + 1, n_views - 1)
    for shift in range(-reach, reach + 1):
        back = np.where(first, np.inf, wide[before, np.clip(col - shift, 0, n_cols - 1)])
        ahead = np.where(last, np.inf, wide[after, np.clip(col + shift, 0, n_cols - 1)])
        best = np.maximum(best, np.minimum(back, ahead).astype(counts.dtype))
    return best
