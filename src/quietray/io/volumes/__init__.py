"""Volume formats: one module each; format classes register themselves."""

from __future__ import annotations

from quietray.io.volumes.base import StoredVolume, VolumeFormat
from quietray.io.volumes.doors import new_volume, open_volume_writer, read_volume, require_stored, volume_format
from quietray.io.volumes.stored import Stored
from quietray.io.volumes.writer import SeriesAxis, VolumeWriter

# The order here is the order in which formats are listed; the first is the default.
# isort: off
from quietray.io.volumes import zarr
from quietray.io.volumes import hdf5
from quietray.io.volumes import tiff
from quietray.io.volumes import metaimage
from quietray.io.volumes import nifti
# isort: on

__all__ = [
    "SeriesAxis",
    "Stored",
    "StoredVolume",
    "VolumeFormat",
    "VolumeWriter",
    "hdf5",
    "metaimage",
    "new_volume",
    "nifti",
    "open_volume_writer",
    "read_volume",
    "require_stored",
    "tiff",
    "volume_format",
    "zarr",
]
