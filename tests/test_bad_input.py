"""What the user can mend is said in one sentence, with code 2, and nothing is lost; the rest is our fault, code 1."""

import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

import quietray
from io_files import write_exchange, write_tiffs
from quietray.cli import main
from quietray.io.volumes.hdf5 import Hdf5VolumeWriter
from quietray.io.volumes.tiff import TiffVolumeWriter
from quietray.io.volumes.zarr import ZarrVolumeWriter
from quietray.settings import write_toml
from scans import content, disc_scan, in_slabs, quick

THETA = np.arange(32) * 180 / 32


pytestmark = pytest.mark.usefixtures("short_report")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run."""
    out = tmp_path_factory.mktemp("finished") / "out"
    quietray.denoise(quietray.read(disc_scan()), out, quick())
    return out


@pytest.fixture
def refused(capsys):
    """Return a function that runs a command which must be refused, and returns the sentence."""

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert left.value.code == 2, said.err
        assert said.out == ""
        assert "Traceback" not in said.err
        errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
        assert said.err.splitlines()[-1:] == errors, said.err
        return errors[0].removeprefix("error: ")

    return run


def frames(kind=np.uint16, n_rows=12):
    """Return projections, flats and darks of the disc as arrays that may be spoilt."""
    scan = quietray.read(disc_scan(n_rows=n_rows))
    return [np.array(stack[:], kind) for stack in (scan.projections, scan.flats, scan.darks)]


def bad_scan(folder, spoil=lambda data, flats, darks: None, theta=THETA, kind=np.uint16):
    data, flats, darks = frames(kind)
    spoil(data, flats, darks)
    return write_exchange(folder / "bad.h5", data, theta, flats, darks)


def spoilt(what, place, value):
    """Return a function that writes a value into one of the three stacks."""

    def spoil(*stacks):
        stacks[("data", "flats", "darks").index(what)][place] = value

    return spoil


def truncated(folder):
    path = bad_scan(folder)
    path.write_bytes(path.read_bytes()[:5000])
    return path


def without_flats(folder):
    data, _, darks = frames()
    return write_exchange(folder / "bad.h5", data, THETA, None, darks)


def flats_of_another_size(folder):
    data, flats, darks = frames()
    return write_exchange(folder / "bad.h5", data, THETA, flats[:, :, :-1], darks)


def one_view(folder):
    data, flats, darks = frames()
    return write_exchange(folder / "bad.h5", data[:1], THETA[:1], flats, darks)


def few_views(folder):
    data, flats, darks = frames()
    return write_exchange(folder / "bad.h5", data[::12], THETA[::12], flats, darks)


def not_a_scan(folder):
    (folder / "bad.h5").write_text("words")
    return folder / "bad.h5"


SCANS = {
    "missing": (lambda folder: folder / "bad.h5", "must exist, got .*check the path"),
    "of another kind": (
        not_a_scan,
        "must be EDF, FITS, GE pca, HDF5, MetaImage, Nikon xtekct, SkyScan log, TIFF, Zarr or Zeiss txrm",
    ),
    "truncated": (truncated, "truncated.*copy it again"),
    "without flats": (without_flats, "flats.*--flats"),
    "angles of another length": (lambda folder: bad_scan(folder, theta=THETA[:-3]), "one angle per view.*29.*32"),
    "angles in radians": (lambda folder: bad_scan(folder, theta=np.deg2rad(THETA)), "rad"),
    "angle that is no number": (lambda folder: bad_scan(folder, theta=np.where(THETA > 90, np.nan, THETA)), "angle"),
    "NaN in a projection": (
        lambda folder: bad_scan(folder, spoilt("data", (5, 9, 3), np.nan), kind=np.float32),
        "projections must be finite counts, got 1 NaN",
    ),
    "infinity in a projection": (
        lambda folder: bad_scan(folder, spoilt("data", (5, 9), np.inf), kind=np.float32),
        "projections must be finite counts",
    ),
    "NaN in a flat": (
        lambda folder: bad_scan(folder, spoilt("flats", (5, 9, 3), np.nan), kind=np.float32),
        "flats must be finite counts, got 1 NaN",
    ),
    "saturated flats": (lambda folder: bad_scan(folder, spoilt("flats", ..., 65535)), "flats must not be saturated"),
    "flats that are all zero": (lambda folder: bad_scan(folder, spoilt("flats", ..., 0)), "flats must be"),
    "flats as dark as the darks": (lambda folder: bad_scan(folder, spoilt("flats", ..., 50)), "flats must be"),
    "one view": (one_view, "view"),
    "fewer views than parts need": (few_views, "must have at least 4 views, got 3; use fewer parts"),
    "flats of another size": (flats_of_another_size, r"flats must be frames of the projections' size \(12, 24\)"),
}


@pytest.mark.parametrize("name", SCANS)
def test_bad_scan(tmp_path, refused, finished, name):
    make, words = SCANS[name]
    path, out = make(tmp_path), tmp_path / "out"
    assert re.search(words, refused("denoise", path, "--out", out, "--method", "noise2inverse", "--steps", 5))
    assert not out.exists()  # nothing was learned: nothing is left
    shutil.copytree(finished, out)
    (out / "notes.txt").write_text("mine")
    before = content(tmp_path)
    assert re.search(
        words, refused("denoise", path, "--out", out, "--method", "noise2inverse", "--steps", 5, "--overwrite")
    )
    assert content(tmp_path) == before
    if "parts" not in name:
        volume = tmp_path / "volume.zarr"
        assert re.search(words, refused("reconstruct", path, "--out", volume))
        assert content(tmp_path) == before
        shutil.copytree(finished / "volume.zarr", volume)
        before = content(tmp_path)
        refused("reconstruct", path, "--out", volume, "--overwrite")
        assert content(tmp_path) == before


def test_tiffs_without_angles(tmp_path, refused):
    folder = write_tiffs(tmp_path / "views", frames()[0])
    assert "--angles" in refused("denoise", folder, "--out", tmp_path / "out")


FLAGS = {
    "--rows 5": "rows must be like 55:128, got '5'",
    "--rows 4:40": "rows must lie within 0:12 and not be empty, got 4:40",
    "--rows 7:7": "rows must lie within 0:12 and not be empty, got 7:7",
    "--region 0:9": "region must be like 100:300,150:400",
    "--region 0:9,0:90": r"region.*\(?24",
    "--region 9:9,0:4": "region",
    "--region 0:2,0:2": "region must hold voxels that all views see",
    "--budget soon": "a duration must be positive, got 'soon'; write a number and s, m, h or d, like 90s, 10m or 1.5h",
    "--budget 0": "a duration must be positive, got '0'",
    "--max-memory lots": "an amount of memory must be a byte or more, got 'lots'",
    "--max-memory 1M": r"smallest slab \(7 rows\) must fit into memory.*limit of 0.00 GiB; give a larger --max-memory",
    "--parts 1": "parts must be at least 2",
    "--parts 17": "Noise2Inverse with 17 parts must have at least 34 views, got 32; use fewer parts",
    "--slices 4": "slices must be odd",
    "--steps 0": "steps must be positive, got 0",
    "--air 0:200": "air",
    "--air here": "air",
    "--zingers=-1": "zingers",
    "--rotation-axis 99": "axis.*99",
    "--config nowhere.toml": "the settings file must exist, got nowhere.toml",
    "--angles 0:180:3": "angles|exist",
    "--pixel-size=-1": "pixel",
}


@pytest.mark.parametrize("flag", FLAGS)
def test_bad_flag(tmp_path, refused, finished, flag):
    out = tmp_path / "out"
    command = ["denoise", disc_scan(), "--out", out, *flag.split()]
    if "steps" not in flag:
        command += ["--steps", 5]
    if "method" not in flag:
        command += ["--method", "noise2inverse"]
    assert re.search(FLAGS[flag], refused(*command))
    assert not out.exists()
    shutil.copytree(finished, out)
    before = content(out)
    refused(*command, "--overwrite")
    assert content(out) == before


@pytest.mark.parametrize("flag", ["--format png", "--filter hanning", "--steps many", "--unheard-of 3", "--rings"])
def test_flag_that_is_refused_before_anything_is_read(tmp_path, capsys, flag):
    with pytest.raises(SystemExit) as left:
        main(["denoise", str(tmp_path / "never.h5"), *flag.split()])
    said = capsys.readouterr()
    assert left.value.code == 2
    assert said.out == ""
    assert flag.split()[0] in said.err
    assert "Traceback" not in said.err


TOMLS = {
    'buget = "4m"': r"'buget' must be a known setting, got 'buget' \(did you mean 'budget'\?\)",
    "[trainig]\nsteps = 3": r"'trainig' .*\(did you mean 'training'\?\)",
    "[training]\nstep = 3": r"'training.step' .*\(did you mean 'steps'\?\)",
    'seed = "3"': "'seed' must be an integer, got '3'; write for example 3",
    "[training]\nsteps = 3.5": "'training.steps' must be an integer",
    "[network]\nwidths = 16": r"'network.widths' must be a list, got 16",
    "training = 3": "'training' must be a table, got 3",
    'format = "png"': "the format of a volume must be one of zarr, h5, tiff, bigtiff, mhd, nii, got 'png'",
    "symmetries = 3": "'symmetries' must be one of 0, 1, 2, 4, 8, got 3",
    "[network]\nwidths = []": "widths must hold a positive number",
    "[training]\nbatch = 0": "batch must be positive, got 0",
    "budget = ": "must be TOML",
}


@pytest.mark.parametrize("text", TOMLS)
def test_bad_config(tmp_path, refused, text):
    config, out = tmp_path / "run.toml", tmp_path / "out"
    config.write_text(text)
    for more in ([], ["--parts", 2, "--steps", 5] if "steps" not in text else ["--parts", 2]):
        sentence = refused("denoise", disc_scan(), "--out", out, "--config", config, *more)
        assert re.search(TOMLS[text], sentence)
    assert not out.exists()


def test_brackets_in_names_are_shown(tmp_path, refused):
    assert "[raw] [/x]" in refused("info", tmp_path / "[raw] [/x] scan.h5")


def test_bad_simulations(tmp_path, refused):
    out = tmp_path / "new.h5"
    for flag, words in {
        "--views 0": "view",
        "--photons 0": "photons must be positive",
        "--absorption 1.5": "absorption must lie between 0 and 1",
        "--cols 0": "cols",
        "--rows 0": "rows",
        "--gain=-1": "gain",
        "--flats=-1": "flats",
        "--largest 0.9": "spheres|largest",
        "--spheres 0": "spheres|object",
    }.items():
        small = ["--views", 8, "--rows", 2, "--cols", 16, "--spheres", 3, "--flats", 2, "--darks", 2]
        assert re.search(words, refused("simulate", "--out", out, *small, *flag.split())), flag
        assert list(tmp_path.iterdir()) == []
    out.write_text("mine")
    assert "must not exist yet" in refused("simulate", "--out", out, "--views", 8)
    assert out.read_text() == "mine"


def test_bad_comparisons(tmp_path, refused, finished):
    volume = finished / "volume.zarr"
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["exchange/data"] = np.zeros((12, 20, 20), np.float32)
    assert "must have the reference's shape" in refused("evaluate", volume, other)
    assert "noise-free projections" in refused("evaluate", volume, disc_scan())
    assert "truth" in refused("evaluate", volume, disc_scan(), "--against", "phantom")
    assert "must exist" in refused("evaluate", tmp_path / "no.zarr", volume)
    assert "got a scan" in refused("evaluate", disc_scan(), volume)
    assert "rows must lie within 0:12" in refused("evaluate", volume, volume, "--rows", "3:40")
    assert "radius must be positive" in refused("evaluate", volume, volume, "--radius", "0")
    assert "data-range must be positive" in refused("evaluate", volume, volume, "--data-range", "0")


def test_volume_in_the_way(tmp_path, refused):
    out = tmp_path / "volume.h5"
    out.write_text("mine")
    assert "must not exist yet" in refused("reconstruct", disc_scan(), "--out", out)
    assert "--out must end in" in refused("reconstruct", disc_scan(), "--out", tmp_path / "volume.vtk")
    assert content(tmp_path) == {"volume.h5": b"mine"}


def test_output_folder_is_a_file_or_below_one(tmp_path, refused):
    (tmp_path / "out").write_text("mine")
    assert "must be a folder, got a file" in refused("denoise", disc_scan(), "--out", tmp_path / "out")
    sentence = refused("denoise", disc_scan(), "--out", tmp_path / "out/below")
    assert "a part of the path is a file" in sentence
    assert "a part of the path is a file" in refused("reconstruct", disc_scan(), "--out", tmp_path / "out/below.zarr")
    assert content(tmp_path) == {"out": b"mine"}


def test_output_folder_that_may_not_be_written(tmp_path, refused, monkeypatch):
    """Root may write anywhere, so that the system's answer is put in its mouth."""
    out = tmp_path / "out"
    out.mkdir()
    before = os.access
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: path != out and before(path, mode))
        assert "must be writable, got a read-only one" in refused("denoise", disc_scan(), "--out", out)
    for code in (errno.EROFS, errno.EACCES):
        with monkeypatch.context() as patch:
            patch.setattr("pathlib.Path.mkdir", lambda self, *args, code=code, **kwargs: fail(code))
            sentence = refused("denoise", disc_scan(), "--out", out / "new")
            assert "must be writable, got: " in sentence
            assert "give another folder" in sentence
    assert list(out.iterdir()) == []


def fail(code):
    raise OSError(code, os.strerror(code))


@pytest.fixture
def mounted(tmp_path):
    """Return a function that mounts a small file system, read-only if wanted; skips where that is not allowed."""
    place = tmp_path / "mounted"
    place.mkdir()

    def mount(options):
        command = shutil.which("mount")
        if command is None:
            pytest.skip("needs the mount command, found none")
        done = subprocess.run([command, "-t", "tmpfs", "-o", options, "none", str(place)], capture_output=True)
        if done.returncode != 0:
            pytest.skip(f"needs the right to mount: {done.stderr.decode().strip()}")
        return place

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True)


def test_disk_that_is_read_only(mounted, refused):
    place = mounted("ro")
    for command, name in (("denoise", "out"), ("reconstruct", "volume.zarr"), ("reconstruct", "volume.h5")):
        sentence = refused(command, disc_scan(), "--out", place / name)
        assert "must be writable, got: Read-only file system; the disk is read-only: give another folder" in sentence
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("format", "size"),
    [
        ("zarr", 40),
        ("zarr", 120),
        pytest.param("zarr", 220, marks=pytest.mark.slow),
        pytest.param("h5", 120, marks=pytest.mark.slow),
        ("h5", 220),
        pytest.param("tiff", 220, marks=pytest.mark.slow),
    ],
)
def test_disk_that_is_full(mounted, refused, tmp_path, format, size):
    """So many KiB that it is full at the start, at a checkpoint, at the volume, or not before the end."""
    place = mounted(f"size={size}k")
    config = tmp_path / "run.toml"
    config.write_text(write_toml(quick(format=format, rows="0:60")))
    scan = disc_scan(n_rows=60)
    command = ["denoise", scan, "--config", config, "--out", place / "out"]
    sentence = refused(*command)
    assert re.search("No space left on device|GiB of free space", sentence)
    assert "free some space" in sentence
    subprocess.run(["mount", "-o", "remount,size=8M", str(place)], check=True)
    main([str(argument) for argument in [*command, "--resume"]])
    reference = quietray.denoise(quietray.read(scan), None, quick(rows="0:60"))
    name = {"zarr": "volume.zarr", "h5": "volume.h5", "tiff": "tiff"}[format]
    stored = np.asarray(quietray.read_volume(place / "out" / name))
    np.testing.assert_array_equal(stored, reference.volume)
    assert sorted(path.name for path in (place / "out").iterdir()) == sorted(
        ["metrics.json", "model", "report.html", "run.toml", name]
    )


@pytest.mark.parametrize("writer", [ZarrVolumeWriter, Hdf5VolumeWriter, TiffVolumeWriter])
def test_disk_is_full_at_the_second_slab(tmp_path, refused, monkeypatch, writer):
    in_slabs(monkeypatch, heights=4, window=10)
    format = {ZarrVolumeWriter: "zarr", Hdf5VolumeWriter: "h5", TiffVolumeWriter: "tiff"}[writer]
    config, out, store = tmp_path / "run.toml", tmp_path / "out", writer._store
    config.write_text(write_toml(quick(format=format)))

    def full(self, z0, block):
        store(self, z0, block) if z0 == 0 else fail(errno.ENOSPC)

    command = ["denoise", disc_scan(), "--config", config, "--out", out]
    with monkeypatch.context() as patch:
        patch.setattr(writer, "_store", full)
        sentence = refused(*command)
    assert "No space left on device; free some space or give another folder" in sentence
    assert "resume later" in sentence
    assert not (out / "metrics.json").exists()
    main([str(argument) for argument in [*command, "--resume"]])
    reference = quietray.denoise(quietray.read(disc_scan()), None, quick())
    name = {"zarr": "volume.zarr", "h5": "volume.h5", "tiff": "tiff"}[format]
    np.testing.assert_array_equal(np.asarray(quietray.read_volume(out / name)), reference.volume)


def test_files_may_not_grow(tmp_path):
    """The system's own limit, which HDF5 must not turn into a crash."""
    code = (
        "import resource, torch; torch.set_num_threads(1); from quietray.cli import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY)); main()"
    )
    config, scan, out = tmp_path / "run.toml", disc_scan(n_rows=30), tmp_path / "out"
    settings = quick(steps=2)
    fixed = dataclasses.replace(settings.training, precision="fp32")  # of another process, whatever this one is told
    settings = dataclasses.replace(settings, training=fixed)
    config.write_text(write_toml(dataclasses.replace(settings, format="h5")))
    command = ["denoise", str(scan), "--config", str(config), "--out", str(out)]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "volume.h5 must be writable, got: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    main([*command, "--resume"])
    reference = quietray.denoise(quietray.read(scan), None, settings)
    np.testing.assert_array_equal(np.asarray(quietray.read_volume(out / "volume.h5")), reference.volume)


@pytest.mark.parametrize(
    "place", ["quietray.domains.volume.prepare", "quietray.training.group.fit", "quietray.domains.volume.gather"]
)
def test_a_fault_of_ours_is_called_one(tmp_path, capsys, monkeypatch, place):
    def broken(*args, **kwargs):
        raise IndexError("list index out of range")

    config, out = tmp_path / "run.toml", tmp_path / "out"
    config.write_text(write_toml(quick()))
    command = ["denoise", str(disc_scan()), "--config", str(config), "--out", str(out), "--json"]
    with monkeypatch.context() as patch:
        patch.setattr(place, broken)
        with pytest.raises(SystemExit) as left:
            main(command)
    said = capsys.readouterr()
    assert left.value.code == 1
    assert json.loads(said.out)["error"]["kind"] == "IndexError"
    assert "this is a fault of quietray, not yours" in said.err
    assert "IndexError: list index out of range" in said.err
    assert out.exists() == (place == "quietray.domains.volume.gather")
    main([*command, "--resume"])  # what was learned before the fault is not lost
    reference = quietray.denoise(quietray.read(disc_scan()), None, quick())
    np.testing.assert_array_equal(np.asarray(quietray.read_volume(out / "volume.zarr")), reference.volume)


def test_memory_that_runs_out_is_told(tmp_path, refused, monkeypatch):
    def greedy(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("quietray.domains.volume.reconstruct_windows", greedy)
    sentence = refused("denoise", disc_scan(), "--out", tmp_path / "out", "--steps", 5)
    assert "ran out of memory; give a smaller --max-memory" in sentence
    assert not (tmp_path / "out").exists()
