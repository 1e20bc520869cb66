"""Angles that are not what they are said to be: of another unit, or over another part of a turn."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import quietray
from quietray import ConeBeam, FanBeam, GeometryError, NoiseError, ParallelBeam, Scan
from quietray.detector.correction.calibration import Correction
from quietray.detector.correction.claims import claims_of, sound
from quietray.detector.correction.sweep import doubted_sweep, unchecked_angles
from quietray.images import ImageSeries
from quietray.preparation.examine import examine
from quietray.simulate.bodies import Bodies

LUMPS = np.random.default_rng(3).uniform([-12, -12, -9, 1], [12, 12, 9, 4], (25, 4))  # from no two sides alike
SQUARE = np.array([[r * np.cos(k * np.pi / 2), r * np.sin(k * np.pi / 2), 0.0, 3.0] for k in range(4) for r in (5, 12)])


def turned(
    turns: float | np.ndarray, said: float, photons: float = 1e3, balls: np.ndarray = LUMPS, drift: float = 0.0
) -> Scan:
    """Return a scan of an object that turned by so many half turns, or as given, with angles over as many as said."""
    angles = np.linspace(0, turns * np.pi, 120, endpoint=False) if np.isscalar(turns) else np.asarray(turns)
    n_views, rng = len(angles), np.random.default_rng(0)
    beam = ParallelBeam(angles, 20, 48, rotation_axis=22.3)
    lines = Bodies.balls(balls, 0.05).project(beam, 1.0, supersampling=2)
    moved = np.stack([np.roll(one, round(drift * k / n_views), axis=1) for k, one in enumerate(lines)])
    counts = rng.poisson(photons * np.exp(-moved)).astype(np.uint16)
    angles = np.linspace(0, said * np.pi, n_views, endpoint=False)
    return Scan(counts, ParallelBeam(angles, 20, 48), flats=np.full((4, 20, 48), photons, np.uint16))


@pytest.mark.parametrize("photons", [1e4, 100.0])
@pytest.mark.parametrize(
    ("turns", "said", "told"),
    [
        (2, 1, "if the object turned twice as far; give the true angles, such as angles='0:360'"),
        (1, 2, "if the object turned half as far; give the true angles, such as angles='0:180'"),
        (2, 4, "if the object turned half as far"),
        (4, 2, "if the object turned twice as far"),  # such as one rotation that is stored twice
        (1, 1 / 0.9, "as with angles in gon"),
        (2, 2 / 0.9, "as with angles in gon"),
    ],
)
def test_views_half_a_turn_apart_contradict_wrong_angles(turns: float, said: float, told: str, photons: float) -> None:
    scan = turned(turns, said, photons)
    found = claims_of(scan)
    assert isinstance(found.refusal, GeometryError)
    assert told in str(found.refusal)
    with pytest.raises(GeometryError, match="must mirror each other"):
        quietray.denoise(scan, method="gaussian")


@pytest.mark.parametrize("step", [111.246117975, 137.507764050])
@pytest.mark.parametrize("said", [1, 2])
def test_even_angles_of_views_by_the_golden_angle_are_contradicted(step: float, said: float) -> None:
    golden = np.deg2rad(step) * np.arange(120)
    for angles in (golden, np.mod(golden, 2 * np.pi)):
        with pytest.raises(GeometryError, match="if the object turned by the golden angle from view to view; give the"):
            doubted_sweep(turned(angles, said, 100.0), Correction())
        scan = turned(angles, said, 100.0)
        right = dataclasses.replace(scan, geometry=dataclasses.replace(scan.geometry, angles=angles))
        doubted_sweep(right, Correction())


@pytest.mark.parametrize("photons", [1e4, 100.0, 3.0])
def test_views_that_are_half_a_turn_apart_either_way_say_nothing_of_the_golden_angle(photons: float) -> None:
    """Of 144 views over a full turn, 72 steps are half a turn, and nearly half a turn by the golden angle, too."""
    doubted_sweep(turned(np.linspace(0, 2 * np.pi, 144, endpoint=False), 2, photons, drift=5.0), Correction())


@pytest.mark.parametrize("photons", [1e4, 100.0, 3.0])
@pytest.mark.parametrize("turns", [1, 2, 4])
def test_right_angles_are_believed(turns: float, photons: float) -> None:
    doubted_sweep(turned(turns, turns, photons), Correction())
    doubted_sweep(turned(turns, -turns, photons), Correction())  # which mirrors the volume: nobody can tell


@pytest.mark.parametrize("drift", [0.0, 4.0])
def test_an_object_that_looks_alike_from_four_sides_is_believed_though_it_drifts(drift: float) -> None:
    doubted_sweep(turned(1, 1, balls=SQUARE, drift=drift), Correction())
    doubted_sweep(turned(2, 2, balls=SQUARE, drift=drift), Correction())


def test_angles_that_cannot_be_checked_are_said_not_to_be() -> None:
    scan = turned(1, 1)
    golden = scan.geometry.angles[(np.arange(120) * 55) % 120]
    fan = FanBeam(np.linspace(0, 2 * np.pi, 120, endpoint=False), 20, 48, 100.0, 150.0)
    doubtful = {
        "a diverging beam": dataclasses.replace(scan, geometry=fan),
        "several detectors": dataclasses.replace(scan, detectors=np.arange(120) % 2),
        "less than half a turn": scan[:80],
        "only 20 of them": scan[::6],
        "the golden angle": dataclasses.replace(scan, geometry=dataclasses.replace(scan.geometry, angles=golden)),
    }
    assert unchecked_angles(scan) == ()
    for words, one in doubtful.items():
        (note,) = unchecked_angles(one)
        assert words in note
    notes = quietray.denoise(scan[::6], method="gaussian").notes
    assert sum("The angles could not be checked" in note for note in notes) == 1
    found = examine(scan[::6], Correction(), 5.0, axis=True).found
    assert sum("The angles could not be checked" in note for note in found) == 1


def test_a_small_part_of_a_detector_is_believed(real_data) -> None:
    where = {"data": "detector", "image_key": "image_key", "angles": "theta_deg"}
    doubted_sweep(quietray.read(real_data("dls_k11_diad/k11-18014.h5"), **where), Correction())


@pytest.mark.parametrize(
    "name", ["psi_neutron_ct/psi_ct5s375_128lines.h5", "tomopy_tooth/tooth.h5", "dls_i12_24737_binned/dls_24737.h5"]
)
def test_measured_scans_are_believed_and_wrong_angles_are_not(real_data, name: str) -> None:
    scan = quietray.read(real_data(name))
    doubted_sweep(scan, Correction())
    wrong = 0.5 if scan.geometry.turns == 2 else 2.0
    beam = dataclasses.replace(scan.geometry, angles=wrong * scan.geometry.angles)
    with pytest.raises(GeometryError, match="must mirror each other"):
        doubted_sweep(dataclasses.replace(scan, geometry=beam), Correction())


# ---- radians

TURN = np.linspace(0, 360, 400, endpoint=False)
OTHER_UNITS = {
    "half a turn": np.arange(180.0),
    "both ends": np.linspace(0, 360, 721),
    "as an encoder read them": TURN + np.random.default_rng(0).normal(0, 0.02, 400),
    "a part of them": np.arange(170) * 0.5 + 20,
    "golden": np.mod(np.arange(100) * 111.246117975, 180),
    "golden, counted on": np.arange(100) * 111.246117975,
    "reversed": np.linspace(180, 0, 181),
    "interlaced": np.concatenate([np.arange(0, 180, 2.0), np.arange(1, 180, 2.0)]),
    "four views": np.array([0, 45, 90, 135.0]),
    "gon": np.linspace(0, 400, 800, endpoint=False),
    "gon, half a turn": np.linspace(0, 200, 333),
}
RADIANS = {
    "half a turn": np.linspace(0, np.pi, 180),
    "rounded": np.arange(0, 6.28, 0.01),
    "golden": np.arange(300) * 2.39996,
    "57 half turns, nearly 180": np.linspace(0, 57 * np.pi, 57 * 40, endpoint=False),
    "115 half turns, nearly 360": np.linspace(0, 115 * np.pi, 115 * 40),
    "ten turns": np.linspace(0, 20 * np.pi, 777),
}


@pytest.mark.parametrize("name", OTHER_UNITS)
def test_no_beam_takes_degrees_or_gon_for_radians(name: str) -> None:
    angles = OTHER_UNITS[name]
    for beam in (
        lambda: ParallelBeam(angles, 2, 8),
        lambda: FanBeam(angles, 1, 8, 100.0, 150.0),
        lambda: ConeBeam.circular(angles, 2, 8, 100.0, 150.0),
    ):
        with pytest.raises(GeometryError, match=r"angles must be in radians.*give np.deg2rad\(angles\)"):
            beam()


@pytest.mark.parametrize("name", RADIANS)
def test_radians_are_believed(name: str) -> None:
    assert ParallelBeam(RADIANS[name], 2, 8).n_views == len(RADIANS[name])


# ---- repeats


def test_one_measurement_twice_is_no_repeat(tmp_path: Path) -> None:
    scan = turned(1, 1)
    with pytest.raises(NoiseError, match="must be independent measurements, got the same numbers twice"):
        quietray.denoise(scan, method="noise2noise", repeats=[scan], budget="5s")
    rng = np.random.default_rng(0)
    images = ImageSeries(rng.normal(50, 5, (3, 32, 32)).astype(np.float32), None, "a")
    with pytest.raises(NoiseError, match="got the same numbers twice"):
        quietray.denoise(images, method="noise2noise", repeats=[images], budget="5s")


def test_images_of_something_else_are_no_repeats() -> None:
    rng = np.random.default_rng(0)
    scene = np.kron(rng.normal(50, 20, (8, 8)), np.ones((8, 8)))
    one, other = (
        ImageSeries((scene[::way] + rng.normal(0, 5, (3, 64, 64))).astype(np.float32), None, "a") for way in (1, -1)
    )
    with pytest.raises(NoiseError, match="must show one scene"):
        quietray.denoise(one, method="noise2noise", repeats=[other], budget="5s")


@pytest.mark.parametrize("twice", [np.tile, np.repeat])
def test_a_rotation_that_is_stored_twice_is_refused_or_left_out(twice) -> None:
    """Said to be one turn, of which each view is there twice: one after the other, or all views again."""
    scan, views = turned(2, 2), np.arange(120)
    again = np.asarray(scan.projections)[twice(views, 2)]
    beam = ParallelBeam(np.linspace(0, 2 * np.pi, 240, endpoint=False), 20, 48)
    doubled = dataclasses.replace(scan, projections=again, geometry=beam)
    if twice is np.tile:
        with pytest.raises(GeometryError, match="if the object turned twice as far"):
            sound(doubled)
    else:
        assert sound(doubled).n_views == 120
