"""Repeated frames of one radiograph, for pieces b, c and d of graas.py: drawn, whitened, trained on, judged."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

import quietray
from quietray.detector.response.decorrelate import whiten
from quietray.detector.response.response import PointResponse
from quietray.inference.denoiser import Denoiser, Scale
from quietray.metrics.dependency import neighbourhood_dependency
from quietray.running.precision import precision
from quietray.simulate.acquire import attenuation_for
from quietray.splits.base import Split
from quietray.training.batches import TrainingVolume
from quietray.training.loop import Fitted, fit
from quietray.types import Frame, Radiographs

__all__ = ["Scene", "Trainer", "applied", "judged"]

_AT_ONCE = 50


@dataclass(frozen=True)
class Scene:
    """One radiograph of a foam, again and again.

    Parameters
    ----------
    size
        Rows and columns.
    frames
        Noisy ones.
    spheres
        Voids.
    photons
        A pixel and frame, without the object.
    absorption
        Mean of the rays that hit the object.
    spread
        Decay length of the scintillator's point response, in pixels.
    gain, read_noise
        Counts a photon, and sd of the readout in counts.
    """

    size: int = 48
    frames: int = 1000
    spheres: int = 40
    photons: float = 100.0
    absorption: float = 0.3
    spread: float = 0.5
    gain: float = 10.0
    read_noise: float = 5.0

    @cached_property
    def detector(self) -> quietray.Scintillator:
        """The detector."""
        return quietray.Scintillator(gain=self.gain, read_noise=self.read_noise, response_width=self.spread)

    @cached_property
    def lines(self) -> Frame:
        """The truth: line integrals."""
        foam = quietray.Foam.packed(self.spheres, 0.9, np.random.default_rng(0), largest=0.3, smallest=0.05)
        lengths = foam.project(quietray.ParallelBeam(np.zeros(1), self.size, self.size))
        return np.asarray(np.float32(attenuation_for(self.absorption, lengths)) * lengths[0])

    @cached_property
    def blurred(self) -> Frame:
        """What the detector would show without noise."""
        return self.logarithm(self.detector.mean(self._photons[None]))[0]

    @cached_property
    def _photons(self) -> Frame:
        return np.asarray(np.float32(self.photons) * np.exp(-self.lines))

    def counts(self, detector: quietray.Scintillator, seed: int = 1) -> Radiographs:
        """Draw frames; the same seed gives the same photons to any detector."""
        rng, out = np.random.default_rng(seed), np.empty((self.frames, self.size, self.size), np.float32)
        for first in range(0, self.frames, _AT_ONCE):
            some = out[first : first + _AT_ONCE]
            some[:] = detector.sample(np.broadcast_to(self._photons, some.shape).astype(np.float32), rng)
        return out

    def logarithm(self, counts: Radiographs) -> Radiographs:
        """Return line integrals; under one photon counts as one."""
        return np.asarray(-np.log(np.maximum(counts, self.gain) / (self.gain * self.photons)), np.float32)

    @cached_property
    def raw(self) -> Radiographs:
        """Counts as the scintillator gives them."""
        return self.counts(self.detector)

    @cached_property
    def uncorrelated(self) -> Radiographs:
        """The same photons, had each stayed in its pixel."""
        return self.counts(dataclasses.replace(self.detector, response_width=0.0))

    @cached_property
    def response(self) -> PointResponse:
        """The point response, estimated from the raw frames alone."""
        return quietray.estimate_point_response(self.raw)

    @cached_property
    def decorrelated(self) -> Radiographs:
        """The raw frames, whitened by the estimated response."""
        return np.asarray(whiten(self.raw, self.response)[:])


@dataclass(frozen=True)
class Trainer:
    """How every network of these pieces is trained.

    Parameters
    ----------
    widths
        Of the U-Net.
    steps, batch, patch
        Of training.
    judgements
        Times that it is judged on held-out pixels.
    """

    widths: tuple[int, ...] = (16, 32, 64)
    steps: int = 800
    batch: int = 1
    patch: int = 48
    judgements: int = 10

    def train(self, frames: Radiographs, split: Split, seed: int = 0) -> tuple[Denoiser, Fitted]:
        """Train on line integrals of frames; the whole run is done, the best judgement kept."""
        if isinstance(split, quietray.Noisier2Noise):
            split = split.measured(torch.from_numpy(frames[:8, None]))
        data = TrainingVolume.with_held_out(frames[None], split, np.ones(frames.shape[1:], np.float32))
        settings = quietray.Training(
            steps=self.steps, batch=self.batch, patch=self.patch, judgements=self.judgements, patience=1.0
        )
        network = quietray.UNet(self.widths)
        fitted = fit(split, lambda: network.build(split.n_slices), data, settings, seed=seed)
        return Denoiser(fitted.network, network, split, Scale(0.0, 1.0), 1, precision(settings.precision)), fitted


def applied(denoiser: Denoiser, frames: Radiographs) -> Radiographs:
    """Denoise line integrals of frames."""
    return np.stack([denoiser.slice(frames[None], index)[0] for index in range(len(frames))])


def judged(denoiser: Denoiser | None, frames: Radiographs, scene: Scene) -> dict[str, Any]:
    """Return errors against the truth, what they are made of, and the dependency on the noise; None does nothing.

    Parameters
    ----------
    denoiser
        Frozen.
    frames
        Line integrals ``(frame, row, col)``.
    scene
        The truth.
    """
    done = []

    def network(some: Radiographs) -> Radiographs:
        out = some if denoiser is None else applied(denoiser, some)
        done.append(out)
        return out

    found = neighbourhood_dependency(network, frames)
    out = np.concatenate(done[1:])  # the first is that of the mean frame
    return {
        "mse": float(((out - scene.lines) ** 2).mean()),
        "mse_blurred": float(((out - scene.blurred) ** 2).mean()),
        "systematic": float(((out.mean(axis=0) - scene.lines) ** 2).mean()),
        "noise": float(out.var(axis=0).mean()),
        "dependency": found.mean,
        "dependency_error": found.mean_error,
        "frames": len(frames),
        "image": out[0],
        "map": found.values,
    }
