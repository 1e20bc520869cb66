"""Neighbourhood dependency: how much noise of a pixel and its neighbours passes through a trained denoiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from quietray.errors import SettingsError
from quietray.types import Frame, Frames, Radiographs

__all__ = ["Dependency", "neighbourhood_dependency"]

_BLOCK = 16  # frames per batch


@dataclass(frozen=True, eq=False)
class Dependency:
    """The neighbourhood dependency of each pixel; 0 if no noise is left.

    Parameters
    ----------
    values
        ``(row, col)``: covariance of the output with the noise in the window around the pixel, in units of the standard
        deviations of the noise; NaN for pixels that do not vary.
    null_sd
        ``(row, col)``: standard deviation of `values` for an output with the same variance that is independent of the
        noise.
    mean, mean_error
        Mean over the pixels, and its standard error from the variation between frames.
    n_frames
        Number of frames used.
    """

    values: Frame
    null_sd: Frame
    mean: float
    mean_error: float
    n_frames: int


def neighbourhood_dependency(
    network: Callable[[Radiographs], Radiographs], frames: Frames, window: int = 7
) -> Dependency:
    r"""Return the neighbourhood dependency of a trained network over repeated frames of one scene.

    :math:`p_i = \sum_j \mathrm{Cov}(f(u + \varepsilon)_i, (u + \varepsilon)_j) / (\sigma_i \sigma_j)`, where the sum
    runs over the window around pixel i (Graas & Lucka 2025).  It is 1 plus the summed correlation of the neighbours for
    the identity, and 0 for a network that removes all noise.  By linearity, it is the covariance with a single image,
    the sum of the standardised frames over the window.  Frames are read twice, and memory does not depend on their
    number.

    Parameters
    ----------
    network
        From frames ``(frame, row, col)`` to frames of the same shape.
    frames
        ``(frame, row, col)``: at least three frames of the same scene; may be lazy.
    window
        Edge of the window in pixels; odd.

    Raises
    ------
    SettingsError
        The window is not odd, or there are fewer than three frames.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(0, 2, (400, 12, 12)).astype(np.float32)
    >>> nothing = neighbourhood_dependency(lambda frames: frames, noise, window=3)
    >>> abs(nothing.mean - 1) < 4 * nothing.mean_error < 0.1
    True
    """
    if window < 1 or window % 2 == 0 or frames.shape[0] < 3:
        raise SettingsError(
            f"the window must be odd and there must be at least 3 frames, got {window} and {frames.shape[0]} frames"
        )
    mean, spread = _moments(frames)
    inverse = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
    level = np.asarray(network(mean[None].astype(np.float32))[0], np.float64)
    shape, n = mean.shape, frames.shape[0]
    product, out, around, out_squares, around_squares = np.zeros((5, *shape))
    by_frame = []
    for first in range(0, n, _BLOCK):
        block = np.asarray(frames[first : first + _BLOCK], np.float32)
        change = np.asarray(network(block), np.float64) - level
        near = ndimage.uniform_filter((block - mean) * inverse, (0, window, window), mode="constant") * window**2
        product += (change * near).sum(axis=0)
        out += change.sum(axis=0)
        around += near.sum(axis=0)
        out_squares += (change**2).sum(axis=0)
        around_squares += (near**2).sum(axis=0)
        by_frame.append((change * near * inverse).mean(axis=(1, 2)))
    covariance = (product - out * around / n) / (n - 1)
    null = np.sqrt(np.clip((out_squares - out**2 / n) * (around_squares - around**2 / n), 0, None)) / (n - 1) ** 1.5
    values, null_sd = (np.where(spread > 0, each * inverse, np.nan) for each in (covariance, null))
    error = float(np.concatenate(by_frame).std(ddof=1) / np.sqrt(n) / max((spread > 0).mean(), 1e-12))
    return Dependency(values.astype(np.float32), null_sd.astype(np.float32), float(np.nanmean(values)), error, n)


def _moments(frames: Frames) -> tuple[Float[np.ndarray, "row col"], Float[np.ndarray, "row col"]]:
    """Return the mean and standard deviation of each pixel."""
    shift = np.asarray(frames[0:1], np.float64)[0]
    total, squares = np.zeros((2, *shift.shape))
    n = frames.shape[0]
    for first in range(0, n, _BLOCK):
        block = np.asarray(frames[first : first + _BLOCK], np.float64) - shift
        total += block.sum(axis=0)
        squares += (block**2).sum(axis=0)
    return shift + total / n, np.sqrt(np.clip(squares - total**2 / n, 0, None) / (n - 1))
