"""Noise of flats that all views share: no comparison of views shows it, yet estimates contain it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

import quietray
from quietray import ConeBeam, Correction, Noise2Inverse, ParallelBeam, Scan, Training, UNet
from quietray.assessment.common_noise import CommonNoise
from quietray.assessment.evidence import Evidence
from quietray.detector.correction.correct import calibrate
from quietray.detector.correction.own_flats import noise_of_flats, with_own_flats
from quietray.domains.clean import CleanDomain
from quietray.domains.projections import ProjectionDomain
from quietray.domains.series import SeriesDomain
from quietray.domains.volume import VolumeDomain
from quietray.filters import GaussianFilter
from quietray.inference.denoiser import Denoiser
from quietray.metrics.image import disc
from quietray.metrics.noreference import Judgement, judge_left_out, judge_subsets
from quietray.metrics.spectrum import region_bias
from quietray.preparation.sources import RepeatedReconstruction, reconstruction_of
from quietray.reconstruct import FBP, FDK, SIRT, TV
from quietray.running.run import Run
from quietray.splits import Noise2Clean, Noise2Projection
from scans import quick
from test_own_flats import LIGHT, PLAIN, SHAPE, cylinder, in_turn

SHARED = dataclasses.replace(PLAIN, own_flats=False)
ROWS = slice(0, SHAPE[0])


def test_noise_has_the_size_of_the_flats_own_and_is_independent_of_it() -> None:
    found = []
    for seed in range(6):
        scan = cylinder(n_flats=9, seed=seed)
        known = calibrate(scan, SHARED)
        more = noise_of_flats(scan, known, ROWS)
        assert more is not None
        found.append((np.log(known.flat / LIGHT), more[:, 0]))
    own, added = (np.stack(each).ravel() for each in zip(*found, strict=True))
    assert added.std() == pytest.approx(own.std(), rel=0.05)  # of 7680 pixels each: 0.8 % by chance
    assert abs(np.corrcoef(own, added)[0, 1]) < 0.05


def test_bad_pixels_and_some_rows() -> None:
    scan = cylinder()
    known = dataclasses.replace(calibrate(scan, SHARED), bad=np.indices(SHAPE)[1] == 7)
    whole, some = noise_of_flats(scan, known, ROWS), noise_of_flats(scan, known, slice(4, 12))
    assert whole is not None
    assert some is not None
    assert not some[:, :, 7].any(), "a bad pixel is interpolated"
    assert np.corrcoef(whole[4:12].ravel(), some.ravel())[0, 1] > 0.99


def test_where_it_is_not_known() -> None:
    scan = cylinder(n_flats=8)
    known = calibrate(scan, SHARED)
    assert scan.flats is not None
    assert noise_of_flats(dataclasses.replace(scan, flats=scan.flats[:1]), known, ROWS) is None
    assert noise_of_flats(dataclasses.replace(scan, flats=None), known, ROWS) is None
    assert noise_of_flats(scan, with_own_flats(scan, calibrate(scan, PLAIN), 4), ROWS) is None, "nothing is shared"
    filtered = dataclasses.replace(known, remove_rings="sorting")
    for calibration, algorithm in ((filtered, FBP()), (known, TV()), (known, SIRT())):
        source = reconstruction_of(scan, calibration, algorithm, scan.geometry.grid())
        assert source.noise_of_flats(ROWS) is None, "it does not simply add up"


def test_every_detector_has_its_own() -> None:
    scan = in_turn(cylinder(seed=1), cylinder(seed=2))
    known = calibrate(scan, SHARED)
    noise = noise_of_flats(scan, known, ROWS)
    assert noise is not None
    assert noise.shape[1] == 240
    assert np.array_equal(noise[:, 0], noise[:, 2])
    assert abs(np.corrcoef(noise[:, 0].ravel(), noise[:, 1].ravel())[0, 1]) < 0.15
    assert noise_of_flats(dataclasses.replace(scan, flats=None, flat_detectors=None), known, ROWS) is None


@pytest.mark.parametrize("cone", [False, True])
def test_a_reconstruction_with_it_is_that_of_other_flats(cone: bool) -> None:
    """The parts change as they do if the flats themselves are changed."""
    scan = cylinder()
    if cone:
        beam = ConeBeam.circular(np.linspace(0, 2 * np.pi, 120, endpoint=False), *SHAPE, 300.0, 400.0)
        scan = dataclasses.replace(scan, geometry=beam)
    known, rows = calibrate(scan, SHARED), slice(6, 9)
    algorithm = FDK() if cone else FBP()
    source = reconstruction_of(scan, known, algorithm, scan.geometry.grid())
    found, noise = source.noise_of_flats(rows), noise_of_flats(scan, known, ROWS)
    assert found is not None
    assert noise is not None
    other = dataclasses.replace(source, calibration=dataclasses.replace(known, flat=known.flat * np.exp(noise[:, 0])))
    expected = (other(rows)[0] - source(rows)[0])[0]
    assert (found - expected).std() < 0.05 * found.std()  # frames are brought to one level by the rows that are read


def test_repeats_only_share_the_same_flats() -> None:
    scans = [cylinder(seed=1), cylinder(seed=2)]
    scans.append(dataclasses.replace(scans[1], flats=scans[0].flats, darks=scans[0].darks))
    grid = scans[0].geometry.grid()
    sources = [reconstruction_of(scan, calibrate(scan, SHARED), FBP(), grid) for scan in scans]
    assert RepeatedReconstruction((sources[0], sources[1])).noise_of_flats(ROWS) is None
    found = RepeatedReconstruction((sources[0], sources[2])).noise_of_flats(ROWS)
    assert found is not None
    assert np.array_equal(found, sources[0].noise_of_flats(ROWS))


def test_what_a_comparison_does_not_show() -> None:
    assert CommonNoise(2.0, 2.0).unseen == 2.0, "what is kept whole is an error that nothing shows"
    assert CommonNoise(2.0, 0.0).unseen == -2.0, "what is removed was taken for one"
    steps = [CommonNoise(1.0, 0.5, CommonNoise(2.0, 1.0)), CommonNoise(3.0, 1.5, CommonNoise(4.0, 2.0))]
    assert CommonNoise.of_all(steps) == CommonNoise(2.0, 1.0, CommonNoise(3.0, 1.5))
    assert CommonNoise.of_all([steps[0], CommonNoise(3.0, 1.5)]) == CommonNoise(2.0, 1.0)
    bare = Evidence(1.0, 4.0, (0.5, 2.0), 0.0, ratio=(0.125, 0.5), inside=Evidence(1.0, 2.0, (0.5, 2.0), 0.0))
    found = bare.beside(CommonNoise(4.0, 3.0, CommonNoise(2.0, 1.0)))
    assert (found.error, found.noise, found.interval, found.ratio) == (3.0, 8.0, (2.5, 4.0), (0.3125, 0.5))
    assert found.inside is not None
    assert (found.inside.error, found.inside.noise) == (1.0, 4.0)
    assert bare.beside(None) is bare


@pytest.mark.parametrize("strength", ["weak", "strong"])
def test_the_actual_noise_is_as_uncertain_as_its_estimate(strength: str) -> None:
    """Blurred noise of which a weak filter leaves three quarters, a strong one a hundredth; 24 slices, 150 times.

    The noise that is left is estimated from other noise, as large: 90 % intervals from the scatter of the estimate
    alone contained the true ratio of 76 % after the weak filter.
    """
    rng, smoothing = np.random.default_rng(0), {"weak": 0.5, "strong": 3.0}[strength]
    contained = {True: 0, False: 0}
    for _ in range(150):
        parts = ndimage.gaussian_filter(rng.normal(size=(24, 4, 1, 1, 32, 32)), (0, 0, 0, 0, 0.8, 0.8), mode="wrap")
        results = ndimage.gaussian_filter(parts, (0, 0, 0, 0, smoothing, smoothing), mode="wrap")
        pairs = zip(torch.from_numpy(results), torch.from_numpy(parts), strict=True)
        each = [judge_subsets(result, part, torch.ones(1), alone=True) for result, part in pairs]
        true = np.square(results.mean(axis=1)).mean() / np.square(parts.mean(axis=1)).mean()
        for whole in contained:
            judged = Judgement.pooled(each if whole else [dataclasses.replace(one, subtracted=np.nan) for one in each])
            low, high = judged.ratio()
            contained[whole] += low <= true <= high
    assert 0.85 <= contained[True] / 150 <= 0.97
    assert contained[False] < contained[True] - 10 or strength == "strong"


def test_of_repeated_scans_the_noise_that_is_left_is_subtracted_at_half() -> None:
    """Two scans; a filter leaves half of the noise of the other: of what was subtracted, 1 - 2 s = 0 depends on it."""
    noise = torch.randn(2, 1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    one, other = noise
    judged = judge_left_out(
        torch.stack([other, one]) / 2, torch.stack([one, other]), torch.stack([other, one]), torch.ones(1), 1, 2
    )
    assert abs(judged.subtracted) < 1e-6
    assert judged.noise == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("slices", [1, 7])
def test_a_single_row_is_looked_at_with_its_neighbours(slices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rings of neighbouring rows are independent: seen alone, a row would stand for all of its neighbours."""
    scan, _, _ = foam(0, 4)
    training = Training(steps=40, precision="fp32")
    domain = domain_of(scan, method=Noise2Inverse(slices=slices), network=UNet((8, 16)), training=training)
    denoiser, _ = domain.learn()
    kept = []
    for voxels in (48**2, 2**17):
        monkeypatch.setattr("quietray.domains.volume.FLATS_VOXELS", voxels)
        monkeypatch.setattr("quietray.running.plan.FLATS_VOXELS", voxels)
        one = dataclasses.replace(domain).common_noise(denoiser)
        assert one is not None
        kept.append(one.kept / one.size)
    assert kept[0] == pytest.approx(kept[1], abs=0.1)


def test_channels_are_in_the_unit_of_the_middle_one() -> None:
    found = CommonNoise(2.0, 1.0, CommonNoise(4.0, 3.0)).scaled(0.25)
    assert (found.size, found.kept) == (0.5, 0.25)
    assert found.inside == CommonNoise(1.0, 0.75)


def test_without_the_object_in_these_rows_the_field_of_view_counts() -> None:
    inside = Evidence(1.0, 2.0, (0.5, 2.0), 0.0)
    found = dataclasses.replace(inside, inside=inside).beside(CommonNoise(4.0, 3.0))
    assert found.inside is not None
    assert found.inside.noise == 6.0


def foam(seed: int, n_flats: int) -> tuple[Scan, np.ndarray, np.ndarray]:
    """Return a scan, its noise-free reconstruction, and the field of view."""
    spheres = quietray.Foam.packed(60, 0.35, np.random.default_rng(seed), largest=0.2)
    beam = ParallelBeam(np.linspace(0, np.pi, 128, endpoint=False), 16, 48, rotation_axis=23.5)
    scan = quietray.acquire(spheres, beam, photons=300.0, n_flats=n_flats, seed=seed)
    assert scan.clean is not None
    lines = np.ascontiguousarray(np.swapaxes(np.asarray(scan.clean[:]), 0, 1))
    return scan, quietray.FBP()(quietray.ParallelProjector(beam), lines), disc(48, 48, 0.95)


def domain_of(scan: Scan, **more: Any) -> VolumeDomain:
    settings = quick(**more, rotation_axis=23.5, symmetries=1, correction=Correction(own_flats=False, rings="none"))
    run = Run.in_memory(settings)
    return VolumeDomain.prepare(run, [scan], VolumeDomain.bound(run, [scan]))


def test_a_filter_is_judged_with_the_rings_of_few_flats() -> None:
    """Three foams with six flats: the noise was estimated 24 to 26 % too low, now it is 3 to 4 % too low."""
    off: list[tuple[float, float]] = []
    for seed in range(3):
        scan, clean, where = foam(seed, 6)
        domain = domain_of(scan, method=GaussianFilter())
        found = domain.judge(domain.learn()[0])
        noisy = domain.measured().mean(axis=0)
        assert found.common is not None
        true = float(np.square(noisy - clean)[:, where].mean())
        off.append((found.noise / true - 1, (found.noise - found.common.size) / true - 1))
    with_flats, without = np.abs(off).T
    assert with_flats.max() < 0.1
    assert without.min() > 0.15


def test_figures_tell_the_share_of_flats() -> None:
    scan, _, _ = foam(0, 6)
    settings = quick(method=GaussianFilter(), rotation_axis=23.5, correction=Correction(own_flats=False, rings="none"))
    estimate = quietray.denoise(scan, None, settings).metrics["estimate"]
    assert 0.1 < estimate["share_of_noise_from_flats"] < 0.4
    assert 0 < estimate["share_of_flat_noise_kept"] < 1
    own = dataclasses.replace(settings, correction=Correction(own_flats=True, rings="none"))
    assert "share_of_noise_from_flats" not in quietray.denoise(scan, None, own).metrics["estimate"]


@pytest.mark.slow
def test_the_gain_of_a_network_with_few_flats_is_known() -> None:
    """Estimated minus true gain over four foams with four flats: 0.0 dB; without that of flats, -1.8 dB.

    A single one scatters by 0.8 dB, the mean of four by 0.4 dB.
    """
    off = []
    for seed in range(4):
        scan, clean, where = foam(seed, 4)
        training = Training(steps=300, patience=1.0, precision="fp32")
        domain = domain_of(scan, method=Noise2Inverse(slices=1), network=UNet((8, 16)), training=training, seed=seed)
        denoiser, _ = domain.learn()
        found, parts = domain.judge(denoiser), domain.measured()
        assert found.common is not None
        results = parts.mean(axis=0), denoiser.slab(parts, 0, 16)
        noisy, left = (np.square(one - clean)[:, where].mean() for one in results)
        bare = (found.noise - found.common.size) / (found.error - found.common.unseen)
        off.append([10 * np.log10(gain * left / noisy) for gain in (found.noise / found.error, bare)])
    now, before = np.abs(np.mean(off, axis=0))
    assert now < before - 0.4


def test_predicted_views_are_judged_with_the_noise_of_few_flats() -> None:
    """What plain reconstructions predict, against noise-free views: from four flats, twice the error was estimated."""
    off = []
    for seed in range(3):
        spheres = quietray.Foam.packed(60, 0.35, np.random.default_rng(seed), largest=0.2)
        beam = ParallelBeam(np.linspace(0, np.pi, 48, endpoint=False), 20, 64, rotation_axis=31.5)
        scan = quietray.acquire(spheres, beam, photons=200.0, n_flats=4, seed=seed)
        assert scan.clean is not None
        clean = np.asarray(scan.clean[:]).swapaxes(0, 1)
        settings = quick(
            steps=4,
            method=Noise2Projection(),
            rotation_axis=31.5,
            symmetries=1,
            correction=Correction(own_flats=False, rings="none"),
        )
        run = Run.in_memory(settings)
        domain = ProjectionDomain.prepare(run, [scan], ProjectionDomain.bound(run, [scan]))
        denoiser, _ = domain.learn()
        found, split, high = domain.judge(denoiser), domain.split, domain.scale.high
        assert found.common is not None
        assert isinstance(split, Noise2Projection)
        held = zip(domain.data.held_out(2**20), domain.data.held_out_rows, strict=True)
        predicted = [(split.predict(lambda x: x, samples)[0, 0].numpy() * high, row) for (samples, _), row in held]
        true = np.mean([np.square(views - clean[row]).mean() for views, row in predicted])
        off.append(found.noise / true)
    assert abs(np.mean(off) - 1) < 0.25


def test_the_mean_of_a_region_is_uncertain_by_the_rings_of_its_slices() -> None:
    """Rings of six slices that both halves have in common: the halves differ by much less."""
    rng = np.random.default_rng(0)
    off: dict[bool, list[float]] = {True: [], False: []}
    truth = np.zeros((6, 48, 48), np.float32)
    truth[:, :, 24:] = 1
    for _ in range(30):
        rings, others = np.repeat(rng.normal(0, 0.1, (2, 6, 48, 3)), 16, axis=3)
        halves = (truth + rings + rng.normal(0, 0.05, (2, *truth.shape))).astype(np.float32)
        for known, missed in off.items():
            regions = region_bias(truth, halves, np.stack([truth, truth]), common=others if known else None)
            missed += [one.bias / one.error for one in regions]
    assert 0.7 < np.std(off[True]) < 1.3
    assert np.std(off[False]) > 2


def test_slices_larger_than_what_halves_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large slices only a part is denoised from halves; the noise of flats must be that of the same part."""
    monkeypatch.setattr("quietray.assessment.halves._PIXELS", 1000)
    scan, _, _ = foam(0, 6)
    domain = domain_of(scan, method=GaussianFilter())
    domain = dataclasses.replace(domain, data=dataclasses.replace(domain.data, held_out_band=(8, 40)))
    halves = domain.halves(domain.learn()[0])
    assert halves.common is not None
    assert halves.common.shape[1:] == halves.weight.shape == halves.clean.shape[1:]
    assert halves.weight.shape[0] < 48


def test_means_of_regions_are_told_with_it() -> None:
    scan, _, _ = foam(0, 4)
    domain = domain_of(scan, method=GaussianFilter())
    halves = domain.halves(domain.learn()[0])
    with_rings, without = (one.figures(None)["regions"] for one in (halves, dataclasses.replace(halves, common=None)))
    assert with_rings
    assert all(one["error"] > 1.1 * other["error"] for one, other in zip(with_rings, without, strict=True))


def test_the_uncertainty_map_of_a_run_contains_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Seen(Exception):
        pass

    class Map:
        def beside(self, common: CommonNoise | None) -> None:
            raise Seen(common)

    monkeypatch.setattr("quietray.domains.volume.trusted", lambda *told: Map())
    scan, _, _ = foam(0, 4)
    correction = Correction(own_flats=False, rings="none")
    with pytest.raises(Seen) as found:
        quietray.denoise(scan, None, quick(steps=4, rotation_axis=23.5, trust=0.3, correction=correction))
    assert isinstance(found.value.args[0], CommonNoise)


def test_every_step_of_a_series_is_judged_with_it() -> None:
    scan, _, _ = foam(0, 4)
    settings = quick(
        steps=4,
        method=Noise2Inverse(parts=2, slices=3, times=1),
        rotation_axis=23.5,
        views_per_step=64,
        correction=Correction(own_flats=False, rings="none"),
    )
    run = Run.in_memory(settings)
    domain = SeriesDomain.prepare(run, [scan], SeriesDomain.bound(run, [scan]))
    judged = domain._judged(domain.learn()[0])
    assert len(judged) == 2
    assert all(one.common is not None and one.common.size > 0 for one in judged)


def test_a_model_from_clean_data_is_judged_with_it() -> None:
    """Applied to a scan without a clean volume, by halves of its views; this one leaves everything as it is."""
    scan, _, _ = foam(0, 4)
    scan = dataclasses.replace(scan, truth=None, clean=None)
    correction = Correction(own_flats=False, rings="none")
    run = Run.in_memory(quick(method=Noise2Clean(), rotation_axis=23.5, correction=correction))
    domain = CleanDomain.prepare(run, [scan], CleanDomain.bound(run, [scan]), taught=False)
    denoiser = Denoiser(nn.Identity(), GaussianFilter(0.0), domain.split, domain.scale)
    found = domain.judge(denoiser)
    assert found.common is not None
    assert found.common.kept == pytest.approx(found.common.size, rel=1e-4)
    assert found.error == pytest.approx(found.noise, rel=1e-4)
