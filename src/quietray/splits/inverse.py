"""Noise2Inverse: split the angles, reconstruct each part, train one part against the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from quietray.errors import SettingsError
from quietray.metrics.noreference import Judgement, judge_left_out
from quietray.splits.base import Network, Pair, Split
from quietray.types import Channels, Samples

__all__ = ["Noise2Inverse"]


@dataclass(frozen=True)
class Noise2Inverse(Split):
    """Noise2Inverse on reconstructed slices.

    The views are dealt to `parts` subsets, ``j::parts``, and each subset is reconstructed on its own.  The noise of a
    radiograph ends up in one subset only, so the reconstructions are independent although the noise within each of
    them is not.

    Parameters
    ----------
    parts
        Number of angular subsets, K.  :func:`quietray.denoise` makes the default of 4 a 2 where a subset would have
        less than a fifth as many views as the detector has columns.
    input
        ``X:1``: the network sees the mean of K - 1 reconstructions and meets the last one.  ``1:X``: the reverse.
    slices
        Adjacent slices that the network sees (odd); 1 is 2-D, more is 2.5-D.

    Notes
    -----
    Hendriksen, Pelt & Batenburg (2020), doi:10.1109/TCI.2020.3019647.

    Examples
    --------
    >>> split = Noise2Inverse(parts=2, slices=1)
    >>> pair = split.draw(torch.rand(3, 2, 1, 8, 8), torch.Generator().manual_seed(0))
    >>> pair.input.shape == pair.target.shape
    True
    """

    parts: int = 4
    input: Literal["X:1", "1:X"] = "X:1"
    slices: int = 7

    def __post_init__(self) -> None:
        if self.parts < 2:
            raise SettingsError(f"parts must be at least 2 (one to see, one to meet), got {self.parts}")
        if self.input not in ("X:1", "1:X"):
            raise SettingsError(f"input must be 'X:1' or '1:X', got '{self.input}'")
        if self.slices < 1 or self.slices % 2 == 0:
            raise SettingsError(f"slices must be odd, so that there is a middle one, got {self.slices}")

    @property
    def n_parts(self) -> int:
        """Angular subsets in a sample."""
        return self.parts

    @property
    def n_slices(self) -> int:
        """Slices in a sample."""
        return self.slices

    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Draw, for each sample, the subset that stands alone."""
        alone = torch.randint(self.parts, (samples.shape[0],), generator=generator)
        given, wanted = self._views(samples.sum(dim=1), samples[torch.arange(samples.shape[0]), alone])
        return Pair(given, wanted, torch.ones(1, 1, 1, 1))

    def choices(self, samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the K ``(input, target)`` choices of the samples, ``(batch, slice, y, x)`` and ``(batch, 1, y, x)``."""
        total = samples.sum(dim=1)
        for part in range(self.parts):
            yield self._views(total, samples[:, part])

    def infer(self, network: Network, samples: Samples) -> Channels:
        """Return the mean of the network's K outputs."""
        outputs = [network(given).float() for given, _ in self.choices(samples)]
        return torch.stack(outputs).mean(dim=0)

    def judge(self, network: Network, samples: Samples, weight: Tensor) -> Judgement:
        """Estimate the error of the mean of the K outputs from the subset that each of them did not see."""
        choices = list(self.choices(samples))
        outputs = torch.stack([network(given).float() for given, _ in choices])
        targets = torch.stack([wanted for _, wanted in choices])
        middle = self.slices // 2
        inputs = torch.stack([given[:, middle : middle + 1] for given, _ in choices])
        parts_in_target = 1 if self.input == "X:1" else self.parts - 1
        return judge_left_out(outputs, targets, inputs, weight, parts_in_target, self.parts)

    def _views(self, total: Tensor, single: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the network sees and what it meets when the subset `single` stands alone."""
        others = (total - single) / (self.parts - 1)
        given, wanted = (others, single) if self.input == "X:1" else (single, others)
        middle = self.slices // 2
        return given, wanted[:, middle : middle + 1]
