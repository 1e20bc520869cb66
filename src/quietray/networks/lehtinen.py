"""The U-Net of Noise2Noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from quietray.errors import SettingsError
from quietray.networks.base import Architecture, furthest, pad_to_multiple
from quietray.networks.decoder import DecoderLevel

__all__ = ["LehtinenModule", "LehtinenUNet"]

_LEVELS = 5
_SLOPE = 0.1  # slope of the leaky rectifiers for negative values


@dataclass(frozen=True)
class LehtinenUNet(Architecture):
    """Settings of the U-Net of Noise2Noise: six levels of equal width, with the input as an additional skip connection.

    The encoder has one convolution and one pooling per level; the decoder has two convolutions per level with twice as
    many maps.  The last three convolutions have 4/3 and 2/3 of the maps of the encoder, then one per output.  All are 3
    x 3, with leaky rectifiers of slope 0.1 except for the last, which is linear.  With one channel in and out, the
    default has 988 609 weights.

    Parameters
    ----------
    maps
        Number of feature maps in the encoder, a multiple of 3; with the paper's 48, the decoder has 96, and 64 and 32
        at its end.

    Notes
    -----
    Lehtinen, Munkberg, Hasselgren, Laine, Karras, Aittala & Aila (2018), arXiv:1803.04189, appendix A.1.

    Examples
    --------
    >>> network = LehtinenUNet(maps=6).build(n_channels=3)
    >>> network(torch.zeros(1, 3, 21, 30)).shape
    torch.Size([1, 1, 21, 30])
    """

    called: ClassVar[str] = "lehtinen"

    maps: int = 48

    def __post_init__(self) -> None:
        if self.maps < 1 or self.maps % 3:
            raise SettingsError(f"maps must be a positive multiple of 3, got {self.maps}; write 48, as in the paper")

    @property
    def stride(self) -> int:
        """Alignment of tiles in pixels, so that pooling acts on the same pixels as in the whole image."""
        return int(2**_LEVELS)

    @property
    def radius(self) -> int:
        """Radius of the receptive field in pixels, exact."""
        return furthest(self._reach, self.stride)

    @property
    def bytes_per_pixel(self) -> int:
        """Memory at the finest level: upsampled maps, their concatenation with the input, and the next layers."""
        return 4 * 7 * self.maps

    def _reach(self, pixel: int) -> tuple[int, int]:
        """Return the first and last input pixels that affect the output at `pixel`, going back layer by layer."""
        skips = []
        low, high = pixel - 3, pixel + 3
        for _ in range(_LEVELS):
            skips.append((low, high))
            low, high = low // 2 - 2, high // 2 + 2
        low, high = low + 1, high - 1  # the coarsest level has one convolution
        for level in reversed(range(_LEVELS)):
            low, high = 2 * low - 1, 2 * high + 2
            if level:
                low, high = min(low, skips[level][0]), max(high, skips[level][1])
        return min(low - 1, skips[0][0]), max(high + 1, skips[0][1])

    def build(self, n_channels: int, n_outputs: int = 1) -> LehtinenModule:
        """Return a network with the initial weights of He et al., drawn from torch's global generator."""
        return LehtinenModule(self, n_channels, n_outputs)


class LehtinenModule(nn.Module):
    """The module built by :class:`LehtinenUNet`."""

    def __init__(self, settings: LehtinenUNet, n_channels: int, n_outputs: int = 1) -> None:
        super().__init__()
        self.settings = settings
        maps = settings.maps
        self.first = nn.Conv2d(n_channels, maps, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(maps, maps, 3, padding=1) for _ in range(_LEVELS + 1))
        seen = [2 * maps, *[3 * maps] * (_LEVELS - 2)]
        self.up = nn.ModuleList(_convolutions(n, 2 * maps, 2 * maps) for n in seen)
        self.last = _convolutions(2 * maps + n_channels, 4 * maps // 3, 2 * maps // 3)
        self.head = nn.Conv2d(2 * maps // 3, n_outputs, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=1.0 if module is self.head else _SLOPE)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Denoise ``(batch, channel, y, x)`` of any size; returns ``(batch, output, y, x)``."""
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.settings.stride).contiguous(memory_format=torch.channels_last)
        skips = [x]
        x = functional.leaky_relu(self.first(x), _SLOPE)
        for convolve in self.down[:-1]:
            x = functional.max_pool2d(functional.leaky_relu(convolve(x), _SLOPE), 2)
            skips.append(x)
        skips.pop()
        x = functional.leaky_relu(self.down[-1](x), _SLOPE)
        for level in (*self.up, self.last):
            x = level(x, skips.pop())
        out: Tensor = self.head(x)[..., :height, :width]
        return out


def _convolutions(n_in: int, n_between: int, n_out: int) -> DecoderLevel:
    return DecoderLevel(
        nn.Conv2d(n_in, n_between, 3, padding=1),
        nn.LeakyReLU(_SLOPE, inplace=True),
        nn.Conv2d(n_between, n_out, 3, padding=1),
        nn.LeakyReLU(_SLOPE, inplace=True),
    )
