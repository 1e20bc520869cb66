"""Conversion of a laboratory scanner's own file to a scan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from quietray.errors import FormatError, GeometryError
from quietray.io.frames import LazyFrames, Rearranged
from quietray.io.scans.angles import AngleList, angle_range
from quietray.io.scans.elsewhere import angles_elsewhere, side_elsewhere
from quietray.io.scans.ini import Ini
from quietray.io.scans.pages import in_folder, places_in_series, running_numbers
from quietray.io.scans.raw import Flags, RawScan
from quietray.io.scans.stated import Distances, is_parallel
from quietray.types import Frames

__all__ = ["Beam", "only_file", "scan_of_scanner", "series_of", "spread", "unused"]


@dataclass(frozen=True, eq=False)
class Beam:
    """Source and detector as described by a scanner's file, and the column order of its images.

    Parameters
    ----------
    source_axis, source_detector
        Distances in mm.
    pixel
        Width of a pixel on the detector in mm.
    height
        Height of a pixel in mm; None for square pixels.
    axis
        Column that the rotation axis projects to in stored images; None if the file does not say.
    source_row
        Row at the height of the source; None for the middle.
    turned_over
        Whether columns count from right to left, as seen from the source.
    shifts
        Rows and columns by which each view must be moved down and to the right, ``(view, 2)``; None for none.
    parallel
        Whether the file declares a parallel beam, whatever the distances.
    """

    source_axis: float
    source_detector: float
    pixel: float
    height: float | None = None
    axis: float | None = None
    source_row: float | None = None
    turned_over: bool = False
    shifts: Float[np.ndarray, "view 2"] | None = None
    parallel: bool = False


def scan_of_scanner(
    frames: LazyFrames,
    angles: AngleList,
    beam: Beam,
    flags: Flags,
    *,
    sides: Mapping[str, Frames | float | None],
    provenance: Mapping[str, Any],
    notes: Iterable[str],
) -> RawScan:
    """Return the parts of a scan; what the user says overrides the scanner.

    Parameters
    ----------
    frames
        Stored radiographs.
    angles
        One angle per radiograph.
    beam
        Position of source and detector.
    flags
        What the user says.
    sides
        Flats and darks, or their levels, if the scanner gives them.
    provenance, notes
        See :class:`~quietray.io.scans.raw.RawScan`.

    Raises
    ------
    FormatError, GeometryError
        What the user names does not exist, or does not match.
    """
    beside = Path(provenance["data"]) if Path(provenance["data"]).is_dir() else Path(provenance["data"]).parent
    n_views, n_rows, n_cols = frames.shape
    if flags.angles:
        given = angle_range(flags.angles, n_views) or angles_elsewhere(flags.angles, beside)
        if given is None:
            raise FormatError(f"--angles must be a range such as 0:360 or a file, got '{flags.angles}'; check the path")
        angles = given.for_frames(np.arange(n_views), n_views, n_rows)
    found = {what: side_elsewhere(getattr(flags, what), what, beside) for what in ("flats", "darks")}
    found = {what: sides.get(what) if side is None else side for what, side in found.items()}
    parallel = flags.source_axis is None and (beam.parallel or is_parallel(beam.pixel, beam.source_detector, n_cols))
    kind = "parallel" if parallel else "fan" if n_rows == 1 else "cone"
    said = []
    if flags.source_axis is None:
        said.append(
            f"The source is {beam.source_axis:g} mm before the axis and {beam.source_detector:g} mm before the "
            f"detector: a {kind} beam."
        )
    distances = Distances(
        "fan" if kind == "fan" else "cone", beam.source_axis, beam.source_detector, beam.source_row, beam.shifts
    )
    if parallel and beam.shifts is not None:
        said.append("The shifts of the views in the file were not used, because the beam is parallel.")
    scale = beam.source_detector / beam.source_axis if parallel else 1.0
    return RawScan(
        flags.views(_turned_over(frames, beam)),
        angles.radians(flags.angle_unit or angles.declared or "deg"),
        flats=_turned_over(found["flats"], beam),
        darks=_turned_over(found["darks"], beam),
        pixel_size=beam.pixel / scale,
        row_height=None if beam.height is None else beam.height / scale,
        rotation_axis=n_cols - 1 - beam.axis if beam.axis is not None and beam.turned_over else beam.axis,
        beam=None if parallel else distances,
        provenance={**provenance, "angles": angles.place},
        notes=(*said, *notes),
    )


def _turned_over(frames: Any, beam: Beam) -> Any:
    """Return frames as seen from the source; None and levels are unchanged."""
    if not beam.turned_over or not hasattr(frames, "shape"):
        return frames
    return LazyFrames(Rearranged(frames, (0, 1, 2), (2,)), place=getattr(frames, "place", ""))


def only_file(found: list[Ini], path: Path) -> Ini:
    """Return the only file of a scanner in a folder, or the only one not written by a reconstruction program.

    Raises
    ------
    FormatError
        There are several.
    """
    raw = [ini for ini in found if "reconstruction" not in ini.values] or found
    if len(raw) > 1:
        raise FormatError(
            f"the folder {path} must hold one scan, got {', '.join(ini.path.name for ini in raw)}; give one of them"
        )
    return raw[0]


def series_of(ini: Ini, folder: Path, prefixes: Iterable[str], flags: Flags) -> tuple[LazyFrames, Path, str]:
    """Return the TIFF images of a scan, their folder, and the pattern of their names.

    Parameters
    ----------
    ini
        The scanner's file.
    folder
        Folder given in the file; otherwise, they are next to the file.
    prefixes
        Possible beginnings of their names.
    flags
        ``--data`` is a pattern that overrides the prefixes.

    Raises
    ------
    FormatError
        There are no images, or several series.
    """
    place = folder if folder.is_dir() else ini.path.parent
    patterns = [f"{_escaped(prefix)}[0-9]*.tif*" for prefix in prefixes if prefix]
    pattern = flags.data or next((one for one in patterns if any(place.glob(one))), "*")
    return in_folder(place, pattern), place, pattern


def _escaped(text: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)


def spread(
    ini: Ini, folder: Path, pattern: str, n_views: int, told: int, begin: float, step: float
) -> tuple[AngleList, list[str]]:
    """Return evenly spaced angles of a series of images, and a note on missing images.

    Parameters
    ----------
    ini
        The scanner's file.
    folder, pattern, n_views
        The series, and the number of images.
    told
        Number of images according to the file.
    begin, step
        First angle and step in degrees.

    Raises
    ------
    GeometryError
        There are more images than the file says, apart from one that repeats the first.
    """
    places, missing = places_in_series(running_numbers(folder, pattern), n_views)
    last = int(places[-1]) + 1
    if last > told + 1:
        raise GeometryError(
            f"there must be {told} radiographs in {folder}, as {ini.path.name} says, got {last}; pick those of the "
            "scan with --data 'PATTERN*', or pass --angles"
        )
    said = []
    if missing:
        shown = ", ".join(map(str, missing[:6])) + (", ..." if len(missing) > 6 else "")
        said.append(f"Of the series, number {shown} {'is' if len(missing) == 1 else 'are'} missing: the other views "
                    "keep their angles.")  # fmt: skip
    if last < told - 1:
        said.append(f"Of {told} radiographs listed in {ini.path.name}, the last {told - last} are missing.")
    return AngleList(begin + step * places.astype(np.float64), "deg", str(ini.path)), said


def unused(ini: Ini, section: str, names: Mapping[str, float]) -> list[str]:
    """Return a sentence on numbers that differ from their defaults and are not used."""
    found = {name: ini.number(section, name) for name in names}
    odd = [f"{name} = {value:g}" for name, value in found.items() if value is not None and value != names[name]]
    return [f"{ini.path.name} states {', '.join(odd)}, which was ignored."] if odd else []
