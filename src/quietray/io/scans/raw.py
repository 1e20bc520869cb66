"""What readers return, and its conversion to a Scan."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float, Int

from quietray.errors import FormatError, GeometryError, SettingsError, nearest
from quietray.geometry import Geometry, ParallelBeam
from quietray.io.frames import LazyFrames, Rearranged
from quietray.io.scans.angles import check_unit
from quietray.io.scans.stated import Distances, FileBeam
from quietray.scan import Scan
from quietray.types import Frames

__all__ = ["Flags", "RawScan", "Stated"]


class Stated(TypedDict, total=False):
    """Keywords of :func:`quietray.read`; `Flags` has the same as text."""

    data: str | None
    flats: str | os.PathLike[str] | None
    darks: str | os.PathLike[str] | None
    angles: str | os.PathLike[str] | None
    image_key: str | None
    pixel_size: float | None
    rotation_axis: float | None
    angle_unit: str | None
    half: bool | None
    order: str | None
    rotate: int | None
    source_axis: float | None
    source_detector: float | None
    raw: str | None
    ignore_scanner: bool


@dataclass(frozen=True)
class Flags:
    """What the user says about the parts of a scan; None means unspecified.

    Parameters
    ----------
    data, flats, darks, angles, image_key
        Dataset paths inside a file, or paths on disk.
    pixel_size, rotation_axis
        Pixel size in mm and column of the axis; override the file.
    angle_unit
        ``deg`` or ``rad``; overrides the file.
    half
        Whether this is a half acquisition; overrides the file.
    order
        ``sinogram`` for a stack ``(row, view, col)``, ``view`` for ``(view, row, col)``; `view` also disables the check
        of the axes.
    rotate
        90 or 270 degrees by which radiographs are rotated, so that the rotation axis is parallel to their columns.
    source_axis, source_detector
        Distances of a fan or cone beam in mm; override the file.
    raw
        ``TYPE:VIEWSxROWSxCOLS`` for a raw binary file.
    ignore_scanner
        Whether images are read as if there were no scanner file beside them.

    Examples
    --------
    >>> from pathlib import Path
    >>> Flags.told({"angles": Path("theta.txt")}).angles
    'theta.txt'
    """

    data: str | None = None
    flats: str | None = None
    darks: str | None = None
    angles: str | None = None
    image_key: str | None = None
    pixel_size: float | None = None
    rotation_axis: float | None = None
    angle_unit: str | None = None
    half: bool | None = None
    order: str | None = None
    rotate: int | None = None
    source_axis: float | None = None
    source_detector: float | None = None
    raw: str | None = None
    ignore_scanner: bool = False

    @classmethod
    def told(cls, stated: Mapping[str, Any]) -> Flags:
        """Return the keywords of :func:`quietray.read` as flags, with paths as text.

        Raises
        ------
        TypeError
            A keyword is unknown.
        SettingsError
            `angle_unit` is unknown.
        """
        known = [entry.name for entry in dataclasses.fields(cls)]
        for name in stated:
            if name not in known:
                raise TypeError(
                    f"keywords of read() must be among {', '.join(known)}, got '{name}'{nearest(name, known)}"
                )
        check_unit(stated.get("angle_unit"))
        for name, allowed in (("order", (None, "view", "sinogram")), ("rotate", (None, 90, 270))):
            if stated.get(name) not in allowed:
                raise SettingsError(f"{name} must be {allowed[1]} or {allowed[2]}, got {stated[name]!r}")
        if (stated.get("source_axis") is None) != (stated.get("source_detector") is None):
            raise SettingsError(
                "a diverging beam must have two distances, got one; give --source-axis and --source-detector"
            )
        plain = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in stated.items()}
        return cls(**plain)

    def views(self, stored: LazyFrames) -> LazyFrames:
        """Return projections ``(view, row, col)`` from a stack in the order given by the user."""
        if self.order == "sinogram":
            stored = LazyFrames(Rearranged(stored, (1, 0, 2)), place=stored.place)
        return stored if self.rotate is None else LazyFrames(self.turned(stored), place=stored.place)

    def turned(self, frames: Frames) -> Frames:
        """Return frames rotated as requested."""
        if self.rotate is None:
            return frames
        return Rearranged(frames, (0, 2, 1), (2,) if self.rotate == 90 else (1,))

    def said(self) -> dict[str, str]:
        """Return the settings that concern the axes of the stack, for the provenance."""
        order = self.order or ("view" if self.rotate else None)
        return {} if order is None else {"order": order}


@dataclass(frozen=True, eq=False)
class RawScan:
    """The parts of a scan, as returned by a reader.

    Parameters
    ----------
    projections, flats, darks
        Stacks ``(frame, row, col)``, still on disk; flats and darks may be a single level for all pixels.
    angles
        Angles in radians, ``(n_views,)``.
    pixel_size, row_height, exposure, rotation_axis
        In mm, mm, seconds and columns; None if not in the file.
    beam
        Description of a diverging beam; None for a parallel one.
    half
        Whether it is a half acquisition; None if not in the file.
    provenance, notes, truth, clean, detectors, flat_detectors, dark_detectors, taken, flats_taken
        See :class:`quietray.scan.Scan`.
    """

    projections: LazyFrames
    angles: Float[np.ndarray, " view"]
    flats: Frames | float | None = None
    darks: Frames | float | None = None
    pixel_size: float | None = None
    exposure: float | None = None
    rotation_axis: float | None = None
    beam: FileBeam | None = None
    half: bool | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    truth: Frames | None = None
    clean: LazyFrames | None = None
    row_height: float | None = None
    taken: Int[np.ndarray, " view"] | None = None
    flats_taken: Int[np.ndarray, " flat"] | None = None
    detectors: Int[np.ndarray, " view"] | None = None
    flat_detectors: Int[np.ndarray, " flat"] | None = None
    dark_detectors: Int[np.ndarray, " dark"] | None = None

    def finish(self, source: str, flags: Flags = Flags()) -> Scan:
        """Return the scan, without a last view that repeats the first.

        Parameters
        ----------
        source
            The file or folder that was read.
        flags
            What the user says; overrides the file.

        Raises
        ------
        FormatError, GeometryError
            The parts do not match.
        """
        n_views, n_rows, n_cols = self.projections.shape
        if n_views < 2:
            raise GeometryError(
                f"a scan must have at least 2 views, got {n_views} in {self.projections.place}; "
                "give the whole stack of radiographs; if the image is a sinogram (view, col), pass --order sinogram"
            )
        stated = self.beam
        if flags.source_axis is not None and flags.source_detector is not None:
            stated = Distances("fan" if n_rows == 1 else "cone", flags.source_axis, flags.source_detector)
        axis = self.rotation_axis if flags.rotation_axis is None else flags.rotation_axis
        to_be_found = isinstance(stated, Distances) and axis is None
        beam = (stated.beam if stated else ParallelBeam)(
            self.angles,
            n_rows,
            n_cols,
            axis,
            self.pixel_size if flags.pixel_size is None else flags.pixel_size,
        )
        beam = dataclasses.replace(beam, half=self.half if flags.half is None else flags.half)
        beam, more = self._tall_pixels(beam, flags)
        sides = {what: self._side(what, flags) for what in ("flats", "darks")}
        levels = tuple(
            f"The {what} are one level for all pixels, {frames:g}, as stated."
            for what, frames in (("flats", self.flats), ("darks", self.darks))
            if isinstance(frames, float)
        )
        scan = Scan(
            self.projections,
            beam,
            flats=sides["flats"],
            darks=sides["darks"],
            exposure=self.exposure,
            source=source,
            provenance={**self.provenance, **flags.said(), **({"axis": "to be found"} if to_be_found else {})},
            notes=(*self.notes, *more, *levels),
            truth=self.truth,
            clean=self.clean,
            detectors=self.detectors,
            flat_detectors=self.flat_detectors,
            dark_detectors=self.dark_detectors,
            taken=self.taken,
            flats_taken=self.flats_taken,
        )
        same = self.detectors is None or self.detectors[0] == self.detectors[-1]
        return self._without_repeat(scan) if beam.repeated_last_view and same else scan

    def _tall_pixels(self, beam: Geometry, flags: Flags) -> tuple[Geometry, tuple[str, ...]]:
        """Return the beam with the height of pixels that are not square, and a note."""
        width, height = self.pixel_size, self.row_height
        if flags.pixel_size is not None or not width or not height or abs(height / width - 1) < 1e-3:
            return beam, ()
        if flags.rotate is not None:
            width, height = height, width
        if not isinstance(beam, ParallelBeam):
            raise GeometryError(
                f"a diverging beam must have a detector of square pixels, got {width:g} x {height:g} mm; resample the "
                "projections and give the pixel size with --pixel-size"
            )
        said = f"Pixels are {width:g} mm wide and {height:g} mm high, which is the distance of the slices."
        return dataclasses.replace(beam, pixel_size=width, row_height=height), (said,)

    def _side(self, what: str, flags: Flags) -> Frames | None:
        """Return flats or darks as frames of the size of the projections."""
        frames: Frames | float | None = getattr(self, what)
        n_views, n_rows, n_cols = self.projections.shape
        if frames is None:
            return None
        if isinstance(frames, float):
            return np.broadcast_to(np.float32(frames), (1, n_rows, n_cols))
        turned = flags.turned(frames)
        if tuple(turned.shape[1:]) == (n_views, n_cols) != (n_rows, n_cols):
            raise FormatError(
                f"{what} must be frames of the projections' size {(n_rows, n_cols)}, got {tuple(turned.shape[1:])}, as "
                "with sinograms (row, view, col); pass --order sinogram"
            )
        return turned

    def _without_repeat(self, scan: Scan) -> Scan:
        angles = np.rad2deg(scan.geometry.angles)
        swept = abs(angles[-1] - angles[0])
        verb = "mirrors" if swept < 270 else "repeats"
        note = (
            f"The last view ({angles[-1]:.2f} degrees) {verb} the first one ({angles[0]:.2f} degrees); it was dropped, "
            f"{scan.n_views - 1} views are left."
        )
        kept = np.arange(scan.n_views - 1)
        shorter = dataclasses.replace(
            scan,
            projections=self.projections.pick(kept),
            clean=self.clean.pick(kept) if self.clean is not None else None,
            geometry=scan.geometry[:-1],
            detectors=None if scan.detectors is None else scan.detectors[:-1],
            taken=None if scan.taken is None else scan.taken[:-1],
        )
        return shorter.with_note(note)
