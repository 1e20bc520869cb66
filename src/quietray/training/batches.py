"""Where training samples are cut from, and what is kept back to judge with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quietray.errors import GeometryError
from quietray.types import Parts, Samples

__all__ = ["TrainingVolume"]


@dataclass(frozen=True, eq=False)
class TrainingVolume:
    """Reconstructed parts to train on, scaled to about [0, 1], with rows or bands held out.

    Parameters
    ----------
    parts
        ``(part, z, y, x)``, scaled.
    n_slices
        Neighbouring slices in a sample.
    weight
        ``(y, x)``: zero outside the field of view, one inside.
    training_rows, held_out_rows
        Slices that may be a training target, and slices that never are.
    held_out_band
        ``(y0, y1)``, rows of every slice that are never a training target; for scans of too few slices to hold out.

    Notes
    -----
    Held-out slices still stand beside the middle slice of training inputs.  That is sound: the estimate needs only
    that their noise was never a *target*.
    """

    parts: Parts
    n_slices: int
    weight: Float[np.ndarray, "y x"]
    training_rows: tuple[int, ...]
    held_out_rows: tuple[int, ...]
    held_out_band: tuple[int, int] | None = None

    @classmethod
    def with_held_out(
        cls,
        parts: Parts,
        n_slices: int,
        weight: Float[np.ndarray, "y x"],
        targets: tuple[int, ...] | None = None,
        share: float = 0.06,
    ) -> TrainingVolume:
        """Hold out about `share` of the slices, evenly spread; a band through every slice if there are under eight.

        Parameters
        ----------
        parts, n_slices, weight
            As in the class.
        targets
            Slices whose neighbours in `parts` are their true neighbours; all by default.
        share
            Share to hold out.

        Raises
        ------
        GeometryError
            Nothing would be left to train on.
        """
        rows = tuple(range(parts.shape[1])) if targets is None else targets
        if len(rows) >= 8:
            n_held = max(1, round(share * len(rows)))
            held = tuple(rows[int((k + 0.5) * len(rows) / n_held)] for k in range(n_held))
            return cls(parts, n_slices, weight, tuple(z for z in rows if z not in held), held)
        inside = np.flatnonzero(weight.any(axis=1))
        if len(inside) < 2:
            raise GeometryError(
                f"a scan of {len(rows)} slices must have at least 2 image rows within the field of view, one of them "
                f"to be held out, got {len(inside)}; choose a larger region"
            )
        height = max(1, round(2 * share * len(inside)))
        first = int(inside[0] + 0.6 * len(inside))
        return cls(parts, n_slices, weight, rows, rows, (first, min(first + height, parts.shape[2])))

    def samples(self, z: int, y: slice = slice(None), x: slice = slice(None)) -> Float[Tensor, "part slice y x"]:
        """Return the parts around slice `z`; beyond the first and last slice they are mirrored."""
        return torch.from_numpy(neighbours(self.parts, z, self.n_slices)[:, :, y, x])

    def draw(self, batch: int, patch: int, generator: torch.Generator) -> tuple[Samples, Tensor]:
        """Cut `batch` random patches, each turned and mirrored at random (the square's eight symmetries, and up-down).

        Returns
        -------
        samples
            ``(batch, part, slice, y, x)``.
        weight
            ``(batch, 1, y, x)``: zero where the target may not be used.
        """
        _, _, n_y, n_x = self.parts.shape
        size = min(patch, n_y, n_x)
        rows = self.training_rows
        cut: list[Tensor] = []
        weights: list[Tensor] = []
        trainable = self._trainable()
        while len(cut) < batch:
            z, y, x, turns, mirror, flip = (
                int(torch.randint(n, (), generator=generator))
                for n in (len(rows), n_y - size + 1, n_x - size + 1, 4, 2, 2)
            )
            window = (slice(y, y + size), slice(x, x + size))
            weight = trainable[window]
            if not weight.any():
                continue
            sample = self.samples(rows[z], *window)
            if flip:
                sample = sample.flip(1)
            cut.append(_turned(sample, turns, mirror))
            weights.append(_turned(torch.from_numpy(weight)[None], turns, mirror))
        return torch.stack(cut), torch.stack(weights)

    def held_out(self, most_pixels: int = 2**17) -> Iterator[tuple[Samples, Tensor]]:
        """Yield the held-out samples and their weights, at most about `most_pixels`, always the same ones."""
        n_y, n_x = self.parts.shape[2:]
        rows = self.held_out_rows
        y0, y1 = self.held_out_band or (0, n_y)
        budget = max(most_pixels // len(rows), 64 * 64)
        side = int(np.sqrt(budget))
        height = min(y1 - y0, max(side, budget // n_x))
        width = min(n_x, max(side, budget // height))
        # around the middle of what all views see, which in a region may be a corner
        middle_y, middle_x = (int(np.flatnonzero(self.weight[y0:y1].any(axis=axis)).mean()) for axis in (1, 0))
        top = y0 + int(np.clip(middle_y - height // 2, 0, y1 - y0 - height))
        left = int(np.clip(middle_x - width // 2, 0, n_x - width))
        for z in rows:
            # a held-out band is seen with its surroundings, judged without them
            above = 0 if self.held_out_band is None else min(top, 32)
            below = 0 if self.held_out_band is None else min(n_y - top - height, 32)
            y, x = slice(top - above, top + height + below), slice(left, left + width)
            weight = self.weight[y, x].copy()
            weight[:above] = 0
            weight[weight.shape[0] - below :] = 0
            yield self.samples(z, y, x)[None], torch.from_numpy(weight)[None, None]

    def _trainable(self) -> Float[np.ndarray, "y x"]:
        if self.held_out_band is None:
            return self.weight
        trainable = self.weight.copy()
        trainable[self.held_out_band[0] : self.held_out_band[1]] = 0
        return trainable


def neighbours(parts: Parts, z: int, n_slices: int) -> Float[np.ndarray, "part slice y x"]:
    """Return the `n_slices` slices around `z`; a view where possible, mirrored at the first and last slice."""
    n_z, reach = parts.shape[1], n_slices // 2
    if reach <= z < n_z - reach:
        return parts[:, z - reach : z + reach + 1]
    return parts[:, [mirrored(k, n_z) for k in range(z - reach, z + reach + 1)]]


def mirrored(index: int, n: int) -> int:
    """Return `index` reflected into ``0 .. n - 1`` about the first and last entry.

    Examples
    --------
    >>> [mirrored(k, 3) for k in range(-3, 6)]
    [1, 2, 1, 0, 1, 2, 1, 0, 1]
    """
    if n == 1:
        return 0
    index %= 2 * (n - 1)
    return min(index, 2 * (n - 1) - index)


def _turned(x: Tensor, turns: int, mirror: int) -> Tensor:
    x = torch.rot90(x, turns, (-2, -1))
    return x.flip(-1) if mirror else x
