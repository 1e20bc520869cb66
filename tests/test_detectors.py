"""Several detectors in one scan: each has its own flats, darks, bad pixels and point response."""

from __future__ import annotations

import dataclasses
import json

import h5py
import numpy as np
import pytest

import quietray
from quietray.cli import main
from quietray.detector.correction.correct import Correction, calibrate, correct_rows
from quietray.detector.response.decorrelate import decorrelate, reblur, response_of, whiten
from quietray.detector.response.response import PointResponse
from quietray.diagnose import diagnose
from quietray.errors import FormatError, NoiseError, SettingsError
from quietray.geometry import ParallelBeam
from quietray.io import read, write_scan
from quietray.scan import Scan, interleaved
from quietray.simulate.noise import Scintillator
from test_correlation import measured
from test_diagnose import centred

NARROW = Scintillator(response_width=0.3, dark=100.0)
WIDE = Scintillator(response_width=0.8, dark=250.0, gain=2.0)
SHAPE = (128, 160)
N_VIEWS, N_FLATS = 80, 50


def in_turn(models, n_views=N_VIEWS, n_flats=N_FLATS, shape=SHAPE, seed=0):
    """A cylinder with air on both sides; the detectors take views, flats and darks in turn."""
    rng = np.random.default_rng(seed)
    cols = np.arange(shape[1]) - (shape[1] - 1) / 2
    view = 400 * np.exp(-0.02 * np.sqrt(np.clip((0.25 * shape[1]) ** 2 - cols**2, 0, None)))

    def frames(light, count):
        numbers = np.arange(count * len(models)) % len(models)
        parts = {n: model.sample(np.full((count, *shape), light), rng) for n, model in enumerate(models)}
        return np.asarray(interleaved(parts, numbers)[:]), numbers

    projections, detectors = frames(view, n_views // len(models))
    flats, flat_detectors = frames(400.0, n_flats)
    darks, dark_detectors = frames(0.0, 6)
    beam = ParallelBeam(np.linspace(0, np.pi, len(projections), endpoint=False), *shape)
    return Scan(
        projections,
        beam,
        flats,
        darks,
        detectors=detectors,
        flat_detectors=flat_detectors,
        dark_detectors=dark_detectors,
    )


@pytest.fixture(scope="module")
def pair():
    return in_turn((NARROW, WIDE))


@pytest.fixture(scope="module")
def found(pair):
    return diagnose(pair)


def test_each_kernel_is_recovered(found):
    for number, model in enumerate((NARROW, WIDE)):
        kernel = found.response.of(number).kernel
        truth = centred(model.response, kernel.shape[0])
        assert np.abs(kernel - truth).sum() < 0.1
        assert np.abs(kernel - truth).sum() < 0.25 * np.abs(found.response.of(1 - number).kernel - truth).sum()
        assert found.detectors[number].figures["gain"] == pytest.approx(model.gain, rel=0.05)


def test_each_detector_is_whitened_by_its_own_response(pair, found):
    fresh = in_turn((NARROW, WIDE), seed=1)
    white = decorrelate(fresh, found.response)
    for part in white.by_detector().values():
        assert abs(measured(part.flats).summed) < 0.1
    common = decorrelate(fresh, found.detectors[1].response)
    assert abs(measured(common.by_detector()[0].flats).summed) > 0.5, "one response for both does not whiten"
    assert white.projections[3:7].shape == (4, *SHAPE)
    np.testing.assert_array_equal(white.projections[5], decorrelate(fresh, found.response).projections[:][5])


def test_verdicts_are_the_least_favourable(found):
    assert found.verdict("noise2self").answer == "not valid"
    assert found.verdict("noise2self").reason.startswith("Detector")
    assert found.verdict("noise2self after decorrelation").answer == "valid"
    assert found.verdict("noise2inverse").answer == "valid", "80 views of both detectors are enough"
    assert found.before.summed == max(one.before.summed for one in found.detectors.values())
    record = json.loads(json.dumps(found.record()))
    assert record["detectors"]["0"]["summed"] < record["detectors"]["1"]["summed"]


def test_one_white_detector_does_not_excuse_the_other():
    found = diagnose(in_turn((Scintillator(dark=100.0), WIDE), n_views=40, n_flats=20, shape=(64, 96)))
    assert found.label == "correlated and white"
    assert found.detectors[0].verdict("noise2self").answer == "valid"
    assert found.verdict("noise2self").answer == "not valid"
    assert found.source_why.startswith("Detector 1")


def test_views_are_divided_by_the_flats_of_their_own_detector(pair):
    settings = Correction(zingers=0.0, air="none", rings="none")
    rows = slice(0, 8)
    calibration = calibrate(pair, settings)
    sinograms, changed = correct_rows(pair.read(rows), calibration, rows)
    assert changed.total == sinograms.size
    for number, part in pair.by_detector().items():
        alone, _ = correct_rows(part.read(rows), calibrate(part, settings), rows)
        np.testing.assert_array_equal(sinograms[:, number::2], alone)
    shared = dataclasses.replace(pair, detectors=None, flat_detectors=None, dark_detectors=None)
    wrong, _ = correct_rows(shared.read(rows), calibrate(shared, settings), rows)
    air = sinograms[:, :, :20].mean(), wrong[:, ::2, :20].mean()
    assert abs(air[0]) < 0.005 < 0.2 < air[1]


def test_what_is_bad_in_one_detector_is_mended_in_its_views_only(pair):
    hurt = np.array(pair.flats)
    hurt[0::2, 40, 50] = 100  # dead in detector 0
    scan = dataclasses.replace(pair, flats=hurt)
    calibration = calibrate(scan, Correction(zingers=0.0, air="none", rings="none"))
    assert calibration.bad[40, 50]
    assert calibration.of_view(0).bad[40, 50]
    assert not calibration.of_view(1).bad[40, 50]
    assert any(note.startswith("Detector 0: 1 of") for note in calibration.notes)
    white = decorrelate(scan, PointResponse(np.ones((1, 1))), calibration)
    raw = pair.projections[:, 40, 50]
    assert (np.abs(white.projections[1::2][:, 40, 50] - (raw[1::2] - calibration.parts[1].dark[40, 50])) < 1e-2).all()
    assert (np.abs(white.projections[0::2][:, 40, 50] - (raw[0::2] - calibration.parts[0].dark[40, 50])) > 1e-2).any()


def test_the_file_keeps_everything_and_the_way_back(pair, found, tmp_path):
    stored = read(write_scan(tmp_path / "pair.h5", pair))
    for name in ("detectors", "flat_detectors", "dark_detectors"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(pair, name))
    with h5py.File(tmp_path / "pair.h5") as file:
        assert file["exchange/detector"][:4].tolist() == [0, 1, 0, 1]
    white = read(write_scan(tmp_path / "white.h5", decorrelate(stored, found.response)))
    kept = response_of(white)
    for number in (0, 1):
        np.testing.assert_allclose(kept.of(number).kernel, found.response.of(number).kernel, atol=1e-6)
    again = reblur(white)
    darks = [np.mean(part.darks[:], axis=0) for part in pair.by_detector().values()]
    wanted = pair.projections - np.stack(darks)[pair.detectors]
    np.testing.assert_allclose(again.projections[:][:, 8:-8, 8:-8], wanted[:, 8:-8, 8:-8], atol=3.0)
    np.testing.assert_array_equal(again.detectors, pair.detectors)
    assert response_of(again) is None


def test_shared_flats_become_one_set_for_each_detector(pair, found):
    flats = np.full((6, *SHAPE), 500.0, np.float32)
    shared = dataclasses.replace(
        pair, flats=flats, darks=np.full((3, *SHAPE), 100.0, np.float32), flat_detectors=None, dark_detectors=None
    )
    assert [part.flats.shape[0] for part in shared.by_detector().values()] == [6, 6]
    white = decorrelate(shared, found.response, calibrate(shared, Correction(rings="none", air="none")))
    assert white.flats.shape[0] == 12
    assert white.flat_detectors.tolist() == [0] * 6 + [1] * 6
    np.testing.assert_allclose(white.flats[::5], 400, rtol=1e-3)


def test_slices_and_choices_keep_the_numbers(pair):
    assert pair[1:10:3].detectors.tolist() == [1, 0, 1]
    assert pair[np.array([3, 4])].detectors.tolist() == [1, 0]
    part = pair[::-1].by_detector()[1]
    np.testing.assert_array_equal(part.projections[:2], pair.projections[[-1, -3]])
    assert part.geometry.angles.tolist() == pair.geometry.angles[::-1][0::2].tolist()
    only = pair[::2].by_detector()
    assert list(only) == [0]
    np.testing.assert_array_equal(only[0].flats[:], pair.flats[::2])


def test_interleaved_frames_are_those_of_their_parts(rng):
    numbers = rng.integers(0, 3, 40)
    numbers[:3] = 0, 1, 2
    whole = rng.random((40, 5, 6)).astype(np.float32)
    parts = {n: whole[numbers == n] for n in range(3)}
    frames = interleaved(parts, numbers)
    assert frames.shape == whole.shape
    for key in (slice(None), slice(3, 30, 4), slice(20, 2, -3), slice(5, 5), 7, -1):
        np.testing.assert_array_equal(frames[key], whole[key])
        np.testing.assert_array_equal(frames[key, 1:4, ::2], whole[key, 1:4, ::2])


def test_a_single_number_changes_no_bit(pair):
    """A scan that says that one detector took it is the scan that says nothing."""
    alone = pair.by_detector()[1]
    told = dataclasses.replace(alone, detectors=np.full(alone.n_views, 7))
    rows = slice(10, 14)
    settings = Correction()
    first, _ = correct_rows(alone.read(rows), calibrate(alone, settings), rows)
    second, _ = correct_rows(told.read(rows), calibrate(told, settings), rows)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(diagnose(told).response.of(7).kernel, diagnose(alone).response.kernel)


def test_static_frames_belong_to_a_detector(pair):
    static = WIDE.sample(np.full((12, *SHAPE), 300.0), np.random.default_rng(3))
    found = diagnose(pair, {1: static})
    assert found.detectors[1].source == "static frames"
    assert found.detectors[0].source == "flats"
    for wrong in (static, {2: static}):
        with pytest.raises(SettingsError, match="each detector"):
            diagnose(pair, wrong)
    with pytest.raises(SettingsError, match="one detector"):
        diagnose(pair.by_detector()[0], {0: static})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"detectors": np.zeros(3, int)}, "views must be 80"),
        ({"detectors": np.full(80, -1)}, "none negative"),
        ({"detectors": None}, "number them, too"),
        ({"flat_detectors": np.zeros(100, int)}, "none for detector 1"),
        ({"dark_detectors": np.zeros(2, int)}, "darks must be 12"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(pair, change, message):
    with pytest.raises(FormatError, match=message):
        dataclasses.replace(pair, **change)


def test_responses_and_frames_must_belong_together(pair, found):
    with pytest.raises(NoiseError, match="of one detector"):
        whiten(pair.projections, found.response)
    several = PointResponse.together({4: PointResponse(np.ones((1, 1)))})
    with pytest.raises(NoiseError, match="none for detector 0"):
        decorrelate(pair, several)


def test_numbers_in_a_file_must_be_whole(pair, tmp_path):
    path = write_scan(tmp_path / "scan.h5", pair)
    with h5py.File(path, "r+") as file:
        del file["exchange/detector"]
        file["exchange/detector"] = np.linspace(0, 1, 80)
    with pytest.raises(FormatError, match="integer detector numbers"):
        read(path)


@pytest.mark.slow
def test_simulated_pairs_and_the_commands(tmp_path, capsys):
    foam = quietray.Foam.packed(8, 0.5, np.random.default_rng(0), largest=0.2)
    beam = ParallelBeam(np.linspace(0, np.pi, 24, endpoint=False), 64, 96)
    scan = quietray.acquire(foam, beam, photons=400.0, detector=(NARROW, WIDE), n_flats=40, n_darks=6)
    path = write_scan(tmp_path / "scan.h5", scan)
    alone = quietray.acquire(foam, beam[1::2], photons=400.0, detector=WIDE, n_flats=1)
    np.testing.assert_allclose(scan.clean[1::2], alone.clean[:], atol=1e-4)
    assert scan.flats.shape[0] == 80
    main(["diagnose", str(path)])
    shown = capsys.readouterr().err
    assert "detector 0" in shown
    assert "detector 1" in shown
    main(["decorrelate", str(path), "--out", str(tmp_path / "white.h5")])
    main(["decorrelate", str(tmp_path / "white.h5"), "--reblur", "--out", str(tmp_path / "back.h5")])
    back = read(tmp_path / "back.h5")
    darks = [np.asarray(part.darks[:], np.float32).mean(axis=0) for part in scan.by_detector().values()]
    wanted = scan.projections[:] - np.stack(darks)[scan.detectors]
    apart = np.abs(back.projections[:] - wanted)[:, 8:-8, 8:-8]
    assert (apart > 6).mean() < 1e-3, "but for zingers"
