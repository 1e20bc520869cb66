"""A trained method: what is saved, loaded and applied."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from quietray.checkpoint import load_tensors, save_tensors, write_json
from quietray.errors import FormatError, SettingsError
from quietray.inference.tiling import tiled
from quietray.networks.unet import UNet
from quietray.settings import from_dict, to_dict
from quietray.splits import SPLITS
from quietray.splits.base import Split
from quietray.training.batches import neighbours
from quietray.training.loop import precision
from quietray.types import Parts, Slice, Volume

__all__ = ["Denoiser", "Scale"]

_ROTATIONS = tuple((turns, False) for turns in range(4))
_SYMMETRIES = {  # quarter turns, and whether mirrored
    1: _ROTATIONS[:1],
    2: _ROTATIONS[::2],
    4: _ROTATIONS,
    8: (*_ROTATIONS, *((turns, True) for turns in range(4))),
}
_WEIGHTS, _MODEL = "weights.safetensors", "model.json"


@dataclass(frozen=True)
class Scale:
    """The linear map that brings attenuation to about [0, 1] for the network.

    Parameters
    ----------
    low, high
        Attenuation that becomes 0 and 1.

    Examples
    --------
    >>> Scale(1.0, 3.0).apply(np.array([2.0], np.float32)).tolist()
    [0.5]
    """

    low: float
    high: float

    @classmethod
    def of(cls, volume: Volume, weight: Slice) -> Scale:
        """Return the scale that maps the 2nd and 98th percentile inside the field of view to 0 and 1."""
        inside = volume[:, weight > 0]
        low, high = (float(value) for value in np.percentile(inside, (2, 98)))
        return cls(low, high if high > low else low + 1.0)

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Return float32 attenuation in the network's scale; `x` itself is changed, to spare memory."""
        x -= np.float32(self.low)
        x /= np.float32(self.high - self.low)
        return x

    def undo(self, x: np.ndarray) -> np.ndarray:
        """Return attenuation from the network's scale; `x` itself is changed."""
        x *= np.float32(self.high - self.low)
        x += np.float32(self.low)
        return x


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A network with the split that trained it.

    Parameters
    ----------
    network
        With its trained weights.
    architecture
        How the network is built.
    split
        How it is applied.
    scale
        Of the data that it was trained on.
    symmetries
        Symmetries of the square to average over at inference: 1, 2, 4 or 8.
    arithmetic
        ``bf16-mixed`` or ``32-true``.
    tile
        Edge of a tile in pixels; slices up to this size are done in one piece.
    facts
        Where the model comes from: scan, noise level, history, versions.
    """

    network: nn.Module
    architecture: UNet
    split: Split
    scale: Scale
    symmetries: Literal[1, 2, 4, 8] = 1
    arithmetic: str = "32-true"
    tile: int = 1024
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.symmetries not in _SYMMETRIES:
            raise SettingsError(f"symmetries must be 1, 2, 4 or 8, got {self.symmetries}")

    @property
    def reach(self) -> int:
        """Slices that are needed above and below the one to be denoised."""
        return self.split.n_slices // 2

    @torch.no_grad()
    def slice(self, parts: Parts, z: int) -> Slice:
        """Denoise one slice.

        Parameters
        ----------
        parts
            Reconstructions ``(part, z, y, x)`` in attenuation; beyond the first and last slice they are mirrored.
        z
            Which slice.

        Returns
        -------
        Slice
            Attenuation ``(y, x)``.
        """
        window = self.scale.apply(np.array(neighbours(parts, z, self.split.n_slices)))
        device = next(self.network.parameters()).device
        samples = torch.from_numpy(window)[None].to(device)
        result = self.split.infer(self.evaluate, samples)
        return self.scale.undo(result[0, 0].cpu().numpy())

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> Tensor:
        """Apply the network to scaled slices, ``(batch, slice, y, x)``, in tiles, averaged over symmetries."""
        architecture = self.architecture
        total = torch.zeros_like(x[:, :1])
        for turns, mirror in _SYMMETRIES[self.symmetries]:
            turned = torch.rot90(x, turns, (-2, -1))
            turned = turned.flip(-1) if mirror else turned
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.arithmetic == "bf16-mixed"):
                done = tiled(self.network, turned, self.tile, architecture.radius, architecture.stride)
            done = done.float()
            done = done.flip(-1) if mirror else done
            total += torch.rot90(done, -turns, (-2, -1))
        return total / self.symmetries

    def save(self, folder: Path) -> None:
        """Write ``weights.safetensors`` and ``model.json`` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(folder / _WEIGHTS, self.network.state_dict(), {})
        write_json(
            folder / _MODEL,
            {
                "method": type(self.split).__name__,
                "split": to_dict(self.split),
                "architecture": type(self.architecture).__name__,
                "network": to_dict(self.architecture),
                "scale": dataclasses.asdict(self.scale),
                "symmetries": self.symmetries,
                "arithmetic": self.arithmetic,
                "tile": self.tile,
                "facts": dict(self.facts),
            },
        )

    @classmethod
    def load(cls, folder: Path) -> Denoiser:
        """Read a model folder.

        Raises
        ------
        FormatError
            A file is missing, damaged, or of another version.
        """
        try:
            record = json.loads((folder / _MODEL).read_text())
        except (OSError, ValueError) as error:
            raise FormatError(f"{folder} must hold a {_MODEL} written by quietray, got: {error}") from None
        tensors, _ = load_tensors(folder / _WEIGHTS)
        try:
            split = from_dict(SPLITS[record["method"]], record["split"], "split")
            architecture = from_dict(UNet, record["network"], "network")
            network = architecture.build(split.n_slices)
            network.load_state_dict(tensors)
            return cls(
                network.to(memory_format=torch.channels_last).eval(),  # type: ignore[call-overload]
                architecture,
                split,
                Scale(**record["scale"]),
                record["symmetries"],
                _available(record["arithmetic"]),
                record["tile"],
                record["facts"],
            )
        except (KeyError, TypeError, RuntimeError) as error:
            raise FormatError(f"{folder} must hold a model of this version of quietray, got: {error}") from None


def _available(arithmetic: str) -> str:
    """Return bf16 only where this machine has it; elsewhere it would be slower than float32, not faster."""
    return arithmetic if arithmetic == "32-true" else precision("auto")


def field_of_view(n_y: int, n_x: int, radius: float, centre: tuple[float, float]) -> Float[np.ndarray, "y x"]:
    """Return 1 where every view sees the voxel, else 0.

    Parameters
    ----------
    n_y, n_x
        Size of the slice or region.
    radius
        Of the disc that all views see, in voxels.
    centre
        Middle of the slice relative to the rotation axis, ``(y, x)`` with y up, in voxels.

    Examples
    --------
    >>> field_of_view(3, 3, 1.0, (0.0, 0.0)).tolist()
    [[0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]
    """
    y = centre[0] + (n_y - 1) / 2 - np.arange(n_y)[:, None]
    x = centre[1] - (n_x - 1) / 2 + np.arange(n_x)[None, :]
    return np.asarray(np.hypot(y, x) <= radius, dtype=np.float32)
