"""What cannot be read is refused with a sentence that says what to do."""

import dataclasses
import errno
import logging
import re

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from io_files import counts, write_diamond, write_esrf, write_exchange, write_tiffs
from quietray.errors import FormatError, GeometryError, QuietrayError, SettingsError
from quietray.io import read, read_volume
from quietray.io.damage import damage_told
from quietray.io.scans.raw import Flags, Stated

DATA = counts(12)
THETA = np.arange(12) * 15.0


def refusal(kind, path, **options) -> str:
    with pytest.raises(QuietrayError) as caught:
        read(path, **options)
    assert type(caught.value) is kind
    return str(caught.value)


def test_missing_file_names_its_neighbour(tmp_path):
    write_exchange(tmp_path / "scan_01.h5", DATA, THETA)
    message = refusal(FormatError, tmp_path / "scan_1.h5")
    assert "must exist" in message
    assert "did you mean 'scan_01.h5'" in message


def test_missing_folder(tmp_path):
    assert "check the path" in refusal(FormatError, tmp_path / "no" / "scan.h5")


def test_empty_file(tmp_path):
    (tmp_path / "scan.h5").touch()
    assert "empty file" in refusal(FormatError, tmp_path / "scan.h5")


def test_neither_hdf5_nor_tiff_nor_zarr(tmp_path):
    (tmp_path / "scan.h5").write_bytes(b"PNG and so on")
    message = refusal(FormatError, tmp_path / "scan.h5")
    assert "must be EDF, FITS, GE pca, HDF5, MetaImage, Nikon xtekct, SkyScan log, TIFF, Zarr or Zeiss txrm" in message
    assert "PNG" in message


def test_truncated_hdf5(tmp_path):
    path = write_exchange(tmp_path / "scan.h5", counts(100, 20, 20), np.arange(100.0))
    path.write_bytes(path.read_bytes()[:40_000])
    message = refusal(FormatError, path)
    assert "truncated" in message
    assert "copy it again" in message


def test_damaged_chunk_is_told_when_it_is_read(tmp_path):
    path = write_exchange(tmp_path / "scan.h5", counts(12, 30, 30), THETA, chunks=(1, 30, 30), compression="gzip")
    with h5py.File(path) as file:
        spot = file["exchange/data"].id.get_chunk_info_by_coord((7, 0, 0))
    with path.open("r+b") as stream:
        stream.seek(spot.byte_offset)
        stream.write(b"\xff" * spot.size)
    scan = read(path)
    np.testing.assert_array_equal(scan.projections[:7], counts(7, 30, 30))
    with pytest.raises(FormatError, match=r"/exchange/data must be readable, got: .*copy it again"):
        scan.read(slice(0, 2))


def test_a_dataset_that_was_never_written(tmp_path):
    with h5py.File(tmp_path / "volume.h5", "w") as file:
        file.create_dataset("exchange/data", (10**6, 10**6, 4), "u2", chunks=(4, 4, 4))
    with pytest.raises(
        FormatError, match=r"volume.h5 must hold values in /?exchange/data, got a dataset .* never written"
    ):
        read_volume(tmp_path / "volume.h5")


def test_a_tiff_of_endless_noise_is_given_up(caplog):
    def read_noise():
        with damage_told("one.tif"):
            for page in range(200):
                logging.getLogger("tifffile").error("page %d is damaged", page)

    with pytest.raises(FormatError, match=r"one\.tif must be readable, got: .*more than 100 values"):
        read_noise()
    assert not caplog.records
    logging.getLogger("tifffile").error("outside")
    assert [record.message for record in caplog.records] == ["outside"]


@pytest.mark.parametrize("content", [[], ["log.txt", "notes.md"]], ids=["empty", "text"])
def test_folder_without_images(tmp_path, content):
    for name in content:
        (tmp_path / name).write_text("words")
    message = refusal(FormatError, tmp_path)
    assert "must hold TIFF images or Zarr" in message
    assert ("log.txt" in message) == bool(content)


def test_missing_filter_is_named(tmp_path):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((1, 4, 5))
        settings.set_filter(499, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple(DATA.shape)
        group = file.create_group("exchange")
        data = h5py.h5d.create(group.id, b"data", h5py.h5t.NATIVE_UINT16, space, settings)
        for view in range(12):
            data.write_direct_chunk((view, 0, 0), DATA[view].tobytes(), filter_mask=0)
        file["exchange/theta"] = THETA
    message = refusal(FormatError, path)
    assert "HDF5 filter 499" in message
    assert "hdf5plugin" in message


def test_missing_virtual_source(tmp_path):
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["data"] = DATA
    layout = h5py.VirtualLayout(DATA.shape, DATA.dtype)
    layout[:] = h5py.VirtualSource("raw.h5", "data", DATA.shape)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_virtual_dataset("exchange/data", layout)
        file["exchange/theta"] = THETA
    np.testing.assert_array_equal(read(tmp_path / "scan.h5").projections[3], DATA[3])
    (tmp_path / "raw.h5").unlink()
    message = refusal(FormatError, tmp_path / "scan.h5")
    assert "got no raw.h5" in message
    assert "silently read zeros" in message


def test_broken_link_of_a_nexus_file(tmp_path):
    path = tmp_path / "scan.nxs"
    with h5py.File(path, "w") as file:
        file["entry1/tomo_entry/definition"] = "NXtomo"
        file["entry1/tomo_entry/data/data"] = h5py.ExternalLink("gone.h5", "entry/data")
        file["entry1/tomo_entry/sample/rotation_angle"] = THETA
    message = refusal(FormatError, path)
    assert "/entry1/tomo_entry/data/data links to gone.h5:entry/data" in message
    assert "beside this file" in message


# --- layouts


def test_unknown_layout_lists_what_there_is(tmp_path):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["detector"], file["kind"], file["theta_deg"] = DATA, np.zeros(12, int), THETA
    message = refusal(FormatError, path)
    assert "/detector (12, 4, 5) uint16" in message
    for word in ("data=", "angles=", "flats=", "darks=", "image_key=", "/kind", "/theta_deg"):
        assert word in message


def test_no_stack_at_all(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["theta"] = THETA
    assert "no three-dimensional dataset" in refusal(FormatError, tmp_path / "scan.h5")


@pytest.mark.parametrize("flag", ["data", "flats", "darks", "angles", "image_key"])
def test_unknown_dataset_names_the_nearest(tmp_path, flag):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["detector"], file["theta_deg"] = DATA, THETA
    options = {"data": "detector", "angles": "theta_deg", flag: "detectr" if flag != "angles" else "theta_dg"}
    message = refusal(FormatError, tmp_path / "scan.h5", **options)
    assert f"{flag}= must name a dataset" in message
    assert f"did you mean '{'theta_deg' if flag == 'angles' else 'detector'}'" in message


def test_volume_is_not_a_scan(tmp_path):
    with h5py.File(tmp_path / "volume.h5", "w") as file:
        file["exchange/data"] = DATA
        file["exchange/data"].attrs["voxel_size"] = 0.1
        file.attrs["generator"] = "quietray 1"
    assert "got a reconstructed volume" in refusal(FormatError, tmp_path / "volume.h5")


@pytest.mark.parametrize("kind", [np.complex64, "S3", np.bool_], ids=str)
def test_unsupported_pixels(tmp_path, kind):
    path = write_exchange(tmp_path / "scan.h5", DATA.astype(kind), THETA)
    message = refusal(FormatError, path)
    assert "must be real numbers" in message
    assert str(np.dtype(kind)) in message


def test_wrong_number_of_axes(tmp_path):
    assert "got shape (12, 20)" in refusal(FormatError, write_exchange(tmp_path / "a.h5", DATA.reshape(12, 20), THETA))


def test_no_frames(tmp_path):
    assert "never to have run" in refusal(FormatError, write_exchange(tmp_path / "a.h5", DATA[:0], THETA[:0]))


def test_one_view(tmp_path):
    assert "at least 2 views, got 1" in refusal(GeometryError, write_exchange(tmp_path / "a.h5", DATA[:1], THETA[:1]))


def test_flats_of_another_size(tmp_path):
    path = write_exchange(tmp_path / "scan.h5", DATA, THETA, flats=counts(2, 4, 6))
    message = refusal(FormatError, path)
    assert "flats must be frames of the projections' size (4, 5)" in message
    assert "(2, 4, 6)" in message


# --- image keys


def test_image_key_of_wrong_length_or_meaning(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"], file["theta"] = DATA, THETA
        file["short"], file["odd"], file["flats_only"] = np.zeros(5, int), np.full(12, 7), np.ones(12, int)
    options = {"data": "data", "angles": "theta"}
    message = refusal(FormatError, tmp_path / "scan.h5", image_key="short", **options)
    assert "one entry per frame, got 5" in message
    message = refusal(FormatError, tmp_path / "scan.h5", image_key="odd", **options)
    assert re.search(r"0 projection, 1 flat, 2 dark, 3 invalid, -1 alignment, got .*7", message)
    message = refusal(FormatError, tmp_path / "scan.h5", image_key="flats_only", **options)
    assert "must mark projections with 0, got none among 12" in message


# --- angles


def test_no_angles(tmp_path):
    for path in (write_exchange(tmp_path / "scan.h5", DATA, None), write_tiffs(tmp_path / "views", DATA)):
        message = refusal(GeometryError, path)
        assert "one angle for each of its 12 views" in message
        assert "angles='0:180'" in message


def test_nxtomo_without_angles(tmp_path):
    path = write_diamond(tmp_path / "scan.nxs", DATA, np.zeros(12), THETA)
    with h5py.File(path, "a") as file:
        del file["entry1/tomo_entry/sample"]
    assert "got no rotation_angle" in refusal(GeometryError, path)


def test_wrong_number_of_angles(tmp_path):
    path = write_exchange(tmp_path / "scan.h5", DATA, THETA[:-1])
    message = refusal(GeometryError, path)
    assert "got 11 angles in" in message
    assert "for 12 views" in message
    path = write_esrf(tmp_path / "scan.nx", DATA, [1, 2] + [0] * 10, THETA)
    np.savetxt(tmp_path / "theta.txt", THETA[:11])
    message = refusal(GeometryError, path, angles=tmp_path / "theta.txt")
    assert "for 10 views (or one for each of the 12 frames)" in message


def test_angle_that_is_not_a_number(tmp_path):
    theta = THETA.copy()
    theta[4] = np.nan
    message = refusal(GeometryError, write_exchange(tmp_path / "scan.h5", DATA, theta))
    assert "got nan at view 4 (1 of 12)" in message


def test_angles_that_are_text(tmp_path):
    path = write_exchange(tmp_path / "scan.h5", DATA, [b"ten"] * 12)
    assert "angles must be numbers" in refusal(FormatError, path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("words.txt", b"zero\none\ntwo\n", "must hold numbers only, got 'one'"),
        ("table.txt", b"0 1\n2 3\n4 5\n", "one angle per line, got 2 columns"),
        ("ragged.txt", b"0 1\n2\n", "unequal width"),
        ("empty.txt", b"", "0 lines"),
        ("bytes.txt", b"\xff\xfe\x00", "must be text, csv or npy"),
        ("broken.npy", b"\x93NUMPY\x01", "must be text, csv or npy"),
    ],
)
def test_unreadable_angle_files(tmp_path, name, content, words):
    path = write_exchange(tmp_path / "scan.h5", DATA, None)
    (tmp_path / name).write_bytes(content)
    assert words in refusal(FormatError, path, angles=tmp_path / name)


def test_a_pickled_angle_file_is_not_loaded(tmp_path):
    path = write_exchange(tmp_path / "scan.h5", DATA, None)
    np.save(tmp_path / "theta.npy", np.array([{"evil": 1}] * 12), allow_pickle=True)
    assert "must be text, csv or npy" in refusal(FormatError, path, angles=tmp_path / "theta.npy")


def test_angle_file_that_is_missing(tmp_path):
    path = write_tiffs(tmp_path / "views", DATA)
    assert "No such file" in refusal(FormatError, path, angles=str(tmp_path / "theta.txt"))


def test_empty_range_and_unknown_unit(tmp_path):
    path = write_exchange(tmp_path / "scan.h5", DATA, THETA)
    assert "must not be empty, got '5:5'" in refusal(GeometryError, path, angles="5:5")
    assert "must be 'deg' or 'rad', got 'turns'" in refusal(SettingsError, path, angle_unit="turns")


# --- TIFF and Zarr


def test_mixed_folder_is_not_taken_for_one_scan(tmp_path):
    for name, number in (("ct", 12), ("flat", 2)):
        write_tiffs(tmp_path / "scan", counts(number), name + "_{}.tif")
    message = refusal(FormatError, tmp_path / "scan", angles="0:180")
    assert "12 x ct_*" in message
    assert "2 x flat_*" in message
    assert "data= 'PATTERN*'" in message


def test_frame_of_another_size(tmp_path):
    path = write_tiffs(tmp_path / "views", DATA)
    tifffile.imwrite(path / "view_5.tif", counts(1, 3, 3)[0])
    scan = read(path, angles="0:180")
    with pytest.raises(FormatError, match=r"one size, got \(3, 3\) in .*view_5.tif"):
        scan.read(slice(0, 2))


def test_truncated_tiffs(tmp_path):
    stack = tmp_path / "stack.tif"
    tifffile.imwrite(stack, counts(12, 50, 50), photometric="minisblack")
    stack.write_bytes(stack.read_bytes()[:20_000])
    assert "truncated" in refusal(FormatError, stack, angles="0:180")
    folder = write_tiffs(tmp_path / "views", counts(12, 50, 50))
    frame = folder / "view_7.tif"
    frame.write_bytes(frame.read_bytes()[:1000])
    with pytest.raises(FormatError, match=r"view_7.tif must be a readable TIFF"):
        read(folder, angles="0:180").read(slice(0, 2))


def test_colour_images(tmp_path):
    tifffile.imwrite(tmp_path / "scan.tif", np.zeros((12, 8, 8, 3), np.uint8), photometric="rgb")
    assert "grey frames" in refusal(FormatError, tmp_path / "scan.tif", angles="0:180")


def test_flats_that_are_not_there(tmp_path):
    path = write_tiffs(tmp_path / "views", DATA)
    assert "flats= must be a TIFF file, a folder" in refusal(FormatError, path, angles="0:180", flats="open_*.tif")
    assert "image_key= must be left out" in refusal(FormatError, path, angles="0:180", image_key="key")


def test_damaged_zarr(tmp_path):
    zarr.create_group(str(tmp_path / "scan.zarr"))
    (tmp_path / "scan.zarr" / "zarr.json").write_text("{")
    message = refusal(FormatError, tmp_path / "scan.zarr")
    assert "must be a Zarr array or group" in message


def test_zarr_of_unknown_layout(tmp_path):
    group = zarr.create_group(str(tmp_path / "scan.zarr"))
    group.create_array("views", data=DATA)
    assert "/views (12, 4, 5) uint16" in refusal(FormatError, tmp_path / "scan.zarr")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = write_exchange(tmp_path / "scan.h5", DATA, THETA)

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert "must be readable by you" in refusal(FormatError, path)


def test_an_unknown_keyword_names_the_nearest(tmp_path):
    path = write_exchange(tmp_path / "scan.h5", DATA, THETA)
    with pytest.raises(TypeError, match=r"keywords of read\(\) must be among .* got 'flat' \(did you mean 'flats'\?\)"):
        read(path, flat=path)


def test_every_keyword_is_a_flag():
    assert [entry.name for entry in dataclasses.fields(Flags)] == list(Stated.__annotations__)
