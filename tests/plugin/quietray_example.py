"""What a package of somebody else adds to quietray: a scan format, read and written, and a format of volumes."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from quietray import FormatError, Scan
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
