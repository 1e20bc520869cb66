"""What the rest of quietray knows of a network: how to build it, and how far it sees."""

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
    """Settings of a network; a subclass is a frozen dataclass.

    In two dimensions the network maps ``(batch, channel, y, x)`` to ``(batch, output, y, x)``.  In three it maps
    ``(batch, slice, y, x)``, of any number of slices, to as many: every slice denoised, with its neighbours in view.
    Images may have any size.
    """

    registry: ClassVar[Registry[Architecture]] = Registry("network", "quietray.networks")
    trained: ClassVar[bool] = True

    @property
    @abstractmethod
    def radius(self) -> int:
        """Furthest input pixel, in y or x, that an output pixel depends on, exact."""

    @property
    def stride(self) -> int:
        """Pixels to which tiles must be aligned."""
        return 1

    @property
    def depth(self) -> int:
        """Furthest slice that an output slice depends on, exact; 0 in two dimensions, where slices are channels."""
        return 0

    @property
    def dimensions(self) -> Literal[2, 3]:
        """Whether slices are channels (2), or a third axis to convolve along (3)."""
        return 2

    @property
    @abstractmethod
    def bytes_per_pixel(self) -> int:
        """Bytes that the network holds at most for a pixel of each slice while it is applied, in float32, measured.

        In two dimensions a slice is what comes out; the channels that go in are few and not counted.
        """

    @abstractmethod
    def build(self, n_channels: int, n_outputs: int = 1) -> nn.Module:
        """Return a freshly initialised network; the weights come from torch's global generator, so seed it first.

        Parameters
        ----------
        n_channels, n_outputs
            Slices that the network takes and returns; in three dimensions it takes and returns any number.
        """


def furthest(reach: Callable[[int], tuple[int, int]], stride: int) -> int:
    """Return the radius of a network with poolings, in which pixels of different phase see differently far.

    Parameters
    ----------
    reach
        Maps an output pixel to the first and last input pixel that it depends on.
    stride
        After how many pixels the phases repeat.

    Examples
    --------
    >>> furthest(lambda pixel: (pixel // 2 * 2, pixel // 2 * 2 + 1), 2)
    1
    """
    ends = [reach(phase) for phase in range(stride)]
    return max(max(phase - low, high - phase) for phase, (low, high) in enumerate(ends))


def middle_channels(x: Tensor, n_outputs: int) -> Tensor:
    """Return the channels in the middle of ``(batch, channel, y, x)``: what a residual network corrects.

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
    """Raise unless a residual network finds its outputs among its channels.

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
    """Reflect the lower and right border until both sizes are multiples of `multiple`; small images are repeated.

    Examples
    --------
    >>> import torch
    >>> pad_to_multiple(torch.tensor([[[[1.0, 2.0, 3.0]]]]), 2).tolist()
    [[[[1.0, 2.0, 3.0, 2.0], [1.0, 2.0, 3.0, 2.0]]]]
    """
    height, width = x.shape[-2:]
    return pad_to_size(x, height + -height % multiple, width + -width % multiple)


def pad_to_size(x: Tensor, height: int, width: int) -> Tensor:
    """Reflect the lower and right border of a smaller image until it has this size; small images are repeated.

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
