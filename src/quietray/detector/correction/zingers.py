"""Zingers: samples that a stray gamma or cosmic ray made too bright in a single view."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor

from quietray.detector.correction.ranks import row_medians
from quietray.types import Radiographs

__all__ = ["find_zingers", "replace_zingers", "without_frame_zingers"]

Counts = Float[Tensor, "row view col"]
Mask = Bool[Tensor, "row view col"]
Samples = Float[Tensor, " sample"]
Places = Int[Tensor, " sample"]

_AT_ONCE = 2**18  # samples examined one by one, at a hundred bytes each


def find_zingers(counts: Counts, threshold: float, reach: int, quantum: float = 0.0, read_noise: float = 0.0) -> Mask:
    """Find samples that are too bright compared with the previous and next views.

    A zinger exceeds, by `threshold` standard deviations of the noise, both the same column in the four nearest views
    and every straight path through (view, column) with a slope of up to `reach` columns per view.  A thin gap that
    moves through the radiographs lies on such a path and is kept.  Samples next to a zinger in the same view are
    included if they exceed half the threshold.  Each row is examined separately.

    Parameters
    ----------
    counts
        ``(row, view, col)``, with views sorted by angle, after dark, flat and beam correction and multiplied by the
        mean of the row's flat: the noise variance must be approximately proportional to them.
    threshold
        In standard deviations of the noise; 0 finds nothing.
    reach
        Columns that a detail can move between neighbouring views.
    quantum, read_noise
        Counts per detected quantum and standard deviation of the dark, if known; they limit the noise, which is
        measured in each row.

    Examples
    --------
    >>> counts = np.random.default_rng(0).poisson(1000, (1, 40, 60)).astype(np.float32); counts[0, 20, 30:33] += 900
    >>> find_zingers(torch.from_numpy(counts), 6.0, 3).nonzero().tolist()
    [[0, 20, 30], [0, 20, 31], [0, 20, 32]]
    """
    n_views, n_cols = counts.shape[1:]
    zingers = torch.zeros(counts.shape, dtype=torch.bool, device=counts.device)
    if threshold <= 0 or n_views < 5 or counts.numel() == 0:
        return zingers
    noise = _Noise.measured(counts, quantum, read_noise)
    level = _four_nearest(counts)
    limit = noise.whole(level).mul_(0.5 * threshold)
    candidates = (counts - level).gt(limit).flatten().nonzero()[:, 0]
    del limit
    wide = _widened(counts)
    grown = []
    for places in candidates.split(_AT_ONCE):
        path = torch.maximum(level.take(places), _brightest_path(wide, places, reach))
        sd = torch.maximum(noise.at(path, places // (n_views * n_cols)), _change(counts, places))
        over = (counts.take(places) - path) / sd
        zingers.view(-1)[places[over > threshold]] = True
        grown.append(places[over > 0.5 * threshold])
    beside = torch.cat(grown)
    col = beside % n_cols
    before, after = beside - (col > 0).long(), beside + (col < n_cols - 1).long()
    flat = zingers.view(-1)
    for _ in range(4):
        flat[beside] = flat[beside] | flat[before] | flat[after]
    return zingers


def replace_zingers(values: Counts, zingers: Mask) -> Counts:
    """Return `values` with zingers replaced by the median of the six nearest samples in previous and next views.

    Parameters
    ----------
    values
        Values ``(row, view, col)``, with views sorted by angle.
    zingers
        Mask ``(row, view, col)`` of samples to replace; these are not used as neighbours if there are others.

    Examples
    --------
    >>> values = torch.ones(1, 5, 5); values[0, 2, 2] = 99
    >>> float(replace_zingers(values, values > 9).max())
    1.0
    """
    n_views, n_cols = values.shape[1:]
    out, level = values.clone(), None
    for places in zingers.flatten().nonzero()[:, 0].split(_AT_ONCE):
        line, col = places // n_cols, places % n_cols
        view = line % n_views
        before = torch.where(view > 0, line - 1, line + 1)
        after = torch.where(view < n_views - 1, line + 1, line - 1)
        near = torch.cat([_beside(before, col, 1, n_cols), _beside(after, col, 1, n_cols)])
        samples = torch.where(zingers.take(near), torch.inf, values.take(near)).sort(dim=0).values
        count = samples.isfinite().sum(dim=0)
        middle = torch.stack([(count - 1).clamp(min=0) // 2, (count // 2).clamp(max=5)])
        median = samples.gather(0, middle).mean(dim=0)
        if bool((lost := count == 0).any()):
            level = _four_nearest(values) if level is None else level
            median[lost] = level.take(places[lost])
        out.view(-1)[places] = median
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
    """Return whole frames with the samples replaced that are too bright compared with both neighbouring frames.

    A zinger exceeds every straight path through it by `threshold` standard deviations of the noise.  A detail that
    moves by up to `reach` columns per frame lies on such a path and appears in *both* neighbouring frames, so a second
    zinger in only one of them does not prevent detection.  Samples around a zinger are included if they exceed half the
    threshold.

    Parameters
    ----------
    counts, before, after
        ``(frame, row, col)`` frames, and for each its two neighbours in the order of the angles, after dark
        subtraction.
    away
        ``(2, frame)`` distance of `before` and `after` in frames: -1 and 1, or both on one side at the ends.
    threshold
        In standard deviations of the noise.
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


class _Noise:
    """Noise of each row at a given level, with two extra quanta to keep it realistic at few quanta."""

    def __init__(self, gain: Tensor, least: Tensor, read_noise: float) -> None:
        self._gain, self._more, self._least = gain.float(), (2 * gain).float(), least.float()
        self._read = read_noise**2

    @classmethod
    def measured(cls, counts: Counts, quantum: float, read_noise: float) -> _Noise:
        gain = _noise_gain(counts, read_noise).clamp(min=0.5 * quantum)
        least = 0.002 * row_medians(counts.abs().flatten(1)).double()
        return cls(gain, least.clamp(min=1e-12), read_noise)

    def whole(self, level: Counts) -> Counts:
        """Return the noise at the level of every sample."""
        gain, more, least = (own[:, None, None] for own in (self._gain, self._more, self._least))
        return level.clamp(min=0).add_(more).mul_(gain).add_(self._read).sqrt_().clamp_(min=least)

    def at(self, level: Samples, row: Places) -> Samples:
        """Return the noise of some samples."""
        variance = self._gain[row] * (level.clamp(min=0) + self._more[row]) + self._read
        return torch.maximum(variance.sqrt(), self._least[row])


def _four_nearest(counts: Counts) -> Counts:
    """Return the mean of the middle two of the four nearest views, for each column."""
    n = counts.shape[1]
    padded = torch.cat([counts[:, [2, 1]], counts, counts[:, [n - 2, n - 3]]], dim=1)
    a, b, c, d = padded[:, :n], padded[:, 1 : n + 1], padded[:, 3 : n + 3], padded[:, 4:]
    level = (a + b).add_(c).add_(d)
    level -= torch.minimum(torch.minimum(a, b), torch.minimum(c, d))
    level -= torch.maximum(torch.maximum(a, b), torch.maximum(c, d))
    return level.div_(2)


def _noise_gain(counts: Counts, read_noise: float) -> Float[Tensor, " row"]:
    """Return the variance per count of the brighter half of each row, from second differences along the views."""
    before, here, after = counts[:, :-2], counts[:, 1:-1], counts[:, 2:]
    level = (before + here).add_(after).div_(3).clamp_(min=0).flatten(1)
    bright = level > row_medians(level)[:, None]
    bright |= (level > 0) & ~bright.any(dim=1, keepdim=True)
    light = row_medians(level, bright).double()
    second = (before - 2 * here).add_(after).abs_().flatten(1)
    spread = 1.4826 * row_medians(second.div_(level.mul_(6).sqrt_()), bright).double()
    return (spread**2 - read_noise**2 / light).nan_to_num(0.0).clamp(min=0)  # NaN if there is no light


def _widened(counts: Counts) -> Counts:
    """Return the maximum over three columns around each column."""
    out = counts.clone()
    torch.maximum(out[:, :, 1:], counts[:, :, :-1], out=out[:, :, 1:])
    torch.maximum(out[:, :, :-1], counts[:, :, 1:], out=out[:, :, :-1])
    return out


def _beside(line: Places, col: Places, away: int, n_cols: int) -> Int[Tensor, "near sample"]:
    """Return the positions of up to `away` columns on either side; positions at the end are repeated."""
    steps = torch.arange(-away, away + 1, device=col.device)[:, None]
    return line * n_cols + (col + steps).clamp_(0, n_cols - 1)


def _change(counts: Counts, places: Places) -> Samples:
    """Return the variation of neighbouring views beside each sample: 3/4 of the standard deviation over 7 columns."""
    n_views, n_cols = counts.shape[1:]
    line, col = places // n_cols, places % n_cols
    view = line % n_views
    before = torch.where(view > 0, line - 1, line + 1)
    after = torch.where(view == 0, line + 2, torch.where(view < n_views - 1, line + 1, line - 2))
    apart = counts.take(_beside(before, col, 3, n_cols)) - counts.take(_beside(after, col, 3, n_cols))
    return apart.abs_().median(dim=0).values.mul_(0.75 * 1.4826 / math.sqrt(2))


def _brightest_path(wide: Counts, places: Places, reach: int) -> Samples:
    """Return, for each sample, the largest level of a straight path through it, over all slopes.

    The level of a path is the smaller of its samples in the previous and next views.  Each sample is the maximum over
    three columns, to allow for curved paths and details between two pixels.  The first and last views have only one
    neighbour.
    """
    n_views, n_cols = wide.shape[1:]
    line, col = places // n_cols, places % n_cols
    view = line % n_views
    first, last = view == 0, view == n_views - 1
    before, after = torch.where(first, line, line - 1) * n_cols, torch.where(last, line, line + 1) * n_cols
    best = torch.full(places.shape, -torch.inf, dtype=wide.dtype, device=wide.device)
    for shift in range(-reach, reach + 1):
        back = wide.take(before + (col - shift).clamp_(0, n_cols - 1)).masked_fill_(first, torch.inf)
        ahead = wide.take(after + (col + shift).clamp_(0, n_cols - 1)).masked_fill_(last, torch.inf)
        best = torch.maximum(best, torch.minimum(back, ahead))
    return best
