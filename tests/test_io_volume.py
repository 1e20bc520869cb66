"""Volumes: slabs stay written, names stand for whole volumes, other programs can read them."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from quietray.errors import FormatError, ResourceError, SettingsError
from quietray.geometry import VolumeGrid
from quietray.io import open_volume_writer, read_volume

GRID = VolumeGrid((10, 12, 14), voxel_size=0.005)
NAMES = {"zarr": "volume.zarr", "h5": "volume.h5", "tiff": "slices"}
every_format = pytest.mark.parametrize("kind", list(NAMES))


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(3).normal(size=GRID.shape).astype(np.float32)


def write(folder: Path, kind: str, volume: np.ndarray, grid: VolumeGrid = GRID, **options) -> Path:
    with open_volume_writer(folder / NAMES[kind], grid, format=kind, **options) as writer:
        for start, stop in ((7, len(volume)), (0, 3), (3, 7)):
            writer.write(start, volume[start:stop])
        return writer.finish()


@every_format
def test_round_trip(tmp_path, volume, kind):
    path = write(tmp_path / "new", kind, volume, extra={"method": "noise2inverse", "seeds": [1, 2]})
    assert list(path.parent.iterdir()) == [path]
    found = read_volume(path)
    np.testing.assert_array_equal(found[:], volume)
    np.testing.assert_array_equal(found[2:9:3, 4:6, 1], volume[2:9:3, 4:6, 1])
    np.testing.assert_array_equal(np.asarray(found), volume)
    assert found.dtype == np.float32
    assert (found.shape, len(found)) == (GRID.shape, 10)
    assert (found.unit, found.voxel_size, found.path) == ("1/mm", 0.005, path)
    assert found.facts["method"] == "noise2inverse"


@every_format
def test_unknown_voxel_size_is_said(tmp_path, volume, kind):
    found = read_volume(write(tmp_path, kind, volume, VolumeGrid(GRID.shape)))
    assert (found.unit, found.voxel_size) == ("1/pixel", None)
    np.testing.assert_array_equal(found[4], volume[4])


@every_format
def test_double_precision_and_strided_blocks(tmp_path, volume, kind):
    with open_volume_writer(tmp_path / NAMES[kind], GRID, format=kind) as writer:
        writer.write(0, np.asfortranarray(volume.astype(np.float64)))
        np.testing.assert_array_equal(read_volume(writer.finish())[:], volume)


@every_format
def test_threads_write_their_own_slabs(tmp_path, volume, kind):
    with open_volume_writer(tmp_path / NAMES[kind], GRID, format=kind) as writer:
        threads = [threading.Thread(target=writer.write, args=(z, volume[z : z + 1])) for z in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        np.testing.assert_array_equal(read_volume(writer.finish())[:], volume)


# --- what other programs see


@pytest.mark.parametrize("voxel_size", [0.005, None])
def test_zarr_is_ome_ngff(tmp_path, volume, voxel_size):
    from ome_zarr_models.v05.image import Image

    path = write(tmp_path, "zarr", volume, VolumeGrid(GRID.shape, voxel_size=voxel_size), extra={"run": 7})
    group = zarr.open_group(str(path), mode="r")
    image = Image.from_zarr(group)
    (multiscale,) = image.ome_attributes.multiscales
    assert [axis.name for axis in multiscale.axes] == ["z", "y", "x"]
    assert {axis.unit for axis in multiscale.axes} == ({"millimeter"} if voxel_size else {None})
    (level,) = multiscale.datasets
    assert level.path == "0"
    assert list(level.coordinateTransformations[0].scale) == [voxel_size or 1.0] * 3
    assert group.attrs["quietray"]["unit"] == ("1/mm" if voxel_size else "1/pixel")
    assert group.attrs["quietray"]["run"] == 7
    array = group["0"]
    assert array.metadata.dimension_names == ("z", "y", "x")
    assert array.chunks == (1, 12, 14)
    np.testing.assert_array_equal(array[:], volume)


def test_hdf5_is_exchange_data(tmp_path, volume):
    with h5py.File(write(tmp_path, "h5", volume, extra={"run": {"seed": 7}})) as file:
        np.testing.assert_array_equal(file["exchange/data"][:], volume)
        assert file["exchange/data"].attrs["units"] == "1/mm"
        assert file["exchange/data"].attrs["voxel_size"] == 0.005
        assert json.loads(file.attrs["run"]) == {"seed": 7}


def test_tiff_slices_tell_their_size(tmp_path, volume):
    path = write(tmp_path, "tiff", volume, extra={"run": 7})
    assert sorted(entry.name for entry in path.iterdir()) == [f"slice_{z:05d}.tif" for z in range(10)]
    np.testing.assert_array_equal(tifffile.imread(path / "slice_00004.tif"), volume[4])
    with tifffile.TiffFile(path / "slice_00000.tif") as file:
        tags = file.pages.first.tags
        assert tags["ResolutionUnit"].value == 3  # per centimetre
        across, per = tags["XResolution"].value
        assert across / per == pytest.approx(2000)  # pixels of 5 micrometres
        told = json.loads(file.pages.first.description)
    assert (told["unit"], told["voxel_size"], told["run"]) == ("1/mm", 0.005, 7)


def test_volumes_of_other_programs(tmp_path, volume):
    tifffile.imwrite(tmp_path / "v.tif", volume, photometric="minisblack")
    zarr.create_array(str(tmp_path / "v.zarr"), data=volume)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["exchange/data"] = volume
    for name in ("v.tif", "v.zarr", "v.h5"):
        found = read_volume(tmp_path / name)
        np.testing.assert_array_equal(found[3:5], volume[3:5])
        assert (found.unit, found.voxel_size) == (None, None)


def test_ome_zarr_of_another_program_in_micrometres(tmp_path, volume):
    group = zarr.create_group(str(tmp_path / "v.zarr"), zarr_format=2)
    group.create_array("full", data=volume)
    group.create_array("half", data=volume[::2, ::2, ::2])
    group.attrs["multiscales"] = [
        {
            "axes": [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"],
            "datasets": [{"path": "full", "coordinateTransformations": [{"type": "scale", "scale": [6.5] * 3}]}],
        }
    ]
    found = read_volume(tmp_path / "v.zarr")
    np.testing.assert_array_equal(found[9], volume[9])
    assert found.voxel_size == pytest.approx(0.0065)


def test_what_is_no_volume(tmp_path, volume):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["somewhere/else"] = volume
    with pytest.raises(FormatError, match=r"must hold a volume .*/somewhere/else \(10, 12, 14\)"):
        read_volume(tmp_path / "v.h5")
    with pytest.raises(FormatError, match="must exist"):
        read_volume(tmp_path / "none.zarr")


# --- interrupted runs


@every_format
def test_nothing_has_the_name_before_the_end(tmp_path, volume, kind):
    path = tmp_path / NAMES[kind]
    with open_volume_writer(path, GRID, format=kind) as writer:
        writer.write(0, volume[:5])
        assert not path.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == [f".{NAMES[kind]}.partial"]


@every_format
def test_resume_keeps_slabs(tmp_path, volume, kind):
    path = tmp_path / NAMES[kind]
    with open_volume_writer(path, GRID, format=kind) as writer:
        writer.write(0, volume[:4])
    with open_volume_writer(path, GRID, format=kind, resume=True) as writer:
        writer.write(4, volume[4:])
        writer.finish()
    np.testing.assert_array_equal(read_volume(path)[:], volume)


@every_format
def test_starting_anew_forgets_old_slabs(tmp_path, volume, kind):
    path = tmp_path / NAMES[kind]
    small = VolumeGrid((3, 4, 5))
    open_volume_writer(path, GRID, format=kind).write(0, volume)
    with open_volume_writer(path, small, format=kind) as writer:
        writer.write(0, volume[:3, :4, :5])
        writer.finish()
    np.testing.assert_array_equal(read_volume(path)[:], volume[:3, :4, :5])


@every_format
def test_resume_after_the_end(tmp_path, volume, kind):
    path = write(tmp_path, kind, volume)
    with open_volume_writer(path, GRID, format=kind, resume=True) as writer:
        assert writer.finish() == path
    np.testing.assert_array_equal(read_volume(path)[:], volume)
    with open_volume_writer(path, GRID, format=kind, resume=True) as writer:
        writer.write(2, volume[:1])
        assert not path.exists()  # while a slab is replaced, the volume is not whole
        writer.finish()
    np.testing.assert_array_equal(read_volume(path)[:4], volume[[0, 1, 0, 3]])


@every_format
def test_resume_with_nothing_there_starts(tmp_path, volume, kind):
    np.testing.assert_array_equal(read_volume(write(tmp_path, kind, volume, resume=True))[:], volume)


@every_format
def test_resume_with_another_shape_is_refused(tmp_path, volume, kind):
    path = tmp_path / NAMES[kind]
    open_volume_writer(path, GRID, format=kind).write(0, volume[:4])
    with pytest.raises(FormatError, match=r"shape \(10, 12, 13\) in float32 to be resumed, got \(10, 12, 14\)"):
        open_volume_writer(path, VolumeGrid((10, 12, 13)), format=kind, resume=True)


@pytest.mark.parametrize("kind", ["zarr", "h5"])
def test_resume_of_rubbish_is_refused(tmp_path, kind):
    partial = tmp_path / f".{NAMES[kind]}.partial"
    partial.write_text("rubbish")
    with pytest.raises(FormatError, match="remove it and start anew"):
        open_volume_writer(tmp_path / NAMES[kind], GRID, format=kind, resume=True)


@every_format
def test_finished_volume_is_not_overwritten(tmp_path, volume, kind):
    path = write(tmp_path, kind, volume)
    with pytest.raises(ResourceError, match="must not exist yet; remove it, resume"):
        open_volume_writer(path, GRID, format=kind)
    np.testing.assert_array_equal(read_volume(path)[:], volume)


KILLED = """
import os, signal, sys
import numpy as np
from quietray.geometry import VolumeGrid
from quietray.io import open_volume_writer
for kind, name in (("zarr", "volume.zarr"), ("h5", "volume.h5"), ("tiff", "slices")):
    writer = open_volume_writer(sys.argv[1] + "/" + name, VolumeGrid((10, 12, 14)), format=kind)
    writer.write(2, np.full((3, 12, 14), 5, np.float32))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_process_loses_nothing(tmp_path, volume):
    source = Path(__file__).resolve().parent.parent / "src"
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    for kind, name in NAMES.items():
        with open_volume_writer(tmp_path / name, VolumeGrid(GRID.shape), format=kind, resume=True) as writer:
            writer.write(0, volume[:2])
            writer.write(5, volume[5:])
            found = read_volume(writer.finish())[:]
        np.testing.assert_array_equal(found[2:5], np.full((3, 12, 14), 5))
        np.testing.assert_array_equal(found[5:], volume[5:])


# --- what can go wrong


@contextmanager
def no_file_larger_than(n_bytes: int):
    """Let the system itself refuse to write, as it does when a disk is full."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@every_format
def test_refused_write_keeps_the_slabs(tmp_path, volume, kind):
    path = tmp_path / NAMES[kind]
    with open_volume_writer(path, GRID, format=kind) as writer:
        writer.write(0, volume[:4])
        with no_file_larger_than(500), pytest.raises(ResourceError, match=r"must be writable.*are kept in .*partial"):
            writer.write(4, volume[4:])
        assert not path.exists()
    with open_volume_writer(path, GRID, format=kind, resume=True) as writer:
        writer.write(4, volume[4:])
        writer.finish()
    np.testing.assert_array_equal(read_volume(path)[:], volume)


def test_full_disk_says_so(tmp_path, volume, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = open_volume_writer(tmp_path / "volume.h5", GRID, format="h5")
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ResourceError, match="No space left on device; free some space"):
        writer.write(0, volume)
    writer.close()


@every_format
def test_full_disk_is_foreseen(tmp_path, monkeypatch, kind):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(ResourceError, match="of free space"):
        open_volume_writer(tmp_path / NAMES[kind], GRID, format=kind)
    assert list(tmp_path.iterdir()) == []


@every_format
def test_slabs_outside_the_volume(tmp_path, volume, kind):
    with open_volume_writer(tmp_path / NAMES[kind], GRID, format=kind) as writer:
        for z0, block in ((8, volume[:3]), (-1, volume[:2]), (0, volume[:, :5]), (0, np.zeros((11, 12, 14)))):
            with pytest.raises(FormatError, match="must fit into the volume"):
                writer.write(z0, block)


def test_unknown_format(tmp_path):
    with pytest.raises(Exception, match="nrrd") as caught:
        open_volume_writer(tmp_path / "v.nrrd", GRID, format="nrrd")
    assert isinstance(caught.value, SettingsError) or "Literal" in str(caught.value)  # the type checker may be first


def test_read_only_folder(tmp_path, volume, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ResourceError, match="Permission denied; you may not write there"):
        open_volume_writer(tmp_path / "slices", GRID, format="tiff")
