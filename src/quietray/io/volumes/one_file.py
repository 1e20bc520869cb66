"""Volumes in a single file, whose voxels are contiguous from some offset on."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError
from quietray.io.disk import remove, sync_path, write_at
from quietray.io.mapped import mapped
from quietray.io.volumes.stored import Scale
from quietray.io.volumes.writer import VolumeWriter

__all__ = ["OneFileWriter"]

_BLOCK_BYTES = 2**26


class OneFileWriter(VolumeWriter):
    """Writer with plain writes at known offsets: if the process is killed at any moment, the file can be opened.

    Integers that cover the range of the volume are written when the volume is complete: they are converted from float32
    into a second file, which then replaces the first.
    """

    integers = True
    _handles = ("_descriptor",)
    _descriptor: int | None = None
    _offset = 0
    _kind = np.dtype("<f4")

    @abstractmethod
    def _lay_out(self, place: Path, dtype: np.dtype[Any], scale: Scale | None) -> int:
        """Write everything except the voxels to a new file; return the offset of the voxels."""

    @abstractmethod
    def _found(self, place: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
        """Return shape, type and offset of the voxels in a file; any error means that it holds no volume."""

    def _create(self) -> None:
        self._offset = self._new(self.partial, self.scale)
        self._kind = np.dtype("<f4" if self.scale is None else self.scale.dtype)
        sync_path(self.partial.parent)

    def _new(self, place: Path, scale: Scale | None) -> int:
        dtype = np.dtype("<f4" if scale is None else scale.dtype)
        offset = self._lay_out(place, dtype, scale)
        needed = offset + dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))
        os.truncate(place, max(place.stat().st_size, needed))
        sync_path(place)
        return offset

    def _reopen(self) -> None:
        try:
            shape, self._kind, self._offset = self._found(self.place)
        except Exception as error:  # libraries raise any exception for damaged files
            raise self._not_resumable(error) from error
        self._check_found(shape, self._kind)

    def _open(self) -> None:
        if self._descriptor is None:
            self._descriptor = os.open(self.place, os.O_WRONLY)

    def _store(self, z0: int, block: np.ndarray) -> None:
        assert self._descriptor is not None
        if block.dtype != self._kind.newbyteorder("<"):
            raise FormatError(
                f"{self.place} must be float32 for a slab to be written again, got {self._kind}, converted over the "
                "range of the whole volume; remove it and start anew"
            )
        write_at(self._descriptor, block, self._offset + block.dtype.itemsize * self.grid.n_pixels * z0)
        os.fsync(self._descriptor)

    def _complete(self) -> None:
        """Convert float32 to integers, if their window depends on the whole volume."""
        _, dtype, offset = self._found(self.place)
        if not self.stored.whole or dtype.kind == "u":
            return
        slices = mapped(self.place, "<f4", offset, (int(np.prod(self.shape[:-2])), *self.shape[-2:]))
        step = max(1, _BLOCK_BYTES // (4 * self.grid.n_pixels))
        blocks = [slice(first, first + step) for first in range(0, len(slices), step)]
        ends = [(np.nanmin(slices[one]), np.nanmax(slices[one])) for one in blocks]
        scale = Scale(self.stored.dtype, float(min(low for low, _ in ends)), float(max(high for _, high in ends)))
        other = self.partial.with_name(f"{self.partial.name}.{scale.dtype}")
        remove(other)
        offset = self._new(other, scale)
        descriptor = os.open(other, os.O_WRONLY)
        try:
            for one in blocks:
                numbers = scale.numbers(slices[one])
                write_at(descriptor, numbers, offset + numbers.itemsize * self.grid.n_pixels * one.start)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        del slices
        os.replace(other, self.partial)

    def close(self) -> None:
        """Release the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
