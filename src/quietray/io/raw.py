"""What every reader hands over, and the one place that turns it into a Scan."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from quietray.errors import FormatError, GeometryError
from quietray.geometry import ParallelBeam
from quietray.io.frames import LazyFrames
from quietray.io.stated import FileBeam
from quietray.scan import Scan
from quietray.types import Frames

__all__ = ["Flags", "RawScan", "check_stack"]


@dataclass(frozen=True)
class Flags:
    """Where the user says that the parts of a scan are; None means: find out.

    Parameters
    ----------
    data, flats, darks, angles, image_key
        Dataset paths inside a file, or paths on disk.
    angle_unit
        ``deg`` or ``rad``; overrules what the file says.
    """

    data: str | None = None
    flats: str | None = None
    darks: str | None = None
    angles: str | None = None
    image_key: str | None = None
    angle_unit: str | None = None


@dataclass(frozen=True, eq=False)
class RawScan:
    """The parts of a scan as one reader found them.

    Parameters
    ----------
    projections, flats, darks
        Stacks ``(frame, row, col)``, still on disk.
    angles
        ``(n_views,)`` in radians.
    pixel_size, exposure, rotation_axis
        mm, seconds and column; None when the file does not say.
    beam
        How it diverges; None for a parallel beam.
    provenance, notes, truth, clean, detectors, flat_detectors, dark_detectors
        As in :class:`quietray.scan.Scan`.
    """

    projections: LazyFrames
    angles: Float[np.ndarray, " view"]
    flats: Frames | None = None
    darks: Frames | None = None
    pixel_size: float | None = None
    exposure: float | None = None
    rotation_axis: float | None = None
    beam: FileBeam | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    truth: Frames | None = None
    clean: LazyFrames | None = None
    detectors: Int[np.ndarray, " view"] | None = None
    flat_detectors: Int[np.ndarray, " flat"] | None = None
    dark_detectors: Int[np.ndarray, " dark"] | None = None

    def finish(self, source: str, pixel_size: float | None = None, rotation_axis: float | None = None) -> Scan:
        """Return the scan, without a repeated last view.

        Parameters
        ----------
        source
            The file or folder that was read.
        pixel_size, rotation_axis
            What the user says, in mm and as a column; overrules the file.

        Raises
        ------
        FormatError, GeometryError
            The parts do not make a scan.
        """
        n_views, n_rows, n_cols = self.projections.shape
        if n_views < 2:
            raise GeometryError(
                f"a scan must have at least 2 views, got {n_views} in {self.projections.place}; "
                "give the whole stack of radiographs"
            )
        beam = (self.beam.beam if self.beam else ParallelBeam)(
            self.angles,
            n_rows,
            n_cols,
            self.rotation_axis if rotation_axis is None else rotation_axis,
            self.pixel_size if pixel_size is None else pixel_size,
        )
        scan = Scan(
            self.projections,
            beam,
            flats=self.flats,
            darks=self.darks,
            exposure=self.exposure,
            source=source,
            provenance=self.provenance,
            notes=self.notes,
            truth=self.truth,
            clean=self.clean,
            detectors=self.detectors,
            flat_detectors=self.flat_detectors,
            dark_detectors=self.dark_detectors,
        )
        same = self.detectors is None or self.detectors[0] == self.detectors[-1]
        return self._without_repeat(scan) if beam.repeated_last_view and same else scan

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
        )
        return shorter.with_note(note)


def check_stack(frames: Frames, what: str, place: str) -> None:
    """Check that an array can be radiographs: three axes of real numbers, none of them empty; a volume may have four.

    Raises
    ------
    FormatError
        It cannot.

    Examples
    --------
    >>> check_stack(np.ones((2, 3, 4)), "projections", "here")
    """
    shape, dtype = tuple(frames.shape), np.dtype(frames.dtype)
    if dtype.kind not in "iuf":
        raise FormatError(
            f"{what} must be real numbers (integers or floats), got type {dtype} in {place}; "
            "convert them, or name another dataset"
        )
    if len(shape) != 3 and not (what == "volume" and len(shape) == 4):
        raise FormatError(
            f"{what} must be a stack (frame, row, col), got shape {shape} in {place}; name a dataset with three axes"
        )
    if min(shape) < 1:
        raise FormatError(f"{what} must hold frames, got shape {shape} in {place}; the scan seems never to have run")
