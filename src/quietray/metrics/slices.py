"""Central slices of an image's Fourier transform: its projections, without the blur of a discrete projector."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from jaxtyping import Complex, Float
from scipy import fft, sparse

from quietray.errors import GeometryError
from quietray.geometry import ParallelBeam
from quietray.operators.nufft import smoothing
from quietray.types import Frame, Slice

__all__ = ["FourierSlices"]

_TAPS = 5  # grid points per direction for the interpolation of a sample
_WIDTH = 2.34 * _TAPS  # shape parameter of the Kaiser-Bessel window for twofold oversampling


class FourierSlices:
    """Spectra of the parallel projections of square slices, by the Fourier slice theorem.

    A discrete projector blurs, as it treats voxels and rays as boxes.  The Fourier transform of the voxel values, on
    the line through zero along the detector, is the exact spectrum of the projection of the band-limited image.  It is
    interpolated from an FFT of twice the size.

    Parameters
    ----------
    geometry
        Beam; slices are as wide as the detector and centred on the rotation axis, as in ``geometry.grid()``.

    Notes
    -----
    Interpolation by a Kaiser-Bessel window: Fessler & Sutton (2003), doi:10.1109/TSP.2002.807005.

    Examples
    --------
    The projection along the columns is their sum:

    >>> image = np.random.default_rng(0).random((8, 8), dtype=np.float32)
    >>> slices = FourierSlices(ParallelBeam(np.zeros(1), n_rows=1, n_cols=8))
    >>> bool(np.allclose(slices.of_image(image), slices.of_views(image.sum(axis=0)[None]), atol=1e-2))
    True
    """

    def __init__(self, geometry: ParallelBeam) -> None:
        self.geometry = geometry
        n = geometry.n_cols
        self.n_padded = int(fft.next_fast_len(2 * n, real=True))
        if self.n_padded % 2:
            self.n_padded = int(fft.next_fast_len(self.n_padded + 1, real=True))
        self.frequencies: Float[np.ndarray, " k"] = np.fft.rfftfreq(self.n_padded)
        cos, sin = np.cos(geometry.angles)[:, None], np.sin(geometry.angles)[:, None]
        across, down = (cos * self.frequencies).ravel(), (-sin * self.frequencies).ravel()
        middle = (n - 1) / 2 - n // 2
        self._phase = np.exp(2j * np.pi * middle * (across + down)).astype(np.complex64)
        self._shift = np.exp(2j * np.pi * self.frequencies * geometry.axis)
        self._interpolation = self._window(across * self.n_padded, down * self.n_padded)
        apodisation = 1 / _transformed((np.arange(n) - n // 2) / self.n_padded)
        self._apodisation = np.outer(apodisation, apodisation).astype(np.float32)

    @cached_property
    def smoothing(self) -> Float[np.ndarray, "view k"]:
        """The effect of filtered backprojection on each view, besides the ramp filter."""
        return smoothing(self.frequencies, self.geometry.angles)

    def _window(self, across: np.ndarray, down: np.ndarray) -> sparse.csr_array:
        """Return the matrix that interpolates at points from a periodic grid."""
        near = np.arange(_TAPS) - (_TAPS - 1) // 2
        x, y = (np.floor(points + 0.5).astype(np.int32)[:, None] + near.astype(np.int32) for points in (across, down))
        value_x, value_y = _kaiser_bessel(x - across[:, None]), _kaiser_bessel(y - down[:, None])
        values = (value_y[:, :, None] * value_x[:, None, :]).astype(np.float32)
        columns = (y % self.n_padded)[:, :, None] * self.n_padded + (x % self.n_padded)[:, None, :]
        starts = np.arange(len(across) + 1) * _TAPS**2
        return sparse.csr_array((values.ravel(), columns.ravel(), starts), shape=(len(across), self.n_padded**2))

    def of_image(self, image: Slice) -> Complex[np.ndarray, "view k"]:
        """Return the spectra of the projections of a slice ``(y, x)``, with lengths in pixels.

        Raises
        ------
        GeometryError
            The slice is not as wide as the detector.
        """
        n = self.geometry.n_cols
        if image.shape != (n, n):
            raise GeometryError(
                f"a slice must be {n} x {n} pixels, as wide as the detector, got {image.shape[0]} x {image.shape[1]}; "
                "reconstruct without a region"
            )
        field = np.zeros((self.n_padded, self.n_padded), np.float32)
        field[:n, :n] = image * self._apodisation
        spectrum = fft.fft2(np.roll(field, (-(n // 2), -(n // 2)), (0, 1)), overwrite_x=True)
        found = self._phase * (self._interpolation @ spectrum.ravel())
        return np.asarray(found.reshape(self.geometry.n_views, -1))

    def of_views(self, sinogram: Frame) -> Complex[np.ndarray, "view k"]:
        """Return the spectra of measured views ``(view, col)``, with the origin at the rotation axis."""
        return np.asarray(fft.rfft(sinogram, self.n_padded, axis=-1) * self._shift)

    def to_views(self, spectra: Complex[np.ndarray, "view k"]) -> Frame:
        """Return the views with these spectra; the reverse of :meth:`of_views`."""
        return np.asarray(fft.irfft(spectra / self._shift, self.n_padded, axis=-1)[:, : self.geometry.n_cols])


def _kaiser_bessel(offset: np.ndarray) -> np.ndarray:
    """Return the window at offsets in grid points; zero beyond half its width."""
    inside = np.clip(1 - (2 * offset / _TAPS) ** 2, 0, None)
    return np.asarray(np.where(inside > 0, np.i0(_WIDTH * np.sqrt(inside)), 0) / _TAPS)


def _transformed(position: np.ndarray) -> np.ndarray:
    """Return the Fourier transform of the window, at positions in units of the width of the grid."""
    root = np.sqrt(_WIDTH**2 - (np.pi * _TAPS * position) ** 2)
    return np.asarray(np.sinh(root) / root)
