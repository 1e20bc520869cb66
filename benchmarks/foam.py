"""The foam of the benchmarks, its noise-free reconstruction, and the PSNR against that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

import quietray
from quietray.metrics.image import compare, disc
from quietray.simulate.noise import NoiseModel
from quietray.types import Sinograms, Volume


@dataclass(frozen=True)
class Foam:
    """A simulated scan: 300 small spheres, 50 % absorption; `quietray simulate --out foam.h5` writes the default one.

    PSNR is against the FBP (Ram-Lak) of the noise-free projections of all views, range max - min of that volume inside
    a disc of 0.97 half-widths, over the same disc; the same as `quietray evaluate`.
    """

    views: int = 256
    rows: int = 32
    cols: int = 128
    photons: float = 100.0
    detector: NoiseModel | None = None
    seed: int = 0
    spheres: int = 300
    largest: float = 0.08

    @cached_property
    def scan(self) -> quietray.Scan:
        """The noisy scan, which knows the noise-free projections."""
        height = max(0.35, 1.2 * self.rows / self.cols)
        foam = quietray.Foam.packed(self.spheres, height, np.random.default_rng(self.seed), largest=self.largest)
        angles = np.linspace(0, np.pi, self.views, endpoint=False)
        beam = quietray.ParallelBeam(angles, self.rows, self.cols, rotation_axis=(self.cols - 1) / 2)
        return quietray.acquire(foam, beam, photons=self.photons, n_flats=400, detector=self.detector, seed=self.seed)

    @cached_property
    def sinograms(self) -> Sinograms:
        """Line integrals ``(row, view, col)`` that the detector would show without noise, blurred if it blurs."""
        lines = np.asarray(self.scan.clean[:])
        if self.detector is not None:
            dark, seen, beam = (
                self.detector.mean((self.photons * light).astype(np.float32))
                for light in (np.zeros_like(lines[:1]), np.exp(-lines), np.ones_like(lines[:1]))
            )
            lines = -np.log((seen - dark) / (beam - dark))
        return np.ascontiguousarray(np.swapaxes(lines, 0, 1))

    @cached_property
    def clean(self) -> Volume:
        """The reconstruction of all noise-free views."""
        return quietray.FBP()(quietray.ParallelProjector(self.scan.geometry), self.sinograms)

    @property
    def mask(self) -> np.ndarray:
        """Where it is judged."""
        return disc(self.cols, self.cols, 0.97)

    def psnr(self, volume: Volume, rows: slice = slice(None), span: float | None = None) -> float:
        """Return the PSNR of (some rows of) a volume, in dB; `span` overrides the range."""
        inside = self.clean[:, self.mask]
        own = float(inside.max() - inside.min())
        return compare(volume, self.clean[rows], data_range=span or own, mask=self.mask).psnr
