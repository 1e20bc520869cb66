"""From counts to line integrals: closed forms, and the law that slabs change nothing."""

from __future__ import annotations

import dataclasses
import itertools

import h5py
import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from quietray.detector.correction import correct, ranks, zingers
from quietray.detector.correction.correct import Calibration, Correction, RowCounts, calibrate, correct_rows
from quietray.detector.correction.monitor import find_air
from quietray.detector.correction.zingers import find_zingers, replace_zingers
from quietray.errors import GeometryError, NoiseError, SettingsError
from quietray.geometry import ParallelBeam
from quietray.scan import Scan

PLAIN = Correction(zingers=0.0, bad_pixels=False, air="none", rings="none")


def chord(n_cols, axis, angles, radius=30.0, away=8.0, mu=0.02):
    """Line integrals ``(view, col)`` of a disc `away` from the axis, averaged over each pixel by its antiderivative."""
    edges = np.arange(n_cols + 1) - 0.5 - axis - away * np.cos(angles)[:, None]
    inside = np.clip(edges / radius, -1, 1)
    area = radius**2 * (inside * np.sqrt(1 - inside**2) + np.arcsin(inside))
    return mu * np.diff(area, axis=1)


def disc_scan(rng=None, photons=1e4, n_views=90, n_rows=4, n_cols=120, n_flats=10, stripes=None, beam=None, dark=100.0):
    """A disc in every row; Poisson counts when there is a generator."""
    angles = np.linspace(0, np.pi, n_views, endpoint=False)
    truth = chord(n_cols, (n_cols - 1) / 2, angles)
    mean = photons * np.repeat(np.exp(-truth)[:, None], n_rows, axis=1)
    if stripes is not None:
        mean = mean * stripes
    if beam is not None:
        mean = mean * beam[:, None, None]
    flats = np.full((n_flats, n_rows, n_cols), photons)
    if rng is not None:
        mean, flats = rng.poisson(mean), rng.poisson(flats)
    scan = Scan(
        (mean + dark).astype(np.float32),
        ParallelBeam(angles, n_rows, n_cols),
        (flats + dark).astype(np.float32),
        np.full((3, n_rows, n_cols), dark, np.float32),
    )
    return scan, truth


def corrected(scan, settings=PLAIN):
    calibration = calibrate(scan, settings)
    return *correct_rows(scan.read(slice(0, scan.n_rows)), calibration, slice(0, scan.n_rows)), calibration


def zingers_of(counts, *settings):
    """Zingers of the counts ``(view, col)`` of one row."""
    return find_zingers(torch.from_numpy(counts)[None], *settings)[0].numpy()


def replaced(scan, **parts):
    return dataclasses.replace(scan, **parts)


# --- the closed form and the law of slabs ---------------------------------------------------------------------------


def test_line_integrals_of_a_disc():
    scan, truth = disc_scan()
    sinograms, counts, _ = corrected(scan)
    assert np.abs(sinograms - truth).max() < 2e-6
    assert counts == RowCounts(0, 0, 0, sinograms.size)


def test_a_clean_scan_is_left_alone_by_the_defaults():
    scan, truth = disc_scan()
    sinograms, counts, calibration = corrected(scan, Correction())
    assert calibration.remove_rings == "none"
    assert np.abs(sinograms - truth).max() < 2e-6
    assert counts == RowCounts(0, 0, 0, sinograms.size)


def test_poisson_noise_has_its_closed_form_variance(rng):
    scan, truth = disc_scan(rng, photons=2000, n_rows=40, n_flats=50)
    sinograms, _, calibration = corrected(scan, Correction())
    expected = np.exp(truth) / 2000 + 1 / (2000 * 50)
    assert np.var(sinograms - truth, axis=0).mean() == pytest.approx(expected.mean(), rel=0.03)
    assert abs(np.mean(sinograms - truth)) < 1e-3
    assert calibration.quantum == pytest.approx(1.0, rel=0.2)
    assert not calibration.bad.any()


@pytest.mark.parametrize("rings", ["none", "sorting", "all"])
def test_slabs_change_nothing(rng, rings):
    scan, _ = disc_scan(rng, photons=500, n_rows=11, beam=1 + 0.05 * rng.standard_normal(90))
    projections = np.array(scan.projections)
    projections[rng.integers(0, 90, 60), rng.integers(0, 11, 60), rng.integers(0, 120, 60)] += 4000
    flats = np.array(scan.flats)
    flats[:, 3, 40] = flats[:, 5, :] = 100
    scan = replaced(scan, projections=projections, flats=flats)
    whole, counts, calibration = corrected(scan, Correction(rings=rings))
    assert counts.zingers > 50
    assert counts.bad == 121 * 90
    for cuts in ([0, 1, 5, 6, 11], [0, 3, 4, 9, 11], [0, 10, 11]):
        total = RowCounts()
        for start, stop in itertools.pairwise(cuts):
            part, changed = correct_rows(scan.read(slice(start, stop)), calibration, slice(start, stop))
            total += changed
            np.testing.assert_array_equal(part, whole[start:stop])
        assert total == counts


def test_strided_rows_and_memory_order_change_nothing(rng):
    scan, _ = disc_scan(rng, n_rows=7)
    whole, _, calibration = corrected(scan, Correction())
    part, _ = correct_rows(scan.read(slice(1, 7, 2)), calibration, slice(1, 7, 2))
    np.testing.assert_array_equal(part, whole[1:7:2])
    turned = np.asfortranarray(scan.read(slice(0, 7)))
    np.testing.assert_array_equal(correct_rows(turned, calibration, slice(0, 7))[0], whole)


@pytest.mark.parametrize("rings", ["none", "sorting"])
def test_counts_as_stored_are_left_alone_and_give_the_same(rng, rings):
    scan, _ = disc_scan(rng, n_rows=5)
    stored = np.rint(scan.projections).astype(np.uint16)
    calibration = dataclasses.replace(calibrate(scan, Correction()), remove_rings=rings)
    expected, changed = correct_rows(stored.astype(np.float32), calibration, slice(0, 5))
    for kind in (np.uint16, np.int32, np.float64, ">u2", ">f4"):
        given = stored.astype(kind)
        given.flags.writeable = False
        found, counted = correct_rows(given, calibration, slice(0, 5))
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(given, stored)
        assert counted == changed
    raw = torch.from_numpy(stored.astype(np.float32))
    found, _ = correct.corrected(raw, calibration, slice(0, 5))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(raw, stored)


@pytest.mark.parametrize("rings", ["none", "sorting", "large", "all"])
def test_correcting_takes_no_more_memory_than_it_says(rng, monkeypatch, rings):
    monkeypatch.setattr(correct, "_AT_ONCE", 40_000)
    monkeypatch.setattr(ranks, "WINDOWS", 2_000)
    scan, _ = disc_scan(rng, n_rows=5, n_cols=220)
    calibration = dataclasses.replace(calibrate(scan, Correction()), remove_rings=rings)
    counts = torch.from_numpy(scan.read(slice(0, 5)))
    with HeldTensors() as held:
        out, _ = correct.corrected(counts, calibration, slice(0, 5))
    assert out.shape == (5, 90, 220)
    stated = correct.workspace(90, 220, 5)
    assert 0.4 * stated < held.peak - 2 * counts.nbytes < stated


class HeldTensors(TorchDispatchMode):
    """Adds up the bytes of all tensors that were made or looked at inside, and that live."""

    def __init__(self):
        super().__init__()
        self.peak, self._held = 0, {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._held[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._held = {key: one for key, one in self._held.items() if not one[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._held.values()))
        return out


@pytest.mark.gpu
@pytest.mark.parametrize("rings", ["none", "sorting", "large", "all"])
def test_a_device_gives_what_the_processor_gives(rng, rings):
    scan, _ = disc_scan(rng, photons=500, n_rows=6, n_cols=300, beam=1 + 0.05 * rng.standard_normal(90))
    scan, _ = with_zingers(scan, rng, 60, 3000, 9000)
    projections = scan.projections + rng.random(scan.projections.shape, dtype=np.float32)  # no value twice
    scan = replaced(scan, projections=projections)
    expected, counts, calibration = corrected(scan, Correction(rings=rings))
    found, counted = correct_rows(scan.read(slice(0, 6)), calibration, slice(0, 6), "cuda")
    assert counted == counts
    assert np.mean(np.abs(found - expected) > 1e-5) < 1e-3  # two that are equal after rounding may change places
    assert np.abs(found - expected).max() < 0.05


# --- zingers --------------------------------------------------------------------------------------------------------


def with_zingers(scan, rng, number, low, high):
    """Add spots 1 to 3 columns wide, each in one view; returns the scan and where they are."""
    counts = np.array(scan.projections)
    hit = np.zeros(counts.shape, bool)
    n_views, n_rows, n_cols = counts.shape
    for _ in range(number):
        view, row = rng.integers(n_views), rng.integers(n_rows)
        col = rng.integers(n_cols - 3)
        spot = view, row, slice(col, col + rng.integers(1, 4))
        counts[spot] += np.exp(rng.uniform(np.log(low), np.log(high)))
        hit[spot] = True
    return replaced(scan, projections=counts), hit


def test_zingers_are_found_and_repaired(rng):
    scan, truth = disc_scan(rng, photons=1300, n_views=180, n_rows=6)
    clean, _, calibration = corrected(scan, Correction())
    dirty, hit = with_zingers(scan, rng, 700, 600, 30000)
    after, counts = correct_rows(dirty.read(slice(0, 6)), calibration, slice(0, 6))
    hit = hit.transpose(1, 0, 2)
    transmission = np.exp(-after) - np.exp(-truth)
    sd = np.sqrt(np.exp(-truth) / 1300)
    assert np.mean(np.abs(transmission / sd)[hit] < 6) > 0.97
    changed = after != clean
    assert np.mean(changed[~hit]) < 1e-3
    assert 0.95 * hit.sum() < counts.zingers < 1.05 * hit.sum()


@pytest.mark.parametrize("mean", [0.3, 1.0, 10.0, 300.0, 1e5])
def test_poisson_noise_holds_no_zingers(rng, mean):
    counts = rng.poisson(mean, (200, 300)).astype(np.float32)
    assert zingers_of(counts, 6.0, 5).mean() < 1e-5


def test_read_noise_holds_no_zingers(rng):
    level = np.where(np.arange(300) < 150, 1000.0, 2.0)
    counts = (rng.poisson(np.tile(level, (200, 1))) + 12 * rng.standard_normal((200, 300))).astype(np.float32)
    assert zingers_of(counts, 6.0, 5, 1.0, 12.0).mean() < 1e-4


@pytest.mark.parametrize("speed", [0.5, 2, 4])
def test_a_thin_moving_gap_survives(rng, speed):
    """A gap of two columns between absorbing rods, five times brighter than they are, crosses the detector."""
    views, cols = np.arange(60)[:, None], np.arange(300)
    gap = np.abs(cols - 20 - speed * views) < 1.2
    counts = rng.poisson(np.where(gap, 1000, 200)).astype(np.float32)
    found = zingers_of(counts, 6.0, 5)
    assert found[gap].mean() < 0.01
    counts[30, 250] += 1500
    assert zingers_of(counts, 6.0, 5)[30, 250]


def test_shuffled_views_have_the_same_zingers(rng):
    scan, _ = disc_scan(rng, photons=1300)
    scan, _ = with_zingers(scan, rng, 80, 3000, 9000)
    whole, counts, _ = corrected(scan, Correction(rings="none", air="none"))
    order = rng.permutation(scan.n_views)
    shuffled = replaced(scan, projections=np.array(scan.projections)[order], geometry=scan.geometry[order])
    other, other_counts, _ = corrected(shuffled, Correction(rings="none", air="none"))
    assert counts.zingers > 100
    assert abs(other_counts.zingers - counts.zingers) <= 2
    assert np.mean(np.abs(other - whole[:, order]) > 1e-4) < 1e-4


def test_zingers_in_flats_leave_no_trace(rng):
    scan, _ = disc_scan(rng, photons=1000, n_rows=8)
    flats = np.array(scan.flats)
    flats[4, 2, 30:33] = 50000
    calibration = calibrate(replaced(scan, flats=flats), Correction())
    assert np.abs(calibration.flat[2, 30:33] - 1000).max() < 60
    assert not calibration.bad.any()


def test_a_zinger_in_the_only_flat_is_mended(rng):
    scan, _ = disc_scan(rng, photons=10000, n_flats=1, n_rows=9)
    flats = np.array(scan.flats)
    flats[0, 4, 60] += 9000  # a zinger: the views do not show it
    gain = np.ones((9, 120), np.float32)
    gain[6, 90] = 1.5  # a bright pixel: they do
    scan = replaced(scan, flats=(flats - 100) * gain + 100, projections=(scan.projections - 100) * gain + 100)
    calibration = calibrate(scan, Correction())
    assert calibration.flat[4, 60] == pytest.approx(10000, rel=0.03)
    assert calibration.flat[6, 90] == pytest.approx(15000, rel=0.03)


def slowly_found(counts, threshold, reach, read_noise=0.0):
    """Zingers of the counts of one row, sample by sample as the definition says."""
    n_views, n_cols = counts.shape
    middle = np.maximum((counts[:-2] + counts[1:-1] + counts[2:]) / 3, 0)
    bright = middle > np.median(middle)
    second = np.abs(counts[:-2] - 2 * counts[1:-1] + counts[2:])
    gain = (1.4826 * np.median(second[bright] / np.sqrt(6 * middle[bright]))) ** 2
    gain = max(gain - read_noise**2 / np.median(middle[bright]), 0)
    least = 0.002 * np.median(np.abs(counts))

    def sd(level):
        return max(np.sqrt(gain * (max(level, 0) + 2 * gain) + read_noise**2), least)

    def mirrored(view):
        return abs(view) if view < n_views else 2 * (n_views - 1) - view

    def wide(view, col):
        col = np.clip(col, 0, n_cols - 1)
        return counts[view, max(col - 1, 0) : col + 2].max()

    seeds, grown = np.zeros(counts.shape, bool), np.zeros(counts.shape, bool)
    for view, col in np.ndindex(counts.shape):
        value = counts[view, col]
        level = np.median([counts[mirrored(view + step), col] for step in (-2, -1, 1, 2)])
        if value - level <= 0.5 * threshold * sd(level):
            continue
        beside = [step for step in (-1, 1) if 0 <= view + step < n_views]
        paths = [min(wide(view + step, col + step * shift) for step in beside) for shift in range(-reach, reach + 1)]
        path = max(level, *paths)
        one, other = [view + step for step in (beside if len(beside) == 2 else (beside[0], 2 * beside[0]))]
        near = np.clip(np.arange(col - 3, col + 4), 0, n_cols - 1)
        change = 0.75 * 1.4826 / np.sqrt(2) * np.median(np.abs(counts[one, near] - counts[other, near]))
        over = (value - path) / max(sd(path), change)
        seeds[view, col], grown[view, col] = over > threshold, over > 0.5 * threshold
    for _ in range(4):
        padded = np.pad(seeds, ((0, 0), (1, 1)))
        seeds = seeds | (grown & (padded[:, :-2] | padded[:, 2:]))
    return seeds


def slowly_replaced(values, zingers):
    """Each zinger as the median of what is no zinger of the six samples around it."""
    n_views, n_cols = values.shape
    out = values.copy()
    for view, col in np.argwhere(zingers):
        rows = [view - 1 if view else 1, view + 1 if view < n_views - 1 else view - 1]
        cols = np.clip([col - 1, col, col + 1], 0, n_cols - 1)
        near = [values[r, c] for r in rows for c in cols if not zingers[r, c]]
        around = [abs(view + step) for step in (-2, -1, 1, 2)]
        four = [values[v if v < n_views else 2 * (n_views - 1) - v, col] for v in around]
        out[view, col] = np.median(near or four)
    return out


def dirty_rows(rng):
    """Counts of rows that differ in brightness, with zingers one to six columns wide, at the edges too."""
    counts = rng.poisson(np.array([3000, 200, 20])[:, None, None], (3, 24, 40)).astype(np.float32)
    counts += rng.random(counts.shape, dtype=np.float32)
    hit = [(0, 0, 5, 1), (0, 23, 0, 2), (0, 11, 30, 6), (1, 12, 37, 3), (1, 13, 36, 3), (2, 1, 9, 2)]
    for row, view, col, width in hit:
        counts[row, view, col : col + width] *= 3
        counts[row, view, col] += 500
    return counts


@pytest.mark.parametrize("read_noise", [0.0, 2.0])
@pytest.mark.parametrize("at_once", [7, 2**18])
def test_zingers_are_those_of_the_definition(rng, monkeypatch, read_noise, at_once):
    monkeypatch.setattr(zingers, "_AT_ONCE", at_once)
    counts = dirty_rows(rng)
    found = find_zingers(torch.from_numpy(counts), 6.0, 2, 0.0, read_noise)
    mended = replace_zingers(torch.from_numpy(counts), found).numpy()
    for row, own in enumerate(counts):
        expected = slowly_found(own, 6.0, 2, read_noise)
        assert expected.sum() > 1
        np.testing.assert_array_equal(found[row], expected)
        np.testing.assert_allclose(mended[row], slowly_replaced(own, expected), rtol=2e-7)


def test_a_sample_among_zingers_only_takes_the_views_around():
    values = torch.arange(35.0).reshape(1, 7, 5)
    found = torch.zeros(1, 7, 5, dtype=torch.bool)
    found[0, 2:5, 1:4] = True
    assert replace_zingers(values, found)[0, 3, 2] == values[0, [2, 4], 2].mean()


# --- bad pixels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_rows", "n_cols"), [(22, 26), (2, 640), (30, 100)])
def test_bad_pixels_are_found_exactly(rng, n_rows, n_cols):
    angles = np.linspace(0, np.pi, 60)
    shape = (n_rows, n_cols)
    beam = 5000 * (1 + 0.3 * np.sin(np.arange(n_cols) / 40)) * np.ones(shape)
    views = rng.poisson(0.7 * beam, (60, *shape)) + rng.normal(100, 2, (60, *shape))
    flats = rng.poisson(beam, (10, *shape)) + rng.normal(100, 2, (10, *shape))
    darks = rng.normal(100, 2, (10, *shape))
    wrong = np.zeros(shape, bool)
    dead, hot, stuck, unstable = (1, 3), (0, 9), (1, 14), (0, 20)
    for stack in (views, flats):
        stack[:, dead[0], dead[1]] = rng.normal(100, 2, len(stack))
        stack[:, hot[0], hot[1]] += 3000
        stack[:, stuck[0], stuck[1]] = 4321
        stack[:, unstable[0], unstable[1]] += rng.normal(0, 1500, len(stack))
    darks[:, hot[0], hot[1]] += 3000
    for pixel in (dead, hot, stuck, unstable):
        wrong[pixel] = True
    scan = Scan(views.astype(np.float32), ParallelBeam(angles, *shape), flats, darks)
    sinograms, counts, calibration = corrected(scan, Correction(rings="none", air="none"))
    np.testing.assert_array_equal(np.argwhere(calibration.bad), np.argwhere(wrong))
    assert counts.bad == 4 * 60
    assert "1 dead, 1 hot, 1 stuck, 1 unstable" in calibration.notes[0]
    assert np.abs(sinograms + np.log(0.7)).max() < 0.15


def test_bad_pixels_take_the_line_between_their_neighbours():
    scan, _ = disc_scan(n_cols=60)
    projections, flats = np.array(scan.projections), np.array(scan.flats)
    projections[:, 2] = 100 + 1e4 * np.linspace(0.5, 0.9, 60, dtype=np.float32)
    for col in (0, 20, 21, 22, 59):
        flats[:, 2, col] = projections[:, 2, col] = 100
    scan = replaced(scan, projections=projections, flats=flats)
    sinograms, _, calibration = corrected(scan, Correction(zingers=0.0, air="none", rings="none"))
    assert calibration.bad.sum() == 5
    expected = np.linspace(0.5, 0.9, 60)
    expected[[0, 59]] = expected[[1, 58]]
    assert np.abs(np.exp(-sinograms[2]) - expected).max() < 1e-6


def test_a_dead_row_and_dead_columns_do_not_crash(rng):
    scan, truth = disc_scan(rng, n_rows=9)
    projections, flats = np.array(scan.projections), np.array(scan.flats)
    flats[:, 4], projections[:, 4] = 100, 100
    flats[:, :, 50:52] = projections[:, :, 50:52] = 100
    sinograms, _, calibration = corrected(replaced(scan, projections=projections, flats=flats), Correction())
    assert calibration.bad.sum() == 120 + 8 * 2
    assert np.all(sinograms[4] == 0)
    assert np.abs(sinograms[[0, 8]] - truth).max() < 0.2
    assert any("no good pixel" in note for note in calibration.notes)


# --- the beam -------------------------------------------------------------------------------------------------------


def test_beam_factors_are_recovered_under_flicker_and_zingers(rng):
    beam = 1 + 0.05 * rng.standard_normal(90)
    scan, truth = disc_scan(rng, photons=4000, n_rows=20, beam=beam)
    scan, _ = with_zingers(scan, rng, 400, 2000, 40000)
    sinograms, _, calibration = corrected(scan, Correction())
    assert len(calibration.air_columns) == 2
    pixels = 20 * sum(stop - start for start, stop in calibration.air_columns)
    assert np.abs(calibration.air_factors - beam).max() < 5 * np.sqrt(1 / (4000 * pixels)) + 2e-3
    assert np.abs((sinograms - truth).mean(axis=(0, 2))).max() < 6e-3


def test_a_steady_beam_gets_one_factor(rng):
    scan, _ = disc_scan(rng, photons=50, n_rows=4, beam=np.full(90, 0.9))
    calibration = calibrate(scan, Correction())
    assert np.ptp(calibration.air_factors) == 0
    assert calibration.air_factors[0] == pytest.approx(0.9, rel=0.02)


def test_named_air_columns_are_used_and_checked(rng):
    scan, _ = disc_scan(rng, beam=np.full(90, 0.6))
    calibration = calibrate(scan, Correction(air="0:10,110:120"))
    assert calibration.air_columns == ((0, 10), (110, 120))
    assert calibration.air_factors.mean() == pytest.approx(0.6, rel=0.01)
    with pytest.raises(SettingsError, match="within 0:120"):
        calibrate(scan, Correction(air="100:130"))


def test_air_is_not_seen_in_an_object(rng):
    """A disc larger than the detector, a grey plate, and an object that reaches the edge in some views."""
    views = np.linspace(0, np.pi, 90)
    large = np.exp(-chord(100, 49.5, views, radius=80, mu=0.01))
    assert find_air(large.astype(np.float32)) == ()
    assert find_air(np.full((90, 100), 0.85, np.float32)) == ()
    wandering = np.exp(-chord(100, 30.0, views, radius=20, away=28, mu=0.02))
    found = find_air(wandering.astype(np.float32))
    assert all(start >= 80 for start, _ in found)


# --- the floor ------------------------------------------------------------------------------------------------------


def test_floored_samples_are_counted_exactly(rng):
    scan, _ = disc_scan(rng, dark=0.0)
    projections = np.array(scan.projections)
    low = rng.random(projections.shape) < 0.01
    projections[low] = rng.choice([-50.0, 0.0, 150.0], low.sum())
    settings = Correction(zingers=0.0, bad_pixels=False, air="none", rings="none", floor=0.02)
    sinograms, counts, _ = corrected(replaced(scan, projections=projections), settings)
    assert counts.floored == low.sum()
    assert np.all(sinograms.transpose(1, 0, 2)[low] == np.float32(-np.log(np.float32(0.02))))


def test_the_floor_is_one_quantum(rng):
    scan, _ = disc_scan(rng, photons=40, n_flats=30, n_rows=20)
    assert calibrate(scan, Correction()).floor == pytest.approx(1 / 40, rel=0.15)


# --- rings ----------------------------------------------------------------------------------------------------------


def stripe_power(sinograms, truth):
    """Standard deviation over the columns of what the same error in all views amounts to."""
    return float(np.std((sinograms - truth).mean(axis=1), axis=1).mean())


def test_rings_are_found_and_reduced(rng):
    gain = 1 + 0.02 * rng.standard_normal((8, 480))
    scan, truth = disc_scan(rng, n_views=180, n_rows=8, n_cols=480, stripes=gain)
    kept, _, _ = corrected(scan, Correction(rings="none"))
    removed, _, calibration = corrected(scan, Correction())
    assert calibration.remove_rings == "sorting"
    assert "Rings found" in calibration.notes[-1]
    assert stripe_power(kept, truth) == pytest.approx(0.02, rel=0.15)
    assert stripe_power(removed, truth) < 0.5 * stripe_power(kept, truth)


def test_a_noisy_scan_without_rings_is_left_alone(rng):
    scan, _ = disc_scan(rng, photons=400, n_views=180, n_rows=8, n_flats=60)
    sinograms, _, calibration = corrected(scan, Correction())
    expected, _, _ = corrected(scan, Correction(rings="none"))
    assert calibration.remove_rings == "none"
    np.testing.assert_array_equal(sinograms, expected)


@pytest.mark.parametrize("rings", ["sorting", "large", "all"])
def test_ring_removal_keeps_the_disc(rng, rings):
    scan, truth = disc_scan(rng, photons=1e5, n_views=180, n_cols=240)
    sinograms, _, _ = corrected(scan, Correction(rings=rings))
    mass = sinograms.sum(axis=2) / truth.sum(axis=1)
    assert np.abs(mass - 1).max() < (0.01 if rings == "all" else 0.005)
    inside = truth > 0.6 * truth.max()
    assert abs(float(np.mean(sinograms[:, inside] / truth[inside])) - 1) < 0.005


# --- what cannot be corrected ---------------------------------------------------------------------------------------


def test_nan_is_named():
    scan, _ = disc_scan()
    calibration = calibrate(scan, PLAIN)
    counts = scan.read(slice(0, 2)).copy()
    counts[3, 1, 5:8] = np.nan
    counts[9, 0, 0] = np.inf
    with pytest.raises(NoiseError, match=r"got 4 NaN.*rows 0:2"):
        correct_rows(counts, calibration, slice(0, 2))
    projections = np.array(scan.projections)
    projections[0, 0, 0] = np.nan
    with pytest.raises(NoiseError, match="1 NaN"):
        calibrate(replaced(scan, projections=projections), PLAIN)
    flats = np.array(scan.flats)
    flats[0, 0, 0] = np.nan
    with pytest.raises(NoiseError, match="flats must be finite"):
        calibrate(replaced(scan, flats=flats), PLAIN)


def test_dark_flats_are_refused():
    scan, _ = disc_scan()
    for level in (0.0, 100.0):
        with pytest.raises(NoiseError, match="flats must be brighter than the darks"):
            calibrate(replaced(scan, flats=np.full_like(scan.flats, level)), PLAIN)
    with pytest.raises(NoiseError, match="flats must be brighter"):
        calibrate(replaced(scan, flats=np.zeros_like(scan.flats), darks=None), PLAIN)


@pytest.mark.parametrize("top", [65535, 16383, 4000])
@pytest.mark.parametrize("part", ["flats", "projections"])
def test_saturation_is_refused(rng, top, part):
    scan, _ = disc_scan(rng, photons=0.7 * top)
    limits = {"flats": 1.2 * 0.7 * top, "projections": 1.2 * 0.7 * top}
    scan = replaced(scan, **{k: np.minimum(getattr(scan, k), limits[k]).astype(np.uint16) for k in limits})
    calibrate(scan, PLAIN)
    frames = getattr(scan, part).copy()
    frames[:, :, 60:63] = top
    with pytest.raises(NoiseError, match=f"{part} must not be saturated, got 2.5%.* {top}"):
        calibrate(replaced(scan, **{part: frames}), PLAIN)


def test_integer_fields_without_noise_are_not_saturated():
    scan, truth = disc_scan()
    whole = replaced(scan, flats=scan.flats.astype(np.uint16), projections=np.rint(scan.projections).astype(np.uint16))
    assert calibrate(whole, PLAIN).flat[0, 0] == 10000
    assert truth.min() == 0


def test_missing_flats_and_darks():
    scan, truth = disc_scan(dark=0.0)
    bare = replaced(scan, darks=None)
    sinograms, _, calibration = corrected(bare)
    assert np.abs(sinograms - truth).max() < 2e-6
    assert any("no darks" in note for note in calibration.notes)
    with pytest.raises(NoiseError, match="flats="):
        calibrate(replaced(bare, flats=None), PLAIN)
    transmissions = replaced(bare, flats=None, projections=np.array(scan.projections) / np.float32(1e4))
    sinograms, _, calibration = corrected(transmissions)
    assert np.abs(sinograms - truth).max() < 2e-6
    assert any("no flats" in note for note in calibration.notes)


@pytest.mark.parametrize(
    "wrong", [{"zingers": 1.0}, {"zingers": -2.0}, {"floor": 1.0}, {"air": "5:3"}, {"air": "left"}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(SettingsError, match=f"^{next(iter(wrong))}"):
        Correction(**wrong)


def test_counts_must_be_all_views():
    scan, _ = disc_scan()
    calibration = calibrate(scan, PLAIN)
    with pytest.raises(GeometryError, match="all views"):
        correct_rows(scan.read(slice(0, 2), slice(0, 10)), calibration, slice(0, 2))


@pytest.mark.parametrize(("n_views", "n_rows", "n_cols"), [(1, 1, 1), (2, 1, 5), (3, 2, 8), (6, 1, 9), (40, 22, 26)])
def test_tiny_scans_do_not_crash(rng, n_views, n_rows, n_cols):
    shape = (n_views, n_rows, n_cols)
    scan = Scan(
        rng.poisson(500, shape).astype(np.uint16),
        ParallelBeam(np.linspace(0, 3, n_views), n_rows, n_cols),
        rng.poisson(1000, (2, n_rows, n_cols)),
    )
    sinograms, _, _ = corrected(scan, Correction())
    assert sinograms.mean() == pytest.approx(np.log(2), abs=0.15)


# --- measured scans -------------------------------------------------------------------------------------------------


def measured(path) -> tuple[Scan, Calibration]:
    with h5py.File(path) as file:
        group = file["exchange"]
        n_views = min(375, len(group["theta"]))
        data, theta = group["data"][:n_views], np.deg2rad(group["theta"][:n_views])
        scan = Scan(data, ParallelBeam(theta, *data.shape[1:]), group["data_white"][:], group["data_dark"][:])
    return scan, calibrate(scan, Correction())


def test_neutron_scan(real_data):
    scan, calibration = measured(real_data("psi_neutron_ct/psi_ct5s375_128lines.h5"))
    (left, right) = calibration.air_columns
    assert left[0] == 0
    assert 80 <= left[1] <= 135
    assert 670 <= right[0] <= 755
    assert right[1] == 835
    assert 0.99 < calibration.air_factors.min() < calibration.air_factors.max() < 1.02
    assert calibration.bad.mean() < 0.001
    rows = slice(100, 104)
    sinograms, counts = correct_rows(scan.read(rows), calibration, rows)
    assert 0.003 < counts.zingers / counts.total < 0.012
    air = np.concatenate([sinograms[:, :, :90], sinograms[:, :, 745:]], axis=2)
    assert abs(air.mean()) < 0.004
    assert np.abs(air).max() < 8 * air.std()


def test_tooth(real_data):
    scan, calibration = measured(real_data("tomopy_tooth/tooth.h5"))
    (left, right) = calibration.air_columns
    assert left[0] == 0
    assert 50 <= left[1] <= 130
    assert 420 <= right[0] <= 590
    assert right[1] == 640
    _, counts = correct_rows(scan.read(slice(0, 2)), calibration, slice(0, 2))
    assert counts.zingers < 1e-3 * counts.total


def test_scan_with_one_flat_and_an_uneven_beam(real_data):
    _, calibration = measured(real_data("dls_i12_24737_binned/dls_24737.h5"))
    np.testing.assert_array_equal(np.argwhere(calibration.bad), [[0, 0]])
    assert calibration.air_columns == ()
    assert any("only 1 flat" in note for note in calibration.notes)
    assert any("--air" in note for note in calibration.notes)


@pytest.mark.parametrize("n_frames", [3, 4, 5, 8, 20, 100])
def test_counts_per_quantum_do_not_depend_on_the_number_of_flats(n_frames):
    """A few frames agree by chance in many pixels: from four flats, 6.5 counts per quantum were measured for 10."""
    rng = np.random.default_rng(n_frames)
    flats = 10.0 * rng.poisson(200, (n_frames, 32, 400))
    darks = 100 + rng.normal(0, 4, (n_frames, 32, 400))
    views = 10.0 * rng.poisson(100, (8, 32, 400))
    beam = ParallelBeam(np.linspace(0, 3, 8), 32, 400)
    scan = Scan(
        *((frames + 100).astype(np.float32) for frames in (views,)),
        beam,
        (flats + 100).astype(np.float32),
        darks.astype(np.float32),
    )
    found = calibrate(scan, PLAIN)
    assert found.quantum == pytest.approx(10, rel=0.05)  # 1 % by chance
    assert found.read_noise == pytest.approx(4, rel=0.05)
