"""How long `quietray check` takes on a scan of real size: 1500 views of 2048 x 2048, 12.6 GB, of which 50 are stored.

    python benchmarks/bench_check.py [FOLDER]    # half a gigabyte there, removed afterwards

A virtual dataset shows the stored frames again and again, each after another one: what is read and worked out is that
of a whole scan, but for the disk, which holds little and is warm.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

VIEWS, SIZE, STORED = 1500, 2048, 50


def frames(mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return one frame of counts on a dark level of 100."""
    noise = rng.standard_normal((SIZE, SIZE), np.float32)
    return (mean + np.sqrt(mean + 25) * noise + 100).astype(np.uint16)


def make(folder: Path) -> Path:
    """Write a cylinder that wobbles around the axis; return the scan."""
    rng, x = np.random.default_rng(0), np.arange(SIZE) - (SIZE - 1) / 2
    shape = (STORED, SIZE, SIZE)
    with h5py.File(folder / "frames.h5", "w") as file:
        for name, count in (("data", STORED), ("white", 10), ("dark", 10)):
            stack = file.create_dataset(name, (count, SIZE, SIZE), np.uint16, chunks=(1, SIZE, SIZE))
            for number in range(count):
                away = x - 60 * np.cos(np.pi * number / STORED)
                seen = np.exp(-0.002 * np.sqrt(np.clip(800**2 - away**2, 0, None)))
                stack[number] = frames({"data": 20000 * seen, "white": 20000 + 0 * x, "dark": 0 * x}[name], rng)
    with h5py.File(folder / "scan.h5", "w", libver="latest") as file:
        layout, source = (
            h5py.VirtualLayout((VIEWS, SIZE, SIZE), np.uint16),
            h5py.VirtualSource("frames.h5", "data", shape),
        )
        for view in range(VIEWS):
            near = view * STORED // VIEWS
            layout[view] = source[near if view % 2 else (near + 1) % STORED]
        file.create_virtual_dataset("exchange/data", layout)
        for name in ("white", "dark"):
            file[f"exchange/data_{name}"] = h5py.ExternalLink("frames.h5", name)
        file["exchange/theta"] = np.arange(VIEWS) * 180 / VIEWS
    return folder / "scan.h5"


def main() -> None:
    """Make, time, remove."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(tempfile.gettempdir()) / "bench_check")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        scan, began = make(folder), time.monotonic()
        done = subprocess.run([sys.executable, "-m", "quietray.cli", "check", str(scan)], check=False)
        print(f"check: {time.monotonic() - began:.1f} s, exit code {done.returncode}")
    finally:
        for name in ("scan.h5", "frames.h5"):
            (folder / name).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
