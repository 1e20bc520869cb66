"""What the network sees: one slice, slices around it, volumes, steps of a series; and X:1 against 1:X.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/bench_windows.py         # both tables, about 40 minutes
    python benchmarks/bench_windows.py --budget 4m                                   # equal times, on an idle machine
    python benchmarks/bench_windows.py --only time --growth 0.2

Space: the foam of bench_foam.py.  Time: the same foam in 8 steps, each of 32 of its 256 angles and noise of its own;
the angles of the steps interlaced (step k has every eighth angle, from the k-th on); with --growth its voids grow by
that share from the first to the last step.  Every network is the default U-Net, no average over symmetries.  Volumes
are trained on patches of 16 slices of 64 x 64, four times the voxels of the others' patches: in a quarter of the steps
as many voxels, in the same number of steps four times as many.

PSNR is against the FBP of all 256 noise-free views, of each step its own; the mean over the steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import numpy as np
from foam import Foam

import quietray
from quietray.detector.correction.correct import calibrate, correct_rows
from quietray.metrics.image import compare
from quietray.result import Result
from quietray.running.settings import Training
from quietray.splits.inverse import Noise2Inverse
from quietray.workflows import Settings

STEPS = 8


def main() -> None:
    """Print the tables."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--steps", type=int, default=1000, help="of training, of one patch of 128 x 128 each")
    flags.add_argument("--budget", help="time for every row, such as 60s, instead of steps")
    flags.add_argument("--only", choices=["space", "time"])
    flags.add_argument("--growth", type=float, default=0.0, help="of the voids, from the first to the last step")
    flags.add_argument("--slices", type=int, default=1, help="of every step of the series")
    asked = flags.parse_args()
    foam = Foam()
    if asked.only != "time":
        in_space(foam, asked)
    if asked.only != "space":
        in_time(foam, asked)


def in_space(foam: Foam, asked: argparse.Namespace) -> None:
    """Print what slices and volumes are worth."""
    head("space", asked, foam.psnr(fbp(foam.scan)))
    volume = quietray.UNet(dimensions=3)
    scan = drawn(foam.scan)
    for name, method, network in (
        ("2-D, X:1", Noise2Inverse(slices=1), quietray.UNet()),
        ("2.5-D, 7 slices, X:1", Noise2Inverse(), quietray.UNet()),
        ("2.5-D, 7 slices, 1:X", Noise2Inverse(input="1:X"), quietray.UNet()),
        ("3-D, X:1, a quarter of the steps", Noise2Inverse(), volume),
        ("3-D, X:1", Noise2Inverse(), volume),
    ):
        started = time.process_time()
        told = settings(method, network, asked)
        if network.dimensions == 3:
            fewer = asked.steps // 4 if "quarter" in name else asked.steps
            steps = None if asked.budget else fewer
            told = dataclasses.replace(told, training=dataclasses.replace(told.training, patch=64, steps=steps))
        result = quietray.denoise(scan, None, told)
        tell(name, result, foam.psnr(np.asarray(result.volume)), time.process_time() - started)


def in_time(foam: Foam, asked: argparse.Namespace) -> None:
    """Print what neighbours in time are worth."""
    whole = [step_of(foam, k, asked.growth) for k in range(STEPS)]
    clean = [quietray.FBP()(quietray.ParallelProjector(scan.geometry), sinograms(scan)) for scan in whole]
    scans = [scan[k::STEPS] for k, scan in enumerate(whole)]

    def psnr(volumes: list[np.ndarray]) -> float:
        found = []
        for volume, truth in zip(volumes, clean, strict=True):
            span = float(np.ptp(truth[:, foam.mask]))
            found.append(compare(volume, truth, data_range=span, mask=foam.mask).psnr)
        return float(np.mean(found))

    head(f"time, growth {asked.growth:g}", asked, psnr([fbp(scan) for scan in scans]))
    for times in (1, 3, 5):
        started = time.process_time()
        method = Noise2Inverse(slices=asked.slices, times=times)
        result = quietray.denoise(scans[0], None, settings(method, quietray.UNet(), asked), series=scans[1:])
        name = f"{times} of {STEPS} steps, slices: {asked.slices}"
        tell(name, result, psnr(list(result.volume)), time.process_time() - started)


def step_of(foam: Foam, k: int, growth: float) -> quietray.Scan:
    """Return all views of a step, with noise of its own."""
    packed = quietray.Foam.packed(300, 0.35, np.random.default_rng(0), largest=0.08)
    share = np.array([1, 1, 1, 1 - growth * (STEPS - 1 - k) / (STEPS - 1)])
    grown = dataclasses.replace(packed, spheres=packed.spheres * share)
    return drawn(quietray.acquire(grown, foam.scan.geometry, photons=foam.photons, n_flats=400, seed=k))


def drawn(scan: quietray.Scan) -> quietray.Scan:
    """Return a simulated scan in memory, so that its noise is not drawn anew at every look."""
    frames = {name: np.asarray(getattr(scan, name)[:]) for name in ("projections", "flats", "darks", "clean")}
    return dataclasses.replace(scan, **frames)


def sinograms(scan: quietray.Scan) -> np.ndarray:
    """Return noise-free line integrals ``(row, view, col)``."""
    return np.ascontiguousarray(np.swapaxes(np.asarray(scan.clean[:], np.float32), 0, 1))


def fbp(scan: quietray.Scan) -> np.ndarray:
    """Return the reconstruction of the noisy views."""
    calibration, rows = calibrate(scan), slice(0, scan.n_rows)
    corrected, _ = correct_rows(scan.read(rows), calibration, rows)
    return quietray.FBP()(quietray.ParallelProjector(scan.geometry), corrected)


def settings(method: Noise2Inverse, network: quietray.UNet, asked: argparse.Namespace) -> Settings:
    """Return what a row is run with: so many steps, or so much time."""
    training = Training() if asked.budget else Training(steps=asked.steps, patience=1.0)
    return Settings(method=method, network=network, training=training, symmetries=1, budget=asked.budget or "4m")


def head(name: str, asked: argparse.Namespace, noisy: float) -> None:
    """Begin a table."""
    print(
        f"\n| {name}, {asked.budget or 'equal steps'} | steps | processor (s) | PSNR (dB) |\n|---|---|---|---|",
        flush=True,
    )
    print(f"| FBP, no denoising | | | {noisy:.2f} |", flush=True)


def tell(name: str, result: Result, psnr: float, seconds: float) -> None:
    """Add a row."""
    steps = result.metrics["training"]["steps"]
    print(f"| {name} | {steps} | {seconds:.0f} | {psnr:.2f} |", flush=True)


if __name__ == "__main__":
    main()
