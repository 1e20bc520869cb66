"""Backprojection by non-uniform FFT: against its formula, ASTRA's and closed forms, and to the last bit."""

import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from matrix import beam
from quietray.errors import GeometryError
from quietray.geometry import ConeBeam, FanBeam, ParallelBeam, VolumeGrid
from quietray.operators.astra import ParallelProjector
from quietray.operators.backprojection import ConeRays, FanRays
from quietray.operators.beams import rays
from quietray.operators.nufft import ParallelRays, workspace
from quietray.reconstruct import FBP
from quietray.reconstruct.analytic import angular_weights
from quietray.reconstruct.ramp import RampFilter, ramp_response
from test_operators import chords, coordinates, relative, voxels

FILTERS = ("ram-lak", "shepp-logan", "hann")
UNEVEN = ParallelBeam(np.sort(np.random.default_rng(7).uniform(0, math.pi, 300)), 1, 96)
BEAMS = {
    "even": beam(180, 1, 96),
    "odd": beam(181, 1, 97),
    "shifted": beam(180, 1, 96, rotation_axis=44.3),
    "full-turn": beam(360, 1, 96, turn=2 * math.pi, rotation_axis=50.2),
    "in-mm": beam(180, 1, 96, pixel_size=0.05),
    "uneven": UNEVEN,
}
SMALL = {
    "even": (beam(7, 1, 16), None),
    "odd": (beam(6, 1, 15), None),
    "shifted": (beam(5, 1, 16, rotation_axis=4.2), None),
    "region": (beam(5, 1, 20, rotation_axis=8.25), (3, 14, 5, 19)),
    "uneven": (ParallelBeam(np.array([0.1, 0.2, 1.9, 4.0]), 1, 12), None),
    "one-view": (beam(1, 1, 9), None),
    "two-columns": (beam(3, 1, 2), None),
    "one-pixel": (beam(3, 1, 1), None),
}


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def strip(geometry: ParallelBeam, y: np.ndarray, window: RampFilter = "ram-lak") -> np.ndarray:
    """Return the filtered backprojection by ASTRA, which weighs by the areas of rays within voxels."""
    weights, filtered = angular_weights(geometry.angles), FBP(window).filtered(y)
    if weights is not None:
        filtered *= weights[:, None]
    share = math.pi / (geometry.n_views * (geometry.pixel_size or 1.0) ** 2)
    return ParallelProjector(geometry, interpolation="strip").adjoint(filtered) * np.float32(share)


def blobs(geometry: ParallelBeam) -> tuple[np.ndarray, np.ndarray]:
    """Return four round clouds ``(z, y, x)`` of attenuation up to 1.1 per pixel, and their line integrals."""
    n, (rows, cols) = geometry.n_cols, coordinates(geometry.grid())
    x, y = np.zeros((1, n, n)), np.zeros((1, geometry.n_views, n))
    for at_y, at_x, sd, height in (
        (0.1, -0.15, 0.06, 1.0),
        (-0.2, 0.1, 0.04, 0.7),
        (0.05, 0.2, 0.03, -0.3),
        (0, 0, 0.12, 0.5),
    ):
        at_y, at_x, sd = at_y * n, at_x * n, sd * n
        x += height * np.exp(-((rows - at_y) ** 2 + (cols - at_x) ** 2) / (2 * sd**2))
        shadow = geometry.axis + at_x * np.cos(geometry.angles) + at_y * np.sin(geometry.angles)
        away = np.arange(n) - shadow[:, None]
        y += height * sd * math.sqrt(2 * math.pi) * np.exp(-(away**2) / (2 * sd**2))
    return x.astype(np.float32), (y * (geometry.pixel_size or 1.0)).astype(np.float32)


def pores(n: int, n_views: int, seed: int = 0) -> tuple[ParallelBeam, np.ndarray, np.ndarray]:
    """Return a beam, a slice of a disc with round pores (the share of each voxel), and its line integrals."""
    rng, geometry, found = np.random.default_rng(seed), beam(n_views, 1, n), []
    truth, y = voxels(geometry.grid(), 0.45 * n), chords(geometry, 0.45 * n)
    while len(found) < 25:
        at_y, at_x, radius = *rng.uniform(-0.4, 0.4, 2) * n, rng.uniform(2, 0.06 * n)
        near = any(math.hypot(at_y - a, at_x - b) < radius + r for a, b, r in found)
        if near or math.hypot(at_y, at_x) + radius > 0.42 * n:
            continue
        found.append((at_y, at_x, radius))
        truth = truth - voxels(geometry.grid(), radius, at_y, at_x)
        y = y - chords(geometry, radius, at_y, at_x)
    return geometry, truth, y.astype(np.float32)


def inside(geometry: ParallelBeam, radius: float, y: float = 0.0, x: float = 0.0) -> np.ndarray:
    rows, cols = coordinates(geometry.grid())
    return np.hypot(rows - y, cols - x) < radius


# --- the formula ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_it_is_the_sum_of_its_formula(name: str) -> None:
    """Written out in double precision: every view, every frequency, every voxel."""
    geometry, region = SMALL[name]
    grid = geometry.grid(region)
    A, y = ParallelRays(geometry, grid), noise((1, geometry.n_views, geometry.n_cols))
    factors = np.random.default_rng(1).uniform(0.5, 2, geometry.n_views)
    n, response = A.width, ramp_response("ram-lak", A.width)
    rows, cols = coordinates(grid)
    wanted = np.zeros(grid.shape[1:])
    for view, angle, factor in zip(y[0].astype(float), geometry.angles, factors, strict=True):
        cos, sin = math.cos(angle), math.sin(angle)
        column = geometry.axis + cols * cos + rows * sin
        spectrum = np.fft.fft(view, n)
        for k in range(-(3 * n) // 4, 3 * n // 4 + 1):
            f = k / n
            roll = 0.5 * (1 + math.cos(2 * math.pi * (min(max(abs(f), 0.25), 0.75) - 0.25)))
            smooth = roll * np.sinc(f * cos) * np.sinc(f * sin)
            h = response[min(k % n, -k % n)]
            wanted += factor * (h * spectrum[k % n] * smooth * np.exp(2j * math.pi * f * column)).real / n
    found = A.backproject(y, response, factors)
    assert found.dtype == np.float32
    assert np.abs(found[0] - wanted).max() < 3e-4 * np.abs(wanted).max()
    precise = ParallelRays(geometry, grid, accuracy=1e-6).backproject(y, response, factors)
    assert np.abs(precise[0] - wanted).max() < 5e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("name", SMALL)
def test_project_is_its_adjoint(name: str) -> None:
    geometry, region = SMALL[name]
    grid = geometry.grid(region)
    A = ParallelRays(geometry.rows(2), grid.with_slices(2), threads=2)
    response, factors = ramp_response("hann", A.width), np.linspace(1, 2, geometry.n_views)
    for seed in range(5):
        x, y = noise(A.domain_shape, seed), noise(A.range_shape, seed + 100)
        back = A.backproject(y, response, factors).astype(float)
        left = float((back * x).sum())
        right = float((A.project(x, response, factors).astype(float) * y).sum())
        assert abs(left - right) < 1e-5 * np.linalg.norm(back) * np.linalg.norm(x)


def test_the_grid_may_be_wider_than_the_detector() -> None:
    """Nothing comes round from the other side."""
    geometry = beam(60, 1, 16, rotation_axis=3.0)
    wide = ParallelRays(geometry, VolumeGrid((1, 96, 96)))
    y = chords(geometry, 2.0)
    volume = FBP("hann")(wide, y)[0]
    rows, cols = coordinates(wide.grid)
    assert np.abs(volume[np.hypot(rows, cols) > 6]).max() < 0.01 * volume.max()


# --- against ASTRA and the phantom ----------------------------------------------------------------------------------


@pytest.mark.parametrize("window", FILTERS)
@pytest.mark.parametrize("name", BEAMS)
def test_smooth_objects_come_back_as_with_astra_and_nearer_to_the_truth(name: str, window: RampFilter) -> None:
    """Within 0.5 % of the largest value in the field of view."""
    geometry = BEAMS[name]
    unit = geometry.pixel_size or 1.0
    truth, y = blobs(geometry)
    seen = inside(geometry, geometry.seen_radius - 1)
    ours, theirs = (
        volume[0] * unit
        for volume in (FBP(window)(ParallelRays(geometry), y / unit), strip(geometry, y / unit, window))
    )
    assert np.abs(ours - theirs)[seen].max() < 0.005 * truth.max()
    errors = [np.sqrt(np.square(volume - truth[0])[seen].mean()) for volume in (ours, theirs)]
    assert errors[0] < errors[1]
    assert np.abs(ours[~seen]).max() < max(0.001, 0.5 * np.abs(theirs[~seen]).max()), (
        "beyond all views there is nothing"
    )


@pytest.mark.parametrize(("n", "n_views"), [(96, 150), (129, 200), (200, 320)])
def test_edges_are_no_worse_and_noise_no_stronger_than_with_astra(n: int, n_views: int) -> None:
    geometry, truth, y = pores(n, n_views)
    A, white = ParallelRays(geometry), noise((1, n_views, n))
    seen = inside(geometry, n / 2 - 1)
    ours, theirs = (np.sqrt(np.square(volume - truth)[0][seen].mean()) for volume in (FBP()(A, y), strip(geometry, y)))
    assert ours < 0.97 * theirs
    assert FBP()(A, white)[0][seen].std() < 1.01 * strip(geometry, white)[0][seen].std()


def test_an_object_beyond_the_field_of_view_comes_back_as_with_astra() -> None:
    geometry = beam(200, 1, 96)
    y = chords(geometry, 66.0, 3.0, 5.0)
    middle = inside(geometry, 40)
    assert np.abs(FBP()(ParallelRays(geometry), y) - strip(geometry, y))[0][middle].max() < 0.005


@pytest.mark.parametrize(("n", "n_views", "parts"), [(96, 400, 4), (97, 400, 4), (128, 480, 3)])
def test_subsets_of_the_views_share_the_object_and_no_texture_of_the_projector(
    n: int, n_views: int, parts: int
) -> None:
    """Without noise, what Noise2Inverse would take for noise is less than with ASTRA's projectors, away from edges."""
    geometry = beam(n_views, 1, n)
    y, smooth = chords(geometry, 0.4 * n, 2.0, -3.0), inside(geometry, 0.3 * n, 2.0, -3.0)

    def texture(reconstruct: Any, where: np.ndarray = smooth) -> float:
        subsets = np.stack([reconstruct(geometry[j::parts], y[:, j::parts])[0] for j in range(parts)])
        return float((subsets - subsets.mean(axis=0))[:, where].std())

    def fourier(geometry: ParallelBeam, y: np.ndarray) -> np.ndarray:
        return FBP()(ParallelRays(geometry), y)

    def joseph(geometry: ParallelBeam, y: np.ndarray) -> np.ndarray:
        adjoint = ParallelProjector(geometry, interpolation="linear").adjoint(FBP().filtered(y))
        return adjoint * np.float32(math.pi / geometry.n_views)

    ours, seen = texture(fourier), inside(geometry, n / 2 - 1)
    assert ours < 0.9 * texture(strip)
    assert texture(fourier, seen) < 0.2 * texture(strip, seen)
    assert ours < 0.05 * texture(joseph), "where the texture is, the test sees it"
    assert ours < 2e-6, "of an attenuation of 1"


# --- to the last bit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_slices_do_not_depend_on_their_neighbours_nor_on_the_threads(threads: int) -> None:
    geometry = beam(90, 7, 61)
    y = noise((7, 90, 61))
    whole = FBP()(ParallelRays(geometry, threads=1), y)
    A = ParallelRays(geometry, threads=threads)
    for _ in range(3):
        assert np.array_equal(FBP()(A, y), whole)
    for start, stop in ((0, 1), (1, 4), (3, 7), (6, 7)):
        assert np.array_equal(FBP()(A.with_slices(stop - start), y[start:stop]), whole[start:stop])
    other = noise((7, 90, 61), seed=1)
    other[3] = y[3]
    assert np.array_equal(FBP()(A, other)[3], whole[3])


def test_several_threads_may_use_the_same_rays_at_once() -> None:
    A = ParallelRays(beam(120, 4, 80), threads=2)
    many = [noise((4, 120, 80), seed) for seed in range(6)]
    apart = [FBP()(A, y) for y in many]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda y: FBP()(A, y), many))
        fresh = list(pool.map(lambda y: FBP()(ParallelRays(beam(120, 4, 80), threads=1), y), many))
    for one, other, new in zip(apart, together, fresh, strict=True):
        assert np.array_equal(one, other)
        assert np.array_equal(one, new)


def test_it_is_pickled_without_its_plan_and_gives_the_same() -> None:
    A, y = ParallelRays(beam(40, 2, 32, rotation_axis=14.0), threads=1), noise((2, 40, 32))
    before = len(pickle.dumps(A))
    volume = FBP()(A, y)
    kept = pickle.dumps(A)
    assert len(kept) == before < 5000
    assert np.array_equal(FBP()(pickle.loads(kept), y), volume)


def test_what_is_prepared_is_shared_by_bands_of_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    import finufft

    made, plan = [], finufft.Plan
    monkeypatch.setattr(finufft, "Plan", lambda *given, **more: made.append(given) or plan(*given, **more))
    A = ParallelRays(beam(20, 4, 24), threads=1)
    for n in (4, 1, 3):
        FBP()(A.with_slices(n), noise((n, 20, 24)))
    assert len(made) == 1


# --- arrays, errors, memory -----------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(GeometryError, match=r"one slice per detector row \(3\), got 1"):
        ParallelRays(beam(4, 3, 8), VolumeGrid((1, 8, 8)))
    A = ParallelRays(beam(4, 3, 8))
    response, factors = ramp_response("hann", A.width), np.ones(8)
    with pytest.raises(
        GeometryError, match=r"sinograms must have shape \(3, 4, 8\) \(row, view, col\), got \(3, 8, 4\)"
    ):
        A.backproject(np.zeros((3, 8, 4), np.float32), response, factors)
    with pytest.raises(GeometryError, match=r"the volume must have shape \(3, 8, 8\) \(z, y, x\), got \(3, 8, 4\)"):
        A.project(np.zeros((3, 8, 4), np.float32), response, factors)


def test_the_rays_of_each_beam() -> None:
    turn = np.linspace(0, 6, 8)
    assert isinstance(rays(beam()), ParallelRays)
    assert isinstance(rays(FanBeam(turn, 1, 8, 20.0, 30.0)), FanRays)
    assert isinstance(rays(ConeBeam.circular(turn, 6, 8, 20.0, 30.0)), ConeRays)


@pytest.mark.parametrize("parts", [1, 4])
def test_the_workspace_counts_what_is_kept_and_does_not_grow_with_the_slices(parts: int) -> None:
    geometry = beam(64, 5, 100)
    kept = 0
    for j in range(parts):
        A = ParallelRays(geometry[j::parts], threads=1)
        FBP()(A, noise((5, 64 // parts, 100)))
        lines = A._lines
        kept += lines._smoothed.nbytes + lines.plan._xj.nbytes + lines.plan._yj.nbytes
    counted, each = workspace(geometry, geometry.grid(), parts)
    assert kept < counted < 3 * kept
    assert (counted, each) == workspace(geometry.rows(500), geometry.grid().with_slices(500), parts)
    assert each > 8 * (1.5625 + 1) * 100 * 100, "the finer grid and the slice, complex"


def test_a_slice_in_millimetres() -> None:
    geometry = beam(60, 1, 32, pixel_size=0.05)
    assert (
        relative(
            FBP()(ParallelRays(geometry), noise((1, 60, 32))), FBP()(ParallelProjector(geometry), noise((1, 60, 32)))
        )
        == 0
    )
