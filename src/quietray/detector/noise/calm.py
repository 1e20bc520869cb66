"""The noise of images of which there is only one: read where they are calm."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from quietray.detector.noise.lags import Lags, autocorrelation, error_of
from quietray.types import Slice, Volume

__all__ = ["FlatNoise", "flat_noise", "repeated_noise"]

_BLOCK = 24  # pixels
_STEP = 12  # from block to block: what lies between the places of one grid is calm in another
_CALMEST, _LEAST = 0.25, 0.02  # of the blocks, at most and at least
_ALIKE = 1.5  # times the slope of those at least, which noise alone may have
_SMOOTH = 4.0  # pixels, beyond what noise is correlated over
_REACH = 3  # lags looked at
_IMAGES = 12
_FEWEST = 8  # blocks
_PARABOLA = 6  # parameters
_ROUGHEST = 0.05  # of the noise, which must be left in differences along the diagonal to tell its power
LITTLE = 0.05  # correlation that may pass for none
_SURE = 4.0  # standard errors that one must differ from none by


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
        if middle == 0:  # nothing but the variance is known
            return 0.0
        return float((self.lags[middle, middle + 1] + self.lags[middle + 1, middle]) / 2)

    @property
    def reach(self) -> int:
        """How many pixels away noise is still shared, along rows and columns; 0 is white."""
        middle = self.lags.shape[0] // 2
        one = np.zeros_like(self.lags)
        one[middle, middle - 1] = one[middle, middle + 1] = 0.5
        little = max(LITTLE, _SURE * error_of(one, self.lags, float(self.pixels)))
        far = np.argwhere(np.abs(self.lags) > little) - middle
        return int(np.abs(far).max(initial=0))


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
        for y, x in product(*(range(0, size - _BLOCK + 1, _STEP) for size in image.shape)):
            place = np.s_[y : y + _BLOCK, x : x + _BLOCK]
            noise = _flattened(image[place])
            varied = float(noise.std())
            same = float(np.mean(image[place] == np.median(image[place])))  # clipped, or a mask
            if weight[place].all() and varied > 0 and same < 0.3:
                blocks.append(noise)
                details.append((float(np.median(np.abs(_diagonal(image[place])))) / 0.6745) ** 2)
                slopes.append(float(np.sqrt(np.mean(steep[place] ** 2))) / varied)
    if len(blocks) < _FEWEST:
        return None
    residuals = np.stack([blocks[index] for index in _calmest(np.array(slopes))])
    sds = residuals.std(axis=(1, 2))
    lags = autocorrelation(
        (residuals / sds[:, None, None]).astype(np.float32), np.ones((_BLOCK, _BLOCK), bool), (_REACH, _REACH)
    )
    lags = _with_what_was_taken(lags)
    shape = lags / lags[_REACH, _REACH]
    # of all blocks, for the calmest ones are where noise hides the structure; edges hardly move a median
    diagonal = _diagonal_share(shape)
    variance = float(np.mean(details)) / diagonal if diagonal > _ROUGHEST else float(np.mean(sds**2))
    pixels = residuals.size * _STEP**2 // _BLOCK**2  # at least: they overlap
    return FlatNoise(shape, float(np.sqrt(variance)), pixels, "the calmest parts")


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


def _calmest(slopes: Float[np.ndarray, " block"]) -> Int[np.ndarray, " calm"]:
    """Return which blocks are as calm as the calmest, so that nothing but noise may be in them."""
    order = np.argsort(slopes)
    least, most = (max(_FEWEST, round(share * len(slopes))) for share in (_LEAST, _CALMEST))
    alike = np.count_nonzero(slopes <= _ALIKE * slopes[order[least - 1]])
    return order[: min(max(least, alike), most)]


def _with_what_was_taken(lags: Lags) -> Lags:
    """Return the lags of the noise from those of blocks without their parabola, which had a part of it.

    A parabola is slow: each of its six parameters takes the noise power at low frequencies, the sum of the lags, of one
    pixel in a block, and takes it at every small lag alike.
    """
    share = _PARABOLA / _BLOCK**2
    return np.asarray(lags + share * lags.sum() / (1 - share * lags.size))


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
