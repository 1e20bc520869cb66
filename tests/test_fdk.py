"""Filtered backprojection of fan and cone beams against closed forms, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from matrix import cone, fan
from quietray.errors import GeometryError
from quietray.geometry import ConeBeam, FanBeam, ParallelBeam, VolumeGrid
from quietray.operators.astra import FanProjector, ParallelProjector
from quietray.operators.backprojection import ConeRays
from quietray.reconstruct import CGLS, FBP, FDK, SIRT
from quietray.reconstruct.diverging import turn_weights
from quietray.simulate.bodies import Bodies
from quietray.simulate.ellipsoids import Ellipsoids
from rtk import require_rtk

HEAD = Ellipsoids.shepp_logan(0.75)


def scanner(n: int, n_views: int, degrees: float = 360.0, **more: float) -> ConeBeam:
    angles = np.deg2rad(np.linspace(0, degrees, n_views, endpoint=False))
    return ConeBeam.circular(angles, n, n, 4.0 * n, 6.0 * n, 1.0, **more)


def from_sources(sources: np.ndarray) -> ConeBeam:
    return dataclasses.replace(scanner(16, 30), sources=sources)


def measured(geometry: ConeBeam | FanBeam, supersampling: int = 2) -> np.ndarray:
    """Return the sinograms of the head in closed form; attenuation in 1/voxel."""
    return np.ascontiguousarray(HEAD.project(geometry, supersampling=supersampling).swapaxes(0, 1))


def errors(volume: np.ndarray, geometry: ConeBeam | FanBeam, grid: VolumeGrid) -> tuple[float, float]:
    """Return two root mean squared errors over smooth regions that all views see.

    Of all of them, relative to the largest attenuation, and of those within the head, relative to their own: most of
    the volume is air, where an attenuation that is wrong by a factor does not show.
    """
    truth = HEAD.volume(grid, n_cols=geometry.n_cols, supersampling=3)
    around = 5 if isinstance(geometry, ConeBeam) else (1, 7, 7)
    smooth = ndimage.maximum_filter(truth, around) - ndimage.minimum_filter(truth, around) < 1e-3
    _, y, x = grid.first
    away = np.hypot(y - np.arange(grid.shape[1])[:, None], x + np.arange(grid.shape[2]))
    smooth &= away < geometry.seen_radius - 1
    inside = smooth & (truth > 1e-3)
    assert smooth.sum() > 0.2 * smooth.size
    assert inside.sum() > 500
    off = volume * (grid.voxel_size or 1.0) - truth
    whole, head = (off / truth.max())[smooth], off[inside] / truth[inside]
    return float(np.sqrt(np.square(whole).mean())), float(np.sqrt(np.square(head).mean()))


@pytest.mark.parametrize(
    "beam",
    [scanner(48, 120), scanner(48, 120, rotation_axis=26.0, source_row=19.0), scanner(48, 100, 220.0)],
    ids=["full turn", "shifted detector", "short scan"],
)
def test_fdk_agrees_with_the_closed_form(beam: ConeBeam) -> None:
    assert max(errors(FDK()(ConeRays(beam, beam.grid()), measured(beam)), beam, beam.grid())) < 0.02


@pytest.mark.slow
def test_fdk_of_a_large_head_agrees_with_the_closed_form() -> None:
    beam = scanner(128, 360)
    whole, head = errors(FDK()(ConeRays(beam, beam.grid()), measured(beam)), beam, beam.grid())
    print(
        f"FDK of 128^3 voxels from 360 views: RMSE {whole:.2%} of the largest attenuation over all smooth regions, "
        f"{head:.2%} of its own attenuation within the head"
    )
    assert max(whole, head) < 0.02


@pytest.mark.parametrize("degrees", [360.0, 240.0])
def test_fan_beam_fbp_agrees_with_the_closed_form(degrees: float) -> None:
    angles = np.deg2rad(np.linspace(0, degrees, 240, endpoint=False))
    beam = FanBeam(angles, 2, 128, 512.0, 768.0, pixel_size=1.0, rotation_axis=61.0)
    assert max(errors(FBP()(FanProjector(beam), measured(beam, 3)), beam, beam.grid())) < 0.02


@pytest.mark.parametrize("pixel_size", [None, 0.5, 2.0])
def test_the_unit_is_that_of_the_pixels(pixel_size: float | None) -> None:
    scale, angles = pixel_size or 1.0, np.linspace(0, 2 * np.pi, 60, endpoint=False)
    beam = ConeBeam.circular(angles, 8, 32, 100.0 * scale, 150.0 * scale, pixel_size)
    ball = Bodies.balls(np.array([[0.0, 0.0, 0.0, 10.0]]), 1.0)
    y = np.ascontiguousarray(ball.project(beam, 1.0, supersampling=3).swapaxes(0, 1))
    volume = FDK()(ConeRays(beam, beam.grid()), y)
    assert volume[3:5, 13:19, 13:19].mean() == pytest.approx(1.5 / pixel_size if pixel_size else 1.0, rel=0.01)


def test_slabs_are_the_volume_to_the_last_bit() -> None:
    beam = scanner(32, 40, rotation_axis=15.0, source_row=12.5)
    y, grid = measured(beam, 1), beam.grid()
    whole = FDK()(ConeRays(beam, grid), y)
    for first, last in ((0, 3), (3, 20), (20, 21), (21, 32)):
        slab = ConeRays(beam, grid.slab(first, last))
        seen = slab.seen
        part = FDK()(dataclasses.replace(slab, rows=seen), np.ascontiguousarray(y[seen.start : seen.stop]))
        np.testing.assert_array_equal(part, whole[first:last])
    assert len(ConeRays(beam, grid.slab(20, 21)).seen) < 6


def test_fdk_is_what_rtk_makes() -> None:
    require_rtk()
    import itk

    from quietray.operators.cone import ConeProjector

    beam = scanner(24, 60)
    A, y = ConeProjector(beam), measured(beam)
    kind = itk.Image[itk.F, 3]
    other = itk.RTK.FDKConeBeamReconstructionFilter[kind].New()
    other.SetGeometry(A._rays)
    other.SetInput(0, A._volume(np.zeros(A.domain_shape, np.float32)))
    other.SetInput(1, A._radiographs(np.ascontiguousarray(y.swapaxes(0, 1))))
    other.Update()
    theirs = np.asarray(itk.array_from_image(other.GetOutput()))
    ours = FDK()(A, y)
    inside = np.hypot(*np.ogrid[-11.5:12, -11.5:12]) < beam.seen_radius - 2
    off = np.abs(ours - theirs)[4:-4, inside]
    assert np.sqrt(np.square(off).mean()) < 0.01 * np.abs(theirs).max()


@pytest.mark.parametrize("turn", [2 * np.pi, np.pi + 0.5, 4.5])
def test_every_line_counts_once(turn: float) -> None:
    n, half = 400, 0.2
    angles = np.linspace(0.3, 0.3 + turn, n, endpoint=False)
    gamma = np.linspace(-half, half, 21)
    weights = turn_weights(angles, np.repeat(gamma[None], n, axis=0))
    # the rays that measure a line are (beta, gamma) and (beta + pi - 2 gamma, -gamma); together they count once
    total = np.zeros((20, 21))
    for place, theta in enumerate(np.linspace(0, np.pi, 20, endpoint=False)):
        for column, one in enumerate(gamma):
            for beta, mirrored in ((theta + one, column), (theta + one + np.pi - 2 * one, 20 - column)):
                since = np.mod(beta - angles[0], 2 * np.pi)
                step = turn / n
                if since < turn:
                    total[place, column] += np.interp(since, step * np.arange(n), weights[:, mirrored]) / step
    assert abs(total - 1).max() < 0.03


def test_uneven_views_count_for_what_they_stand_for() -> None:
    even = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    doubled = np.sort(np.concatenate([even, even[:20] + 1e-3]))
    weights = turn_weights(doubled, np.zeros((60, 1)))
    assert weights.sum() == pytest.approx(np.pi)
    assert turn_weights(np.repeat(even, 2), np.zeros((80, 1))).sum() == pytest.approx(np.pi)
    shuffled = np.random.default_rng(0).permutation(40)
    np.testing.assert_allclose(turn_weights(even[shuffled], np.zeros((40, 1))), 2 * np.pi / 80)


@pytest.mark.parametrize(
    ("beam", "words"),
    [
        (scanner(16, 30, 170.0), "full turn, or half a turn plus the fan angle"),
        (scanner(16, 30).tilted(roll=0.1), "tilted by 5.7 degrees; use sirt"),
        (from_sources(scanner(16, 30).sources * np.linspace(1, 1.1, 30)[:, None]), "off its circle"),
        (from_sources(scanner(16, 30).sources + np.array([0, 0, 5.0])), "off its circle"),
    ],
    ids=["too short", "tilted", "spiral", "above"],
)
def test_what_is_no_circle_is_refused(beam: ConeBeam, words: str) -> None:
    with pytest.raises(GeometryError, match=words):
        FDK()(ConeRays(beam, beam.grid()), np.zeros((16, 30, 16), np.float32))
    with pytest.raises(GeometryError, match=words):
        FBP().for_beam(beam)
    assert CGLS().for_beam(beam) == CGLS()


def test_a_small_tilt_is_projected_as_it_is() -> None:
    beam = scanner(48, 120).tilted(roll=np.deg2rad(1.5))
    y = measured(beam)
    known, taken = (
        errors(FDK()(ConeRays(each, each.grid()), y), beam, beam.grid()) for each in (beam, scanner(48, 120))
    )
    assert max(known) < 0.02
    assert known[0] < taken[0]


def test_each_beam_has_its_algorithm() -> None:
    assert FBP("hann").for_beam(cone()) == FDK("hann")
    assert FBP().for_beam(fan()) == FBP()
    parallel = ParallelBeam(np.zeros(3), 1, 8)
    for other in (fan(), parallel):
        with pytest.raises(GeometryError, match="FDK must have a cone beam"):
            FDK().for_beam(other)
    with pytest.raises(GeometryError, match="FDK must have a cone beam"):
        FDK()(ParallelProjector(parallel), np.zeros((1, 3, 8), np.float32))
    with pytest.raises(GeometryError, match="sinograms must have shape"):
        FDK()(ConeRays(cone(), cone().grid()), np.zeros((1, 7, 16), np.float32))


def test_what_iterates_explains_an_object_longer_than_the_detector_is_high() -> None:
    require_rtk()
    from quietray.operators.cone import ConeProjector

    beam = ConeBeam.circular(np.linspace(0, 2 * np.pi, 40, endpoint=False), 10, 24, 60.0, 90.0)
    y = np.ascontiguousarray(Bodies.cylinder(6.0).project(beam, 1.0, supersampling=2).swapaxes(0, 1))
    off = []
    for grid in (beam.grid(), beam.tall_grid(beam.grid())):
        volume = SIRT(iterations=60)(ConeProjector(beam, grid), y)
        above = (len(volume) - 10) // 2
        off.append(float(np.abs(volume[above : above + 10, 9:15, 9:15] - 1).max()))
    assert off[1] < 0.1 < 2 * off[1] + 0.1 < off[0] + 0.1
