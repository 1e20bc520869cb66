"""Filtered backprojection against closed forms, and the algebra that Noise2Inverse rests on."""

import math

import numpy as np
import pytest

from matrix import beam
from quietray.errors import GeometryError, SettingsError
from quietray.geometry import ParallelBeam
from quietray.operators.astra import ParallelProjector
from quietray.reconstruct.analytic import FBP
from test_operators import chords, coordinates, relative

FILTERS = ("ram-lak", "shepp-logan", "hann")


def noise(geometry: ParallelBeam, seed: int = 0) -> np.ndarray:
    """White sinograms: nothing smooth that would hide a difference."""
    shape = (geometry.n_rows, geometry.n_views, geometry.n_cols)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# --- closed forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filter_", FILTERS)
@pytest.mark.parametrize(("n_cols", "axis"), [(96, None), (97, None), (96, 51.3), (96, 40.0)])
def test_a_disc_comes_back(filter_: str, n_cols: int, axis: float | None) -> None:
    geometry = beam(150, 1, n_cols, rotation_axis=axis)
    radius, y, x = 24.0, -6.0, 9.0
    A = ParallelProjector(geometry)
    volume = FBP(filter_)(A, chords(geometry, radius, y, x))
    rows, cols = coordinates(A.grid)
    distance = np.hypot(rows - y, cols - x)
    inside = volume[0][distance < radius - 4]
    assert abs(inside.mean() - 1) < 0.001, "attenuation 1 must come back as 1"
    assert np.abs(inside - 1).max() < 0.01
    seen = np.hypot(rows, cols) < min(geometry.axis, n_cols - 1 - geometry.axis)
    near = (distance > radius + 4) & (distance < radius + 10) & seen
    assert abs(volume[0][near].mean()) < 0.005, "nothing must come back as nothing"
    blob = np.where(distance < radius + 3, volume[0], 0)
    assert abs((blob * rows).sum() / blob.sum() - y) < 0.02
    assert abs((blob * cols).sum() / blob.sum() - x) < 0.02


@pytest.mark.parametrize("filter_", FILTERS)
@pytest.mark.parametrize("axis", [None, 60.2])
def test_every_value_inside_a_disc(filter_: str, axis: float | None) -> None:
    """The edge does not ring: every pixel inside is within half a percent."""
    geometry = beam(180, 1, 128, rotation_axis=axis)
    A = ParallelProjector(geometry)
    rows, cols = coordinates(A.grid)
    volume = FBP(filter_)(A, chords(geometry, 40.0, 6.0, -3.0))
    inside = volume[0][np.hypot(rows - 6, cols + 3) < 34]
    assert np.abs(inside - 1).max() < 0.005


@pytest.mark.parametrize(
    ("y", "x", "row", "col"), [(20, 0, 11, 31), (-20, 0, 51, 31), (0, 20, 31, 51), (0, -20, 31, 11)]
)
def test_the_largest_y_is_row_zero_and_x_goes_right(y: float, x: float, row: int, col: int) -> None:
    geometry = beam(90, 1, 63)
    volume = FBP("hann")(ParallelProjector(geometry), chords(geometry, 4.0, y, x))
    assert volume[0, row, col] > 0.9
    assert np.unravel_index(np.argmax(volume[0] * (volume[0] > 0.5)), (63, 63)) == pytest.approx((row, col), abs=4)
    assert abs(volume[0, 62 - row, col] if y else volume[0, row, 62 - col]) < 0.1


def test_a_wrong_axis_is_seen() -> None:
    """The sharpness of a small disc depends on the axis: the convention is not a matter of taste."""
    truth = beam(120, 1, 64, rotation_axis=34.5)
    sinogram = chords(truth, 3.0, y=10.0, x=-12.0)
    peaks = [FBP("hann")(ParallelProjector(truth.with_axis(axis)), sinogram).max() for axis in (32.5, 34.5, 36.5)]
    assert peaks[1] > 1.05 * max(peaks[0], peaks[2])


def test_attenuation_is_per_millimetre() -> None:
    geometry, in_mm = (beam(40, 2, 32, pixel_size=size) for size in (None, 0.05))
    sinogram = noise(geometry)
    assert in_mm.grid().unit == "1/mm"
    assert geometry.grid().unit == "1/pixel"
    per_pixel = FBP()(ParallelProjector(geometry), sinogram)
    assert relative(FBP()(ParallelProjector(in_mm), sinogram), per_pixel / 0.05) < 1e-5
    disc = FBP()(ParallelProjector(in_mm), chords(in_mm, 10.0, attenuation=0.05 * 3.0))
    rows, cols = coordinates(in_mm.grid())
    assert abs(disc[0][np.hypot(rows, cols) < 7].mean() - 3.0) < 0.02, "3 / mm is 0.15 per pixel of 0.05 mm"


# --- algebra --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 3, 4, 5])
@pytest.mark.parametrize("axis", [None, 21.25])
def test_the_mean_of_the_parts_is_the_whole(parts: int, axis: float | None) -> None:
    geometry = beam(60, 2, 40, rotation_axis=axis)
    sinogram = noise(geometry)
    whole = FBP()(ParallelProjector(geometry), sinogram)
    mean = np.mean([FBP()(ParallelProjector(geometry[j::parts]), sinogram[:, j::parts]) for j in range(parts)], axis=0)
    assert relative(mean, whole) < 1e-5


@pytest.mark.parametrize("n_cols", [32, 33])
def test_a_full_turn_is_half_a_turn_twice(n_cols: int) -> None:
    half = beam(45, 1, n_cols)
    sinogram = noise(half)
    full = beam(90, 1, n_cols, turn=2 * math.pi)
    both = np.concatenate([sinogram, sinogram[..., ::-1]], axis=1)
    one, other = FBP()(ParallelProjector(half), sinogram), FBP()(ParallelProjector(full), both)
    assert relative(other, one) < 1e-5


def test_a_full_turn_around_a_shifted_axis() -> None:
    geometry = beam(160, 1, 64, turn=2 * math.pi, rotation_axis=36.7)
    A = ParallelProjector(geometry)
    volume = FBP()(A, chords(geometry, 14.0, 5.0, -7.0))
    rows, cols = coordinates(A.grid)
    assert abs(volume[0][np.hypot(rows - 5, cols + 7) < 10].mean() - 1) < 0.001


@pytest.mark.parametrize("axis", [None, 22.4])
@pytest.mark.parametrize("region", [(3, 17, 20, 40), (0, 40, 0, 40), (39, 40, 0, 1), (10, 31, 5, 6)])
def test_a_region_is_the_crop_of_the_whole(region: tuple[int, int, int, int], axis: float | None) -> None:
    geometry = beam(30, 2, 40, rotation_axis=axis)
    sinogram = noise(geometry)
    y0, y1, x0, x1 = region
    whole = FBP()(ParallelProjector(geometry), sinogram)
    part = FBP()(ParallelProjector(geometry, geometry.grid(region)), sinogram)
    assert np.abs(part - whole[:, y0:y1, x0:x1]).max() < 5e-4 * np.abs(whole).max()


def test_the_order_of_the_views_does_not_matter() -> None:
    geometry = beam(31, 1, 32)
    order = np.random.default_rng(0).permutation(31)
    sinogram = noise(geometry)
    shuffled = FBP()(ParallelProjector(geometry[order]), sinogram[:, order])
    assert relative(shuffled, FBP()(ParallelProjector(geometry), sinogram)) < 1e-5


def test_rows_do_not_mix() -> None:
    geometry = beam(20, 5, 32)
    sinogram = noise(geometry)
    whole = FBP()(ParallelProjector(geometry), sinogram)
    for row in range(5):
        alone = FBP()(ParallelProjector(geometry.rows(1)), sinogram[row : row + 1])
        assert np.array_equal(alone[0], whole[row])


def test_it_is_linear() -> None:
    geometry = beam(20, 1, 32)
    A, one, other = ParallelProjector(geometry), noise(geometry, 1), noise(geometry, 2)
    together = FBP()(A, np.float32(2) * one - other)
    assert relative(together, 2 * FBP()(A, one) - FBP()(A, other)) < 1e-5


# --- the filter -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_cols", [16, 17, 31])
def test_the_ramp_is_kak_and_slaneys_kernel(n_cols: int) -> None:
    """Filtered point by point in the spatial domain, with h(0) = 1/4 and h(n) = -1 / (pi n)^2 for odd n."""
    sinogram = np.random.default_rng(0).standard_normal((1, 3, n_cols)).astype(np.float32)
    lag = np.arange(n_cols)[:, None] - np.arange(n_cols)[None, :]
    kernel = np.where(lag % 2 == 1, -1 / (np.pi * np.where(lag == 0, 1, lag)) ** 2, 0.0) + 0.25 * (lag == 0)
    assert np.allclose(FBP().filtered(sinogram), sinogram @ kernel.T, atol=2e-6)


def test_windows_multiply_the_ramp() -> None:
    """On a wave of frequency f the windows take sinc(f) and the raised cosine of it, away from the ends."""
    n = 512
    for frequency in (0.1, 0.25, 0.4):
        wave = np.cos(2 * np.pi * frequency * np.arange(n)).astype(np.float32) * np.hanning(n).astype(np.float32)
        ramp, sheppl, hann = (FBP(filter_).filtered(wave[None, None])[0, 0] for filter_ in FILTERS)
        middle = slice(n // 4, 3 * n // 4)
        gains = [np.linalg.norm(one[middle]) / np.linalg.norm(ramp[middle]) for one in (sheppl, hann)]
        assert gains[0] == pytest.approx(np.sinc(frequency), rel=2e-3)
        assert gains[1] == pytest.approx(0.5 + 0.5 * np.cos(2 * np.pi * frequency), rel=2e-3)
        assert np.linalg.norm(ramp[middle]) / np.linalg.norm(wave[middle]) == pytest.approx(frequency, rel=2e-3)


def test_the_noise_of_a_reconstruction() -> None:
    """White noise of sd 1 in each sample gives (pi / n)^2 n times the power of the ramp that is smoothed.

    Without smoothing that is pi^2 / (12 n); the mean over the voxel and the roll-off leave somewhat less than half.
    """
    geometry = beam(64, 40, 64)
    volume = FBP()(ParallelProjector(geometry), noise(geometry))
    f = np.linspace(-0.75, 0.75, 3001)[:, None]
    ramp = np.minimum(np.abs(f), 1 - np.abs(f))
    roll = 0.5 + 0.5 * np.cos(2 * np.pi * (np.clip(np.abs(f), 0.25, 0.75) - 0.25))
    voxel = np.sinc(f * np.cos(geometry.angles)) * np.sinc(f * np.sin(geometry.angles))
    wanted = math.pi**2 / geometry.n_views * 1.5 * np.square(ramp * roll * voxel).mean()
    assert 0.4 < wanted / (math.pi**2 / (12 * geometry.n_views)) < 0.5
    assert volume[:, 12:52, 12:52].var() == pytest.approx(wanted, rel=0.03)


# --- arrays and errors ----------------------------------------------------------------------------------------------


def test_float32_in_and_out_and_the_sinogram_is_kept() -> None:
    geometry = beam(12, 1, 16)
    sinogram = noise(geometry)
    before = sinogram.copy()
    sinogram.setflags(write=False)
    volume = FBP()(ParallelProjector(geometry), sinogram)
    assert volume.dtype == np.float32
    assert np.array_equal(sinogram, before)
    again = FBP()(ParallelProjector(geometry), sinogram.astype(np.float64))
    assert again.dtype == np.float32
    assert np.array_equal(again, volume)


@pytest.mark.parametrize("shape", [(1, 11, 16), (2, 12, 16), (1, 12, 17), (12, 1, 16)])
def test_sinograms_that_do_not_fit_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(GeometryError) as error:
        FBP()(ParallelProjector(beam(12, 1, 16)), np.zeros(shape, np.float32))
    assert str(error.value) == f"sinograms must have shape (1, 12, 16) (row, view, col), got {shape}"


def test_an_unknown_filter_is_refused() -> None:
    settings = FBP()
    object.__setattr__(settings, "filter", "hamming")  # past the type check that the tests switch on
    with pytest.raises(SettingsError, match="filter must be ram-lak, shepp-logan or hann, got 'hamming'"):
        settings.__post_init__()
