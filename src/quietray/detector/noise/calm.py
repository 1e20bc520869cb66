"""Noise of single images, measured in uniform regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, product

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from quietray.detector.noise.lags import Lags, Region, autocorrelation, error_of
from quietray.types import Frames, Slice

__all__ = ["FlatNoise", "flat_noise", "repeated_noise"]

_BLOCK = 24  # in pixels
_STEP = 12  # step between blocks: uniform regions between the blocks of one grid are found by another
_CALMEST, _LEAST = 0.25, 0.02  # largest and smallest fraction of the blocks
_ALIKE = 1.5  # largest slope of a block that noise alone may cause, relative to the smallest slopes
_SMOOTH = 4.0  # in pixels, beyond the correlation length of the noise
_REACH = 3  # largest lag that is considered
_IMAGES = 12
_FEWEST = 8  # least number of blocks
_PARABOLA = 6  # number of parameters of a parabola
_ROUGHEST = 0.05  # fraction of the noise variance that must be left in differences along the diagonal
LITTLE = 0.05  # correlation that counts as zero
_SURE = 4.0  # standard errors by which a correlation must differ from zero
_ACROSS = 3  # slices on one side, the largest distance at which noise of slices is compared
_APIECE = 4.0  # pixels per independent sample of second differences of white noise
_ENDED = 0.2  # correlation at the largest lag considered up to which it has ended there, as that of structure has not
_SMOOTHEST = 0.36  # variance of second differences over that of the noise; 36 for white noise


@dataclass(frozen=True, eq=False)
class FlatNoise:
    """Correlation of the noise of neighbouring pixels.

    Parameters
    ----------
    lags
        Auto-correlation, 1 in the centre.
    sd
        Standard deviation of the noise in the unit of the images: root of the mean variance.
    pixels
        Number of pixels used.
    source
        Description of the source.
    across
        Correlation of the noise of slices that lie 1, 2, ... apart, in a volume; empty if it was not measured.
    unlike
        How much the noise power of the most uniform parts differs from that of all, as a fraction of the latter.

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
    across: tuple[float, ...] = ()
    unlike: float = 0.0

    @property
    def uniform(self) -> bool:
        """Whether the parts it was measured in hold only noise, whose correlation has ended at the largest lag."""
        border = np.ones(self.lags.shape, bool)
        border[1:-1, 1:-1] = False
        return self.lags.size == 1 or float(np.abs(self.lags[border]).max()) <= _ENDED

    @property
    def between(self) -> float:
        """Correlation of the noise of neighbouring slices, at the distance where it is strongest."""
        return max(self.across, key=abs, default=0.0)

    @property
    def apart(self) -> bool:
        """Whether the noise of neighbouring slices was found to be independent."""
        little = max(LITTLE, _SURE * float(np.sqrt(_APIECE / max(1, self.pixels))))
        return bool(self.across) and abs(self.between) <= little

    @property
    def neighbours(self) -> float:
        """Mean correlation with the four nearest pixels."""
        middle = self.lags.shape[0] // 2
        if middle == 0:  # only the variance is known
            return 0.0
        return float((self.lags[middle, middle + 1] + self.lags[middle + 1, middle]) / 2)

    @property
    def reach(self) -> int:
        """Distance in pixels up to which noise is correlated, along rows and columns; 0 for white noise."""
        middle = self.lags.shape[0] // 2
        one = np.zeros_like(self.lags)
        one[middle, middle - 1] = one[middle, middle + 1] = 0.5
        little = max(LITTLE, _SURE * error_of(one, self.lags, float(self.pixels)))
        far = np.argwhere(np.abs(self.lags) > little) - middle
        return int(np.abs(far).max(initial=0))


def flat_noise(images: Frames, weight: Slice, stack: bool = False) -> FlatNoise | None:
    """Measure the noise correlation in the most uniform blocks of images, and the noise power in all blocks.

    The most uniform blocks have the smallest gradients of the smoothed image relative to their noise; a parabola is
    subtracted from each.  Remaining structure makes the correlation too large, but never the noise too white.  The
    power is measured from differences along the diagonal, by their median in every block.

    Parameters
    ----------
    images
        Images ``(image, row, col)``; only a few are read.
    weight
        Weight ``(y, x)``, zero where nothing was measured.
    stack
        Whether the images are slices of one volume, so that the correlation between slices is measured, too.

    Returns
    -------
    FlatNoise or None
        The noise; None if there are too few blocks with noise.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(5, 2, (4, 96, 96)).astype(np.float32)
    >>> found = flat_noise(noise, np.ones((96, 96), np.float32), stack=True)
    >>> round(found.sd, 1), found.reach, found.apart
    (2.0, 0, True)
    """
    chosen = range(0, images.shape[0], -(-images.shape[0] // _IMAGES))
    places: list[tuple[int, Region]] = []
    slopes, details = [], []
    for number in chosen:
        image = _read(images, number)
        smooth = ndimage.gaussian_filter(image.astype(np.float64), _SMOOTH)
        steep = np.hypot(*np.gradient(smooth))
        for y, x in product(*(range(0, size - _BLOCK + 1, _STEP) for size in image.shape)):
            place = slice(y, y + _BLOCK), slice(x, x + _BLOCK)
            varied = float(_flattened(image[place]).std())
            same = float(np.mean(image[place] == np.median(image[place])))  # clipped values or a mask
            if weight[place].all() and varied > 0 and same < 0.3:
                places.append((number, place))
                details.append((float(np.median(np.abs(_diagonal(image[place])))) / 0.6745) ** 2)
                slopes.append(float(np.sqrt(np.mean(steep[place] ** 2))) / varied)
    if len(places) < _FEWEST:
        return None
    calm = sorted(_calmest(np.array(slopes)).tolist())
    blocks = _cut(images, [places[index] for index in calm])
    residuals = np.stack([_flattened(block) for block in blocks])
    sds = residuals.std(axis=(1, 2))
    lags = autocorrelation(
        (residuals / sds[:, None, None]).astype(np.float32), np.ones((_BLOCK, _BLOCK), bool), (_REACH, _REACH)
    )
    lags = _with_what_was_taken(lags)
    shape = lags / lags[_REACH, _REACH]
    # of all blocks, as the most uniform ones may have atypical noise; edges hardly affect a median
    diagonal = _diagonal_share(shape)
    calmest = float(np.mean(sds**2)) * float(lags[_REACH, _REACH])
    variance = float(np.mean(details)) / diagonal if diagonal > _ROUGHEST else calmest
    pixels = residuals.size * _STEP**2 // _BLOCK**2  # a lower bound, because they overlap
    across = _across(images, [places[index] for index in calm], blocks) if stack else ()
    unlike = abs(calmest / max(variance, 1e-300) - 1)
    return FlatNoise(shape, float(np.sqrt(variance)), pixels, "the calmest parts", across, unlike)


def _read(images: Frames, number: int) -> Slice:
    return np.asarray(images[number], np.float32)


def _cut(images: Frames, places: Sequence[tuple[int, Region]]) -> list[Slice]:
    """Return the blocks at these places, sorted by image, each of which is read once."""
    found = []
    for number, group in groupby(places, key=lambda one: one[0]):
        image = _read(images, number)
        found += [image[place] for _, place in group]
    return found


def _across(images: Frames, places: Sequence[tuple[int, Region]], blocks: Sequence[Slice]) -> tuple[float, ...]:
    """Return the correlation of the noise of slices that lie 1, 2, ... apart.

    It is that of second differences along rows and columns, which hold hardly any of the structure that slices have in
    common; where noise is so smooth that they hold no noise either, that of the blocks without their parabola.
    """
    here, n = np.stack([_curved(block) for block in blocks]), images.shape[0]
    flat = np.stack([_flattened(block) for block in blocks])
    rough = float(np.mean(here**2)) > _SMOOTHEST * float(np.mean(flat**2))
    change, here = (_curved, here) if rough else (_flattened, flat)
    found = []
    for step in range(1, min(_ACROSS, n // 2) + 1):
        beyond = [(number + step if number + step < n else number - step, place) for number, place in places]
        order = sorted(range(len(beyond)), key=lambda index: beyond[index][0])
        there = np.empty_like(here)
        for index, block in zip(order, _cut(images, [beyond[index] for index in order]), strict=True):
            there[index] = change(block)
        power = float(np.sqrt(np.sum(here**2) * np.sum(there**2)))
        found.append(float(np.sum(here * there)) / max(power, 1e-30))
    return tuple(found)


def repeated_noise(one: Frames, other: Frames, weight: Slice) -> FlatNoise:
    """Measure the noise from the difference of two measurements of the same images.

    Parameters
    ----------
    one, other
        Images ``(image, row, col)``.
    weight
        Weight ``(y, x)``, zero where nothing was measured.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> one, other = rng.normal(5, 2, (2, 1, 96, 96)).astype(np.float32)
    >>> repeated_noise(one, other, np.ones((96, 96), np.float32)).reach
    0
    """
    chosen = slice(None, None, -(-one.shape[0] // _IMAGES))
    seen, again = (np.asarray(stack[chosen], np.float32) for stack in (one, other))
    difference: Float[np.ndarray, "z y x"] = (seen - again) / np.float32(np.sqrt(2))
    good = weight > 0
    difference = difference - difference[:, good].mean()
    lags = autocorrelation(difference, good, (_REACH, _REACH))
    variance = float(lags[_REACH, _REACH])
    shown = lags / variance if variance > 0 else lags
    pixels = int(good.sum()) * difference.shape[0]
    return FlatNoise(shown, float(np.sqrt(max(variance, 0))), pixels, "the difference of two measurements")


def _calmest(slopes: Float[np.ndarray, " block"]) -> Int[np.ndarray, " calm"]:
    """Return which blocks are as uniform as the most uniform ones, so that they may contain only noise."""
    order = np.argsort(slopes)
    least, most = (max(_FEWEST, round(share * len(slopes))) for share in (_LEAST, _CALMEST))
    alike = np.count_nonzero(slopes <= _ALIKE * slopes[order[least - 1]])
    return order[: min(max(least, alike), most)]


def _with_what_was_taken(lags: Lags) -> Lags:
    """Return the auto-correlation of the noise, corrected for the subtraction of a parabola from each block.

    A parabola varies slowly: each of its six parameters removes the low-frequency noise power (the sum over the lags)
    of one pixel per block, by the same amount at every small lag.
    """
    share = _PARABOLA / _BLOCK**2
    return np.asarray(lags + share * lags.sum() / (1 - share * lags.size))


def _diagonal(block: Slice) -> Float[np.ndarray, "_ _"]:
    """Return 2 x 2 pixels without their mean and slopes."""
    return np.asarray(block[:-1, :-1] - block[:-1, 1:] - block[1:, :-1] + block[1:, 1:]) / 2


def _curved(block: Slice) -> Float[np.ndarray, "_ _"]:
    """Return the second differences of a block along rows and columns."""
    return np.diff(np.diff(block.astype(np.float64), 2, axis=0), 2, axis=1)


def _diagonal_share(lags: Lags) -> float:
    """Return the variance of :func:`_diagonal` relative to that of a pixel."""
    c = lags.shape[0] // 2
    beside = lags[c, c + 1] + lags[c + 1, c]
    across = (lags[c + 1, c + 1] + lags[c + 1, c - 1]) / 2
    return float(lags[c, c] - beside + across)


def _flattened(block: Slice) -> Float[np.ndarray, "y x"]:
    """Return a block without its best-fitting parabola."""
    y, x = (axis.ravel() for axis in np.meshgrid(*(np.linspace(-1, 1, size) for size in block.shape), indexing="ij"))
    surface = np.stack([np.ones_like(x), x, y, x * y, x**2, y**2], axis=1)
    values = block.astype(np.float64).ravel()
    fitted, *_ = np.linalg.lstsq(surface, values, rcond=None)
    return np.asarray((values - surface @ fitted).reshape(block.shape))
