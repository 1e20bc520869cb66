"""Volumes in HDF5: ``/exchange/data``, or ``/truth/volume`` of a simulated scan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from quietray.io.disk import allocate, generator_name
from quietray.io.hdf5 import is_hdf5, open_hdf5
from quietray.io.volumes.base import StoredVolume, VolumeFormat
from quietray.io.volumes.containers import volume_in
from quietray.io.volumes.one_file import OneFileWriter
from quietray.io.volumes.stored import Scale

__all__ = ["Hdf5Volume", "Hdf5VolumeWriter"]


class Hdf5VolumeWriter(OneFileWriter):
    """Contiguous ``/exchange/data``: if the process is killed at any moment, the file can still be opened."""

    integers = False

    def _lay_out(self, place: Path, dtype: np.dtype[Any], scale: Scale | None) -> int:
        with h5py.File(place, "w", locking="best-effort") as file:
            file.attrs["generator"] = generator_name()
            for key, value in self._extra.items():
                file.attrs[key] = value if isinstance(value, (str, int, float)) else json.dumps(value)
            group = file.create_group("exchange")
            dataset, offset = allocate(group, "data", self.shape, dtype)
            dataset.attrs["units"] = dataset.attrs["unit"] = self.grid.unit
            dataset.attrs["axes"] = ":".join(self.axes)
            dataset.attrs["voxel_size"] = self.grid.voxel_size or 0.0
            if self.grid.spacing is not None:
                dataset.attrs["spacing"] = self.grid.spacing  # in slices
        return offset

    def _found(self, place: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
        with h5py.File(place, "r", locking="best-effort") as file:
            dataset = file["exchange/data"]
            return dataset.shape, dataset.dtype, int(dataset.id.get_offset())


class Hdf5Volume(VolumeFormat):
    """``/exchange/data`` in an HDF5 file."""

    called, files, endings = "h5", "HDF5", (".h5", ".hdf5")
    writer = Hdf5VolumeWriter

    def recognises(self, path: Path) -> bool:
        """Return whether a file starts like HDF5."""
        return path.is_file() and is_hdf5(path)

    def read(self, path: Path) -> StoredVolume:
        """Open the volume, or the truth of a simulated scan."""
        return volume_in(open_hdf5(path))
