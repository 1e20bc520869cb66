"""What a self-supervised method is: a rule that makes two independent views of one measurement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from quietray.metrics.noreference import Judgement
from quietray.types import Channels, Samples, Slice

__all__ = ["Network", "Pair", "Split", "Teacher", "Window"]

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
        moved = {name: getattr(self, name).to(device) for name in ("input", "target", "weight")}
        return replace(self, **moved)

    def loss(self, network: Network, weight: Tensor, power: Callable[[Tensor], Tensor] = torch.square) -> Tensor:
        """Return the mean error of the network's output, a scalar, weighted by the pair and by `weight`.

        Parameters
        ----------
        network
            Maps the input to what :attr:`measure` takes.
        weight
            Of each target pixel, broadcastable.
        power
            Of the difference: the square, or the absolute value.
        """
        return self.distance(network(self.input), weight, power)

    def distance(self, output: Tensor, weight: Tensor, power: Callable[[Tensor], Tensor] = torch.square) -> Tensor:
        """Return the mean error of an output of the network; see :meth:`loss`."""
        difference = self.measure(output).float() - self.target
        weight = (self.weight * weight).expand_as(difference)
        return (weight * power(difference)).sum() / weight.sum().clamp_min(1e-12)


@dataclass(frozen=True)
class Window:
    """What of a stack of slices makes one sample: its slices are listed series by series, neighbours within.

    Parameters
    ----------
    slices
        Neighbouring slices, odd where there is one in the middle.
    times
        Neighbouring steps of a series in time; odd.
    channels
        All channels of a spectral series.

    Examples
    --------
    >>> Window(3, times=3).size
    9
    """

    slices: int
    times: int = 1
    channels: int = 1

    @property
    def size(self) -> int:
        """Slices in a sample."""
        return self.slices * self.times * self.channels

    def indices(self, z: int, n_slices: int, n_series: int = 1) -> list[int]:
        """Return the slices of the sample around slice `z`, mirrored at the ends of space and time.

        A step beyond the first or last one is mirrored about the middle one, so that this one, whose neighbours are
        seen with all that was measured of them, is never among its own neighbours.

        Parameters
        ----------
        z
            Index into a stack in which the steps or channels of a series stand one after the other.
        n_slices, n_series
            Slices of the whole stack, and the steps or channels in it; at least as many steps as the window has.

        Examples
        --------
        >>> Window(3).indices(0, 8), Window(1, times=3).indices(2, 8, n_series=4)
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


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network that a method makes its pairs with, and that takes over what is learned from them.

    Parameters
    ----------
    network
        Like the one that is trained; its weights change.
    period
        Steps after which it takes over the weights of the one that is trained; 0 for never.

    Examples
    --------
    >>> teacher, network = Teacher(nn.Linear(1, 1), period=3), nn.Linear(1, 1)
    >>> teacher.learn(network, step=2)
    >>> bool(teacher.network.weight == network.weight)
    False
    >>> teacher.learn(network, step=3)
    >>> bool(teacher.network.weight == network.weight)
    True
    """

    network: nn.Module
    period: int

    def learn(self, network: nn.Module, step: int) -> None:
        """Take over the weights of `network`, if this step is one to do so."""
        if self.period and step % self.period == 0:
            self.network.load_state_dict(network.state_dict())


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

    @property
    def n_clean(self) -> int:
        """How many of the parts, the last ones, hold no noise; :meth:`infer` goes without them."""
        return 0

    @property
    def n_outputs(self) -> int:
        """Slices that the network returns, around the middle one."""
        return 1

    @property
    def window(self) -> Window:
        """What of a volume makes one sample."""
        return Window(self.n_slices)

    @property
    def teacher(self) -> Teacher | None:
        """The network that :meth:`draw` asks, which the loop keeps up to date; None where there is none."""
        return None

    def reserved(self, shape: tuple[int, int]) -> tuple[Slice, int] | None:
        """Return which pixels of every image are kept for judging, and after how many pixels they repeat.

        Parameters
        ----------
        shape
            Of an image.

        Returns
        -------
        tuple or None
            ``(y, x)``, one at those pixels, else zero; None where whole slices are held out instead.
        """
        return None

    @abstractmethod
    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Draw one training pair from each sample."""

    @abstractmethod
    def judge(self, network: Network, samples: Samples, weight: Tensor) -> Judgement:
        """Estimate, without clean data, the error of what :meth:`infer` returns; the samples were never a target."""

    @abstractmethod
    def infer(self, network: Network, samples: Samples) -> Channels:
        """Return the denoised slices, ``(batch, output, y, x)``: what the method averages, averaged."""
