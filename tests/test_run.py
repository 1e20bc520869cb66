"""The whole path on tiny data: what a run leaves behind, how good it is, and that it can be repeated."""

import dataclasses
import json
import tomllib

import numpy as np
import pytest

import quietray
from quietray import Correction, Denoiser, Noise2Inverse, Settings, Training, UNet
from quietray.assessment.against import evaluate_volumes
from quietray.assessment.gains import gain_text
from quietray.cli import main
from quietray.io import read_volume
from quietray.preparation.prepare import prepare
from quietray.running.run import Run
from quietray.settings import from_dict, read_toml
from quietray.splits.inverse import Noise2Inverse as Split
from quietray.workflows import reconstruct
from scans import content, disc_scan, foam_scan, in_slabs, quick

FOAM = Settings(
    seed=1,
    symmetries=2,
    method=Noise2Inverse(parts=2, slices=3),
    network=UNet((16, 32)),
    correction=Correction(rings="none"),  # after a ring filter no gain is told
    training=Training(steps=120, batch=1, learning_rate=6e-3, judgements=6, precision="fp32"),
)


pytestmark = pytest.mark.usefixtures("short_report")  # the run on the foam, made before, has a real one


@pytest.fixture(scope="module")
def foam(tmp_path_factory):
    """A run on a simulated foam, its volume on disk."""
    out = tmp_path_factory.mktemp("run") / "out"
    return quietray.denoise(quietray.read(foam_scan()), out, FOAM)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """The same scan, only reconstructed."""
    return reconstruct(quietray.read(foam_scan()), tmp_path_factory.mktemp("noisy") / "noisy.zarr", FOAM)


def test_result_is_better_by_what_it_says(foam, noisy):
    truth = foam_scan()
    before, after = evaluate_volumes(noisy, truth), evaluate_volumes(foam.folder / "volume.zarr", truth)
    gain = after["psnr_db"] - before["psnr_db"]
    assert gain > 3
    assert after["ssim"] > before["ssim"]
    # one slice is held out: over six such foams it was 0.1 +- 0.5 dB off, the error 0.96 +- 0.08 of the true one
    estimate = foam.metrics["estimate"]
    assert estimate["psnr_gain_db"] is estimate["psnr_db"] is None, "which is too little to know it to 0.7 dB"
    assert "too little was held out" in estimate["withheld"]
    assert estimate["psnr_gain_db_at_least"] < gain < estimate["psnr_gain_db_at_most"]
    assert 20 * np.log10(estimate["rmse_noisy"] / estimate["rmse"]) == pytest.approx(gain, abs=1.5)
    assert estimate["rmse"] == pytest.approx(after["rmse"], rel=0.25)
    assert estimate["rmse_noisy"] == pytest.approx(before["rmse"], rel=0.15)


def test_folder_holds_what_the_contract_says_and_nothing_else(foam):
    names = sorted(path.name for path in foam.folder.iterdir())
    assert names == ["metrics.json", "model", "report.html", "run.toml", "volume.zarr"]
    assert sorted(path.name for path in (foam.folder / "model").iterdir()) == ["model.json", "weights.safetensors"]


def test_volume_is_in_attenuation_per_mm(foam, noisy):
    volume = foam.volume
    assert volume.unit == "1/mm"
    assert volume.voxel_size == 0.04
    assert volume.shape == (10, 40, 40)
    scan = quietray.read(foam_scan())
    inside = np.asarray(scan.truth)[:, 12:28, 12:28].mean()
    assert np.asarray(volume)[:, 12:28, 12:28].mean() == pytest.approx(inside, rel=0.05)
    assert np.asarray(read_volume(noisy))[:, 12:28, 12:28].mean() == pytest.approx(inside, rel=0.05)


def test_metrics_are_those_of_the_volume(foam, noisy):
    stored = json.loads((foam.folder / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert {name: stored[name] for name in foam.metrics} == json.loads(json.dumps(foam.metrics))
    assert stored["warnings"] == list(foam.warnings)
    y, x = np.mgrid[:40, :40] - 19.5
    seen = np.hypot(y, x) <= 20
    mean = np.asarray(foam.volume)[:, seen].mean(dtype=float)
    assert stored["volume"]["mean"] == pytest.approx(mean, rel=1e-5)
    before = np.asarray(read_volume(noisy))[:, seen].mean(dtype=float)
    assert stored["volume"]["mean_noisy"] == pytest.approx(before, rel=1e-3)
    assert stored["volume"]["relative_change_of_mean"] == pytest.approx(mean / before - 1, abs=1e-3)
    estimate = stored["estimate"]
    gain = 20 * np.log10(estimate["rmse_noisy"] / estimate["rmse"])
    assert estimate["psnr_gain_db_at_least"] < gain < estimate["psnr_gain_db_at_most"]
    assert stored["training"]["steps"] == 120
    assert [entry["step"] for entry in stored["training"]["history"]] == [20, 40, 60, 80, 100, 120]
    assert stored["scan"]["rotation_axis"] == 19.5
    assert stored["memory"]["peak"] > 2**20


def test_report_shows_the_figures_and_needs_no_network(foam):
    page = (foam.folder / "report.html").read_text()
    assert gain_text(foam.metrics["estimate"]) in page.replace("\N{MINUS SIGN}", "-")
    assert "Estimated PSNR gain" in page
    assert "data:image/" in page
    assert 'src="http' not in page
    for warning in foam.warnings:
        assert warning.split(";")[0].split("(")[0][:40] in page


def test_history_of_the_training_improves(foam):
    errors = [progress.error for progress in foam.history]
    assert min(errors) < 0.6 * errors[0]
    assert foam.metrics["training"]["best_step"] == foam.history[int(np.argmin(errors))].step


def test_model_reproduces_the_volume_from_the_parts(foam):
    scan = quietray.read(foam_scan())
    settings = FOAM
    prepared = prepare(scan, Run.in_memory(dataclasses.replace(settings, rotation_axis=None)), 2, 3, 2)
    parts, _ = prepared.source(2)(slice(0, 10))
    loaded = Denoiser.load(foam.folder / "model")
    assert (loaded.split, loaded.symmetries, loaded.scale) == (Split(parts=2, slices=3), 2, foam.denoiser.scale)
    for z in (0, 5, 9):
        again = loaded.slice(parts, z) * prepared.weight
        np.testing.assert_array_equal(again, foam.denoiser.slice(parts, z) * prepared.weight)
        scatter = np.abs(again - foam.volume[z]).max()  # the run scales the parts to and fro, which rounds
        assert scatter < 0.02 * np.ptp(foam.volume[z])


def test_run_toml_repeats_the_run_to_the_last_bit(tmp_path):
    """The axis is found and the symmetries are chosen by the run: run.toml must hold what came out."""
    settings = dataclasses.replace(quick(), rotation_axis=None, symmetries=0)
    first = quietray.denoise(quietray.read(disc_scan()), tmp_path / "one", settings)
    stored = from_dict(Settings, read_toml(tmp_path / "one/run.toml"))
    assert stored.rotation_axis == first.metrics["scan"]["rotation_axis"] == pytest.approx(11.5, abs=0.5)
    assert stored.symmetries == first.denoiser.symmetries != 0
    assert dataclasses.replace(stored, rotation_axis=None, symmetries=0) == settings
    main(["denoise", str(disc_scan()), "--config", str(tmp_path / "one/run.toml"), "--out", str(tmp_path / "two")])
    assert content(tmp_path / "one/volume.zarr/0") == content(tmp_path / "two/volume.zarr/0")
    assert (tmp_path / "one/run.toml").read_text() == (tmp_path / "two/run.toml").read_text()
    weights = "model/weights.safetensors"
    assert (tmp_path / "one" / weights).read_bytes() == (tmp_path / "two" / weights).read_bytes()


def test_training_that_stopped_early_is_repeated_too(tmp_path):
    settings = quick(steps=40)
    training = dataclasses.replace(settings.training, judgements=20, patience=0.02, learning_rate=0.2)
    settings = dataclasses.replace(settings, training=training)
    first = quietray.denoise(quietray.read(disc_scan()), tmp_path / "one", settings)
    assert first.metrics["training"]["steps"] < 40
    assert "had not improved" in first.metrics["training"]["stopped"]
    stored = from_dict(Settings, tomllib.loads((tmp_path / "one/run.toml").read_text()))
    again = quietray.denoise(quietray.read(disc_scan()), None, stored)
    np.testing.assert_array_equal(np.asarray(first.volume), again.volume)


def test_another_seed_is_another_run():
    scan = quietray.read(disc_scan())
    one = quietray.denoise(scan, None, quick()).volume
    other = quietray.denoise(scan, None, dataclasses.replace(quick(), seed=4)).volume
    assert not np.array_equal(one, other)


def test_budget_in_seconds_is_used_and_recorded(tmp_path):
    settings = dataclasses.replace(quick(), budget="1s", training=Training(judgements=3, batch=1, patience=10.0))
    result = quietray.denoise(quietray.read(disc_scan()), tmp_path / "out", settings)
    stored = from_dict(Settings, read_toml(tmp_path / "out/run.toml"))
    assert stored.training.steps == result.metrics["training"]["steps"] > 12


@pytest.mark.parametrize("format", ["zarr", "h5", "tiff"])
def test_formats_and_memory_hold_the_same_numbers(tmp_path, format):
    scan = quietray.read(disc_scan(), pixel_size=0.02)
    settings = quick(format=format)
    held = quietray.denoise(scan, None, settings)
    assert held.folder is None
    assert isinstance(held.volume, np.ndarray)
    stored = quietray.denoise(scan, tmp_path / "out", settings)
    name = {"zarr": "volume.zarr", "h5": "volume.h5", "tiff": "tiff"}[format]
    volume = quietray.read_volume(tmp_path / "out" / name)
    np.testing.assert_array_equal(np.asarray(volume), held.volume)
    np.testing.assert_array_equal(np.asarray(stored.volume), held.volume)
    assert (volume.unit, volume.voxel_size) == ("1/mm", 0.02)
    assert {entry.name for entry in (tmp_path / "out").iterdir()} >= {name, "metrics.json"}
    for figures in ("estimate", "volume", "correction", "log_bias", "scan"):
        assert held.metrics[figures] == stored.metrics[figures]


@pytest.mark.parametrize(("size", "unit"), [(None, "1/pixel"), (0.02, "1/mm")])
def test_attenuation_is_in_the_unit_that_is_told(tmp_path, size, unit):
    scan = quietray.read(disc_scan(), pixel_size=size)
    volume = read_volume(reconstruct(scan, tmp_path / "disc.zarr", quick()))
    assert (volume.unit, volume.voxel_size) == (unit, size)
    assert np.asarray(volume)[:, 8:16, 8:16].mean() == pytest.approx(0.05 / (size or 1), rel=0.03)
    run = quietray.denoise(scan, tmp_path / "run", quick())
    assert (run.volume.unit, run.volume.voxel_size) == (unit, size)
    told = json.loads((tmp_path / "run/metrics.json").read_text())["scan"]
    assert (told["unit"], told["voxel_size_mm"]) == (unit, size)


def test_rows_and_region_are_cut_from_the_same_reconstruction(tmp_path):
    scan, settings = quietray.read(disc_scan()), quick()
    whole = np.asarray(read_volume(reconstruct(scan, tmp_path / "all.zarr", settings)))
    some = dataclasses.replace(settings, rows="3:9", region="4:20,6:18")
    part = np.asarray(read_volume(reconstruct(scan, tmp_path / "some.zarr", some)))
    np.testing.assert_allclose(part, whole[3:9, 4:20, 6:18], atol=2e-4 * np.ptp(whole))  # each is within 1e-4 of exact
    result = quietray.denoise(scan, tmp_path / "run", some)
    assert result.volume.shape == (6, 16, 12)
    assert result.metrics["scan"]["rows"] == [3, 9]
    before = part[:, result.volume[0] != 0].mean()
    assert result.metrics["volume"]["mean_noisy"] == pytest.approx(before, rel=1e-3)


def test_outside_the_field_of_view_the_volume_is_zero():
    volume = quietray.denoise(quietray.read(disc_scan()), None, quick()).volume
    y, x = np.mgrid[:24, :24] - 11.5
    assert not volume[:, np.hypot(y, x) > 12].any()
    assert volume[:, np.hypot(y, x) < 11].all()


def test_slabs_never_show_in_a_reconstruction(tmp_path, monkeypatch):
    scan, settings = quietray.read(disc_scan()), quick()
    reconstruct(scan, tmp_path / "one.zarr", settings)
    in_slabs(monkeypatch, heights=5)
    reconstruct(scan, tmp_path / "many.zarr", settings)
    assert content(tmp_path / "one.zarr/0") == content(tmp_path / "many.zarr/0")


def test_slabs_never_show_in_a_denoised_volume(monkeypatch):
    """Trained on the same window, the volume is the same in whatever slabs it is denoised."""
    scan, volumes = quietray.read(disc_scan()), []
    for heights in (3, 5, 12):
        with monkeypatch.context() as patch:
            in_slabs(patch, heights, window=9)
            result = quietray.denoise(scan, None, quick())
        volumes.append(result)
        assert result.metrics["memory"]["slabs"] == -(-12 // heights)
    for other in volumes[1:]:
        np.testing.assert_array_equal(volumes[0].volume, other.volume)
        np.testing.assert_array_equal(volumes[0].gathered.counts_after, other.gathered.counts_after)
        np.testing.assert_array_equal(volumes[0].gathered.cuts["coronal"][1], other.gathered.cuts["coronal"][1])
        assert volumes[0].metrics["volume"]["mean"] == pytest.approx(other.metrics["volume"]["mean"], rel=1e-9)
    axial, sagittal = (volumes[0].gathered.cuts[name][1] for name in ("axial", "sagittal"))
    np.testing.assert_array_equal(axial, volumes[0].volume[6])
    np.testing.assert_array_equal(sagittal, volumes[0].volume[:, :, 12])


def test_one_slab_and_many_differ_by_rounding_only(monkeypatch):
    """In one piece the parts that were trained on are kept, else every slab is reconstructed again."""
    scan, settings = quietray.read(disc_scan()), quick()
    settings = dataclasses.replace(
        settings,
        method=Noise2Inverse(parts=2, slices=1),
        training=dataclasses.replace(settings.training, precision="fp32"),
    )
    one = quietray.denoise(scan, None, settings)
    in_slabs(monkeypatch, heights=5, window=12)
    many = quietray.denoise(scan, None, settings)
    assert (one.metrics["memory"]["slabs"], many.metrics["memory"]["slabs"]) == (1, 3)
    assert one.metrics["estimate"]["rmse_noisy"] == pytest.approx(many.metrics["estimate"]["rmse_noisy"], rel=1e-4)
    np.testing.assert_allclose(one.volume, many.volume, rtol=0, atol=1e-4 * np.ptp(one.volume))


def test_little_memory_makes_slabs_and_trains_on_a_part(monkeypatch):
    """The limit goes through the real plan, without the hundreds of megabytes that libraries take."""
    import quietray.preparation.prepare as prepare_module
    import quietray.running.plan as plan_module

    monkeypatch.setattr(plan_module, "_FIXED", 0)
    monkeypatch.setattr(prepare_module, "resident_memory", lambda: 0)
    monkeypatch.setattr(plan_module, "_HEADROOM", 0.3)
    scan = quietray.read(disc_scan(n_rows=60))
    result = quietray.denoise(scan, None, dataclasses.replace(quick(), max_memory="800K"))
    memory = result.metrics["memory"]
    assert memory["slabs"] > 1
    assert memory["planned_peak"] <= memory["limit"] == 800 * 2**10
    whole = quietray.denoise(scan, None, quick())
    assert whole.metrics["memory"]["slabs"] == 1
    assert memory["planned_peak"] < whole.metrics["memory"]["planned_peak"]
    assert result.metrics["volume"]["mean_noisy"] == pytest.approx(whole.metrics["volume"]["mean_noisy"], rel=1e-5)
    np.testing.assert_allclose(result.gathered.cuts["coronal"][0], whole.gathered.cuts["coronal"][0], atol=1e-5)
