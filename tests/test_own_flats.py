"""Flats of their own: dealt like the views, independent, as bright as all, and only where they help."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quietray
from quietray import ConeBeam, Correction, Noise2Inverse, ParallelBeam, Scan
from quietray.assessment.evidence import Evidence
from quietray.commands.flags import RunFlags
from quietray.detector.correction.calibration import Calibrated, Calibration
from quietray.detector.correction.correct import calibrate, correct_rows
from quietray.detector.correction.own_flats import correct_dealt, fewest_flats, predict, with_own_flats
from quietray.domains.frames import _frames
from quietray.domains.volume import VolumeDomain
from quietray.filters import GaussianFilter
from quietray.metrics.image import disc
from quietray.preparation.flats import dealt
from quietray.preparation.sources import reconstruction_of
from quietray.reconstruct import SIRT, Algorithm
from quietray.running.run import Run
from quietray.scan import interleaved
from quietray.splits import Noise2Projection
from scans import disc_scan, quick

PLAIN = Correction(zingers=0.0, air="none", rings="none", own_flats=True)
SHAPE = 16, 80
LIGHT, DARK = 400.0, 50.0


def cylinder(
    n_views: int = 120,
    n_flats: int = 12,
    n_darks: int = 8,
    seed: int = 0,
    noisy: bool = True,
    attenuation: float = 0.03,
) -> Scan:
    """Return a scan of a cylinder with air beside it; without `noisy` only flats and darks hold noise."""
    rng = np.random.default_rng(seed)
    offset = np.arange(SHAPE[1]) - (SHAPE[1] - 1) / 2
    seen = np.broadcast_to(LIGHT * np.exp(-attenuation * lengths(offset)), (n_views, *SHAPE))
    counts = (rng.poisson(seen) if noisy else seen) + DARK
    flats = rng.poisson(LIGHT, (n_flats, *SHAPE)) + DARK
    darks = DARK + rng.normal(0, 3, (n_darks, *SHAPE))
    beam = ParallelBeam(np.linspace(0, np.pi, n_views, endpoint=False), *SHAPE, rotation_axis=(SHAPE[1] - 1) / 2)
    light = (counts.astype(np.float32), beam, flats.astype(np.float32), darks.astype(np.float32))
    return Scan(*light, clean=seen / LIGHT)  # transmissions, unlike in a simulated scan


def lengths(offset: np.ndarray) -> np.ndarray:
    return 2 * np.sqrt(np.clip((0.3 * SHAPE[1]) ** 2 - offset**2, 0, None))


def own(scan: Scan, n_subsets: int = 4, settings: Correction = PLAIN) -> tuple[Calibration, np.ndarray]:
    calibration = with_own_flats(scan, calibrate(scan, settings), n_subsets)
    return calibration, correct_dealt(scan.read(slice(None)), calibration, slice(0, SHAPE[0]))[0]


def decided(scan: Scan, n_subsets: int = 4, shared_by: str = "", **settings: object) -> Calibrated:
    correction = dataclasses.replace(PLAIN, own_flats=None, **settings)  # type: ignore[arg-type]
    return dealt(Calibrated(scan, calibrate(scan, correction), ()), n_subsets, shared_by)


def test_each_subset_is_corrected_by_the_frames_dealt_to_it() -> None:
    scan = cylinder()
    _, sinograms = own(scan)
    counts, flats, darks = (np.asarray(frames) for frames in (scan.projections, scan.flats, scan.darks))
    for subset in range(4):
        dark = darks[subset::4].mean(axis=0)
        flat = flats[subset::4].mean(axis=0) - dark
        expected = -np.log((counts[subset::4] - dark) / flat).swapaxes(0, 1)
        difference = sinograms[:, subset::4] - expected
        assert abs(difference.mean()) < 5e-3, "the brightness is that of all flats"
        assert difference.std() < 1e-3, "every flat is brought to the level of all, known as well as their median"


def test_the_noise_of_flats_and_darks_is_independent_between_subsets() -> None:
    scan = cylinder(noisy=False)
    truth = 0.03 * lengths(np.arange(SHAPE[1]) - (SHAPE[1] - 1) / 2)
    shared, _ = correct_rows(scan.read(slice(None)), calibrate(scan, PLAIN), slice(0, SHAPE[0]))
    _, apart = own(scan)
    noise = [(one - truth).reshape(SHAPE[0], -1, 4, SHAPE[1]).mean(axis=1).swapaxes(0, 1) for one in (shared, apart)]
    correlations = [np.corrcoef(one.reshape(4, -1))[np.triu_indices(4, 1)] for one in noise]
    assert correlations[0].min() > 0.999, "shared flats leave the same rings in all subsets"
    assert np.abs(correlations[1]).max() < 4 / np.sqrt(SHAPE[0] * SHAPE[1])
    assert noise[1][0].var() == pytest.approx(4 * noise[0][0].var(), rel=0.25), "a quarter of the flats each"
    assert noise[1].mean(axis=0).var() == pytest.approx(noise[0][0].var(), rel=0.05), "the mean uses all of them"


def test_where_they_are_shared_nothing_changes_by_a_bit() -> None:
    scan, rows = cylinder(), slice(2, 7)
    known = dealt(Calibrated(scan, calibrate(scan, dataclasses.replace(PLAIN, own_flats=False)), ()), 4)
    assert known.calibration.subsets == ()
    assert known.notes == ("The angular subsets share their flats, as requested.",)
    plain, _ = correct_rows(scan.read(rows), known.calibration, rows)
    np.testing.assert_array_equal(correct_dealt(scan.read(rows), known.calibration, rows)[0], plain)


@pytest.mark.parametrize("n_subsets", [2, 3, 4])
def test_slabs_of_any_height_agree_to_the_bit(n_subsets: int) -> None:
    scan = cylinder(40)
    calibration, _ = own(scan, n_subsets, dataclasses.replace(PLAIN, zingers=6.0, rings="sorting"))
    source = reconstruction_of(scan, calibration, quietray.FBP(), scan.geometry.grid(), n_subsets)
    whole, changed = source(slice(0, 8))
    assert changed.total == 8 * 40 * SHAPE[1]
    np.testing.assert_array_equal(np.concatenate([source(slice(z, z + 4))[0] for z in (0, 4)], axis=1), whole)


def test_bad_pixels_zingers_and_a_drifting_beam_are_kept_out_of_every_subset() -> None:
    scan = cylinder()
    counts, flats = np.array(scan.projections), np.array(scan.flats)
    flats[:, 5, 30], counts[:, 5, 30] = DARK, DARK  # dead
    flats[4, 9, 40] += 5000  # a zinger, in one of the three flats of subset 0
    flats = DARK + (flats - DARK) * np.linspace(0.9, 1.1, len(flats), dtype=np.float32)[:, None, None]
    counts = DARK + (counts - DARK) * np.linspace(1.1, 0.9, len(counts), dtype=np.float32)[:, None, None]
    hurt = dataclasses.replace(scan, projections=counts, flats=flats)
    calibration, sinograms = own(hurt, settings=dataclasses.replace(PLAIN, air="0:12,68:80"))
    _, clean = own(scan)
    assert np.isfinite(sinograms).all()
    assert all(one.bad[5, 30] for one in calibration.subsets)
    assert np.abs(sinograms - clean)[5, :, 30].max() < 1.0, "interpolated"
    flat = calibration.subsets[0].flat
    assert abs(flat[9, 40] / calibration.flat[9, 40] - 1) < 5 / np.sqrt(2 * LIGHT), "the zinger is left out"
    good = np.ones(SHAPE, bool)
    good[5, 30] = good[9, 40] = False
    offset = (sinograms - clean).swapaxes(0, 1)[:, good].mean(axis=1)
    assert np.abs(offset).max() < 0.02, "views are as bright as the monitor says, whatever their subset's flats"


def in_turn(one: Scan, other: Scan) -> Scan:
    """Return a scan by two detectors in turn."""
    turns = np.arange(240) % 2
    frames = {
        name: np.asarray(interleaved({0: getattr(one, name), 1: getattr(other, name)}, numbers)[:])
        for name, numbers in (("projections", turns), ("flats", turns[:24]), ("darks", turns[:16]))
    }
    beam = ParallelBeam(np.linspace(0, np.pi, 240, endpoint=False), *SHAPE, rotation_axis=(SHAPE[1] - 1) / 2)
    return Scan(**frames, geometry=beam, detectors=turns, flat_detectors=turns[:24], dark_detectors=turns[:16])


def test_detectors_deal_their_frames_to_the_subsets_that_hold_their_views() -> None:
    one, other = cylinder(seed=1), cylinder(seed=2)
    scan = in_turn(one, other)
    assert fewest_flats(scan, 4) == 6, "two of four subsets hold views of a detector"
    calibration, sinograms = own(scan)
    assert [sorted(part.parts) for part in calibration.subsets] == [[0], [1], [0], [1]]
    for number, part in ((0, one), (1, other)):
        _, alone = own(part, 2)
        np.testing.assert_allclose(sinograms[:, number::2], alone, atol=1e-6)
    everybodys = dataclasses.replace(scan, flat_detectors=None)
    assert fewest_flats(everybodys, 4) == 6
    assert own(everybodys)[1].shape == sinograms.shape


@pytest.mark.parametrize("asked", [None, True])
def test_too_few_flats_are_shared_and_that_is_said(asked: bool | None) -> None:
    scan = cylinder(n_flats=2)
    known = dealt(Calibrated(scan, calibrate(scan, dataclasses.replace(PLAIN, own_flats=asked)), ()), 4)  # type: ignore[arg-type]
    assert known.calibration.subsets == ()
    assert known.notes[-1].endswith("whose noise stays as rings: there are 2 for 4 subsets.")
    assert len(dealt(known, 2).calibration.subsets) == 2


def test_too_few_darks_are_shared() -> None:
    scan = cylinder(n_darks=3)
    calibration, _ = own(scan)
    assert all(
        one.dark is calibration.subsets[0].dark or (one.dark == calibration.dark).all() for one in calibration.subsets
    )


def test_auto_takes_them_where_rings_would_show() -> None:
    assert decided(cylinder(n_flats=4)).calibration.subsets
    assert decided(cylinder(n_flats=8)).calibration.subsets
    assert "under 10.0%" in decided(cylinder(n_flats=16)).notes[-1]
    many = decided(cylinder(30, n_flats=200))
    assert not many.calibration.subsets
    assert "under 10.0%" in many.notes[-1]
    exact = cylinder()
    flats, darks = (np.full((n, *SHAPE), level, np.float32) for n, level in ((12, LIGHT + DARK), (8, DARK)))
    exact = dataclasses.replace(exact, flats=flats, darks=darks)
    assert not decided(exact).calibration.subsets, "there is no noise to deal"
    dim = cylinder()
    light = np.random.default_rng(0).poisson(2.0, (12, *SHAPE)) + DARK
    darks, seen = np.full((4, *SHAPE), DARK, np.float32), (np.asarray(dim.projections) - DARK) / 200 + DARK
    dim = dataclasses.replace(dim, flats=light.astype(np.float32), darks=darks, projections=seen)
    assert "too few for a logarithm" in decided(dim).notes[-1]
    leaky = decided(cylinder(), shared_by="steps that enter the network together share flats")
    assert not leaky.calibration.subsets
    assert leaky.notes[-1].endswith("steps that enter the network together share flats.")
    assert (
        decided(dataclasses.replace(cylinder(), flats=None, projections=np.ones((120, *SHAPE), np.float32))).flats
        is None
    )


def test_the_predicted_variances_are_those_of_the_slices() -> None:
    """Flats' noise alone, over the views' noise alone, in the field of view of a thin object."""
    exact = np.full((4, *SHAPE), LIGHT + DARK, np.float32)
    exact[0] += 1e-3  # equal frames would pass for stuck pixels
    variances = []
    for seed in range(3):
        noisy, still = (cylinder(seed=seed, noisy=noisy, attenuation=0.003) for noisy in (True, False))
        found = []
        for scan, flats in ((noisy, exact), (still, still.flats), (still, exact)):
            scan = dataclasses.replace(scan, flats=flats, darks=np.full((4, *SHAPE), DARK, np.float32))
            source = reconstruction_of(scan, calibrate(scan, PLAIN), quietray.FBP(), scan.geometry.grid())
            found.append(source(slice(0, SHAPE[0]))[0][0])
        inside = disc(SHAPE[1], SHAPE[1], 0.95)
        variances.append([(one - found[2])[:, inside].var() for one in found[:2]])
    views, rings = np.mean(variances, axis=0)
    scan = cylinder(attenuation=0.003)
    predicted = predict(scan, calibrate(scan, PLAIN), 4)
    assert rings / views == pytest.approx(predicted.rings_share, rel=0.1)
    assert predicted.flat_variance == pytest.approx(1 / (12 * LIGHT), rel=0.1)
    dimming = np.exp(0.003 * lengths(np.arange(SHAPE[1]) - (SHAPE[1] - 1) / 2)).mean()
    assert predicted.view_variance == pytest.approx(dimming / LIGHT, rel=0.1)


def parts_of(scan: Scan, calibration: Calibration, algorithm: Algorithm | None = None) -> np.ndarray:
    source = reconstruction_of(scan, calibration, algorithm or quietray.FBP(), scan.geometry.grid(), 4)
    return source(slice(0, SHAPE[0]))[0]


def test_the_mean_of_the_subsets_has_the_noise_of_shared_flats_and_no_more() -> None:
    """It is the same volume: flats of their own are told apart by rings that add up to nothing."""
    scan = cylinder(80, n_darks=3, noisy=False)
    shared = calibrate(scan, dataclasses.replace(PLAIN, own_flats=False))
    apart = with_own_flats(scan, shared, 4)
    in_views = dataclasses.replace(apart, subsets=tuple(dataclasses.replace(s, apart=None) for s in apart.subsets))
    means = [parts_of(scan, one).mean(axis=0) for one in (shared, apart, in_views)]
    exact = dataclasses.replace(scan, flats=np.full((1, *SHAPE), LIGHT + DARK))
    truth = parts_of(exact, calibrate(exact, PLAIN)).mean(axis=0)
    noise = [(one - truth)[:, disc(80, 80, 0.95)] for one in means]
    assert np.abs(noise[1] - noise[0]).max() < 0.01 * noise[0].std()
    assert noise[2].var() > 1.2 * noise[0].var(), "from their own views alone they would be streaks"


def test_the_mean_of_the_subsets_of_a_cone_beam_is_that_of_shared_flats() -> None:
    beam = ConeBeam.circular(np.linspace(0, 2 * np.pi, 40, endpoint=False), *SHAPE, 200.0, 300.0)
    scan = dataclasses.replace(cylinder(40, n_darks=3, noisy=False), geometry=beam)
    shared, algorithm = calibrate(scan, PLAIN), quietray.FBP().for_beam(beam)
    parts = [parts_of(scan, one, algorithm) for one in (shared, with_own_flats(scan, shared, 4))]
    assert np.abs(parts[1] - parts[0]).max() > 0.1 * parts[0].std()
    assert np.abs(parts[1].mean(axis=0) - parts[0].mean(axis=0)).max() < 1e-4 * parts[0].std()


def test_the_rings_of_the_subsets_are_independent() -> None:
    """Where a column is seen in every subset, nothing of the flats' noise is in two of them."""
    scan = cylinder(200, n_darks=3, noisy=False)
    exact = dataclasses.replace(scan, flats=np.full((1, *SHAPE), LIGHT + DARK))
    truth = parts_of(exact, calibrate(exact, PLAIN))
    inner, between = disc(80, 80, 200 / 8 / 40), []
    for flats in (False, True):
        settings = dataclasses.replace(PLAIN, own_flats=flats)
        known = dealt(Calibrated(scan, calibrate(scan, settings), ()), 4)
        noise = (parts_of(scan, known.calibration) - truth)[:, :, inner]
        others = (noise.sum(axis=0) - noise) / 3
        pairs = zip(noise, others, strict=True)
        between.append(max(abs(np.corrcoef(one.ravel(), rest.ravel())[0, 1]) for one, rest in pairs))
    assert between[0] > 0.95
    assert between[1] < 4 / np.sqrt(SHAPE[0] * 25), "about one number for each row and radius"


def test_what_iterates_and_ring_filters_see_the_flats_in_the_views() -> None:
    """There the difference of flats is left in the views: a filter would not see it, and iterating is not linear."""
    scan = cylinder(40)
    filtered, _ = own(scan, settings=dataclasses.replace(PLAIN, rings="sorting"))
    assert all(one.apart is None for one in filtered.subsets)
    plain, _ = own(scan)
    in_views = dataclasses.replace(plain, subsets=tuple(dataclasses.replace(s, apart=None) for s in plain.subsets))
    sirt = SIRT(iterations=2)
    np.testing.assert_array_equal(parts_of(scan, plain, sirt), parts_of(scan, in_views, sirt))
    assert not np.array_equal(parts_of(scan, plain), parts_of(scan, in_views))
    whole = [reconstruction_of(scan, one, quietray.FBP(), scan.geometry.grid()) for one in (plain, in_views)]
    np.testing.assert_array_equal(*(source(slice(0, 4))[0] for source in whole))  # all views together are no subset


def test_a_ring_filter_is_left_for_what_the_flats_do_not_explain() -> None:
    scan = cylinder(n_views=400, n_flats=6)
    assert calibrate(scan, dataclasses.replace(PLAIN, rings="auto", air="auto")).remove_rings == "sorting"
    explained = decided(scan, rings="auto", air="auto")
    assert {one.remove_rings for one in explained.calibration.subsets} == {"none"}
    assert "No ring filter is needed" in explained.notes[-1]
    gain = 1 + 0.05 * np.random.default_rng(3).standard_normal(SHAPE)
    drifted = dataclasses.replace(
        scan, projections=(DARK + (np.asarray(scan.projections) - DARK) * gain).astype(np.float32)
    )
    left = decided(drifted, rings="auto", air="auto")
    assert {one.remove_rings for one in left.calibration.subsets} == {"sorting"}
    assert "Rings are removed by sorting, too" in left.notes[-1]
    unseen = decided(scan, rings="auto")
    assert "there is no air to check" in unseen.notes[-1]
    assert {one.remove_rings for one in decided(drifted, rings="all").calibration.subsets} == {"all"}, "as asked"


def test_a_run_says_what_it_did_and_repeats_it() -> None:
    scan = quietray.read(disc_scan())
    result = quietray.denoise(scan, None, quick(correction=Correction(own_flats=True)))
    flats = result.metrics["flats"]
    assert (flats["own"], flats["subsets"], flats["flats"], flats["flats_of_a_subset"]) == (True, 2, 20, 10)
    assert any(note.startswith("Each of the 2 angular subsets has its own flats, 10 of 20") for note in result.notes)
    assert result.settings is not None
    again = quietray.denoise(scan, None, result.settings)
    np.testing.assert_array_equal(result.volume, again.volume)
    shared = quietray.denoise(scan, None, quick(correction=Correction(own_flats=False)))
    assert shared.metrics["flats"]["own"] is False
    assert not np.array_equal(result.volume, shared.volume)


def test_sinograms_to_be_split_later_are_dealt_too() -> None:
    settings = quick(method=Noise2Projection(4), rotation_axis=11.5, steps=3)
    assert quietray.denoise(quietray.read(disc_scan()), None, settings).metrics["flats"]["subsets"] == 4


def test_steps_of_one_acquisition_share_the_flats_that_their_neighbours_show() -> None:
    scan = quietray.read(disc_scan(n_views=64))
    asked: dict[str, Any] = {"views_per_step": 32, "steps": 3, "correction": Correction(own_flats=True)}
    alone, together = (
        quietray.denoise(scan, None, quick(method=Noise2Inverse(2, slices=1, times=times), **asked)) for times in (1, 3)
    )
    assert (alone.metrics["flats"]["own"], together.metrics["flats"]["own"]) == (True, False)
    assert any("steps that enter the network together" in note for note in together.notes)


@pytest.mark.parametrize("own_flats", [None, False])
def test_frames_of_one_scene_have_flats_of_their_own(own_flats: bool | None) -> None:
    """Frames without noise differ by nothing but the flats that they are divided by."""
    scan = cylinder(4, noisy=False)
    parts, unit, said = _frames(scan, own_flats)
    noise = (parts[:, 0] - np.asarray(scan.clean)).reshape(4, -1)
    between = np.corrcoef(noise)[np.triu_indices(4, 1)]
    assert unit == "transmission"
    if own_flats is None:
        assert np.abs(between).max() < 4 / np.sqrt(noise.shape[1])
        assert said.startswith("Each of the 4 frames has its own flats, 3 of 12")
    else:
        assert between.min() > 0.999
    assert "there are 3 for 4" in _frames(dataclasses.replace(scan, flats=scan.flats[:3]), None)[2]  # type: ignore[index]


@pytest.mark.parametrize(("flag", "setting"), [("auto", None), ("yes", True), ("no", False), (None, True)])
def test_the_flag_is_a_setting_of_the_correction(tmp_path: Path, flag: Any, setting: bool | None) -> None:
    config = tmp_path / "run.toml"
    config.write_text("[correction]\nown_flats = true\n")
    assert RunFlags(config=config, own_flats=flag).settings().correction.own_flats is setting
    assert RunFlags().settings().correction.own_flats is None


def test_a_filter_is_tuned_and_judged_alike() -> None:
    """Streaks of few views, hardly any noise: the judge told of -4.5 dB when tuning did not know of the streaks."""
    foam = quietray.Foam.packed(25, 0.35, np.random.default_rng(0), largest=0.3)
    beam = ParallelBeam(np.linspace(0, np.pi, 48, endpoint=False), 8, 48, rotation_axis=23.5)
    scan = quietray.acquire(foam, beam, photons=1e5, n_flats=4)
    own = Correction(own_flats=True, rings="none")
    result = quietray.denoise(scan, None, method=GaussianFilter(), correction=own)
    estimate = result.metrics["estimate"]
    assert result.metrics["flats"]["own"]
    assert estimate["psnr_gain_db_at_most"] > 0  # doing nothing was tried, too
    domain = VolumeDomain.prepare(
        Run.in_memory(dataclasses.replace(quick(method=GaussianFilter()), correction=own)),
        [scan],
        Noise2Inverse(slices=1),
    )
    denoiser, _ = domain.learn()
    seen = domain.data.widely_held_out(2**20)
    bare, found = Evidence.measure(denoiser, seen, air=0.0), domain.judge(denoiser)
    widths = [float(np.ptp(one.interval)) for one in (bare, found)]
    assert widths[1] > widths[0] + 0.5 * found.error, "the rings of few flats are few independent values"
