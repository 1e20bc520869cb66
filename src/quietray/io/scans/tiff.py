"""TIFF scans: a multi-page file or a folder of frames; flats, darks and angles come from the user."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from quietray.errors import FormatError, GeometryError
from quietray.io.frames import LazyFrames, OnDisk, check_stack
from quietray.io.scans.angles import AngleList, angle_range, read_angle_file
from quietray.io.scans.base import ScanReader, Source
from quietray.io.scans.raw import Flags, RawScan
from quietray.io.tiff import TiffFolder, TiffPages, is_tiff, series_folders, tiff_files

__all__ = ["Tiff", "frames_on_disk"]


class Tiff(ScanReader):
    """A folder of TIFF frames or a multi-page TIFF."""

    files = ("TIFF",)

    def recognises(self, source: Source, flags: Flags) -> bool:
        """Return whether the file, or some in the folder, start like a TIFF."""
        path = source.path
        if source.container is not None or not path.is_dir():
            return source.container is None and is_tiff(path)
        return bool(tiff_files(path) or series_folders(path))

    def read(self, source: Source, flags: Flags) -> RawScan:
        """Read it."""
        path = source.path
        if flags.image_key:
            raise FormatError("--image-key must be left out for TIFF, which has no datasets; pass --flats and --darks")
        projections = _folder(path, flags.data or "*") if path.is_dir() else _file(path, "projections")
        check_stack(projections, "projections", str(path))
        angles = _angles(path, flags.angles, len(projections))
        sides = {}
        for what, flag in (("flats", flags.flats), ("darks", flags.darks)):
            sides[what] = frames_on_disk(flag, what, path if path.is_dir() else path.parent) if flag else None
            if flag and sides[what] is None:
                raise FormatError(
                    f"--{what} must be a TIFF file, a folder of them, or a pattern such as 'flat_*.tif', got '{flag}'; "
                    "check the path"
                )
        return RawScan(
            projections,
            angles.radians(flags.angle_unit),
            flats=sides["flats"],
            darks=sides["darks"],
            provenance={
                "format": "TIFF folder" if path.is_dir() else "TIFF stack",
                "data": str(path),
                "angles": angles.place,
            },
        )


def frames_on_disk(place: str, what: str, beside: Path) -> LazyFrames | None:
    """Return flats or darks in a TIFF file, a folder or files that match a pattern; None when nothing is there.

    Parameters
    ----------
    place
        A path, absolute or relative to the working folder or to `beside`; its last part may be a pattern.
    what
        ``flats`` or ``darks``, for messages.
    beside
        The folder of the scan.
    """
    for path in (Path(place), beside / place):
        if path.is_dir() and tiff_files(path):
            return _folder(path, "*", several_series=True)
        if path.is_file() and is_tiff(path):
            return _file(path, what)
        if glob.has_magic(path.name) and (files := tiff_files(path.parent, path.name)):
            return _from_files(files)
    return None


def _angles(path: Path, flag: str | None, n_views: int) -> AngleList:
    if not flag:
        raise GeometryError(
            f"the scan {path} must come with one angle for each of its {n_views} views, TIFF holds none; "
            "pass --angles 0:180 (or 0:360) for evenly spaced views, or a text file in degrees"
        )
    spread = angle_range(flag, n_views)
    return spread or read_angle_file(Path(flag)).for_frames(np.arange(n_views), n_views)


def _file(path: Path, what: str) -> LazyFrames:
    pages = OnDisk(TiffPages, path)
    check_stack(pages, what, str(path))
    return LazyFrames(pages, place=str(path))


def _folder(folder: Path, pattern: str, several_series: bool = False) -> LazyFrames:
    files = tiff_files(folder, pattern)
    if not files:
        raise FormatError(
            f"the folder {folder} must hold TIFF images matching '{pattern}', got none; "
            "give the folder of the radiographs, an HDF5 file or a Zarr folder"
        )
    series = _series(files)
    if len(series) > 1 and not several_series:
        kinds = ", ".join(f"{len(members)} x {name}*" for name, members in list(series.items())[:6])
        raise FormatError(
            f"the folder {folder} must hold one series of radiographs, got {kinds}; "
            "pick with --data 'PATTERN*', and pass the others with --flats and --darks"
        )
    return _from_files(files)


def _from_files(files: list[Path]) -> LazyFrames:
    if len(files) == 1:
        return _file(files[0], "frames")
    return LazyFrames(TiffFolder(files), place=str(files[0].parent))


def _series(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Sort names by what stands before their running number."""
    found: dict[str, list[Path]] = {}
    for path in files:
        found.setdefault(re.sub(r"\d+$", "", path.stem), []).append(path)
    return found
