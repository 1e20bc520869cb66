"""Methods, models and comparisons as a user runs them, on small scans."""

from __future__ import annotations

import dataclasses
import json
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

import quietray
import quietray.metrics.image
from quietray.assessment.comparison import Comparison, Standing
from quietray.cli import main
from quietray.domains.compare import FEWEST_ROWS, _candidates, affordable_rows
from quietray.domains.models import unlike
from quietray.domains.volume import VolumeDomain
from quietray.errors import ResourceError, SettingsError
from quietray.filters import FILTERS, GaussianFilter, MedianFilter, TotalVariation
from quietray.report import report_of
from quietray.report.page import _render
from quietray.running.run import Run
from quietray.running.settings import METHODS, Auto, Method, Settings
from quietray.scan import Scan
from quietray.settings import called, from_dict, read_toml
from quietray.splits import Noise2Inverse, Noise2Noise, Noise2Self
from scans import quick as quick_

pytestmark = pytest.mark.usefixtures("short_report")


def quick(**more: object) -> Settings:
    return quick_(rotation_axis=19.5, **more)


def learning(steps: int, patch: int = 128, **more: object) -> Settings:
    """Return settings of a run that learns something, in the precision in which its margins were measured."""
    settings = quick(**more)
    return dataclasses.replace(
        settings, training=dataclasses.replace(settings.training, steps=steps, patch=patch, precision="fp32")
    )


def foam(photons: float = 200.0, seed: int = 0, views: int = 100, n_rows: int = 12, n_cols: int = 40) -> Scan:
    """Return a scan of a foam of few voids."""
    phantom = quietray.Foam.packed(15, 0.5, np.random.default_rng(0), largest=0.3)
    angles = np.linspace(0, np.pi, views, endpoint=False)
    beam = quietray.ParallelBeam(angles, n_rows, n_cols, rotation_axis=(n_cols - 1) / 2)
    return quietray.acquire(phantom, beam, photons=photons, n_flats=100, seed=seed)


def clean(scan: Scan) -> np.ndarray:
    A = quietray.ParallelProjector(scan.geometry)
    return quietray.FBP()(A, np.ascontiguousarray(np.swapaxes(np.asarray(scan.clean[:], np.float32), 0, 1)))


def error(volume: object, scan: Scan) -> float:
    inside = quietray.metrics.image.disc(scan.n_cols, scan.n_cols, 0.9)
    return float(np.square(np.asarray(volume) - clean(scan))[:, inside].mean())


@pytest.fixture(scope="module")
def scan() -> Scan:
    return foam()


def test_every_method_has_a_domain() -> None:
    domains = {name: kind().domain == "radiographs" for name, kind in METHODS.items()}
    assert {name for name, first in domains.items() if first} == {"noise2self", "noise2void", "noisier2noise", "apbsn"}
    with pytest.raises(SettingsError, match=r"must be one of auto, .*, got 'noise2slef' \(did you mean 'noise2self'"):
        Settings(method="noise2slef")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["gaussian", "median", "tv"])
def test_methods_run_and_help(scan: Scan, name: str) -> None:
    result = quietray.denoise(scan, None, quick(rows="2:10", method=METHODS[name]()))
    assert result.metrics["method"]["name"] == name
    part = dataclasses.replace(
        scan,
        projections=scan.projections[:, 2:10],
        flats=scan.flats[:, 2:10],
        darks=scan.darks[:, 2:10],
        clean=scan.clean[:, 2:10],
        truth=None,
        geometry=scan.geometry.rows(8),
    )
    noisy = result.gathered.cuts["axial"][0]
    inside = quietray.metrics.image.disc(40, 40, 0.9)
    before = float(np.square(noisy - clean(part)[4])[inside].mean())
    after = float(np.square(np.asarray(result.volume[4]) - clean(part)[4])[inside].mean())
    assert after < 0.9 * before


@pytest.mark.parametrize("name", ["noisier2noise", "apbsn"])
def test_other_methods_on_radiographs_run_and_say_what_they_are(scan: Scan, name: str, tmp_path: Path) -> None:
    settings = learning(100, rows="2:10", method=METHODS[name](), whiten="never")
    result = quietray.denoise(scan[::4], tmp_path, settings)
    assert result.metrics["method"] | {"name": name, "domain": "radiographs"} == result.metrics["method"]
    assert np.isfinite(np.asarray(result.volume)).all()
    if name == "noisier2noise":  # the noise was measured: about one over 200 photons
        assert 0.003 < result.denoiser.split.poisson < 0.008
    again = quietray.Denoiser.load(tmp_path / "model")
    assert again.split == result.denoiser.split


def test_a_filter_is_tuned_saved_and_told(scan: Scan, tmp_path: Path) -> None:
    result = quietray.denoise(scan, tmp_path / "out", quick(method=TotalVariation()))
    stored = from_dict(Settings, read_toml(tmp_path / "out" / "run.toml"))
    assert isinstance(stored.method, TotalVariation)
    assert stored.method.weight > 0
    again = quietray.Denoiser.load(tmp_path / "out" / "model")
    assert again.architecture == stored.method
    assert not again.trained
    assert result.metrics["training"]["steps"] == 0


def test_repeated_scans_learn_from_each_other(scan: Scan) -> None:
    settings = learning(200, method=Noise2Noise(slices=3))
    result = quietray.denoise(scan, None, settings, repeats=[foam(seed=1), foam(seed=2)])
    assert result.metrics["method"]["parts"] == 3
    _, denoised = result.gathered.cuts["axial"]
    noisy = result.gathered.cuts["axial"][0]
    inside, truth = quietray.metrics.image.disc(40, 40, 0.9), clean(scan)[6]
    assert np.square(denoised - truth)[inside].mean() < np.square(noisy - truth)[inside].mean()


def test_repeated_frames_become_one_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = np.zeros((64, 64), np.float32)
    image[16:48, 20:40] = 50
    frames = (100 + image + rng.normal(0, 20, (6, 64, 64))).astype(np.float32)
    angles = np.zeros(6)
    stack = Scan(frames, quietray.ParallelBeam(angles, 64, 64))
    settings = learning(300, patch=32, method=Noise2Noise())
    result = quietray.denoise(stack, tmp_path / "out", settings)
    assert np.asarray(result.volume).shape == (1, 64, 64)
    error = np.square(np.asarray(result.volume)[0] - 100 - image).mean()
    assert error < 0.6 * np.square(frames.mean(axis=0) - 100 - image).mean()
    with pytest.raises(SettingsError, match="at least 2, got 1"):
        quietray.denoise(dataclasses.replace(stack[:1]), None, settings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"noise_level": 0.9}, "noise is 0.9"),
        ({"correlation": 0.6}, "correlates by 0.60"),
        ({"voxel_size_mm": 0.2}, "voxels are 0.2 mm"),
        ({"noise_level": 0.25, "correlation": 0.1, "voxel_size_mm": 0.011}, ""),
    ],
)
def test_a_model_knows_what_it_was_trained_on(change: dict[str, float], words: str) -> None:
    scans = [
        {"noise_level": 0.2, "correlation": 0.0, "voxel_size_mm": 0.01},
        {"noise_level": 0.3, "correlation": 0.05, "voxel_size_mm": 0.01},
    ]
    found = unlike({"trained_on": scans}, {**scans[0], **change})
    assert [words in one for one in found] == ([True] if words else [])


def test_train_apply_and_fine_tune(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, photons, seed in (("a", 200.0, 0), ("b", 200.0, 1), ("other", 3.0, 2)):
        quietray.write_scan(tmp_path / f"{name}.h5", foam(photons, seed))
    config = tmp_path / "small.toml"
    config.write_text('[network]\nname = "unet"\nwidths = [8, 16]\n[training]\npatch = 32\nprecision = "fp32"\n')
    common = ["--config", str(config), "--air", "none", "--rings", "none"]
    model = str(tmp_path / "model")
    method = ["--method", "noise2inverse", "--slices", "3", "--parts", "2", "--steps", "150"]
    scans = [str(tmp_path / "a.h5"), "--more", str(tmp_path / "b.h5")]
    main(["train", *scans, "--out", model, *method, *common])
    facts = json.loads((tmp_path / "model" / "model.json").read_text())["facts"]
    assert len(facts["trained_on"]) == 2

    main(["apply", model, str(tmp_path / "b.h5"), "--out", str(tmp_path / "b"), "--air", "none", "--rings", "none"])
    figures = json.loads((tmp_path / "b" / "metrics.json").read_text())
    assert figures["estimate"]["rmse"] < 0.89 * figures["estimate"]["rmse_noisy"], "a gain of 1 dB"
    assert not any("trained on other scans" in warning for warning in figures["warnings"])
    networks = [tomllib.loads((tmp_path / name / "run.toml").read_text())["network"] for name in ("model", "b")]
    assert networks[0] == networks[1], "the run is recorded with the model's network"

    apply_other = ["apply", model, str(tmp_path / "other.h5"), "--air", "none", "--rings", "none"]
    main([*apply_other, "--out", str(tmp_path / "other")])
    figures = json.loads((tmp_path / "other" / "metrics.json").read_text())
    assert any("trained on other scans: its noise" in warning for warning in figures["warnings"])
    with pytest.raises(SystemExit) as left:
        main([*apply_other, "--out", str(tmp_path / "refused"), "--strict"])
    assert left.value.code == 2
    assert "must be like those that the model was trained on" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "refused").exists()

    tuned, fresh = (
        quietray.denoise(
            quietray.read(tmp_path / "b.h5"),
            None,
            dataclasses.replace(
                from_dict(Settings, read_toml(config)),
                method=Noise2Inverse(parts=2, slices=3),
                start=start,
                symmetries=1,
                training=quietray.Training(steps=25, patch=32, precision="fp32"),
            ),
        )
        for start in (model, None)
    )
    assert error(tuned.volume, foam(200.0, 1)) < error(fresh.volume, foam(200.0, 1))


@pytest.mark.slow
def test_compare_ranks_without_the_truth_as_the_truth_does(tmp_path: Path) -> None:
    quietray.write_scan(tmp_path / "scan.h5", foam(100.0, n_rows=16, views=128))
    main(["compare", str(tmp_path / "scan.h5"), "--out", str(tmp_path / "out"), "--steps", "10", "--air", "none"])
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["comparison"]
    names = [row["method"] for row in found["methods"]]
    assert {"fbp", "gaussian", "median", "bilateral", "nlm", "wavelet", "tv", "noise2inverse 2-D"} <= set(names)
    assert names.index("tv") < names.index("gaussian") < names.index("fbp")
    assert found["winner"] == names[0]
    assert found["recommended"] in names
    assert (tmp_path / "out" / "report.html").exists()
    assert "truth" not in json.dumps(found)


def test_auto_judges_filters_beside_the_network_where_a_comparison_is_too_dear(scan: Scan, tmp_path: Path) -> None:
    settings = Settings(budget="2s", symmetries=1, network=quietray.UNet((4, 8)))
    assert affordable_rows(scan, 16, 0.4) < FEWEST_ROWS <= affordable_rows(scan, 16, 60.0) <= scan.n_rows
    result = quietray.denoise(scan, tmp_path / "out", settings)
    stored = from_dict(Settings, read_toml(tmp_path / "out" / "run.toml"))
    assert any("Noise2Inverse was used" in note for note in result.notes)
    said = next(note for note in result.notes if "On data held out from all" in note)
    assert f"{called(type(stored.method))} did better than" in said
    assert all(name in said for name in ("noise2inverse", *FILTERS))
    assert "comparison" not in result.metrics


@pytest.mark.parametrize(("views", "columns", "rows"), [(181, 640, 2), (375, 835, 1), (90, 160, 16), (3000, 26, 16)])
def test_two_minutes_are_enough_to_compare_on_real_scans(views: int, columns: int, rows: int) -> None:
    """As wide as those that are tested, with as many views; of the first there are two rows."""
    beam = quietray.ParallelBeam(np.linspace(0, np.pi, views, endpoint=False), 2 if views == 181 else 16, columns)
    frames = np.broadcast_to(np.float32(1), (views, beam.n_rows, columns))
    assert affordable_rows(Scan(frames, beam), Auto().rows, Auto().share * 120) == rows


@pytest.mark.slow
def test_filters_are_judged_beside_the_network_where_methods_cannot_be_compared() -> None:
    """Of few views the noise must be known, and from one flat it is not."""
    scan = foam(n_cols=24, views=20)
    few = dataclasses.replace(scan, flats=np.asarray(scan.flats[:1]))  # type: ignore[index]
    settings = Settings(method=Auto(share=0.4), budget="2s", symmetries=1, network=quietray.UNet((4, 8)))
    result = quietray.denoise(few, None, settings)
    assert any("could not be compared on held-out views" in note for note in result.notes)
    said = next(note for note in result.notes if "On data held out from all" in note)
    assert all(name in said for name in ("noise2inverse", *FILTERS))


def test_few_rows_are_left_to_filters_and_networks_of_the_volume(scan: Scan) -> None:
    found = quietray.diagnose(scan)
    few, many = (dict(_candidates(Settings(), found, n_rows)[0]) for n_rows in (FEWEST_ROWS - 1, FEWEST_ROWS))
    assert {"fbp", *FILTERS, "noise2inverse 2.5-D"} <= set(few) < set(many)
    assert {"noise2inverse 2-D", "noise2self"} <= set(many) - set(few)


def test_auto_compares_and_runs_what_it_picked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two of the filters, for all take their time; a comparison of all of them is above."""
    monkeypatch.setattr("quietray.domains.compare.FILTERS", {"gaussian": GaussianFilter, "tv": TotalVariation})
    scan = foam(n_cols=24)
    settings = Settings(method=Auto(share=0.4), budget="6s", symmetries=1, network=quietray.UNet((4, 8)))
    result = quietray.denoise(scan, tmp_path / "out", settings)
    stored = from_dict(Settings, read_toml(tmp_path / "out" / "run.toml"))
    found = result.metrics["comparison"]
    assert found["winner"] in [row["method"] for row in found["methods"]]
    assert found["why"] in result.notes
    assert not isinstance(stored.method, type(settings.method))
    assert found["methods"][0]["psnr_db"] > next(row for row in found["methods"] if row["method"] == "fbp")["psnr_db"]
    assert "Methods compared" in _render(report_of(result, scan, ""))
    assert any("did better than" in note for note in result.notes)


@pytest.mark.parametrize(("steps", "taken"), [(4, True), (250, False)])
def test_a_filter_takes_the_place_of_a_network_that_ends_behind_it(scan: Scan, steps: int, taken: bool) -> None:
    training = dataclasses.replace(Settings().training, steps=steps, precision="fp32")
    settings = Settings(method=Noise2Inverse(), training=training, symmetries=1, network=quietray.UNet((8, 16)))
    result = VolumeDomain.denoise(Run.in_memory(settings), [scan], [GaussianFilter(1.0 if taken else 0.0)], 5.0)
    assert isinstance(result.denoiser.architecture, GaussianFilter) == taken
    assert ("gaussian did better than noise2inverse" in result.notes[-1]) == taken


def test_time_that_is_gone_is_not_spent_again(scan: Scan) -> None:
    """A budget is for the whole command: what was spent before training is taken from training."""
    run = dataclasses.replace(Run.in_memory(Settings(budget="100s")), started=time.monotonic() - 60)
    assert 35 < run.left <= 40
    late = dataclasses.replace(run, started=time.monotonic() - 600)
    assert late.left == pytest.approx(30)  # with less nothing would be learned


def test_a_comparison_leaves_out_a_filter_that_does_not_fit(scan: Scan) -> None:
    settings = Settings(method=TotalVariation(), symmetries=1)
    late = dataclasses.replace(Run.in_memory(dataclasses.replace(settings, budget="0.001s")), trial=True)
    with pytest.raises(ResourceError, match=r"tv must fit into its share of the time.*budget="):
        VolumeDomain.denoise(late, [scan])


def standing(name: str, method: Method, error: float) -> Standing:
    settings, volume = Settings(method=method), np.zeros((1, 2, 2), np.float32)
    return Standing(name, settings, error, (0.9 * error, 1.1 * error), (error - 1.0, error), 1.0, volume)


@pytest.mark.parametrize(
    ("network", "error", "method", "rival"),
    [
        (Noise2Inverse(), 9.0, Noise2Inverse(), TotalVariation()),  # seconds of training rule no network out
        (Noise2Self(), 9.0, TotalVariation(), None),
        (Noise2Self(), 1.05, Noise2Self(), None),  # not clearly behind
    ],
)
def test_what_learns_on_after_a_comparison(network: Method, error: float, method: Method, rival: Method | None) -> None:
    standings = (standing("tv", TotalVariation(), 1.0), standing("median", MedianFilter(), 2.0))
    standings += (standing("network", network, error),)
    found = Comparison(standings, (), "tv", 1.0, "volume", Settings(method=TotalVariation()), "").to_learn()
    assert found[0].method == method
    assert (found[1] and found[1].method) == rival


@pytest.mark.parametrize("scale", [1.0, pytest.param(30.0, marks=pytest.mark.slow)])
def test_line_integrals_stay_line_integrals(tmp_path: Path, scale: float) -> None:
    """Radiographs of anything, fluorescence too, come back in their own unit, and so does the volume."""
    rng = np.random.default_rng(0)
    beam = quietray.ParallelBeam(np.linspace(0, np.pi, 40, endpoint=False), 6, 32, 15.5)
    offset = np.arange(32) - 15.5
    chord = 2 * np.sqrt(np.clip(10.0**2 - offset**2, 0, None)) * 0.05 * scale
    noisy = chord + rng.normal(0, 0.05 * scale, (40, 6, 32))
    settings = quick(method=Noise2Self(), correction=quietray.Correction(line_integrals=True), whiten="never")
    settings = dataclasses.replace(settings, rotation_axis=15.5)
    settings = dataclasses.replace(settings, training=dataclasses.replace(settings.training, steps=300))
    result = quietray.denoise(Scan(noisy.astype(np.float32), beam), tmp_path / "out", settings)
    inside = np.hypot(*np.mgrid[-15.5:16.5, -15.5:16.5]) < 8
    assert np.asarray(result.volume)[:, inside].mean() == pytest.approx(
        0.05 * scale, rel=0.25
    )  # the unit is asked for, not the skill
    kept = quietray.read(tmp_path / "out/radiographs.h5")
    assert np.asarray(kept.projections[:])[..., 14:18].mean() == pytest.approx(chord[14:18].mean(), rel=0.3)


def test_repeated_scans_of_another_size_are_refused(scan: Scan) -> None:
    smaller = dataclasses.replace(
        scan,
        projections=np.asarray(scan.projections[:])[:, :-2],
        geometry=scan.geometry.rows(scan.n_rows - 2),
        flats=None if scan.flats is None else np.asarray(scan.flats[:])[:, :-2],
        darks=None if scan.darks is None else np.asarray(scan.darks[:])[:, :-2],
        truth=None,
        clean=None,
    )
    with pytest.raises(quietray.GeometryError, match="repeated scans must have one detector size, got"):
        quietray.denoise(scan, None, quick(method=Noise2Noise()), repeats=[smaller])


def test_a_network_that_has_learned_too_little_is_told_as_that(scan: Scan) -> None:
    """Its radiographs let more light through than there was: that is no fault of the flats."""
    settings = quick(rows="2:10", method=METHODS["noisier2noise"](), whiten="never", steps=1)
    settings = dataclasses.replace(settings, training=dataclasses.replace(settings.training, learning_rate=10.0))
    with pytest.raises(quietray.NoiseError, match=r"the network has learned too little .* give a longer budget="):
        quietray.denoise(scan[::4], None, settings)
