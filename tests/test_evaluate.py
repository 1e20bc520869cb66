"""One verb compares whatever there is with whatever is known to be right; its figures are those of the two it uses."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import quietray
from dicom_files import phantom, write_series
from quietray import ImageSeries, Result, evaluate, evaluate_images, evaluate_volumes
from quietray.errors import FormatError, GeometryError, SettingsError
from scans import disc_scan, foam_scan, quick


@pytest.fixture(scope="module")
def foam() -> Path:
    return foam_scan(6, 32, 40)


@pytest.fixture(scope="module")
def result(foam: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return quietray.denoise(
        quietray.read(foam), tmp_path_factory.mktemp("out"), quick(method="gaussian", rotation_axis=None)
    )


def test_results_arrays_paths_and_scans_give_the_same_figures(foam: Path, result: Result) -> None:
    place, scan = result.folder / "volume.zarr", quietray.read(foam)
    wanted = evaluate_volumes(place, foam)
    assert wanted["psnr_db"] > 5
    array = np.asarray(result.volume)
    in_memory = dataclasses.replace(result, volume=array)
    for one in (result, place, str(place), result.volume, in_memory):
        for other in (foam, str(foam), scan):
            assert evaluate(one, other) == wanted
    for lazy in (array, zarr.open_array(place / "0", mode="r")):
        found = evaluate(lazy, scan)
        assert found.pop("unit") == "not stated, of the reference 1/mm"
        assert found == {name: value for name, value in wanted.items() if name != "unit"}
    against = evaluate(result, scan, against="phantom", radius=2.0, window=(0.0, 1.0), data_range=2.0)
    asked: dict[str, Any] = {"radius": 2.0, "window": (0.0, 1.0), "data_range": 2.0}
    assert against == evaluate_volumes(place, foam, against="phantom", **asked)


def test_a_result_beside_itself_has_no_error(result: Result) -> None:
    assert evaluate(result, result)["rmse"] == 0
    assert evaluate(result, np.asarray(result.volume))["rmse"] == 0
    assert evaluate(np.asarray(result.volume)[0], np.asarray(result.volume)[0])["slices"] == 1


def test_a_result_knows_its_rows(foam: Path) -> None:
    scan = quietray.read(foam)
    part = quietray.denoise(scan, None, quick(method="gaussian", rows="2:5", rotation_axis=None))
    found = evaluate(part, scan)
    assert found == evaluate(part, scan, rows="2:5")
    assert found["slices"] == 3
    assert evaluate(part, part.volume)["rmse"] == 0
    with pytest.raises(GeometryError, match="must have the reference's shape"):
        evaluate(part.volume, scan)


def test_a_step_of_a_series_is_chosen() -> None:
    series = np.random.default_rng(0).random((3, 2, 16, 16), dtype=np.float32)
    assert evaluate(series, series[1], step=1)["rmse"] == 0
    assert evaluate(series, series[1], step=0)["rmse"] > 0
    with pytest.raises(SettingsError, match="give step=0 to 2"):
        evaluate(series, series[1])


def test_images_of_every_kind(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clean, noisy = phantom(2, 24), phantom(2, 24) + rng.integers(0, 40, (2, 24, 24)).astype(np.uint16)
    one, other = write_series(tmp_path / "one", noisy), write_series(tmp_path / "other", clean)
    wanted = evaluate_images(one, other)
    assert wanted["unit"] == "HU"
    assert "tissues" in wanted
    images, truth = quietray.read_images(one), quietray.read_images(other)
    for given in (one, str(one), images):
        for reference in (other, truth):
            assert evaluate(given, reference) == wanted
    assert evaluate(images.images, truth)["rmse"] == pytest.approx(wanted["rmse"])
    denoised = quietray.denoise(images, tmp_path / "out", method="gaussian")
    found = evaluate(denoised, truth)
    assert found["unit"] == "HU"
    assert found["rmse"] == pytest.approx(evaluate(tmp_path / "out", other)["rmse"], abs=0.5)  # whole numbers in files
    assert evaluate(tmp_path / "out", truth)["rmse"] == evaluate(tmp_path / "out", other)["rmse"]
    assert evaluate(denoised, truth, window=(-100.0, 100.0))["window"] == "-100 to 100 HU"


@pytest.mark.parametrize(
    ("one", "other", "more", "error", "words"),
    [
        (3.0, np.zeros((2, 8, 8)), {}, FormatError, "must be an array .*, got float"),
        (np.zeros(8), np.zeros((2, 8, 8)), {}, FormatError, r"got one of shape \(8,\)"),
        (np.zeros((2, 8, 8)), np.zeros((2, 8, 9)), {}, GeometryError, r"shape \(2, 8, 9\), got \(2, 8, 8\)"),
        (np.zeros((2, 8, 8)), np.zeros((2, 8, 8)), {"radius": -1.0}, SettingsError, "radius must be positive"),
        (
            ImageSeries(np.zeros((2, 8, 8), np.float32), None, ""),
            np.zeros((2, 8, 8)),
            {"rows": "0:1"},
            SettingsError,
            "out",
        ),
        (Path("absent.zarr"), np.zeros((2, 8, 8)), {}, FormatError, "absent.zarr"),
    ],
)
def test_what_cannot_be_compared(one: Any, other: Any, more: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        evaluate(one, other, **more)


def test_a_measured_scan_holds_no_truth(result: Result) -> None:
    measured = quietray.read(disc_scan())
    for against in ("clean-fbp", "phantom"):
        with pytest.raises(FormatError, match="got a measured scan"):
            evaluate(result, measured, against=against)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="images must be compared with images, got Scan"):
        evaluate(ImageSeries(np.zeros((2, 8, 8), np.float32), None, ""), measured)
