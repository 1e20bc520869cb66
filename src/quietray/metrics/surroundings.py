"""Where the object is: what of a slice is the air around it, told from grey values that lie about that of air."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from quietray.types import Slice, Volume

__all__ = ["ObjectMask"]

_SMOOTHING = 1.5  # pixels
_MARGIN = 2  # pixels around the object that belong to it: edges, and what a blur carries out of them
_APART = 3.5  # spreads between two materials; half of a bell curve is 2.7 from the other half
_LEAST = 0.02  # of the field of view, for a material
_AROUND = 0.5  # of the edge of the field of view, for air to be around the object
_NEAR = 0.2  # of the contrast, that air may be away from its value
_SAME = 1e-6  # of the largest value: a range that is no contrast
_SPLITS = 3
_THICK = 2  # pixels that a material is wide, at least, on either side of its middle
_VALUES = 2**20


@dataclass(frozen=True)
class ObjectMask:
    """What tells the object from the air around it, slice by slice.

    Pores, lungs and whatever else is empty inside belong to the object: air is what reaches the edge of the field of
    view, through gaps that are wider than the margins at both sides.

    Parameters
    ----------
    level
        Smoothed grey values below it are air, in the unit of the slices.
    smoothing
        Standard deviation of the Gaussian, in pixels.
    margin
        Pixels around the object that count as it.

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
        """Return what tells the object from the air, or None where there is no air around it.

        Otsu's threshold is taken again among what lies below it, as long as that falls into two materials: metal in
        plastic in air.  What is then below must take up half of the edge of the field of view at least, or it may be
        pores that the edge cuts, and lie about the value of air.

        Parameters
        ----------
        slices
            ``(z, y, x)``, denoised.
        weight
            ``(y, x)``: zero outside the field of view.
        air
            Its grey value.
        """
        from skimage.filters import threshold_otsu

        inside = weight > 0
        smooth = np.stack([_smoothed(one, inside, _SMOOTHING) for one in slices])
        values = smooth[:, inside].ravel().astype(np.float64)  # whose range always falls into bins
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
            if wide < _LEAST * between.size or not _apart(low, finer):  # edges are between materials, too, but thin
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
        """Return where the object is in a slice.

        Parameters
        ----------
        image
            ``(y, x)``, denoised.
        weight
            ``(y, x)``: zero outside the field of view.
        """
        inside = weight > 0
        low = (_smoothed(image, inside, self.smoothing) < self.level) | ~inside
        clear = inside & ndimage.binary_erosion(low, iterations=self.margin, border_value=1)
        return np.asarray(inside & ~ndimage.binary_propagation(clear & _edge(inside), mask=clear))

    @property
    def words(self) -> str:
        """How it was found, in words."""
        return (
            f"all but the air that reaches the edge of the field of view: denoised slices, smoothed by "
            f"{self.smoothing:g} pixels, below {self.level:.3g}, more than {self.margin} pixels away from the rest"
        )


def _edge(inside: Bool[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    return np.asarray(inside & ~ndimage.binary_erosion(inside))


def _smoothed(image: Slice, inside: Bool[np.ndarray, "y x"], sigma: float) -> Float[np.ndarray, "y x"]:
    """Return the image smoothed by what lies inside alone."""
    total = ndimage.gaussian_filter(np.where(inside, image, 0).astype(np.float32), sigma)
    share = ndimage.gaussian_filter(inside.astype(np.float32), sigma)
    return np.asarray(total / np.maximum(share, 1e-6))


def _apart(values: Float[np.ndarray, " _"], level: float) -> bool:
    """Return whether values below and above a threshold are two materials, each of some size."""
    low, high = values[values < level], values[values >= level]
    if min(low.size, high.size) < max(2, _LEAST * values.size):
        return False
    return bool(high.mean() - low.mean() > _APART * np.sqrt((low.var() + high.var()) / 2))
