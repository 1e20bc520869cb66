"""The default network: a small U-Net whose receptive field is known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from quietray.errors import SettingsError

__all__ = ["UNet", "UNetModule"]


@dataclass(frozen=True)
class UNet:
    """Settings of a U-Net: convolutions of 3 x 3, max pooling, nearest upsampling, a linear head.

    Parameters
    ----------
    widths
        Feature maps per level, finest first.

    Examples
    --------
    >>> network = UNet((8, 16)).build(n_channels=3)
    >>> network(torch.zeros(1, 3, 21, 30)).shape
    torch.Size([1, 1, 21, 30])
    """

    widths: tuple[int, ...] = (16, 32, 64, 128)

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1:
            raise SettingsError(f"widths must hold a positive number of maps per level, got {self.widths}")

    @property
    def stride(self) -> int:
        """Pixels to which tiles must be aligned, so that pooling falls on the same pixels as in the whole image."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def radius(self) -> int:
        """Furthest input pixel that an output pixel depends on, exact."""
        reach = [self._reach(phase) for phase in range(self.stride)]
        return max(max(phase - low, high - phase) for phase, (low, high) in enumerate(reach))

    def _reach(self, pixel: int) -> tuple[int, int]:
        """Return the first and last input pixel that the output at `pixel` depends on, by going back layer by layer."""
        skips = []
        low = high = pixel
        for _ in range(len(self.widths) - 1):
            low, high = low - 2, high + 2
            skips.append((low, high))
            low, high = low // 2, high // 2
        low, high = low - 2, high + 2
        for skip_low, skip_high in reversed(skips):
            low, high = min(2 * low, skip_low) - 2, max(2 * high + 1, skip_high) + 2
        return low, high

    def build(self, n_channels: int) -> UNetModule:
        """Return a freshly initialised network that takes `n_channels` slices and returns one.

        The weights come from torch's global generator: seed it first.
        """
        return UNetModule(self, n_channels)


class UNetModule(nn.Module):
    """The network itself; see :class:`UNet`."""

    def __init__(self, settings: UNet, n_channels: int) -> None:
        super().__init__()
        self.settings = settings
        widths = settings.widths
        before = [n_channels, *widths[:-1]]
        self.down = nn.ModuleList(_two_convolutions(i, o) for i, o in zip(before, widths, strict=True))
        self.up = nn.ModuleList(
            _two_convolutions(coarse + fine, fine) for coarse, fine in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.head.weight.mul_(0.1)  # start near zero, where the scaled data's background lies

    def forward(self, x: Tensor) -> Tensor:
        """Denoise ``(batch, channel, y, x)`` of any size; returns ``(batch, 1, y, x)``."""
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.settings.stride).contiguous(memory_format=torch.channels_last)
        skips = []
        for level, convolve in enumerate(self.down):
            x = convolve(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for convolve in self.up:
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = convolve(torch.cat([x, skips.pop()], dim=1))
        out: Tensor = self.head(x)[..., :height, :width]
        return out


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Reflect the lower and right border until both sizes are multiples of `multiple`; small images are repeated."""
    height, width = x.shape[-2:]
    below, right = -height % multiple, -width % multiple
    while below or right:
        step_y, step_x = min(below, x.shape[-2] - 1), min(right, x.shape[-1] - 1)
        if step_y <= 0 and step_x <= 0:
            return functional.pad(x, (0, right, 0, below), mode="replicate")
        x = functional.pad(x, (0, step_x, 0, step_y), mode="reflect")
        below, right = below - step_y, right - step_x
    return x


def _two_convolutions(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(n_out, n_out, 3, padding=1),
        nn.ReLU(inplace=True),
    )
