"""Peak memory against the plan, on a simulated scan that is larger than what it may take.

    python benchmarks/bench_memory.py                                                     # 8.6 GB in 2 GiB
    python benchmarks/bench_memory.py --views 1500 --rows 8192 --max-memory 8G --denoise 2048      # 50 GB in 8 GiB

The scan is a disc with photon noise, 2048 columns wide.  Its views are some frames over and over (a virtual dataset of
HDF5), so that it takes little of the disk; the program reads every one of them all the same.  A region of 96 x 96
pixels of the first slices is denoised, so that the time goes into reading, correcting and filtering.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

COLS, FRAMES = 2048, 32


def write_scan(path: Path, views: int, rows: int) -> None:
    """Write the frames, and the scan that repeats them."""
    rng = np.random.default_rng(0)
    offset = np.arange(COLS) - (COLS - 1) / 2
    lines = 0.002 * np.sqrt(np.clip(700.0**2 - offset**2, 0, None))
    mean = 1000 * np.exp(-lines)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("frames", (FRAMES, rows, COLS), np.uint16)
        for frame in range(FRAMES):
            data[frame] = rng.poisson(mean, (rows, COLS)) + 100
        layout = h5py.VirtualLayout((views, rows, COLS), np.uint16)
        for first in range(0, views, FRAMES):
            last = min(first + FRAMES, views)
            layout[first:last] = h5py.VirtualSource(data)[: last - first]
        file.create_virtual_dataset("exchange/data", layout)
        file["exchange/data_white"] = (rng.poisson(1000, (20, rows, COLS)) + 100).astype(np.uint16)
        file["exchange/data_dark"] = np.full((5, rows, COLS), 100, np.uint16)
        file["exchange/theta"] = np.linspace(0, 180, views, endpoint=False)


def main() -> None:
    """Write, run, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--views", type=int, default=512)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--max-memory", default="2G")
    parser.add_argument("--denoise", type=int, default=1024, help="slices, from the first on")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scan, out = Path(folder) / "big.h5", Path(folder) / "out"
        write_scan(scan, asked.views, asked.rows)
        middle = COLS // 2
        region = f"{middle - 48}:{middle + 48},{middle - 48}:{middle + 48}"
        command = [
            sys.executable, "-m", "quietray.cli", "denoise", str(scan), "--out", str(out),
            "--max-memory", asked.max_memory, "--region", region, "--rotation-axis", str((COLS - 1) / 2),
            "--steps", "300", "--method", "noise2inverse", "--zingers", "0", "--rings", "none",
            "--rows", f"0:{asked.denoise}",
        ]  # fmt: skip
        subprocess.run(command, check=True)
        metrics = json.loads((out / "metrics.json").read_text())
    memory = metrics["memory"]
    limit, planned, peak = (memory[name] / 2**30 for name in ("limit", "planned_peak", "peak"))
    what = f"{2e-9 * asked.views * asked.rows * COLS:.1f} GB, rows 0:{asked.denoise}"
    print(f"| {what} | {memory['slabs']} | {limit:.2f} | {planned:.2f} | {peak:.2f} | {metrics['seconds']:.0f} |")


if __name__ == "__main__":
    main()
