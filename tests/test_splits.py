"""Noise2Inverse by hand: what is seen, what is met, what is refused; the laws are in test_laws.py."""

from typing import Any

import numpy as np
import pytest
import torch

from matrix import beam
from quietray.errors import SettingsError
from quietray.metrics.noreference import judge_left_out, residual_correlation
from quietray.operators.astra import ParallelProjector
from quietray.reconstruct.analytic import FBP
from quietray.splits.base import Pair
from quietray.splits.inverse import Noise2Inverse


def marked(parts: int, slices: int, batch: int = 2) -> torch.Tensor:
    """Samples whose number tells batch, part and slice: 100 b + 10 p + s."""
    b, p, s = torch.meshgrid(torch.arange(batch), torch.arange(parts), torch.arange(slices), indexing="ij")
    return (100.0 * b + 10 * p + s)[..., None, None].expand(-1, -1, -1, 4, 5).contiguous()


@pytest.mark.parametrize("slices", [1, 3, 5])
def test_x_to_1_sees_the_mean_of_the_others_and_meets_the_middle_slice(slices: int) -> None:
    split = Noise2Inverse(4, "X:1", slices)
    for part, (given, wanted) in enumerate(split.choices(marked(4, slices))):
        others = (60 - 10 * part) / 3
        for b in range(2):
            assert torch.allclose(given[b, :, 0, 0], 100.0 * b + others + torch.arange(slices), atol=1e-4)
            assert torch.allclose(wanted[b], torch.full((1, 4, 5), 100.0 * b + 10 * part + slices // 2), atol=1e-4)


def test_1_to_x_is_the_reverse() -> None:
    one = list(Noise2Inverse(3, "X:1", 1).choices(marked(3, 1)))
    other = list(Noise2Inverse(3, "1:X", 1).choices(marked(3, 1)))
    for (given, wanted), (seen, met) in zip(one, other, strict=True):
        assert torch.equal(given, met)
        assert torch.equal(wanted, seen)


def test_a_batch_draws_for_each_sample_and_repeats_with_its_generator() -> None:
    split = Noise2Inverse(4, slices=1)
    samples = marked(4, 1, batch=1).expand(64, -1, -1, -1, -1)
    pair = split.draw(samples, torch.Generator().manual_seed(5))
    again = split.draw(samples, torch.Generator().manual_seed(5))
    other = split.draw(samples, torch.Generator().manual_seed(6))
    assert torch.equal(pair.target, again.target)
    assert torch.equal(pair.input, again.input)
    assert not torch.equal(pair.target, other.target)
    assert set(pair.target[:, 0, 0, 0].tolist()) == {0.0, 10.0, 20.0, 30.0}


def test_inference_is_the_mean_of_the_outputs() -> None:
    samples = torch.rand(2, 3, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    split = Noise2Inverse(3, "X:1", 3)

    def network(x: torch.Tensor) -> torch.Tensor:
        return x.square().mean(dim=1, keepdim=True)

    outputs = [network((samples.sum(1) - samples[:, k]) / 2) for k in range(3)]
    assert torch.allclose(split.infer(network, samples), torch.stack(outputs).mean(0), atol=1e-6)
    identity = split.infer(lambda x: x[:, 1:2], samples)
    assert torch.allclose(identity, samples[:, :, 1].mean(1, keepdim=True), atol=1e-6), "doing nothing changes nothing"


@pytest.mark.parametrize("parts", [2, 3, 4])
@pytest.mark.parametrize("direction", ["X:1", "1:X"])
def test_doing_nothing_is_judged_as_the_noise(parts: int, direction: Any) -> None:
    """For the identity, the estimates of the result's error and of the data's noise are the same number."""
    samples = torch.randn(3, parts, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    weight = (torch.rand(3, 1, 9, 9, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    judged = Noise2Inverse(parts, direction, 1).judge(lambda x: x, samples, weight)
    pixels = weight.bool().expand(3, parts, 9, 9)
    seen = samples[:, :, 0].double()
    by_hand = seen.var(dim=1, keepdim=True)[weight.bool()].mean() / parts
    if parts % 2 == 0:  # the even ones less the odd ones tell the noise
        apart = seen[:, 0::2].mean(dim=1) - seen[:, 1::2].mean(dim=1)
        by_hand = (apart / 2).square()[weight[:, 0].bool()].mean()
    assert judged.error == pytest.approx(judged.noise, rel=1e-5)
    assert judged.noise == pytest.approx(float(by_hand), rel=1e-5)
    assert pixels.any()


def test_a_perfect_result_is_judged_near_zero_and_a_bias_as_its_square() -> None:
    truth = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    noise = 0.3 * torch.randn(1, 4, 1, 40, 40, generator=torch.Generator().manual_seed(1))
    split = Noise2Inverse(4, slices=1)
    for bias in (0.0, 0.2):
        judged = split.judge(lambda x, bias=bias: truth + bias, truth[:, None] + noise, torch.ones(1, 1, 40, 40))
        assert judged.error == pytest.approx(bias**2, abs=0.006)


def test_noise_of_the_parts_of_a_real_scan_is_independent() -> None:
    """White noise in the views is independent, and of equal size, in the parts; not so where parts share views."""
    geometry = beam(160, 40, 32)
    sinogram = np.random.default_rng(0).standard_normal((40, 160, 32)).astype(np.float32)
    parts = np.stack([FBP()(ParallelProjector(geometry[j::4]), sinogram[:, j::4]) for j in range(4)])
    inner = torch.from_numpy(parts[:, :, 10:22, 10:22]).movedim(1, 0)
    ones = torch.ones(40, 12, 12)
    assert abs(residual_correlation(inner, ones)) < 0.02
    variances = inner.var(dim=(0, 2, 3))
    assert float(variances.max() / variances.min()) < 1.2
    shared = np.stack([FBP()(ParallelProjector(geometry[j::2]), sinogram[:, j::2]) for j in (0, 1, 0, 1)])
    assert residual_correlation(torch.from_numpy(shared[:, :, 10:22, 10:22]).movedim(1, 0), ones) > 0.2


def test_the_loss_is_weighted_twice() -> None:
    target = torch.zeros(2, 1, 2, 2)
    weight = torch.tensor([[1.0, 0.0], [1.0, 1.0]])[None, None]
    pair = Pair(torch.ones(2, 1, 2, 2), target, weight)
    other = torch.tensor([2.0, 0.0])[:, None, None, None]

    def network(x: torch.Tensor) -> torch.Tensor:
        return x * torch.tensor([[1.0, 100.0], [2.0, 3.0]])

    assert pair.loss(network, other).item() == pytest.approx((1 + 4 + 9) / 3)
    measured = Pair(pair.input, target, weight, measure=torch.sqrt)
    assert measured.loss(network, other).item() == pytest.approx((1 + 2 + 3) / 3)
    nothing = pair.loss(network, torch.zeros(1, 1, 1, 1))
    assert nothing.item() == 0


def test_judging_from_fewer_outputs_than_it_should_shows_in_the_numbers() -> None:
    """The formula by hand, for two choices of one pixel."""
    outputs = torch.tensor([1.0, 3.0])[:, None, None, None, None]
    targets = torch.tensor([2.0, 5.0])[:, None, None, None, None]
    judged = judge_left_out(outputs, targets, targets.flip(0), torch.ones(1, 1, 1, 1), 1, 2)
    assert judged.noise == pytest.approx(9 / 2 / 2)
    assert judged.error == pytest.approx((1 + 4) / 2 - 9 / 2 - 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parts": 1}, "parts must be at least 2"),
        ({"slices": 4}, "slices must be odd"),
        ({"slices": 0}, "slices must be odd"),
        ({"slices": -1}, "slices must be odd"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Noise2Inverse(**change)


def test_an_unknown_direction_is_refused() -> None:
    split = Noise2Inverse()
    object.__setattr__(split, "input", "2:2")  # past the type check that the tests switch on
    with pytest.raises(SettingsError, match="input must be 'X:1' or '1:X', got '2:2'"):
        split.__post_init__()
