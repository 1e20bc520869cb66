"""Reading and writing of scans, volumes and image series: :func:`read`, :func:`read_volume`, :func:`read_images`.

Each format is a class that registers itself: :class:`ScanReader`, :class:`ScanWriter`, :class:`VolumeFormat`,
:class:`ImageFormat`.
"""

from __future__ import annotations

from quietray.images import ImageSeries
from quietray.io.frames import LazyFrames, OnDisk
from quietray.io.images import ImageFormat, image_format, read_images
from quietray.io.pairs import ImagePairs, is_pairs, read_pairs
from quietray.io.scans import Flags, RawScan, ScanReader, ScanWriter, Source, read, write_scan
from quietray.io.volumes import (
    SeriesAxis,
    Stored,
    StoredVolume,
    VolumeFormat,
    VolumeWriter,
    new_volume,
    open_volume_writer,
    read_volume,
    require_stored,
    volume_format,
)

__all__ = [
    "Flags",
    "ImageFormat",
    "ImagePairs",
    "ImageSeries",
    "LazyFrames",
    "OnDisk",
    "RawScan",
    "ScanReader",
    "ScanWriter",
    "SeriesAxis",
    "Source",
    "Stored",
    "StoredVolume",
    "VolumeFormat",
    "VolumeWriter",
    "image_format",
    "is_pairs",
    "new_volume",
    "open_volume_writer",
    "read",
    "read_images",
    "read_pairs",
    "read_volume",
    "require_stored",
    "volume_format",
    "write_scan",
]
