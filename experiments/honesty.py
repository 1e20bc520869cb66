"""What PSNR does not tell: bias of tissues in Hounsfield units, texture of the noise, and faint details.

    python experiments/honesty.py --scale small [--only tissues,details] [--out out/honesty]

Tissues: slices of the simulated subjects, counts and electronic noise through filtered backprojection.  Details:
the public simulated phantom of low contrast (FDA DIDSR LCD_CT, three doses, ten realisations each), where there is one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import gnudi
import matplotlib
import numpy as np
from pages import row_of, save_figure, write

from quietray.filters import Filter, GaussianFilter, MedianFilter
from quietray.inference.denoiser import Denoiser, Scale
from quietray.metrics.observer import detectability, laguerre_gauss
from quietray.metrics.spectrum import power_spectrum
from quietray.networks import LehtinenUNet
from quietray.running.settings import Training
from quietray.simulate.anatomy import attenuation, beam, hounsfield, subject
from quietray.splits import Noise2Clean, Noise2Noise
from quietray.splits.base import Neighbourhood
from quietray.training.batches import TrainingVolume
from quietray.training.loop import fit

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent.parent
FOLDERS = [Path(os.environ.get("QUIETRAY_DATA", ROOT / "shared/data")), ROOT.parent / "shared/data"]
PLACES_OF_DATA = [folder / "SIMULATED_lcd_ct/lcd_fbp.npz" for folder in FOLDERS]
DATA = next((place for place in PLACES_OF_DATA if place.exists()), PLACES_OF_DATA[0])
TISSUES = {"air": -1000, "lung": -743, "fat": -87, "soft tissue": 44, "spongy bone": 456}
PLACES = ((94, 94), (94, 161), (161, 94), (161, 161))  # rows and columns of the details
DOSES = ("010", "055", "100")
CHANNELS = laguerre_gauss(33, 14.0, 4)
MOST_STEPS = 1000  # of the network that learns one phantom from ten realisations


def filter_of(settings: Filter, scale: Scale) -> Denoiser:
    """A filter as a denoiser."""
    return Denoiser(settings.build(1), settings, Noise2Clean(), scale)


# --- tissues --------------------------------------------------------------------------------------------------------


def tissues(size: gnudi.Size, out: Path) -> dict[str, Any]:
    """Bias and spread of each tissue, and the spectrum of the noise, before and after."""
    clean, views, peak = gnudi.ct(size)
    images, _ = gnudi.honest(clean, views, peak, 24.44)
    models = gnudi.models_of(images, {name: gnudi.ALL[name] for name in (gnudi.N2C, gnudi.N2N)}, size, out, "honest")
    noiseless, noisy, other = images.test(10**6)
    step = max(1, round(12 * size.ct_pixels / 420))
    grid = beam(1, size.slices * step, size.ct_pixels).grid()
    seeds = range(size.subjects - images.n_test, size.subjects)
    truth = hounsfield(np.concatenate([attenuation(subject(seed), grid, supersampling=2)[::step] for seed in seeds]))
    every = np.linspace(0, len(noisy) - 1, min(size.filtered, len(noisy))).astype(int)
    noiseless, noisy, other, truth = noiseless[every], noisy[every], other[every], truth[every]
    found: dict[str, Any] = {"tissues": {}, "spectrum": {}, "psnr": {}}
    versions = {"noisy": lambda x: x} | {name: lambda x, m=model: gnudi.apply(m, x) for name, model in models.items()}
    versions["Gaussian, oracle"] = lambda x: gnudi.filtered(GaussianFilter(), x, noiseless)
    inside = slice(size.ct_pixels // 4, -(size.ct_pixels // 4))
    for name, version in versions.items():
        one, two = version(noisy), version(other)
        hu, reference = (hounsfield(x * np.float32(peak)) for x in (one, noiseless))
        found["psnr"][name] = gnudi.mean_psnr(one, noiseless)
        found["tissues"][name] = {
            tissue: {
                "bias": float((hu - reference)[abs(truth - value) < 15].mean()),
                "sd": float((hu - reference)[abs(truth - value) < 15].std()),
                "pixels": int((abs(truth - value) < 15).sum()),
            }
            for tissue, value in TISSUES.items()
        }
        difference = hounsfield(one * np.float32(peak)) - hounsfield(two * np.float32(peak))
        spectrum = power_spectrum(
            difference[:, inside, inside] / np.float32(np.sqrt(2)), beam(1, 1, size.ct_pixels).pixel_size
        )
        found["spectrum"][name] = [x.tolist() for x in spectrum.radial()]
    return found


# --- details --------------------------------------------------------------------------------------------------------


def learned(stack: np.ndarray, steps: int, maps: int) -> Denoiser:
    """Noise2Noise from the realisations of one phantom, ``(realisation, y, x)``."""
    scale = Scale(0.0, 1000.0)
    parts = scale.apply(stack.astype(np.float32))[:, None]
    rows = tuple(range(parts.shape[1]))
    data = TrainingVolume(
        parts, Neighbourhood(1), np.ones(parts.shape[2:], np.float32), rows, rows, held_out_band=(120, 136)
    )
    network, split = LehtinenUNet(maps), Noise2Noise(len(stack))
    settings = Training(steps, batch=2, patch=96, learning_rate=1e-3, precision="fp32", judgements=5, patience=1.0)
    return Denoiser(fit(split, lambda: network.build(1), data, settings).network, network, split, scale)


def regions(images: np.ndarray, places: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Cut squares around places out of every image, ``(place, image, y, x)``."""
    reach = CHANNELS.shape[1] // 2
    return np.stack(
        [images[:, y - reach : y + reach + 1, x - reach : x + reach + 1].astype(np.float64) for y, x in places]
    )


def ring() -> tuple[tuple[int, int], ...]:
    """Places as far from the middle as the details, turned by 30, 45 and 60 degrees from them."""
    radius = np.hypot(33.5, 33.5)
    turns = np.deg2rad([45 + quarter + turn for quarter in (0, 90, 180, 270) for turn in (0, 30, 45, 60)])
    return tuple((round(127.5 + radius * np.sin(turn)), round(127.5 + radius * np.cos(turn))) for turn in turns)


def details(size: gnudi.Size, data: Path = DATA) -> dict[str, Any]:
    """The detectability of four faint details at three doses, before and after."""
    stored = np.load(data)
    stacks = {name: stored[name].astype(np.float32) for name in stored.files}
    steps, maps = min(size.steps, MOST_STEPS), size.maps
    low = "dose010_absent"
    models = {
        "as reconstructed": None,
        "Gaussian, sd 1.5": filter_of(GaussianFilter(1.5), Scale(0.0, 1.0)),
        "median, radius 2": filter_of(MedianFilter(2), Scale(0.0, 1.0)),
        "Noise2Noise that saw no detail": learned(stacks[low], steps, maps),
    }
    quiet = stacks["dose100_absent"].mean(axis=0)
    middle = np.hypot(*(np.indices(quiet.shape) - 127.5)) < 100
    found: dict[str, Any] = {}
    for dose in DOSES:
        for name, model in models.items():
            present, absent = (
                stacks[f"dose{dose}_{kind}"] if model is None else gnudi.apply(model, stacks[f"dose{dose}_{kind}"])
                for kind in ("present", "absent")
            )
            elsewhere = regions(absent, ring())
            background = elsewhere.mean(axis=1, keepdims=True)
            noise = (elsewhere - background) * np.sqrt(len(absent) / (len(absent) - 1))
            own = []
            for place in PLACES:
                here, without = regions(present, (place,))[0], regions(absent, (place,))[0]
                # the background at the detail is itself the mean of a few images, whose chance is taken away, too
                one = detectability(here - without.mean(axis=0), noise.reshape(-1, *noise.shape[2:]), CHANNELS)
                own.append(
                    {
                        "square": one.square - len(CHANNELS) / len(without),
                        "error": one.error * np.sqrt(2),
                        "contrast": one.contrast,
                    }
                )
            found[f"{dose}: {name}"] = {
                "details": own,
                "sd": float(absent.std(axis=0, ddof=1)[middle].mean()),
                "rmse": float(np.sqrt(np.square(absent - quiet)[:, middle].mean())),
                "square": float(np.mean([one["square"] for one in own])),
                "error": float(np.sqrt(np.mean([one["error"] ** 2 for one in own]) / len(own))),
            }
    return found


# --- the page -------------------------------------------------------------------------------------------------------


def page(results: dict[str, Any], place: Path) -> None:
    """Write what was found."""
    lines = ["# What PSNR does not tell", "", (__doc__ or "").split("\n\n")[0], ""]
    lines += ["    python experiments/honesty.py --scale " + results["scale"], ""]
    if "tissues" in results:
        found = results["tissues"]
        lines += [
            "## Tissues",
            "",
            "Mean difference (standard deviation) from the reconstruction without noise, in HU, on subjects "
            "that no model "
            "was trained on; counts of photons and electronic noise through filtered backprojection, 24.44 "
            "dB. A bias of "
            "the noisy slices is that of the logarithm of few counts, which no method here removes. PSNR: "
            "peak 1 (the "
            "densest voxel of all), all pixels, against the reconstruction without noise.",
            "",
            row_of("", "PSNR (dB)", *TISSUES),
            row_of(*["---"] * (2 + len(TISSUES))),
        ]
        for name, row in found["tissues"].items():
            lines.append(
                row_of(
                    name,
                    f"{found['psnr'][name]:.2f}",
                    *(f"{one['bias']:+.1f} ({one['sd']:.0f})" for one in row.values()),
                )
            )
        figure, axis = plt.subplots(figsize=(6, 3.5))
        for name, (frequency, power) in found["spectrum"].items():
            axis.semilogy(frequency, power, label=name)
        axis.set(xlabel="frequency (1/mm)", ylabel="noise power (HU² mm²)")
        axis.legend(fontsize=7)
        lines += [
            "",
            f"![noise power]({save_figure(figure, place, 'honesty-nps')})",
            "",
            *(
                f"* {name}: mean frequency of what is left of the noise {mean_frequency(*spectrum):.4f} 1/mm."
                for name, spectrum in found["spectrum"].items()
            ),
            "",
        ]
    if "details" in results:
        lines += [
            "## Faint details",
            "",
            "Four faint details of the public simulated phantom LCD_CT (FDA DIDSR, CC0), ten images with "
            "and ten without. "
            "d'² is that of a channelised Hotelling observer with four Laguerre-Gauss channels of 14 pixels; its "
            "covariance is measured at sixteen places of equal radius, and chance is taken away. RMSE is against the "
            "mean of the ten images of full dose without details, within 100 pixels of the middle. The network was "
            "trained on the ten images of the lowest dose without details: of that dose its noise and RMSE are of "
            "images that it learned from.",
            "",
            row_of("dose, method", "noise sd (HU)", "RMSE (HU)", "d'² of each detail", "mean d'²"),
            row_of(*["---"] * 5),
        ]
        for name, row in results["details"].items():
            own = ", ".join(f"{one['square']:.1f}" for one in row["details"])
            mean = f"{row['square']:.2f} ± {row['error']:.2f}"
            lines.append(row_of(name, f"{row['sd']:.1f}", f"{row['rmse']:.1f}", own, mean))
        lines += ["", *verdict(results["details"]), ""]
    write(place, lines)


def mean_frequency(frequency: list[float], power: list[float]) -> float:
    """Mean frequency of the power in the plane; the lower it is, the coarser the texture."""
    weight = np.array(frequency) * np.array(power)  # rings grow with their radius
    return float((weight * np.array(frequency)).sum() / weight.sum())


def verdict(found: dict[str, Any]) -> list[str]:
    """Say in words what the details tell, from the figures."""
    lines = []
    for dose in DOSES:
        before = found[f"{dose}: as reconstructed"]
        for name in (name for name in found if name.startswith(dose) and "reconstructed" not in name):
            after = found[name]
            gain, change = 20 * np.log10(before["rmse"] / after["rmse"]), after["square"] - before["square"]
            error = float(np.hypot(before["error"], after["error"]))
            word = "no change beyond chance" if abs(change) < 2 * error else ("a gain" if change > 0 else "a loss")
            told = f"{'better' if gain > 0 else 'worse'} by {abs(gain):.1f} dB"
            lines.append(f"* {name}: RMSE {told}; d'² {change:+.2f} ± {error:.2f}: {word}.")
    return lines


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run the pieces, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=list(gnudi.SIZES), default="small")
    parser.add_argument("--only", default="tissues,details")
    parser.add_argument("--data", type=Path, default=DATA, help="lcd_fbp.npz")
    parser.add_argument(
        "--out", type=Path, default=Path("out/honesty"), help="may be that of gnudi.py, to use its models"
    )
    parser.add_argument("--page", type=Path, default=Path("docs/experiments/honesty.md"))
    given = parser.parse_args(arguments)
    size, pieces = gnudi.SIZES[given.scale], given.only.split(",")
    given.out.mkdir(parents=True, exist_ok=True)
    kept = given.out / "honesty.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    results |= {"scale": given.scale, "size": dataclasses.asdict(size)}
    if "tissues" in pieces:
        results["tissues"] = tissues(size, given.out)
    if "details" in pieces and given.data.exists():
        results["details"] = details(size, given.data)
    kept.write_text(json.dumps(results, indent=1))
    page(results, given.page)
    return results


if __name__ == "__main__":
    main()
