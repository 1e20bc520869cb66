"""The page that won.py writes from its own results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from pages import row_of, save_figure, write

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PAPER = {
    "low dose": (46.21, 0.9773),
    "N2V": (46.46, 0.9790),
    "N2V + ours without update": (49.22, 0.9893),
    "N2V + ours": (49.57, 0.9905),
    "N2N": (46.16, 0.9769),
    "N2N + ours without update": (46.69, 0.9794),
    "N2N + ours": (49.85, 0.9910),
    "N2C": (50.30, 0.9920),
    "N2C + ours without update": (50.47, 0.9922),
    "N2C + ours": (50.50, 0.9922),
    "N2C + histogram": (48.65, 0.9872),
    "N2C + Gaussian": (49.94, 0.9911),
    "N2C + model + histogram": (50.36, 0.9920),
}


def gain(rows: dict[str, list[dict[str, float]]], better: str, worse: str) -> tuple[float, float]:
    """Mean of the paired differences in PSNR over the subjects, and their standard deviation."""
    found = [one["psnr"] - other["psnr"] for one, other in zip(rows[better], rows[worse], strict=True)]
    return float(np.mean(found)), float(np.std(found, ddof=1))


def claims(rows: dict[str, list[dict[str, float]]]) -> list[str]:
    """What must hold, whether it does, and by how much."""
    pairs = [(f"{name} + ours", name) for name in ("N2V", "N2N", "N2C")]
    pairs += [(f"{name} + ours", f"{name} + ours without update") for name in ("N2V", "N2N", "N2C")]
    pairs += [("N2C + ours", "N2C + model + histogram")]
    pairs += [("N2C + model + histogram", f"N2C + {name}") for name in ("histogram", "Gaussian")]
    lines = []
    for better, worse in pairs:
        mean, sd = gain(rows, better, worse)
        lines.append(
            f"* {'holds' if mean >= 0 else '**does not hold**'}: {better} >= {worse} ({mean:+.3f} ± {sd:.3f} dB)"
        )
    return lines


def why(noise: dict[str, Any], rows: dict[str, list[dict[str, float]]]) -> list[str]:
    """What is known about a gain that did not come."""
    names = ("N2V", "N2N", "N2C")
    lost = [f"fine-tuning lost after {name}" for name in names if gain(rows, f"{name} + ours", name)[0] < 0]
    lost += [
        f"updating the teacher lost after {name}"
        for name in names
        if gain(rows, f"{name} + ours", f"{name} + ours without update")[0] < 0
    ]
    if not noise or not lost:
        return []
    ours, true = noise["ensemble"]["sd"], noise["true"]["sd"]
    return [
        f"Why {' and '.join(lost)}: the noise models tell {ours:.1f} HU of noise where there are {true:.1f} HU (see "
        "figure 2), for what they cannot tell from structure they leave out, and pixel by pixel from several of them "
        "less is left of what neighbours share. A network that learns to take so little away takes too little from "
        "the low-dose images, and with every update of the teacher a little less. The longer the models are trained, "
        "the more noise they tell."
    ]


def write_page(results: dict[str, Any], out: Path, page: Path) -> None:
    """Write the page from what there is."""
    size = results["size"]
    lines = [
        "# Pseudo-CT pairs (Won et al., 2021)",
        "",
        f"    python experiments/won.py --scale {results['scale']} --loss {results['loss']} --period "
        f"{results['period']}",
        "",
        f"{size['train']} simulated subjects to train on and {size['test']} to test, {size['slices']} slices of "
        f"{size['pixels']} x {size['pixels']} each; counts of photons and electronic noise through filtered "
        f"backprojection of "
        f"{size['views']} views, the low dose a quarter of the normal one (noise inserted into the "
        f"sinogram), 46.21 dB from it "
        f"as in the paper. RED-CNN with {size['maps']} maps (paper: 96), {size['steps']} steps of "
        f"{size['batch']} patches of "
        f"{size['patch']} pixels at a peak learning rate of 0.001; U-Nets predict low minus normal dose, "
        f"one for each training "
        f"subject, L1. Fine-tuning: algorithm 1 on the slices of each test subject alone, "
        f"{size['tuning_steps']} steps at "
        f"0.0001, C = {results['period']}, loss {results['loss']}, the last weights are kept. Flips and "
        f"quarter turns; the "
        "paper's random rescaling is left out, for it changes the texture of the noise.",
        "",
    ]
    if "table" in results:
        rows = results["table"]["rows"]
        lines += [
            "## Table 1",
            "",
            "Mean ± standard deviation over test subjects. PSNR and SSIM: range 4096 HU, all pixels, "
            "against the normal dose, "
            "whose own noise no method can meet; the last column is against the slices without noise.",
            "",
            row_of("method", "PSNR (dB)", "SSIM", "paper", "PSNR, no noise (dB)"),
            row_of(*["---"] * 5),
        ]
        for name, found in rows.items():
            psnr, ssim, true = (np.array([one[key] for one in found]) for key in ("psnr", "ssim", "true_psnr"))
            paper = "{:.2f} / {:.4f}".format(*PAPER[name]) if name in PAPER else ""
            lines.append(
                row_of(
                    name,
                    f"{psnr.mean():.2f} ± {psnr.std(ddof=1):.2f}",
                    f"{ssim.mean():.4f} ± {ssim.std(ddof=1):.4f}",
                    paper,
                    f"{true.mean():.2f} ± {true.std(ddof=1):.2f}",
                )
            )
        lines += ["", "Paired over the subjects:", "", *claims(rows), "", *why(results.get("noise", {}), rows), ""]
    if "noise" in results:
        found = results["noise"]
        kept = np.load(out / "noises.npz")
        figure, axes = plt.subplots(
            1, len(found) + 2, figsize=(1.7 * (len(found) + 2), 2.2), width_ratios=[1] * (len(found) + 1) + [1.6]
        )
        axes[0].imshow(kept["image"], cmap="gray", vmin=0.8, vmax=1.3)
        axes[0].set_title("low dose", fontsize=7)
        for axis, name in zip(axes[1:-1], found, strict=True):
            axis.imshow(kept[name], cmap="gray", vmin=-0.06, vmax=0.06)
            axis.set_title(name, fontsize=7)
        for axis in axes[:-1]:
            axis.axis("off")
        for name, one in found.items():
            axes[-1].semilogy(one["frequency"], np.maximum(one["power"], 1e-3), label=name, linewidth=1)
        axes[-1].legend(fontsize=4)
        axes[-1].set_title("noise power (HU² mm²)", fontsize=7)
        lines += [
            "## Figure 2: generated noise",
            "",
            f"![noise of every source and its power spectrum]({save_figure(figure, page, 'won-noise')})",
            "",
            row_of("source", "sd (HU)", "correlation of neighbours", "correlation with the true noise"),
            row_of(*["---"] * 4),
        ]
        lines += [
            row_of(name, f"{one['sd']:.1f}", f"{one['neighbours']:+.2f}", f"{one['with_true']:+.2f}")
            for name, one in found.items()
        ]
        lines += [
            "",
            "A noise model predicts the noise of the very image that it sees: what it finds is "
            "that noise, as far as "
            "it can be told from structure, and no new one.",
            "",
        ]
    lines += [
        "## Full scale",
        "",
        "`--scale full` (a GPU; not run here): 512 x 512, RED-CNN of 96 maps, seven test subjects.",
        "",
    ]
    write(page, lines)
