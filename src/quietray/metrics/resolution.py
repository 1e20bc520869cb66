"""Resolution from two independent halves of the data: Fourier correlations, and the fraction of detail that is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy import fft

from quietray.errors import GeometryError, SettingsError
from quietray.types import Volume

__all__ = ["ShellCorrelation", "Transfer", "detail_kept", "fourier_ring_correlation", "fourier_shell_correlation"]

Criterion = Literal["half-bit", "one-seventh"]


@dataclass(frozen=True, eq=False)
class ShellCorrelation:
    """Correlation between two halves, by frequency.

    Parameters
    ----------
    frequency
        Central frequency of each shell in cycles per pixel, ``(shell,)``.
    correlation
        Correlation in each shell, between -1 and 1, ``(shell,)``.
    samples
        Number of independent coefficients in each shell, ``(shell,)``.
    pixel_size
        Pixel size in mm; None if unknown.

    Examples
    --------
    >>> frequency = np.array([0.1, 0.2, 0.3, 0.4])
    >>> found = ShellCorrelation(frequency, np.array([1.0, 0.8, 0.0, 0.0]), np.full(4, 1e6), 0.01)
    >>> round(found.resolution("one-seventh"), 2), round(found.resolution_mm("one-seventh"), 4)
    (3.54, 0.0354)
    """

    frequency: Float[np.ndarray, " shell"]
    correlation: Float[np.ndarray, " shell"]
    samples: Float[np.ndarray, " shell"]
    pixel_size: float | None = None

    def threshold(self, criterion: Criterion = "half-bit") -> Float[np.ndarray, " shell"]:
        """Return the threshold curve for the correlation.

        At the ``half-bit`` threshold, the two halves together carry half a bit of information per coefficient; it is
        higher for shells with few coefficients (van Heel & Schatz 2005, doi:10.1016/j.jsb.2005.05.009); ``one-seventh``
        is 1/7.

        Raises
        ------
        SettingsError
            The criterion is unknown.
        """
        if criterion not in ("half-bit", "one-seventh"):
            raise SettingsError(f"the criterion must be half-bit or one-seventh, got '{criterion}'")
        if criterion == "one-seventh":
            return np.full(len(self.frequency), 1 / 7)
        chance = 1 / np.sqrt(np.maximum(self.samples, 1e-12))
        return np.asarray((0.2071 + 1.9102 * chance) / (1.2071 + 0.9102 * chance))

    def resolution(self, criterion: Criterion = "half-bit") -> float:
        """Return the period in pixels at which the correlation first falls below the threshold.

        It is 2, the Nyquist limit, if the correlation never falls below, and infinite if even the coarsest shell is
        below.
        """
        margin = self.correlation - self.threshold(criterion)
        below = np.flatnonzero(margin < 0)
        if below.size == 0:
            return 2.0
        last = int(below[0])
        if last == 0:
            return float("inf")
        share = margin[last - 1] / (margin[last - 1] - margin[last])
        crossing = self.frequency[last - 1] + share * (self.frequency[last] - self.frequency[last - 1])
        return float(1 / crossing)

    def resolution_mm(self, criterion: Criterion = "half-bit") -> float | None:
        """Return the resolution in mm; None if the pixel size is unknown."""
        return None if self.pixel_size is None else self.resolution(criterion) * self.pixel_size


def fourier_shell_correlation(
    one: Volume, other: Volume, *, pixel_size: float | None = None, taper: float = 0.25
) -> ShellCorrelation:
    """Return the correlation of two volumes in shells of spatial frequency (Harauz & van Heel 1986).

    Parameters
    ----------
    one, other
        Volumes ``(z, y, x)`` of the same object with independent noise, ideally cubes inside the object.
    pixel_size
        Pixel size in mm.
    taper
        Fraction of each axis, at either end, over which the volumes fade to their mean, to avoid a step at the periodic
        border.

    Raises
    ------
    GeometryError
        The shapes differ, or the volumes are too small.
    SettingsError
        The taper is not between 0 and 0.5.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> signal, a, b = rng.normal(0, 1, (3, 24, 24, 24))
    >>> found = fourier_shell_correlation(signal + a, signal + b)
    >>> bool(abs(found.correlation[-1] - 0.5) < 0.1)
    True
    """
    return _correlated(one[None], other[None], pixel_size, taper)


def fourier_ring_correlation(
    one: Volume, other: Volume, *, pixel_size: float | None = None, taper: float = 0.25
) -> ShellCorrelation:
    """Return the correlation of slices of two volumes in rings of spatial frequency, summed over the slices.

    Parameters are as in :func:`fourier_shell_correlation`, but there may be few slices and they need not be square.

    Examples
    --------
    >>> signal = np.random.default_rng(0).normal(0, 1, (2, 32, 32))
    >>> fourier_ring_correlation(signal, signal).resolution()
    2.0
    """
    return _correlated(one, other, pixel_size, taper)


@dataclass(frozen=True, eq=False)
class Transfer:
    """The fraction of the object's detail that a result keeps, by frequency; a blur loses high frequencies.

    Parameters
    ----------
    frequency
        Central frequency of each ring in cycles per pixel, ``(ring,)``.
    sums
        Sums over the coefficients of a ring, ``(5, ring)``: products of the result with independent data, products of
        independent data with each other, the squares of each, and the products of both.
    independent
        Fraction of the coefficients that are independent despite the taper.
    """

    frequency: Float[np.ndarray, " ring"]
    sums: Float[np.ndarray, "5 ring"]
    independent: float

    def over(self, low: float, high: float) -> tuple[float, float]:
        """Return the fraction kept between frequencies `low` and `high`, in cycles per pixel, and its standard error.

        NaN if the data hold no signal.
        """
        some = (self.frequency >= low) & (self.frequency <= high)
        return _kept(self.sums[:, some].sum(axis=1), self.independent)

    @property
    def curve(self) -> tuple[Float[np.ndarray, " ring"], Float[np.ndarray, " ring"]]:
        """Return the fraction of detail kept in each ring, and its standard error."""
        found = np.array([_kept(ring, self.independent) for ring in self.sums.T])
        return found[:, 0], found[:, 1]


def detail_kept(
    results: Float[np.ndarray, "half z y x"], data: Float[np.ndarray, "half z y x"], taper: float = 0.25
) -> Transfer:
    r"""Return the fraction of the object's detail that results keep, from data whose noise they have not seen.

    Two halves that were blurred in the same way agree as well as before, so their correlation cannot reveal a blur.
    But the result :math:`f_0` of one half and the data :math:`b_1` of the other have nothing in common but the object,
    and neither do the data of both halves.  In every ring, :math:`\sum f_0 b_1^* + f_1 b_0^*` over :math:`\sum b_0
    b_1^* + b_1 b_0^*` is therefore the regression of the result on the object, not biased by noise.  For a linear
    filter, it is the transfer function.

    Parameters
    ----------
    results
        Results, each computed from one half of the data.
    data
        Both halves, with independent noise.
    taper
        As in :func:`fourier_shell_correlation`.

    Raises
    ------
    GeometryError
        The shapes differ, or the images are too small.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> signal, noise = rng.normal(0, 1, (1, 4, 64, 64)), rng.normal(0, 1, (2, 4, 64, 64))
    >>> kept, error = detail_kept(0.5 * (signal + noise), signal + noise).over(0.1, 0.5)
    >>> round(kept, 6), round(error, 6)
    (0.5, 0.0)
    """
    rings = _Rings.of(results[0], data[0], taper)
    sums = np.zeros((5, rings.n))
    for f0, f1, b0, b1 in zip(*results, *data, strict=True):
        F0, F1, B0, B1 = (rings.spectrum(image) for image in (f0, f1, b0, b1))
        both, known = (F0 * B1.conj() + F1 * B0.conj()).real, 2 * (B0 * B1.conj()).real
        sums += [rings.summed(each) for each in (both, known, both**2, known**2, both * known)]
    return Transfer(rings.frequency, sums, rings.independent)


def _kept(sums: Float[np.ndarray, 5], independent: float) -> tuple[float, float]:
    both, known, squares, squares_known, products = (float(one) for one in sums)
    if known <= 0:
        return math.nan, math.nan
    share = both / known
    spread = squares - 2 * share * products + share**2 * squares_known
    return share, math.sqrt(max(0.0, spread) / independent) / known


@dataclass(frozen=True, eq=False)
class _Rings:
    """Rings or shells of the spectra of images of one shape, tapered to their mean."""

    window: np.ndarray
    shell: np.ndarray
    inside: np.ndarray
    counts: np.ndarray
    n: int

    @classmethod
    def of(cls, one: np.ndarray, other: np.ndarray, taper: float) -> _Rings:
        """Return the sums over rings of two stacks; the first axis is summed over."""
        shape = one.shape[1:]
        if other.shape != one.shape or min(shape) < 8:
            raise GeometryError(
                f"the two halves must have one shape of at least 8 pixels each way, got {one.shape} and {other.shape}"
            )
        if not 0 <= taper <= 0.5:
            raise SettingsError(f"the taper must be a share between 0 and 0.5, got {taper}")
        n = min(shape) // 2
        radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*_frequencies(shape), indexing="ij", sparse=True)))
        shell = np.rint(radius * 2 * n).astype(int).ravel()
        inside = (shell > 0) & (shell <= n)
        column = np.broadcast_to(np.arange(shape[-1] // 2 + 1), radius.shape).ravel()[inside]
        alone = (column == 0) | (2 * column == shape[-1])  # both coefficients of a conjugate pair are present
        return cls(_window(shape, taper), shell, inside, np.where(alone, 0.5, 1.0), n)

    @property
    def frequency(self) -> Float[np.ndarray, " ring"]:
        return np.arange(1, self.n + 1) / (2 * self.n)

    @property
    def independent(self) -> float:
        return float((self.window**2).mean() ** 2 / (self.window**4).mean())

    def spectrum(self, image: np.ndarray) -> np.ndarray:
        return np.asarray(fft.rfftn((image - _mean(image, self.window)) * self.window))

    def summed(self, values: np.ndarray) -> np.ndarray:
        weighted = self.counts * values.ravel()[self.inside]
        return np.bincount(self.shell[self.inside], weighted, self.n + 1)[1:]


def _correlated(one: np.ndarray, other: np.ndarray, pixel_size: float | None, taper: float) -> ShellCorrelation:
    """Return the correlation of stacks of images or volumes; the first axis is summed over."""
    rings = _Rings.of(one, other, taper)
    sums = np.zeros((3, rings.n))
    for a, b in zip(one, other, strict=True):
        fa, fb = rings.spectrum(a), rings.spectrum(b)
        sums += [rings.summed(each) for each in ((fa * fb.conj()).real, np.abs(fa) ** 2, np.abs(fb) ** 2)]
    correlation = sums[0] / np.sqrt(np.maximum(sums[1] * sums[2], 1e-300))
    samples = rings.summed(np.ones(rings.shell.size)) * len(one) * rings.independent
    return ShellCorrelation(rings.frequency, correlation, samples, pixel_size)


def _mean(image: np.ndarray, window: np.ndarray) -> float:
    return float((image * window).sum(dtype=np.float64) / window.sum())


def _frequencies(shape: tuple[int, ...]) -> list[np.ndarray]:
    return [*(np.fft.fftfreq(n) for n in shape[:-1]), np.fft.rfftfreq(shape[-1])]


def _window(shape: tuple[int, ...], taper: float) -> np.ndarray:
    """Return the product of windows that rise from 0 to 1 as a raised cosine over a fraction of each axis."""
    window = np.ones(shape)
    for axis, n in enumerate(shape):
        edge = (np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5) / max(taper * n, 1e-12)
        rise = np.sin(np.pi / 2 * np.clip(edge, 0, 1)) ** 2
        window *= rise.reshape([-1 if other == axis else 1 for other in range(len(shape))])
    return window
