"""The bias in Hounsfield units by tissue: injected ones are found where they are, and noise alone shows none."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import fft, ndimage

from quietray.errors import GeometryError, SettingsError
from quietray.metrics.blocks import mean_over_blocks
from quietray.metrics.tissue import TISSUES, Tissue, TissueBias, tissue_bias

LEVELS = {"air": -1000.0, "lung": -800.0, "fat": -90.0, "soft tissue": 50.0, "bone": 600.0}


def body(n: int = 3, size: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """Return slices of a body of all tissues, slightly blurred, and which of them each pixel was."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    y, x = y * 160 / size, x * 160 / size
    label = np.where(np.hypot(y, x) < 72, 2, 0)
    label[np.hypot(y, x) < 58] = 3
    label[(np.hypot(y, x - 28) < 20) | (np.hypot(y, x + 28) < 20)] = 1
    label[np.hypot(y - 40, x) < 12] = 4
    image = ndimage.gaussian_filter(np.array(list(LEVELS.values()))[label], 0.7).astype(np.float32)
    return np.stack([image] * n), label


def ramp_noise(shape: tuple[int, ...], sd: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise with the spectrum of a filtered backprojection with a Hann window."""
    radius = np.hypot(*np.meshgrid(*(fft.fftfreq(size) for size in shape[1:]), indexing="ij"))
    spectrum = np.sqrt(radius) * np.cos(np.pi * np.minimum(radius, 0.5))
    noise = fft.ifft2(fft.fft2(rng.normal(size=shape)) * spectrum).real
    return np.asarray(sd * noise / noise.std(), np.float32)


def by_name(found: tuple[TissueBias, ...]) -> dict[str, TissueBias]:
    return {each.tissue.name: each for each in found}


@pytest.mark.parametrize("biased", range(len(LEVELS)))
@pytest.mark.parametrize("noisy", [False, True])
def test_a_bias_in_one_tissue_is_found_there_and_nowhere_else(
    rng: np.random.Generator, biased: int, noisy: bool
) -> None:
    clean, label = body()
    reference = clean + (ramp_noise(clean.shape, 40, rng) if noisy else np.float32(0))
    images = clean + ramp_noise(clean.shape, 15, rng) + np.where(label == biased, np.float32(12), np.float32(0))
    found = by_name(tissue_bias(images, reference))
    assert list(found) == list(LEVELS)
    for number, (name, one) in enumerate(found.items()):
        assert abs(one.bias - (12 if number == biased else 0)) < 3.5 * one.error < 12, name
        assert one.sd == pytest.approx(math.hypot(15, 40 if noisy else 0), rel=0.12), name


def test_noise_of_the_reference_is_not_shown_as_a_bias(rng: np.random.Generator) -> None:
    """Chosen by single noisy pixels air and fat look wrong by many HU; chosen as the command does they do not."""
    clean, _ = body(6)
    reference = clean + ramp_noise(clean.shape, 60, rng)
    one_by_one = by_name(tissue_bias(clean, reference, smoothing=1))
    found = by_name(tissue_bias(clean, reference))
    assert min(one_by_one[name].bias for name in ("air", "fat")) > 5
    for name, one in found.items():
        assert abs(one.bias) < 3 * one.error, name
        assert one.error < 2, name


def test_simulated_ct_with_known_noise(real_data: Any) -> None:
    """Water of sd 68 HU, 30 HU from the end of its band: the bias is that of the same pixels chosen without noise."""
    lcd = np.load(real_data("SIMULATED_lcd_ct/lcd_fbp.npz"))  # water is 1000 there
    reference = lcd["dose010_present"][:4].astype(np.float32) - 1000
    mean = lcd["dose100_present"].astype(np.float32).mean(axis=0) - 1000
    images = np.stack([mean] * 4)
    images += np.where(images > -500, np.float32(5), np.float32(0))
    chosen_clean = by_name(tissue_bias(images, np.stack([mean] * 4)))["soft tissue"]
    assert chosen_clean.bias == pytest.approx(5, abs=1e-3)
    inside = mean > -30
    truth = float((images - reference)[:, ndimage.binary_erosion(inside, iterations=6)].mean(dtype=float))
    found = by_name(tissue_bias(images, reference))
    assert list(found) == ["air", "soft tissue"]
    assert abs(found["soft tissue"].bias - truth) < 2 * found["soft tissue"].error < 0.5
    assert abs(by_name(tissue_bias(images, reference, smoothing=1))["soft tissue"].bias - truth) > 10


@pytest.mark.parametrize("erosion", [0, 1, 2])
def test_erosion_leaves_edges_out_but_not_the_rim_of_the_image(erosion: int) -> None:
    """An edge that a result blurs by two pixels is no bias once two pixels are left out."""
    reference = np.full((2, 40, 64), 50, np.float32)
    reference[:, :, 32:] = -90
    blurred = reference.copy()
    blurred[:, :, 30:34] = [15, -10, -40, -60]
    found = by_name(tissue_bias(blurred, reference, smoothing=1, erosion=erosion))
    assert found["soft tissue"].pixels == found["fat"].pixels == 2 * 40 * (32 - erosion)
    wanted = {0: -35 - 60, 1: -35, 2: 0}[erosion] / (32 - erosion)
    assert found["soft tissue"].bias == pytest.approx(wanted)


def test_erosion_reaches_over_corners_and_keeps_the_mask() -> None:
    reference = np.full((1, 40, 40), -90, np.float32)
    reference[0, 20, 20] = 600
    assert tissue_bias(reference, reference, smoothing=1)[0].pixels == 40**2 - 5**2
    mask = np.zeros((40, 40), bool)
    mask[10:30, 5:35] = True
    images = np.where(mask, reference, 3000)
    (found,) = tissue_bias(images, np.full_like(reference, -90), mask, smoothing=1, erosion=1)
    assert (found.pixels, found.tissue.name) == (18 * 28, "fat")
    assert found.bias == pytest.approx(690 / (18 * 28))


def test_standard_errors_hold_for_noise_of_ct(rng: np.random.Generator) -> None:
    """Means over many draws scatter as their standard errors say, in large tissues and small ones."""
    clean, _ = body(2)
    scaled = [
        [one.bias / one.error for one in tissue_bias(clean + ramp_noise(clean.shape, 30, rng), clean, smoothing=1)]
        for _ in range(30)
    ]
    sd = np.std(scaled, axis=0)
    assert sd.shape == (5,)
    assert sd.max() < 1.4
    assert sd.min() > 0.4


def test_a_static_bias_is_not_more_certain_in_many_images() -> None:
    """Images with one and the same pattern of errors are one measurement of it."""
    reference = np.full((1, 128, 128), 50, np.float32)
    pattern = ramp_noise((1, 128, 128), 20, np.random.default_rng(1))
    one, many = (tissue_bias(np.repeat(reference + pattern, n, 0), np.repeat(reference, n, 0))[0] for n in (1, 20))
    assert many.pixels == 20 * one.pixels
    assert many.error == pytest.approx(one.error)


def test_too_few_blocks_tell_no_standard_error() -> None:
    reference = np.full((5, 8, 8), 50, np.float32)
    (found,) = tissue_bias(reference + 1, reference)
    assert (found.bias, found.block) == (1, 0)
    assert math.isnan(found.error)
    assert math.isnan(mean_over_blocks(np.array([3.0]), np.array([2.0]))[1])


def test_bands_do_not_overlap_and_are_half_open() -> None:
    for lower, upper in itertools.pairwise(TISSUES):
        assert lower.low < lower.high <= upper.low < upper.high
    values = np.array([[-951, -950, -90, -30, 149, 150, 250]], np.float32)
    held = {tissue.name: np.flatnonzero(tissue.holds(values)).tolist() for tissue in TISSUES}
    assert held == {"air": [0], "lung": [1], "fat": [2], "soft tissue": [3, 4], "bone": [6]}
    assert [tissue.band for tissue in TISSUES[::4]] == ["below -950 HU", "above 250 HU"]


def test_what_is_nowhere_is_left_out_and_what_is_asked_is_looked_for() -> None:
    reference = np.full((1, 64, 64), 200, np.float32)
    assert tissue_bias(reference, reference) == ()
    (found,) = tissue_bias(reference - 3, reference, tissues=[Tissue("contrast agent", 150.0, 250.0)])
    assert found.record() == {
        **{"tissue": "contrast agent", "band": "150 to 250 HU", "pixels": 64**2},
        **{"bias": -3.0, "error": 0.0, "sd": 0.0, "block": 16},
    }


def test_bad_input_is_refused() -> None:
    reference = np.zeros((1, 32, 32), np.float32)
    with pytest.raises(GeometryError, match=r"shape \(1, 32, 32\), got \(2, 32, 32\)"):
        tissue_bias(np.zeros((2, 32, 32), np.float32), reference)
    with pytest.raises(SettingsError, match="odd and positive, got 4"):
        tissue_bias(reference, reference, smoothing=4)
