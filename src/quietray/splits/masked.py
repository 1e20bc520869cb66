"""Blind spots: hide pixels from the network and train it on what it could not see.

Valid when the noise of a pixel is independent of the pixels that stay visible.  In the samples, NaN marks a pixel that
was not measured (dead, saturated): it is filled for the network, and kept out of every loss and of its neighbours'
filling.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from quietray.errors import SettingsError
from quietray.metrics.noreference import Judgement, blocks_of
from quietray.splits.base import Network, Pair, Split
from quietray.types import Channels, Samples

__all__ = ["Noise2Self", "Noise2Void", "donut", "filled"]


def donut(footprint: int = 0) -> Tensor:
    """Return the weights ``(i, j)`` that a hidden pixel is filled with from around its blind spot; their sum is 1.

    Parameters
    ----------
    footprint
        Half-width of the blind spot.  0 hides the pixel alone and weighs its direct neighbours 1 and its diagonal ones
        0.5; more hides a square and takes the mean of the ring around it.

    Examples
    --------
    >>> (donut() * 6).tolist()
    [[0.5, 1.0, 0.5], [1.0, 0.0, 1.0], [0.5, 1.0, 0.5]]
    """
    if footprint == 0:
        return torch.tensor([[0.5, 1.0, 0.5], [1.0, 0.0, 1.0], [0.5, 1.0, 0.5]]) / 6
    size = 2 * footprint + 3
    ring = torch.ones(size, size)
    ring[1:-1, 1:-1] = 0
    return ring / ring.sum()


def filled(x: Tensor, weights: Tensor) -> Tensor:
    """Return, at every pixel, the weighted mean of the measured pixels around it.

    The border is mirrored without repeating the edge, so that no pixel enters its own filling.

    Parameters
    ----------
    x
        ``(batch, 1, y, x)``; NaN marks pixels that were not measured.
    weights
        ``(i, j)``, from :func:`donut`.

    Returns
    -------
    Tensor
        Same shape; 0 where nothing around was measured.
    """
    reach = weights.shape[-1] // 2
    measured = torch.isfinite(x)
    kernel = weights.to(x)[None, None]

    def spread(values: Tensor) -> Tensor:
        pad = [min(reach, values.shape[-1] - 1)] * 2 + [min(reach, values.shape[-2] - 1)] * 2
        padded = functional.pad(values, pad, mode="reflect")
        missing = [reach - pad[0]] * 2 + [reach - pad[2]] * 2
        return functional.conv2d(functional.pad(padded, missing), kernel)

    total = spread(torch.where(measured, x, torch.zeros_like(x)))
    share = spread(measured.to(x))
    return total / share.clamp_min(1e-6) * (share > 1e-6)


@dataclass(frozen=True)
class _BlindSpot(Split):
    """What methods with blind spots share.

    Parameters
    ----------
    inference
        ``single`` shows the network the whole image once; ``masked`` averages over blind spots, pixel by pixel what it
        could not see.
    """

    inference: Literal["single", "masked"] = "single"

    @property
    def n_parts(self) -> int:
        """One measurement is enough."""
        return 1

    @property
    def n_slices(self) -> int:
        """Radiographs are seen one at a time."""
        return 1

    @abstractmethod
    def phase(self, image: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return the image with one phase of pixels hidden, and which pixels it may be judged by."""

    @property
    @abstractmethod
    def n_phases(self) -> int:
        """Phases that together hide every pixel once."""

    def judge(self, network: Network, samples: Samples, weight: Tensor) -> Judgement:
        """Estimate the error on hidden pixels; the noise's variance is that of pixels against their filling."""
        image = samples[:, 0]
        given, judged = self.phase(image, self.n_phases // 2)
        use = (weight * judged).expand_as(image) > 0
        if not bool(use.any()):
            return Judgement(0.0, 0.0, 0.0)
        output = network(given).float()
        noise = noise_variance(image)
        errors = torch.where(use, (output - image).double().square() - noise, 0.0)
        weights = use.double()
        total = float(weights.sum())
        blocks = blocks_of(errors, noise * weights, weights)
        return Judgement(float(errors.sum()) / total, noise, total, blocks)

    def infer(self, network: Network, samples: Samples) -> Channels:
        """Return the denoised image."""
        image = samples[:, 0]
        if self.inference == "single":
            return network(_complete(image)).float()
        out = torch.zeros_like(image)
        for index in range(self.n_phases):
            given, _ = self.phase(image, index)
            out += network(given).float() * self.hidden(image, index)
        return out

    @abstractmethod
    def hidden(self, image: Tensor, index: int) -> Tensor:
        """Return 1 at the pixels of a phase, else 0; the phases add up to 1."""


@dataclass(frozen=True)
class Noise2Self(_BlindSpot):
    """Noise2Self: a grid of pixels is filled from around them, and the network must find what was there.

    Parameters
    ----------
    grid
        Distance of hidden pixels, and of hidden pixels in a row; ``grid ** 2`` phases hide every pixel once.
    footprint
        Half-width of what is hidden around a target: 0 for white noise; where neighbouring pixels share noise, the
        half-width of the point response (a structured blind spot).
    inference
        See above.

    Notes
    -----
    Batson & Royer (2019), arXiv:1901.11365; the filling leaves out the pixel itself.  Structured blind spots: Broaddus
    et al. (2020), doi:10.1109/ISBI45749.2020.9098336.

    Examples
    --------
    >>> pair = Noise2Self().draw(torch.rand(2, 1, 1, 16, 16), torch.Generator().manual_seed(0))
    >>> float(pair.weight.mean())
    0.0625
    """

    grid: int = 4
    footprint: int = 0

    def __post_init__(self) -> None:
        if self.grid < 2:
            raise SettingsError(f"grid must be at least 2, got {self.grid}")
        if not 0 <= 2 * self.footprint + 1 < self.grid:
            raise SettingsError(
                f"the blind spot (2 * footprint + 1 = {2 * self.footprint + 1}) must be smaller than the grid "
                f"({self.grid}), so that something stays visible; use a larger grid"
            )
        _check_inference(self.inference)

    @property
    def n_phases(self) -> int:
        """``grid ** 2``."""
        return int(self.grid**2)

    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Draw one phase for the batch."""
        image = samples[:, 0]
        given, judged = self.phase(image, int(torch.randint(self.n_phases, (), generator=generator)))
        return Pair(given, torch.nan_to_num(image), judged)

    def hidden(self, image: Tensor, index: int) -> Tensor:
        """Return 1 at the pixels of a phase."""
        mask = torch.zeros_like(image)
        mask[..., index // self.grid :: self.grid, index % self.grid :: self.grid] = 1
        return mask

    def phase(self, image: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Hide one phase, with its footprint."""
        mask = self.hidden(image, index)
        filling = filled(image, donut(self.footprint))
        judged = mask * torch.isfinite(image)
        if self.footprint:
            size = 2 * self.footprint + 1
            square = torch.ones(1, 1, size, size).to(image)
            # squares around the targets do not overlap: each takes the filling of its target
            filling = functional.conv2d(filling * mask, square, padding=self.footprint)
            mask = functional.conv2d(mask, square, padding=self.footprint)
        return torch.where(mask > 0, filling, _complete(image)), judged


@dataclass(frozen=True)
class Noise2Void(_BlindSpot):
    """Noise2Void: random pixels are replaced by random neighbours, and the network must find what was there.

    Parameters
    ----------
    share
        Pixels hidden at once: one in each square of ``1 / share`` pixels.
    reach
        How far the neighbour may lie.
    inference
        See above.

    Notes
    -----
    Krull, Buchholz & Jug (2019), arXiv:1811.10980.  The pixel itself is never its own replacement.

    Examples
    --------
    >>> pair = Noise2Void().draw(torch.rand(2, 1, 1, 64, 64), torch.Generator().manual_seed(0))
    >>> 0.01 < float(pair.weight.mean()) < 0.03
    True
    """

    share: float = 1 / 64
    reach: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.share <= 0.25:
            raise SettingsError(f"share must be above 0 and at most 0.25, got {self.share}")
        if self.reach < 1:
            raise SettingsError(f"reach must be at least 1 pixel, got {self.reach}")
        _check_inference(self.inference)

    @property
    def side(self) -> int:
        """Edge of the square that holds one hidden pixel."""
        return max(2, round(1 / math.sqrt(self.share)))

    @property
    def n_phases(self) -> int:
        """Positions in a square."""
        return int(self.side**2)

    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Draw the hidden pixels and their replacements."""
        image = samples[:, 0]
        batch, _, height, width = image.shape
        side = self.side
        squares = (batch, 1, -(-height // side), -(-width // side))
        place = torch.randint(self.n_phases, squares, generator=generator).to(image.device)
        index = torch.arange(side, device=image.device)
        inside = (index[:, None] * side + index).repeat(squares[2], squares[3])[None, None, :height, :width]
        spread = place.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., :height, :width]
        mask = (inside == spread).to(image)
        given = torch.where(mask > 0, self._replacement(_complete(image), generator), _complete(image))
        return Pair(given, torch.nan_to_num(image), mask * torch.isfinite(image))

    def hidden(self, image: Tensor, index: int) -> Tensor:
        """Return 1 at the pixels of a phase."""
        mask = torch.zeros_like(image)
        mask[..., index // self.side :: self.side, index % self.side :: self.side] = 1
        return mask

    def phase(self, image: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Hide one phase; always with the same replacements."""
        mask = self.hidden(image, index)
        complete = _complete(image)
        generator = torch.Generator().manual_seed(index)
        given = torch.where(mask > 0, self._replacement(complete, generator), complete)
        return given, mask * torch.isfinite(image)

    def _replacement(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Return, at every pixel, the value of a random other pixel within `reach`."""
        size = 2 * self.reach + 1
        choice = torch.randint(size**2 - 1, image.shape, generator=generator)
        choice = (choice + (choice >= size**2 // 2)).to(image.device)
        height, width = image.shape[-2:]
        y = torch.arange(height, device=image.device)[:, None] + choice // size - self.reach
        x = torch.arange(width, device=image.device) + choice % size - self.reach
        y, x = _inside(y, height), _inside(x, width)
        own = torch.arange(height * width, device=image.device).view(height, width)
        index = y * width + x
        # mirrored at the border a pixel can meet itself: then its neighbour stands in
        index = torch.where(index == own, (own + 1) % (height * width), index)
        return image.flatten(-2).gather(-1, index.flatten(-2)).view_as(image)


def noise_variance(image: Tensor) -> float:
    """Return the variance of white noise in an image, from what pixels differ from the mean around them.

    The median of the absolute difference is not moved by edges.  A pixel and the donut around it differ by
    ``1 + sum(weights ** 2)`` times the variance.

    Parameters
    ----------
    image
        ``(batch, 1, y, x)``; NaN marks pixels that were not measured.

    Examples
    --------
    >>> noise = 2 * torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    >>> 3.8 < noise_variance(noise) < 4.2
    True
    """
    weights = donut()
    difference = image - filled(image, weights)
    sd = float(difference[torch.isfinite(difference)].abs().median()) / 0.6745
    return sd**2 / (1 + float(weights.square().sum()))


def _complete(image: Tensor) -> Tensor:
    """Return the image with pixels that were not measured filled from around them."""
    measured = torch.isfinite(image)
    return image if bool(measured.all()) else torch.where(measured, image, filled(image, donut()))


def _inside(index: Tensor, n: int) -> Tensor:
    """Mirror positions into ``0 .. n - 1``."""
    if n == 1:
        return torch.zeros_like(index)
    index = index.remainder(2 * (n - 1))
    return torch.minimum(index, 2 * (n - 1) - index)


def _check_inference(inference: str) -> None:
    if inference not in ("single", "masked"):
        raise SettingsError(f"inference must be 'single' or 'masked', got '{inference}'")
