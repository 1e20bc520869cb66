"""Where the object is, told from the air around it, and what is then told of it first."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

import quietray
from quietray import Foam, Noise2Inverse, TotalVariation, VolumeGrid
from quietray.assessment.evidence import Evidence, _Once, warnings_of
from quietray.assessment.gains import gain_text, headline
from quietray.inference.denoiser import Denoiser, Scale
from quietray.metrics.image import disc
from quietray.metrics.surroundings import ObjectMask
from quietray.networks import UNet
from quietray.training.batches import TrainingVolume
from scans import disc_scan, in_slabs, quick

SIZE, SLICES = 96, 4
VIEW = disc(SIZE, SIZE, 0.97).astype(np.float32)


def body(radius: float) -> np.ndarray:
    """Return slices of a cylinder of 1 with holes of 0, of so many half-widths."""
    made = Foam.packed(60, 0.3, np.random.default_rng(0), largest=0.16)
    volume = made.volume(VolumeGrid((SLICES, SIZE, SIZE), voxel_size=2 / SIZE))
    shrunk = ndimage.zoom(volume, (1, radius, radius), order=1)
    room = SIZE - shrunk.shape[1]
    return np.asarray(np.pad(shrunk / shrunk.max(), ((0, 0), *2 * [(room // 2, room - room // 2)])), np.float32)


def test_the_object_is_found_with_its_pores_and_hardly_any_air() -> None:
    volume = body(0.6) + np.random.default_rng(1).normal(0, 0.05, (SLICES, SIZE, SIZE)).astype(np.float32)
    mask = ObjectMask.found(volume, VIEW, 0.0)
    assert mask is not None
    found = mask.of(volume[1], VIEW)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    away = np.hypot(y, x) / (SIZE / 2)
    assert found[away < 0.5].mean() > 0.99, "pores belong to it, but for one that is open to the air"
    assert not found[away > 0.72].any(), "and no more air than the margin"


@pytest.mark.parametrize("air", [0.0, -1000.0])
def test_metal_in_plastic_in_air_is_all_object(air: float) -> None:
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    away = np.hypot(y, x)
    image = np.where(away < 4, 3000.0, np.where(away < 30, 600.0, 0.0))
    volume = (image + air + np.random.default_rng(1).normal(0, 20, image.shape)).astype(np.float32)[None]
    mask = ObjectMask.found(volume, VIEW, air)
    assert mask is not None
    assert mask.of(volume[0], VIEW)[away < 30].all()
    assert not mask.of(volume[0], VIEW)[away > 35].any()


def test_where_there_is_no_air_around_there_is_no_mask() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    water = np.where(np.hypot(y, x) < 20, 2.0, 1.0)
    for image in (body(1.0)[0], water, np.ones((SIZE, SIZE)), rng.normal(0, 1, (SIZE, SIZE))):
        noisy = (image + rng.normal(0, 0.02, image.shape)).astype(np.float32)[None]
        assert ObjectMask.found(noisy, disc(SIZE, SIZE, 0.85).astype(np.float32), 0.0) is None


class Known(torch.nn.Module):
    """Takes a share of the noise away where the truth is one, all of it where it is air."""

    def __init__(self, truth: np.ndarray, left: float) -> None:
        super().__init__()
        self.truth, self.left = torch.from_numpy(truth), left

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        truth = self.truth[None, None]
        return truth + torch.where(truth > 0.5, self.left, 0.0) * (x[:, x.shape[1] // 2][:, None] - truth)


def known_object() -> tuple[np.ndarray, Denoiser, TrainingVolume]:
    """Return a disc, a network that leaves some of the noise's amplitude in it and none in air, and data for both."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    truth = (np.hypot(y, x) < 24).astype(np.float32)
    rng = np.random.default_rng(2)
    parts = (truth + rng.normal(0, 0.3, (4, 12, SIZE, SIZE))).astype(np.float32)
    split = Noise2Inverse(4, slices=1)
    data = TrainingVolume(parts, split.neighbourhood, VIEW, (), tuple(range(12)))
    return truth, Denoiser(Known(truth, 0.5), UNet((2,)), split, Scale(0.0, 1.0)), data


def test_air_makes_the_gain_look_larger_than_it_is_in_the_object() -> None:
    truth, made, data = known_object()
    found = Evidence.measure(made, data, air=0.0)
    assert found.inside is not None
    assert found.mask is not None
    inside = found.mask.of(truth, VIEW)
    # the mean of four outputs keeps the noise of the mean of all parts, a quarter of its power
    for one, where in ((found, VIEW > 0), (found.inside, inside)):
        expected = 10 * np.log10(1 / (0.25 * truth[where].mean()))
        low, high = one.gain_interval
        assert one.gain == pytest.approx(expected, abs=0.6)  # they are 5 dB apart; its standard error is 0.17 dB
        assert low < expected < high
    assert Evidence.measure(made, data).inside is None


def test_a_run_tells_of_the_object_first_and_the_same_everywhere(tmp_path: Path) -> None:
    settings = quick(method=TotalVariation(), rotation_axis=23.5)
    result = quietray.denoise(quietray.read(disc_scan(12, 48, 96)), tmp_path / "out", settings)
    estimate = json.loads((tmp_path / "out/metrics.json").read_text())["estimate"]
    told = headline(estimate)
    assert told is estimate["object"]
    assert 0.5 < told["share_of_field_of_view"] < 0.9, "a cylinder of 0.7 half-widths and the margin"
    assert told["rmse"] > estimate["rmse"], "air is easier"
    text = gain_text(estimate)
    assert text in repr(result)
    page = (tmp_path / "out/report.html").read_text()
    assert text in page
    assert "outline of the object" in page
    assert result.gathered is not None
    assert result.gathered.object is not None
    share = result.gathered.object.sum() / (result.gathered.counts_after.sum() / len(result.volume))
    assert share == pytest.approx(told["share_of_field_of_view"], abs=0.05)


@pytest.mark.slow
def test_the_object_is_the_same_however_the_rows_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    scan, settings = quietray.read(disc_scan(12, 48, 64)), quick(method=TotalVariation(), rotation_axis=23.5)
    with monkeypatch.context() as patch:
        in_slabs(patch, heights=4)
        some = quietray.denoise(scan, None, settings)
        in_slabs(patch, heights=5)
        others = quietray.denoise(scan, None, settings)
    one, other = (each.metrics["estimate"]["object"].record() for each in (some, others))
    assert one == pytest.approx(other)
    assert warnings_of(some.metrics) == warnings_of(others.metrics)


def test_the_network_is_applied_once_to_whatever_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The held-out slice and those by which its scatter is told are each judged twice, and the result is the same."""
    _, made, data = known_object()
    data = dataclasses.replace(data, training_rows=tuple(range(10)), held_out_rows=(10, 11))
    calls: list[bytes] = []
    whole = Denoiser.evaluate

    def counted(self: Denoiser, x: torch.Tensor) -> torch.Tensor:
        calls.append(x.contiguous().numpy().tobytes())
        return whole(self, x)

    monkeypatch.setattr(Denoiser, "evaluate", counted)
    once = Evidence.measure(made, data, air=0.0)
    assert once.inside is not None
    assert len(calls) == len(set(calls)) > 2
    monkeypatch.setattr(_Once, "__call__", lambda self, x: self._network(x))
    calls.clear()
    assert Evidence.measure(made, data, air=0.0) == once
    assert len(calls) > 1.5 * len(set(calls))
