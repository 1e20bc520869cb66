"""Volumes that other programs open: whole numbers over a window, one file, levels for viewers; killed and resumed."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

import quietray
import quietray.io.volumes.stored as stored_module
from quietray.cli import main
from quietray.errors import SettingsError
from quietray.geometry import VolumeGrid
from quietray.io import SeriesAxis, Stored, open_volume_writer, read_volume
from quietray.io.volumes import metaimage
from quietray.io.volumes.zarr import halved
from scans import disc_scan, quick

GRID = VolumeGrid((6, 5, 7), voxel_size=0.01, spacing=0.02)
NAMES = {"tiff": "slices", "bigtiff": "volume.tif", "mhd": "volume.mhd", "nii": "volume.nii"}
STORED = {
    "float32": Stored(),
    "uint16": Stored("uint16"),
    "uint8": Stored("uint8"),
    "uint16 over a window": Stored("uint16", (-1.0, 1.5)),
}


@pytest.fixture(autouse=True)
def library(request):
    if getattr(request.node, "callspec", None) and request.node.callspec.params.get("kind") == "nii":
        pytest.importorskip("nibabel", reason="needs the extra nifti")


@pytest.fixture
def volume():
    return np.random.default_rng(3).normal(size=GRID.shape).astype(np.float32)


every_format = pytest.mark.parametrize("kind", NAMES)
every_type = pytest.mark.parametrize("name", STORED)


def write(folder, kind, volume, name="float32", slabs=((4, 6), (0, 1), (1, 4)), **options):
    place = folder / NAMES.get(kind, f"volume.{kind}")
    with open_volume_writer(place, options.pop("grid", GRID), format=kind, stored=STORED[name], **options) as writer:
        for first, last in slabs:
            writer.write(first, volume[first:last])
        return writer.finish()


def content(folder):
    return {str(one.relative_to(folder)): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}


@every_format
@every_type
def test_values_come_back_to_half_a_step(tmp_path, volume, kind, name):
    found = read_volume(write(tmp_path, kind, volume, name))
    stored = STORED[name]
    assert (found.shape, found.dtype, found.unit) == (GRID.shape, np.float32, "1/mm")
    assert found.voxel_size == pytest.approx(0.01, rel=1e-6)
    if not stored.whole:
        np.testing.assert_array_equal(found[:], volume)
        return
    low, high = stored.window or (float(volume.min()), float(volume.max()))
    step = (high - low) / np.iinfo(stored.dtype).max
    assert (
        np.abs(found[:] - np.clip(volume, low, high)).max() <= 0.51 * step
    )  # NIfTI keeps the step in single precision
    np.testing.assert_allclose(found.facts["window"], [low, high], rtol=1e-6)
    assert found.facts["slope"] == pytest.approx(step, rel=1e-6)
    np.testing.assert_array_equal(found[1:5:2, 2:4, 1], found[:][1:5:2, 2:4, 1])


@every_format
@every_type
def test_a_run_that_was_killed_and_resumed_gives_the_same_bytes(tmp_path, volume, kind, name, monkeypatch):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    write(straight, kind, volume, name)
    place = broken / NAMES[kind]
    options = {"format": kind, "stored": STORED[name]}
    with open_volume_writer(place, GRID, **options) as writer:
        writer.write(0, volume[:3])
    assert not place.exists()
    with open_volume_writer(place, GRID, resume=True, **options) as writer:
        writer.write(3, volume[3:])
    if name in ("uint16", "uint8"):  # killed once more while the whole volume is turned into whole numbers
        turn, times = stored_module.Scale.numbers, []

        def killed(scale, values):
            times.append(1)
            if len(times) > (3 if kind == "tiff" else 0):
                raise KeyboardInterrupt
            return turn(scale, values)

        monkeypatch.setattr(stored_module.Scale, "numbers", killed)
        with pytest.raises(KeyboardInterrupt), open_volume_writer(place, GRID, resume=True, **options) as writer:
            writer.finish()
        monkeypatch.undo()
        assert not place.exists()
    with open_volume_writer(place, GRID, resume=True, **options) as writer:
        writer.finish()
    with open_volume_writer(place, GRID, resume=True, **options) as writer:
        writer.finish()  # a run that was killed after that
    assert content(broken) == content(straight)


@every_format
def test_a_series_of_volumes(tmp_path, volume, kind):
    both = np.concatenate([volume, -volume])
    path = write(tmp_path, kind, both, "uint16", ((0, 5), (5, 12)), series=SeriesAxis("t", 2))
    found = read_volume(path)
    assert found.shape == (2, *GRID.shape)
    assert np.abs(found[:] - both.reshape(2, *GRID.shape)).max() < 1e-4 * np.ptp(both)


def test_what_tiff_tells_and_other_programs_see(tmp_path, volume):
    path = write(tmp_path, "bigtiff", volume, "uint16", extra={"run": 7})
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        assert len(file.pages) == 6
        told, numbers = json.loads(file.pages[0].description), file.asarray()
    assert numbers.dtype == np.uint16
    assert (numbers.min(), numbers.max()) == (0, 65535)
    assert np.abs(told["intercept"] + told["slope"] * numbers - volume).max() <= 0.5001 * told["slope"]
    assert (told["run"], told["spacing"]) == (7, 0.02)
    path = write(tmp_path, "tiff", volume, "uint8")
    assert tifffile.imread(path / "slice_00003.tif").dtype == np.uint8


def test_metaimage_is_a_header_and_plain_numbers(tmp_path, volume):
    path = write(tmp_path, "mhd", volume)
    lines = dict(line.split(" = ") for line in path.read_text().splitlines())
    assert (lines["DimSize"], lines["ElementSpacing"]) == ("7 5 6", "0.01 0.01 0.02")
    assert (lines["ElementType"], lines["ElementDataFile"]) == ("MET_FLOAT", "volume.raw")
    np.testing.assert_array_equal(np.fromfile(tmp_path / "volume.raw", "<f4").reshape(GRID.shape), volume)


@pytest.mark.slow
def test_metaimage_as_itk_reads_it(tmp_path, volume):
    itk = pytest.importorskip("itk", reason="needs the extra cone")  # half a minute to import
    image = itk.imread(str(write(tmp_path, "mhd", volume)))
    np.testing.assert_array_equal(itk.array_from_image(image), volume)
    assert list(image.GetSpacing()) == pytest.approx([0.01, 0.01, 0.02])


def test_nifti_as_nibabel_reads_it(tmp_path, volume):
    nibabel = pytest.importorskip("nibabel", reason="needs the extra nifti")
    image = nibabel.load(write(tmp_path, "nii", volume, "uint16"))
    assert image.get_data_dtype() == np.uint16
    step = np.ptp(volume) / 65535
    assert np.abs(image.get_fdata().transpose(2, 1, 0) - volume).max() < 0.51 * step
    assert image.header.get_zooms() == pytest.approx((0.01, 0.01, 0.02))
    np.testing.assert_allclose(image.affine @ [3, 2, 2.5, 1], [0, 0, 0, 1], atol=1e-6)


def test_other_formats_store_float32_only(tmp_path):
    with pytest.raises(SettingsError, match="use format='tiff', bigtiff, mhd, nii"):
        open_volume_writer(tmp_path / "v.zarr", GRID, format="zarr", stored=Stored("uint16"))
    with pytest.raises(SettingsError, match="dtype= must be float32 for format='h5'"):
        quick(format="h5", dtype="uint8")
    with pytest.raises(SettingsError, match="window= must be left out"):
        quick(format="tiff", window=(0.0, 1.0))
    with pytest.raises(SettingsError, match="LOW below HIGH"):
        quick(format="tiff", dtype="uint8", window=(1.0, 0.0))


def test_a_level_is_the_mean_of_what_is_there():
    fine = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    found = halved(fine)
    assert found.shape == (3, 3, 4)
    for z, y, x in np.ndindex(found.shape):
        part = fine[2 * z : 2 * z + 2, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        assert found[z, y, x] == pytest.approx(part.mean(), rel=1e-4, abs=1e-6)


def test_a_pyramid_for_viewers(tmp_path):
    from ome_zarr_models.v05.image import Image

    grid = VolumeGrid((5, 40, 1100), voxel_size=0.01, spacing=0.02)
    volume = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
    slabs = ((2, 5), (0, 2))
    path = write(tmp_path / "straight", "zarr", volume, slabs=slabs, grid=grid)
    group = zarr.open_group(str(path), mode="r")
    (multiscale,) = Image.from_zarr(group).ome_attributes.multiscales
    levels = [group[level.path] for level in multiscale.datasets]
    assert [level.shape for level in levels] == [(5, 40, 1100), (3, 20, 550), (2, 10, 275), (1, 5, 138)]
    coarser = volume
    for number, (level, told) in enumerate(zip(levels, multiscale.datasets, strict=True)):
        np.testing.assert_array_equal(level[:], coarser)
        coarser = halved(coarser)
        scale, *move = told.coordinateTransformations
        steps = np.array([0.02, 0.01, 0.01])
        np.testing.assert_allclose(scale.scale, 2**number * steps)
        np.testing.assert_allclose(move[0].translation if move else 0 * steps, (2**number - 1) / 2 * steps)
    assert levels[1].chunks == (32, 64, 64)
    assert levels[1].shards == (32, 512, 512)
    np.testing.assert_array_equal(read_volume(path)[:], volume)
    assert read_volume(path).voxel_size == 0.01
    place = tmp_path / "broken/volume.zarr"
    for first, last in slabs:
        with open_volume_writer(place, grid, format="zarr", resume=first == 0) as writer:
            writer.write(first, volume[first:last])
    writer._halve(1)  # a kill between the levels
    with open_volume_writer(place, grid, format="zarr", resume=True) as writer:
        writer.finish()
    assert content(place) == content(path)


def test_commands_take_the_type_and_the_window(tmp_path):
    for out, words in (("v.tif", ()), ("v.mhd", ("--window", "-0.02", "0.08")), ("slices", ("--window", "auto"))):
        place = tmp_path / out
        for _ in range(2):
            main(["reconstruct", str(disc_scan()), "--out", str(place), "--dtype", "uint16", "--overwrite", *words])
        found = read_volume(place)
        assert found[6].max() > 0.04
        assert found.facts["stored"] == "uint16"
    assert read_volume(tmp_path / "v.mhd").facts["window"] == [-0.02, 0.08]
    assert {one.name for one in tmp_path.iterdir()} == {"v.tif", "v.mhd", "v.raw", "slices"}
    with pytest.raises(SystemExit):
        main(["reconstruct", str(disc_scan()), "--out", str(tmp_path / "w.tif"), "--dtype", "uint8", "--window", "1"])


def test_a_run_tells_its_window(tmp_path):
    settings = quick(steps=4, format="bigtiff", dtype="uint16", rotation_axis=11.5)
    result = quietray.denoise(quietray.read(disc_scan()), tmp_path / "run", settings)
    window = tomllib.loads(Path(tmp_path / "run/run.toml").read_text())["window"]
    assert window == result.volume.facts["window"]
    assert result.settings.window == tuple(window)
    assert np.ptp(np.asarray(result.volume)) == pytest.approx(window[1] - window[0], rel=1e-5)


def test_a_header_that_was_not_put_in_its_place_is_replaced_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class _Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise _Killed

    def write() -> None:
        writer = open_volume_writer(tmp_path / "volume.mhd", VolumeGrid((2, 3, 4)), format="mhd")
        writer.write(0, np.ones((2, 3, 4), np.float32))
        writer.finish()

    with monkeypatch.context() as patch:
        patch.setattr(metaimage.os, "replace", killed)
        patch.setattr(metaimage.os, "getpid", lambda: 1)
        with pytest.raises(_Killed):
            write()
    write()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["volume.mhd", "volume.raw"]
