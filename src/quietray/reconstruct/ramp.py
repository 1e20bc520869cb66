"""The ramp filter of the analytic algorithms."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float

from quietray.errors import SettingsError
from quietray.types import Sinograms

__all__ = ["RampFilter", "padded_width", "ramp_filtered", "ramp_response", "require_filter"]

RampFilter = Literal["ram-lak", "shepp-logan", "hann"]


def ramp_filtered(y: Sinograms, window: RampFilter) -> Sinograms:
    """Return the sinograms convolved with the windowed ramp, in 1/pixel, one row at a time to save memory.

    The ramp is built from its band-limited impulse response (Kak & Slaney 1988, eq. 3.29), so that mean values are
    preserved.  It is applied in Fourier space to sinograms zero-padded to at least twice their width.

    Examples
    --------
    >>> round(float(ramp_filtered(np.eye(1, 8, dtype=np.float32)[None], "ram-lak")[0, 0, 0]), 6)
    0.25
    """
    n_cols = y.shape[-1]
    n_padded = padded_width(n_cols)
    response = ramp_response(window, n_padded)
    out = np.empty(y.shape, np.float32)
    for row, sinogram in enumerate(y):
        spectrum = np.fft.rfft(sinogram.astype(np.float32, copy=False), n_padded, axis=-1)
        out[row] = np.fft.irfft(spectrum * response, n_padded, axis=-1)[:, :n_cols]
    return out


def padded_width(n_cols: int) -> int:
    """Return the smallest power of two that is at least twice the width, to avoid wrap-around in the convolution.

    Examples
    --------
    >>> padded_width(100)
    256
    """
    return int(2 ** np.ceil(np.log2(2 * n_cols)))


def require_filter(window: str) -> None:
    """Raise unless this is the name of a filter window.

    Examples
    --------
    >>> require_filter("box")
    Traceback (most recent call last):
    quietray.errors.SettingsError: filter must be ram-lak, shepp-logan or hann, got 'box'
    """
    if window not in ("ram-lak", "shepp-logan", "hann"):
        raise SettingsError(f"filter must be ram-lak, shepp-logan or hann, got '{window}'")


@lru_cache(maxsize=8)
def ramp_response(window: RampFilter, n: int) -> Float[np.ndarray, " frequency"]:
    """Return the transfer function of the windowed ramp on the `n` // 2 + 1 frequencies of a real FFT, in 1/pixel.

    Examples
    --------
    >>> [round(float(gain), 3) for gain in ramp_response("hann", 8)]
    [0.025, 0.105, 0.125, 0.055, 0.0]
    """
    offset = np.fft.fftfreq(n, 1 / n)
    impulse = np.zeros(n)
    impulse[0] = 0.25
    odd = offset.astype(int) % 2 == 1
    impulse[odd] = -1 / (np.pi * offset[odd]) ** 2
    ramp = np.fft.rfft(impulse).real
    frequency = np.fft.rfftfreq(n)
    if window == "shepp-logan":
        ramp *= np.sinc(frequency)
    elif window == "hann":
        ramp *= 0.5 + 0.5 * np.cos(2 * np.pi * frequency)
    return ramp.astype(np.float32)
