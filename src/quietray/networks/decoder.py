"""A level of a U-Net's decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["DecoderLevel"]


class DecoderLevel(nn.Sequential):
    """Layers applied to coarse maps, enlarged by two, together with the maps of the encoder's level.

    Inference on CPUs replaces it by an equivalent that neither enlarges nor concatenates; see
    :func:`quietray.inference.fused.fused`.

    Parameters
    ----------
    *layers
        Layers; the first takes the coarse maps and then those of the encoder.

    Examples
    --------
    >>> level = DecoderLevel(nn.Conv2d(6, 2, 3, padding=1))
    >>> level(torch.zeros(1, 4, 5, 6), torch.zeros(1, 2, 10, 12)).shape
    torch.Size([1, 2, 10, 12])
    """

    def forward(self, coarse: Tensor, skipped: Tensor) -> Tensor:  # type: ignore[override]
        """Return the maps of this level; `skipped` is twice as high and wide as `coarse`."""
        x = torch.cat([functional.interpolate(coarse, scale_factor=2, mode="nearest"), skipped], dim=1)
        for layer in self:
            x = layer(x)
        return x
