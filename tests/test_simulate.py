"""The simulator against closed forms: foam, its shadows, and every imperfection of the detector."""

import functools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from matrix import beam
from quietray.errors import SettingsError
from quietray.geometry import ConeBeam, FanBeam, VolumeGrid
from quietray.metrics.image import disc
from quietray.operators.astra import ParallelProjector
from quietray.reconstruct.analytic import FBP
from quietray.scan import Scan
from quietray.simulate.acquire import Exposure, acquire, attenuation_for
from quietray.simulate.foam_scan import FoamScan
from quietray.simulate.noise import Gaussian, NoiseModel, Poisson, Scintillator, laplace_response
from quietray.simulate.phantom import Foam

NOTHING = np.zeros((0, 4))


@functools.cache
def packed(n_spheres: int, seed: int = 0, **sizes: float) -> Foam:
    """Pack a foam, once for all tests."""
    return Foam.packed(n_spheres, 0.3, np.random.default_rng(seed), **sizes)


# --- foam -----------------------------------------------------------------------------------------------------------


PACKINGS = pytest.mark.parametrize("packing", [Foam.packed, Foam.tight], ids=["packed", "tight"])


@PACKINGS
@settings(max_examples=4)
@given(st.integers(0, 2**32), st.integers(1, 150), st.sampled_from([(0.2, 0.005), (0.3, 0.02), (0.05, 0.05)]))
def test_voids_never_overlap_and_lie_in_the_cylinder(
    packing: Any, seed: int, n_spheres: int, sizes: tuple[float, float]
) -> None:
    foam = packing(n_spheres, 0.5, np.random.default_rng(seed), largest=sizes[0], smallest=sizes[1])
    centres, radii = foam.spheres[:, :3], foam.spheres[:, 3]
    assert len(radii) == n_spheres
    assert (radii >= sizes[1]).all()
    assert (radii <= sizes[0]).all()
    assert (np.hypot(centres[:, 0], centres[:, 1]) + radii <= foam.radius + 1e-12).all()
    assert (np.abs(centres[:, 2]) <= 0.5).all()
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=2) - radii[:, None] - radii[None]
    gaps[np.diag_indices(n_spheres)] = 0
    assert gaps.min() >= -1e-12


@PACKINGS
def test_thousands_of_voids_of_every_size_never_overlap(packing: Any) -> None:
    spheres = packing(3000, 0.5, np.random.default_rng(3), largest=0.15, smallest=0.01).spheres
    pairs = cKDTree(spheres[:, :3]).query_pairs(2 * spheres[:, 3].max(), output_type="ndarray")
    gaps = np.linalg.norm(spheres[pairs[:, 0], :3] - spheres[pairs[:, 1], :3], axis=1)
    assert (gaps >= spheres[pairs[:, 0], 3] + spheres[pairs[:, 1], 3] - 1e-12).all()
    assert spheres[:, 3].max() > 4 * spheres[:, 3].min(), "of more than one size class"


@PACKINGS
def test_tight_voids_leave_no_trial_centre_more_room_than_the_next_void_takes(packing: Any) -> None:
    """Every void of a tight foam is the largest that fits: those after it, looked at when it came, had no more room."""
    spheres = packing(400, 0.5, np.random.default_rng(0), smallest=0.02).spheres
    room = spheres[:, None, :3] - spheres[None, :, :3]
    gaps = np.linalg.norm(room, axis=2) - spheres[:, 3]  # of each centre, to every void
    walls = np.minimum(0.2, 0.9 - np.hypot(spheres[:, 0], spheres[:, 1]))
    had = [min(walls[k], *gaps[k, :first]) for first in range(1, 400) for k in range(first, 400)]
    taken = [spheres[first, 3] for first in range(1, 400) for _ in range(first, 400)]
    assert (max(np.subtract(had, taken)) <= 1e-12) == (packing == Foam.tight)


def test_a_tight_foam_is_less_solid() -> None:
    volumes = [
        (f(3000, 0.4, np.random.default_rng(0), smallest=0.01).spheres[:, 3] ** 3).sum()
        for f in (Foam.packed, Foam.tight)
    ]
    assert volumes[1] > 1.05 * volumes[0]


@PACKINGS
def test_the_seed_makes_the_foam(packing: Any) -> None:
    one, same, other = (packing(8, 0.5, np.random.default_rng(seed)).spheres for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@PACKINGS
@pytest.mark.parametrize(
    "change", [{"n_spheres": 0}, {"largest": 0.95}, {"smallest": 0.0}, {"smallest": 0.3}, {"n_spheres": 300}]
)
def test_foam_that_cannot_be_is_refused(packing: Any, change: dict[str, Any]) -> None:
    wanted = {"n_spheres": 5, "height": 0.1, "largest": 0.2, "smallest": 0.15} | change
    with pytest.raises(SettingsError, match=r"a foam must have|must fit into the cylinder, got room for \d+"):
        packing(rng=np.random.default_rng(0), **wanted)


@pytest.mark.parametrize("axis", [None, 25.5])
def test_the_shadow_of_the_cylinder(axis: float | None) -> None:
    geometry = beam(5, 3, 60, rotation_axis=axis)
    got = Foam(NOTHING, 0.7).project(geometry, supersampling=1)
    chord = 2 * np.sqrt(np.clip((0.7 * 30) ** 2 - (np.arange(60) - geometry.axis) ** 2, 0, None))
    assert np.allclose(got, chord, atol=1e-4)


@pytest.mark.parametrize("axis", [None, 25.5])
def test_the_shadow_of_a_sphere(axis: float | None) -> None:
    """At angle t it lies at column axis + x cos t + y sin t; a larger z is a smaller row."""
    geometry = beam(7, 41, 60, rotation_axis=axis, turn=2 * math.pi)
    x, y, z, r = 0.3, -0.2, 0.25, 0.15
    got = Foam(NOTHING).project(geometry, supersampling=1) - Foam(np.array([[x, y, z, r]])).project(
        geometry, supersampling=1
    )
    u = np.arange(60) - geometry.axis - 30 * (x * np.cos(geometry.angles) + y * np.sin(geometry.angles))[:, None]
    v = np.arange(41) - (20 - 30 * z)
    chord = 2 * np.sqrt(np.clip((30 * r) ** 2 - u[:, None, :] ** 2 - v[None, :, None] ** 2, 0, None))
    assert np.allclose(got, chord, atol=1e-3)


def test_subrays_average_and_rows_are_those_asked_for() -> None:
    foam = packed(20)
    geometry = beam(3, 10, 40)
    fine = beam(3, 20, 80)
    wanted = foam.project(fine, supersampling=1).reshape(3, 10, 2, 40, 2).mean(axis=(2, 4)) / 2
    got = foam.project(geometry, supersampling=2)
    assert np.allclose(got, wanted, atol=1e-3)
    assert np.array_equal(foam.project(geometry, rows=slice(3, 8)), got[:, 3:8])


def test_every_view_holds_the_whole_mass() -> None:
    foam = packed(60, largest=0.15)
    geometry = beam(8, 64, 48, turn=2 * math.pi)
    mass = foam.project(geometry, supersampling=4).sum(axis=(1, 2), dtype=np.float64)
    scale = 24.0
    spheres = 4 / 3 * math.pi * (foam.spheres[:, 3] * scale) ** 3
    wanted = math.pi * (foam.radius * scale) ** 2 * 64 - spheres.sum()
    assert np.allclose(mass, wanted, rtol=1e-3)
    assert np.ptp(mass) < 1e-3 * wanted


@pytest.mark.parametrize("supersampling", [2, 3])
def test_the_volume_holds_what_geometry_says(supersampling: int) -> None:
    foam = packed(40, largest=0.2, smallest=0.05)
    volume = foam.volume(VolumeGrid((48, 48, 48)), supersampling=supersampling)
    spheres = 4 / 3 * math.pi * foam.spheres[:, 3] ** 3
    wanted = 24.0**3 * (math.pi * foam.radius**2 * 2 - spheres.sum())
    assert volume.sum(dtype=np.float64) == pytest.approx(wanted, rel=3e-3)
    assert volume.min() > -1e-5
    assert volume.max() < 1 + 1e-5
    one = foam.spheres[0]
    row, col, z = round(23.5 - 24 * one[1]), round(23.5 + 24 * one[0]), round(23.5 - 24 * one[2])
    assert volume[z, row, col] < 1e-5, "the middle of a void is empty"


def test_a_region_of_the_volume_is_its_crop() -> None:
    foam = packed(20)
    geometry = beam(2, 5, 30)
    whole = foam.volume(geometry.grid(), n_cols=30)
    assert np.allclose(foam.volume(geometry.grid((4, 20, 7, 29)), n_cols=30), whole[:, 4:20, 7:29], atol=1e-6)


def test_volume_and_shadow_are_of_one_object() -> None:
    foam = packed(40, largest=0.2, smallest=0.05)
    geometry = beam(9, 6, 64)
    A = ParallelProjector(geometry)
    projected = A(foam.volume(A.grid, supersampling=3))
    wanted = foam.project(geometry, supersampling=3).swapaxes(0, 1)
    assert np.linalg.norm(projected - wanted) < 0.015 * np.linalg.norm(wanted)


@given(st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_absorption_is_met(absorption: float, seed: int) -> None:
    lengths = np.random.default_rng(seed).uniform(0, 50, (2, 3, 40)).astype(np.float32)
    lengths[..., ::4] = 0
    mu = attenuation_for(absorption, lengths)
    hit = lengths[lengths > 1e-3].astype(np.float64)
    assert (1 - np.exp(-mu * hit)).mean() == pytest.approx(absorption, abs=1e-4)


@pytest.mark.parametrize(("absorption", "length"), [(0.0, 1.0), (1.0, 1.0), (-0.5, 1.0), (0.5, 0.0)])
def test_impossible_absorption_is_refused(absorption: float, length: float) -> None:
    with pytest.raises(SettingsError, match="absorption must lie between 0 and 1"):
        attenuation_for(absorption, np.full((1, 1, 1), length, np.float32))


# --- acquisition ----------------------------------------------------------------------------------------------------


def scan_of(seed: int = 0, **kwargs: Any) -> Scan:
    given = {"photons": 200.0, "n_flats": 6, "n_darks": 5} | kwargs
    geometry = given.pop("geometry", beam(12, 5, 32))
    return acquire(packed(20), geometry, seed=seed, **given)


@pytest.mark.parametrize("kind", ["projections", "flats", "darks", "clean"])
@pytest.mark.parametrize(
    "detector",
    [Poisson(), Scintillator(afterglow=0.2, flicker=0.05, drift=0.1, read_noise=1.0, response_width=0.5)],
    ids=["poisson", "scintillator"],
)
def test_a_frame_is_the_same_however_it_is_read(kind: str, detector: NoiseModel) -> None:
    frames = getattr(scan_of(detector=detector), kind)
    n = frames.shape[0]
    whole = np.asarray(frames[:])
    assert whole.shape == frames.shape
    assert whole.dtype == frames.dtype
    for key in (
        *(slice(k, k + 1) for k in range(n)),
        slice(2, 5),
        slice(-3, None),
        slice(None, None, -1),
        slice(4, 0, -2),
        slice(1, None, 3),
        slice(3, 3),
        0,
        -1,
        (slice(1, 4), slice(2, 4)),
        (slice(None, None, 2), slice(None), slice(5, 9)),
        (-2, slice(0, 3)),
        (3, 4, 5),
    ):
        assert np.array_equal(frames[key], whole[key]), f"read by {key}"


def test_frames_differ_and_so_do_seeds() -> None:
    scan, other = scan_of(0), scan_of(1)
    for kind in ("projections", "flats", "darks"):
        frames = np.asarray(getattr(scan, kind)[:], np.float64)
        assert not np.array_equal(frames, getattr(other, kind)[:])
        assert not np.array_equal(frames[0], frames[1])
        assert np.array_equal(frames, getattr(scan_of(0), kind)[:])
    assert np.array_equal(scan.truth, other.truth)
    flats, darks = (np.asarray(getattr(scan, kind)[:5], np.float64) for kind in ("flats", "darks"))
    together = np.corrcoef((flats - flats.mean()).ravel(), (darks - darks.mean()).ravel())[0, 1]
    assert abs(together) < 0.15, "flats and darks have noise of their own"


def test_the_expected_counts_are_those_of_beer_and_lambert() -> None:
    scan = scan_of(photons=300.0, detector=Gaussian(0.3), absorption=0.6, supersampling=1)
    assert scan.clean is not None
    clean = np.asarray(scan.clean[:])
    counts = np.asarray(scan.projections[:], np.float64)
    assert np.abs(counts - 300 * np.exp(-clean)).mean() < 0.5
    assert np.abs((counts - 300 * np.exp(-clean)).mean()) < 0.05
    assert np.asarray(scan.flats[:]).mean() == pytest.approx(300, abs=0.1)  # type: ignore[index]
    hit = clean[clean > 1e-3]
    assert (1 - np.exp(-hit)).mean() == pytest.approx(0.6, abs=1e-4)


def test_counts_are_cut_at_16_bits() -> None:
    assert np.asarray(scan_of(photons=1e6, detector=Poisson()).flats[:]).min() == 65_535  # type: ignore[index]
    assert np.asarray(scan_of(detector=Gaussian(50.0)).darks[:]).min() == 0  # type: ignore[index]
    low = np.asarray(scan_of(detector=Gaussian(50.0)).darks[:], np.float64)  # type: ignore[index]
    assert (low == 0).mean() == pytest.approx(0.5, abs=0.05)
    ideal = np.asarray(scan_of(photons=1e6).flats[:])  # type: ignore[index]
    assert ideal.max() < 65_535, "the default detector keeps clear of the limit"


@pytest.mark.parametrize("pixel_size", [None, 0.05])
@pytest.mark.parametrize("axis", [None, 46.0])
def test_the_truth_is_what_the_clean_scan_reconstructs_to(pixel_size: float | None, axis: float | None) -> None:
    geometry = beam(160, 6, 96, pixel_size=pixel_size, rotation_axis=axis)
    foam = packed(12, largest=0.25, smallest=0.1, radius=0.85)
    scan = acquire(foam, geometry, photons=100.0, n_flats=1, n_darks=1)
    assert scan.clean is not None
    assert scan.truth is not None
    sinograms = np.ascontiguousarray(np.asarray(scan.clean[:]).swapaxes(0, 1))
    A = ParallelProjector(geometry, interpolation="strip")
    volume = FBP()(A, sinograms)
    truth = np.asarray(scan.truth)
    inside = disc(96, 96, 0.8)
    error = np.sqrt(np.mean((volume - truth)[:, inside] ** 2)) / truth.max()
    assert error < 0.06, "but for the edges, the two are the same"
    assert np.median(np.abs(volume - truth)[:, inside]) < 0.02 * truth.max()
    assert volume[:, inside].mean() == pytest.approx(truth[:, inside].mean(), rel=2e-3)
    assert truth.max() == pytest.approx(scan.provenance["attenuation"], rel=1e-5)


def test_photons_must_be_positive() -> None:
    with pytest.raises(SettingsError, match="photons must be positive, got 0"):
        scan_of(photons=0.0)


# --- detectors ------------------------------------------------------------------------------------------------------


def lit(model: NoiseModel, frames: int = 200, size: int = 40, photons: float = 100.0, **kwargs: Any) -> np.ndarray:
    given = np.full((frames, size, size), photons, np.float32)
    return model.sample(given, np.random.default_rng(0), **kwargs).astype(np.float64)


@pytest.mark.parametrize("photons", [0.0, 0.3, 5.0, 1e5])
def test_poisson_from_darkness_to_plenty(photons: float) -> None:
    counts = lit(Poisson(), 20, 50, photons)
    error = math.sqrt(photons / counts.size)
    assert abs(counts.mean() - photons) <= 5 * error
    assert counts.var() == pytest.approx(photons, rel=0.06)
    assert (counts == np.rint(counts)).all()
    assert (counts == 0).mean() == pytest.approx(math.exp(-photons), abs=0.01)


def test_a_plain_scintillator_is_poisson() -> None:
    given = np.random.default_rng(1).uniform(0, 50, (4, 10, 10)).astype(np.float32)
    one = Scintillator().sample(given, np.random.default_rng(0))
    counts = np.random.default_rng(0)
    counts.standard_normal(4)  # the beam's flicker is drawn first
    assert np.array_equal(one, counts.poisson(given).astype(np.float32))


@pytest.mark.parametrize("width", [0.3, 0.5, 1.2])
def test_the_point_response(width: float) -> None:
    """Each pixel holds the integral of exp(-(|x| + |y|) / b) over it, divided by that over the plane."""
    kernel = laplace_response(width)
    middle = kernel.shape[0] // 2
    centre = (1 - math.exp(-0.5 / width)) ** 2
    side = (1 - math.exp(-0.5 / width)) * math.exp(-0.5 / width) * (1 - math.exp(-1 / width)) / 2
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    assert kernel[middle, middle] == pytest.approx(centre, rel=1e-3)
    assert kernel[middle, middle + 1] == pytest.approx(side, rel=1e-3)
    for symmetric in (kernel.T, kernel[::-1], kernel[:, ::-1]):
        assert np.allclose(symmetric, kernel)
    assert laplace_response(width, radius=2).sum() == pytest.approx(1)


def test_a_point_of_light_becomes_the_point_response() -> None:
    model = Scintillator(gain=3.0, dark=7.0, response_width=0.6)
    photons = np.zeros((1, 41, 41), np.float32)
    photons[0, 20, 20] = 1e6
    reach = model.response.shape[0] // 2
    wanted = 7 + 3e6 * model.response
    middle = slice(20 - reach, 21 + reach)
    assert np.allclose(model.mean(photons)[0, middle, middle], wanted, rtol=1e-4)
    drawn = model.sample(photons, np.random.default_rng(0))[0, middle, middle]
    assert np.allclose(drawn, wanted, rtol=0.01, atol=0.1)


def test_light_is_kept_at_the_border() -> None:
    photons = np.full((1, 12, 9), 50.0, np.float32)
    assert np.allclose(Scintillator(response_width=0.8).mean(photons), 50.0, rtol=1e-5)


def test_flicker_is_common_to_a_frame() -> None:
    frames = lit(Scintillator(flicker=0.05), 600, 30)
    brightness = frames.mean(axis=(1, 2))
    assert brightness.std() == pytest.approx(math.hypot(5.0, 10 / 30), rel=0.12)
    assert frames.var(axis=(1, 2)).mean() == pytest.approx(100, rel=0.02), "within a frame there is photon noise alone"


@pytest.mark.parametrize("first", [0, 500])
def test_drift_is_linear_in_time(first: int) -> None:
    frames = lit(Scintillator(drift=0.4), 500, 20, first_frame=first).mean(axis=(1, 2))
    slope, start = np.polyfit(np.arange(500), frames, 1)
    assert slope == pytest.approx(100 * 0.4 / 1000, rel=0.03)
    assert start == pytest.approx(100 * (1 + 0.4 * first / 1000), rel=0.003)


def test_row_noise_is_common_to_a_row() -> None:
    frames = lit(Scintillator(row_noise=6.0), 200, 40) - 100
    rows = frames.mean(axis=2)
    assert rows.std() == pytest.approx(math.sqrt(36 + 100 / 40), rel=0.05)
    assert (rows[:, 1:] * rows[:, :-1]).mean() == pytest.approx(0, abs=5 * 38 / math.sqrt(7800))


def test_gain_differs_from_pixel_to_pixel_and_stays() -> None:
    frames = lit(Scintillator(gain_spread=0.1), 400, 40)
    gain = frames.mean(axis=0) / 100
    assert gain.std() == pytest.approx(0.1, rel=0.08)
    halves = np.corrcoef(frames[:200].mean(axis=0).ravel(), frames[200:].mean(axis=0).ravel())[0, 1]
    assert halves > 0.98
    ratio = frames.var(axis=0) / (100 * gain**2)
    assert ratio.mean() == pytest.approx(1, rel=0.02), "gain multiplies the noise as it does the light"


def test_read_noise_differs_from_pixel_to_pixel_and_stays() -> None:
    model = Scintillator(read_noise=4.0, read_noise_spread=0.3)
    frames = lit(model, 400, 40, photons=0.0)
    sd = frames.std(axis=0)
    assert (sd**2).mean() == pytest.approx(16 * (1 + 0.3**2), rel=0.05)
    assert sd.std() == pytest.approx(4 * 0.3, rel=0.1)
    assert np.corrcoef(frames[:200].std(axis=0).ravel(), frames[200:].std(axis=0).ravel())[0, 1] > 0.9


def test_afterglow_shows_the_frame_before() -> None:
    model = Scintillator(afterglow=0.25)
    photons = np.zeros((3, 20, 20), np.float32)
    photons[0] = 1000
    before = np.full((1, 20, 20), 400, np.float32)
    frames = model.sample(photons, np.random.default_rng(0), previous=before).mean(axis=(1, 2))
    assert np.allclose(frames, [1000 + 100, 250, 0], rtol=0.01)
    pairs = lit(model, 400, 30) - 125
    assert (pairs[1:] * pairs[:-1]).mean() == pytest.approx(0.25 * 100, rel=0.05)


def test_dead_and_hot_pixels_are_as_many_as_asked_for_and_stay() -> None:
    model = Scintillator(dark=50.0, dead=0.05, hot=0.02)
    frames = lit(model, 10, 120)
    dead, hot = frames == 50, frames > 1000
    for bad, share in ((dead, 0.05), (hot, 0.02)):
        assert bad[0].mean() == pytest.approx(share, abs=5 * math.sqrt(share / 120**2))
        assert (bad == bad[0]).all()
    assert np.array_equal(lit(model, 3, 120) == 50, dead[:3])


def test_unstable_pixels_flicker_by_themselves() -> None:
    frames = lit(Scintillator(unstable=0.03), 200, 60)
    wild = frames.std(axis=0) > 20
    assert wild.mean() == pytest.approx(0.03, abs=0.015)
    assert frames[:, wild].std(axis=0).mean() == pytest.approx(math.hypot(30, 10), rel=0.05)
    assert frames[:, ~wild].std(axis=0).mean() == pytest.approx(10, rel=0.02)


def test_an_exposure_is_what_its_keywords_are() -> None:
    foam, geometry = packed(5), beam(6, 2, 16)
    told = {"photons": 90.0, "absorption": 0.3, "detector": Poisson(), "n_flats": 3, "n_darks": 2, "seed": 4}
    one, two = (
        acquire(foam, geometry, **told, supersampling=1),
        acquire(foam, geometry, Exposure(**told, supersampling=1)),
    )
    for name in ("projections", "flats", "darks", "truth", "clean"):
        np.testing.assert_array_equal(getattr(one, name)[:], getattr(two, name)[:])
    assert one.provenance == two.provenance
    with pytest.raises(SettingsError, match="must be given once, got an Exposure and photons, seed"):
        acquire(foam, geometry, Exposure(photons=90.0), photons=90.0, seed=1)
    with pytest.raises(TypeError, match="n_flat"):
        acquire(foam, geometry, photons=90.0, n_flat=3)
    with pytest.raises(SettingsError, match="photons must be positive, got -1"):
        acquire(foam, geometry, photons=-1.0)
    with pytest.raises(SettingsError, match="at least one detector"):
        Exposure(photons=1.0, detector=[])


SMALL = {"views": 6, "rows": 2, "cols": 16, "spheres": 3, "largest": 0.2, "flats": 3, "darks": 2}


def test_a_simulated_scan_is_made_of_its_parts() -> None:
    made = FoamScan(**SMALL, beam="cone", pairs=2, degrees=90.0, pixel_size=0.5, response_width=(0.0, 0.4), dead=0.1)
    scan = made.acquire()
    assert isinstance(made.geometry, ConeBeam)
    np.testing.assert_allclose(np.rad2deg(scan.geometry.angles), [0, 180, 30, 210, 60, 240])
    np.testing.assert_allclose(made.geometry.reach, [[32.0, 48.0]] * 6)
    assert [one.response_width for one in made.detectors] == [0.0, 0.4]
    assert {(one.gain, one.dark, one.dead, one.read_noise) for one in made.detectors} == {(10.0, 100.0, 0.1, 2.0)}
    assert scan.provenance["detector"] == "; ".join(map(repr, made.detectors))
    fan = FoamScan(**SMALL, beam="fan", source_axis=100.0).geometry
    assert isinstance(fan, FanBeam)
    assert (fan.source_axis, fan.source_detector, fan.axis) == (100.0, 150.0, 7.5)
    np.testing.assert_allclose(np.rad2deg(FoamScan(**SMALL).geometry.angles), np.arange(6) * 30)
    assert FoamScan(photons=1e5).detectors[0].gain == 0.4  # 16 bits would overflow


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *(({name: 0}, f"{name} must be positive, got 0") for name in ("views", "rows", "cols", "pairs")),
        ({"photons": -1.0}, "photons must be positive, got -1"),
        ({"photons": math.nan}, "photons must be positive, got nan"),
        ({"response_width": (0.1, 0.2)}, "response_width must be one number, or one for each of the 1 pairs, got 2"),
    ],
)
def test_impossible_scans_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        FoamScan(**change)


def test_zingers_hit_now_here_now_there() -> None:
    frames = lit(Scintillator(zingers=0.01), 50, 60)
    hit = frames > 400
    assert hit.mean() == pytest.approx(0.01, rel=0.05)
    assert hit.any(axis=0).mean() == pytest.approx(1 - 0.99**50, rel=0.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gain": 0.0}, "gain must be positive"),
        ({"excess": 0.9}, "excess must be at least 1"),
        *(
            ({name: -0.1}, f"{name} must not be negative, got -0.1")
            for name in ("read_noise", "response_width", "flicker", "row_noise", "dead", "hot", "afterglow", "zingers")
        ),
    ],
)
def test_impossible_detectors_are_refused(change: dict[str, float], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Scintillator(**change)


def test_a_response_has_no_negative_width() -> None:
    with pytest.raises(SettingsError, match=r"must not be negative, got -0\.5"):
        laplace_response(-0.5)
