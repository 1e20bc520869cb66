"""Piece a of graas.py: foam, Poisson noise, few views; radiographs denoised before, or the volume after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pages import gallery, save, table, verdict

import quietray
from quietray.metrics.image import compare, disc
from quietray.reconstruct import SIRT
from quietray.simulate.noise import Poisson
from quietray.types import Volume
from quietray.workflows import Settings

__all__ = ["Orders"]

_NAMES = {
    "none": "not denoised",
    "before": "radiographs denoised before, Noise2Self",
    "after": "volume denoised after, Noise2Inverse",
    "clean": "projections without noise",
}
_SHORT = {"none": "", "before": "Noise2Self, ", "after": "Noise2Inverse of ", "clean": "without noise, "}


@dataclass(frozen=True)
class Orders:
    """The 2 x 2 of seeds/000: {FBP, SIRT} x {Noise2Self before, Noise2Inverse after}, and neither.

    Parameters
    ----------
    rows, cols, views
        Detector and angles.
    spheres, largest
        Voids of the foam, and the largest radius in half-widths of the detector.
    photons
        A pixel and view, without the object.
    steps, patch, batch
        Of training, the same for all networks.
    iterations
        Of SIRT, in the box between air and the foam's material.
    """

    rows: int = 32
    cols: int = 96
    views: int = 32
    spheres: int = 200
    largest: float = 0.15
    photons: float = 200.0
    steps: int = 600
    patch: int = 48
    batch: int = 1
    iterations: int = 80

    def measure(self, folder: Path) -> dict[str, Any]:
        """Run the six, and return their errors."""
        scan = self.scan()
        truth, material = np.asarray(scan.truth[:], np.float32), float(scan.provenance["attenuation"])
        mask = disc(self.cols, self.cols, 0.97)
        volumes, warnings = self.volumes(scan, folder, material)
        found = {}
        for (order, algorithm), volume in volumes.items():
            one = compare(volume, truth, data_range=material, mask=mask)
            found[f"{order}, {algorithm}"] = {
                "mse": one.rmse**2 / material**2,
                "psnr": one.psnr,
                "ssim": one.ssim,
                "warnings": warnings.get((order, algorithm), []),
            }
        middle = self.rows // 2
        shown = {
            f"{_SHORT[order]}{algorithm}\n{found[f'{order}, {algorithm}']['psnr']:.1f} dB": volume[middle]
            for (order, algorithm), volume in volumes.items()
        }
        first = dict(list(shown.items())[: len(_NAMES)])
        panels = first | {"truth\n": truth[middle]} | shown
        save(gallery(panels, len(_NAMES) + 1, (-0.2 * material, 1.2 * material)), folder / "graas-foam.png")
        return {"volumes": found, "material": material}

    def scan(self) -> quietray.Scan:
        """Return the noisy scan: pure counting noise, every photon in one pixel."""
        height = max(0.35, 1.2 * self.rows / self.cols)
        foam = quietray.Foam.packed(self.spheres, height, np.random.default_rng(0), largest=self.largest)
        angles = np.linspace(0, np.pi, self.views, endpoint=False)
        beam = quietray.ParallelBeam(angles, self.rows, self.cols, rotation_axis=(self.cols - 1) / 2)
        return quietray.acquire(foam, beam, photons=self.photons, n_flats=400, detector=Poisson())

    def volumes(
        self, scan: quietray.Scan, folder: Path, material: float
    ) -> tuple[dict[tuple[str, str], Volume], dict[tuple[str, str], list[str]]]:
        """Return the volumes by order and algorithm, and what quietray warned of."""
        out: dict[tuple[str, str], Volume] = {}
        warned: dict[tuple[str, str], list[str]] = {}
        algorithms: dict[str, Any] = {"FBP": quietray.FBP(), "SIRT": SIRT(self.iterations, (0.0, material))}
        training = quietray.Training(steps=self.steps, patch=self.patch, batch=self.batch)
        axis = (self.cols - 1) / 2

        def settings(algorithm: Any, **method: Any) -> Settings:
            return Settings(
                reconstruction=algorithm, training=training, rotation_axis=axis, whiten="never", symmetries=2, **method
            )

        # one network for both reconstructions: the radiographs are the same
        before = settings(algorithms["FBP"], method=quietray.Noise2Self())
        quietray.denoise(scan, folder / "noise2self", before, overwrite=True)
        denoised = quietray.read(folder / "noise2self/radiographs.h5")
        clean = quietray.Scan(np.exp(-np.asarray(scan.clean[:])), scan.geometry)
        for name, algorithm in algorithms.items():
            for order, source in (("none", scan), ("before", denoised), ("clean", clean)):
                place = folder / f"{order}-{name}.zarr"
                quietray.reconstruct(source, place, settings(algorithm), overwrite=True)
                out[order, name] = np.asarray(quietray.read_volume(place)[:], np.float32)
            result = quietray.denoise(scan, None, settings(algorithm, method=quietray.Noise2Inverse()))
            out["after", name] = np.asarray(result.volume[:], np.float32)
            warned["after", name] = list(result.warnings)
        return {(order, name): out[order, name] for name in algorithms for order in _NAMES}, warned

    def section(self, results: Mapping[str, Any]) -> str:
        """Return this piece of the page."""
        volumes = results["a"]["volumes"]
        rows = [
            (_NAMES[order], name, *(_figure(volumes[f"{order}, {name}"], one) for one in ("mse", "psnr", "ssim")))
            for order in _NAMES
            for name in ("FBP", "SIRT")
        ]
        psnr = {key: one["psnr"] for key, one in volumes.items()}
        best = max((key for key in psnr if not key.startswith("clean")), key=lambda key: psnr[key])
        gap = psnr["before, SIRT"] - psnr["after, SIRT"]
        claims = [
            verdict(
                "Noise2Self, then SIRT, is best",
                best == "before, SIRT",
                f"best is {_NAMES[best.split(', ')[0]]}, {best.split(', ')[1]}: {psnr[best]:.2f} dB",
            ),
            verdict(
                "Noise2Inverse cannot handle the global noise after SIRT",
                gap > 1,
                f"{gap:.2f} dB below Noise2Self, then SIRT",
            ),
        ]
        said = [one for one in volumes["after, SIRT"]["warnings"] if "not linear" in one]
        return "\n\n".join(
            [
                "## a. Before or after the reconstruction",
                f"Foam of {self.spheres} voids, {self.views} views over half a turn of {self.rows} x {self.cols} "
                f"pixels, {self.photons:g} photons a pixel, Poisson noise only. SIRT: {self.iterations} iterations, in "
                f"the box from air to material. All networks: {self.steps} steps of {self.batch} patches of "
                f"{self.patch} pixels. Errors are against the true foam, inside a disc of 0.97 half-widths; the mean "
                "squared error (MSE) in squares of the material's attenuation, PSNR and SSIM over that range.",
                "    quietray denoise SCAN --method noise2self --whiten never --out DIR\n"
                f"    quietray reconstruct DIR/radiographs.h5 --algorithm sirt --iterations {self.iterations} "
                "--box 0 MATERIAL --out VOLUME",
                table(("denoising", "reconstruction", "MSE", "PSNR (dB)", "SSIM"), rows),
                table(("seeds/000 says", "measured", "reproduced"), claims),
                "![the middle slice of all six, and the truth](../images/graas-foam.png)",
                "quietray warns of Noise2Inverse after SIRT in a box, and runs it because it is asked by name: "
                + (" ".join(f"*{one}*" for one in said) or "(no warning)"),
            ]
        )


def _figure(one: dict[str, Any], name: str) -> str:
    return f"{one[name]:.2f}" if name == "psnr" else f"{one[name]:.4f}" if name == "mse" else f"{one[name]:.3f}"
