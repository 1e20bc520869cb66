"""Frames whose noise is whitened when they are read, with one kernel or several for different regions.

The inverse of a point response is a short kernel, so whitening a band of rows only needs a small margin.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import fft, ndimage

from quietray.detector.correction.zingers import without_frame_zingers
from quietray.detector.response.response import PointResponse
from quietray.detector.response.roots import Kernel
from quietray.errors import NoiseError
from quietray.types import Frame, Frames, PixelMask, Radiographs

__all__ = ["WhitenedFrames"]

_AT_ONCE = 2**22  # in pixels


@dataclass(frozen=True, eq=False)
class WhitenedFrames:
    """Frames whitened when they are read; float32 counts above the dark, possibly negative.

    Parameters
    ----------
    frames
        Measured frames ``(frame, row, col)``; may be lazy.
    response
        The response that is deconvolved.
    dark
        Counts ``(row, col)`` that are subtracted first; None for none.
    bad
        Mask ``(row, col)`` of pixels that are first filled from their neighbours, because deconvolution would spread
        them; None for none.
    zingers
        Samples that exceed both neighbouring frames by this many standard deviations of the noise are first replaced; 0
        keeps all.
    noise
        Variance per count, and variance without light, from which the noise is computed.
    order
        Order in which consecutive frames are similar, ``(frame,)``, such as that of their angles; None for the stored
        order.
    reach
        Columns that a detail can move between neighbouring frames.
    inverse
        Whether the response is deconvolved; False convolves with it instead.

    Examples
    --------
    >>> response = PointResponse(np.array([[0.0, 0, 0], [0.1, 0.8, 0.1], [0, 0, 0]]))
    >>> frame = np.zeros((1, 5, 40), np.float32); frame[0, 2, 19:22] = 0.1, 0.8, 0.1
    >>> np.abs(WhitenedFrames(frame, response)[0:1][0, 2, 18:23]).round(4).tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0]
    """

    frames: Frames
    response: PointResponse
    dark: Frame | None = None
    bad: PixelMask | None = None
    zingers: float = 0.0
    noise: tuple[float, float] = (1.0, 0.0)
    order: np.ndarray | None = None
    reach: int = 2
    inverse: bool = True
    _parts: tuple[_Part, ...] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_parts", _parts(self.response, self.shape[1:], self.inverse))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``(n_frames, n_rows, n_cols)``."""
        return tuple(int(size) for size in self.frames.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Single precision."""
        return np.dtype(np.float32)

    def __getitem__(self, key: Any) -> Any:
        keys = (*(key if isinstance(key, tuple) else (key,)), slice(None), slice(None))[:3]
        chosen, rows = range(self.shape[0])[keys[0]], range(self.shape[1])[keys[1]]
        alone, single = isinstance(chosen, int), isinstance(rows, int)
        index = np.array([chosen] if isinstance(chosen, int) else chosen, dtype=np.intp)
        wanted = np.array([rows] if isinstance(rows, int) else rows, dtype=np.intp)
        out = np.empty((len(index), len(wanted), self.shape[2]), np.float32)
        step = max(1, _AT_ONCE // (self.shape[2] * max(1, int(np.ptp(wanted)) + 1 if len(wanted) else 1)))
        for start in range(0, len(index) if len(wanted) else 0, step):
            out[start : start + step] = self._whitened(index[start : start + step], wanted)
        out = out[:, :, keys[2]]
        return out[(0 if alone else slice(None), 0 if single else slice(None))]

    def _whitened(self, index: np.ndarray, wanted: np.ndarray) -> Radiographs:
        low, high = int(wanted.min()), int(wanted.max()) + 1
        out = np.zeros((len(index), high - low, self.shape[2]), np.float32)
        n_rows = self.shape[1]
        margin = max(part.radii[0] for part in self._parts)
        first, last = max(0, low - margin - 4), min(n_rows, high + margin + 4)
        band = self._clean(index, slice(first, last))
        for part in self._parts:
            part.add(out, band, low, first)
        return out[:, wanted - low]

    def _clean(self, index: np.ndarray, rows: slice) -> Radiographs:
        """Read a band of rows of some frames, minus the dark, without bad pixels and zingers."""
        counts = self._read(index, rows)
        if self.zingers > 0 and self.shape[0] >= 3:
            position = np.arange(self.shape[0]) if self.order is None else np.asarray(self.order)
            place = np.argsort(position)[index]
            before = position[np.where(place > 0, place - 1, place + 2 - (self.shape[0] == 2))]
            after = position[np.where(place < self.shape[0] - 1, place + 1, place - 2)]
            away = np.argsort(position)[np.stack([before, after])] - place  # at the ends, both are on the same side
            counts = without_frame_zingers(
                counts, self._read(before, rows), self._read(after, rows), away, self.zingers, self.noise, self.reach
            )
        return counts

    def _read(self, index: np.ndarray, rows: slice) -> Radiographs:
        if len(index) > 1 and (np.diff(index) == 1).all():
            counts = np.array(self.frames[int(index[0]) : int(index[-1]) + 1, rows], dtype=np.float32)
        else:
            counts = np.stack([np.asarray(self.frames[int(i) : int(i) + 1, rows], np.float32)[0] for i in index])
        if self.dark is not None:
            counts -= self.dark[rows]
        return counts if self.bad is None else _filled(counts, self.bad[rows])


@dataclass(frozen=True, eq=False)
class _Part:
    """A kernel, the region of the detector where it is applied, and its weight ``(row, col)`` in the result."""

    kernel: Kernel
    rows: tuple[int, int]
    cols: tuple[int, int]
    weight: Float[np.ndarray, "row col"] | None
    sharp: bool

    @property
    def radii(self) -> tuple[int, int]:
        return self.kernel.shape[0] // 2, self.kernel.shape[1] // 2

    def add(self, out: Radiographs, band: np.ndarray, low: int, first: int) -> None:
        """Add the contribution of this part to rows ``low:low + len``, from a band that begins at row `first`."""
        n_rows, n_cols = out.shape[1], band.shape[2]
        top, bottom = max(low, self.rows[0]), min(low + n_rows, self.rows[1])
        if top >= bottom:
            return
        (ry, rx), (left, right) = self.radii, self.cols
        ends = self.rows if self.sharp else (0, 2**31)
        y0, y1 = max(top - ry, first, ends[0]), min(bottom + ry, first + band.shape[1], ends[1])
        x0, x1 = (left, right) if self.sharp else (max(0, left - rx), min(n_cols, right + rx))
        piece = _convolved(band[:, y0 - first : y1 - first, x0:x1], self.kernel)
        piece = piece[:, top - y0 : bottom - y0, left - x0 : right - x0]
        if self.weight is not None:
            piece = piece * self.weight[top - self.rows[0] : bottom - self.rows[0]]
        out[:, top - low : bottom - low, left:right] += piece


def _parts(response: PointResponse, shape: tuple[int, ...], inverse: bool) -> tuple[_Part, ...]:
    """Return the kernels to apply; the weights of blended regions add up to one everywhere."""
    n_rows, n_cols = shape
    if response.detectors:
        raise NoiseError(
            f"frames must be of one detector, got responses of {len(response.detectors)} detectors; whiten the scan, "
            "or blur it back: it holds the detector of each frame"
        )
    if not response.regions:
        kernel = response.inverse() if inverse else response.kernel
        return (_Part(kernel, (0, n_rows), (0, n_cols), None, False),)
    kernels = [response.inverse(kernel) if inverse else kernel for kernel in response.kernels]
    regions = [region for region, _ in response.regions]
    covered = np.zeros((n_rows, n_cols), np.int32)
    for rows, cols in regions:
        covered[rows, cols] += 1
    if covered.min() != 1 or covered.max() != 1:
        raise NoiseError(
            f"the regions of a point response must cover each pixel of the detector {n_rows} x {n_cols} once, got "
            f"{int((covered != 1).sum())} pixels where they do not; give regions of this detector"
        )
    if not response.blend:
        return tuple(
            _Part(kernel, (rows.start, rows.stop), (cols.start, cols.stop), None, True)
            for kernel, (rows, cols) in zip(kernels, regions, strict=True)
        )
    parts = []
    for kernel, (rows, cols) in zip(kernels, regions, strict=True):
        y, x = _hat(rows, n_rows, [r for r, _ in regions]), _hat(cols, n_cols, [c for _, c in regions])
        (y0, y1), (x0, x1) = ((int(np.flatnonzero(line)[0]), int(np.flatnonzero(line)[-1]) + 1) for line in (y, x))
        parts.append(_Part(kernel, (y0, y1), (x0, x1), np.outer(y[y0:y1], x[x0:x1]).astype(np.float32), False))
    return tuple(parts)


def _hat(own: slice, size: int, every: list[slice]) -> Float[np.ndarray, " n"]:
    """Return a weight that is 1 in the centre of `own` and falls linearly to 0 at the centres of its neighbours."""
    middles = sorted({(part.start + part.stop - 1) / 2 for part in every})
    heights = [1.0 if middle == (own.start + own.stop - 1) / 2 else 0.0 for middle in middles]
    return np.asarray(np.interp(np.arange(size), middles, heights))


def _convolved(frames: Radiographs, kernel: Kernel) -> Radiographs:
    """Convolve each frame with a symmetric kernel, mirrored at the border."""
    if kernel.size == 1:
        return frames * np.float32(kernel[0, 0])
    ry, rx = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(frames, ((0, 0), (ry, ry), (rx, rx)), mode="symmetric")
    size = [fft.next_fast_len(n, real=True) for n in padded.shape[1:]]
    transfer = fft.rfft2(kernel.astype(np.float32), s=size)
    out = fft.irfft2(fft.rfft2(padded, s=size) * transfer, s=size)
    return np.asarray(out[:, 2 * ry : padded.shape[1], 2 * rx : padded.shape[2]], dtype=np.float32)


def _filled(counts: Radiographs, bad: PixelMask) -> Radiographs:
    """Replace bad pixels by a weighted mean of the good pixels near them."""
    if not bad.any():
        return counts
    good = (~bad).astype(np.float32)
    out = counts.copy()
    left = bad.copy()
    for width in (0.7, 2.0, 6.0):
        weight = ndimage.gaussian_filter(good, width, truncate=2.0)
        usable = left & (weight > 1e-3)
        if usable.any():
            near = ndimage.gaussian_filter(counts * good, (0, width, width), truncate=2.0)
            out[:, usable] = near[:, usable] / weight[usable]
            left &= ~usable
    if left.any():
        out[:, left] = counts[:, ~bad].mean(axis=1, keepdims=True) if (~bad).any() else 0.0
    return out
