"""RED-CNN, the residual encoder-decoder for low-dose CT."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from quietray.errors import SettingsError
from quietray.networks.base import Architecture, middle_channels, pad_to_size, require_middle

__all__ = ["REDCNN", "REDCNNModule"]

_PAIRS = 5
_SMALLEST = 4 * _PAIRS + 1  # smallest size of which the convolutions leave a pixel
_SKIPS = (0, 2, 4)  # convolutions between skip connections; each returns after the same number of deconvolutions


@dataclass(frozen=True)
class REDCNN(Architecture):
    """Settings of RED-CNN: five convolutions and five deconvolutions of 5 x 5 without padding, and three skips.

    The first skip connection is the input itself, so the network learns a correction.  With one channel in and out, the
    default has 1 848 865 weights.

    Parameters
    ----------
    maps
        Number of feature maps of each layer.
    rectified
        Whether the output passes a rectifier, as in the original.  CT numbers shifted to start at zero are unaffected.
        Scaled attenuation has negative values, which would become zero and stay so, because an inactive rectifier
        passes no gradient.

    Notes
    -----
    Chen, Zhang, Kalra, Lin, Chen, Liao, Zhou & Wang (2017), doi:10.1109/TMI.2017.2715284.

    Examples
    --------
    >>> network = REDCNN(maps=4).build(n_channels=3)
    >>> network(torch.zeros(1, 3, 21, 30)).shape
    torch.Size([1, 1, 21, 30])
    """

    maps: int = 96
    rectified: bool = False

    def __post_init__(self) -> None:
        if self.maps < 1:
            raise SettingsError(f"maps must be positive, got {self.maps}; write 96, as in the paper")

    @property
    def radius(self) -> int:
        """Radius of the receptive field in pixels: two for each of the ten layers."""
        return 2 * 2 * _PAIRS

    @property
    def bytes_per_pixel(self) -> int:
        """Memory for the maps before and after a layer, and for those of the skip connections."""
        return 4 * 4 * self.maps

    def build(self, n_channels: int, n_outputs: int = 1) -> REDCNNModule:
        """Return a freshly initialised network that corrects the middle `n_outputs` of `n_channels` slices.

        The weights come from torch's global generator, which should be seeded first.

        Raises
        ------
        SettingsError
            There are more outputs than channels.
        """
        require_middle(n_channels, n_outputs)
        return REDCNNModule(self, n_channels, n_outputs)


class REDCNNModule(nn.Module):
    """The module built by :class:`REDCNN`."""

    def __init__(self, settings: REDCNN, n_channels: int, n_outputs: int = 1) -> None:
        super().__init__()
        self.settings = settings
        self.n_outputs = n_outputs
        maps = settings.maps
        self.encoder = nn.ModuleList(nn.Conv2d(maps if layer else n_channels, maps, 5) for layer in range(_PAIRS))
        self.decoder = nn.ModuleList(
            nn.ConvTranspose2d(maps, maps if layer else n_outputs, 5) for layer in reversed(range(_PAIRS))
        )
        for layer in (*self.encoder, *self.decoder):
            transposed = isinstance(layer, nn.ConvTranspose2d)  # input and output axes are swapped
            nn.init.kaiming_normal_(layer.weight, mode="fan_out" if transposed else "fan_in", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            layer.weight.mul_(0.1)  # start close to the identity

    def forward(self, x: Tensor) -> Tensor:
        """Denoise ``(batch, channel, y, x)``; returns ``(batch, output, y, x)``.

        Images smaller than 21 pixels, of which the convolutions would leave nothing, are mirrored up to that size.
        """
        height, width = x.shape[-2:]
        x = pad_to_size(x, _SMALLEST, _SMALLEST).contiguous(memory_format=torch.channels_last)
        skips = {0: middle_channels(x, self.n_outputs)}
        for layer, convolve in enumerate(self.encoder, start=1):
            x = functional.relu(convolve(x))
            if layer in _SKIPS:
                skips[layer] = x
        for layer, deconvolve in zip(reversed(range(_PAIRS)), self.decoder, strict=True):
            x = deconvolve(x)
            if layer in _SKIPS:
                x = x + skips[layer]
            if layer or self.settings.rectified:
                x = functional.relu(x)
        return x[..., :height, :width]
