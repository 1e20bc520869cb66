"""Noise power spectra, and shifts of the mean value of each material by denoising."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import fft, ndimage, stats

from quietray.errors import GeometryError, SettingsError
from quietray.metrics.blocks import block_sums
from quietray.types import Volume

__all__ = ["PowerSpectrum", "RegionBias", "power_spectrum", "region_bias"]


@dataclass(frozen=True, eq=False)
class PowerSpectrum:
    """Noise power by spatial frequency; its integral is the variance.

    Parameters
    ----------
    power
        Power ``(ky, kx)`` in the order of an FFT, in :attr:`unit`.
    frequency_y, frequency_x
        Frequencies ``(ky,)`` and ``(kx,)`` in cycles per mm, or per pixel if the pixel size is unknown.
    pixel_size
        Pixel size in mm; None if unknown.

    Examples
    --------
    >>> found = power_spectrum(np.random.default_rng(0).normal(0, 3, (4, 64, 64)))
    >>> abs(found.variance - 9) < 0.3, found.unit
    (True, 'value^2 pixel^2')
    """

    power: Float[np.ndarray, "ky kx"]
    frequency_y: Float[np.ndarray, " ky"]
    frequency_x: Float[np.ndarray, " kx"]
    pixel_size: float | None = None

    @property
    def unit(self) -> str:
        """The squared unit of the images, times an area."""
        return "value^2 mm^2" if self.pixel_size else "value^2 pixel^2"

    @property
    def variance(self) -> float:
        """Integral of the power over all frequencies."""
        pixel = self.pixel_size or 1.0
        return float(self.power.mean() / pixel**2)

    def radial(self) -> tuple[Float[np.ndarray, " ring"], Float[np.ndarray, " ring"]]:
        """Return the mean frequency and mean power of rings, up to the Nyquist frequency.

        Frequency zero is left out, as the mean was subtracted.
        """
        pixel = self.pixel_size or 1.0
        n_rings = min(self.power.shape) // 2
        radius = np.hypot(self.frequency_y[:, None], self.frequency_x[None])
        ring = np.rint(radius * pixel * 2 * n_rings).astype(int)
        inside = (ring > 0) & (ring <= n_rings)
        count = np.bincount(ring[inside], minlength=n_rings + 1)[1:]
        frequency, power = (
            np.bincount(ring[inside], values[inside], n_rings + 1)[1:] / count for values in (radius, self.power)
        )
        return frequency, power


def power_spectrum(noise: Volume, pixel_size: float | None = None) -> PowerSpectrum:
    """Return the noise power spectrum of a region, averaged over slices (ICRU report 87).

    Parameters
    ----------
    noise
        ``(z, y, x)``: noise without the object, such as the difference of two halves divided by the square root of 2,
        or a residual, in a region with uniform noise.  The mean of each slice is subtracted.
    pixel_size
        Pixel size in mm.

    Raises
    ------
    GeometryError
        The region is smaller than 4 pixels.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(0, 1, (8, 32, 32))
    >>> frequency, power = power_spectrum(noise, pixel_size=0.1).radial()
    >>> float(frequency[-1].round(1)), bool(np.allclose(power.mean(), 0.01, rtol=0.1))
    (5.0, True)
    """
    n_y, n_x = noise.shape[1:]
    if min(n_y, n_x) < 4:
        raise GeometryError(f"the region must be at least 4 pixels each way, got {n_y} x {n_x}; take a larger one")
    pixel = pixel_size or 1.0
    total = np.zeros((n_y, n_x))
    for image in noise:
        total += np.abs(fft.fft2(image - image.mean(dtype=np.float64))) ** 2
    power = total * (pixel**2 / (n_y * n_x * len(noise)))
    return PowerSpectrum(power, np.fft.fftfreq(n_y, pixel), np.fft.fftfreq(n_x, pixel), pixel_size)


@dataclass(frozen=True)
class RegionBias:
    """Shift of the mean value of one material by denoising.

    Parameters
    ----------
    level
        Mean of the denoised volume in the material.
    bias, error
        Mean of denoised minus noisy values, and its standard error.
    share
        Fraction of the compared voxels that belong to the material.
    spread
        Standard deviation of the denoised volume in the material.
    """

    level: float
    bias: float
    error: float
    share: float
    spread: float


def region_bias(
    denoised: Volume,
    measured: Float[np.ndarray, "half z y x"],
    seen: Float[np.ndarray, "half z y x"],
    mask: Bool[np.ndarray, "y x"] | None = None,
    *,
    classes: int = 2,
    erosion: int = 2,
    block: int = 16,
    common: Float[np.ndarray, "slice y x"] | None = None,
) -> tuple[RegionBias, ...]:
    """Return the shift of the mean attenuation of each material, darkest first.

    Materials are classes of the denoised grey values (Otsu's thresholds), without voxels near their borders, whose
    class depends on blur and noise.  A class that was found in the result would be chosen by the same noise that its
    mean is compared with.  Each measured half is therefore averaged where the *other* half, denoised alone, is in the
    class.

    Parameters
    ----------
    denoised
        Denoised volume ``(z, y, x)``.
    measured
        Two halves of the measurement with independent noise, without denoising and without bias, such as filtered
        backprojections without a window.
    seen
        Each half denoised without the other.
    mask
        Voxels of each slice to compare; all by default.
    classes
        Number of materials, including air.
    erosion
        Number of voxels to leave out along borders.
    block
        Edge of the blocks in voxels, larger than the correlation length of the noise.
    common
        Slices with noise like that which both halves have in common, such as the rings of flats; None if there is none.

    Returns
    -------
    tuple of RegionBias
        One entry per class that has voxels in at least two blocks of both halves.

    Raises
    ------
    GeometryError
        The shapes differ.
    SettingsError
        There are fewer than two classes.

    Notes
    -----
    The standard error is that of the difference of the halves, which contains as much noise as their mean and neither
    the object nor the shift.  It is enlarged by the ratio of Student's t to the normal distribution at 90 %, because it
    was measured on few blocks.  Noise that both halves have in common is not in their difference: `common` tells what
    it does to the mean of a region.

    Examples
    --------
    >>> truth = np.zeros((4, 64, 64), np.float32)
    >>> truth[:, :, 32:] = 1
    >>> halves = truth + np.random.default_rng(0).normal(0, 0.1, (2, *truth.shape)).astype(np.float32)
    >>> found = region_bias(truth * 0.9, halves, 0.9 * np.stack([truth, truth]))
    >>> [f"{one.level:.1f}: {one.bias:+.1f}" for one in found][1]
    '0.9: -0.1'
    """
    from skimage.filters import threshold_multiotsu

    shape = denoised.shape
    if {measured.shape, seen.shape} != {(2, *shape)} or (mask is not None and mask.shape != shape[1:]):
        raise GeometryError(
            f"the volumes and the mask must fit, got {shape}, and halves of {measured.shape} and {seen.shape}"
            f"{'' if mask is None else f' with a mask of {mask.shape}'}; compare the same rows and region"
        )
    if classes < 2:
        raise SettingsError(f"there must be at least 2 classes, got {classes}; air is one")
    use = np.broadcast_to(np.ones(shape[1:], bool) if mask is None else mask, shape)
    limits = threshold_multiotsu(denoised[use], classes)
    change, labels = denoised.astype(np.float64) - measured, np.digitize(seen[::-1], limits)
    found = []
    for each in range(classes):
        inside = use & (labels == each)
        if erosion:
            inside = np.stack([ndimage.binary_erosion(one, iterations=erosion, border_value=1) for one in inside])
        counts, sums = (
            np.stack([block_sums(half, block).ravel() for half in halves])
            for halves in (inside.astype(np.float64), np.where(inside, change, 0))
        )
        voxels = counts.sum(axis=0)
        if ((counts > 0).sum(axis=1) < 2).any():
            continue
        few = float(voxels.sum() ** 2 / np.square(voxels).sum())  # as many blocks of equal size are as uncertain
        error = float(np.sqrt(np.square(sums[0] - sums[1]).sum()) / voxels.sum())
        error *= float(stats.t.ppf(0.95, few) / stats.norm.ppf(0.95))
        if common is not None:
            error = float(np.hypot(error, _error_of_common(common, inside.sum(axis=0))))
        within = np.broadcast_to(denoised, inside.shape)[inside].astype(np.float64)
        share = float(voxels.sum()) / (2 * float(use.sum()))
        bias = float(sums.sum() / voxels.sum())
        found.append(RegionBias(float(within.mean()), bias, error, share, float(within.std())))
    return tuple(found)


def _error_of_common(common: Float[np.ndarray, "slice y x"], counts: Int[np.ndarray, "z y x"]) -> float:
    """Return the standard error of a mean with these weights due to noise that differs between slices."""
    weights = counts.reshape(len(counts), -1).astype(np.float64)
    means = weights @ common.reshape(len(common), -1).T.astype(np.float64)
    few = float(stats.t.ppf(0.95, len(common)) / stats.norm.ppf(0.95))
    return few * float(np.sqrt(np.square(means).mean(axis=1).sum()) / weights.sum())
