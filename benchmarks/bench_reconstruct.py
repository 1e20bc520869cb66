"""SIRT of few views: many slices through one sparse matrix, against slice by slice; one thread, one run.

    python benchmarks/bench_reconstruct.py [--quick] [--slices-of-rivals N]

Rivals work on N slices (all by default), and their time is given for as many as ours.
"""

import argparse
import os
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"

import astra
import numpy as np
import torch
from skimage.transform import iradon, iradon_sart

from quietray.geometry import ParallelBeam
from quietray.operators.astra import ParallelProjector
from quietray.operators.sparse import SparseProjector
from quietray.reconstruct import FBP, SIRT

torch.set_num_threads(1)


def discs(n_slices: int, n: int) -> np.ndarray:
    """Return slices of some discs."""
    rng, out = np.random.default_rng(0), np.zeros((n_slices, n, n), np.float32)
    y, x = np.ogrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j]
    for each in out:
        for _ in range(8):
            cy, cx, r = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), rng.uniform(0.05, 0.25)
            each[(y - cy) ** 2 + (x - cx) ** 2 < r * r] += 1 / n
    return out


def astra_sirt(y: np.ndarray, angles: np.ndarray, iterations: int) -> np.ndarray:
    """Return ASTRA's own SIRT, slice by slice, with the projector that is ours by default."""
    n = y.shape[2]
    beam, voxels = astra.create_proj_geom("parallel", 1.0, n, angles), astra.create_vol_geom(n, n)
    projector = astra.create_projector("strip", beam, voxels)
    out = []
    for sinogram in y:
        data, volume = astra.data2d.create("-sino", beam, sinogram), astra.data2d.create("-vol", voxels, 0)
        settings = astra.astra_dict("SIRT")
        settings |= {"ProjectorId": projector, "ProjectionDataId": data, "ReconstructionDataId": volume}
        algorithm = astra.algorithm.create(settings)
        astra.algorithm.run(algorithm, iterations)
        out.append(astra.data2d.get(volume))
        astra.algorithm.delete(algorithm)
        astra.data2d.delete([data, volume])
    astra.projector.delete(projector)
    return np.stack(out)


def timed(work: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    """Return what it makes, and the wall and processor seconds that it took."""
    wall, processor = time.perf_counter(), time.process_time()
    return work(), time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="128 x 128 x 16 and 20 iterations")
    parser.add_argument("--slices-of-rivals", type=int, default=None)
    asked = parser.parse_args()
    n, n_slices, iterations = (128, 16, 20) if asked.quick else (512, 64, 100)
    n_rivals = min(asked.slices_of_rivals or n_slices, n_slices)
    angles = np.linspace(0, np.pi, 32, endpoint=False)
    beam, sirt = ParallelBeam(angles, n_slices, n), SIRT(iterations=iterations)
    one = ParallelProjector(beam.rows(1), threads=1)
    y = ParallelProjector(beam, threads=1)(discs(n_slices, n))
    some, degrees, share = y[:n_rivals], np.rad2deg(angles), n_slices / n_rivals

    def ours() -> np.ndarray:
        return np.asarray(sirt(SparseProjector(ParallelProjector(beam, threads=1), threads=1), y))

    def each(make: Callable[[np.ndarray], np.ndarray]) -> Callable[[], np.ndarray]:
        return lambda: np.stack([make(sinogram) for sinogram in some])

    best, wall, processor = timed(ours)
    print(
        f"32 views, {n} x {n} x {n_slices} slices, {iterations} iterations, one thread; rivals on {n_rivals} slices\n"
    )
    print("| what | wall s | processor s | times ours (processor) | difference from ours |")
    print("|---|---|---|---|---|")
    print(f"| SIRT, sparse matrix, all slices at once (its making included) | {wall:.1f} | {processor:.1f} | 1 | |")
    rivals: dict[str, tuple[Callable[[], np.ndarray], bool]] = {
        "SIRT, our loop, ASTRA slice by slice": (each(lambda s: np.asarray(sirt(one, s[None]))[0]), True),
        "SIRT of ASTRA, slice by slice": (lambda: astra_sirt(some, angles, iterations), True),
        "FBP, ours through FINUFFT": (lambda: FBP()(ParallelProjector(beam.rows(n_rivals), threads=1), some), False),
        "FBP of scikit-image (iradon)": (each(lambda s: iradon(s.T, degrees, circle=True)), False),
        "one sweep of SART of scikit-image": (each(lambda s: iradon_sart(s.T.astype(np.float64), degrees)), False),
    }
    for name, (work, same) in rivals.items():
        found, took, spent = timed(work)
        off = np.linalg.norm(found - best[:n_rivals]) / np.linalg.norm(best[:n_rivals])
        figures = f"{took * share:.1f} | {spent * share:.1f} | {spent * share / processor:.1f}"
        print(f"| {name} | {figures} | {f'{off:.1e}' if same else 'another method'} |", flush=True)


if __name__ == "__main__":
    main()
