"""A real neutron scan, rows 55:128 of psi_neutron_ct: noise, bias and sharpness, and the picture in the README.

    quietray denoise SCAN --method noise2inverse --rows 55:128 --out out/psi --budget 10m
    python benchmarks/bench_psi.py SCAN out/psi [docs/images/psi.png]

Noise is the standard deviation of single slices in air outside the tube; bias is the change of the mean attenuation
inside the rods; sharpness is the 10-90 % width of the rods' edges, from radial profiles averaged over angle and slices,
which the noise of the FBP leaves readable.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage, optimize, special
from skimage import feature

import quietray
from quietray.workflows import Settings, reconstruct

ROWS = "55:128"


def rods(image: np.ndarray) -> list[tuple[float, float, float]]:
    """Return centre and radius ``(y, x, r)`` of the rods in the mean of the noisy slices.

    They are the peaks of the distance to the nearest pixel that is darker than half their level.
    """
    smooth = ndimage.gaussian_filter(image, 1.5)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    central = np.hypot(y - 400, x - 460) < 150  # inside the tube
    level = 0.5 * np.percentile(smooth[central], 85)
    distance = ndimage.distance_transform_edt((smooth > level) & (np.hypot(y - 400, x - 460) < 190))
    peaks = feature.peak_local_max(distance, min_distance=12, threshold_abs=14)
    return [(float(y0), float(x0), float(distance[y0, x0])) for y0, x0 in peaks]


def edge_width(volume: np.ndarray, rod: tuple[float, float, float]) -> tuple[float, float]:
    """Return the 10-90 % width in pixels of a rod's edge, and the misfit, from the angular sector least disturbed.

    A step blurred by a Gaussian is fitted to the profile along the radius, in eight sectors; the median counts.
    """
    y0, x0, radius = rod
    mean = volume.mean(axis=0)
    offsets = np.arange(-7, 5.01, 0.5)
    widths = []
    for sector in range(8):
        angles = np.linspace(sector, sector + 1, 24) * np.pi / 4
        y = y0 + (radius + offsets[:, None]) * np.sin(angles)
        x = x0 + (radius + offsets[:, None]) * np.cos(angles)
        profile = ndimage.map_coordinates(mean, [y, x], order=1).mean(axis=1)

        def step(r: np.ndarray, low: float, high: float, at: float, sd: float) -> np.ndarray:
            return low + (high - low) * 0.5 * special.erfc((r - at) / (np.sqrt(2) * abs(sd) + 1e-6))

        start = (float(profile[-5:].mean()), float(profile[:5].mean()), 0.0, 1.0)
        try:
            fitted, _ = optimize.curve_fit(step, offsets, profile, start, maxfev=2000)
        except RuntimeError:
            continue
        misfit = float(np.std(profile - step(offsets, *fitted)) / max(1e-9, abs(fitted[1] - fitted[0])))
        if misfit < 0.06 and abs(fitted[2]) < 4 and fitted[1] > fitted[0]:
            widths.append(2.563 * abs(fitted[3]))
    return (float(np.median(widths)), len(widths)) if widths else (float("nan"), 0)


def main() -> None:
    """Measure and draw."""
    scan_path, run = Path(sys.argv[1]), Path(sys.argv[2])
    noisy_path = run / "noisy.zarr"
    metrics = json.loads((run / "metrics.json").read_text())
    if not noisy_path.exists():
        axis = metrics["scan"]["rotation_axis"]
        reconstruct(quietray.read(scan_path), noisy_path, Settings(rows=ROWS, rotation_axis=axis))
    noisy = np.asarray(quietray.read_volume(noisy_path)[:])
    clean = np.asarray(quietray.read_volume(run / "volume.zarr")[:])
    assert noisy.shape == clean.shape, (noisy.shape, clean.shape)

    air = (slice(None), slice(330, 500), slice(60, 180))  # left of the tube
    sd = [float(np.mean([one.std() for one in volume[air]])) for volume in (noisy, clean)]
    print(f"air: sd {sd[0]:.3g} -> {sd[1]:.3g} 1/pixel, down by {sd[0] / sd[1]:.1f}x")

    found = rods(noisy.mean(axis=0))
    y, x = np.mgrid[: noisy.shape[1], : noisy.shape[2]]
    inside = np.zeros(noisy.shape[1:], bool)
    for y0, x0, radius in found:
        inside |= np.hypot(y - y0, x - x0) < radius - 5
    means = [float(volume[:, inside].mean()) for volume in (noisy, clean)]
    print(f"rods: {len(found)} found, mean {means[0]:.5f} -> {means[1]:.5f} 1/pixel, {means[1] / means[0] - 1:+.2%}")

    ratios, widths = [], []
    for rod in found:
        (before, n_before), (after, n_after) = (edge_width(volume, rod) for volume in (noisy, clean))
        if n_before >= 3 and n_after >= 3:
            ratios.append(after / before)
            widths.append((before, after))
    before, after = np.median(widths, axis=0)
    print(f"edges: {len(ratios)} rods, 10-90 % width {before:.2f} -> {after:.2f} pixels, ratio {np.median(ratios):.2f}")
    print(
        f"estimated gain {metrics['estimate']['psnr_gain_db']} dB; {metrics['seconds']:.0f} s in all, "
        f"{metrics['training']['seconds']:.0f} s training, peak {metrics['memory']['peak'] / 2**30:.2f} GiB"
    )
    if len(sys.argv) > 3:
        draw(noisy, clean, Path(sys.argv[3]))


def draw(noisy: np.ndarray, clean: np.ndarray, path: Path) -> None:
    """Draw one slice before and after."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    z = noisy.shape[0] // 2
    view = (z, slice(170, 650), slice(230, 700))
    low, high = np.percentile(clean[view], (0.5, 99.7))
    figure, axes = plt.subplots(1, 2, figsize=(11, 5.4), layout="constrained")
    for ax, volume, title in zip(axes, (noisy, clean), ("filtered backprojection", "quietray"), strict=True):
        ax.imshow(volume[view], cmap="gray", vmin=low, vmax=high)
        ax.set_title(title)
        ax.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=85)


if __name__ == "__main__":
    main()
