"""Scans written by us: DXchange that others can read, complete or not there at all."""

import dataclasses
import errno
import json
import os

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from io_files import counts, write_exchange
from quietray.errors import FormatError, ResourceError
from quietray.geometry import ParallelBeam
from quietray.io import read, read_volume, stacks, write_scan
from quietray.scan import Scan

THETA = np.arange(6) * 30.0
TRUTH = counts(4, 5, 5).astype(np.float32)


@pytest.fixture
def scan() -> Scan:
    beam = ParallelBeam(np.deg2rad(THETA), 4, 5, rotation_axis=2.25, pixel_size=0.01)
    return Scan(
        counts(6),
        beam,
        flats=counts(2, start=50, dtype=np.float32),
        darks=counts(3, start=80),
        exposure=0.5,
        source="lab",
        provenance={"sample": "foam", "dose": np.float32(0.5), "seeds": np.arange(3)},
        notes=("A note.",),
        truth=TRUTH,
    )


def test_round_trip(tmp_path, scan):
    found = read(write_scan(tmp_path / "new" / "scan.h5", scan))
    for name in ("projections", "flats", "darks", "truth"):
        np.testing.assert_array_equal(getattr(found, name)[:], getattr(scan, name))
        assert getattr(found, name).dtype == getattr(scan, name).dtype
    np.testing.assert_allclose(found.geometry.angles, scan.geometry.angles, rtol=1e-15)
    assert found.geometry.rotation_axis == 2.25
    assert found.geometry.pixel_size == pytest.approx(0.01)
    assert found.exposure == 0.5
    assert found.provenance["sample"] == "foam"
    assert found.provenance["dose"] == 0.5
    assert found.provenance["seeds"] == [0, 1, 2]
    assert found.provenance["source"] == "lab"
    assert found.provenance["notes"] == ["A note."]
    assert found.provenance["truth"] == {"unit": "1/mm", "voxel_size": 0.01}


def test_other_programs_find_what_the_standard_says(tmp_path, scan):
    with h5py.File(write_scan(tmp_path / "scan.h5", scan)) as file:
        assert file.attrs["generator"].startswith("quietray ")
        assert json.loads(file.attrs["provenance"])["dose"] == 0.5
        np.testing.assert_array_equal(file["exchange/data"][:], scan.projections)
        np.testing.assert_array_equal(file["exchange/data_white"][:], scan.flats)
        np.testing.assert_array_equal(file["exchange/data_dark"][:], scan.darks)
        np.testing.assert_allclose(file["exchange/theta"][:], THETA)
        assert file["exchange/theta"].attrs["units"] == "degrees"
        detector = file["measurement/instrument/detector"]
        assert (detector["pixel_size_x"][()], detector["pixel_size_x"].attrs["units"]) == (0.01, "mm")
        assert (detector["exposure_time"][()], detector["exposure_time"].attrs["units"]) == (0.5, "s")
        assert file["measurement/sample/name"][()] == b"foam"
        assert file["truth/volume"].attrs["voxel_size"] == 0.01
        assert file["exchange/data"].chunks is None  # a band of rows is read without its neighbours


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int32, ">u2", ">f4", np.float16, np.float32, np.float64]),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=6).filter(lambda shape: shape[0] > 1),
    )
)
def test_any_real_type_and_shape_comes_back(tmp_path, data):
    beam = ParallelBeam(np.linspace(0, 1, len(data)), *data.shape[1:])
    found = read(write_scan(tmp_path / "scan.h5", Scan(data, beam), overwrite=True))
    assert found.projections.dtype == data.dtype
    np.testing.assert_array_equal(found.projections[:], data)


def test_many_blocks(tmp_path, scan, monkeypatch):
    monkeypatch.setattr(stacks, "_BLOCK_BYTES", 100)  # two frames of 40 bytes
    found = read(write_scan(tmp_path / "scan.h5", scan))
    np.testing.assert_array_equal(found.projections[:], scan.projections)


def test_a_lazy_scan_copies_itself_even_onto_itself(tmp_path):
    path = write_exchange(tmp_path / "scan.h5", counts(13), np.linspace(0, 180, 13), chunks=(1, 4, 5))
    scan = read(path)[::2]
    write_scan(path, scan, overwrite=True)
    np.testing.assert_array_equal(read(path).projections[:], counts(13)[:-1:2])


def test_scan_without_extras(tmp_path):
    scan = Scan(counts(6), ParallelBeam(np.deg2rad(THETA), 4, 5))
    found = read(write_scan(tmp_path / "scan.h5", scan))
    assert (found.flats, found.darks, found.truth, found.exposure) == (None, None, None, None)
    assert (found.geometry.rotation_axis, found.geometry.pixel_size) == (None, None)
    np.testing.assert_array_equal(found.projections[:], counts(6))


def test_long_provenance_does_not_stop_the_scan(tmp_path, scan):
    scan = dataclasses.replace(scan, provenance={"log": "x" * 100_000, "dose": 3})
    found = read(write_scan(tmp_path / "scan.h5", scan))
    assert found.provenance["dose"] == 3
    assert found.provenance["left_out"] == ["log"]


def test_truth_is_a_volume(tmp_path, scan):
    volume = read_volume(write_scan(tmp_path / "foam.h5", scan))
    np.testing.assert_array_equal(volume[1:3], TRUTH[1:3])
    assert (volume.unit, volume.voxel_size) == ("1/mm", 0.01)


def test_scan_without_truth_is_no_volume(tmp_path):
    path = write_exchange(tmp_path / "scan.h5", counts(6), THETA)
    with pytest.raises(FormatError, match="got a scan without /truth/volume"):
        read_volume(path)


# --- what can go wrong


def fail_at(monkeypatch, number, code):
    """Let the given call of os.pwrite fail, as a full disk would."""
    calls = []
    real = os.pwrite

    def pwrite(*arguments):
        calls.append(arguments)
        if len(calls) == number:
            raise OSError(code, os.strerror(code))
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", pwrite)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "No space left on device; free some space"),
        (errno.EDQUOT, "your quota is used up"),
        (errno.EROFS, "the disk is read-only"),
        (errno.EIO, "the disk failed"),
    ],
)
def test_full_disk_leaves_nothing_behind(tmp_path, scan, monkeypatch, code, advice):
    fail_at(monkeypatch, 2, code)
    with pytest.raises(ResourceError, match=advice) as caught:
        write_scan(tmp_path / "scan.h5", scan)
    assert "scan.h5 must be writable" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_keeps_the_old_file(tmp_path, scan, monkeypatch):
    path = write_scan(tmp_path / "scan.h5", scan)
    before = path.read_bytes()
    fail_at(monkeypatch, 3, errno.ENOSPC)
    with pytest.raises(ResourceError):
        write_scan(path, scan[::2], overwrite=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_foreseen(tmp_path, scan, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(ResourceError, match=r"must have .* GiB of free space, got"):
        write_scan(tmp_path / "deep" / "scan.h5", scan)
    assert not (tmp_path / "deep" / "scan.h5").exists()


def test_short_writes_are_continued(tmp_path, scan, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: real(file, data[:7], offset))
    found = read(write_scan(tmp_path / "scan.h5", scan))
    np.testing.assert_array_equal(found.projections[:], scan.projections)


def test_existing_file_is_kept(tmp_path, scan):
    (tmp_path / "scan.h5").write_text("precious")
    with pytest.raises(ResourceError, match="must not exist yet"):
        write_scan(tmp_path / "scan.h5", scan)
    with pytest.raises(ResourceError, match="got a folder"):
        write_scan(tmp_path, scan, overwrite=True)
    assert (tmp_path / "scan.h5").read_text() == "precious"
    write_scan(tmp_path / "scan.h5", scan, overwrite=True)
    np.testing.assert_array_equal(read(tmp_path / "scan.h5").projections[:], scan.projections)


def test_folder_that_is_a_file(tmp_path, scan):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ResourceError, match="must be writable"):
        write_scan(tmp_path / "out" / "scan.h5", scan)


def test_source_that_breaks_leaves_nothing_behind(tmp_path, scan):
    class Broken:
        shape, dtype = (6, 4, 5), np.dtype(np.uint16)

        def __getitem__(self, key):
            raise FormatError("the source must be readable")

    with pytest.raises(FormatError, match="the source"):
        write_scan(tmp_path / "scan.h5", dataclasses.replace(scan, projections=Broken()))
    assert list(tmp_path.iterdir()) == []


def test_complex_counts_are_refused(tmp_path, scan):
    with pytest.raises(FormatError, match="must be real numbers, got type complex128"):
        write_scan(tmp_path / "scan.h5", dataclasses.replace(scan, projections=counts(6).astype(complex)))
