"""Fan and cone scans as a user runs them."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import quietray
import quietray.preparation.prepare as prepare_module
from matrix import cone
from quietray import GeometryError, Noise2Inverse, Noise2Self, ResourceError, Scan, Settings
from quietray.cli import main
from quietray.geometry import ConeBeam
from quietray.operators.backprojection import ConeRays
from quietray.reconstruct import ALGORITHMS, CGLS, FDK, SIRT, TV
from quietray.running.plan import plan_run, plan_whole, rows_of_slices
from quietray.running.run import Run
from quietray.running.settings import Auto
from rtk import require_rtk
from scans import in_slabs, quick, write

pytestmark = pytest.mark.usefixtures("short_report")


@functools.cache
def foam(beam: str, *more: str) -> Path:
    """Return the file of a simulated scan, by the command."""
    path = write(Scan(np.ones((2, 1, 1), np.uint16), quietray.ParallelBeam(np.zeros(2), 1, 1)), "place").parent / "s.h5"
    usual = (
        "--views 60 --rows 8 --cols 24 --spheres 8 --largest 0.3 --photons 400 --flats 30 --darks 4 --pixel-size 0.1"
    )
    main(["simulate", "--out", str(path), "--beam", beam, *usual.split(), *more])
    return path


def test_simulate_writes_the_pairs() -> None:
    scan = quietray.read(foam("cone", "--pairs", "3", "--degrees", "0"))
    assert isinstance(scan.geometry, ConeBeam)
    assert not scan.geometry.turning
    assert sorted(scan.by_detector()) == [0, 1, 2]
    assert len(np.unique(np.rad2deg(scan.geometry.angles).round(6))) == 3
    assert scan.truth is not None
    assert prepare_module.usable(Settings().correction, scan)[0].rings == "none"


def test_views_of_every_pair_choose_the_iterations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan, asked, made = quietray.read(foam("fan")), [], prepare_module.projector
    monkeypatch.setattr(prepare_module, "projector", lambda beam, *a, **k: asked.append(beam) or made(beam, *a, **k))
    quietray.reconstruct(
        dataclasses.replace(scan, detectors=np.arange(60) % 2),
        tmp_path / "one.zarr",
        Settings(reconstruction=SIRT(), rows="2:5"),
    )
    held = np.searchsorted(scan.geometry.angles, asked[1].angles)
    np.testing.assert_array_equal(scan.geometry.angles[held], asked[1].angles)
    assert min(np.bincount(held % 2, minlength=2)) >= 3


@pytest.mark.parametrize("beam", ["fan", "cone"])
def test_reconstruct(beam: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan, out = quietray.read(foam(beam)), tmp_path / "one.zarr"
    quietray.reconstruct(scan, out)
    whole = np.asarray(quietray.read_volume(out))
    assert scan.truth is not None
    truth = np.asarray(scan.truth[:])
    inside = np.hypot(*np.ogrid[-11.5:12, -11.5:12]) < 10
    likeness = np.corrcoef(whole[2:-2, inside].ravel(), truth[2:-2, inside].ravel())[0, 1]
    assert likeness > 0.8
    in_slabs(monkeypatch, heights=3)
    quietray.reconstruct(scan, tmp_path / "slabs.zarr")
    np.testing.assert_array_equal(np.asarray(quietray.read_volume(tmp_path / "slabs.zarr")), whole)
    quietray.reconstruct(scan, tmp_path / "some.zarr", Settings(rows="2:5"))
    np.testing.assert_array_equal(np.asarray(quietray.read_volume(tmp_path / "some.zarr")), whole[2:5])


@pytest.mark.slow
def test_what_iterates_on_a_cone_beam(tmp_path: Path) -> None:
    require_rtk()
    scan = quietray.read(foam("cone"))
    settings = Settings(reconstruction=SIRT(iterations=60, box=(0.0, 1.0)))
    quietray.reconstruct(scan, tmp_path / "all.zarr", settings)
    whole = np.asarray(quietray.read_volume(tmp_path / "all.zarr"))
    assert whole.min() >= 0
    assert scan.truth is not None
    inside = np.hypot(*np.ogrid[-11.5:12, -11.5:12]) < 10
    assert np.corrcoef(whole[:, inside].ravel(), np.asarray(scan.truth[:])[:, inside].ravel())[0, 1] > 0.8
    with pytest.raises(ResourceError, match=r"whole volume \(10, 24, 24\) and its 60 views must fit .* need \d"):
        quietray.reconstruct(scan, tmp_path / "no.zarr", dataclasses.replace(settings, max_memory="300M"))


@pytest.mark.slow
def test_noise2self_on_three_pairs(tmp_path: Path) -> None:
    scan = quietray.read(foam("cone", "--rows", "16", "--pairs", "3", "--response-width", "0.3", "0.4", "0.5"))
    method = Noise2Self()
    result = quietray.denoise(scan, tmp_path / "out", quick(4, method=method, rotation_axis=None, whiten="always"))
    assert result.metrics["reconstruction"]["settings"]["name"] == "fdk"
    clean = quietray.read(tmp_path / "out/radiographs.h5")
    np.testing.assert_array_equal(clean.geometry.sources, scan.geometry.sources)
    np.testing.assert_array_equal(clean.detectors, scan.detectors)
    widths = [part["kernel"] for part in clean.provenance["point_response"]["detectors"].values()]
    assert len(widths) == 3
    assert widths[0] != widths[2]


def test_auto_denoises_the_radiographs_of_a_diverging_beam() -> None:
    result = quietray.denoise(quietray.read(foam("fan")), None, quick(3, method=Auto(), rotation_axis=None))
    assert result.metrics["method"]["name"] == "noise2self"
    assert any("radiographs of any beam" in note for note in result.notes)


@pytest.mark.parametrize("beam", ["fan", "cone"])
def test_noise2inverse_on_subsets(beam: str) -> None:
    method = Noise2Inverse(parts=2, slices=1)
    result = quietray.denoise(quietray.read(foam(beam)), None, quick(4, method=method, rotation_axis=None))
    assert result.metrics["reconstruction"]["linear"]
    assert np.isfinite(np.asarray(result.volume)).all()


def test_subsets_of_a_cone_add_up() -> None:
    scan = quietray.read(foam("cone"))
    prepared = prepare_module.prepare(scan, Run.in_memory(quick(rotation_axis=None)), 2)
    assert isinstance(prepared.algorithm, FDK)
    halves, whole = (prepared.source(n)(slice(1, 4))[0] for n in (2, 1))
    np.testing.assert_allclose(halves.mean(axis=0), whole[0], atol=1e-4 * np.abs(whole).max())


def test_what_is_for_parallel_beams_only_says_so(tmp_path: Path) -> None:
    scan = quietray.read(foam("cone"))
    with pytest.raises(GeometryError, match="comparing methods must have a parallel beam, got a cone beam"):
        quietray.compare(scan, tmp_path / "out")


def test_the_axis_of_a_fan_is_found_over_a_full_turn() -> None:
    fan = quietray.read(foam("fan"))
    unknown = dataclasses.replace(fan, geometry=dataclasses.replace(fan.geometry, rotation_axis=None))
    known = prepare_module.calibrated(unknown, Run.in_memory(Settings()))
    assert known.scan.geometry.axis == pytest.approx(fan.geometry.axis, abs=0.3)
    assert "found from opposite rays" in known.notes[-1]
    short = prepare_module.calibrated(unknown[: fan.n_views * 2 // 3], Run.in_memory(Settings()))
    assert "taken at the detector's middle" in short.notes[-1]
    assert "give it with --rotation-axis" in short.notes[-1]


def test_a_few_turns_too_little_are_told_before_the_work_begins() -> None:
    with pytest.raises(GeometryError, match="must cover a full turn"):
        quietray.denoise(quietray.read(foam("cone", "--degrees", "90")), None, quick(3, method=Noise2Self()))


def test_the_plan_counts_the_rows_that_slices_need() -> None:
    beam = cone(12, 64, 64)
    stretch, spread = rows_of_slices(beam, beam.grid())
    for first, last in ((0, 1), (0, 9), (20, 45), (63, 64), (0, 64)):
        assert len(ConeRays(beam, beam.grid().slab(first, last)).seen) <= stretch * (last - first) + spread + 1
    scan = Scan(np.ones((12, 64, 64), np.uint16), beam)
    plan = plan_run(scan, range(64), beam.grid(), parts=1, n_slices=1, memory=2**30)
    assert plan.in_one_piece


def test_what_iterates_is_planned_by_what_it_holds() -> None:
    beam = cone(12, 64, 64)
    scan = Scan(np.ones((12, 64, 64), np.uint16), beam)
    common = {"memory": 2**31, "base": 0, "parts": 1, "n_slices": 1}
    tv, cgls, sirt = (
        plan_whole(scan, range(64), beam.grid(), algorithm=each, **common).peak for each in (TV(), CGLS(), SIRT())
    )
    assert tv > sirt + 6 * 4 * 64**3
    assert tv > cgls + 6 * 4 * 64**3
    with pytest.raises(ResourceError, match="whole volume"):
        plan_whole(scan, range(64), beam.grid(), algorithm=TV(), **common | {"memory": tv - 1})


_PEAK = """
import sys
import numpy as np
from quietray.geometry import ConeBeam
from quietray.operators.cone import ConeProjector
from quietray.reconstruct import CGLS, SIRT, TV

def status(key):
    line = next(line for line in open("/proc/self/status") if line.startswith(key))
    return int(line.split()[1]) * 1024

def run(n, views):
    beam = ConeBeam.circular(np.linspace(0, 2 * np.pi, views, endpoint=False), n, n, 4.0 * n, 6.0 * n)
    grid, y = beam.tall_grid(beam.grid()), np.random.default_rng(0).random((n, views, n), np.float32)
    algorithm = {"SIRT": SIRT(3), "CGLS": CGLS(3), "TV": TV(0.1, 3)}[sys.argv[1]]
    algorithm(ConeProjector(beam, grid), y)
    return 4 * grid.shape[0] * grid.n_pixels, y.nbytes

run(16, 4)  # libraries and threads
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
sizes = run(int(sys.argv[2]), int(sys.argv[3]))
print(status("VmHWM") - before, *sizes)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux, which tells the peak memory")
@pytest.mark.parametrize("name", ["SIRT", "CGLS", "TV"])
def test_the_plan_is_near_what_is_held(name: str) -> None:
    require_rtk()
    volumes, stacks = ALGORITHMS[name.lower()].held
    for n, views in ((96, 12), (96, 96)):
        command = [sys.executable, "-c", _PEAK, name, str(n), str(views)]
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "262144"}  # freed arrays go back, as large ones do
        found = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True, env=environment)
        peak, volume, stack = (int(number) for number in found.stdout.split())
        planned = volumes * volume + stacks * stack
        print(f"{name}, {n}^3 of {views} views: {peak / 2**20:.1f} MiB held, {planned / 2**20:.1f} planned")
        assert peak < planned + 16 * 2**20  # which the plan's fixed part covers
        assert planned < 2 * peak


def test_no_cone_beam_ends_the_process_without_a_gpu() -> None:
    code = """
import numpy as np
from quietray.errors import ResourceError
from quietray.geometry import ConeBeam
from quietray.operators.astra import gpu_usable
from quietray.operators.cuda import CudaConeProjector, astra_geometries
beam = ConeBeam.circular(np.linspace(0, 6, 4), 6, 8, 20.0, 30.0)
astra_geometries(beam, beam.grid())
try:
    CudaConeProjector(beam)
except ResourceError as error:
    print("refused:", error)
print("alive", gpu_usable())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr
    assert (
        "alive True" in found.stdout
        or "refused: cone-beam projection through ASTRA must have a CUDA GPU" in found.stdout
    )


def test_without_rtk_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from quietray.errors import MissingExtra
    from quietray.operators.beams import projector

    monkeypatch.setitem(sys.modules, "itk", None)
    monkeypatch.setattr("quietray.operators.beams.gpu_usable", lambda: False)
    with pytest.raises(MissingExtra, match=r"quietray\[cone\]"):
        projector(cone())
