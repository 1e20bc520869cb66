"""Equivariance: a rotated object must be recovered from its own projections just as well as the original object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from quietray.splits.base import Network, Pair

__all__ = ["EquivariantPair", "rotated"]


@dataclass(frozen=True, eq=False)
class EquivariantPair(Pair):
    """A training pair whose loss also compares rotated objects with reconstructions of their own projections.

    Parameters
    ----------
    strength
        Weight of the equivariance term.
    angles
        Rotation angles of the outputs in radians, ``(batch,)``.
    measured_again
        Projects an image and reconstructs it in the same way as the input.
    """

    strength: float = 0.0
    angles: Tensor = field(default_factory=lambda: torch.zeros(1))
    measured_again: Callable[[Tensor], Tensor] = torch.clone

    def only(self, mine: slice) -> EquivariantPair:
        """Return the pair of some of the samples, with their rotations."""
        some = super().only(mine)
        assert isinstance(some, EquivariantPair)
        return replace(some, angles=self.angles[mine])

    def loss(self, network: Network, weight: Tensor, power: Callable[[Tensor], Tensor] = torch.square) -> Tensor:
        """Return the sum of the loss on the views and the loss on the rotated objects."""
        output = network(self.input).float()
        turned = rotated(output, self.angles)
        again = network(self.measured_again(turned)).float()
        return self.distance(output, weight, power) + self.strength * power(again - turned).mean()


def rotated(image: Tensor, angles: Tensor) -> Tensor:
    """Return images rotated about their centre by linear interpolation; zero outside the largest inscribed disc.

    Parameters
    ----------
    image
        ``(batch, 1, y, x)``, square.
    angles
        ``(batch,)`` in radians, anticlockwise if row 0 has the largest y.

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
