"""Residuals of static frames, standardised and without row offsets, computed while the frames are read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from scipy import linalg, ndimage

from quietray.detector.noise.lags import Lags
from quietray.detector.noise.static import StaticFrames
from quietray.types import Frame, Radiographs

__all__ = ["MAP_WINDOW", "Residuals", "pairs_apart"]

MAP_WINDOW = 7


def pairs_apart(n_frames: int, apart: int) -> tuple[Float[np.ndarray, "tap frame"], float]:
    """Return filters whose squared outputs sum to the squared differences of all pairs `apart` to twice that apart.

    The sum over the pairs is a quadratic form, the Laplacian of the graph that connects them, and the filters are its
    Cholesky factor.  One residual per frame thus replaces one residual per pair.

    Parameters
    ----------
    n_frames
        Number of frames in the stack.
    apart
        Smallest distance between the two frames of a pair.

    Returns
    -------
    taps, effective
        ``(tap, frame)``: output t is the sum over k of ``taps[k, t]`` times frame ``t - k``; the first output is zero,
        the mean square of the others is the variance of a frame.  `effective` is the equivalent number of independent
        frames: ``n_frames - 1`` for all pairs, about two thirds of the frames for pairs of one distance.

    Examples
    --------
    >>> taps, effective = pairs_apart(3, 1)
    >>> round(float((taps[:, 1:] ** 2).sum()) / 2, 6), round(effective, 6)
    (1.0, 2.0)
    """
    widest = min(2 * apart, n_frames - 1)
    bands = np.zeros((widest + 1, n_frames))
    for distance in range(min(apart, widest), widest + 1):
        bands[distance, : n_frames - distance] = -1
        bands[0, : n_frames - distance] += 1
        bands[0, distance:] += 1
    total = float(bands[0].sum())
    effective = total**2 / float((bands[0] ** 2).sum() + 2 * (bands[1:] ** 2).sum())
    bands[0] += 1e-9  # the Laplacian is singular: no difference contains the mean of all frames
    taps = linalg.cholesky_banded(bands, lower=True)[:, ::-1] * np.sqrt((n_frames - 1) / total)
    taps[:, 0] = 0
    return np.asarray(taps), effective


class Residuals:
    """One pass over the residuals of static frames, with sums in addition to their power spectrum.

    Parameters
    ----------
    static
        The frames with their statistics.
    method
        ``"differences"`` or ``"mean"``.
    apart
        Smallest distance of the frames of a difference; the largest is twice as far.

    Examples
    --------
    >>> from quietray.detector.noise.static import NoiseSource, survey_frames
    >>> frames = np.random.default_rng(0).poisson(100, (9, 16, 16)).astype(np.float32)
    >>> [block.shape for block in Residuals(survey_frames(NoiseSource("flats", frames)), "differences", 3)]
    [(8, 16, 16)]
    """

    def __init__(self, static: StaticFrames, method: str, apart: int) -> None:
        self.static, self.method, self.apart = static, method, apart
        self.n_good = static.good.sum(axis=1)
        self.rows, self.columns, self.n = 0.0, 0.0, 0
        self.near = np.zeros(static.good.shape)
        self.changes = np.zeros((2, 2))  # squared differences of frames 1 and 3 apart, and their number

    def __iter__(self) -> Iterator[Radiographs]:
        spread, number = np.where(self.static.good, self.static.spread(), 1), 0
        taps, _ = pairs_apart(len(self.static.levels), self.apart)
        before: list[np.ndarray] = []
        for block, fine in self.static.blocks():
            scaled = np.where(fine, block / spread, np.float32(0))  # the mean of the pixel in place of a zinger
            out = []
            for frame in scaled:
                self._compare(before, frame)
                if self.method == "mean":
                    out.append(frame)
                elif number > 0:
                    out.append(_filtered(frame, before, taps[:, number]))
                before, number = [*before, frame][-max(len(taps) - 1, 3) :], number + 1
            if out:
                yield self._finish(np.stack(out))

    def _compare(self, before: list[np.ndarray], frame: np.ndarray) -> None:
        """Sum up squared differences to the last frame and to the third last."""
        for index, lag in enumerate((1, 3)):
            if len(before) >= lag:
                change = frame - before[-lag]
                self.changes[index] += float((change**2).sum(dtype=np.float64)), float(self.n_good.sum())

    def _finish(self, residuals: np.ndarray) -> Radiographs:
        """Return residuals without row means, zero where excluded; also sum up rows, columns and neighbours."""
        good = self.static.good
        means = residuals.sum(axis=2) / np.maximum(self.n_good, 1)
        used = self.n_good > 1
        self.rows += float((means[:, used] ** 2).mean(axis=1).sum()) if used.any() else 0.0
        residuals = np.where(good, residuals - means[:, :, None], 0).astype(np.float32)
        tall = good.sum(axis=0)
        columns = residuals.sum(axis=1) / np.maximum(tall, 1)
        self.columns += float((columns**2).sum() / max(np.count_nonzero(tall > 1), 1))
        box = (1, MAP_WINDOW, MAP_WINDOW)
        around = ndimage.uniform_filter(residuals, box, mode="constant") * MAP_WINDOW**2 - residuals
        self.near += (residuals * around).sum(axis=0)
        self.n += len(residuals)
        return residuals

    def row_width(self) -> float:
        """Return the typical number of pixels in a row mean."""
        used = self.n_good[self.n_good > 0]
        return float(used.sum() / len(used))

    def shares(self, lags: Lags, width: float) -> tuple[float, float]:
        """Return the fractions of the variance that rows and columns have in common."""
        cy, cx = lags.shape[0] // 2, lags.shape[1] // 2
        whole = self.rows / self.n - lags[cy].sum() / width
        tall = max(float(np.median(self.static.good.sum(axis=0)[self.static.good.any(axis=0)])), 1.0)
        column = self.columns / self.n - lags[:, cx].sum() / tall
        column /= max(1 - lags.shape[0] / tall, 0.1)
        variance = lags[cy, cx] + max(whole, 0.0)
        return float(max(whole, 0.0) / variance), float(max(column, 0.0) / variance)

    def neighbours(self, lags: Lags, width: float) -> Frame:
        """Return the summed correlation of each pixel with its neighbours, corrected for missing ones and row means."""
        good = self.static.good.astype(np.float32)
        size = MAP_WINDOW**2
        present = ndimage.uniform_filter(good, MAP_WINDOW, mode="constant") * size - good
        cy, cx = lags.shape[0] // 2, lags.shape[1] // 2
        reach = min(MAP_WINDOW // 2, cy)
        taken = MAP_WINDOW * lags[cy - reach : cy + reach + 1].sum() / width - lags[cy].sum() / width
        out = (self.near / self.n * (size - 1) / np.maximum(present, 1) + taken) / lags[cy, cx]
        return np.asarray(np.where(self.static.good & (present > 0.5 * size), out, np.nan), dtype=np.float32)

    def successive(self, lags: Lags, samples: float) -> tuple[float, float] | None:
        """Return the correlation of consecutive frames, from differences one apart and three apart."""
        if not self.static.source.consecutive or self.changes[:, 1].min() == 0 or len(self.static.levels) < 5:
            return None
        near, far = self.changes[:, 0] / self.changes[:, 1]
        clumps = float((lags**2).sum() / lags[lags.shape[0] // 2, lags.shape[1] // 2] ** 2)
        return 1 - near / far, 2.0 * float(np.sqrt(clumps / samples))


def _filtered(frame: np.ndarray, before: list[np.ndarray], taps: Float[np.ndarray, " tap"]) -> np.ndarray:
    out = np.float32(taps[0]) * frame
    for tap, earlier in zip(taps[1:], reversed(before), strict=False):
        out += np.float32(tap) * earlier
    return out
