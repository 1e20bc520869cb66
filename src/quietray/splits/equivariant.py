"""Equivariance: a turned object must come back from its own measurement as the object itself does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from quietray.splits.base import Network, Pair

__all__ = ["EquivariantPair", "rotated"]


@dataclass(frozen=True, eq=False)
class EquivariantPair(Pair):
    """A pair whose loss asks, too, that a turned object comes back from its own measurement.

    Parameters
    ----------
    strength
        Weight of that.
    angles
        ``(batch,)``, by which the outputs are turned, in radians.
    measured_again
        Projects an image and reconstructs it as the input was.
    """

    strength: float = 0.0
    angles: Tensor = field(default_factory=lambda: torch.zeros(1))
    measured_again: Callable[[Tensor], Tensor] = torch.clone

    def loss(self, network: Network, weight: Tensor, power: Callable[[Tensor], Tensor] = torch.square) -> Tensor:
        """Return the loss of the views, and that of the turned objects."""
        output = network(self.input).float()
        turned = rotated(output, self.angles)
        again = network(self.measured_again(turned)).float()
        return self.distance(output, weight, power) + self.strength * power(again - turned).mean()


def rotated(image: Tensor, angles: Tensor) -> Tensor:
    """Return images turned about their middle, by linear interpolation, within the largest disc; 0 beyond.

    Parameters
    ----------
    image
        ``(batch, 1, y, x)``, square.
    angles
        ``(batch,)`` in radians, anticlockwise where row 0 is the largest y.

    Examples
    --------
    >>> image = torch.zeros(1, 1, 3, 3)
    >>> image[0, 0, 1, 2] = 1.0
    >>> rotated(image, torch.tensor([torch.pi / 2]))[0, 0].round().abs().tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    angles = angles.to(image)
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    back = torch.stack([torch.stack([cos, -sin, zero], dim=-1), torch.stack([sin, cos, zero], dim=-1)], dim=-2)
    grid = functional.affine_grid(back, list(image.shape), align_corners=False)
    middle = (torch.arange(image.shape[-1], device=image.device) + 0.5) / image.shape[-1] * 2 - 1
    disc = middle[:, None].square() + middle.square() <= 1
    return functional.grid_sample(image, grid, align_corners=False) * disc
