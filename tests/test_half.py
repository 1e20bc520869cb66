"""Half acquisition: a full turn around an axis near an edge of the detector, and slices as wide as the object."""

import dataclasses

import h5py
import numpy as np
import pytest

import quietray
from quietray import FBP, FDK, ConeBeam, FanBeam, Noise2Inverse, ParallelBeam, Scan
from quietray.cli import main
from quietray.detector.correction.correct import Correction, calibrate
from quietray.detector.correction.rotation import find_rotation_axis
from quietray.domains.compare import _Held
from quietray.errors import GeometryError, SettingsError
from quietray.metrics.stitched import Stitched
from quietray.operators.backprojection import ConeRays
from quietray.operators.beams import projector, rays
from quietray.operators.nufft import ParallelRays
from quietray.preparation.prepare import prepare
from quietray.reconstruct import SIRT
from quietray.running.run import Run
from quietray.running.watch import Watch
from scans import quick
from test_fdk import errors, measured

N_COLS = 48
ROWS = 3
MU = 0.01
DISCS = ((0.0, 0.0, 0.85, 1.0), (0.35, 0.25, 0.2, -0.6), (-0.45, 0.1, 0.15, 0.7), (0.2, -0.5, 0.12, 0.5))


def beam_of(axis, n_views=180, turn=2 * np.pi, half=None, n_cols=N_COLS):
    angles = np.linspace(0, turn, n_views, endpoint=False)
    return ParallelBeam(angles, ROWS, n_cols, rotation_axis=axis, half=half)


def reach_of(axis):
    return max(axis, N_COLS - 1 - axis)


def views_of(beam, radius):
    """Line integrals ``(row, view, col)`` of four discs around the axis, each pixel averaged exactly."""
    edges, out = np.arange(beam.n_cols + 1) - 0.5 - beam.axis, np.zeros((beam.n_views, beam.n_cols))
    for x, y, size, value in DISCS:
        away = radius * (x * np.cos(beam.angles) + y * np.sin(beam.angles))
        inside = np.clip((edges - away[:, None]) / (size * radius), -1, 1)
        chord = inside * np.sqrt(1 - inside**2) + np.arcsin(inside)
        out += MU * value * (size * radius) ** 2 * np.diff(chord, axis=1)
    return np.repeat(out[None].astype(np.float32), ROWS, axis=0)


def truth_of(n, radius):
    """The slice: discs, and what is farther than two pixels from all edges."""
    y, x = (n - 1) / 2 - np.arange(n)[:, None], np.arange(n)[None] - (n - 1) / 2
    out, calm = np.zeros((n, n)), np.hypot(y, x) < 0.97 * radius
    for cx, cy, size, value in DISCS:
        away = np.hypot(x - radius * cx, y - radius * cy) - radius * size
        out += MU * value * (away <= 0)
        calm &= np.abs(away) > 2
    return out, calm


def scan_of(beam, photons=None, radius=None, seed=0):
    rng = np.random.default_rng(seed)
    seen = np.exp(-views_of(beam, radius or reach_of(beam.axis)).transpose(1, 0, 2))
    counts, white = 20000 * seen, np.full((10, ROWS, beam.n_cols), 20000.0)
    if photons:
        counts = 20000 / photons * rng.poisson(photons * seen)
        white = 20000 / photons * rng.poisson(photons, white.shape)
    unknown = dataclasses.replace(beam, rotation_axis=None)
    return Scan(*(x.astype(np.float32) if isinstance(x, np.ndarray) else x for x in (counts, unknown, white)))


@pytest.mark.parametrize("axis", [10.3, 4.0, 38.6, 23.5])
def test_slices_are_as_wide_as_the_object_and_right(axis):
    beam = beam_of(axis, half=True)
    radius = reach_of(axis)
    n = beam.across
    assert n == beam.grid().shape[-1] == int(2 * radius + 1)
    truth, calm = truth_of(n, radius)
    found = FBP()(ParallelRays(beam), views_of(beam, radius))
    assert np.abs(found - truth)[:, calm].mean() < 0.02 * MU  # two thirds of it is the sampling of 180 views
    assert found[:, calm].mean() == pytest.approx(truth[calm].mean(), rel=0.01)
    assert np.corrcoef(found[0][calm], truth[calm])[0, 1] > 0.99


@pytest.mark.parametrize("part", range(3))
def test_every_subset_holds_both_halves(part):
    beam = beam_of(9.2, n_views=270, half=True)
    subset = beam[part::3]
    assert subset.half
    assert subset.turns == 2
    truth, calm = truth_of(beam.across, reach_of(9.2))
    found = FBP()(ParallelRays(subset), views_of(subset, reach_of(9.2)))[0]
    for side in (slice(None, beam.across // 2), slice(beam.across // 2, None)):
        assert found[:, side][calm[:, side]].mean() == pytest.approx(truth[:, side][calm[:, side]].mean(), rel=0.01)


def test_unevenly_spaced_views_count_by_the_angle_that_they_stand_for():
    angles = np.concatenate([np.linspace(0, np.pi, 90, endpoint=False), np.linspace(np.pi, 2 * np.pi, 180, False)])
    beam = ParallelBeam(angles, ROWS, N_COLS, rotation_axis=8.0, half=True)
    truth, calm = truth_of(beam.across, reach_of(8.0))
    found = FBP()(ParallelRays(beam), views_of(beam, reach_of(8.0)))[0]
    assert found[calm].mean() == pytest.approx(truth[calm].mean(), rel=0.01)


@pytest.mark.parametrize("axis", [3.0, 7.25, 40.1, 23.5])
def test_two_views_of_a_ray_count_one(axis):
    beam = beam_of(axis, half=True)
    columns = np.arange(N_COLS)
    whole = np.interp(2 * axis - columns, columns, beam.redundancy, left=np.nan, right=np.nan) + beam.redundancy
    if (2 * axis) % 1 == 0:
        assert np.allclose(whole[np.isfinite(whole)], 1)
    unseen = np.abs(columns - axis) > min(axis, N_COLS - 1 - axis) + 0.5
    assert np.allclose(beam.redundancy[unseen], 1)
    assert np.all(beam.redundancy > 0)


def test_the_adjoint_of_the_reconstruction_has_the_weights(rng):
    rays = ParallelRays(beam_of(9.3, n_views=12, half=True))
    x, y = (rng.normal(size=shape).astype(np.float32) for shape in (rays.domain_shape, rays.range_shape))
    forth, back = np.vdot(FBP()(rays, y), x), np.vdot(y, FBP().adjoint(rays, x))
    assert forth == pytest.approx(back, rel=1e-3, abs=1e-3 * float(np.linalg.norm(x)))


def test_what_iterates_needs_only_the_wide_slices():
    beam = beam_of(9.2, n_views=90, half=True).rows(1)
    truth, calm = truth_of(beam.across, reach_of(9.2))
    found = SIRT(iterations=60)(projector(beam), views_of(beam, reach_of(9.2))[:1])[0]
    assert found[calm].mean() == pytest.approx(truth[calm].mean(), rel=0.02)
    assert np.corrcoef(found[calm], truth[calm])[0, 1] > 0.97


@pytest.mark.parametrize(("axis", "photons"), [(10.3, 1000), (38.6, 1000), (5.4, 1e5), (14.0, 600)])
def test_the_axis_is_searched_near_the_edges(axis, photons):
    scan = scan_of(beam_of(axis), photons)
    found = find_rotation_axis(scan, calibrate(scan, Correction()))
    assert found.column == pytest.approx(axis, abs=0.3)
    assert found.method == "opposite views"
    assert not any("disagree" in note for note in found.notes)


def test_an_axis_that_cannot_be_told_is_asked_for():
    still, rng = scan_of(beam_of(10.0, half=True)), np.random.default_rng(0)
    unlike = np.exp(-np.linspace(1, 0, N_COLS)) * rng.uniform(0.8, 1, (180, 1, N_COLS))  # opposite views share nothing
    scan = dataclasses.replace(still, projections=(still.flats[0] * unlike).astype(np.float32))
    with pytest.raises(GeometryError, match="rotation_axis="):
        find_rotation_axis(scan, calibrate(scan, Correction(zingers=0.0)))


def prepared_of(scan, **changes):
    return prepare(scan, Run.in_memory(quick(**({"rotation_axis": None} | changes)), Watch()))


def test_a_half_acquisition_is_found_and_said():
    found = prepared_of(scan_of(beam_of(10.3)))
    assert found.scan.geometry.half
    assert found.grid.shape[1:] == (found.scan.geometry.across,) * 2
    assert found.grid.shape[-1] == pytest.approx(2 * (N_COLS - 1 - 10.3) + 1, abs=1.5)
    said = next(note for note in found.notes if "Half acquisition" in note)
    assert "--half no" in said
    assert found.weight[:, 0].any()  # what the views see together is the field of view
    assert "half, slices of" in repr(found.scan)


def test_what_is_said_overrules_what_looks_like_one():
    none = prepared_of(scan_of(beam_of(10.3, half=False)))
    assert none.grid.shape[-1] == N_COLS
    assert any("stated not to be a half acquisition" in note for note in none.notes)
    one = prepared_of(scan_of(beam_of(21.0, half=True), radius=20.0))
    assert one.scan.geometry.half
    assert not prepared_of(scan_of(beam_of(21.0), radius=20.0)).scan.geometry.half


def test_half_a_turn_is_no_half_acquisition():
    assert not beam_of(10.3, turn=np.pi).settled().half
    with pytest.raises(GeometryError, match="half=False"):
        beam_of(10.3, turn=np.pi, half=True).settled()


@pytest.mark.parametrize("ending", ["nx", "h5"])
def test_files_tell_the_field_of_view(tmp_path, ending):
    for half in (True, False, None):
        path = quietray.write_scan(tmp_path / f"{half}.{ending}", scan_of(beam_of(21.0, half=half, n_views=16)))
        assert quietray.read(path).geometry.half is half
    for said, wanted in ((True, True), (False, False), (None, True)):
        assert quietray.read(tmp_path / f"True.{ending}", half=said).geometry.half is wanted


def test_others_say_full_whatever_the_scan(tmp_path):
    path = quietray.write_scan(tmp_path / "scan.nx", scan_of(beam_of(10.3, half=False, n_views=16)))
    with h5py.File(path, "a") as file:
        file.attrs["generator"] = "another"
    assert quietray.read(path).geometry.half is None


def test_the_command_takes_a_word_for_it(tmp_path, capsys):
    path = quietray.write_scan(tmp_path / "scan.h5", scan_of(beam_of(10.3, n_views=60)))
    main(["info", str(path), "--half", "yes"])
    assert "half, as stated" in " ".join(capsys.readouterr().err.split())
    for word, width in (("no", N_COLS), ("auto", 74)):
        out = tmp_path / f"{word}.h5"
        main(["reconstruct", str(path), "--half", word, "--rotation-axis", "10.3", "--format", "h5", "--out", str(out)])
        with h5py.File(out) as file:
            assert file["exchange/data"].shape == (ROWS, width, width)


def test_what_was_said_is_kept_with_the_settings(tmp_path):
    path = quietray.write_scan(tmp_path / "scan.h5", scan_of(beam_of(10.3, n_views=60)))
    words = ["denoise", str(path), "--method", "gaussian", "--rotation-axis", "10.3", "--out"]
    main([*words, str(tmp_path / "first"), "--half", "no"])
    main([*words, str(tmp_path / "again"), "--config", str(tmp_path / "first/run.toml")])
    for folder in ("first", "again"):
        assert "half = false" in (tmp_path / folder / "run.toml").read_text()
        assert quietray.io.read_volume(tmp_path / folder / "volume.zarr").shape == (ROWS, N_COLS, N_COLS)


@pytest.mark.parametrize("n_views", [180, 181])
@pytest.mark.parametrize("axis", [10.3, 40.0])
def test_opposite_views_together_are_wide_ones(axis, n_views):
    beam = beam_of(axis, n_views=n_views, half=True)
    stitched = Stitched.of(beam)
    assert stitched.pairs.size == np.unique(stitched.pairs).size == 180
    found = stitched.views(views_of(beam, reach_of(axis)))
    wanted = views_of(stitched.beam, reach_of(axis))
    assert np.abs(found - wanted).mean() < 0.01 * wanted.max()
    assert found.mean() == pytest.approx(wanted.mean(), rel=0.003)


def test_methods_are_judged_over_all_that_the_views_see():
    beam = beam_of(10.3, n_views=300, half=True)
    noisy = scan_of(beam, photons=300)
    scan = dataclasses.replace(noisy, geometry=beam, flats=np.full_like(noisy.flats, 20000))
    held = _Held.out_of(scan, Correction())
    clean = FBP()(ParallelRays(beam), views_of(beam, reach_of(10.3)))
    sinograms = np.ascontiguousarray(-np.log(np.maximum(scan.read(slice(0, ROWS)), 1) / 20000).transpose(1, 0, 2))
    seen = np.isin(np.round(beam.angles, 9), np.round(held.rest.geometry.angles, 9))
    assert np.count_nonzero(~seen) == 2 * len(held.judge.held)
    noisy = FBP()(ParallelRays(held.rest.geometry), np.ascontiguousarray(sinograms[:, seen]))
    y, x = np.mgrid[: beam.across, : beam.across] - (beam.across - 1) / 2
    mask = np.hypot(x, y) < 0.97 * beam.across / 2
    errors = held.judge.judge({"noisy": noisy, "blank": np.zeros_like(noisy), "clean": clean}).errors
    off = {"noisy": ((noisy - clean)[:, mask] ** 2).mean(), "blank": (clean[:, mask] ** 2).mean()}
    off = {name: 10 * np.log10(errors[name] / error) for name, error in off.items()}
    assert off["noisy"] == pytest.approx(0, abs=0.5)  # -1 before the noise that held-out views lack was counted
    assert off["blank"] == pytest.approx(0, abs=0.3)
    assert errors["clean"] < 0.2 * errors["noisy"]  # five seeds: 0.01, sd 0.05


def test_a_run_denoises_the_whole_object():
    scan = scan_of(beam_of(10.3), photons=400)
    result = quietray.denoise(
        scan, settings=quick(steps=20, method=Noise2Inverse(parts=2, slices=1), rotation_axis=10.3)
    )
    assert result.volume.shape == (ROWS, 74, 74)
    truth, calm = truth_of(74, reach_of(10.3))
    assert np.corrcoef(np.asarray(result.volume)[0][calm], truth[calm])[0, 1] > 0.7


def test_steps_of_a_series_must_be_full_turns():
    scan = scan_of(beam_of(10.3))
    with pytest.raises(SettingsError, match="views_per_step="):
        quietray.denoise(
            scan,
            settings=quick(views_per_step=90, rotation_axis=10.3, method=Noise2Inverse(parts=2, times=3, slices=1)),
        )


SIZES = {"fan": 128, "cone": 48}  # columns of a detector that sees the whole object
TURNS = {kind: np.linspace(0, 2 * np.pi, n, endpoint=False) for kind, n in (("fan", 320), ("cone", 160))}
CUT = 0.3  # of them that are missing


def diverging(kind, cut=(0.0, 0.0), half=None):
    """A fan or a cone beam on the wide detector, but for shares of its columns on the left and on the right."""
    n = SIZES[kind]
    first, last = round(n * cut[0]), n - round(n * cut[1])
    lengths, axis = (4.0 * n, 6.0 * n), (n - 1) / 2 - first
    if kind == "fan":
        return FanBeam(TURNS[kind], 1, last - first, *lengths, axis, 1.0, half=half), slice(first, last)
    circle = ConeBeam.circular(TURNS[kind], n, last - first, *lengths, pixel_size=1.0, rotation_axis=axis)
    return dataclasses.replace(circle, half=half), slice(first, last)


def reconstructed(beam, grid, y):
    return FDK()(ConeRays(beam, grid), y) if isinstance(beam, ConeBeam) else FBP()(rays(beam, grid), y)


@pytest.mark.parametrize("kind", ["fan", "cone"])
@pytest.mark.parametrize("cut", [(CUT, 0.0), (0.0, CUT)])
def test_a_shifted_detector_of_a_diverging_beam_sees_the_whole_object(kind, cut):
    (wide, _), (shifted, columns) = diverging(kind), diverging(kind, cut)
    shifted = shifted.settled()
    assert shifted.half
    assert shifted[1::2].half
    assert shifted.seen_radius == pytest.approx(wide.seen_radius, rel=0.01)
    whole, grid = measured(wide), wide.grid()
    y = np.ascontiguousarray(whole[..., columns])
    found = reconstructed(shifted, grid, y)
    assert max(errors(found, wide, grid)) < 0.02
    assert np.abs(found - reconstructed(wide, grid, whole)).mean() < 0.01 * found.max()
    assert max(errors(reconstructed(dataclasses.replace(shifted, half=False), grid, y), wide, grid)) > 0.2


def test_a_diverging_beam_is_settled_with_its_axis():
    assert not diverging("cone", (0.06, 0.0))[0].settled().half
    fan, _ = diverging("fan", (CUT, 0.0))
    assert not dataclasses.replace(fan, angles=fan.angles[:200]).settled().half
    with pytest.raises(GeometryError, match="half=False"):
        dataclasses.replace(fan, angles=fan.angles[:200], half=True).settled()
    assert dataclasses.replace(fan, half=False).settled().across == fan.n_cols


@pytest.mark.parametrize("kind", ["fan", "cone"])
def test_a_shifted_detector_is_found_and_said(tmp_path, kind):
    beam, _ = diverging(kind, (CUT, 0.0))
    beam = beam[::4]
    scan = Scan(np.exp(-measured(beam, 1).transpose(1, 0, 2)).astype(np.float32), beam)
    found = prepared_of(quietray.read(quietray.write_scan(tmp_path / "scan.h5", scan)))
    assert found.grid.shape[-1] == found.scan.geometry.across > beam.n_cols
    assert any("Half acquisition" in note for note in found.notes)
    assert "half, slices of" in scan.describe()["field of view"]
    none = prepared_of(dataclasses.replace(scan, geometry=dataclasses.replace(beam, half=False)))
    assert none.grid.shape[-1] == beam.n_cols
