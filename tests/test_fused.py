"""Networks as they are applied on CPUs: the same as those that were trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quietray.inference.fused import fused
from quietray.networks import NETWORKS, Architecture, LehtinenUNet, UNet
from quietray.networks.decoder import DecoderLevel


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", ["dncnn", "msd"])
def test_the_same_bits(name: str, bf16: bool) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().build(3).eval().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 72, 88)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        wanted, got = network(x), fused(network)(x)
    assert got.dtype == wanted.dtype
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("network", [UNet(), UNet((8, 16), dimensions=3), LehtinenUNet()])
def test_a_decoder_is_the_same_but_for_rounding(network: Architecture, bf16: bool) -> None:
    torch.manual_seed(0)
    built = network.build(3).eval()
    with torch.no_grad():
        for weight in built.parameters():
            weight.add_(0.01 * torch.randn_like(weight))  # biases that are not zero
    x = torch.randn(2, 3, 72, 90)
    with torch.no_grad():
        exact = built.double()(x.double()).float()
        built.float()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            wanted, got = built(x), fused(built)(x)
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    off = [float((found.float() - exact).square().mean().sqrt() / exact.std()) for found in (wanted, got)]
    assert off[1] < (4e-2 if bf16 else 1e-5)
    assert off[1] < 1.5 * off[0], "no worse than the network that was trained"


def test_a_decoder_follows_its_weights() -> None:
    network = UNet((4, 8)).build(1)
    copy, x = fused(network), torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        copy(x)  # which prepares sums of the weights
        for weight in network.parameters():
            weight.mul_(0.5)
        assert torch.allclose(copy(x), network(x), atol=1e-5)


def test_what_cannot_be_raised_stays() -> None:
    for convolution in (nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 3, padding=1, padding_mode="reflect")):
        network = nn.ModuleList([DecoderLevel(convolution, nn.ReLU())])
        coarse, skipped = torch.randn(1, 2, 5, 6), torch.randn(1, 1, 10, 12)
        with torch.no_grad():
            assert torch.equal(fused(network)[0](coarse, skipped), network[0](coarse, skipped))  # type: ignore[index]


def test_rectifications_are_gone_from_the_copy_alone() -> None:
    network = NETWORKS["unet"]().build(3)
    apart = [module for module in network.modules() if isinstance(module, nn.ReLU)]
    assert apart
    if fused(network) is not network:
        assert not [module for module in fused(network).modules() if isinstance(module, nn.ReLU)]
    assert [module for module in network.modules() if isinstance(module, nn.ReLU)] == apart


def test_weights_are_shared() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 1))
    copy = fused(network)
    with torch.no_grad():
        for weight in network.parameters():
            weight.fill_(0.5)
        x = torch.ones(1, 1, 4, 4)
        assert torch.equal(copy(x), network(x))


def test_what_onednn_does_not_pad_stays() -> None:
    torch.manual_seed(0)
    for padding, mode in (("same", "zeros"), (1, "reflect")):
        network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=padding, padding_mode=mode), nn.ReLU())
        x = torch.randn(1, 1, 6, 7)
        with torch.no_grad():
            assert torch.equal(fused(network)(x), network(x))
