"""The map of trust as a picture beside the slice that it is about."""

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


_EDGE = 480  # px: colours take three times the room of greys


@dataclass(frozen=True)
class TrustPicture:
    """What the template shows of the map.

    Parameters
    ----------
    after, sd
        The denoised slice in grey, and the standard deviation of its error in colour: URIs.
    bar
        The colours from none to `most`: URI.
    most
        The value of the last colour, with its unit.
    typical
        The median of the whole map, with its unit.
    crisp
        Whether pixels are to be shown as squares.
    """

    after: str
    sd: str
    bar: str
    most: str
    typical: str
    crisp: bool


def trust_picture(after: Slice, sd: Slice, figures: Any, window: Window, unit: str) -> TrustPicture:
    """Return both images, averaged if they are large, and the colour bar.

    Parameters
    ----------
    after, sd
        ``(y, x)`` the denoised slice, and the standard deviation of its error; zero outside the field of view.
    figures
        The table ``trust`` of the run's figures.
    window
        Greys of the denoised slice.
    unit
        Of both.

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
    """Return a picture in the colours of viridis, as a PNG inside a URI."""
    colours = matplotlib.colormaps["viridis"](np.arange(256), bytes=True)[:, :3]
    png = bytes(imagecodecs.png_encode(np.ascontiguousarray(colours[picture]), level=9, out=6 * picture.size + 8192))
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
