"""Volumes in HDF5: ``/exchange/data``, or ``/truth/volume`` of a simulated scan."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np

from quietray.io.disk import allocate, generator_name, sync_path, write_at
from quietray.io.hdf5 import is_hdf5, open_hdf5
from quietray.io.volumes.base import StoredVolume, VolumeFormat
from quietray.io.volumes.containers import volume_in
from quietray.io.volumes.writer import VolumeWriter
from quietray.types import Volume

__all__ = ["Hdf5Volume", "Hdf5VolumeWriter"]


class Hdf5VolumeWriter(VolumeWriter):
    """``/exchange/data`` in one piece: a kill at any moment leaves a file that opens."""

    _handles = ("_descriptor",)
    _descriptor: int | None = None
    _offset = 0

    def _create(self) -> None:
        with h5py.File(self.partial, "w", locking="best-effort") as file:
            file.attrs["generator"] = generator_name()
            for key, value in self._extra.items():
                file.attrs[key] = value if isinstance(value, (str, int, float)) else json.dumps(value)
            group = file.create_group("exchange")
            dataset, self._offset = allocate(group, "data", self.shape, np.dtype("<f4"))
            dataset.attrs["units"] = dataset.attrs["unit"] = self.grid.unit
            dataset.attrs["axes"] = ":".join(self.axes)
            dataset.attrs["voxel_size"] = self.grid.voxel_size or 0.0
            if self.grid.spacing is not None:
                dataset.attrs["spacing"] = self.grid.spacing  # of slices
        os.truncate(self.partial, max(self.partial.stat().st_size, self._offset + 4 * int(np.prod(self.shape))))
        sync_path(self.partial)
        sync_path(self.partial.parent)

    def _reopen(self) -> None:
        try:
            with h5py.File(self.place, "r", locking="best-effort") as file:
                dataset = file["exchange/data"]
                self._check_found(dataset.shape, dataset.dtype)
                self._offset = int(dataset.id.get_offset())
        except (OSError, KeyError, TypeError) as error:
            raise self._not_resumable(error) from error

    def _open(self) -> None:
        if self._descriptor is None:
            self._descriptor = os.open(self.place, os.O_WRONLY)

    def _store(self, z0: int, block: Volume) -> None:
        assert self._descriptor is not None
        write_at(self._descriptor, block, self._offset + 4 * self.grid.n_pixels * z0)
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Release the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Hdf5Volume(VolumeFormat):
    """``/exchange/data`` in an HDF5 file."""

    called, files, endings = "h5", "HDF5", (".h5", ".hdf5")
    writer = Hdf5VolumeWriter

    def recognises(self, path: Path) -> bool:
        """Return whether a file starts like HDF5."""
        return path.is_file() and is_hdf5(path)

    def read(self, path: Path) -> StoredVolume:
        """Open the volume in it, or the truth of a simulated scan."""
        return volume_in(open_hdf5(path))
