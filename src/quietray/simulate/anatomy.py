"""Torsos made of ellipsoids, a different one for every seed, with line integrals in closed form."""

from __future__ import annotations

import math
from typing import Final, Literal

import numpy as np
from jaxtyping import Float

from quietray.geometry import ParallelBeam, VolumeGrid
from quietray.simulate.ellipsoids import Ellipsoids
from quietray.types import Radiographs, Volume

__all__ = ["ATTENUATION", "FIELD", "attenuation", "beam", "hounsfield", "line_integrals", "photons_for", "subject"]

FIELD: Final = 420.0  # width of the detector in mm at the rotation axis

# In 1/mm at 60 keV: mass attenuation coefficients from NIST times densities from ICRU report 44, rounded.
ATTENUATION: Final[dict[str, float]] = {
    "air": 0.0,
    "lung": 0.0053,
    "fat": 0.0188,
    "water": 0.0206,
    "muscle": 0.0215,
    "kidney": 0.0216,
    "liver": 0.0217,
    "blood": 0.0218,
    "spongy bone": 0.0300,
    "cortical bone": 0.0604,
}
_LESIONS: Final = 0.0006  # at most, in 1/mm: 30 Hounsfield units
_NEXT_RIB, _NEXT_VERTEBRA = 27.0, 26.0  # in mm

Row = tuple[float | int, ...]
Triple = tuple[float | int, float | int, float | int]


def subject(seed: int) -> Ellipsoids:
    """Return a torso: fat, muscle, ribs, spine, lungs with vessels and nodules, heart, and abdominal organs.

    The field is centred on the lower end of the heart; x points to the left of the subject, y to the front, z to the
    head.  The size, the thickness of the fat, and the position and size of every organ vary with the seed.

    Parameters
    ----------
    seed
        Number of the subject.

    Returns
    -------
    Ellipsoids
        Attenuation in 1/mm; lengths in units of half of :data:`FIELD`.

    Examples
    --------
    >>> torso = subject(3)
    >>> bool(np.array_equal(torso.table, subject(3).table)), bool(np.array_equal(torso.table[:, 0], subject(4).table))
    (True, False)
    """
    rng = np.random.default_rng([60, seed])
    wide, deep, fat = rng.uniform(148, 176), rng.uniform(100, 122), rng.uniform(8, 24)
    wall = (wide - fat, deep - 0.8 * fat)
    inner = (wall[0] - 16, wall[1] - 16)
    rows = [
        _body("fat", "air", (wide, deep, 400), (0, 0, 0)),
        _body("muscle", "fat", (*wall, 390), (0, 0, 0)),
        *_spine(inner, rng),
        *_ribs(wall, rng),
        *_chest(inner, rng),
        *_belly(inner, rng),
    ]
    table = np.array(rows)
    table[:, 1:7] /= FIELD / 2
    return Ellipsoids(table)


def _body(
    tissue: str,
    around: str,
    half: Triple,
    middle: Triple,
    turn: float = 0.0,
    more: float = 0.0,
) -> Row:
    """Return an ellipsoid of a tissue inside another one; `more` is added to its attenuation."""
    return (ATTENUATION[tissue] - ATTENUATION[around] + more, *half, *middle, turn)


def _spine(inner: tuple[float, float], rng: np.random.Generator) -> list[Row]:
    """Return vertebrae with spongy bone inside a shell, the spinal canal and spinous processes."""
    size, y = rng.uniform(0.9, 1.1), -0.62 * inner[1]
    rows = []
    for z in np.arange(-260, 261, _NEXT_VERTEBRA) + rng.uniform(0, _NEXT_VERTEBRA):
        half = (17 * size, 13 * size, 11.5)
        rows += [
            _body("cortical bone", "muscle", half, (0, y, float(z))),
            _body("spongy bone", "cortical bone", (half[0] - 2, half[1] - 2, half[2] - 1.5), (0, y, float(z))),
            _body("water", "muscle", (6, 5, 11), (0, y - 20 * size, float(z))),
            _body("cortical bone", "muscle", (3, 7, 7), (0, y - 34 * size, float(z))),
        ]
    return rows


def _ribs(wall: tuple[float, float], rng: np.random.Generator) -> list[Row]:
    """Return ribs as chains of ellipsoids in the chest wall that descend from back to front."""
    drop, first, n_links = rng.uniform(25, 45), -60 + rng.uniform(0, _NEXT_RIB), 12
    rows = []
    for level in np.arange(first, 200, _NEXT_RIB):
        for side in (-1, 1):
            for link in range(n_links):
                share = (link + 0.5) / n_links
                angle = math.radians(-70 + 135 * share)  # from the back, along the side, to the front
                z = float(level) - drop * share
                narrower = math.sqrt(max(0.0, 1 - (z / 390) ** 2))
                a, b = (wall[0] * narrower - 7, wall[1] * narrower - 7)
                x, y = side * a * math.cos(angle), b * math.sin(angle)
                along = math.atan2(b * math.cos(angle), -side * a * math.sin(angle))
                length = 0.42 * math.radians(135) / n_links * math.hypot(a * math.sin(angle), b * math.cos(angle))
                rows.append(_body("cortical bone", "muscle", (length, 3.5, 6.0), (x, y, z), along))
    return rows


def _chest(inner: tuple[float, float], rng: np.random.Generator) -> list[Row]:
    """Return the lungs with their contents, the heart, the aorta and the trachea."""
    a, b = inner
    z = rng.uniform(60, 80)
    rows = []
    for side in (-1, 1):
        half = (rng.uniform(0.29, 0.34) * a, rng.uniform(0.62, 0.75) * b, rng.uniform(105, 125))
        middle = (side * 0.58 * a, rng.uniform(-0.05, 0.03) * b, z)
        rows.append(_body("lung", "muscle", half, middle))
        rows += _scattered("blood", "lung", half, middle, 24, (2.0, 6.0), rng)
    heart = (rng.uniform(0.21, 0.25) * a, rng.uniform(0.32, 0.38) * b, rng.uniform(40, 52))
    rows += [
        _body("blood", "muscle", heart, (0.03 * a, 0.25 * b, rng.uniform(15, 40)), rng.uniform(-0.4, 0.0)),
        _body("blood", "muscle", (rng.uniform(9, 13), rng.uniform(9, 13), 320), (0.1 * a, -0.36 * b, 0)),
        _body("air", "muscle", (8, 7, 60), (0, -0.05 * b, 160)),
    ]
    return rows


def _belly(inner: tuple[float, float], rng: np.random.Generator) -> list[Row]:
    """Return liver with lesions, stomach with gas, spleen and kidneys."""
    a, b = inner
    low = rng.uniform(-110, -95)
    liver, at = (rng.uniform(0.42, 0.5) * a, rng.uniform(0.55, 0.68) * b, 55.0), (-0.42 * a, 0.1 * b, low)
    stomach = (rng.uniform(0.25, 0.32) * a, rng.uniform(0.3, 0.42) * b, rng.uniform(35, 45))
    place = (0.38 * a, 0.3 * b, low + 5)
    rows = [
        _body("liver", "muscle", liver, at),
        *_scattered("liver", "liver", liver, at, 5, (4.0, 11.0), rng, _LESIONS),
        _body("water", "muscle", stomach, place),
        _body("air", "water", (0.5 * stomach[0], 0.3 * stomach[1], 15), (place[0], place[1] + 0.45 * stomach[1], low)),
        _body("blood", "muscle", (0.2 * a, 0.3 * b, 40), (0.6 * a, -0.35 * b, low), rng.uniform(-0.4, 0.4)),
    ]
    for side in (-1, 1):
        half = (rng.uniform(20, 27), rng.uniform(18, 24), rng.uniform(45, 58))
        rows.append(_body("kidney", "muscle", half, (side * 0.4 * a, -0.45 * b, low - 85), side * 0.4))
    return rows


def _scattered(
    tissue: str,
    around: str,
    half: Triple,
    middle: Triple,
    count: int,
    sizes: tuple[float, float],
    rng: np.random.Generator,
    more: float = 0.0,
) -> list[Row]:
    """Return up to `count` small bodies inside an ellipsoid that do not touch each other."""
    rows: list[Row] = []
    for _ in range(4 * count):
        direction = rng.normal(size=3)
        direction *= 0.8 * rng.uniform() ** (1 / 3) / np.linalg.norm(direction)
        x, y, z = (float(m + h * d) for m, h, d in zip(middle, half, direction, strict=True))
        size = rng.uniform(*sizes) * rng.uniform(0.7, 1.0, 3)
        shade, turn = float(rng.uniform(-more, more)), float(rng.uniform(0, math.pi))
        apart = all(math.dist(row[4:7], (x, y, z)) > max(row[1:4]) + size.max() for row in rows)
        if apart and len(rows) < count:
            rows.append(_body(tissue, around, (float(size[0]), float(size[1]), float(size[2])), (x, y, z), turn, shade))
    return rows


def beam(n_views: int, n_rows: int, n_cols: int, turn: Literal["half", "full"] = "half") -> ParallelBeam:
    """Return a parallel beam whose detector is :data:`FIELD` wide.

    Parameters
    ----------
    n_views
        Number of evenly spaced views.
    n_rows, n_cols
        Number of square pixels; the middle row is in the middle of the field.
    turn
        Angular range in radians: half a turn, or a full turn.

    Examples
    --------
    >>> beam(8, 1, 84).pixel_size
    5.0
    """
    sweep = math.pi if turn == "half" else 2 * math.pi
    return ParallelBeam(np.linspace(0, sweep, n_views, endpoint=False), n_rows, n_cols, pixel_size=FIELD / n_cols)


def line_integrals(torso: Ellipsoids, geometry: ParallelBeam, *, supersampling: int = 2) -> Radiographs:
    """Return the line integrals ``(view, row, col)`` of a subject, dimensionless.

    Parameters
    ----------
    torso
        Subject from :func:`subject`.
    geometry
        Beam from :func:`beam`.
    supersampling
        Number of rays per pixel in each direction.

    Examples
    --------
    >>> lengths = line_integrals(subject(0), beam(1, 1, 64))
    >>> bool(3 < lengths.max() < 12)
    True
    """
    return torso.project(geometry, supersampling=supersampling) * np.float32(FIELD / geometry.n_cols)


def attenuation(torso: Ellipsoids, grid: VolumeGrid, *, supersampling: int = 1) -> Volume:
    """Return the true attenuation of a subject, ``(z, y, x)`` in 1/mm.

    Parameters
    ----------
    torso
        Subject from :func:`subject`.
    grid
        Grid of the slices of a :func:`beam`.
    supersampling
        Number of points per voxel in each direction.

    Examples
    --------
    >>> slices = attenuation(subject(0), beam(1, 1, 32).grid())
    >>> bool(abs(slices[0, 0, 0]) < 1e-6), bool(slices.max() < 0.07)
    (True, True)
    """
    return torso.volume(grid, supersampling=supersampling)


def hounsfield(mu: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """Return attenuation in Hounsfield units: 0 for water, -1000 for air.

    Parameters
    ----------
    mu
        Attenuation in 1/mm.

    Examples
    --------
    >>> hounsfield(np.array([0.0, 0.0206])).round(6).tolist()
    [-1000.0, 0.0]
    """
    water = ATTENUATION["water"]
    return np.asarray((mu - water) * (1000 / water), dtype=mu.dtype)


def photons_for(psnr: float, transmission: Radiographs) -> float:
    """Return the photons in the open beam for which Poisson noise gives images with this PSNR on average.

    The peak of the PSNR is the open beam, so the mean squared error of an image is its mean transmission divided by the
    number of photons.

    Parameters
    ----------
    psnr
        Desired mean over the images, in dB.
    transmission
        Noise-free transmission ``(view, row, col)``, 1 in the open beam.

    Examples
    --------
    >>> round(photons_for(30.0, np.full((1, 4, 4), 0.5, np.float32)))
    500
    """
    own = 10 * np.log10(transmission.mean(axis=(1, 2), dtype=np.float64))
    return float(10 ** ((psnr + own.mean()) / 10))
