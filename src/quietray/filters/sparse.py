"""Filters that favour images with few wavelets or few edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pywt
from skimage.restoration import denoise_tv_chambolle

from quietray.errors import SettingsError
from quietray.filters.base import STRENGTHS, Filter, Search, require_strength
from quietray.types import Slice

__all__ = ["TotalVariation", "Wavelet"]

_ITERATIONS = 100  # twice as many iterations change the mean squared error by less than 3 % at the best weight


@dataclass(frozen=True)
class Wavelet(Filter):
    """Soft thresholding of the stationary wavelet transform.

    The transform is not decimated, so thresholding it is equivalent to cycle spinning over all shifts.  The threshold
    is a setting and not estimated from the image, so that every pixel depends on its surroundings only.

    Parameters
    ----------
    threshold
        Threshold of the finest wavelets, in the unit of the data: about one to three times the standard deviation of
        the noise.
    decay
        Ratio of the threshold of each scale to that of the next finer one; below 1 if the image has more, or the noise
        less, power at coarse scales, as in filtered backprojection.
    levels
        Number of scales.
    wavelet
        Orthogonal wavelet: ``haar`` for sharp edges; ``db2`` and ``sym4`` are smoother and have a larger support.

    Notes
    -----
    Coifman & Donoho (1995), doi:10.1007/978-1-4612-2544-7_9.

    Examples
    --------
    >>> image = np.array([[0.0, 0.1, 0.0, 1.0, 1.1, 1.0]])
    >>> Wavelet(threshold=0.2).apply(image).round(1).tolist()
    [[0.1, 0.1, 0.1, 1.0, 1.0, 1.0]]
    """

    called: ClassVar[str] = "wavelet"
    threshold: float = 0.1
    decay: float = 0.7
    levels: int = 4
    wavelet: Literal["haar", "db2", "sym4"] = "haar"

    def __post_init__(self) -> None:
        require_strength(threshold=self.threshold)
        if not 0 < self.decay <= 1:
            raise SettingsError(f"decay must be above 0 and at most 1, got {self.decay}")
        if not 1 <= self.levels <= 8:
            raise SettingsError(f"levels must be between 1 and 8, got {self.levels}")

    @property
    def radius(self) -> int:
        """Reach of the coarsest wavelet in pixels, exact."""
        return int((pywt.Wavelet(self.wavelet).dec_len - 1) * (2**self.levels - 1))

    @property
    def search(self) -> Search:
        """Thresholds first, then their decay over the scales."""
        return {"threshold": STRENGTHS, "decay": (0.5, 0.7, 1.0)}

    def apply(self, image: Slice) -> Slice:
        """Return the thresholded image; the border is mirrored."""
        if not self.threshold:
            return image
        reach = self.radius
        more = [-(size + 2 * reach) % 2**self.levels for size in image.shape]  # to a multiple of 2**levels
        padded = np.pad(image, [(reach, reach + extra) for extra in more], mode="symmetric")
        approximation, *details = pywt.swt2(padded, self.wavelet, self.levels, trim_approx=True)
        kept = [
            tuple(pywt.threshold(band, self.threshold * self.decay**finer, "soft") for band in bands)
            for finer, bands in zip(range(self.levels - 1, -1, -1), details, strict=True)
        ]
        whole = pywt.iswt2([approximation, *kept], self.wavelet)
        return np.asarray(whole[reach : reach + image.shape[0], reach : reach + image.shape[1]])


@dataclass(frozen=True)
class TotalVariation(Filter):
    """Total variation denoising: the image of least total variation near the measured one.

    Parameters
    ----------
    weight
        Weight of the total variation, in the unit of the data: about the standard deviation of the noise.

    Notes
    -----
    ``min_u |grad u| + |u - f|**2 / (2 weight)``: Rudin, Osher & Fatemi (1992),
    doi:10.1016/0167-2789(92)90242-F, solved by Chambolle (2004), doi:10.1023/B:JMIV.0000011325.36760.1e, in a fixed
    number of iterations.  A stopping rule based on the whole image would make the result depend on how the image is
    tiled.

    Examples
    --------
    >>> image = np.array([[0.0, 0.1, 0.0, 1.0, 1.1, 1.0]])
    >>> TotalVariation(0.15).apply(image).round(2).tolist()
    [[0.08, 0.08, 0.08, 0.98, 0.98, 0.98]]
    """

    called: ClassVar[str] = "tv"
    weight: float = 0.1

    def __post_init__(self) -> None:
        require_strength(weight=self.weight)

    @property
    def radius(self) -> int:
        """Distance in pixels beyond which the result changes by less than 0.1 % of the noise's standard deviation."""
        return 32

    @property
    def search(self) -> Search:
        """Weights from 1 % of the range of the data to several times the range."""
        return {"weight": STRENGTHS}

    def apply(self, image: Slice) -> Slice:
        """Return the minimiser; nothing is assumed beyond the border."""
        if not self.weight:
            return image
        return np.asarray(denoise_tv_chambolle(image, self.weight, eps=0.0, max_num_iter=_ITERATIONS))
