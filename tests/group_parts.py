"""Networks for processes that train together, which import them from here."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from quietray.networks.unet import UNet


@dataclass(frozen=True)
class Forgetful:
    """Builds a small network that drops what it sees at random."""

    def __call__(self) -> nn.Module:
        return nn.Sequential(UNet((4, 6)).build(3), nn.Dropout(0.5))


@dataclass(frozen=True)
class Normalised:
    """Builds a small network that normalises a batch."""

    def __call__(self) -> nn.Module:
        return nn.Sequential(nn.BatchNorm2d(3), UNet((4, 6)).build(3))


class Unreadable:
    """Training data that cannot be read by the processes that train."""

    def draw(self, batch: int, patch: int, generator: Any) -> Any:
        """Is never reached."""

    def on(self, device: Any, room: int | None = None) -> Any:
        """Is never reached."""

    def at(self, step: int, n_steps: int | None) -> Any:
        """Is never reached."""

    def held_out(self, most_pixels: int) -> Any:
        """Is never reached."""

    def __reduce__(self) -> Any:
        return _raised, ()


def _raised() -> None:
    raise ValueError("this cannot be read")
