"""How each network is built, and what it starts as; size, reach, tiles and that every weight learns are laws."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import checks
from quietray.errors import SettingsError
from quietray.networks import MSD, NETWORKS, REDCNN, Architecture, DnCNN, LehtinenUNet, UNet
from quietray.networks.base import pad_to_multiple, pad_to_size, require_dimensions
from quietray.networks.dense import dense_layers
from quietray.settings import from_dict, to_dict

SMALL: dict[str, Architecture] = {
    "unet": UNet((4, 6)),
    "unet-volume": UNet((4, 6), dimensions=3),
    "lehtinen": LehtinenUNet(maps=6),
    "msd": MSD(layers=11),
    "msd-volume": MSD(layers=5, width=2, dilations=(1, 3), dimensions=3),
    "redcnn": REDCNN(maps=5),
    "dncnn": DnCNN(layers=4, maps=5),
}
VOLUMES = [name for name in SMALL if name.endswith("volume")]


@pytest.fixture(params=SMALL)
def architecture(request: pytest.FixtureRequest) -> Architecture:
    return SMALL[request.param]


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def n_weights(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


# --- every network --------------------------------------------------------------------------------------------------


def test_every_network_has_a_name_in_files() -> None:
    assert list(NETWORKS) == ["unet", "lehtinen", "msd", "redcnn", "dncnn"]
    for kind in NETWORKS.values():
        assert from_dict(kind, to_dict(kind())) == kind()


def test_the_seed_gives_the_weights(architecture: Architecture) -> None:
    networks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        networks.append(architecture.build(3, 2).state_dict())
    one, same, other = networks
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_images_of_a_batch_do_not_mix_and_the_input_stays(architecture: Architecture) -> None:
    network = checks.awake(architecture.build(2))
    x = noise(3, 2, 10, 13)
    before = x.clone()
    with torch.no_grad():
        together = network(x)
        apart = torch.cat([network(one[None]) for one in x])
    assert together.std() > 0
    assert torch.allclose(together, apart, atol=1e-6)
    assert torch.equal(x, before)


def test_outputs_differ_and_each_may_see_every_channel() -> None:
    for architecture in SMALL.values():
        if architecture.dimensions == 2:
            x = noise(1, 3, 24, 24).requires_grad_()
            out = checks.awake(architecture.build(3, 2))(x)
            assert not torch.allclose(out[:, 0], out[:, 1])
            for output in out.unbind(1):
                (gradient,) = torch.autograd.grad(output.square().sum(), x, retain_graph=True)
                assert (gradient.abs().amax(dim=(0, 2, 3)) > 0).all()


@pytest.mark.parametrize("residual", [REDCNN(maps=3), DnCNN(maps=3)])
def test_a_network_that_corrects_starts_near_its_input_and_needs_it_for_every_output(residual: Architecture) -> None:
    x = noise(1, 5, 40, 40)
    for n_outputs, middle in ((1, slice(2, 3)), (2, slice(1, 3)), (5, slice(0, 5))):
        network = residual.build(5, n_outputs)
        start = (network(x) - x[:, middle]).std()
        assert 0 < start < 0.5
        for weight in network.parameters():
            weight.data.zero_()
        assert torch.equal(network(x), x[:, middle])
    with pytest.raises(SettingsError, match="at most as many outputs as channels, got 2 outputs and 1 channels"):
        residual.build(1, 2)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (UNet, {"widths": ()}, "widths must hold a positive number of maps per level, got"),
        (UNet, {"widths": (4, 0)}, "widths must hold a positive number of maps per level, got"),
        (UNet, {"widths": (-1,)}, "widths must hold a positive number of maps per level, got"),
        (require_dimensions, {"dimensions": 4}, "dimensions must be 2 .* or 3 .*, got 4"),
        (LehtinenUNet, {"maps": 16}, "maps must be a positive multiple of 3, got 16"),
        (MSD, {"layers": 0}, "layers must be positive, got 0"),
        (MSD, {"width": 0}, "width must be positive, got 0"),
        (MSD, {"dilations": ()}, r"dilations must hold one positive distance or more, got \(\)"),
        (MSD, {"dilations": (1, 0)}, r"dilations must .* got \(1, 0\)"),
        (REDCNN, {"maps": 0}, "maps must be positive, got 0"),
        (DnCNN, {"layers": 1}, "layers must be at least 2 .* got 1"),
        (DnCNN, {"maps": 0}, "maps must be positive, got 0"),
    ],
)
def test_impossible_settings_are_refused(kind: Callable[..., Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        kind(**settings)


# --- volumes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VOLUMES)
def test_a_volume_may_have_any_number_of_slices_and_far_ones_do_not_matter(name: str) -> None:
    architecture = SMALL[name]
    network, reach = checks.awake(architecture.build(1)), architecture.depth
    x = noise(1, 4 * reach + 3, 12, 9)
    with torch.no_grad():
        whole, middle = network(x), network(x[:, 1:-1])
        assert whole.shape == x.shape
        kept = slice(reach + 1, -reach - 1)
        assert torch.allclose(middle[:, reach:-reach], whole[:, kept], atol=1e-5 * float(whole.abs().max()))
        assert not torch.allclose(middle, whole[:, 1:-1], atol=1e-3 * float(whole.std())), "the ends have a border"
        for n_slices in range(1, 5):
            few = network(x[:, :n_slices])
            assert few.shape == (1, n_slices, 12, 9)
            assert torch.isfinite(few).all()


@pytest.mark.parametrize("name", VOLUMES)
def test_one_slice_of_a_volume_is_an_image(name: str) -> None:
    """Where the border is dark the kernel's middle plane is left; where it is mirrored all planes see the one slice."""
    architecture = SMALL[name]
    volume, image = checks.awake(architecture.build(1)), dataclasses.replace(architecture, dimensions=2).build(1)
    flat = {}
    for key, wanted in image.state_dict().items():
        weight = volume.state_dict()[key]
        if weight.shape != wanted.shape and key.startswith("kernels"):
            weight = weight.unflatten(1, (-1, 3)).sum(dim=2)
        elif weight.shape != wanted.shape:
            weight = weight.unflatten(1, (3, -1))[:, 1]
        flat[key] = weight
    image.load_state_dict(flat)
    x = noise(2, 1, 17, 14)
    with torch.no_grad():
        assert torch.allclose(volume(x), image(x), atol=1e-6)


def test_three_dimensions_cost_weights_only_where_a_layer_sees_other_slices() -> None:
    flat, volume = UNet((4, 6, 8)), UNet((4, 6, 8), dimensions=3)
    assert n_weights(volume.build(9)) - n_weights(flat.build(1)) == 18 * (1 * 4 + 4 * 6 + 6 * 8)
    assert (volume.radius, volume.stride, volume.depth) == (flat.radius, flat.stride, 3)
    assert MSD(dimensions=3).depth == 10
    assert MSD(layers=7, dilations=(4, 2, 3), dimensions=3).depth == 2 * 2


# --- U-Net ----------------------------------------------------------------------------------------------------------


def test_the_default_network_is_small_and_reaches_51_pixels() -> None:
    settings = UNet()
    assert (settings.radius, settings.stride) == (51, 8)
    assert 4e5 < n_weights(settings.build(9)) < 1e6


def test_the_default_network_starts_near_zero() -> None:
    x = noise(2, 3, 32, 32)
    assert 0 < UNet((4, 6, 8)).build(3)(x).std() < 0.5 * x.std()


def test_saved_networks_stay_readable_and_measured_figures_repeatable() -> None:
    """Names, shapes and first weights of a seed are part of what users have on disk."""
    torch.manual_seed(5)
    weights = UNet((2, 3)).build(2).state_dict()
    assert {name: tuple(value.shape) for name, value in weights.items()} == {
        "down.0.0.weight": (2, 2, 3, 3), "down.0.0.bias": (2,), "down.0.2.weight": (2, 2, 3, 3), "down.0.2.bias": (2,),
        "down.1.0.weight": (3, 2, 3, 3), "down.1.0.bias": (3,), "down.1.2.weight": (3, 3, 3, 3), "down.1.2.bias": (3,),
        "up.0.0.weight": (2, 5, 3, 3), "up.0.0.bias": (2,), "up.0.2.weight": (2, 2, 3, 3), "up.0.2.bias": (2,),
        "head.weight": (1, 2, 1, 1), "head.bias": (1,),
    }  # fmt: skip
    found = [float(weights[name].flatten()[0]) for name in ("down.0.0.weight", "up.0.2.weight", "head.weight")]
    assert found == pytest.approx([0.350342, -0.215440, -0.0145385], rel=1e-5)


def test_moving_the_image_by_a_stride_moves_the_result() -> None:
    settings = UNet((4, 6, 8))
    network = settings.build(1)
    x = noise(1, 1, 72, 72)
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


# --- the U-Net of Noise2Noise ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_channels", "n_outputs"), [(1, 1), (3, 2)])
def test_the_unet_of_noise2noise_has_the_papers_layers(n_channels: int, n_outputs: int) -> None:
    down = [(n_channels, 48)] + [(48, 48)] * 6
    up = [(96, 96), (96, 96)] + [(144, 96), (96, 96)] * 3
    last = [(96 + n_channels, 64), (64, 32), (32, n_outputs)]
    network = LehtinenUNet().build(n_channels, n_outputs)
    found = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in found] == down + up + last
    assert n_weights(network) == sum(9 * i * o + o for i, o in down + up + last)
    if n_channels == 1:
        assert n_weights(network) == 988_609
    for layer in found[:-1]:
        fan_in = 9 * layer.in_channels
        assert float(layer.weight.detach().std()) == pytest.approx((2 / 1.01 / fan_in) ** 0.5, rel=0.15)
    assert float(found[-1].weight.detach().std()) == pytest.approx((9 * 32) ** -0.5, rel=0.15)


def test_the_unet_of_noise2noise_shrinks_32_times_and_sees_the_input_last() -> None:
    network = LehtinenUNet(maps=3).build(1)
    seen = {}
    for name, layer in network.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda layer, given, out, name=name: seen.__setitem__(name, given[0]))
    x = noise(1, 1, 64, 96)
    with torch.no_grad():
        out = network(x)
        doubled = network(2 * x)
    assert seen["down.5"].shape[-2:] == (2, 3)
    assert torch.equal(seen["last.0"][:, -1:], 2 * x)
    assert torch.allclose(doubled, 2 * out, rtol=1e-4, atol=1e-6), "without biases yet, all parts keep the scale"
    slopes = [layer.negative_slope for layer in network.modules() if isinstance(layer, torch.nn.LeakyReLU)]
    assert slopes == [0.1] * 10


# --- mixed-scale dense networks -------------------------------------------------------------------------------------


def concatenated(x: Tensor, kernels: list[Tensor], bias: Tensor, dilations: list[int]) -> Tensor:
    """Layers as they are written in the paper, mirrored by numpy."""
    start = 0
    convolve = functional.conv2d if x.dim() == 4 else functional.conv3d
    for kernel, dilation in zip(kernels, dilations, strict=True):
        padded = x
        for axis in range(2, x.dim()):
            margin = dilation if kernel.shape[axis] == 3 else 0
            index = np.pad(np.arange(x.shape[axis]), margin, mode="reflect")
            padded = padded.index_select(axis, torch.from_numpy(index))
        own = bias[start : start + len(kernel)]
        x = torch.cat([x, convolve(padded, kernel, own, dilation=dilation).relu()], dim=1)
        start += len(kernel)
    return x


CASES = {
    "one-map": ((2, 1, 7, 6), 1, [1, 2, 3], (3, 3)),
    "two-blocks": ((1, 1, 5, 6), 1, [1, 2, 3, 4, 1, 2, 3, 4, 1, 2], (3, 3)),
    "wide": ((2, 3, 6, 5), 2, [2, 1, 4], (3, 3)),
    "narrower-than-the-dilation": ((1, 2, 3, 2), 1, [1, 4, 7], (3, 3)),
    "one-pixel": ((2, 1, 1, 1), 2, [1, 3], (3, 3)),
    "volume": ((1, 2, 3, 4, 3), 2, [1, 2, 1], (3, 3, 3)),
    "flat-kernels": ((1, 1, 3, 4, 3), 2, [1, 2, 1], (1, 3, 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_dense_layers_are_those_that_concatenate(case: str) -> None:
    size, width, dilations, taps = CASES[case]
    x = noise(*size, dtype=torch.float64)
    kernels = [
        0.4 * noise(width, size[1] + width * layer, *taps, seed=layer, dtype=torch.float64)
        for layer in range(len(dilations))
    ]
    bias = 0.1 * noise(width * len(dilations), seed=99, dtype=torch.float64)
    given = [tensor.requires_grad_() for tensor in (x, bias, *kernels)]
    ours, wanted = dense_layers(x, kernels, bias, dilations), concatenated(x, kernels, bias, dilations)
    assert torch.allclose(ours, wanted, rtol=1e-12, atol=1e-12)
    weight = noise(*wanted.shape, seed=7, dtype=torch.float64)
    found, expected = (torch.autograd.grad((out * weight).sum(), given) for out in (ours, wanted))
    assert all(torch.allclose(one, two, rtol=1e-10, atol=1e-10) for one, two in zip(found, expected, strict=True))


def test_dense_layers_have_the_gradient_of_finite_differences() -> None:
    x, bias = noise(1, 1, 4, 3, dtype=torch.float64), 0.1 * noise(3, seed=9, dtype=torch.float64)
    kernels = [0.4 * noise(1, 1 + layer, 3, 3, seed=layer, dtype=torch.float64) for layer in range(3)]
    given = [tensor.requires_grad_() for tensor in (x, bias, *kernels)]
    assert torch.autograd.gradcheck(lambda x, bias, *kernels: dense_layers(x, kernels, bias, [1, 3, 2]), given)


def test_the_mixed_scale_network_has_the_papers_45652_weights_and_starts_at_zero() -> None:
    torch.manual_seed(0)
    network = MSD().build(1)
    assert n_weights(network) == 45_652 == 9 * sum(range(1, 101)) + 100 + (101 + 1)
    kernels = torch.cat([kernel.detach().flatten() for kernel in network.kernels])
    assert float(kernels.std()) == pytest.approx((2 / (9 * (1 + 99) + 1)) ** 0.5, rel=0.02)
    assert MSD().radius == 10 * sum(range(1, 11))
    assert not network(noise(1, 1, 12, 12)).any()


def test_the_mixed_scale_network_mixes_input_and_maps_in_its_head() -> None:
    network = checks.awake(MSD(layers=3, width=2, dilations=(2, 1)).build(2, 3))
    x = noise(2, 2, 9, 8)
    with torch.no_grad():
        maps = concatenated(x, list(network.kernels), network.bias, [2, 1, 2])
        wanted = torch.einsum("om,bmyx->boyx", network.head.weight, maps) + network.head.bias[:, None, None]
        assert torch.allclose(network(x), wanted, atol=1e-6)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.allclose(network(x), wanted, atol=1e-6), "its sums are long and stay in float32"


# --- RED-CNN and DnCNN ----------------------------------------------------------------------------------------------


def test_red_cnn_is_convolutions_and_deconvolutions_with_three_skips() -> None:
    network = checks.awake(REDCNN(maps=4).build(1))
    down = [lambda x, layer=layer: layer(x).relu() for layer in network.encoder]
    up = list(network.decoder)
    x = noise(1, 1, 30, 27)
    with torch.no_grad():
        two = down[1](down[0](x))
        four = down[3](down[2](two))
        back = (up[0](down[4](four)) + four).relu()
        back = (up[2](up[1](back).relu()) + two).relu()
        wanted = up[4](up[3](back).relu()) + x
        assert torch.allclose(network(x), wanted, atol=1e-6)
        assert four.shape[-2:] == (30 - 16, 27 - 16), "unpadded"
        assert wanted.min() < 0
        clipped = REDCNN(maps=4, rectified=True).build(1)
        clipped.load_state_dict(network.state_dict())
        assert torch.allclose(clipped(x), wanted.relu(), atol=1e-6)


def test_red_cnn_has_the_papers_weights_and_keeps_the_scale_of_its_maps() -> None:
    torch.manual_seed(0)
    network = REDCNN().build(1)
    assert n_weights(network) == (25 + 1) * 96 + 8 * (25 * 96 + 1) * 96 + 25 * 96 + 1
    for layer, share in ((network.encoder[3], 1.0), (network.decoder[3], 1.0), (network.decoder[4], 0.1)):
        assert float(layer.weight.detach().std()) == pytest.approx(share * (2 / (25 * 96)) ** 0.5, rel=0.05)


@given(st.integers(1, 24), st.integers(1, 24))
def test_red_cnn_mirrors_images_too_small_for_its_convolutions(height: int, width: int) -> None:
    x = noise(1, 1, height, width, seed=height + 100 * width)
    torch.manual_seed(0)
    network = REDCNN(maps=2).build(1)
    padding = (0, max(0, 21 - height)), (0, max(0, 21 - width))
    wanted = np.pad(x[0, 0].numpy(), padding, mode="reflect")
    assert np.array_equal(pad_to_size(x, 21, 21)[0, 0].numpy(), wanted)
    with torch.no_grad():
        whole = network(torch.from_numpy(wanted)[None, None])
        assert torch.allclose(network(x), whole[..., :height, :width], atol=1e-6)


def test_dncnn_takes_away_what_a_chain_of_convolutions_finds() -> None:
    network = checks.awake(DnCNN(layers=5, maps=6).build(3))
    x = noise(2, 3, 11, 9)
    with torch.no_grad():
        found = x
        first, *others = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
        found = functional.conv2d(x, first.weight, first.bias, padding=1)
        for layer in others:
            found = functional.conv2d(found.relu(), layer.weight, layer.bias, padding=1)
        assert torch.allclose(network(x), x[:, 1:2] - found, atol=1e-6)
    assert [layer.out_channels for layer in others] == [6, 6, 6, 1]
    assert n_weights(DnCNN().build(1)) == (9 + 1) * 64 + 15 * (9 * 64 + 1) * 64 + 9 * 64 + 1


def test_only_a_bias_free_dncnn_scales_with_its_input() -> None:
    x = noise(1, 1, 16, 16)
    for bias in (False, True):
        network = checks.awake(DnCNN(layers=6, maps=6, bias=bias).build(1))
        with torch.no_grad():
            scaled = torch.allclose(network(7 * x), 7 * network(x), rtol=1e-4, atol=1e-4)
        assert scaled == (not bias)
