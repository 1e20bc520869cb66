"""Which slices of a stack make up one sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

__all__ = ["Neighbourhood", "mirrored", "neighbours"]


Stack = TypeVar("Stack", np.ndarray, Tensor)


@dataclass(frozen=True)
class Neighbourhood:
    """Which slices of a stack make up one sample; slices are listed series by series, with neighbours side by side.

    Parameters
    ----------
    slices
        Number of neighbouring slices; odd if there is a middle one.
    times
        Number of neighbouring time steps; odd.
    channels
        Number of channels of a spectral series.

    Examples
    --------
    >>> Neighbourhood(3, times=3).size
    9
    """

    slices: int
    times: int = 1
    channels: int = 1

    @property
    def size(self) -> int:
        """Number of slices in a sample."""
        return self.slices * self.times * self.channels

    def indices(self, z: int, n_slices: int, n_series: int = 1) -> list[int]:
        """Return the slices of the sample around slice `z`, mirrored at the ends of space and time.

        A time step before the first or after the last one is mirrored about the middle step.  The middle step is thus
        never its own neighbour; this matters because neighbours are seen with all of their measured data.

        Parameters
        ----------
        z
            Index into a stack in which the steps or channels of a series follow one another.
        n_slices, n_series
            Number of slices in the whole stack, and of steps or channels in it; at least as many steps as the window
            has.

        Examples
        --------
        >>> Neighbourhood(3).indices(0, 8), Neighbourhood(1, times=3).indices(2, 8, n_series=4)
        ([1, 0, 1], [0, 2, 4])
        """
        n_rows = n_slices // n_series
        step, row = divmod(z, n_rows)
        first = row - self.slices // 2
        rows = [mirrored(k, n_rows) for k in range(first, first + self.slices)]
        if self.channels > 1:
            return [channel * n_rows + k for channel in range(self.channels) for k in rows]
        reach = self.times // 2
        steps = [k if 0 <= k < n_series else 2 * step - k for k in range(step - reach, step + reach + 1)]
        return [near * n_rows + k for near in steps for k in rows]


def mirrored(index: int, n: int) -> int:
    """Return `index` reflected into ``0 .. n - 1`` about the first and last entries.

    Examples
    --------
    >>> [mirrored(k, 3) for k in range(-3, 6)]
    [1, 2, 1, 0, 1, 2, 1, 0, 1]
    """
    if n == 1:
        return 0
    index %= 2 * (n - 1)
    return min(index, 2 * (n - 1) - index)


def neighbours(parts: Stack, z: int, neighbourhood: Neighbourhood, n_series: int = 1) -> Stack:
    """Return the sample window ``(part, slice, y, x)`` around slice `z` of ``(part, z, y, x)``.

    The result is a view if possible.  Slices beyond the first and last are mirrored.
    """
    seen = neighbourhood.indices(z, parts.shape[1], n_series)
    if seen == list(range(seen[0], seen[0] + len(seen))):
        return parts[:, seen[0] : seen[0] + len(seen)]
    return parts[:, seen]
