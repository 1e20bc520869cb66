"""Scans and volumes in several processes: what is pickled is opened again by its path, and no handle is shared."""

import dataclasses
import multiprocessing
import operator
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr

import quietray
from io_files import counts, write_diamond, write_esrf, write_exchange, write_tiffs
from quietray import Foam, ParallelBeam, Scan
from quietray.detector.response.response import PointResponse
from quietray.detector.response.whitened import WhitenedFrames
from quietray.errors import FormatError
from quietray.geometry import VolumeGrid
from quietray.io import SeriesAxis, VolumeWriter, open_volume_writer, read, read_volume
from quietray.io.frames import OnDisk

DATA = counts(8, 6, 7)
THETA = np.arange(8) * 22.5
KEYS = [2, 1, 0, 0, 1, 0, 0, 0]
FORMATS = ["h5", "tiff", "zarr"]


@pytest.fixture(scope="module")
def processes():
    """Two processes that were started anew."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(1) as one, spawn.Pool(1) as other:
        yield one, other


@pytest.fixture
def elsewhere(processes):
    """Return a function that calls another one in such a process."""
    return processes[0].apply


def forked(work: Callable[[], object]) -> object:
    """Return what a function returns in a forked process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, pickle.dumps(work()))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        content = stream.read()
    os.waitpid(child, 0)
    return pickle.loads(content)


def exchange(folder: Path) -> Scan:
    path = write_exchange(folder / "scan.h5", DATA, THETA, DATA[:2] + 1, DATA[:3] + 2, chunks=(2, 6, 7), compression=1)
    return read(path)


def detectors(folder: Path) -> Scan:
    path = write_exchange(folder / "scan.h5", DATA, THETA)
    with h5py.File(path, "a") as file:
        file["exchange/detector"] = np.arange(8) % 2
    return read(path).by_detector()[1]


def linked(folder: Path) -> Scan:
    write_exchange(folder / "raw.h5", DATA, THETA)
    with h5py.File(folder / "scan.h5", "w") as file:
        file["exchange/data"] = h5py.ExternalLink("raw.h5", "/exchange/data")
        file["exchange/theta"] = THETA
    return read(folder / "scan.h5")


def virtual(folder: Path) -> Scan:
    write_exchange(folder / "raw.h5", DATA, THETA)
    layout = h5py.VirtualLayout(DATA.shape, DATA.dtype)
    layout[:] = h5py.VirtualSource(str(folder / "raw.h5"), "exchange/data", DATA.shape)
    with h5py.File(folder / "scan.h5", "w") as file:
        file.create_virtual_dataset("exchange/data", layout)
        file["exchange/theta"] = THETA
    return read(folder / "scan.h5")


def exchange_in_zarr(folder: Path) -> Scan:
    group = zarr.create_group(str(folder / "scan.zarr"))
    group.create_array("exchange/data", data=DATA)
    group.create_array("exchange/theta", data=THETA)
    return read(folder / "scan.zarr")


def array_in_zarr(folder: Path) -> Scan:
    zarr.create_array(str(folder / "scan.zarr"), data=DATA)
    return read(folder / "scan.zarr", angles="0:180")


def stack(folder: Path) -> Scan:
    tifffile.imwrite(folder / "scan.tif", DATA, photometric="minisblack")
    return read(folder / "scan.tif", angles="0:180")


def packed(folder: Path) -> Scan:
    tifffile.imwrite(folder / "scan.tif", DATA, photometric="minisblack", compression="zlib")
    write_tiffs(folder / "flats", DATA[:2])
    return read(folder / "scan.tif", angles="0:180", flats=folder / "flats")


def whitened(folder: Path) -> Scan:
    scan = exchange(folder)
    response = PointResponse(np.array([[0.0, 0, 0], [0.1, 0.8, 0.1], [0, 0, 0]]))
    return dataclasses.replace(scan, projections=WhitenedFrames(scan.projections, response, dark=np.zeros((6, 7))))


def simulated(folder: Path) -> Scan:
    foam = Foam.packed(5, 0.3, np.random.default_rng(0), largest=0.3)
    beam = ParallelBeam(np.linspace(0, np.pi, 6, endpoint=False), 3, 8, rotation_axis=3.5, pixel_size=0.1)
    return quietray.acquire(foam, beam, photons=100.0, n_flats=3, n_darks=2)


SCANS = {
    "DXchange": exchange,
    "several detectors": detectors,
    "external link": linked,
    "virtual dataset": virtual,
    "NXtomo of ESRF": lambda folder: read(write_esrf(folder / "scan.nx", DATA, KEYS, THETA)),
    "NXtomo of Diamond": lambda folder: read(write_diamond(folder / "scan.nxs", DATA, KEYS, THETA)),
    "DXchange in Zarr": exchange_in_zarr,
    "an array in Zarr": array_in_zarr,
    "TIFF stack": stack,
    "compressed TIFF stack": packed,
    "TIFF folder": lambda folder: read(write_tiffs(folder / "views", DATA), angles="0:180"),
    "every other view": lambda folder: exchange(folder)[::2],
    "whitened when read": whitened,
    "simulated when read": simulated,
}


@pytest.mark.parametrize("kind", SCANS)
def test_a_scan_reads_the_same_in_another_process(tmp_path, elsewhere, kind):
    scan = SCANS[kind](tmp_path)
    rows, views = slice(1, 3), slice(1, 6, 2)
    here, size = scan.read(rows, views), len(pickle.dumps(scan))
    np.testing.assert_array_equal(elsewhere(Scan.read, (scan, rows, views)), here)
    if kind != "simulated when read":  # OpenMP, which simulates, forbids to fork
        np.testing.assert_array_equal(forked(lambda: scan.read(rows, views)), here)
    for frames in (scan.flats, scan.darks, scan.clean):
        if frames is not None:
            found = elsewhere(operator.getitem, (frames, slice(0, 2)))
            np.testing.assert_array_equal(found, frames[:2])
    np.testing.assert_array_equal(scan.read(rows, views), here)
    assert size < 10_000


def test_paths_hold_in_other_folders(tmp_path, monkeypatch, elsewhere):
    exchange(tmp_path)
    write_tiffs(tmp_path / "views", DATA)
    monkeypatch.chdir(tmp_path)
    for scan in (read("scan.h5"), read("views", angles="0:180")):
        assert not Path(scan.source).is_absolute()
        np.testing.assert_array_equal(elsewhere(Scan.read, (scan, slice(0, 2))), DATA[:, :2])


def test_a_file_that_is_another_now_is_refused(tmp_path):
    scan = exchange(tmp_path)
    content = pickle.dumps(scan.projections)
    write_exchange(tmp_path / "new.h5", DATA[:, :, :5], THETA)
    os.replace(tmp_path / "new.h5", tmp_path / "scan.h5")
    copy = pickle.loads(content)
    assert copy.shape == DATA.shape
    with pytest.raises(
        FormatError, match=r"must stay as it was when it was opened, \(8, 6, 7\) in uint16, got \(8, 6, 5"
    ):
        copy[0]
    np.testing.assert_array_equal(scan.projections[:], DATA)  # which holds the file that it opened
    (tmp_path / "scan.h5").unlink()
    with pytest.raises(FormatError, match=r"must be a complete HDF5 file, got: .*No such file"):
        pickle.loads(content)[0]


@pytest.mark.parametrize("kind", ["DXchange", "DXchange in Zarr", "compressed TIFF stack"])
def test_a_fork_opens_for_itself(tmp_path, kind):
    """A shared handle has one position in the file: two processes that read at once would move it for each other."""
    frames = SCANS[kind](tmp_path).projections
    stored = frames._stored
    before = id(stored._opened())
    handles = [stored._frames]  # so that its place in memory is not used again

    def work() -> tuple[bool, bool]:
        right = all(
            (frames[first : first + 2] == DATA[first : first + 2]).all() for _ in range(30) for first in range(6)
        )
        return bool(right), id(stored._opened()) == before

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, pickle.dumps(work()))
        finally:
            os._exit(0)
    os.close(writer)
    assert work() == (True, True)
    with os.fdopen(reader, "rb") as stream:
        assert pickle.loads(stream.read()) == (True, False)
    os.waitpid(child, 0)
    assert handles[0] is stored._frames


def test_an_array_is_opened_at_once_and_then_once(tmp_path):
    opened = []

    def load(path: Path) -> np.ndarray:
        opened.append(path)
        return np.load(path, mmap_mode="r")

    np.save(tmp_path / "frames.npy", DATA)
    frames = OnDisk(load, tmp_path / "frames.npy")
    assert len(opened) == 1
    np.testing.assert_array_equal(frames[2:4, 1], DATA[2:4, 1])
    assert (len(frames), len(opened)) == (8, 1)
    with pytest.raises(FileNotFoundError):
        OnDisk(np.load, tmp_path / "none.npy")


@pytest.mark.parametrize("format", FORMATS)
def test_volumes_are_read_in_another_process(tmp_path, elsewhere, rng, format):
    volume = rng.normal(size=(6, 4, 5)).astype(np.float32)
    for series in (None, SeriesAxis("t", 2)):
        path = tmp_path / f"volume_{series is None}"
        options = {"format": format, "series": series}
        with open_volume_writer(path, VolumeGrid(volume[: 6 if series is None else 3].shape), **options) as writer:
            writer.write(0, volume)
            found = read_volume(writer.finish())
        np.testing.assert_array_equal(elsewhere(operator.getitem, (found, slice(1, None))), found[1:])


# --- writing


@pytest.mark.parametrize("series", [None, SeriesAxis("t", 2)], ids=["one", "series"])
@pytest.mark.parametrize("format", FORMATS)
def test_processes_write_their_own_slabs(tmp_path, processes, rng, format, series):
    volume = rng.normal(size=(8, 5, 6)).astype(np.float32)
    grid = VolumeGrid((8 if series is None else 4, 5, 6), voxel_size=0.1)
    whole, parts = tmp_path / "whole" / "v", tmp_path / "parts" / "v"
    with open_volume_writer(whole, grid, format=format, extra={"a": 1}, series=series) as writer:
        writer.write(0, volume)
        writer.finish()
    with open_volume_writer(parts, grid, format=format, extra={"a": 1}, series=series) as writer:
        writer.write(0, volume[:2])
        slabs = zip(processes, (slice(2, 5), slice(5, 7)), strict=True)
        written = [pool.apply_async(VolumeWriter.write, (writer, z.start, volume[z])) for pool, z in slabs]
        assert [one.get() for one in written] == [None, None]
        assert not parts.exists()
        assert forked(lambda: writer.write(7, volume[7:])) is None
        writer.finish()
    np.testing.assert_array_equal(np.asarray(read_volume(parts)).reshape(volume.shape), volume)
    one, other = (
        {path.relative_to(top): path.read_bytes() for path in [top, *top.rglob("*")] if path.is_file()}
        for top in (whole, parts)
    )
    assert one == other


@pytest.mark.parametrize("format", FORMATS)
def test_a_copy_replaces_a_slab_of_a_finished_volume(tmp_path, rng, format):
    volume = rng.normal(size=(4, 5, 6)).astype(np.float32)
    with open_volume_writer(tmp_path / "v", VolumeGrid(volume.shape), format=format) as writer:
        writer.write(0, volume)
        writer.finish()
        copies = [pickle.loads(pickle.dumps(writer)) for _ in range(2)]
        copies[0].write(1, volume[:1])
        assert not (tmp_path / "v").exists()
        copies[1].write(3, volume[:1])
        writer.finish()
    np.testing.assert_array_equal(read_volume(tmp_path / "v")[:], volume[[0, 0, 2, 0]])


@pytest.mark.parametrize("format", ["h5", "zarr"])
def test_a_copy_of_a_volume_that_is_gone_is_refused(tmp_path, format):
    grid = VolumeGrid((2, 3, 4))
    writer = open_volume_writer(tmp_path / "v", grid, format=format)
    copy = pickle.loads(pickle.dumps(writer))
    os.replace(writer.place, tmp_path / "elsewhere")
    with pytest.raises(FormatError, match="must be a volume that can be resumed"):
        copy.write(0, np.zeros(grid.shape, np.float32))
