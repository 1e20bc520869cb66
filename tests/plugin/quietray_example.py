"""What a package of somebody else adds to quietray: formats of scans and volumes, methods, a network."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from quietray import Architecture, FormatError, Noise2Self, Scan, Split
from quietray.io import (
    Flags,
    LazyFrames,
    OnDisk,
    RawScan,
    ScanReader,
    ScanWriter,
    Source,
    StoredVolume,
    VolumeFormat,
    VolumeWriter,
)
from quietray.metrics.noreference import Judgement, averaged
from quietray.splits.base import Network, Pair

MAGIC = b"rays 1\n"


def open_rays(path: Path) -> np.ndarray:
    """Map the radiographs of a file, which follow a line of magic and a line of JSON."""
    facts, offset = head_of(path)
    return np.memmap(path, np.dtype("<u2"), "r", offset, tuple(facts["shape"]))


def head_of(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as stream:
        stream.seek(len(MAGIC))
        try:
            return json.loads(stream.readline()), stream.tell()
        except ValueError as error:
            raise FormatError(f"{path} must have a line of JSON, got: {error}; write it again") from error


class Rays(ScanReader):
    """Counts of 16 bits after a line of JSON with their shape and the angles in degrees."""

    def recognises(self, source: Source, flags: Flags) -> bool:
        if source.path.is_dir():
            return False
        with source.path.open("rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC

    def read(self, source: Source, flags: Flags) -> RawScan:
        facts, _ = head_of(source.path)
        frames = LazyFrames(OnDisk(open_rays, source.path), place=str(source.path))
        flats = np.full((1, *facts["shape"][1:]), facts["light"], np.uint16)
        return RawScan(frames, np.deg2rad(facts["angles"]), flats, provenance={"format": "rays"})


class RaysWriter(ScanWriter):
    """The same."""

    called = "rays"
    endings = (".rays",)

    def write(self, path: Path, scan: Scan) -> None:
        facts = {"shape": scan.projections.shape, "angles": np.rad2deg(scan.geometry.angles).tolist()}
        facts["light"] = float(np.asarray(scan.flats[:]).max())
        with path.open("wb") as stream:
            stream.write(MAGIC + json.dumps(facts).encode() + b"\n")
            for view in range(scan.n_views):
                stream.write(np.asarray(scan.projections[view], "<u2").tobytes())
            stream.flush()
            os.fsync(stream.fileno())


class NpyWriter(VolumeWriter):
    """One .npy file, mapped while slabs are written."""

    _handles = ("_mapped",)
    _mapped: Any = None

    def _create(self) -> None:
        self._mapped = np.lib.format.open_memmap(self.partial, "w+", np.float32, self.shape)

    def _reopen(self) -> None:
        try:
            found = np.load(self.place, "r")
        except (OSError, ValueError) as error:
            raise self._not_resumable(error) from error
        self._check_found(found.shape, found.dtype)

    def _open(self) -> None:
        if self._mapped is None:
            self._mapped = np.load(self.place, "r+")

    def _store(self, z0: int, block: np.ndarray) -> None:
        self._mapped.reshape(-1, *self.grid.shape[1:])[z0 : z0 + len(block)] = block
        self._mapped.flush()

    def close(self) -> None:
        self._mapped = None


class Npy(VolumeFormat):
    """One .npy file."""

    writer = NpyWriter

    def recognises(self, path: Path) -> bool:
        if path.is_dir():
            return False
        with path.open("rb") as stream:
            return stream.read(6) == b"\x93NUMPY"

    def read(self, path: Path) -> StoredVolume:
        return StoredVolume(LazyFrames(OnDisk(np.load, path, "r"), place=str(path)), path)


@dataclass(frozen=True)
class Alternate(Split):
    """A method in the volume: one of the angular subsets is seen, the next one must be met."""

    n_slices: ClassVar[int] = 1
    parts: int = 3

    @property
    def n_parts(self) -> int:
        return self.parts

    def draw(self, samples: Tensor, generator: torch.Generator) -> Pair:
        seen = int(torch.randint(self.parts, (), generator=generator))
        target = samples[:, (seen + 1) % self.parts]
        return Pair(samples[:, seen], target, torch.ones(1, 1, 1, 1))

    def infer(self, network: Network, samples: Tensor) -> Tensor:
        return torch.stack([network(part).float() for part in samples.unbind(1)]).mean(dim=0)

    def judge(self, network: Network, samples: Tensor, weight: Tensor) -> Judgement:
        clean, others = self.infer(network, samples[:, :-1]), samples[:, -1]
        noise = (samples[:, 0] - others).square() / 2
        return averaged((clean - others).square() - noise, noise, weight)


@dataclass(frozen=True)
class Neighbours(Noise2Self):
    """A method on radiographs: Noise2Self under another name."""

    called: ClassVar[str] = "neighbours"


@dataclass(frozen=True)
class Plane(Architecture):
    """One convolution."""

    size: int = 3

    @property
    def radius(self) -> int:
        return self.size // 2

    @property
    def bytes_per_pixel(self) -> int:
        return 16

    def build(self, n_channels: int, n_outputs: int = 1) -> nn.Module:
        return nn.Conv2d(n_channels, n_outputs, self.size, padding="same", padding_mode="reflect")
