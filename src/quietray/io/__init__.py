"""Scans, volumes and series of images, in and out: :func:`read`, :func:`read_volume`, :func:`read_images`."""

from __future__ import annotations

from quietray.images import ImageSeries
from quietray.io.images import image_format, read_images
from quietray.io.pairs import ImagePairs, is_pairs, read_pairs
from quietray.io.read import read
from quietray.io.scans import write_scan
from quietray.io.stored import StoredVolume, read_volume
from quietray.io.volume import SeriesAxis, VolumeWriter, open_volume_writer

__all__ = [
    "ImagePairs",
    "ImageSeries",
    "SeriesAxis",
    "StoredVolume",
    "VolumeWriter",
    "image_format",
    "is_pairs",
    "open_volume_writer",
    "read",
    "read_images",
    "read_pairs",
    "read_volume",
    "write_scan",
]
