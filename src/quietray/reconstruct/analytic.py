"""Filtered backprojection."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float

from quietray.errors import GeometryError, SettingsError
from quietray.operators.astra import ParallelProjector
from quietray.types import Sinograms, Volume

__all__ = ["FBP", "angular_weights", "padded_width"]

Window = Literal["ram-lak", "shepp-logan", "hann"]


@dataclass(frozen=True)
class FBP:
    """Parallel-beam filtered backprojection.

    The ramp is built from its band-limited impulse response (Kak & Slaney 1988, eq. 3.29), so that the mean value is
    right, and applied in Fourier space to sinograms zero-padded to at least twice their width.

    Parameters
    ----------
    filter
        ``ram-lak`` (the ramp alone), ``shepp-logan`` (times a sinc) or ``hann`` (times a raised cosine).

    Examples
    --------
    A disc of attenuation 1 comes back as 1:

    >>> from quietray.geometry import ParallelBeam
    >>> A = ParallelProjector(ParallelBeam(np.linspace(0, np.pi, 64, endpoint=False), n_rows=1, n_cols=65))
    >>> offset = np.arange(65) - 32
    >>> chord = 2 * np.sqrt(np.clip(20.0**2 - offset**2, 0, None)).astype(np.float32)
    >>> volume = FBP()(A, np.broadcast_to(chord, (1, 64, 65)))
    >>> bool(abs(volume[0, 27:38, 27:38].mean() - 1) < 0.01)
    True
    """

    filter: Window = "ram-lak"

    def __post_init__(self) -> None:
        if self.filter not in ("ram-lak", "shepp-logan", "hann"):
            raise SettingsError(f"filter must be ram-lak, shepp-logan or hann, got '{self.filter}'")

    @property
    def linear(self) -> bool:
        """Whether the result depends linearly on the data, as Noise2Inverse needs."""
        return True

    def __call__(self, A: ParallelProjector, y: Sinograms) -> Volume:
        """Reconstruct.

        Parameters
        ----------
        A
            Projector of the views in `y`, all over at least half a turn.
        y
            Line integrals ``(row, view, col)``, dimensionless.

        Returns
        -------
        Volume
            Attenuation ``(z, y, x)`` in 1/mm, or 1/pixel when the pixel size is unknown.

        Raises
        ------
        GeometryError
            The sinograms do not fit the projector.
        """
        if tuple(y.shape) != A.range_shape:
            raise GeometryError(f"sinograms must have shape {A.range_shape} (row, view, col), got {tuple(y.shape)}")
        pixel = A.grid.voxel_size or 1.0
        filtered, weights = self.filtered(y), angular_weights(A.geometry.angles)
        if weights is not None:
            filtered *= weights[:, None]
        volume: Volume = A.adjoint(filtered)
        volume *= np.float32(np.pi / (y.shape[1] * pixel * pixel))
        return volume

    def filtered(self, y: Sinograms) -> Sinograms:
        """Return the sinograms convolved with the windowed ramp, in 1/pixel; one row at a time to spare memory."""
        n_cols = y.shape[-1]
        n_padded = padded_width(n_cols)
        response = _response(self.filter, n_padded)
        out = np.empty(y.shape, np.float32)
        for row, sinogram in enumerate(y):
            spectrum = np.fft.rfft(sinogram.astype(np.float32, copy=False), n_padded, axis=-1)
            out[row] = np.fft.irfft(spectrum * response, n_padded, axis=-1)[:, :n_cols]
        return out


def angular_weights(angles: Float[np.ndarray, " view"]) -> Float[np.ndarray, " view"] | None:
    """Return how much of half a turn each view stands for, relative to the mean; None where all stand for the same.

    Parameters
    ----------
    angles
        Radians, in any order.  Views half a turn apart are alike in a parallel beam.

    Examples
    --------
    >>> angular_weights(np.deg2rad([0.0, 60.0, 120.0])) is None
    True
    >>> angular_weights(np.deg2rad([0.0, 45.0, 135.0])).tolist()
    [0.75, 1.125, 1.125]
    """
    within = np.mod(angles - angles.min(), np.pi)
    order = np.argsort(within, kind="stable")
    steps = np.diff(within[order], append=np.pi)
    if np.ptp(angles) + 2 * np.median(steps) < np.pi:  # the directions that are missing count for none
        steps[-1] = 0.0
    weights = np.empty(len(angles))
    weights[order] = (steps + np.roll(steps, 1)) / 2
    weights *= len(angles) / max(float(weights.sum()), 1e-12)
    return None if np.abs(weights - 1).max() < 0.1 else weights.astype(np.float32)


def padded_width(n_cols: int) -> int:
    """Return the next power of two that is at least twice the width, where a circular convolution is a linear one."""
    return int(2 ** np.ceil(np.log2(2 * n_cols)))


@lru_cache(maxsize=8)
def _response(window: Window, n: int) -> np.ndarray:
    """Return the transfer function of the windowed ramp on the `n` // 2 + 1 frequencies of rfft."""
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
