"""Readers: what was written by h5py, nxtomo, tifffile and zarr is what `read` gives back, lazily."""

import threading
import time

import h5py
import hdf5plugin
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st

from io_files import counts, write_diamond, write_esrf, write_exchange, write_tiffs
from quietray.errors import GeometryError
from quietray.io import read
from quietray.io.frames import LazyFrames, runs

DATA = counts(6)
THETA = np.arange(6) * 30.0
FLATS = counts(2, start=50)
DARKS = counts(3, start=80)
KEYS = [2, 1, 0, 0, 3, 0, -1, 0, 1, 2]
KEYED = counts(10)


def check_whole(scan, data=DATA, theta=THETA, flats=FLATS, darks=DARKS):
    np.testing.assert_array_equal(scan.projections[:], data)
    assert scan.projections.dtype == data.dtype
    np.testing.assert_allclose(np.rad2deg(scan.geometry.angles), theta)
    for found, wanted in ((scan.flats, flats), (scan.darks, darks)):
        if wanted is None:
            assert found is None
        else:
            np.testing.assert_array_equal(found[:], wanted)


# --- DXchange


def test_exchange_with_everything(tmp_path):
    path = write_exchange(tmp_path / "scan.h5", DATA, THETA, FLATS, DARKS)
    with h5py.File(path, "a") as file:
        file["measurement/sample/name"] = "tooth"
        file["measurement/instrument/detector/pixel_size_x"] = 1.3
        file["measurement/instrument/detector/pixel_size_x"].attrs["units"] = "microns"
        file["measurement/instrument/detector/exposure_time"] = 25.0
        file["measurement/instrument/detector/exposure_time"].attrs["units"] = "ms"
    scan = read(path)
    check_whole(scan)
    assert scan.geometry.pixel_size == pytest.approx(1.3e-3)
    assert scan.exposure == pytest.approx(0.025)
    assert scan.provenance["sample"] == "tooth"
    assert scan.source == str(path)
    assert scan.geometry.rotation_axis is None
    assert scan.notes == ()


def test_the_name_does_not_matter(tmp_path):
    check_whole(read(write_exchange(tmp_path / "scan.tif", DATA, THETA, FLATS, DARKS)))


def test_what_the_user_says_overrules_the_file(tmp_path):
    path = write_exchange(tmp_path / "scan.h5", DATA, THETA, FLATS, DARKS)
    with h5py.File(path, "a") as file:
        file["better/flats"] = counts(4, start=60)
        file["better/theta"] = THETA + 1
    tifffile.imwrite(tmp_path / "dark.tif", counts(1, start=70)[0])
    scan = read(path, flats="/better/flats", darks="dark.tif", angles="better/theta", pixel_size=0.5, rotation_axis=1.5)
    check_whole(scan, theta=THETA + 1, flats=counts(4, start=60), darks=counts(1, start=70))
    assert (scan.geometry.pixel_size, scan.geometry.rotation_axis) == (0.5, 1.5)


def test_a_scan_without_flats_is_left_to_the_caller(tmp_path):
    check_whole(read(write_exchange(tmp_path / "scan.h5", DATA, THETA)), flats=None, darks=None)


def test_a_single_flat_frame_is_a_stack_of_one(tmp_path):
    path = write_exchange(tmp_path / "scan.h5", DATA, THETA, FLATS[0], DARKS[1])
    check_whole(read(path), flats=FLATS[:1], darks=DARKS[1:2])


def test_rotation_axis_of_other_programs_is_not_believed(tmp_path):
    path = write_exchange(tmp_path / "scan.h5", DATA, THETA)
    with h5py.File(path, "a") as file:
        file["exchange"].attrs["rotation_axis"] = 1.0
    assert read(path).geometry.rotation_axis is None


def test_pixel_size_without_unit_is_not_guessed(tmp_path):
    path = write_exchange(tmp_path / "scan.h5", DATA, THETA)
    with h5py.File(path, "a") as file:
        file["measurement/instrument/detector/x_pixel_size"] = 1.3
    scan = read(path)
    assert scan.geometry.pixel_size is None
    assert "1.3" in scan.notes[0]
    assert "pixel_size=" in scan.notes[0]


@pytest.mark.parametrize(
    "filters",
    [
        hdf5plugin.Blosc(cname="lz4", shuffle=hdf5plugin.Blosc.BITSHUFFLE),
        hdf5plugin.Bitshuffle(),
        hdf5plugin.LZ4(),
        hdf5plugin.Zstd(),
        {"compression": "gzip", "shuffle": True},
    ],
    ids=["blosc", "bitshuffle", "lz4", "zstd", "gzip"],
)
def test_compressed_data(tmp_path, filters):
    path = write_exchange(tmp_path / "scan.h5", DATA, THETA, chunks=(2, 4, 5), **filters)
    check_whole(read(path), flats=None, darks=None)


def test_user_block_before_the_file(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w", userblock_size=512) as file:
        file["exchange/data"] = DATA
        file["exchange/theta"] = THETA
    check_whole(read(tmp_path / "scan.h5"), flats=None, darks=None)


# --- laziness


def test_fifty_gigabytes_open_at_once(tmp_path):
    path = tmp_path / "huge.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("exchange/data", (6000, 2048, 2048), "uint16", chunks=(1, 2048, 2048))
        data[5999, 7] = 9
        file["exchange/theta"] = np.arange(6000) * 0.03
    start = time.perf_counter()
    scan = read(path)
    assert time.perf_counter() - start < 2
    assert scan.nbytes == 6000 * 2048 * 2048 * 2
    band = scan.read(slice(6, 8), slice(5998, None))
    assert band[0].max() == 0
    np.testing.assert_array_equal(band[1, :, 0], [0, 9])


class Recorder:
    """An array that remembers what was asked of it."""

    def __init__(self, array):
        self.array, self.asked = array, []
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key):
        self.asked.append(key)
        return self.array[key]


def test_interleaved_frames_are_read_in_runs_and_nothing_else():
    recorder = Recorder(counts(20))
    views = LazyFrames(recorder, np.array([2, 3, 4, 8, 9, 15]))
    assert recorder.asked == []
    np.testing.assert_array_equal(views[1:5, 1:3, 2], counts(20)[[3, 4, 8, 9], 1:3, 2])
    assert recorder.asked == [(slice(3, 5, 1), slice(1, 3), 2), (slice(8, 10, 1), slice(1, 3), 2)]


@given(
    st.lists(st.integers(0, 11), min_size=1, max_size=12),
    st.one_of(st.slices(6), st.integers(-1, 0), st.lists(st.integers(0, 0), max_size=3)),
    st.slices(4).filter(lambda rows: rows.step is None or rows.step > 0),
)
def test_lazy_frames_index_like_an_array(index, first, rows):
    stored = counts(12)
    wanted = stored[index]
    key = (np.array(first, int) if isinstance(first, list) else first, rows)
    np.testing.assert_array_equal(LazyFrames(stored, np.array(index))[key], wanted[key])


@given(st.lists(st.integers(0, 30), max_size=20))
def test_runs_cover_the_list_in_order(index):
    covered = [number for run in runs(np.array(index, int)) for number in range(run.start, run.stop, run.step)]
    assert covered == index


def test_ellipsis_and_conversion():
    frames = LazyFrames(counts(3))
    np.testing.assert_array_equal(frames[..., 2], counts(3)[..., 2])
    np.testing.assert_array_equal(frames[1, ...], counts(3)[1])
    np.testing.assert_array_equal(np.asarray(frames, dtype=np.float32), counts(3).astype(np.float32))
    assert frames[:0].tolist() == []


def test_reading_from_threads(tmp_path):
    scan = read(write_exchange(tmp_path / "scan.h5", counts(40), np.arange(40.0), chunks=(1, 4, 5), compression="gzip"))
    wrong = []

    def work(row):
        for _ in range(20):
            if not np.array_equal(scan.projections[:, row], counts(40)[:, row]):
                wrong.append(row)

    threads = [threading.Thread(target=work, args=(row,)) for row in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_chunk_cache_fits_the_storage(tmp_path):
    for name, filters in (("plain", {}), ("gzip", {"compression": "gzip"})):
        write_exchange(tmp_path / f"{name}.h5", counts(8, 600, 700), np.arange(8.0), chunks=(2, 600, 700), **filters)
    cache = {
        name: read(tmp_path / f"{name}.h5").projections._stored._frames.id.get_access_plist().get_chunk_cache()[1]
        for name in ("plain", "gzip")
    }
    assert cache["plain"] == 0  # HDF5 then reads rows, not chunks
    assert cache["gzip"] == 2 * 2 * 600 * 700 * 2


# --- NXtomo


def test_esrf_layout_with_interleaved_keys(tmp_path):
    path = write_esrf(tmp_path / "scan.nx", KEYED, KEYS, np.arange(10) * 10.0)
    scan = read(path)
    check_whole(scan, KEYED[[2, 3, 5, 7]], [20, 30, 50, 70], KEYED[[1, 8]], KEYED[[0, 9]])
    assert scan.geometry.pixel_size == pytest.approx(6.5e-3)
    assert scan.exposure == pytest.approx(0.05)
    assert scan.provenance["sample"] == "rock"
    assert scan.provenance["image_key"].endswith("image_key_control")
    assert any("alignment" in note for note in scan.notes)
    assert any("invalid" in note for note in scan.notes)


@pytest.mark.parametrize("links", [True, False], ids=["detector", "data"])
def test_diamond_layout_with_interleaved_keys(tmp_path, links):
    path = write_diamond(tmp_path / "scan.nxs", KEYED, np.abs(KEYS), np.arange(10) * 10.0, links)
    scan = read(path)
    check_whole(scan, KEYED[[2, 3, 5, 7]], [20, 30, 50, 70], KEYED[[1, 6, 8]], KEYED[[0, 9]])
    assert any("invalid" in note for note in scan.notes)


def test_diamond_data_linked_from_another_file(tmp_path):
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["entry/data"] = KEYED
    path = tmp_path / "scan.nxs"
    with h5py.File(path, "w") as file:
        file["entry1/tomo_entry/definition"] = b"NXtomo"
        file["entry1/tomo_entry/instrument/detector/image_key"] = np.abs(KEYS)
        file["entry1/tomo_entry/instrument/detector/data"] = h5py.ExternalLink("raw.h5", "entry/data")
        file["entry1/tomo_entry/sample/rotation_angle"] = np.arange(10) * 10.0
    np.testing.assert_array_equal(read(path).projections[1:3, 2], KEYED[[3, 5], 2])


def test_second_entry_is_named_and_can_be_chosen(tmp_path):
    path = write_esrf(tmp_path / "scan.nx", KEYED, KEYS, np.arange(10) * 10.0, ("entry0000", "entry0001"))
    scan = read(path)
    assert scan.provenance["data"].startswith("/entry0000")
    assert any("2 scans" in note and "/entry0001" in note for note in scan.notes)
    second = read(path, data="entry0001")
    assert second.provenance["data"].startswith("/entry0001")
    np.testing.assert_array_equal(second.projections[0], KEYED[2])


def test_naming_a_keyed_stack_still_finds_its_flats(tmp_path):
    path = write_diamond(tmp_path / "scan.nxs", KEYED, np.abs(KEYS), np.arange(10) * 10.0)
    scan = read(path, data="entry1/tomo_entry/instrument/detector/data", angles="0:180")
    check_whole(scan, KEYED[[2, 3, 5, 7]], [0, 45, 90, 135], KEYED[[1, 6, 8]], KEYED[[0, 9]])


# --- datasets by name


def test_keyed_stack_by_flags(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["detector"], file["kind"], file["theta_deg"] = KEYED, KEYS, np.arange(10) * 10.0
    scan = read(tmp_path / "scan.h5", data="detector", image_key="kind", angles="theta_deg")
    check_whole(scan, KEYED[[2, 3, 5, 7]], [20, 30, 50, 70], KEYED[[1, 8]], KEYED[[0, 9]])


def test_separate_stacks_by_flags(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["a/views"], file["a/open"], file["a/shut"] = DATA, FLATS, DARKS
    np.savetxt(tmp_path / "theta.txt", THETA)
    scan = read(tmp_path / "scan.h5", data="a/views", flats="a/open", darks="a/shut", angles=tmp_path / "theta.txt")
    check_whole(scan)


# --- TIFF


def test_folder_in_natural_order(tmp_path):
    data = counts(12)
    write_tiffs(tmp_path / "views", data)
    (tmp_path / "views" / "log.txt").write_text("not an image")
    write_tiffs(tmp_path / "flats", FLATS)
    tifffile.imwrite(tmp_path / "darks.tif", DARKS, photometric="minisblack")
    scan = read(tmp_path / "views", flats=tmp_path / "flats", darks=tmp_path / "darks.tif", angles="0:360")
    check_whole(scan, data, np.arange(12) * 30.0)
    np.testing.assert_array_equal(scan.projections[9:11, 1:3, 1:4], data[9:11, 1:3, 1:4])


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"bigtiff": True}], ids=str)
def test_multi_page_stack(tmp_path, options):
    data = counts(6, 32, 48)
    tifffile.imwrite(tmp_path / "scan.dat", data, photometric="minisblack", **options)
    scan = read(tmp_path / "scan.dat", angles="0:180")
    check_whole(scan, data, THETA, None, None)
    np.testing.assert_array_equal(scan.projections[1:5:2, 3:9, 2], data[1:5:2, 3:9, 2])


def test_compressed_folder_and_page_by_page_writing(tmp_path):
    write_tiffs(tmp_path / "views", DATA, compression="zlib")
    with tifffile.TiffWriter(tmp_path / "flats.tif") as writer:
        for frame in FLATS:
            writer.write(frame, contiguous=False)
    check_whole(read(tmp_path / "views", angles="0:180", flats="../flats.tif"), darks=None)


def test_one_folder_with_several_series(tmp_path):
    folder = tmp_path / "scan"
    for name, data in (("ct", DATA), ("ob", FLATS), ("dc", DARKS)):
        write_tiffs(folder, data, name + "_{}.tif")
    check_whole(read(folder, data="ct_*", flats="ob_*", darks="dc_*.tif", angles="0:180"))


# --- Zarr


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_exchange(tmp_path, version):
    group = zarr.create_group(str(tmp_path / "scan"), zarr_format=version)
    for name, value in (("data", DATA), ("data_white", FLATS), ("data_dark", DARKS), ("theta", THETA)):
        group.create_array(f"exchange/{name}", data=value, chunks=(1, *value.shape[1:]))
    check_whole(read(tmp_path / "scan"))


def test_zarr_array_with_flags(tmp_path):
    zarr.create_array(str(tmp_path / "views"), data=DATA)
    write_tiffs(tmp_path / "open", FLATS)
    scan = read(tmp_path / "views", angles="0:180", flats=str(tmp_path / "open"))
    check_whole(scan, darks=None)


def test_zarr_group_with_named_arrays(tmp_path):
    group = zarr.create_group(str(tmp_path / "scan.zarr"))
    group.create_array("raw/keyed", data=KEYED)
    group.create_array("raw/kind", data=np.array(KEYS))
    group.create_array("raw/theta", data=np.arange(10) * 10.0)
    scan = read(tmp_path / "scan.zarr", data="raw/keyed", image_key="raw/kind", angles="raw/theta")
    check_whole(scan, KEYED[[2, 3, 5, 7]], [20, 30, 50, 70], KEYED[[1, 8]], KEYED[[0, 9]])


# --- angles


def test_angle_files(tmp_path):
    path = tmp_path / "scan.tif"
    tifffile.imwrite(path, DATA, photometric="minisblack")
    np.save(tmp_path / "theta.npy", THETA)
    (tmp_path / "theta.csv").write_text("frame,Angle (deg)\n" + "".join(f"{i},{a}\n" for i, a in enumerate(THETA)))
    (tmp_path / "line.txt").write_text("# degrees\n" + " ".join(map(str, THETA)) + "\n")
    (tmp_path / "list.txt").write_text("".join(f"{a}\n" for a in THETA))
    (tmp_path / "comma.txt").write_text(",\n".join(map(str, THETA)) + "\n")
    for name in ("theta.npy", "theta.csv", "line.txt", "list.txt", "comma.txt"):
        check_whole(read(path, angles=tmp_path / name), flats=None, darks=None)


@pytest.mark.parametrize("unit", ["rad", "Radians"])
def test_units_attribute_in_radians(tmp_path, unit):
    path = write_exchange(tmp_path / "scan.h5", counts(12), np.deg2rad(np.arange(12) * 15.0))
    with h5py.File(path, "a") as file:
        file["exchange/theta"].attrs["units"] = unit
    np.testing.assert_allclose(np.rad2deg(read(path).geometry.angles), np.arange(12) * 15.0)


def test_angle_unit_overrules(tmp_path):
    path = write_exchange(tmp_path / "scan.h5", counts(12), np.linspace(0, np.pi, 12, endpoint=False))
    assert read(path, angle_unit="rad").geometry.angles[6] == pytest.approx(np.pi / 2)
    assert read(path, angle_unit="deg").geometry.angles[6] == pytest.approx(np.deg2rad(np.pi / 2))


@pytest.mark.parametrize("turn", [np.pi, 2 * np.pi], ids=["half", "whole"])
@pytest.mark.parametrize("declared", [None, "deg"])
def test_radians_taken_for_degrees_are_refused(tmp_path, turn, declared):
    path = write_exchange(tmp_path / "scan.h5", counts(50), np.linspace(0, turn, 50, endpoint=False))
    if declared:
        with h5py.File(path, "a") as file:
            file["exchange/theta"].attrs["units"] = declared
    with pytest.raises(GeometryError, match=r"look like radians; pass angle_unit='rad'"):
        read(path)


def test_degrees_declared_as_radians_are_refused(tmp_path):
    path = write_exchange(tmp_path / "scan.h5", counts(60), np.arange(60) * 3.0)
    with h5py.File(path, "a") as file:
        file["exchange/theta"].attrs["units"] = "rad"
    with pytest.raises(GeometryError, match=r"looks like degrees; pass angle_unit='deg'"):
        read(path)


# --- a repeated last view


@pytest.mark.parametrize(("whole", "verb"), [(180, "mirrors"), (360, "repeats")])
def test_a_repeated_last_view_is_dropped_and_told(tmp_path, whole, verb):
    data, theta = counts(13), np.linspace(0, whole, 13)
    scan = read(write_exchange(tmp_path / "scan.h5", data, theta))
    check_whole(scan, data[:-1], theta[:-1], None, None)
    assert f"{whole}.00 degrees) {verb} the first" in scan.notes[0]
    assert "12 views are left" in scan.notes[0]


# --- measured files


def test_tooth(real_data):
    scan = read(real_data("tomopy_tooth/tooth.h5"))
    assert (scan.n_views, scan.provenance["sample"], scan.notes) == (181, "Tooth", ())
    assert np.rad2deg(scan.geometry.angles[-1]) == pytest.approx(179.006, abs=1e-3)
    assert np.mean(scan.flats[:]) == pytest.approx(27_940, rel=0.01)
    assert np.mean(scan.darks[:]) == pytest.approx(105, rel=0.02)


def test_neutron_scan_loses_its_repeated_view(real_data):
    scan = read(real_data("psi_neutron_ct/psi_ct5s375_128lines.h5"))
    assert scan.n_views == 375
    assert "repeats the first one" in scan.notes[0]
    assert np.median(scan.flats[:2]) == pytest.approx(1623, rel=0.05)
    assert scan.geometry.rotation_axis is None


def test_diamond_i12_loses_its_mirrored_view(real_data):
    scan = read(real_data("dls_i12_24737_binned/dls_24737.h5"))
    assert scan.n_views == 90
    assert "mirrors the first one" in scan.notes[0]
    np.testing.assert_allclose(np.rad2deg(scan.geometry.angles), np.arange(90) * 2.0)


def test_diad_by_flags(real_data):
    path = real_data("dls_k11_diad/k11-18014.h5")
    scan = read(path, data="detector", image_key="image_key", angles="theta_deg")
    assert (scan.n_views, len(scan.flats), len(scan.darks)) == (3000, 100, 100)
    assert np.mean(scan.flats[:]) == pytest.approx(45_300, rel=0.01)
    assert np.median(np.std(scan.darks[:].astype(float), axis=0)) == pytest.approx(2.2, rel=0.1)
    with h5py.File(path) as file:
        first = np.flatnonzero(file["image_key"][:] == 0)[:3]
        np.testing.assert_array_equal(scan.projections[:3, 5:7], file["detector"][first, 5:7])
