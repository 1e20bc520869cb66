"""Learning from a clean volume, and from views that were left out: whole runs on a tiny foam whose truth is known."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quietray
from quietray import Noise2Inverse, Scan, Settings, Training, UNet, workflows
from quietray.cli import main
from quietray.detector.correction.correct import Correction
from quietray.errors import GeometryError, ResourceError, SettingsError
from quietray.io import open_volume_writer
from quietray.reconstruct.iterative import SIRT
from quietray.settings import from_dict, read_toml
from quietray.splits import Noise2Clean, Noise2Projection
from scans import foam_scan, in_slabs, quick, short_report

COMMON = {"rotation_axis": None, "symmetries": 1, "correction": Correction(rings="none")}


pytestmark = pytest.mark.usefixtures("short_report")


def clean_settings(**more: Any) -> Settings:
    training = Training(steps=250, patch=40, learning_rate=1e-2, judgements=3, patience=10.0, precision="fp32")
    usual = {"method": Noise2Clean(slices=3), "training": training, "network": UNet((16, 32))}
    return quick(**(COMMON | usual | more))


def foam() -> Scan:
    return quietray.read(foam_scan())


def few_views() -> Path:
    return foam_scan(n_rows=10, n_cols=40, n_views=24, photons=100.0)


def errors(result: Any, scan: Scan) -> tuple[float, float]:
    """Return the mean squared errors of the plain reconstruction and of the result, inside the disc."""
    truth = np.asarray(scan.truth[:])
    noisy = workflows_fbp(scan)
    y, x = np.mgrid[:40, :40] - 19.5
    disc = np.hypot(y, x) < 19
    return tuple(float(np.square(v - truth)[:, disc].mean()) for v in (noisy, np.asarray(result.volume)))  # type: ignore[return-value]


def workflows_fbp(scan: Scan) -> np.ndarray:
    from quietray.preparation.prepare import prepare
    from quietray.running.run import Run

    settings = Settings()
    prepared = prepare(scan, Run.in_memory(settings))
    return prepared.source()(slice(0, scan.n_rows))[0][0]


# --- noise2clean ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clean_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        short_report(patch)
        return quietray.denoise(foam(), tmp_path_factory.mktemp("clean") / "out", clean_settings())


def test_a_clean_volume_teaches_and_judges_truly(clean_run: Any) -> None:
    before, after = errors(clean_run, foam())
    estimate = clean_run.metrics["estimate"]
    assert after < 0.4 * before
    assert estimate["rmse"] ** 2 == pytest.approx(after, rel=0.4)
    assert estimate["rmse_noisy"] ** 2 == pytest.approx(before, rel=0.2)
    assert "true errors" in estimate["domain"]
    assert not [text for text in clean_run.warnings if "grey values" in text or "no self-supervised" in text]


def test_its_run_can_be_repeated_from_its_settings(tmp_path: Path) -> None:
    first = quietray.denoise(foam(), tmp_path / "out", clean_settings(training=Training(steps=4, judgements=1)))
    resolved = from_dict(Settings, read_toml(tmp_path / "out/run.toml"))
    again = quietray.denoise(foam(), None, resolved)
    np.testing.assert_array_equal(np.asarray(first.volume), again.volume)


def test_slabs_give_what_one_piece_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = clean_settings(method=Noise2Clean(), training=Training(steps=4, precision="fp32", judgements=1))
    one = quietray.denoise(foam(), None, settings)
    in_slabs(monkeypatch, heights=4, window=10)
    many = quietray.denoise(foam(), None, settings)
    assert many.metrics["memory"]["slabs"] == 3
    np.testing.assert_allclose(one.volume, many.volume, rtol=0, atol=1e-4 * np.ptp(one.volume))


def stored(folder: Path, volume: np.ndarray, like: Scan, name: str = "clean.zarr") -> str:
    grid = dataclasses.replace(like.geometry.grid(), shape=volume.shape)
    with open_volume_writer(folder / name, grid, format="zarr") as writer:
        writer.write(0, volume)
        writer.finish()
    return str(folder / name)


def test_a_volume_on_disk_teaches_as_the_truth_of_the_file_does(tmp_path: Path) -> None:
    scan = foam()
    truth, measured = np.asarray(scan.truth[:]), dataclasses.replace(scan, truth=None)
    short = clean_settings(training=Training(steps=4, judgements=1), rows="2:9", network=UNet((4, 8)))
    wanted = quietray.denoise(scan, None, short).volume
    whole = dataclasses.replace(short, clean=stored(tmp_path, truth, scan))
    np.testing.assert_array_equal(quietray.denoise(measured, None, whole).volume, wanted)
    part = dataclasses.replace(short, clean=stored(tmp_path, truth[2:9], scan, "part.zarr"))
    np.testing.assert_array_equal(quietray.denoise(measured, None, part).volume, wanted)
    other = dataclasses.replace(short, clean=stored(tmp_path, truth[3:10], scan, "other.zarr"))
    assert np.abs(quietray.denoise(measured, None, other).volume - wanted).max() > 0


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda truth: None, SettingsError, "noise2clean must have a clean volume, got none"),
        (lambda truth: truth[:4], GeometryError, r"on the grid of the scan, \(10, 40, 40\).*got \(4, 40, 40\)"),
        (lambda truth: truth[:, 1:], GeometryError, "on the grid of the scan"),
        (lambda truth: 25 * truth, GeometryError, r"must show what the scan shows, in 1/mm, .* 0\.03[78] times"),
        (lambda truth: truth[:, ::-1, ::-1] * 0 + 1, GeometryError, "must show what the scan shows"),
    ],
)
def test_what_is_no_clean_volume_of_the_scan_is_refused(
    tmp_path: Path, change: Any, error: type[Exception], words: str
) -> None:
    scan = foam()
    volume = change(np.asarray(scan.truth[:]))
    clean = None if volume is None else stored(tmp_path, np.ascontiguousarray(volume), scan)
    with pytest.raises(error, match=words):
        quietray.denoise(dataclasses.replace(scan, truth=None), None, clean_settings(clean=clean))


def test_unit_and_voxels_must_agree(tmp_path: Path) -> None:
    scan = foam()
    pixels = dataclasses.replace(scan, geometry=dataclasses.replace(scan.geometry, pixel_size=None))
    coarse = dataclasses.replace(scan, geometry=dataclasses.replace(scan.geometry, pixel_size=0.08))
    for other, words in (
        (pixels, "must be in 1/mm, .* got 1/pixel"),
        (coarse, "voxels of the scan, 0.04 mm, got 0.08"),
    ):
        clean = stored(tmp_path, np.asarray(scan.truth[:]), other, f"{words[:5]}.zarr")
        with pytest.raises(GeometryError, match=words):
            quietray.denoise(scan, None, clean_settings(clean=clean))


def test_settings_that_do_not_fit_are_refused() -> None:
    for settings, words in (
        (clean_settings(method=Noise2Clean(2)), "1 realisation"),
        (clean_settings(network=UNet((4,), dimensions=3)), "must have a 2-D network"),
        (quick(rotation_axis=None, method=Noise2Inverse(parts=2), clean="x.zarr"), "must go with noise2clean"),
        (quick(rotation_axis=None, method=Noise2Projection(), network=UNet((4,), dimensions=3)), "of 2 dimensions"),
    ):
        with pytest.raises(SettingsError, match=words):
            quietray.denoise(foam(), None, settings)
    with pytest.raises(SettingsError, match="must have one scan, got 2"):
        quietray.denoise(foam(), None, clean_settings(), repeats=[foam()])


def test_a_model_taught_by_truths_denoises_a_scan_that_has_none(tmp_path: Path) -> None:
    two = [foam(), quietray.read(foam_scan(n_views=164))]
    settings = clean_settings()
    with pytest.raises(SettingsError, match="must go with one scan, got 2"):
        workflows.train(two, tmp_path / "model", dataclasses.replace(settings, clean="x.zarr"))
    workflows.train(two, tmp_path / "model", settings)
    plain = Correction(rings="none")  # after a ring filter nothing is estimated
    measured = quietray.apply(tmp_path / "model", dataclasses.replace(foam(), truth=None), correction=plain)
    before, after = errors(measured, foam())
    assert after < 0.4 * before
    assert "half of the views" in measured.metrics["estimate"]["domain"]
    known = quietray.apply(tmp_path / "model", foam(), correction=plain)
    estimated, true = (found.metrics["estimate"]["rmse"] for found in (measured, known))
    assert true**2 == pytest.approx(after, rel=0.4)
    # over four seeds 0.89 +- 0.03 times the true one
    assert 0.79 * true < estimated < 1.6 * true, "on the same rows; halves are noisier than the whole"
    np.testing.assert_array_equal(known.volume, measured.volume)


# --- noise2projection -----------------------------------------------------------------------------------------------


def view_settings(steps: int = 400, **more: Any) -> Settings:
    training = Training(steps=steps, patch=40, learning_rate=1e-2, judgements=3, patience=10.0, precision="fp32")
    usual = {"method": Noise2Projection(), "training": training, "network": UNet((8, 16))}
    return quick(**(COMMON | usual | more))


@pytest.fixture(scope="module")
def projection_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        short_report(patch)
        return quietray.denoise(quietray.read(few_views()), tmp_path_factory.mktemp("few") / "out", view_settings())


def test_few_views_are_denoised_and_judged_by_views(projection_run: Any) -> None:
    before, after = errors(projection_run, quietray.read(few_views()))
    assert after < 0.6 * before
    estimate = projection_run.metrics["estimate"]
    assert estimate["domain"].startswith("views of held-out rows")
    assert estimate["data_range_is"].endswith("line integrals")
    assert estimate["psnr_gain_db"] > 0.3  # over four seeds 0.96 +- 0.2 dB


def test_the_projections_of_the_result_are_as_far_off_as_estimated(projection_run: Any) -> None:
    """Against noise-free views: the result has seen all views and must be better than the views' own judgement."""
    from quietray.operators.astra import ParallelProjector

    scan = quietray.read(few_views())
    clean = np.asarray(scan.clean[:]).swapaxes(0, 1)
    found = ParallelProjector(scan.geometry)(np.array(projection_run.volume))
    rmse = float(np.sqrt(np.square(found - clean).mean()))
    assert 0.3 * projection_run.metrics["estimate"]["rmse"] < rmse < 1.2 * projection_run.metrics["estimate"]["rmse"]


def test_few_views_again_from_the_settings_and_in_slabs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = quietray.read(few_views())
    short = view_settings(steps=4)
    one = np.asarray(quietray.denoise(scan, tmp_path / "out", short).volume)
    resolved = from_dict(Settings, read_toml(tmp_path / "out/run.toml"))
    np.testing.assert_array_equal(quietray.denoise(scan, None, resolved).volume, one)
    in_slabs(monkeypatch, heights=4, window=10)
    np.testing.assert_array_equal(quietray.denoise(scan, None, short).volume, one)


def test_a_region_is_a_part_of_the_whole() -> None:
    scan = quietray.read(few_views())
    whole = quietray.denoise(scan, None, view_settings(steps=4)).volume
    part = quietray.denoise(scan, None, view_settings(steps=4, region="5:30,12:33")).volume
    np.testing.assert_allclose(part, whole[:, 5:30, 12:33], atol=1e-6 * np.ptp(whole))


def test_turned_objects_change_what_is_learned() -> None:
    scan = quietray.read(few_views())
    plain, turned = (
        quietray.denoise(scan, None, view_settings(steps=4, method=Noise2Projection(equivariance=weight))).volume
        for weight in (0.0, 10.0)
    )
    assert np.abs(plain - turned).max() > 1e-4 * np.ptp(plain)


@pytest.mark.slow
def test_a_model_of_few_views_is_applied_to_another_scan(tmp_path: Path) -> None:
    scan = quietray.read(few_views())
    with pytest.raises(SettingsError, match="must be trained on one scan, got 2"):
        workflows.train([scan, scan], tmp_path / "model", view_settings())
    trained = workflows.train([scan], tmp_path / "model", view_settings())
    assert trained.facts["trained_on"][0]["noise_level"] > 0
    other = quietray.read(foam_scan(n_rows=10, n_cols=40, n_views=28, photons=100.0))
    result = quietray.apply(tmp_path / "model", other)
    before, after = errors(result, other)
    assert after < 0.7 * before


def test_whole_slices_that_do_not_fit_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quietray.domains.projections._STEP", 10**9)
    with pytest.raises(ResourceError, match="whole slices of 40 x 40 pixels, must fit into memory"):
        quietray.denoise(quietray.read(few_views()), None, view_settings())


def test_the_command_line_knows_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "small.toml"
    config.write_text("symmetries = 1\n[network]\nwidths = [4, 8]\n")
    few = ["denoise", str(few_views()), "--out", str(tmp_path / "out"), "--steps", "2", "--config", str(config)]
    main([*few, "--method", "noise2projection", "--equivariance", "0.5", "--parts", "3"])
    settings = from_dict(Settings, read_toml(tmp_path / "out/run.toml"))
    assert settings.method == Noise2Projection(3, 0.5)
    main([*few, "--overwrite", "--method", "noise2clean", "--clean", str(few_views())])
    settings = from_dict(Settings, read_toml(tmp_path / "out/run.toml"))
    assert (settings.method, settings.clean) == (Noise2Clean(), str(few_views()))
    with pytest.raises(SystemExit, match="2"):
        main([*few, "--overwrite", "--method", "noise2clean", "--clean", str(tmp_path / "none.zarr")])
    assert "none.zarr" in capsys.readouterr().err


@pytest.mark.parametrize("method", [Noise2Clean(), Noise2Projection(2)])
def test_another_reconstruction_gives_the_same_in_slabs(monkeypatch: pytest.MonkeyPatch, method: Any) -> None:
    """SIRT of all views is not the mean of SIRT of halves."""
    scan = quietray.read(few_views())
    training = Training(steps=3, patch=40, precision="fp32", judgements=1)
    settings = view_settings(method=method, training=training, reconstruction=SIRT(iterations=8))
    one = quietray.denoise(scan, None, settings)
    in_slabs(monkeypatch, heights=4, window=10)
    many = quietray.denoise(scan, None, settings)
    np.testing.assert_allclose(one.volume, many.volume, rtol=0, atol=1e-4 * np.ptp(one.volume))
    cut = one.gathered.cuts["axial"][0], many.gathered.cuts["axial"][0]
    np.testing.assert_allclose(*cut, rtol=0, atol=1e-4 * np.ptp(cut[0]))
