"""Resolution from two independent halves of the data: Fourier ring and Fourier shell correlation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy import fft

from quietray.errors import GeometryError, SettingsError
from quietray.types import Volume

__all__ = ["ShellCorrelation", "fourier_ring_correlation", "fourier_shell_correlation"]

Criterion = Literal["half-bit", "one-seventh"]


@dataclass(frozen=True, eq=False)
class ShellCorrelation:
    """How two halves agree, by frequency.

    Parameters
    ----------
    frequency
        ``(shell,)`` middle of each shell, in cycles per pixel.
    correlation
        ``(shell,)`` between -1 and 1.
    samples
        ``(shell,)`` independent coefficients in each shell.
    pixel_size
        In mm; None when unknown.

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
        """Return the curve that the correlation must stay above.

        ``half-bit`` is where the two halves together carry half a bit in each coefficient, and a shell of few of them
        needs more (van Heel & Schatz 2005, doi:10.1016/j.jsb.2005.05.009); ``one-seventh`` is 1/7.

        Raises
        ------
        SettingsError
            There is no such criterion.
        """
        if criterion not in ("half-bit", "one-seventh"):
            raise SettingsError(f"the criterion must be half-bit or one-seventh, got '{criterion}'")
        if criterion == "one-seventh":
            return np.full(len(self.frequency), 1 / 7)
        chance = 1 / np.sqrt(np.maximum(self.samples, 1e-12))
        return np.asarray((0.2071 + 1.9102 * chance) / (1.2071 + 0.9102 * chance))

    def resolution(self, criterion: Criterion = "half-bit") -> float:
        """Return the period in pixels at which the correlation first falls below the threshold.

        It is 2, the finest that pixels can show, when it never does, and infinite when even the coarsest shell is
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
        """Return the resolution in mm; None when the pixel size is unknown."""
        return None if self.pixel_size is None else self.resolution(criterion) * self.pixel_size


def fourier_shell_correlation(
    one: Volume, other: Volume, *, pixel_size: float | None = None, taper: float = 0.25
) -> ShellCorrelation:
    """Correlate two volumes in shells of spatial frequency (Harauz & van Heel 1986).

    Parameters
    ----------
    one, other
        ``(z, y, x)``: the same object, from data that share no noise; a cube (or nearly) well inside the object.
    pixel_size
        In mm.
    taper
        Share of each axis, at either end, over which the volumes fade to their mean, so that opposite borders do not
        meet with a step.

    Raises
    ------
    GeometryError
        The shapes differ or are too small.
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
    """Correlate the slices of two volumes in rings of spatial frequency, summed over the slices.

    The rest is as in :func:`fourier_shell_correlation`, but that the slices may be few and need not be square.

    Examples
    --------
    >>> signal = np.random.default_rng(0).normal(0, 1, (2, 32, 32))
    >>> fourier_ring_correlation(signal, signal).resolution()
    2.0
    """
    return _correlated(one, other, pixel_size, taper)


def _correlated(one: np.ndarray, other: np.ndarray, pixel_size: float | None, taper: float) -> ShellCorrelation:
    """Correlate stacks of images or volumes, the first axis being summed over."""
    shape = one.shape[1:]
    if other.shape != one.shape or min(shape) < 8:
        raise GeometryError(
            f"the two halves must have one shape of at least 8 pixels each way, got {one.shape} and {other.shape}"
        )
    if not 0 <= taper <= 0.5:
        raise SettingsError(f"the taper must be a share between 0 and 0.5, got {taper}")
    window = _window(shape, taper)
    n_shells = min(shape) // 2
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*_frequencies(shape), indexing="ij", sparse=True)))
    shell = np.rint(radius * 2 * n_shells).astype(int).ravel()
    inside = (shell > 0) & (shell <= n_shells)
    column = np.broadcast_to(np.arange(shape[-1] // 2 + 1), radius.shape).ravel()[inside]
    alone = (column == 0) | (2 * column == shape[-1])  # both of a pair of conjugates are there
    counts = np.where(alone, 0.5, 1.0)

    def summed(values: np.ndarray) -> np.ndarray:
        return np.bincount(shell[inside], counts * values.ravel()[inside], n_shells + 1)[1:]

    sums = np.zeros((3, n_shells))
    for a, b in zip(one, other, strict=True):
        fa, fb = (fft.rfftn((image - _mean(image, window)) * window) for image in (a, b))
        sums += [summed((fa * fb.conj()).real), summed(np.abs(fa) ** 2), summed(np.abs(fb) ** 2)]
    correlation = sums[0] / np.sqrt(np.maximum(sums[1] * sums[2], 1e-300))
    share = float((window**2).mean() ** 2 / (window**4).mean())
    samples = summed(np.ones(radius.size)) * len(one) * share
    return ShellCorrelation(np.arange(1, n_shells + 1) / (2 * n_shells), correlation, samples, pixel_size)


def _mean(image: np.ndarray, window: np.ndarray) -> float:
    return float((image * window).sum(dtype=np.float64) / window.sum())


def _frequencies(shape: tuple[int, ...]) -> list[np.ndarray]:
    return [*(np.fft.fftfreq(n) for n in shape[:-1]), np.fft.rfftfreq(shape[-1])]


def _window(shape: tuple[int, ...], taper: float) -> np.ndarray:
    """Return the product of windows that rise from 0 to 1 as a raised cosine over a share of each axis."""
    window = np.ones(shape)
    for axis, n in enumerate(shape):
        edge = (np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5) / max(taper * n, 1e-12)
        rise = np.sin(np.pi / 2 * np.clip(edge, 0, 1)) ** 2
        window *= rise.reshape([-1 if other == axis else 1 for other in range(len(shape))])
    return window
