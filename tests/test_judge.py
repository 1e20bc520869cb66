"""The judge knows the error of a volume without the truth, whatever made it and whatever the detector."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats
from skimage.restoration import denoise_tv_chambolle

from quietray.errors import GeometryError, NoiseError, SettingsError
from quietray.geometry import ParallelBeam
from quietray.metrics.companion import Neighbours, object_radius, ramp
from quietray.metrics.heldout import HeldOut, adjacent_views_suffice, held_out_views
from quietray.metrics.image import disc, psnr
from quietray.metrics.slices import FourierSlices
from quietray.metrics.standings import Standings
from quietray.operators.astra import ParallelProjector
from quietray.reconstruct.analytic import FBP
from quietray.simulate.noise import Scintillator
from quietray.simulate.phantom import Foam

COLS, ROWS = 96, 16


def beam_of(n_views: int, cols: int = COLS, rows: int = ROWS, **more: Any) -> ParallelBeam:
    return ParallelBeam(np.linspace(0, np.pi, n_views, endpoint=False), rows, cols, **more)


def line_integrals(beam: ParallelBeam) -> np.ndarray:
    """``(row, view, col)`` of a foam that absorbs about half."""
    foam = Foam.packed(100, 0.3, np.random.default_rng(5), largest=0.2)
    lengths = foam.project(beam, supersampling=2)
    return np.ascontiguousarray((1.2 * lengths / COLS).transpose(1, 0, 2), dtype=np.float32)


def measured(clean: np.ndarray, photons: float, width: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy line integrals, and those that the same detector would show without noise."""
    detector = Scintillator(response_width=width)
    light = photons * np.exp(-clean.transpose(1, 0, 2))
    counts = detector.sample(light.astype(np.float32), np.random.default_rng(seed))
    noisy, without = (-np.log(np.maximum(x, 0.5) / photons) for x in (counts, detector.mean(light.astype(np.float32))))
    noisy, without = (np.ascontiguousarray(x.transpose(1, 0, 2), dtype=np.float32) for x in (noisy, without))
    return noisy, without


def fbp(beam: ParallelBeam, y: np.ndarray, window: str = "ram-lak") -> np.ndarray:
    return FBP(window)(ParallelProjector(beam, threads=1), np.ascontiguousarray(y))  # type: ignore[arg-type]


def candidates(beam: ParallelBeam, y: np.ndarray, training: np.ndarray) -> dict[str, np.ndarray]:
    raw = fbp(beam[training], y[:, training])
    sd = float(np.std(raw - ndimage.gaussian_filter(raw, 1)))
    found = {"raw": raw, "hann": fbp(beam[training], y[:, training], "hann"), "median": ndimage.median_filter(raw, 3)}
    for sigma in (0.5, 0.8, 1.2, 1.8, 2.6):
        found[f"gaussian {sigma}"] = ndimage.gaussian_filter(raw, sigma)
    for weight in (0.7, 1.0, 2.0):
        found[f"tv {weight}"] = denoise_tv_chambolle(raw, weight * sd, max_num_iter=40).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def scan() -> tuple[ParallelBeam, np.ndarray]:
    beam = beam_of(192)
    return beam, line_integrals(beam)


@pytest.mark.parametrize(("photons", "width"), [(1000.0, 0.0), (100.0, 0.5)])
def test_the_estimated_psnr_is_the_true_one(
    scan: tuple[ParallelBeam, np.ndarray], photons: float, width: float
) -> None:
    """To 0.4 dB for every smooth volume, and methods rank as they should, on a white and on a correlated detector."""
    beam, clean = scan
    y, without = measured(clean, photons, width)
    training, held = held_out_views(beam)
    volumes = candidates(beam, y, training)
    inside = disc(COLS, COLS, 0.97)
    truth = fbp(beam, without)
    errors = {name: float(np.square((each - truth)[:, inside]).mean()) for name, each in volumes.items()}
    found = HeldOut(y, beam, held).judge(volumes)
    assert found.domain == "volume"
    span = float(np.ptp(truth[:, inside]))
    for name in errors:
        true, estimated = psnr(errors[name], span), psnr(found.errors[name], span)
        if name != "gaussian 0.5":  # of which held-out views show neither all the noise nor all the detail
            assert estimated == pytest.approx(true, abs=0.4), name
    rank = stats.spearmanr([errors[name] for name in errors], [found.errors[name] for name in errors]).statistic
    assert rank >= 0.9
    assert errors[found.best] < 1.1 * min(errors.values())


def test_a_known_error_is_found_and_two_methods_are_told_apart(scan: tuple[ParallelBeam, np.ndarray]) -> None:
    """Fields added to the truth are seen with their mean square, and their difference far better than either."""
    beam, clean = scan
    y, _ = measured(clean, 100.0)
    _, held = held_out_views(beam)
    inside = disc(COLS, COLS, 0.97)
    truth = fbp(beam, clean) * inside
    field = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=truth.shape), (0, 1.0, 1.0)) * inside
    field = (field * (0.2 * truth.max() / field.std())).astype(np.float32)
    volumes = {"less": truth + field, "more": truth + np.float32(1.2) * field}
    found = HeldOut(y, beam, held).judge(volumes)
    true = {name: float(np.square((each - truth)[:, inside]).mean()) for name, each in volumes.items()}
    for name, error in true.items():
        low, high = found.interval(name, 0.99)
        assert low < error < high
        assert found.errors[name] == pytest.approx(error, rel=0.12)
    change, low, high = found.difference("more", "less")
    assert change == pytest.approx(true["more"] - true["less"], rel=0.05)
    assert low < true["more"] - true["less"] < high
    assert high - low < 0.5 * np.diff(found.interval("less"))[0]


def test_without_noise_there_is_a_floor_far_below_any_denoiser(scan: tuple[ParallelBeam, np.ndarray]) -> None:
    """The truth itself is judged as better than 33 dB: what a grid and a discrete projector leave."""
    beam, clean = scan
    _, held = held_out_views(beam)
    truth = fbp(beam, clean)
    compare = HeldOut(clean, beam, held, np.zeros((ROWS, len(held), COLS), np.float32))
    assert compare.judge({"truth": truth}).errors["truth"] < 2e-3 * clean.var()
    error = HeldOut(clean, beam, held).judge({"truth": truth}).errors["truth"]
    assert psnr(abs(error), float(np.ptp(truth[:, disc(COLS, COLS, 0.97)]))) > 33


def test_units_axis_and_order_do_not_matter() -> None:
    beam = beam_of(128, 64, 2, rotation_axis=29.0)
    rng = np.random.default_rng(0)
    offset = np.arange(64) - 29.0
    chord = 2 * np.sqrt(np.clip(20.0**2 - offset**2, 0, None))
    y = (0.02 * np.broadcast_to(chord, (2, 128, 64)) + rng.normal(0, 0.2, (2, 128, 64))).astype(np.float32)
    training, held = held_out_views(beam)
    volumes = {"raw": fbp(beam[training], y[:, training])}
    volumes["smooth"] = ndimage.gaussian_filter(volumes["raw"], (0, 1, 1))
    plain = HeldOut(y, beam, held).judge(volumes)
    assert 0 < plain.errors["smooth"] < plain.errors["raw"]

    in_mm = dataclasses.replace(beam, pixel_size=0.05)
    scaled = HeldOut(y, in_mm, held).judge({name: each / np.float32(0.05) for name, each in volumes.items()})
    for name, error in plain.errors.items():
        assert scaled.errors[name] == pytest.approx(error / 0.05**2, rel=1e-3)
    order = rng.permutation(128)
    mixed = HeldOut(y[:, order], beam[order], np.flatnonzero(np.isin(order, held))).judge(volumes)
    assert mixed.errors == pytest.approx(plain.errors, rel=1e-3)
    assert mixed.interval("raw") == pytest.approx(plain.interval("raw"), rel=1e-2)


def test_sparse_scans_are_judged_in_the_projections() -> None:
    """With the variance known, the mean square error of the unseen views comes out to 0.3 dB, in the right order."""
    beam = beam_of(32)
    clean = line_integrals(beam)
    y, _ = measured(clean, 1000.0)
    training, held = held_out_views(beam)
    assert not adjacent_views_suffice(y, beam)
    with pytest.raises(NoiseError, match="give the variance"):
        HeldOut(y, beam, held)
    variance = (np.exp(clean[:, held]) / 1000).astype(np.float32)
    volumes = candidates(beam, y, training)
    found = HeldOut(y, beam, held, variance).judge(volumes)
    assert found.domain == "projections"
    assert found.noise == pytest.approx(float(variance.mean()), rel=1e-4)
    projector = ParallelProjector(beam[held], threads=1)
    inside = disc(COLS, COLS, 0.97)
    true = {name: float(np.square(projector(each * inside) - clean[:, held]).mean()) for name, each in volumes.items()}
    for name, error in true.items():
        assert 10 * np.log10(found.errors[name] / error) == pytest.approx(0, abs=0.3), name
    rank = stats.spearmanr(list(true.values()), [found.errors[name] for name in true]).statistic
    assert rank >= 0.9


def test_volumes_and_scans_are_read_band_by_band() -> None:
    beam = beam_of(64, 32, 40)
    y = np.random.default_rng(0).normal(0, 1, (40, 64, 32)).astype(np.float32)
    read: list[int] = []

    class Lazy:
        def __init__(self, data: np.ndarray) -> None:
            self.data, self.shape, self.dtype = data, data.shape, data.dtype

        def __getitem__(self, key: Any) -> Any:
            out = self.data[key]
            read.append(len(out))
            return out

    _, held = held_out_views(beam)
    volumes = {"nothing": np.zeros((40, 32, 32), np.float32)}
    whole = HeldOut(y, beam, held).judge(volumes)
    lazy = HeldOut(Lazy(y), beam, held).judge({"nothing": Lazy(volumes["nothing"])})
    assert lazy.errors == whole.errors
    assert max(read) <= 16


@given(st.integers(8, 400), st.sampled_from([1 / 4, 1 / 5, 1 / 8, 0.1]))
def test_held_out_views_are_single_and_evenly_spread(n_views: int, share: float) -> None:
    beam = beam_of(n_views, 8, 1)
    if n_views * share < 1:
        with pytest.raises(SettingsError, match="hold a view"):
            held_out_views(beam, share)
        return
    training, held = held_out_views(beam, share)
    assert sorted([*training, *held]) == list(range(n_views))
    assert len(held) == int(n_views * share + 1e-9)
    steps = np.diff(held)
    assert len(held) == 1 or (steps.min() >= 4 and np.ptp(steps) <= 1)
    neighbours = Neighbours.of(beam, np.arange(n_views), held)
    assert not set(neighbours.views[[0, 2, 3]].ravel()) & set(held.tolist())
    assert neighbours.weights == pytest.approx(np.repeat([[1 / 3], [2 / 3]], len(held), axis=1))


def test_what_is_left_falls_into_evenly_spaced_parts() -> None:
    beam = beam_of(60, 8, 1)
    training, _ = held_out_views(beam, 1 / 5)
    for part in range(4):
        assert set(np.diff(training[part::4])) == {5}


@pytest.mark.parametrize("n", [20, 21])
def test_slices_are_the_fourier_transform(n: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(n, n)).astype(np.float32)
    slices = FourierSlices(ParallelBeam(np.array([0.0, 0.4, 1.2, 2.6, 4.0]), 1, n, rotation_axis=7.3))
    place = np.arange(n) - (n - 1) / 2
    across, along = np.cos(slices.geometry.angles), np.sin(slices.geometry.angles)
    position = across[:, None, None] * place - along[:, None, None] * place[:, None]
    wanted = np.einsum(
        "yx,vkyx->vk", image, np.exp(-2j * np.pi * slices.frequencies[:, None, None] * position[:, None])
    )
    assert np.abs(slices.of_image(image) - wanted).max() < 1e-3 * np.abs(wanted).max()


def test_slices_agree_with_the_projector() -> None:
    """Where there is no fine detail, the spectrum of ASTRA's projection is the slice, off-centre axis and all."""
    beam = ParallelBeam(np.array([0.0, 0.5, 1.0, 2.0]), 1, 64, rotation_axis=25.0)
    y, x = np.mgrid[:64, :64]
    blob = np.exp(-((x - 38.0) ** 2 + (y - 25.0) ** 2) / 50).astype(np.float32)
    slices = FourierSlices(beam)
    projected = slices.of_views(ParallelProjector(beam, threads=1)(blob[None])[0])
    found = slices.of_image(blob)
    assert np.abs(found - projected).max() < 0.01 * np.abs(found).max()


def test_the_noise_of_held_out_views_is_known_to_half_a_percent(scan: tuple[ParallelBeam, np.ndarray]) -> None:
    """From the companion alone, whose errors in adjacent views correlate as those of simulated noise do."""
    beam, clean = scan
    y, without = measured(clean, 1000.0)
    _, held = held_out_views(beam)
    found = HeldOut(y, beam, held).judge({"truth": fbp(beam, without)})
    slices = FourierSlices(beam[held])
    power = [np.abs(slices.of_views(row) * slices.smoothing) ** 2 for row in (y - without)[:, held]]
    twice = np.where((slices.frequencies > 0) & (slices.frequencies < 0.5), 2, 1) / slices.n_padded
    weights = twice * ramp(slices.n_padded) * np.pi / disc(COLS, COLS, 0.97).sum()
    assert found.noise == pytest.approx(float(np.mean(power, axis=(0, 1)) @ weights), rel=5e-3)


def test_noise_between_the_views_that_were_used_is_counted(scan: tuple[ParallelBeam, np.ndarray]) -> None:
    """Held-out views lie in gaps, where a raw reconstruction has less noise; differences to smooth volumes tell it."""
    beam, clean = scan
    y, without = measured(clean, 100.0)
    training, held = held_out_views(beam)
    inside = disc(COLS, COLS, 0.97)
    truth = fbp(beam, without)
    raw = fbp(beam[training], y[:, training])
    volumes = {"raw": raw, "smooth": ndimage.gaussian_filter(raw, (0, 1.2, 1.2))}
    true = {name: float(np.square((one - truth)[:, inside]).mean()) for name, one in volumes.items()}
    found = HeldOut(y, beam, held).judge(volumes)
    change, low, high = found.difference("raw", "smooth")
    assert low < true["raw"] - true["smooth"] < high
    assert change == pytest.approx(true["raw"] - true["smooth"], rel=0.04)  # without gaps and corners: 0.77 of it


@pytest.mark.parametrize(("radius", "beyond"), [(30.0, False), (45.0, False), (48.0, True), (60.0, True)])
def test_an_object_beyond_the_field_of_view_is_seen(radius: float, beyond: bool) -> None:
    """Of 96 columns, that of radius 48 fills all; what is masked of it would count as error."""
    offset = np.arange(COLS) - (COLS - 1) / 2
    chord = 0.02 * np.sqrt(np.clip(radius**2 - offset**2, 0, None))
    beam = beam_of(192, rows=2)
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 192, COLS))
    found = HeldOut((chord + noise).astype(np.float32), beam, held_out_views(beam)[1])
    assert found.overflows == beyond


def test_the_ramp_weighs_projections_to_the_image() -> None:
    """Parseval: the sum of squares of an image is pi times the mean power of its filtered projections."""
    n = 48
    image = np.zeros((n, n), np.float32)
    image[8:40, 8:40] = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(32, 32)), 1.2)
    slices = FourierSlices(ParallelBeam(np.linspace(0, np.pi, 180, endpoint=False), 1, n))
    twice = np.where((slices.frequencies > 0) & (slices.frequencies < 0.5), 2, 1)
    power = (np.abs(slices.of_image(image)) ** 2 * ramp(slices.n_padded) * twice / slices.n_padded).sum(axis=1)
    assert np.pi * power.mean() == pytest.approx(float((image**2).sum()), rel=3e-3)


def test_object_radius_is_measured_from_the_axis() -> None:
    profile = np.zeros(50)
    profile[20:31] = 1
    assert object_radius(profile, ParallelBeam(np.zeros(1), 1, 50, rotation_axis=25.0)) == 5.5
    assert object_radius(profile, ParallelBeam(np.zeros(1), 1, 50, rotation_axis=35.0)) == 15.5


def test_intervals_cover_and_order_is_by_error() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(150):
        luck = rng.normal(0, 1, (2, 60))
        found = Standings(("b", "a"), np.array([[2.0], [1.0]]) + luck, np.ones(60), 0.0, "volume")
        low, high = found.interval("a")
        hits += low < 1 < high
    assert 0.8 < hits / 150 < 0.97
    assert list(found.errors) == ["a", "b"]
    assert found.best == "a"


def test_errors_of_volumes_rest_on_simulations_but_differences_do_not() -> None:
    blocks = np.stack([np.full(400, 2.0), np.full(400, 1.0)])
    for domain, half in (("volume", 0.04 * 1.65), ("projections", 0.0)):
        found = Standings(("b", "a"), blocks, np.ones(400), 0.0, domain)
        for name, error in found.errors.items():
            assert found.interval(name) == pytest.approx((error * (1 - half), error * (1 + half)), rel=1e-3)
        assert found.difference("b", "a") == (1.0, 1.0, 1.0)


def test_heavier_blocks_count_more() -> None:
    found = Standings(("a", "b"), np.array([[1.0, 4.0], [0.0, 4.0]]), np.array([3.0, 1.0]), 0.0, "volume")
    assert found.errors == {"b": 1.0, "a": 1.75}
    assert found.difference("a", "b")[0] == 0.75
    assert found.difference("a", "a") == (0.0, 0.0, 0.0)
    alone = Standings(("a",), np.array([[1.0]]), np.ones(1), 0.0, "volume")
    assert alone.interval("a") == (-np.inf, np.inf)
    with pytest.raises(SettingsError, match="one of a, b, got 'c'"):
        found.interval("c")


def test_mistakes_are_told() -> None:
    beam = beam_of(64, 32, 2)
    y = np.random.default_rng(0).normal(1, 1, (2, 64, 32)).astype(np.float32)
    _, held = held_out_views(beam)
    judge = HeldOut(y, beam, held)
    zero = np.zeros((2, 32, 32), np.float32)
    with pytest.raises(GeometryError, match=r"the volume 'cut' must have shape \(2, 32, 32\)"):
        judge.judge({"cut": zero[:, 4:]})
    with pytest.raises(SettingsError, match="at least one"):
        judge.judge({})
    with pytest.raises(NoiseError, match="must be finite, got NaN or infinity in row 1"):
        judge.judge({"zero": zero, "spoiled": np.stack([zero[0], np.full((32, 32), np.nan, np.float32)])})
    with pytest.raises(GeometryError, match="two others between them"):
        HeldOut(y, beam, np.array([3, 5]))
    with pytest.raises(GeometryError, match="not be at the ends"):
        HeldOut(y, beam, np.array([0, 8]))
    with pytest.raises(SettingsError, match="field_of_view"):
        HeldOut(y, beam, held, field_of_view=1.5)
    with pytest.raises(GeometryError, match="sinograms must have shape"):
        HeldOut(y[:, 1:], beam, held)
    with pytest.raises(GeometryError, match="variance must have shape"):
        HeldOut(y, beam, held, y)
    for share in (0.0, 0.3, 1 / 100):
        with pytest.raises(SettingsError, match="held-out share"):
            held_out_views(beam, share)
    with pytest.raises(GeometryError, match="a slice must be 32 x 32"):
        FourierSlices(beam).of_image(zero[0, 1:])
