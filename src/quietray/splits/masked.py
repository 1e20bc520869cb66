"""Blind-spot methods: hide pixels from the network, and train it to predict them.

Valid if the noise of a pixel is independent of the pixels that stay visible.  NaN marks pixels that were not measured
(dead or saturated).  They are filled in before the network sees them, and do not enter any loss or the values that fill
other pixels.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from quietray.errors import SettingsError
from quietray.metrics.noreference import Judgement, averaged, neighbour_correlation, strongest_correlation
from quietray.splits.base import ImageNoise, Judge, Neighbourhood, Network, Pair, ScanShape, Split, require_odd
from quietray.splits.filling import completed, donut, filled, noise_variance
from quietray.splits.neighbourhood import among, middle
from quietray.types import Channels, Samples, Slice

__all__ = ["Noise2Self", "Noise2Void"]


@dataclass(frozen=True)
class _BlindSpot(Split):
    """Base class of blind-spot methods.

    Parameters
    ----------
    inference
        ``single`` applies the network once to the whole image; ``masked`` hides every pixel once and combines the
        predictions of the hidden pixels.
    watched
        Distance in pixels up to which correlations of the residuals are monitored; training stops if they grow. 1 for
        direct neighbours; the half-width of the point response if that was deconvolved.
    slices
        Number of adjacent slices of a volume in the input, odd, whose noise must be independent; pixels are hidden in
        the middle one. None for the default: 1 unless the images are slices of a volume.
    """

    domain: ClassVar[str] = "radiographs"
    of_images: ClassVar[bool] = True
    judged_by: ClassVar[Judge] = "hidden pixels"
    prior: ClassVar[str | None] = "radiographs"

    inference: Literal["single", "masked"] = "single"
    watched: int = field(default=1, kw_only=True)
    slices: int | None = field(default=None, kw_only=True)

    @property
    def n_parts(self) -> int:
        """One: a single measurement is enough."""
        return 1

    @property
    def n_slices(self) -> int:
        """Number of slices in a sample: one, unless the images are slices of a volume."""
        return self.slices or 1

    @property
    def neighbourhood(self) -> Neighbourhood:
        """Which slices make up one sample; the middle one is never its own neighbour."""
        return Neighbourhood(self.n_slices, apart=True)

    def _seen(self, samples: Samples, given: Tensor) -> Tensor:
        """Return what the network sees: the middle slice with hidden pixels, among its neighbours."""
        if self.n_slices == 1:
            return given
        window = samples[:, 0]
        return among(completed(window.flatten(0, 1)[:, None]).view_as(window), given)

    @abstractmethod
    def phase(self, image: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return the image with one phase of pixels hidden, and the mask of pixels that may be used for the loss."""

    def reserved(self, shape: tuple[int, int]) -> tuple[Slice, int]:
        """Return the pixels of the phase that is reserved for validation: the one that :meth:`judge` hides."""
        hidden = self.hidden(torch.zeros(1, 1, *shape), self.n_phases // 2)
        return hidden[0, 0].numpy(), math.isqrt(self.n_phases)

    @property
    @abstractmethod
    def n_phases(self) -> int:
        """Number of phases that together hide every pixel once."""

    @property
    def noise_reach(self) -> int:
        """Largest distance, along a row or a column, at which the noise of two pixels may be correlated."""
        return 0

    def judge(self, network: Network, samples: Samples, weight: Tensor) -> Judgement:
        """Estimate the error on the reserved pixels, which the network does not see.

        This is the error of ``masked`` inference at these pixels.  The error of ``single`` inference, in which the
        network sees more, is not estimated separately.
        """
        image = middle(samples[:, 0])
        given, judged = self.phase(image, self.n_phases // 2)
        use = (weight * judged).expand_as(image) > 0
        if not bool(use.any()):
            return Judgement(0.0, 0.0, 0.0)
        noise = torch.full_like(image, noise_variance(image, self.noise_reach), dtype=torch.float64)
        residuals = network(self._seen(samples, given)).double() - image.double()
        error = torch.where(use, residuals.square() - noise, 0.0)
        apart = residuals[..., :: self.noise_reach + 1, :: self.noise_reach + 1]
        ones = torch.ones_like(apart[:, 0])
        if self.watched > 1:
            return averaged(error, noise, use, strongest_correlation(apart, ones, self.watched))
        return averaged(error, noise, use, neighbour_correlation(apart, ones))

    def infer(self, network: Network, samples: Samples) -> Channels:
        """Return the denoised image."""
        image = middle(samples[:, 0])
        if self.inference == "single":
            return network(self._seen(samples, completed(image))).float()
        out = torch.zeros_like(image)
        for index in range(self.n_phases):
            given, _ = self.phase(image, index)
            out += network(self._seen(samples, given)).float() * self.hidden(image, index)
        return out

    @abstractmethod
    def hidden(self, image: Tensor, index: int) -> Tensor:
        """Return 1 at the pixels of a phase and 0 elsewhere; the phases add up to 1."""

    def on_scan(self, shape: ScanShape) -> Split:
        """Return the method for a scan, whose radiographs are seen one at a time.

        Raises
        ------
        SettingsError
            Several slices, or several scans.
        """
        if self.n_slices > 1:
            raise SettingsError(
                f"slices must be 1 for radiographs, whose neighbours are views from other angles, got {self.slices}; "
                "leave it out, or use noise2inverse"
            )
        return super().on_scan(shape)

    def on_images(self, noise: ImageNoise) -> tuple[Split, str]:
        """Return the method with the number of neighbouring slices that the noise permits."""
        _, said = super().on_images(noise)
        slices, seen = noise.window(self.slices, alone=True)
        return replace(self, slices=slices), f"{said} {seen}".strip()

    def as_served(self, bound: Split) -> Split:
        """Return the method with the number of slices that the network saw."""
        return replace(self, slices=getattr(bound, "slices", None))

    def watching(self, reach: int) -> _BlindSpot:
        """Return the method, with residuals monitored up to `reach` pixels unless the user has set the distance."""
        return self if self.watched > 1 else replace(self, watched=max(1, reach))


@dataclass(frozen=True)
class Noise2Self(_BlindSpot):
    """Noise2Self: hide a grid of pixels, fill them from their surroundings, and train the network to predict them.

    Parameters
    ----------
    grid
        Distance between hidden pixels in both directions; ``grid ** 2`` phases hide every pixel once.
    footprint
        Half-width of the square that is hidden around a target pixel (a structured blind spot): the distance in pixels
        up to which noise is correlated. 0 for white noise; twice the half-width of the point response if there is one.
    inference, watched, slices
        See :class:`Noise2Void`.

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

    verdicts: ClassVar[tuple[str, ...]] = ("noise2self", "noise2self after decorrelation")

    grid: int = 4
    footprint: int = 0

    def __post_init__(self) -> None:
        if self.grid < 2:
            raise SettingsError(f"grid must be at least 2, got {self.grid}")
        if not 0 <= 2 * self.footprint + 1 < self.grid:
            raise SettingsError(
                f"the blind spot (2 * footprint + 1 = {2 * self.footprint + 1}) must be smaller than the grid "
                f"({self.grid}), so that some pixels stay visible; use a larger grid"
            )
        _check(self)

    @classmethod
    def hiding(cls, reach: int, inference: Literal["single", "masked"] = "single") -> Noise2Self:
        """Return the method for noise that is correlated up to `reach` pixels along rows and columns.

        In each direction, a third of the grid stays visible between two blind spots.

        Parameters
        ----------
        reach
            Largest lag at which the auto-correlation of the noise is not zero; 0 for white noise.
        inference
            See :class:`Noise2Self`.

        Examples
        --------
        >>> Noise2Self.hiding(2)
        Noise2Self(inference='single', watched=1, slices=None, grid=9, footprint=2)
        """
        return cls(inference, max(4, 3 * (reach + 1)), reach)

    def hiding_more(self, reach: int) -> Noise2Self | None:
        """Return a variant that hides correlated neighbours, unless the user has set the footprint."""
        return Noise2Self.hiding(reach, self.inference) if self.footprint == 0 else None

    @classmethod
    def candidates(cls) -> dict[str, Split]:
        """Return the method with its default settings."""
        return {"noise2self": cls()}

    @property
    def n_phases(self) -> int:
        """Number of phases, ``grid ** 2``."""
        return int(self.grid**2)

    @property
    def noise_reach(self) -> int:
        """Half-width of the blind spot."""
        return self.footprint

    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Draw one phase for the whole batch."""
        image = middle(samples[:, 0])
        given, judged = self.phase(image, int(torch.randint(self.n_phases, (), generator=generator)))
        return Pair(self._seen(samples, given), torch.nan_to_num(image), judged)

    def hidden(self, image: Tensor, index: int) -> Tensor:
        """Return 1 at the pixels of a phase and 0 elsewhere."""
        mask = torch.zeros_like(image)
        mask[..., index // self.grid :: self.grid, index % self.grid :: self.grid] = 1
        return mask

    def phase(self, image: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Hide one phase together with its footprint; hidden pixels do not contribute to any filled value."""
        targets = self.hidden(image, index)
        judged = targets * torch.isfinite(image)
        if self.footprint == 0:
            return completed(torch.where(targets > 0, torch.nan, image)), judged
        size = 2 * self.footprint + 1
        square = torch.ones(1, 1, size, size).to(image)
        spots = functional.conv2d(targets, square, padding=self.footprint) > 0
        visible = torch.where(spots, torch.nan, image)
        # squares around the targets do not overlap; each is filled with the value of its target
        filling = filled(visible, donut(self.footprint)) * targets
        filling = functional.conv2d(filling, square, padding=self.footprint)
        return torch.where(spots, filling, completed(visible)), judged


@dataclass(frozen=True)
class Noise2Void(_BlindSpot):
    """Noise2Void: replace random pixels by random neighbours, and train the network to predict the original values.

    Parameters
    ----------
    share
        Fraction of pixels hidden at once: one in each square of ``1 / share`` pixels.
    reach
        Largest distance in pixels of the neighbour that replaces a pixel.
    inference, watched, slices
        ``single`` applies the network once to the whole image; ``masked`` combines predictions of hidden pixels.
        `watched` is the distance in pixels up to which correlations of the residuals are monitored, and `slices` the
        number of adjacent slices of a volume that the network sees, if the images are that.

    Notes
    -----
    Krull, Buchholz & Jug (2019), arXiv:1811.10980.  A hidden pixel is never used as a replacement, neither
    for itself nor for another pixel.

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
        _check(self)

    @property
    def side(self) -> int:
        """Edge in pixels of the square that holds one hidden pixel."""
        return max(2, round(1 / math.sqrt(self.share)))

    @property
    def n_phases(self) -> int:
        """Number of positions in a square."""
        return int(self.side**2)

    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Draw the hidden pixels and their replacements."""
        image = middle(samples[:, 0])
        batch, _, height, width = image.shape
        side = self.side
        squares = (batch, 1, -(-height // side), -(-width // side))
        place = torch.randint(self.n_phases, squares, generator=generator).to(image.device)
        index = torch.arange(side, device=image.device)
        inside = (index[:, None] * side + index).repeat(squares[2], squares[3])[None, None, :height, :width]
        spread = place.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., :height, :width]
        mask = (inside == spread).to(image)
        given = self._seen(samples, self._replaced(image, mask, generator))
        return Pair(given, torch.nan_to_num(image), mask * torch.isfinite(image))

    def hidden(self, image: Tensor, index: int) -> Tensor:
        """Return 1 at the pixels of a phase and 0 elsewhere."""
        mask = torch.zeros_like(image)
        mask[..., index // self.side :: self.side, index % self.side :: self.side] = 1
        return mask

    def phase(self, image: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Hide one phase; the replacements are always the same."""
        mask = self.hidden(image, index)
        given = self._replaced(image, mask, torch.Generator().manual_seed(index))
        return given, mask * torch.isfinite(image)

    def _replaced(self, image: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return the image with every hidden pixel replaced by a random visible one within `reach`."""
        visible = completed(torch.where(mask > 0, torch.nan, image))
        at = mask.nonzero()
        batch, channel = at[:, :1], at[:, 1:2]
        steps = torch.arange(-self.reach, self.reach + 1, device=image.device)
        dy, dx = (step.flatten() for step in torch.meshgrid(steps, steps, indexing="ij"))
        y, x = _inside(at[:, 2:3] + dy, image.shape[-2]), _inside(at[:, 3:] + dx, image.shape[-1])
        chance = torch.rand(y.shape, generator=generator).to(image.device)
        chosen = chance.masked_fill(mask[batch, channel, y, x] > 0, -1.0).argmax(dim=1, keepdim=True)
        values = visible[batch, channel, y.gather(1, chosen), x.gather(1, chosen)]
        return visible.index_put(tuple(at.T), values[:, 0])


def _inside(index: Tensor, n: int) -> Tensor:
    """Mirror positions into ``0 .. n - 1``."""
    if n == 1:
        return torch.zeros_like(index)
    index = index.remainder(2 * (n - 1))
    return torch.minimum(index, 2 * (n - 1) - index)


def _check(split: _BlindSpot) -> None:
    if split.inference not in ("single", "masked"):
        raise SettingsError(f"inference must be 'single' or 'masked', got '{split.inference}'")
    require_odd(split.slices)
    if split.watched < 1:
        raise SettingsError(f"watched must be at least 1 pixel, got {split.watched}")
