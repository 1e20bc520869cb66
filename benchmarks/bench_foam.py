"""Foam, 32 slices of 128 x 128, 256 views, 100 photons, 50 % absorption: how good, how fast.

    python benchmarks/bench_foam.py            # every row of the table, about 25 minutes on 2 cores
    python benchmarks/bench_foam.py 90s 4m     # only these budgets

PSNR is against the FBP (Ram-Lak) of the noise-free projections, range max - min of that volume inside a disc of 0.97
half-widths, over the same disc; the same as `quietray evaluate`.  "clean targets" trains the same network for the same
number of steps on that very reference: what supervision would give.  "plain U-Net" is the same architecture as a plain
recipe has it: 9 slices, batch 8, float32, PyTorch's own initialisation, no symmetries at inference.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from foam import Foam
from torch import nn

import quietray
from quietray.inference.denoiser import Denoiser, Scale
from quietray.preparation.prepare import prepare, reconstruct_windows
from quietray.running.precision import precision
from quietray.running.run import Run
from quietray.running.settings import Training
from quietray.splits.base import Pair
from quietray.splits.inverse import Noise2Inverse
from quietray.training.batches import TrainingVolume
from quietray.training.loop import fit
from quietray.types import Samples
from quietray.workflows import Settings


@dataclass(frozen=True)
class CleanTargets(Noise2Inverse):
    """Noise2Inverse whose target is the last part, which holds the clean reconstruction."""

    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Draw the input as Noise2Inverse does, the target from the clean part."""
        pair = super().draw(samples[:, : self.parts], generator)
        middle = self.slices // 2
        return dataclasses.replace(pair, target=samples[:, self.parts, middle : middle + 1])

    def judge(self, network, samples, weight):  # type: ignore[no-untyped-def]
        """Judge as Noise2Inverse does."""
        return super().judge(network, samples[:, : self.parts], weight)


def main() -> None:
    """Print the table."""
    budgets = sys.argv[1:] or ["15s", "30s", "60s", "90s", "4m"]
    foam = Foam()
    scan, clean, psnr = foam.scan, foam.clean, foam.psnr
    inside = clean[:, foam.mask]
    span = float(inside.max() - inside.min())

    split = Noise2Inverse()
    run = Run.in_memory(Settings(method=split))
    prepared = prepare(scan, run, split.parts, split.slices)
    parts, _ = reconstruct_windows(prepared, prepared.source(split.parts), run)
    print("| method | seconds | steps | PSNR (dB) | estimated (dB) |\n|---|---|---|---|---|", flush=True)
    print(f"| FBP, no denoising | | | {psnr(parts.mean(axis=0)):.2f} | |", flush=True)
    steps = 0
    for budget in budgets:
        started = time.monotonic()
        result = quietray.denoise(scan, None, Settings(method=Noise2Inverse(), budget=budget))
        estimate, training = result.metrics["estimate"], result.metrics["training"]
        # the estimate's own range is not the benchmark's: bring it to the same one
        estimated = estimate["psnr_db"] + 20 * np.log10(span / estimate["data_range"])
        print(
            f"| quietray, --budget {budget} | {time.monotonic() - started:.0f} (training {training['seconds']:.0f}) "
            f"| {training['steps']} | {psnr(result.volume):.2f} | {estimated:.2f} |",
            flush=True,
        )
        steps = training["steps"]
        if budget in ("90s", "4m"):
            volume, seconds = trained(parts, clean, prepared.weight, CleanTargets(), Training(steps=steps), None)
            print(f"| the same network, clean targets | {seconds:.0f} | {steps} | {psnr(volume):.2f} | |", flush=True)
    if not sys.argv[1:]:
        plain = Training(steps=270, batch=8, precision="fp32")
        volume, seconds = trained(parts, None, prepared.weight, Noise2Inverse(slices=9), plain, plain_unet)
        print(f"| plain U-Net, float32, batch 8, 9 slices | {seconds:.0f} | 270 | {psnr(volume):.2f} | |", flush=True)
        for arithmetic in ("fp32", "bf16"):
            chosen = Training(steps=1500, precision=arithmetic)  # type: ignore[arg-type]
            volume, seconds = trained(parts, None, prepared.weight, split, chosen, None)
            print(f"| quietray, 1500 steps in {arithmetic} | {seconds:.0f} | 1500 | {psnr(volume):.2f} | |", flush=True)


def plain_unet() -> nn.Module:
    """Return the U-Net with PyTorch's default initialisation."""
    network = quietray.UNet().build(9)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
    return network


def trained(parts, clean, weight, split, training, build):  # type: ignore[no-untyped-def]
    """Train on parts (and clean targets), denoise all slices; return the volume and the seconds of training."""
    scale = Scale.of(parts.mean(axis=0), weight)
    stacked = parts.copy() if clean is None else np.concatenate([parts, clean[None]])
    data = TrainingVolume.with_held_out(scale.apply(stacked), split, weight)
    started = time.monotonic()
    fitted = fit(split, build or (lambda: quietray.UNet().build(split.slices)), data, training)
    seconds = time.monotonic() - started
    symmetries = 1 if build else 8
    denoiser = Denoiser(fitted.network, quietray.UNet(), split, scale, symmetries, precision(training.precision))
    return np.concatenate([denoiser.slice(parts, z) for z in range(parts.shape[1])]), seconds


if __name__ == "__main__":
    main()
