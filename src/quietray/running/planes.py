"""Slices through a volume for the report, collected slab by slab, and binned to the size of a screen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from quietray.brief import brief
from quietray.pictures import shrink
from quietray.types import Volume

__all__ = ["Planes", "Stack", "spread"]

_ROOM = 2_200_000  # pixels of all planes together, which fit into a report
_WANTED = 12  # planes along z; half of that along the other axes
_MOST = 64  # planes in one direction, at most

_Planes = Float[np.ndarray, "_ _ _"]


@dataclass(frozen=True, eq=False)
class Stack:
    """Planes in one direction, before and after.

    Parameters
    ----------
    places
        Positions in voxels, ascending.
    before, after
        ``(plane, row, col)``.
    factor
        Binning factor: each pixel is the mean of a block of voxels of this width, within the plane.
    """

    places: tuple[int, ...]
    before: _Planes
    after: _Planes
    factor: int = 1

    __repr__ = brief

    def some(self, share: float) -> Stack:
        """Return this fraction of the planes, at least one, evenly spaced and including the one nearest to the middle.

        Examples
        --------
        >>> planes = np.zeros((5, 2, 2), np.float32)
        >>> Stack((0, 10, 20, 30, 40), planes, planes).some(0.6).places
        (0, 20, 40)
        """
        kept = spread(len(self.places), max(1, math.floor(share * len(self.places))))
        chosen = list(kept)
        return Stack(tuple(self.places[one] for one in kept), self.before[chosen], self.after[chosen], self.factor)


@dataclass(frozen=True)
class Planes:
    """Which planes of a volume are stored: evenly spaced, including the middle one.

    Parameters
    ----------
    shape
        ``(z, y, x)`` of the volume, or of one step of a series.
    begin
        Number of its first slice; in a series, slices are numbered across steps.
    room
        Number of pixels of all planes together; 0 stores none.

    Examples
    --------
    >>> planes = Planes((2048, 2048, 2048))
    >>> planes.factor, [len(places) for places in planes.places.values()]
    (7, [12, 6, 6])
    """

    shape: tuple[int, int, int]
    begin: int = 0
    room: int = _ROOM

    @property
    def middle(self) -> int:
        """Number of the middle slice."""
        return self.begin + self.shape[0] // 2

    @property
    def factor(self) -> int:
        """Binning factor: each pixel is the mean of a block of voxels of this width, so that all planes fit."""
        n_z, n_y, n_x = self.shape
        along_z = 2 * min(n_z, _WANTED) * n_y * n_x  # half of the room is for z, and a quarter for each other axis
        across = 4 * max(min(n_y, _WANTED // 2) * n_z * n_x, min(n_x, _WANTED // 2) * n_z * n_y)
        return max(1, math.ceil(math.sqrt(max(along_z, across) / _ROOM)))

    @cached_property
    def places(self) -> dict[str, tuple[int, ...]]:
        """Positions of the planes: ``axial`` in z within the step, ``coronal`` in y, ``sagittal`` in x."""
        n_z, n_y, n_x = (-(-size // self.factor) for size in self.shape)
        shares = {"axial": (2, n_y * n_x), "coronal": (4, n_z * n_x), "sagittal": (4, n_z * n_y)}
        return {
            name: spread(size, min(_MOST, self.room // (share * pixels)))
            for size, (name, (share, pixels)) in zip(self.shape, shares.items(), strict=True)
        }

    def cut(self, first: int, volume: Volume) -> dict[str, _Planes]:
        """Return the planes of a slab whose first slice has the number `first`.

        Coronal and sagittal planes are sums over the slices of a block, because a block may continue in the next slab.
        """
        factor, begin = self.factor, first - self.begin
        here = [z - begin for z in self.places["axial"] if begin <= z < begin + len(volume)]
        blocks = np.arange(begin, begin + len(volume)) // factor
        starts = np.flatnonzero(np.diff(blocks, prepend=-1))

        def across(cuts: list[np.ndarray]) -> np.ndarray:
            rows = [np.add.reduceat(_narrow(cut, factor), starts, axis=0) for cut in cuts]
            return np.stack(rows) if rows else np.empty((0, len(starts), 0), np.float32)

        found = [shrink(volume[z], factor) for z in here]
        return {
            "axial": np.stack(found) if found else np.empty((0, *shrink(volume[0], factor).shape), np.float32),
            "coronal": across([volume[:, y] for y in self.places["coronal"]]),
            "sagittal": across([volume[:, :, x] for x in self.places["sagittal"]]),
        }

    def joined(self, cuts: Sequence[tuple[int, Mapping[str, _Planes]]]) -> dict[str, _Planes]:
        """Combine the planes of all slabs, each given with the number of its first slice."""
        factor = self.factor
        found = {"axial": np.concatenate([cut["axial"] for _, cut in cuts])}
        slices = np.bincount(np.arange(self.shape[0]) // factor).astype(np.float32)
        for name in ("coronal", "sagittal"):
            planes, _, width = cuts[0][1][name].shape
            total = np.zeros((planes, len(slices), width), np.float32)
            for first, cut in cuts:
                block = (first - self.begin) // factor
                total[:, block : block + cut[name].shape[1]] += cut[name]
            found[name] = total / slices[:, None]
        return found

    def stacks(
        self, before: Sequence[tuple[int, Mapping[str, _Planes]]], after: Sequence[tuple[int, Mapping[str, _Planes]]]
    ) -> dict[str, Stack]:
        """Return the planes before and after, by direction; directions without planes are omitted."""
        noisy, clean = self.joined(before), self.joined(after)
        return {
            name: Stack(places, noisy[name], clean[name], self.factor) for name, places in self.places.items() if places
        }


def spread(size: int, count: int) -> tuple[int, ...]:
    """Return `count` numbers below `size`, evenly spaced, including the middle one.

    Examples
    --------
    >>> spread(9, 3), spread(4, 10), spread(8, 1), spread(8, 0)
    ((1, 4, 7), (0, 1, 2, 3), (4,), ())
    """
    count = min(size, count)
    if count < 1:
        return ()
    if count == size:
        return tuple(range(size))
    step = size / count
    first = size // 2 - step * (count // 2)
    return tuple(min(size - 1, max(0, round(first + step * number))) for number in range(count))


def _narrow(cut: Float[np.ndarray, "z across"], factor: int) -> np.ndarray:
    """Return the mean of every `factor` columns."""
    if factor == 1:
        return np.asarray(np.nan_to_num(cut))
    starts = np.arange(0, cut.shape[1], factor)
    sums = np.add.reduceat(np.nan_to_num(cut), starts, axis=1)
    return np.asarray(sums / np.diff(starts, append=cut.shape[1]).astype(np.float32))
