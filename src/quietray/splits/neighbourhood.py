"""Which slices of a stack make up one sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["Neighbourhood", "among", "middle", "mirrored", "neighbours"]


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
    apart
        Whether the middle slice must not be its own neighbour: slices beyond the first and last are then mirrored about
        the middle one, as time steps are.

    Examples
    --------
    >>> Neighbourhood(3, times=3).size
    9
    """

    slices: int
    times: int = 1
    channels: int = 1
    apart: bool = False

    @property
    def size(self) -> int:
        """Number of slices in a sample."""
        return self.slices * self.times * self.channels

    def indices(self, z: int, n_slices: int, n_series: int = 1) -> list[int]:
        """Return the slices of the sample around slice `z`, mirrored at the ends of space and time.

        Slices are mirrored about the first and the last one, or about the middle one if that must stay `apart`.

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
        >>> Neighbourhood(5).indices(1, 8), Neighbourhood(5, apart=True).indices(1, 8)
        ([1, 0, 1, 2, 3], [3, 0, 1, 2, 3])
        """
        n_rows = n_slices // n_series
        step, row = divmod(z, n_rows)
        first = row - self.slices // 2
        rows = [k if 0 <= k < n_rows else self._beyond(k, row, n_rows) for k in range(first, first + self.slices)]
        if self.channels > 1:
            return [channel * n_rows + k for channel in range(self.channels) for k in rows]
        reach = self.times // 2
        steps = [k if 0 <= k < n_series else 2 * step - k for k in range(step - reach, step + reach + 1)]
        return [near * n_rows + k for near in steps for k in rows]

    def _beyond(self, k: int, row: int, n_rows: int) -> int:
        """Return the slice that stands in for `k`, beyond the first or last, around the slice `row`."""
        return mirrored(2 * row - k if self.apart else k, n_rows)


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


def middle(window: Tensor) -> Tensor:
    """Return the middle slice ``(..., 1, y, x)`` of a window ``(..., slice, y, x)``."""
    return window.narrow(-3, window.shape[-3] // 2, 1)


def among(window: Tensor, image: Tensor) -> Tensor:
    """Return the window ``(batch, slice, y, x)`` with another image ``(batch, 1, y, x)`` as its middle slice.

    Examples
    --------
    >>> import torch
    >>> among(torch.zeros(1, 3, 1, 1), torch.ones(1, 1, 1, 1)).flatten().tolist()
    [0.0, 1.0, 0.0]
    """
    reach = window.shape[1] // 2
    return torch.cat((window[:, :reach], image.to(window), window[:, reach + 1 :]), dim=1) if reach else image


def neighbours(parts: Stack, z: int, neighbourhood: Neighbourhood, n_series: int = 1) -> Stack:
    """Return the sample window ``(part, slice, y, x)`` around slice `z` of ``(part, z, y, x)``.

    The result is a view if possible.  Slices beyond the first and last are mirrored.
    """
    seen = neighbourhood.indices(z, parts.shape[1], n_series)
    if seen == list(range(seen[0], seen[0] + len(seen))):
        return parts[:, seen[0] : seen[0] + len(seen)]
    return parts[:, seen]
