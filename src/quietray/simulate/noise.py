"""Noise models of detectors: from expected photons to counts, with moments in closed form.

The whole model is ``I = gain (h * Poisson(lambda)) + N(0, sigma^2) + dark`` where ``*`` is the convolution with the
point response h.  Further imperfections of real detectors are optional.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy import ndimage, special

from quietray.errors import SettingsError
from quietray.types import Radiographs

__all__ = ["Gaussian", "NoiseModel", "Poisson", "Scintillator", "gaussian_response", "laplace_response"]

Kernel = Float[np.ndarray, "i j"]


def laplace_response(width: float, radius: int | None = None) -> Kernel:
    """Return the point response ``exp(-(|x| + |y|) / width)``, integrated over pixels and normalised to sum 1.

    Parameters
    ----------
    width
        Decay length in pixels; 0 for an ideal detector.
    radius
        Half-width of the kernel; by default, the distance at which the response falls below 1e-4.

    Examples
    --------
    >>> laplace_response(0.5).shape, float(laplace_response(0.0)[0, 0])
    ((11, 11), 1.0)
    """
    if width < 0:
        raise SettingsError(f"the width of the point response must not be negative, got {width}")
    if width == 0:
        return np.ones((1, 1))
    reach = int(np.ceil(9.2 * width)) if radius is None else radius
    edges = np.arange(-reach - 0.5, reach + 1)
    cumulative = np.where(edges < 0, 0.5 * np.exp(edges / width), 1 - 0.5 * np.exp(-edges / width))
    line = np.diff(cumulative)
    kernel = np.outer(line, line)
    return np.asarray(kernel / kernel.sum())


def gaussian_response(width: float, radius: int | None = None) -> Kernel:
    """Return a Gaussian point response of standard deviation `width`, integrated over pixels, with sum 1.

    Parameters
    ----------
    width
        Standard deviation in pixels; 0 for an ideal detector.
    radius
        Half-width of the kernel; by default four standard deviations plus one pixel.

    Examples
    --------
    >>> gaussian_response(0.5).shape, round(float(gaussian_response(0.5)[3, 3]), 3)
    ((7, 7), 0.466)
    """
    if width < 0:
        raise SettingsError(f"the width of the point response must not be negative, got {width}")
    if width == 0:
        return np.ones((1, 1))
    reach = int(np.ceil(4 * width)) + 1 if radius is None else radius
    line = np.diff(special.ndtr(np.arange(-reach - 0.5, reach + 1) / width))
    kernel = np.outer(line, line)
    return np.asarray(kernel / kernel.sum())


class NoiseModel(ABC):
    """A random map from expected photons to counts."""

    @abstractmethod
    def sample(self, photons: Radiographs, rng: np.random.Generator) -> Radiographs:
        """Draw counts for the expected photons ``(view, row, col)`` that reach each pixel."""

    @abstractmethod
    def mean(self, photons: Radiographs) -> Radiographs:
        """Return the expected counts."""

    @abstractmethod
    def covariance(self, photons: float, lag: tuple[int, int]) -> float:
        """Return the covariance of two pixels `lag` apart in a frame uniformly lit by `photons` per pixel."""


@dataclass(frozen=True)
class Poisson(NoiseModel):
    """Photon counting: independent Poisson counts.

    Examples
    --------
    >>> Poisson().covariance(100.0, (0, 0)), Poisson().covariance(100.0, (0, 1))
    (100.0, 0.0)
    """

    def sample(self, photons: Radiographs, rng: np.random.Generator) -> Radiographs:
        """Draw counts."""
        return rng.poisson(photons).astype(np.float32)

    def mean(self, photons: Radiographs) -> Radiographs:
        """Return `photons`."""
        return photons

    def covariance(self, photons: float, lag: tuple[int, int]) -> float:
        """Return the variance at lag zero, and 0 at other lags."""
        return photons if lag == (0, 0) else 0.0


@dataclass(frozen=True)
class Gaussian(NoiseModel):
    """Additive white noise.

    Parameters
    ----------
    sd
        Standard deviation in counts.

    Examples
    --------
    >>> Gaussian(2.0).covariance(100.0, (0, 0))
    4.0
    """

    sd: float = 1.0

    def sample(self, photons: Radiographs, rng: np.random.Generator) -> Radiographs:
        """Draw counts."""
        return (photons + rng.normal(0, self.sd, photons.shape)).astype(np.float32)

    def mean(self, photons: Radiographs) -> Radiographs:
        """Return `photons`."""
        return photons

    def covariance(self, photons: float, lag: tuple[int, int]) -> float:
        """Return the variance at lag zero, and 0 at other lags."""
        return self.sd**2 if lag == (0, 0) else 0.0


@dataclass(frozen=True)
class Scintillator(NoiseModel):
    """An indirect detector: photons, spread of the light, readout, and common imperfections.

    Parameters
    ----------
    gain
        Counts per photon.
    dark
        Counts without beam.
    read_noise
        Standard deviation of the readout noise in counts.
    read_noise_spread
        Relative standard deviation of the read noise between pixels, as a fixed pattern.
    response_width
        Decay length of the Laplace point response, or standard deviation of the Gaussian one, in pixels; 0 for none.
    response_shape
        ``"laplace"`` or ``"gaussian"``.
    excess
        Variance of the light per photon relative to Poisson noise alone (Swank noise), at least 1.
    flicker
        Relative standard deviation of the beam intensity between frames.
    drift
        Relative change of the beam intensity over 1000 frames, linear in time.
    row_noise
        Standard deviation in counts of an offset common to a row, new in every frame.
    gain_spread
        Relative standard deviation of the gain between pixels, as a fixed pattern.
    dead, hot, unstable, stuck
        Fractions of pixels that read nothing, read far too much, flicker on their own, or always read the same number
        of counts; at fixed positions.
    afterglow
        Fraction of the previous frame's light that appears again.
    zingers
        Fraction of pixels per frame hit by a zinger, a spurious bright spot.

    Examples
    --------
    >>> model = Scintillator(gain=2.0, dark=10.0, read_noise=3.0)
    >>> round(model.covariance(100.0, (0, 0)), 6), round(model.covariance(100.0, (0, 1)), 6)
    (409.0, 0.0)
    """

    gain: float = 1.0
    dark: float = 0.0
    read_noise: float = 0.0
    read_noise_spread: float = 0.0
    response_width: float = 0.0
    excess: float = 1.0
    flicker: float = 0.0
    drift: float = 0.0
    row_noise: float = 0.0
    gain_spread: float = 0.0
    dead: float = 0.0
    hot: float = 0.0
    unstable: float = 0.0
    afterglow: float = 0.0
    zingers: float = 0.0
    response_shape: Literal["laplace", "gaussian"] = "laplace"
    stuck: float = 0.0

    def __post_init__(self) -> None:
        if self.gain <= 0:
            raise SettingsError(f"gain must be positive, got {self.gain}")
        if self.excess < 1:
            raise SettingsError(f"excess must be at least 1 (1 is Poisson alone), got {self.excess}")
        if self.response_shape not in ("laplace", "gaussian"):
            raise SettingsError(f"response_shape must be laplace or gaussian, got '{self.response_shape}'")
        shares = ("dead", "hot", "stuck", "unstable", "afterglow", "zingers")
        for name in ("read_noise", "response_width", "flicker", "row_noise", *shares):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} must not be negative, got {getattr(self, name)}")

    @property
    def response(self) -> Kernel:
        """The point response, normalised to sum 1."""
        shape = laplace_response if self.response_shape == "laplace" else gaussian_response
        return shape(self.response_width)

    def mean(self, photons: Radiographs) -> Radiographs:
        """Return the expected counts of good pixels, without fixed patterns."""
        return (self.gain * (1 + self.afterglow) * self._spread(photons) + self.dark).astype(np.float32)

    def covariance(self, photons: float, lag: tuple[int, int]) -> float:
        """Return the covariance of photon and read noise between two good pixels of a frame."""
        response = self.response
        span = response.shape[0]
        shifted = np.zeros_like(response)
        dy, dx = lag
        if abs(dy) < span and abs(dx) < span:
            shifted[max(0, dy) : span + min(0, dy), max(0, dx) : span + min(0, dx)] = response[
                max(0, -dy) : span + min(0, -dy), max(0, -dx) : span + min(0, -dx)
            ]
        light = self.gain**2 * self.excess * photons * float((response * shifted).sum())
        light *= 1 + self.afterglow**2
        own = self.read_noise**2 if lag == (0, 0) else 0.0
        return light + own + (self.row_noise**2 if dy == 0 else 0.0)

    def sample(
        self,
        photons: Radiographs,
        rng: np.random.Generator,
        first_frame: int = 0,
        previous: Float[np.ndarray, "1 row col"] | None = None,
        previous_rng: np.random.Generator | None = None,
    ) -> Radiographs:
        """Draw counts.

        Parameters
        ----------
        photons
            Expected photons ``(view, row, col)``.
        rng
            Random generator of the noise; fixed patterns have their own, so that they do not change between calls.
        first_frame
            Number of the first frame, which determines the drift.
        previous
            Expected photons of the frame before the first one, ``(1, row, col)``, for afterglow.
        previous_rng
            A fresh copy of the generator that the previous frame was drawn from, so that its afterglow has the same
            noise.  Without it, the afterglow has the right mean but new noise.
        """
        frames, n_rows, n_cols = photons.shape
        beam = 1 + self.drift * (first_frame + np.arange(frames)) / 1000 + self.flicker * rng.standard_normal(frames)
        light = self._light(photons * beam[:, None, None], rng)
        if self.afterglow:
            before = self._light_before(photons[:1] if previous is None else previous, first_frame, rng, previous_rng)
            light = light + self.afterglow * np.concatenate([before, light[:-1]])
        counts = self.gain * self._spread(light)
        pattern = np.random.default_rng(20_250_731)
        counts *= 1 + self.gain_spread * pattern.standard_normal((n_rows, n_cols))
        sd = self.read_noise * np.clip(1 + self.read_noise_spread * pattern.standard_normal((n_rows, n_cols)), 0, None)
        counts += sd * rng.standard_normal(counts.shape)
        counts += self.row_noise * rng.standard_normal((frames, n_rows, 1))
        counts = self._defects(counts, pattern, rng)
        return (counts + self.dark).astype(np.float32)

    def _light_before(
        self, photons: np.ndarray, first_frame: int, rng: np.random.Generator, again: np.random.Generator | None
    ) -> np.ndarray:
        """Draw the light of the frame before the first one, or repeat it exactly if its generator is given."""
        if again is None:
            return self._light(photons, rng)
        frame = max(first_frame - 1, 0)
        beam = 1 + self.drift * frame / 1000 + self.flicker * again.standard_normal(1)
        return self._light(photons * beam[:, None, None], again)

    def _light(self, photons: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw the light of each pixel in photons; the excess factor increases the variance but not the mean."""
        light = rng.poisson(photons).astype(np.float64)
        if self.excess > 1:
            light += np.sqrt((self.excess - 1) * light) * rng.standard_normal(light.shape)
        return light

    def _spread(self, light: np.ndarray) -> np.ndarray:
        """Convolve each frame with the point response, mirrored at the border."""
        kernel = self.response
        if kernel.size == 1:
            return np.asarray(light, dtype=np.float64)
        line = kernel.sum(axis=0)  # both kernels are separable
        rows = ndimage.correlate1d(np.asarray(light, dtype=np.float64), line, axis=1, mode="reflect")
        return np.asarray(ndimage.correlate1d(rows, line, axis=2, mode="reflect"))

    def _defects(self, counts: np.ndarray, pattern: np.random.Generator, rng: np.random.Generator) -> np.ndarray:
        lot = pattern.random(counts.shape[1:])
        counts[:, lot < self.dead] = 0
        hot = (lot >= self.dead) & (lot < self.dead + self.hot)
        counts[:, hot] += 20 * (np.abs(counts).mean() + 1)
        stuck = (lot >= self.dead + self.hot) & (lot < self.dead + self.hot + self.stuck)
        if self.stuck:
            counts[:, stuck] = self.gain * 300.0
        unstable = (lot > 1 - self.unstable) & ~hot & ~stuck
        counts[:, unstable] *= 1 + 0.3 * rng.standard_normal((len(counts), int(unstable.sum())))
        if self.zingers:
            hit = rng.random(counts.shape) < self.zingers
            counts[hit] += 5 * (np.abs(counts).mean() + 1) * (1 + rng.random(int(hit.sum())))
        return counts
