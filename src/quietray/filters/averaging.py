"""Filters that take the mean or the median of the pixels around each pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np
from scipy import ndimage
from skimage.morphology import disk
from skimage.restoration import denoise_nl_means

from quietray.errors import SettingsError
from quietray.filters.base import STRENGTHS, Filter, Search, require_strength
from quietray.types import Slice

__all__ = ["BilateralFilter", "GaussianFilter", "MedianFilter", "NonLocalMeans"]


@dataclass(frozen=True)
class GaussianFilter(Filter):
    """Convolution with a Gaussian, truncated at four standard deviations.

    Parameters
    ----------
    sigma
        Standard deviation in pixels.

    Examples
    --------
    >>> image = np.array([[0.0, 0.0, 1.0, 1.0]])
    >>> GaussianFilter(0.5).apply(image).round(2).tolist()
    [[0.0, 0.11, 0.89, 1.0]]
    """

    called: ClassVar[str] = "gaussian"
    sigma: float = 1.0

    def __post_init__(self) -> None:
        require_strength(sigma=self.sigma)

    @property
    def radius(self) -> int:
        """Half-width of the truncated kernel in pixels."""
        return round(4 * self.sigma)

    @property
    def search(self) -> Search:
        """Values from hardly any blur up to structures of 20 pixels."""
        return {"sigma": (0.0, 0.35, 0.7, 1.4, 2.8, 5.6)}

    def apply(self, image: Slice) -> Slice:
        """Return the blurred image; the border is mirrored."""
        return np.asarray(ndimage.gaussian_filter(image, self.sigma, radius=self.radius))


@dataclass(frozen=True)
class MedianFilter(Filter):
    """The median of a disc around each pixel.

    Parameters
    ----------
    radius
        Radius of the disc in pixels: 1 covers five pixels, 2 covers thirteen.

    Examples
    --------
    >>> MedianFilter(1).apply(np.array([[1.0, 1.0, 2.0], [1.0, 9.0, 2.0], [1.0, 2.0, 2.0]]))[1].tolist()
    [1.0, 2.0, 2.0]
    """

    called: ClassVar[str] = "median"
    radius: int = 1

    def __post_init__(self) -> None:
        require_strength(radius=float(self.radius))

    @property
    def search(self) -> Search:
        """Discs of up to 81 pixels."""
        return {"radius": (0, 1, 2, 3, 4, 5)}

    def apply(self, image: Slice) -> Slice:
        """Return the medians; the border is mirrored."""
        return np.asarray(ndimage.median_filter(image, footprint=disk(self.radius)))


@dataclass(frozen=True)
class BilateralFilter(Filter):
    """A mean of pixels that are close in position and in value, with Gaussian weights for both.

    Parameters
    ----------
    sigma_value
        Standard deviation of the weights in value, in the unit of the data: about two to three times that of the noise.
    sigma_space
        Standard deviation of the weights in position, in pixels; the window is truncated at three of them.

    Notes
    -----
    Tomasi & Manduchi (1998), doi:10.1109/ICCV.1998.710815.  This does not use scikit-image, in whose
    version 0.26 the spatial kernel is skewed (a bright pixel spreads to one side) and negative values change the
    weights.

    Examples
    --------
    >>> image = np.array([[0.0, 0.2, 1.0, 1.2]])
    >>> BilateralFilter(sigma_value=0.2, sigma_space=1.0).apply(image).round(2).tolist()
    [[0.04, 0.14, 1.06, 1.16]]
    """

    called: ClassVar[str] = "bilateral"
    sigma_value: float = 0.1
    sigma_space: float = 1.5

    def __post_init__(self) -> None:
        require_strength(sigma_value=self.sigma_value, sigma_space=self.sigma_space)

    @property
    def radius(self) -> int:
        """Half-width of the window."""
        return math.ceil(3 * self.sigma_space)

    @property
    def search(self) -> Search:
        """Value scales first, then distances."""
        return {"sigma_value": STRENGTHS, "sigma_space": (0.8, 1.2, 1.8, 2.7, 4.0)}

    def apply(self, image: Slice) -> Slice:
        """Return the weighted means; the border is mirrored."""
        if not (self.sigma_value and self.sigma_space):
            return image
        reach, (height, width) = self.radius, image.shape
        padded = np.pad(image, reach, mode="symmetric")
        change, total = np.zeros_like(image), np.zeros_like(image)
        for y, x in product(range(2 * reach + 1), repeat=2):
            distance = math.hypot(y - reach, x - reach) / self.sigma_space
            difference = padded[y : y + height, x : x + width] - image
            weight = np.exp(-0.5 * (np.square(difference / self.sigma_value) + distance**2))
            change += weight * difference
            total += weight
        return np.asarray(image + change / total)


@dataclass(frozen=True)
class NonLocalMeans(Filter):
    """Non-local means: a mean of pixels whose surroundings look alike.

    Parameters
    ----------
    h
        Patches that differ by this much (root mean square, beyond the expected noise) have weight 1/e.
    patch
        Edge of a patch in pixels; odd.
    distance
        Largest distance of a patch in pixels.

    Notes
    -----
    Buades, Coll & Morel (2011), doi:10.5201/ipol.2011.bcm_nlm, in the fast form of Froment (2014),
    doi:10.5201/ipol.2014.120.  The difference expected from noise is subtracted.  The standard deviation of the noise
    is taken to be ``h / 0.8``, the usual ratio, so that one setting determines both.

    Examples
    --------
    >>> stripes = np.tile([0.0, 1.0], (12, 6))
    >>> noisy = stripes + np.random.default_rng(0).normal(0, 0.1, (12, 12))
    >>> filtered = NonLocalMeans(h=0.08, distance=4).apply(noisy)
    >>> bool(np.std(filtered - stripes) < 0.5 * np.std(noisy - stripes))
    True
    """

    called: ClassVar[str] = "nlm"
    h: float = 0.1
    patch: int = 5
    distance: int = 6

    def __post_init__(self) -> None:
        require_strength(h=self.h, distance=float(self.distance))
        if self.patch < 3 or self.patch % 2 == 0:
            raise SettingsError(f"patch must be odd and at least 3, got {self.patch}; use 3, 5 or 7")

    @property
    def radius(self) -> int:
        """Distance to the far side of the furthest patch, in pixels."""
        return self.distance + self.patch // 2

    @property
    def search(self) -> Search:
        """Strengths first, then patch sizes, which should grow with the noise."""
        return {"h": STRENGTHS, "patch": (3, 5, 7)}

    def apply(self, image: Slice) -> Slice:
        """Return the weighted means; the border is mirrored."""
        if not self.h:
            return image
        # double precision, because patch sums are differences of sums over the whole image
        means = denoise_nl_means(
            image.astype(np.float64), self.patch, self.distance, self.h, fast_mode=True, sigma=self.h / 0.8
        )
        return np.asarray(means).reshape(image.shape)  # axes of length one were dropped
