"""A volume that was reconstructed before is data, too: its slices are read, denoised and written back as they were."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr

import quietray
from quietray import FormatError, GeometryError, SettingsError, VolumeGrid, read_images
from quietray.cli import main
from quietray.io import image_format, new_volume
from quietray.running.watch import Watch
from scans import disc_scan, foam_scan

NAMES = ["v.zarr", "v.h5", "v.tif", "slices", "v.mhd", "v.nii"]
GRID = VolumeGrid((6, 32, 40), voxel_size=0.02, spacing=0.05)


def volume() -> np.ndarray:
    rng = np.random.default_rng(0)
    scene = np.kron(rng.random((6, 4, 5)), np.ones((1, 8, 8)))
    return (scene + rng.normal(0, 0.2, scene.shape)).astype(np.float32)


def written(place: Path, grid: VolumeGrid = GRID) -> Path:
    if place.suffix == ".nii":
        pytest.importorskip("nibabel")
    with new_volume(place, grid, {}) as writer:
        writer.write(0, volume())
    return place


class Told(Watch):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("name", NAMES)
def test_a_volume_is_denoised_and_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    """In its format, with its unit and the size of its voxels; and what can be done with it is said."""
    place, told = written(tmp_path / name), Told()
    assert image_format(place) == "volume"
    result = quietray.denoise(place, tmp_path / "out", method="gaussian", watch=told)
    clean = quietray.read_volume(tmp_path / "out/series" / name)
    assert (clean.unit, clean.voxel_size, clean.shape) == ("1/mm", pytest.approx(0.02), (6, 32, 40))
    assert float(clean.facts.get("spacing", 0.05)) == pytest.approx(0.05)
    assert np.array_equal(np.asarray(clean), result.volume)
    assert result.volume.std() < volume().std()
    assert result.unit == "1/mm"
    assert result.scale[1:] == (pytest.approx(0.02), pytest.approx(0.02))
    assert "methods that need projections, such as noise2inverse, cannot be used" in told.notes[0]
    assert "second reconstruction" in told.notes[0]
    again = quietray.denoise(place, tmp_path / "out", method="gaussian", resume=True)
    assert np.array_equal(again.volume, result.volume)


def test_what_reconstruct_wrote_is_denoised(tmp_path: Path, capsys: Any) -> None:
    noisy, out = tmp_path / "noisy.zarr", tmp_path / "out"
    main(["reconstruct", str(disc_scan()), "--out", str(noisy)])
    main(["denoise", str(noisy), "--method", "bilateral", "--out", str(out)])
    assert "cannot be used" in " ".join(capsys.readouterr().err.split())
    before, after = (quietray.read_volume(place) for place in (noisy, out / "series/noisy.zarr"))
    assert before.unit == after.unit
    assert np.asarray(after).std() < np.asarray(before).std()


def test_of_two_reconstructions_the_noise_is_learned(tmp_path: Path) -> None:
    """One of each half of the views: what they share is the object."""
    scan = quietray.read(disc_scan()).with_axis(11.5)
    halves = [quietray.reconstruct(scan[k::2], tmp_path / f"{k}.zarr") for k in (0, 1)]
    series = [read_images(half) for half in halves]
    result = quietray.denoise(series[0], repeats=series[1:], method="noise2noise", budget="4s")
    assert result.metrics["method"]["measurements"] == 2
    assert not any("cannot be used" in note for note in result.notes)


def test_methods_that_need_projections_are_refused(tmp_path: Path) -> None:
    place = written(tmp_path / "v.zarr")
    for method in ("noise2inverse", "noise2projection"):
        with pytest.raises(SettingsError, match="which needs projections or clean images; use"):
            quietray.denoise(place, method=method)


def test_scans_stay_scans(tmp_path: Path) -> None:
    """A simulated one holds the truth, which is a volume; other layouts say no unit of attenuation."""
    assert image_format(disc_scan()) is None
    assert image_format(foam_scan()) is None
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["exchange/data"] = np.ones((6, 4, 5), np.uint16)
        file["exchange/data"].attrs["units"] = "counts"
    assert image_format(tmp_path / "raw.h5") is None
    zarr.save(str(tmp_path / "raw.zarr"), np.ones((6, 4, 5), np.uint16))
    assert image_format(tmp_path / "raw.zarr") is None
    tifffile.imwrite(tmp_path / "raw.tif", np.ones((6, 4, 5), np.uint16), photometric="minisblack")
    assert image_format(tmp_path / "raw.tif") == "tiff"


def test_tiff_that_says_nothing_is_asked_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "slices").mkdir()
    for number, one in enumerate(volume()):
        tifffile.imwrite(tmp_path / f"slices/{number}.tif", one)
    with pytest.raises(GeometryError, match=r"pass angles='0:180'.*method='recorrupted'"):
        quietray.denoise(tmp_path / "slices")


def test_a_series_of_volumes_and_a_broken_one_are_refused(tmp_path: Path) -> None:
    from quietray.io import SeriesAxis

    with new_volume(tmp_path / "s.h5", GRID, {}, series=SeriesAxis("t", 2)) as writer:
        writer.write(0, np.concatenate([volume(), volume()]))
    with pytest.raises(FormatError, match="must be one volume"):
        read_images(tmp_path / "s.h5")
    with new_volume(tmp_path / "n.h5", GRID, {}) as writer:
        writer.write(0, np.where(volume() > 0.9, np.nan, volume()).astype(np.float32))
    with pytest.raises(FormatError, match="must hold finite values"):
        read_images(tmp_path / "n.h5")


def test_volumes_are_compared_as_volumes(tmp_path: Path) -> None:
    places = [written(tmp_path / name) for name in ("a.zarr", "b.h5")]
    assert quietray.evaluate(*places)["rmse"] == 0
