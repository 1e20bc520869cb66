"""The projector against closed forms, and the geometry that it stands on."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import matrix
from matrix import beam
from quietray.errors import GeometryError, ResourceError
from quietray.geometry import ParallelBeam, VolumeGrid
from quietray.operators import astra
from quietray.operators.astra import ParallelProjector, require_gpu
from quietray.scan import Scan


def chords(
    geometry: ParallelBeam, radius: float, y: float = 0.0, x: float = 0.0, attenuation: float = 1.0
) -> np.ndarray:
    """Return the line integrals ``(row, view, col)`` of a disc at (y, x), in pixels, y up; averaged over each pixel."""
    shadow = geometry.axis + x * np.cos(geometry.angles) + y * np.sin(geometry.angles)
    edges = np.arange(geometry.n_cols + 1) - 0.5 - shadow[:, None]
    share = np.clip(edges / radius, -1, 1)
    area = radius**2 * (share * np.sqrt(1 - share**2) + np.arcsin(share))
    sinogram = (attenuation * np.diff(area, axis=1)).astype(np.float32)
    return np.repeat(sinogram[None], geometry.n_rows, axis=0)


def coordinates(grid: VolumeGrid) -> tuple[np.ndarray, np.ndarray]:
    """Return y (up) and x of the voxels relative to the rotation axis, in voxels."""
    _, n_y, n_x = grid.shape
    y = grid.centre[0] + (n_y - 1) / 2 - np.arange(n_y)[:, None]
    x = grid.centre[1] + np.arange(n_x)[None, :] - (n_x - 1) / 2
    return y, x


def voxels(grid: VolumeGrid, radius: float, y: float = 0.0, x: float = 0.0, sub: int = 8) -> np.ndarray:
    """Return the share of each voxel ``(z, y, x)`` that lies in a disc."""
    rows, cols = coordinates(grid)
    offset = (np.arange(sub) + 0.5) / sub - 0.5
    dy = (rows[..., None, None] + offset[:, None]) - y
    dx = (cols[..., None, None] + offset[None, :]) - x
    slice_ = (np.hypot(dy, dx) <= radius).mean(axis=(2, 3)).astype(np.float32)
    return np.repeat(slice_[None], grid.shape[0], axis=0)


def relative(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


# --- closed forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["linear", "line", "strip"])
@pytest.mark.parametrize("axis", [None, 35.3])
def test_chords_of_a_disc(interpolation: str, axis: float | None) -> None:
    geometry = beam(12, 1, 64, rotation_axis=axis)
    A = ParallelProjector(geometry, interpolation=interpolation)
    got = A(voxels(A.grid, 14.0, y=5.0, x=-8.0))
    wanted = chords(geometry, 14.0, y=5.0, x=-8.0)
    assert got.dtype == np.float32
    assert relative(got, wanted) < 0.015
    assert np.allclose(got.sum(axis=2), math.pi * 14.0**2, rtol=2e-3), "every view holds the whole mass"


@pytest.mark.parametrize(
    ("angle", "row", "col", "column"),
    [
        (0.0, 5, 2, 2),  # at angle 0 a detector column looks down a column of the image
        (0.0, 9, 2, 2),
        (math.pi / 2, 5, 2, 10),  # a quarter turn on, row 0 of the image, its largest y, is the last column
        (math.pi / 2, 0, 7, 15),
        (math.pi, 5, 2, 13),  # half a turn mirrors the detector
        (3 * math.pi / 2, 5, 2, 5),
    ],
)
def test_the_orientation_of_the_image(angle: float, row: int, col: int, column: int) -> None:
    A = ParallelProjector(ParallelBeam(np.array([angle]), 1, 16), interpolation="strip")
    x = np.zeros((1, 16, 16), np.float32)
    x[0, row, col] = 1
    wanted = np.zeros((1, 1, 16), np.float32)
    wanted[0, 0, column] = 1
    assert np.allclose(A(x), wanted, atol=1e-5)


def test_the_axis_shifts_the_shadow() -> None:
    x = np.zeros((1, 16, 16), np.float32)
    x[0, 4, 9] = 1
    centred = ParallelProjector(beam(6), interpolation="strip")(x)
    shifted = ParallelProjector(beam(6, rotation_axis=9.5), interpolation="strip")(x)
    assert np.allclose(shifted[..., 2:], centred[..., :-2], atol=1e-5)


def test_line_integrals_are_in_units_of_the_volume_times_its_voxels() -> None:
    x = np.random.default_rng(0).random((1, 16, 16), dtype=np.float32)
    pixels = ParallelProjector(beam())(x)
    assert np.allclose(ParallelProjector(beam(pixel_size=0.05))(x), 0.05 * pixels, rtol=1e-6)


@pytest.mark.parametrize("name", matrix.PROJECTORS)
def test_the_matrix_is_the_projector(name: str) -> None:
    A = matrix.PROJECTORS[name]
    x = np.random.default_rng(0).standard_normal(A.domain_shape).astype(np.float32)
    by_matrix = np.stack([(A.matrix() @ one.ravel()).reshape(A.range_shape[1:]) for one in x])
    assert np.allclose(A(x), by_matrix * (A.grid.voxel_size or 1.0), rtol=1e-4, atol=1e-4)


def test_slices_are_independent_however_many_threads() -> None:
    x = np.random.default_rng(0).random((5, 16, 16), dtype=np.float32)
    together = ParallelProjector(beam(n_rows=5), threads=3)(x)
    apart = np.concatenate([ParallelProjector(beam())(x[k : k + 1]) for k in range(5)])
    assert np.array_equal(together, apart)


def test_a_region_projects_like_the_whole_with_nothing_around_it() -> None:
    geometry = beam(n_cols=20, rotation_axis=8.25)
    x = np.zeros((1, 20, 20), np.float32)
    x[:, 3:14, 5:19] = np.random.default_rng(0).random((1, 11, 14))
    part = ParallelProjector(geometry, geometry.grid((3, 14, 5, 19)), interpolation="strip")
    assert np.allclose(
        part(x[:, 3:14, 5:19]), ParallelProjector(geometry, interpolation="strip")(x), rtol=1e-4, atol=1e-4
    )


# --- arrays and errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float64", "uint16", "strided", "read-only", "broadcast"])
def test_any_array_goes_in(kind: str) -> None:
    A = ParallelProjector(beam())
    plain = np.floor(100 * np.random.default_rng(0).random((1, 16, 16))).astype(np.float32)
    if kind == "broadcast":
        plain[:] = plain[:, :1]
    given: Any = {
        "float64": plain.astype(np.float64),
        "uint16": plain.astype(np.uint16),
        "strided": np.repeat(plain, 2, axis=2)[:, :, ::2],
        "read-only": plain.copy(),
        "broadcast": np.broadcast_to(plain[:, :1], plain.shape),
    }[kind]
    if kind == "read-only":
        given.setflags(write=False)
    before = given.copy()
    got = A(given)
    assert got.dtype == np.float32
    assert np.array_equal(got, A(plain))
    assert np.array_equal(given, before), "the input must stay as it was"


def test_tensors_keep_their_type() -> None:
    A = ParallelProjector(beam())
    x = torch.rand(1, 16, 16, dtype=torch.float64, requires_grad=True)
    y = A(x)
    assert y.dtype == torch.float64
    y.sum().backward()
    assert x.grad is not None
    assert np.allclose(x.grad.numpy(), A.T(np.ones(A.range_shape, np.float32)))


@pytest.mark.parametrize("adjoint", [False, True])
def test_a_wrong_shape_is_refused(adjoint: bool) -> None:
    A = ParallelProjector(beam())
    operator, shape = (A.T, (1, 7, 16)) if adjoint else (A, (1, 16, 16))
    for wrong in (np.zeros((2, *shape[1:]), np.float32), torch.zeros(shape[1:])):
        with pytest.raises(GeometryError) as error:
            operator(wrong)
        assert str(error.value) == f"the operator's input must have shape {shape}, got {tuple(wrong.shape)}"


def test_the_grid_must_fit_the_rows() -> None:
    with pytest.raises(GeometryError, match=r"one slice per detector row \(3\), got 1"):
        ParallelProjector(beam(n_rows=3), VolumeGrid((1, 16, 16)))


def test_without_a_gpu_we_raise_before_astra_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoCuda:
        @staticmethod
        def use_cuda() -> bool:
            return False

    monkeypatch.setattr(astra, "_astra", NoCuda)
    with pytest.raises(ResourceError, match="cone-beam projection through ASTRA must have a CUDA GPU"):
        require_gpu("cone-beam projection")
    monkeypatch.setattr(NoCuda, "use_cuda", staticmethod(lambda: True))
    require_gpu("cone-beam projection")


# --- geometry -------------------------------------------------------------------------------------------------------


def test_a_sliced_beam_keeps_each_views_own_angle() -> None:
    geometry = beam(13, 2, 16, rotation_axis=6.5, pixel_size=0.1)
    for j in range(4):
        assert np.array_equal(geometry[j::4].angles, geometry.angles[j::4])
    assert geometry[1:] == dataclasses.replace(geometry, angles=geometry.angles[1:])
    assert geometry[1:] != geometry[:-1]
    assert geometry != geometry.with_axis(6.0)
    assert geometry.rows(5).n_rows == 5
    with pytest.raises(ValueError, match="read-only"):
        geometry.angles[0] = 1.0


@given(st.data())
def test_a_region_is_a_window_of_the_whole_grid(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 30))
    y0, x0 = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, n)), data.draw(st.integers(x0 + 1, n))
    geometry = beam(2, 1, n)
    whole, part = coordinates(geometry.grid()), coordinates(geometry.grid((y0, y1, x0, x1)))
    assert np.allclose(part[0], whole[0][y0:y1])
    assert np.allclose(part[1], whole[1][:, x0:x1])


@pytest.mark.parametrize("region", [(0, 17, 0, 4), (-1, 4, 0, 4), (4, 4, 0, 4), (0, 4, 9, 3)])
def test_a_region_off_the_slice_is_refused(region: tuple[int, int, int, int]) -> None:
    with pytest.raises(GeometryError, match="region must lie within 0:16 and not be empty"):
        beam().grid(region)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"angles": np.zeros(0)}, "one entry per view"),
        ({"angles": np.array([0.0, np.nan])}, "finite"),
        ({"n_cols": 0}, "rows and columns"),
        ({"pixel_size": 0.0}, "pixel_size must be positive"),
        ({"rotation_axis": 16.0}, "on the detector"),
        ({"rotation_axis": -0.1}, "on the detector"),
    ],
)
def test_an_impossible_beam_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(GeometryError, match=words):
        dataclasses.replace(beam(), **change)


@pytest.mark.parametrize(
    ("degrees", "n_views", "turns", "repeated"),
    [
        (180.0, 90, 1, False),
        (360.0, 90, 2, False),
        (90.0, 45, 0, False),
        (180.0, 12, 1, False),
        (540.0, 300, 3, False),
        (182.0, 91, 1, True),  # the last view is 180 degrees on
        (364.0, 91, 2, True),
    ],
)
def test_coverage(degrees: float, n_views: int, turns: int, repeated: bool) -> None:
    geometry = beam(n_views, turn=math.radians(degrees))
    assert math.isclose(geometry.coverage, math.radians(degrees), rel_tol=1e-9)
    assert geometry.turns == turns
    assert geometry.repeated_last_view is repeated
    backwards = dataclasses.replace(geometry, angles=-geometry.angles[::-1])
    assert (backwards.turns, backwards.repeated_last_view) == (turns, repeated)


@pytest.mark.parametrize("views", [slice(1, None, 3), slice(None, None, -2), slice(5, 2), slice(2, 5, -1), slice(0, 0)])
@pytest.mark.parametrize("inner", [slice(None), slice(1, 3), slice(None, None, -1), slice(3, 0, -2), slice(1, 3, -1)])
def test_a_sliced_scan_reads_the_right_views(views: slice, inner: slice) -> None:
    stack = np.arange(12 * 2 * 3, dtype=np.float32).reshape(12, 2, 3)
    scan = Scan(stack, beam(12, 2, 3), clean=-stack)
    if not stack[views].size:
        with pytest.raises(GeometryError, match="one entry per view"):
            scan[views]
        return
    part = scan[views]
    assert np.array_equal(part.geometry.angles, scan.geometry.angles[views])
    assert np.array_equal(part.read(slice(1, 2), inner), stack[views][inner, 1:2])
    assert np.array_equal(part.clean[inner], -stack[views][inner])
    assert np.array_equal(part.projections[-1], stack[views][-1])
