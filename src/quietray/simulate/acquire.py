"""Simulated acquisition: a phantom, a beam and a detector give a scan together with its ground truth.

Frames are drawn when they are read, each with its own random generator.  A scan larger than memory can thus be written
view by view, and the result does not depend on how it is divided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Required, TypedDict, Unpack, overload

import numpy as np
from jaxtyping import Int

from quietray.errors import SettingsError
from quietray.geometry import Geometry
from quietray.scan import Scan, interleaved
from quietray.simulate.ellipsoids import Ellipsoids
from quietray.simulate.noise import NoiseModel, Scintillator
from quietray.simulate.phantom import Foam
from quietray.types import Frames, Radiographs

__all__ = ["Exposure", "acquire", "attenuation_for"]

_KINDS = {"projections": 0, "flats": 1, "darks": 2}


def attenuation_for(absorption: float, lengths: Radiographs) -> float:
    """Return the attenuation per pixel that gives a mean absorption ``mean(1 - exp(-mu length))`` of `absorption`.

    Parameters
    ----------
    absorption
        Mean absorption of the rays that hit the object, between 0 and 1.
    lengths
        Path lengths through the material, in pixels.

    Raises
    ------
    SettingsError
        No attenuation gives this absorption.

    Examples
    --------
    >>> round(attenuation_for(0.5, np.full((1, 1, 1), 10.0, np.float32)), 4)
    0.0693
    """
    hit = lengths[lengths > 1e-3]
    if not 0 < absorption < 1 or hit.size == 0:
        raise SettingsError(f"absorption must lie between 0 and 1 and the object be in view, got {absorption}")
    low, high = 0.0, 1.0
    while (1 - np.exp(-high * hit)).mean() < absorption and high < 1e6:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - np.exp(-middle * hit)).mean() < absorption else (low, middle)
    return high


@dataclass(frozen=True)
class Exposure:
    """Settings of an exposure: light, detector and frames.

    Parameters
    ----------
    photons
        Expected photons per pixel and view without the object.
    absorption
        Mean absorption of the rays that hit the object.
    detector
        Noise model; by default an ideal detector with 10 counts per photon, or fewer if 16 bits would overflow.
        Several models take turns over the views, like several source-detector pairs.
    n_flats, n_darks
        Number of flats and darks of each detector.
    seed
        Random seed of the noise.
    supersampling
        Number of rays per pixel, and of points per voxel, in each direction.

    Raises
    ------
    SettingsError
        The number of photons is not positive, or there is no detector.

    Examples
    --------
    >>> Exposure(photons=80.0).detectors[0].gain
    10.0
    """

    photons: float
    absorption: float = 0.5
    detector: NoiseModel | Sequence[NoiseModel] | None = None
    n_flats: int = 100
    n_darks: int = 20
    seed: int = 0
    supersampling: int = 2

    def __post_init__(self) -> None:
        if self.photons <= 0:
            raise SettingsError(f"photons must be positive, got {self.photons}")
        if not self.detectors:
            raise SettingsError("there must be at least one detector, got none; leave it out for an ideal one")

    @property
    def detectors(self) -> tuple[NoiseModel, ...]:
        """The noise models, which take turns over the views."""
        if self.detector is None:
            return (Scintillator(gain=min(10.0, 40_000 / self.photons), dark=100.0, read_noise=2.0),)
        return (self.detector,) if isinstance(self.detector, NoiseModel) else tuple(self.detector)


class _Told(TypedDict, total=False):
    """The fields of an exposure as keyword arguments."""

    photons: Required[float]
    absorption: float
    detector: NoiseModel | Sequence[NoiseModel] | None
    n_flats: int
    n_darks: int
    seed: int
    supersampling: int


@overload
def acquire(foam: Foam | Ellipsoids, geometry: Geometry, exposure: Exposure) -> Scan: ...


@overload
def acquire(foam: Foam | Ellipsoids, geometry: Geometry, **told: Unpack[_Told]) -> Scan: ...


def acquire(foam: Foam | Ellipsoids, geometry: Geometry, exposure: Exposure | None = None, **told: Any) -> Scan:
    """Return a simulated scan whose frames are drawn when they are read.

    Parameters
    ----------
    foam
        The object.
    geometry
        Beam of any kind; its pixel size sets the unit of the ground truth.
    exposure
        Light, detector and frames.
    **told
        The fields of an :class:`Exposure`, as an alternative to `exposure`: ``photons``, ``absorption``, ``detector``,
        ``n_flats``, ``n_darks``, ``seed`` and ``supersampling``.

    Returns
    -------
    Scan
        Counts as uint16, with the ground truth ``truth`` ``(z, y, x)`` and ``clean`` line integrals ``(view, row,
        col)``.

    Raises
    ------
    SettingsError
        The exposure is not possible, or given both as an object and as fields.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> foam = Foam.packed(3, height=0.5, rng=np.random.default_rng(0))
    >>> beam = ParallelBeam(np.linspace(0, np.pi, 8, endpoint=False), n_rows=2, n_cols=16)
    >>> scan = acquire(foam, beam, photons=100.0, n_flats=4)
    >>> scan.read(slice(0, 2)).shape, scan.flats.shape, scan.truth.shape
    ((8, 2, 16), (4, 2, 16), (2, 16, 16))
    """
    if exposure is not None and told:
        raise SettingsError(f"the exposure must be given once, got an Exposure and {', '.join(told)}; leave one out")
    exposure = Exposure(**told) if exposure is None else exposure
    models, photons, seed = exposure.detectors, exposure.photons, exposure.seed
    probe = foam.project(geometry[:: max(1, geometry.n_views // 16)], supersampling=1)
    mu = attenuation_for(exposure.absorption, probe)
    size = (geometry.n_rows, geometry.n_cols)

    def frames(kind: str, number: int, count: int) -> _Drawn:
        beam = geometry[number :: len(models)]
        rays = _Rays(foam, beam, mu, exposure.supersampling) if kind == "projections" else None
        stream = [seed, _KINDS[kind]] if len(models) == 1 else [seed, _KINDS[kind], number]
        expected = _Light(0.0 if kind == "darks" else photons, size, rays)
        return _Drawn((count, *size), _Counts(models[number], expected, tuple(stream)), np.uint16)

    def stack(kind: str, count: int) -> tuple[Frames, Int[np.ndarray, " frame"] | None]:
        if len(models) == 1:
            return frames(kind, 0, count), None
        numbers = np.arange(count) % len(models)
        parts = {n: frames(kind, n, int(np.count_nonzero(numbers == n))) for n in range(len(models))}
        return interleaved(parts, numbers), numbers

    scale = np.float32(mu / (geometry.grid().voxel_size or 1.0))
    truth = foam.volume(geometry.grid(), supersampling=exposure.supersampling, n_cols=geometry.n_cols)
    truth *= scale
    projections, detectors = stack("projections", geometry.n_views)
    flats, flat_detectors = stack("flats", exposure.n_flats * len(models))
    darks, dark_detectors = stack("darks", exposure.n_darks * len(models))
    return Scan(
        projections,
        geometry,
        flats=flats,
        darks=darks,
        source="simulated",
        provenance={
            "format": "simulated",
            "photons": photons,
            "absorption": exposure.absorption,
            "attenuation": float(scale),
            "spheres": len(foam.spheres) if isinstance(foam, Foam) else len(foam.table),
            "seed": seed,
            "detector": "; ".join(map(repr, models)),
        },
        truth=truth,
        clean=_Drawn((geometry.n_views, *size), _Rays(foam, geometry, mu, exposure.supersampling), np.float32),
        detectors=detectors,
        flat_detectors=flat_detectors,
        dark_detectors=dark_detectors,
    )


@dataclass(frozen=True, eq=False)
class _Rays:
    """Line integrals of consecutive views."""

    foam: Foam | Ellipsoids
    geometry: Geometry
    mu: float
    supersampling: int

    def __call__(self, first: int, last: int) -> Radiographs:
        projected = self.foam.project(self.geometry[first:last], supersampling=self.supersampling)
        return np.asarray(np.float32(self.mu) * projected)


@dataclass(frozen=True, eq=False)
class _Light:
    """Expected photons in consecutive frames, behind the object or in the open beam."""

    photons: float
    size: tuple[int, int]
    rays: _Rays | None

    def __call__(self, first: int, last: int) -> Radiographs:
        if self.rays is None:
            return np.full((last - first, *self.size), self.photons, np.float32)
        return np.asarray(np.float32(self.photons) * np.exp(-self.rays(first, last)))


@dataclass(frozen=True, eq=False)
class _Counts:
    """Counts in consecutive frames, each with its own random generator."""

    model: NoiseModel
    expected: _Light
    stream: tuple[int, ...]

    def __call__(self, first: int, last: int) -> np.ndarray:
        before = max(0, first - 1)
        photons = self.expected(before, last)
        out = np.empty((last - first, *photons.shape[1:]), np.uint16)
        for frame in range(first, last):
            rng = np.random.default_rng([*self.stream, frame])
            lit = photons[frame - before : frame - before + 1]
            if isinstance(self.model, Scintillator):
                previous = photons[max(0, frame - before - 1) : max(1, frame - before)]
                lighted = np.random.default_rng([*self.stream, frame - 1]) if frame else None
                counts = self.model.sample(lit, rng, first_frame=frame, previous=previous, previous_rng=lighted)
            else:
                counts = self.model.sample(lit, rng)
            out[frame - first] = np.clip(np.rint(counts[0]), 0, 65_535)
        return out


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Frames that are computed when they are read."""

    shape: tuple[int, ...]
    run: Callable[[int, int], np.ndarray]
    kind: type

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.kind)

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) else (key,)
        chosen = range(self.shape[0])[first]
        if isinstance(chosen, int):
            return self.run(chosen, chosen + 1)[(0, *rest)]
        if len(chosen) == 0:
            return np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *rest)]
        low, high = min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1])
        frames = self.run(low, high + 1)
        return frames[np.asarray(chosen) - low][(slice(None), *rest)]
