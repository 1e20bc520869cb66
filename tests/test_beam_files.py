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
from quietray.geometry import ConeBeam, Geometry, ParallelBeam
from quietray.inspect import describe
from quietray.scan import Scan

PAIRS = ConeBeam.joined([cone(3, 4, 5, pixel_size=0.2), ConeBeam.circular(np.array([1.0, 2.0]), 4, 5, 50.0, 70.0, 0.2)])
BEAMS: dict[str, Geometry] = {
    "fan": fan(6, 4, 5, pixel_size=0.2, rotation_axis=1.7),
    "fan in pixels": fan(6, 4, 5),
    "cone": cone(6, 4, 5, pixel_size=0.2, rotation_axis=1.7, source_row=0.3),
    "cone in pixels": cone(6, 4, 5),
    "tilted": cone(6, 4, 5, pixel_size=0.2).tilted(0.1, -0.2, 0.05),
    "pairs": PAIRS,
}


def stored(path: Path, geometry: Geometry, **more: np.ndarray) -> Path:
    return quietray.write_scan(path, Scan(counts(geometry.n_views), geometry, **more))


@pytest.mark.parametrize("name", BEAMS)
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    geometry = BEAMS[name]
    found = quietray.read(stored(tmp_path / "scan.h5", geometry)).geometry
    assert type(found) is type(geometry)
    np.testing.assert_allclose(found.angles, geometry.angles, atol=1e-12)
    if isinstance(geometry, ConeBeam):
        for vectors in ("sources", "centres", "us", "vs"):
            np.testing.assert_array_equal(getattr(found, vectors), getattr(geometry, vectors))
        assert found.unit == geometry.unit
    else:
        for number in ("source_axis", "source_detector", "rotation_axis", "pixel_size"):
            assert getattr(found, number) == getattr(geometry, number)


def test_each_view_keeps_its_pair(tmp_path: Path) -> None:
    numbers = np.array([0, 0, 0, 1, 1])
    scan = quietray.read(stored(tmp_path / "scan.h5", PAIRS, detectors=numbers))
    np.testing.assert_array_equal(scan.detectors, numbers)
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
        ("u", np.tile([0.0, 0.0, 1.0], (6, 1)), GeometryError, "u and v along one line"),
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
    with pytest.raises(FormatError, match="must say beam = parallel, fan or cone, got 'helix'"):
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
