"""What views share: memory of the detector, rings, and so the interleaved subsets that Noise2Inverse needs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from quietray.detector.correction.calibration import Correction, calibrate
from quietray.detector.noise.memory import measure_memory, subsets_of
from quietray.detector.noise.residuals import pairs_apart
from quietray.detector.noise.rings import measure_rings
from quietray.diagnose import diagnose
from quietray.simulate.noise import Scintillator
from test_correlation import frames_of, measured
from test_diagnose import detector, simulated

BLUR = 0.5
ALL = np.ones((48, 64), bool)


def stack(seed=0, n=128, **settings):
    return frames_of(Scintillator(response_width=BLUR, **settings), n, ALL.shape, seed=seed)


@pytest.mark.parametrize("share", [0.0, pytest.param(0.05, marks=pytest.mark.slow), 0.2])
def test_afterglow_gives_its_correlation_and_its_error(share):
    stacks = [stack(seed, afterglow=share) for seed in range(12)]
    lags = measured(stacks[0]).lags
    found = [measure_memory(frames, ALL, lags) for frames in stacks]
    values = np.array([one.correlations for one in found])
    errors = np.array([one.errors for one in found]).mean(axis=0)
    truth = np.array([share / (1 + share**2), 0, 0])
    assert np.abs(values.mean(axis=0) - truth).max() < 3.5 * errors.max() / np.sqrt(12)
    assert values.std(axis=0) == pytest.approx(errors, rel=0.5)


def test_flicker_drift_patterns_and_zingers_are_no_memory():
    trouble = {"flicker": 0.02, "drift": 0.5, "row_noise": 4.0, "gain_spread": 0.05, "zingers": 1e-4}
    frames = stack(**trouble)
    found = measure_memory(frames, ALL, measured(stack()).lags)
    assert np.abs(found.correlations).max() < 4 * max(found.errors) < 0.02


@pytest.mark.parametrize("parts", [2, 4])
def test_subsets_correlate_as_their_sums_do(parts):
    """The direct way: add up the views of every subset, and correlate the sums over pixels and scans."""
    sums, found = [], []
    lags = measured(stack(afterglow=0.1)).lags
    for seed in range(10):
        frames = stack(seed, 64, afterglow=0.1)
        found.append(subsets_of(measure_memory(frames, ALL, lags), 0.0, 0.0, parts))
        noise = frames - 400 * 1.1
        sums.append([noise[start::parts].sum(axis=0) for start in range(parts)])
    sums = np.array(sums)
    flat = sums.transpose(1, 0, 2, 3).reshape(parts, -1)
    pairs = np.corrcoef(flat)[np.triu_indices(parts, 1)].mean()
    rest = np.mean([np.corrcoef(flat[j], np.delete(flat, j, 0).sum(axis=0))[0, 1] for j in range(parts)])
    said = np.mean([one.correlation for one in found])
    assert said == pytest.approx(2 * (0.1 / 1.01) / (parts - 1), abs=4 * found[0].error / np.sqrt(10))
    assert pairs == pytest.approx(said, abs=0.03)
    assert rest == pytest.approx(np.mean([one.with_rest for one in found]), abs=0.03)


def ringed(gain_spread, n_flats=50, seed=0, **settings):
    """A scan whose views, but not its flats, have a gain map."""
    scan = simulated(detector(response_width=BLUR, **settings), n_flats=n_flats, seed=seed)
    gain = 1 + gain_spread * np.random.default_rng(seed + 99).standard_normal(scan.projections.shape[1:])
    return dataclasses.replace(scan, projections=((scan.projections - 100) * gain + 100).astype(np.float32))


NOISE = 1 / 400 / 4.868 + 0.25 / 400**2  # variance of the attenuation of one view in air: photons, and read noise


@pytest.mark.parametrize(
    ("gain_spread", "n_flats"),
    [
        (0.0, 50),
        pytest.param(0.0, 10, marks=pytest.mark.slow),
        (0.0, 2),
        pytest.param(0.02, 50, marks=pytest.mark.slow),
        (0.01, 20),
    ],
)
def test_rings_of_known_strength(gain_spread, n_flats):
    lags = measured(stack()).lags
    scans = [ringed(gain_spread, n_flats, seed) for seed in range(3)]
    found = [measure_rings(scan, calibrate(scan, Correction(rings="none")), lags) for scan in scans]
    ring, flats = gain_spread**2 + NOISE / n_flats, NOISE / n_flats
    share, error = np.mean([one.share for one in found]), np.mean([one.share_error for one in found])
    over, over_error = np.mean([one.over_flats for one in found]), np.mean([one.over_flats_error for one in found])
    assert share == pytest.approx(ring / (ring + NOISE), rel=0.04, abs=3 * error / np.sqrt(3))
    assert over == pytest.approx(ring / flats, rel=0.05, abs=3 * over_error / np.sqrt(3))
    assert found[0].source == "air columns"
    assert np.std([one.share for one in found]) < 3 * error


def test_zingers_in_flats_and_views_are_no_rings():
    scan = simulated(detector(response_width=BLUR, zingers=2e-3), n_flats=10)
    found = measure_rings(scan, calibrate(scan), measured(stack()).lags)
    assert found.share == pytest.approx(1 / 11, abs=4 * found.share_error)
    assert found.over_flats == pytest.approx(1, abs=4 * found.over_flats_error)


def test_rings_reach_the_figures_and_the_verdict():
    found = diagnose(ringed(0.02))
    rings, subsets = found.figures["rings"], found.figures["subsets"]
    assert rings["share"] == pytest.approx(0.44, abs=0.04)
    assert subsets[0]["correlation"] == pytest.approx(rings["share"], abs=4 * subsets[0]["error"])
    assert found.verdict("noise2inverse").answer == "valid with a warning"
    assert "times what the noise of the 50 flats explains" in found.verdict("noise2inverse").reason
    few = diagnose(simulated(detector(), n_flats=5))
    assert few.verdict("noise2inverse").answer == "valid with a warning"
    assert "the noise of the 5 flats" in few.verdict("noise2inverse").reason


def test_a_moving_object_is_not_taken_for_memory():
    """Without air and with few flats, the object's own motion would look like light seen again."""
    rng = np.random.default_rng(0)
    scan = simulated(detector(response_width=BLUR), n_flats=4, n_views=48)
    cols = np.arange(scan.n_cols)
    waves = np.stack([1 + 0.3 * np.sin(0.07 * cols + 0.35 * view) for view in range(48)])
    views = rng.poisson(200 * np.broadcast_to(waves[:, None], scan.projections.shape)).astype(np.float32) + 100
    found = diagnose(dataclasses.replace(scan, projections=views))
    assert found.figures["memory"] is None
    assert "could not be measured" in found.verdict("noise2inverse").reason


def test_pairs_apart_are_all_pairs(rng):
    frames = rng.standard_normal(23)
    taps, _ = pairs_apart(23, 3)
    outputs = [sum(taps[k, t] * frames[t - k] for k in range(min(len(taps), t + 1))) for t in range(23)]
    pairs = [(a - b) ** 2 / 2 for i, a in enumerate(frames) for b in frames[i + 3 : i + 7]]
    assert np.sum(np.square(outputs)) / 22 == pytest.approx(np.mean(pairs), rel=1e-6)
    assert [pairs_apart(n, n)[1] for n in (2, 3)] == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("n_frames", [10, 40])
def test_differences_are_nearly_as_good_as_the_mean(n_frames):
    effective = pairs_apart(n_frames, 3)[1]
    assert effective > 0.85 * (n_frames - 1)
    draws = np.random.default_rng(0).standard_normal((n_frames, 3000))
    taps, _ = pairs_apart(n_frames, 3)
    square = np.zeros(3000)
    for t in range(1, n_frames):
        square += sum(taps[k, t] * draws[t - k] for k in range(min(len(taps), t + 1))) ** 2
    assert square.var() / (n_frames - 1) ** 2 == pytest.approx(2 / effective, rel=0.12)
