"""The guard: noise is measured, the error of a model is expected without ground truth, and no image is made worse."""

import numpy as np
import pytest
from scipy import ndimage

from quietray.errors import NoiseError
from quietray.filters import Filter, GaussianFilter, MedianFilter
from quietray.inference.denoiser import Denoiser, Scale
from quietray.inference.guard import expected_error, guarded, quiet_noise
from quietray.splits import Noise2Clean
from quietray.types import Slice


def scene(size: int = 96) -> Slice:
    """Blobs with sharp edges, between 0 and 1."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((size, size)), 5)
    return (smooth > 0).astype(np.float32)


def noisy(sd: float, seed: int = 1) -> Slice:
    clean = scene()
    return (clean + sd * np.random.default_rng(seed).standard_normal(clean.shape)).astype(np.float32)


def model(settings: Filter, scale: Scale = Scale(0.0, 1.0), level: float | None = None) -> Denoiser:  # noqa: B008
    facts = {} if level is None else {"noise_level": level}
    return Denoiser(settings.build(1), settings, Noise2Clean(), scale, facts=facts)


@pytest.mark.parametrize("sd", [0.005, 0.02, 0.1, 0.5])
def test_noise_is_told_from_the_quietest_blocks(sd: float) -> None:
    found = [quiet_noise(noisy(sd, seed)) for seed in range(8)]
    assert 0.96 * sd < np.mean(found) < 1.12 * sd, "edges in most blocks may add a little"
    empty = [quiet_noise(noisy(sd, seed) - scene()) for seed in range(8)]
    assert np.mean(empty) == pytest.approx(sd, rel=0.02)


def test_structure_everywhere_is_taken_for_noise_but_structure_somewhere_is_not() -> None:
    ramp = np.linspace(0, 5, 96, dtype=np.float32)[:, None] + np.zeros((96, 96), np.float32)
    assert quiet_noise(noisy(0.05) + ramp) == pytest.approx(0.05, rel=0.12), "a slope has no diagonal difference"
    checkers = (np.indices((96, 96)).sum(axis=0) % 2).astype(np.float32)
    assert quiet_noise(noisy(0.05) + checkers) > 0.5


@pytest.mark.parametrize("settings", [GaussianFilter(0.6), GaussianFilter(1.5), MedianFilter(1)])
@pytest.mark.parametrize("sd", [0.1, 0.4])
def test_the_expected_error_is_the_true_one(settings: Filter, sd: float) -> None:
    expected, true = [], []
    for seed in range(12):
        image = noisy(sd, seed)
        done, error = expected_error(settings.apply, image, sd)
        expected.append(error**2)
        true.append(float(np.square(done - scene()).mean()))
    assert np.mean(expected) == pytest.approx(np.mean(true), rel=0.08)


def test_noise_that_differs_from_pixel_to_pixel() -> None:
    """Poisson noise, whose variance the counts tell."""
    clean, photons = 0.2 + scene(), 50.0
    expected, true = [], []
    for seed in range(12):
        image = (np.random.default_rng(seed).poisson(photons * clean) / photons).astype(np.float32)
        done, error = expected_error(GaussianFilter(0.8).apply, image, np.sqrt(image / photons))
        expected.append(error**2)
        true.append(float(np.square(done - clean).mean()))
    assert np.mean(expected) == pytest.approx(np.mean(true), rel=0.08)


def test_no_image_is_made_worse_and_noisy_ones_are_made_better() -> None:
    blur, clean = model(GaussianFilter(1.0)), scene()
    gains, helped = [], []
    for sd in (0.003, 0.01, 0.03, 0.06, 0.2, 0.4, 0.8):
        image = noisy(sd)
        found = guarded(blur, image)
        before, after = (float(np.square(x - clean).mean()) for x in (image, found.image))
        gains.append(10 * np.log10(before / after))
        helped.append(found.helped)
        assert found.helped or np.array_equal(found.image, image)
        assert ("returned unchanged" in found.warning) == (not found.helped)
        assert (found.gain > 0.5) == found.helped
    assert min(gains) >= 0
    assert gains[-1] > 5
    assert helped == sorted(helped)
    assert len(set(helped)) == 2


def test_far_more_noise_than_was_trained_on_is_told() -> None:
    blur = model(GaussianFilter(1.0), Scale(0.0, 2.0), level=0.1)  # of a contrast of 2
    assert guarded(blur, 2 * noisy(0.12)).warning == ""
    assert "times that which the model was trained on" in guarded(blur, 2 * noisy(0.3)).warning


def test_what_has_no_noise_or_is_too_small_is_refused() -> None:
    with pytest.raises(NoiseError, match="must be a positive number"):
        guarded(model(GaussianFilter()), scene(), 0.0)
    with pytest.raises(NoiseError, match="must be larger than 8 pixels"):
        quiet_noise(np.zeros((8, 40), np.float32))
