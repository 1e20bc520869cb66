"""The mixed-scale dense network: few weights and a large receptive field, and little overfitting to noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from quietray.errors import SettingsError
from quietray.networks.base import Architecture, require_dimensions
from quietray.networks.dense import dense_layers

__all__ = ["MSD", "MSDModule"]


@dataclass(frozen=True)
class MSD(Architecture):
    """Settings of a mixed-scale dense network, in which each layer takes the input and the maps of all previous layers.

    Convolutions are 3 x 3, with dilation instead of pooling, and mirrored at the border; all maps of a layer have the
    same dilation.  With one channel in and out, the default has 45 652 weights: 45 450 in the kernels, 100 biases, and
    102 in the output layer, which takes the input and every map and has a bias.

    Parameters
    ----------
    layers
        Number of layers (the depth in the paper).
    width
        Number of maps per layer.
    dilations
        Distance in pixels between the taps of a kernel, for each layer in turn, repeated cyclically.
    dimensions
        3 for volumes.  Only kernels with the smallest dilation then extend to neighbouring slices, so that the network
        sees few slices: by default, 10 to each side.

    Notes
    -----
    Pelt & Sethian (2018), doi:10.1073/pnas.1715832114.  The receptive field of the default extends 550
    pixels to each side; tiles must overlap by as much to give the same result as the whole image.

    Examples
    --------
    >>> network = MSD(layers=5).build(n_channels=3)
    >>> network(torch.rand(1, 3, 21, 30)).count_nonzero()  # starts at zero
    tensor(0)
    """

    layers: int = 100
    width: int = 1
    dilations: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    dimensions: Literal[2, 3] = 2

    def __post_init__(self) -> None:
        for name in ("layers", "width"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be positive, got {getattr(self, name)}; write 1 or more")
        if not self.dilations or min(self.dilations) < 1:
            raise SettingsError(f"dilations must hold one positive distance or more, got {self.dilations}; write [1]")
        require_dimensions(self.dimensions)

    @property
    def radius(self) -> int:
        """Radius of the receptive field in pixels, along the path through every layer."""
        return sum(self.dilation(layer) for layer in range(self.layers))

    @property
    def depth(self) -> int:
        """Largest distance of a slice that affects an output slice."""
        return sum(self.thickness(layer) // 2 for layer in range(self.layers)) * min(self.dilations)

    @property
    def bytes_per_pixel(self) -> int:
        """Memory for all maps, and for those of a block of layers mixed for each tap."""
        return 4 * self.width * (self.layers + 150)

    def dilation(self, layer: int) -> int:
        """Return the dilation of a layer."""
        return self.dilations[layer % len(self.dilations)]

    def thickness(self, layer: int) -> Literal[1, 3]:
        """Return the number of slices covered by the kernels of a layer."""
        return 3 if self.dimensions == 3 and self.dilation(layer) == min(self.dilations) else 1

    def build(self, n_channels: int, n_outputs: int = 1) -> MSDModule:
        """Return a freshly initialised network, whose output layer is zero."""
        return MSDModule(self, n_channels, n_outputs)


class MSDModule(nn.Module):
    """The module built by :class:`MSD`."""

    def __init__(self, settings: MSD, n_channels: int, n_outputs: int = 1) -> None:
        super().__init__()
        self.settings = settings
        n_channels, n_outputs = (1, 1) if settings.dimensions == 3 else (n_channels, n_outputs)
        n_maps = settings.layers * settings.width
        scale = math.sqrt(2 / (9 * (n_channels + n_maps - settings.width) + n_outputs))
        self.kernels = nn.ParameterList()
        for layer in range(settings.layers):
            seen, planes = n_channels + layer * settings.width, settings.thickness(layer)
            self.kernels.append(torch.randn(settings.width, seen * planes, 3, 3) * (scale / math.sqrt(planes)))
        self.bias = nn.Parameter(torch.zeros(n_maps))
        self.head = nn.Linear(n_channels + n_maps, n_outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Denoise ``(batch, channel, y, x)`` of any size; always returns ``(batch, output, y, x)`` in float32."""
        settings, kernels = self.settings, list(self.kernels)
        volume = settings.dimensions == 3
        if volume:
            kernels = [kernel.unflatten(1, (-1, settings.thickness(k))) for k, kernel in enumerate(kernels)]
        dilations = [settings.dilation(layer) for layer in range(settings.layers)]
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.bias.dtype)
            maps = dense_layers(x[:, None] if volume else x, kernels, self.bias, dilations)
            mixed = torch.bmm(self.head.weight.expand(len(x), -1, -1), maps.flatten(2))
            out = (mixed + self.head.bias[:, None]).reshape(len(x), -1, *maps.shape[2:])
        return out[:, 0] if volume else out
