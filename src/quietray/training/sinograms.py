"""Whole sinograms as training data, for losses in the projection domain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from quietray.errors import GeometryError
from quietray.types import Samples, Sinograms

__all__ = ["TrainingSinograms"]


@dataclass(frozen=True, eq=False)
class TrainingSinograms:
    """Whole sinograms to train on, with rows held out.

    Parameters
    ----------
    sinograms
        Scaled sinograms ``(row, view, col)``.
    training_rows, held_out_rows
        Rows for training and for validation.
    device
        Device of the samples; None is the CPU.
    """

    sinograms: Sinograms
    training_rows: tuple[int, ...]
    held_out_rows: tuple[int, ...]
    device: torch.device | None = None

    @classmethod
    def with_held_out(cls, sinograms: Sinograms, share: float = 0.06) -> TrainingSinograms:
        """Hold out about `share` of the rows, evenly spaced, and at least one.

        Raises
        ------
        GeometryError
            There is only one row.

        Examples
        --------
        >>> import numpy as np
        >>> TrainingSinograms.with_held_out(np.zeros((4, 3, 2), np.float32), share=0.25).held_out_rows
        (2,)
        """
        n = len(sinograms)
        if n < 2:
            raise GeometryError(f"the scan must have at least 2 rows, one of them to be held out, got {n}")
        n_held = max(1, round(share * n))
        held = tuple(int((k + 0.5) * n / n_held) for k in range(n_held))
        return cls(sinograms, tuple(row for row in range(n) if row not in held), held)

    def on(self, device: torch.device, room: int | None = None) -> TrainingSinograms:
        """Return the same data with samples on a device; they always fit, as only a few rows are copied at a time."""
        return replace(self, device=device)

    def at(self, step: int, n_steps: int | None) -> float:
        """Return 1: every row can be drawn in every step."""
        return 1.0

    def draw(self, batch: int, patch: int, generator: torch.Generator) -> tuple[Samples, Tensor]:
        """Return `batch` random rows and the weight of their targets; a view needs its whole slice, not a patch."""
        rows = torch.randint(len(self.training_rows), (batch,), generator=generator)
        return self._samples([self.training_rows[row] for row in rows]), torch.ones(1, 1, 1, 1, device=self.device)

    def held_out(self, most_pixels: int = 2**17) -> Iterator[tuple[Samples, Tensor]]:
        """Yield the held-out rows, at most about `most_pixels` in total, with their weights."""
        most_rows = max(1, most_pixels // self.sinograms[0].size)
        for row in self.held_out_rows[:: -(-len(self.held_out_rows) // most_rows)]:
            yield self._samples([row]), torch.ones(1, 1, 1, 1)

    def _samples(self, rows: list[int]) -> Samples:
        return torch.from_numpy(self.sinograms[rows])[:, None, None].to(self.device)
