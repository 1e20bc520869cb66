"""Gain and read noise from mean and variance, whatever the point response does to the variance."""

from __future__ import annotations

import numpy as np
import pytest

from quietray.detector.noise.correlation import measure_correlation
from quietray.detector.noise.exposures import exposures_of
from quietray.detector.noise.photon_transfer import photon_transfer
from quietray.detector.noise.static import NoiseSource, survey_frames
from quietray.diagnose import diagnose
from quietray.errors import NoiseError, SettingsError
from quietray.simulate.noise import Scintillator
from test_correlation import frames_of
from test_diagnose import SHAPE, simulated


def level(frames, **source):
    static = survey_frames(NoiseSource("flats", frames, **source))
    return static, measure_correlation(static)


def darks_of(detector, seed=7):
    return level(frames_of(detector, 12, photons=0.0, seed=seed), levelled=False)


@pytest.mark.parametrize("gain", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("width", [0.0, 0.5])
def test_the_gain_is_corrected_for_the_correlation(gain, width):
    detector = Scintillator(gain=gain, response_width=width, read_noise=3 * gain)
    found = photon_transfer(*level(frames_of(detector)), darks_of(detector))
    assert found.gain == pytest.approx(gain, rel=0.05)
    assert abs(found.gain - gain) < 4 * found.gain_error
    assert found.read_noise == pytest.approx(3 * gain, rel=0.02)
    assert found.photons == pytest.approx(400, rel=0.06)
    lowered = (detector.response**2).sum() + 9 / 400
    assert found.apparent_gain == pytest.approx(gain * lowered, rel=0.03)


def test_excess_needs_the_counts_per_photon():
    detector = Scintillator(gain=2.0, excess=1.3, response_width=0.4)
    frames = level(frames_of(detector))
    assert photon_transfer(*frames).excess is None
    found = photon_transfer(*frames, counts_per_photon=2.0)
    assert found.excess == pytest.approx(1.3, rel=0.05)
    assert found.gain == pytest.approx(2.6, rel=0.05)


def test_a_series_of_exposures_gives_gain_and_read_noise_without_darks():
    detector = Scintillator(gain=3.0, response_width=0.4, read_noise=20.0)
    series = [level(frames_of(detector, 30, photons=photons, seed=int(photons))) for photons in (50.0, 150.0, 800.0)]
    found = photon_transfer(*series[0], series=series[1:])
    assert found.gain == pytest.approx(3.0, rel=0.05)
    assert found.levels.shape == (2, 3)
    assert abs(found.nonlinearity) < 0.15
    with_darks = photon_transfer(*series[0], darks_of(detector), series=series[1:])
    assert with_darks.gain == pytest.approx(3.0, rel=0.04)
    assert with_darks.read_noise == pytest.approx(20, rel=0.02)
    assert with_darks.levels.shape == (2, 4)


def test_one_scene_of_many_intensities_gives_the_read_noise():
    detector = Scintillator(gain=1.0, response_width=0.0, read_noise=10.0)
    scene = np.broadcast_to(np.linspace(20, 600, 160), (60, 128, 160))
    frames = detector.sample(scene, np.random.default_rng(0))
    found = photon_transfer(*level(frames))
    assert found.read_noise_from == "fit"
    assert found.read_noise == pytest.approx(10, rel=0.1)
    assert found.gain == pytest.approx(1, rel=0.05)
    mean, variance, summed, pixels = found.curve
    np.testing.assert_allclose(variance, mean + 100, rtol=0.05)
    assert np.abs(summed).max() < 0.2
    assert pixels.sum() == pytest.approx(128 * 160, rel=0.01)


def test_afterglow_is_taken_into_account():
    detector = Scintillator(gain=5.0, response_width=0.5, afterglow=0.2)
    found = photon_transfer(*level(frames_of(detector)))
    assert found.gain == pytest.approx(5, rel=0.05)


def test_rounding_to_integers_is_no_signal():
    frames = np.rint(0.5 * np.random.default_rng(0).poisson(30, (40, 96, 96))).astype(np.uint16)
    found = photon_transfer(*level(frames))
    assert found.read_noise == pytest.approx((1 / 12) ** 0.5)
    assert found.gain == pytest.approx(0.5, rel=0.04)


def test_frames_without_light_are_refused():
    frames = np.random.default_rng(0).normal(-5, 1, (10, 32, 32)).astype(np.float32)
    with pytest.raises(NoiseError, match="must be exposed"):
        photon_transfer(*level(frames, levelled=False))


def test_exposures_are_told_apart_by_their_brightness():
    detector = Scintillator(gain=3.0, dark=100.0, read_noise=5.0, response_width=0.4, flicker=0.02)
    levels = (100.0, 200.0, 400.0, 800.0)
    frames = np.concatenate([frames_of(detector, 12, photons=photons, seed=int(photons)) for photons in levels])
    mixed = frames[np.random.default_rng(0).permutation(len(frames))]
    for stack, in_turn in ((frames, True), (mixed, False)):
        series = exposures_of(NoiseSource("static frames", stack, np.full(stack.shape[1:], 100, np.float32)))
        means = [float(np.mean(one.frames[:])) - 100 for one in series]
        assert means == pytest.approx([3 * photons for photons in reversed(levels)], rel=0.03)
        assert [one.n_frames for one in series] == [12] * 4
        assert [one.consecutive for one in series] == [in_turn] * 4


@pytest.mark.parametrize(
    "settings", [{"flicker": 0.05}, {"drift": 20.0}, {"zingers": 1e-3}, {"dead": 0.01, "hot": 0.01}]
)
def test_one_exposure_is_not_taken_apart(settings):
    source = NoiseSource("flats", frames_of(Scintillator(response_width=0.4, **settings)))
    assert exposures_of(source) == (source,)


def test_a_series_is_diagnosed_as_one():
    """Without its exposures told apart no frame is like another; with them, they give the gain."""
    model = Scintillator(gain=10.0, dark=100.0, read_noise=2.0, response_width=0.5)
    frames = np.concatenate([frames_of(model, 20, SHAPE, photons, seed=5) for photons in (100.0, 200.0, 400.0, 800.0)])
    found = diagnose(simulated(model), frames)
    assert found.figures["gain"] == pytest.approx(10, rel=0.05)
    assert abs(found.figures["nonlinearity"]) < 0.15
    exposures = found.figures["exposures"]
    assert [one["mean"] for one in exposures] == pytest.approx([8000, 4000, 2000, 1000], rel=0.01)
    assert [one["variance"] / one["mean"] for one in exposures] == pytest.approx([10 / 4.868] * 4, rel=0.05)
    assert [one["summed"] for one in exposures] == pytest.approx([3.868] * 4, abs=0.6), "it hangs on no signal"
    assert abs(found.after.summed) < 0.3


def test_darks_and_signal_are_among_the_figures():
    rows = Scintillator(gain=5.0, dark=100.0, read_noise=3.0, row_noise=4.0, response_width=0.5)
    figures = diagnose(simulated(rows), counts_per_photon=2.5).figures
    assert figures["darks"]["row_share"] == pytest.approx(16 / 25, rel=0.1)
    assert abs(figures["darks"]["summed"]) < 4 * figures["darks"]["summed_error"]
    assert figures["excess"] == pytest.approx(2, rel=0.05)
    assert len(figures["signal"]["mean"]) == len(figures["signal"]["summed"]) == 16
    with pytest.raises(SettingsError, match="positive"):
        diagnose(simulated(rows), counts_per_photon=0.0)
