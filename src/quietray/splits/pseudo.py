"""Pseudo-CT: the output of a trained network serves as the clean image, and modelled noise makes it noisy again."""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quietray.errors import SettingsError
from quietray.metrics.noreference import Judgement, averaged
from quietray.splits.base import Judge, Network, Pair, Split, Teacher
from quietray.splits.noisier import seed_of
from quietray.splits.recorrupted import Recorrupted
from quietray.types import Channels, Samples

__all__ = [
    "EnsembleNoise",
    "GaussianNoise",
    "HistogramNoise",
    "MeasuredNoise",
    "ModelNoise",
    "NoiseSource",
    "PseudoCT",
]


class NoiseSource(ABC):
    """Base class of noise sources for pseudo low-dose images."""

    @abstractmethod
    def draw(self, image: Channels, generator: torch.Generator) -> Channels:
        """Return noise like that of a low-dose image, in the shape of `image`.

        Parameters
        ----------
        image
            Measured image, ``(batch, 1, y, x)``.
        generator
            Random number generator.
        """


@dataclass(frozen=True, eq=False)
class ModelNoise(NoiseSource):
    """Noise predicted from the image by a network; the same image always gets the same noise.

    Parameters
    ----------
    network
        Trained to predict the low-dose minus the normal-dose image.  A copy is kept, with fixed weights.

    Examples
    --------
    >>> ModelNoise(nn.Identity()).draw(torch.ones(1, 1, 1, 2), torch.Generator()).tolist()
    [[[[1.0, 1.0]]]]
    """

    network: nn.Module

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", frozen(self.network))

    def draw(self, image: Channels, generator: torch.Generator) -> Channels:
        """Return the network's output."""
        return _applied(self.network, image)


@dataclass(frozen=True, eq=False)
class HistogramNoise(NoiseSource):
    """Noise drawn for every pixel independently from the differences in a training set.

    Parameters
    ----------
    differences
        Low-dose minus normal-dose pixel values.

    Examples
    --------
    >>> noise = HistogramNoise(torch.tensor([-1.0, 2.0])).draw(torch.zeros(1, 1, 8, 8), torch.Generator())
    >>> noise.unique().tolist()
    [-1.0, 2.0]
    """

    differences: Float[Tensor, " pixel"]

    def draw(self, image: Channels, generator: torch.Generator) -> Channels:
        """Return differences drawn with replacement."""
        chosen = torch.randint(len(self.differences), image.shape, generator=generator)
        return self.differences[chosen].to(image)


@dataclass(frozen=True)
class GaussianNoise(NoiseSource):
    """White Gaussian noise.

    Parameters
    ----------
    sd
        Standard deviation, in the scale of the data.

    Examples
    --------
    >>> noise = GaussianNoise(0.5).draw(torch.zeros(1, 1, 99, 99), torch.Generator().manual_seed(0))
    >>> round(float(noise.std()), 1)
    0.5
    """

    sd: float = 0.02

    def draw(self, image: Channels, generator: torch.Generator) -> Channels:
        """Return white noise."""
        return self.sd * torch.randn(image.shape, generator=generator).to(image)


@dataclass(frozen=True)
class MeasuredNoise(NoiseSource):
    """Gaussian noise with a measured auto-covariance, for when there are no image pairs to train noise models on.

    Parameters
    ----------
    like
        Holds the auto-covariance.

    Examples
    --------
    >>> noise = MeasuredNoise(Recorrupted(((0.25,),))).draw(torch.zeros(1, 1, 99, 99), torch.Generator().manual_seed(0))
    >>> round(float(noise.std()), 1)
    0.5
    """

    like: Recorrupted

    def draw(self, image: Channels, generator: torch.Generator) -> Channels:
        """Return noise with that covariance."""
        return self.like.noise(image, generator)


@dataclass(frozen=True, eq=False)
class EnsembleNoise(NoiseSource):
    """Noise in which each pixel, or block of pixels, is taken from a randomly chosen source.

    Parameters
    ----------
    sources
        Noise sources, chosen with equal probability.
    block
        Edge of a block in pixels. 1 chooses for every pixel separately, as in the paper, which destroys correlations
        between neighbours.

    Examples
    --------
    >>> sources = (ModelNoise(nn.Identity()), GaussianNoise(0.0))
    >>> noise = EnsembleNoise(sources, block=2).draw(torch.ones(1, 1, 4, 6), torch.Generator().manual_seed(0))
    >>> noise[0, 0].tolist() == noise[0, 0, ::2, ::2].repeat_interleave(2, 0).repeat_interleave(2, 1).tolist()
    True
    """

    sources: tuple[NoiseSource, ...]
    block: int = 1

    def __post_init__(self) -> None:
        if not self.sources:
            raise SettingsError("an ensemble must have at least one source of noise, got none; train noise models")
        if self.block < 1:
            raise SettingsError(f"block must be at least 1 pixel, got {self.block}")

    def draw(self, image: Channels, generator: torch.Generator) -> Channels:
        """Return a patchwork of noise from all sources."""
        batch, channels, height, width = image.shape
        blocks = (batch, channels, -(-height // self.block), -(-width // self.block))
        chosen = torch.randint(len(self.sources), blocks, generator=generator).to(image.device)
        chosen = chosen.repeat_interleave(self.block, 2).repeat_interleave(self.block, 3)[..., :height, :width]
        noise = torch.stack([source.draw(image, generator) for source in self.sources])
        return noise.gather(0, chosen[None])[0]


@dataclass(frozen=True)
class PseudoCT(Split):
    """Pseudo-CT: fine-tune a trained network on the images to be denoised, with its own output as the target.

    With the trained network ``f`` and a source of noise ``Z``, the target is ``f(X)`` and the input ``f(X) + Z(X)``.
    Every `period` steps, the weights of the network being trained are copied to ``f``.  The network and the noise are
    set with :meth:`on`, which must be called anew for every run because the teacher changes.

    Parameters
    ----------
    period
        Training steps between two updates of the teacher, C; 0 for no updates.
    block
        Edge in pixels of the blocks in which an ensemble of noise models is sampled; 1 samples every pixel separately,
        as in the paper.

    Notes
    -----
    Won, Jung, An, Chikontwe & Park (2021), "Self-Supervised Learning based CT Denoising using Pseudo-CT
    Image Pairs", algorithm 1.  The target is only as good as the teacher: its errors are in both views, and the loss
    cannot detect them.

    Examples
    --------
    >>> split = PseudoCT().on(nn.Identity(), GaussianNoise(0.1))
    >>> pair = split.draw(torch.ones(1, 1, 1, 64, 64), torch.Generator().manual_seed(0))
    >>> round(float(pair.target.std()), 4), round(float(pair.input.std()), 1)
    (0.0, 0.1)
    """

    called: ClassVar[str] = "pseudo-ct"
    domain: ClassVar[str] = "images"
    of_images: ClassVar[bool] = True
    needs_start: ClassVar[bool] = True
    judged_by: ClassVar[Judge] = "Stein's estimate"

    period: int = 50
    block: int = 1
    bound: Teacher | None = field(default=None, init=False, repr=False, compare=False)
    noise: NoiseSource | None = field(default=None, init=False, repr=False, compare=False)
    judge_asked: Split | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.period < 0:
            raise SettingsError(f"period must be at least 0 steps, got {self.period}; 0 never updates the teacher")
        if self.block < 1:
            raise SettingsError(f"block must be at least 1 pixel, got {self.block}")

    def on(self, network: nn.Module, noise: NoiseSource, judged_by: Split | None = None) -> PseudoCT:
        """Return the method with a teacher and a source of noise.

        Parameters
        ----------
        network
            Already trained, by any method; a copy is kept.
        noise
            Source of low-dose minus normal-dose noise, in the scale of the data.
        judged_by
            A method for single measurements whose error estimate is used instead of this one's.
        """
        bound = dataclasses.replace(self)
        object.__setattr__(bound, "judge_asked", judged_by)
        object.__setattr__(bound, "bound", Teacher(frozen(network), self.period))
        object.__setattr__(bound, "noise", noise)
        return bound

    @property
    def teacher(self) -> Teacher | None:
        """The network whose output is the target."""
        return self.bound

    @property
    def n_parts(self) -> int:
        """One: a single measurement is enough."""
        return 1

    @property
    def n_slices(self) -> int:
        """One: images are processed one at a time."""
        return 1

    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Make a pseudo normal-dose image of each sample, and a pseudo low-dose image of that.

        Raises
        ------
        SettingsError
            No teacher has been set.
        """
        if self.bound is None or self.noise is None:
            raise SettingsError(
                "pseudo-ct must have a trained network and a source of noise, got none; bind them with on(), or start "
                "from a trained model with --from"
            )
        image = samples[:, 0]
        clean = _applied(self.bound.network, image)
        return Pair(clean + self.noise.draw(image, generator), clean, torch.ones(1, 1, 1, 1))

    def judge(self, network: Network, samples: Samples, weight: Tensor) -> Judgement:
        """Return the error on pseudo pairs and the power of their noise; the same image always gets the same noise.

        This is the true error only if the teacher is right and the noise is realistic.  Errors that the teacher and the
        network share go unnoticed, so it must not be used to stop training or to compare methods.  The estimate of
        another method, if one was given, has no such limit.
        """
        if self.judge_asked is not None:
            return self.judge_asked.judge(network, samples, weight)
        pair = self.draw(samples, torch.Generator().manual_seed(seed_of(samples)))
        error = (network(pair.input).float() - pair.target).square()
        return averaged(error, (pair.input - pair.target).square(), weight)

    def infer(self, network: Network, samples: Samples) -> Channels:
        """Return the network's output for the image itself."""
        return network(samples[:, 0]).float()


def frozen(network: nn.Module) -> nn.Module:
    """Return a copy of a network with fixed weights.

    Examples
    --------
    >>> frozen(nn.Linear(1, 1)).weight.requires_grad
    False
    """
    return copy.deepcopy(network).eval().requires_grad_(False)


def _applied(network: nn.Module, image: Channels) -> Channels:
    """Apply a network with fixed weights on its own device; gradients still flow back to the image."""
    device = next((weight.device for weight in network.parameters()), image.device)
    return torch.as_tensor(network(image.to(device))).float().to(image.device)
