"""Exposure series: repeated frames of one scene, grouped by brightness."""

from __future__ import annotations

import dataclasses

import numpy as np

from quietray.detector.correction.frames import sampled_rows
from quietray.detector.noise.static import BLOCK, NoiseSource
from quietray.scan import chosen_frames

__all__ = ["exposures_of"]

_APART = 1.25  # ratio of brightness that cannot be caused by flicker or drift
_FEWEST = 5  # least number of frames per exposure
_ROWS = 16  # rows used to measure the brightness


def exposures_of(source: NoiseSource) -> tuple[NoiseSource, ...]:
    """Return the frames of each exposure as a separate source, the one with most frames first.

    Frames whose brightness differs by a quarter belong to different exposures, if there are at least five of each.
    Otherwise all frames are one exposure, and the source is returned unchanged.

    Parameters
    ----------
    source
        Repeated frames of one scene.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> frames = np.concatenate([rng.poisson(level, (6, 8, 9)) for level in (100, 400, 200)]).astype(np.float32)
    >>> series = exposures_of(NoiseSource("static frames", frames))
    >>> [round(float(one.frames[:].mean()), -1) for one in series]
    [400.0, 200.0, 100.0]
    """
    bright = _brightness(source)
    if not source.levelled or bright.min() <= 0:
        return (source,)
    order = np.argsort(bright, kind="stable")
    steps = np.flatnonzero(bright[order][1:] > _APART * bright[order][:-1]) + 1
    groups = [np.sort(group) for group in np.split(order, steps)]
    if len(groups) < 2 or min(len(group) for group in groups) < _FEWEST:
        return (source,)
    groups.sort(key=lambda group: (len(group), float(bright[group].mean())), reverse=True)
    return tuple(
        dataclasses.replace(
            source,
            frames=chosen_frames(source.frames, group),
            consecutive=source.consecutive and bool((np.diff(group) == 1).all()),
        )
        for group in groups
    )


def _brightness(source: NoiseSource) -> np.ndarray:
    """Return the median brightness of each frame above the dark, on a few rows."""
    rows = sampled_rows(source.shape[0], _ROWS)
    dark = 0.0 if source.offset is None else source.offset[rows]
    step = max(1, BLOCK // (_ROWS * source.shape[1]))
    levels = [
        np.median(np.asarray(source.frames[start : start + step, rows], np.float32) - dark, axis=(1, 2))
        for start in range(0, source.n_frames, step)
    ]
    return np.concatenate(levels)[: source.n_frames]
