"""Scans and volumes, in and out: :func:`read`, :func:`write_scan`, :func:`read_volume`, :func:`open_volume_writer`."""

from __future__ import annotations

from quietray.io.dxchange import write_scan
from quietray.io.read import read
from quietray.io.stored import StoredVolume, read_volume
from quietray.io.volume import SeriesAxis, VolumeWriter, open_volume_writer

__all__ = ["SeriesAxis", "StoredVolume", "VolumeWriter", "open_volume_writer", "read", "read_volume", "write_scan"]
