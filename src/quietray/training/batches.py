"""Where training samples are cut from, and what is kept back to judge with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quietray.brief import brief
from quietray.errors import GeometryError
from quietray.splits.base import Split
from quietray.splits.neighbourhood import Neighbourhood, neighbours
from quietray.types import Parts, Samples, Slice

__all__ = ["TrainingSet", "TrainingVolume"]


@dataclass(frozen=True, eq=False)
class TrainingVolume:
    """Reconstructed parts to train on, scaled to about [0, 1], with slices, bands or pixels held out.

    Parameters
    ----------
    parts
        ``(part, z, y, x)``, scaled.  The steps or channels of a series stand one after the other along z.
    neighbourhood
        What of them makes a sample.
    weight
        ``(y, x)``: zero outside the field of view, one inside.
    training_rows, held_out_rows
        Slices that may be in the middle of a training sample, and slices that are in the middle of held-out ones.
    held_out_band
        ``(y0, y1)``, rows of every slice that are never a training target; for scans of too few slices to hold out.
    reserved
        ``(y, x)``, one at the pixels of every slice that are never a training target, else zero; for methods that hide
        pixels.  They repeat every `align` pixels.
    n_series
        Steps or channels along z.
    all_slices
        Whether every slice of a sample is a target, not only the middle one.
    channel
        The one that is judged, of a spectral series; None judges all.
    resident
        The parts once more, on the device where samples of them are drawn; None draws them from `parts`.

    Notes
    -----
    Held-out slices still stand beside the middle slice of training inputs.  That is sound: the estimate needs only
    that their noise was never a *target*.
    """

    parts: Parts
    neighbourhood: Neighbourhood
    weight: Slice
    training_rows: tuple[int, ...]
    held_out_rows: tuple[int, ...]
    held_out_band: tuple[int, int] | None = None
    reserved: Slice | None = None
    align: int = 1
    n_series: int = 1
    all_slices: bool = False
    channel: int | None = None
    resident: Tensor | None = None

    __repr__ = brief

    def on(self, device: torch.device, room: int | None = None) -> TrainingVolume:
        """Return the same data, whose samples are drawn on a GPU if the parts fit into half of `room` bytes there.

        Else patches are cut here and follow one by one.
        """
        if device.type == "cpu" or (room is not None and 2 * self.parts.nbytes > room):
            return self
        return replace(self, resident=torch.from_numpy(self.parts).to(device))

    @classmethod
    def with_held_out(
        cls,
        parts: Parts,
        split: Split,
        weight: Slice,
        targets: tuple[int, ...] | None = None,
        n_series: int = 1,
        share: float = 0.06,
    ) -> TrainingVolume:
        """Hold out what the method cannot have learned by heart.

        A method that hides pixels keeps some of them back in every image, and is judged by those of all images: in a
        few of them there are too few to tell one judgement from the next.  Else about `share` of the slices, evenly
        spread, are held out in all steps of a series; a band through every slice if there are under eight.

        Parameters
        ----------
        parts, weight, n_series
            As in the class.
        split
            The method.
        targets
            Slices (of one step) whose neighbours in `parts` are their true neighbours; all by default.
        share
            Share to hold out.

        Raises
        ------
        GeometryError
            Nothing would be left to train on.
        """
        n_rows = parts.shape[1] // n_series
        rows = tuple(range(n_rows)) if targets is None else targets
        steps = (0,) if split.neighbourhood.channels > 1 else range(0, parts.shape[1], n_rows)
        all_slices = split.n_outputs == split.neighbourhood.slices > 1

        def everywhere(some: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(step + z for step in steps for z in some)

        data = cls(
            parts,
            split.neighbourhood,
            weight,
            everywhere(rows),
            everywhere(rows),
            n_series=n_series,
            all_slices=all_slices,
        )
        reserved = split.reserved((parts.shape[2], parts.shape[3]))
        if reserved is not None:
            return replace(data, reserved=reserved[0], align=reserved[1])
        n_held = max(1, round(share * len(rows)))
        held = tuple(rows[int((k + 0.5) * len(rows) / n_held)] for k in range(n_held))
        if len(rows) >= 8:
            kept = tuple(z for z in rows if z not in held)
            return replace(data, training_rows=everywhere(kept), held_out_rows=everywhere(held))
        inside = np.flatnonzero(weight.any(axis=1))
        if len(inside) < 2:
            raise GeometryError(
                f"a scan of {len(rows)} slices must have at least 2 image rows within the field of view, one of them "
                f"to be held out, got {len(inside)}; choose a larger region"
            )
        height = max(1, round(2 * share * len(inside)))
        first = int(inside[0] + 0.6 * len(inside))
        return replace(data, held_out_band=(first, min(first + height, parts.shape[2])))

    def samples(self, z: int, y: slice = slice(None), x: slice = slice(None)) -> Float[Tensor, "part slice y x"]:
        """Return the parts around slice `z`; beyond the first and last slice they are mirrored."""
        return torch.from_numpy(neighbours(self.parts, z, self.neighbourhood, self.n_series)[:, :, y, x])

    def draw(self, batch: int, patch: int, generator: torch.Generator) -> tuple[Samples, Tensor]:
        """Cut `batch` random patches, each turned and mirrored at random (the square's eight symmetries, and up-down).

        Returns
        -------
        samples
            ``(batch, part, slice, y, x)``.
        weight
            ``(batch, 1, y, x)``, or ``(batch, slice, y, x)`` where all slices are targets: zero where the target may
            not be used.
        """
        _, _, n_y, n_x = self.parts.shape
        size = min(patch, n_y, n_x)
        rows, trainable = self.training_rows, self._trainable
        chosen: list[_Patch] = []
        while len(chosen) < batch:
            z, y, x, turns, mirror, flip = (
                int(torch.randint(n, (), generator=generator))
                for n in (len(rows), n_y - size + 1, n_x - size + 1, 4, 2, 2)
            )
            if trainable[y : y + size, x : x + size].any():
                flip = flip if self.neighbourhood.channels == 1 else 0
                chosen.append(_Patch(rows[z], y, x, size, turns, mirror, flip))
        if self.resident is not None:
            return self._gathered(chosen, self.resident)
        cut = [self._cut(patch) for patch in chosen]
        return torch.stack([sample for sample, _ in cut]), torch.stack([weight for _, weight in cut])

    def _cut(self, patch: _Patch) -> tuple[Tensor, Tensor]:
        """Return one sample, and the weight of its targets."""
        window = (slice(patch.y, patch.y + patch.size), slice(patch.x, patch.x + patch.size))
        sample = self.samples(patch.z, *window)
        targets = torch.from_numpy(self._slices_weight(patch.z)[:, None, None] * self._trainable[window])
        if patch.flip:
            sample, targets = sample.flip(1), targets.flip(0)
        return _turned(sample, patch.turns, patch.mirror), _turned(targets, patch.turns, patch.mirror)

    def _gathered(self, chosen: Sequence[_Patch], resident: Tensor) -> tuple[Samples, Tensor]:
        """Return all samples and weights, in one look-up each: on a GPU many small operations take longer."""
        device = resident.device
        slices: list[list[int]] = []
        outputs: list[np.ndarray] = []
        for patch in chosen:
            seen = self.neighbourhood.indices(patch.z, self.parts.shape[1], self.n_series)
            slices.append(seen[::-1] if patch.flip else seen)
            wanted = self._slices_weight(patch.z)
            outputs.append(wanted[::-1] if patch.flip else wanted)
        places = np.array([(patch.y, patch.x, patch.turns, patch.mirror) for patch in chosen])
        # one way each: nothing is waited for
        z, (y0, x0, turns, mirror) = (
            torch.from_numpy(np.array(values)).to(device, non_blocking=True) for values in (slices, places.T)
        )
        y, x = _looked_up(chosen[0].size, turns, mirror)
        y, x = y + y0[:, None, None], x + x0[:, None, None]
        samples = resident[:, z[:, :, None, None], y[:, None], x[:, None]].transpose(0, 1)
        targets = torch.from_numpy(np.array(outputs)).to(device, non_blocking=True)
        return samples, targets[:, :, None, None] * self._trainable_there[y, x][:, None]

    def held_out(self, most_pixels: int = 2**17) -> Iterator[tuple[Samples, Tensor]]:
        """Yield the held-out samples and their weights, at most about `most_pixels`, always the same ones."""
        n_y, n_x = self.parts.shape[2:]
        most_rows = max(1, most_pixels // 64**2)
        rows = self.held_out_rows[:: -(-len(self.held_out_rows) // most_rows)]
        y0, y1 = self.held_out_band or (0, n_y)
        budget = max(most_pixels // len(rows), 64 * 64)
        side = int(np.sqrt(budget))
        height = min(y1 - y0, max(side, budget // n_x))
        width = min(n_x, max(side, budget // height))
        # around the middle of what all views see, which in a region may be a corner
        middle_y, middle_x = (int(np.flatnonzero(self.weight[y0:y1].any(axis=axis)).mean()) for axis in (1, 0))
        top = y0 + int(np.clip(middle_y - height // 2, 0, y1 - y0 - height)) // self.align * self.align
        left = int(np.clip(middle_x - width // 2, 0, n_x - width)) // self.align * self.align
        for z in rows:
            # a held-out band is seen with its surroundings, judged without them
            above = 0 if self.held_out_band is None else min(top, 32)
            below = 0 if self.held_out_band is None else min(n_y - top - height, 32)
            y, x = slice(top - above, top + height + below), slice(left, left + width)
            weight = (self.weight if self.reserved is None else self.weight * self.reserved)[y, x].copy()
            weight[:above] = 0
            weight[weight.shape[0] - below :] = 0
            yield self.samples(z, y, x)[None], self._judged_weight(weight)

    def held_out_slices(self, most_pixels: int) -> Iterator[tuple[Samples, Tensor]]:
        """Yield held-out samples and weights as :meth:`held_out` does, but of whole slices: two, or what is affordable.

        Parameters
        ----------
        most_pixels
            About how many in all.
        """
        weight = self.weight if self.reserved is None else self.weight * self.reserved
        if self.held_out_band is not None:
            within = np.zeros_like(weight)
            within[slice(*self.held_out_band)] = 1
            weight = weight * within
        most_rows = max(2, most_pixels // weight.size)
        for z in self.held_out_rows[:: -(-len(self.held_out_rows) // most_rows)]:
            yield self.samples(z)[None], self._judged_weight(weight)

    def _judged_weight(self, weight: Slice) -> Float[Tensor, "1 output y x"]:
        """Return the weight of what is judged in each slice that is returned."""
        outputs = np.ones(1, np.float32)
        if self.channel is not None:
            outputs = (np.arange(self.neighbourhood.channels) == self.channel).astype(np.float32)
        elif self.all_slices:
            outputs = (np.arange(self.neighbourhood.slices) == self.neighbourhood.slices // 2).astype(np.float32)
        return torch.from_numpy(outputs[:, None, None] * weight)[None]

    @property
    def judged(self) -> tuple[int, int]:
        """Where the slice stands that is judged, in a held-out sample and in what is returned for it."""
        slices, channels = self.neighbourhood.slices, self.neighbourhood.channels
        middle = slices // 2
        if channels > 1:
            shown = channels // 2 if self.channel is None else self.channel
            return shown * slices + middle, shown
        return self.neighbourhood.times // 2 * slices + middle, middle if self.all_slices else 0

    def of_step(self, step: int) -> TrainingVolume:
        """Return the same data, of which only one step or channel of the series is judged."""
        if self.neighbourhood.channels > 1:
            return replace(self, channel=step)
        n_rows = self.parts.shape[1] // self.n_series
        return replace(self, held_out_rows=tuple(z for z in self.held_out_rows if z // n_rows == step))

    def to_tune_on(self, n_slices: int = 4) -> TrainingVolume:
        """Return the same data with other slices held out, or another band: what is tuned on them is judged fairly."""
        if self.held_out_band is not None:
            y0, y1 = self.held_out_band
            inside = np.flatnonzero(self.weight.any(axis=1))
            first = max(int(inside[0]), y0 - 2 * (y1 - y0))
            return replace(self, held_out_band=(first, max(first + 1, y0)))
        rows = self.training_rows
        chosen = tuple(rows[int((k + 0.5) * len(rows) / n_slices)] for k in range(min(n_slices, len(rows))))
        return replace(self, held_out_rows=chosen)

    def widely_held_out(self, most_pixels: int) -> TrainingVolume:
        """Return the same data with more whole slices held out, of so many pixels at most: for what has not learned.

        Examples
        --------
        >>> parts, weight = np.zeros((2, 9, 4, 4), np.float32), np.ones((4, 4), np.float32)
        >>> few = TrainingVolume(parts, Neighbourhood(1), weight, tuple(range(8)), (8,))
        >>> few.widely_held_out(48).held_out_rows, few.widely_held_out(10).held_out_rows
        ((0, 3, 6), (8,))
        """
        rows = tuple(sorted({*self.training_rows, *self.held_out_rows}))
        n = min(len(rows), most_pixels // self.weight.size)
        if n <= len(self.held_out_rows) and self.held_out_band is None:
            return self
        return replace(self, held_out_rows=rows[:: -(-len(rows) // max(1, n))], held_out_band=None)

    def halves(self) -> tuple[TrainingVolume, TrainingVolume]:
        """Return two sets with no training target in common: alternate slices, or the left and right of too few slices.

        Each holds out what the whole set does, and the other's targets as well: both can be judged on them.

        Examples
        --------
        >>> parts, weight = np.zeros((2, 9, 4, 4), np.float32), np.ones((4, 4), np.float32)
        >>> whole = TrainingVolume(parts, Neighbourhood(1), weight, tuple(range(8)), (8,))
        >>> [half.training_rows for half in whole.halves()]
        [(0, 2, 4, 6), (1, 3, 5, 7)]
        """
        rows = self.training_rows
        if self.held_out_band is None and len(rows) > 1:
            one, other = (
                replace(self, training_rows=mine, held_out_rows=tuple(sorted({*self.held_out_rows, *theirs})))
                for mine, theirs in ((rows[::2], rows[1::2]), (rows[1::2], rows[::2]))
            )
            return one, other
        never = np.zeros_like(self.weight) if self.reserved is None else self.reserved.copy()
        if self.held_out_band is not None:
            never[slice(*self.held_out_band)] = 1
        middle = int(np.flatnonzero(self.weight.any(axis=0)).mean()) + 1
        left, right = never.copy(), never.copy()
        left[:, middle:] = 1
        right[:, :middle] = 1
        return replace(self, held_out_band=None, reserved=left), replace(self, held_out_band=None, reserved=right)

    @cached_property
    def _trainable_there(self) -> Tensor:
        assert self.resident is not None
        return torch.from_numpy(np.ascontiguousarray(self._trainable)).to(self.resident.device)

    @cached_property
    def _trainable(self) -> Slice:
        if self.reserved is not None:
            return np.asarray(self.weight * (1 - self.reserved))
        if self.held_out_band is None:
            return self.weight
        trainable = self.weight.copy()
        trainable[self.held_out_band[0] : self.held_out_band[1]] = 0
        return trainable

    def _slices_weight(self, z: int) -> Float[np.ndarray, " output"]:
        """Return which slices of the sample around `z` may be a target."""
        if not self.all_slices:
            return np.ones(1, np.float32)
        seen = self.neighbourhood.indices(z, self.parts.shape[1], self.n_series)
        return np.isin(seen, self.training_rows).astype(np.float32)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Several scans to train one network on; each batch is cut from one of them.

    Parameters
    ----------
    volumes
        All for the same method.
    """

    volumes: tuple[TrainingVolume, ...]

    def on(self, device: torch.device, room: int | None = None) -> TrainingSet:
        """Return the same scans, drawn from on a GPU as far as they fit into `room` bytes there."""
        there = []
        for volume in self.volumes:
            there.append(volume.on(device, room))
            if room is not None and there[-1].resident is not None:
                room -= volume.parts.nbytes
        return replace(self, volumes=tuple(there))

    def draw(self, batch: int, patch: int, generator: torch.Generator) -> tuple[Samples, Tensor]:
        """Cut `batch` random patches of a random scan; see :meth:`TrainingVolume.draw`."""
        chosen = int(torch.randint(len(self.volumes), (), generator=generator))
        return self.volumes[chosen].draw(batch, patch, generator)

    def held_out(self, most_pixels: int = 2**17) -> Iterator[tuple[Samples, Tensor]]:
        """Yield the held-out samples of every scan, together at most about `most_pixels`."""
        for volume in self.volumes:
            yield from volume.held_out(most_pixels // len(self.volumes))


class _Patch(NamedTuple):
    """Where a sample is cut, and how it is turned."""

    z: int
    y: int
    x: int
    size: int
    turns: int
    mirror: int
    flip: int


def _looked_up(size: int, turns: Tensor, mirror: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows and columns ``(batch, y, x)`` of a square that each pixel of a turned one comes from."""
    y, x = torch.meshgrid(*2 * [torch.arange(size, device=turns.device)], indexing="ij")
    turns, mirror = turns[:, None, None], mirror[:, None, None]
    x = torch.where(mirror > 0, size - 1 - x, x)
    y = y.expand_as(x)
    last = size - 1
    rows = torch.where(turns == 0, y, torch.where(turns == 1, x, torch.where(turns == 2, last - y, last - x)))
    columns = torch.where(turns == 0, x, torch.where(turns == 1, last - y, torch.where(turns == 2, last - x, y)))
    return rows, columns


def _turned(x: Tensor, turns: int, mirror: int) -> Tensor:
    x = torch.rot90(x, turns, (-2, -1))
    return x.flip(-1) if mirror else x
