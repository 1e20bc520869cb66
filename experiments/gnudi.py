"""Gnudi et al. (2020): Noise2Noise and Noise2Clean for X-ray projections and CT slices, beside tuned filters.

    python experiments/gnudi.py --scale small [--only xray,ct,honest,validity] [--out out/gnudi]

Tables III, IV and V, figures 2 and 4, and what the paper leaves open: filters tuned without ground truth, noise that
went through a reconstruction, and a guard that refuses to harm.  Every piece keeps its figures and its models in --out;
the page docs/experiments/gnudi.md is written from them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gnudi_page import write_page
from subjects import dataset, reconstructed, sinograms, transmissions

from quietray.filters import BilateralFilter, Filter, GaussianFilter, MedianFilter, tune
from quietray.inference.denoiser import Denoiser, Scale
from quietray.inference.guard import guarded
from quietray.networks import LehtinenUNet
from quietray.running.settings import Training
from quietray.simulate.anatomy import photons_for
from quietray.simulate.lowdose import low_dose
from quietray.splits import Noise2Clean, Noise2Noise
from quietray.splits.base import Split
from quietray.training.loop import fit

FILTERS: dict[str, Filter] = {"Gaussian": GaussianFilter(), "bilateral": BilateralFilter(), "median": MedianFilter()}
SIGMAS = {24.44: 0.0600, 18.66: 0.1167}
ELECTRONIC = 5.0  # photons


@dataclass(frozen=True)
class Size:
    """How much is simulated and trained: of the subjects a fifth is for testing, and a tenth of the rest
    for judging."""

    subjects: int
    views: int
    slices: int
    pixels: int
    ct_pixels: int
    ct_views: int
    maps: int
    steps: int
    batch: int
    filtered: int  # test images that filters are tuned on, and that all methods are compared on


SIZES = {
    "toy": Size(5, 2, 2, 32, 32, 48, 3, 20, 2, 2),
    "small": Size(30, 12, 6, 64, 64, 120, 12, 10_000, 1, 16),
    "full": Size(100, 63, 24, 192, 256, 720, 48, 40_000, 16, 200),
}


@dataclass(frozen=True, eq=False)
class Images:
    """Clean images ``(subject, image, y, x)`` of about [0, 1], and what makes them noisy."""

    clean: np.ndarray
    noise: Callable[[np.ndarray, np.random.Generator], np.ndarray]

    @property
    def n_test(self) -> int:
        return max(1, len(self.clean) // 5)

    def pairs(self) -> np.ndarray:
        """Two noisy realisations and the clean image of the subjects to learn from, ``(3, image, y, x)``."""
        clean = self.clean[: -self.n_test]
        rng = np.random.default_rng(1)
        parts = np.stack([self.noise(clean, rng), self.noise(clean, rng), clean])
        return parts.reshape(3, -1, *clean.shape[2:])

    def test(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Clean images of the other subjects, evenly chosen, and two noisy realisations of them."""
        clean = self.clean[-self.n_test :]
        rng = np.random.default_rng(2)
        found = [x.reshape(-1, *clean.shape[2:]) for x in (clean, self.noise(clean, rng), self.noise(clean, rng))]
        chosen = np.linspace(0, len(found[0]) - 1, min(count, len(found[0]))).astype(int)
        return found[0][chosen], found[1][chosen], found[2][chosen]


def xray(size: Size) -> tuple[Images, dict[str, Any]]:
    """Transmitted intensity over that of the open beam, with Poisson noise of a mean PSNR of 29.91 dB."""
    clean = transmissions(range(size.subjects), size.views, size.pixels)
    photons = photons_for(29.91, clean.reshape(-1, *clean.shape[2:]))
    return Images(clean, lambda x, rng: (rng.poisson(photons * x) / photons).astype(np.float32)), {"photons": photons}


def ct(size: Size) -> tuple[np.ndarray, np.ndarray, float]:
    """Clean slices over the highest value of all, their sinograms, and that value in 1/mm."""
    views = sinograms(range(size.subjects), size.slices, size.ct_pixels, size.ct_views)
    clean = reconstructed(views)
    peak = float(clean.max())
    return np.clip(clean / peak, 0, None), views, peak


def white(clean: np.ndarray, sigma: float) -> Images:
    """Additive white noise, as in the paper."""
    return Images(clean, lambda x, rng: (x + sigma * rng.standard_normal(x.shape)).astype(np.float32))


def honest(clean: np.ndarray, views: np.ndarray, peak: float, psnr: float) -> tuple[Images, dict[str, Any]]:
    """Counts of photons with electronic noise, reconstructed; as many that the slices have the PSNR."""
    photons = 2e4

    def noise(some: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        own = views[: len(some)] if len(some) == len(views) - len(views) // 5 else views[-len(some) :]
        exact = reconstructed(own) / peak
        noisy = np.stack([low_dose(each, photons, ELECTRONIC, rng)[0] for each in own])
        return (some + reconstructed(noisy) / peak - exact).astype(np.float32)

    images = Images(clean, noise)
    for _ in range(3):
        found = images.test(10**6)
        photons *= 10 ** ((psnr - mean_psnr(found[1], found[0])) / 10)
    return images, {"photons": photons, "electronic": ELECTRONIC}


def mean_psnr(images: np.ndarray, clean: np.ndarray) -> float:
    """Mean over the images of the PSNR with a peak of 1, all pixels."""
    return float(np.mean(-10 * np.log10(np.square(images.astype(np.float64) - clean).mean(axis=(1, 2)))))


def trained(images: Images, split: Split, loss: str, size: Size, seed: int = 0) -> Denoiser:
    """Train the paper's network; validation subjects are judged twenty times.

    The learning rate falls along a cosine: halved after two judgements without gain, as in the paper, it ended at the
    same PSNR (37.42 against 37.40 dB after 2400 steps of the X-ray pairs).
    """
    parts = images.pairs()
    per_subject = images.clean.shape[1]
    n_held = max(1, (len(images.clean) - images.n_test) // 10)
    data = dataset(parts[: split.n_parts], n_held, per_subject)
    settings = Training(
        size.steps,
        batch=size.batch,
        patch=256,
        learning_rate=1e-3,
        loss=loss,  # type: ignore[arg-type]
        patience=1.0,
        precision="fp32" if not torch.cuda.is_available() else "auto",
    )
    network = LehtinenUNet(size.maps)
    fitted = fit(split, lambda: network.build(1), data, settings, seed=seed)
    level = float(np.sqrt(np.square(parts[0] - parts[1]).mean() / 2))
    return Denoiser(fitted.network, network, split, Scale(0.0, 1.0), facts={"noise_level": level, "loss": loss})


def apply(denoiser: Denoiser, images: np.ndarray) -> np.ndarray:
    """Denoise images ``(image, y, x)`` one by one."""
    return np.stack([denoiser.slice(image[None, None], 0)[0] for image in images])


def filtered(kind: Filter, noisy: np.ndarray, against: np.ndarray) -> np.ndarray:
    """Filter each image with the setting that comes closest to its counterpart: the clean image, or other noise."""

    def best(image: np.ndarray, other: np.ndarray) -> np.ndarray:
        found = tune(kind, lambda candidate: float(np.square(candidate.apply(image) - other).mean()))
        return found.filter.apply(image)

    return np.stack([best(image, other) for image, other in zip(noisy, against, strict=True)])


def table(images: Images, models: dict[str, Denoiser], size: Size, out: Path, name: str) -> dict[str, Any]:
    """Return the mean PSNR of every method on the same test images, and keep pictures of one of them."""
    clean, noisy, other = images.test(size.filtered)
    rows: dict[str, float] = {"noisy": mean_psnr(noisy, clean)}
    pictures = {"noisy": noisy[0], "clean": clean[0]}
    for label, model in models.items():
        done = apply(model, noisy)
        rows[label], pictures[label] = mean_psnr(done, clean), done[0]
    for label, kind in FILTERS.items():
        done = filtered(kind, noisy, clean)
        rows[f"{label}, oracle"], pictures[f"{label}, oracle"] = mean_psnr(done, clean), done[0]
        rows[f"{label}, no truth"] = mean_psnr(filtered(kind, noisy, other), clean)
    np.savez_compressed(out / f"{name}.npz", **pictures)  # type: ignore[arg-type]
    return {"psnr": rows, "test_images": len(clean)}


def curve(
    models: dict[str, Denoiser], clean: np.ndarray, levels: np.ndarray, noise: Callable[[np.ndarray, float, Any], Any]
) -> list[dict[str, Any]]:
    """Return input, output and guarded PSNR at each level; means over three realisations of one image."""
    rows = []
    for level in levels:
        rng = np.random.default_rng(int(1000 * level))
        draws = [noise(clean, float(level), rng) for _ in range(3)]
        row: dict[str, Any] = {"input": mean_psnr(np.stack([y for y, _ in draws]), clean[None])}
        for label, model in models.items():
            found = [guarded(model, y, sd) for y, sd in draws]
            safe = [mean_psnr(one.image[None], clean[None]) for one in found]
            alone = [mean_psnr(apply(model, y[None]), clean[None]) for y, _ in draws]
            own = [mean_psnr(y[None], clean[None]) for y, _ in draws]
            row[label] = {
                "output": float(np.mean(alone)),
                "guarded": float(np.mean(safe)),
                "least_guarded_gain": float(min(s - o for s, o in zip(safe, own, strict=True))),
                "expected_gain": float(np.mean([one.gain for one in found])),
                "helped": sum(one.helped for one in found),
            }
        rows.append(row)
    return rows


def counted(clean: np.ndarray, psnr: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Poisson noise of a PSNR, and its standard deviation as the counts tell it."""
    photons = 10 ** (psnr / 10) * float(clean.mean())
    noisy = (rng.poisson(photons * clean) / photons).astype(np.float32)
    return noisy, np.sqrt(noisy / photons)


def added(clean: np.ndarray, psnr: float, rng: np.random.Generator) -> tuple[np.ndarray, None]:
    """White noise of a PSNR; the guard has to measure it."""
    return (clean + 10 ** (-psnr / 20) * rng.standard_normal(clean.shape)).astype(np.float32), None


def models_of(
    images: Images, names: dict[str, tuple[Split, str]], size: Size, folder: Path, prefix: str
) -> dict[str, Denoiser]:
    """Train what is not trained yet."""
    found = {}
    for label, (split, loss) in names.items():
        place = folder / f"{prefix}-{label.replace(' ', '-')}"
        if not (place / "model.json").exists():
            started = time.monotonic()
            trained(images, split, loss, size).save(place)
            print(f"{prefix}: {label} trained in {time.monotonic() - started:.0f} s", flush=True)
        found[label] = Denoiser.load(place)
    return found


N2N, N2N_MAE, N2C = "Noise2Noise MSE", "Noise2Noise MAE", "Noise2Clean MSE"
ALL = {N2C: (Noise2Clean(2), "mse"), N2N: (Noise2Noise(), "mse"), N2N_MAE: (Noise2Noise(), "mae")}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run the pieces that were asked for, and write the page from all that there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=list(SIZES), default="small")
    parser.add_argument("--only", default="xray,ct,honest,validity", help="pieces, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("out/gnudi"))
    parser.add_argument("--page", type=Path, default=Path("docs/experiments/gnudi.md"))
    given = parser.parse_args(arguments)
    size, pieces = SIZES[given.scale], given.only.split(",")
    given.out.mkdir(parents=True, exist_ok=True)
    kept = given.out / "results.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    results |= {"scale": given.scale, "size": dataclasses.asdict(size)}

    def keep(name: str, run: Callable[[], dict[str, Any]]) -> None:
        if name in pieces:
            started = time.monotonic()
            results[name] = run()
            results[name]["seconds"] = time.monotonic() - started
            kept.write_text(json.dumps(results, indent=1))
            write_page(results, given.out, given.page)
            print(name, json.dumps(results[name].get("psnr", ""), indent=1), flush=True)

    radiographs, facts = xray(size) if {"xray", "validity"} & {*pieces} else (None, {})
    slices = ct(size) if {"ct", "honest", "validity"} & {*pieces} else None

    def xray_models() -> dict[str, Denoiser]:
        assert radiographs is not None
        return models_of(radiographs, ALL, size, given.out, "xray")

    def ct_models(psnr: float) -> dict[str, Denoiser]:
        assert slices is not None
        names = ALL if psnr == 24.44 else {N2N: ALL[N2N]}
        return models_of(white(slices[0], SIGMAS[psnr]), names, size, given.out, f"ct-{psnr}")

    def run_ct() -> dict[str, Any]:
        assert slices is not None
        return {
            str(psnr): table(white(slices[0], sigma), ct_models(psnr), size, given.out, f"ct-{psnr}")
            for psnr, sigma in SIGMAS.items()
        }

    def run_honest() -> dict[str, Any]:
        assert slices is not None
        images, more = honest(*slices, 24.44)
        models = models_of(images, {N2C: ALL[N2C], N2N: ALL[N2N]}, size, given.out, "honest")
        return table(images, models, size, given.out, "honest") | more

    def run_validity() -> dict[str, Any]:
        assert radiographs is not None
        assert slices is not None
        of_xray = {label: model for label, model in xray_models().items() if label != N2N_MAE}
        of_ct = {f"trained at {psnr} dB": ct_models(psnr)[N2N] for psnr in SIGMAS}
        image, slab = radiographs.clean[-1, 0], slices[0][-1, -1]
        return {
            "xray": curve(of_xray, image, np.linspace(14.8, 50.06, 13), counted),
            "ct": curve(of_ct, slab, np.linspace(3.61, 46.51, 13), added),
        }

    def run_xray() -> dict[str, Any]:
        assert radiographs is not None
        found = table(radiographs, xray_models(), size, given.out, "xray") | facts
        hasty = dataclasses.replace(size, steps=max(1, size.steps // 8))  # which loss learns faster
        both = models_of(radiographs, {name: ALL[name] for name in (N2N, N2N_MAE)}, hasty, given.out, "xray-hasty")
        clean, noisy, _ = radiographs.test(size.filtered)
        return found | {"hasty": {name: mean_psnr(apply(model, noisy), clean) for name, model in both.items()}}

    keep("xray", run_xray)
    keep("ct", run_ct)
    keep("honest", run_honest)
    keep("validity", run_validity)
    write_page(results, given.out, given.page)
    return results


if __name__ == "__main__":
    main()
