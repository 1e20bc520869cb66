"""EDF and FITS series with one file per frame; flats, darks and angles from neighbouring files or from the user."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from quietray.errors import FormatError, GeometryError, require
from quietray.io.frames import LazyFrames
from quietray.io.one_each import FileFrames
from quietray.io.paths import natural_key
from quietray.io.scans.angles import AngleList, angle_range
from quietray.io.scans.base import ScanReader, Source
from quietray.io.scans.elsewhere import angles_elsewhere, frames_elsewhere
from quietray.io.scans.pages import angles_in_names
from quietray.io.scans.raw import Flags, RawScan
from quietray.types import Frames

__all__ = ["Edf", "Fits", "open_edf", "open_fits"]

_REFERENCE = re.compile(r"ref(HST|\d+_)\d+$", re.IGNORECASE)
_DARK = re.compile(r"dark(end)?\d*$", re.IGNORECASE)
_INFO = re.compile(r"^\s*(\w+)\s*=\s*(.*?)\s*$", re.MULTILINE)


def open_edf(path: Path) -> np.ndarray:
    """Read the image of an EDF file.

    Raises
    ------
    FormatError
        The file is damaged.
    """
    fabio = require("fabio", "edf")
    try:
        return np.asarray(fabio.open(str(path)).data)
    except Exception as error:  # fabio raises many types of exceptions
        raise _damaged(path, error) from error


def open_fits(path: Path) -> np.ndarray:
    """Read the first image of a FITS file; the offset with which FITS stores unsigned integers is removed.

    Raises
    ------
    FormatError
        The file is damaged, or contains no image.
    """
    fits = require("astropy.io.fits", "fits")
    try:
        with fits.open(path, memmap=False) as units:
            found = next((unit.data for unit in units if unit.data is not None and unit.is_image), None)
    except Exception as error:  # astropy raises many types of exceptions
        raise _damaged(path, error) from error
    if found is None:
        raise FormatError(f"{path} must hold an image, got none; give the folder of the radiographs")
    return np.squeeze(np.asarray(found))


def _damaged(path: Path, error: Exception) -> FormatError:
    return FormatError(f"{path} must be a readable image, got: {type(error).__name__}: {error}; copy it again")


class _Series(ScanReader):
    """A folder of files of one format, with one frame each."""

    endings: ClassVar[tuple[str, ...]]
    open: ClassVar[Any]

    def recognises(self, source: Source, flags: Flags) -> bool:
        """Return whether there are such files in the folder."""
        return source.path.is_dir() and len(self._all(source.path)) > 1

    def read(self, source: Source, flags: Flags) -> RawScan:
        """Read the scan."""
        folder, open = source.path, type(self).open
        files = [one for one in self._all(folder) if flags.data is None or one.match(flags.data)]
        references, darks = ([one for one in files if kind.search(one.stem)] for kind in (_REFERENCE, _DARK))
        views = [one for one in files if one not in references and one not in darks]
        if not views:
            raise FormatError(f"the folder {folder} must hold radiographs, got only flats and darks; check --data")
        told = _info(folder)
        n_told = int(told.get("TOMO_N") or len(views))
        if n_told < 1:
            raise FormatError(
                f"the .info file in {folder} must state at least one view, got TOMO_N = {n_told}; correct it"
            )
        extra, views = views[n_told:], views[:n_told]
        stem = {re.sub(r"\d+$", "", one.stem) for one in views}
        named = angles_in_names(views)
        if len(stem) > 1 and named is None:
            raise FormatError(
                f"the folder {folder} must hold one series of radiographs, got {', '.join(sorted(stem)[:6])}; pick "
                "with --data 'PATTERN*', and pass the others with --flats and --darks"
            )
        frames = LazyFrames(FileFrames(views, open), place=str(folder))
        notes = [f"{len(extra)} images after the last view, such as {extra[0].name}, were not used."] if extra else []
        taken = None
        sides = {
            what: self._side(flag, what, folder) for what, flag in (("flats", flags.flats), ("darks", flags.darks))
        }
        if sides["flats"] is None and references:
            sides["flats"] = LazyFrames(FileFrames(references, open), place=str(folder))
            taken = np.array([_number(one) for one in references])
        if sides["darks"] is None and darks:
            sides["darks"], more = _mean_darks(darks, open, told)
            notes += more
        angles = _angles(flags, folder, len(views), named, told)
        return RawScan(
            flags.views(frames),
            angles.radians(flags.angle_unit),
            flats=sides["flats"],
            darks=sides["darks"],
            pixel_size=None if not told.get("PixelSize") else float(told["PixelSize"]) / 1000,
            provenance={
                "format": f"{self.files[0]} series",
                "data": str(folder),
                "angles": angles.place,
                **{name: float(told[key]) for name, key in _FACTS.items() if float(told.get(key) or 0)},
            },
            notes=(*notes, "The series says nothing about the beam: it was assumed to be parallel.")
            if flags.source_axis is None
            else tuple(notes),
            taken=None if taken is None else np.arange(len(views)),
            flats_taken=taken,
        )

    def _all(self, folder: Path) -> list[Path]:
        found = (one for one in folder.iterdir() if one.suffix.lower() in self.endings and one.name[0] != ".")
        return sorted(found, key=natural_key)

    def _side(self, flag: str | None, what: str, folder: Path) -> Frames | float | None:
        """Return flats or darks named by a flag: a folder or a pattern of such files, or a format of other readers."""
        if not flag:
            return None
        for place in (Path(flag), folder / flag):
            files = self._all(place) if place.is_dir() else self._matching(place)
            if files:
                return LazyFrames(FileFrames(files, type(self).open), place=str(place))
        found = frames_elsewhere(flag, what, folder)
        if found is None:
            raise FormatError(
                f"--{what} must be a folder, a pattern such as 'flat_*', a file or a number, got '{flag}'"
            )
        return found

    def _matching(self, place: Path) -> list[Path]:
        if not place.parent.is_dir():
            return []
        return [one for one in self._all(place.parent) if one.match(place.name)]


class Edf(_Series):
    """A folder of EDF files as written by the ESRF, with an ``.info`` file, flats ``ref*`` and darks ``dark*``."""

    files = ("EDF",)
    endings = (".edf", ".edf.gz")
    open = staticmethod(open_edf)


class Fits(_Series):
    """A folder of FITS files, with angles from their names or from the user."""

    files = ("FITS",)
    endings = (".fits", ".fit", ".fts")
    open = staticmethod(open_fits)


_FACTS = {"energy_kev": "Energy", "propagation_mm": "Distance"}


def _info(folder: Path) -> dict[str, str]:
    """Return the content of the ``.info`` file of an ESRF scan; empty if there is none, or several."""
    found = [one for one in folder.glob("*.info") if one.name[0] != "."]
    return dict(_INFO.findall(found[0].read_text("utf-8", "replace"))) if len(found) == 1 else {}


def _number(path: Path) -> int:
    end = re.search(r"(\d+)$", path.stem)
    return int(end[1]) if end else 0


def _mean_darks(files: Sequence[Path], open: Any, told: dict[str, str]) -> tuple[np.ndarray, list[str]]:
    """Return darks; files that hold the sum of several darks are divided by their number."""
    images = np.stack([np.asarray(open(one), np.float32) for one in files])
    sums = np.array(["end" in one.stem.lower() for one in files])
    count = float(told.get("DARK_N") or 0)
    if not sums.any() or count < 2:
        return images, []
    images[sums] /= count
    names = ", ".join(one.name for one, is_sum in zip(files, sums, strict=True) if is_sum)
    return images, [f"{names}: the sum of {count:g} darks, which was divided by their number."]


def _angles(
    flags: Flags,
    folder: Path,
    n_views: int,
    named: Float[np.ndarray, " view"] | None,
    told: dict[str, str],
) -> AngleList:
    if flags.angles:
        found = angle_range(flags.angles, n_views) or angles_elsewhere(flags.angles, folder)
        if found is None:
            raise FormatError(f"--angles must be a range such as 0:180 or a file, got '{flags.angles}'; check the path")
        return found.for_frames(np.arange(n_views), n_views)
    if named is not None:
        return AngleList(named, "deg", f"the names of the files in {folder}")
    if float(told.get("ScanRange") or 0):
        whole: Int[np.ndarray, " view"] = np.arange(n_views)
        n_told = float(told.get("TOMO_N") or n_views)
        return AngleList(float(told["ScanRange"]) * whole / n_told, "deg", f"the .info file in {folder}")
    raise GeometryError(
        f"the scan {folder} must come with one angle for each of its {n_views} views, got none; pass --angles 0:180 "
        "(or 0:360) for evenly spaced views, or a text file in degrees"
    )
