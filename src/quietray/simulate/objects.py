"""Random voxel objects of many kinds, for training priors that must not be specialised on one kind.

Kinds of objects: foam, packed grains, fibres, rods, cracks, layers, lattices, textures, ellipsoids and torsos, made of
one to four materials with faint to strong contrast; and fine foam, threads, meshes and powder, whose details are few
pixels wide.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from scipy.spatial import cKDTree

from quietray.geometry import VolumeGrid
from quietray.simulate.anatomy import subject
from quietray.simulate.ellipsoids import Ellipsoids
from quietray.simulate.phantom import Foam
from quietray.types import Volume

__all__ = ["FINE_KINDS", "KINDS", "random_object"]

_THICK = 2  # fine voxels per slice along z: a slice is as thick as two fine voxels are wide

Drawn = Callable[[tuple[int, int, int], np.random.Generator], Volume]
Points = tuple[Float[np.ndarray, "z 1 1"], Float[np.ndarray, "1 y 1"], Float[np.ndarray, "1 1 x"]]


def random_object(kind: str, shape: tuple[int, int, int], rng: np.random.Generator) -> Volume:
    """Return an object of this kind, as attenuation ``(z, y, x)`` with a maximum of 1, surrounded by air.

    Parameters
    ----------
    kind
        One of :data:`KINDS` or :data:`FINE_KINDS`.
    shape
        Shape ``(z, y, x)`` in voxels that are half as wide as they are high: 2 x 2 of them in a slice make a pixel.
    rng
        Random generator.

    Examples
    --------
    >>> grains = random_object("grains", (3, 32, 32), np.random.default_rng(0))
    >>> grains.shape, float(grains.max()), float(grains.min())
    ((3, 32, 32), 1.0, 0.0)
    """
    volume = {**KINDS, **FINE_KINDS}[kind](shape, rng)
    if kind not in _WITH_AIR:
        volume *= _envelope(shape, rng)
    if rng.random() < 0.25:
        _add_bright(volume, rng)
    np.clip(volume, 0, None, out=volume)
    volume /= max(float(volume.max()), 1e-6)
    return volume


def _points(shape: tuple[int, int, int]) -> Points:
    """Return z, y and x of the voxels relative to the centre, in units of half the width."""
    half = shape[2] / 2
    z, y, x = (((np.arange(n) - (n - 1) / 2) / half).astype(np.float32) for n in shape)
    return np.float32(_THICK) * z[:, None, None], y[None, :, None], x[None, None]


def _contrast(rng: np.random.Generator) -> float:
    """Return the relative difference in attenuation between two materials, from faint to strong."""
    return float(np.exp(rng.uniform(np.log(0.03), 0.0)))


def _materials(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return the attenuations of `n` materials of an object; none of them is air."""
    contrast = _contrast(rng)
    return np.asarray(1 - contrast * rng.random(n), np.float32)


def _envelope(shape: tuple[int, int, int], rng: np.random.Generator) -> Volume:
    """Return the outline of the object: a cylinder, a box, an ellipsoid or a lump, with an edge one voxel wide."""
    z, y, x = _points(shape)
    turn, size, flat = rng.uniform(0, np.pi), rng.uniform(0.45, 0.92), rng.uniform(0.5, 1.0)
    u, v = np.cos(turn) * x + np.sin(turn) * y, (np.cos(turn) * y - np.sin(turn) * x) / flat
    shape_of = rng.integers(4)
    if shape_of == 0:
        inside = size - np.hypot(x, y)
    elif shape_of == 1:
        inside = 0.72 * size - np.maximum(np.abs(u), np.abs(v))
    elif shape_of == 2:
        inside = size - np.sqrt(u * u + v * v + (rng.uniform(0, 1.5) * z) ** 2)
    else:
        inside = size * (0.8 + 0.2 * _smooth(shape, 0.15, rng)) - np.hypot(x, y)
    soft = np.clip(inside * shape[2] / 2 + 0.5, 0, 1).astype(np.float32)
    return np.broadcast_to(soft, shape).copy()


def _smooth(shape: tuple[int, int, int], length: float, rng: np.random.Generator) -> Volume:
    """Return a random field of mean 0 and standard deviation 1 with correlation length `length`, in half-widths."""
    sigma = length * shape[2] / 2
    coarse = max(1, int(sigma / 2))
    size = [max(4, -(-n // c) + 4) for n, c in zip(shape, (max(1, coarse // _THICK), coarse, coarse), strict=True)]
    field = ndimage.gaussian_filter(
        rng.standard_normal(size).astype(np.float32), np.array([sigma / _THICK, sigma, sigma]) / coarse, mode="wrap"
    )
    field = ndimage.zoom(field, [(n + 1) / s for n, s in zip(shape, size, strict=True)], order=1)
    field = field[: shape[0], : shape[1], : shape[2]]
    field -= field.mean()
    return np.asarray(field / max(float(field.std()), 1e-6), np.float32)


def _foam(shape: tuple[int, int, int], rng: np.random.Generator) -> Volume:
    n, largest = int(np.exp(rng.uniform(np.log(20), np.log(900)))), float(rng.uniform(0.05, 0.3))
    half_height = _THICK * shape[0] / shape[2] + largest
    spheres = Foam.packed(n, half_height, rng, largest=min(largest, 2.5 / n ** (1 / 3))).spheres
    out = np.zeros(shape, np.float32)
    _, y, x = _points(shape)
    solid = np.clip((0.9 - np.hypot(x, y)) * shape[2] / 2 + 0.5, 0, 1).astype(np.float32)
    out[:] = solid
    filling = 0.0 if rng.random() < 0.5 else 1 - _contrast(rng)
    for x0, y0, z0, r in spheres:
        _stamp(out, (x0, y0, z0), np.eye(3) / r, (r, r, r), filling)
    return out


def _fine_foam(shape: tuple[int, int, int], rng: np.random.Generator) -> Volume:
    """Return foam with pores of one to six pixels."""
    out = np.zeros(shape, np.float32)
    _, y, x = _points(shape)
    out += np.clip((0.9 - np.hypot(x, y)) * shape[2] / 2 + 0.5, 0, 1).astype(np.float32)
    filling, height = 0.0 if rng.random() < 0.6 else 1 - _contrast(rng), _THICK * shape[0] / shape[2]
    pixel, most = 4 / shape[2], float(rng.uniform(1.5, 6))
    for _ in range(int(np.exp(rng.uniform(np.log(1000), np.log(6000))) * (2 / most) ** 0.5)):
        r = pixel * float(np.exp(rng.uniform(0, np.log(most)))) / 2
        centre = rng.uniform(-0.85, 0.85, 3) * (1, 1, (height + r) / 0.85)
        _stamp(out, (centre[0], centre[1], centre[2]), np.eye(3) / r, (r, r, r), filling)
    return out


def _stamp(
    out: Volume,
    centre: tuple[float, float, float],
    shape: Float[np.ndarray, "3 3"],
    extent: tuple[float, float, float],
    value: float,
) -> None:
    """Set the voxels of an ellipsoid ``|shape @ (p - centre)| <= 1`` to a value, with an edge one voxel wide.

    Parameters
    ----------
    out
        Volume ``(z, y, x)``, modified in place.
    centre, extent
        Centre x, y, z and half edges of a box around it, in units of half the width.
    shape
        Shape matrix.
    value
        Attenuation.
    """
    places, near = _points((out.shape[0], out.shape[1], out.shape[2])), []
    for axis, middle, reach in zip(places, centre[::-1], extent[::-1], strict=True):
        found = np.flatnonzero(np.abs(axis.ravel() - middle) <= reach + 2 / out.shape[2])
        if found.size == 0:
            return
        near.append(slice(int(found[0]), int(found[-1]) + 1))
    z, y, x = places[0][near[0]] - centre[2], places[1][:, near[1]] - centre[1], places[2][:, :, near[2]] - centre[0]
    radius = np.sqrt(sum((row[0] * x + row[1] * y + row[2] * z) ** 2 for row in shape.astype(np.float32)))
    voxels = out.shape[2] / 2 / np.linalg.norm(shape, 2)  # relative to the smallest half axis
    share = np.clip((1 - radius) * voxels + 0.5, 0, 1).astype(np.float32)
    here = out[near[0], near[1], near[2]]
    here += share * (np.float32(value) - here)


def _turned(rng: np.random.Generator, along: np.ndarray | None = None) -> np.ndarray:
    """Return a random rotation; with `along`, its first row is close to that direction."""
    first = rng.standard_normal(3) if along is None else along + 0.15 * rng.standard_normal(3)
    q, _ = np.linalg.qr(np.column_stack([first, rng.standard_normal((3, 2))]))
    return np.asarray(q.T)


def _grains(
    shape: tuple[int, int, int], rng: np.random.Generator, number: tuple[float, float] = (15.0, 1500.0)
) -> Volume:
    height = _THICK * shape[0] / shape[2]
    n = int(np.exp(rng.uniform(np.log(number[0]), np.log(number[1]))))
    stretch = np.exp(rng.uniform(-0.4, 0.4, 3))
    box = np.array([1.0, 1.0, height + 2 / n ** (1 / 3)])
    seeds = rng.uniform(-1, 1, (n, 3)) * box * stretch
    z, y, x = _points(shape)
    places = np.stack([np.broadcast_to(part, shape).ravel() for part in (x, y, z)], axis=1) * stretch
    gap = rng.uniform(0.5, 3) / shape[2] * 2 if rng.random() < 0.6 else 0.0
    distance, nearest = cKDTree(seeds).query(places, k=2 if gap else 1, workers=1)
    owner = nearest[:, 0] if gap else nearest
    kinds = int(rng.integers(1 if gap else 2, 5))
    values = _materials(kinds, rng)[rng.integers(kinds, size=n)]
    if rng.random() < 0.3:  # every grain has its own
        values = (1 - _contrast(rng) * rng.random(n)).astype(np.float32)
    out = values[owner]
    if gap:
        between = 0.0 if rng.random() < 0.6 else 1 - _contrast(rng)
        share = np.clip((distance[:, 1] - distance[:, 0] - gap) * shape[2] / 4 + 0.5, 0, 1)
        out = between + share * (out - between)
    return np.asarray(out.reshape(shape), np.float32)


def _fibres(shape: tuple[int, int, int], rng: np.random.Generator) -> Volume:
    out = np.full(shape, 0.0 if rng.random() < 0.4 else 1 - _contrast(rng), np.float32)
    bundle = rng.standard_normal(3) if rng.random() < 0.6 else None
    values = _materials(int(rng.integers(1, 4)), rng)
    height, thick = _THICK * shape[0] / shape[2], np.exp(rng.uniform(np.log(0.012), np.log(0.09)))
    for _ in range(int(np.clip(0.5 / thick**1.3, 20, 160))):
        turn, radius = _turned(rng, bundle), thick * rng.uniform(0.7, 1.3)
        half = np.array([rng.uniform(0.3, 3.0), radius, radius * rng.uniform(0.6, 1)])
        extent = np.sqrt(((turn.T * half) ** 2).sum(axis=1))
        centre = rng.uniform(-0.9, 0.9, 3) * (1, 1, height + extent[2] * 0.7)
        _stamp(out, tuple(centre), turn / half[:, None], tuple(extent), float(rng.choice(values)))
    return out


def _threads(shape: tuple[int, int, int], rng: np.random.Generator) -> Volume:
    """Return threads of half a pixel to three pixels, in air or in another material."""
    out = np.full(shape, 0.0 if rng.random() < 0.3 else 1 - _contrast(rng), np.float32)
    values, pixel, height = _materials(3, rng), 4 / shape[2], _THICK * shape[0] / shape[2]
    bundle = rng.standard_normal(3) if rng.random() < 0.3 else None
    for _ in range(int(rng.integers(150, 700))):
        radius = pixel * float(np.exp(rng.uniform(np.log(0.5), np.log(3)))) / 2
        turn, half = _turned(rng, bundle), np.array([pixel * rng.uniform(4, 30), radius, radius])
        extent = np.sqrt(((turn.T * half) ** 2).sum(axis=1))
        centre = rng.uniform(-0.8, 0.8, 3) * (1, 1, (height + extent[2] / 2) / 0.8)
        _stamp(out, tuple(centre), turn / half[:, None], tuple(extent), float(rng.choice(values)))
    return out


def _rods(shape: tuple[int, int, int], rng: np.random.Generator) -> Volume:
    """Return a few upright rods and flat discs, in air or in another material."""
    around = 0.0 if rng.random() < 0.5 else 1 - _contrast(rng)
    _, y, x = _points(shape)
    out = np.zeros(shape, np.float32)
    out += np.clip((0.88 - np.hypot(x, y)) * shape[2] / 2 + 0.5, 0, 1).astype(np.float32) * np.float32(around)
    height, values = _THICK * shape[0] / shape[2], _materials(4, rng)
    for _ in range(int(rng.integers(3, 25))):
        radius, upright = float(np.exp(rng.uniform(np.log(0.03), np.log(0.3)))), rng.random() < 0.7
        half = np.array([radius, radius * rng.uniform(0.5, 1), 9.0 if upright else rng.uniform(0.01, 0.1)])
        turn = np.eye(3)
        angle = rng.uniform(0, np.pi)
        turn[:2, :2] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        centre = rng.uniform(-0.62, 0.62, 3) * (1, 1, 1.5 * height)
        extent = np.sqrt(((turn.T * half) ** 2).sum(axis=1))
        value = 0.0 if around and rng.random() < 0.3 else float(rng.choice(values))
        _stamp(out, tuple(centre), turn / half[:, None], tuple(extent), value)
    return out


def _cracks(shape: tuple[int, int, int], rng: np.random.Generator) -> Volume:
    """Return a solid or textured object with thin curved cracks."""
    out = np.ones(shape, np.float32) if rng.random() < 0.5 else _textures(shape, rng)
    z, y, x = _points(shape)
    for _ in range(int(rng.integers(1, 9))):
        direction = _turned(rng)[0]
        bent = 0.08 * rng.random() * _smooth(shape, rng.uniform(0.1, 0.4), rng)
        away = direction[0] * x + direction[1] * y + direction[2] * z + bent - rng.uniform(-0.5, 0.5)
        width = rng.uniform(0.3, 2.5) * 2 / shape[2] * (1 + 0.5 * _smooth(shape, 0.3, rng)).clip(0)
        out *= 1 - np.clip((width - np.abs(away)) * shape[2] / 2 + 0.5, 0, 1).astype(np.float32)
    return out


def _layers(shape: tuple[int, int, int], rng: np.random.Generator) -> Volume:
    """Return layers of several materials, flat or curved."""
    z, y, x = _points(shape)
    direction = _turned(rng)[0] * (1, 1, rng.random())
    along = direction[0] * x + direction[1] * y + direction[2] * z
    along = along + rng.uniform(0, 0.1) * _smooth(shape, 0.3, rng)
    edges = np.cumsum(np.exp(rng.uniform(np.log(0.03), np.log(0.4), 120)))
    edges = edges[: int(np.searchsorted(edges, 3.2)) + 1] - 1.6
    n = int(rng.integers(2, 5))
    values = np.append(_materials(n, rng), 0.0)[rng.integers(n + (rng.random() < 0.4), size=len(edges) + 1)]
    return np.asarray(values[np.searchsorted(edges, along)], np.float32)


def _powder(shape: tuple[int, int, int], rng: np.random.Generator) -> Volume:
    """Return packed grains of a few pixels."""
    return _grains(shape, rng, (1500.0, 8000.0))


def _mesh(shape: tuple[int, int, int], rng: np.random.Generator) -> Volume:
    """Return a lattice with a period of 4 to 16 pixels."""
    return _lattice(shape, rng, (16 / shape[2], 64 / shape[2]))


def _lattice(
    shape: tuple[int, int, int], rng: np.random.Generator, periods: tuple[float, float] = (0.15, 0.6)
) -> Volume:
    """Return a 3-D printed part: a gyroid, or struts along three directions."""
    z, y, x = _points(shape)
    turn, period = _turned(rng), rng.uniform(*periods)
    p, q, r = (2 * np.pi / period * (row[0] * x + row[1] * y + row[2] * z) for row in turn.astype(np.float32))
    if rng.random() < 0.5:
        level = np.sin(p) * np.cos(q) + np.sin(q) * np.cos(r) + np.sin(r) * np.cos(p)
        inside = rng.uniform(0.2, 0.9) - np.abs(level)
    else:
        near = [np.cos(a) + np.cos(b) for a, b in ((p, q), (q, r), (r, p))]
        inside = np.maximum.reduce(near) - rng.uniform(1.0, 1.8)
    share = np.clip(inside * period * shape[2] / (4 * np.pi) + 0.5, 0, 1).astype(np.float32)
    low = 0.0 if rng.random() < 0.6 else 1 - _contrast(rng)
    return np.asarray(low + share * np.float32(1 - low))


def _textures(shape: tuple[int, int, int], rng: np.random.Generator) -> Volume:
    """Return random fields, thresholded into phases or continuous, with one or several correlation lengths."""
    field = _smooth(shape, float(np.exp(rng.uniform(np.log(0.02), np.log(0.3)))), rng)
    if rng.random() < 0.5:
        field = field + rng.uniform(0.3, 1) * _smooth(
            shape, float(np.exp(rng.uniform(np.log(0.015), np.log(0.1)))), rng
        )
    if rng.random() < 0.3:
        return np.asarray(1 - _contrast(rng) * np.clip(0.5 + 0.25 * field, 0, 1), np.float32)
    n = int(rng.integers(2, 5))
    values = _materials(n, rng) * (rng.random(n) > 0.25)
    edges = np.sort(rng.uniform(-1.2, 1.2, n - 1))
    sharp = np.clip(rng.uniform(2, 8), 1, None)
    out = np.full(shape, values[0], np.float32)
    for edge, below, above in zip(edges, values, values[1:], strict=False):
        out += np.clip((field - edge) * sharp + 0.5, 0, 1) * np.float32(above - below)
    return np.clip(out, 0, None) if out.max() > 0 else np.ones(shape, np.float32)


def _ellipsoids(shape: tuple[int, int, int], rng: np.random.Generator) -> Volume:
    """Return overlapping ellipsoids, a few large and many small ones."""
    out = np.zeros(shape, np.float32)
    height, contrast = _THICK * shape[0] / shape[2], _contrast(rng)
    _stamp(out, (0.0, 0.0, 0.0), np.diag([1 / 0.85, 1 / rng.uniform(0.5, 0.85), 0.1]), (0.85, 0.85, 10.0), 1.0)
    for _ in range(int(rng.integers(5, 90))):
        half = np.exp(rng.uniform(np.log(0.015), np.log(0.35))) * rng.uniform(0.5, 1, 3)
        turn, centre = _turned(rng), rng.uniform(-0.55, 0.55, 3) * (1, 1, 2 * height)
        extent = np.sqrt(((turn.T * half) ** 2).sum(axis=1))
        value = 1 - contrast * rng.random() if rng.random() < 0.85 else 0.0
        _stamp(out, tuple(centre), turn / half[:, None], tuple(extent), value)
    return out


def _torsos(shape: tuple[int, int, int], rng: np.random.Generator) -> Volume:
    """Return a torso or a head."""
    if rng.random() < 0.2:
        body = Ellipsoids.shepp_logan(float(rng.uniform(0.6, 0.95)))
    else:
        body = subject(int(rng.integers(10_000, 2**31)))
    table = body.table.copy()
    table[:, 6] += rng.uniform(-0.4, 0.4)
    table[:, 3] /= _THICK
    table[:, 6] /= _THICK
    return Ellipsoids(table).volume(VolumeGrid(shape), supersampling=1)


def _add_bright(volume: Volume, rng: np.random.Generator) -> None:
    """Add a few small dense particles inside the object."""
    inside = np.argwhere(volume[volume.shape[0] // 2] > 0.3)
    if len(inside) == 0:
        return
    bright = 1 + rng.uniform(0.2, 2)
    for _ in range(int(rng.integers(1, 12))):
        y, x = inside[rng.integers(len(inside))]
        radius, half = rng.uniform(0.01, 0.05), volume.shape[2] / 2
        z = rng.uniform(-1, 1) * _THICK * volume.shape[0] / volume.shape[2]
        centre = ((x - half) / half, (y - half) / half, z)
        _stamp(volume, centre, np.eye(3) / radius, (radius,) * 3, bright)


KINDS: Final[dict[str, Drawn]] = {
    "foam": _foam,
    "grains": _grains,
    "fibres": _fibres,
    "rods": _rods,
    "cracks": _cracks,
    "layers": _layers,
    "lattice": _lattice,
    "textures": _textures,
    "ellipsoids": _ellipsoids,
    "torsos": _torsos,
}
"""The kinds of objects, by name."""

FINE_KINDS: Final[dict[str, Drawn]] = {
    "fine foam": _fine_foam,
    "threads": _threads,
    "mesh": _mesh,
    "powder": _powder,
}
"""Further kinds, with details of few pixels."""

_WITH_AIR = ("foam", "fine foam", "rods", "ellipsoids", "torsos")
