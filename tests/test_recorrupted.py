"""Recorrupted-to-Recorrupted in closed form: what is added and taken; the laws are in test_laws.py."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from quietray.detector.noise.lags import autocorrelation
from quietray.errors import SettingsError
from quietray.splits.recorrupted import Recorrupted

SHARED = 0.09 * np.array([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]])  # means of 2 x 2 white pixels


def shared_noise(n: int, size: int, seed: int = 0) -> Tensor:
    """Noise of that covariance, by other means than those of the split, ``(n, 1, 1, size, size)``."""
    white = np.random.default_rng(seed).normal(0, 0.3, (n, size + 1, size + 1))
    mean = (white[:, 1:, 1:] + white[:, 1:, :-1] + white[:, :-1, 1:] + white[:, :-1, :-1]) / 2
    return torch.from_numpy(mean.astype(np.float32))[:, None, None]


def lags_of(noise: Tensor) -> np.ndarray:
    images = noise.reshape(-1, *noise.shape[-2:]).numpy()
    return autocorrelation(images, np.ones(images.shape[1:], bool), 1)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_what_is_added_and_taken_has_the_covariance_of_the_noise(strength: float) -> None:
    clean = torch.zeros(8, 1, 1, 96, 96)
    pair = Recorrupted(strength=strength).measured(SHARED).draw(clean, torch.Generator().manual_seed(0))
    for noise, share in ((pair.input, strength), (pair.target, 1 / strength)):
        np.testing.assert_allclose(lags_of(noise), share**2 * SHARED, atol=0.03 * share**2 * 0.09)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_input_and_target_share_no_noise_near_or_far(strength: float) -> None:
    split = Recorrupted(strength=strength).measured(SHARED)
    pair = split.draw(shared_noise(16, 96), torch.Generator().manual_seed(0))
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        product = pair.input[..., dy:, dx:] * pair.target[..., : 96 - dy, : 96 - dx]
        both = float(pair.input.std() * pair.target.std())
        assert abs(float(product.mean())) < 0.03 * both


def test_the_best_filter_of_pure_noise_is_judged_to_leave_nothing() -> None:
    noise, one = shared_noise(16, 64), torch.ones(1, 1, 1, 1)
    split = Recorrupted().measured(SHARED)
    nothing, everything = (split.judge(lambda z, s=share: s * z, noise, one) for share in (0.0, 1.0))
    assert nothing.error == pytest.approx(0.0, abs=0.06 * 0.09)
    assert everything.error == pytest.approx(0.09, rel=0.06)
    assert everything.noise == pytest.approx(0.09)


def test_the_image_is_shown_as_it_was_measured_unless_passes_are_asked_for() -> None:
    samples = shared_noise(1, 16)
    split = Recorrupted().measured(SHARED)
    assert torch.equal(split.infer(lambda z: z, samples), samples[:, 0])
    seen: list[Tensor] = []

    def network(z: Tensor) -> Tensor:
        seen.append(z)
        return z

    passes = Recorrupted(passes=3).measured(SHARED)
    found = passes.infer(network, samples)
    assert len(seen) == 3
    assert not torch.equal(seen[0], seen[1])
    assert torch.allclose(found, torch.stack(seen).mean(0), atol=1e-6)
    assert torch.equal(found, passes.infer(network, samples))


def test_what_is_known_is_not_measured_again() -> None:
    known = Recorrupted(((0.04,),))
    assert known.measured(SHARED) is known
    with pytest.raises(SettingsError, match="must be known, got none"):
        Recorrupted().draw(shared_noise(1, 8), torch.Generator())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"strength": 0.0}, "strength must be positive"),
        ({"passes": -1}, "passes must be 0 or more"),
        ({"covariance": ((1.0, 0.5),)}, "a square of odd size"),
        ({"covariance": ((1.0, 0.5), (0.5, 1.0))}, "a square of odd size"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Recorrupted(**change)
