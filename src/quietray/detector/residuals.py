"""Noise residuals of static frames, standardised and free of row offsets, as they stream by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from quietray.detector.lags import Lags
from quietray.detector.static import StaticFrames
from quietray.types import Frame, Radiographs

__all__ = ["MAP_WINDOW", "Residuals"]

MAP_WINDOW = 7


class Residuals:
    """One pass over the residuals of static frames, and what is summed beside their power spectrum.

    Parameters
    ----------
    static
        The frames, surveyed.
    method
        ``"differences"`` or ``"mean"``.
    apart
        Frames between the two of a difference.

    Examples
    --------
    >>> from quietray.detector.static import NoiseSource, survey_frames
    >>> frames = np.random.default_rng(0).poisson(100, (9, 16, 16)).astype(np.float32)
    >>> [block.shape for block in Residuals(survey_frames(NoiseSource("flats", frames)), "differences", 3)]
    [(6, 16, 16)]
    """

    def __init__(self, static: StaticFrames, method: str, apart: int) -> None:
        self.static, self.method, self.apart = static, method, apart
        self.n_good = static.good.sum(axis=1)
        self.rows, self.columns, self.n = 0.0, 0.0, 0
        self.near = np.zeros(static.good.shape)
        self.changes = np.zeros((2, 2))  # squares of differences of frames 1 and `apart` apart, and their number

    def __iter__(self) -> Iterator[Radiographs]:
        spread = self.static.spread()
        before: list[np.ndarray] = []
        for block, fine in self.static.blocks():
            scaled = np.where(fine, block / spread, np.float32(np.nan))
            out = []
            for frame in scaled:
                self._compare(before, frame)
                if self.method == "mean":
                    out.append(frame)
                elif len(before) >= self.apart:
                    out.append((frame - before[-self.apart]) / np.float32(np.sqrt(2)))
                before = [*before, frame][-max(self.apart, 3) :]
            if out:
                yield self._finish(np.stack(out))

    def _compare(self, before: list[np.ndarray], frame: np.ndarray) -> None:
        """Sum up squared differences to the last frame and to the third last."""
        for index, lag in enumerate((1, 3)):
            if len(before) >= lag:
                change = (frame - before[-lag])[self.static.good]
                self.changes[index] += float(np.nansum(change**2)), float(np.count_nonzero(~np.isnan(change)))

    def _finish(self, residuals: np.ndarray) -> Radiographs:
        """Return residuals without row means, zero where they do not count, and sum up rows, columns and neighbours."""
        fine: Bool[np.ndarray, "frame row col"] = ~np.isnan(residuals)
        residuals = np.where(fine, residuals, 0)
        count = np.maximum(fine.sum(axis=2, dtype=np.int32), 1)
        means = residuals.sum(axis=2) / count
        used = self.n_good > 1
        self.rows += float((means[:, used] ** 2).mean(axis=1).sum()) if used.any() else 0.0
        residuals = np.where(fine, residuals - means[:, :, None], 0).astype(np.float32)
        tall = fine.sum(axis=1, dtype=np.int32)
        columns = residuals.sum(axis=1) / np.maximum(tall, 1)
        self.columns += float((columns**2).sum() / max(np.count_nonzero(tall > 1) / len(residuals), 1))
        box = (1, MAP_WINDOW, MAP_WINDOW)
        around = ndimage.uniform_filter(residuals, box, mode="constant") * MAP_WINDOW**2 - residuals
        self.near += (residuals * around).sum(axis=0)
        self.n += len(residuals)
        return residuals

    def row_width(self) -> float:
        """Return how many pixels a row mean is made of, typically."""
        used = self.n_good[self.n_good > 0]
        return float(used.sum() / len(used))

    def shares(self, lags: Lags, width: float) -> tuple[float, float]:
        """Return the share of the variance that rows, and columns, have in common."""
        cy, cx = lags.shape[0] // 2, lags.shape[1] // 2
        whole = self.rows / self.n - lags[cy].sum() / width
        tall = max(float(np.median(self.static.good.sum(axis=0)[self.static.good.any(axis=0)])), 1.0)
        column = self.columns / self.n - lags[:, cx].sum() / tall
        column /= max(1 - lags.shape[0] / tall, 0.1)
        variance = lags[cy, cx] + max(whole, 0.0)
        return float(max(whole, 0.0) / variance), float(max(column, 0.0) / variance)

    def neighbours(self, lags: Lags, width: float) -> Frame:
        """Return each pixel's summed correlation with its neighbours, corrected for missing ones and for row means."""
        good = self.static.good.astype(np.float32)
        size = MAP_WINDOW**2
        present = ndimage.uniform_filter(good, MAP_WINDOW, mode="constant") * size - good
        cy, cx = lags.shape[0] // 2, lags.shape[1] // 2
        reach = min(MAP_WINDOW // 2, cy)
        taken = MAP_WINDOW * lags[cy - reach : cy + reach + 1].sum() / width - lags[cy].sum() / width
        out = (self.near / self.n * (size - 1) / np.maximum(present, 1) + taken) / lags[cy, cx]
        return np.asarray(np.where(self.static.good & (present > 0.5 * size), out, np.nan), dtype=np.float32)

    def successive(self, lags: Lags, samples: float) -> tuple[float, float] | None:
        """Return the correlation of successive frames: differences one apart against those three apart."""
        if not self.static.source.consecutive or self.changes[:, 1].min() == 0 or len(self.static.levels) < 5:
            return None
        near, far = self.changes[:, 0] / self.changes[:, 1]
        clumps = float((lags**2).sum() / lags[lags.shape[0] // 2, lags.shape[1] // 2] ** 2)
        return 1 - near / far, 2.0 * float(np.sqrt(clumps / samples))
