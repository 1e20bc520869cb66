"""What the rest of quietray knows of a filter: how far it sees, how it is applied, where its best setting may lie."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from quietray.errors import SettingsError
from quietray.method import Method
from quietray.types import Slice

__all__ = ["STRENGTHS", "Filter", "FilterModule", "Search", "require_strength"]

Search = Mapping[str, tuple[int, ...] | tuple[float, ...]]

# In the unit of data that is scaled to about [0, 1]: for noise between a hundredth and all of that range.
STRENGTHS = (0.0, *(0.005 * 2.0**k for k in range(11)))


@dataclass(frozen=True)
class Filter(Method):
    """Settings of a filter; a subclass is a frozen dataclass.

    A filter acts on one image at a time and has the interface of a network's settings.  Strengths are in the unit of
    the data, which is scaled to about [0, 1]; a strength of 0 leaves the image as it is.
    """

    trained: ClassVar[bool] = False
    of_images: ClassVar[bool] = True

    @property
    @abstractmethod
    def radius(self) -> int:
        """Furthest pixel, in y or x, that a filtered pixel depends on."""

    @property
    @abstractmethod
    def search(self) -> Search:
        """Values among which :func:`tune` looks first, ascending, by parameter; the strength first, and 0 in it."""

    @abstractmethod
    def apply(self, image: Slice) -> Slice:
        """Return the filtered image, ``(y, x)``, of any size; the input is left as it is."""

    @property
    def stride(self) -> int:
        """Pixels to which tiles must be aligned."""
        return 1

    @property
    def depth(self) -> int:
        """Neighbouring slices that a filter depends on: none."""
        return 0

    @property
    def dimensions(self) -> int:
        """A filter takes slices as channels."""
        return 2

    def build(self, n_channels: int, n_outputs: int = 1) -> FilterModule:
        """Return the filter as a network without parameters.

        Parameters
        ----------
        n_channels, n_outputs
            Slices taken and returned.  The channels fall into as many groups as there are outputs, and the middle of
            each is filtered: the slice to be denoised, or that of every channel of a spectral series.

        Raises
        ------
        SettingsError
            The channels do not fall into equal groups.

        Examples
        --------
        >>> from quietray.filters import GaussianFilter
        >>> x = torch.zeros(1, 3, 5, 4)
        >>> x[:, 1] = 2.0
        >>> GaussianFilter(1.0).build(3)(x).round(decimals=4).unique()
        tensor([2.])
        """
        if n_outputs < 1 or n_channels < 1 or n_channels % n_outputs:
            raise SettingsError(
                f"the channels of a filter must be a multiple of its outputs, got {n_channels} channels and "
                f"{n_outputs} outputs; filter one slice from each group of neighbours"
            )
        return FilterModule(self, n_channels // n_outputs)


class FilterModule(nn.Module):
    """A filter as a network: ``(batch, channel, y, x)`` to ``(batch, output, y, x)``.

    Parameters
    ----------
    settings
        The filter.
    group
        Channels for each output; the middle one is filtered.
    """

    def __init__(self, settings: Filter, group: int) -> None:
        super().__init__()
        self.settings = settings
        self.group = group

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Filter image by image on the CPU; returns float32 where the input lies."""
        middle = x[:, self.group // 2 :: self.group].float().cpu()
        done = np.stack([self.settings.apply(image) for image in middle.flatten(0, 1).numpy()])
        out: Tensor = torch.from_numpy(done.astype(np.float32, copy=False)).unflatten(0, middle.shape[:2])
        return out.to(x.device)


def require_strength(**values: float) -> None:
    """Raise unless every value is a finite number, 0 or more.

    Raises
    ------
    SettingsError
        A value is negative, infinite or not a number.

    Examples
    --------
    >>> require_strength(sigma=-1.0)
    Traceback (most recent call last):
    quietray.errors.SettingsError: sigma must be 0 or more and finite, got -1.0; 0 leaves the image as it is
    """
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise SettingsError(f"{name} must be 0 or more and finite, got {value}; 0 leaves the image as it is")
