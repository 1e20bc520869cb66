"""What neighbouring slices are worth in a volume given as images, by number of slices that the network sees.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/bench_stacks.py --steps 300    # equal steps
    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/bench_stacks.py --budget 90s   # equal times

Volumes: the FBP of a foam of 40 spheres (that of bench_foam.py has 300), whose noise is correlated within slices and
independent between them (recorrupted; noise2noise with a reconstruction of the even and one of the odd views); and its
noise-free FBP with white noise of the same power (noise2self).  The network is the default U-Net, without an average
over symmetries.

PSNR is against the FBP of all noise-free views; one column for each seed of foam, noise and training.  The time is that
of a run on average.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from foam import Foam

import quietray
from quietray.detector.correction.correct import calibrate, correct_rows
from quietray.images import ImageSeries
from quietray.method import METHODS
from quietray.running.settings import Training
from quietray.types import Volume


def main() -> None:
    """Print the table."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--steps", type=int, default=300, help="of training, of one patch of 128 x 128 each")
    flags.add_argument("--budget", help="time for every run, such as 90s, instead of steps")
    flags.add_argument("--windows", type=int, nargs="+", default=[1, 3, 5, 7])
    flags.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    flags.add_argument("--photons", type=float, default=400.0, help="per pixel of the open beam")
    asked = flags.parse_args()
    foams = {seed: Foam(photons=asked.photons, seed=seed, spheres=40) for seed in asked.seeds}
    print(
        f"| {asked.budget or f'{asked.steps} steps'} | slices | "
        + " | ".join(f"seed {s}" for s in foams)
        + " | processor (s) |"
    )
    print("|---|---|---|" + "---|" * len(foams), flush=True)
    for method in ("recorrupted", "noise2noise", "noise2self"):
        stacks = {seed: stacks_of(foam, method) for seed, foam in foams.items()}
        noisy = [foam.psnr(np.mean(stacks[seed], axis=0)) for seed, foam in foams.items()]
        print(f"| {method} | none, noisy | " + " | ".join(f"{one:.2f}" for one in noisy) + " | |", flush=True)
        for window in asked.windows:
            told, began = [], time.process_time()
            for seed, foam in foams.items():
                result = denoised(stacks[seed], method, window, seed, asked)
                assert result.metrics["method"]["slices"] == window, result.notes
                told.append(f"{foam.psnr(np.asarray(result.volume)):.2f}")
            each = (time.process_time() - began) / len(foams)
            print(f"| {method} | {window} | " + " | ".join(told) + f" | {each:.0f} |", flush=True)


def stacks_of(foam: Foam, method: str) -> list[Volume]:
    """Return the measurements of a method."""
    if method == "noise2self":
        sd = float((fbp(foam.scan) - foam.clean)[:, foam.mask].std())
        noise = np.random.default_rng(foam.seed).normal(0, sd, foam.clean.shape)
        return [(foam.clean + noise).astype(np.float32)]
    return [fbp(foam.scan[k::2]) for k in (0, 1)] if method == "noise2noise" else [fbp(foam.scan)]


def fbp(scan: quietray.Scan) -> Volume:
    """Return the reconstruction of the noisy views."""
    rows = slice(0, scan.n_rows)
    corrected, _ = correct_rows(scan.read(rows), calibrate(scan), rows)
    return quietray.FBP()(quietray.ParallelProjector(scan.geometry), corrected)


def denoised(stacks: list[Volume], method: str, window: int, seed: int, asked: argparse.Namespace) -> quietray.Result:
    """Denoise a volume as images."""
    series = [ImageSeries(stack, None, f"{number}", unit="1/pixel", step=1.0) for number, stack in enumerate(stacks)]
    settings = quietray.Settings(
        method=METHODS[method](slices=window),
        training=Training() if asked.budget else Training(steps=asked.steps, patience=1.0),
        symmetries=1,
        seed=seed,
        budget=asked.budget or "4m",
    )
    return quietray.denoise(series[0], None, settings, repeats=series[1:], progress=False)


if __name__ == "__main__":
    main()
