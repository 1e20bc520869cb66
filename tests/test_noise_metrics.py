"""Resolution, noise power, bias by region and neighbourhood dependency against closed forms."""

from __future__ import annotations

import inspect
import math
import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from quietray.errors import GeometryError, SettingsError
from quietray.geometry import ParallelBeam
from quietray.metrics.dependency import neighbourhood_dependency
from quietray.metrics.image import disc
from quietray.metrics.noreference import streaks_of_halves
from quietray.metrics.resolution import ShellCorrelation, fourier_ring_correlation, fourier_shell_correlation
from quietray.metrics.spectrum import power_spectrum, region_bias
from quietray.operators.astra import ParallelProjector
from quietray.operators.nufft import smoothing
from quietray.reconstruct.analytic import FBP
from quietray.running import plan


def low_passed(shape: tuple[int, ...], cut: float, rng: np.random.Generator) -> np.ndarray:
    """White noise without anything above `cut` cycles per pixel, in the last axes of equal size."""
    white = rng.normal(size=shape)
    axes = (0, 1, 2) if shape[0] == shape[1] else (1, 2)
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(shape[a]) for a in axes), indexing="ij")))
    return np.asarray(np.fft.ifftn(np.fft.fftn(white, axes=axes) * (radius < cut), axes=axes).real)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("taper", [0.0, 0.2])
def test_shells_correlate_as_signal_to_noise(rng: np.random.Generator, ratio: float, taper: float) -> None:
    """Signal and independent white noise: SNR / (SNR + 1) in every shell, within what the shell's samples allow."""
    signal, a, b = rng.normal(size=(3, 40, 40, 40))
    found = fourier_shell_correlation(math.sqrt(ratio) * signal + a, math.sqrt(ratio) * signal + b, taper=taper)
    wanted = ratio / (ratio + 1)
    sd = (1 - wanted**2) / np.sqrt(found.samples)
    assert np.abs((found.correlation - wanted) / sd)[1:].max() < 4.5
    assert found.correlation[5:].mean() == pytest.approx(wanted, abs=0.02)


def test_rings_pool_the_slices(rng: np.random.Generator) -> None:
    signal, a, b = rng.normal(size=(3, 30, 48, 64))
    found = fourier_ring_correlation(signal + a, signal + b)
    assert np.abs((found.correlation - 0.5) / (0.75 / np.sqrt(found.samples))).max() < 4.5
    assert len(found.frequency) == 24
    assert found.frequency[-1] == 0.5


@pytest.mark.parametrize("cut", [0.15, 0.3])
@pytest.mark.parametrize("criterion", ["half-bit", "one-seventh"])
def test_a_low_passed_object_ends_where_it_was_cut(rng: np.random.Generator, cut: float, criterion: str) -> None:
    signal = 3 * low_passed((48, 48, 48), cut, rng)
    a, b = rng.normal(size=(2, 48, 48, 48))
    found = fourier_shell_correlation(signal + a, signal + b, pixel_size=0.01)
    assert 1 / found.resolution(criterion) == pytest.approx(cut, abs=2 / 48)  # type: ignore[arg-type]
    assert found.resolution_mm(criterion) == pytest.approx(0.01 * found.resolution(criterion))  # type: ignore[arg-type]
    rings = 3 * low_passed((16, 64, 64), cut, rng)
    a, b = rng.normal(size=(2, 16, 64, 64))
    assert 1 / fourier_ring_correlation(rings + a, rings + b).resolution() == pytest.approx(cut, abs=2 / 64)


def test_the_taper_hides_what_the_borders_have_in_common(rng: np.random.Generator) -> None:
    """A slope of the object meets itself with a step at the border, which looks like shared fine detail."""
    slope = np.broadcast_to(np.linspace(-30, 30, 32), (32, 32, 32))
    a, b = rng.normal(size=(2, 32, 32, 32))
    bare, tapered = (fourier_shell_correlation(slope + a, slope + b, taper=share) for share in (0.0, 0.25))
    assert bare.correlation[8:].mean() > 0.3
    assert abs(tapered.correlation[8:].mean()) < 0.05


def test_thresholds() -> None:
    frequency = np.array([0.1, 0.2, 0.3])
    curve = ShellCorrelation(frequency, np.array([1.0, 0.9, 0.8]), np.array([1.0, 100.0, 1e12]))
    assert curve.threshold() == pytest.approx([1.0, 0.39812 / 1.29812, 0.17157], abs=1e-4)
    assert curve.threshold()[-1] == pytest.approx((math.sqrt(2) - 1) / 2 / (1 + (math.sqrt(2) - 1) / 2), abs=1e-4)
    assert curve.threshold("one-seventh") == pytest.approx(np.full(3, 1 / 7))
    assert curve.resolution("one-seventh") == 2.0
    assert curve.resolution_mm() is None
    nothing = ShellCorrelation(frequency, np.array([0.1, 0.9, 0.9]), np.full(3, 1e6))
    assert nothing.resolution() == math.inf
    with pytest.raises(SettingsError, match="half-bit or one-seventh, got 'third'"):
        inspect.unwrap(ShellCorrelation.threshold)(curve, "third")


def test_halves_must_fit() -> None:
    volume = np.zeros((8, 8, 8))
    with pytest.raises(GeometryError, match="one shape"):
        inspect.unwrap(fourier_shell_correlation)(volume, volume[1:])
    with pytest.raises(GeometryError, match="at least 8 pixels"):
        fourier_ring_correlation(volume[:, :4], volume[:, :4])
    with pytest.raises(SettingsError, match="taper"):
        fourier_shell_correlation(volume, volume, taper=0.7)


def test_white_noise_is_flat_and_integrates_to_its_variance(rng: np.random.Generator) -> None:
    noise = rng.normal(5, 3, (60, 40, 50))
    found = power_spectrum(noise, pixel_size=0.2)
    step = (found.frequency_y[1] - found.frequency_y[0]) * (found.frequency_x[1] - found.frequency_x[0])
    variance = float(np.mean([image.var() for image in noise]))
    assert found.power.sum() * step == pytest.approx(variance, rel=1e-9)
    assert found.variance == pytest.approx(variance, rel=1e-9)
    assert found.unit == "value^2 mm^2"
    frequency, power = found.radial()
    assert frequency[-1] == pytest.approx(2.5, rel=0.02)
    assert power == pytest.approx(np.full(20, 9 * 0.2**2), rel=0.12)
    assert power_spectrum(noise).unit == "value^2 pixel^2"
    assert power_spectrum(noise).variance == pytest.approx(variance, rel=1e-9)


def test_smoothed_noise_has_the_transfer_function_squared(rng: np.random.Generator) -> None:
    noise = ndimage.convolve1d(rng.normal(size=(80, 32, 32)), [0.25, 0.5, 0.25], axis=2, mode="wrap")
    found = power_spectrum(noise)
    transfer = (0.5 + 0.5 * np.cos(2 * np.pi * found.frequency_x)) ** 2
    assert found.power[1:].mean(axis=0) == pytest.approx(transfer, abs=0.05)


def test_the_noise_of_filtered_backprojection_rises_like_the_ramp(rng: np.random.Generator) -> None:
    """Power = pi |k| var / n_views, times the square of what backprojection smooths, on average over the views."""
    beam = ParallelBeam(np.linspace(0, np.pi, 300, endpoint=False), 24, 96)
    volume = FBP()(ParallelProjector(beam, threads=1), rng.normal(0, 2, (24, 300, 96)).astype(np.float32))
    frequency, power = power_spectrum(volume[:, 24:72, 24:72]).radial()
    low = (frequency > 0.05) & (frequency < 0.2)
    expected = np.pi * frequency * 4 / 300
    blur = np.mean(smoothing(frequency, beam.angles) ** 2, axis=0)
    assert (power / (expected * blur))[low] == pytest.approx(np.ones(int(low.sum())), abs=0.12)


def test_spectra_need_an_image() -> None:
    with pytest.raises(GeometryError, match="at least 4 pixels"):
        power_spectrum(np.zeros((1, 3, 8)))


def materials() -> np.ndarray:
    truth = np.zeros((12, 96, 96), np.float32)
    truth[:, disc(96, 96, 0.8)] = 1
    truth[:, disc(96, 96, 0.4)] = 3
    return truth


def halves(truth: np.ndarray, sd: float, rng: np.random.Generator, blur: float = 0.0) -> np.ndarray:
    """Two measurements; their mean has noise of this standard deviation, which may be correlated."""
    noise = ndimage.gaussian_filter(rng.normal(size=(2, *truth.shape)), (0, 0, blur, blur))
    return np.asarray(truth + noise * (sd * 2**0.5 / noise.std()), np.float32)


def test_the_bias_of_each_material_is_found(rng: np.random.Generator) -> None:
    truth = materials()
    denoised = 0.9 * truth + 0.05
    found = region_bias(denoised, halves(truth, 0.3, rng), np.stack(2 * [denoised]), disc(96, 96, 0.95), classes=3)
    assert [each.level for each in found] == pytest.approx([0.05, 0.95, 2.75], abs=1e-3)
    for each, bias in zip(found, (0.05, -0.05, -0.25), strict=True):
        assert abs(each.bias - bias) < 4 * each.error
        assert each.error < 0.01
    assert sum(each.share for each in found) < 1


def test_standard_errors_of_region_biases_hold() -> None:
    """Over many draws of noise that is correlated, bias over its error has a standard deviation of about 1."""
    ratios, truth = [], materials()
    for seed in range(40):
        measured = halves(truth, 0.3, np.random.default_rng(seed), blur=1.0)
        ratios += [each.bias / each.error for each in region_bias(truth, measured, np.stack(2 * [truth]), classes=3)]
    assert 0.75 < np.std(ratios) < 1.3
    assert abs(np.mean(ratios)) < 0.4


def test_a_region_is_not_chosen_by_the_noise_that_its_mean_is_compared_with() -> None:
    """A weak filter of so much noise puts bright voxels into the bright class: its mean would be forty errors off."""
    ratios, truth = [], materials()[:4] / 3
    for seed in range(20):
        measured = halves(truth, 1.0, np.random.default_rng(seed))
        seen = ndimage.gaussian_filter(measured, (0, 0, 1.0, 1.0))
        clean = seen.mean(axis=0)
        wanted = region_bias(clean, np.stack(2 * [truth]), seen, erosion=0)  # of the same voxels
        found = region_bias(clean, measured, seen, erosion=0)
        ratios += [(one.bias - other.bias) / one.error for one, other in zip(found, wanted, strict=True)]
    assert 0.75 < np.std(ratios) < 1.6
    assert abs(np.mean(ratios)) < 0.6


def test_the_error_of_a_region_in_few_blocks_is_enlarged(rng: np.random.Generator) -> None:
    """Nine of ten intervals of 1.645 errors contain the truth where there are three blocks, too."""
    truth = np.zeros((1, 16, 96), np.float32)
    truth[:, :, 48:] = 1
    ratios = []
    for _ in range(300):
        found = region_bias(truth, halves(truth, 0.3, rng), np.stack(2 * [truth]), block=16)
        ratios += [abs(each.bias) / each.error for each in found]
    assert np.mean(np.array(ratios) < 1.645) == pytest.approx(0.9, abs=0.045)


def test_erosion_keeps_borders_out(rng: np.random.Generator) -> None:
    """A blur moves grey values at the borders only: with them it looks like a bias, without it does not."""
    truth = materials()
    blurred, measured = ndimage.gaussian_filter(truth, (0, 1.0, 1.0)), halves(truth, 0.3, rng)
    near, far = (
        region_bias(blurred, measured, np.stack(2 * [blurred]), classes=3, erosion=width)[2] for width in (0, 4)
    )
    assert near.bias < -2.5 * near.error
    assert abs(far.bias) < 4 * far.error


def test_region_bias_tells_mistakes() -> None:
    volume, pair = np.zeros((2, 8, 8), np.float32), np.zeros((2, 2, 8, 8), np.float32)
    with pytest.raises(GeometryError, match="must fit"):
        inspect.unwrap(region_bias)(volume, pair[:, 1:], pair)
    with pytest.raises(SettingsError, match="at least 2 classes"):
        region_bias(volume, pair, pair, classes=1)


KERNEL = np.array([[0.05, 0.1, 0.05], [0.1, 0.3, 0.1], [0.05, 0.1, 0.05]])


def filtered(frames: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.correlate(frames, KERNEL[None], mode="constant"))


@pytest.mark.parametrize(("window", "wanted"), [(1, 0.3), (3, 0.9), (5, 0.9)])
def test_dependency_of_a_linear_filter_on_white_noise(rng: np.random.Generator, window: int, wanted: float) -> None:
    """The filter's weights within the window, summed; pixels may differ in noise and level."""
    frames = 100 + rng.normal(0, 3, (600, 24, 24))
    found = neighbourhood_dependency(filtered, frames.astype(np.float32), window)
    inside = found.values[3:-3, 3:-3]
    assert inside.mean() == pytest.approx(wanted, abs=0.03)
    assert found.n_frames == 600


def test_dependency_on_correlated_noise(rng: np.random.Generator) -> None:
    """The filter's weights on the noise's correlation, summed over the window."""
    spread = np.array([0.2, 0.6, 0.2])
    noise = ndimage.correlate1d(rng.normal(0, 2, (800, 24, 28)), spread, axis=2, mode="wrap")
    lags = np.zeros((9, 9))
    lags[4, 2:7] = np.convolve(spread, spread) / (spread**2).sum()
    wanted = float(ndimage.correlate(lags, KERNEL, mode="constant")[1:8, 1:8].sum())
    found = neighbourhood_dependency(filtered, noise.astype(np.float32), 7)
    assert found.values[5:-5, 5:-5].mean() == pytest.approx(wanted, abs=0.08)
    same = neighbourhood_dependency(lambda frames: frames, noise.astype(np.float32), 7)
    assert same.values[4:-4, 4:-4].mean() == pytest.approx(lags.sum(), abs=0.08)


def test_what_ignores_the_noise_depends_on_nothing(rng: np.random.Generator) -> None:
    """An output of its own noise stays within the null, and the stated standard error covers its mean."""
    frames = rng.normal(7, 2, (300, 20, 20)).astype(np.float32)
    other = np.random.default_rng(9)
    found = neighbourhood_dependency(lambda x: other.normal(0, 2, x.shape).astype(np.float32), frames, 5)
    assert abs(found.mean) < 4 * found.mean_error
    assert float((found.values / found.null_sd).std()) == pytest.approx(1, abs=0.2)
    assert found.null_sd[4:-4, 4:-4].mean() == pytest.approx(math.sqrt(25 / 300), rel=0.05)
    constant = neighbourhood_dependency(np.zeros_like, frames, 5)
    assert constant.mean == 0


def test_pixels_that_never_vary_count_for_nothing(rng: np.random.Generator) -> None:
    frames = rng.normal(0, 1, (200, 16, 16)).astype(np.float32)
    frames[:, 8, 8] = 5
    found = neighbourhood_dependency(lambda x: x, frames, 3)
    assert np.isnan(found.values[8, 8])
    assert found.mean == pytest.approx(1, abs=0.05)


def test_frames_are_read_in_blocks(rng: np.random.Generator) -> None:
    data = rng.normal(0, 1, (100, 8, 8)).astype(np.float32)
    seen: list[int] = []

    def network(frames: np.ndarray) -> np.ndarray:
        seen.append(len(frames))
        return frames

    neighbourhood_dependency(network, data, 3)
    assert max(seen) <= 16
    for window, frames in ((4, data), (3, data[:2])):
        with pytest.raises(SettingsError, match="must be odd and there must be at least 3 frames"):
            neighbourhood_dependency(network, frames, window)


def test_streaks_are_measured_in_the_memory_that_is_planned() -> None:
    """Beside the subsets, four arrays of one of them: 48 bytes per voxel in all."""
    subsets = np.random.default_rng(0).random((8, 2, 256, 256), np.float32)
    tracemalloc.start()
    try:
        streaks_of_halves(subsets, np.ones((256, 256), np.float32))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert subsets.nbytes + peak < 1.05 * plan._STREAKS * plan.streak_rows(2, 256**2) * 256**2
