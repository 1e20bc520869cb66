"""What a self-supervised method is: a rule that makes two independent views of one measurement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from quietray.metrics.noreference import Judgement
from quietray.types import Channels, Samples

__all__ = ["Network", "Pair", "Split"]

Network = Callable[[Tensor], Tensor]


def _identity(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True, eq=False)
class Pair:
    """Two views of one measurement.

    Parameters
    ----------
    input
        What the network sees, ``(batch, channel, y, x)``.
    target
        What its output must meet, ``(batch, 1, y, x)``; its noise is independent of the input's.
    weight
        Weight of each target pixel, broadcastable to `target`; zero leaves a pixel out.
    measure
        Applied to the network's output before it meets the target: the identity, a logarithm, a projector.
    """

    input: Tensor
    target: Tensor
    weight: Tensor
    measure: Callable[[Tensor], Tensor] = _identity

    def to(self, device: torch.device) -> Pair:
        """Return the pair on another device."""
        return Pair(self.input.to(device), self.target.to(device), self.weight.to(device), self.measure)

    def loss(self, network: Network, weight: Tensor) -> Tensor:
        """Return the mean squared error of the network's output, a scalar, weighted by the pair and by `weight`."""
        difference = self.measure(network(self.input)).float() - self.target
        weight = (self.weight * weight).expand_as(difference)
        return (weight * difference.square()).sum() / weight.sum().clamp_min(1e-12)


class Split(ABC):
    """A method: how to draw training pairs, and how to apply the network that they trained.

    Both eat *samples* ``(batch, part, slice, y, x)``: parts are independent measurements of one object, slices are
    neighbours that the network sees together; the middle slice is the one to be denoised.
    """

    @property
    @abstractmethod
    def n_parts(self) -> int:
        """Independent measurements that a sample must hold."""

    @property
    @abstractmethod
    def n_slices(self) -> int:
        """Neighbouring slices in a sample; odd."""

    @abstractmethod
    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Draw one training pair from each sample."""

    @abstractmethod
    def judge(self, network: Network, samples: Samples, weight: Tensor) -> Judgement:
        """Estimate, without clean data, the error of what :meth:`infer` returns; the samples were never a target."""

    @abstractmethod
    def infer(self, network: Network, samples: Samples) -> Channels:
        """Return the denoised middle slices, ``(batch, 1, y, x)``: what the method averages, averaged."""
