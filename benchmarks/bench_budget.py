"""Whether `--budget` is kept: wall clock of whole commands, from the shell's point of view, over what was asked.

    python benchmarks/bench_budget.py SHARED_DATA [--budgets 30s 1m 2m] [--only PSI tooth ...] [--command denoise]

Two simulated scans and the measured ones in the folder, each denoised (or compared) by a process of its own with each
budget.  Start of Python, reading, calibration, training, inference and report are all inside.  Run it on a machine that
does nothing else, then beside other programs: load is the average number of processes that wanted a processor.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import quietray
from quietray.settings import parse_seconds

SCANS = {
    "PSI": "psi_neutron_ct/psi_ct5s375_128lines.h5",
    "tooth": "tomopy_tooth/tooth.h5",
    "i12": "dls_i12_24737_binned/dls_24737.h5",
    "DIAD": "dls_k11_diad/k11-18014.h5",
}
NAMED = {"DIAD": ["--data", "/detector", "--angles", "/theta_deg", "--image-key", "/image_key"]}  # not a known layout
FOAMS = {"foam 128": (128, 16), "foam 512": (512, 64)}


def simulated(folder: Path, width: int, rows: int) -> Path:
    """Write a scan of a foam, and return its file."""
    path = folder / f"foam{width}.h5"
    size = ["--cols", str(width), "--views", str(width), "--rows", str(rows)]
    call = [sys.executable, "-m", "quietray.cli", "simulate", "--out", str(path), *size]
    subprocess.run(call, check=True, capture_output=True)
    return path


def measure(command: str, scan: Path, budget: str, folder: Path, more: list[str]) -> tuple[float, int, str]:
    """Return the wall clock of a command, its exit code, and what it said last."""
    out = folder / f"{scan.stem}-{command}-{budget}"
    began = time.monotonic()
    call = [sys.executable, "-m", "quietray.cli", command, str(scan), *more, "--budget", budget, "--out", str(out)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).strip().splitlines()
    return time.monotonic() - began, done.returncode, said[-1] if said else ""


def main() -> None:
    """Print a row for each command as it ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="folder with the measured scans")
    parser.add_argument("--budgets", nargs="+", default=["30s", "1m", "2m"])
    parser.add_argument("--only", nargs="+", help="some of: " + ", ".join([*FOAMS, *SCANS]))
    parser.add_argument("--command", default="denoise", choices=["denoise", "compare"])
    asked = parser.parse_args()
    print(f"quietray {quietray.__version__}, {os.cpu_count()} processors")
    print("| scan | budget | wall clock, s | over asked | load | exit |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = asked.only or [*FOAMS, *(SCANS if asked.data else [])]
        for scan in chosen:
            path = simulated(folder, *FOAMS[scan]) if scan in FOAMS else asked.data / SCANS[scan]
            for budget in asked.budgets:
                took, code, last = measure(asked.command, path, budget, folder, NAMED.get(scan, []))
                share, load = took / parse_seconds(budget), os.getloadavg()[0]
                print(f"| {scan} | {budget} | {took:.0f} | {share:.2f} | {load:.1f} | {code} |", flush=True)
                if code:
                    print(f"  {last}", flush=True)


if __name__ == "__main__":
    main()
