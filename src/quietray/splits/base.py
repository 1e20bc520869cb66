"""What a self-supervised method is: a rule that makes two independent views of one measurement."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from quietray.errors import SettingsError
from quietray.geometry import ParallelBeam
from quietray.method import Method
from quietray.metrics.noreference import Judgement
from quietray.registry import called
from quietray.splits.neighbourhood import Neighbourhood
from quietray.splits.served import ImageNoise, ScanShape
from quietray.types import Channels, Samples, Slice

__all__ = ["ImageNoise", "Judge", "Neighbourhood", "Network", "Pair", "Parts", "ScanShape", "Split", "Teacher"]

Network = Callable[[Tensor], Tensor]
Judge = Literal["left-out parts", "hidden pixels", "Stein's estimate"]
Parts = Literal["angular subsets", "measurements"]


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


class Split(Method):
    """A method: how to draw training pairs, and how to apply the network that they trained.

    Both eat *samples* ``(batch, part, slice, y, x)``: parts are independent measurements of one object, slices are
    neighbours that the network sees together; the middle slice is the one to be denoised.

    A subclass is a frozen dataclass.  What the rest of the program needs to know of a method, its class variables and
    the methods at the end declare; what they say by default suits a method that is given the reconstructions of angular
    subsets.
    """

    needs_linear: ClassVar[bool] = False
    """Whether its parts are independent only where the reconstruction is linear."""

    parts_are: ClassVar[Parts] = "angular subsets"
    """What the parts of a sample are."""

    whole: ClassVar[bool] = False
    """Whether the network was trained on whole measurements, so that half of one is given to it as one."""

    judged_by: ClassVar[Judge] = "left-out parts"
    """What :meth:`judge` judges by."""

    verdicts: ClassVar[tuple[str, ...]] = ()
    """Names of the diagnosis' verdicts of which one at least must allow it, for it to be compared."""

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
    def neighbourhood(self) -> Neighbourhood:
        """What of a volume makes one sample."""
        return Neighbourhood(self.n_slices)

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

    @property
    def angular(self) -> bool:
        """Whether a sample holds angular subsets, each with streaks of its own."""
        return self.parts_are == "angular subsets" and self.n_parts - self.n_clean > 1

    @property
    def streaky(self) -> bool:
        """Whether :meth:`judge` takes streaks of angular subsets for noise, which must be given back."""
        return self.angular

    @property
    def n_subsets(self) -> int:
        """Angular subsets ``j::n_subsets`` whose noise must be independent; 1 where there are none."""
        return self.n_parts - self.n_clean if self.angular else 1

    def unseen(self, samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what the network may be given, and what was measured without it; nothing where there is no such pair.

        Inputs are ``(batch, slice, y, x)``, targets ``(batch, output, y, x)``, with independent noise.
        """
        return iter(())

    def half(self, parts: Samples) -> Sequence[Tensor]:
        """Return what the network is given of half of the parts, ``(batch, slice, y, x)`` each."""
        return parts.unbind(1)

    def on_scan(self, shape: ScanShape) -> Split:
        """Return the method as it can serve a scan.

        Raises
        ------
        QuietrayError
            It cannot.
        """
        if shape.scans > 1 and not self.takes_repeats:
            raise SettingsError(f"{called(type(self))} must have one scan, got {shape.scans}; use noise2noise")
        return self

    def on_radiographs(self, some: Tensor) -> Split:
        """Return the method with what it needs to know of some line integrals ``(view, 1, row, col)``."""
        return self

    def on_sinograms(self, geometry: ParallelBeam, variance: Tensor | None) -> Split:
        """Return the method, bound to a beam of one row and to the variance ``(view, col)`` of its noise if known."""
        return self

    @property
    def n_passes(self) -> int:
        """How often the network is applied to denoise one image."""
        return self.n_parts - self.n_clean

    @property
    def applied(self) -> int:
        """How often the network is applied in a step of training."""
        return 1

    def watching(self, reach: int) -> Split:
        """Return the method, watching the correlation of its residuals up to so many pixels away."""
        return self

    def hiding_more(self, reach: int) -> Split | None:
        """Return the method for noise that is shared up to `reach` pixels away; None where there is none."""
        return None

    def on_images(self, noise: ImageNoise) -> tuple[Split, str]:
        """Return the method as it can serve images, and why in a sentence.

        Raises
        ------
        QuietrayError
            It cannot.
        """
        name = called(type(self))
        if noise.measurements > 1:
            raise SettingsError(
                f"{name} must have one measurement of the images, got {noise.measurements}; use noise2noise"
            )
        if not self.of_images:
            raise SettingsError(
                f"the method must be one for images, got {name}, which needs projections or clean images; use "
                "noise2void, noise2self, noisier2noise, apbsn or recorrupted, or noise2noise with further measurements"
            )
        return self, noise.described

    def with_own_flats(self) -> Split:
        """Return the method for parts each of which was corrected with flats of its own."""
        return self

    def as_served(self, bound: Split) -> Split:
        """Return the method with what was settled when it was bound to a scan, to be run again like that."""
        return self

    @classmethod
    def candidates(cls) -> dict[str, Split]:
        """Return what is to be tried of it in a comparison, by name; nothing unless it says so."""
        return {}
