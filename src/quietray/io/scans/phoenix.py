"""GE (phoenix, now Waygate) scanners: TIFF radiographs and a ``.pca`` file."""

from __future__ import annotations

from quietray.io.scans.base import ScanReader, Source
from quietray.io.scans.ini import Ini, ini_beside
from quietray.io.scans.raw import Flags, RawScan
from quietray.io.scans.scanner import Beam, only_file, scan_of_scanner, series_of, spread, unused

__all__ = ["Phoenix"]

_SECTION = "Geometry"
_ODD = {"DetectorRot": 0.0, "Tilt": 0.0}


class Phoenix(ScanReader):
    """A ``.pca`` file, or its folder.

    Radiographs are corrected by the scanner; their white level is the value that it calls free ray.
    """

    files = ("GE pca",)

    def recognises(self, source: Source, flags: Flags) -> bool:
        """Return whether the path is such a file, or its folder."""
        return source.container is None and not flags.ignore_scanner and bool(_found(source))

    def read(self, source: Source, flags: Flags) -> RawScan:
        """Read the scan."""
        ini = only_file(_found(source), source.path)
        stem = ini.path.stem
        frames, place, pattern = series_of(ini, ini.path.parent, (f"{stem}_", stem), flags)
        n_views, n_rows, n_cols = frames.shape
        told = int(ini.needed("CT", "NumberImages"))
        step = (ini.number("CT", "RotationSector") or 360.0) / told
        angles, said = spread(ini, place, pattern, n_views, told, 0.0, step)
        white = ini.number("Image", "FreeRay")
        return scan_of_scanner(
            frames,
            angles,
            _beam(ini, n_rows, n_cols),
            flags,
            sides={"flats": white or None},
            provenance={"format": "GE TIFF", "data": str(place), "scanner": str(ini.path), "sample": stem},
            notes=(*said, *unused(ini, _SECTION, _ODD)),
        )


def _found(source: Source) -> list[Ini]:
    return ini_beside(source.path, ".pca", _SECTION, "FDD")


def _beam(ini: Ini, n_rows: int, n_cols: int) -> Beam:
    """Return source and detector; the axis and the source are at the middle of the detector."""
    source_axis, source_detector = ini.needed(_SECTION, "FOD"), ini.needed(_SECTION, "FDD")
    magnification = source_detector / source_axis
    width, height = (ini.number(_SECTION, f"VoxelSize{one}", "Voxelsize") for one in "XY")
    pixel = (width or ini.needed(_SECTION, "VoxelSizeX")) * magnification
    column, row = ini.number(_SECTION, "cx"), ini.number(_SECTION, "cy")
    tall = None if height is None else height * magnification
    return Beam(source_axis, source_detector, pixel, tall, column, row)
