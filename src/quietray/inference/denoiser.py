"""Trained denoisers: saving, loading and application."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from quietray.checkpoint import load_tensors, save_tensors, write_json
from quietray.errors import FormatError, SettingsError
from quietray.filters import FILTERS, Filter
from quietray.inference.fused import fused
from quietray.inference.tiling import fitting
from quietray.networks import NETWORKS, Architecture
from quietray.running.device import device_memory
from quietray.running.precision import precision
from quietray.settings import called, from_dict, to_dict
from quietray.splits import SPLITS
from quietray.splits.base import Split
from quietray.splits.neighbourhood import neighbours
from quietray.types import Parts, Samples, Slice, Volume

__all__ = ["Denoiser", "Scale"]

Changed = TypeVar("Changed", np.ndarray, Tensor)

_ROTATIONS = tuple((turns, False) for turns in range(4))
_SYMMETRIES = {  # quarter turns, and whether mirrored
    1: _ROTATIONS[:1],
    2: _ROTATIONS[::2],
    4: _ROTATIONS,
    8: (*_ROTATIONS, *((turns, True) for turns in range(4))),
}
_PIXELS_AT_ONCE = 2**22  # number of tiles at a time on a GPU
_WEIGHTS, _MODEL = "weights.safetensors", "model.json"


@dataclass(frozen=True)
class Scale:
    """The linear map that scales attenuation to about [0, 1] for the network.

    Parameters
    ----------
    low, high
        Attenuation that is mapped to 0 and to 1.

    Examples
    --------
    >>> Scale(1.0, 3.0).apply(np.array([2.0], np.float32)).tolist()
    [0.5]
    """

    low: float
    high: float

    @classmethod
    def of(cls, volume: Volume, weight: Slice) -> Scale:
        """Return the scale that maps the 2nd and 98th percentiles inside the field of view to 0 and 1."""
        inside = volume[:, weight > 0]
        low, high = (float(value) for value in np.percentile(inside, (2, 98)))
        return cls(low, high if high > low else low + 1.0)

    def apply(self, x: Changed) -> Changed:
        """Return float32 attenuation in the network's scale; `x` is modified to save memory."""
        x -= float(np.float32(self.low))
        x /= float(np.float32(self.high - self.low))
        return x

    def undo(self, x: Changed) -> Changed:
        """Return attenuation from values in the network's scale; `x` is modified to save memory."""
        x *= float(np.float32(self.high - self.low))
        x += float(np.float32(self.low))
        return x


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A trained network with its method, or a filter with the method that tuned it.

    Parameters
    ----------
    network
        The network with its trained weights.
    architecture
        Settings of the network or of the filter.
    split
        The method, which determines how the network is applied.
    scale
        Scale of the data it was trained on.
    symmetries
        Number of symmetries of the square for test-time augmentation: 1, 2, 4 or 8.
    arithmetic
        ``bf16-mixed`` or ``32-true``.
    tile
        Edge of a tile in pixels; slices up to this size are processed in one piece.
    facts
        Origin of the model: scan, noise level, history, versions.
    scales
        Scale of each channel of a spectral series, whose middle channel has `scale`; else empty.
    tone
        Gain and offset, in the network's scale, that correct the mean of the outputs to that of the measurement.
    """

    network: nn.Module
    architecture: Architecture | Filter
    split: Split
    scale: Scale
    symmetries: Literal[1, 2, 4, 8] = 1
    arithmetic: str = "32-true"
    tile: int = 1024
    facts: Mapping[str, Any] = field(default_factory=dict)
    scales: tuple[Scale, ...] = ()
    tone: tuple[float, float] = (1.0, 0.0)

    def __post_init__(self) -> None:
        if self.symmetries not in _SYMMETRIES:
            raise SettingsError(f"symmetries must be 1, 2, 4 or 8, got {self.symmetries}")

    def __repr__(self) -> str:
        source = Path(str(self.facts.get("source") or "")).name
        where = f" on {source}" if source else ""
        if not self.trained:
            return f"Denoiser({self.architecture!r}, tuned{where})"
        weights = sum(weight.numel() for weight in self.network.parameters())
        method, network = called(type(self.split)), called(type(self.architecture))
        return f"Denoiser({method} with {network}, {weights} weights, trained{where})"

    @property
    def reach(self) -> int:
        """Number of slices that are needed above and below the one to be denoised."""
        return max(self.architecture.depth, self.split.neighbourhood.slices // 2)

    @property
    def trained(self) -> bool:
        """Whether this is a network; filters are not trained."""
        return self.architecture.trained

    @property
    def filter(self) -> Filter:
        """The filter, if it is one."""
        assert isinstance(self.architecture, Filter)
        return self.architecture

    @property
    def trained_architecture(self) -> Architecture:
        """The architecture of the network, if it is one."""
        assert isinstance(self.architecture, Architecture)
        return self.architecture

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next((weight.device for weight in self.network.parameters()), torch.device("cpu"))

    @functools.cached_property
    def _network(self) -> nn.Module:
        """The network in the form used for inference."""
        return fused(self.network)

    def to(self, device: torch.device) -> Denoiser:
        """Return the denoiser with its network on another device."""
        return dataclasses.replace(self, network=self.network.to(device))

    @torch.no_grad()
    def slice(self, parts: Parts, z: int, n_series: int = 1) -> Float[np.ndarray, "output y x"]:
        """Denoise one slice, in all channels of a spectral series.

        Parameters
        ----------
        parts
            Reconstructions ``(part, z, y, x)`` in attenuation; slices beyond the first and last are mirrored.
        z
            Number of the slice.
        n_series
            Number of steps or channels of a series, which follow one another along z.

        Returns
        -------
        ndarray
            Attenuation ``(output, y, x)``; there is one output except for spectral series.
        """
        return self._around(torch.from_numpy(parts), z, n_series)

    def slab(
        self,
        parts: Parts,
        first: int,
        last: int,
        advance: Callable[[int], None] = lambda slices: None,
        n_series: int = 1,
    ) -> Float[np.ndarray, "slab y x"]:
        """Denoise the slices ``first:last`` of ``(part, z, y, x)``; 3-D networks process many at once.

        Parameters
        ----------
        parts
            Reconstructions, with :attr:`reach` additional slices on either side, if these exist.
        first, last
            Range of slices of `parts`, or of each step or channel of a series.
        advance
            Called with the number of slices done.
        n_series
            Number of steps or channels of a series, which follow one another along z in `parts` and in the result.
        """
        rows, wanted, window = parts.shape[1] // n_series, last - first, self.split.neighbourhood
        there = self._there(parts)
        clean = np.empty((n_series * wanted, *parts.shape[2:]), np.float32)
        if window.channels > 1:
            for z in range(first, last):
                clean[z - first :: wanted] = self._around(there, z, n_series)
                advance(n_series)
        elif window.times > 1:
            for place, z in enumerate(step * rows + z for step in range(n_series) for z in range(first, last)):
                clean[place] = self._around(there, z, n_series)[0]
                advance(1)
        else:
            for step in range(n_series):
                own = there[:, step * rows : (step + 1) * rows]
                self._neighbours(own, first, last, clean[step * wanted : (step + 1) * wanted], advance)
        return clean

    def _there(self, parts: Parts) -> Tensor:
        """Return the parts on the network's GPU, for all slices, if they fit into half of its memory."""
        here, free = torch.from_numpy(parts), device_memory(self.device)
        return here if free is None or 2 * parts.nbytes > free else here.to(self.device)

    @torch.no_grad()
    def _around(self, parts: Tensor, z: int, n_series: int = 1) -> Float[np.ndarray, "output y x"]:
        """Denoise one slice; only the slices that it needs are copied to the device."""
        window = self.split.neighbourhood
        found: np.ndarray = self._infer(neighbours(parts, z, window, n_series)[None])[0]
        if window.channels == 1 and self.split.n_outputs == window.slices:
            middle = found.shape[0] // 2
            return found[middle : middle + 1]
        return found

    def _neighbours(
        self, parts: Tensor, first: int, last: int, clean: Float[np.ndarray, "slab y x"], advance: Callable[[int], None]
    ) -> None:
        """Denoise the slices ``first:last`` into `clean`, for methods with neighbours in space only."""
        depth, window = self.architecture.depth, self.split.neighbourhood
        whole = self.split.n_outputs == window.slices > 1  # 3-D networks return all slices they are given
        at_once = max(1, 2 * depth) if whole else 1
        if self.device.type == "cuda" and not whole:  # on processors a slice's last bits must not depend on others
            at_once = min(64, max(1, _PIXELS_AT_ONCE // (parts.shape[2] * parts.shape[3])))
        for z in range(first, last, at_once):
            end = min(z + at_once, last)
            if whole and at_once > 1:
                low, high = max(0, z - depth), min(parts.shape[1], end + depth)
                clean[z - first : end - first] = self._infer(parts[None, :, low:high])[0, z - low : end - low]
            elif at_once == 1:
                clean[z - first] = self._around(parts, z)[0]
            else:
                windows = torch.stack([neighbours(parts, slice, window) for slice in range(z, end)])
                clean[z - first : end - first] = self._infer(windows)[:, 0]
            advance(end - z)

    @torch.no_grad()
    def _infer(self, windows: Samples) -> Float[np.ndarray, "batch output y x"]:
        scaled = windows.to(self.device, copy=True)
        scales = self.scales or (self.scale,)
        for channel, scale in zip(scaled.chunk(len(scales), dim=2), scales, strict=True):
            scale.apply(channel)
        clean: np.ndarray = self.split.infer(self.evaluate, scaled).cpu().numpy()
        for own, scale in zip(np.split(clean, len(scales), axis=1), scales, strict=True):
            scale.undo(own)
        return clean

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> Tensor:
        """Apply the network to scaled slices ``(batch, slice, y, x)``, in tiles and with test-time augmentation."""
        architecture = self.architecture
        total: Tensor | float = 0.0
        for turns, mirror in _SYMMETRIES[self.symmetries]:
            turned = torch.rot90(x, turns, (-2, -1))
            turned = turned.flip(-1) if mirror else turned
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.arithmetic == "bf16-mixed"):
                done = fitting(self._network, turned, self.tile, architecture.radius, architecture.stride)
            done = done.float()
            done = done.flip(-1) if mirror else done
            total = total + torch.rot90(done, -turns, (-2, -1))
        found = torch.as_tensor(total / self.symmetries)
        return found if self.tone == (1.0, 0.0) else found * self.tone[0] + self.tone[1]

    def save(self, folder: Path) -> None:
        """Write ``weights.safetensors`` and ``model.json`` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MODEL).unlink(missing_ok=True)  # a kill must not leave it beside the weights of another model
        save_tensors(folder / _WEIGHTS, self.network.state_dict(), {})
        write_json(
            folder / _MODEL,
            {
                "method": called(type(self.split)),
                "split": to_dict(self.split),
                "architecture": called(type(self.architecture)),
                "network": to_dict(self.architecture),
                "scale": dataclasses.asdict(self.scale),
                "scales": [dataclasses.asdict(scale) for scale in self.scales],
                "symmetries": self.symmetries,
                "arithmetic": self.arithmetic,
                "tile": self.tile,
                **({} if self.tone == (1.0, 0.0) else {"tone": list(self.tone)}),
                "facts": dict(self.facts),
            },
        )

    @classmethod
    def load(cls, folder: Path) -> Denoiser:
        """Read a model from a folder.

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
            name = record["architecture"]
            kinds: Mapping[str, Any] = FILTERS if name in FILTERS else NETWORKS
            architecture = from_dict(kinds[name], record["network"], "network")
            told = from_dict(_Told, {key: record[key] for key in _TOLD if key in record})
            network = _built(architecture, split, tensors)
            return cls(
                network.to(memory_format=torch.channels_last).eval(),  # type: ignore[call-overload]
                architecture,
                split,
                told.scale,
                told.symmetries,
                _available(told.arithmetic),
                told.tile,
                dict(record["facts"]),
                told.scales,
                told.tone,
            )
        except SettingsError as error:
            raise FormatError(
                f"{folder} must hold a model of a known method and network, got: {error}; if they are your own, import "
                "the module that defines them first"
            ) from None
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise FormatError(f"{folder} must hold a model of this version of quietray, got: {error}") from None


@dataclass(frozen=True)
class _Told:
    """Content of a model folder besides its weights, with types."""

    scale: Scale
    symmetries: Literal[1, 2, 4, 8]
    arithmetic: str
    tile: int
    scales: tuple[Scale, ...] = ()
    tone: tuple[float, float] = (1.0, 0.0)

    def __post_init__(self) -> None:
        for one in (self.scale, *self.scales):
            if not (math.isfinite(one.low) and math.isfinite(one.high) and one.high > one.low):
                raise SettingsError(f"a scale must be two finite numbers, the lower first, got {one}")
        if not all(map(math.isfinite, self.tone)) or self.tile < 1:
            raise SettingsError(f"a tone must be finite and a tile positive, got {self.tone} and {self.tile}")


_TOLD = tuple(entry.name for entry in dataclasses.fields(_Told))


def _built(architecture: Architecture | Filter, split: Split, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """Return the network with its weights; sizes are compared before memory is allocated."""
    with suppress(NotImplementedError), torch.device("meta"):  # other packages' networks may not support this
        for name, one in architecture.build(split.n_slices, split.n_outputs).state_dict().items():
            if name in tensors and tensors[name].shape != one.shape:
                raise ValueError(f"{name} must have the shape {tuple(one.shape)}, got {tuple(tensors[name].shape)}")
    network: nn.Module = architecture.build(split.n_slices, split.n_outputs)
    network.load_state_dict(dict(tensors))
    return network


def _available(arithmetic: str) -> str:
    """Return bf16 only if this machine supports it; otherwise, it would be slower than float32."""
    return arithmetic if arithmetic == "32-true" else precision("auto")
