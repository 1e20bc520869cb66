"""Low-dose scans: quantum and electronic noise for line integrals, clean or already measured at a higher dose."""

from __future__ import annotations

import numpy as np

from quietray.errors import SettingsError
from quietray.types import Radiographs

__all__ = ["low_dose", "lowered_dose"]

_FLOOR = 0.5  # in photons, so that dark pixels do not become infinitely dense


def low_dose(
    line_integrals: Radiographs, photons: float, electronic: float, rng: np.random.Generator
) -> tuple[Radiographs, float]:
    """Return the line integrals measured with few photons, and the fraction of them that was clipped as too dark.

    Counts are ``Poisson(photons exp(-l)) + N(0, electronic^2)``; those below half a photon are set to half a photon.

    Parameters
    ----------
    line_integrals
        Noise-free line integrals.
    photons
        Photons in the open beam, per pixel and view.
    electronic
        Standard deviation of the electronic noise, in photons.
    rng
        Random generator of the noise.

    Raises
    ------
    SettingsError
        The number of photons is not positive, or the noise is negative.

    Examples
    --------
    >>> noisy, dark = low_dose(np.ones((1, 200, 200), np.float32), 1e4, 5.0, np.random.default_rng(0))
    >>> bool(abs(noisy.var() * 1e4 / np.e - 1) < 0.05), dark
    (True, 0.0)
    """
    _require(photons, electronic)
    counts = rng.poisson(photons * np.exp(-line_integrals.astype(np.float64))) + electronic * rng.standard_normal(
        line_integrals.shape
    )
    dark = float((counts < _FLOOR).mean())
    return -np.log(np.maximum(counts, _FLOOR) / photons).astype(np.float32), dark


def lowered_dose(
    line_integrals: Radiographs, photons: float, share: float, electronic: float, rng: np.random.Generator
) -> Radiographs:
    """Return the line integrals of a scan as if it had been measured with a fraction of its dose.

    Noise of variance ``(1 - s) / s * e / N * (1 + (1 + s) / s * E e / N)`` is added, with ``e = exp(l)``, N photons,
    dose fraction s and electronic variance E: the noise of the lower dose in excess of that of the scan.

    Parameters
    ----------
    line_integrals
        Measured line integrals, with the noise of the full dose.
    photons
        Photons in the open beam of the scan.
    share
        Fraction of the dose, above 0 and at most 1.
    electronic
        Standard deviation of the electronic noise, in photons.
    rng
        Random generator of the noise.

    Raises
    ------
    SettingsError
        The fraction is out of range.

    Notes
    -----
    Zeng, Huang, Zhang, Bian, Niu, Zhang, Feng, Liang & Ma (2015), doi:10.1109/TNS.2015.2467219, eq. 8.

    Examples
    --------
    >>> flat = np.zeros((1, 200, 200), np.float32)
    >>> quarter = lowered_dose(flat, 1e4, 0.25, 0.0, np.random.default_rng(0))
    >>> bool(abs(quarter.var() * 1e4 / 3 - 1) < 0.05)
    True
    """
    _require(photons, electronic)
    if not 0 < share <= 1:
        raise SettingsError(f"the share of the dose must be above 0 and at most 1, got {share}; 0.25 is a quarter")
    thickness = np.exp(line_integrals.astype(np.float64)) / photons
    variance = (1 - share) / share * thickness * (1 + (1 + share) / share * electronic**2 * thickness)
    return (line_integrals + np.sqrt(variance) * rng.standard_normal(line_integrals.shape)).astype(np.float32)


def _require(photons: float, electronic: float) -> None:
    if not photons > 0:
        raise SettingsError(f"photons must be positive, got {photons}")
    if not electronic >= 0:
        raise SettingsError(f"electronic noise must not be negative, got {electronic}; 0 is none")
