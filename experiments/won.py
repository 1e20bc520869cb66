"""Won et al. (2021): pseudo-CT pairs, on top of Noise2Clean, Noise2Noise and Noise2Void.

    python experiments/won.py --scale small [--only table,noise] [--loss mae|mse] [--period 10] [--out out/won]

Table 1 and figure 2 on simulated subjects: counts of photons and electronic noise through filtered backprojection, a
low and a normal dose.  The page docs/experiments/won.md is written from the results.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from subjects import dataset, reconstructed, sinograms
from torch import nn
from won_page import write_page

from quietray.metrics.image import compare
from quietray.metrics.spectrum import power_spectrum
from quietray.networks import REDCNN, UNet
from quietray.networks.base import Architecture
from quietray.running.settings import Training
from quietray.simulate.anatomy import beam, hounsfield
from quietray.simulate.lowdose import low_dose, lowered_dose
from quietray.splits import Noise2Clean, Noise2Noise, Noise2Void, PseudoCT
from quietray.splits.base import Split
from quietray.splits.pseudo import EnsembleNoise, GaussianNoise, HistogramNoise, ModelNoise, NoiseSource
from quietray.training.loop import fit

RANGE = 4096.0  # HU, that PSNR and SSIM refer to
UNIT = 1000.0  # HU, of the networks; air is 0 and water 1
SHARE, ELECTRONIC = 0.25, 5.0  # of the normal dose; photons


@dataclass(frozen=True)
class Size:
    """How much is simulated and trained."""

    train: int
    test: int
    slices: int
    pixels: int
    views: int
    maps: int
    widths: tuple[int, ...]
    steps: int
    noise_steps: int
    tuning_steps: int
    batch: int
    patch: int


SIZES = {
    "toy": Size(3, 2, 2, 32, 40, 2, (4, 8), 10, 10, 6, 2, 24),
    "small": Size(3, 5, 8, 64, 90, 16, (12, 24), 10_000, 8_000, 200, 1, 48),
    "full": Size(3, 7, 60, 512, 720, 96, (32, 64, 128, 256), 60_000, 30_000, 2_000, 16, 64),
}


@dataclass(frozen=True, eq=False)
class Doses:
    """Slices ``(subject, slice, y, x)`` in the networks' unit: two of the low dose, one of the normal,
    without noise."""

    low: np.ndarray
    other: np.ndarray
    normal: np.ndarray
    clean: np.ndarray
    photons: float


def doses(size: Size) -> Doses:
    """Simulate subjects so that the low dose is 46.21 dB from the normal one, as in the paper."""
    views = sinograms(range(200, 200 + size.train + size.test), size.slices, size.pixels, size.views)

    def scanned(photons: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        whole = np.stack([low_dose(each, photons, ELECTRONIC, rng)[0] for each in views])
        less = np.stack([lowered_dose(each, photons, SHARE, ELECTRONIC, rng) for each in whole])
        return slices(less), slices(whole)

    def slices(some: np.ndarray) -> np.ndarray:
        return np.asarray(hounsfield(reconstructed(some)) / np.float32(UNIT) + 1, np.float32)

    photons = 1e5
    for _ in range(3):
        low, normal = scanned(photons, 0)
        found = 20 * np.log10(RANGE / UNIT / np.sqrt(np.square(low - normal).mean()))
        photons *= float(10 ** ((46.21 - found) / 10))
    low, normal = scanned(photons, 0)
    return Doses(low, scanned(photons, 1)[0], normal, slices(views), photons)


def train(
    split: Split,
    network: Architecture | nn.Module,
    parts: np.ndarray,
    settings: Training,
    held: tuple[int, int],
    seed: int,
) -> nn.Module:
    """Train a network, or go on with one, on ``(part, image, y, x)``, of which the last images are held out."""
    if isinstance(network, nn.Module):
        start = copy.deepcopy(network).train()
        return fit(split, lambda: start, dataset(parts, *held), settings, seed=seed).network
    return fit(split, lambda: network.build(1), dataset(parts, *held), settings, seed=seed).network


def flat(images: np.ndarray) -> np.ndarray:
    """Return the slices of all subjects one after the other."""
    return images.reshape(-1, *images.shape[-2:])


@dataclass(frozen=True, eq=False)
class Pretrained:
    """Denoisers by the method that trained them, and what tells the noise."""

    denoisers: dict[str, nn.Module]
    noise: dict[str, NoiseSource]


def pretrain(data: Doses, size: Size, loss: str) -> Pretrained:
    """Train RED-CNN by three methods, a noise model for each training subject, and one for all of them."""
    low, other, normal = (x[: size.train] for x in (data.low, data.other, data.normal))
    shared: dict[str, Any] = {"batch": size.batch, "patch": size.patch, "precision": "fp32", "patience": 1.0}
    settings = Training(size.steps, learning_rate=1e-3, loss=loss, judgements=10, **shared)  # type: ignore[arg-type]
    held = (1, max(1, size.slices // 4))
    denoisers = {}
    for name, split, parts in (
        ("N2C", Noise2Clean(), (low, normal)),
        ("N2N", Noise2Noise(), (low, other)),
        ("N2V", Noise2Void(), (low,)),
    ):
        started = time.monotonic()
        images = np.stack([flat(part) for part in parts])
        denoisers[name] = train(split, REDCNN(size.maps), images, settings, held, 0)
        print(f"{name} trained in {time.monotonic() - started:.0f} s", flush=True)
    settings = Training(size.noise_steps, learning_rate=1e-3, loss="mae", judgements=5, **shared)

    def model(some: slice, seed: int) -> ModelNoise:
        pair = np.stack([flat(low[some]), flat(low[some] - normal[some])])
        return ModelNoise(train(Noise2Clean(), UNet(size.widths), pair, settings, held, seed))

    each = tuple(model(slice(k, k + 1), k) for k in range(size.train))
    differences = HistogramNoise(torch.from_numpy((low - normal).ravel().copy()))
    one = model(slice(None), size.train)
    return Pretrained(
        denoisers,
        {
            "ensemble": EnsembleNoise(each),
            "ensemble, blocks of 8": EnsembleNoise(each, block=8),
            "model + histogram": EnsembleNoise((one, differences)),
            "histogram": differences,
            "Gaussian": GaussianNoise(0.02 * RANGE / UNIT),
        },
    )


def tuned(
    network: nn.Module, noise: NoiseSource, period: int, images: np.ndarray, size: Size, loss: str, seed: int
) -> nn.Module:
    """Fine-tune on the low-dose slices of one subject, by algorithm 1; the last weights are kept."""
    split = PseudoCT(period).on(network, noise)
    settings = Training(
        size.tuning_steps,
        batch=size.batch,
        patch=size.patch,
        learning_rate=1e-4,
        average=0.0,
        judgements=1,
        plateau=1,
        loss=loss,
        precision="fp32",  # type: ignore[arg-type]
    )
    return train(split, network, images[None], settings, (1, 1), seed)


@torch.no_grad()
def apply(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """Denoise ``(image, y, x)``."""
    network.eval()
    return np.concatenate([network(torch.from_numpy(image)[None, None])[0].numpy() for image in images])


def judged(images: np.ndarray, normal: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    """PSNR and SSIM against the normal dose, as in the paper, and PSNR against the slices without noise."""
    ours = compare(images, normal, data_range=RANGE / UNIT)
    true = compare(images, clean, data_range=RANGE / UNIT).psnr
    return {"psnr": ours.psnr, "ssim": float(ours.ssim), "true_psnr": true}


def table(data: Doses, models: Pretrained, size: Size, loss: str, period: int) -> dict[str, Any]:
    """Every row of table 1, for each test subject."""
    rows: dict[str, list[dict[str, float]]] = {}
    for subject in range(size.train, size.train + size.test):
        low, normal, clean = (x[subject] for x in (data.low, data.normal, data.clean))

        def row(name: str, network: nn.Module | None, low: Any = low, normal: Any = normal, clean: Any = clean) -> None:
            rows.setdefault(name, []).append(judged(low if network is None else apply(network, low), normal, clean))

        row("low dose", None)
        for name, network in models.denoisers.items():
            row(name, network)
            for noise, c, label in (("ensemble", 0, "+ ours without update"), ("ensemble", period, "+ ours")):
                row(f"{name} {label}", tuned(network, models.noise[noise], c, low, size, loss, subject))
        for noise in ("histogram", "Gaussian", "model + histogram", "ensemble, blocks of 8"):
            done = tuned(models.denoisers["N2C"], models.noise[noise], period, low, size, loss, subject)
            row(f"N2C + {noise}", done)
        print(f"subject {subject - size.train + 1} of {size.test} done", flush=True)
    return {"rows": rows, "photons": float(data.photons)}


def noises(data: Doses, models: Pretrained, size: Size, out: Path) -> dict[str, Any]:
    """Figure 2: noise by every source beside the true one, with its power spectrum."""
    low, normal = data.low[-1], data.normal[-1]
    image, generator = torch.from_numpy(low)[:, None], torch.Generator().manual_seed(0)
    drawn = {"true": low - normal}
    drawn |= {name: source.draw(image, generator).detach()[:, 0].numpy() for name, source in models.noise.items()}
    quarter = size.pixels // 4
    inside = (slice(None), slice(quarter, -quarter), slice(quarter, -quarter))
    found = {}
    for name, noise in drawn.items():
        part = noise[inside] * np.float32(UNIT)
        frequency, power = power_spectrum(part, beam(1, 1, size.pixels).pixel_size).radial()
        centred = part - part.mean()
        found[name] = {
            "sd": float(part.std()),
            "neighbours": float((centred[:, :, 1:] * centred[:, :, :-1]).mean() / max(part.var(), 1e-12)),
            "with_true": float(np.corrcoef(part.ravel(), drawn["true"][inside].ravel())[0, 1]),
            "frequency": frequency.tolist(),
            "power": power.tolist(),
        }
    np.savez_compressed(out / "noises.npz", image=low[0], **{name: noise[0] for name, noise in drawn.items()})
    return found


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run the pieces, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=list(SIZES), default="small")
    parser.add_argument("--only", default="table,noise")
    parser.add_argument("--loss", choices=["mae", "mse"], default="mae", help="of denoisers and tuning")
    parser.add_argument("--period", type=int, default=10, help="C, steps between updates of the teacher")
    parser.add_argument("--out", type=Path, default=Path("out/won"))
    parser.add_argument("--page", type=Path, default=Path("docs/experiments/won.md"))
    given = parser.parse_args(arguments)
    size, pieces = SIZES[given.scale], given.only.split(",")
    given.out.mkdir(parents=True, exist_ok=True)
    kept = given.out / "results.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    results |= {"scale": given.scale, "size": dataclasses.asdict(size), "loss": given.loss, "period": given.period}

    def keep(name: str, run: Callable[[], dict[str, Any]]) -> None:
        if name in pieces:
            results[name] = run()
            kept.write_text(json.dumps(results, indent=1))

    if {"table", "noise"} & {*pieces}:
        data = doses(size)
        models = pretrain(data, size, given.loss)
        keep("noise", lambda: noises(data, models, size, given.out))
        keep("table", lambda: table(data, models, size, given.loss, given.period))
    write_page(results, given.out, given.page)
    return results


if __name__ == "__main__":
    main()
