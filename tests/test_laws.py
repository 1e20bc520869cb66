"""Every law over every implementation."""

import dataclasses

import pytest
import torch

import checks
import matrix
from quietray.inference.tiling import tiled
from quietray.networks import MSD, REDCNN, Architecture, DnCNN, LehtinenUNet, UNet
from quietray.operators.cuda import CudaConeProjector
from quietray.operators.linear import LinearOperator
from quietray.simulate.noise import NoiseModel
from rtk import require_rtk


@pytest.fixture(params=[*matrix.OPERATORS, *matrix.CONES])
def operator(request: pytest.FixtureRequest) -> LinearOperator:
    if request.param not in matrix.CONES:
        return matrix.OPERATORS[request.param]
    require_rtk()
    from quietray.operators.cone import ConeProjector

    return ConeProjector(matrix.CONES[request.param])


@pytest.fixture(params=matrix.SPLITS)
def case(request: pytest.FixtureRequest) -> checks.Case:
    return matrix.SPLITS[request.param]


@pytest.fixture(params=matrix.NETWORKS)
def architecture(request: pytest.FixtureRequest) -> Architecture:
    return matrix.NETWORKS[request.param]


@pytest.fixture(params=matrix.NOISE)
def noise(request: pytest.FixtureRequest) -> NoiseModel:
    return matrix.NOISE[request.param]


def test_operators_are_linear(operator: LinearOperator) -> None:
    checks.check_linear(operator)


def test_operators_have_their_adjoint(operator: LinearOperator) -> None:
    assert operator.matched
    checks.check_adjoint(operator)


def test_an_operator_without_its_adjoint_says_so() -> None:
    assert not CudaConeProjector.matched


def test_the_adjoint_is_the_gradient(operator: LinearOperator) -> None:
    checks.check_gradient(operator)


def test_noise_has_its_closed_form_moments(noise: NoiseModel) -> None:
    checks.check_moments(noise)


def test_the_target_never_leaks_into_the_input(case: checks.Case) -> None:
    if case.recorrupted:
        with pytest.raises(AssertionError, match="must not depend"):
            checks.check_no_leak(case)  # independent only in distribution, which the unbiased loss tells
    else:
        checks.check_no_leak(case)


def test_every_part_is_used(case: checks.Case) -> None:
    checks.check_coverage(case)


def test_inference_is_consistent_with_training(case: checks.Case) -> None:
    checks.check_infer_as_trained(case)


def test_the_noise_of_the_target_does_not_bias_the_loss(case: checks.Case) -> None:
    if case.taught:
        with pytest.raises(AssertionError, match="the loss beyond the clean loss"):
            checks.check_unbiased_loss(case)  # what the teacher leaves of the noise is in both views
    else:
        checks.check_unbiased_loss(case)


def test_processes_share_a_batch(case: checks.Case) -> None:
    checks.check_shares(case)


def test_the_judgement_is_the_true_error_on_average(case: checks.Case) -> None:
    if case.taught:
        with pytest.raises(AssertionError, match="the judged error minus the true one"):
            checks.check_judge(case)  # it is that of pseudo images
    else:
        checks.check_judge(case)


def slim(architecture: Architecture) -> Architecture:
    """Return a network with the same paths and less to compute."""
    match architecture:
        case UNet():
            return dataclasses.replace(architecture, widths=(2,) * len(architecture.widths))
        case LehtinenUNet():
            return dataclasses.replace(architecture, maps=3)
        case REDCNN() | DnCNN():
            return dataclasses.replace(architecture, maps=2)
    return architecture


def n_outputs(architecture: Architecture, n_slices: int) -> int:
    """Return how many of its slices a network gives back that was built to return two."""
    return n_slices if architecture.dimensions == 3 else 2


def test_the_receptive_field_is_exact(architecture: Architecture) -> None:
    if architecture.radius > 200:  # the law would take minutes
        assert isinstance(architecture, MSD)
        assert architecture.radius == 10 * MSD(layers=10).radius
        architecture = MSD(layers=14)
    slight = slim(architecture)
    assert (architecture.radius, architecture.stride) == (slight.radius, slight.stride)
    checks.check_receptive_field(slight.build(2, 2), 2, architecture.radius, architecture.stride)


@pytest.mark.parametrize("name", [name for name, network in matrix.NETWORKS.items() if network.dimensions == 3])
def test_the_depth_is_exact(name: str) -> None:
    architecture = matrix.NETWORKS[name]
    assert architecture.depth > 0
    checks.check_depth(architecture.build(1), architecture.depth)


def test_networks_of_two_dimensions_have_no_depth(architecture: Architecture) -> None:
    assert (architecture.depth > 0) == (architecture.dimensions == 3)


@pytest.mark.parametrize("size", checks.sizes(1, 2, 5, 8, 13), ids=lambda size: f"{size[0]}x{size[1]}")
def test_networks_take_any_size(architecture: Architecture, size: tuple[int, int]) -> None:
    network = checks.awake(architecture.build(3, 2))
    checks.check_any_size(network, 3, architecture.stride, size, n_outputs(architecture, 3))


def test_every_weight_learns(architecture: Architecture) -> None:
    checks.check_every_weight_learns(architecture.build(3, 2), 3)


# A network sees as far as its radius, so that its tiles need large images.
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
    ("unet-volume-3-levels", (67, 70), 24),
    ("lehtinen", (20, 420), 64),
    ("msd-1-layer", (9, 30), 4),
    ("msd-12-layers", (7, 170), 25),
    ("msd-12-layers", (150, 140), 64),
    ("msd-wide", (60, 71), 12),
    ("msd-volume", (47, 50), 10),
    ("msd-default", (3, 1210), 110),
    ("redcnn", (10, 75), 24),
    ("redcnn-rectified", (75, 60), 32),
    ("redcnn-rectified", (19, 50), 7),
    ("dncnn", (41, 60), 16),
    ("dncnn-bias-free", (1, 30), 7),
]


@pytest.mark.parametrize(("name", "size", "tile"), TILINGS)
def test_tiles_give_the_numbers_of_the_whole(name: str, size: tuple[int, int], tile: int) -> None:
    architecture = matrix.NETWORKS[name]
    network = checks.awake(architecture.build(3, 2))
    checks.check_tiles(tiled, network, 3, architecture.radius, architecture.stride, size, tile)


@pytest.mark.parametrize("tile", [4, 8, 12])
def test_tiles_see_all_that_a_network_of_positive_weights_sees(tile: int) -> None:
    architecture = UNet((2, 2, 2))
    network = checks.monotone(architecture.build(1), seed=3).float()
    assert next(network.parameters()).dtype == torch.float32
    checks.check_tiles(tiled, network, 1, architecture.radius, architecture.stride, (70, 75), tile)
