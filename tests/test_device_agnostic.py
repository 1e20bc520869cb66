"""Reconstruction that a GPU does by other means than the CPU: here these means run on the CPU, and must agree."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import checks
import quietray
import quietray.preparation.prepare as prepare_module
from matrix import beam, fan
from quietray.detector.correction.rotation import RotationAxis
from quietray.geometry import ConeBeam, FanBeam, VolumeGrid
from quietray.operators.astra import FanProjector, ParallelProjector, SliceProjector
from quietray.operators.backprojection import ConeRays, FanRays
from quietray.operators.cuda import parallel_geometries
from quietray.operators.sparse import SparseProjector
from quietray.reconstruct import FBP, FDK, SIRT
from quietray.running.run import Run
from scans import disc_scan

CPU = torch.device("cpu")
TURN = np.linspace(0, 2 * np.pi, 40, endpoint=False)
BEAMS = {
    "turn": ConeBeam.circular(TURN, 12, 20, 80.0, 120.0),
    "shifted": ConeBeam.circular(TURN, 12, 20, 80.0, 120.0, 0.5, rotation_axis=7.5, source_row=3.7),
    "short": ConeBeam.circular(TURN[:28], 12, 20, 80.0, 120.0),
    "half": dataclasses.replace(ConeBeam.circular(TURN, 12, 20, 80.0, 120.0, rotation_axis=4.0), half=True),
}


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def agree(one: np.ndarray, other: np.ndarray) -> None:
    """Check that two results agree to the rounding of single precision at positions between pixels."""
    assert one.shape == other.shape
    assert np.abs(one - other).max() < 1e-4 * np.ptp(one)


@pytest.mark.parametrize("name", BEAMS)
def test_fdk_is_the_same_by_torch(name: str) -> None:
    geometry = BEAMS[name]
    grid = geometry.grid()
    y = noise((12, geometry.n_views, 20))
    here, there = (FDK()(ConeRays(geometry, grid, device=device), y) for device in (None, CPU))
    agree(here, there)
    slab = grid.slab(2, 5)
    rows = ConeRays(geometry, slab).seen
    some = torch.from_numpy(y[rows.start : rows.stop])  # on the device already
    agree(here[2:5], FDK()(ConeRays(geometry, slab, rows, CPU), some))


def test_voxels_beyond_the_source_and_the_detector_get_nothing_by_torch() -> None:
    geometry = ConeBeam.circular(TURN[:5] + 0.1, 4, 6, 9.3, 15.1, rotation_axis=2.37, source_row=1.71)
    grid = VolumeGrid((6, 24, 24))  # the source is 9 voxels from the axis: inside of the grid
    filtered, factors = noise((4, 5, 6)), np.linspace(1, 2, 5)
    here, there = (ConeRays(geometry, grid, device=device).backproject(filtered, factors) for device in (None, CPU))
    assert (here == 0).any()
    assert np.array_equal(here == 0, there == 0)
    agree(here, there)


@pytest.mark.parametrize("n", [1, 3])
def test_a_fan_beam_is_the_same_by_torch(n: int) -> None:
    geometry = FanBeam(TURN, n, 20, 80.0, 120.0)
    y = noise((n, 40, 20))
    here = FBP()(FanProjector(geometry), y)
    for given in (y, torch.from_numpy(y)):
        agree(here, FBP()(FanRays(geometry, geometry.grid(), CPU), given))


@pytest.mark.parametrize(
    "projector",
    [ParallelProjector(beam(n_rows=5, pixel_size=0.5)), FanProjector(fan(n_rows=5))],
    ids=["parallel", "fan"],
)
def test_a_matrix_is_the_same_where_the_data_are(projector: SliceProjector) -> None:
    there, x = SparseProjector(projector, device=CPU), torch.from_numpy(noise(projector.domain_shape))
    here = SparseProjector(projector)
    agree(here(x).numpy(), there(x).numpy())
    y = torch.from_numpy(noise(projector.range_shape))
    agree(here.T(y).numpy(), there.T(y).numpy())
    checks.check_adjoint(there)
    found = SIRT(iterations=5)(there, y)
    assert isinstance(found, torch.Tensor)
    agree(SIRT(iterations=5)(here, y.numpy()), found.numpy())


def test_parallel_rays_of_a_gpu_are_those_of_the_cpu() -> None:
    geometry = beam(n_views=7, n_rows=2, n_cols=16, rotation_axis=6.3)
    grid = geometry.grid((3, 14, 1, 12))
    rays, volume = parallel_geometries(geometry, grid)
    limits, n = volume["option"], grid.shape
    for voxel in ((0, 2, 8), (1, 9, 3)):
        point = np.zeros(n, np.float32)
        point[voxel] = 1
        sinogram = ParallelProjector(geometry, grid)(point)[voxel[0]]
        measured = (sinogram * np.arange(16)).sum(axis=1) / sinogram.sum(axis=1)
        starts = [limits[f"WindowMin{axis}"] for axis in "ZYX"]
        place = np.array([start + index + 0.5 for start, index in zip(starts, voxel, strict=True)])[::-1]
        vectors = rays["Vectors"].reshape(-1, 4, 3)
        columns, rows = ((vectors[:, axis] * (place - vectors[:, 1])).sum(axis=1) for axis in (2, 3))
        assert np.allclose(columns + 7.5, measured, atol=0.05)  # the area of a voxel is not quite symmetric in pixels
        assert np.allclose(rows + 0.5, voxel[0])
        assert np.allclose((vectors[:, 0] * vectors[:, 2]).sum(axis=1), 0)


def test_the_axis_is_looked_for_on_the_device_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    given, found = [], prepare_module.find_rotation_axis

    def noted(*arguments: Any) -> RotationAxis:
        given.append(arguments[2:])
        return found(*arguments)

    monkeypatch.setattr(prepare_module, "find_rotation_axis", noted)
    run = Run.in_memory(quietray.Settings(device="cpu"))
    known = prepare_module.calibrated(quietray.read(disc_scan()), run)
    assert given == [(CPU,)]
    assert known.scan.geometry.rotation_axis == pytest.approx(11.5, abs=0.5)
