"""A window of training data on a device that cannot hold all of them, exchanged in the background."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from math import gcd

import numpy as np
import torch
from torch import Tensor

from quietray.types import Parts

__all__ = ["Window", "blocks_of", "spread_order"]

_BLOCKS = 3  # to draw from at a time; there is room for one more, which is being copied
_GOLDEN = 0.618  # a step of this share visits places as evenly as possible, however early it ends


class Window:
    """Blocks of neighbouring rows on a device, of which the oldest is exchanged for the next one while steps go on.

    Which blocks there are depends only on the number of the step and the planned number of steps, so that a resumed
    training goes on as if it had not been interrupted.  A training is divided into whole cycles, in each of which every
    block is there for the same number of steps: one cycle, or as many as make each voxel be drawn once per cycle on
    average, with at most one exchange per step, which bounds what is copied.

    Parameters
    ----------
    parts
        Reconstructions ``(part, z, y, x)``, in memory or in a file.
    blocks
        Rows to draw from, of each block.
    seen
        Slices that a sample around a row consists of.
    device
        Where the window is.
    most
        Largest number of slices of a block, with those around its rows.
    """

    def __init__(
        self,
        parts: Parts,
        blocks: Sequence[tuple[int, ...]],
        seen: Callable[[int], list[int]],
        device: torch.device,
        most: int,
    ) -> None:
        self._parts, self._most, self._seen = parts, most, seen
        self._blocks = [blocks[k] for k in spread_order(len(blocks))]
        self._slices = [_needed(block, seen) for block in self._blocks]
        self._at_once = min(_BLOCKS, len(blocks))
        self._slots = min(_BLOCKS + 1, len(blocks))
        n_parts, _, n_y, n_x = parts.shape
        self.held = torch.empty((n_parts, self._slots * most, n_y, n_x), device=device)
        self._copier = _Copier(parts, self.held)
        self._kept: dict[int, tuple[int, Future[torch.cuda.Event | None]]] = {}  # block of each slot, and its copy
        self._step: tuple[int, int | None] = (0, None)
        self._placed: dict[int, list[int]] = {}
        self._at: int | None = None

    @classmethod
    def of(
        cls, parts: Parts, rows: Sequence[int], seen: Callable[[int], list[int]], device: torch.device, room: int
    ) -> Window | None:
        """Return a window of at most `room` bytes; None if too few slices fit into it."""
        most = room // parts[:, :1].nbytes // (_BLOCKS + 1)
        blocks = blocks_of(rows, seen, most)
        return None if blocks is None else cls(parts, blocks, seen, device, most)

    @property
    def share(self) -> float:
        """Fraction of the rows that can be drawn at a time."""
        return self._at_once / len(self._blocks)

    def at(self, step: int, n_steps: int | None) -> None:
        """Tell which step is next, of how many if that is known."""
        self._step = step, n_steps

    def rows(self, drawn: int) -> list[int]:
        """Return the rows to draw from in this step, in which so many pixels are drawn, and exchange a block if due."""
        position = self._position(drawn)
        if position != self._at:
            for one in range(position, position + self._slots):
                self._require(one)
            blocks = [(position + k) % len(self._blocks) for k in range(self._at_once)]
            self._placed = {}
            for one, block in enumerate(blocks, position):
                slot = one % self._slots
                self._copier.wait(self._kept[slot][1])
                place = {z: slot * self._most + k for k, z in enumerate(self._slices[block])}
                self._placed |= {row: [place[z] for z in self._seen(row)] for row in self._blocks[block]}
            self._at = position
        return list(self._placed)

    def places(self, row: int) -> list[int]:
        """Return where in `held` the slices of the sample around a row are."""
        return self._placed[row]

    def _position(self, drawn: int) -> int:
        """Return how many blocks were exchanged before this step."""
        step, n_steps = self._step
        if n_steps is None or self._slots == self._at_once:
            return 0
        all_pixels = sum(len(block) for block in self._blocks) * int(np.prod(self._parts.shape[2:]))
        cycles = max(1, min(n_steps * drawn // all_pixels, n_steps // len(self._blocks)))
        return step * cycles * len(self._blocks) // n_steps

    def _require(self, one: int) -> None:
        """Begin to copy the block that comes after so many others, unless it is there."""
        slot, block = one % self._slots, one % len(self._blocks)
        if slot not in self._kept or self._kept[slot][0] != block:
            self._kept[slot] = block, self._copier.begin(slot * self._most, self._slices[block])


def blocks_of(rows: Sequence[int], seen: Callable[[int], list[int]], most: int) -> list[tuple[int, ...]] | None:
    """Divide rows into as few blocks as can be, each with at most `most` slices in its samples.

    Returns
    -------
    blocks
        Rows of each block, whose numbers differ by at most one; None if a single row has too many slices.

    Examples
    --------
    >>> blocks_of(range(10), lambda z: [z, z + 1], 5)
    [(0, 1, 2), (3, 4, 5), (6, 7, 8, 9)]
    >>> blocks_of(range(10), lambda z: [z, z + 1], 1) is None
    True
    """
    count = 1
    while True:
        cuts = [len(rows) * k // count for k in range(count + 1)]
        blocks = [tuple(rows[first:last]) for first, last in pairwise(cuts)]
        if all(len(_needed(block, seen)) <= most for block in blocks):
            return blocks
        if count == len(rows):
            return None
        count = min(len(rows), count + max(1, count // 20))


def spread_order(count: int) -> list[int]:
    """Return all numbers below `count`, in an order in which any few that follow one another are far apart.

    Examples
    --------
    >>> spread_order(8)
    [0, 5, 2, 7, 4, 1, 6, 3]
    """
    stride = max(1, round(_GOLDEN * count))
    while gcd(stride, count) > 1:
        stride += 1
    return [k * stride % count for k in range(count)]


def _needed(rows: Sequence[int], seen: Callable[[int], list[int]]) -> list[int]:
    return sorted({z for row in rows for z in seen(row)})


class _Copier:
    """Copies slices into an array on a device in a thread; on a GPU through pinned memory, beside the computations."""

    def __init__(self, parts: Parts, held: Tensor) -> None:
        self._parts, self._held = parts, held
        self._thread = ThreadPoolExecutor(1, "window")
        self._stream: torch.cuda.Stream | None = None
        if held.device.type == "cuda":
            self._stream = torch.cuda.Stream(held.device)
            held.record_stream(self._stream)
            self._pinned = [(torch.empty(held.shape[2:], pin_memory=True), torch.cuda.Event()) for _ in range(2)]

    def begin(self, first: int, slices: list[int]) -> Future[torch.cuda.Event | None]:
        """Begin to copy slices of all parts to places from `first` on, once nothing is drawn from there any more."""
        free = None
        if self._stream is not None:
            free = torch.cuda.Event()
            free.record(torch.cuda.current_stream(self._held.device))
        return self._thread.submit(self._copied, first, slices, free)

    def wait(self, copied: Future[torch.cuda.Event | None]) -> None:
        """Let the computations that follow wait for a copy; this thread only waits until the copy is submitted."""
        done = copied.result()
        if done is not None:
            torch.cuda.current_stream(self._held.device).wait_event(done)

    def _copied(self, first: int, slices: list[int], free: torch.cuda.Event | None) -> torch.cuda.Event | None:
        places = [(part, place, z) for part in range(len(self._parts)) for place, z in enumerate(slices, first)]
        if self._stream is None or free is None:
            for part, place, z in places:
                np.copyto(self._held[part, place].numpy(), self._parts[part, z])
            return None
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(free)
            for number, (part, place, z) in enumerate(places):
                pinned, sent = self._pinned[number % 2]
                sent.synchronize()
                np.copyto(pinned.numpy(), self._parts[part, z])
                self._held[part, place].copy_(pinned, non_blocking=True)
                sent.record(self._stream)
            done = torch.cuda.Event()
            done.record(self._stream)
        return done
