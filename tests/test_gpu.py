"""What only a GPU can tell: results as on processors, within what its arithmetic allows, and nothing left there.

``make test-gpu`` runs them.  Elsewhere they are skipped.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import quietray
from matrix import beam
from quietray.geometry import ConeBeam, FanBeam
from quietray.inference.denoiser import Denoiser, Scale
from quietray.operators.astra import ParallelProjector
from quietray.operators.backprojection import ConeRays, FanRays
from quietray.operators.cuda import CudaParallelProjector
from quietray.operators.linear import LinearOperator
from quietray.operators.nufft import ParallelRays, gpu_transforms
from quietray.operators.sparse import SparseProjector
from quietray.reconstruct import FBP, FDK, SIRT
from quietray.running.device import chosen_device, device_memory
from quietray.running.precision import precision
from quietray.training.batches import TrainingVolume
from scans import disc_scan, foam_scan, in_slabs, quick

pytestmark = pytest.mark.gpu

GPU = torch.device("cuda", 0)


def needs_cufinufft() -> None:
    if not gpu_transforms(GPU):
        pytest.skip("needs cuFINUFFT; pip install 'quietray[cuda]' brings it")


@pytest.mark.parametrize("n", [96, 97])
def test_backprojection_is_that_of_the_processors(n: int) -> None:
    needs_cufinufft()
    geometry = beam(180, 11, n, rotation_axis=n / 2 - 3)
    y = np.random.default_rng(0).standard_normal((11, 180, n)).astype(np.float32)
    here, there = (FBP()(ParallelRays(geometry, device=device), y) for device in (None, GPU))
    assert np.abs(here - there).max() < 1e-3 * np.ptp(here)  # each is within 1e-4 of exact, relative to its norm


def test_diverging_beams_are_those_of_the_processors() -> None:
    turn = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    rng = np.random.default_rng(0)
    wide = ConeBeam.circular(turn, 40, 64, 250.0, 400.0, rotation_axis=30.3)
    y = rng.standard_normal((40, 90, 64)).astype(np.float32)
    here, there = (FDK()(ConeRays(wide, wide.grid(), device=device), y) for device in (None, GPU))
    assert np.abs(here - there).max() < 1e-3 * np.ptp(here)
    flat = FanBeam(turn, 5, 64, 250.0, 400.0)
    here, there = (FBP()(FanRays(flat, flat.grid(), device), y[:5]) for device in (None, GPU))
    assert np.abs(here - there).max() < 1e-3 * np.ptp(here)


@pytest.mark.parametrize("matched", [True, False])
def test_iterations_are_those_of_the_processors(matched: bool) -> None:
    geometry = beam(40, 6, 48, rotation_axis=22.4)
    disc = np.hypot(*np.mgrid[-24:24, -24:24]) < 15
    exact = ParallelProjector(geometry)
    y = exact(np.broadcast_to(disc.astype(np.float32), (6, 48, 48)).copy())
    there: LinearOperator = SparseProjector(exact, device=GPU) if matched else CudaParallelProjector(geometry)
    found = SIRT(iterations=20)(there, torch.from_numpy(y).to(GPU))
    assert found.device == GPU
    apart = np.abs(found.cpu().numpy() - SIRT(iterations=20)(exact, y))
    assert apart.mean() < (1e-4 if matched else 1e-2)  # the projector of a GPU takes lines for strips


def test_samples_are_the_same_wherever_they_are_drawn() -> None:
    parts = np.random.default_rng(0).random((3, 12, 40, 36), np.float32)
    here = TrainingVolume.with_held_out(parts, quietray.Noise2Inverse(3, slices=5), np.ones((40, 36), np.float32))
    there = here.on(GPU)
    assert there.resident is not None
    assert here.on(GPU, room=parts.nbytes).resident is None, "only where it fits"
    draws = [each.draw(24, 16, torch.Generator().manual_seed(1)) for each in (here, there)]
    for one, other in zip(*draws, strict=True):
        assert other.device == GPU
        assert torch.equal(one, other.cpu())


def test_a_window_on_a_gpu_is_that_of_the_processors() -> None:
    """What is copied in the background is there when samples are gathered, whatever was exchanged before."""
    parts = np.random.default_rng(0).random((3, 64, 200, 180), np.float32)
    data = TrainingVolume.with_held_out(parts, quietray.Noise2Inverse(3, slices=5), np.ones((200, 180), np.float32))
    here, there = (data.on(device, room=parts.nbytes) for device in (torch.device("cpu"), GPU))
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    for step in range(100):
        for each in (here, there):
            assert 0 < each.at(step, 100) < 1
        draws = [each.draw(8, 64, one) for each, one in zip((here, there), generators, strict=True)]
        for one, other in zip(*draws, strict=True):
            assert other.device == GPU
            assert torch.equal(one, other.cpu())


def test_slices_are_denoised_as_on_processors() -> None:
    network = quietray.UNet((8, 16))
    torch.manual_seed(0)
    one = Denoiser(network.build(5).eval(), network, quietray.Noise2Inverse(2, slices=5), Scale(0.0, 1.0), symmetries=8)
    parts = np.random.default_rng(0).random((2, 20, 60, 52), np.float32)
    here = one.slab(parts, 3, 17)
    there = one.to(GPU).slab(parts, 3, 17)
    assert np.abs(here - there).max() < 1e-2 * np.ptp(here)  # TF32 has ten bits


@pytest.mark.parametrize("method", ["noise2inverse", "noise2self", "tv"])
def test_a_run_gives_what_it_gives_on_processors(method: str) -> None:
    """Not bit by bit: the gain is the same within 1 dB, over 120 steps of the same samples."""
    settings = quick(steps=120, method=method)
    settings = dataclasses.replace(settings, training=dataclasses.replace(settings.training, batch=2))  # 1 grows there
    scan = quietray.read(foam_scan())
    here, there = (quietray.denoise(scan, None, dataclasses.replace(settings, device=name)) for name in ("cpu", "cuda"))
    errors = [found.metrics["estimate"]["rmse"] for found in (here, there)]
    assert 20 * np.log10(errors[1] / errors[0]) == pytest.approx(0, abs=1.0)
    assert there.volume.shape == here.volume.shape


def test_slabs_hardly_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan, settings = quietray.read(disc_scan()), quick(device="cuda")
    quietray.denoise(scan, tmp_path / "run", settings)
    whole = quietray.apply(tmp_path / "run/model", scan, None, settings).volume
    in_slabs(monkeypatch, heights=2)
    slabs = quietray.apply(tmp_path / "run/model", scan, None, settings).volume
    assert np.abs(np.asarray(whole) - np.asarray(slabs)).max() < 1e-2 * np.ptp(np.asarray(whole))


def test_bfloat16_is_there() -> None:
    assert precision("auto", GPU) in ("bf16-mixed", "32-true")
    assert chosen_device() == GPU
    assert (device_memory(GPU) or 0) > 2**28


def test_nothing_stays_on_the_device() -> None:
    before = torch.cuda.memory_allocated(GPU)
    result = quietray.denoise(quietray.read(disc_scan()), None, quick(device="cuda"))
    del result
    assert torch.cuda.memory_allocated(GPU) <= before + 2**24
