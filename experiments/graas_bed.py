"""Piece e of graas.py: bubbles in a bed, seen by three source-detector pairs, each with a scintillator of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from graas_frames import Trainer, applied
from matplotlib.figure import Figure
from pages import gallery, save, table, verdict

import quietray
from quietray.detector.response.decorrelate import whiten
from quietray.geometry import ConeBeam
from quietray.metrics.image import compare, disc
from quietray.operators.beams import projector
from quietray.reconstruct import SIRT
from quietray.simulate.acquire import attenuation_for
from quietray.types import Radiographs, Volume

__all__ = ["Bed"]

_NAMES = {
    "none": "not denoised",
    "raw": "Noise2Self on the raw radiographs",
    "decorrelated": "Noise2Self on the decorrelated radiographs",
    "clean": "radiographs without noise",
}
_SHORT = {
    "truth": "truth",
    "none": "noisy",
    "raw": "N2S on raw",
    "decorrelated": "N2S on decorrelated",
    "clean": "without noise",
}


@dataclass(frozen=True)
class Bed:
    """A column of particles with rising bubbles: three views at a time, SIRT in [0, 1].

    What is denoised and reconstructed is the gas: the line integrals of the packed bed, known from a calibration with
    the same detector, less those that were measured.

    Parameters
    ----------
    rows, cols
        Of each detector.
    times
        Instants at which the three pairs see the bed.
    shown
        Every so many instants one is reconstructed and judged.
    bubbles
        In the bed; they rise and are replaced from below.
    photons, absorption
        As in the other pieces.
    spreads
        Decay lengths of the three point responses, in pixels.
    flats
        Open-beam frames of each pair.
    iterations
        Of SIRT.
    trainer
        Of the network, one for all pairs.
    """

    rows: int = 96
    cols: int = 64
    times: int = 40
    shown: int = 20
    bubbles: int = 8
    photons: float = 100.0
    absorption: float = 0.5
    spreads: tuple[float, float, float] = (0.45, 0.5, 0.55)
    flats: int = 300
    iterations: int = 60
    trainer: Trainer = field(default_factory=lambda: Trainer(steps=500, patch=64))

    def measure(self, folder: Path) -> dict[str, Any]:
        """Simulate, denoise in two ways, reconstruct, judge; return the errors."""
        raw, white, peaks = self.measured()
        split, radiographs = quietray.Noise2Self(), {"none": raw, "clean": self.gas}
        for name, frames in (("raw", raw), ("decorrelated", white)):
            denoiser, _ = self.trainer.train(frames, split)
            radiographs[name] = applied(denoiser, frames)
        instants = range(self.shown // 2, self.times, self.shown)
        truths = {time: self.truth(time) for time in instants}
        mask = disc(self.cols, self.cols, self.radius)
        found: dict[str, Any] = {}
        first = {"truth": truths[instants[0]]}
        for name in _NAMES:
            volumes = {time: self.reconstructed(radiographs[name], time) for time in instants}
            each = [compare(volumes[time], truths[time], data_range=1.0, mask=mask) for time in instants]
            found[name] = {
                "mse": float(np.mean([one.rmse**2 for one in each])),
                "psnr": float(np.mean([one.psnr for one in each])),
                "ssim": float(np.mean([one.ssim for one in each])),
                "radiographs": float(((radiographs[name] - self.gas) ** 2).mean()),
                "gas": float(np.mean([volumes[time][:, mask].mean() for time in instants])),
            }
            first[name] = volumes[instants[0]]
        found["truth"] = {"gas": float(np.mean([volume[:, mask].mean() for volume in truths.values()]))}
        save(self._cameras(radiographs, instants[0]), folder / "graas-cameras.png")
        save(_views(first), folder / "graas-bed.png")
        return {"volumes": found, "responses": peaks, "instants": len(instants)}

    @property
    def radius(self) -> float:
        """Of the bed, in half-widths of the detector at the axis."""
        return 0.8

    @cached_property
    def pairs(self) -> tuple[ConeBeam, ...]:
        """One view of each source-detector pair."""
        return tuple(
            ConeBeam.circular(np.array([turn]), self.rows, self.cols, 6.0 * self.cols, 9.0 * self.cols)
            for turn in np.deg2rad([0.0, 120.0, 240.0])
        )

    def bed(self, time: float) -> quietray.Foam:
        """Return the bed at an instant: bubbles rise at their own speeds, and grow a little on the way."""
        rng = np.random.default_rng(5)
        half = self.rows / self.cols
        polar, way = rng.uniform(0, 2 * np.pi, self.bubbles), rng.uniform(0, 1, self.bubbles)
        size, speed = rng.uniform(0.12, 0.28, self.bubbles), rng.uniform(0.5, 1.0, self.bubbles)
        height = (way + speed * time / 60) % 1
        radii = size * (0.8 + 0.4 * height)
        away = (self.radius - 0.05 - radii) * np.sqrt(rng.uniform(0, 1, self.bubbles))
        z = (2 * height - 1) * (half + 0.3)
        spheres = np.column_stack([away * np.cos(polar), away * np.sin(polar), z, radii])
        return quietray.Foam(_apart(spheres), self.radius)

    @cached_property
    def _empty(self) -> quietray.Foam:
        """The bed without bubbles: its only one is far away, and tiny."""
        return quietray.Foam(np.array([[0.0, 0.0, 99.0, 1e-6]]), self.radius)

    @cached_property
    def _packed(self) -> Radiographs:
        """Path lengths through the bed without bubbles, of each pair, in voxels."""
        return np.concatenate([self._empty.project(pair) for pair in self.pairs])

    @cached_property
    def material(self) -> float:
        """Attenuation of the packed bed, for each voxel."""
        return attenuation_for(self.absorption, self._packed)

    @cached_property
    def gas(self) -> Radiographs:
        """What the gas takes from the line integrals ``(time * pair, row, col)``, the pairs taking turns."""
        beds = [self.bed(time) for time in range(self.times)]
        particles = np.concatenate([bed.project(pair) for bed in beds for pair in self.pairs])
        return np.asarray(np.float32(self.material) * (np.tile(self._packed, (self.times, 1, 1)) - particles))

    def truth(self, time: int) -> Volume:
        """Return the share of gas in every voxel."""
        bed, grid = self.bed(time), self.pairs[0].grid()
        return self._empty.volume(grid, n_cols=self.cols) - bed.volume(grid, n_cols=self.cols)

    def measured(self) -> tuple[Radiographs, Radiographs, list[dict[str, float]]]:
        """Return noisy radiographs of the gas, raw and decorrelated by what flats tell, and the responses' peaks."""
        raw, white, peaks = np.empty_like(self.gas), np.empty_like(self.gas), []
        beam, floor = 10.0 * self.photons, 10.0
        for pair, spread in enumerate(self.spreads):
            rng = np.random.default_rng([7, pair])
            detector = quietray.Scintillator(gain=10.0, read_noise=5.0, response_width=spread)
            packed = np.float32(self.material) * self._packed[pair : pair + 1]
            counts = detector.sample(np.float32(self.photons) * np.exp(self.gas[pair::3] - packed), rng)
            flats = detector.sample(np.full((self.flats, self.rows, self.cols), self.photons, np.float32), rng)
            response = quietray.estimate_point_response(flats)
            peaks.append({"estimated": float(response.kernel.max()), "true": float(detector.response.max())})
            calibration = detector.mean(np.float32(self.photons) * np.exp(-packed))
            for out, own, reference in (
                (raw, counts, calibration),
                (white, whiten(counts, response)[:], whiten(calibration, response)[:]),
            ):
                out[pair::3] = np.log(np.maximum(own, floor) / beam) - np.log(reference / beam)
        return raw, white, peaks

    @cached_property
    def _projector(self) -> Any:
        return projector(ConeBeam.joined(self.pairs))

    def reconstructed(self, radiographs: Radiographs, time: int) -> Volume:
        """Return the share of gas in every voxel, from the three radiographs of an instant."""
        three = radiographs[3 * time : 3 * time + 3] / np.float32(self.material)
        sinograms = np.ascontiguousarray(np.swapaxes(three, 0, 1), np.float32)
        sinograms *= np.swapaxes(self._packed > 0, 0, 1)  # beside the bed there are no bubbles
        return np.asarray(SIRT(self.iterations, (0.0, 1.0))(self._projector, sinograms))

    def section(self, results: Mapping[str, Any]) -> str:
        """Return this piece of the page."""
        found = results["e"]
        volumes = found["volumes"]
        rows = [
            (
                _NAMES[name],
                f"{one['radiographs']:.2e}",
                f"{one['mse']:.4f}",
                f"{one['psnr']:.2f}",
                f"{one['ssim']:.3f}",
                f"{one['gas']:.4f}",
            )
            for name, one in volumes.items()
            if name in _NAMES
        ]
        rows.append(("truth", "", "", "", "", f"{volumes['truth']['gas']:.4f}"))
        psnr = {name: volumes[name]["psnr"] for name in _NAMES}
        gain = psnr["decorrelated"] - psnr["none"]
        claims = [
            verdict(
                "denoised radiographs give a clearer SIRT volume from three views",
                gain > 0,
                f"{gain:+.2f} dB; without noise {psnr['clean'] - psnr['none']:+.2f} dB",
            ),
            verdict(
                "decorrelation is what makes Noise2Self work on radiographs",
                psnr["decorrelated"] > psnr["raw"],
                f"{psnr['decorrelated'] - psnr['raw']:+.2f} dB against Noise2Self on raw ones",
            ),
        ]
        peaks = "; ".join(f"{one['estimated']:.3f} (true {one['true']:.3f})" for one in found["responses"])
        return "\n\n".join(
            [
                "## e. A bubbling bed seen by three source-detector pairs",
                f"Up to {self.bubbles} bubbles rise through a column; three cone-beam pairs 120 degrees apart see it "
                f"at {self.times} instants on {self.rows} x {self.cols} pixels, {self.photons:g} photons a pixel, "
                f"{100 * self.absorption:.0f} % absorption. Each pair has a scintillator of its own, whose response is "
                f"estimated from {self.flats} of its flats (peaks: {peaks}). One network denoises the radiographs of "
                f"all pairs ({self.trainer.steps} steps), less those of the packed bed, which a calibration with the "
                "same detectors tells; the share of gas is then reconstructed from the three radiographs of an instant "
                f"alone, by SIRT in [0, 1], {self.iterations} iterations. Errors are means "
                f"over {found['instants']} instants, inside the bed, range 1.",
                table(("radiographs", "MSE of radiographs", "MSE", "PSNR (dB)", "SSIM", "share of gas"), rows),
                table(("seeds/000 says", "measured", "reproduced"), claims),
                "What the three cameras see of the gas at one instant:",
                "![three cameras, noisy, denoised, and without noise](../images/graas-cameras.png)",
                "The volume at that instant, looked through along three axes (voxels of gas):",
                "![the volume from three axes](../images/graas-bed.png)",
            ]
        )

    def _cameras(self, radiographs: Mapping[str, Radiographs], time: int) -> Figure:
        panels = {
            f"pair {pair + 1}\n{_SHORT[name]}": radiographs[name][3 * time + pair]
            for pair in range(3)
            for name in _NAMES
        }
        top = float(self.gas.max())
        return gallery(panels, len(_NAMES), (-0.3 * top, 1.2 * top), 7.0)


def _apart(spheres: np.ndarray) -> np.ndarray:
    """Return the spheres that touch none before them: gas is not counted twice."""
    kept: list[np.ndarray] = []
    for one in spheres:
        if all(np.linalg.norm(one[:3] - other[:3]) > one[3] + other[3] for other in kept):
            kept.append(one)
    return np.array(kept)


def _views(volumes: Mapping[str, Volume]) -> Figure:
    """Return sums along x, y and z of every volume, in a column each; the view from above fills the height."""
    height = next(iter(volumes.values())).shape[0]
    panels = {}
    for way, axis in (("along x", 2), ("along y", 1), ("along z", 0)):
        for name, volume in volumes.items():
            image = volume.mean(axis=axis) * volume.shape[axis]
            below = (height - image.shape[0]) // 2
            panels[f"{_SHORT[name]}\n{way}"] = np.pad(image, ((below, height - below - image.shape[0]), (0, 0)))
    return gallery(panels, len(volumes), (0.0, 0.35 * volume.shape[1]), 7.0)
