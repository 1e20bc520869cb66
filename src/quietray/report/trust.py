"""The uncertainty map as an image beside the slice."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any

import imagecodecs
import matplotlib
import numpy as np
from jaxtyping import UInt8

from quietray.pictures import Window, data_uri, grey, shrink
from quietray.report.words import number
from quietray.types import Slice

__all__ = ["TrustPicture", "trust_picture"]


_EDGE = 480  # pixels; colour takes three times the space of grey


@dataclass(frozen=True)
class TrustPicture:
    """Contents of the template for the uncertainty map.

    Parameters
    ----------
    after, sd
        The denoised slice in grey, and the standard deviation of its error in colour: data URIs.
    bar
        Colour bar from 0 to `most`: data URI.
    most
        Value of the last colour, with unit.
    typical
        Median of the whole map, with unit.
    crisp
        Whether pixels are shown as squares, without interpolation.
    """

    after: str
    sd: str
    bar: str
    most: str
    typical: str
    crisp: bool


def trust_picture(after: Slice, sd: Slice, figures: Any, window: Window, unit: str) -> TrustPicture:
    """Return both images, binned if they are large, and the colour bar.

    Parameters
    ----------
    after, sd
        ``(y, x)`` the denoised slice, and the standard deviation of its error; zero outside the field of view.
    figures
        Table ``trust`` of the figures of the run.
    window
        Grey window of the denoised slice.
    unit
        Unit of both.

    Examples
    --------
    >>> sd = np.full((4, 4), 0.02, np.float32)
    >>> trust_picture(sd, sd, {"sd_median": 0.02}, Window(0.0, 1.0), "1/mm").most
    '0.02 1/mm'
    """
    factor = math.ceil(max(sd.shape) / _EDGE)
    inside = sd[sd > 0]
    most = float(np.percentile(inside, 99.5)) if inside.size else 1.0
    return TrustPicture(
        after=data_uri(grey(shrink(after, factor), window)),
        sd=_coloured(grey(shrink(sd, factor), Window(0.0, most))),
        bar=_coloured(np.arange(256, dtype=np.uint8)[None]),
        most=f"{number(most, 2)} {unit}",
        typical=f"{number(figures['sd_median'], 2)} {unit}",
        crisp=max(sd.shape) <= 480,
    )


def _coloured(picture: UInt8[np.ndarray, "y x"]) -> str:
    """Return an image in the colour map viridis, as a PNG data URI."""
    colours = matplotlib.colormaps["viridis"](np.arange(256), bytes=True)[:, :3]
    png = bytes(imagecodecs.png_encode(np.ascontiguousarray(colours[picture]), level=9, out=6 * picture.size + 8192))
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
