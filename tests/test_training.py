"""The loop, what it is fed, what it leaves on disk: it learns, repeats itself, and is not judged on its targets."""

import dataclasses
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

import quietray.training.pace
from checks import same_weights
from quietray.checkpoint import load_tensors, replace_file, save_tensors, write_json
from quietray.errors import FormatError, SettingsError
from quietray.metrics.image import psnr
from quietray.metrics.noreference import Judgement
from quietray.networks.unet import UNet
from quietray.running.precision import precision
from quietray.running.settings import Training
from quietray.splits.base import Network
from quietray.splits.inverse import Noise2Inverse
from quietray.splits.neighbourhood import Neighbourhood, mirrored, neighbours
from quietray.training.batches import TrainingVolume
from quietray.training.loop import Fitted, Progress, due, fit, judge_held_out, schedule
from quietray.training.state import seeded

QUICK = Training(steps=24, batch=2, patch=16, judgements=4, precision="fp32", patience=10.0)
TINY = UNet((4, 6))
CPU = torch.device("cpu")


def blobs(parts: int = 3, shape: tuple[int, int, int] = (12, 40, 40), noise: float = 0.35) -> tuple[np.ndarray, ...]:
    """Return noisy parts ``(part, z, y, x)`` of smooth blobs, with noise correlated within a part, and the truth."""
    rng = np.random.default_rng(0)
    truth = ndimage.gaussian_filter(rng.standard_normal(shape), 3)
    truth = (truth > 0).astype(np.float32)
    white = ndimage.gaussian_filter(rng.standard_normal((parts, *shape)), (0, 0, 0.5, 0.5))
    return (truth + noise / white.std() * white).astype(np.float32), truth


def volume(parts: np.ndarray | None = None, n_slices: int = 3) -> TrainingVolume:
    parts = blobs()[0] if parts is None else parts
    return TrainingVolume.with_held_out(
        parts, Noise2Inverse(len(parts), slices=n_slices), np.ones(parts.shape[2:], np.float32)
    )


def train(settings: Training = QUICK, **kwargs: Any) -> Fitted:
    given: dict[str, Any] = {"split": Noise2Inverse(3, slices=3), "build": lambda: TINY.build(3), "data": volume()}
    return fit(**(given | kwargs), settings=settings)


def records(fitted: Fitted) -> list[tuple[Any, ...]]:
    """Return the history without the clock."""
    return [(one.step, one.n_steps, one.loss, one.error, one.noise) for one in fitted.history]


# --- the loop -------------------------------------------------------------------------------------------------------


def test_it_learns_to_denoise_and_knows_by_how_much() -> None:
    parts, truth = blobs(shape=(16, 48, 48), noise=0.6)
    split = Noise2Inverse(3, slices=3)
    data = TrainingVolume.with_held_out(
        parts, Noise2Inverse(len(parts), slices=3), np.ones((48, 48), np.float32), share=0.3
    )
    settings = Training(steps=160, batch=4, patch=32, judgements=8, precision="fp32")
    fitted = fit(split, lambda: UNet((8, 16)).build(3), data, settings)
    assert [one.step for one in fitted.history] == [20, 40, 60, 80, 100, 120, 140, 160]
    assert fitted.history[-1].loss < 0.6 * fitted.history[0].loss
    assert fitted.best.error < 0.5 * fitted.history[0].error
    assert not fitted.network.training

    errors = {"noisy": [], "clean": []}
    with torch.no_grad():
        for z in data.held_out_rows:
            samples = data.samples(z)[None]
            clean = split.infer(fitted.network, samples)[0, 0].numpy()
            errors["noisy"].append(np.mean((samples[0, :, 1].mean(0).numpy() - truth[z]) ** 2))
            errors["clean"].append(np.mean((clean - truth[z]) ** 2))
    gain = psnr(float(np.mean(errors["clean"])), 1.0) - psnr(float(np.mean(errors["noisy"])), 1.0)
    assert gain > 4, "the truth, which nobody saw, says so"
    told = psnr(fitted.best.error, 1.0) - psnr(fitted.best.noise, 1.0)
    assert told == pytest.approx(gain, abs=1.0)


def test_runs_of_one_seed_are_the_same_to_the_bit() -> None:
    one, same, other = train(), train(), train(seed=1)
    assert same_weights(one.network, same.network.state_dict())
    assert records(one) == records(same)
    assert not same_weights(one.network, other.network.state_dict())


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    first = train()
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))
    torch.manual_seed(6)
    assert same_weights(first.network, train().network.state_dict())


class Interrupted(Exception):
    pass


def stop_at(step: int) -> Callable[..., None]:
    def watch(now: int, n_steps: int | None, latest: Progress | None) -> None:
        if now == step:
            raise Interrupted

    return watch


@pytest.mark.parametrize("steps", [[6], [12], [18], [24], [6, 18], [7, 13]])
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(steps: list[int], tmp_path: Path) -> None:
    checkpoint = tmp_path / "training.safetensors"
    for step in steps:
        with pytest.raises(Interrupted):
            train(checkpoint=checkpoint, watch=stop_at(step))
    resumed, whole = train(checkpoint=checkpoint), train()
    assert records(resumed) == records(whole)
    assert same_weights(resumed.network, whole.network.state_dict())
    assert resumed.best.step == whole.best.step


def test_an_interrupted_run_of_a_wider_network(tmp_path: Path) -> None:
    """Adam's moments must come back in the weights' own layout in memory, whatever the kernel's size."""
    build = {"build": lambda: UNet((8, 12, 16)).build(3)}
    with pytest.raises(Interrupted):
        train(checkpoint=tmp_path / "t.safetensors", watch=stop_at(12), **build)
    resumed = train(checkpoint=tmp_path / "t.safetensors", **build)
    assert same_weights(resumed.network, train(**build).network.state_dict())


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    checkpoint = tmp_path / "training.safetensors"
    whole = train(checkpoint=checkpoint)
    told: list[int] = []
    again = train(checkpoint=checkpoint, watch=lambda step, n_steps, latest: told.append(step))
    assert told == []
    assert records(again) == records(whole)
    assert same_weights(again.network, whole.network.state_dict())


@dataclasses.dataclass(frozen=True)
class Scripted(Noise2Inverse):
    """Judges by a script and keeps the weights that it judged."""

    script: tuple[float, ...] = ()
    seen: list[dict[str, Tensor]] = dataclasses.field(default_factory=list)

    def judge(self, network: Network, samples: Tensor, weight: Tensor) -> Judgement:
        self.seen.append({name: value.clone() for name, value in network.state_dict().items()})  # type: ignore[attr-defined]
        return Judgement(self.script[len(self.seen) - 1], 1.0, float(weight.sum()))


@pytest.mark.parametrize(
    ("script", "best"), [((4, 1, 3, 2), 1), ((4, 3, 2, 1), 3), ((1, 2, 3, 4), 0), ((1, 1, 1, 1), 0)]
)
def test_the_weights_of_the_best_judgement_are_kept(script: tuple[float, ...], best: int) -> None:
    split = Scripted(3, "X:1", 3, script=tuple(map(float, script)))
    data = dataclasses.replace(volume(), held_out_rows=(5,))
    fitted = train(split=split, data=data)
    assert [one.error for one in fitted.history] == list(script)
    assert fitted.best is fitted.history[best]
    assert same_weights(fitted.network, split.seen[best])
    assert not same_weights(fitted.network, split.seen[best - 1]), "the other judgements saw other weights"
    assert fitted.stopped == "the planned steps were done"


@pytest.mark.parametrize(
    ("patience", "last"),
    # the best is at step 6 of 24; a judgement falls on every sixth step, and patience begins to count at step 12
    [(0.05, 18), (0.3, 24), (0.51, 24)],
)
def test_it_stops_when_the_estimate_rises(patience: float, last: int) -> None:
    split = Scripted(3, "X:1", 3, script=(1.0, 2.0, 3.0, 4.0))
    data = dataclasses.replace(volume(), held_out_rows=(5,))
    fitted = train(dataclasses.replace(QUICK, patience=patience), split=split, data=data)
    assert [one.step for one in fitted.history][-1] == last
    assert fitted.best.step == 6
    assert same_weights(fitted.network, split.seen[0])
    assert ("had not improved" in fitted.stopped) == (patience < 0.5)


def test_on_a_plateau_the_learning_rate_is_halved() -> None:
    """Judged at every step: as long as the estimate falls, weights move as far as ever; then half as far every step."""
    script = (*(50.0 - step for step in range(12)), *[99.0] * 12)
    split = Scripted(3, "X:1", 3, script=script)
    data = dataclasses.replace(volume(), held_out_rows=(5,))
    train(dataclasses.replace(QUICK, judgements=24, average=0.0, plateau=1, clip=1e9), split=split, data=data)
    moves = [
        math.sqrt(sum(float((one[name] - other[name]).square().sum()) for name in one))
        for one, other in itertools.pairwise(split.seen)
    ]
    assert moves[10] > 0.3 * moves[3]
    assert moves[22] < 2**-8 * moves[10], "ten judgements in a row were no better"


def test_a_sabotaged_source_stops_the_run() -> None:
    """What is held out gets worse and worse, whatever the network learns."""

    class Fading:
        def __init__(self) -> None:
            self.calls = 0
            self.draw = volume().draw

        def on(self, device: torch.device, room: int | None = None) -> Any:
            return self

        def at(self, step: int, n_steps: int | None) -> float:
            return 1.0

        def held_out(self, most_pixels: int = 2**17) -> Iterator[tuple[Tensor, Tensor]]:
            self.calls += 1
            noise = self.calls * torch.randn(1, 3, 3, 20, 20, generator=torch.Generator().manual_seed(0))
            yield noise, torch.ones(1, 1, 20, 20)

    fitted = train(dataclasses.replace(QUICK, steps=100, judgements=20, patience=0.1), data=Fading())
    assert fitted.history[-1].step < 100
    assert fitted.best.step < fitted.history[-1].step
    assert "had not improved for 10% of the run" in fitted.stopped


def test_what_watch_is_told() -> None:
    told: list[tuple[int, int | None, Progress | None]] = []
    fitted = train(watch=lambda *args: told.append(args))
    assert [step for step, _, _ in told] == list(range(1, 25))
    assert {n_steps for _, n_steps, _ in told} == {24}
    for step, _, latest in told:
        done = [one for one in fitted.history if one.step <= step]
        assert latest is (done[-1] if done else None)


def test_the_loss_in_the_history_is_the_mean_since_the_last_judgement() -> None:
    split = Noise2Inverse(3, slices=3)
    by_step = records(train(dataclasses.replace(QUICK, judgements=24), split=split))
    by_four = records(train(split=split))
    for index, one in enumerate(by_four):
        steps = [loss for _, _, loss, _, _ in by_step[6 * index : 6 * index + 6]]
        assert one[2] == pytest.approx(np.mean(steps), rel=1e-5)


# --- the schedule and the budget ------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.integers(1, 60))
def test_the_schedule_rises_then_falls_to_zero(n_steps: int, warm_up: int) -> None:
    rates = [schedule(step, n_steps, warm_up) for step in range(n_steps)]
    assert all(0 < rate <= 1 for rate in rates)
    rise, fall = rates[:warm_up], rates[warm_up:]
    assert rise == pytest.approx([(step + 1) / warm_up for step in range(len(rise))])
    assert all(b <= a for a, b in itertools.pairwise(fall))
    if fall:
        assert fall[0] == 1.0
        assert schedule(n_steps, n_steps, warm_up) == pytest.approx(0.0, abs=1e-12)
    assert schedule(warm_up + 3, None, warm_up) == 1.0, "without a plan it waits at the top"


@given(st.integers(1, 500), st.integers(1, 60))
def test_judgements_are_spread_evenly_and_the_last_step_has_one(n_steps: int, judgements: int) -> None:
    judged = [step for step in range(1, n_steps + 1) if due(step, n_steps, judgements)]
    assert len(judged) == min(judgements, n_steps)
    assert judged[-1] == n_steps
    gaps = np.diff([0, *judged])
    assert gaps.max() - gaps.min() <= 1


class FakeClock:
    """A clock that jumps by `seconds(call)` whenever it is looked at."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.seconds, self.calls, self.now = seconds, 0, 1000.0

    def monotonic(self) -> float:
        self.now += self.seconds(self.calls)
        self.calls += 1
        return self.now


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("steady", lambda call: 1.0),
        ("slow start", lambda call: 10.0 if call < 4 else 1.0),
        ("slower later", lambda call: 1.0 if call < 100 else 2.5),
        ("faster later", lambda call: 1.0 if call < 100 else 0.4),
        ("jumpy", lambda call: 0.5 if call % 2 else 1.5),
    ],
)
def test_a_budget_is_met(name: str, seconds: Callable[[int], float], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(seconds)
    monkeypatch.setattr(quietray.training.pace, "time", SimpleNamespace(monotonic=clock.monotonic))
    settings = Training(batch=1, patch=8, judgements=10, precision="fp32", patience=10.0)
    fitted = train(settings, budget=lambda per_step: 300.0)
    assert 255 < fitted.history[-1].seconds < 330, name
    assert fitted.history[-1].step == fitted.history[-1].n_steps


def test_the_budget_is_asked_with_the_time_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        quietray.training.pace, "time", SimpleNamespace(monotonic=FakeClock(lambda call: 2.0).monotonic)
    )
    asked: list[float] = []
    settings = Training(batch=1, patch=8, judgements=2, precision="fp32", patience=10.0)
    fitted = train(settings, budget=lambda per_step: asked.append(per_step) or 100.0)
    assert set(asked) == {2.0}
    assert fitted.seconds_per_step == 2.0


def test_a_budget_of_nothing_ends_after_the_first_plan() -> None:
    fitted = train(Training(batch=1, patch=8, precision="fp32"), budget=lambda per_step: 0.0)
    assert 1 <= fitted.history[-1].step < 30
    assert fitted.best.error == min(one.error for one in fitted.history)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *(({name: 0}, f"{name} must be positive, got 0") for name in ("batch", "patch", "judgements", "steps")),
        *(({name: -1.0}, f"{name} must be positive, got -1.0") for name in ("learning_rate", "clip", "patience")),
        *(({"average": value}, "average must be at least 0 and below 1") for value in (1.0, -0.1, math.nan)),
        ({"learning_rate": math.nan}, "learning_rate must be positive, got nan"),
        ({"plateau": -1}, "plateau must be at least 0, got -1"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Training(**change)


def test_precision_is_what_was_asked_for() -> None:
    assert precision("bf16") == "bf16-mixed"
    assert precision("fp32") == "32-true"
    assert precision("auto") in ("bf16-mixed", "32-true")


def test_bfloat16_computes_otherwise_and_learns_the_same() -> None:
    """On every processor: one that has no instructions for it is only slower.  The weights stay float32."""
    settings = dataclasses.replace(QUICK, precision="bf16")
    one, same, full = train(settings), train(settings), train()
    assert {weight.dtype for weight in one.network.parameters()} == {torch.float32}
    assert same_weights(one.network, same.network.state_dict())
    assert not same_weights(one.network, full.network.state_dict())
    assert [record.error for record in one.history] == pytest.approx([record.error for record in full.history], rel=0.1)


@pytest.mark.parametrize(
    "split",
    [
        Noise2Inverse(3, slices=5),
        Noise2Inverse(2, slices=4, volume=True),
        Noise2Inverse(2, slices=3, channels=2),
        Noise2Inverse(2, slices=3, times=3),
    ],
    ids=["slices", "volume", "channels", "times"],
)
def test_samples_are_the_same_wherever_they_are_drawn(split: Noise2Inverse) -> None:
    """Those of a GPU are looked up all at once: here on the processor, where they can be compared."""
    rng, n_series = np.random.default_rng(0), max(split.channels, split.times)
    parts = rng.random((split.parts, 12, 40, 36), np.float32)
    weight = (rng.random((40, 36)) > 0.1).astype(np.float32)
    here = TrainingVolume.with_held_out(parts, split, weight, n_series=n_series)
    there = dataclasses.replace(here, resident=torch.from_numpy(parts))
    for cut, looked_up in zip(
        *(each.draw(24, 16, torch.Generator().manual_seed(1)) for each in (here, there)), strict=True
    ):
        assert torch.equal(cut, looked_up)


def test_named_generators_are_unrelated() -> None:
    draws = {
        (seed, name): tuple(torch.rand(4, generator=seeded(seed, name)).tolist())
        for seed in (0, 1, 2**40)
        for name in ("weights", "samples", "sample")
    }
    assert len(set(draws.values())) == 9
    assert draws[1, "weights"] == tuple(torch.rand(4, generator=seeded(1, "weights")).tolist())


# --- what is held out -----------------------------------------------------------------------------------------------

MARK = 77.0


@pytest.mark.parametrize("direction", ["X:1", "1:X"])
@pytest.mark.parametrize("n_z", [8, 20, 50])
def test_held_out_rows_are_never_a_target(n_z: int, direction: Any) -> None:
    parts = np.random.default_rng(0).random((3, n_z, 12, 12), dtype=np.float32)
    data = volume(parts)
    assert sorted(data.training_rows + data.held_out_rows) == list(range(n_z))
    assert len(data.held_out_rows) == max(1, round(0.06 * n_z))
    parts[:, list(data.held_out_rows)] = MARK
    split, generator = Noise2Inverse(3, direction, 3), torch.Generator().manual_seed(0)
    in_input = 0
    for _ in range(60):
        pair = split.draw(data.draw(8, 6, generator)[0], generator)
        assert (pair.target < 1.1).all()
        in_input += int((pair.input > 70).any())
    assert in_input > 0, "as neighbours they are seen: the mark can be found"
    for samples, weight in data.held_out():
        assert (samples[:, :, 1] == MARK).all()
        assert weight.all()


@pytest.mark.parametrize("n_z", [1, 2, 7])
def test_in_a_scan_of_few_rows_a_band_is_never_a_target(n_z: int) -> None:
    parts = np.random.default_rng(0).random((2, n_z, 30, 20), dtype=np.float32)
    data = volume(parts, 1)
    assert data.held_out_band is not None
    y0, y1 = data.held_out_band
    assert data.training_rows == data.held_out_rows == tuple(range(n_z))
    assert y1 - y0 == round(0.12 * 30)
    parts[:, :, y0:y1] = MARK
    split, generator = Noise2Inverse(2, slices=1), torch.Generator().manual_seed(0)
    seen = 0
    for _ in range(40):
        samples, weight = data.draw(8, 9, generator)
        target = split.draw(samples, generator).target
        assert ((target == MARK) == (weight == 0)).all(), "weight zero on the band, and nowhere else"
        seen += int((target == MARK).sum())
    assert seen > 0
    judged = [(samples, weight) for samples, weight in data.held_out()]
    assert len(judged) == n_z
    for samples, weight in judged:
        assert ((samples[:, 0] == MARK) == (weight == 1)).all(), "judged on the band alone"
        assert (samples != MARK).any(), "and seen with its surroundings"
        assert int(weight.sum()) == (y1 - y0) * 20


def test_slices_without_their_true_neighbours_are_neither() -> None:
    parts = np.random.default_rng(0).random((2, 30, 8, 8), dtype=np.float32)
    targets = (*range(2, 8), *range(12, 28))
    data = TrainingVolume.with_held_out(
        parts, Noise2Inverse(len(parts), slices=5), np.ones((8, 8), np.float32), targets
    )
    assert sorted(data.training_rows + data.held_out_rows) == sorted(targets)


def test_held_out_samples_are_few_central_and_always_the_same() -> None:
    data = volume(np.random.default_rng(0).random((2, 20, 150, 140), dtype=np.float32))
    first, second = (list(data.held_out(most_pixels=8000)) for _ in range(2))
    for (samples, weight), (again, _), z in zip(first, second, data.held_out_rows, strict=True):
        assert torch.equal(samples, again)
        n_y, n_x = weight.shape[2:]
        assert n_y * n_x <= 8000
        top, left = (150 - n_y) // 2, (140 - n_x) // 2
        assert torch.equal(samples[0], data.samples(z, slice(top, top + n_y), slice(left, left + n_x)))


def test_judging_weighs_every_held_out_pixel_once() -> None:
    """Samples of different weights are averaged by pixel, not by sample."""

    class Two:
        def draw(self, batch: int, patch: int, generator: torch.Generator) -> Any: ...

        def on(self, device: torch.device, room: int | None = None) -> Any:
            return self

        def at(self, step: int, n_steps: int | None) -> float:
            return 1.0

        def held_out(self, most_pixels: int = 2**17) -> Iterator[tuple[Tensor, Tensor]]:
            yield torch.full((1, 2, 1, 4, 4), 1.0), torch.ones(1, 1, 4, 4)
            yield torch.full((1, 2, 1, 4, 4), 3.0), torch.eye(4)[None, None]

    judged = judge_held_out(Noise2Inverse(2, slices=1), lambda x: 0 * x, Two(), CPU)
    assert judged.error == pytest.approx((16 * 1 + 4 * 9) / 20)
    assert judged.weight == 20


# --- batches --------------------------------------------------------------------------------------------------------


def coded(n_z: int = 9, n_y: int = 11, n_x: int = 13) -> np.ndarray:
    """Two parts in which every voxel has a number of its own, exact in float32."""
    z, y, x = np.meshgrid(np.arange(n_z), np.arange(n_y), np.arange(n_x), indexing="ij")
    one = (10_000 * z + 100 * y + x).astype(np.float32)
    return np.stack([one, one + 500_000])


def symmetries(x: np.ndarray) -> list[np.ndarray]:
    turned = [np.rot90(x, turns, (-2, -1)) for turns in range(4)]
    return [*turned, *(one[..., ::-1] for one in turned)]


def test_patches_are_cut_from_the_volume_and_turned_with_their_weights() -> None:
    parts = coded()
    weight = (np.add.outer(np.arange(11), 3 * np.arange(13)) % 5 > 0).astype(np.float32)
    data = TrainingVolume.with_held_out(parts, Noise2Inverse(len(parts), slices=3), weight)
    generator = torch.Generator().manual_seed(0)
    kinds, flips, places = set(), set(), set()
    for _ in range(50):
        samples, weights = data.draw(8, 4, generator)
        for sample, mask in zip(samples.numpy(), weights.numpy(), strict=True):
            corner = sample[0, 1].min()  # the smallest number lies at the top left of the window
            z, y, x = int(corner // 10_000), int(corner % 10_000 // 100), int(corner % 100)
            window = neighbours(parts, z, Neighbourhood(3))[..., y : y + 4, x : x + 4]
            matches = [
                (kind, flip)
                for flip in (False, True)
                for kind, turned in enumerate(symmetries(window[:, ::-1] if flip else window))
                if np.array_equal(turned, sample)
            ]
            at_an_end = z in (0, 8)  # where the neighbours are mirrored, upside down is the same
            assert len(matches) == (2 if at_an_end else 1), "a patch is a window of the volume, turned or mirrored"
            assert np.array_equal(symmetries(weight[y : y + 4, x : x + 4])[matches[0][0]], mask[0])
            kinds.add(matches[0][0])
            flips |= set() if at_an_end else {matches[0][1]}
            places.add((z, y, x))
    assert kinds == set(range(8))
    assert flips == {False, True}
    assert {z for z, _, _ in places} == set(data.training_rows)
    assert {y for _, y, _ in places} == set(range(8))
    assert {x for _, _, x in places} == set(range(10))


def test_a_patch_is_never_larger_than_the_slice_and_never_weightless() -> None:
    weight = np.zeros((11, 13), np.float32)
    weight[2, 3] = 1
    data = TrainingVolume.with_held_out(coded(), Noise2Inverse(2, slices=1), weight)
    samples, weights = data.draw(5, 100, torch.Generator().manual_seed(0))
    assert samples.shape[-2:] == (11, 11)
    assert (weights.sum(dim=(1, 2, 3)) == 1).all()
    samples, weights = data.draw(5, 3, torch.Generator().manual_seed(0))
    assert (samples[:, 0, 0][weights[:, 0] == 1] % 10_000 == 203).all()


@given(st.integers(1, 8), st.sampled_from([1, 3, 5, 9]))
def test_neighbours_are_mirrored_at_the_ends(n_z: int, n_slices: int) -> None:
    parts = coded(n_z, 2, 2)
    padded = np.pad(parts, ((0, 0), (n_slices // 2,) * 2, (0, 0), (0, 0)), mode="reflect")
    for z in range(n_z):
        assert np.array_equal(neighbours(parts, z, Neighbourhood(n_slices)), padded[:, z : z + n_slices])
        assert mirrored(z, n_z) == z


# --- what is kept on disk -------------------------------------------------------------------------------------------


def test_tensors_and_facts_come_back(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 4),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "strided": torch.arange(10)[::2],
        "number": torch.tensor(2.5),
        "bytes": torch.arange(5, dtype=torch.uint8),
    }
    facts = {"step": 3, "history": [{"loss": 0.1}], "nothing": None}
    save_tensors(tmp_path / "x.safetensors", tensors, facts)
    found, told = load_tensors(tmp_path / "x.safetensors")
    assert told == facts
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in tensors.items())


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "header", "text"])
def test_a_damaged_file_is_a_format_error(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.randn(100)}, {})
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(
            {"empty": b"", "cut": content[:-50], "header": b"\xff" * 8 + content[8:], "text": b"hi" * 40}[damage]
        )
    with pytest.raises(FormatError, match=r"x\.safetensors must be a safetensors file written by quietray, got: "):
        load_tensors(path)
    if damage != "missing":
        with pytest.raises(FormatError, match="safetensors"):
            train(checkpoint=path)


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_the_old_file_stays_when_writing_fails(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "facts.json"
    write_json(path, {"step": 1})

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, where, full)
        with pytest.raises(OSError, match="No space left"):
            write_json(path, {"step": 2})
    assert json.loads(path.read_text()) == {"step": 1}
    write_json(path, {"step": 3})
    assert json.loads(path.read_text()) == {"step": 3}
    assert sorted(tmp_path.iterdir()) == [path], "nothing half written is left"


def test_a_reader_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the very last moment, when all is safe on the disk, the name still means the old content."""
    path = tmp_path / "x"
    path.write_bytes(b"old")
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        order.append("fsync")
        assert path.read_bytes() == b"old"
        fsync(descriptor)

    def watched_replace(source: Any, target: Any) -> None:
        order.append("replace")
        assert Path(source).read_bytes() == b"new" * 1000
        assert path.read_bytes() == b"old"
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    replace_file(path, b"new" * 1000)
    assert order[:2] == ["fsync", "replace"]
    assert path.read_bytes() == b"new" * 1000
