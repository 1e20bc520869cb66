"""Peak memory against the plan, on a simulated scan of 8.6 GB with --max-memory 2G.

    python benchmarks/bench_memory.py [FOLDER]     # needs 10 GB of disk; some minutes on 2 cores

The scan is a disc with photon noise, 512 views of 4096 x 2048; a region of 96 x 96 pixels of the first 1024 slices is
denoised, so that the time goes into reading, correcting and filtering.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

VIEWS, ROWS, COLS = 512, 4096, 2048


def write_scan(path: Path) -> None:
    """Write the scan frame by frame."""
    rng = np.random.default_rng(0)
    offset = np.arange(COLS) - (COLS - 1) / 2
    lines = 0.002 * np.sqrt(np.clip(700.0**2 - offset**2, 0, None))
    mean = 1000 * np.exp(-lines)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("exchange/data", (VIEWS, ROWS, COLS), np.uint16)
        pool = rng.poisson(mean, (3 * ROWS // 2, COLS)).astype(np.uint16) + 100
        for view in range(VIEWS):
            start = int(rng.integers(0, ROWS // 2))
            data[view] = pool[start : start + ROWS]
        file["exchange/data_white"] = (rng.poisson(1000, (20, ROWS, COLS)) + 100).astype(np.uint16)
        file["exchange/data_dark"] = np.full((5, ROWS, COLS), 100, np.uint16)
        file["exchange/theta"] = np.linspace(0, 180, VIEWS, endpoint=False)


def main() -> None:
    """Write, run, compare."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    scan, out = folder / "big.h5", folder / "out"
    if not scan.exists():
        write_scan(scan)
    middle = COLS // 2
    region = f"{middle - 48}:{middle + 48},{middle - 48}:{middle + 48}"
    command = [
        sys.executable, "-m", "quietray.cli", "denoise", str(scan), "--out", str(out), "--overwrite",
        "--max-memory", "2G", "--region", region, "--rotation-axis", str((COLS - 1) / 2), "--steps", "300",
        "--method", "noise2inverse", "--zingers", "0", "--rings", "none", "--rows", "0:1024",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    metrics = json.loads((out / "metrics.json").read_text())
    memory = metrics["memory"]
    limit, planned, peak = (memory[name] / 2**30 for name in ("limit", "planned_peak", "peak"))
    size = scan.stat().st_size / 1e9
    slabs, seconds = memory["slabs"], metrics["seconds"]
    print(f"| {size:.1f} GB | {slabs} | {limit:.2f} | {planned:.2f} | {peak:.2f} | {seconds:.0f} |")
    if len(sys.argv) == 1:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
