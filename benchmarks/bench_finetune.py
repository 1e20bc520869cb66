"""Is a model worth starting from?  Fine-tuning against training from scratch, at equal steps, on a scan like its own.

    python benchmarks/bench_finetune.py [STEPS ...]     # 100 300 1000 by default: about 6 minutes on 2 cores

The model learns from one foam for 2000 steps, the scan to be denoised is another foam, measured in the same way.  PSNR
is against the FBP of the noise-free projections.  An equal number of steps takes equal time: the network is the same.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from foam import Foam

import quietray
from quietray.splits import Noise2Inverse
from quietray.workflows import Settings, apply, train

MODEL_STEPS = 2000


def main() -> None:
    """Print the table."""
    steps = [int(text) for text in sys.argv[1:]] or [100, 300, 1000]
    known, new = Foam(seed=1), Foam()
    plain = Settings(method=Noise2Inverse(), symmetries=1)

    def limited(steps: int, **more: str) -> Settings:
        training = dataclasses.replace(plain.training, steps=steps, patience=1.0)
        return dataclasses.replace(plain, training=training, **more)

    print("| | steps | seconds | PSNR (dB) |\n|---|---|---|---|", flush=True)

    def row(name: str, steps: int, run) -> None:
        started = time.monotonic()
        quality = new.psnr(np.asarray(run().volume))
        print(f"| {name} | {steps} | {time.monotonic() - started:.0f} | {quality:.2f} |", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder) / "model")
        train([known.scan], model, limited(MODEL_STEPS))
        row("the model of the other foam, applied", 0, lambda: apply(model, new.scan, None, plain))
        for n in steps:
            row("from scratch", n, lambda n=n: quietray.denoise(new.scan, None, limited(n)))
            row("from the model", n, lambda n=n: quietray.denoise(new.scan, None, limited(n, start=model)))


if __name__ == "__main__":
    main()
