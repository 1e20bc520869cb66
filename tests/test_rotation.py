"""The rotation axis: simulated objects with a known axis, and measured scans."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from quietray.detector.correction.correct import Correction, calibrate
from quietray.detector.correction.rotation import RotationAxis, find_rotation_axis
from quietray.geometry import ParallelBeam
from quietray.scan import Scan

N_COLS = 256


def foam(angles, axis, centre=(0.0, 0.0), radius=80.0):
    """Line integrals ``(row, view, col)`` of four slices of a disc with holes, each pixel averaged exactly."""
    rng = np.random.default_rng(7)
    edges = np.arange(N_COLS + 1) - 0.5 - axis
    slices = []
    for _ in range(4):
        away, turn = radius * 0.8 * np.sqrt(rng.random(20)), rng.uniform(0, 2 * np.pi, 20)
        discs = [(*centre, radius, 0.008)]
        for distance, angle, size in zip(away, turn, rng.uniform(2, 10, 20), strict=True):
            discs.append((centre[0] + distance * np.cos(angle), centre[1] + distance * np.sin(angle), size, -0.006))
        total = np.zeros((len(angles), N_COLS))
        for x, y, size, mu in discs:
            shadow = (x * np.cos(angles) + y * np.sin(angles))[:, None]
            inside = np.clip((edges - shadow) / size, -1, 1)
            total += mu * np.diff(size**2 * (inside * np.sqrt(1 - inside**2) + np.arcsin(inside)), axis=1)
        slices.append(total)
    return np.stack(slices)


def scan_of(sinograms, angles, photons, rng):
    shape = (len(sinograms), N_COLS)
    counts = rng.poisson(photons * np.exp(-sinograms.transpose(1, 0, 2)))
    return Scan(
        counts.astype(np.float32),
        ParallelBeam(angles, *shape),
        rng.poisson(photons, (20, *shape)).astype(np.float32),
        np.zeros((2, *shape), np.float32),
    )


def axis_of(scan, settings=None) -> RotationAxis:
    return find_rotation_axis(scan, calibrate(scan, settings or Correction()))


TURNS = [(1, 180, False), (1, 181, True), (2, 360, False), (2, 91, True)]
KNOWN = [(axis, photons) for axis in (127.5, 133.3, 110.77) for photons in (500, 1e5)]


def known_axes():
    """Every kind of turn, each with two of the six axes and doses; all of them in the slow tests."""
    for n, turn in enumerate(TURNS):
        for m, known in enumerate(KNOWN):
            yield pytest.param(*turn, *known, marks=() if (m - n) % 3 == 0 else pytest.mark.slow)


@pytest.mark.parametrize(("turn", "n_views", "last", "axis", "photons"), list(known_axes()))
def test_known_axis(rng, turn, n_views, last, axis, photons):
    angles = 0.3 + np.linspace(0, turn * np.pi, n_views, endpoint=last)
    found = axis_of(scan_of(foam(angles, axis, centre=(12.0, -9.0)), angles, photons, rng))
    assert found.column == pytest.approx(axis, abs=0.25)
    assert found.spread < 1
    assert f"{found.column:.2f}" in found.notes[0]
    if turn == 2:
        assert found.method == "opposite views"


def test_views_may_come_in_any_order_and_sense(rng):
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    order = rng.permutation(120)
    for listed in (angles[order], -angles[order]):
        found = axis_of(scan_of(foam(listed, 121.4), listed, 2000, rng))
        assert found.column == pytest.approx(121.4, abs=0.25)


@pytest.mark.parametrize("axis", [50.2, 215.4])
def test_axis_near_the_edge_of_a_full_turn(rng, axis):
    """Half acquisition: the object is seen on one side of the axis only."""
    angles = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    found = axis_of(scan_of(foam(angles, axis), angles, 2000, rng))
    assert found.column == pytest.approx(axis, abs=0.25)


def test_flicker_and_stripes_do_not_move_the_axis(rng):
    angles = np.linspace(0, np.pi, 180, endpoint=False)
    scan = scan_of(foam(angles, 118.6), angles, 5000, rng)
    beam = 1 + 0.05 * rng.standard_normal((180, 1, 1))
    gain = 1 + 0.02 * rng.standard_normal((1, 4, N_COLS))
    disturbed = Scan((scan.projections * beam * gain).astype(np.float32), scan.geometry, scan.flats, scan.darks)
    assert axis_of(disturbed).column == pytest.approx(118.6, abs=0.25)


def test_over_less_than_half_a_turn_the_centre_of_mass_tells(rng):
    wedge = np.linspace(0, 0.6 * np.pi, 90)
    found = axis_of(scan_of(foam(wedge, 100.0), wedge, 1000, rng))
    assert (found.method, found.column) == ("centre of mass", pytest.approx(100.0, abs=0.3))


def test_what_cannot_be_known_is_the_middle(rng):
    empty = scan_of(np.zeros((2, 90, N_COLS)), np.linspace(0, np.pi, 90), 1000, rng)
    wedge = np.linspace(0, 0.45 * np.pi, 90)
    few = np.linspace(0, np.pi, 5, endpoint=False)
    cases = [
        (empty, "no"),
        (scan_of(foam(wedge, 100.0), wedge, 1000, rng), "less than half a turn"),
        (scan_of(foam(few, 100.0), few, 1000, rng), "only 5 views"),
    ]
    for scan, why in cases:
        found = axis_of(scan)
        assert (found.column, found.method) == (127.5, "middle of the detector")
        assert np.isnan(found.spread)
        assert why in found.notes[0]
        assert "--rotation-axis" in found.notes[0]


@pytest.mark.parametrize(
    ("path", "column"),
    [
        ("psi_neutron_ct/psi_ct5s375_128lines.h5", 399.2),
        ("tomopy_tooth/tooth.h5", 295.5),
        ("dls_i12_24737_binned/dls_24737.h5", 85.75),
    ],
)
def test_measured_scans(real_data, path, column):
    with h5py.File(real_data(path)) as file:
        group = file["exchange"]
        n_views = min(375, len(group["theta"]))
        data, theta = group["data"][:n_views], np.deg2rad(group["theta"][:n_views])
        scan = Scan(data, ParallelBeam(theta, *data.shape[1:]), group["data_white"][:], group["data_dark"][:])
    found = axis_of(scan)
    assert found.column == pytest.approx(column, abs=0.5)


def test_a_decimated_detector_does_not_crash(real_data):
    with h5py.File(real_data("dls_k11_diad/k11-18014.h5")) as file:
        key, data = file["image_key"][:], file["detector"][:]
        theta = np.deg2rad(file["theta_deg"][:])[key == 0]
    scan = Scan(data[key == 0], ParallelBeam(theta, *data.shape[1:]), data[key == 1], data[key == 2])
    found = axis_of(scan)
    assert 0 <= found.column <= 25
