"""Metrics against scikit-image and closed forms."""

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from quietray.errors import GeometryError
from quietray.metrics.image import compare, disc, psnr
from quietray.metrics.noreference import Judgement, residual_correlation


def volumes(shape: tuple[int, int, int] = (3, 24, 20), noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    reference = rng.random(shape, dtype=np.float32) * 2 - 0.5
    return reference + rng.normal(0.02, noise, shape).astype(np.float32), reference


def test_psnr_and_rmse_are_scikit_images() -> None:
    volume, reference = volumes()
    found = compare(volume, reference)
    span = float(reference.max() - reference.min())
    assert found.data_range == pytest.approx(span)
    assert found.psnr == pytest.approx(peak_signal_noise_ratio(reference, volume, data_range=span), abs=1e-5)
    assert found.rmse == pytest.approx(math.sqrt(mean_squared_error(reference, volume)), rel=1e-6)
    assert found.bias == pytest.approx(float((volume - reference).mean(dtype=np.float64)), rel=1e-4)


@pytest.mark.parametrize("data_range", [None, 0.7])
def test_ssim_is_scikit_images(data_range: float | None) -> None:
    volume, reference = volumes()
    found = compare(volume, reference, data_range=data_range)
    wanted = [
        structural_similarity(
            one,
            other,
            data_range=found.data_range,
            gaussian_weights=True,
            sigma=1.5,
            full=True,
            use_sample_covariance=True,
        )[1].mean()
        for one, other in zip(volume, reference, strict=True)
    ]
    assert found.ssim == pytest.approx(np.mean(wanted), abs=1e-6)


def test_closed_forms() -> None:
    reference = np.random.default_rng(0).random((2, 16, 16), dtype=np.float32)
    shifted = compare(reference + np.float32(0.1), reference, data_range=2.0)
    assert shifted.rmse == pytest.approx(0.1, rel=1e-5)
    assert shifted.bias == pytest.approx(0.1, rel=1e-5)
    assert shifted.psnr == pytest.approx(10 * math.log10(4 / 0.01), abs=1e-4)
    same = compare(reference, reference)
    assert (same.psnr, same.rmse, same.bias) == (math.inf, 0.0, 0.0)
    assert same.ssim == pytest.approx(1.0)


def test_only_the_mask_counts() -> None:
    volume, reference = volumes()
    mask = disc(24, 20, 0.8)
    ruined = np.where(mask, volume, 50.0).astype(np.float32)
    inside = (volume - reference)[:, mask].astype(np.float64)
    found = compare(ruined, reference, data_range=1.0, mask=mask, mask_name="field of view")
    assert found.rmse == pytest.approx(math.sqrt((inside**2).mean()), rel=1e-6)
    assert found.bias == pytest.approx(inside.mean(), rel=1e-4)
    assert found.mask == "field of view"
    everywhere = compare(volume, reference, data_range=1.0, mask=np.ones((24, 20), bool))
    assert everywhere == compare(volume, reference, data_range=1.0, mask_name="all pixels")


@pytest.mark.parametrize("shape", [(2, 9, 9), (2, 4, 7), (1, 3, 3)])
def test_small_slices_get_a_smaller_window(shape: tuple[int, int, int]) -> None:
    volume, reference = volumes(shape)
    window = min(shape[1] - (shape[1] + 1) % 2, shape[2] - (shape[2] + 1) % 2)
    wanted = [
        structural_similarity(one, other, data_range=1.0, win_size=window, full=True)[1].mean()
        for one, other in zip(volume, reference, strict=True)
    ]
    assert compare(volume, reference, data_range=1.0).ssim == pytest.approx(np.mean(wanted), abs=1e-6)


@pytest.mark.parametrize("shape", [(3, 24, 21), (2, 24, 20), (3, 20, 24)])
def test_shapes_must_agree(shape: tuple[int, int, int]) -> None:
    _, reference = volumes()
    plain = inspect.unwrap(compare)  # without the check of shapes that only the tests switch on
    with pytest.raises(GeometryError) as error:
        plain(np.zeros(shape, np.float32), reference)
    assert str(error.value).startswith(f"the volume must have the reference's shape (3, 24, 20), got {shape}; compare")


def test_psnr_where_there_is_none() -> None:
    assert psnr(0.25, 1.0) == pytest.approx(10 * math.log10(4))
    assert psnr(0.0, 1.0) == math.inf
    for mse, data_range in ((-0.1, 1.0), (0.1, 0.0), (math.nan, 1.0), (0.1, math.nan)):
        assert math.isnan(psnr(mse, data_range))


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.1, 1.5), st.floats(-5, 5), st.floats(-5, 5))
def test_a_disc_is_the_pixels_within_its_radius(n_y: int, n_x: int, radius: float, y: float, x: float) -> None:
    mask = disc(n_y, n_x, radius, (y, x))
    for row, col in ((0, 0), (n_y - 1, n_x // 2), (n_y // 2, n_x - 1), (n_y // 3, n_x // 3)):
        distance = math.hypot(row - (n_y - 1) / 2 - y, col - (n_x - 1) / 2 - x)
        if abs(distance - radius * n_x / 2) > 1e-9:
            assert mask[row, col] == (distance < radius * n_x / 2)


def test_the_area_of_a_disc() -> None:
    assert disc(400, 400).mean() == pytest.approx(math.pi / 4, rel=1e-3)
    assert disc(401, 401, 0.5, (30.0, -20.0)).sum() == pytest.approx(math.pi * 100.25**2, rel=2e-3)


@pytest.mark.parametrize("parts", [2, 3, 5])
@pytest.mark.parametrize("common", [0.0, 0.5, 2.0])
def test_correlation_of_residuals(parts: int, common: float) -> None:
    """A common part of sd c beside noise of sd 1 correlates c^2 / (1 + c^2)."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, parts, 150, 150, generator=generator)
    shared = common * torch.randn(2, 1, 150, 150, generator=generator)
    found = residual_correlation(noise + shared, torch.ones(2, 150, 150))
    assert found == pytest.approx(common**2 / (1 + common**2), abs=0.02)


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_residuals_from_the_mean_of_the_parts_correlate_negatively(parts: int) -> None:
    """What is left of K parts after taking away their mean correlates -1 / (K - 1)."""
    noise = torch.randn(1, parts, 100, 100, generator=torch.Generator().manual_seed(0))
    found = residual_correlation(noise - noise.mean(dim=1, keepdim=True), torch.ones(1, 100, 100))
    assert found == pytest.approx(-1 / (parts - 1), abs=0.02)


def test_correlation_looks_at_the_weighted_pixels_only() -> None:
    noise = torch.randn(1, 2, 80, 80, generator=torch.Generator().manual_seed(0))
    weight = torch.zeros(1, 80, 80)
    weight[:, :, :40] = 1
    spoiled = noise.clone()
    spoiled[..., 40:] = 1e6
    assert residual_correlation(spoiled, weight) == residual_correlation(noise, weight)
    assert residual_correlation(noise, torch.zeros(1, 80, 80)) == 0
    assert residual_correlation(torch.zeros(1, 2, 80, 80), weight) == 0


def test_slices_whose_noise_is_shared_are_one_value() -> None:
    """Of errors that three slices in a row share, a third are independent; 90 % intervals contain the truth."""
    rng, inside, trials = np.random.default_rng(0), 0, 400
    for _ in range(trials):
        errors = 1 + 0.2 * np.repeat(rng.normal(size=8), 3)
        low, high = Judgement.pooled(Judgement(float(error), 1.0, 100.0) for error in errors).interval()
        inside += low <= 1 <= high
    assert inside / trials == pytest.approx(0.9, abs=0.045), "three standard errors; slices by themselves: 0.64"
    few = Judgement.pooled(Judgement(float(error), 1.0, 100.0) for error in errors[:9])
    assert len(few.blocks) == 9, "eight values must be left"
