"""The rotation axis by the double wedge in the Fourier transform of a sinogram (Vo's metric)."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

__all__ = ["axis_of_double_wedge"]

_STEP = 0.25  # columns, of the fine search
_REACH = 4  # columns of it on either side of what the coarse search found
_PART = 0.25  # of the columns is the radius that the object is taken to have
_LEAST = 1e-3  # frequencies that the smoothing leaves less of say nothing


def axis_of_double_wedge(
    sinogram: Float[np.ndarray, "view col"], low: int, high: int, device: torch.device | str | None = None
) -> float | None:
    """Return the axis between columns `low` and `high` around which half a turn, mirrored, makes the best whole one.

    The Fourier transform of a sinogram over a whole turn is nearly empty outside of a double wedge, that of one put
    together around a wrong axis is not (Vo et al. 2014, https://doi.org/10.1364/OE.22.019078).  Along the views the
    transform does not depend on the axis and is made once: for each candidate remains that along the columns.

    Parameters
    ----------
    sinogram
        ``(view, col)`` of half a turn, the views in the order of their angles.
    low, high
        Where to search, in columns.
    device
        Where to work; the CPU by default.

    Returns
    -------
    float or None
        To a quarter of a column; None when `low` is beyond `high`.

    Examples
    --------
    >>> angles = np.linspace(0, np.pi, 60)
    >>> away = np.arange(80) - 41.5 - 9 * np.cos(angles)[:, None]
    >>> axis_of_double_wedge(np.sqrt(np.maximum(400 - away**2, 0)).astype(np.float32), 30, 50)
    41.5
    """
    n_views, n_cols = sinogram.shape
    if low > high:
        return None
    fewer = n_cols // 640 if n_cols > 1000 else 1
    small = _means(ndimage.gaussian_filter(sinogram, (3, 1)), n_views // 900 if n_views > 1000 else 1, fewer)
    last = small.shape[1] - 1
    first, stop = (int(np.clip(of(end / fewer), 0, last)) for of, end in ((math.floor, low), (math.ceil, high)))
    coarse = np.arange(first, stop + 1.0)
    middle = fewer * coarse[_Wedge(small, 3.0, device).outside(coarse).argmin()] + (fewer - 1) / 2
    reach = max(_REACH, fewer)
    fine = np.clip(middle + np.arange(-reach, reach + _STEP, _STEP), 0, n_cols - 1)
    smooth = ndimage.gaussian_filter(sinogram, (2, 2))
    return float(fine[_Wedge(smooth, 2.0, device).outside(fine).argmin()])


def _means(values: Float[np.ndarray, "view col"], views: int, cols: int) -> Float[np.ndarray, "view col"]:
    """Return the means of blocks."""
    n_views, n_cols = values.shape[0] // views, values.shape[1] // cols
    blocks = values[: n_views * views, : n_cols * cols].reshape(n_views, views, n_cols, cols)
    return np.asarray(blocks.mean(axis=3).mean(axis=1))


class _Wedge:
    """The transform along the views of half a turn, of it mirrored, and of what fills the gap between the two."""

    def __init__(self, sinogram: Float[np.ndarray, "view col"], smoothed: float, device: torch.device | str | None):
        n_views, self.n_cols = sinogram.shape
        cycles = np.arange(n_views + 1) / (2 * n_views)  # per view
        said = np.exp(-2 * (np.pi * smoothed * cycles) ** 2) > _LEAST
        said[: min(20, n_views // 10) + 1] = False
        self._frequencies = torch.from_numpy(np.flatnonzero(said)).to(device or "cpu")
        mirrored = np.ascontiguousarray(sinogram[:, ::-1])
        there, *moved = (
            torch.from_numpy(views).to(device or "cpu") for views in (sinogram, mirrored, _half_moved(mirrored))
        )
        self._half = self._along_views(there)
        self._gap = self._half + self._second(there.flip(0))
        self._mirrored = [self._second(views) for views in moved]
        slope = (2 * n_views - 1) / (2 * n_views * 2 * np.pi * _PART)  # columns of the spectrum for one of its rows
        across = (torch.fft.fftfreq(self.n_cols, device=there.device) * self.n_cols).abs()
        self._outside = ((across > 1) & (across <= slope * self._frequencies[:, None])).float()

    def _along_views(self, views: Tensor) -> Tensor:
        spectrum: Tensor = torch.fft.rfft(views, 2 * len(views), dim=0)
        return spectrum[self._frequencies]

    def _second(self, views: Tensor) -> Tensor:
        """Return the transform of what follows after as many views."""
        return self._along_views(views) * (1 - 2 * (self._frequencies % 2))[:, None]

    def outside(self, axes: Float[np.ndarray, " axis"]) -> Float[np.ndarray, " axis"]:
        """Return what lies outside of the double wedge for each of some axes, multiples of a quarter of a column."""
        return np.array([float(self._around(axis)) for axis in axes])

    def _around(self, axis: float) -> Tensor:
        halves = round(4 * axis) - 2 * (self.n_cols - 1)  # of a column that what is mirrored moves by
        whole, half = halves // 2, halves % 2
        first, last = max(whole + half, 0), self.n_cols + min(whole, 0)
        spectrum = self._gap.clone()
        moved = self._mirrored[half][:, first - whole : last - whole]
        torch.add(self._half[:, first:last], moved, out=spectrum[:, first:last])
        transform: Tensor = torch.fft.fft(spectrum, dim=1)
        return torch.sum(transform.abs() * self._outside, dtype=torch.float64)


def _half_moved(values: Float[np.ndarray, "view col"]) -> Float[np.ndarray, "view col"]:
    """Return views moved by half a column to the right, by cubic splines."""
    knots = np.pad(ndimage.spline_filter1d(values, 3, axis=1, output=np.float32), ((0, 0), (2, 1)), mode="reflect")
    return np.asarray((knots[:, :-3] + knots[:, 3:] + 23 * (knots[:, 1:-2] + knots[:, 2:-1])) / 48)
