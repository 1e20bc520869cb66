"""What is held out is never a target; samples hold what their window says; weights stay white."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import quietray
from quietray.detector.response.prf import PointResponse
from quietray.domains import radiographs
from quietray.errors import NoiseError, SettingsError
from quietray.preparation.prepare import Prepared
from quietray.running.run import Run
from quietray.simulate.noise import Scintillator
from quietray.splits import Noise2Inverse, Noise2Self, Noise2Void
from quietray.splits.base import Neighbourhood
from quietray.training.batches import TrainingSet, TrainingVolume
from quietray.training.state import Progress, best


def stack(n_parts: int = 2, n_slices: int = 12, size: int = 24) -> np.ndarray:
    """Return parts whose values tell part and slice: 100 * part + slice."""
    values = 100 * np.arange(n_parts)[:, None] + np.arange(n_slices)
    return np.broadcast_to(values[..., None, None], (n_parts, n_slices, size, size)).astype(np.float32).copy()


@pytest.mark.parametrize("split", [Noise2Self(), Noise2Self(grid=3), Noise2Void(share=1 / 16)], ids=str)
def test_reserved_pixels_are_judged_and_never_trained_on(split: Noise2Self | Noise2Void) -> None:
    image = np.arange(40 * 36, dtype=np.float32).reshape(1, 1, 40, 36)
    data = TrainingVolume.with_held_out(image, split, np.ones((40, 36), np.float32))
    assert data.reserved is not None
    kept = set(image[0, 0][data.reserved > 0].tolist())
    assert len(kept) == pytest.approx(image.size / split.n_phases, rel=0.3)
    generator = torch.Generator().manual_seed(0)
    trained: set[float] = set()
    for _ in range(150):
        samples, weight = data.draw(4, 16, generator)
        trained |= set(samples[:, 0][weight > 0].tolist())
    assert not trained & kept
    assert len(trained | kept) > 0.97 * image.size, "but for a corner perhaps, all others are"
    for samples, weight in data.held_out():
        judged = samples[:, 0][weight > 0]
        assert set(judged.tolist()) <= kept
        _, hidden = split.phase(samples[:, 0], split.n_phases // 2)
        assert bool((hidden[weight > 0] == 1).all()), "the judge must hide just the pixels that were held out"


def test_steps_in_time_are_neighbours_and_show_all_their_subsets() -> None:
    split = Noise2Inverse(parts=2, slices=1, times=3)
    parts = stack(2, 12)  # 4 steps of 3 slices
    data = TrainingVolume.with_held_out(parts, split, np.ones((24, 24), np.float32), n_series=4)
    sample = data.samples(4)[None]  # step 1, slice 1
    assert sample[0, 0, :, 0, 0].tolist() == [1, 4, 7]
    given, wanted = next(split.choices(sample))
    assert given[0, :, 0, 0].tolist() == [51, 104, 57], "neighbours in time: the mean of both subsets"
    assert wanted[0, :, 0, 0].tolist() == [4]


def test_channels_are_seen_and_met_together() -> None:
    split = Noise2Inverse(parts=2, slices=3, channels=4)
    data = TrainingVolume.with_held_out(stack(2, 12), split, np.ones((24, 24), np.float32), n_series=4)
    assert set(data.training_rows) | set(data.held_out_rows) == {0, 1, 2}
    given, wanted = next(split.choices(data.samples(1)[None]))
    assert given.shape[1] == 12
    assert wanted[0, :, 0, 0].tolist() == [1, 4, 7, 10]
    assert split.n_outputs == 4


def test_all_slices_of_a_volume_are_targets_but_the_held_out_ones() -> None:
    split = Noise2Inverse(parts=2, slices=6, volume=True)
    data = TrainingVolume.with_held_out(stack(2, 40), split, np.ones((24, 24), np.float32))
    held = set(data.held_out_rows)
    assert held
    for seed in range(20):
        samples, weight = data.draw(2, 8, torch.Generator().manual_seed(seed))
        assert weight.shape == (2, 6, 8, 8)
        for sample, used in zip(samples, weight, strict=True):
            slices = sample[0, :, 0, 0].tolist()
            assert [bool(one.all()) for one in used] == [z not in held for z in slices]
    for samples, weight in data.held_out():
        assert weight.sum(dim=(2, 3)).nonzero().shape[0] == 1
        assert float(samples[0, 0, 3, 0, 0]) in held


def test_windows_are_mirrored_in_space_and_time() -> None:
    assert Neighbourhood(3, times=3).indices(0, 12, 4) == [4, 3, 4, 1, 0, 1, 4, 3, 4]
    assert Neighbourhood(2).indices(3, 8) == [2, 3]


@pytest.mark.parametrize("more", [{"times": 2}, {"channels": 0}, {"times": 3, "channels": 2}, {"slices": 4}])
def test_impossible_windows_are_refused(more: dict[str, int]) -> None:
    with pytest.raises(SettingsError):
        Noise2Inverse(**more)


def test_a_set_draws_from_every_scan() -> None:
    split = Noise2Inverse(parts=2, slices=1)
    weight = np.ones((24, 24), np.float32)
    both = TrainingSet(tuple(TrainingVolume.with_held_out(stack() + add, split, weight) for add in (0, 1000)))
    generator = torch.Generator().manual_seed(0)
    seen = {bool(both.draw(1, 8, generator)[0].max() > 900) for _ in range(20)}
    assert seen == {True, False}
    assert {bool(samples.max() > 900) for samples, _ in both.held_out()} == {True, False}


def test_weights_from_after_the_residuals_stopped_being_white_are_not_kept() -> None:
    steps = [(0.5, 0.0), (0.3, -0.1), (0.1, -0.4), (0.05, -0.5)]
    history = [Progress(k, 4, 0.0, 0.0, error, 1.0, correlation) for k, (error, correlation) in enumerate(steps)]
    assert best(history).step == 1
    assert best(history[2:]).step == 3, "where none is white the smallest error counts"


def diagnosed(plain: str, whitened: str, response: object = None) -> SimpleNamespace:
    lags = np.zeros((13, 13))
    lags[6, 6], lags[6, 4:9:4], lags[4:9:4, 6] = 1.0, 0.1, 0.1
    verdicts = {"noise2self": plain, "noise2self after decorrelation": whitened}
    return SimpleNamespace(
        verdict=lambda name: SimpleNamespace(answer=verdicts[name], reason="Measured.", advice="Do this."),
        response=response,
        before=SimpleNamespace(lags=lags),
    )


def test_noise_that_cannot_be_made_white_is_hidden_with_the_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared, undone = Prepared.__new__(Prepared), PointResponse(Scintillator(response_width=0.4).response)
    for name in ("scan", "calibration"):
        object.__setattr__(prepared, name, None)

    def choose(whiten: str, split: Noise2Self) -> tuple[PointResponse | None, Noise2Self, str]:
        run = Run.in_memory(quietray.Settings(method=split, whiten=whiten))
        return radiographs._against_correlation(prepared, run, split)

    def found(plain: str, whitened: str, response: object = None) -> None:
        monkeypatch.setattr(radiographs, "diagnose", lambda *_, **__: diagnosed(plain, whitened, response))

    found("not valid", "not valid")
    response, split, said = choose("auto", Noise2Self())
    assert response is None
    assert split == Noise2Self.hiding(2)
    assert "5 x 5 pixels" in said
    assert choose("auto", Noise2Self(grid=6, footprint=1))[1].footprint == 1, "what was asked for stays"
    with pytest.raises(NoiseError, match="can be deconvolved"):
        choose("always", Noise2Self())
    found("not valid", "valid", undone)
    response, split, said = choose("auto", Noise2Self())
    assert response is undone
    assert split == Noise2Self(watched=4), "the half-width of the response"
    assert "raises the variance" in said, "stated before anything is whitened"
    assert choose("auto", Noise2Void(watched=2))[1].watched == 2, "what was asked for stays"
    found("valid", "valid")
    assert choose("auto", Noise2Self())[:2] == (None, Noise2Self())
