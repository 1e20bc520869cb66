"""Training from a window of the data: what a GPU does that cannot hold all of them, here on the CPU."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import quietray
import quietray.training.group as group_module
from checks import same_weights
from quietray.networks.unet import UNet
from quietray.running.settings import Training
from quietray.running.watch import Watch
from quietray.settings import parse_bytes
from quietray.splits.inverse import Noise2Inverse
from quietray.training.batches import TrainingSet, TrainingVolume
from quietray.training.loop import Fitted, Progress, fit
from quietray.training.window import blocks_of, spread_order
from scans import disc_scan, quick

CPU = torch.device("cpu")
QUICK = Training(steps=24, batch=2, patch=16, judgements=4, precision="fp32", patience=10.0)
SPLITS = {
    "slices": Noise2Inverse(3, slices=5),
    "volume": Noise2Inverse(2, slices=4, volume=True),
    "channels": Noise2Inverse(2, slices=3, channels=2),
    "times": Noise2Inverse(2, slices=3, times=3),
}


def volume(split: Noise2Inverse = SPLITS["slices"], n_rows: int = 60) -> TrainingVolume:
    rng, n_series = np.random.default_rng(0), max(split.channels, split.times)
    parts = rng.random((split.parts, n_rows, 24, 20), np.float32)
    return TrainingVolume.with_held_out(parts, split, np.ones((24, 20), np.float32), n_series=n_series)


def in_window(data: TrainingVolume, share: float = 0.6) -> TrainingVolume:
    """Return the data with a window on the CPU, of this share of them."""
    there = data.on(CPU, int(2 * share * data.parts.nbytes))
    assert there.window is not None
    assert there.window.held.nbytes <= share * data.parts.nbytes, "the other half of the memory is for the network"
    return there


@pytest.mark.parametrize("name", SPLITS)
def test_samples_from_a_window_are_those_of_its_rows(name: str) -> None:
    data = volume(SPLITS[name])
    there = in_window(data)
    assert there.window is not None
    seen = set()
    for step in range(48):
        assert there.at(step, 48) < 1
        rows = tuple(there.window.rows(2 * 16**2))
        assert set(rows) < set(data.training_rows)
        seen |= set(rows)
        one, other = (
            each.draw(2, 16, torch.Generator().manual_seed(step))
            for each in (dataclasses.replace(data, training_rows=rows), there)
        )
        if not data.all_slices:  # there, targets are the rows of the whole training
            assert torch.equal(one[1], other[1])
        assert torch.equal(one[0], other[0])
    assert seen == set(data.training_rows)


@pytest.mark.parametrize(("n_steps", "batch"), [(60, 1), (300, 2), (997, 8)])
def test_every_row_is_there_equally_often(n_steps: int, batch: int) -> None:
    """As the number of exchanges is a whole number of cycles; short trainings see every row once, long ones often."""
    there = in_window(volume())
    chances: Counter[int] = Counter()
    windows = []
    for step in range(n_steps):
        there.at(step, n_steps)
        assert there.window is not None
        rows = there.window.rows(batch * 16**2)
        windows.append(tuple(rows))
        for row in rows:
            chances[row] += n_steps / len(rows)  # type: ignore[assignment]
    assert set(chances) == set(there.training_rows)
    assert max(chances.values()) < 1.25 * min(chances.values())
    exchanges = sum(one != other for one, other in pairwise(windows))
    assert exchanges >= min(n_steps - 1, len(chances) // 10)
    apart = np.diff(sorted(windows[-1]))
    assert apart.max() > len(there.training_rows) / 10, "blocks are spread over the height"


def test_an_interrupted_training_goes_on_with_the_same_window(tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def train(**more: Any) -> Fitted:
        split = SPLITS["slices"]
        return fit(split, lambda: UNet((4, 6)).build(5), in_window(volume(split)), QUICK, **more)

    checkpoint = tmp_path / "training.safetensors"
    for stop in (7, 13):

        def watch(step: int, n_steps: int | None, latest: Progress | None, stop: int = stop) -> None:
            if step == stop:
                raise Interrupted

        with pytest.raises(Interrupted):
            train(checkpoint=checkpoint, watch=watch)
    resumed, whole = train(checkpoint=checkpoint), train()
    assert same_weights(resumed.network, whole.network.state_dict())
    assert [one.error for one in resumed.history] == [one.error for one in whole.history]
    assert 0 < whole.share < 1
    other = fit(SPLITS["slices"], lambda: UNet((4, 6)).build(5), volume(), QUICK)
    assert other.share == 1
    assert not same_weights(other.network, whole.network.state_dict())


def test_parts_may_be_in_a_file(tmp_path: Path) -> None:
    data = volume()
    np.save(tmp_path / "parts.npy", data.parts)
    mapped = dataclasses.replace(data, parts=np.load(tmp_path / "parts.npy", mmap_mode="r"))
    one, other = in_window(data), in_window(mapped)
    for step in range(6):
        for each in (one, other):
            each.at(step, 6)
        samples = [each.draw(4, 16, torch.Generator().manual_seed(step))[0] for each in (one, other)]
        assert torch.equal(*samples)


def test_what_fits_is_drawn_as_without_a_window() -> None:
    data = volume()
    assert data.on(CPU, 2 * data.parts.nbytes) is data
    assert data.on(CPU) is data
    assert data.at(0, 10) == 1
    little = data.on(CPU, 40 * data.parts[:, :1].nbytes)  # five slices for each of four blocks: one row
    assert little.window is not None
    less = data.on(CPU, 40 * data.parts[:, :1].nbytes - 1)
    assert less.window is None, "not one row fits: patches are cut where the data are"


def test_scans_that_do_not_fit_share_what_is_left() -> None:
    small, large = volume(n_rows=20), volume()
    room = 2 * large.parts.nbytes - 8
    there = TrainingSet((large, small, large)).on(CPU, room)
    assert [one.window is None for one in there.volumes] == [False, True, False]
    held = sum(one.window.held.nbytes for one in there.volumes if one.window is not None)
    assert held + small.parts.nbytes <= room
    assert 1 / 3 < there.at(0, 10) < 1


def test_a_run_says_that_it_used_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_module, "training_memory", lambda device, stated: parse_bytes(stated))
    told: list[str] = []

    class Told(Watch):
        def note(self, text: str) -> None:
            told.append(text)

    settings = quick(device_memory="230K")
    result = quietray.denoise(quietray.read(disc_scan(n_rows=40)), tmp_path / "out", settings, watch=Told())
    share = result.metrics["training"]["share"]
    assert 0 < share < 1
    assert any(f"from a window of {share:.0%} of the rows" in text for text in told)
    assert f"from a window of {share:.0%} of the rows" in (tmp_path / "out/report.html").read_text()


def test_blocks_are_as_few_as_fit() -> None:
    assert blocks_of(range(9), lambda z: [z], 9) == [tuple(range(9))]
    for count in (1, 2, 3, 7, 50, 128):
        order = spread_order(count)
        assert sorted(order) == list(range(count))
