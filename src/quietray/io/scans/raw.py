"""What every reader hands over, and the one place that turns it into a Scan."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float, Int

from quietray.errors import GeometryError, nearest
from quietray.geometry import ParallelBeam
from quietray.io.frames import LazyFrames
from quietray.io.scans.angles import check_unit
from quietray.io.scans.stated import FileBeam
from quietray.scan import Scan
from quietray.types import Frames

__all__ = ["Flags", "RawScan", "Stated"]


class Stated(TypedDict, total=False):
    """What the user may say of a scan, as keywords of :func:`quietray.read`; `Flags` has the same, as text."""

    data: str | None
    flats: str | os.PathLike[str] | None
    darks: str | os.PathLike[str] | None
    angles: str | os.PathLike[str] | None
    image_key: str | None
    pixel_size: float | None
    rotation_axis: float | None
    angle_unit: str | None
    half: bool | None


@dataclass(frozen=True)
class Flags:
    """Where the user says that the parts of a scan are; None means: find out.

    Parameters
    ----------
    data, flats, darks, angles, image_key
        Dataset paths inside a file, or paths on disk.
    pixel_size, rotation_axis
        In mm and as a column; overrule what the file says.
    angle_unit
        ``deg`` or ``rad``; overrules what the file says.
    half
        Whether this is a half acquisition; overrules what the file says.

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

    @classmethod
    def told(cls, stated: Mapping[str, Any]) -> Flags:
        """Return the keywords of :func:`quietray.read` as flags, paths as text.

        Raises
        ------
        TypeError
            There is no such keyword.
        SettingsError
            `angle_unit` is unknown.
        """
        known = [entry.name for entry in dataclasses.fields(cls)]
        for name in stated:
            if name not in known:
                raise TypeError(
                    f"read() must be told of {', '.join(known)}, got the keyword '{name}'{nearest(name, known)}"
                )
        check_unit(stated.get("angle_unit"))
        plain = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in stated.items()}
        return cls(**plain)


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
    half
        Whether it is a half acquisition; None when the file does not say.
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
    half: bool | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    truth: Frames | None = None
    clean: LazyFrames | None = None
    detectors: Int[np.ndarray, " view"] | None = None
    flat_detectors: Int[np.ndarray, " flat"] | None = None
    dark_detectors: Int[np.ndarray, " dark"] | None = None

    def finish(self, source: str, flags: Flags) -> Scan:
        """Return the scan, without a repeated last view.

        Parameters
        ----------
        source
            The file or folder that was read.
        flags
            What the user says of pixel size, rotation axis and half acquisition overrules the file.

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
        told = (
            self.rotation_axis if flags.rotation_axis is None else flags.rotation_axis,
            self.pixel_size if flags.pixel_size is None else flags.pixel_size,
        )
        half = self.half if flags.half is None else flags.half
        make = self.beam.beam if self.beam else ParallelBeam
        beam = dataclasses.replace(make(self.angles, n_rows, n_cols, *told), half=half)
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
