"""DnCNN: a residual network that predicts the noise."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from quietray.errors import SettingsError
from quietray.networks.base import Architecture, middle_channels, require_middle

__all__ = ["DnCNN", "DnCNNModule"]


@dataclass(frozen=True)
class DnCNN(Architecture):
    """Settings of DnCNN: a chain of 3 x 3 convolutions and rectifiers that predicts the noise to be subtracted.

    Batch normalisation is left out, unlike in the original.  In tomography, a batch has few images, often one, so the
    statistics at training and at inference would differ.

    Parameters
    ----------
    layers
        Number of convolutions, two or more.
    maps
        Number of feature maps between the convolutions.
    bias
        Whether the convolutions have biases.  Without them, scaling the input by a positive factor scales the output by
        the same factor, and the network works at noise levels it was not trained for (Mohan et al.).

    Notes
    -----
    Zhang, Zuo, Chen, Meng & Zhang (2017), doi:10.1109/TIP.2017.2662206; bias-free: Mohan, Kadkhodaie, Simoncelli &
    Fernandez-Granda (2020), arXiv:1906.05478.

    Examples
    --------
    >>> network, x = DnCNN(layers=3, maps=4, bias=False).build(n_channels=3), torch.rand(1, 3, 21, 30)
    >>> bool(torch.allclose(network(2 * x), 2 * network(x), atol=1e-6))
    True
    """

    layers: int = 17
    maps: int = 64
    bias: bool = True

    def __post_init__(self) -> None:
        if self.layers < 2:
            raise SettingsError(f"layers must be at least 2 (input and output), got {self.layers}")
        if self.maps < 1:
            raise SettingsError(f"maps must be positive, got {self.maps}; write 64, as in the paper")

    @property
    def radius(self) -> int:
        """Radius of the receptive field in pixels: one for each layer."""
        return self.layers

    @property
    def bytes_per_pixel(self) -> int:
        """Memory for the maps before and after a layer, and for the input."""
        return 4 * (2 * self.maps + 8)

    def build(self, n_channels: int, n_outputs: int = 1) -> DnCNNModule:
        """Return a freshly initialised network that corrects the middle `n_outputs` of `n_channels` slices.

        The weights come from torch's global generator, which should be seeded first.

        Raises
        ------
        SettingsError
            There are more outputs than channels.
        """
        require_middle(n_channels, n_outputs)
        return DnCNNModule(self, n_channels, n_outputs)


class DnCNNModule(nn.Module):
    """The module built by :class:`DnCNN`."""

    def __init__(self, settings: DnCNN, n_channels: int, n_outputs: int = 1) -> None:
        super().__init__()
        self.n_outputs = n_outputs
        sizes = [n_channels, *[settings.maps] * (settings.layers - 1), n_outputs]
        chain: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            convolution = nn.Conv2d(n_in, n_out, 3, padding=1, bias=settings.bias)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)
            chain += [convolution, nn.ReLU(inplace=True)]
        self.noise = nn.Sequential(*chain[:-1])
        with torch.no_grad():
            convolution.weight.mul_(0.1)  # start close to the identity

    def forward(self, x: Tensor) -> Tensor:
        """Denoise ``(batch, channel, y, x)`` of any size; returns ``(batch, output, y, x)``."""
        x = x.contiguous(memory_format=torch.channels_last)
        out: Tensor = middle_channels(x, self.n_outputs) - self.noise(x)
        return out
