"""Slices to scroll through in one direction, as many as fit into a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from quietray.pictures import Window, data_uri, grey
from quietray.running.planes import spread

__all__ = ["Film", "film_of", "fitting", "wide_window"]

_BEYOND = 0.5  # of the window, added on either side, so that the reader can widen it
_NARROWEST = 0.2  # of all grey levels, for the window that is shown first


@dataclass(frozen=True)
class Film:
    """The slices of one direction, each as one or several images.

    Parameters
    ----------
    places
        Positions of the slices, as text.
    pictures
        PNG data URIs of all slices, by name.
    range
        Values that are black and white in the files; wider than the initial window.
    factor
        Binning factor: each pixel is the mean of a block of voxels of this width.
    """

    places: tuple[str, ...]
    pictures: Mapping[str, tuple[str, ...]]
    range: Window
    factor: int

    @property
    def weight(self) -> int:
        """Size in characters."""
        return sum(len(uri) for uris in self.pictures.values() for uri in uris)

    def some(self, share: float) -> Film:
        """Return this fraction of the slices, evenly spaced, including the middle one."""
        kept = spread(len(self.places), max(1, int(share * len(self.places))))
        pictures = {name: tuple(uris[one] for one in kept) for name, uris in self.pictures.items()}
        return Film(tuple(self.places[one] for one in kept), pictures, self.range, self.factor)

    def record(self) -> dict[str, Any]:
        """Return the data for the script of the page, as JSON types."""
        return {
            "places": list(self.places),
            "pictures": {name: list(uris) for name, uris in self.pictures.items()},
            "range": [float(self.range.low), float(self.range.high)],
            "factor": self.factor,
        }


def film_of(
    places: Sequence[str], pictures: Mapping[str, Float[np.ndarray, "_ _ _"]], window: Window, factor: int
) -> Film:
    """Return slices as a film.

    Parameters
    ----------
    places
        Positions of the slices, as text.
    pictures
        ``(place, row, col)`` by name.
    window
        Initial grey window.
    factor
        Binning factor that the images have already.

    Examples
    --------
    >>> film = film_of(["z = 3", "z = 9"], {"before": np.zeros((2, 4, 4), np.float32)}, Window(0.0, 1.0), 1)
    >>> film.range, len(film.some(0.5).places)
    (Window(low=-0.5, high=1.5), 1)
    """
    wide = wide_window(window, list(pictures.values()))
    encoded = {name: tuple(data_uri(grey(one, wide)) for one in images) for name, images in pictures.items()}
    return Film(tuple(places), encoded, wide, factor)


def fitting(films: Sequence[Film], room: int) -> tuple[Film, ...]:
    """Return as many slices of each film as fit into `room` characters together; empty if not even one of each fits.

    Examples
    --------
    >>> film = film_of([str(z) for z in range(9)], {"after": np.zeros((9, 4, 4), np.float32)}, Window(0.0, 1.0), 1)
    >>> [len(one.places) for one in fitting([film, film], film.weight)]
    [4, 4]
    """
    share = 1.0
    while (total := sum(film.some(share).weight for film in films)) > room:
        smaller = share * min(0.95, room / total)
        if all(int(smaller * len(film.places)) < 1 for film in films):
            single = tuple(film.some(0.0) for film in films)
            return single if sum(film.weight for film in single) <= room else ()
        share = smaller
    return tuple(film.some(share) for film in films)


def wide_window(window: Window, images: Sequence[Float[np.ndarray, "*_"]]) -> Window:
    """Return a wider window: by half of its width on either side, or more to contain nearly all values.

    Examples
    --------
    >>> wide_window(Window(0.0, 1.0), [np.array([0.2, 0.7])])
    Window(low=-0.5, high=1.5)
    """
    span = window.high - window.low
    low, high = window.low - _BEYOND * span, window.high + _BEYOND * span
    values = np.concatenate([image[np.isfinite(image)].ravel() for image in images] or [np.empty(0)])
    if values.size:
        least, most = (float(one) for one in np.percentile(values, (0.5, 99.5)))
        reach = 0.5 * (1 / _NARROWEST - 1) * span
        low, high = max(min(low, least), window.low - reach), min(max(high, most), window.high + reach)
    return Window(low, high)
