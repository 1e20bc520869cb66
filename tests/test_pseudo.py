"""Pseudo-CT by hand: what is seen, what is met, where the noise comes from, when the teacher learns."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from checks import same_weights
from quietray.errors import SettingsError
from quietray.networks import REDCNN
from quietray.running.settings import Training
from quietray.splits.base import Neighbourhood
from quietray.splits.pseudo import EnsembleNoise, GaussianNoise, HistogramNoise, ModelNoise, PseudoCT
from quietray.training.batches import TrainingVolume
from quietray.training.loop import Fitted, fit


class Constant(nn.Module):
    """A network that knows the answer."""

    def __init__(self, answer: torch.Tensor | float) -> None:
        super().__init__()
        self.answer = torch.as_tensor(answer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answer.expand_as(x).clone()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_target_is_the_teachers_output_and_the_input_has_noise_on_top() -> None:
    samples = torch.full((2, 1, 1, 4, 4), 6.0)
    pair = PseudoCT().on(Constant(2.0), ModelNoise(nn.Identity())).draw(samples, generator())
    assert torch.equal(pair.target, torch.full((2, 1, 4, 4), 2.0))
    assert torch.equal(pair.input, torch.full((2, 1, 4, 4), 8.0)), "f(X) + N(X), of X and not of f(X)"


def test_an_ensemble_takes_every_pixel_from_one_of_its_models() -> None:
    models = tuple(ModelNoise(Constant(float(k))) for k in range(3))
    image = torch.zeros(8, 1, 32, 32)
    chance = generator()
    one, other = (EnsembleNoise(models).draw(image, chance) for _ in range(2))
    assert one.unique().tolist() == [0, 1, 2]
    for value in range(3):
        assert float((one == value).float().mean()) == pytest.approx(1 / 3, abs=0.03)
    assert float((one == other).float().mean()) == pytest.approx(1 / 3, abs=0.03), "drawn anew every time"
    neighbours = float((one[..., 1:] == one[..., :-1]).float().mean())
    assert neighbours == pytest.approx(1 / 3, abs=0.03), "pixel by pixel"


@pytest.mark.parametrize("size", [32, 30])
def test_blocks_of_an_ensemble_stay_together(size: int) -> None:
    models = tuple(ModelNoise(Constant(float(k))) for k in range(4))
    noise = EnsembleNoise(models, block=8).draw(torch.zeros(16, 1, size, size), generator())
    corners = noise[..., ::8, ::8].repeat_interleave(8, 2).repeat_interleave(8, 3)[..., :size, :size]
    assert torch.equal(noise, corners)
    assert float((noise[..., 7:24:8] == noise[..., 8:25:8]).float().mean()) == pytest.approx(0.25, abs=0.06)


def test_noise_that_models_share_keeps_its_correlation_in_blocks_and_loses_it_pixel_by_pixel() -> None:
    """Two models, each with a smooth map of its own: how alike neighbours are, by either choice."""
    smooth = [nn.functional.avg_pool2d(torch.randn(1, 1, 72, 72, generator=generator(k)), 9, 1) for k in range(2)]
    models = tuple(ModelNoise(Constant(image)) for image in smooth)

    def alike(block: int) -> float:
        noise = EnsembleNoise(models, block).draw(torch.zeros(1, 1, 64, 64), generator())[0, 0].numpy()
        return float(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1])

    assert alike(1) < 0.6 < 0.75 < alike(16)


def test_a_histogram_has_the_moments_of_the_differences_and_is_white() -> None:
    differences = torch.distributions.Gamma(2.0, 1.0).sample((5000,)) - 2
    noise = HistogramNoise(differences).draw(torch.zeros(4, 1, 128, 128), generator())
    assert float(noise.mean()) == pytest.approx(float(differences.mean()), abs=0.03)
    assert float(noise.std()) == pytest.approx(float(differences.std()), rel=0.03)
    assert abs(float((noise[..., 1:] * noise[..., :-1]).mean())) < 0.05


def test_with_a_teacher_that_is_right_and_true_noise_the_judgement_is_right() -> None:
    truth = torch.rand(1, 1, 24, 24, generator=generator())
    split = PseudoCT().on(Constant(truth), GaussianNoise(0.3))
    chance, judged, true = generator(1), [], []
    for _ in range(60):
        samples = (truth + 0.3 * torch.randn(4, 1, 24, 24, generator=chance))[:, None]
        judged.append(split.judge(lambda x: 0.8 * x, samples, torch.ones(1, 1, 24, 24)).error)
        true.append(float((0.8 * samples[:, 0] - truth).square().mean()))
    assert np.mean(judged) == pytest.approx(np.mean(true), rel=0.02)


def data(seed: int = 0) -> TrainingVolume:
    rng = np.random.default_rng(seed)
    parts = np.cumsum(rng.normal(0, 0.1, (1, 4, 24, 24)), axis=-1).astype(np.float32)
    return TrainingVolume(parts, Neighbourhood(1), np.ones((24, 24), np.float32), (0, 1, 2), (3,))


def tuned(
    period: int, steps: int, checkpoint: Path | None = None, stop: int | None = None, judgements: int = 1
) -> tuple[Fitted, PseudoCT]:
    torch.manual_seed(3)
    network = REDCNN(maps=2).build(1)
    split = PseudoCT(period).on(network, GaussianNoise(0.1))
    settings = Training(steps, patch=24, judgements=judgements, patience=2.0, average=0.0, precision="fp32", loss="mae")

    def watch(step: int, n_steps: int | None, latest: Any) -> None:
        if step == stop:
            raise KeyboardInterrupt

    built = copy.deepcopy(network)
    return fit(split, lambda: built, data(), settings, checkpoint=checkpoint, watch=watch), split


def test_the_teacher_takes_over_the_weights_every_period() -> None:
    torch.manual_seed(3)
    untouched = REDCNN(maps=2).build(1).state_dict()
    _, never = tuned(0, 8)
    _, early = tuned(4, 7)
    _, late = tuned(8, 7)
    assert never.teacher is not None
    assert early.teacher is not None
    assert late.teacher is not None
    assert same_weights(never.teacher.network, untouched), "0 never updates"
    assert same_weights(late.teacher.network, untouched), "the first period is not over"
    assert not same_weights(early.teacher.network, untouched)
    fitted, split = tuned(8, 8)
    assert split.teacher is not None
    assert same_weights(split.teacher.network, fitted.network.state_dict()), "without averaging, theta is theta*"


def test_a_killed_run_goes_on_with_the_teacher_that_it_had(tmp_path: Path) -> None:
    whole, _ = tuned(3, 16, judgements=4)
    state = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tuned(3, 16, state, 9, judgements=4)
    resumed, _ = tuned(3, 16, state, judgements=4)
    assert same_weights(resumed.network, whole.network.state_dict())


def test_binding_leaves_the_network_that_it_is_given_alone() -> None:
    network = REDCNN(maps=2).build(1)
    split = PseudoCT().on(network, GaussianNoise())
    assert split.teacher is not None
    assert all(weight.requires_grad for weight in network.parameters())
    assert not any(weight.requires_grad for weight in split.teacher.network.parameters())
    assert PseudoCT().teacher is None
    assert split == PseudoCT(), "what it is bound to is no setting"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PseudoCT(-1), "period must be at least 0"),
        (lambda: EnsembleNoise(()), "at least one source"),
        (lambda: EnsembleNoise((GaussianNoise(),), 0), "block must be at least 1"),
        (lambda: PseudoCT().draw(torch.zeros(1, 1, 1, 2, 2), generator()), "must have a trained network"),
    ],
)
def test_impossible_settings_are_refused(make: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        make()
