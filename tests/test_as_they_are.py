"""Scans as they really are: every frame is what it claims to be, or it is named and left out, or the run is refused."""

import dataclasses
import re

import numpy as np
import pytest

import quietray
from quietray.detector.correction.claims import claims_of, sound
from quietray.detector.correction.correct import Correction, calibrate
from quietray.detector.correction.glance import glance
from quietray.detector.correction.rotation import find_rotation_axis
from quietray.errors import GeometryError, QuietrayError
from quietray.geometry import ParallelBeam
from quietray.reconstruct.analytic import angular_weights
from turning import as_scan, likeness, line_integrals, measured

ALL = np.arange(180)
RANDOM = np.random.default_rng(1).permutation(180)[:15]
PLACES = {
    "at the start": ALL[:25],
    "in the middle": ALL[90:110],
    "at the end": ALL[130:],
    "every 10th": ALL[::10],
    "one": ALL[77:78],
    "here and there": np.sort(RANDOM),
}


@pytest.fixture(scope="module")
def whole():
    return measured()


def views_of(whole):
    views, flats, darks = whole
    return views.copy(), flats.copy(), darks.copy()


def left_out(scan, whole):
    """Return which of the views of a whole scan are missing, after looking at every frame."""
    degrees = np.rad2deg(sound(scan).geometry.angles)
    return np.setdiff1d(ALL, np.rint(degrees).astype(int))


def dark(shape):
    return np.rint(100 + np.random.default_rng(2).normal(0, 2, shape)).astype(np.uint16)


SPOILS = {
    "without beam": lambda views: dark(views.shape),
    "never written": lambda views: np.zeros_like(views),
    "filled": lambda views: np.full_like(views, 65535),
    "half the light": lambda views: (views - 100) // 3 + 100,
    "twice the light": lambda views: (views - 100) * 2 + 100,
    "saturated below full scale": lambda views: np.minimum(views * 1.3, 12000).astype(np.uint16),
    "saturated": lambda views: np.minimum(views * 4.0, 65535).astype(np.uint16),
}


def test_air_without_noise_is_no_mask() -> None:
    """Transmissions of a phantom are exactly one in air, and less elsewhere."""
    away = np.abs(np.arange(40) - 19.5)
    views = np.broadcast_to(np.where(away < 15, np.exp(-0.1 - 0.02 * (15 - away)), 1.0), (60, 8, 40))
    wobble = 1 - 0.01 * np.sin(np.arange(60))[:, None, None] * (away < 15)
    beam = ParallelBeam(np.linspace(0, np.pi, 60, endpoint=False), 8, 40)
    scan = quietray.Scan((views * wobble).astype(np.float32), beam)
    np.testing.assert_array_equal(sound(scan).projections[:], scan.projections)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("spoil", SPOILS)
def test_views_that_are_not_what_they_claim_are_named_and_left_out(whole, spoil, where):
    views, flats, darks = views_of(whole)
    bad = PLACES[where]
    views[bad] = SPOILS[spoil](views[bad])
    scan = as_scan(views, flats, darks, axis=45.3)
    if "light" in spoil and len(bad) > 45:  # a state of the beam rather than an accident
        assert "Correction(air=)" in refusal(scan)
        return
    assert left_out(scan, whole).tolist() == bad.tolist()
    notes = " ".join(sound(scan).notes)
    assert sum(int(count) for count in re.findall(r"\((\d+) of 180\)", notes)) == len(bad)
    assert "left out" in notes


def test_the_axis_of_a_scan_that_was_cut_short_is_told_by_the_centre_of_mass(whole):
    views, flats, darks = views_of(whole)
    views[130:] = 0
    scan = sound(as_scan(views, flats, darks))
    found = find_rotation_axis(scan, calibrate(scan, Correction()))
    assert (found.method, found.column) == ("centre of mass", pytest.approx(45.3, abs=0.1))
    alike, size = likeness(quietray.reconstruct(as_scan(views, flats, darks)))
    assert alike > 0.85
    assert size == pytest.approx(1, abs=0.02)


def test_a_scan_that_was_cut_short_is_refused_where_the_axis_cannot_be_told(whole):
    views, flats, darks = (stack[:, :, 25:70] for stack in views_of(whole))  # the object is wider than the detector
    views[130:] = 0
    scan = sound(as_scan(views, flats, darks))
    with pytest.raises(GeometryError, match="rotation_axis=") as told:
        find_rotation_axis(scan, calibrate(scan, Correction(air="none")))
    assert "130 degrees" in str(told.value)
    assert "Views 130 to 179 (50 of 180) were never written" in str(told.value)


def test_views_beside_a_gap_do_not_stand_for_all_of_it(whole):
    views, flats, darks = views_of(whole)
    views[90:110] = darks[0]
    weights = angular_weights(np.deg2rad(np.delete(ALL, np.arange(90, 110))))
    assert weights[89:91].max() == pytest.approx(2.5 * weights[0], rel=1e-3)  # half of four steps, and half of one
    assert weights.mean() == pytest.approx(1, rel=1e-6)
    alike, size = likeness(quietray.reconstruct(as_scan(views, flats, darks, axis=45.3)))
    assert alike > 0.94  # 0.926 where two views stand for 20
    assert size == pytest.approx(1, abs=0.01)


def test_line_integrals_of_nothing_are_left_out():
    lines = line_integrals(ALL) + np.random.default_rng(0).normal(0, 0.02, (180, 8, 96))
    lines[100:120] -= line_integrals(ALL[100:120])
    scan = sound(as_scan(lines.astype(np.float32), None, None), Correction(line_integrals=True))
    assert scan.notes == ("Views 100 to 119 (20 of 180) show nothing of the object: left out.",)


def test_views_that_were_written_in_part_or_twice_are_left_out(whole):
    views, flats, darks = views_of(whole)
    views[40, 5:] = 0
    views[100:104] = views[99]
    assert left_out(as_scan(views, flats, darks), whole).tolist() == [40, 100, 101, 102, 103]


def test_views_without_the_object_are_left_out(whole):
    views, flats, darks = views_of(whole)
    views[::20] = flats[:9]
    assert left_out(as_scan(views, flats, darks), whole).tolist() == ALL[::20].tolist()


@pytest.mark.parametrize("photons", [3, 50, 2000])
def test_nothing_is_left_out_of_a_sound_scan(photons):
    decay = np.linspace(1, 0.8, 180)
    scan = as_scan(*measured(photons=photons, light=decay))
    claims = claims_of(scan)
    assert claims.refusal is None
    assert claims.found == ()


def test_nothing_is_left_out_where_a_plate_stands_edge_on():
    """The light falls to nothing where one looks along the plate, but not abruptly."""
    degrees = np.arange(180.0)
    depth = 0.12 / np.maximum(np.abs(np.cos(np.deg2rad(degrees))), 0.02)
    views, flats, darks = measured(degrees)
    rng = np.random.default_rng(0)
    bright = 8 * rng.poisson(2000 * np.exp(-np.minimum(depth, 6))[:, None, None], views.shape) + 100
    assert claims_of(as_scan(bright.astype(np.uint16), flats, darks)).found == ()


SIDES = {
    "flats without beam": ("flats", slice(0, 7), lambda flats: dark(flats.shape)),
    "flats never written": ("flats", slice(15, 20), np.zeros_like),
    "flats saturated": ("flats", slice(3, 5), lambda flats: np.minimum(flats * 4.0, 65535).astype(np.uint16)),
    "flats with the sample": ("flats", slice(10, 14), lambda flats: flats * np.exp(-line_integrals(ALL[:4]))),
    "darks with beam": ("darks", slice(8, 10), lambda darks: darks + 15000),
}


@pytest.mark.parametrize("fault", SIDES)
def test_flats_and_darks_that_are_none_are_left_out(whole, fault):
    views, flats, darks = views_of(whole)
    name, where, spoil = SIDES[fault]
    stack = {"flats": flats, "darks": darks}[name]
    stack[where] = spoil(stack[where])
    scan = sound(as_scan(views, flats, darks))
    kept = np.delete(stack, np.arange(len(stack))[where], axis=0)
    np.testing.assert_array_equal(np.asarray(getattr(scan, name)[:]), kept)
    assert scan.n_views == 180
    assert f"{name.capitalize()} {where.start} to {where.stop - 1} ({where.stop - where.start} of" in scan.notes[0]


def refusal(scan, correction=None):
    with pytest.raises(QuietrayError) as caught:
        sound(scan, correction or Correction())
    return str(caught.value)


def test_what_cannot_be_used_is_refused_with_the_flag_that_helps(whole):
    views, flats, darks = views_of(whole)
    assert "darks=" in refusal(as_scan(views, flats, np.full_like(darks, 12000)))
    assert "darks=" in refusal(as_scan(views, flats, (0.2 * flats[:5]).astype(np.uint16)))
    sample = (flats * np.exp(-line_integrals(ALL[:1]))).astype(np.uint16)
    assert "the object was in the flats; give others with flats=" in refusal(as_scan(views, sample, darks))
    assert "flats=" in refusal(as_scan(views, (flats // 3).astype(np.uint16), darks))


@pytest.mark.parametrize("spoil", ["without beam", "never written"])
def test_a_scan_without_any_light_is_refused(whole, spoil):
    views, flats, darks = whole
    assert re.search(
        r"show the beam, got at most 0\.\d\d%.* data=$", refusal(as_scan(SPOILS[spoil](views), flats, darks))
    )


def test_a_beam_that_is_halved_is_refused_until_air_is_named(whole):
    light = np.where(ALL < 100, 1.0, 0.5)
    scan = as_scan(*measured(light=light))
    assert "Correction(air=)" in refusal(scan)
    assert claims_of(scan, Correction(air="0:8")).refusal is None


MASKS = [
    (np.uint32, 2**32 - 1),
    (np.uint16, 65535),
    (np.uint16, 65534),
    (np.int32, -1),
    (np.int32, -2),
    (np.float32, np.nan),
]


@pytest.mark.parametrize(("kind", "value"), MASKS)
def test_pixels_in_gaps_are_bad_whatever_stands_in_them(whole, kind, value):
    stacks = [((stack - 100.0) / 8).clip(0).astype(kind) for stack in whole[:2]]
    for stack in stacks:
        stack[:, :, 45:57] = value
        stack[:, 3] = value
    calibration = calibrate(sound(as_scan(*stacks, None)))
    assert calibration.bad[:, 45:57].all()
    assert calibration.bad[3].all()
    assert calibration.bad.sum() == 12 * 8 + 84


def test_saturated_flats_are_no_mask(whole):
    views, flats, darks = views_of(whole)
    views, flats = (np.minimum(stack * 3.4, 65535).astype(np.uint16) for stack in (views, flats))
    with pytest.raises(QuietrayError, match="saturated"):
        calibrate(sound(as_scan(views, flats, darks)))


HOPELESS = {
    "flats without beam": lambda views, flats, darks: (views, dark(flats.shape), darks),
    "flats and darks swapped": lambda views, flats, darks: (views, darks, flats),
    "darks with beam": lambda views, flats, darks: (views, flats, flats[:10]),
    "a detector that is full at 12000": lambda *stacks: [np.minimum(stack, 12000) for stack in stacks],
}


@pytest.mark.parametrize("fault", HOPELESS)
def test_flats_and_darks_of_no_use_are_refused(whole, fault):
    with pytest.raises(QuietrayError, match=r"flats|darks"):
        calibrate(sound(as_scan(*HOPELESS[fault](*views_of(whole)))))


def test_counters_that_wrapped_are_read_as_what_they_were(whole):
    views, flats, darks = ((stack * 2).astype(np.uint16) for stack in whole)
    wrapped = sound(as_scan(*(stack.view(np.int16) for stack in (views, flats, darks))))
    np.testing.assert_array_equal(wrapped.projections[5:9], views[5:9])
    assert "negative" in wrapped.notes[0]
    signed = sound(as_scan(*(stack.astype(np.int16) - 100 for stack in whole)))  # with the dark subtracted
    assert signed.notes == ()
    below = sound(as_scan(*((stack.astype(np.int32) - 100).astype(np.uint16) for stack in whole)))
    np.testing.assert_array_equal(below.darks[:], whole[2].astype(np.int32) - 100)


ANGLES = {
    "all alike": (np.zeros(180), False),
    "filled up with zeros": (np.where(ALL < 130, ALL, 0), False),
    "each three times": (np.repeat(np.arange(0, 180, 3), 3), True),
    "two turns": (np.arange(180) * 4, True),
}


@pytest.mark.parametrize("name", ANGLES)
def test_angles_that_cannot_be(whole, name):
    degrees, fine = ANGLES[name]
    scan = as_scan(*whole, degrees=degrees.astype(float))
    if fine:
        assert claims_of(scan).refusal is None
    else:
        assert "angles='0:180'" in refusal(scan)


def test_sinograms_and_turned_radiographs_are_told_from_views():
    degrees = np.arange(60.0) * 3
    views, flats, darks = measured(degrees, n_rows=40)
    assert claims_of(as_scan(views, flats, darks)).refusal is None
    lines = line_integrals(degrees, n_rows=40).astype(np.float32)
    lines += np.random.default_rng(0).normal(0, 0.02, lines.shape)
    as_they_are = Correction(line_integrals=True)
    sinograms = as_scan(lines.transpose(1, 0, 2), None, None)
    assert "order='sinogram'" in refusal(sinograms, as_they_are)
    stated = dataclasses.replace(sinograms, provenance={"order": "view"})
    assert claims_of(stated, as_they_are).refusal is None
    turned = as_scan(*(np.rot90(stack, -1, axes=(1, 2)) for stack in (views, flats, darks)))
    assert "rotate=90" in refusal(turned)


def test_a_short_look_sees_evenly_spread_views(monkeypatch):
    times = iter([0.0, 1.0, 9.0])
    monkeypatch.setattr("quietray.detector.correction.glance.time.monotonic", lambda: next(times))
    seen = glance(np.zeros((512, 4, 6), np.uint16), seconds=2.0)
    assert seen.numbers.tolist() == list(range(0, 512, 8))
    assert seen.total == 512


def test_a_beam_that_fell_between_the_flats_is_interpolated_in_time():
    light = np.linspace(1, 0.7, 182)
    views, flats, darks = measured(light=light[1:-1])
    flats[10:] = ((flats[10:] - 100.0) * 0.7 + 100).astype(np.uint16)
    times = {"taken": np.arange(10, 190), "flats_taken": np.r_[:10, 190:200]}
    inner = [stack[:, :, 30:60] for stack in (views, flats, darks)]  # where no air is seen
    scan = sound(as_scan(*inner, **times))
    calibration = calibrate(scan)
    np.testing.assert_allclose(calibration.air_factors, light[1:-1] / 0.85, rtol=0.02)
    assert "interpolated" in " ".join(calibration.notes)
    np.testing.assert_allclose(calibrate(scan[60:90]).air_factors, light[61:91] / 0.85, rtol=0.02)
    assert (calibrate(scan, Correction(air="none")).air_factors == 1).all()
    steady = calibrate(as_scan(*(stack[:, :, 30:60] for stack in measured()), **times))
    assert (steady.air_factors == 1).all()


def test_what_is_left_is_reconstructed_rightly(whole):
    views, flats, darks = views_of(whole)
    views[90:100] = dark(views[90:100].shape)
    flats[:10] = dark(flats[:10].shape)
    views[:, :, 70:73], flats[:, :, 70:73] = 65535, 65535
    alike, size = likeness(quietray.reconstruct(as_scan(views, flats, darks)))
    assert alike > 0.93
    assert size == pytest.approx(1, abs=0.02)
