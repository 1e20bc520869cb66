"""Where to split and where to denoise: the three orders of Hendriksen's slides on one foam.

    python benchmarks/bench_orders.py [STEPS]      # 2000 steps by default: about 8 minutes on 2 cores

* split, reconstruct, denoise: Noise2Inverse in 2-D.
* split, denoise, reconstruct: Noise2Self on the radiographs, then FBP.
* reconstruct, split, denoise: Noise2Self on the slices of the FBP, whose noise is not independent between pixels.

All with the same network, number of steps and (no) symmetries.
"""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
from foam import Foam

import quietray
from quietray.inference.denoiser import Denoiser, Scale
from quietray.preparation.prepare import prepare
from quietray.running.precision import precision
from quietray.running.run import Run
from quietray.running.settings import Training
from quietray.splits import Noise2Inverse, Noise2Self
from quietray.training.batches import TrainingVolume
from quietray.training.loop import fit
from quietray.types import Volume
from quietray.workflows import Settings


def sliced(noisy: Volume, training: Training, weight: np.ndarray) -> Volume:
    """Return the slices of a reconstruction, denoised by Noise2Self."""
    split, parts = Noise2Self(), noisy[None]
    scale = Scale.of(noisy, weight)
    data = TrainingVolume.with_held_out(scale.apply(parts.copy()), split, weight)
    fitted = fit(split, lambda: quietray.UNet().build(1), data, training)
    denoiser = Denoiser(fitted.network, quietray.UNet(), split, scale, 1, precision(training.precision))
    return np.concatenate([denoiser.slice(parts, z) for z in range(len(noisy))])


def main() -> None:
    """Print the table."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    foam, settings = Foam(), Settings(symmetries=1, rotation_axis=63.5)
    training = dataclasses.replace(settings.training, steps=steps)
    settings = dataclasses.replace(settings, training=training)
    prepared = prepare(foam.scan, Run.in_memory(settings))
    noisy = prepared.source()(slice(0, foam.rows))[0][0]
    print(
        f"{steps} steps each\n\n| order | PSNR (dB) |\n|---|---|\n| FBP, no denoising | {foam.psnr(noisy):.2f} |",
        flush=True,
    )
    for name, method in (
        ("split, reconstruct, denoise (Noise2Inverse, 2-D)", Noise2Inverse(slices=1)),
        ("split, denoise, reconstruct (Noise2Self on radiographs)", Noise2Self()),
    ):
        result = quietray.denoise(foam.scan, None, dataclasses.replace(settings, method=method))
        print(f"| {name} | {foam.psnr(np.asarray(result.volume)):.2f} |", flush=True)
    weight = foam.mask.astype(np.float32)
    print(f"| reconstruct, split, denoise (Noise2Self on slices) | {foam.psnr(sliced(noisy, training, weight)):.2f} |")


if __name__ == "__main__":
    main()
