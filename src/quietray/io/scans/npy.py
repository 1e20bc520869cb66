"""A stack of radiographs in an npy file; flats, darks and angles are given by the user."""

from __future__ import annotations

import numpy as np

from quietray.errors import GeometryError
from quietray.io.frames import LazyFrames, OnDisk, check_stack
from quietray.io.scans.angles import angle_range, read_angle_file
from quietray.io.scans.base import ScanReader, Source
from quietray.io.scans.elsewhere import angles_elsewhere, side_elsewhere
from quietray.io.scans.raw import Flags, RawScan
from quietray.types import Frames

__all__ = ["Npy"]

_MAGIC = b"\x93NUMPY"


class Npy(ScanReader):
    """An array ``(view, row, col)`` in an npy file; without angles, it is an image series."""

    files = ()

    def recognises(self, source: Source, flags: Flags) -> bool:
        """Return whether the path is such a file, and angles are given."""
        if flags.angles is None or not source.path.is_file():
            return False
        with source.path.open("rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC

    def read(self, source: Source, flags: Flags) -> RawScan:
        """Read the scan."""
        path = source.path
        stored: Frames = OnDisk(np.load, path, "r")
        if len(stored.shape) == 2:
            stored = np.asarray(np.load(path))[None]
        check_stack(stored, "projections", str(path))
        projections = flags.views(LazyFrames(stored, place=str(path)))
        n_views, n_rows, _ = projections.shape
        assert flags.angles is not None
        angles = angle_range(flags.angles, n_views)
        if angles is None:
            angles = angles_elsewhere(flags.angles, path.parent) or read_angle_file(path.parent / flags.angles)
            angles = angles.for_frames(np.arange(n_views), n_views, n_rows)
        if n_views < 2:
            raise GeometryError(
                f"a scan must have at least 2 views, got one image in {path}; if it is a sinogram (view, col), pass "
                "--order sinogram"
            )
        return RawScan(
            projections,
            angles.radians(flags.angle_unit),
            flats=side_elsewhere(flags.flats, "flats", path.parent),
            darks=side_elsewhere(flags.darks, "darks", path.parent),
            provenance={"format": "npy", "data": str(path), "angles": angles.place},
        )
