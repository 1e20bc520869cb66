"""Classical filters: closed forms, laws that all of them keep, and the search for their best setting."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage

from quietray.errors import NoiseError, SettingsError
from quietray.filters import (
    FILTERS,
    BilateralFilter,
    Filter,
    GaussianFilter,
    MedianFilter,
    NonLocalMeans,
    TotalVariation,
    Wavelet,
    tune,
)
from quietray.inference.tiling import tiled
from quietray.metrics.image import psnr
from quietray.settings import called, from_dict, to_dict
from quietray.splits.inverse import Noise2Inverse

SETTINGS: dict[str, Filter] = {  # as they are set for noise of sd 0.2
    "gaussian": GaussianFilter(0.8),
    "median": MedianFilter(2),
    "bilateral": BilateralFilter(0.5, 1.5),
    "nlm": NonLocalMeans(0.15),
    "wavelet": Wavelet(0.4),
    "wavelet-db2": Wavelet(0.4, levels=3, wavelet="db2"),
    "tv": TotalVariation(0.2),
}
NOISE = 0.2

every_filter = pytest.mark.parametrize("one", SETTINGS.values(), ids=SETTINGS.keys())
every_strength = pytest.mark.parametrize(
    "one", [one for name, one in SETTINGS.items() if name not in ("gaussian", "median")], ids=lambda one: one.called
)


def discs(size: int = 96) -> np.ndarray:
    """Discs of several contrasts on a larger one."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:size, :size]
    image = np.where(np.hypot(y - size / 2, x - size / 2) < 0.45 * size, 1.0, 0.0)
    for _ in range(25):
        centre, radius = rng.uniform(0.2 * size, 0.8 * size, 2), rng.uniform(2, 8)
        image[np.hypot(y - centre[0], x - centre[1]) < radius] = rng.choice([0.0, 0.3, 0.7])
    return image.astype(np.float32)


def noisy(seed: int = 0, sd: float = NOISE) -> np.ndarray:
    return discs() + np.random.default_rng(seed).normal(0, sd, (96, 96)).astype(np.float32)


def step(height: int = 40, width: int = 40) -> np.ndarray:
    return np.repeat(np.where(np.arange(width) < width // 2, 0.0, 1.0)[None], height, 0).astype(np.float32)


def strength(one: Filter) -> str:
    return next(iter(one.search))


# Laws


def test_the_registry_names_every_filter_and_settings_survive_a_file() -> None:
    assert set(FILTERS) == {"gaussian", "median", "bilateral", "nlm", "wavelet", "tv"}
    for one in SETTINGS.values():
        assert FILTERS[called(type(one))] is type(one)
        assert from_dict(type(one), to_dict(one)) == one


@every_filter
@pytest.mark.parametrize("value", [-3.0, 0.0, 0.7])
@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (23, 1), (21, 30)])
def test_a_constant_image_of_any_size_stays(one: Filter, shape: tuple[int, int], value: float) -> None:
    image = np.full(shape, value, np.float32)
    np.testing.assert_allclose(one.apply(image), image, atol=2e-6)


@every_filter
def test_no_strength_is_the_identity_and_the_input_is_left_alone(one: Filter) -> None:
    image = noisy()
    before = image.copy()
    one.apply(image)
    assert np.array_equal(image, before)
    assert one.search[strength(one)][0] == 0
    zero = dataclasses.replace(one, **{strength(one): one.search[strength(one)][0]})
    assert np.array_equal(zero.apply(image), image)


@every_strength
def test_little_strength_changes_little(one: Filter) -> None:
    image = noisy(sd=1.0)
    change = [
        float(np.abs(dataclasses.replace(one, **{strength(one): value}).apply(image) - image).mean())
        for value in (0.001, 0.01, 0.1, 1.0)
    ]
    assert change[0] < 0.005
    assert change == sorted(change)


@every_filter
@pytest.mark.parametrize("offset", [-5.0, -0.5, 2.0])
def test_adding_a_constant_adds_it_to_the_result(one: Filter, offset: float) -> None:
    image = noisy().astype(np.float64)
    np.testing.assert_allclose(one.apply(image + offset), one.apply(image) + offset, atol=1e-9)


@every_filter
def test_the_negative_image_gives_the_negative_result(one: Filter) -> None:
    image = noisy().astype(np.float64)
    np.testing.assert_allclose(one.apply(-image), -one.apply(image), atol=1e-9)


@every_strength
def test_strengths_are_in_the_unit_of_the_data(one: Filter) -> None:
    image = noisy().astype(np.float64)
    scaled = dataclasses.replace(one, **{strength(one): 8 * getattr(one, strength(one))})
    np.testing.assert_allclose(scaled.apply(8 * image), 8 * one.apply(image), atol=1e-8)


@every_filter
def test_the_noise_is_lowered(one: Filter) -> None:
    before, after = (float(np.mean((image - discs()) ** 2)) for image in (noisy(), one.apply(noisy())))
    assert after < 0.4 * before


@every_filter
@pytest.mark.parametrize("value", [5.12, 0.005])
@pytest.mark.parametrize("shape", [(1, 40), (17, 33)])
def test_extreme_settings_stay_finite(one: Filter, value: float, shape: tuple[int, int]) -> None:
    whole = isinstance(one, MedianFilter)
    extreme = dataclasses.replace(one, **{strength(one): math.ceil(value) if whole else value})
    found = extreme.apply(np.random.default_rng(0).normal(-3, 1, shape).astype(np.float32))
    assert found.shape == shape
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: GaussianFilter(-1.0),
        lambda: MedianFilter(-1),
        lambda: BilateralFilter(math.nan, 1.0),
        lambda: BilateralFilter(1.0, math.inf),
        lambda: NonLocalMeans(-0.1),
        lambda: NonLocalMeans(0.1, patch=4),
        lambda: NonLocalMeans(0.1, patch=1),
        lambda: Wavelet(-1.0),
        lambda: Wavelet(decay=0.0),
        lambda: Wavelet(levels=0),
        lambda: TotalVariation(-1.0),
        lambda: GaussianFilter().build(5, 2),
        lambda: GaussianFilter().build(0),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(SettingsError, match=" must "):
        make()


# As a network


@every_filter
def test_the_middle_channel_is_the_one_filtered(one: Filter) -> None:
    x = torch.from_numpy(np.stack([[noisy(10 * k + j)[:24, :31] for j in range(5)] for k in range(2)]))
    network = one.build(5)
    assert list(network.parameters()) == []
    y = network(x)
    assert y.shape == (2, 1, 24, 31)
    assert y.dtype == torch.float32
    for sample in range(2):
        np.testing.assert_allclose(y[sample, 0].numpy(), one.apply(x[sample, 2].numpy()), atol=1e-6)
    assert torch.equal(network(x.double()), y)
    others = x.clone()
    others[:, [0, 1, 3, 4]] += 1
    assert torch.equal(network(others), y)


def test_in_a_spectral_series_the_middle_of_every_channel_is_filtered() -> None:
    x = torch.randn(1, 6, 9, 9)
    one = MedianFilter(1)
    y = one.build(6, 2)(x)
    assert torch.equal(y, torch.cat([one.build(1)(x[:, k : k + 1]) for k in (1, 4)], dim=1))


@every_filter
def test_the_radius_is_that_of_the_furthest_pixel_that_matters(one: Filter) -> None:
    image = noisy().astype(np.float64)
    other = image.copy()
    other[48, 48] += 0.3
    changed = np.abs(one.apply(other) - one.apply(image))
    y, x = np.nonzero(changed > 1e-10)
    found = int(np.maximum(np.abs(y - 48), np.abs(x - 48)).max())
    if isinstance(one, TotalVariation):
        y, x = np.mgrid[:96, :96]
        beyond = np.maximum(np.abs(y - 48), np.abs(x - 48)) > one.radius
        assert changed[beyond].max() < 1e-3 * NOISE
    else:
        assert found == one.radius


@every_filter
def test_tiles_give_the_whole(one: Filter) -> None:
    x = torch.from_numpy(noisy())[None, None]
    network = one.build(1)
    whole = network(x)
    parts = tiled(network, x, 40, one.radius, one.stride)
    tolerance = 1e-3 * NOISE if isinstance(one, TotalVariation) else 2e-6
    assert float((parts - whole).abs().max()) < tolerance
    if one.radius > 1:
        assert float((tiled(network, x, 40, one.radius // 8, one.stride) - whole).abs().max()) > tolerance


@pytest.mark.parametrize("sd", [0.02, 1.0])
@pytest.mark.parametrize("strong", [1, 4])
def test_total_variation_reaches_no_further_where_it_is_strong(sd: float, strong: int) -> None:
    one = TotalVariation(sd * strong)
    image = noisy(sd=sd)
    part = one.apply(image[:, : 48 + one.radius])[:, :48]
    assert float(np.abs(part - one.apply(image)[:, :48]).max()) < 1e-3 * sd


# Closed forms


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.3])
def test_the_gaussian_lowers_white_noise_by_its_sum_of_squares(sigma: float, rng: np.random.Generator) -> None:
    noise = rng.normal(0, 1, (600, 600))
    one = GaussianFilter(sigma)
    kernel = np.exp(-0.5 * (np.arange(-one.radius, one.radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    assert one.apply(noise).var() == pytest.approx((kernel**2).sum() ** 2, rel=0.04)


def test_the_median_removes_salt_and_keeps_the_step(rng: np.random.Generator) -> None:
    clean = step()
    salted = clean.copy()
    salted[2:-2:5, 2:-2:5] = rng.choice([-7.0, 9.0], salted[2:-2:5, 2:-2:5].shape)
    assert not np.array_equal(salted, clean)
    assert np.array_equal(MedianFilter(1).apply(salted), clean)


def test_a_bilateral_filter_blind_to_values_is_the_gaussian() -> None:
    image = noisy().astype(np.float64) - 1.0
    one = BilateralFilter(1e9, 1.3)
    assert one.radius == 4
    np.testing.assert_allclose(one.apply(image), ndimage.gaussian_filter(image, 1.3, radius=one.radius), atol=1e-9)


def test_the_bilateral_filter_is_the_formula() -> None:
    image = np.array([[-0.2, 0.1, 0.9], [0.0, 0.3, 1.4], [0.2, -0.1, 0.8]])
    one = BilateralFilter(0.5, 0.33)  # a window of 3 x 3
    distance = np.hypot(*np.mgrid[-1:2, -1:2])
    weight = np.exp(-0.5 * ((distance / 0.33) ** 2 + ((image - 0.3) / 0.5) ** 2))
    assert one.radius == 1
    assert one.apply(image)[1, 1] == pytest.approx((weight * image).sum() / weight.sum(), rel=1e-12)


def test_the_bilateral_filter_keeps_a_step_that_the_gaussian_blurs(rng: np.random.Generator) -> None:
    noise = rng.normal(0, 0.1, (80, 80))
    image = step(80, 80) + noise
    bilateral = BilateralFilter(0.4, 1.5)
    flat = bilateral.apply(image)[:, 8:32].std()
    gaussian = min(
        (GaussianFilter(float(sigma)) for sigma in np.arange(0.5, 2.0, 0.05)),
        key=lambda one: abs(one.apply(image)[:, 8:32].std() - flat),
    )
    jumps = [float(np.diff(one.apply(image)[:, 39:41]).mean()) for one in (gaussian, bilateral)]
    assert gaussian.apply(image)[:, 8:32].std() == pytest.approx(flat, rel=0.05)
    assert jumps[0] < 0.5
    assert jumps[1] > 0.85


def test_non_local_means_averages_what_looks_alike(rng: np.random.Generator) -> None:
    image = np.tile(step(12, 12), (4, 4))
    found = NonLocalMeans(0.1, patch=5, distance=13).apply(image + rng.normal(0, 0.1, image.shape))
    assert (found - image).std() < 0.1 / 5
    assert float(np.diff(found[:, 5:7]).mean()) > 0.95


def test_haar_wavelets_of_one_scale_without_details_are_a_mean_of_neighbours() -> None:
    image = noisy().astype(np.float64)
    expected = ndimage.convolve1d(ndimage.convolve1d(image, [0.25, 0.5, 0.25], 0), [0.25, 0.5, 0.25], 1)
    np.testing.assert_allclose(Wavelet(1e9, levels=1).apply(image), expected, atol=1e-9)


@pytest.mark.parametrize("threshold", [0.1, 0.4])
@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_each_scale_of_wavelets_loses_its_threshold(threshold: float, decay: float) -> None:
    stripes = np.tile([1.0, 1.0, -1.0, -1.0], (16, 4))
    # half of the shifts of either scale see the stripes; a wavelet of scale j has the height 2 ** -j
    lost = threshold * (1 / 4 + decay / 8)
    found = Wavelet(threshold, decay, levels=2).apply(stripes)
    np.testing.assert_allclose(found[:, 3:-3], (1 - lost) * stripes[:, 3:-3], atol=1e-9)


def test_total_variation_lowers_a_step_and_keeps_it_sharp() -> None:
    found = TotalVariation(0.2).apply(step(10, 8).astype(np.float64))
    # a plateau of n columns loses weight / n
    np.testing.assert_allclose(found, np.where(step(10, 8) > 0, 1 - 0.2 / 4, 0.2 / 4), atol=2e-4)


# Tuning


def test_tuning_finds_the_valley_of_a_convex_error_in_few_trials() -> None:
    for best in (0.011, 0.07, 0.42, 3.3):
        tuned = tune(TotalVariation(), lambda one, best=best: math.log2(max(one.weight, 1e-6) / best) ** 2 - 1)
        assert abs(math.log2(tuned.filter.weight / best)) <= 0.13
        assert tuned.error == min(error for _, error in tuned.tried) < 0
        assert len(tuned.tried) == len({one for one, _ in tuned.tried}) <= 18


def test_two_parameters_that_depend_on_each_other_are_tuned_together() -> None:
    def error(one: BilateralFilter) -> float:
        value, space = math.log(max(one.sigma_value, 1e-4) / 0.23), math.log(one.sigma_space / 2.2)
        return value**2 + space**2 + 0.8 * value * space

    tuned = tune(BilateralFilter(), error)
    assert tuned.error < 0.02
    assert len(tuned.tried) <= 32


@pytest.mark.parametrize("kind", FILTERS.values(), ids=FILTERS.keys())
def test_an_image_without_noise_is_left_alone(kind: type[Filter]) -> None:
    tuned = tune(kind(), lambda one: float(np.mean((one.apply(discs()) - discs()) ** 2)))
    assert tuned.error < 1e-8
    assert float(np.abs(tuned.filter.apply(discs()) - discs()).max()) < 1e-3


@pytest.mark.parametrize("kind", FILTERS.values(), ids=FILTERS.keys())
def test_tuning_stays_within_what_is_searched(kind: type[Filter]) -> None:
    tuned = tune(kind(), lambda one: -sum(float(getattr(one, name)) for name in one.search))
    for name, values in tuned.filter.search.items():
        assert getattr(tuned.filter, name) == pytest.approx(values[-1])
    assert len(tuned.tried) <= 32


def test_tuning_does_not_creep_below_the_weakest_setting() -> None:
    tuned = tune(TotalVariation(), lambda one: one.weight or 1.0)
    assert tuned.filter.weight == tuned.filter.search["weight"][1]


def test_the_start_is_tried_and_kept_where_nothing_is_better() -> None:
    start = TotalVariation(0.123)
    tuned = tune(start, lambda one: 0.0)
    assert tuned.filter == tuned.tried[0][0] == start


def test_an_error_that_is_no_number_is_refused() -> None:
    with pytest.raises(NoiseError, match="must be a number, got nan for GaussianFilter"):
        tune(GaussianFilter(), lambda one: math.nan if one.sigma > 3 else 1.0)


def test_tuning_by_the_true_error_finds_the_best_of_a_fine_scan() -> None:
    image = noisy()

    def error(one: Filter) -> float:
        return float(np.mean((one.apply(image) - discs()) ** 2))

    fine = min(error(TotalVariation(float(weight))) for weight in np.geomspace(0.05, 1, 40))
    assert tune(TotalVariation(), error).error <= 1.01 * fine


@pytest.mark.parametrize("kind", FILTERS.values(), ids=FILTERS.keys())
@pytest.mark.parametrize("sd", [0.3])
def test_tuning_without_ground_truth_is_as_good_as_with_it(kind: type[Filter], sd: float) -> None:
    split = Noise2Inverse(parts=3, slices=1)
    clean = torch.from_numpy(discs())[None, None]
    samples = torch.from_numpy(np.stack([noisy(seed, sd) for seed in range(3)]))[None, :, None]

    def estimated(one: Filter) -> float:
        return split.judge(one.build(1), samples, torch.ones(1, 1, 1, 1)).error

    def true(one: Filter) -> float:
        return float((split.infer(one.build(1), samples) - clean).square().mean())

    blind, oracle = tune(kind(), estimated), tune(kind(), true)
    assert psnr(true(blind.filter), 1.0) > psnr(oracle.error, 1.0) - 0.1
    assert psnr(oracle.error, 1.0) > psnr(sd**2 / 3, 1.0) + 0.5


def test_a_search_that_is_cut_keeps_the_best_so_far() -> None:
    asked: list[float] = []

    def error(candidate: Filter) -> float:
        assert isinstance(candidate, GaussianFilter)
        asked.append(candidate.sigma)
        return abs(candidate.sigma - 3.4)

    found = tune(GaussianFilter(), error, lambda: len(asked) == 3)
    assert found.cut
    assert len(found.tried) == len(asked) == 3
    assert found.error == min(value for _, value in found.tried)
    assert not tune(GaussianFilter(), error).cut
