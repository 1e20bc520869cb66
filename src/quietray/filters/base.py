"""The interface of filters: receptive field, application, and the values to search for the best setting."""

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

# In the unit of the data, scaled to about [0, 1]: for noise between 1 % and 100 % of that range.
STRENGTHS = (0.0, *(0.005 * 2.0**k for k in range(11)))


@dataclass(frozen=True)
class Filter(Method):
    """Settings of a filter; subclasses are frozen dataclasses.

    A filter acts on one image at a time and has the same interface as the settings of a network.  Strengths are in the
    unit of the data, which is scaled to about [0, 1]; a strength of 0 leaves the image unchanged.
    """

    trained: ClassVar[bool] = False
    of_images: ClassVar[bool] = True

    @property
    @abstractmethod
    def radius(self) -> int:
        """Largest distance in pixels, in y or x, of an input pixel that affects an output pixel."""

    @property
    @abstractmethod
    def search(self) -> Search:
        """Values that :func:`tune` tries first, ascending, by parameter; the strength comes first and includes 0."""

    @abstractmethod
    def apply(self, image: Slice) -> Slice:
        """Return the filtered image ``(y, x)``, of any size; the input is not modified."""

    @property
    def stride(self) -> int:
        """Alignment of tiles in pixels: none needed."""
        return 1

    @property
    def depth(self) -> int:
        """Number of neighbouring slices that affect the result: none."""
        return 0

    @property
    def dimensions(self) -> int:
        """Two: slices are treated as channels."""
        return 2

    def build(self, n_channels: int, n_outputs: int = 1) -> FilterModule:
        """Return the filter as a network without parameters.

        Parameters
        ----------
        n_channels, n_outputs
            Numbers of slices taken and returned.  The channels are divided into as many groups as there are outputs,
            and the middle slice of each group is filtered: the slice that is denoised, or that of every channel of a
            spectral series.

        Raises
        ------
        SettingsError
            The channels cannot be divided into equal groups.

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
    """A filter wrapped as a network: ``(batch, channel, y, x)`` to ``(batch, output, y, x)``.

    Parameters
    ----------
    settings
        The filter.
    group
        Number of channels per output; the middle one is filtered.
    """

    def __init__(self, settings: Filter, group: int) -> None:
        super().__init__()
        self.settings = settings
        self.group = group

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Filter each image on the CPU; return float32 on the device of the input."""
        middle = x[:, self.group // 2 :: self.group].float().cpu()
        done = np.stack([self.settings.apply(image) for image in middle.flatten(0, 1).numpy()])
        out: Tensor = torch.from_numpy(done.astype(np.float32, copy=False)).unflatten(0, middle.shape[:2])
        return out.to(x.device)


def require_strength(**values: float) -> None:
    """Raise unless every value is finite and not negative.

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
