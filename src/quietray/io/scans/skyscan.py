"""SkyScan (Bruker) scanners: TIFF radiographs with a common prefix and a ``.log`` file."""

from __future__ import annotations

from quietray.errors import FormatError
from quietray.io.scans.base import ScanReader, Source
from quietray.io.scans.ini import Ini, ini_beside
from quietray.io.scans.raw import Flags, RawScan
from quietray.io.scans.scanner import Beam, only_file, scan_of_scanner, series_of, spread, unused

__all__ = ["SkyScan"]

_TAKEN = "Acquisition"
_MIDDLE = 0.02  # deviation of the source from the middle of the detector, in rows, that is not reported


class SkyScan(ScanReader):
    """A ``.log`` file of a SkyScan scanner, or its folder.

    Radiographs are corrected by the scanner; white is the full scale of their type.
    """

    files = ("SkyScan log",)

    def recognises(self, source: Source, flags: Flags) -> bool:
        """Return whether the path is such a file, or its folder."""
        return source.container is None and not flags.ignore_scanner and bool(_found(source))

    def read(self, source: Source, flags: Flags) -> RawScan:
        """Read the scan."""
        ini = only_file(_found(source), source.path)
        prefix = ini.text(_TAKEN, "Filename Prefix")
        frames, place, pattern = series_of(ini, ini.path.parent, (prefix, ini.path.stem), flags)
        n_views, n_rows, n_cols = frames.shape
        clockwise = ini.text(_TAKEN, "Rotation Direction").upper() == "CW"
        step = ini.needed(_TAKEN, "Rotation Step (deg)") * (1 if clockwise else -1)
        told = int(ini.needed(_TAKEN, "Number of Files"))
        angles, said = spread(ini, place, pattern, n_views, told, 0.0, step)
        beam, more = _beam(ini, n_rows, n_cols)
        white = _white(ini, frames.dtype.itemsize, flags)
        notes = [*said, *more, *unused(ini, "Reconstruction", {"Postalignment": 0.0})]
        if white and not flags.flats:
            notes.append(
                f"The log says that radiographs are corrected, but not the white level: the full scale, {white:g}, was "
                "assumed. Air beside the object corrects a wrong level; otherwise pass --flats LEVEL."
            )
        return scan_of_scanner(
            frames,
            angles,
            beam,
            flags,
            sides={"flats": white},
            provenance={"format": "SkyScan TIFF", "data": str(place), "scanner": str(ini.path), "sample": prefix},
            notes=notes,
        )


def _found(source: Source) -> list[Ini]:
    return ini_beside(source.path, ".log", _TAKEN, "Object to Source (mm)")


def _white(ini: Ini, n_bytes: int, flags: Flags) -> float | None:
    if flags.flats:
        return None
    if ini.text(_TAKEN, "Flat Field Correction").upper() == "OFF":
        raise FormatError(
            f"the radiographs of {ini.path} must come with flats, as it says that none were used; pass --flats"
        )
    return 2.0 ** (ini.number(_TAKEN, "Depth (bits)") or 8 * n_bytes) - 1


def _beam(ini: Ini, n_rows: int, n_cols: int) -> tuple[Beam, list[str]]:
    """Return source and detector; the pixel size on the detector is that at the object times the magnification."""
    at_object = ini.needed(_TAKEN, "Image Pixel Size (um)") / 1000
    source_axis = ini.needed(_TAKEN, "Object to Source (mm)")
    source_detector = ini.number(_TAKEN, "Camera to Source (mm)", "Camera to Source")
    notes = []
    if source_detector is None:
        camera = ini.needed("System", "Camera Pixel Size (um)") / 1000
        columns = ini.number(_TAKEN, "Number of Columns") or n_cols
        source_detector = source_axis * max(camera / at_object, 1.0)
        notes.append(
            f"The log does not give the distance from source to camera: {source_detector:g} mm was assumed, from its "
            f"pixel size ({camera:g} mm, {columns:g} columns). If this is wrong, pass --source-axis and "
            "--source-detector."
        )
    line, row = ini.number(_TAKEN, "Optical Axis (line)"), None
    if line is not None:
        row = n_rows - 1 - line
        if abs(row - (n_rows - 1) / 2) > _MIDDLE * n_rows + 1:
            notes.append(f"The source is at the height of row {row:g}: the optical axis is line {line:g}, from below.")
    ratio = ini.number("System", "CameraXYRatio", "Camera X/Y Ratio") or 1.0
    if abs(ratio - 1) > 1e-3:
        notes.append(f"The log says that pixels are not square (ratio {ratio:g}), which was ignored.")
    pixel = at_object * source_detector / source_axis
    return Beam(source_axis, source_detector, pixel, source_row=row), notes
