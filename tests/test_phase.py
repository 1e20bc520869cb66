"""Phase retrieval: against closed forms, a propagated wave, and another library's filter; and in whole runs."""

import dataclasses

import h5py
import numpy as np
import pytest
from scipy.special import erf

import quietray
from quietray import Correction, Noise2Inverse, ParallelBeam, Phase, Scan, Settings
from quietray.assessment.withheld import RingFilter
from quietray.cli import main
from quietray.detector.correction.phase import alpha_of, retrieve
from quietray.diagnose import diagnose
from quietray.domains.compare import _candidates, _Held, measured
from quietray.domains.volume import VolumeDomain
from quietray.errors import GeometryError, SettingsError
from quietray.geometry import ConeBeam
from quietray.running.run import Run
from quietray.running.watch import Watch
from quietray.settings import from_dict, to_dict
from scans import content, in_slabs, quick, short_report

ENERGY, DISTANCE, PIXEL, RATIO = 25.0, 60.0, 2e-3, 300.0  # keV, mm, mm, delta / beta
WAVELENGTH = 12.398419843e-7 / ENERGY  # mm
ALPHA = WAVELENGTH * DISTANCE * RATIO / (4 * np.pi * PIXEL**2)


def test_a_measured_edge_comes_back_by_the_closed_form():
    x, width = np.arange(400) - 199.5, 12.0
    contact = 0.75 + 0.2 * erf(x / width)  # transmission of the object
    bend = 0.2 * 2 / np.sqrt(np.pi) * np.exp(-((x / width) ** 2)) * -2 * x / width**3  # its second derivative
    measured_at_distance = np.tile((contact - 30.0 * bend).astype(np.float32), (2, 16, 1))
    assert np.abs(measured_at_distance - contact).max() > 0.03
    assert np.allclose(retrieve(measured_at_distance, 30.0), contact, rtol=1e-3)


def propagated(thickness, fine):
    """Intensity behind an object of one material at the distance, from the wave itself; pixels are means of `fine`."""
    mu = 0.6  # per mm
    beta = mu * WAVELENGTH / (4 * np.pi)
    wave = np.exp(-(2j * np.pi / WAVELENGTH * RATIO * beta + mu / 2) * thickness)
    cycles = np.fft.fftfreq(len(thickness), PIXEL / fine)
    far = np.fft.ifft(np.fft.fft(wave) * np.exp(-1j * np.pi * WAVELENGTH * DISTANCE * cycles**2))
    return tuple((np.abs(one) ** 2).reshape(-1, fine).mean(axis=1) for one in (far, wave))


@pytest.mark.parametrize("retrieval", ["paganin", "generalised"])
def test_the_edge_of_one_material_comes_back_from_its_wave(retrieval):
    fine = 16
    x = (np.arange(512 * fine) + 0.5) / fine - 256
    thickness = 0.2 * (erf((x + 110) / 3) - erf((x - 110) / 3))  # mm; two edges of three pixels
    at_distance, contact = propagated(thickness, fine)
    frame = np.tile(at_distance.astype(np.float32), (1, 8, 1))
    found = retrieve(frame, ALPHA, retrieval)[0, 4]
    away = np.minimum(np.abs(np.arange(512) - 146), np.abs(np.arange(512) - 366))
    line = -np.log(found), -np.log(contact)
    assert np.abs(at_distance / contact - 1).max() > 0.1  # there is something to retrieve
    assert np.abs(line[0] - line[1])[away > 8].max() < 0.01 * line[1].max()
    assert np.abs(line[0] - line[1]).max() < 0.05 * line[1].max()  # where the edge is


def test_it_is_the_filter_of_another_library(rng):
    from algotom.prep.filtering import fresnel_filter

    y, x = np.mgrid[:96, :128]
    away = np.hypot(x - 64, y - 48)
    frame = 1 - 0.6 * np.exp(-((away / 12) ** 2)) + 0.02 * np.sin(x / 3) * (away < 20)
    wanted = fresnel_filter(frame, (2 * np.pi) ** 2 * 6.0, dim=2, pad=0, apply_log=False)
    found = retrieve(frame[None].astype(np.float32), 6.0)[0]
    assert np.abs(found - wanted).max() < 1e-3
    assert np.abs(frame - wanted).max() > 0.05


def test_the_generalised_form_takes_back_what_the_grid_does(rng):
    """It inverts the Laplacian of the pixels, mirrored at the edges, exactly."""
    contact = rng.uniform(0.2, 1, (3, 21, 34))
    wide = np.pad(contact, ((0, 0), (1, 1), (1, 1)), mode="symmetric")
    around = wide[:, 2:, 1:-1] + wide[:, :-2, 1:-1] + wide[:, 1:-1, 2:] + wide[:, 1:-1, :-2]
    frames = (contact - 2.5 * (around - 4 * contact)).astype(np.float32)
    assert np.allclose(retrieve(frames, 2.5, "generalised"), contact, atol=1e-4)
    assert not np.allclose(retrieve(frames, 2.5, "paganin"), contact, atol=1e-2)


def test_every_frame_is_filtered_by_itself_and_keeps_its_mean(rng):
    frames = rng.uniform(0.2, 1, (4, 40, 90)).astype(np.float32)
    found = retrieve(frames, 4.0)
    assert np.allclose(found[2:3], retrieve(frames[2:3], 4.0), atol=1e-6)
    assert found.std() < 0.3 * frames.std()
    assert np.allclose(retrieve(np.full((1, 40, 90), 0.3, np.float32), 400.0), 0.3, atol=1e-5)


def scan_of(n_rows=6, n_cols=64, n_views=120, photons=None, **told):
    """A cylinder of one material, off the axis, at a distance; exact but for the photons."""
    angles, pixel = np.linspace(0, np.pi, n_views, endpoint=False), told.pop("pixel_size", PIXEL)
    beam = ParallelBeam(angles, n_rows, n_cols, 31.5, pixel)
    edges = (np.arange(n_cols * 8) + 0.5) / 8 - 0.5 - 31.5
    views = []
    for angle in beam.angles:
        chord = 2 * np.sqrt(np.clip(18.0**2 - (edges - 5 * np.cos(angle)) ** 2, 0, None))
        contact = np.exp(-0.02 * np.convolve(np.pad(chord, 60, mode="edge"), np.hanning(39) / 19, "same")[60:-60])
        bend = np.gradient(np.gradient(contact, 1 / 8), 1 / 8)
        views.append((contact - 8.0 * bend).reshape(-1, 8).mean(axis=1))
    rng = np.random.default_rng(0)
    counts = 1000 * np.repeat(np.array(views)[:, None], n_rows, axis=1)
    flats = np.full((8, n_rows, n_cols), 1000.0)
    if photons:
        counts, flats = (1000 / photons * rng.poisson(photons / 1000 * frames) for frames in (counts, flats))
    return Scan(counts.astype(np.float32), beam, flats.astype(np.float32), provenance=told)


RETRIEVED = Phase(alpha=8.0)


def test_the_reconstruction_is_that_of_the_object():
    scan = scan_of()
    y, x = np.mgrid[:64, :64] - 31.5
    inside, edge = np.hypot(x - 5, y) < 14, np.abs(np.hypot(x - 5, y) - 18) < 4
    bent, found = (quietray.reconstruct(scan, phase=phase) for phase in (None, RETRIEVED))
    assert found[2][inside].mean() == pytest.approx(0.02 / PIXEL, rel=0.01)
    assert found[2][edge].min() > -0.1 * 0.02 / PIXEL
    assert bent[2][edge].min() < -0.5 * 0.02 / PIXEL  # what phase does to an edge


def test_slabs_do_not_change_a_bit(monkeypatch):
    scan = scan_of(n_rows=12, n_views=20, photons=500)
    whole = quietray.reconstruct(scan, phase=RETRIEVED)
    in_slabs(monkeypatch)
    assert np.array_equal(whole, quietray.reconstruct(scan, phase=RETRIEVED))
    some = quietray.reconstruct(scan, phase=RETRIEVED, rows="3:5")
    assert np.array_equal(whole[3:5], some)


def test_only_rows_that_are_asked_for_are_filtered_as_far_as_it_reaches():
    scan = scan_of(n_rows=60, n_views=20, photons=500)
    phase = Phase(alpha=1.0)  # which reaches over 13 rows
    whole = quietray.reconstruct(scan, phase=phase, rotation_axis=31.5)
    said = []

    class Told(Watch):
        def note(self, text):
            said.append(text)

    some = quietray.reconstruct(scan, phase=phase, rows="20:24", rotation_axis=31.5, watch=Told())
    assert np.abs(some - whole[20:24]).max() < 5e-4 * np.abs(whole).max()  # 1.2e-4: single precision, and e^-12
    assert any("only in rows 7 to 36" in note for note in said)


def test_frames_that_memory_does_not_hold_go_to_a_file():
    scan = scan_of(n_views=30)
    one = quietray.reconstruct(scan, phase=RETRIEVED)
    import quietray.preparation.retrieval as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_IN_MEMORY", 0.0)
        assert np.array_equal(one, quietray.reconstruct(scan, phase=RETRIEVED))


def test_what_it_takes_comes_from_the_scan_or_from_the_user():
    scan = scan_of(n_views=4, energy_kev=ENERGY)
    alpha, said = alpha_of(Phase(delta_beta=RATIO, distance=DISTANCE), scan)
    assert alpha == pytest.approx(ALPHA, rel=1e-9)
    assert "25 keV as the file says" in said
    twice, said = alpha_of(Phase(delta_beta=RATIO, distance=DISTANCE, energy=2 * ENERGY), scan)
    assert twice == pytest.approx(ALPHA / 2, rel=1e-9)
    assert "as the file says" not in said
    with pytest.raises(SettingsError, match="distance="):
        alpha_of(Phase(delta_beta=RATIO), scan)
    with pytest.raises(GeometryError, match="pixel_size="):
        alpha_of(Phase(delta_beta=RATIO, distance=DISTANCE), scan_of(n_views=4, energy_kev=ENERGY, pixel_size=None))
    with pytest.raises(SettingsError, match="delta_beta="):
        Phase(energy=ENERGY)
    with pytest.raises(SettingsError, match="both"):
        Phase(delta_beta=RATIO, alpha=1.0)


def test_settings_keep_it():
    for phase in (None, Phase(delta_beta=RATIO, retrieval="generalised"), RETRIEVED):
        assert from_dict(Settings, to_dict(Settings(phase=phase))).phase == phase


def test_behind_a_point_source_distance_and_pixel_are_those_at_the_object():
    beam = ConeBeam.circular(np.linspace(0, 6, 4), 4, 8, 100.0, 100.0 + DISTANCE, pixel_size=PIXEL)
    cone = Scan(np.ones((4, 4, 8), np.float32), beam)
    larger = 1 + DISTANCE / 100
    phase = Phase(delta_beta=RATIO, distance=DISTANCE, energy=ENERGY)
    assert alpha_of(phase, cone)[0] == pytest.approx(ALPHA * larger, rel=1e-6)


def test_nxtomo_and_dxchange_tell_energy_and_distance(tmp_path):
    for ending in ("nx", "h5"):
        path = quietray.write_scan(tmp_path / f"scan.{ending}", scan_of(n_views=4))
        with h5py.File(path, "a") as file:
            if ending == "nx":
                places = {
                    "entry/instrument/beam/incident_energy": (25000.0, "eV"),
                    "entry/instrument/detector/distance": (0.06, "m"),
                }
            else:
                places = {
                    "measurement/instrument/monochromator/energy": (25.0, "keV"),
                    "measurement/instrument/detector/distance": (60.0, "mm"),
                }
            for place, (value, unit) in places.items():
                file[place] = value
                file[place].attrs["units"] = unit
        alpha, said = alpha_of(Phase(delta_beta=RATIO), quietray.read(path))
        assert alpha == pytest.approx(ALPHA, rel=1e-6)
        assert said.count("as the file says") == 2
        assert quietray.read(path).describe()["energy"] == "25 keV"


@pytest.mark.parametrize("method", ["noise2self", "noise2void", "noise2projection"])
def test_methods_that_take_a_pixels_noise_for_its_own_are_refused(method):
    with pytest.raises(SettingsError, match="use noise2inverse"):
        quietray.denoise(scan_of(n_views=16), method=method, phase=RETRIEVED)


def test_line_integrals_have_no_phase():
    scan = dataclasses.replace(scan_of(n_views=16), flats=None)
    with pytest.raises(SettingsError, match="line_integrals=True"):
        quietray.reconstruct(scan, phase=RETRIEVED, correction=quietray.Correction(line_integrals=True))


def test_diagnose_and_comparison_rule_blind_spots_out():
    scan = scan_of(photons=200)
    assert diagnose(scan).verdict("noise2self").answer == "valid"
    run = measured(scan, Run.in_memory(quick(phase=RETRIEVED, rotation_axis=None)))
    assert run.diagnosis.verdict("noise2inverse").answer == diagnose(scan).verdict("noise2inverse").answer
    assert run.diagnosis.recommended == "noise2inverse"
    allowed, left_out = _candidates(run.settings, run.diagnosis, 12)
    assert "noise2inverse 2-D" in dict(allowed)
    assert "noise2self" in dict(left_out)
    assert "no blind spot hides it" in dict(left_out)["noise2self"]


def test_the_judge_of_a_comparison_sees_retrieved_views():
    run = measured(scan_of(photons=200, n_views=200), Run.in_memory(quick(phase=RETRIEVED, rotation_axis=None)))
    known = run.calibrated
    held = _Held.out_of(known.scan, known.calibration.settings)
    sinograms = held.judge.sinograms
    assert np.allclose(sinograms, -np.log(known.scan.read(slice(0, 6))).transpose(1, 0, 2), atol=1e-4)


def test_a_ring_filter_after_the_retrieval_is_known_to_the_estimate():
    """It acts on all views alike, wherever it comes."""
    settings = Settings(
        method=Noise2Inverse(slices=1), phase=RETRIEVED, correction=Correction(rings="sorting"), symmetries=1
    )
    run = Run.in_memory(settings)
    scans = [scan_of(8, n_views=144, photons=500.0)]
    judged = VolumeDomain.prepare(run, scans, VolumeDomain.bound(run, scans)).judged()
    assert isinstance(judged.blind(), RingFilter)


def test_a_run_denoises_and_goes_on_with_the_frames_that_it_kept(tmp_path, monkeypatch):
    short_report(monkeypatch)
    import quietray.preparation.retrieval as module

    scan = scan_of(photons=300, n_views=60)
    settings = quick(phase=RETRIEVED, rotation_axis=31.5, method=Noise2Inverse(parts=2, slices=1))
    done = quietray.denoise(scan, settings=settings)
    assert any("Paganin" in note for note in done.notes)

    def killed(*args, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("quietray.domains.volume.VolumeDomain.apply", killed)
        with pytest.raises(KeyboardInterrupt):
            quietray.denoise(scan, tmp_path / "run", settings)
    assert list((tmp_path / "run" / ".work").glob("retrieved-*.npy"))
    monkeypatch.setattr(module, "_corrected", killed)  # nothing is made again
    again = quietray.denoise(scan, tmp_path / "run", settings, resume=True)
    assert np.array_equal(np.asarray(again.volume), np.asarray(done.volume))
    assert "retrieved" not in " ".join(content(tmp_path / "run"))


def test_commands(tmp_path, capsys):
    path = quietray.write_scan(tmp_path / "scan.h5", scan_of(photons=300, n_views=60))
    physics = ["--delta-beta", "300", "--energy", "25", "--distance", "60"]
    main(["reconstruct", str(path), *physics, "--format", "h5", "--out", str(tmp_path / "volume.h5")])
    said = " ".join(capsys.readouterr().err.split())
    assert "Phase retrieved by Paganin's filter (delta/beta 300, 25 keV, 60 mm, pixels of 0.002 mm)" in said
    main(["diagnose", str(path), *physics, "--json"])
    assert "no blind spot hides it" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["decorrelate", str(path), *physics, "--out", str(tmp_path / "white.h5")])
    assert "without phase retrieval" in " ".join(capsys.readouterr().err.split())
