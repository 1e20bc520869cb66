"""From attenuation to 8-bit images: grey window, binning, and the region to show enlarged."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

import imagecodecs
import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from quietray.types import Slice

__all__ = [
    "Region",
    "Window",
    "data_uri",
    "detailed_region",
    "grey",
    "grey_window",
    "outline_uri",
    "png",
    "round_length",
    "shrink",
    "stated_window",
]

LONGEST = 1280  # in pixels; larger images are binned
_SOFT_TISSUE = (-160.0, 240.0)  # in HU: level 40, width 400
INSET = 220  # in pixels; longest edge of the enlarged region


@dataclass(frozen=True)
class Window:
    """The values displayed as black and white."""

    low: float | int
    high: float | int


@dataclass(frozen=True)
class Region:
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: Slice) -> Float[np.ndarray, "inside_y inside_x"]:
        """Return this part of `image`."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def grey_window(images: Sequence[Float[np.ndarray, "_ _"]]) -> Window:
    """Return a window from the 0.5th to the 99.5th percentile of all finite pixels, widened by 4 % on both sides.

    Examples
    --------
    >>> window = grey_window([np.arange(201.0).reshape(3, 67)])
    >>> round(window.low, 2), round(window.high, 2)
    (-6.92, 206.92)
    >>> grey_window([np.full((2, 2), np.nan)])
    Window(low=0.0, high=1.0)
    """
    values = np.concatenate([image[np.isfinite(image)] for image in images] or [np.empty(0)]).astype(np.float64)
    if not values.size:
        return Window(0.0, 1.0)
    low, high = (float(value) for value in np.percentile(values, (0.5, 99.5)))
    # The images are float32: a spread below their resolution does not count.
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        margin = abs(low) / 2 or 0.5
    else:
        margin = 0.04 * (high - low)
    return Window(low - margin, high + margin)


def stated_window(window: tuple[float, float] | None, unit: str) -> tuple[float, float] | None:
    """Return the window stated in a file, else that of soft tissue for HU; None if there is neither.

    Examples
    --------
    >>> stated_window(None, "HU"), stated_window(None, "1/mm")
    ((-160.0, 240.0), None)
    """
    return _SOFT_TISSUE if window is None and unit == "HU" else window


def grey(image: Slice, window: Window) -> UInt8[np.ndarray, "y x"]:
    """Return `image` with 8 bits: 0 at the low end of the window, 255 at the high end; NaN becomes 0.

    Examples
    --------
    >>> grey(np.array([[0.0, 0.5, 2.0, np.nan]]), Window(0, 1)).tolist()
    [[0, 128, 255, 0]]
    """
    with np.errstate(invalid="ignore", over="ignore"):
        share = (image.astype(np.float64) - window.low) / (window.high - window.low)
    return np.where(np.isfinite(image), np.rint(255 * np.clip(np.nan_to_num(share), 0, 1)), 0).astype(np.uint8)


def shrink(image: Slice, factor: int) -> Float[np.ndarray, "block_y block_x"]:
    """Return the mean of each `factor` x `factor` block, ignoring NaN; blocks at the far edges may be smaller.

    Examples
    --------
    >>> shrink(np.array([[1.0, 3.0, 5.0], [1.0, np.nan, 5.0]]), 2).round(3).tolist()
    [[1.667, 5.0]]
    """
    if factor == 1:
        return image
    rows, cols = (np.arange(0, size, factor) for size in image.shape)
    valid = np.isfinite(image)
    sums, counts = (
        np.add.reduceat(np.add.reduceat(part, rows, axis=0, dtype=np.float64), cols, axis=1)
        for part in (np.where(valid, image, 0), valid)
    )
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).astype(image.dtype)


def data_uri(picture: UInt8[np.ndarray, "y x"]) -> str:
    """Return `picture` as a PNG in a data URI.

    Examples
    --------
    >>> data_uri(np.zeros((1, 1), np.uint8))[:30]
    'data:image/png;base64,iVBORw0K'
    """
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode("ascii")


def png(picture: UInt8[np.ndarray, "y x"]) -> bytes:
    """Return `picture` as the bytes of a PNG file.

    Examples
    --------
    >>> png(np.zeros((1, 1), np.uint8))[1:4]
    b'PNG'
    """
    # The size is given because the encoder's own estimate is too small for tiny images.
    room = 2 * picture.size + 8 * len(picture) + 4096
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(picture), level=9, out=room))


def outline_uri(mask: Bool[np.ndarray, "_ _"]) -> str:
    """Return the outline of a mask as a PNG in a data URI, transparent elsewhere.

    Examples
    --------
    >>> outline_uri(np.eye(4, dtype=bool))[:30]
    'data:image/png;base64,iVBORw0K'
    """
    picture = np.zeros((*mask.shape, 4), np.uint8)
    picture[mask & ~ndimage.binary_erosion(mask, border_value=1)] = (255, 210, 122, 255)
    png = bytes(imagecodecs.png_encode(picture, level=9, out=6 * picture.size + 8192))
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def detailed_region(image: Slice, window: Window) -> Region:
    """Return the region with the most edges inside the window, about a fifth of the image wide.

    Edges are gradients of the slightly smoothed image, to reduce the influence of the remaining noise.

    Examples
    --------
    >>> image = np.zeros((100, 100))
    >>> image[60:80:4, 60:80] = 1
    >>> detailed_region(image, Window(0, 1))
    Region(top=56, left=58, height=24, width=24)
    """
    rows, cols = image.shape
    side = min(INSET, max(24, math.ceil(max(rows, cols) / 5)))
    height, width = min(side, rows), min(side, cols)
    # The thinner an image, the shorter the region, because thin images must be enlarged more.
    height, width = min(height, max(16, 48 * width)), min(width, max(16, 48 * height))
    calm = np.clip(np.nan_to_num(image.astype(np.float64), nan=window.low), window.low, window.high)
    calm = ndimage.gaussian_filter(calm, 1.0)
    edges = np.hypot(ndimage.sobel(calm, axis=0), ndimage.sobel(calm, axis=1))
    sums = np.pad(edges, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    score = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(int(np.argmax(score)), score.shape)
    return Region(int(top), int(left), height, width)


def round_length(longest: float | int) -> float:
    """Return the largest of 1, 2, 5, 10, 20, ... that is not longer than `longest`: the length of a scale bar.

    Examples
    --------
    >>> round_length(0.73), round_length(49)
    (0.5, 20.0)
    """
    power = 10.0 ** math.floor(math.log10(longest))
    return float(f"{max(step for step in (1, 2, 5) if step * power <= longest * (1 + 1e-9)) * power:.12g}")
