"""Correction on one thread, against the code before it and against algotom: how fast, how near.

    python benchmarks/bench_correct.py [--before REVISION] [--views 720] [--cols 768]

Eight rows of a disc with pores, 1000 photons, zingers, two dead columns, gains of 1 %, a beam that varies by 1 %.  Both
sides take turns, the least of three repeats counts, in seconds of the processor.  `--before` takes the numpy correction
of a revision out of git (c6013fb was the last) and says where the line integrals differ; values of one column that are
equal to the last bit may have changed places in ring removal.
"""

import argparse
import dataclasses
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from algotom.prep.calculation import find_center_vo

from quietray.detector.correction.correct import Correction, calibrate, correct_rows
from quietray.detector.correction.rotation import find_rotation_axis
from quietray.detector.correction.wedge import axis_of_double_wedge
from quietray.geometry import ParallelBeam
from quietray.scan import Scan

ROOM = "quietray.detector.correction"
ROWS, SURVEYED = 8, 64

torch.set_num_threads(1)


def pores(n_rows: int, n_views: int, n_cols: int) -> tuple[Scan, float]:
    """Return a scan, and where its axis is."""
    rng = np.random.default_rng(0)
    angles, axis = np.linspace(0, np.pi, n_views, endpoint=False), n_cols / 2 + 3.3
    edges, radius = np.arange(n_cols + 1) - 0.5 - axis, 0.4 * n_cols
    total = np.zeros((n_views, n_cols))
    discs = [(0.0, 0.0, radius, 1.2 / radius)]
    for away, turn in zip(0.85 * radius * np.sqrt(rng.random(60)), rng.uniform(0, 2 * np.pi, 60), strict=True):
        discs.append((away * np.cos(turn), away * np.sin(turn), rng.uniform(0.01, 0.12) * radius, -1 / radius))
    for x, y, size, value in discs:
        shadow = (x * np.cos(angles) + y * np.sin(angles))[:, None]
        inside = np.clip((edges - shadow) / size, -1, 1)
        total += value * np.diff(size**2 * (inside * np.sqrt(1 - inside**2) + np.arcsin(inside)), axis=1)
    gain = 1 + 0.01 * rng.standard_normal((n_rows, n_cols))
    beam = 1 + 0.01 * rng.standard_normal((n_views, 1, 1))
    counts = rng.poisson(1000 * np.exp(-total)[:, None] * gain * beam)
    counts.reshape(-1)[rng.integers(0, counts.size, counts.size // 20000)] += 5000
    flats = rng.poisson(1000, (20, n_rows, n_cols))
    flats[:, :, n_cols // 8 : n_cols // 8 + 2] = 0
    darks = np.full((5, n_rows, n_cols), 100, np.uint16)
    geometry = ParallelBeam(angles, n_rows, n_cols)
    return Scan((counts + 100).astype(np.uint16), geometry, (flats + 100).astype(np.uint16), darks), axis


def before(revision: str) -> Callable:
    """Return `correct_rows` as it was, on one thread."""
    modules = {}
    for name in ("zingers", "correct"):
        path = f"src/{ROOM.replace('.', '/')}/{name}.py"
        text = subprocess.run(["git", "show", f"{revision}:{path}"], capture_output=True, text=True, check=True).stdout
        module = types.ModuleType(f"before_{name}")
        sys.modules[module.__name__] = module
        exec(
            text.replace(f"{ROOM}.zingers", "before_zingers").replace("min(8, os.cpu_count() or 1", "min(1"),
            vars(module),
        )
        modules[name] = module
    return modules["correct"].correct_rows


def seconds(*works: Callable, repeats: int = 3) -> list[tuple[float, object]]:
    """Return, for each, the least seconds of the processor and what it returned; they take turns."""
    best: list[tuple[float, object]] = [(np.inf, None)] * len(works)
    for _ in range(repeats):
        for index, work in enumerate(works):
            start = time.process_time()
            returned = work()
            best[index] = min(best[index], (time.process_time() - start, returned), key=lambda one: one[0])
    return best


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", metavar="REVISION")
    parser.add_argument("--views", type=int, default=720)
    parser.add_argument("--cols", type=int, default=768)
    asked = parser.parse_args()
    scan, axis = pores(SURVEYED, asked.views, asked.cols)
    ((took, calibration),) = seconds(lambda: calibrate(scan, Correction()), repeats=2)
    print(f"calibrate, {SURVEYED} rows of {asked.views} views x {asked.cols} columns: {took:.2f} s")
    rows = slice(0, ROWS)
    counts, old = scan.read(rows), before(asked.before) if asked.before else None
    print(f"{ROWS} rows of {asked.views} views x {asked.cols} columns, seconds of one processor")
    print("| rings | before | now | times faster | samples that differ by more than 1e-6 |\n|---|---|---|---|---|")
    for rings in ("none", "sorting", "large", "all"):
        known = dataclasses.replace(calibration, remove_rings=rings)
        works = [lambda known=known, of=of: of(counts, known, rows)[0] for of in (correct_rows, old) if of]
        (now, found), *then = seconds(*works)
        if then:
            apart = np.abs(found - then[0][1])
            print(f"| {rings} | {then[0][0]:.2f} | {now:.2f} | {then[0][0] / now:.1f} | {np.mean(apart > 1e-6):.1e} |")
        else:
            print(f"| {rings} | | {now:.2f} | | |")
    sinogram = correct_rows(counts, calibration, rows)[0][0]
    low, high = int(axis) - 28, int(axis) + 28
    works = [
        lambda: find_center_vo(sinogram, start=low, stop=high, ncore=1),
        lambda: axis_of_double_wedge(sinogram, low, high),
    ]
    (then, theirs), (now, ours) = seconds(*works, repeats=2)
    print(
        f"Vo's metric, one row, the axis at {axis:.2f}: "
        f"algotom {then:.2f} s, at {theirs:.2f}; here {now:.2f} s, at {ours:.2f}"
    )
    ((took, found),) = seconds(lambda: find_rotation_axis(scan, calibration), repeats=2)
    print(f"find_rotation_axis, all methods, twelve rows corrected: {took:.2f} s, at {found.column:.2f}")


if __name__ == "__main__":
    main()
