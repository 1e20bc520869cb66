"""Predicts from samples of a scan what a run would find and report, before anything is computed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from quietray.detector.correction.claims import Claims, claims_of
from quietray.detector.correction.correct import Correction, calibrate
from quietray.detector.correction.rotation import find_rotation_axis
from quietray.detector.correction.sweep import unchecked_angles
from quietray.errors import QuietrayError
from quietray.geometry import ParallelBeam
from quietray.preparation.prepare import diverging_axis, usable
from quietray.reconstruct import FBP
from quietray.scan import Scan

__all__ = ["Examined", "examine"]

_VIEWS, _ROWS = 400, 12  # rows that are corrected
_AXIS = 400 * 1200  # views times columns; finding the axis would take too long for more


@dataclass(frozen=True, eq=False)
class Examined:
    """Result of the examination.

    Parameters
    ----------
    scan
        The scan as a run would use it.
    found
        Sentences that a run would report.
    looked_at
        Description of the part of the scan that was examined.
    refusal
        Why a run would be refused; None if it would not be.
    """

    scan: Scan
    found: tuple[str, ...]
    looked_at: str
    refusal: QuietrayError | None

    def record(self) -> dict[str, str]:
        """Return the result as text, by name."""
        said = {f"found {number}": text for number, text in enumerate(self.found, 1)}
        verdict = "would be refused: " + str(self.refusal) if self.refusal else "would go on"
        return {**said, "looked at": self.looked_at, "a run": verdict}


def examine(scan: Scan, correction: Correction, seconds: float, *, axis: bool) -> Examined:
    """Examine a few rows of as many views as time permits, and correct a few rows of some views.

    Parameters
    ----------
    scan
        The scan as read.
    correction
        Settings of the correction.
    seconds
        Time available for examining the views.
    axis
        Whether to look for the rotation axis.

    Examples
    --------
    >>> counts = np.random.default_rng(0).poisson(90, (20, 4, 30)).astype(np.uint16)
    >>> counts[4:6] = 0
    >>> scan = Scan(counts, ParallelBeam(np.linspace(0, 3, 20), 4, 30), flats=np.full((1, 4, 30), 90))
    >>> examine(scan, Correction(), 5.0, axis=False).found[0]
    'Views 4 to 5 (2 of 20) were never written (they hold one value only): left out.'
    """
    claims = claims_of(scan, correction, seconds)
    found, refusal = list(claims.found), claims.refusal
    seen, total = claims.looked_at
    looked = f"all {total} views" if seen == total else f"{seen} of {total} views"
    if refusal is None:
        part, rows, every = _part(claims)
        whose = "them" if every == 1 else f"one view in {every}"
        looked += f"; rows {rows.start} to {rows.stop - 1} of {whose} were corrected"
        try:
            calibration = calibrate(part, usable(correction, part)[0])
            found += (*calibration.notes, *unchecked_angles(claims.scan))
            FBP().for_beam(claims.scan.geometry)  # as in a run with default settings
            if axis and isinstance(part.geometry, ParallelBeam) and part.geometry.rotation_axis is None:
                found += _axis(part, calibration)
            elif axis and (part.geometry.rotation_axis is None or part.provenance.get("axis") == "to be found"):
                found.append(diverging_axis(part, calibration)[1])
        except QuietrayError as error:
            refusal = error
    return Examined(claims.scan, tuple(found), looked, refusal)


def _part(claims: Claims) -> tuple[Scan, slice, int]:
    """Return some rows of some views in memory, the numbers of the rows, and the step between views."""
    scan = claims.scan
    n_rows = min(_ROWS, scan.n_rows)
    first = (scan.n_rows - n_rows) // 2
    rows = slice(first, first + n_rows)
    seen, total = claims.looked_at
    every = max(1, -(-scan.n_views // _VIEWS), total // max(1, seen))
    some = scan[::every]

    def band(frames: Any) -> Any:
        return None if frames is None else np.asarray(frames[:, rows])

    geometry = some.geometry.rows(n_rows)
    part = dataclasses.replace(
        some,
        projections=band(some.projections),
        flats=band(some.flats),
        darks=band(some.darks),
        geometry=geometry,
        truth=None,
        clean=None,
    )
    return part, rows, every


def _axis(part: Scan, calibration: Any) -> tuple[str, ...]:
    if part.n_views * part.n_cols > _AXIS:
        return ()
    found = find_rotation_axis(part, calibration)
    return found.notes or (f"Rotation axis found at column {found.column:.2f} ({found.method}).",)
