"""The base class of self-supervised methods: rules that make two independent views of one measurement."""

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
        What the network's output is compared with, ``(batch, 1, y, x)``; its noise is independent of the input's.
    weight
        Weight of each target pixel, broadcastable to `target`; a pixel of weight zero does not count.
    measure
        Applied to the network's output before it is compared with the target: the identity, a logarithm, a projector.
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
            Maps the input to an image that :attr:`measure` accepts.
        weight
            Additional weight of each target pixel, broadcastable to `target`.
        power
            Exponent of the error: 2 for the mean squared error, 1 for the mean absolute error.
        """
        return self.distance(network(self.input), weight, power)

    def distance(self, output: Tensor, weight: Tensor, power: Callable[[Tensor], Tensor] = torch.square) -> Tensor:
        """Return the mean error of an output that the network has already computed; see :meth:`loss`."""
        difference = self.measure(output).float() - self.target
        weight = (self.weight * weight).expand_as(difference)
        return (weight * power(difference)).sum() / weight.sum().clamp_min(1e-12)


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network that helps to make training pairs and is updated from the network being trained.

    Parameters
    ----------
    network
        Has the architecture of the network being trained; its weights are updated in place.
    period
        Training steps between two updates; 0 for no updates.

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
        """Copy the weights of `network` if an update is due at this step."""
        if self.period and step % self.period == 0:
            self.network.load_state_dict(network.state_dict())


class Split(Method):
    """A self-supervised method: how to draw training pairs, and how to apply the trained network.

    Both take *samples* ``(batch, part, slice, y, x)``: parts are independent measurements of one object, slices are
    neighbours that the network sees together; the middle slice is the one that is denoised.

    A subclass is a frozen dataclass.  Everything else that the program needs to know about a method is declared by its
    class variables and by the methods at the end of this class.  The defaults suit a method that works on
    reconstructions of angular subsets.
    """

    needs_linear: ClassVar[bool] = False
    """Whether the parts are independent only if the reconstruction is linear."""

    parts_are: ClassVar[Parts] = "angular subsets"
    """What the parts of a sample are."""

    whole: ClassVar[bool] = False
    """Whether the network is trained on whole measurements; half of the data is then given to it as one measurement."""

    judged_by: ClassVar[Judge] = "left-out parts"
    """What the estimate of :meth:`judge` is based on."""

    verdicts: ClassVar[tuple[str, ...]] = ()
    """Names of verdicts of the noise diagnosis; a comparison tries the method if at least one of them allows it."""

    @property
    @abstractmethod
    def n_parts(self) -> int:
        """Number of independent measurements in a sample."""

    @property
    @abstractmethod
    def n_slices(self) -> int:
        """Number of neighbouring slices in a sample; odd."""

    @property
    def n_clean(self) -> int:
        """Number of noise-free parts, which come last in a sample; :meth:`infer` does not use them."""
        return 0

    @property
    def n_outputs(self) -> int:
        """Number of slices that the network returns, centred on the middle one."""
        return 1

    @property
    def neighbourhood(self) -> Neighbourhood:
        """Which slices of a volume make up one sample."""
        return Neighbourhood(self.n_slices)

    @property
    def teacher(self) -> Teacher | None:
        """The teacher network used by :meth:`draw`, which the training loop keeps up to date; None if there is none."""
        return None

    def reserved(self, shape: tuple[int, int]) -> tuple[Slice, int] | None:
        """Return the pixels that are reserved for validation in every image, and the period of their pattern.

        Parameters
        ----------
        shape
            Shape of an image, ``(y, x)``.

        Returns
        -------
        tuple or None
            A mask ``(y, x)``, one at the reserved pixels and zero elsewhere, and its period in pixels; None if whole
            slices are held out instead.
        """
        return None

    @abstractmethod
    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Draw one training pair from each sample."""

    @abstractmethod
    def judge(self, network: Network, samples: Samples, weight: Tensor) -> Judgement:
        """Estimate the error of :meth:`infer` without clean data, on samples that were never used for training."""

    @abstractmethod
    def infer(self, network: Network, samples: Samples) -> Channels:
        """Return the denoised slices, ``(batch, output, y, x)``, averaged over all passes of the method."""

    @property
    def angular(self) -> bool:
        """Whether a sample holds angular subsets, each with its own streaks."""
        return self.parts_are == "angular subsets" and self.n_parts - self.n_clean > 1

    @property
    def own_flats(self) -> bool:
        """Whether each angular subset has its own flats, because shared ones would leave rings."""
        return False

    @property
    def streaky(self) -> bool:
        """Whether :meth:`judge` counts streaks of angular subsets as noise, so that its estimate must be corrected."""
        return self.angular

    @property
    def n_subsets(self) -> int:
        """Number of angular subsets ``j::n_subsets`` whose noise must be independent; 1 if there are no subsets."""
        return self.n_parts - self.n_clean if self.angular else 1

    def unseen(self, samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pairs of a network input and a measurement it has not seen; nothing if the method has no such pairs.

        Inputs have shape ``(batch, slice, y, x)``, targets ``(batch, output, y, x)``; their noise is independent.
        """
        return iter(())

    def half(self, parts: Samples) -> Sequence[Tensor]:
        """Return the network inputs that can be made from half of the parts, each ``(batch, slice, y, x)``."""
        return parts.unbind(1)

    def on_scan(self, shape: ScanShape) -> Split:
        """Return the method, adapted to a scan of this shape.

        Raises
        ------
        QuietrayError
            The method cannot be used for such a scan.
        """
        if shape.scans > 1 and not self.takes_repeats:
            raise SettingsError(f"{called(type(self))} must have one scan, got {shape.scans}; use noise2noise")
        return self

    def on_radiographs(self, some: Tensor) -> Split:
        """Return the method, with the noise it needs to know measured on line integrals ``(view, 1, row, col)``."""
        return self

    def on_sinograms(self, geometry: ParallelBeam, variance: Tensor | None) -> Split:
        """Return the method for a given beam of one row, with the noise variance ``(view, col)`` if that is known."""
        return self

    @property
    def n_passes(self) -> int:
        """Number of network passes needed to denoise one image."""
        return self.n_parts - self.n_clean

    @property
    def applied(self) -> int:
        """Number of network passes in one training step."""
        return 1

    def watching(self, reach: int) -> Split:
        """Return the method, with residual correlations monitored up to `reach` pixels."""
        return self

    def hiding_more(self, reach: int) -> Split | None:
        """Return a variant for noise that is correlated up to `reach` pixels; None if there is no such variant."""
        return None

    def on_images(self, noise: ImageNoise) -> tuple[Split, str]:
        """Return the method, adapted to images with this noise, and a sentence that says why it was chosen so.

        Raises
        ------
        QuietrayError
            The method cannot be used for images.
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
        """Return the method for parts that are each corrected with flats of their own."""
        return self

    def as_served(self, bound: Split) -> Split:
        """Return the method with the settings chosen when it was adapted to a scan, so that a run can be repeated."""
        return self

    @classmethod
    def candidates(cls) -> dict[str, Split]:
        """Return the variants to try in a comparison, by name; empty by default."""
        return {}
