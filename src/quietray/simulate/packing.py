"""Random packing of spheres in a cylinder, largest first, without contact."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

__all__ = ["pack"]

Spheres = Float[np.ndarray, "sphere 4"]

_TRIES = 4096  # trial centres per round
_FEW = 8  # number of new spheres in a round below which smaller ones are tried
_SHRINK = 0.85
_LEAST = 0.75  # smallest sphere accepted in a round, relative to the largest size
_MOST_CELLS = 4e6  # position in the grid of a size class


def pack(
    n_spheres: int, height: float, rng: np.random.Generator, largest: float, smallest: float, radius: float
) -> Spheres:
    """Pack spheres into a cylinder of half-height `height`; fewer than `n_spheres` if there is no more room.

    Each round tries many random centres.  A sphere is made as large as possible, up to a limit that decreases from
    round to round.  Spheres are stored in cell grids, one for each size class, so that the cost of finding the room
    around a centre does not grow with the number of spheres.

    Examples
    --------
    >>> spheres = pack(20, 0.5, np.random.default_rng(0), 0.2, 0.1, 0.9)
    >>> gaps = np.linalg.norm(spheres[:, None, :3] - spheres[None, :, :3], axis=2) - spheres[:, 3] - spheres[:, 3:]
    >>> bool((gaps[~np.eye(20, dtype=bool)] >= 0).all())
    True
    """
    found, count, ceiling = np.empty((n_spheres + _TRIES, 4)), 0, largest
    following = np.full(len(found), -1, np.int64)
    classes: list[_SizeClass] = []
    while count < n_spheres:
        fresh = _fitting(found, classes, following, ceiling, smallest, height, radius, rng)
        if len(fresh) < _FEW:
            ceiling *= _SHRINK
        if ceiling < smallest:
            break
        found[count : count + len(fresh)] = fresh
        for index in range(count, count + len(fresh)):
            number = int(np.log2(largest / found[index, 3]))
            while len(classes) <= number:
                classes.append(_SizeClass.up_to(largest / 2 ** len(classes), height, radius))
            classes[number].add(index, found, following)
        count += len(fresh)
    return found[: min(count, n_spheres)].copy()


@dataclass(frozen=True, eq=False)
class _SizeClass:
    """Spheres whose sizes differ by at most a factor of two, in cells as wide as the reach of a contact."""

    edge: float
    corner: Float[np.ndarray, " axis"]
    first: Int[np.ndarray, "x y z"] = field(repr=False)

    @classmethod
    def up_to(cls, size: float, height: float, radius: float) -> _SizeClass:
        corner = -np.array([radius, radius, height])
        narrowest = (8 * radius * radius * height / _MOST_CELLS) ** (1 / 3)
        edge = max(size * (1 + 1.01 / _LEAST), narrowest)
        return cls(edge, corner, np.full(tuple(int(n) + 1 for n in -2 * corner / edge), -1, np.int64))

    def add(self, index: int, found: np.ndarray, following: np.ndarray) -> None:
        cell = tuple(((found[index, :3] - self.corner) / self.edge).astype(int))
        following[index], self.first[cell] = self.first[cell], index


def _fitting(
    found: np.ndarray,
    classes: list[_SizeClass],
    following: np.ndarray,
    ceiling: float,
    smallest: float,
    height: float,
    radius: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return random spheres that touch neither those `found` nor each other, none larger than `ceiling`."""
    polar = rng.uniform(0, 2 * np.pi, _TRIES)
    distance = radius * np.sqrt(rng.uniform(0, 1, _TRIES))
    centres = np.stack(
        [distance * np.cos(polar), distance * np.sin(polar), rng.uniform(-height, height, _TRIES)], axis=1
    )
    room, least = np.minimum(radius - distance, ceiling), max(smallest, _LEAST * ceiling)
    for each in classes:
        _shrink(room, centres, least, found, following, each.first, each.corner, each.edge)
    fits = room >= least
    return _without_conflicts(np.column_stack([centres[fits], room[fits]]))


def _without_conflicts(spheres: np.ndarray) -> np.ndarray:
    """Keep the spheres that do not touch an earlier one."""
    if len(spheres) < 2:
        return spheres
    keep = np.ones(len(spheres), bool)
    pairs = cKDTree(spheres[:, :3]).query_pairs(2 * spheres[:, 3].max(), output_type="ndarray")
    gap = np.linalg.norm(spheres[pairs[:, 0], :3] - spheres[pairs[:, 1], :3], axis=1)
    touching = pairs[gap < spheres[pairs[:, 0], 3] + spheres[pairs[:, 1], 3]]
    for first, second in touching[np.lexsort((touching[:, 1], touching[:, 0]))]:
        if keep[first]:
            keep[second] = False
    return spheres[keep]


@numba.njit(cache=True)
@no_type_check  # numba must compile the plain function, not one wrapped by a run-time type checker
def _shrink(
    room: np.ndarray,
    centres: np.ndarray,
    least: float,
    found: np.ndarray,
    following: np.ndarray,
    first: np.ndarray,
    corner: np.ndarray,
    edge: float,
) -> None:
    """Reduce the room around every centre to what a size class leaves; centres with less than `least` are skipped."""
    n_x, n_y, n_z = first.shape
    for k in range(len(room)):
        if room[k] < least:
            continue
        i = int((centres[k, 0] - corner[0]) / edge)
        j = int((centres[k, 1] - corner[1]) / edge)
        m = int((centres[k, 2] - corner[2]) / edge)
        for a in range(max(i - 1, 0), min(i + 2, n_x)):
            for b in range(max(j - 1, 0), min(j + 2, n_y)):
                for c in range(max(m - 1, 0), min(m + 2, n_z)):
                    index = first[a, b, c]
                    while index >= 0:
                        x = centres[k, 0] - found[index, 0]
                        y = centres[k, 1] - found[index, 1]
                        z = centres[k, 2] - found[index, 2]
                        gap = np.sqrt(x * x + y * y + z * z) - found[index, 3]
                        room[k] = min(room[k], gap)
                        index = following[index]
