"""The page that gnudi.py writes from its own results."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from pages import row_of, save_figure, write

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PAPER = {
    "xray": {
        "noisy": 29.91,
        "Noise2Noise MAE": 37.66,
        "Noise2Noise MSE": 39.34,
        "Noise2Clean MSE": 40.54,
        "Gaussian, oracle": 35.09,
        "bilateral, oracle": 35.22,
        "median, oracle": 35.71,
    },
    "24.44": {
        "noisy": 24.44,
        "Noise2Noise MAE": 41.80,
        "Noise2Noise MSE": 42.09,
        "Noise2Clean MSE": 40.63,
        "Gaussian, oracle": 34.25,
        "bilateral, oracle": 35.09,
        "median, oracle": 33.48,
    },
    "18.66": {
        "noisy": 18.66,
        "Noise2Noise MSE": 30.01,
        "Gaussian, oracle": 26.94,
        "bilateral, oracle": 27.22,
        "median, oracle": 25.30,
    },
}
TITLES = {
    "xray": "Table III: X-ray projections, baseline 29.91 dB",
    "24.44": "Table IV: CT slices, baseline 24.44 dB",
    "18.66": "Table V: CT slices, baseline 18.66 dB",
    "honest": "Beyond the paper: noise of counts through filtered backprojection, baseline 24.44 dB",
}
GAPS = {"xray": 3.5, "24.44": 5.0, "18.66": 2.5}
BY_LOSS = "N2N-MSE > N2N-MAE"  # what only long training shows
N2N, N2N_MAE, N2C = "Noise2Noise MSE", "Noise2Noise MAE", "Noise2Clean MSE"


def claims(name: str, psnr: dict[str, float]) -> list[tuple[str, bool, str]]:
    """What must hold in a table: the claim, whether it does, and by how much."""
    filters = {label: value for label, value in psnr.items() if "oracle" in label}
    best = max(filters, key=lambda label: filters[label])
    gap = psnr[N2N] - filters[best]
    found = []
    if name in GAPS:
        found.append(
            (
                f"N2N-MSE at least {GAPS[name]} dB over the best oracle filter ({best})",
                gap >= GAPS[name],
                f"{gap:+.2f} dB",
            )
        )
    if name == "xray":
        order = [psnr[N2C], psnr[N2N], filters[best]]
        words = ", ".join(f"{value:.2f}" for value in order)
        found.append(("N2C > N2N-MSE > every filter", order == sorted(order, reverse=True), words))
        above = f"{psnr[N2N_MAE] - filters[best]:+.2f} dB"
        found.append(("N2N-MAE > every filter", psnr[N2N_MAE] > filters[best], above))
        found.append((BY_LOSS, psnr[N2N] > psnr[N2N_MAE], f"{psnr[N2N] - psnr[N2N_MAE]:+.2f} dB"))
        found.append(("N2N-MSE within 1.5 dB of N2C", psnr[N2C] - psnr[N2N] <= 1.5, f"{psnr[N2N] - psnr[N2C]:+.2f} dB"))
    return found


def shape_claims(rows: list[dict[str, Any]]) -> list[tuple[str, bool, str]]:
    """What must hold of the gain over the input's PSNR."""
    found = []
    for label in (key for key in rows[0] if key != "input"):
        gains = [row[label]["output"] - row["input"] for row in rows]
        crossing = next((row["input"] for row, gain in zip(rows, gains, strict=True) if gain < 0), None)
        at = "never" if crossing is None else f"first seen at {crossing:.1f} dB"
        found.append((f"{label}: the gain turns negative", crossing is not None and gains[0] > 0, at))
        late = gains[int(np.argmax(gains)) :]
        falls = all(one >= other - 0.1 for one, other in pairwise(late))
        found.append(
            (f"{label}: the gain falls beyond its peak", falls, f"from {max(gains):.1f} to {gains[-1]:.1f} dB")
        )
        least = min(row[label]["least_guarded_gain"] for row in rows)
        found.append((f"{label}: guarded, no image is worse than it was", least >= 0, f"least gain {least:+.2f} dB"))
    return found


def listed(found: list[tuple[str, bool, str]]) -> list[str]:
    """Claims as a list."""
    return [f"* {'holds' if holds else '**does not hold**'}: {claim} ({how})" for claim, holds, how in found]


def table_of(name: str, result: dict[str, Any]) -> list[str]:
    """A table beside the paper's figures."""
    lines = [
        f"## {TITLES[name]}",
        "",
        f"Mean over {result['test_images']} images of subjects that were not trained on.",
        "",
    ]
    lines += [row_of("method", "here (dB)", "paper (dB)"), row_of("---", "---", "---")]
    for label, value in result["psnr"].items():
        paper = PAPER.get(name, {}).get(label)
        lines.append(row_of(label, f"{value:.2f}", "" if paper is None else f"{paper:.2f}"))
    return [*lines, "", *listed(claims(name, result["psnr"])), ""]


def of_loss(xray: dict[str, Any], size: dict[str, Any]) -> list[str]:
    """What is known about MAE against MSE, where MAE ends up ahead."""
    hasty, psnr = xray.get("hasty"), xray["psnr"]
    if not hasty or psnr[N2N_MAE] < psnr[N2N]:
        return []
    early, late = hasty[N2N_MAE] - hasty[N2N], psnr[N2N_MAE] - psnr[N2N]
    return [
        f"MAE is ahead of MSE by {early:+.2f} dB after {size['steps'] // 8} steps and by {late:+.2f} dB after "
        f"{size['steps']}: "
        + (
            "it learns faster, and the lead shrinks; the paper trains longer."
            if late < early
            else "the lead does not shrink with training here, and what the paper saw is not explained by it."
        ),
        "",
    ]


def pictures(out: Path, page: Path, name: str, scale: float) -> list[str]:
    """One test image by every method."""
    kept = np.load(out / f"{name}.npz")
    figure, axes = plt.subplots(1, len(kept.files), figsize=(1.7 * len(kept.files), 2.1))
    for axis, label in zip(np.atleast_1d(axes), kept.files, strict=True):
        axis.imshow(kept[label], cmap="gray", vmin=0, vmax=scale)
        axis.set_title(label.replace(" ", "\n", 1), fontsize=7)
        axis.axis("off")
    address = save_figure(figure, page, f"gnudi-{name}")
    plt.close(figure)
    return [f"![one test image by every method]({address})", ""]


def curves(rows: list[dict[str, Any]], page: Path, name: str) -> list[str]:
    """Output PSNR and gain over the input's PSNR, with and without the guard."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2))
    x = [row["input"] for row in rows]
    for label in (key for key in rows[0] if key != "input"):
        for key, style in (("output", "-"), ("guarded", ":")):
            y = [row[label][key] for row in rows]
            text = label if key == "output" else f"{label}, guarded"
            axes[0].plot(x, y, style, label=text)
            axes[1].plot(x, [one - other for one, other in zip(y, x, strict=True)], style, label=text)
    axes[0].plot(x, x, color="gray", linewidth=0.7)
    axes[1].axhline(0, color="gray", linewidth=0.7)
    axes[0].set(xlabel="input PSNR (dB)", ylabel="output PSNR (dB)")
    axes[1].set(xlabel="input PSNR (dB)", ylabel="gain (dB)")
    axes[1].legend(fontsize=6)
    address = save_figure(figure, page, f"gnudi-validity-{name}")
    plt.close(figure)
    return [f"![range of validity]({address})", "", *listed(shape_claims(rows)), ""]


def write_page(results: dict[str, Any], out: Path, page: Path) -> None:
    """Write the page from what there is."""
    size = results["size"]
    lines = [
        "# Noise2Noise for X-ray projections and CT slices (Gnudi et al., 2020)",
        "",
        "    python experiments/gnudi.py --scale " + results["scale"],
        "",
        f"{size['subjects']} simulated subjects (`quietray.simulate.anatomy`; the paper's XCAT and "
        f"DeepLesion are not ours to "
        f"ship), a fifth of them for testing, split by subject. X-ray: {size['views']} views of {size['pixels']} x "
        f"{size['pixels']} pixels each, as transmitted intensity over the open beam, Poisson noise. CT: "
        f"{size['slices']} "
        f"slices of {size['ct_pixels']} x {size['ct_pixels']}, over the highest value of all, white noise. "
        f"The network is "
        f"Lehtinen's U-Net with {size['maps']} maps (the paper: 48), {size['steps']} steps of "
        f"{size['batch']} images, Adam at "
        "0.001 that falls along a cosine (the paper halves it where validation stalls); weights averaged over steps "
        "(the paper's are "
        "not). Other data and, at small scale, a smaller network: what must hold is the order and the gaps.",
        "",
        "PSNR: peak 1, all pixels, no mask, against the clean image. *Oracle*: the setting of a filter with "
        "the smallest true "
        "error, image by image, as in the paper. *No truth*: the setting that comes closest to a second "
        "noisy image.",
        "",
    ]
    if "xray" in results:
        lines += [*table_of("xray", results["xray"]), *pictures(out, page, "xray", 0.4)]
        lines += [f"Open beam: {results['xray']['photons']:.0f} photons a pixel.", "", *of_loss(results["xray"], size)]
    for psnr in ("24.44", "18.66"):
        if "ct" in results:
            lines += [*table_of(psnr, results["ct"][psnr]), *pictures(out, page, f"ct-{psnr}", 0.6)]
    if "honest" in results:
        lines += [*table_of("honest", results["honest"]), *pictures(out, page, "honest", 0.6)]
        lines += [
            f"Open beam: {results['honest']['photons']:.0f} photons, electronic noise of "
            f"{results['honest']['electronic']:.0f}. Neighbours share this noise, as in every scanner.",
            "",
        ]
    if "validity" in results:
        lines += [
            "## Figures 2 and 4: range of validity, and the guard",
            "",
            "One test image at thirteen levels of noise, three draws each. The guard "
            "(`quietray.inference.guard`) "
            "measures the noise of each input (X-ray: from the counts; CT: from its quietest blocks), "
            "expects the "
            "model's error by Stein's formula, and returns the input where that is larger.",
            "",
        ]
        lines += ["### X-ray (trained at 29.91 dB)", "", *curves(results["validity"]["xray"], page, "xray")]
        lines += ["### CT", "", *curves(results["validity"]["ct"], page, "ct")]
    lines += [
        "## Full scale",
        "",
        "`--scale full` (a GPU; not run here): 100 subjects x 63 views of 192 x 192, the paper's network, "
        "40 000 steps of 16.",
        "",
    ]
    write(page, lines)
