"""The U-Net: how it is built, what it starts as; its size, reach and tiles are laws."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quietray.errors import SettingsError
from quietray.networks.unet import UNet, pad_to_multiple


def test_the_default_network_is_small_and_reaches_51_pixels() -> None:
    settings = UNet()
    network = settings.build(9)
    assert (settings.radius, settings.stride) == (51, 8)
    assert 4e5 < sum(weight.numel() for weight in network.parameters()) < 1e6


def test_it_starts_near_zero_and_every_weight_learns() -> None:
    network = UNet((4, 6, 8)).build(3)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    out = network(x)
    assert out.std() < 0.5 * x.std()
    out.square().sum().backward()
    dead = [name for name, weight in network.named_parameters() if not weight.grad.abs().sum() > 0]
    assert dead == []


def test_the_seed_gives_the_weights() -> None:
    networks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        networks.append(UNet((3, 5)).build(1).state_dict())
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])
    assert not torch.equal(networks[0]["head.weight"], networks[2]["head.weight"])


def test_images_of_a_batch_do_not_mix_and_the_input_stays() -> None:
    network = UNet((4, 6)).build(2)
    x = torch.randn(3, 2, 10, 13, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    with torch.no_grad():
        together = network(x)
        apart = torch.cat([network(one[None]) for one in x])
    assert torch.allclose(together, apart, atol=1e-6)
    assert torch.equal(x, before)


def test_moving_the_image_by_a_stride_moves_the_result() -> None:
    settings = UNet((4, 6, 8))
    network = settings.build(1)
    x = torch.randn(1, 1, 72, 72, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, moved = network(x), network(x[..., 4:, 8:])
    r = settings.radius
    assert torch.allclose(moved[..., r:, r:], whole[..., 4 + r :, 8 + r :], atol=1e-5)
    with torch.no_grad():
        between = network(x[..., 3:, :])
    assert not torch.allclose(between[..., r:-1, r:], whole[..., 3 + r : -1, r:], atol=1e-4), "pooling has a phase"


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 2, 4, 8, 16]))
def test_padding_mirrors_below_and_to_the_right(height: int, width: int, multiple: int) -> None:
    x = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)
    below, right = -height % multiple, -width % multiple
    wanted = np.pad(x.numpy(), ((0, 0), (0, 0), (0, below), (0, right)), mode="reflect")
    assert np.array_equal(pad_to_multiple(x, multiple).numpy(), wanted)


@pytest.mark.parametrize("widths", [(), (4, 0), (-1,)])
def test_impossible_widths_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(SettingsError, match="widths must hold a positive number of maps per level, got"):
        UNet(widths)
    assert dataclasses.replace(UNet((4,)), widths=(5, 5)).stride == 2
