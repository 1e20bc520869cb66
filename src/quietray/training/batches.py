"""Training samples, and the data held out for validation."""

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
from quietray.training.window import Window
from quietray.types import Parts, Samples, Slice

__all__ = ["SHARE", "TrainingSet", "TrainingVolume", "held_out_share"]

SHARE = 0.06  # of the slices that is held out
_MOST_SHARE = 0.125  # if they are small
_ENOUGH = 2**19  # pixels from which a gain of 10 dB is known to about 0.7 dB
_MANY = 32  # slices from which on more may be held out


def held_out_share(n_slices: int, pixels: int) -> float:
    """Return the fraction of the slices to hold out: more of small slices, so that the gain is known from them.

    Parameters
    ----------
    n_slices
        Number of slices; of fewer than 32, none can be spared.
    pixels
        Number of pixels of a slice in the field of view.

    Examples
    --------
    >>> held_out_share(64, 200**2), held_out_share(64, 500**2), held_out_share(24, 200**2)
    (0.125, 0.06, 0.06)
    """
    if n_slices < _MANY:
        return SHARE
    return max(SHARE, min(_MOST_SHARE, _ENOUGH / (n_slices * max(1, pixels))))


@dataclass(frozen=True, eq=False)
class TrainingVolume:
    """Scaled reconstructions to train on, with slices, bands or pixels held out.

    Parameters
    ----------
    parts
        Scaled reconstructions ``(part, z, y, x)``.  The steps or channels of a series follow one another along z.
    neighbourhood
        Which slices make up a sample.
    weight
        Weight ``(y, x)``: zero outside the field of view, one inside.
    training_rows, held_out_rows
        Central slices of training samples, and of held-out samples.
    held_out_band
        Rows ``(y0, y1)`` of every slice that are never a training target, for scans with too few slices to hold out.
    reserved
        Mask ``(y, x)``: one at the pixels of every slice that are never a training target, for methods that hide
        pixels.  The pattern repeats every `align` pixels.
    n_series
        Number of steps or channels along z.
    all_slices
        Whether every slice of a sample is a target, and not only the middle one.
    channel
        Channel of a spectral series that is validated; None for all.
    resident
        A copy of the parts on the device where samples are drawn; None to draw them from `parts`.
    window
        A part of them there, if not all fit.

    Notes
    -----
    Held-out slices still appear as neighbours in training inputs.  This does not bias the estimate, which
    only requires that their noise was never a *target*.
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
    window: Window | None = None

    __repr__ = brief

    def on(self, device: torch.device, room: int | None = None) -> TrainingVolume:
        """Return the same data, with samples drawn on a device: from all parts, or from a window of them.

        The other half of `room` is for the network.

        Parameters
        ----------
        device
            A GPU.  On the CPU, where the parts already are, this only matters together with `room`.
        room
            Bytes of its memory; None if there are enough.
        """
        if room is not None and 2 * self.parts.nbytes > room:
            # if not even a window fits, patches are cut on the CPU and copied one at a time
            return replace(self, window=Window.of(self.parts, self.training_rows, self._seen, device, room // 2))
        return self if device.type == "cpu" else replace(self, resident=torch.from_numpy(self.parts).to(device))

    def at(self, step: int, n_steps: int | None) -> float:
        """Tell which step is next, of how many if known; returns the fraction of the rows that are there to draw."""
        if self.window is None:
            return 1.0
        self.window.at(step, n_steps)
        return self.window.share

    @classmethod
    def with_held_out(
        cls,
        parts: Parts,
        split: Split,
        weight: Slice,
        targets: tuple[int, ...] | None = None,
        n_series: int = 1,
        share: float = SHARE,
    ) -> TrainingVolume:
        """Hold out data for validation, to detect overfitting.

        Methods that hide pixels reserve some pixels of every image; all images are needed for a sufficiently precise
        estimate.  For other methods, about `share` of the slices are held out at even distances, in all steps of a
        series, or a band of every slice if there are fewer than eight slices.

        Parameters
        ----------
        parts, weight, n_series
            See :class:`TrainingVolume`.
        split
            The method.
        targets
            Slices (of one step) whose neighbours in `parts` are their true neighbours; all by default.
        share
            Fraction to hold out.

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
        """Return the parts around slice `z`; slices beyond the first and last are mirrored."""
        return torch.from_numpy(neighbours(self.parts, z, self.neighbourhood, self.n_series)[:, :, y, x])

    def draw(self, batch: int, patch: int, generator: torch.Generator) -> tuple[Samples, Tensor]:
        """Cut `batch` random patches, each with a random symmetry of the square, and randomly flipped in z.

        Returns
        -------
        samples
            Samples ``(batch, part, slice, y, x)``.
        weight
            Weight ``(batch, 1, y, x)``, or ``(batch, slice, y, x)`` if all slices are targets; zero for pixels that may
            not be targets.
        """
        _, _, n_y, n_x = self.parts.shape
        size = min(patch, n_y, n_x)
        rows: Sequence[int] = self.training_rows if self.window is None else self.window.rows(batch * size**2)
        trainable = self._trainable
        chosen: list[_Patch] = []
        while len(chosen) < batch:
            z, y, x, turns, mirror, flip = (
                int(torch.randint(n, (), generator=generator))
                for n in (len(rows), n_y - size + 1, n_x - size + 1, 4, 2, 2)
            )
            if trainable[y : y + size, x : x + size].any():
                flip = flip if self.neighbourhood.channels == 1 else 0
                chosen.append(_Patch(rows[z], y, x, size, turns, mirror, flip))
        there = self._there
        if there is not None:
            return self._gathered(chosen, there)
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

    @property
    def _there(self) -> Tensor | None:
        """What samples are gathered from: all parts on the device, or a window of them."""
        return self.resident if self.window is None else self.window.held

    def _seen(self, z: int) -> list[int]:
        return self.neighbourhood.indices(z, self.parts.shape[1], self.n_series)

    def _gathered(self, chosen: Sequence[_Patch], there: Tensor) -> tuple[Samples, Tensor]:
        """Return all samples and weights, in one look-up each, because many small operations are slow on a GPU."""
        device = there.device
        slices: list[list[int]] = []
        outputs: list[np.ndarray] = []
        for patch in chosen:
            seen = self._seen(patch.z) if self.window is None else self.window.places(patch.z)
            slices.append(seen[::-1] if patch.flip else seen)
            wanted = self._slices_weight(patch.z)
            outputs.append(wanted[::-1] if patch.flip else wanted)
        places = np.array([(patch.y, patch.x, patch.turns, patch.mirror) for patch in chosen])
        # copied without waiting for the GPU
        z, (y0, x0, turns, mirror) = (
            torch.from_numpy(np.array(values)).to(device, non_blocking=True) for values in (slices, places.T)
        )
        y, x = _looked_up(chosen[0].size, turns, mirror)
        y, x = y + y0[:, None, None], x + x0[:, None, None]
        samples = there[:, z[:, :, None, None], y[:, None], x[:, None]].transpose(0, 1)
        targets = torch.from_numpy(np.array(outputs)).to(device, non_blocking=True)
        return samples, targets[:, :, None, None] * self._trainable_there[y, x][:, None]

    def held_out(self, most_pixels: int = 2**17) -> Iterator[tuple[Samples, Tensor]]:
        """Yield held-out samples and their weights, at most about `most_pixels`; always the same ones."""
        rows, (y, x), (above, below) = self._held_out_places(most_pixels)
        for z in rows:
            weight = (self.weight if self.reserved is None else self.weight * self.reserved)[y, x].copy()
            weight[:above] = 0
            weight[weight.shape[0] - below :] = 0
            yield self.samples(z, y, x)[None], self._judged_weight(weight)

    def held_out_window(self, most_pixels: int = 2**17) -> tuple[slice, slice]:
        """Return the part ``(y, x)`` of a slice that :meth:`held_out` yields."""
        return self._held_out_places(most_pixels)[1]

    def _held_out_places(self, most_pixels: int) -> tuple[Sequence[int], tuple[slice, slice], tuple[int, int]]:
        """Return slices, the part ``(y, x)`` of each, and numbers of rows at its ends that do not count."""
        n_y, n_x = self.parts.shape[2:]
        most_rows = max(1, most_pixels // 64**2)
        rows = self.held_out_rows[:: -(-len(self.held_out_rows) // most_rows)]
        y0, y1 = self.held_out_band or (0, n_y)
        budget = max(most_pixels // len(rows), 64 * 64)
        side = int(np.sqrt(budget))
        height = min(y1 - y0, max(side, budget // n_x))
        width = min(n_x, max(side, budget // height))
        # around the centre of the field of view, which in a region may be in a corner
        middle_y, middle_x = (int(np.flatnonzero(self.weight[y0:y1].any(axis=axis)).mean()) for axis in (1, 0))
        top = y0 + int(np.clip(middle_y - height // 2, 0, y1 - y0 - height)) // self.align * self.align
        left = int(np.clip(middle_x - width // 2, 0, n_x - width)) // self.align * self.align
        # the network sees the surroundings of a held-out band, but they do not count
        above = 0 if self.held_out_band is None else min(top, 32)
        below = 0 if self.held_out_band is None else min(n_y - top - height, 32)
        return rows, (slice(top - above, top + height + below), slice(left, left + width)), (above, below)

    def held_out_slices(self, most_pixels: int) -> Iterator[tuple[Samples, Tensor]]:
        """Yield held-out samples and weights like :meth:`held_out`, but of whole slices: two, or as many as permitted.

        Parameters
        ----------
        most_pixels
            Approximate number of pixels in total.
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
        """Return the validation weight in each slice that is returned."""
        outputs = np.ones(1, np.float32)
        if self.channel is not None:
            outputs = (np.arange(self.neighbourhood.channels) == self.channel).astype(np.float32)
        elif self.all_slices:
            outputs = (np.arange(self.neighbourhood.slices) == self.neighbourhood.slices // 2).astype(np.float32)
        return torch.from_numpy(outputs[:, None, None] * weight)[None]

    @property
    def judged(self) -> tuple[int, int]:
        """Position of the validated slice in a held-out sample, and in the output for it."""
        slices, channels = self.neighbourhood.slices, self.neighbourhood.channels
        middle = slices // 2
        if channels > 1:
            shown = channels // 2 if self.channel is None else self.channel
            return shown * slices + middle, shown
        return self.neighbourhood.times // 2 * slices + middle, middle if self.all_slices else 0

    def of_step(self, step: int) -> TrainingVolume:
        """Return the same data, with only one step or channel of the series used for validation."""
        if self.neighbourhood.channels > 1:
            return replace(self, channel=step)
        n_rows = self.parts.shape[1] // self.n_series
        return replace(self, held_out_rows=tuple(z for z in self.held_out_rows if z // n_rows == step))

    def to_tune_on(self, n_slices: int = 4) -> TrainingVolume:
        """Return the same data with other slices or another band held out, so that tuning does not bias validation."""
        if self.held_out_band is not None:
            y0, y1 = self.held_out_band
            inside = np.flatnonzero(self.weight.any(axis=1))
            first = max(int(inside[0]), y0 - 2 * (y1 - y0))
            return replace(self, held_out_band=(first, max(first + 1, y0)))
        rows = self.training_rows
        chosen = tuple(rows[int((k + 0.5) * len(rows) / n_slices)] for k in range(min(n_slices, len(rows))))
        return replace(self, held_out_rows=chosen)

    def widely_held_out(self, most_pixels: int) -> TrainingVolume:
        """Return the same data with more whole slices held out, up to so many pixels, for models without training.

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
        """Return two sets without common training targets: alternate slices, or left and right halves of few slices.

        Each holds out the same data as the whole set, and also the targets of the other half; both can be used for
        validation.

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
        assert self._there is not None
        return torch.from_numpy(np.ascontiguousarray(self._trainable)).to(self._there.device)

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
        """Return which slices of the sample around `z` may be targets."""
        if not self.all_slices:
            return np.ones(1, np.float32)
        return np.isin(self._seen(z), self.training_rows).astype(np.float32)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Several scans to train one network on; each batch is taken from one of them.

    Parameters
    ----------
    volumes
        Training data, all for the same method.
    """

    volumes: tuple[TrainingVolume, ...]

    def on(self, device: torch.device, room: int | None = None) -> TrainingSet:
        """Return the same scans, with samples drawn on a device, from windows of those that do not fit into `room`."""
        if room is None:
            return replace(self, volumes=tuple(volume.on(device) for volume in self.volumes))
        fits = []
        for volume in self.volumes:
            fits.append(2 * volume.parts.nbytes <= room)
            room -= volume.parts.nbytes if fits[-1] else 0
        each = room // max(1, fits.count(False))
        volumes = (volume.on(device, None if whole else each) for volume, whole in zip(self.volumes, fits, strict=True))
        return replace(self, volumes=tuple(volumes))

    def at(self, step: int, n_steps: int | None) -> float:
        """Tell which step is next, of how many if known; returns the mean fraction of the rows that are there."""
        return sum(volume.at(step, n_steps) for volume in self.volumes) / len(self.volumes)

    def draw(self, batch: int, patch: int, generator: torch.Generator) -> tuple[Samples, Tensor]:
        """Cut `batch` random patches from a random scan; see :meth:`TrainingVolume.draw`."""
        chosen = int(torch.randint(len(self.volumes), (), generator=generator))
        return self.volumes[chosen].draw(batch, patch, generator)

    def held_out(self, most_pixels: int = 2**17) -> Iterator[tuple[Samples, Tensor]]:
        """Yield the held-out samples of every scan, together at most about `most_pixels`."""
        for volume in self.volumes:
            yield from volume.held_out(most_pixels // len(self.volumes))


class _Patch(NamedTuple):
    """Position and orientation of a sample."""

    z: int
    y: int
    x: int
    size: int
    turns: int
    mirror: int
    flip: int


def _looked_up(size: int, turns: Tensor, mirror: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows and columns ``(batch, y, x)`` of a square that the pixels of a rotated square come from."""
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
