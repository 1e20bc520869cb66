"""Slabs on one and two workers, by processes of this machine or by SLURM, and how far that would go: a simulation.

    python benchmarks/bench_cluster.py                 # local:1 and local:2
    benchmarks/slurm.sh up; eval $(benchmarks/slurm.sh env); python benchmarks/bench_cluster.py slurm
    python benchmarks/bench_cluster.py simulate        # no cluster: processor seconds of a slab, and 10 TB from them

The simulation takes what was measured here: bytes read and written and seconds of computing for a slab, and seconds
that the scheduler and the client take for one.  Everything else in it is stated.
"""

from __future__ import annotations

import contextlib
import heapq
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import quietray
from quietray.io import open_volume_writer
from quietray.running.watch import Watch

ROWS, COLS, VIEWS = 384, 128, 192
ROUNDS = 2


class Stopwatch(Watch):
    """Notes how long each stage took."""

    def __init__(self) -> None:
        self.took: dict[str, float] = {}
        self.processor: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[object]:
        begun, spent = time.monotonic(), time.process_time()
        yield lambda done, text="": None
        self.took[name], self.processor[name] = time.monotonic() - begun, time.process_time() - spent


def a_scan(folder: Path) -> Path:
    foam = quietray.Foam.packed(60, 0.3, np.random.default_rng(0), largest=0.2)
    beam = quietray.ParallelBeam(
        np.linspace(0, np.pi, VIEWS, endpoint=False), ROWS, COLS, rotation_axis=(COLS - 1) / 2, pixel_size=2.0 / COLS
    )
    return quietray.write_scan(folder / "foam.h5", quietray.acquire(foam, beam, photons=200.0))


def place(kind: str, workers: int, folder: Path) -> str:
    if kind == "local":
        return f"local:{workers}"
    told = folder / f"slurm-{workers}.toml"
    told.write_text(
        f"[slurm]\nworkers = {workers}\ncores = 1\nmemory = '3 GB'\nwalltime = '01:00:00'\nwait = '10m'\n"
        f"log_directory = '{folder}'\nlocal_directory = '{folder}'\n"
    )
    return str(told)


@dataclass(frozen=True)
class Slab:
    """What is known of one: seconds of computing and of handling it out, bytes read and written."""

    compute: float
    read: float
    written: float
    handling: float


def a_model(folder: Path) -> tuple[Path, quietray.Settings]:
    """Return a scan and settings; the model of few steps is beside the scan."""
    path = a_scan(folder)
    settings = quietray.Settings(
        method=quietray.Noise2Inverse(slices=3),
        symmetries=1,
        rotation_axis=(COLS - 1) / 2,
        training=quietray.Training(steps=8),
        max_memory="3G",
    )
    quietray.train([quietray.read(path)], folder / "model", settings)
    return path, settings


def measured(kind: str, folder: Path) -> None:
    path, settings = a_model(folder)
    best: dict[int, float] = {}
    volumes = {}
    for _ in range(ROUNDS):
        for workers in (1, 2):
            with quietray.on_cluster(place(kind, workers, folder), max_memory="3G", tell=lambda text: None):
                scan, out = quietray.read(path), folder / f"out-{workers}"
                quietray.apply(folder / "model", scan, None, replace(settings, rows="0:8"))  # libraries are loaded
                watch = Stopwatch()
                result = quietray.apply(folder / "model", scan, out, settings, overwrite=True, watch=watch)
            took, slabs = watch.took["denoising"], result.metrics["memory"]["slabs"]
            volumes[workers] = np.asarray(result.volume)
            best[workers] = min(took, best.get(workers, took))
            print(f"{kind}, {workers} worker{'s' * (workers > 1)}: {took:.1f} s for {slabs} slabs", flush=True)
    assert np.array_equal(volumes[1], volumes[2])
    print(f"2 workers over 1, the quickest of {ROUNDS} each: {best[1] / best[2]:.2f}")
    print(f"handling an item: {1000 * handling(kind, folder):.1f} ms")


def handling(kind: str, folder: Path, count: int = 200) -> float:
    """Return the seconds that scheduler and client take for an item of no work."""
    from quietray.running.cluster import hired
    from quietray.running.cluster_file import place_of

    with hired(place_of(place(kind, 2, folder)), 2**31, lambda text: None) as cluster:
        cluster.all(abs, range(20), lambda number, value: None, lambda done, text: None)
        begun = time.monotonic()
        cluster.all(abs, range(count), lambda number, value: None, lambda done, text: None)
        return (time.monotonic() - begun) / count


def simulated(workers: int, slabs: int, slab: Slab, disk: float, link: float) -> float:
    """Return the hours for so many slabs: reading and writing share a disk, each worker has a link, one client.

    The disk is one queue that serves requests in their order at `disk` bytes a second; a worker reads, computes and
    writes, one after the other.
    """
    free, disk_free, client_free, end = [0.0] * workers, 0.0, 0.0, 0.0
    heapq.heapify(free)
    for _ in range(slabs):
        ready = heapq.heappop(free)
        client_free = max(client_free, ready) + slab.handling
        begun = max(client_free, disk_free)
        disk_free = begun + (slab.read + slab.written) / disk
        done = max(begun + slab.read / link, disk_free) + slab.compute + slab.written / link
        heapq.heappush(free, done)
        end = max(end, done)
    return end / 3600


def voxel_seconds(folder: Path) -> float:
    """Return the processor seconds, of one thread, that a voxel takes: projected back, denoised, written."""
    path, settings = a_model(folder)
    watch = Stopwatch()
    whole = replace(settings, rows=f"0:{ROWS}")
    quietray.apply(folder / "model", quietray.read(path), folder / "out", whole, watch=watch)
    return sum(watch.processor.get(stage, 0.0) for stage in ("reconstructing", "denoising")) / (ROWS * COLS**2)


def level_seconds(folder: Path) -> float:
    """Return the processor seconds that the levels of a byte of Zarr take, when all slabs are there."""
    grid = quietray.VolumeGrid((32, 512, 512), voxel_size=0.01)
    writer = open_volume_writer(folder / "levels.zarr", grid, format="zarr")
    writer.write(0, np.random.default_rng(0).normal(size=grid.shape).astype(np.float32))
    begun = time.process_time()
    writer.finish()
    return (time.process_time() - begun) / (4 * np.prod(grid.shape))


def simulation(voxel: float, level: float) -> None:
    """Print how 10 TB would go."""
    rows, cols, views, height, faster, dealt = 4096, 4096, 6000, 32, 100, 0.017
    scans = round(10e12 / (2 * views * rows * cols))
    slabs = scans * rows // height
    each = Slab(voxel * height * cols**2 / faster, 2 * views * height * cols, 4 * height * cols**2, dealt)
    print(f"a voxel: {1e6 * voxel:.2f} us; levels: {1e9 * level:.2f} ns a byte")
    print(f"10 TB: {scans} scans of {views} views of {rows} x {cols}, {slabs} slabs of {height} rows")
    print(f"a slab: {each.compute:.0f} s on a GPU of {faster} threads (assumed), {1000 * dealt:.0f} ms to hand it out,")
    print(f"{each.read / 1e9:.2f} GB read, {each.written / 1e9:.2f} GB written; 3 GB/s a worker; the disk is one queue")
    print("| GPUs | disk 1 GB/s | 5 GB/s | 20 GB/s |\n|---|---|---|---|")
    for workers in (1, 2, 4, 8, 16, 32, 64):
        hours = [simulated(workers, slabs, each, disk, 3e9) for disk in (1e9, 5e9, 20e9)]
        print(f"| {workers} | " + " | ".join(f"{one:.2f} h" for one in hours) + " |")
    print(f"in one process, whatever the workers: levels {scans * 4 * rows * cols**2 * level / 3600:.1f} h, ", end="")
    print(f"training {scans * 4 / 60:.1f} h at 4 minutes a scan, or 4 minutes where one model serves all")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        kind = sys.argv[1] if len(sys.argv) > 1 else "local"
        if kind == "simulate":
            simulation(voxel_seconds(Path(name)), level_seconds(Path(name)))
        else:
            measured(kind, Path(name))
