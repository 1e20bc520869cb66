"""Diverging beams in scan files: what is written is read, and what is broken is told."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import quietray
from io_files import counts, write_esrf
from matrix import cone, fan
from quietray.errors import FormatError, GeometryError
from quietray.geometry import ConeBeam, FanBeam, Geometry, ParallelBeam
from quietray.running.describe import describe
from quietray.scan import Scan

PAIRS = ConeBeam.joined([cone(3, 4, 5, pixel_size=0.2), ConeBeam.circular(np.array([1.0, 2.0]), 4, 5, 50.0, 70.0, 0.2)])
BEAMS: dict[str, Geometry] = {
    "fan": fan(6, 4, 5, pixel_size=0.2, rotation_axis=1.7),
    "fan in pixels": fan(6, 4, 5),
    "cone": cone(6, 4, 5, pixel_size=0.2, rotation_axis=1.7, source_row=0.3),
    "cone in pixels": cone(6, 4, 5),
    "tilted": cone(6, 4, 5, pixel_size=0.2).tilted(0.1, -0.2, 0.05),
    "pairs": PAIRS,
    "parallel": ParallelBeam(np.linspace(0, np.pi, 6, False), 4, 5, rotation_axis=1.7, pixel_size=0.2),
    "parallel, axis unknown": ParallelBeam(np.linspace(0, np.pi, 6, False), 4, 5),
}
ENDINGS = ["h5", "nx"]


def stored(path: Path, geometry: Geometry, **more: np.ndarray) -> Path:
    return quietray.write_scan(path, Scan(counts(geometry.n_views), geometry, **more))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", BEAMS)
def test_what_is_written_is_read(name: str, ending: str, tmp_path: Path) -> None:
    geometry = BEAMS[name]
    scan = quietray.read(stored(tmp_path / f"scan.{ending}", geometry))
    found = scan.geometry
    assert scan.provenance["format"] == {"h5": "DXchange in HDF5", "nx": "NXtomo in HDF5"}[ending]
    np.testing.assert_array_equal(scan.projections[:], counts(geometry.n_views))
    assert type(found) is type(geometry)
    np.testing.assert_allclose(found.angles, geometry.angles, atol=1e-12)
    if isinstance(geometry, ConeBeam):
        for vectors in ("sources", "centres", "us", "vs"):
            np.testing.assert_array_equal(getattr(found, vectors), getattr(geometry, vectors))
        assert found.unit == geometry.unit
    else:
        distances = ("source_axis", "source_detector") if isinstance(geometry, FanBeam) else ()
        for number in (*distances, "rotation_axis", "pixel_size"):
            assert getattr(found, number) == getattr(geometry, number)


@pytest.mark.parametrize("ending", ENDINGS)
def test_each_view_keeps_its_pair(ending: str, tmp_path: Path) -> None:
    numbers = np.array([0, 0, 0, 1, 1])
    more = {"detectors": numbers, "flats": counts(4, start=20), "flat_detectors": np.array([1, 0, 0, 1])}
    scan = quietray.read(stored(tmp_path / f"scan.{ending}", PAIRS, darks=counts(2, start=40), **more))
    np.testing.assert_array_equal(scan.detectors, numbers)
    np.testing.assert_array_equal(scan.flat_detectors, more["flat_detectors"])
    assert scan.dark_detectors is None
    for found, start, n in ((scan.flats, 20, 4), (scan.darks, 40, 2)):
        assert found is not None
        np.testing.assert_array_equal(found[:], counts(n, start=start))
    np.testing.assert_array_equal(scan.by_detector()[1].geometry.sources, PAIRS.sources[3:])


def test_a_circle_by_hand_and_its_units(tmp_path: Path) -> None:
    path = stored(tmp_path / "scan.h5", ParallelBeam(cone(6).angles, 4, 5, pixel_size=0.2))
    with h5py.File(path, "a") as file:
        group = file.create_group("exchange/geometry")
        group.attrs["beam"] = "cone"
        for place, (value, unit) in {"source_axis": (0.06, "m"), "source_detector": (9.0, "cm")}.items():
            group[place] = value
            group[place].attrs["units"] = unit
        group["source_row"] = 0.3
    wanted = cone(6, 4, 5, pixel_size=0.2, source_row=0.3)
    found = quietray.read(path).geometry
    assert isinstance(found, ConeBeam)
    np.testing.assert_allclose(found.sources, wanted.sources, atol=1e-9)
    np.testing.assert_allclose(found.centres, wanted.centres, atol=1e-9)


def test_info_says_what_beam_it_is(tmp_path: Path) -> None:
    said = {name: describe(Scan(counts(one.n_views), one))["beam"] for name, one in BEAMS.items()}
    assert said["fan"].startswith("fan, from the source 60 mm to the axis and 90 to the detector, magnified 1.5 times")
    assert said["cone in pixels"].startswith("cone, from the source 60 pixels")
    still = cone(6, 4, 5)[np.array([0, 2, 0, 2])]
    assert "from 2 fixed directions" in describe(Scan(counts(4), still))["beam"]
    assert describe(Scan(counts(3), ParallelBeam(np.arange(3.0), 4, 5)))["beam"] == "parallel"


@pytest.mark.parametrize(
    ("place", "value", "error", "words"),
    [
        ("v", None, FormatError, "must hold a vector .* got none"),
        ("u", np.ones((6, 2)), FormatError, r"must hold a vector .* got shape \(6, 2\)"),
        ("source", np.ones((5, 3)), GeometryError, "sources must be 6 vectors"),
        ("source", np.full((6, 3), np.nan), GeometryError, "finite numbers"),
        ("u", np.tile([0.0, 0.0, 1.0], (6, 1)), GeometryError, "parallel u and v"),
    ],
)
def test_broken_vectors_are_told(
    place: str, value: np.ndarray | None, error: type[Exception], words: str, tmp_path: Path
) -> None:
    path = stored(tmp_path / "scan.h5", BEAMS["cone"])
    with h5py.File(path, "a") as file:
        group = file["exchange/geometry"]
        del group[place]
        if value is not None:
            group[place] = value
            group[place].attrs["units"] = "mm"
    with pytest.raises(error, match=words):
        quietray.read(path)


def test_a_beam_without_name_unit_or_distance_is_told(tmp_path: Path) -> None:
    path = stored(tmp_path / "scan.h5", BEAMS["fan"])
    with h5py.File(path, "a") as file:
        del file["exchange/geometry/source_axis"].attrs["units"]
    with pytest.raises(FormatError, match="must have the attribute units = mm"):
        quietray.read(path)
    with h5py.File(path, "a") as file:
        del file["exchange/geometry/source_axis"]
    with pytest.raises(FormatError, match="must hold the number source_axis, got none"):
        quietray.read(path)
    with h5py.File(path, "a") as file:
        file["exchange/geometry"].attrs["beam"] = "helix"
    with pytest.raises(FormatError, match="must state beam = parallel, fan or cone, got 'helix'"):
        quietray.read(path)


@pytest.mark.parametrize(("before", "kind"), [(-0.01, ConeBeam), (0.01, ConeBeam), (-145.0, ParallelBeam)])
def test_nxtomo_tells_a_cone_beam_by_its_distances(before: float, kind: type, tmp_path: Path) -> None:
    path = write_esrf(tmp_path / "scan.nx", counts(8, 40, 200), [0] * 8, np.arange(8) * 45.0)
    with h5py.File(path, "a") as file:
        detector = file["entry0000/instrument/detector"]
        for group, name, value in (
            (detector, "distance", 0.005),
            (file.require_group("entry0000/instrument/source"), "distance", before),
        ):
            if name in group:
                del group[name]
            group[name] = value
            group[name].attrs["units"] = "m"
        detector["x_rotation_axis_pixel_position"] = 98.5
    found = quietray.read(path).geometry
    assert type(found) is kind
    if isinstance(found, ConeBeam):
        assert found.axis == pytest.approx(98.5)
        np.testing.assert_allclose(found.reach[0], (10.0, 15.0))


def test_other_programs_find_in_nxtomo_what_the_standard_says(tmp_path: Path) -> None:
    from nxtomo import NXtomo

    geometry = cone(6, 40, 50, pixel_size=0.2, rotation_axis=26.7)
    flats, darks = counts(2, 40, 50, start=20), counts(1, 40, 50, start=40, dtype=np.float32)
    scan = Scan(counts(6, 40, 50), geometry, flats=flats, darks=darks, exposure=0.5, provenance={"sample": "rock"})
    path = quietray.write_scan(tmp_path / "scan.nx", scan)
    found = NXtomo().load(str(path), "entry")
    detector = found.instrument.detector
    assert [key.value for key in detector.image_key_control] == [2, 1, 1, 0, 0, 0, 0, 0, 0]
    assert detector.x_pixel_size.to("mm").magnitude == pytest.approx(0.2)
    assert detector.distance.to("mm").magnitude == pytest.approx(30.0)
    assert found.instrument.source.distance.to("mm").magnitude == pytest.approx(-60.0)
    np.testing.assert_allclose(found.sample.rotation_angle.to("rad").magnitude[3:], geometry.angles, atol=1e-12)
    assert found.sample.name == "rock"
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["entry/data/data"][:], np.concatenate([darks, flats, counts(6, 40, 50)]))
        assert file["entry/instrument/detector/data"].dtype == np.float32  # holds the counts of all
        assert file["entry/instrument/detector/x_rotation_axis_pixel_position"][()] == pytest.approx(26.7)
    assert quietray.read(path).exposure == 0.5
    with h5py.File(path, "a") as file:
        del file["entry/geometry"]
    # where the group is missing the distances tell a circular beam, as of any other writer
    without = quietray.read(path).geometry
    assert isinstance(without, ConeBeam)
    np.testing.assert_allclose(without.sources, geometry.sources, atol=1e-9)
    np.testing.assert_allclose(without.centres, geometry.centres, atol=1e-9)


def test_nxtomo_keeps_what_only_we_know(tmp_path: Path) -> None:
    beam = fan(6, 4, 5, pixel_size=0.2)
    truth, clean = counts(4, 5, 5).astype(np.float32), counts(6, dtype=np.float32)
    scan = Scan(counts(6), beam, truth=truth, clean=clean, provenance={"seed": 3, "image_key": "elsewhere"})
    found = quietray.read(quietray.write_scan(tmp_path / "scan.nxs", scan))
    assert found.truth is not None
    assert found.clean is not None
    np.testing.assert_array_equal(found.truth[:], truth)
    np.testing.assert_array_equal(found.clean[:], clean)
    assert found.provenance["seed"] == 3
    assert found.provenance["truth"] == {"unit": "1/mm", "voxel_size": pytest.approx(0.2 / 1.5)}
    again = quietray.read(quietray.write_scan(tmp_path / "scan.h5", found))
    assert "image_key" not in again.provenance
    assert again.geometry == found.geometry == beam


def test_pairs_that_do_not_fit_the_frames_are_told(tmp_path: Path) -> None:
    path = stored(tmp_path / "scan.nx", PAIRS, detectors=np.array([0, 0, 0, 1, 1]))
    with h5py.File(path, "a") as file:
        del file["entry/geometry/pair"]
        file["entry/geometry/pair"] = np.zeros(4, int)
    with pytest.raises(FormatError, match="must have one number for each of the 5 frames, got 4"):
        quietray.read(path)


def test_the_commands_write_nxtomo_by_the_name(tmp_path: Path) -> None:
    from quietray.cli import main

    few = "--views 8 --rows 4 --cols 16 --spheres 4 --largest 0.3 --flats 3 --darks 2 --pixel-size 0.1 --pairs 2"
    for ending in ENDINGS:
        main(["simulate", "--out", str(tmp_path / f"s.{ending}"), "--beam", "cone", *few.split()])
    one, other = (quietray.read(tmp_path / f"s.{ending}") for ending in ENDINGS)
    assert other.provenance["format"] == "NXtomo in HDF5"
    for name in ("projections", "flats", "darks", "truth"):
        np.testing.assert_array_equal(getattr(one, name)[:], getattr(other, name)[:])
    assert one.detectors is not None
    np.testing.assert_array_equal(one.detectors, other.detectors)
    assert one.geometry == other.geometry
