"""Networks as they are applied on processors: the same bits as those that were trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quietray.inference.fused import fused
from quietray.networks import NETWORKS


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", ["unet", "dncnn", "lehtinen", "msd"])
def test_the_same_bits(name: str, bf16: bool) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().build(3).eval().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 72, 88)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        wanted, got = network(x), fused(network)(x)
    assert got.dtype == wanted.dtype
    assert torch.equal(got, wanted)


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
