"""The interface of networks: how to build one, and its receptive field."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional

from quietray.errors import SettingsError
from quietray.registry import Registered, Registry

__all__ = [
    "Architecture",
    "furthest",
    "middle_channels",
    "pad_to_multiple",
    "pad_to_size",
    "require_dimensions",
    "require_middle",
]


class Architecture(Registered, ABC):
    """Settings of a network; subclasses are frozen dataclasses.

    In two dimensions, the network maps ``(batch, channel, y, x)`` to ``(batch, output, y, x)``.  In three, it maps any
    number of slices ``(batch, slice, y, x)`` to the same number of denoised slices.  Images may have any size.
    """

    registry: ClassVar[Registry[Architecture]] = Registry("network", "quietray.networks")
    trained: ClassVar[bool] = True

    @property
    @abstractmethod
    def radius(self) -> int:
        """Largest distance in pixels, in y or x, of an input pixel that affects an output pixel; exact."""

    @property
    def stride(self) -> int:
        """Alignment of tiles in pixels."""
        return 1

    @property
    def depth(self) -> int:
        """Largest distance of a slice that affects an output slice; 0 in two dimensions, where slices are channels."""
        return 0

    @property
    def dimensions(self) -> Literal[2, 3]:
        """Two if slices are channels; three if the network also convolves along them."""
        return 2

    @property
    @abstractmethod
    def bytes_per_pixel(self) -> int:
        """Largest memory in bytes per pixel of each slice during inference in float32, measured.

        In two dimensions, output slices are counted; the input channels are few and are neglected.
        """

    @abstractmethod
    def build(self, n_channels: int, n_outputs: int = 1) -> nn.Module:
        """Return a freshly initialised network; the weights come from torch's global generator, so seed that first.

        Parameters
        ----------
        n_channels, n_outputs
            Numbers of slices that the network takes and returns; ignored in three dimensions, where any number works.
        """


def furthest(reach: Callable[[int], tuple[int, int]], stride: int) -> int:
    """Return the radius of the receptive field of a network with pooling, where it depends on the pixel's phase.

    Parameters
    ----------
    reach
        Maps an output pixel to the first and last input pixels that affect it.
    stride
        Period of the phases in pixels.

    Examples
    --------
    >>> furthest(lambda pixel: (pixel // 2 * 2, pixel // 2 * 2 + 1), 2)
    1
    """
    ends = [reach(phase) for phase in range(stride)]
    return max(max(phase - low, high - phase) for phase, (low, high) in enumerate(ends))


def middle_channels(x: Tensor, n_outputs: int) -> Tensor:
    """Return the middle channels of ``(batch, channel, y, x)``, which a residual network corrects.

    Examples
    --------
    >>> import torch
    >>> middle_channels(torch.arange(5).reshape(1, 5, 1, 1), 3).flatten().tolist()
    [1, 2, 3]
    """
    return x.narrow(1, (x.shape[1] - n_outputs) // 2, n_outputs)


def require_dimensions(dimensions: int) -> None:
    """Raise unless `dimensions` is 2 or 3.

    Raises
    ------
    SettingsError
        It is neither.

    Examples
    --------
    >>> require_dimensions(3)
    """
    if dimensions not in (2, 3):
        raise SettingsError(f"dimensions must be 2 (slices or channels together) or 3 (volumes), got {dimensions}")


def require_middle(n_channels: int, n_outputs: int) -> None:
    """Raise unless a residual network has at least as many input channels as outputs.

    Raises
    ------
    SettingsError
        There are more outputs than channels.

    Examples
    --------
    >>> require_middle(n_channels=3, n_outputs=1)
    """
    if n_outputs > n_channels:
        raise SettingsError(
            f"a network that corrects its input must have at most as many outputs as channels, got {n_outputs} outputs "
            f"and {n_channels} channels; give it more channels, or take another network"
        )


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Mirror the lower and right borders until both sizes are multiples of `multiple`; small images are repeated.

    Examples
    --------
    >>> import torch
    >>> pad_to_multiple(torch.tensor([[[[1.0, 2.0, 3.0]]]]), 2).tolist()
    [[[[1.0, 2.0, 3.0, 2.0], [1.0, 2.0, 3.0, 2.0]]]]
    """
    height, width = x.shape[-2:]
    return pad_to_size(x, height + -height % multiple, width + -width % multiple)


def pad_to_size(x: Tensor, height: int, width: int) -> Tensor:
    """Mirror the lower and right borders of a smaller image up to this size; small images are repeated.

    Examples
    --------
    >>> import torch
    >>> pad_to_size(torch.tensor([[[[1.0, 2.0, 3.0]]]]), 1, 8).tolist()
    [[[[1.0, 2.0, 3.0, 2.0, 1.0, 2.0, 3.0, 2.0]]]]
    """
    below, right = max(0, height - x.shape[-2]), max(0, width - x.shape[-1])
    while below or right:
        step_y, step_x = min(below, x.shape[-2] - 1), min(right, x.shape[-1] - 1)
        if step_y <= 0 and step_x <= 0:
            return functional.pad(x, (0, right, 0, below), mode="replicate")
        x = functional.pad(x, (0, step_x, 0, step_y), mode="reflect")
        below, right = below - step_y, right - step_x
    return x
