"""A channelised Hotelling observer, which measures how well a faint, known detail can be detected in noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from quietray.errors import GeometryError, SettingsError

__all__ = ["Detectability", "detectability", "laguerre_gauss"]


@dataclass(frozen=True)
class Detectability:
    """How well an observer distinguishes images with a detail from images without it.

    Parameters
    ----------
    square
        d'^2, corrected for chance, so it may be negative if the detail is invisible.
    error
        Standard error of the square.
    contrast
        Mean difference over the detail, weighted with the first channel, in the unit of the images.
    n_present, n_absent
        Numbers of images with and without the detail.
    """

    square: float
    error: float
    contrast: float
    n_present: int
    n_absent: int

    @property
    def index(self) -> float:
        """d', the distance of the two means in standard deviations; 0 corresponds to guessing."""
        return math.sqrt(max(self.square, 0.0))


def laguerre_gauss(size: int, width: float, n_channels: int = 5) -> Float[np.ndarray, "channel y x"]:
    """Return rotationally symmetric channels: Laguerre polynomials times a Gaussian, orthonormal.

    Parameters
    ----------
    size
        Edge of the images in pixels.
    width
        Width of the Gaussian ``exp(-pi r^2 / width^2)`` in pixels; about the diameter of the detail.
    n_channels
        Number of channels.

    Notes
    -----
    Gallas & Barrett (2003), doi:10.1364/JOSAA.20.001725.

    Examples
    --------
    >>> channels = laguerre_gauss(65, 16.0, 3).reshape(3, -1)
    >>> bool(np.allclose(channels @ channels.T, np.eye(3), atol=1e-3))
    True
    """
    if n_channels < 1 or not width > 0:
        raise SettingsError(f"there must be channels of a positive width, got {n_channels} of {width} pixels")
    place = np.arange(size) - (size - 1) / 2
    square = 2 * math.pi * (place[:, None] ** 2 + place**2) / width**2
    polynomials = [np.polynomial.laguerre.lagval(square, [0.0] * k + [1.0]) for k in range(n_channels)]
    return np.asarray(math.sqrt(2) / width * np.exp(-square / 2) * np.stack(polynomials))


def detectability(
    present: Float[np.ndarray, "present _ _"],  # the sizes are checked below, with clearer messages
    absent: Float[np.ndarray, "absent _ _"],
    channels: Float[np.ndarray, "channel y x"],
) -> Detectability:
    """Return how well a linear observer that sees images through channels detects a detail.

    With the mean difference ``s`` of the channel outputs and their covariance ``C`` without the detail, ``d'^2 = s C^-1
    s``.  Both are estimated, and both bias the result upwards: the inverse of an estimated covariance is too large by
    ``(n - 1) / (n - c - 2)``, and the statistical error of the difference adds ``c (1 / n_present + 1 / n_absent)`` for
    ``c`` channels.  Both biases are removed.

    Parameters
    ----------
    present
        Images ``(image, y, x)`` with the detail in the centre.
    absent
        Images without the detail, from which the noise is measured, so there should be many.  They may come from other
        positions in the image if the noise is the same there; the mean of each position must then be subtracted first.
    channels
        Channels from :func:`laguerre_gauss`.

    Raises
    ------
    GeometryError
        There are too few images for the number of channels, or shapes do not match.

    Notes
    -----
    Barrett & Myers, Foundations of Image Science, 2004, section 13.2.12.  A trained network is nonlinear
    and may erase a detail that it was not trained on, even while it improves the PSNR; this index shows that.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> channels = laguerre_gauss(33, 8.0, 3)
    >>> absent = rng.normal(0, 1, (4000, 33, 33))
    >>> present = rng.normal(0, 1, (4000, 33, 33)) + 3 * channels[0]  # the ideal observer has d' = 3
    >>> round(detectability(present, absent, channels).index, 1)
    3.0
    """
    n_channels = len(channels)
    if present.shape[1:] != channels.shape[1:] or absent.shape[1:] != channels.shape[1:]:
        raise GeometryError(
            f"images must have the channels' shape {channels.shape[1:]}, got {present.shape[1:]} and {absent.shape[1:]}"
        )
    if len(absent) < n_channels + 4 or len(present) < 2:
        raise GeometryError(
            f"there must be at least {n_channels + 4} images without and 2 with the detail for {n_channels} channels, "
            f"got {len(absent)} and {len(present)}; use fewer channels, or more places"
        )
    flat = channels.reshape(n_channels, -1)
    with_it, without = (x.reshape(len(x), -1).astype(np.float64) @ flat.T for x in (present, absent))
    shift = with_it.mean(axis=0) - without.mean(axis=0)
    covariance = np.atleast_2d(np.cov(without, rowvar=False))
    n = len(absent)
    chance = 1 / len(present) + 1 / n
    square = float(shift @ np.linalg.solve(covariance, shift)) * (n - n_channels - 2) / (n - 1) - n_channels * chance
    seen = max(square, 0.0)
    # statistical errors of the difference (along it and in each channel) and of the covariance
    error = math.sqrt(4 * seen * chance + 2 * n_channels * chance**2 + 2 * seen**2 / n)
    return Detectability(square, error, float(shift[0] / flat[0].sum()), len(present), n)
