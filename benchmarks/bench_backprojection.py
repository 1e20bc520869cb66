"""Filtered backprojection of parallel beams, FINUFFT against ASTRA's strips: how fast, how near, how noisy; one thread.

    python benchmarks/bench_backprojection.py [--quick] [--repeats N]

The slice is a disc with 200 round pores; its line integrals are exact means over the pixels, and the truth is the share
of each voxel.  Errors are root mean squares inside the field of view, relative to the attenuation; the noise is what
white noise of standard deviation 1 becomes.  Seconds are of one slice, without what is prepared once for a scan (its
own column); both take turns, the least of the repeats counts, and processor seconds tell how many times faster.
"""

import argparse
import math
import os
import time

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from quietray.geometry import ParallelBeam
from quietray.operators.astra import ParallelProjector
from quietray.operators.nufft import ParallelRays
from quietray.reconstruct import FBP

torch.set_num_threads(1)


def pores(n: int, n_views: int, seed: int = 0) -> tuple[ParallelBeam, np.ndarray, np.ndarray]:
    """Return a beam, a slice ``(y, x)``, and its line integrals ``(1, view, col)``."""
    beam = ParallelBeam(np.linspace(0, np.pi, n_views, endpoint=False), 1, n)
    rng, truth, y = np.random.default_rng(seed), np.zeros((n, n), np.float32), np.zeros((n_views, n))
    add(truth, y, beam, 0.0, 0.0, 0.45 * n, 1.0)
    found: list[tuple[float, float, float]] = []
    while len(found) < 200:
        radius, (at_y, at_x) = math.exp(rng.uniform(math.log(2), math.log(0.05 * n))), rng.uniform(-0.42, 0.42, 2) * n
        near = any(math.hypot(at_y - a, at_x - b) < radius + r for a, b, r in found)
        if near or math.hypot(at_y, at_x) + radius > 0.43 * n:
            continue
        found.append((at_y, at_x, radius))
        add(truth, y, beam, at_y, at_x, radius, -1.0)
    return beam, truth, y[None].astype(np.float32)


def add(
    truth: np.ndarray, y: np.ndarray, beam: ParallelBeam, at_y: float, at_x: float, radius: float, value: float
) -> None:
    """Add a disc to the slice and to its line integrals."""
    n, sub = beam.n_cols, (np.arange(8) + 0.5) / 8 - 0.5
    up, right = (n - 1) / 2 - np.arange(n), np.arange(n) - (n - 1) / 2
    rows = np.flatnonzero(np.abs(up - at_y) < radius + 1)
    cols = np.flatnonzero(np.abs(right - at_x) < radius + 1)
    share = np.zeros((rows.size, cols.size))
    for dy in sub:
        for dx in sub:
            share += np.hypot(up[rows, None] + dy - at_y, right[cols] + dx - at_x) <= radius
    truth[np.ix_(rows, cols)] += (value / 64 * share).astype(np.float32)
    shadow = beam.axis + at_x * np.cos(beam.angles) + at_y * np.sin(beam.angles)
    edges = np.clip((np.arange(n + 1) - 0.5 - shadow[:, None]) / radius, -1, 1)
    y += np.diff(value * radius**2 * (edges * np.sqrt(1 - edges**2) + np.arcsin(edges)), axis=1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="256 x 256, 400 views only")
    parser.add_argument("--repeats", type=int, default=3, help="of slices below 1000 columns")
    asked = parser.parse_args()
    sizes = [(256, 400)] if asked.quick else [(512, 720), (768, 720), (2048, 1500)]
    print("| slice | views | | s a slice | processor s | prepared (s) | times faster | error | noise |")
    print("|---|---|---|---|---|---|---|---|---|")
    for n, n_views in sizes:
        beam, truth, y = pores(n, n_views)
        white = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
        seen = np.hypot(*np.meshgrid(*2 * [np.arange(n) - (n - 1) / 2])) < n / 2 - 1
        rays, projector, share = ParallelRays(beam, threads=1), ParallelProjector(beam, threads=1), np.pi / n_views

        def astra(y: np.ndarray) -> np.ndarray:
            return projector.adjoint(FBP().filtered(y)) * np.float32(share)  # noqa: B023

        def ours(y: np.ndarray) -> np.ndarray:
            return FBP()(rays, y)  # noqa: B023

        started = time.perf_counter()
        ours(y)
        prepared = time.perf_counter() - started
        took: dict[str, list[tuple[float, float]]] = {"ASTRA, `strip`": [], "FINUFFT": []}
        found = {}
        for _ in range(asked.repeats if n < 1000 else 1):
            for name, work in zip(took, (astra, ours), strict=True):
                wall, processor = time.perf_counter(), time.thread_time()
                found[name] = work(y)[0]
                took[name].append((time.perf_counter() - wall, time.thread_time() - processor))
        least = {name: np.min(times, axis=0) for name, times in took.items()}
        for name, work in zip(took, (astra, ours), strict=True):
            wall, processor = least[name]
            faster = least["ASTRA, `strip`"][1] / processor
            extra = f"{prepared - wall:.2f}" if work is ours else ""
            error, noise = np.sqrt(np.square(found[name] - truth)[seen].mean()), work(white)[0][seen].std()
            figures = f"{wall:.3f} | {processor:.3f} | {extra} | {faster:.0f} | {error:.4f} | {noise:.4f}"
            print(f"| {n} x {n} | {n_views} | {name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
