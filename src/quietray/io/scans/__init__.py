"""Scan formats: one module each; format classes register themselves."""

from __future__ import annotations

from quietray.io.scans import binary, datasets, dxchange, nikon, npy, nxtomo, phoenix, series, skyscan, tiff, zeiss
from quietray.io.scans.base import ScanReader, ScanWriter, Source
from quietray.io.scans.raw import Flags, RawScan
from quietray.io.scans.reading import read
from quietray.io.scans.writing import write_scan

__all__ = [
    "Flags",
    "RawScan",
    "ScanReader",
    "ScanWriter",
    "Source",
    "binary",
    "datasets",
    "dxchange",
    "nikon",
    "npy",
    "nxtomo",
    "phoenix",
    "read",
    "series",
    "skyscan",
    "tiff",
    "write_scan",
    "zeiss",
]
