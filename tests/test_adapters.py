"""Scans from other programs: where a ball lies must be the same in their terms and in ours.

CIL is not on PyPI.  Where it is installed its own classes are used; else a stand-in with the attributes that it
documents (AcquisitionGeometry.config.system, .panel, .angles), as they are set by its create_Parallel3D and the like.
"""

import copy
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import quietray
from quietray.adapters import from_cil, from_tomopy, to_cil

ANGLES = np.arange(0.0, 360.0, 6.0)
BALL, RADIUS = np.array([3.0, -5.0, 1.0]), 2.6  # in pixels at the object


class System(SimpleNamespace):
    """The system of a geometry that lies as CIL reconstructs it: the axis through the origin, the rays along y."""

    def align_reference_frame(self, definition: str) -> None:
        assert definition == "cil"


class Geometry:
    """What CIL documents of an AcquisitionGeometry."""

    def __init__(self, kind: str, system: System, size: tuple[int, int], pixel: tuple[float, float], **more: Any):
        self.geom_type = kind
        panel = SimpleNamespace(num_pixels=size, pixel_size=pixel, origin=more.get("origin", "bottom-left"))
        angles = SimpleNamespace(
            angle_data=more.get("angles", ANGLES),
            initial_angle=more.get("initial", 0.0),
            angle_unit=more.get("angle_unit", "degree"),
        )
        self.config = SimpleNamespace(system=system, panel=panel, angles=angles, units=more.get("units", "mm"))
        self.dimension_labels = more.get("labels", ("angle", "vertical", "horizontal"))

    def copy(self) -> "Geometry":
        return copy.deepcopy(self)

    def get_ImageGeometry(self) -> Any:
        system, (n_cols, n_rows) = self.config.system, self.config.panel.num_pixels
        enlarged = 1.0
        if self.geom_type == "cone":
            enlarged = float(np.linalg.norm(system.detector.position - system.source.position)) / float(
                np.linalg.norm(system.source.position)
            )
        shape = (n_cols, n_cols) if len(system.detector.position) == 2 else (n_rows, n_cols, n_cols)
        return SimpleNamespace(shape=shape, voxel_size_x=self.config.panel.pixel_size[0] / enlarged)


def stand_in(kind: str, place: dict[str, Any], size: tuple[int, int], pixel: tuple[float, float], **more: Any) -> Any:
    vectors = {name: np.asarray(value, float) for name, value in place.items()}
    flat = len(vectors["detector"]) == 2
    u = np.array([1.0, 0.0] if flat else [1.0, 0.0, 0.0])
    detector = SimpleNamespace(position=vectors["detector"], direction_x=u, direction_y=np.array([0.0, 0.0, 1.0]))
    system = System(detector=detector)
    if kind == "cone":
        system.source = SimpleNamespace(position=vectors["source"])
    else:
        system.ray = SimpleNamespace(direction=np.array([0.0, 1.0] if flat else [0.0, 1.0, 0.0]))
    return Geometry(kind, system, size, pixel, **more)


def of_cil(kind: str, place: dict[str, Any], size: tuple[int, int], pixel: tuple[float, float], **more: Any) -> Any:
    from cil.framework import AcquisitionGeometry

    flat, units = len(place["detector"]) == 2, more.get("units", "mm")
    if kind == "cone":
        create = AcquisitionGeometry.create_Cone2D if flat else AcquisitionGeometry.create_Cone3D
        geometry = create(place["source"], place["detector"], units=units)
    else:
        create = AcquisitionGeometry.create_Parallel2D if flat else AcquisitionGeometry.create_Parallel3D
        geometry = create(detector_position=place["detector"], units=units)
    geometry.set_panel(size, pixel, more.get("origin", "bottom-left"))
    geometry.set_angles(more.get("angles", ANGLES), more.get("initial", 0.0), more.get("angle_unit", "degree"))
    geometry.set_labels(list(more.get("labels", ("angle", "vertical", "horizontal"))))
    return geometry


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What makes a geometry: CIL where it is installed, else the stand-in."""
    try:
        import cil.framework  # noqa: F401
    except ImportError:
        frame = ModuleType("cil.framework")
        frame.ImageData = lambda array, geometry: SimpleNamespace(as_array=lambda: array, geometry=geometry)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "cil", ModuleType("cil"))
        monkeypatch.setitem(sys.modules, "cil.framework", frame)
        return stand_in
    return of_cil


def measured(geometry: Any, ball: np.ndarray, radius: float, density: float) -> Any:
    """Return the line integrals of a ball, by CIL's own words: source and panel turn by minus the angle."""
    config, system = geometry.config, geometry.config.system
    degrees = config.angles.angle_unit == "degree"
    angles = np.asarray(config.angles.angle_data, float) + config.angles.initial_angle
    n_cols, n_rows = (int(size) for size in config.panel.num_pixels)
    width, height = (float(size) for size in config.panel.pixel_size)

    def space(vector: Any) -> np.ndarray:
        found = np.asarray(vector, float).ravel()
        return np.append(found, 0.0) if len(found) == 2 else found

    flat = len(system.detector.position) == 2
    u, v = space(system.detector.direction_x), np.array([0.0, 0.0, 1.0])
    cols, rows = (np.arange(n) - (n - 1) / 2 for n in (n_cols, n_rows))
    cols = cols[::-1] if "right" in config.panel.origin else cols
    rows = rows[::-1] if "top" in config.panel.origin else rows
    pixels = space(system.detector.position) + cols[None, :, None] * width * u + rows[:, None, None] * height * v
    views = []
    for angle in np.deg2rad(angles) if degrees else angles:
        turn = np.array(
            [[np.cos(angle), np.sin(angle), 0.0], [-np.sin(angle), np.cos(angle), 0.0], [0.0, 0.0, 1.0]]
        )  # by minus the angle
        ends = pixels @ turn.T
        if str(geometry.geom_type).lower().endswith("cone"):
            begin = turn @ space(system.source.position)
            along = ends - begin
        else:
            along = np.broadcast_to(turn @ space(system.ray.direction), ends.shape)
            begin = ends
        along = along / np.linalg.norm(along, axis=-1, keepdims=True)
        beside = np.cross(ball - begin, along)
        squared = radius**2 - (beside**2).sum(axis=-1)
        views.append(2 * density * np.sqrt(np.clip(squared, 0.0, None)))
    stack = np.array(views, np.float32)  # (angle, vertical, horizontal)
    labels = [str(getattr(label, "value", label)) for label in geometry.dimension_labels]
    order = [("angle", "vertical", "horizontal").index(label) for label in labels]
    array = stack[:, 0] if flat else stack.transpose(order)
    array = array.transpose([("angle", "horizontal").index(label) for label in labels]) if flat else array
    return SimpleNamespace(geometry=geometry, as_array=lambda: array)


def centre_of(image: Any, voxel: float) -> np.ndarray:
    """Return where the middle of the ball lies, ``(x, y, z)``, as CIL lays its voxels out."""
    array = image.as_array()
    array = array[None] if array.ndim == 2 else array
    bright = np.where(array > 0.5 * array.max(), array, 0.0)
    places = np.indices(array.shape).reshape(3, -1) @ bright.ravel() / bright.sum()
    z, y, x = (places - (np.array(array.shape) - 1) / 2) * voxel
    return np.array([x, y, z])


CASES = {
    "parallel": ("parallel", {"detector": [0, 0, 0]}, {}),
    "shifted, radians, another order": (
        "parallel",
        {"detector": [1.5, 0, 0]},
        {"angles": np.deg2rad(ANGLES), "angle_unit": "radian", "labels": ("vertical", "angle", "horizontal")},
    ),
    "from the top right": ("parallel", {"detector": [0, 0, 0]}, {"origin": "top-right", "initial": 30.0}),
    "one slice": ("parallel", {"detector": [0, 0]}, {"labels": ("angle", "horizontal")}),
    "fan": ("cone", {"source": [0, -200.0], "detector": [0, 100.0]}, {"labels": ("horizontal", "angle")}),
    "cone": ("cone", {"source": [0, -200.0, 0], "detector": [0, 100.0, 0]}, {}),
    "cone, from the top": (
        "cone",
        {"source": [0, -200.0, 0], "detector": [0.4, 100.0, 0]},
        {"origin": "top-left", "initial": -20.0, "units": "cm"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_ball_lies_where_cil_says(made: Any, case: str) -> None:
    kind, place, more = CASES[case]
    flat, enlarged = len(place["detector"]) == 2, 1.5 if kind == "cone" else 1.0
    voxel = 0.2
    scaled = {name: (np.asarray(value) * voxel).tolist() for name, value in place.items()}
    geometry = made(kind, scaled, (32, 1 if flat else 12), (voxel * enlarged,) * 2, **more)
    ball = BALL * voxel * ([1, 1, 0] if flat else [1, 1, 1])
    data = measured(geometry, ball, RADIUS * voxel, 1.0)
    scan = from_cil(data, log=True)
    volume = quietray.reconstruct(scan, correction=quietray.Correction(rings="none"))
    image = to_cil(volume, data)
    np.testing.assert_allclose(centre_of(image, voxel), ball, atol=0.15 * voxel)
    # the middle of the ball has its attenuation, in 1 over the unit of the geometry
    assert image.as_array().max() == pytest.approx(1.0, abs=0.25)


def test_counts_come_with_their_flats_and_darks(made: Any) -> None:
    geometry = made("parallel", {"detector": [0, 0, 0]}, (8, 4), (0.1, 0.2), origin="bottom-right")
    counts = np.arange(len(ANGLES) * 32, dtype=np.uint16).reshape(-1, 4, 8)
    flats = np.arange(32.0).reshape(4, 8)
    scan = from_cil(SimpleNamespace(geometry=geometry, as_array=lambda: counts), flats, flats[None] + 1)
    np.testing.assert_array_equal(np.asarray(scan.projections), counts[:, ::-1, ::-1])
    assert scan.flats is not None
    assert scan.darks is not None
    np.testing.assert_array_equal(np.asarray(scan.flats), flats[None, ::-1, ::-1])
    np.testing.assert_array_equal(np.asarray(scan.darks), flats[None, ::-1, ::-1] + 1)
    assert (scan.geometry.pixel_size, scan.geometry.row_height) == (0.1, 0.2)


def test_what_cil_measured_in_no_unit_is_in_pixels(made: Any) -> None:
    geometry = made("cone", {"source": [0, -60.0, 0], "detector": [0, 30.0, 0]}, (8, 4), (0.3, 0.3), units="units")
    scan = from_cil(SimpleNamespace(geometry=geometry, as_array=lambda: np.ones((len(ANGLES), 4, 8), np.float32)))
    assert isinstance(scan.geometry, quietray.ConeBeam)
    assert (scan.geometry.unit, scan.geometry.pixel_size) == ("pixel", None)
    np.testing.assert_allclose(scan.geometry.reach[0], (200.0, 300.0))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"log": True, "flats": np.ones((4, 8))}, "must be left out with log=True"),
        ({"data": np.full((60, 4, 8), -0.1)}, "as for line integrals; give log=True"),
        ({"flats": np.ones((3, 8))}, r"frames of the panel, \(4, 8\), got shape \(3, 8\)"),
    ],
)
def test_what_cannot_be_a_scan_of_cil_is_refused(made: Any, change: dict[str, Any], told: str) -> None:
    geometry = made("parallel", {"detector": [0, 0, 0]}, (8, 4), (0.1, 0.1))
    array = change.pop("data", np.ones((len(ANGLES), 4, 8)))
    with pytest.raises(quietray.QuietrayError, match=told):
        from_cil(SimpleNamespace(geometry=geometry, as_array=lambda: array), **change)


def test_a_tilted_panel_is_refused() -> None:
    geometry = stand_in("parallel", {"detector": [0, 0, 0]}, (8, 4), (0.1, 0.1))
    geometry.config.system.detector.direction_x = np.array([np.cos(0.1), 0.0, np.sin(0.1)])
    with pytest.raises(quietray.GeometryError, match=r"tilt of about 5\.73 degrees"):
        from_cil(SimpleNamespace(geometry=geometry, as_array=lambda: np.ones((len(ANGLES), 4, 8))))


def test_a_part_of_a_volume_is_not_taken_for_the_whole(made: Any) -> None:
    geometry = made("parallel", {"detector": [0, 0, 0]}, (8, 4), (0.1, 0.1))
    with pytest.raises(quietray.GeometryError, match=r"\(4, 8, 8\), got \(3, 8, 8\)"):
        to_cil(np.zeros((3, 8, 8)), SimpleNamespace(geometry=geometry))


def test_tomopy_orders_and_logarithms_are_one_scan() -> None:
    integrals = np.random.default_rng(0).uniform(0, 1, (90, 3, 8)).astype(np.float32)
    theta = np.linspace(0, np.pi, 90, endpoint=False)
    plain = from_tomopy(np.exp(-integrals), theta)
    logged = from_tomopy(integrals.swapaxes(0, 1), theta, order="sinogram", log=True)
    np.testing.assert_allclose(np.asarray(plain.projections), np.asarray(logged.projections), rtol=1e-6)
    np.testing.assert_allclose(plain.geometry.angles, theta)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"order": "sinograms"}, "order must be 'projection' or 'sinogram', got 'sinograms'"),
        ({"log": True, "flats": np.ones((1, 3, 8))}, "must be left out with log=True"),
        ({"theta": np.arange(0.0, 180.0, 2.0)}, "look like degrees"),
        ({"projections": -np.ones((90, 3, 8))}, "give log=True"),
        ({"order": "sinogram"}, "angles must be one for each"),
    ],
)
def test_what_cannot_be_a_scan_of_tomopy_is_refused(given: dict[str, Any], told: str) -> None:
    theta = np.linspace(0, np.pi, 90, endpoint=False)
    with pytest.raises(quietray.QuietrayError, match=told):
        from_tomopy(**{"projections": np.ones((90, 3, 8)), "theta": theta, **given})


def test_algotom_reconstructs_the_same_ball_at_the_same_place() -> None:
    algotom = pytest.importorskip("algotom.rec.reconstruction", reason="needs algotom, of the extra test")
    theta = np.linspace(0, np.pi, 120, endpoint=False)
    cols = np.arange(33) - 16
    middle = 6 * np.cos(theta) + 4 * np.sin(theta)
    integrals = 2 * np.sqrt(np.clip(9 - (cols - middle[:, None]) ** 2, 0, None)).astype(np.float32) * 0.1
    theirs = algotom.fbp_reconstruction(integrals, 16.0, angles=theta, apply_log=False, gpu=False)
    scan = from_tomopy(integrals[None], theta, order="sinogram", log=True, rotation_axis=16.0)
    ours = quietray.reconstruct(scan, correction=quietray.Correction(rings="none"))[0]
    places = [np.unravel_index(np.argmax(one), one.shape) for one in (theirs, ours)]
    assert np.abs(np.subtract(*places)).max() <= 2
    assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.9
