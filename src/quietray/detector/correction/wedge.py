"""Rotation axis from the double wedge in the Fourier transform of a sinogram (Vo's metric)."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

__all__ = ["axis_of_double_wedge"]

_STEP = 0.25  # step of the fine search in columns
_REACH = 4  # columns on either side of the result of the coarse search
_PART = 0.25  # assumed radius of the object, as a fraction of the columns
_LEAST = 1e-3  # frequencies damped below this by the smoothing are not used


def axis_of_double_wedge(
    sinogram: Float[np.ndarray, "view col"], low: int, high: int, device: torch.device | str | None = None
) -> float | None:
    """Return the axis between columns `low` and `high` about which half a turn can be mirrored to a full one.

    The Fourier transform of a full-turn sinogram is nearly empty outside a double wedge; that of a sinogram mirrored
    about a wrong axis is not (Vo et al. 2014, https://doi.org/10.1364/OE.22.019078).  The transform along the views
    does not depend on the axis and is computed once; only the transform along the columns is repeated for each
    candidate.

    Parameters
    ----------
    sinogram
        Sinogram ``(view, col)`` of half a turn, with the views sorted by angle.
    low, high
        Search range in columns.
    device
        Device for the computation; the CPU by default.

    Returns
    -------
    float or None
        Axis to a quarter of a column; None if `low` is above `high`.

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
    """Transforms along the views of half a turn, of its mirror image, and of the filling between the two."""

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
        slope = (2 * n_views - 1) / (2 * n_views * 2 * np.pi * _PART)  # columns of the spectrum for one row of it
        across = (torch.fft.fftfreq(self.n_cols, device=there.device) * self.n_cols).abs()
        self._outside = ((across > 1) & (across <= slope * self._frequencies[:, None])).float()

    def _along_views(self, views: Tensor) -> Tensor:
        spectrum: Tensor = torch.fft.rfft(views, 2 * len(views), dim=0)
        return spectrum[self._frequencies]

    def _second(self, views: Tensor) -> Tensor:
        """Return the transform of the part that follows after this many views."""
        return self._along_views(views) * (1 - 2 * (self._frequencies % 2))[:, None]

    def outside(self, axes: Float[np.ndarray, " axis"]) -> Float[np.ndarray, " axis"]:
        """Return the power outside the double wedge for candidate axes, in multiples of a quarter of a column."""
        return np.array([float(self._around(axis)) for axis in axes])

    def _around(self, axis: float) -> Tensor:
        halves = round(4 * axis) - 2 * (self.n_cols - 1)  # shift of the mirrored part, in columns
        whole, half = halves // 2, halves % 2
        first, last = max(whole + half, 0), self.n_cols + min(whole, 0)
        spectrum = self._gap.clone()
        moved = self._mirrored[half][:, first - whole : last - whole]
        torch.add(self._half[:, first:last], moved, out=spectrum[:, first:last])
        transform: Tensor = torch.fft.fft(spectrum, dim=1)
        return torch.sum(transform.abs() * self._outside, dtype=torch.float64)


def _half_moved(values: Float[np.ndarray, "view col"]) -> Float[np.ndarray, "view col"]:
    """Return views shifted by half a column to the right, by cubic splines."""
    knots = np.pad(ndimage.spline_filter1d(values, 3, axis=1, output=np.float32), ((0, 0), (2, 1)), mode="reflect")
    return np.asarray((knots[:, :-3] + knots[:, 3:] + 23 * (knots[:, 1:-2] + knots[:, 2:-1])) / 48)
