"""Pseudo-CT: a trained network's own output is the clean image, and modelled noise on top of it the noisy one."""

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
    """Where the noise of pseudo low-dose images comes from."""

    @abstractmethod
    def draw(self, image: Channels, generator: torch.Generator) -> Channels:
        """Return noise such as a low-dose image holds, in its shape.

        Parameters
        ----------
        image
            ``(batch, 1, y, x)``, as measured.
        generator
            Source of chance.
        """


@dataclass(frozen=True, eq=False)
class ModelNoise(NoiseSource):
    """What a network predicts of the noise in the image, always the same.

    Parameters
    ----------
    network
        Trained to predict the low-dose minus the normal-dose image; a copy is kept, and frozen.

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
    """Every pixel draws from the differences that a training set holds, whatever its neighbours draw.

    Parameters
    ----------
    differences
        Low-dose minus normal-dose pixels.

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
        Standard deviation in the scale of the data.

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
    """Gaussian noise of an auto-covariance that was measured: for want of pairs to train noise models on.

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
        """Return noise of that covariance."""
        return self.like.noise(image, generator)


@dataclass(frozen=True, eq=False)
class EnsembleNoise(NoiseSource):
    """Each pixel, or each block of pixels, takes the noise of one of several sources, drawn anew every time.

    Parameters
    ----------
    sources
        To choose from, all alike often.
    block
        Edge of a block in pixels; 1 chooses pixel by pixel, as the paper does, which breaks what neighbours share.

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
        """Return a patchwork of the sources' noise."""
        batch, channels, height, width = image.shape
        blocks = (batch, channels, -(-height // self.block), -(-width // self.block))
        chosen = torch.randint(len(self.sources), blocks, generator=generator).to(image.device)
        chosen = chosen.repeat_interleave(self.block, 2).repeat_interleave(self.block, 3)[..., :height, :width]
        noise = torch.stack([source.draw(image, generator) for source in self.sources])
        return noise.gather(0, chosen[None])[0]


@dataclass(frozen=True)
class PseudoCT(Split):
    """Pseudo-CT: fine-tune a trained network on the very images to be denoised, with its own output as the target.

    With the trained network ``f`` and a source of noise ``Z``, the target is ``f(X)`` and the input ``f(X) + Z(X)``.
    Every `period` steps ``f`` takes over the weights of the network that is being trained.  :meth:`on` says which
    network and what noise; bind it anew for every run, for the teacher learns.

    Parameters
    ----------
    period
        Steps between two updates of the teacher, C; 0 never updates it.
    block
        Edge in pixels of the blocks that an ensemble of noise models is chosen by; 1 chooses pixel by pixel, as the
        paper does.

    Notes
    -----
    Won, Jung, An, Chikontwe & Park (2021), "Self-Supervised Learning based CT Denoising using Pseudo-CT Image Pairs",
    algorithm 1.  The target is only as right as the teacher: what it gets wrong is in both views, and no loss sees it.

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
        """Return the same method with a teacher and a source of noise.

        Parameters
        ----------
        network
            Trained already, by any method; a copy is kept.
        noise
            Low-dose minus normal-dose, in the scale of the data.
        judged_by
            A method of one measurement whose judgement of the network is asked for instead of this one's own.
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
        """One measurement is enough."""
        return 1

    @property
    def n_slices(self) -> int:
        """Images are seen one at a time."""
        return 1

    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Make a pseudo normal-dose image of each sample, and a pseudo low-dose one of that.

        Raises
        ------
        SettingsError
            There is no teacher yet.
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
        """Return the error on pseudo pairs, and the power of their noise; the same image always gets the same noise.

        This is the true error only where the teacher is right and the noise is like the real one.  What teacher and
        network get wrong alike, it does not see: it is no ground to stop on, nor to compare methods on.  Another
        method's judgement, if there is one to ask, does.
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
    """Return a copy of a network that does not learn.

    Examples
    --------
    >>> frozen(nn.Linear(1, 1)).weight.requires_grad
    False
    """
    return copy.deepcopy(network).eval().requires_grad_(False)


def _applied(network: nn.Module, image: Channels) -> Channels:
    """Apply a frozen network where it lies; autograd still sees the image through it."""
    device = next((weight.device for weight in network.parameters()), image.device)
    return torch.as_tensor(network(image.to(device))).float().to(image.device)
