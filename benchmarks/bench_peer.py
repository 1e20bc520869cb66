"""A peer on the same data in the same run: auto-denoise 3.0.0, installed with pip in an environment of its own.

    python benchmarks/bench_peer.py PEER_PYTHON [EPOCHS ...]     # 1 4 16 64 by default: about 25 minutes on 2 cores

The foam of bench_foam.py.  The peer gets what it asks for, the reconstructions of four angular subsets, and trains its
own U-Net by its own Noise2Inverse recipe (N2N on subsets, X:1, batches of 8 slices, the best epoch kept); their
reconstruction is not counted.  quietray gets the raw scan, and its whole run is counted.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from foam import Foam

import quietray
from quietray.preparation.prepare import prepare
from quietray.running.run import Run
from quietray.splits import Noise2Inverse
from quietray.workflows import Settings

_PEER = """
import sys, time
import autoden, numpy as np
parts, epochs = np.load(sys.argv[1]), int(sys.argv[3])
started = time.monotonic()
denoiser = autoden.N2N(model="unet", batch_size=8, verbose=False, device="cpu")
given, target, mask = denoiser.prepare_data(parts, strategy="X:1")
denoiser.train(given, target, mask, epochs=epochs)
np.save(sys.argv[2], denoiser.infer(given))
print("seconds", time.monotonic() - started)
"""


def peer(python: str, parts: np.ndarray, epochs: int) -> tuple[np.ndarray, float]:
    """Return the volume that the peer makes of the subsets, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "parts.npy", Path(folder) / "made.npy"
        np.save(given, parts)
        command = [python, "-c", _PEER, str(given), str(made), str(epochs)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return np.load(made), float(done.stdout.split("seconds")[-1])


def main() -> None:
    """Print the table."""
    python, *given = sys.argv[1:]
    foam, settings = Foam(), Settings()
    prepared = prepare(foam.scan, Run.in_memory(settings), 4)
    parts = prepared.source(4)(slice(0, foam.rows))[0]
    print("| | seconds | PSNR (dB) |\n|---|---|---|", flush=True)
    print(f"| FBP, no denoising | | {foam.psnr(parts.mean(axis=0)):.2f} |", flush=True)
    best, took = -np.inf, 0.0
    for epochs in [int(text) for text in given] or [1, 4, 16, 64]:
        volume, seconds = peer(python, parts, epochs)
        quality = foam.psnr(volume)
        print(f"| auto-denoise, {epochs} epochs | {seconds:.0f} | {quality:.2f} |", flush=True)
        if quality > best:
            best, took = quality, seconds
    for budget in (took / 40, took / 20, took / 10, took / 4, took):
        started = time.monotonic()
        result = quietray.denoise(foam.scan, None, Settings(method=Noise2Inverse(), budget=f"{budget:.1f}s"))
        quality, seconds = foam.psnr(np.asarray(result.volume)), time.monotonic() - started
        print(
            f"| quietray, --budget {budget:.0f}s | {seconds:.0f}, {seconds / took:.3f} of the peer's "
            f"| {quality:.2f}, {quality - best:+.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
