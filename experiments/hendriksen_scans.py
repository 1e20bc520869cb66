"""What the experiments after Hendriksen measure: foams, static, growing and diffracting, and how they are judged."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import quietray
from quietray import FBP, MSD, Foam, ParallelBeam, ParallelProjector, Scan, UNet
from quietray.detector.correction.correct import calibrate, correct_rows
from quietray.metrics.image import compare, disc
from quietray.simulate.acquire import attenuation_for
from quietray.types import Radiographs, Sinograms, Volume

N_CHANNELS = 11
FLAT_SCANS = 4
MORE = ", four times the steps"
TIMES = (0.1, 0.7)  # of the full acquisition time of XRD-CT; the talk shows about 0.7
FRACTION = 0.92  # of a view, that half a turn of the dynamic scan has beyond whole ones: 299.92 in the talk


@dataclass(frozen=True)
class Own:
    """The paper's own setting, of which only the rows and the training change with the scale."""

    rows: int = 16
    spheres: int = 150_000  # 100 000 for each radius of half-height, as foam_ct_phantom counts them
    voxels: int = 512
    views: int = 1024
    photons: float = 10.0
    steps: int = 10_000
    batch: int = 1
    patch: int = 96
    symmetries: int = 4
    iterations: int = 40
    unet: UNet = field(default_factory=UNet)


@dataclass(frozen=True)
class Size:
    """How much of everything there is; one line of every foam stands for a detector column."""

    cols: int
    rows: int
    views: int
    spheres: int
    largest: float
    steps: int
    batch: int
    patch: int
    time_steps: int
    views_per_step: int
    spectral_views: int
    unet: UNet = field(default_factory=UNet)
    msd: MSD = field(default_factory=MSD)
    photons: float = 100.0
    tv_rows: int = 4
    own: Own = field(default_factory=Own)


SIZES = {
    "toy": Size(24, 8, 32, 12, 0.3, 4, 1, 16, 3, 8, 16, UNet((4, 8)), MSD(layers=3),
                own=Own(8, 200, 32, 64, 1000.0, 4, 1, 16, 1, 3, UNet((4, 8)))),
    "small": Size(64, 12, 128, 100, 0.16, 400, 1, 48, 6, 32, 96, UNet((16, 32, 64)), MSD(layers=20)),
    "full": Size(512, 64, 1024, 3000, 0.1, 100_000, 8, 128, 60, 300, 512,
                 own=Own(rows=64, steps=100_000, batch=8, patch=128, symmetries=8, iterations=200)),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Measured:
    """A noisy scan and the reconstruction of its noise-free views, which is the scan's truth, too."""

    scan: Scan
    clean: Volume

    @classmethod
    def of(cls, foam: Foam, beam: ParallelBeam, photons: float, absorption: float = 0.5, seed: int = 0) -> Measured:
        """Scan a foam once: what is drawn at every look elsewhere is kept."""
        lazy = quietray.acquire(foam, beam, photons=photons, absorption=absorption, n_flats=100, seed=seed)
        frames = {name: np.asarray(getattr(lazy, name)[:]) for name in ("projections", "flats", "darks", "clean")}
        clean = FBP()(ParallelProjector(beam), sinograms_of(frames["clean"]))
        return cls(dataclasses.replace(lazy, truth=clean, **frames), clean)

    @property
    def sinograms(self) -> Sinograms:
        """The noisy line integrals."""
        rows = slice(0, self.scan.n_rows)
        return correct_rows(self.scan.read(rows), calibrate(self.scan), rows)[0]

    @property
    def beam(self) -> ParallelBeam:
        """Of the scan."""
        assert isinstance(self.scan.geometry, ParallelBeam)
        return self.scan.geometry

    def fbp(self) -> Volume:
        """Return the reconstruction of the noisy views."""
        return FBP()(ParallelProjector(self.beam), self.sinograms)

    def row(self, volume: Volume, **facts: Any) -> tuple[dict[str, Any], np.ndarray]:
        """Return the figures of a volume and its middle slice."""
        return judged(volume, self.clean) | facts, volume[len(volume) // 2]


def judged(volume: Volume, clean: Volume) -> dict[str, float]:
    """Return PSNR and SSIM in a disc with the range inside it, and over all pixels as the reference code has them."""
    mask = disc(*clean.shape[1:], 0.97)
    inside = compare(volume, clean, data_range=float(np.ptp(clean[:, mask])), mask=mask)
    whole = compare(volume, clean)
    return {"psnr": inside.psnr, "ssim": inside.ssim, "psnr_whole": whole.psnr, "ssim_whole": whole.ssim}


def sinograms_of(views: Radiographs) -> Sinograms:
    """Return line integrals ``(row, view, col)`` of those ``(view, row, col)``."""
    return np.ascontiguousarray(np.swapaxes(np.asarray(views, np.float32), 0, 1))


def beam_of(size: Size, angles: np.ndarray, rows: int | None = None) -> ParallelBeam:
    """Return the beam of the foams."""
    return ParallelBeam(angles, rows or size.rows, size.cols, rotation_axis=(size.cols - 1) / 2)


def half_turn(n_views: int) -> np.ndarray:
    """Return angles spread evenly over half a turn."""
    return np.linspace(0, np.pi, n_views, endpoint=False)


def foam_of(size: Size, seed: int = 0) -> Foam:
    """Return the foam of pieces a, b and d."""
    height = max(0.35, 1.2 * size.rows / size.cols)
    return Foam.packed(size.spheres, height, np.random.default_rng(seed), largest=size.largest)


def ideal_lines(foam: Foam, beam: ParallelBeam) -> Radiographs:
    """Return noise-free line integrals at 50 % absorption."""
    lengths = foam.project(beam)
    return (
        np.float32(attenuation_for(0.5, foam.project(beam[:: max(1, beam.n_views // 16)], supersampling=1))) * lengths
    )


def interlaced(size: Size) -> list[np.ndarray]:
    """Return the angles of every time step of a stage that turns on and on, never twice at the same angle."""
    per_half_turn = size.views_per_step - 1 + FRACTION
    turned = np.arange(size.time_steps * size.views_per_step) * np.pi / per_half_turn
    return list(turned.reshape(size.time_steps, -1))


def patterns() -> np.ndarray:
    """Return what each phase diffracts into each channel, ``(channel, phase)``: two peaks each on a low background."""
    channels = np.arange(N_CHANNELS)[:, None]
    first, second = np.array([1.0, 3.5, 6.0, 8.5]), np.array([7.0, 9.5, 0.5, 4.0])
    peaks = np.exp(-((channels - first) ** 2) / 1.5) + 0.6 * np.exp(-((channels - second) ** 2) / 1.5)
    return np.asarray(0.1 + peaks)


def phases(foam: Foam, beam: ParallelBeam) -> np.ndarray:
    """Return path lengths ``(phase, view, row, col)``: the matrix, and every third of its grains for the others."""
    solid = Foam(np.empty((0, 4)), foam.radius).project(beam)
    grains = [solid - Foam(foam.spheres[k::3], foam.radius).project(beam) for k in range(3)]
    return np.stack([foam.project(beam), *grains])


def own_beam(own: Own) -> tuple[ParallelBeam, tuple[int, int, int, int]]:
    """Return the beam of the paper's own setting, half as wide again as the slices, and those as a region."""
    wide, edge = own.voxels * 3 // 2, own.voxels // 4
    beam = ParallelBeam(half_turn(own.views), own.rows, wide, rotation_axis=(wide - 1) / 2)
    return beam, (edge, edge + own.voxels, edge, edge + own.voxels)


def own_slab(own: Own, folder: Path) -> dict[str, np.ndarray]:
    """Return the slab of the paper's own setting: reconstructions of its subsets, noise-free, and its sinograms.

    The cylinder is as wide as the slices.  A count of zero becomes one, as in the reference code.
    """
    kept = folder / "e-slab.npz"
    if kept.exists():
        return dict(np.load(kept))
    beam, region = own_beam(own)
    radius = own.voxels / beam.n_cols
    foam = Foam.tight(own.spheres, 1.0, np.random.default_rng(0), largest=0.2 * radius, smallest=0.002, radius=radius)
    lines = ideal_lines(foam, beam)
    counts = np.maximum(np.random.default_rng(1).poisson(own.photons * np.exp(-lines)), 1)
    sinograms = sinograms_of(-np.log(counts / own.photons))

    def fbp(y: Sinograms, views: slice = slice(None)) -> Volume:
        part = beam[views]
        return FBP()(ParallelProjector(part, part.grid(region)), np.ascontiguousarray(y[:, views]))

    parts = np.stack([fbp(sinograms, slice(k, None, 4)) for k in range(4)])
    folder.mkdir(parents=True, exist_ok=True)
    slab = {"parts": parts, "clean": fbp(sinograms_of(lines)), "sinograms": sinograms[:1]}
    np.savez(kept, **slab)
    return slab
