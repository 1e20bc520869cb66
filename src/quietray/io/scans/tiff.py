"""TIFF scans: a multi-page file or a folder of frames; flats, darks and angles are given by the user."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from quietray.errors import FormatError, GeometryError
from quietray.io.frames import check_stack
from quietray.io.scans.angles import AngleList, angle_range, read_angle_file
from quietray.io.scans.base import ScanReader, Source
from quietray.io.scans.elsewhere import angles_elsewhere, side_elsewhere
from quietray.io.scans.pages import angles_in_names, in_file, in_folder, places_in_series, running_numbers
from quietray.io.scans.raw import Flags, RawScan
from quietray.io.tiff import is_tiff, series_folders, tiff_files

__all__ = ["Tiff"]

_MOST_MISSING = 0.1  # fraction of the files of a series
_SIDECARS = (".xtekct", ".log", ".pca", ".txrm", ".xrm")


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
        """Read the scan."""
        path = source.path
        if flags.image_key:
            raise FormatError("--image-key must be left out for TIFF, which has no datasets; pass --flats and --darks")
        pattern = flags.data or "*"
        projections = flags.views(in_folder(path, pattern) if path.is_dir() else in_file(path, "projections"))
        check_stack(projections, "projections", str(path))
        if len(projections) == 1:
            raise GeometryError(
                f"a scan must have at least 2 views, got one image in {path}; give the whole stack of radiographs; if "
                "the image is a sinogram (view, col), pass --order sinogram and --angles, such as 0:180"
            )
        files = tiff_files(path, pattern) if path.is_dir() and flags.order != "sinogram" else []
        named = angles_in_names(files) if not flags.angles else None
        angles, notes = _named(named, path), list[str]()
        if angles is None:
            angles, notes = _angles(
                path, flags.angles, len(projections), running_numbers(path, pattern) if files else None
            )
        beside = path if path.is_dir() else path.parent
        if flags.source_axis is None:
            notes.append(_parallel(path))
        return RawScan(
            projections,
            angles.radians(flags.angle_unit),
            flats=side_elsewhere(flags.flats, "flats", beside),
            darks=side_elsewhere(flags.darks, "darks", beside),
            provenance={
                "format": "TIFF folder" if path.is_dir() else "TIFF stack",
                "data": str(path),
                "angles": angles.place,
            },
            notes=tuple(notes),
        )


def _named(degrees: Float[np.ndarray, " view"] | None, folder: Path) -> AngleList | None:
    return None if degrees is None else AngleList(degrees, "deg", f"the names of the files in {folder}")


def _angles(
    path: Path, flag: str | None, n_views: int, numbers: Int[np.ndarray, " view"] | None
) -> tuple[AngleList, list[str]]:
    """Return the angles of the views, and a note on files missing in a numbered series."""
    if not flag:
        raise GeometryError(
            f"the scan {path} must come with one angle for each of its {n_views} views, TIFF holds none; pass --angles "
            "0:180 (or 0:360) for evenly spaced views, or a text file in degrees; for reconstructed slices, name a "
            "method for images, such as --method recorrupted or bilateral"
        )
    places, missing = places_in_series(numbers, n_views)
    n_whole = n_views + len(missing)
    said = [f"Of the series, number {', '.join(map(str, missing[:6]))} {'is' if len(missing) == 1 else 'are'} missing"]
    spread = angle_range(flag, n_whole)
    if spread is None:
        spread = angles_elsewhere(flag, path if path.is_dir() else path.parent) or read_angle_file(Path(flag))
        if spread.values.size == n_views and missing:
            return spread, [f"{said[0]}, which the list of angles leaves out, too."]
    elif len(missing) > _MOST_MISSING * n_whole:
        raise GeometryError(
            f"a series of files must be complete if the angles are evenly spaced, got {len(missing)} of {n_whole} "
            f"numbers without a file ({', '.join(map(str, missing[:6]))}, ...) in {path}; pass a list of angles with "
            "--angles, or copy the files again"
        )
    return spread.for_frames(places, n_whole), [f"{said[0]}: the other views keep their angles."] if missing else []


def _parallel(path: Path) -> str:
    """Return a note on the beam, which TIFF files do not describe."""
    folder = path if path.is_dir() else path.parent
    beside = sorted(one.name for one in folder.iterdir() if one.suffix.lower() in _SIDECARS)
    told = f" ({', '.join(beside[:3])} beside it was not read)" if beside else ""
    return (
        f"TIFF says nothing about the beam{told}: it was assumed to be parallel. For a cone beam, pass --source-axis "
        "and --source-detector in mm and --pixel-size, that of the detector."
    )
