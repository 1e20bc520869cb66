"""The evidence of a run: what halves of the data agree on before and after, their noise, and the means of regions."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.restoration import denoise_tv_chambolle

import quietray
from quietray import Foam, Noise2Inverse, Noise2Noise, Noise2Self, UNet, VolumeGrid
from quietray.assessment.evidence import warnings_of
from quietray.assessment.halves import MEASUREMENTS, Halves
from quietray.assessment.open_beam import neighbours_let_through
from quietray.inference.denoiser import Denoiser, Scale
from quietray.result import Result
from quietray.splits import Noise2Clean
from quietray.splits.base import Split
from quietray.training.batches import TrainingVolume
from scans import disc_scan, foam_scan, quick

SIZE, SLICES, NOISE = 96, 8, 0.3


class Applied(torch.nn.Module):
    """A function of one slice that stands for a network."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x[:, x.shape[1] // 2][:, None])


def filtered(function: Callable[[np.ndarray], np.ndarray]) -> Applied:
    return Applied(lambda x: torch.from_numpy(np.stack([function(one[0].numpy())[None] for one in x])))


def denoiser(network: Applied, split: Split) -> Denoiser:
    return Denoiser(network, UNet((2,)), split, Scale(0.0, 2.0))


def foam() -> np.ndarray:
    """Return slices of 1 with holes of 0, a voxel wide edge between them."""
    made = Foam.packed(60, 0.3, np.random.default_rng(0), largest=0.16)
    volume = made.volume(VolumeGrid((SLICES, SIZE, SIZE), voxel_size=2 / SIZE))
    return np.asarray(volume / volume.max(), np.float32)


def halves(network: Applied, split: Split, truth: np.ndarray, noise: float = NOISE) -> Halves:
    """Return the halves of parts whose noise is white, seen through a disc."""
    rng = np.random.default_rng(1)
    parts = truth + rng.normal(0, noise, (split.n_parts, *truth.shape)).astype(np.float32)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    weight = (np.hypot(y, x) <= SIZE / 2).astype(np.float32)
    data = TrainingVolume(Scale(0.0, 2.0).apply(parts), split.neighbourhood, weight, (), tuple(range(SLICES)))
    return Halves.of_parts(denoiser(network, split), data)


def test_a_good_filter_makes_halves_agree_on_more_and_a_blur_does_not() -> None:
    """A filter that keeps edges shows finer detail; a linear one multiplies both halves alike, which cancels."""
    truth, split = foam(), Noise2Inverse(4, slices=1)
    filters = (lambda x: denoise_tv_chambolle(x, 0.1), lambda x: ndimage.gaussian_filter(x, 1.0))
    edges, blur = (halves(filtered(each), split, truth, 0.4).figures(0.02)["resolution"] for each in filters)
    assert edges["before_half_bit_px"] > 1.3 * edges["after_half_bit_px"]
    assert blur["after_half_bit_px"] == pytest.approx(blur["before_half_bit_px"], rel=0.05)
    for found in (edges, blur):
        assert found["before_half_bit_px"] >= found["before_one_seventh_px"]
        assert found["before_half_bit_mm"] == pytest.approx(0.02 * found["before_half_bit_px"])
        assert found["before_half_bit_px"] == edges["before_half_bit_px"]


def test_the_noise_of_the_halves_is_white_where_it_was_and_low_where_it_was_filtered() -> None:
    split = Noise2Inverse(4, slices=1)
    found = halves(filtered(lambda x: ndimage.gaussian_filter(x, 1.5)), split, foam()).figures(None)["noise_power"]
    curve = {name: np.array(values) for name, values in found["curve"].items()}
    assert found["before_sd"] == pytest.approx(NOISE / 2, rel=0.03), "the noise of the mean of four parts"
    assert curve["before"] == pytest.approx(np.full(len(curve["before"]), NOISE**2 / 4), rel=0.25)
    transfer = np.exp(-4 * (np.pi * 1.5 * curve["cycles_per_pixel"]) ** 2)
    strong = transfer > 0.1
    assert (curve["after"] / curve["before"])[strong] == pytest.approx(transfer[strong], rel=0.25)


@pytest.mark.parametrize(
    ("split", "seen"),
    [
        (Noise2Inverse(4, slices=3), [(0, 2), (1, 3)]),
        (Noise2Inverse(2, slices=1), [(0,), (1,)]),
        (Noise2Inverse(5, input="1:X", slices=1), [(0, 2), (1, 3)]),
        (Noise2Noise(3), [(0,), (1,)]),
    ],
)
def test_a_half_never_sees_the_other(split: Split, seen: list[tuple[int, ...]]) -> None:
    """Each part is a constant of its own, and so the value of a half tells of which parts it was made."""
    parts = (10.0 ** np.arange(split.n_parts, dtype=np.float32))[:, None, None, None] * np.ones(
        (1, 4, 24, 24), np.float32
    )
    data = TrainingVolume(parts / 2, split.neighbourhood, np.ones((24, 24), np.float32), (), (1, 2))
    found = Halves.of_parts(denoiser(Applied(lambda x: x), split), data)
    for half, which in enumerate(seen):
        expected = np.mean([10.0**k for k in which])
        assert found.after[half] == pytest.approx(np.full((2, 24, 24), expected), rel=1e-4)
        assert found.before[half] == pytest.approx(np.full((2, 24, 24), expected), rel=1e-4)
    every = np.mean([10.0**k for k in range(split.n_parts)])
    assert found.noisy == pytest.approx(np.full((2, 24, 24), every), rel=1e-4)
    assert found.clean == pytest.approx(found.noisy, rel=1e-4)
    assert (found.of == MEASUREMENTS) == isinstance(split, Noise2Noise)


def test_what_was_trained_on_whole_scans_is_shown_all_views_at_once() -> None:
    parts = np.array([1.0, 3.0], np.float32)[:, None, None, None] * np.ones((1, 4, 24, 24), np.float32)
    data = TrainingVolume(parts / 2, Noise2Clean().neighbourhood, np.ones((24, 24), np.float32), (), (1, 2))
    found = Halves.of_parts(denoiser(Applied(torch.square), Noise2Clean()), data)  # scaled: 2 is 1
    assert found.after.mean(axis=(1, 2, 3)) == pytest.approx([0.5, 4.5])
    assert found.clean.mean() == pytest.approx(2.0)
    assert found.of == "every other angular subset"


def three_materials() -> np.ndarray:
    truth = np.zeros((SLICES, SIZE, SIZE), np.float32)
    truth[:, :, 32:64], truth[:, :, 64:] = 1.0, 2.0
    return truth


def figures_of(evidence: dict[str, Any]) -> dict[str, Any]:
    return {
        "estimate": {
            "psnr_gain_db": 9.5,
            "psnr_gain_db_at_least": 9.0,
            "psnr_gain_db_at_most": 10.0,
            "residual_correlation": 0.0,
        },
        "volume": {"relative_change_of_mean": 0.0},
        "correction": {"floored": 0.0},
        "training": {"steps": 5000},
        "method": {"parts": 4, "name": "noise2inverse", "domain": "volume", "parameters": 1000},
        "scan": {"views": 400, "columns": 200, "covered_degrees": 180.0},
        "log_bias": None,
        "evidence": evidence,
    }


@pytest.mark.parametrize("shift", [0.0, -0.03, 0.005])
def test_a_region_that_was_moved_is_reported_and_warned_of(shift: float) -> None:
    def network(x: np.ndarray) -> np.ndarray:
        smooth = ndimage.gaussian_filter(x, 1)
        return np.asarray(np.where((smooth > 0.25) & (smooth < 0.75), (1 + shift) * smooth, smooth))  # scaled: 2 is 1

    found = halves(filtered(network), Noise2Inverse(4, slices=1), three_materials(), 0.05).figures(None)
    assert [region["region"] for region in found["regions"]] == ["darkest", "middle", "brightest"]
    for region, truth, moved_by in zip(found["regions"], (0, 1, 2), (0, shift, 0), strict=True):
        assert abs(region["before"] - truth) < 5 * region["error"] + 0.003
        assert region["after"] - region["before"] == pytest.approx(moved_by, abs=4 * region["error"] + 1e-4)
        assert 0 < region["error"] < 0.003
    warned = [text for text in warnings_of(figures_of(found)) if "moved the mean" in text]
    assert len(warned) == (shift == -0.03)
    if warned:
        assert re.search(r"middle region from (1|0\.99\d+|1\.00\d+) to 0\.9[67]", warned[0])


def test_lost_detail_is_warned_of() -> None:
    evidence = {"regions": [], "resolution": {"before_half_bit_px": 4.0, "after_half_bit_px": 4.5}}
    assert not warnings_of(figures_of(evidence))
    evidence["resolution"] = {"before_half_bit_px": 4.0, "after_half_bit_px": 6.0}
    (warning,) = warnings_of(figures_of(evidence))
    assert "details down to 6.0 pixels" in warning
    evidence["resolution"] = {"before_half_bit_px": 4.0, "after_half_bit_px": None}
    assert "agree on nothing" in warnings_of(figures_of(evidence))[0]


def test_what_is_too_small_or_all_alike_is_left_out() -> None:
    flat = np.ones((2, 12, 12), np.float32) + np.random.default_rng(0).normal(0, 0.1, (2, 12, 12)).astype(np.float32)
    pair = np.stack([flat, flat])
    found = Halves(pair, pair, flat, flat, np.ones((12, 12), np.float32), "", True, 0.0).figures(None)
    assert (found["resolution"], found["noise_power"], found["regions"]) == (None, None, [])
    assert "12 x 12" in found["left_out"]["resolution"]
    assert "regions" in found["left_out"]


def test_a_frozen_network_lets_through_what_it_does_not_average(rng: np.random.Generator) -> None:
    """White noise: 1 for nothing done, 9 / 49 and edges aside for a mean far wider than the window."""
    frames = rng.normal(0, 0.1, (40, 48, 48)).astype(np.float32)
    frames[:, 5, 7] = np.nan  # a bad pixel says nothing
    split = Noise2Self()
    nothing = neighbours_let_through(
        dataclasses.replace(denoiser(Applied(lambda x: x), split), scale=Scale(0.0, 1.0)), frames
    )
    assert nothing["before"] == pytest.approx(1, abs=5 * nothing["before_error"])
    assert nothing["after"] == pytest.approx(nothing["before"], abs=1e-3)
    wide = filtered(lambda x: ndimage.uniform_filter(x, 21))
    found = neighbours_let_through(dataclasses.replace(denoiser(wide, split), scale=Scale(0.0, 1.0)), frames)
    assert found["after"] == pytest.approx(49 / 441, abs=5 * found["after_error"] + 0.03)
    assert found["frames"] == 40


# Runs, as a user starts them.


def told(result: Result) -> dict[str, Any]:
    assert result.folder is not None
    stored: dict[str, Any] = json.loads((result.folder / "metrics.json").read_text(), parse_constant=pytest.fail)
    found: dict[str, Any] = stored["evidence"]
    assert "Resolution and noise" in (result.folder / "report.html").read_text()
    return found


def test_a_run_in_the_volume_tells_what_its_halves_say(tmp_path: Path) -> None:
    path = foam_scan()
    result = quietray.denoise(quietray.read(path), tmp_path / "out", quick(rotation_axis=None))
    found = told(result)
    assert found["halves"] == "every other angular subset"
    assert found["held_out"]
    assert found["resolution"]["before_half_bit_mm"] == pytest.approx(0.04 * found["resolution"]["before_half_bit_px"])
    # the noise of the mean is judged elsewhere too, from left-out parts over the whole field of view
    assert found["noise_power"]["before_sd"] == pytest.approx(result.metrics["estimate"]["rmse_noisy"], rel=0.3)
    assert "dependency" not in found


def test_a_run_on_radiographs_compares_every_other_one_and_tells_what_is_let_through(tmp_path: Path) -> None:
    settings = quick(2, method=Noise2Self(), rows="2:10", whiten="never")
    found = told(quietray.denoise(quietray.read(disc_scan()), tmp_path / "out", settings))
    assert found["halves"] == "every other radiograph"
    assert not found["held_out"]
    assert found["slices"] == 8
    dependency = found["dependency"]
    assert dependency["before"] == pytest.approx(1, abs=5 * dependency["before_error"]), "the flats' noise is white"
    assert dependency["frames"] == 20


def test_without_repeated_flats_it_says_why_the_noise_let_through_is_not_known(tmp_path: Path) -> None:
    settings = quick(2, method=Noise2Self(), rows="2:6", whiten="never")
    scan = quietray.read(disc_scan())
    assert scan.flats is not None
    few = dataclasses.replace(scan, flats=np.asarray(scan.flats[:]).mean(axis=0)[None])
    found = told(quietray.denoise(few, tmp_path / "few", settings))
    assert "fewer flats" in found["left_out"]["dependency"]


def test_a_blur_is_seen_though_both_halves_agree_on_it() -> None:
    """A filter that keeps edges keeps the detail that the data show; the same result, blurred, agrees but keeps little.

    Over three seeds it keeps 0.77 +- 0.01 and, blurred, 0.06 +- 0.02, where Wiener's filter would keep 0.52 to 0.60.
    """
    truth, split = foam(), Noise2Inverse(4, slices=1)

    def edges(x: np.ndarray) -> np.ndarray:
        return np.asarray(denoise_tv_chambolle(x, 0.05))

    sharp, soft = (
        halves(filtered(each), split, truth).figures(None)
        for each in (edges, lambda x: ndimage.gaussian_filter(edges(x), 1.5))
    )
    assert soft["resolution"]["after_half_bit_px"] < 1.2 * sharp["resolution"]["after_half_bit_px"]
    kept, blurry = sharp["sharpness"], soft["sharpness"]
    assert kept["linear_filter"] == blurry["linear_filter"]
    assert kept["kept"] > kept["linear_filter"] + 3 * kept["kept_error"]
    assert blurry["kept"] < blurry["linear_filter"] - 3 * blurry["kept_error"]
    assert not any("blurred" in text for text in warnings_of(figures_of(sharp)))
    assert any("is blurred" in text for text in warnings_of(figures_of(soft)))


def test_what_a_linear_filter_keeps_is_its_transfer_function() -> None:
    split = Noise2Inverse(4, slices=1)
    found = halves(filtered(lambda x: ndimage.gaussian_filter(x, 1.0)), split, foam(), 0.1).figures(None)["sharpness"]
    curve = {name: np.array(values, float) for name, values in found["curve"].items()}
    expected = np.exp(-2 * (np.pi * curve["cycles_per_pixel"]) ** 2)
    known = curve["error"] < 0.1
    assert known.sum() > 10
    assert np.abs(curve["kept"] - expected)[known].max() < 0.05 + 4 * curve["error"][known].max()


def test_the_blur_of_nothing_is_not_measured() -> None:
    empty = np.zeros((SLICES, SIZE, SIZE), np.float32)
    found = halves(filtered(lambda x: x), Noise2Inverse(4, slices=1), empty).figures(None)
    assert found["sharpness"] is None
    assert "no detail" in found["left_out"]["sharpness"]
