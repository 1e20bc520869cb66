"""An independent reconstruction for validation, made without the held-out views and their neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from quietray.errors import GeometryError
from quietray.geometry import ParallelBeam
from quietray.metrics.slices import FourierSlices
from quietray.operators.nufft import ParallelRays
from quietray.types import Frame

__all__ = ["Companion", "Neighbours", "object_radius", "ramp"]


def ramp(n: int) -> Float[np.ndarray, " k"]:
    """Return the band-limited ramp (Kak & Slaney 1988, eq. 3.29) at the frequencies of an rfft, in cycles per pixel.

    Examples
    --------
    >>> ramp(8).round(2).tolist()
    [0.02, 0.12, 0.25, 0.38, 0.48]
    """
    offset = np.fft.fftfreq(n, 1 / n).astype(int)
    impulse = np.zeros(n)
    impulse[0] = 0.25
    odd = offset % 2 == 1
    impulse[odd] = -1 / (np.pi * offset[odd]) ** 2
    return np.asarray(np.fft.rfft(impulse).real)


def object_radius(profile: Float[np.ndarray, " col"], geometry: ParallelBeam) -> float:
    """Return the radius of the object around the rotation axis in pixels, at a tenth of the largest projection.

    Parameters
    ----------
    profile
        Sum or mean of the line integrals in each column.
    geometry
        Beam with the rotation axis.

    Examples
    --------
    >>> object_radius(np.array([0.0, 0.0, 1.0, 2.0, 1.0, 0.0]), ParallelBeam(np.zeros(1), 1, 6, rotation_axis=3.0))
    1.5
    """
    seen = np.flatnonzero(profile > 0.1 * profile.max())
    return float(np.abs(seen - geometry.axis).max(initial=1.0)) + 0.5


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Each held-out view, the next view, and the views before and after these two.

    Parameters
    ----------
    views
        Indices ``(4, held)``: the previous view, the held-out view, and the next two, sorted by angle.
    weights
        ``(2, held)``: weight of the last view when each of the middle two is interpolated from the outer ones.
    step
        Angle between the middle two, in radians.
    """

    views: Int[np.ndarray, "4 held"]
    weights: Float[np.ndarray, "2 held"]
    step: float

    @classmethod
    def of(cls, geometry: ParallelBeam, order: Int[np.ndarray, " view"], held: Int[np.ndarray, " held"]) -> Neighbours:
        """Find the neighbours of held-out views; `order` sorts the views by angle.

        Raises
        ------
        GeometryError
            Held-out views are too close to each other or to the ends.
        """
        place = np.flatnonzero(np.isin(order, held))
        if place.size == 0 or place[0] < 1 or place[-1] > len(order) - 3 or np.diff(place).min(initial=3) < 3:
            raise GeometryError(
                "held-out views must have two others between them and not be at the ends, got "
                f"{np.sort(held).tolist()}; choose them with held_out_views"
            )
        views = order[place + np.arange(-1, 3)[:, None]]
        turned = np.unwrap(geometry.angles[views], axis=0)
        turned = turned - turned[0]
        weights = turned[1:3] / np.where(turned[3] == 0, 1, turned[3])
        return cls(views, weights, float(np.abs(turned[2] - turned[1]).mean()))


class Companion:
    """Wiener-filtered backprojection without the held-out views and their neighbours, which are interpolated.

    Parameters
    ----------
    geometry
        Beam of all views.
    neighbours
        The held-out views and their neighbours.
    mask
        Field of view ``(y, x)``.
    """

    def __init__(self, geometry: ParallelBeam, neighbours: Neighbours, mask: Bool[np.ndarray, "y x"]) -> None:
        self.neighbours, self.mask = neighbours, mask
        self.rays = ParallelRays(geometry.rows(1), threads=1)
        self.slices = [FourierSlices(geometry[views]) for views in neighbours.views[1:3]]

    def reconstruct(self, views: Frame) -> Float[np.ndarray, "y x"]:
        """Return the filtered backprojection of the views ``(view, col)`` of one row, in 1/pixel."""
        before, one, other, after = self.neighbours.views
        filled = np.array(views, np.float32)
        for view, weight in zip((one, other), self.neighbours.weights, strict=True):
            filled[view] = (1 - weight[:, None]) * views[before] + weight[:, None] * views[after]
        share = np.full(len(views), np.pi / len(views))
        image = self.rays.backproject(filled[None], ramp(self.rays.width), share)[0]
        return np.asarray(image * self.mask)

    def products(self, views: Frame) -> Iterator[Float[np.ndarray, "held k"]]:
        """Yield products of the spectra of the held-out views and their neighbours, from one row ``(view, col)``.

        With the spectra F of the reconstruction and Y of the measurement, these are ``FF, FY, YY`` of the held-out
        view, then the products of the held-out view with its neighbour.
        """
        image, both = self.reconstruct(views), zip(self.slices, self.neighbours.views[1:3], strict=True)
        F, Y = zip(
            *((one.of_image(image), one.of_views(views[which]) * one.smoothing) for one, which in both), strict=True
        )
        for other in (0, 1):
            yield (F[0] * F[other].conj()).real
            yield (F[0] * Y[other].conj() + Y[0] * F[other].conj()).real / 2
            yield (Y[0] * Y[other].conj()).real

    def correlation(
        self,
        noise: Sequence[Frame],
        bands: Callable[[Float[np.ndarray, "view k"]], Float[np.ndarray, "view band"]],
    ) -> Float[np.ndarray, " band"]:
        """Return the correlation of the errors of the reconstruction along the two views, by frequency.

        It is that of noise, which makes up most of these errors, and is simulated.

        Parameters
        ----------
        noise
            Noise ``(view, col)`` of several rows.
        bands
            Sums power spectra of views over bands of frequency.
        """
        power, product = [], []
        for views in noise:
            image = self.reconstruct(views)
            one, other = (slices.of_image(image) for slices in self.slices)
            power.append(bands((np.abs(one) ** 2 + np.abs(other) ** 2) / 2).mean(axis=0))
            product.append(bands((one * other.conj()).real).mean(axis=0))
        return np.asarray(np.mean(product, axis=0) / np.maximum(np.mean(power, axis=0), 1e-300))

    def noise(
        self, products: Float[np.ndarray, "6 block band"], weights: Float[np.ndarray, " block"], rho: np.ndarray
    ) -> Float[np.ndarray, "block band"]:
        """Return the noise power of the held-out views, by frequency band.

        Parameters
        ----------
        products
            Output of :meth:`products`, averaged in bands.
        weights
            Weight of each block.
        rho
            Correlation of the reconstruction errors of the two views, ``(band,)``.
        """
        means = np.average(products, axis=1, weights=weights)
        gain = np.clip(means[1] / np.maximum(means[0], 1e-300), 0, None)
        power, product = (gain**2 * ff - 2 * gain * fy + yy for ff, fy, yy in (products[:3], products[3:]))
        return np.asarray(power - product / rho)
