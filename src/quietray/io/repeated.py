"""Repeated frames of one scene, which need no angles."""

from __future__ import annotations

from pathlib import Path

from quietray.errors import GeometryError
from quietray.io.scans import read
from quietray.scan import Scan
from quietray.types import Frames

__all__ = ["read_frames", "static_frames"]


def read_frames(path: Path) -> Scan:
    """Read a stack of repeated frames; if the file has no angles, arbitrary ones are used.

    Raises
    ------
    QuietrayError
        The file cannot be read.
    """
    try:
        return read(path)
    except GeometryError:
        return read(path, angles="0:180")


def static_frames(path: Path) -> Frames | dict[int, Frames]:
    """Return repeated frames ``(frame, row, col)`` of a scan or of a plain stack, by detector if these are numbered.

    Raises
    ------
    QuietrayError
        The file cannot be read.
    """
    static = read_frames(path)
    if static.detectors is None:
        return static.projections
    return {number: part.projections for number, part in static.by_detector().items()}
