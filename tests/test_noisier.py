"""Noisier2Noise in closed form: what is added, what is subtracted again; the laws are in test_laws.py."""

from typing import Any

import pytest
import torch
from torch import Tensor

from quietray.errors import SettingsError
from quietray.splits.noisier import Noisier2Noise, seed_of


def ramp(size: int = 128) -> Tensor:
    """A line integral that rises from 0 to 2 across the image, ``(1, 1, 1, size, size)``."""
    return torch.linspace(0, 2, size).expand(1, 1, 1, size, size)


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_the_added_noise_has_the_variance_of_counted_photons(strength: float) -> None:
    split = Noisier2Noise(poisson=0.01, gaussian=0.02, strength=strength)
    samples = ramp(256)
    pair = split.draw(samples, torch.Generator().manual_seed(0))
    added = pair.input - samples[:, 0]
    for columns in (slice(1, 65), slice(96, 160), slice(191, 255)):
        wanted = strength**2 * (0.01 * samples[..., columns].exp() + 0.02).mean()
        assert float(added[..., columns].var()) == pytest.approx(float(wanted), rel=0.05)
    assert torch.allclose(samples[:, 0] - pair.target, added / strength**2, atol=1e-5)


def test_the_loss_is_that_of_the_paper_times_a_constant() -> None:
    """``|((1 + a^2) f(z) - z) / a^2 - w|^2`` is ``((1 + a^2) / a^2)^2 |f(z) - y|^2``."""
    samples = torch.randn(2, 1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for strength in (0.5, 1.0):
        split = Noisier2Noise(gaussian=0.3, strength=strength)
        pair = split.draw(samples, torch.Generator().manual_seed(1))
        own = pair.loss(torch.tanh, torch.ones(1, 1, 1, 1))
        paper = (torch.tanh(pair.input) - samples[:, 0]).square().mean()
        assert float(own) == pytest.approx(((1 + strength**2) / strength**2) ** 2 * float(paper), rel=1e-4)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_the_best_network_for_pure_noise_gives_nothing(strength: float) -> None:
    """Of pure noise the mean of ``y`` given ``z`` is ``z / (1 + strength^2)``: what is returned is 0."""
    samples = 0.3 * torch.randn(1, 1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    split = Noisier2Noise(gaussian=0.09, strength=strength)
    found = split.infer(lambda z: z / (1 + strength**2), samples)
    assert float(found.abs().max()) < 1e-5


def test_passes_differ_and_the_result_repeats() -> None:
    samples = ramp(16)
    split = Noisier2Noise(gaussian=0.1, passes=3)
    seen: list[Tensor] = []

    def network(z: Tensor) -> Tensor:
        seen.append(z)
        return z

    found = split.infer(network, samples)
    assert len(seen) == 3
    assert not torch.equal(seen[0], seen[1])
    assert torch.allclose(found, torch.stack(seen).mean(0), atol=1e-6), "the identity leaves all noise in"
    assert torch.equal(found, split.infer(network, samples))


def test_no_two_views_get_the_same_noise() -> None:
    one = ramp(16)
    other = one.clone()
    other[..., 3, 4] += 1e-3
    assert seed_of(one) != seed_of(other)
    split = Noisier2Noise(gaussian=0.1, passes=1)
    first, second = split.infer(lambda z: z, one) - one[:, 0], split.infer(lambda z: z, other) - other[:, 0]
    assert abs(float(torch.corrcoef(torch.stack((first.flatten(), second.flatten())))[0, 1])) < 0.3


def test_pixels_that_were_not_measured_count_nowhere() -> None:
    samples = ramp(16).clone()
    samples[..., 5, 7] = torch.nan
    split = Noisier2Noise(gaussian=0.1)
    pair = split.draw(samples, torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(pair.input).all() and torch.isfinite(pair.target).all())
    assert float(pair.weight[0, 0, 5, 7]) == 0
    assert float(pair.weight.sum()) == 255
    near = pair.input[0, 0, 4:7, 6:9]
    donut = torch.tensor([[0.5, 1, 0.5], [1, 0, 1], [0.5, 1, 0.5]]) / 6
    assert float(near[1, 1]) == pytest.approx(float((near * donut).sum()), rel=1e-5), "filled from what is noisier"
    assert bool(torch.isfinite(split.infer(lambda z: z, samples)).all())
    judged = split.judge(lambda z: z, samples, torch.ones(1, 1, 1, 1))
    assert judged.weight == 255


def test_the_judgement_holds_for_counted_photons() -> None:
    """Line integrals of Poisson counts, 200 photons in the open beam, and a network that smooths."""
    split = Noisier2Noise(poisson=1 / 200)
    generator = torch.Generator().manual_seed(0)
    truth = ramp(128).expand(8, -1, -1, -1, -1)
    samples = -(torch.poisson(200 * torch.exp(-truth), generator=generator).clamp_min(1) / 200).log()

    def network(z: Tensor) -> Tensor:
        smooth = torch.nn.functional.avg_pool2d(z, 5, 1, 2, count_include_pad=False)
        return (z + smooth) / 2

    judged = split.judge(network, samples, torch.ones(1, 1, 1, 1))
    true = float((split.infer(network, samples) - truth[:, 0]).square().mean())
    noise = float((samples - truth).square().mean())
    assert judged.noise == pytest.approx(noise, rel=0.08)
    assert judged.error == pytest.approx(true, abs=0.05 * noise)


def test_noise_that_is_not_known_is_measured() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = ramp(256)[0]
    image = -(torch.poisson(400 * torch.exp(-truth), generator=generator).clamp_min(1) / 400).log()
    image[..., 3, 3] = torch.nan
    assert Noisier2Noise().measured(image).poisson == pytest.approx(1 / 400, rel=0.05)
    known = Noisier2Noise(gaussian=0.1)
    assert known.measured(image) is known
    with pytest.raises(SettingsError, match="must be known, got none"):
        Noisier2Noise().infer(lambda z: z, image[None])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gaussian": -0.1, "poisson": 1.0}, "variance of the noise must not be negative"),
        ({"poisson": -1.0}, "variance of the noise must not be negative"),
        ({"strength": 0.0}, "strength must be positive"),
        ({"passes": 0}, "passes must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Noisier2Noise(**{"gaussian": 0.1, **change})
