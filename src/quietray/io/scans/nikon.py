"""Nikon (X-Tek) scanners: TIFF radiographs and an ``.xtekct`` file."""

from __future__ import annotations

from pathlib import PureWindowsPath

from quietray.io.scans.base import ScanReader, Source
from quietray.io.scans.ini import Ini, ini_beside
from quietray.io.scans.raw import Flags, RawScan
from quietray.io.scans.scanner import Beam, only_file, scan_of_scanner, series_of, spread, unused

__all__ = ["Nikon"]

_SECTION = "XTekCT"
_UNITS = {"": 1.0, "mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3}
_UNUSED = {"ObjectTilt": 0.0, "DetectorOffsetX": 0.0, "DetectorOffsetY": 0.0, "Scattering": 0.0, "CoefX4": 0.0}
_UNUSED |= {"CoefX3": 0.0, "CoefX2": 0.0, "CoefX1": 1.0, "CoefX0": 0.0}


class Nikon(ScanReader):
    """An ``.xtekct`` file, or its folder.

    Radiographs are corrected by the scanner and have a white level.  They show the detector from behind, so they are
    mirrored when they are read.
    """

    files = ("Nikon xtekct",)

    def recognises(self, source: Source, flags: Flags) -> bool:
        """Return whether the path is such a file, or its folder."""
        return source.container is None and not flags.ignore_scanner and bool(_found(source))

    def read(self, source: Source, flags: Flags) -> RawScan:
        """Read the scan."""
        ini = only_file(_found(source), source.path)
        unit = _UNITS.get(ini.text(_SECTION, "Units").lower(), 1.0)
        folder = ini.path.parent / PureWindowsPath(ini.text(_SECTION, "InputFolderName") or ".").name
        name = ini.text(_SECTION, "Name") or ini.path.stem
        separator = ini.text(_SECTION, "InputSeparator") or "_"
        frames, place, pattern = series_of(ini, folder, (f"{name}{separator}", name), flags)
        n_views, n_rows, n_cols = frames.shape
        angles, said = spread(
            ini,
            place,
            pattern,
            n_views,
            int(ini.needed(_SECTION, "Projections")),
            ini.number(_SECTION, "InitialAngle") or 0.0,
            ini.needed(_SECTION, "AngularStep"),
        )
        beam, more = _beam(ini, unit, n_rows, n_cols)
        white = ini.number(_SECTION, "WhiteLevel")
        return scan_of_scanner(
            frames,
            angles,
            beam,
            flags,
            sides={"flats": white or None},
            provenance={"format": "Nikon TIFF", "data": str(place), "scanner": str(ini.path), "sample": name},
            notes=(*said, *more, *unused(ini, _SECTION, _UNUSED)),
        )


def _found(source: Source) -> list[Ini]:
    return ini_beside(source.path, ".xtekct", _SECTION, "SrcToObject")


def _beam(ini: Ini, unit: float, n_rows: int, n_cols: int) -> tuple[Beam, list[str]]:
    """Return source and detector; the axis is at the given position at the object, or midway between its ends."""
    source_axis, source_detector = (ini.needed(_SECTION, name) * unit for name in ("SrcToObject", "SrcToDetector"))
    pixel = ini.needed(_SECTION, "DetectorPixelSizeX") * unit
    height = (ini.number(_SECTION, "DetectorPixelSizeY") or pixel / unit) * unit
    top, bottom = (ini.number(_SECTION, f"CentreOfRotation{end}") or 0.0 for end in ("Top", "Bottom"))
    at_object = ini.number(_SECTION, "ObjectOffsetX")
    aside = (top + bottom) / 2 if at_object is None else at_object * source_detector / source_axis
    notes = []
    roll = ini.number(_SECTION, "ObjectRoll")
    leaning = abs(top - bottom) * unit if roll is None else abs(roll) / 57.3 * n_rows * height
    if leaning > pixel:
        notes.append(
            f"The rotation axis is tilted by {leaning / pixel:.1f} pixels from the top to the bottom of the detector, "
            "which was ignored; to use it, write the vectors of every view (docs/scan-file.md)."
        )
    if height != pixel:
        notes.append(f"Pixels are {pixel:g} mm wide and {height:g} mm high.")
    columns = (n_cols - 1) / 2 + aside * unit / pixel
    return Beam(source_axis, source_detector, pixel, height, columns, turned_over=True), notes
