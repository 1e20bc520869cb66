"""Separation of the object from the surrounding air in a slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from quietray.types import Slice, Volume

__all__ = ["ObjectMask"]

_SMOOTHING = 1.5  # in pixels
_MARGIN = 2  # margin around the object in pixels, for edges and blur
_APART = 3.5  # distance between two materials, in spreads; the two halves of a bell curve are 2.7 apart
_LEAST = 0.02  # smallest fraction of the field of view for a material
_AROUND = 0.5  # smallest fraction of the edge of the field of view that must be air
_NEAR = 0.2  # largest deviation of air from its expected value, as a fraction of the contrast
_SAME = 1e-6  # fraction of the largest value below which the range is no contrast
_SPLITS = 3
_THICK = 2  # smallest width of a material in bins, on either side of its centre
_VALUES = 2**20


@dataclass(frozen=True)
class ObjectMask:
    """A mask that separates the object from the air around it, slice by slice.

    Pores, lungs and other cavities belong to the object.  Air is connected to the edge of the field of view, through
    gaps wider than the margins on both sides.

    Parameters
    ----------
    level
        Threshold in the unit of the slices; smoothed grey values below it are air.
    smoothing
        Standard deviation of the Gaussian, in pixels.
    margin
        Pixels around the object that are counted as part of it.

    Examples
    --------
    >>> image = np.zeros((1, 32, 32), np.float32)
    >>> image[:, 8:24, 8:24] = 1
    >>> image[:, 14:18, 14:18] = 0
    >>> found = ObjectMask.found(image, np.ones((32, 32), np.float32), air=0.0)
    >>> found.of(image[0], np.ones((32, 32), np.float32)).sum() > 16 * 16
    np.True_
    >>> ObjectMask.found(image + 1, np.ones((32, 32), np.float32), air=0.0) is None
    True
    """

    level: float
    smoothing: float = _SMOOTHING
    margin: int = _MARGIN

    @classmethod
    def found(cls, slices: Volume, weight: Slice, air: float) -> ObjectMask | None:
        """Return the mask for the given slices, or None if there is no air around the object.

        Otsu's threshold is applied again to the values below it, as long as these consist of two materials (metal in
        plastic in air).  The remaining values must be close to that of air and cover at least half of the edge of the
        field of view; otherwise they might be pores cut by the edge.

        Parameters
        ----------
        slices
            Denoised slices ``(z, y, x)``.
        weight
            Weight ``(y, x)``, zero outside the field of view.
        air
            Grey value of air.
        """
        from skimage.filters import threshold_otsu

        inside = weight > 0
        smooth = np.stack([_smoothed(one, inside, _SMOOTHING) for one in slices])
        values = smooth[:, inside].ravel().astype(np.float64)  # so that the range always falls into bins
        values = values[:: -(-values.size // _VALUES)]
        if np.ptp(values) <= _SAME * np.abs(values).max():
            return None
        level = float(threshold_otsu(values))
        for _ in range(_SPLITS):
            low = values[values < level]
            if low.size < 2 or np.ptp(low) <= _SAME * np.abs(values).max():
                break
            finer = float(threshold_otsu(low))
            between = inside & (smooth >= finer) & (smooth < level)
            wide = sum(int(ndimage.binary_erosion(one, iterations=_THICK).sum()) for one in between)
            if wide < _LEAST * between.size or not _apart(low, finer):  # edges count, too, but are thin
                break
            level = finer
        mask = cls(level)
        objects = np.stack([mask.of(one, weight) for one in slices])
        around = inside & ~objects
        edge = _edge(inside)
        if around[:, edge].mean() < _AROUND or not objects.any():
            return None
        contrast = float(smooth[objects].mean()) - air
        away = float(np.sqrt(np.square(smooth[around] - air).mean()))
        return mask if away < _NEAR * contrast else None

    def of(self, image: Slice, weight: Slice) -> Bool[np.ndarray, "y x"]:
        """Return the mask of the object in a slice.

        Parameters
        ----------
        image
            Denoised slice ``(y, x)``.
        weight
            Weight ``(y, x)``, zero outside the field of view.
        """
        inside = weight > 0
        low = (_smoothed(image, inside, self.smoothing) < self.level) | ~inside
        clear = inside & ndimage.binary_erosion(low, iterations=self.margin, border_value=1)
        return np.asarray(inside & ~ndimage.binary_propagation(clear & _edge(inside), mask=clear))

    @property
    def words(self) -> str:
        """Description of how the mask was found."""
        return (
            "all but the air that reaches the edge of the field of view: denoised slices, smoothed over "
            f"{self.smoothing:g} pixels, below {self.level:.3g}, more than {self.margin} pixels away from the rest"
        )


def _edge(inside: Bool[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    return np.asarray(inside & ~ndimage.binary_erosion(inside))


def _smoothed(image: Slice, inside: Bool[np.ndarray, "y x"], sigma: float) -> Float[np.ndarray, "y x"]:
    """Return the image smoothed with the values inside only."""
    total = ndimage.gaussian_filter(np.where(inside, image, 0).astype(np.float32), sigma)
    share = ndimage.gaussian_filter(inside.astype(np.float32), sigma)
    return np.asarray(total / np.maximum(share, 1e-6))


def _apart(values: Float[np.ndarray, " _"], level: float) -> bool:
    """Return whether the values below and above a threshold are two materials of sufficient size."""
    low, high = values[values < level], values[values >= level]
    if min(low.size, high.size) < max(2, _LEAST * values.size):
        return False
    return bool(high.mean() - low.mean() > _APART * np.sqrt((low.var() + high.var()) / 2))
