"""Real sizes: what every stage of a run takes on (a) 720 views x 64 rows x 768 columns, and on (b) a band of 64 rows of
1500 views x 2048 columns; and what whole scans take by arithmetic from (b).

    python benchmarks/bench_scale.py [a] [b] [--device cpu|cuda] [--steps 300] [--rows 64] [--reconstruct]

Seconds are wall-clock, and of all CPUs together (which waiting for other programs does not count towards).  Counts of
a foam are simulated and written to HDF5 before anything is timed.  Every stage but training is linear in the rows;
training is asked for by its number of steps.  The floor of a whole scan is the time in which its counts and its volume
are copied once, at the bandwidth that is measured here.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import quietray  # before torch, whose threads then wait without computing
from quietray.running.device import chosen_device, device_name
from quietray.running.watch import Watch
from quietray.simulate.noise import Scintillator

SCANS = {"a": (720, 64, 768), "b": (1500, 64, 2048)}
WHOLE = {"2048 x 2048 x 2048": (2048, 2048, 1500), "3232 x 3232 x 2426": (2426, 3232, 3232)}


class Clock(Watch):
    """Keeps how long every stage took, and how much of the CPUs."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[..., None]]:
        """Time a stage."""
        begun, cpu = time.perf_counter(), time.process_time()
        yield lambda done, text="": None
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun
        self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - cpu


def main() -> None:
    """Print the tables."""
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("scans", nargs="*", default=["a"], help="a, b")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--reconstruct", action="store_true", help="no denoising")
    asked = parser.parse_args()
    device = chosen_device(asked.device)
    print(f"{device_name(device)}, {torch.get_num_threads()} threads\n", flush=True)
    for name in asked.scans:
        views, rows, columns = SCANS[name]
        rows = min(rows, asked.rows)
        with tempfile.TemporaryDirectory() as folder:
            path = written(Path(folder) / "scan.h5", views, rows, columns)
            clock, begun, cpu = Clock(), time.perf_counter(), time.process_time()
            settings = quietray.Settings(
                method="noise2inverse",
                device=asked.device,
                symmetries=1,
                rotation_axis=(columns - 1) / 2,
                training=quietray.Training(steps=asked.steps),
            )
            if asked.reconstruct:
                quietray.reconstruct(quietray.read(path), Path(folder) / "volume.zarr", settings, watch=clock)
                facts = {}
            else:
                result = quietray.denoise(quietray.read(path), Path(folder) / "out", settings, watch=clock)
                facts = result.metrics["training"]
            took, cpu = time.perf_counter() - begun, time.process_time() - cpu
        table(f"({name}) {views} views x {rows} rows x {columns} columns", clock, (took, cpu), rows)
        if facts:
            batch, patch = result.denoiser.facts["batch"], min(settings.training.patch, columns)
            rate = facts["steps"] * batch * patch**2 / clock.seconds["training"] / 1e6
            print(f"training: {facts['steps']} steps of {batch} patches of {patch}, {rate:.1f} Mvoxel/s\n", flush=True)
        if name == "b":
            by_arithmetic(clock.seconds, took, rows, columns, views)


def written(path: Path, views: int, rows: int, columns: int) -> Path:
    """Simulate a scan and write it."""
    beam = quietray.ParallelBeam(np.linspace(0, np.pi, views, endpoint=False), rows, columns)
    foam = quietray.Foam.packed(300, 0.5 * rows / columns + 0.05, np.random.default_rng(0), largest=0.2)
    detector = Scintillator(gain=10.0, dark=100.0, read_noise=2.0)
    return quietray.write_scan(path, quietray.acquire(foam, beam, photons=400.0, n_flats=20, detector=detector))


def table(title: str, clock: Clock, took: tuple[float, float], rows: int) -> None:
    """Print what every stage took, on the clock and of the CPUs."""
    print(f"{title}\n\n| stage | seconds | CPU seconds | a row (ms) |\n|---|---|---|---|")
    both = [
        {**each, "the rest (judging, report, files)": total - sum(each.values()), "all": total}
        for each, total in zip((clock.seconds, clock.cpu), took, strict=True)
    ]
    for name, value in both[0].items():
        print(f"| {name} | {value:.2f} | {both[1][name]:.2f} | {1000 * value / rows:.1f} |")
    wall, cpu = (each["all"] - each.get("training", 0.0) for each in both)
    print(f"\neverything but training: {wall:.1f} s, {cpu:.1f} CPU seconds\n", flush=True)


def by_arithmetic(seconds: dict[str, float], took: float, rows: int, columns: int, views: int) -> None:
    """Print what whole scans take: stages linear in rows, and per row in the work that a slice is."""
    copied = np.zeros(2**28, np.uint8)
    begun = time.perf_counter()
    copied.copy()
    bandwidth = copied.size / (time.perf_counter() - begun)
    print(f"Whole scans; training is not in it.  Memory is copied here at {bandwidth / 1e9:.1f} GB/s.\n")
    print("| volume | views | hours | floor: counts in, volume out (s) |\n|---|---|---|---|")
    a_row = (took - seconds.get("training", 0.0)) / rows
    for name, (n_rows, n_columns, n_views) in WHOLE.items():
        larger = max(n_columns**2 / columns**2, n_views * n_columns / (views * columns))  # voxels, or counts, of a row
        floor = n_rows * n_columns * (2 * n_views + 4 * n_columns) / bandwidth
        print(f"| {name} | {n_views} | {n_rows * a_row * larger / 3600:.2f} | {floor:.0f} |", flush=True)


if __name__ == "__main__":
    main()
