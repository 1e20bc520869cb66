"""Parts of scans lie in other files, have axes in another order, or are written by other customs; a flag helps."""

import dataclasses
import json

import h5py
import numpy as np
import pytest
import tifffile

import quietray
from quietray import ConeBeam, ParallelBeam
from quietray.cli import main
from quietray.errors import QuietrayError
from quietray.io import open_volume_writer, read
from quietray.preparation.examine import examine
from turning import as_scan, line_integrals, measured

DEGREES = np.arange(20) * 9.0


@pytest.fixture(scope="module")
def stacks():
    return measured(DEGREES, n_rows=6, n_cols=40)


def exchange(path, views, flats=None, darks=None, theta=DEGREES, **more):
    with h5py.File(path, "w") as file:
        for name, stack in (("data", views), ("data_white", flats), ("data_dark", darks), ("theta", theta)):
            if stack is not None:
                file[f"exchange/{name}"] = stack
        for name, value in more.items():
            file[name.replace("__", "/")] = value
    return path


def nxtomo(path, views, flats, darks, theta=DEGREES, **more):
    with h5py.File(path, "w", libver="latest") as file:
        entry = file.create_group("entry")
        entry["definition"] = "NXtomo"
        entry["instrument/detector/data"] = np.concatenate([darks, flats, views])
        entry["instrument/detector/image_key"] = [2] * len(darks) + [1] * len(flats) + [0] * len(views)
        entry["sample/rotation_angle"] = np.concatenate([np.zeros(len(darks) + len(flats)), theta])
        for name, (value, unit) in more.items():
            entry[name.replace("__", "/")] = value
            entry[name.replace("__", "/")].attrs["units"] = unit
    return path


def tiffs(folder, views, numbers=None, **options):
    folder.mkdir()
    for number, frame in zip(range(len(views)) if numbers is None else numbers, views, strict=True):
        tifffile.imwrite(folder / f"proj_{number:04d}.tif", frame, **({"photometric": "minisblack"} | options))
    return folder


def refusal(path, **flags):
    with pytest.raises(QuietrayError) as caught:
        read(path, **flags)
    return str(caught.value)


def same(scan, views, flats=None, darks=None):
    for found, wanted in ((scan.projections, views), (scan.flats, flats), (scan.darks, darks)):
        if wanted is not None:
            np.testing.assert_array_equal(np.asarray(found[:]), wanted)


def test_flats_darks_and_angles_in_other_files(tmp_path, stacks):
    views, flats, darks = stacks
    scan = exchange(tmp_path / "scan.h5", views, theta=None)
    for name, stack in (("flats", flats), ("darks", darks)):
        with h5py.File(tmp_path / f"{name}.hdf", "w") as file:
            file["entry/data/data"] = stack
        np.save(tmp_path / f"{name}.npy", stack)
    with h5py.File(tmp_path / "angles.h5", "w") as file:
        file["run/theta"], file["run/current"] = DEGREES, np.ones(20)
    whole = exchange(tmp_path / "whole.h5", views, flats, darks)
    keyed = nxtomo(tmp_path / "whole.nx", views, flats, darks)
    places = [("flats.hdf", "darks.hdf"), ("flats.hdf:/entry/data/data", "darks.hdf:entry/data/data")]
    places += [("flats.npy", "darks.npy"), (str(whole), str(whole)), (str(keyed), str(keyed))]
    for given in places:
        found = read(scan, flats=given[0], darks=given[1], angles="angles.h5")
        same(found, *stacks)
        np.testing.assert_allclose(np.rad2deg(found.geometry.angles), DEGREES)
    assert read(scan, angles=f"{tmp_path}/angles.h5:/run/theta").n_views == 20
    with h5py.File(tmp_path / "several.h5", "w") as file:
        file["one"], file["other"] = flats, flats
    assert "pass flats= " in refusal(scan, angles="0:180", flats="several.h5")
    assert "several.h5:/DATASET" in refusal(scan, angles="0:180", flats="several.h5")


def test_a_white_level_stands_for_flats(tmp_path, stacks):
    folder = tiffs(tmp_path / "views", stacks[0])
    scan = read(folder, angles="0:180", flats="60000", darks="100")
    assert np.asarray(scan.flats[:]).tolist() == np.full((1, 6, 40), 60000.0).tolist()
    assert np.asarray(scan.darks[0]).max() == 100
    assert "The flats are one level for all pixels, 60000, as stated." in scan.notes


def test_levels_and_angles_that_tomoscan_writes(tmp_path, stacks):
    views, flats, _ = stacks
    written = {
        "process__acquisition__dark_fields__dark_field_value": [100.0],
        "process__acquisition__rotation__rotation_start": [5.0],
        "process__acquisition__rotation__rotation_step": [9.0],
    }
    for number, darks in enumerate((np.zeros((1, 6, 40), np.uint16), None)):
        scan = read(exchange(tmp_path / f"{number}.h5", views, flats, darks, theta=None, **written))
        assert np.asarray(scan.darks[:]).tolist() == np.full((1, 6, 40), 100.0).tolist()
        np.testing.assert_allclose(np.rad2deg(scan.geometry.angles), DEGREES + 5)
    real = exchange(tmp_path / "real.h5", views, flats, stacks[2], theta=None, **written)
    same(read(real), views, flats, stacks[2])


def test_the_order_of_frames_is_kept_where_the_file_tells_it(tmp_path, stacks):
    views, flats, darks = stacks
    scan = read(nxtomo(tmp_path / "a.nx", views, flats, darks))
    assert (scan.flats_taken.tolist(), scan.taken.tolist()) == (list(range(10, 30)), list(range(30, 50)))
    both = {"process__acquisition__flat_fields__flat_field_mode": "Both"}
    scan = read(exchange(tmp_path / "a.h5", views, flats, darks, **both))
    assert scan.flats_taken.tolist() == [-1] * 10 + [20] * 10
    assert read(exchange(tmp_path / "b.h5", views, flats, darks)).flats_taken is None


def test_sinograms_are_read_with_the_flag_that_the_refusal_names(tmp_path, stacks):
    views, flats, darks = stacks
    path = exchange(tmp_path / "sino.h5", np.ascontiguousarray(views.transpose(1, 0, 2)), flats, darks)
    assert "pass order='sinogram'" in refusal(path)
    assert "pass order='sinogram'" in refusal(path, angles="0:180")  # by the size of the flats
    same(read(path, order="sinogram"), *stacks)
    one = tmp_path / "one.tif"
    tifffile.imwrite(one, views[:, 3], photometric="minisblack")
    assert "pass order='sinogram'" in refusal(one)
    assert "pass order='sinogram'" in refusal(one, angles="0:180")
    same(read(one, angles="0:180", order="sinogram"), views[:, 3:4])
    assert "order must be view or sinogram" in refusal(path, order="rows")


@pytest.mark.parametrize(("degrees", "times"), [(90, -1), (270, 1)])
def test_turned_radiographs_are_turned_back(tmp_path, stacks, degrees, times):
    turned = [np.ascontiguousarray(np.rot90(stack, times, axes=(1, 2))) for stack in stacks]
    for path in (exchange(tmp_path / "a.h5", *turned), nxtomo(tmp_path / "a.nx", *turned)):
        scan = read(path, rotate=degrees)
        same(scan, *stacks)
        np.testing.assert_array_equal(scan.projections[3:9:2, 1:5, 7], stacks[0][3:9:2, 1:5, 7])
        np.testing.assert_array_equal(scan.projections[4, ::2], stacks[0][4, ::2])


def test_stacks_with_an_axis_of_length_one(tmp_path, stacks):
    views, flats, darks = (stack[:, None] for stack in stacks)
    same(read(nxtomo(tmp_path / "four.nx", views, flats, darks)), *stacks)
    same(read(exchange(tmp_path / "four.h5", views, flats, darks)), *stacks)


def test_an_npy_file_is_a_scan_where_angles_are_given(tmp_path, stacks):
    np.save(tmp_path / "proj.npy", stacks[0])
    assert "angles='0:180'" in refusal(tmp_path / "proj.npy")
    same(read(tmp_path / "proj.npy", angles="0:180", flats="20000"), stacks[0])


def test_white_as_zero_is_turned_over(tmp_path, stacks):
    for name, options in (("plain", {}), ("packed", {"compression": "zlib"})):
        folder = tiffs(tmp_path / name, 65535 - stacks[0], photometric="miniswhite", **options)
        same(read(folder, angles="0:180"), stacks[0])
        pages = tmp_path / f"{name}.tif"
        tifffile.imwrite(pages, 65535 - stacks[0], photometric="miniswhite", **options)
        same(read(pages, angles="0:180"), stacks[0])


def test_files_that_are_missing_in_a_series(tmp_path, stacks):
    views, numbers = stacks[0], np.delete(np.arange(20), 7)
    scan = read(tiffs(tmp_path / "a", views[numbers], numbers + 3), angles="0:180")
    np.testing.assert_allclose(np.rad2deg(scan.geometry.angles), DEGREES[numbers])
    assert "number 10 is missing: the other views keep their angles" in scan.notes[0]
    np.savetxt(tmp_path / "all.txt", DEGREES)
    np.testing.assert_allclose(
        np.rad2deg(read(tmp_path / "a", angles=tmp_path / "all.txt").geometry.angles), DEGREES[numbers]
    )
    second = tiffs(tmp_path / "b", views, 2 * np.arange(20))  # every other number, on purpose
    np.testing.assert_allclose(np.rad2deg(read(second, angles="0:180").geometry.angles), DEGREES)
    half = np.sort(np.random.default_rng(0).permutation(20)[:12])
    assert "pass a list of angles with angles=" in refusal(tiffs(tmp_path / "c", views[half], half), angles="0:180")


def test_tiff_says_nothing_of_the_beam(tmp_path, stacks):
    folder = tiffs(tmp_path / "views", stacks[0])
    (folder / "scan.xtekct").write_text("[XTekCT]")
    scan = read(folder, angles="0:360")
    assert isinstance(scan.geometry, ParallelBeam)
    assert "assumed to be parallel" in scan.notes[0]
    assert "scan.xtekct" in scan.notes[0]
    assert "source_axis=" in scan.notes[0]
    cone = read(folder, angles="0:360", source_axis=70.0, source_detector=210.0, pixel_size=0.3)
    wanted = ConeBeam.circular(cone.geometry.angles, 6, 40, 70.0, 210.0, 0.3)
    np.testing.assert_allclose(cone.geometry.sources, wanted.sources)
    assert not cone.notes
    assert "source_detector=" in refusal(folder, angles="0:360", source_axis=70.0)


def test_virtual_datasets_are_found_where_hdf5_finds_them(tmp_path, stacks):
    views = stacks[0]
    (tmp_path / "raw").mkdir()
    for block in range(2):
        with h5py.File(tmp_path / f"raw/part_{block}.h5", "w") as file:
            file["data"] = views[10 * block : 10 * block + 10]
    master = tmp_path / "raw/master.h5"
    with h5py.File(master, "w", libver="latest") as file:
        layout = h5py.VirtualLayout(views.shape, np.uint16)
        for block in range(2):
            layout[10 * block : 10 * block + 10] = h5py.VirtualSource(f"part_{block}.h5", "data", (10, 6, 40))
        file.create_virtual_dataset("exchange/data", layout)
        file["exchange/theta"] = DEGREES
    (tmp_path / "link.h5").symlink_to(master)
    same(read(tmp_path / "link.h5"), views)
    printf = tmp_path / "raw/printf.h5"
    unlimited = h5py.h5s.UNLIMITED
    with h5py.File(printf, "w", libver="latest") as file:
        file["exchange/theta"] = DEGREES
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        space = h5py.h5s.create_simple((20, 6, 40), (unlimited, 6, 40))
        space.select_hyperslab((0, 0, 0), (unlimited, 1, 1), (10, 1, 1), (10, 6, 40))
        settings.set_virtual(space, b"part_%b.h5", b"data", h5py.h5s.create_simple((10, 6, 40)))
        whole = h5py.h5s.create_simple((0, 6, 40), (unlimited, 6, 40))
        h5py.h5d.create(file["exchange"].id, b"data", h5py.h5t.NATIVE_UINT16, whole, settings)
    same(read(printf), views)
    (tmp_path / "raw/part_1.h5").unlink()
    assert "must find the file that it points to, got no part_1.h5" in refusal(tmp_path / "link.h5")


def test_a_file_that_is_still_written_is_told_from_a_damaged_one(tmp_path, stacks):
    with h5py.File(tmp_path / "live.h5", "w", libver="latest") as file:
        file["exchange/data"] = stacks[0]
        file.swmr_mode = True
        whole = (tmp_path / "live.h5").read_bytes()
    (tmp_path / "died.h5").write_bytes(whole)  # as a writer that died leaves it
    assert f"h5clear -s {tmp_path / 'died.h5'}" in refusal(tmp_path / "died.h5", angles="0:180")


def test_what_a_file_says_and_nobody_uses_is_said(tmp_path, stacks):
    moved = np.concatenate([np.zeros(30), np.random.default_rng(0).integers(-6, 7, 20) * 1e-5])
    path = nxtomo(
        tmp_path / "a.nx", *stacks, sample__x_translation=(moved, "m"), sample__z_translation=(0 * moved, "m")
    )
    (note,) = read(path).notes
    assert note.startswith("The sample moved along x (0.12 mm")
    assert "This was ignored" in note


def test_pixels_that_are_not_square_make_slices_that_are_further_apart(tmp_path, stacks):
    edges = {"x": 0.01, "y": 0.02}
    sizes = {f"instrument__detector__{one}_pixel_size": (size, "mm") for one, size in edges.items()}
    path = nxtomo(tmp_path / "a.nx", *stacks, **sizes)
    scan = read(path)
    grid = scan.geometry.grid()
    assert grid.steps == (0.02, 0.01, 0.01)
    assert "0.01 mm wide and 0.02 mm high" in scan.notes[0]
    with open_volume_writer(tmp_path / ".new-v.zarr", grid, format="zarr") as writer:
        writer.write(0, np.zeros(grid.shape, np.float32))
        writer.finish()
    told = json.loads((tmp_path / ".new-v.zarr/zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]
    assert told["datasets"][0]["coordinateTransformations"][0]["scale"] == [0.02, 0.01, 0.01]
    assert told["name"] == "v"
    again = quietray.write_scan(tmp_path / "b.nx", dataclasses.replace(scan, notes=()))
    assert read(again).geometry == scan.geometry
    assert read(path, pixel_size=0.03).geometry.grid().steps == (0.03, 0.03, 0.03)


WRAPPED = {
    "modulo 360": (np.mod(np.arange(270, 450, 4.5), 360), 180),
    "plus and minus 180": (np.where(np.arange(40) < 21, np.arange(40) * 9, np.arange(40) * 9 - 360), 360),
    "two turns": (np.mod(np.arange(40) * 18, 360), 720),
    "golden angle": (np.mod(np.arange(40) * 137.508, 360), 360),
    "interlaced": (np.concatenate([np.arange(k, 180, 18) for k in (0, 9, 4.5, 13.5)]), 180),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_coverage_is_what_was_turned_and_no_view_is_dropped(tmp_path, name):
    degrees, covered = WRAPPED[name]
    counts = np.ones((40, 2, 8), np.uint16)
    scan = read(exchange(tmp_path / "a.h5", counts, theta=degrees), angle_unit="deg")
    assert scan.n_views == 40
    assert np.rad2deg(scan.geometry.coverage) == pytest.approx(covered, rel=0.02)
    apart = np.mod(np.rad2deg(scan.geometry.angles) - degrees + 180, 360) - 180
    np.testing.assert_allclose(apart, 0, atol=1e-6)


def test_angles_that_are_all_zero_are_missing_angles(tmp_path, stacks):
    assert "pass angles='0:180'" in refusal(exchange(tmp_path / "a.h5", *stacks, theta=np.zeros(20)))


LAYOUTS = {
    "line integrals": (lambda lines: lines, "Correction(line_integrals=True)"),
    "strong line integrals": (lambda lines: 3 * lines, "Correction(line_integrals=True)"),
    "line integrals without air": (lambda lines: lines[:, :, 12:-12], "Correction(line_integrals=True)"),
    "percent": (lambda lines: 100 * np.exp(-lines), "flats="),
    "transmissions": (lambda lines: np.exp(-lines), None),
    "dark transmissions": (lambda lines: np.exp(-3 * lines), None),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_projections_without_flats_are_told_apart(name):
    make, flag = LAYOUTS[name]
    lines = make(line_integrals(np.arange(90) * 2)).astype(np.float32)
    noisy = lines * (1 + np.random.default_rng(0).normal(0, 0.01, lines.shape).astype(np.float32))
    verdict = examine(as_scan(noisy, None, None), quietray.Correction(), 5.0, axis=False).refusal
    assert (verdict is None) == (flag is None)
    assert flag is None or flag in str(verdict)


def test_check_tells_all_and_fails_where_a_run_would(tmp_path, stacks, capsys):
    views, flats, darks = stacks
    views = views.copy()
    views[4:7] = 0
    good = exchange(tmp_path / "good.h5", views, flats, darks)
    for command in ("check", "info"):
        main([command, str(good), "--json"])
        facts = json.loads(capsys.readouterr().out)
        assert facts["found 1"].startswith("Views 4 to 6 (3 of 20) were never written")
        assert facts["a run"] == "would go on"
    bad = exchange(tmp_path / "bad.h5", views, darks, darks)
    with pytest.raises(SystemExit) as left:
        main(["check", str(bad)])
    assert left.value.code == 2
    assert "flats must be brighter than the darks" in capsys.readouterr().err


def test_a_folder_of_folders_names_them(tmp_path, stacks):
    for name in ("one", "two"):
        tiffs(tmp_path / name, stacks[0][:3])
    assert "one, two; give one of them" in refusal(tmp_path)


def test_numbers_alone_are_a_scan_where_they_are_described(tmp_path, stacks):
    views, flats, darks = stacks
    for name, stack in (("views", views), ("flats", flats), ("darks", darks)):
        stack.astype(">u2").tofile(tmp_path / f"{name}.raw")
    path, sides = tmp_path / "views.raw", {"flats": "flats.raw", "darks": "darks.raw"}
    assert "pass raw='TYPE:VIEWSxROWSxCOLS'" in refusal(path, angles="0:180")
    assert "pass angles='0:180'" in refusal(path, raw=">uint16:20x6x40")
    scan = read(path, raw=">uint16:20x6x40", angles="0:180", **sides)
    same(scan, *stacks)
    np.testing.assert_array_equal(scan.projections[3:9:2, 1:4, 5], views[3:9:2, 1:4, 5])
    assert "which are 19.9 such frames" in refusal(path, raw="uint16:20x6x40+48", angles="0:180")
    assert "got 'uint16:20'" in refusal(path, raw="uint16:20", angles="0:180")
    (tmp_path / "views.json").write_text(json.dumps({"dtype": "uint16", "shape": [20, 6, 40], "byteorder": "big"}))
    same(read(path, angles="0:180"), views)
    (tmp_path / "views.json").write_text(json.dumps({"dtype": "uint16"}))
    assert '"shape": [180, 64, 96]' in refusal(path, angles="0:180")
    for order in ("sinogram", "view"):
        stack = views.transpose(1, 0, 2) if order == "sinogram" else views
        np.ascontiguousarray(stack, "<u2").tofile(tmp_path / "meta.raw")
        size = " ".join(map(str, stack.shape[::-1]))
        (tmp_path / "meta.mhd").write_text(
            f"NDims = 3\nDimSize = {size}\nElementType = MET_USHORT\nElementDataFile = meta.raw\n"
        )
        same(read(tmp_path / "meta.mhd", angles="0:180", order=order), views)
    (tmp_path / "meta.raw").write_bytes(b"0" * 100)
    assert "must hold 9600 bytes" in refusal(tmp_path / "meta.mhd", angles="0:180")
