"""AP-BSN: subsample images so that correlated noise becomes white, then apply a blind-spot method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from quietray.errors import SettingsError
from quietray.metrics.noreference import Judgement
from quietray.splits.base import Judge, Network, Pair, Split
from quietray.splits.masked import Noise2Self
from quietray.splits.noisier import seed_of
from quietray.types import Channels, Samples, Slice

__all__ = ["APBSN", "joined", "taken_apart"]


def taken_apart(image: Tensor, stride: int) -> Tensor:
    """Split images into ``(batch * stride ** 2, 1, y, x)`` of every `stride`-th pixel; NaN beyond the border.

    Examples
    --------
    >>> taken_apart(torch.arange(4.0).reshape(1, 1, 1, 4), 2)[:, 0].tolist()
    [[[0.0, 2.0]], [[1.0, 3.0]], [[nan, nan]], [[nan, nan]]]
    """
    height, width = image.shape[-2:]
    padded = functional.pad(image, (0, -width % stride, 0, -height % stride), value=torch.nan)
    return functional.pixel_unshuffle(padded, stride).flatten(0, 1)[:, None]


def joined(images: Tensor, stride: int, shape: tuple[int, int]) -> Tensor:
    """Undo :func:`taken_apart`: return ``(batch, 1, y, x)`` of the given shape.

    Examples
    --------
    >>> image = torch.rand(2, 1, 7, 5)
    >>> torch.equal(joined(taken_apart(image, 3), 3, (7, 5)), image)
    True
    """
    whole = functional.pixel_shuffle(images.unflatten(0, (-1, stride**2))[:, :, 0], stride)
    return whole[..., : shape[0], : shape[1]]


@dataclass(frozen=True)
class APBSN(Split):
    """AP-BSN: hide pixels in images of every `stride`-th pixel, or every `inference_stride`-th at inference.

    Correlated noise is nearly white a few pixels apart, but subsampling loses details.  Inference therefore uses a
    smaller stride, followed by refinement: randomly chosen pixels are set back to their measured value and the network
    is applied to the whole image again, several times.

    Parameters
    ----------
    stride
        Distance of the pixels that become neighbours, for training and validation; noise must not be correlated over
        this distance.
    inference_stride
        The same for inference; 1 leaves the image whole.
    grid
        Distance between hidden pixels in a subsampled image, as in Noise2Self.
    inference
        ``single`` applies the network once to each image; ``masked`` hides pixels there too, which takes ``grid ** 2``
        passes.
    refinements
        Number of refinements; their mean is returned. 0 for no refinement.
    replaced
        Fraction of pixels that are set back to their measured value.

    Notes
    -----
    Lee, Son & Lee (2022), arXiv:2203.11799.  Their network has a blind spot; here, pixels are hidden from
    an ordinary network.

    Examples
    --------
    >>> pair = APBSN().draw(torch.rand(1, 1, 1, 40, 40), torch.Generator().manual_seed(0))
    >>> tuple(pair.input.shape), tuple(pair.target.shape), float(pair.weight.mean())
    ((25, 1, 8, 8), (1, 1, 40, 40), 0.0625)
    """

    domain: ClassVar[str] = "radiographs"
    of_images: ClassVar[bool] = True
    judged_by: ClassVar[Judge] = "hidden pixels"

    stride: int = 5
    inference_stride: int = 2
    grid: int = 4
    inference: Literal["single", "masked"] = "single"
    refinements: int = 8
    replaced: float = 0.16

    def __post_init__(self) -> None:
        for name in ("stride", "inference_stride"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1 pixel, got {getattr(self, name)}")
        if self.refinements < 0:
            raise SettingsError(f"refinements must be at least 0, got {self.refinements}")
        if not 0 < self.replaced < 1:
            raise SettingsError(f"replaced must be between 0 and 1, got {self.replaced}")
        assert self.masking.grid == self.grid  # its checks apply here too

    @property
    def masking(self) -> Noise2Self:
        """The blind-spot method applied to the subsampled images."""
        return Noise2Self(self.inference, self.grid)

    @property
    def n_parts(self) -> int:
        """One: a single measurement is enough."""
        return 1

    @property
    def n_slices(self) -> int:
        """One: radiographs are processed one at a time."""
        return 1

    def reserved(self, shape: tuple[int, int]) -> tuple[Slice, int]:
        """Return the pixels that :meth:`judge` hides, which are never used for training."""
        height, width = shape
        small, align = self.masking.reserved((-(-height // self.stride), -(-width // self.stride)))
        spread = np.kron(small, np.ones((self.stride, self.stride), np.float32))
        return spread[:height, :width], align * self.stride

    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Draw one phase of hidden pixels for all images of the batch."""
        image = samples[:, 0]
        pair = self.masking.draw(taken_apart(image, self.stride)[:, None], generator)

        def whole(x: Tensor) -> Tensor:
            return joined(x, self.stride, (image.shape[-2], image.shape[-1]))

        return Pair(pair.input, whole(pair.target), whole(pair.weight), whole)

    def judge(self, network: Network, samples: Samples, weight: Tensor) -> Judgement:
        """Estimate the error on the reserved pixels, which are hidden in images of every `stride`-th pixel.

        This is the error of ``masked`` inference at that stride and at those pixels; it does not account for a smaller
        `inference_stride` or for refinements.
        """
        image = samples[:, 0]
        apart = taken_apart(image, self.stride)[:, None]
        return self.masking.judge(network, apart, taken_apart(weight.expand_as(image), self.stride))

    def infer(self, network: Network, samples: Samples) -> Channels:
        """Return the denoised image, refined."""
        image = samples[:, 0]
        stride = self.inference_stride
        found = self.masking.infer(network, taken_apart(image, stride)[:, None])
        first = joined(found, stride, (image.shape[-2], image.shape[-1]))
        if not self.refinements:
            return first
        generator = torch.Generator().manual_seed(seed_of(image))
        total = torch.zeros_like(first)
        for _ in range(self.refinements):
            chosen = (torch.rand(image.shape, generator=generator) < self.replaced).to(image.device)
            mixed = torch.where(chosen & torch.isfinite(image), image, first)
            total += self.masking.infer(network, mixed[:, None])
        return total / self.refinements
