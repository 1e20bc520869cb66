"""Flats of their own: what they gain and cost, beside ring filters, and the picture in docs/flats.md.

    python benchmarks/bench_flats.py                     # shared and own at 256, 40, 8 and 4 flats
    python benchmarks/bench_flats.py --filters           # beside ring filters; detector with and without a drift
    python benchmarks/bench_flats.py --mean              # noise of the mean over the subsets; nothing is trained
    python benchmarks/bench_flats.py --psi SCAN          # ten flats, 375 views of neutrons
    python benchmarks/bench_flats.py --picture docs/images/flats.png

Foam of 256 views x 192 columns, 100 photons, Noise2Inverse of single slices; the same network, start and steps.
PSNR is against the FBP of noise-free views.  `rings` is the standard deviation over the radius of the mean error around
the axis, over all slices, in 1000ths of the range; `detail` is the slope of the high-passed result on the high-passed
truth, 1 where nothing is blurred.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from foam import Foam
from scipy import ndimage

import quietray
from quietray import Correction, Noise2Inverse, Scan, Settings, Training
from quietray.detector.correction.calibration import Calibrated, calibrate
from quietray.lazy import chosen_frames
from quietray.preparation.flats import dealt
from quietray.preparation.sources import reconstruction_of
from quietray.types import Volume

FOAM = Foam(views=256, rows=8, cols=192, spheres=100, largest=0.25)
DRIFT = 0.01  # of the gain of a pixel, between flats and views


def with_flats(scan: Scan, n_flats: int, drift: float = 0.0) -> Scan:
    """Return the scan with so many of its flats; 0 for noise-free ones.  The gain of the pixels drifts after them."""
    assert scan.flats is not None
    flats = chosen_frames(scan.flats, np.arange(n_flats))
    if not n_flats:
        every = np.asarray(scan.flats[:], np.float32)
        flats = np.full((4, *every.shape[1:]), every.mean(), np.float32)
    counts = scan.read(slice(None))
    if drift:
        gain = 1 + drift * np.random.default_rng(5).standard_normal(counts.shape[1:])
        counts = np.round(100 + (counts - 100) * gain).astype(np.float32)  # 100 is the simulated dark level
    return dataclasses.replace(scan, projections=counts, flats=flats)


def denoised(scan: Scan, own: bool, rings: str = "none", steps: int = 600, seed: int = 0) -> quietray.Result:
    """Return the result of a run."""
    correction = Correction(rings=rings, own_flats=own)  # type: ignore[arg-type]
    training = Training(steps, patience=1.0, precision="fp32")
    told = Settings(method=Noise2Inverse(slices=1), correction=correction, training=training, symmetries=1, seed=seed)
    return quietray.denoise(scan, None, told)


def radial(image: np.ndarray) -> np.ndarray:
    """Return the mean of an image around its middle, by radius in pixels, out to the edge of the field of view."""
    n = len(image)
    y, x = np.indices(image.shape) - (n - 1) / 2
    radius = np.hypot(y, x).astype(int)
    total = np.bincount(radius.ravel(), image.ravel()) / np.bincount(radius.ravel())
    return np.asarray(total[2 : int(0.48 * n)])


def rings_of(volume: Volume) -> float:
    """Return the standard deviation of what varies from one radius to the next, in the mean over z."""
    profile = radial(volume.mean(axis=0))
    return float(np.std(profile - ndimage.uniform_filter1d(profile, 9)))


def row(volume: Volume) -> dict[str, float]:
    """Return PSNR, rings and detail of a volume of the foam."""
    clean, mask = FOAM.clean, FOAM.mask
    span = float(np.ptp(clean[:, mask]))
    truth, seen = (one - ndimage.gaussian_filter(one, (0, 1.5, 1.5)) for one in (clean, volume))
    detail = float((truth * seen)[:, mask].sum() / (truth * truth)[:, mask].sum())
    return {"psnr": FOAM.psnr(volume), "rings": 1000 * rings_of(volume - clean) / span, "detail": detail}


def told(name: str, numbers: dict[str, Any]) -> None:
    """Print a row of a table."""
    cells = (
        f"{value:.3g}" if isinstance(value, float) and abs(value) < 1 else f"{value:.2f}" for value in numbers.values()
    )
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def table(counts: Sequence[int], steps: int, seeds: int) -> None:
    """Print shared against own flats."""
    print("| flats | seed | shared, dB | own, dB | rings shared | rings own | predicted share |\n" + 7 * "|---" + "|")
    for n_flats in counts:
        scan = with_flats(FOAM.scan, n_flats)
        for seed in range(seeds):
            found = {own: denoised(scan, own, steps=steps, seed=seed) for own in (False, True)}
            rows = {own: row(np.asarray(one.volume)) for own, one in found.items()}
            share = found[True].metrics["flats"]["rings_share"]
            told(
                f"{n_flats} | {seed}",
                {f"{what} {own}": rows[own][what] for what in ("psnr", "rings") for own in rows} | {"share": share},
            )
    noiseless = denoised(with_flats(FOAM.scan, 0), False, steps=steps)
    told("noise-free | 0", row(np.asarray(noiseless.volume)))


def filters(n_flats: int, steps: int) -> None:
    """Print ring filters beside own flats."""
    print("| detector | flats | rings removed by | PSNR, dB | rings | detail |\n|---|---|---|---|---|---|")
    for name, drift in (("steady", 0.0), ("drifts", DRIFT)):
        scan = with_flats(FOAM.scan, n_flats, drift)
        for own, kinds in ((False, ("none", "sorting", "large", "all")), (True, ("none", "sorting", "auto"))):
            for rings in kinds:
                found = denoised(scan, own, rings, steps)
                told(f"{name} | {'own' if own else 'shared'} | {rings}", row(np.asarray(found.volume)))
                if rings == "auto":
                    print(next(note for note in found.notes if "angular subsets" in note), flush=True)


def means(counts: Sequence[int]) -> None:
    """Print the noise of the mean over the subsets, with shared and with own flats."""
    print("| flats | shared | own | ratio |\n|---|---|---|---|")
    for n_flats in counts:
        scan = with_flats(FOAM.scan, n_flats)
        noise = []
        for own in (False, True):
            correction = Correction(rings="none", own_flats=own, zingers=0.0)  # type: ignore[arg-type]
            known = dealt(Calibrated(scan, calibrate(scan, correction), ()), 4)
            source = reconstruction_of(scan, known.calibration, quietray.FBP(), scan.geometry.grid(), 4)
            parts, _ = source(slice(0, scan.n_rows))
            noise.append(float((parts.mean(axis=0) - FOAM.clean)[:, FOAM.mask].std()))
        told(str(n_flats), {"shared": noise[0], "own": noise[1], "ratio": noise[1] / noise[0]})


def picture(path: Path, n_flats: int, steps: int) -> None:
    """Draw a slice as measured, denoised with shared flats, with a ring filter, and with own flats."""
    import matplotlib.pyplot as plt

    scan, middle = with_flats(FOAM.scan, n_flats), FOAM.rows // 2
    runs = [denoised(scan, *how, steps) for how in ((False, "none"), (False, "sorting"), (True, "none"))]
    tiles = [np.asarray(run.volume)[middle] for run in runs]
    low, high = np.percentile(FOAM.clean[:, FOAM.mask], (0.5, 99.5))
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.3), layout="constrained")
    for axis, tile, title in zip(axes, tiles, ("shared flats", "shared, rings sorted out", "own flats"), strict=True):
        axis.imshow(tile, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        axis.set(title=f"{title}, {FOAM.psnr(tile[None], slice(middle, middle + 1)):.1f} dB", xticks=[], yticks=[])
    figure.savefig(path, dpi=80)


def psi(path: Path, steps: int) -> None:
    """Print rings, noise in air and edges of a measured scan, with each choice."""
    from bench_psi import edge_width, rods

    print("| flats | rings removed by | rings in the mean over z | noise in air | edges, px |\n|---|---|---|---|---|")
    whole = quietray.read(path)
    for own, rings in ((False, "none"), (False, "sorting"), (True, "none"), (True, "auto")):
        correction = Correction(rings=rings, own_flats=own)  # type: ignore[arg-type]
        training = Training(steps, patience=1.0)
        told_ = Settings(method=Noise2Inverse(), rows="80:104", correction=correction, training=training, symmetries=1)
        found = quietray.denoise(whole, None, told_)
        volume = np.asarray(found.volume)
        widths = [edge_width(volume, rod)[0] for rod in rods(volume.mean(axis=0))]
        air = volume[:, 380:420, 130:190]
        told(
            f"{own} | {rings}",
            {
                "rings": rings_of(volume),
                "air": float((air - air.mean(axis=0)).std()),
                "edges": float(np.nanmedian(widths)),
            },
        )
        print(*(note for note in found.notes if "angular subsets" in note or "ings" in note), sep="\n", flush=True)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flats", type=int, nargs="+", default=[256, 40, 8, 4])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--filters", action="store_true")
    parser.add_argument("--mean", action="store_true")
    parser.add_argument("--psi", type=Path)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    if args.mean:
        means(args.flats)
    elif args.filters:
        filters(min(args.flats), args.steps)
    elif args.psi:
        psi(args.psi, args.steps)
    elif args.picture:
        picture(args.picture, min(args.flats), args.steps)
    else:
        table(args.flats, args.steps, args.seeds)


if __name__ == "__main__":
    main()
