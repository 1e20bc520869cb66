"""The map of trust: what it says of the error that remains is true, and it was learned without the truth."""

import dataclasses
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import quietray
from quietray import Correction, Noise2Inverse, ParallelProjector, Settings, Training, UNet
from quietray.assessment.uncertainty import BAND, ErrorModel, contradiction
from quietray.metrics.noreference import judge_left_out, judge_subsets
from quietray.report import report_of
from quietray.report.page import _render
from quietray.running.watch import Watch
from quietray.training.batches import TrainingVolume
from scans import disc_scan, foam_scan, in_slabs, quick, short_report

FOAM = Settings(
    seed=1,
    symmetries=1,
    method=Noise2Inverse(parts=2, slices=3),
    network=UNet((16, 32)),
    trust=0.5,
    training=Training(steps=120, batch=1, learning_rate=6e-3, judgements=4, precision="fp32"),
)


@pytest.fixture(scope="module")
def foam():
    """A simulated scan, its result with a map of trust, and the error that remains."""
    scan = quietray.read(foam_scan(n_rows=16, n_cols=56, photons=400.0))
    result = quietray.denoise(scan, settings=FOAM)
    beam = scan.geometry.with_axis(result.metrics["scan"]["rotation_axis"])
    A = ParallelProjector(beam, beam.grid().with_slices(scan.n_rows))
    truth = FOAM.reconstruction(A, np.ascontiguousarray(np.asarray(scan.clean[:], np.float32).swapaxes(0, 1)))
    inside = result.trust > 0
    return scan, result, np.abs(result.volume - truth)[inside], result.trust[inside]


def test_nine_of_ten_voxels_lie_in_the_band(foam):
    _, _, error, sd = foam
    assert 0.85 < np.mean(error < BAND * sd) < 0.95


def test_the_map_is_larger_where_the_error_is(foam):
    _, _, error, sd = foam
    bins = np.array_split(np.argsort(sd), 8)
    rms = [[np.sqrt(np.mean(values[some] ** 2)) for some in bins] for values in (sd, error)]
    assert spearmanr(*rms).statistic > 0.9


def test_the_figures_are_those_of_the_map(foam):
    _, result, _, sd = foam
    told = result.metrics["trust"]
    assert told["sd_median"] == pytest.approx(np.median(sd), rel=1e-5)
    assert told["sd_where_all_agree"] <= sd.min() * 1.001
    assert told["steps"] == [60, 60]  # half of the budget for both, 120 steps in the other half
    assert sum(row["voxels"] for row in told["calibration"]) > sd.size / 2


def test_the_report_shows_the_map(foam):
    scan, result, _, _ = foam
    page = _render(report_of(result, scan, ""))
    assert "Error that may remain" in page
    without = dataclasses.replace(result, trust=None)
    assert "Error that may remain" not in _render(report_of(without, scan, ""))


def test_no_trust_changes_nothing(foam):
    scan, result, _, _ = foam
    plain = quietray.denoise(scan, settings=dataclasses.replace(FOAM, trust=0.0))
    assert plain.trust is None
    assert "trust" not in plain.metrics
    np.testing.assert_array_equal(plain.volume, result.volume)


@pytest.mark.parametrize("n_rows", [12, 13, 5, 1])
def test_halves_share_no_target(n_rows):
    """Every voxel holds its own number, so that what was drawn tells where it came from."""
    parts = np.arange(2 * n_rows * 400, dtype=np.float32).reshape(2, n_rows, 20, 20)
    whole = TrainingVolume.with_held_out(parts, Noise2Inverse(parts=2, slices=1), np.ones((20, 20), np.float32))

    def targets(data):
        samples, weight = data.draw(400, 8, torch.Generator().manual_seed(0))
        return set(samples[:, 0][weight > 0].tolist())

    def judged(data):
        return {value for samples, weight in data.held_out() for value in samples[:, 0][weight > 0].tolist()}

    one, other = (targets(half) for half in whole.halves())
    held_out = judged(whole)
    assert one
    assert other
    assert not one & other
    assert not (one | other) & held_out
    for mine, half in zip((one, other), whole.halves(), strict=True):
        assert not mine & judged(half)
        assert held_out <= judged(half)


def test_calibration_sees_through_the_noise_of_its_estimates():
    rng = np.random.default_rng(0)
    seen, held = rng.gamma(2.0, 0.5, (2, 200_000)), rng.gamma(2.0, 0.5, (2, 20_000))
    noisy = 0.3 + 0.8 * seen[0] + 0.4 * seen[1] + rng.normal(0, 5, seen.shape[1])
    found = ErrorModel.fitted((seen, noisy), (held, -0.1 + rng.normal(0, 0.5, held.shape[1])))
    assert found.floor == pytest.approx(0.2, abs=0.06)
    assert found.slope == pytest.approx(0.8, abs=0.06)
    assert found.steep == pytest.approx(0.4, abs=0.06)


def test_an_error_too_small_to_be_seen_is_bounded_not_denied():
    seen = np.stack([np.linspace(0.0, 1.0, 100), np.linspace(1.0, 0.0, 100)])
    found = ErrorModel.fitted((seen, np.full(100, -0.3)), (seen, np.full(100, -0.1)))
    assert (found.floor, found.slope, found.steep) == (pytest.approx(0.4), 0.0, 0.0)


def streaky(n: int, sd: float) -> list[np.ndarray]:
    """Streaks of n subsets, which add up to nothing, and their noise."""
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * np.arange(n)[:, None, None, None] / n
    return [np.cos(angle + rng.uniform(0, 2 * np.pi, (1, 1, 400, 400))), rng.normal(0, sd, (n, 1, 400, 400))]


def test_a_detail_that_all_networks_have_lost_is_in_the_band():
    """A result without a pore that the data show: there the map is raised to it, and hardly anywhere else."""
    for n in (2, 3, 4):  # also where the even and the odd parts are not as many
        rng = np.random.default_rng(n)
        lost = np.zeros((2, 96, 96), np.float32)
        lost[:, 40:43, 40:43] = 1.0
        parts = (lost + rng.normal(0, 0.2 * n**0.5, (n, *lost.shape))).astype(np.float32)
        found = contradiction(parts, np.zeros_like(lost))
        assert BAND * found[:, 41, 41].min() > 1.0
        assert (found[:, 50:] > 0).mean() == pytest.approx(0.0124, abs=0.006)  # of noise, beyond 2.5 sd
    assert not contradiction(parts[:1], np.zeros_like(lost)).any(), "one part does not tell its noise"


def test_with_too_few_views_there_is_no_map():
    """Half of 24 views have streaks of their own for 24 columns, which the calibration would take for noise."""
    result = quietray.denoise(quietray.read(disc_scan(12, 24, 24)), None, quick(trust=0.4))
    assert result.trust is None
    assert "trust" not in result.metrics
    assert any("No uncertainty map was made: half of the 24 views" in note for note in result.notes)
    estimate = result.metrics["estimate"]
    assert estimate["psnr_gain_db"] is estimate["psnr_gain_db_at_least"] is estimate["rmse"] is None
    assert estimate["psnr_gain_db_at_most"] is not None
    assert "half of the 24 views are too few" in estimate["withheld"]


def test_after_a_ring_filter_no_gain_is_told():
    """In eight scans without rings, estimates were 0.7 dB (sorting) and 1.2 dB (all) too high inside the object."""
    settings = quick(method="tv", rotation_axis=23.5, correction=Correction(rings="sorting"))
    result = quietray.denoise(quietray.read(disc_scan(12, 48, 96)), None, settings)
    for told in (result.metrics["estimate"], result.metrics["estimate"]["object"]):
        assert told["psnr_gain_db"] is told["psnr_gain_db_at_least"] is told["rmse"] is None
        assert told["psnr_gain_db_at_most"] is not None
        assert "the ring filter 'sorting' acts on all views alike" in told["withheld"]
    assert any("The gain is not estimated: the ring filter" in warning for warning in result.warnings)
    assert "ring filter" in result.metrics["verdict"]["reason"] or result.metrics["verdict"]["kind"] == "Do not use it"


def test_streaks_are_what_the_left_out_parts_underestimate():
    """The truth plus noise plus streaks that add up to nothing; the output is the truth plus a known error."""
    targets = torch.from_numpy(sum(streaky(4, 0.5)))[:, None].float()
    inputs = (targets.sum(0) - targets) / 3
    judged = judge_left_out(torch.full_like(targets, 0.5), targets, inputs, torch.ones(1), 1, 4)
    assert judged.error == pytest.approx(0.25 - 1 / 6, abs=0.01)
    assert float(judged.pixels.mean()) == pytest.approx(judged.error, abs=1e-9)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("n", [4, 5])
@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_subsets_see_through_streaks_whatever_the_result_keeps_of_them(kept, n, alone):
    """Noise of 0.5 and streaks of 1; an output keeps a share of its input's streaks, and half of its noise."""
    streak, noise = streaky(n, 0.5)
    seen = [one if alone else (one.sum(axis=0) - one) / (n - 1) for one in (streak, noise)]
    outputs = torch.from_numpy(0.2 + kept * seen[0] + 0.5 * seen[1])[:, None]
    found = judge_subsets(outputs, torch.from_numpy(streak + noise)[:, None], torch.ones(1), alone)
    true = 0.2**2 + 0.25 * 0.25 / n  # the streaks of the mean of all outputs cancel, and half of its noise is left
    assert found.error == pytest.approx(true, abs=0.01)
    assert found.noise == pytest.approx(0.25 / n, rel=0.02)
    assert float(found.pixels.mean()) == pytest.approx(found.error, abs=1e-9)


@pytest.fixture(scope="module")
def undisturbed():
    """The map of a run in slabs that nobody killed."""
    with pytest.MonkeyPatch.context() as patch:
        in_slabs(patch)
        return quietray.denoise(quietray.read(disc_scan(12, 24, 48)), None, quick(trust=0.4)).trust


@pytest.mark.parametrize("format", ["zarr", "h5", "tiff"])
def test_a_killed_run_makes_the_same_map(format, undisturbed, tmp_path, monkeypatch):
    short_report(monkeypatch)
    in_slabs(monkeypatch)
    scan, settings = quietray.read(disc_scan(12, 24, 48)), quick(trust=0.4, format=format)

    class Killed(Watch):
        """Raises after the first slab."""

        @contextmanager
        def stage(self, name, total=None):
            done = 0

            def advance(units, text=""):
                nonlocal done
                done += units
                if name == "denoising" and done > 4:
                    raise KeyboardInterrupt

            yield advance

    with pytest.raises(KeyboardInterrupt):
        quietray.denoise(scan, tmp_path / "killed", settings, watch=Killed())
    assert not [place for place in (tmp_path / "killed").iterdir() if place.name.startswith("trust")]
    resumed = quietray.denoise(scan, tmp_path / "killed", settings, resume=True)
    np.testing.assert_array_equal(np.asarray(resumed.trust[:]), undisturbed)
    again = quietray.denoise(scan, tmp_path / "killed", settings, resume=True)
    np.testing.assert_array_equal(np.asarray(again.trust[:]), undisturbed)
