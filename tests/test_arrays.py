"""Scans of arrays: every kind gives the same scan, nothing is read before it must be, errors say what to do."""

import inspect
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

import quietray
from quietray import FBP, Scan, Settings
from quietray.errors import FormatError, GeometryError, NoiseError, SettingsError
from quietray.geometry import ConeBeam, FanBeam, Geometry, ParallelBeam
from quietray.geometry.grid import checked_detector
from quietray.running.describe import describe
from scans import disc_scan

N = 40
DEGREES = np.arange(N) * 180 / N
COUNTS = np.random.default_rng(0).integers(400, 900, (N, 3, 8)).astype(np.uint16)
FLATS, DARKS = np.full((5, 3, 8), 1000, np.uint16), np.full((2, 3, 8), 100, np.uint16)


class Counting:
    """A lazy stack that counts the pixels that it was asked for."""

    def __init__(self, stack: np.ndarray) -> None:
        self.stack, self.shape, self.dtype, self.read = stack, stack.shape, stack.dtype, 0

    def __getitem__(self, key: Any) -> np.ndarray:
        found = self.stack[key]
        self.read += found.size
        return found


def dask(stack: np.ndarray) -> Any:
    return pytest.importorskip("dask.array").from_array(stack, chunks=(7, *stack.shape[1:]))


def in_h5(stack: np.ndarray, folder: Path) -> Any:
    place = folder / f"{len(list(folder.iterdir()))}.h5"
    return h5py.File(place, "w").create_dataset("data", data=stack)


def in_zarr(stack: np.ndarray, folder: Path) -> Any:
    return zarr.create_array(folder / f"{len(list(folder.iterdir()))}.zarr", data=stack)


def in_map(stack: np.ndarray, folder: Path) -> Any:
    place = folder / f"{len(list(folder.iterdir()))}.npy"
    np.save(place, stack)
    return np.load(place, mmap_mode="r")


KINDS = {
    "numpy": lambda stack, folder: stack,
    "big-endian": lambda stack, folder: stack.astype(">u2"),
    "a view of another array": lambda stack, folder: np.repeat(stack, 2, axis=0)[::2],
    "memory map": in_map,
    "h5py": in_h5,
    "zarr": in_zarr,
    "dask": lambda stack, folder: dask(stack),
    "anything that can be sliced": lambda stack, folder: Counting(stack),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_array_is_the_scan_that_the_file_is(tmp_path: Path, kind: str) -> None:
    """To the last bit, through calibration, rings and backprojection; and views chosen from it are the right ones."""
    stored, settings = quietray.read(disc_scan()), Settings(rotation_axis=11.5, reconstruction=FBP("hann"))
    quietray.reconstruct(stored, tmp_path / "wanted.zarr", settings)
    (folder := tmp_path / "arrays").mkdir()
    parts = [KINDS[kind](np.asarray(part[:]), folder) for part in (stored.projections, stored.flats, stored.darks)]
    scan = Scan.from_arrays(parts[0], np.rad2deg(stored.geometry.angles), flats=parts[1], darks=parts[2])
    quietray.reconstruct(scan, tmp_path / "found.zarr", settings)
    wanted, found = (np.asarray(quietray.read_volume(tmp_path / name)) for name in ("wanted.zarr", "found.zarr"))
    np.testing.assert_array_equal(found, wanted)
    for views in (slice(None, None, -3), np.array([5, 1, 30]), np.arange(32) % 3 == 1):
        np.testing.assert_array_equal(scan[views].read(slice(2, 5)), stored[views].read(slice(2, 5)))


@pytest.mark.parametrize("kind", KINDS)
def test_an_array_of_views_and_columns_is_one_row(tmp_path: Path, kind: str) -> None:
    sinogram, flats, dark = (KINDS[kind](part, tmp_path) for part in (COUNTS[:, 1], FLATS[:, 1], DARKS[0, 1]))
    scan = Scan.from_arrays(sinogram, DEGREES, flats=flats, darks=dark)
    assert (scan.n_views, scan.n_rows, scan.n_cols) == (N, 1, 8)
    assert tuple(scan.flats.shape), tuple(scan.darks.shape) == ((5, 1, 8), (1, 1, 8))
    np.testing.assert_array_equal(scan.read(slice(None)), COUNTS[:, 1:2])
    np.testing.assert_array_equal(scan[::7].read(slice(0, 1), slice(1, 4)), COUNTS[::7, 1:2][1:4])
    np.testing.assert_array_equal(scan.projections[3, 0, 2:5], COUNTS[3, 1, 2:5])
    np.testing.assert_array_equal(scan.projections[3:9, :, 2:5], COUNTS[3:9, 1:2, 2:5])
    np.testing.assert_array_equal(scan.flats[:, 0:1], FLATS[:, 1:2])
    np.testing.assert_array_equal(scan.darks[:], DARKS[:1, 1:2])


def test_one_frame_is_a_stack_of_one() -> None:
    scan = Scan.from_arrays(COUNTS, DEGREES, flats=FLATS[0], darks=Counting(DARKS[0]))
    np.testing.assert_array_equal(scan.flats, FLATS[:1])
    np.testing.assert_array_equal(scan.darks, DARKS[:1])


def test_nothing_is_read_before_it_must_be() -> None:
    stacks = [Counting(stack.astype(np.float32)) for stack in (COUNTS, FLATS, DARKS)]
    scan = Scan.from_arrays(stacks[0], DEGREES, flats=stacks[1], darks=stacks[2])
    assert "uint16" not in describe(scan)["projections"]
    assert repr(scan[::2]).startswith("Scan of 20 views of 3 x 8, float32, 0.0 MB\n")
    assert [stack.read for stack in stacks] == [0, 0, 0]
    scan.read(slice(0, 1), slice(4, 6))
    assert [stack.read for stack in stacks] == [2 * 8, 0, 0]


def test_a_dask_array_is_not_computed_before_it_must_be() -> None:
    computed = []
    lazy = dask(COUNTS).map_blocks(lambda block: computed.append(len(block)) or block, dtype=np.uint16, meta=COUNTS[:0])
    scan = Scan.from_arrays(lazy, DEGREES, flats=FLATS)
    assert describe(scan)["projections"] == "40 views of 3 x 8, uint16, 0.0 MB"
    assert computed == []
    np.testing.assert_array_equal(scan.read(slice(1, 2), slice(8, 13)), COUNTS[8:13, 1:2])
    assert computed == [7]


def test_the_angles_are_those_that_were_given() -> None:
    for angles, degrees in ((DEGREES, True), (DEGREES.tolist(), True), (np.deg2rad(DEGREES), False)):
        scan = Scan.from_arrays(COUNTS, angles, degrees=degrees, pixel_size=0.5, rotation_axis=3.0)
        assert scan.geometry == ParallelBeam(np.deg2rad(DEGREES), 3, 8, 3.0, 0.5)
    beam = FanBeam(np.deg2rad(2 * DEGREES), 3, 8, 100.0, 150.0)
    assert Scan.from_arrays(COUNTS, geometry=beam).geometry == beam


GOOD = [  # that a check must not mistake
    (np.zeros(N), True),
    (np.arange(N) * 137.50776405, True),  # golden angle
    (np.arange(N) * 0.5, True),  # limited, laminography
    (np.arange(N) * 9.0, True),
    (np.arange(N) * 2.39996323, False),
    (np.linspace(0, 40 * math.pi, N), False),
    (-np.deg2rad(DEGREES), False),
    (np.linspace(100, 280, N), True),
]


@pytest.mark.parametrize("case", range(len(GOOD)))
def test_uncommon_angles_are_believed(case: int) -> None:
    angles, degrees = GOOD[case]
    assert Scan.from_arrays(COUNTS, angles, degrees=degrees).n_views == N


@pytest.mark.parametrize("n", [3, 5, 8, 90])
@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("turn", [180.0, 360.0, -180.0])
def test_the_other_unit_is_refused_unless_a_geometry_says_it(n: int, closed: bool, turn: float) -> None:
    degrees = 7.0 + np.linspace(0, turn, n, endpoint=closed)
    counts = np.ones((n, 1, 4), np.float32)
    with pytest.raises(GeometryError, match="look like radians; give degrees=False, or if they are degrees geometry="):
        Scan.from_arrays(counts, np.deg2rad(degrees))
    with pytest.raises(GeometryError, match="look like degrees; give degrees=True, or if they are radians geometry="):
        Scan.from_arrays(counts, degrees, degrees=False)
    tilted = ParallelBeam(np.deg2rad(np.deg2rad(degrees)), 1, 4)
    assert Scan.from_arrays(counts, geometry=tilted).geometry is tilted


@pytest.mark.parametrize("turn", [180, 360, -360])
@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("closed", [False, True])
def test_no_beam_takes_degrees_for_radians(turn: int, kind: type, closed: bool) -> None:
    angles = np.linspace(0, turn, 360, endpoint=closed).astype(kind)
    for make in (
        lambda one: ParallelBeam(one, 2, 3),
        lambda one: FanBeam(one, 2, 3, 10.0, 20.0),
        lambda one: ConeBeam.circular(one, 2, 3, 10.0, 20.0),
    ):
        with pytest.raises(GeometryError, match=r"must be in radians, got 360 .* which are degrees; give np\.deg2rad"):
            make(angles)
        assert make(np.deg2rad(angles)).n_views == 360
        assert make(np.arange(75) * math.pi * (3 - math.sqrt(5))).n_views == 75  # golden angle, 0.002 % off 180


BAD: dict[str, tuple[dict[str, Any], type, str]] = {
    "fewer angles": (
        {"angles": DEGREES[:-3]},
        GeometryError,
        "angles must be .* 40 views of projections, got 37 angles",
    ),
    "sinograms": (
        {"projections": COUNTS.swapaxes(0, 1)},
        GeometryError,
        r"the 3 views of projections, got 40 angles; if axis 1 is .* give np.moveaxis\(projections, 1, 0\)",
    ),
    "no angles": ({"angles": None}, GeometryError, "angles must be given, one for each of the 40 views"),
    "angles as text": ({"angles": "0:180"}, GeometryError, "angles must be one real number .* got '0:180'"),
    "complex angles": ({"angles": DEGREES + 0j}, GeometryError, "angles must be one real number .* got complex128"),
    "angles in a table": ({"angles": DEGREES[:, None]}, GeometryError, r"angles must be a list .* \(40, 1\)"),
    "ragged angles": ({"angles": [[1], [1, 2]]}, GeometryError, "angles must be one list of numbers"),
    "NaN among the angles": (
        {"angles": np.where(DEGREES > 90, np.nan, DEGREES)},
        GeometryError,
        r"angles must be finite numbers, got nan at view 21 \(19 of 40\)",
    ),
    "complex": (
        {"projections": COUNTS.astype(complex)},
        FormatError,
        r"projections must be real .* abs\(projections\)",
    ),
    "bool": ({"projections": COUNTS > 0}, FormatError, "projections must be real numbers, got bool"),
    "objects": ({"flats": FLATS.astype(object)}, FormatError, "flats must be real numbers, got object"),
    "a list": (
        {"projections": COUNTS.tolist()},
        FormatError,
        r"projections must be an array .* got list; give np.asarray",
    ),
    "a volume in time": ({"projections": COUNTS[None]}, FormatError, r"projections must be a stack .* \(1, 40, 3, 8\)"),
    "one line": ({"projections": COUNTS[:, 0, 0]}, FormatError, r"projections must be a stack .* got shape \(40,\)"),
    "no views": (
        {"projections": COUNTS[:0], "angles": []},
        FormatError,
        r"projections must hold pixels, got .*\(0, 3, 8\)",
    ),
    "no flats": ({"flats": FLATS[:0]}, FormatError, "flats must hold pixels"),
    "flats of another size": (
        {"flats": FLATS[:, :, 1:]},
        FormatError,
        r"flats must be frames of .*\(3, 8\).*\(5, 3, 7\)",
    ),
    "one flat of another size": ({"flats": FLATS[0, :, 1:]}, FormatError, r"flats must be frames .*\(1, 3, 7\)"),
    "darks without rows": (
        {"darks": DARKS[0, 0]},
        FormatError,
        r"darks must be frames \(frame, row, col\) or one frame",
    ),
    "NaN in a view": (
        {"projections": np.where(np.arange(N)[:, None, None] == 7, np.nan, COUNTS)},
        NoiseError,
        "projections must be finite counts, .* first in view 7; leave",
    ),
    "infinity in a flat": (
        {"flats": np.where(np.arange(5)[:, None, None] == 4, np.float32(np.inf), FLATS)},
        NoiseError,
        "flats must be finite counts, .* first in frame 4; leave",
    ),
    "infinities that cancel": ({"darks": np.array([[[np.inf, -np.inf] * 4] * 3])}, NoiseError, "darks must be finite"),
    "masked": ({"projections": np.ma.masked_less(COUNTS, 500)}, FormatError, r"every pixel.*projections\.filled"),
    "pixel size": ({"pixel_size": 0.0}, GeometryError, "pixel_size must be positive"),
    "infinite pixels": ({"pixel_size": np.inf}, GeometryError, "pixel_size must be positive"),
    "axis off the detector": ({"rotation_axis": 8.0}, GeometryError, r"rotation_axis must lie on .*\(0 to 7\)"),
    "angles and geometry": (
        {"geometry": ParallelBeam(np.deg2rad(DEGREES), 3, 8)},
        SettingsError,
        "angles, pixel_size and rotation_axis must be left out",
    ),
    "another geometry": (
        {"angles": None, "geometry": ParallelBeam(np.deg2rad(DEGREES), 3, 9)},
        GeometryError,
        r"detector of the geometry must fit the projections \(40, 3, 8\), got \(40, 3, 9\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_a_scan_is_refused(name: str) -> None:
    change, error, words = BAD[name]
    given = {"projections": COUNTS, "angles": DEGREES, "flats": FLATS, "darks": DARKS} | change
    with pytest.raises(error, match=words) as refused:
        Scan.from_arrays(**given)
    assert "; " in str(refused.value)
    assert " --" not in str(refused.value)  # flags are of the command line


@pytest.mark.parametrize("name", ["pixel_size", "rotation_axis"])
def test_a_size_in_words_is_refused(name: str) -> None:
    sizes = {"pixel_size": None, "rotation_axis": None} | {name: "0.5 mm"}
    unchecked = inspect.unwrap(checked_detector)  # the types of what it gets are checked in tests, else they are not
    with pytest.raises(GeometryError, match=f"{name} must be a number, or None if it is not known, got '0.5 mm'"):
        unchecked(3, 8, **sizes)


def test_tensors_and_unknown_chunks_are_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(FormatError, match=r"projections must be an array of a NumPy type, got torch\.float32"):
        Scan.from_arrays(torch.ones(4, 3, 8), DEGREES[:4])
    lazy = dask(COUNTS)
    with pytest.raises(FormatError, match=r"a known shape, got \(nan, 3, 8\); call projections\.compute_chunk_sizes"):
        Scan.from_arrays(lazy[lazy[:, 0, 0] > 500], DEGREES)


def test_a_large_array_is_looked_at_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quietray.arrays._BLOCK", 3 * 8 * 6)
    spoilt = COUNTS.astype(np.float32)
    spoilt[N - 1, 2, 7] = np.nan
    with pytest.raises(NoiseError, match="view 39"):
        Scan.from_arrays(spoilt, DEGREES)
    assert Scan.from_arrays(np.full((N, 3, 8), 3e38, np.float32), DEGREES).n_views == N  # its sum is finite, too


# --- representations


BEAMS: dict[str, Geometry] = {
    "parallel": ParallelBeam(np.linspace(0, np.pi, 5000, endpoint=False), 2048, 2560, 1279.5, 0.00065),
    "fan": FanBeam(np.linspace(0, 2 * np.pi, 900), 1, 900, 540.0, 950.0),
    "cone": ConeBeam.circular(np.linspace(0, 2 * np.pi, 900), 64, 90, 540.0, 950.0, 0.2),
}


@pytest.mark.parametrize("name", BEAMS)
def test_representations_say_what_it_is_in_a_few_lines(name: str) -> None:
    beam = BEAMS[name]
    said = repr(beam)
    assert len(said) < 240
    assert "array" not in said
    assert f"{beam.n_views} views of {beam.n_rows} x {beam.n_cols} pixels" in said
    assert "0.000 to 359.928" not in said or name == "parallel"
    shape = (beam.n_views, beam.n_rows, beam.n_cols)
    scan = Scan(np.broadcast_to(np.uint16(1), shape), beam, np.broadcast_to(np.uint16(1), (20, *shape[1:])))
    lines = repr(scan).splitlines()
    assert 5 < len(lines) < 20
    assert max(map(len, lines)) < 200
    for part in (*("{} views of {} x {}".format(*shape), "uint16", name, "20 frames"), "degrees", "pixel size", "axis"):
        assert part in repr(scan), part


def test_the_angles_of_a_beam_are_told_in_degrees() -> None:
    said = repr(BEAMS["parallel"])
    assert "0.000 to 179.964 degrees, step 0.036, covering 180.0" in said
    assert "axis at column 1279.50" in said
    assert "pixels of 0.00065 mm" in said
    assert repr(BEAMS["fan"][:1]).startswith("FanBeam(1 view of 1 x 900 pixels, 0.000 degrees, source to axis 540 and")
    assert "source to axis 540 and to detector 950 mm" in repr(BEAMS["cone"])
