"""Flats of their own: what they gain and cost, beside ring filters, and the picture in docs/flats.md.

    python benchmarks/bench_flats.py --seeds 0 1 2       # shared and own at so many flats; 0 are without noise
    python benchmarks/bench_flats.py --views 512 --cols 96 --flats 4 --widths 8 16   # another scan, a small network
    python benchmarks/bench_flats.py --filters --steps 400 --flats 8 --picture docs/images/flats.png
    python benchmarks/bench_flats.py --mean              # noise of the mean over the subsets; nothing is trained
    python benchmarks/bench_flats.py --psi SCAN          # ten flats, 375 views of neutrons

Foam of 256 views x 192 columns, 100 photons; Noise2Inverse, beside filters of single slices; the same network, start
and steps.
PSNR is against the FBP of noise-free views.  `rings` is the slope of the error on the rings that the flats' noise and
the drift of the pixels' gain leave in a reconstruction, which are known: 1 where all of them are left.  `detail` is the
slope of the high-passed result on the high-passed truth, 1 where nothing is blurred.
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

FOAM = Foam(views=256, rows=16, cols=192, spheres=100, largest=0.25)
DRIFT = 0.05  # of the gain of a pixel, between flats and views


def with_flats(scan: Scan, n_flats: int, drift: float = 0.0) -> Scan:
    """Return the scan with so many of its flats; 0 for noise-free ones.  The gain of the pixels drifts after them."""
    assert scan.flats is not None
    flats = chosen_frames(scan.flats, np.arange(n_flats))
    if not n_flats:
        every = np.asarray(scan.flats[:], np.float32)
        flats = np.full((4, *every.shape[1:]), every.mean(), np.float32)
        flats[0] += 1e-3  # equal frames would pass for stuck pixels
    counts, gain = scan.read(slice(None)), np.float32(1)
    if drift:
        gain = 1 + drift * np.random.default_rng(5).standard_normal(counts.shape[1:])
        counts = np.round(100 + (counts - 100) * gain).astype(np.float32)  # 100 is the simulated dark level
    return dataclasses.replace(scan, projections=counts, flats=flats, provenance={"gain": gain})


def denoised(
    scan: Scan, own: bool, rings: str = "none", steps: int = 600, seed: int = 0, slices: int = 7, network: Any = None
) -> quietray.Result:
    """Return the result of a run."""
    network = network or quietray.UNet()
    correction = Correction(rings=rings, own_flats=own)  # type: ignore[arg-type]
    training = Training(steps, patience=1.0, precision="fp32")
    told = Settings(
        method=Noise2Inverse(slices=slices),
        network=network,
        correction=correction,
        training=training,
        symmetries=1,
        seed=seed,
    )
    return quietray.denoise(scan, None, told)


def rings_of(volume: Volume, use: np.ndarray) -> float:
    """Return the standard deviation over the area of what varies from one radius to the next, in each slice."""
    n = volume.shape[-1]
    y, x = np.indices((n, n)) - (n - 1) / 2
    radius, variances = np.hypot(y, x).astype(int)[use], []
    area = np.bincount(radius)
    for image in volume:
        profile = np.bincount(radius, image[use]) / np.maximum(area, 1)
        seen = area > 0
        varies = profile[seen] - ndimage.uniform_filter1d(profile[seen], 9)
        variances.append(np.average(varies**2, weights=area[seen]))
    return float(np.sqrt(np.mean(variances)))


def pattern(scan: Scan, foam: Foam) -> Volume:
    """Return what the flats' noise and the drift of the pixels add to a reconstruction: its rings, known exactly."""
    gain = np.asarray(scan.provenance.get("gain", 1.0))
    assert scan.flats is not None
    seen = np.mean(np.asarray(scan.flats[:], np.float32), axis=0) - 100
    rows = np.log(seen / (10 * foam.photons) / gain).astype(np.float32)  # 10 counts a photon
    sinograms = np.repeat(rows[:, None], scan.n_views, axis=1)
    return quietray.FBP()(quietray.ParallelProjector(scan.geometry), sinograms)


def row(volume: Volume, scan: Scan, foam: Foam = FOAM) -> dict[str, float]:
    """Return PSNR, rings left and detail of a volume of the foam."""
    clean, mask = foam.clean, foam.mask
    truth, seen = (one - ndimage.gaussian_filter(one, (0, 1.5, 1.5)) for one in (clean, volume))
    detail = float((truth * seen)[:, mask].sum() / (truth * truth)[:, mask].sum())
    rings = pattern(scan, foam)[:, mask]
    left = float(((volume - clean)[:, mask] * rings).sum() / np.maximum((rings * rings).sum(), 1e-12))
    return {"psnr": foam.psnr(volume), "rings": left, "detail": detail}


def told(name: str, numbers: dict[str, Any]) -> None:
    """Print a row of a table."""
    cells = (
        f"{value:.3g}" if isinstance(value, float) and abs(value) < 1 else f"{value:.2f}" for value in numbers.values()
    )
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def table(foam: Foam, counts: Sequence[int], steps: int, seeds: Sequence[int], network: quietray.UNet) -> None:
    """Print shared against own flats; each seed is another foam, other noise and another start of the network."""
    print("| flats | seed | rings predicted | shared, dB | own, dB | gain, dB | rings shared | rings own |")
    print(8 * "|---" + "|")
    for n_flats in counts:
        gains = []
        for seed in seeds:
            one = dataclasses.replace(foam, seed=seed)
            scan = with_flats(one.scan, n_flats)
            found = {own: denoised(scan, own, steps=steps, seed=seed, network=network) for own in (False, True)}
            shared, own = (row(np.asarray(result.volume), scan, one) for result in found.values())
            gains.append(own["psnr"] - shared["psnr"])
            share = found[True].metrics["flats"]["rings_share"]
            figures = {"share": share, "shared": shared["psnr"], "own": own["psnr"], "gain": gains[-1]}
            told(f"{n_flats} | {seed}", figures | {"rings": shared["rings"], "left": own["rings"]})
        error = np.std(gains, ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.nan
        print(f"{n_flats} flats: gain {np.mean(gains):.2f} +- {error:.2f} dB", flush=True)


def filters(n_flats: int, steps: int, path: Path | None) -> None:
    """Print ring filters beside own flats, and draw a slice of the first of them."""
    print("| detector | flats | rings removed by | PSNR, dB | rings | detail |\n" + 6 * "|---" + "|")
    middle, tiles = FOAM.rows // 2, {}
    for name, drift in (("steady", 0.0), ("drifts", DRIFT)):
        scan = with_flats(FOAM.scan, n_flats, drift)
        for own, rings in ((False, "none"), (False, "sorting"), (False, "all"), (True, "none"), (True, "auto")):
            found = denoised(scan, own, rings, steps, slices=1)
            volume = np.asarray(found.volume)
            told(f"{name} | {'own' if own else 'shared'} | {rings}", row(volume, scan))
            tiles.setdefault(f"{'own' if own else 'shared'} flats, ring filter: {rings}", volume[middle])
            if rings == "auto":
                print(next(note for note in found.notes if "angular subsets" in note), flush=True)
    if path is not None:
        del tiles["shared flats, ring filter: all"], tiles["own flats, ring filter: auto"]
        picture(path, tiles)


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


def picture(path: Path, tiles: dict[str, np.ndarray]) -> None:
    """Draw slices beside each other, with their PSNR."""
    import matplotlib.pyplot as plt

    middle = FOAM.rows // 2
    low, high = np.percentile(FOAM.clean[:, FOAM.mask], (0.5, 99.5))
    figure, axes = plt.subplots(1, len(tiles), figsize=(4 * len(tiles), 4.3), layout="constrained")
    for axis, (title, tile) in zip(axes, tiles.items(), strict=True):
        axis.imshow(tile, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        axis.set(title=f"{title}, {FOAM.psnr(tile[None], slice(middle, middle + 1)):.1f} dB", xticks=[], yticks=[])
    figure.savefig(path, dpi=72)


def psi(path: Path, steps: int) -> None:
    """Print rings, noise in air and edges of a measured scan, with each choice."""
    from bench_psi import edge_width, rods

    print(
        "| flats | rings removed by | rings, 1e-4 | in the mean over z | sd in air | edges, px |\n" + 6 * "|---" + "|"
    )
    scan, rows = quietray.read(path), "80:88"
    noisy = quietray.reconstruct(scan, None, rows=rows, correction=Correction(rings="none"))
    level = ndimage.gaussian_filter(noisy.mean(axis=0), 4)
    inside = np.hypot(*(np.indices(level.shape) - (len(level) - 1) / 2)) < 0.47 * len(level)
    air = inside & ndimage.binary_erosion(level < 0.1 * np.percentile(level, 99.5), iterations=8)  # outside the tube

    def figures(volume: Volume) -> dict[str, float]:
        mean = volume.mean(axis=0)
        widths = [edge_width(volume, rod)[0] for rod in rods(mean)]
        return {
            "rings": 1e4 * rings_of(volume, air),
            "mean": 1e4 * rings_of(mean[None], air),
            "air": 1e4 * float(volume[:, air].std()),
            "edges": float(np.nanmedian(widths)),
        }

    told("shared, not denoised | none", figures(noisy))
    for own, rings in ((True, "none"), (False, "sorting"), (False, "none")):
        correction = Correction(rings=rings, own_flats=own)  # type: ignore[arg-type]
        training, method = Training(steps, patience=1.0), Noise2Inverse(slices=1)
        found = quietray.denoise(
            scan, None, method=method, rows=rows, correction=correction, training=training, symmetries=1
        )
        told(f"{'own' if own else 'shared'} | {rings}", figures(np.asarray(found.volume)))


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flats", type=int, nargs="+", default=[40, 8, 4, 0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--views", type=int, default=FOAM.views)
    parser.add_argument("--cols", type=int, default=FOAM.cols)
    parser.add_argument("--widths", type=int, nargs="+", default=quietray.UNet().widths)
    parser.add_argument("--filters", action="store_true")
    parser.add_argument("--mean", action="store_true")
    parser.add_argument("--psi", type=Path)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    if args.mean:
        means(args.flats)
    elif args.filters:
        filters(min(args.flats), args.steps, args.picture)
    elif args.psi:
        psi(args.psi, args.steps)
    else:
        foam = dataclasses.replace(FOAM, views=args.views, cols=args.cols)
        table(foam, args.flats, args.steps, args.seeds, quietray.UNet(tuple(args.widths)))


if __name__ == "__main__":
    main()
