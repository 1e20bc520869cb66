"""Bias of CT numbers in Hounsfield units, by tissue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from quietray.errors import GeometryError, SettingsError
from quietray.metrics.blocks import block_sums, mean_over_blocks
from quietray.types import Slice, Volume

__all__ = ["TISSUES", "Tissue", "TissueBias", "tissue_bias"]

_EDGES = (32, 16, 8, 4)  # edge of the blocks in pixels
_FINEST = _EDGES[-1]
_FEWEST = 8  # number of blocks needed for a standard error


@dataclass(frozen=True)
class Tissue:
    """A tissue, identified by its CT numbers.

    Parameters
    ----------
    name
        Name of the tissue.
    low, high
        Range in HU; `high` is excluded.

    Examples
    --------
    >>> Tissue("fat", -190.0, -30.0).band
    '-190 to -30 HU'
    """

    name: str
    low: float
    high: float

    @property
    def band(self) -> str:
        """The range in HU, in words."""
        if math.isinf(self.low):
            return f"below {self.high:g} HU"
        return f"above {self.low:g} HU" if math.isinf(self.high) else f"{self.low:g} to {self.high:g} HU"

    def holds(self, values: Slice) -> Bool[np.ndarray, "y x"]:
        """Return which values belong to the tissue."""
        return np.asarray((values >= self.low) & (values < self.high))


#: Lung and compact bone as in Kalender, Computed Tomography (3rd ed., Publicis 2011), table of CT values; fat and
#: muscle, in whose band water and the organs lie too, as in Mitsiopoulos et al., J Appl Physiol 85 (1998) 115-122.
#: Air is below lung.  What lies between the bands belongs to none: partial volumes, spongy bone, contrast agent.
TISSUES = (
    Tissue("air", -math.inf, -950.0),
    Tissue("lung", -950.0, -550.0),
    Tissue("fat", -190.0, -30.0),
    Tissue("soft tissue", -30.0, 150.0),
    Tissue("bone", 250.0, math.inf),
)


@dataclass(frozen=True)
class TissueBias:
    """Deviation of images from a reference in one tissue.

    Parameters
    ----------
    tissue
        The tissue.
    pixels
        Number of pixels that were compared.
    bias, error
        Mean difference, images minus reference, and its standard error, in HU.
    sd
        Standard deviation of the difference over the pixels, in HU.
    block
        Edge in pixels of the blocks for the standard error; 0 if there are too few blocks.
    """

    tissue: Tissue
    pixels: int
    bias: float
    error: float
    sd: float
    block: int

    def record(self) -> dict[str, Any]:
        """Return the figures by name, ready for JSON."""
        figures = {name: value for name, value in vars(self).items() if name != "tissue"}
        return {"tissue": self.tissue.name, "band": self.tissue.band, **figures}


def tissue_bias(
    images: Volume,
    reference: Float[np.ndarray, "_ _ _"],  # the shape is checked below, with a clearer message
    mask: Bool[np.ndarray, "y x"] | None = None,
    *,
    tissues: Sequence[Tissue] = TISSUES,
    smoothing: int = 5,
    erosion: int = 2,
) -> tuple[TissueBias, ...]:
    """Return the bias of images with respect to a reference in each tissue.

    A pixel belongs to a tissue if the median-filtered reference is in the range of the tissue for most pixels around
    it; pixels along borders are left out.  A vessel a few pixels wide thus counts as the tissue around it.  This
    matters if the reference is noisy: choosing pixels by their noisy values prefers pixels whose noise happens to point
    into the range, and the difference shows that noise as a bias (regression to the mean).  For unbiased images of a
    simulated body and a reference with ramp-filtered noise of sd 40 and 60 HU, the apparent bias would be 7 and 19 HU
    in air and 4 and 10 HU in fat.  With the choice made here, it is 0.0 and 0.1 HU in both, with standard errors of 0.1
    HU.

    The standard error is computed from square blocks of pixels through all images, because the noise of CT is
    correlated between pixels, and the bias between images.  Blocks are as large as possible while leaving enough of
    them.  If the noise is correlated over a considerable part of a block, the standard error is too small: by a third
    for noise smoothed with a Gaussian of sd 2 pixels, and by half in a small tissue.

    Scanners that store no values below -1024 HU clip the noise of air, which raises its mean before any denoising; the
    bias in air includes this.

    Parameters
    ----------
    images, reference
        Images ``(image, y, x)`` in HU.
    mask
        Pixels of every image to compare; all by default.
    tissues
        Tissues to look for.
    smoothing
        Width of the median filter in pixels, odd; most pixels within twice that width, less one, must agree. 1 uses
        every pixel as it is, which is right for a noise-free reference.
    erosion
        Number of pixels left out along borders, within each image.

    Returns
    -------
    tuple of TissueBias
        One entry for each tissue that has pixels left.

    Raises
    ------
    GeometryError
        The shapes differ.
    SettingsError
        The width of the median filter is not odd.

    Examples
    --------
    >>> reference = np.full((1, 64, 64), 50, np.float32)
    >>> reference[:, :, 32:] = -90
    >>> images = reference + np.where(reference < 0, 7, 0).astype(np.float32)
    >>> [(found.tissue.name, round(found.bias, 3)) for found in tissue_bias(images, reference)]
    [('fat', 7.0), ('soft tissue', 0.0)]
    """
    shape = images.shape
    if reference.shape != shape or (mask is not None and mask.shape != shape[1:]):
        raise GeometryError(
            f"the images must have the reference's and the mask's shape {reference.shape}, got {shape}"
            f"{'' if mask is None else f' and a mask of {mask.shape}'}; compare the same slices and region"
        )
    if smoothing < 1 or smoothing % 2 == 0:
        raise SettingsError(f"the width of the median must be odd and positive, got {smoothing}; give 1, 3 or 5")
    use = np.ones(shape[1:], bool) if mask is None else mask
    total = np.zeros((len(tissues), 3, *(-(-size // _FINEST) for size in shape[1:])))
    for one, other in zip(images, reference, strict=True):
        change = one.astype(np.float64) - other
        smooth = ndimage.median_filter(other, smoothing)
        for found, tissue in zip(total, tissues, strict=True):
            share = ndimage.uniform_filter(tissue.holds(smooth).astype(np.float32), 2 * smoothing - 1)
            inside = _eroded(use & (share > 0.5), erosion)
            if inside.any():
                here = np.where(inside, change, 0)
                found += [block_sums(values, _FINEST) for values in (inside.astype(np.float64), here, here**2)]
    return tuple(_of_tissue(tissue, *found) for tissue, found in zip(tissues, total, strict=True) if found[0].any())


def _eroded(inside: Bool[np.ndarray, "y x"], erosion: int) -> Bool[np.ndarray, "y x"]:
    """Return the pixels more than `erosion` pixels from a border; the edge of the image is no border."""
    if not erosion:
        return inside
    return np.asarray(ndimage.binary_erosion(inside, np.ones((3, 3)), iterations=erosion, border_value=1))


def _of_tissue(
    tissue: Tissue,
    counts: Float[np.ndarray, "by bx"],
    sums: Float[np.ndarray, "by bx"],
    squares: Float[np.ndarray, "by bx"],
) -> TissueBias:
    n = float(counts.sum())
    bias, error, edge = float(sums.sum()) / n, math.nan, 0
    for each in _EDGES:
        held, values = (block_sums(some, each // _FINEST).ravel() for some in (counts, sums))
        if n**2 >= _FEWEST * float((held**2).sum()):  # effective number of blocks of equal size
            edge, (bias, error) = each, mean_over_blocks(values[held > 0], held[held > 0])
            break
    variance = max(0.0, float(squares.sum()) - n * bias**2) / max(1.0, n - 1)
    return TissueBias(tissue, int(n), bias, error, math.sqrt(variance), edge)
