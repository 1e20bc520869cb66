"""The noise of images of which there is only one: read where they are calm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from quietray.detector.lags import Lags, autocorrelation
from quietray.types import Slice, Volume

__all__ = ["FlatNoise", "flat_noise", "repeated_noise"]

_BLOCK = 24  # pixels
_CALMEST = 0.25  # of the blocks
_SMOOTH = 4.0  # pixels, beyond what noise is correlated over
_REACH = 3  # lags looked at
_IMAGES = 12
_FEWEST = 8  # blocks
_ROUGHEST = 0.05  # of the noise, which must be left in differences along the diagonal to tell its power
LITTLE = 0.05  # correlation that may pass for none


@dataclass(frozen=True, eq=False)
class FlatNoise:
    """How the noise of neighbouring pixels goes together.

    Parameters
    ----------
    lags
        Auto-correlation, 1 in the middle.
    sd
        Standard deviation of the noise in the unit of the images: root of the mean variance.
    pixels
        That it was read from.
    source
        Where, in words.

    Examples
    --------
    >>> lags = np.zeros((7, 7)); lags[3, 3] = 1.0; lags[3, 2] = lags[3, 4] = 0.4
    >>> FlatNoise(lags, 1.0, 9999, "calm parts").neighbours, FlatNoise(lags, 1.0, 9999, "calm parts").reach
    (0.2, 1)
    """

    lags: Lags
    sd: float
    pixels: int
    source: str

    @property
    def neighbours(self) -> float:
        """Mean correlation with the four nearest pixels."""
        middle = self.lags.shape[0] // 2
        return float((self.lags[middle, middle + 1] + self.lags[middle + 1, middle]) / 2)

    @property
    def reach(self) -> int:
        """How many pixels away noise is still shared, along rows and columns; 0 is white."""
        middle = self.lags.shape[0] // 2
        far = np.argwhere(np.abs(self.lags) > LITTLE) - middle
        return int(np.abs(far).max())


def flat_noise(images: Volume, weight: Slice) -> FlatNoise | None:
    """Measure the correlation of noise in the calmest blocks of images, and its power in all of them.

    The calmest blocks have the smallest gradients of the smoothed image, measured by their noise; a parabola is taken
    from each.  What is left of the structure makes the correlation come out too large, never the noise too white.  The
    power is that of differences along the diagonal, by their median in every block.

    Parameters
    ----------
    images
        ``(image, row, col)``; a few are looked at.
    weight
        ``(y, x)``: zero where nothing was measured.

    Returns
    -------
    FlatNoise or None
        None where there are too few blocks with any noise.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(5, 2, (4, 96, 96)).astype(np.float32)
    >>> found = flat_noise(noise, np.ones((96, 96), np.float32))
    >>> round(found.sd, 1), found.reach
    (2.0, 0)
    """
    chosen = images[:: -(-len(images) // _IMAGES)]
    blocks, slopes, details = [], [], []
    for image in chosen:
        smooth = ndimage.gaussian_filter(image.astype(np.float64), _SMOOTH)
        steep = np.hypot(*np.gradient(smooth))
        for y, x in np.ndindex(image.shape[0] // _BLOCK, image.shape[1] // _BLOCK):
            place = np.s_[y * _BLOCK : (y + 1) * _BLOCK, x * _BLOCK : (x + 1) * _BLOCK]
            noise = _flattened(image[place])
            varied = float(noise.std())
            same = float(np.mean(image[place] == np.median(image[place])))  # clipped, or a mask
            if weight[place].all() and varied > 0 and same < 0.3:
                blocks.append(noise)
                details.append((float(np.median(np.abs(_diagonal(image[place])))) / 0.6745) ** 2)
                slopes.append(float(np.sqrt(np.mean(steep[place] ** 2))) / varied)
    if len(blocks) < _FEWEST:
        return None
    calm = np.argsort(slopes)[: max(_FEWEST, round(_CALMEST * len(blocks)))]
    residuals = np.stack([blocks[index] for index in calm])
    sds = residuals.std(axis=(1, 2))
    lags = autocorrelation(
        (residuals / sds[:, None, None]).astype(np.float32), np.ones((_BLOCK, _BLOCK), bool), (_REACH, _REACH)
    )
    shape = lags / lags[_REACH, _REACH]
    # of all blocks, for the calmest ones are where noise hides the structure; edges hardly move a median
    diagonal = _diagonal_share(shape)
    variance = float(np.mean(details)) / diagonal if diagonal > _ROUGHEST else float(np.mean(sds**2))
    return FlatNoise(shape, float(np.sqrt(variance)), residuals.size, "the calmest parts")


def repeated_noise(one: Volume, other: Volume, weight: Slice) -> FlatNoise:
    """Measure the noise of two measurements of the same images from their difference, which shows nothing else.

    Parameters
    ----------
    one, other
        ``(image, row, col)``.
    weight
        ``(y, x)``: zero where nothing was measured.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> one, other = rng.normal(5, 2, (2, 1, 96, 96)).astype(np.float32)
    >>> repeated_noise(one, other, np.ones((96, 96), np.float32)).reach
    0
    """
    chosen = slice(None, None, -(-len(one) // _IMAGES))
    difference: Float[np.ndarray, "z y x"] = (one[chosen] - other[chosen]) / np.float32(np.sqrt(2))
    good = weight > 0
    difference = difference - difference[:, good].mean()
    lags = autocorrelation(difference, good, (_REACH, _REACH))
    variance = float(lags[_REACH, _REACH])
    shown = lags / variance if variance > 0 else lags
    pixels = int(good.sum()) * len(difference)
    return FlatNoise(shown, float(np.sqrt(max(variance, 0))), pixels, "the difference of two measurements")


def _diagonal(block: Slice) -> Float[np.ndarray, "_ _"]:
    """Return what is left of 2 x 2 pixels without their mean and their slopes."""
    return np.asarray(block[:-1, :-1] - block[:-1, 1:] - block[1:, :-1] + block[1:, 1:]) / 2


def _diagonal_share(lags: Lags) -> float:
    """Return the variance of that, over the variance of a pixel."""
    c = lags.shape[0] // 2
    beside = lags[c, c + 1] + lags[c + 1, c]
    across = (lags[c + 1, c + 1] + lags[c + 1, c - 1]) / 2
    return float(lags[c, c] - beside + across)


def _flattened(block: Slice) -> Float[np.ndarray, "y x"]:
    """Return a block without the parabola that fits it best."""
    y, x = (axis.ravel() for axis in np.meshgrid(*(np.linspace(-1, 1, size) for size in block.shape), indexing="ij"))
    surface = np.stack([np.ones_like(x), x, y, x * y, x**2, y**2], axis=1)
    values = block.astype(np.float64).ravel()
    fitted, *_ = np.linalg.lstsq(surface, values, rcond=None)
    return np.asarray((values - surface @ fitted).reshape(block.shape))
