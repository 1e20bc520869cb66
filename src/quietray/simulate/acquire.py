"""A simulated acquisition: phantom, beam and detector give a scan with the truth beside it.

Frames are drawn when they are read, each from a generator of its own, so that a scan larger than memory can be written
view by view and comes out the same however it is cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from quietray.errors import SettingsError
from quietray.geometry import ParallelBeam
from quietray.scan import Scan
from quietray.simulate.noise import NoiseModel, Scintillator
from quietray.simulate.phantom import Foam
from quietray.types import Radiographs

__all__ = ["acquire", "attenuation_for"]

_KINDS = {"projections": 0, "flats": 1, "darks": 2}


def attenuation_for(absorption: float, lengths: Radiographs) -> float:
    """Return the attenuation per pixel at which ``mean(1 - exp(-mu length))`` over rays that hit equals `absorption`.

    Parameters
    ----------
    absorption
        Wanted mean absorption, between 0 and 1.
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


def acquire(
    foam: Foam,
    geometry: ParallelBeam,
    *,
    photons: float,
    absorption: float = 0.5,
    detector: NoiseModel | None = None,
    n_flats: int = 100,
    n_darks: int = 20,
    seed: int = 0,
    supersampling: int = 2,
) -> Scan:
    """Return a simulated scan whose frames are drawn when they are read.

    Parameters
    ----------
    foam
        The object.
    geometry
        Parallel beam; its pixel size sets the unit of the truth.
    photons
        Expected photons per pixel and view without the object.
    absorption
        Mean absorption of the rays that hit the object.
    detector
        Noise model; by default an ideal detector of 10 counts a photon, less where 16 bits would overflow.
    n_flats, n_darks
        Open-beam and beam-off frames.
    seed
        Seed of the noise.
    supersampling
        Rays per pixel and points per voxel, in each direction.

    Returns
    -------
    Scan
        Counts as uint16, with ``truth`` ``(z, y, x)`` and ``clean`` line integrals ``(view, row, col)``.
    """
    if photons <= 0:
        raise SettingsError(f"photons must be positive, got {photons}")
    model = detector or Scintillator(gain=min(10.0, 40_000 / photons), dark=100.0, read_noise=2.0)
    probe = foam.project(geometry[:: max(1, geometry.n_views // 16)], supersampling=1)
    mu = attenuation_for(absorption, probe)

    def line_integrals(views: slice) -> Radiographs:
        return np.float32(mu) * foam.project(geometry[views], supersampling=supersampling)

    def expected(kind: str, first: int, last: int) -> Radiographs:
        if kind == "projections":
            return np.asarray(np.float32(photons) * np.exp(-line_integrals(slice(first, last))))
        level = photons if kind == "flats" else 0.0
        return np.full((last - first, geometry.n_rows, geometry.n_cols), level, np.float32)

    def frames(kind: str, count: int) -> _Drawn:
        return _Drawn((count, geometry.n_rows, geometry.n_cols), _counts(model, expected, kind, seed), np.uint16)

    voxel = geometry.pixel_size or 1.0
    grid = geometry.grid()
    scale = np.float32(mu / voxel)
    truth = foam.volume(grid, supersampling=supersampling, n_cols=geometry.n_cols)
    truth *= scale
    clean = _Drawn(
        (geometry.n_views, geometry.n_rows, geometry.n_cols), lambda a, b: line_integrals(slice(a, b)), np.float32
    )
    return Scan(
        frames("projections", geometry.n_views),
        geometry,
        flats=frames("flats", n_flats),
        darks=frames("darks", n_darks),
        source="simulated",
        provenance={
            "format": "simulated",
            "photons": photons,
            "absorption": absorption,
            "attenuation": float(scale),
            "spheres": len(foam.spheres),
            "seed": seed,
            "detector": repr(model),
        },
        truth=truth,
        clean=clean,
    )


def _counts(
    model: NoiseModel, expected: Callable[[str, int, int], Radiographs], kind: str, seed: int
) -> Callable[[int, int], np.ndarray]:
    """Return a function that draws a run of frames, every frame from its own generator."""

    def draw(first: int, last: int) -> np.ndarray:
        before = max(0, first - 1)
        photons = expected(kind, before, last)
        out = np.empty((last - first, *photons.shape[1:]), np.uint16)
        for frame in range(first, last):
            rng = np.random.default_rng([seed, _KINDS[kind], frame])
            lit = photons[frame - before : frame - before + 1]
            if isinstance(model, Scintillator):
                previous = photons[max(0, frame - before - 1) : max(1, frame - before)]
                lighted = np.random.default_rng([seed, _KINDS[kind], frame - 1]) if frame else None
                counts = model.sample(lit, rng, first_frame=frame, previous=previous, previous_rng=lighted)
            else:
                counts = model.sample(lit, rng)
            out[frame - first] = np.clip(np.rint(counts[0]), 0, 65_535)
        return out

    return draw


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
