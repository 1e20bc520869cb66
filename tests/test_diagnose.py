"""Diagnosis of simulated detectors, whose truth is known, and of measured scans, whose noise is known."""

from __future__ import annotations

import dataclasses
import json
from functools import lru_cache

import numpy as np
import pytest

import quietray
from quietray.detector.noise.memory import Memory
from quietray.detector.noise.rings import Rings
from quietray.detector.verdicts import Findings, judge
from quietray.diagnose import diagnose
from quietray.errors import NoiseError
from quietray.geometry import ParallelBeam
from quietray.scan import Scan
from quietray.simulate.noise import Scintillator

PHOTONS = 400.0
SHAPE = (128, 192)


def simulated(detector, *, n_flats=50, n_views=64, seed=0, shape=SHAPE, photons=PHOTONS):
    """A scan of a cylinder with air on both sides."""
    rng = np.random.default_rng(seed)
    cols = np.arange(shape[1]) - (shape[1] - 1) / 2
    depth = np.sqrt(np.clip((0.25 * shape[1]) ** 2 - cols**2, 0, None))
    view = photons * np.exp(-0.02 * depth)
    views = np.broadcast_to(view, (n_views, *shape))
    return Scan(
        detector.sample(views, rng, first_frame=n_flats),
        ParallelBeam(np.linspace(0, np.pi, n_views, endpoint=False), *shape),
        detector.sample(np.full((n_flats, *shape), photons), rng),
        detector.sample(np.zeros((12, *shape)), rng),
    )


def centred(kernel, size):
    out, c, r = np.zeros((size, size)), size // 2, kernel.shape[0] // 2
    q = min(c, r)
    out[c - q : c + q + 1, c - q : c + q + 1] = kernel[r - q : r + q + 1, r - q : r + q + 1]
    return out


def whitening_kernel(detector, size):
    """The symmetric root of ``h * h + read noise``, in closed form: what whitens photon and read noise together."""
    light = PHOTONS * detector.gain**2
    response = np.fft.fft2(centred(detector.response, 63))
    root = np.fft.fftshift(np.fft.ifft2(np.sqrt(light * np.abs(response) ** 2 + detector.read_noise**2)).real)
    kernel = centred(root, size)
    return kernel / kernel.sum()


def detector(**settings):
    gain = settings.get("gain", 1.0)
    return Scintillator(**{"dark": 100.0, "read_noise": 0.5 * gain, **settings})


BLURRED = ("not valid", "not valid", "valid", "valid", "not valid")
DETECTORS = {
    "white": (detector(), ("valid", "valid", "valid", "valid", "not valid")),
    "laplace 0.3": (detector(response_width=0.3), BLURRED),
    "laplace 0.5": (detector(response_width=0.5), BLURRED),
    "laplace 0.75": (detector(response_width=0.75), BLURRED),
    "laplace 1.0": (detector(response_width=1.0), BLURRED),
    "gaussian": (detector(response_width=0.55, response_shape="gaussian"), BLURRED),
    "flicker": (detector(response_width=0.5, flicker=0.005), BLURRED),
    "drift": (detector(response_width=0.5, drift=0.01 * 1000 / 114), BLURRED),
    "read noise": (detector(response_width=0.5, read_noise=0.7 * 20 / 4.87**0.5), BLURRED),
    "row noise": (
        detector(response_width=0.5, row_noise=4.0),
        ("not valid", "not valid", "not valid", "valid", "not valid"),
    ),
    "bad pixels": (detector(response_width=0.5, stuck=0.002, unstable=0.002), BLURRED),
    "gain 0.1": (detector(response_width=0.5, gain=0.1), BLURRED),
    "gain 100": (detector(response_width=0.5, gain=100.0), BLURRED),
    "afterglow": (
        detector(response_width=0.5, afterglow=0.05),
        ("not valid", "not valid", "valid", "valid with a warning", "not valid"),
    ),
}


@lru_cache
def diagnosed(name):
    return diagnose(simulated(DETECTORS[name][0]))


REPEATED = ("laplace 0.3", "laplace 0.75", "drift", "gain 0.1")  # what others tell, too


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in REPEATED else ()) for name in DETECTORS]
)
def test_simulated_detectors(name):
    model, answers = DETECTORS[name]
    found = diagnosed(name)
    assert tuple(verdict.answer for verdict in found.verdicts) == answers
    assert found.figures["gain"] == pytest.approx(model.gain, rel=0.05)
    assert abs(found.figures["gain"] - model.gain) < 4 * found.figures["gain_error"]
    kernel = found.response.kernel
    truth = whitening_kernel(model, kernel.shape[0])
    assert np.abs(kernel - truth).sum() < 0.1
    assert found.source == "flats"
    assert found.label.startswith("white" if name == "white" else "correlated")
    assert ("row noise" in found.label) == (name == "row noise")
    json.dumps(found.record())
    if name != "white":
        assert found.figures["checked_on"] == "air columns"
        assert abs(found.after.summed) < 0.3
        assert found.figures["read_noise"] == pytest.approx(np.hypot(model.read_noise, model.row_noise), rel=0.05)


def test_figures_beside_the_verdicts():
    flicker = diagnosed("flicker").figures
    assert flicker["flicker"] == pytest.approx(0.005, rel=0.35)  # 50 frames know it to 10 %
    rows = diagnosed("row noise").figures
    pixel = 400 / 4.87 + 0.25
    assert rows["row_share"] == pytest.approx(16 / (16 + pixel), rel=0.1)
    after = diagnosed("afterglow").figures
    assert after["successive"] == pytest.approx(0.05 / (1 + 0.05**2), abs=4 * after["successive_error"])


def test_static_frames_are_preferred_and_allow_noise2noise():
    model = DETECTORS["laplace 0.5"][0]
    scene = PHOTONS * np.exp(-np.linspace(0, 1.5, SHAPE[1]))
    frames = model.sample(np.broadcast_to(scene, (40, *SHAPE)), np.random.default_rng(5))
    found = diagnose(simulated(model, n_flats=6, n_views=64), frames)
    assert found.source == "static frames"
    assert found.verdict("noise2noise").answer == "valid"
    assert found.figures["gain"] == pytest.approx(1.0, rel=0.05)
    mean, variance, summed, _ = found.transfer.curve
    assert variance[-1] / variance[0] == pytest.approx(mean[-1] / mean[0], rel=0.1)  # variance follows the signal
    assert np.ptp(summed) < 0.25 * summed.mean()  # correlation does not
    assert "40 repeated frames" in found.source_why


def test_flats_of_another_spectrum_are_told():
    wide, narrow = detector(response_width=0.5), detector(response_width=0.35)
    scan = dataclasses.replace(simulated(wide), flats=simulated(narrow, seed=3).flats)
    found = diagnose(scan)
    assert any("differ" in warning for warning in found.warnings)
    assert not any("differ" in warning for warning in diagnosed("laplace 0.5").warnings)


def test_neighbouring_views_are_the_last_resort():
    scan = simulated(DETECTORS["laplace 0.5"][0], n_flats=1)
    views = np.array(scan.projections)
    ramp = np.linspace(0.8, 1.25, SHAPE[1], dtype=np.float32)  # no column follows the flats: there is no air
    found = diagnose(dataclasses.replace(scan, projections=(views - 100) * ramp + 100))
    assert found.source == "neighbouring views"
    assert abs(found.before.summed - 3.87) < 4 * found.before.summed_error < 1
    assert found.verdict("noise2self").answer == "not valid"
    assert found.verdict("noise2inverse").answer == "valid with a warning"
    assert any("object moving" in warning for warning in found.warnings)


@pytest.mark.parametrize(("n_views", "n_flats", "message"), [(4, 1, "two or more flats"), (9, 6, "pixels that vary")])
def test_a_scan_without_any_noise_to_read_is_refused(n_views, n_flats, message):
    views, flats = np.full((n_views, 20, 20), 50.0, np.float32), np.full((n_flats, 20, 20), 99.0)
    with pytest.raises(NoiseError, match=message):
        diagnose(Scan(views, ParallelBeam(np.arange(float(n_views)), 20, 20), flats))


def remembering(share):
    return Memory((share, 0.0, 0.0), tuple(map(tuple, 1e-6 * np.eye(3))), "air columns", 64)


@pytest.mark.parametrize(
    ("change", "method", "answer"),
    [
        ({}, "noise2self after decorrelation", "valid"),
        ({"after_infill": 0.2}, "noise2self after decorrelation", "not valid"),
        ({"after_infill": 0.05}, "noise2self after decorrelation", "valid with a warning"),
        ({"refused": "The transform vanishes."}, "noise2self after decorrelation", "not valid"),
        ({"condition": 80.0}, "noise2self after decorrelation", "valid with a warning"),
        ({"uneven": True}, "noise2self after decorrelation", "valid with a warning"),
        ({"infill": 0.1}, "noise2self", "valid with a warning"),
        ({"row_share": 0.03, "infill": 0.0, "summed": 0.0}, "noise2self", "valid with a warning"),
        ({"column_share": 0.2, "infill": 0.0, "summed": 0.0}, "noise2void", "not valid"),
        ({}, "noise2inverse", "valid"),
        ({"memory": None}, "noise2inverse", "valid with a warning"),
        ({"memory": remembering(0.05)}, "noise2inverse", "valid with a warning"),
        ({"memory": remembering(0.2)}, "noise2inverse", "not valid"),
        ({"n_flats": 3}, "noise2inverse", "valid with a warning"),
        ({"rings": Rings(0.09, 0.01, 1.0, 0.1, 0.01, "air columns")}, "noise2inverse", "valid"),
        ({"rings": Rings(0.3, 0.01, 20.0, 1.0, 0.02, "air columns")}, "noise2inverse", "valid with a warning"),
        ({"rings": Rings(0.3, 0.01, 20.0, 1.0, 0.02, "all columns")}, "noise2inverse", "valid"),
        ({"n_views": 32}, "noise2inverse", "valid with a warning"),
        ({"repeated": True, "successive": 0.1}, "noise2noise", "valid with a warning"),
        ({"repeated": True}, "noise2noise", "valid"),
    ],
)
def test_rules(change, method, answer):
    blurred = dict(summed=3.9, summed_error=0.1, infill=0.67, infill_error=0.01, memory=remembering(0.0))
    found = Findings(**{**blurred, **AFTER, **change})
    verdict = next(verdict for verdict in judge(found) if verdict.method == method)
    assert verdict.answer == answer
    assert verdict.reason.endswith(".")
    assert verdict.advice.endswith(".")


@pytest.mark.parametrize(("share", "independent"), [(0.0, True), (0.09, False)])
def test_a_correlation_far_from_none_is_not_called_independent(share, independent):
    rings = Rings(share, 0.002, 1.0, 0.1, 0.01, "air columns")
    found = Findings(3.9, 0.1, 0.67, 0.01, memory=remembering(0.0), rings=rings, **AFTER)
    verdict = next(verdict for verdict in judge(found) if verdict.method == "noise2inverse")
    assert ("is independent:" in verdict.reason) == independent
    assert ("except for a small share" in verdict.reason) == (not independent)


AFTER = {"after_summed": 0.0, "after_error": 0.05, "after_infill": 0.0}


@pytest.mark.slow
def test_psi_neutrons_are_correlated_and_can_be_whitened(real_data):
    found = diagnose(quietray.read(real_data("psi_neutron_ct/psi_ct5s375_128lines.h5")))
    assert found.source == "flats"
    assert found.figures["second"]["source"] == "air columns"
    assert abs(found.figures["second"]["summed"] - found.before.summed) < 0.3
    assert found.before.lags.shape == (13, 13)
    assert found.before.summed == pytest.approx(3.55, abs=3 * found.before.summed_error)
    sums = found.figures["summed_by_window"]  # 330 to 340 % is the sum over 9 x 9 lags
    assert sums["9 x 9"] == pytest.approx(3.3, abs=0.1)
    assert [sums[f"{n} x {n}"] for n in (3, 7, 11)] == pytest.approx([0.9, 2.85, 3.5], abs=0.12)
    assert sums["13 x 13"] == found.before.summed
    assert abs(found.after.summed) < 0.3
    assert found.figures["checked_on"] == "air columns"
    answers = [verdict.answer for verdict in found.verdicts]
    assert answers == ["not valid", "not valid", "valid", "valid", "not valid"]
    rings = found.figures["rings"]
    assert rings["share"] == pytest.approx(1 / 11, abs=0.01)  # ten flats, and nothing else
    assert rings["over_flats"] == pytest.approx(1, abs=0.1)
    assert np.abs(found.figures["memory"]["correlations"]).max() < 0.003
    halves = found.figures["subsets"][0]  # reconstructions from even and odd views correlate by 0.09 in air
    assert halves["correlation"] == pytest.approx(0.09, abs=0.01)


@pytest.mark.parametrize("name", ["diad", "i12"])
def test_white_detectors_get_a_delta(real_data, name):
    if name == "diad":
        path = real_data("dls_k11_diad/k11-18014.h5")
        scan = quietray.read(path, data="detector", image_key="image_key", angles="theta_deg")
    else:
        scan = quietray.read(real_data("dls_i12_24737_binned/dls_24737.h5"))
    found = diagnose(scan)
    assert found.label == "white"
    assert found.source == {"diad": "flats", "i12": "neighbouring views"}[name]
    assert found.verdict("noise2self").answer == "valid"
    kernel, errors = found.response.kernel, found.response.errors
    delta = np.zeros_like(kernel)
    delta[kernel.shape[0] // 2, kernel.shape[1] // 2] = 1
    assert np.abs((kernel - delta) / errors).max() < 4
    assert errors.max() < 0.1
