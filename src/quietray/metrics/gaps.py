"""Errors of volumes that held-out views do not show: outside the gaps they lie in, and in corners of the spectrum."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Complex, Float, Int
from scipy import fft

from quietray.geometry import ParallelBeam
from quietray.metrics.companion import ramp
from quietray.metrics.slices import FourierSlices
from quietray.operators.nufft import ParallelRays
from quietray.types import Frame, Slice

__all__ = ["Everywhere", "Plain", "beyond_views", "kept", "noise_like"]

_DRAWS = 6  # simulated slices
_VIEWS = 32  # held-out views at which it is looked for
_FINER = 2  # directions per angle between two views
_MOST = 1.5  # largest fraction of the error that a result may seem to keep, by chance


class Plain:
    """Filtered backprojection of all views but the held-out ones, each weighted by the angle it represents.

    Parameters
    ----------
    geometry
        Beam of all views.
    held
        Indices of the held-out views.
    mask
        Field of view ``(y, x)``.
    """

    def __init__(self, geometry: ParallelBeam, held: Int[np.ndarray, " held"], mask: Bool[np.ndarray, "y x"]) -> None:
        self.geometry, self.mask = geometry, mask
        self.rays = ParallelRays(geometry.rows(1), threads=1)
        used = np.setdiff1d(np.arange(geometry.n_views), held)
        turned = geometry.angles[used] % np.pi  # opposite views show the same
        used = used[np.argsort(turned, kind="stable")]
        steps = np.diff(np.sort(turned), append=turned.min() + np.pi)
        self.shares = np.zeros(geometry.n_views)
        self.shares[used] = (steps + np.roll(steps, 1)) / 2

    def reconstruct(self, views: Frame) -> Slice:
        """Return the reconstruction of the views ``(view, col)`` of one row, in 1/pixel."""
        image = self.rays.backproject(np.asarray(views, np.float32)[None], ramp(self.rays.width), self.shares)[0]
        return np.asarray(image * self.mask)


@dataclass(frozen=True, eq=False)
class Everywhere:
    """How the error of a plain reconstruction over all directions follows from that along held-out views, by frequency.

    At high frequencies, every view that was used shows its own direction, and leaves its noise there.  In the gaps
    between them, where held-out views lie, there is less noise, and more of the object is missing.

    Parameters
    ----------
    noise, held_noise
        Noise of the reconstruction in all directions, and along held-out views, relative to the noise of a view.
    object
        What is missing of the object in all directions, relative to that along held-out views.
    """

    noise: Float[np.ndarray, " band"]
    held_noise: Float[np.ndarray, " band"]
    object: Float[np.ndarray, " band"]

    @classmethod
    def simulated(
        cls,
        plain: Plain,
        noise: Sequence[Frame],
        held: Int[np.ndarray, " held"],
        bands: Callable[[Float[np.ndarray, "view k"]], Float[np.ndarray, "view band"]],
    ) -> Everywhere:
        """Reconstruct noise and random objects, and see how their errors are spread.

        Within a band of frequencies, the ratios do not depend on the spectra of noise and object.

        Parameters
        ----------
        plain
            The reconstruction.
        noise
            Noise ``(view, col)`` of several rows, from :func:`noise_like`.
        held
            Indices of the held-out views, evenly spaced.
        bands
            Sums power spectra of views over bands of frequency.
        """
        geometry, some = plain.geometry, held[:: -(-len(held) // _VIEWS)]
        step = float(np.median(np.diff(np.sort(geometry.angles % np.pi))))
        apart = float(np.median(np.diff(np.sort(geometry.angles[held])))) if len(held) > 1 else step
        n = _FINER * max(1, round(apart / max(step, 1e-12)))
        rng = np.random.default_rng(1)
        objects = [(rng.normal(size=plain.mask.shape) * plain.mask).astype(np.float32) for _ in range(_DRAWS)]
        of_noise, of_objects = ([plain.reconstruct(one) for one in some] for some in (noise, _seen(objects, geometry)))

        def power(spectra: Iterable[Complex[np.ndarray, "view k"]]) -> Float[np.ndarray, " band"]:
            return np.asarray(np.mean([bands(np.abs(one) ** 2).mean(axis=0) for one in spectra], axis=0))

        left, missing, of_views = [], [], np.ones(0)
        for offset in (np.arange(n) - n // 2) / n * apart:
            slices = FourierSlices(dataclasses.replace(geometry[some], angles=geometry.angles[some] + offset))
            left.append(power(slices.of_image(image) for image in of_noise))
            pairs = zip(of_objects, objects, strict=True)
            missing.append(
                power(slices.of_image(image) - slices.smoothing * slices.of_image(one) for image, one in pairs)
            )
            if len(left) == n // 2 + 1:
                of_views = power(slices.of_views(one[some]) * slices.smoothing for one in noise)
        everywhere = np.mean(missing, axis=0) / np.maximum(missing[n // 2], 1e-300)
        return cls(np.mean(left, axis=0) / of_views, left[n // 2] / of_views, everywhere)

    def more(
        self, plain: Float[np.ndarray, "block band"], noise: Float[np.ndarray, "block band"]
    ) -> Float[np.ndarray, "block band"]:
        """Return the squared error of the plain reconstruction in all directions minus that along held-out views.

        Parameters
        ----------
        plain
            Squared error along held-out views.
        noise
            Noise power of the views.

        Examples
        --------
        >>> gaps = Everywhere(np.array([2.0]), np.array([1.0]), np.array([0.5]))
        >>> gaps.more(np.array([[4.0]]), np.array([[3.0]])).tolist()  # 3 more of the noise, and 0.5 less of the object
        [[2.5]]
        """
        of_object = plain - noise * self.held_noise
        return np.asarray(noise * (self.noise - self.held_noise) + (self.object - 1) * of_object)


def noise_like(views: Frame, angles: Float[np.ndarray, " view"]) -> list[Frame]:
    """Return simulated white noise of several rows, with the variance that quanta leave in line integrals.

    Parameters
    ----------
    views
        Line integrals ``(view, col)`` of a row.
    angles
        Angles of the views, by which the noise is drawn, in whatever order they were measured.

    Examples
    --------
    >>> noise = noise_like(np.log(np.array([[1.0, 4.0]]).repeat(1000, axis=0)), np.linspace(0, 3, 1000))
    >>> (noise[0].std(axis=0)).round(1).tolist()
    [1.0, 2.0]
    """
    rng, sd = np.random.default_rng(0), np.exp(np.clip(views, 0, np.percentile(views, 99.9)) / 2)
    place = np.argsort(np.argsort(angles, kind="stable"))
    return [np.asarray(sd * rng.normal(size=sd.shape)[place], np.float32) for _ in range(_DRAWS)]


def _seen(objects: Sequence[Slice], geometry: ParallelBeam) -> list[Frame]:
    """Return projections ``(view, col)`` of slices, a few views at a time."""
    found = [np.empty((geometry.n_views, geometry.n_cols), np.float32) for _ in objects]
    for first in range(0, geometry.n_views, _VIEWS):
        some = np.arange(first, min(first + _VIEWS, geometry.n_views))
        slices = FourierSlices(geometry[some])
        for views, one in zip(found, objects, strict=True):
            views[some] = slices.to_views(slices.of_image(one))
    return found


def kept(
    together: Float[np.ndarray, "*method block band"],
    plain: Float[np.ndarray, "block band"],
    weights: Float[np.ndarray, " block"],
) -> Float[np.ndarray, "*method band"]:
    """Return the fraction of the squared error of a plain reconstruction that results have kept, by frequency.

    Parameters
    ----------
    together
        Products of the errors of the results with those of the plain reconstruction.
    plain
        Squared errors of the plain reconstruction.
    weights
        Weight of each block.

    Examples
    --------
    >>> kept(np.array([[2.0], [2.0]]), np.array([[4.0], [4.0]]), np.ones(2)).tolist()
    [0.25]
    """
    power = np.average(plain, axis=0, weights=weights)
    share = np.average(together, axis=-2, weights=weights) / np.maximum(power, 1e-300)
    return np.asarray(np.where(power > 0, np.clip(share, 0, _MOST) ** 2, 0.0))


def beyond_views(image: Slice, mask: Bool[np.ndarray, "y x"]) -> float:
    """Return the mean square of what an image has above 0.5 cycles per pixel, in the corners of its spectrum.

    No projection onto the detector shows these.  A reconstruction of noise-free views has next to nothing there, so it
    is error.

    Examples
    --------
    >>> y, x = np.indices((8, 8))
    >>> everywhere = np.ones((8, 8), bool)
    >>> beyond_views((-1.0) ** (x + y), everywhere), beyond_views((-1.0) ** x, everywhere)
    (1.0, 0.0)
    """
    frequencies = [fft.fftfreq(size) for size in image.shape]
    corner = np.hypot(frequencies[0][:, None], frequencies[1]) > 0.5
    spectrum = fft.fft2(np.where(mask, image, 0))
    return float(np.square(np.abs(spectrum[corner])).sum() / image.size / max(1, np.count_nonzero(mask)))
