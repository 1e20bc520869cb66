"""Auto-correlation of noise: closed forms, the traps of the estimators, and what the errors promise."""

from __future__ import annotations

import numpy as np
import pytest

from quietray.detector.noise.correlation import measure_correlation, tiles_of
from quietray.detector.noise.lags import autocorrelation, error_of, infill_correlation, noise_power_spectrum, spectrum
from quietray.detector.noise.static import NoiseSource, survey_frames
from quietray.errors import NoiseError, SettingsError
from quietray.simulate.noise import Scintillator

BLUR = 0.5
TRUE_SUM = 3.868  # 1 / sum(h^2) - 1 of the Laplace response of 0.5 pixel


def frames_of(detector, n=40, shape=(128, 160), photons=400.0, seed=0):
    return detector.sample(np.full((n, *shape), photons), np.random.default_rng(seed))


def measured(frames, method="differences", **source):
    return measure_correlation(survey_frames(NoiseSource("static frames", frames, **source)), method)


def true_lags(detector, radius):
    h, span = detector.response, range(-radius, radius + 1)
    pad, n = np.pad(h, radius), h.shape[0]
    lags = np.array(
        [[(h * pad[radius + y : radius + y + n, radius + x : radius + x + n]).sum() for x in span] for y in span]
    )
    return lags / lags.max()


def rolled(frames, good, radius):
    """The direct way: shift, multiply, average over the pairs of good pixels."""
    n_y, n_x = good.shape
    out = np.zeros((2 * radius + 1,) * 2)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            a = slice(max(0, -dy), n_y + min(0, -dy)), slice(max(0, -dx), n_x + min(0, -dx))
            b = slice(max(0, dy), n_y + min(0, dy)), slice(max(0, dx), n_x + min(0, dx))
            both = good[a] & good[b]
            out[dy + radius, dx + radius] = (frames[:, *a] * frames[:, *b])[:, both].mean()
    return out


def test_fft_equals_rolling_and_multiplying(rng):
    frames = rng.standard_normal((5, 23, 31))
    frames[:, :, 1:] += 0.5 * frames[:, :, :-1]
    good = rng.random((23, 31)) > 0.1
    fast = autocorrelation(frames, good, 4)
    np.testing.assert_allclose(fast, rolled(frames, good, 4), atol=2e-6)
    np.testing.assert_array_equal(fast, fast[::-1, ::-1])


def test_bad_pixels_are_left_out_of_sum_and_count(rng):
    frames = rng.standard_normal((9, 40, 40)).astype(np.float32)
    good = np.ones((40, 40), bool)
    good[10, 20] = good[30, 5] = False
    wrong = np.where(good, frames, 1e6).astype(np.float32)
    np.testing.assert_allclose(autocorrelation(wrong, good, 3), autocorrelation(frames, good, 3), atol=1e-6)


@pytest.mark.parametrize("method", ["differences", "mean"])
def test_lags_of_a_laplace_response(method):
    detector = Scintillator(response_width=BLUR)
    found = measured(frames_of(detector), method)
    truth = true_lags(detector, found.lags.shape[0] // 2)
    deviation = (found.lags - truth)[found.errors > 0] / found.errors[found.errors > 0]
    assert 0.75 < deviation.std() < 1.3
    assert np.abs(deviation).max() < 5
    assert abs(found.summed - TRUE_SUM) < 4 * found.summed_error < 1
    assert infill_correlation(found.lags) == pytest.approx(0.667, abs=0.01)


def test_errors_are_those_of_repeated_measurements():
    detector = Scintillator(response_width=BLUR)
    found = [measured(frames_of(detector, 12, (64, 64), seed=seed)) for seed in range(30)]
    sums = np.array([one.summed for one in found])
    assert sums.std() == pytest.approx(np.mean([one.summed_error for one in found]), rel=0.35)
    assert abs(sums.mean() - TRUE_SUM) < 4 * sums.std() / np.sqrt(30)
    middle = np.array([one.lags[6, 7] for one in found])
    assert middle.std() == pytest.approx(np.mean([one.errors[6, 7] for one in found]), rel=0.35)


@pytest.mark.parametrize("method", ["differences", "mean"])
@pytest.mark.parametrize(
    "trouble",
    [
        {"flicker": 0.005},
        {"flicker": 0.05},
        {"row_noise": 6.0},
        {"stuck": 0.001, "unstable": 0.001},
        {"zingers": 1e-4},
        {"dead": 0.002, "hot": 0.002},
        {"gain_spread": 0.05},
    ],
)
def test_trouble_does_not_reach_the_lags(trouble, method):
    clean = measured(frames_of(Scintillator(response_width=BLUR, dark=50.0)), method)
    found = measured(frames_of(Scintillator(response_width=BLUR, dark=50.0, **trouble)), method)
    assert np.abs(found.lags - clean.lags).max() < 0.012
    assert abs(found.summed - TRUE_SUM) < 4 * found.summed_error


def test_what_the_guards_are_for(rng):
    """Without them the same frames mislead: the traps are real."""
    flicker = frames_of(Scintillator(response_width=BLUR, flicker=0.02))
    levelled = measured(flicker).summed
    naive = autocorrelation((flicker - flicker.mean(0)).astype(np.float32), np.ones(flicker.shape[1:], bool), 6)
    assert naive.sum() / naive.max() - 1 > TRUE_SUM + 10
    assert abs(levelled - TRUE_SUM) < 0.6
    rows = frames_of(Scintillator(response_width=BLUR, row_noise=6.0))
    naive = autocorrelation((rows - rows.mean(0)).astype(np.float32), np.ones(rows.shape[1:], bool), 6)
    assert naive[6, 0] / naive.max() > 0.2
    assert abs(measured(rows).lags[6, 0]) < 0.01


def test_differences_are_immune_to_slow_drift():
    frames = frames_of(Scintillator(response_width=BLUR), n=60)
    pattern = np.linspace(-1, 1, frames.shape[2]) * np.linspace(-1, 1, frames.shape[1])[:, None]
    drifting = frames + 40 * np.linspace(-1, 1, 60)[:, None, None] * pattern
    assert abs(measured(drifting, "differences").summed - TRUE_SUM) < 0.6
    assert abs(measured(drifting, "mean").summed - TRUE_SUM) > 1.0


def test_rows_columns_and_successive_frames():
    pixel = 400 / (1 + TRUE_SUM)
    rows = measured(frames_of(Scintillator(response_width=BLUR, row_noise=4.0)))
    assert rows.row_share == pytest.approx(16 / (16 + pixel), rel=0.1)
    assert rows.column_share < 0.005
    turned = frames_of(Scintillator(response_width=BLUR, row_noise=4.0)).transpose(0, 2, 1)
    assert measured(np.ascontiguousarray(turned)).column_share == pytest.approx(16 / (16 + pixel), rel=0.2)
    value, error = measured(frames_of(Scintillator(response_width=BLUR, afterglow=0.05))).successive
    assert abs(value - 0.05 / (1 + 0.05**2)) < 4 * error < 0.02
    value, error = measured(frames_of(Scintillator(response_width=BLUR))).successive
    assert abs(value) < 4 * error


def test_the_map_of_neighbours_and_its_null():
    white = measured(frames_of(Scintillator()), "mean")
    values = white.neighbours[np.isfinite(white.neighbours)]
    assert values.std() == pytest.approx(np.sqrt(48 / 39), rel=0.06)
    assert white.null_sd == pytest.approx(np.sqrt(48 / 39))
    assert abs(values.mean()) < 0.05
    detector = Scintillator(response_width=BLUR)
    near = true_lags(detector, 3).sum() - 1
    assert np.nanmean(measured(frames_of(detector)).neighbours) == pytest.approx(near, abs=0.12)


def test_streaming_changes_nothing():
    """Frames that come one by one give what frames in memory give."""

    class OneByOne:
        def __init__(self, frames):
            self.frames, self.shape, self.dtype, self.most = frames, frames.shape, frames.dtype, 0

        def __getitem__(self, key):
            block = self.frames[key]
            self.most = max(self.most, len(block))
            return block

    import quietray.detector.noise.static as static

    frames = frames_of(Scintillator(response_width=BLUR, zingers=1e-4), n=20, shape=(64, 64))
    whole = measured(frames)
    lazy, block = OneByOne(frames), static.BLOCK
    try:
        static.BLOCK = 2 * 64 * 64
        pieces = measured(lazy)
    finally:
        static.BLOCK = block
    assert lazy.most == 2
    np.testing.assert_allclose(pieces.lags, whole.lags, atol=1e-5)
    np.testing.assert_allclose(pieces.neighbours, whole.neighbours, atol=1e-3)


def test_spectrum_and_donut_in_closed_form(rng):
    white = np.zeros((9, 9))
    white[4, 4] = 1
    assert infill_correlation(white) == 0
    frequency, power = noise_power_spectrum(white, 3.0)
    np.testing.assert_allclose(power, 3.0)
    assert frequency[-1] == 0.5
    lags = true_lags(Scintillator(response_width=BLUR), 6)
    assert spectrum(lags).mean() == pytest.approx(1.0)  # the variance
    assert spectrum(lags)[0, 0] == pytest.approx(lags.sum())
    values = [autocorrelation(rng.standard_normal((1, 50, 50)), np.ones((50, 50), bool), 2)[2, 3] for _ in range(200)]
    weights = np.zeros((5, 5))
    weights[2, 1] = weights[2, 3] = 0.5
    centre = np.zeros((5, 5))
    centre[2, 2] = 1
    assert np.std(values) == pytest.approx(error_of(weights, centre, 2500.0), rel=0.15)


def test_bad_pixels_are_found():
    detector = Scintillator(response_width=BLUR, stuck=0.003, unstable=0.003)
    frames = frames_of(detector)
    lot = np.random.default_rng(20_250_731)
    for _ in range(2):
        lot.standard_normal(frames.shape[1:])
    lot = lot.random(frames.shape[1:])
    wrong = (lot < 0.003) | (lot > 0.997)
    good = survey_frames(NoiseSource("static frames", frames)).good
    assert not good[wrong].any()
    assert (~good[~wrong]).mean() < 1e-3


def test_refusals():
    frames = frames_of(Scintillator(), 5, (32, 32))
    with pytest.raises(NoiseError, match="two or more frames"):
        NoiseSource("flats", frames[:1])
    with pytest.raises(SettingsError, match="at least 1 apart"):
        measure_correlation(survey_frames(NoiseSource("flats", frames)), apart=0)
    frames[2, 3, 4] = np.nan
    with pytest.raises(NoiseError, match="1 NaN"):
        measured(frames)
    with pytest.raises(NoiseError, match="pixels that vary"):
        measured(np.full((5, 32, 32), 7.0, np.float32))
    assert tiles_of((20, 30)) == ()
