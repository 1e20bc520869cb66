"""Every law over every implementation."""

import pytest
import torch

import checks
import matrix
from quietray.inference.tiling import tiled
from quietray.networks.unet import UNet
from quietray.operators.linear import LinearOperator
from quietray.simulate.noise import NoiseModel
from quietray.splits.base import Split


@pytest.fixture(params=matrix.OPERATORS)
def operator(request: pytest.FixtureRequest) -> LinearOperator:
    return matrix.OPERATORS[request.param]


@pytest.fixture(params=matrix.SPLITS)
def split(request: pytest.FixtureRequest) -> Split:
    return matrix.SPLITS[request.param]


@pytest.fixture(params=matrix.NETWORKS)
def architecture(request: pytest.FixtureRequest) -> UNet:
    return matrix.NETWORKS[request.param]


@pytest.fixture(params=matrix.NOISE)
def noise(request: pytest.FixtureRequest) -> NoiseModel:
    return matrix.NOISE[request.param]


def test_operators_are_linear(operator: LinearOperator) -> None:
    checks.check_linear(operator)


def test_operators_have_their_adjoint(operator: LinearOperator) -> None:
    checks.check_adjoint(operator)


def test_the_adjoint_is_the_gradient(operator: LinearOperator) -> None:
    checks.check_gradient(operator)


def test_noise_has_its_closed_form_moments(noise: NoiseModel) -> None:
    checks.check_moments(noise)


def test_the_target_never_leaks_into_the_input(split: Split) -> None:
    checks.check_no_leak(split)


def test_every_part_is_used(split: Split) -> None:
    checks.check_coverage(split)


def test_inference_is_consistent_with_training(split: Split) -> None:
    checks.check_infer_as_trained(split)


def test_the_noise_of_the_target_does_not_bias_the_loss(split: Split) -> None:
    checks.check_unbiased_loss(split)


def test_the_judgement_is_the_true_error_on_average(split: Split) -> None:
    checks.check_judge(split)


def test_the_receptive_field_is_exact(architecture: UNet) -> None:
    slim = UNet((2,) * len(architecture.widths))  # the same paths, less to compute
    assert (architecture.radius, architecture.stride) == (slim.radius, slim.stride)
    checks.check_receptive_field(slim.build(2), 2, architecture.radius, architecture.stride)


@pytest.mark.parametrize("size", checks.sizes(1, 2, 5, 8, 13), ids=lambda size: f"{size[0]}x{size[1]}")
def test_networks_take_any_size(architecture: UNet, size: tuple[int, int]) -> None:
    checks.check_any_size(architecture.build(2), 2, architecture.stride, size)


# The default network sees 51 pixels around it, so that its tiles need large images.
TILINGS = [
    ("unet-1-level", (7, 11), 1),
    ("unet-1-level", (9, 30), 4),
    ("unet-2-levels", (31, 25), 5),
    ("unet-2-levels", (40, 64), 16),
    ("unet-3-levels", (67, 90), 24),
    ("unet-3-levels", (101, 29), 9),
    ("unet-3-levels", (1, 130), 20),
    ("unet-3-levels", (65, 3), 16),
    ("unet-default", (203, 170), 64),
    ("unet-default", (24, 241), 40),
]


@pytest.mark.parametrize(("name", "size", "tile"), TILINGS)
def test_tiles_give_the_numbers_of_the_whole(name: str, size: tuple[int, int], tile: int) -> None:
    architecture = matrix.NETWORKS[name]
    checks.check_tiles(tiled, architecture.build(3), 3, architecture.radius, architecture.stride, size, tile)


@pytest.mark.parametrize("tile", [4, 8, 12])
def test_tiles_see_all_that_a_network_of_positive_weights_sees(tile: int) -> None:
    architecture = UNet((2, 2, 2))
    network = checks.monotone(architecture.build(1), seed=3).float()
    assert next(network.parameters()).dtype == torch.float32
    checks.check_tiles(tiled, network, 1, architecture.radius, architecture.stride, (70, 75), tile)
