"""Volumes as MetaImage: numbers in a ``.raw`` file and a ``.mhd`` header beside it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError
from quietray.io.disk import generator_name, remove, sync_path
from quietray.io.frames import LazyFrames, OnDisk, check_stack
from quietray.io.mapped import mapped
from quietray.io.metaimage import Header, is_metaimage, read_header
from quietray.io.volumes.base import StoredVolume, VolumeFormat, told_of_file
from quietray.io.volumes.one_file import OneFileWriter
from quietray.io.volumes.stored import Scale, values_of

__all__ = ["MetaImage", "MetaImageWriter"]


class MetaImageWriter(OneFileWriter):
    """Writer whose numbers and header are renamed together when the volume is complete.

    The comment of the header holds unit and scale.
    """

    @property
    def place(self) -> Path:
        """Present path of the numbers."""
        return self.path.with_suffix(".raw") if self._finished else self.partial

    def _lay_out(self, place: Path, dtype: np.dtype[Any], scale: Scale | None) -> int:
        told = {"unit": self.grid.unit, "voxel_size": self.grid.voxel_size, "generator": generator_name()}
        comment = json.dumps(told | ({} if scale is None else scale.record()) | self._extra)
        spacing = (*[1.0] * (len(self.shape) - 3), *(self.grid.steps or (1.0, 1.0, 1.0)))
        header = Header(self.path.with_suffix(".raw"), 0, self.shape, dtype, spacing, comment)
        place.write_bytes(b"")
        _replace(self._header(dtype), header.text())
        return 0

    def _found(self, place: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
        if self._finished:
            header = read_header(self.path)
            return header.shape, header.dtype, 0
        n_bytes = place.stat().st_size // int(np.prod(self.shape, dtype=np.int64))
        dtype = np.dtype("<f4" if n_bytes == 4 else self.stored.dtype)
        shape = next(line for line in self._header(dtype).read_text().splitlines() if line.startswith("DimSize"))
        return tuple(int(size) for size in shape.split()[2:])[::-1], dtype, 0

    def _name(self) -> None:
        """Put the header in its place, then the numbers; only then is the volume finished."""
        _, dtype, _ = self._found(self.partial)
        _replace(self.path, self._header(dtype).read_text())
        sync_path(self.path.parent)
        os.replace(self.partial, self.path.with_suffix(".raw"))
        self._tidy()

    def _unfinish(self) -> None:
        if self._finished:
            self.close()
            header = _own_header(self.path)
            _replace(self._header(header.dtype), header.text())
            os.replace(header.data, self.partial)

    def discard(self) -> None:
        """Remove the numbers and the header."""
        remove(self.place)
        remove(self.path)
        self._tidy()

    @classmethod
    def rename(cls, path: Path, new: Path) -> None:
        """Rename numbers and header."""
        header = _own_header(path)
        os.replace(header.data, new.with_suffix(".raw"))
        _replace(new, dataclasses.replace(header, data=new.with_suffix(".raw")).text())
        path.unlink()

    def _header(self, dtype: np.dtype[Any]) -> Path:
        """Return the path of the header for numbers of this type."""
        return self.partial.with_name(f"{self.partial.name}.{dtype.name}.header")

    def _tidy(self) -> None:
        for one in self.partial.parent.glob(f"{self.partial.name}.*.header"):
            remove(one)


def _own_header(path: Path) -> Header:
    """Return the header of a volume of a run, whose numbers are moved with it: they must lie beside it."""
    header = read_header(path)
    if header.data != path.with_suffix(".raw") or header.data.is_symlink():
        raise FormatError(
            f"{path} must point to {path.with_suffix('.raw').name} beside it, got {header.data}; start anew in another "
            "folder"
        )
    return header


def _replace(path: Path, text: str) -> None:
    """Write a file atomically."""
    unfinished = path.with_name(f".{path.name}.new")  # if the process is killed, the next one replaces it
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666), "w") as stream:
        stream.write(text)
    sync_path(unfinished)
    os.replace(unfinished, path)


class MetaImage(VolumeFormat):
    """A ``.mhd`` or ``.mha`` file."""

    called, files, endings, volume, trust = "mhd", "MetaImage", (".mhd",), "volume.mhd", "trust.mhd"
    beside = ("volume.raw", "trust.raw")
    writer = MetaImageWriter

    def recognises(self, path: Path) -> bool:
        """Return whether a file has the name and the beginning of a MetaImage."""
        return is_metaimage(path)

    def read(self, path: Path) -> StoredVolume:
        """Open the numbers that the header refers to."""
        header = read_header(path)
        try:
            told, unit, size = told_of_file(json.loads(header.comment))
        except ValueError:
            told, unit, size = told_of_file({"voxel_size": header.spacing[-1] if header.spacing else None})
        if len(header.spacing) >= 3:
            told.setdefault("spacing", header.spacing[-3])
        stack = OnDisk(mapped, header.data, header.dtype.str, header.offset, header.shape)
        check_stack(stack, "volume", str(path))
        return StoredVolume(LazyFrames(values_of(stack, told), place=str(path)), path, unit, size, told)
