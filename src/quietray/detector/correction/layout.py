"""Checks of the axes of the stack and of the angles, based on the rotation of the object.

The sum over a row of line integrals does not change as the object rotates, and its centre of mass follows a sine.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from quietray.detector.correction.calibration import Correction
from quietray.detector.correction.frames import robust_sd
from quietray.errors import GeometryError
from quietray.geometry import ParallelBeam
from quietray.scan import Scan

__all__ = ["doubted_angles", "doubted_layout", "line_integrals"]

_FEWEST = 16  # least numbers of views, rows and columns for telling the axes apart
_LOOKED_AT = 16
_FINEST = 256  # rows and columns to read, or up to twice as many


def doubted_angles(scan: Scan) -> None:
    """Raise if implausibly many views have the same angle.

    Raises
    ------
    GeometryError
        They do; for example, the list was initialised with zeros and not completed.

    Examples
    --------
    >>> angles = np.deg2rad([0, 4, 8, 12, 16, 0, 0, 0, 0])
    >>> doubted_angles(Scan(np.ones((9, 1, 8)), ParallelBeam(angles, 1, 8)))
    Traceback (most recent call last):
    quietray.errors.GeometryError: every view must have its angle, got 0 degrees for 5 of 9 views; the list seems
    incomplete: pass angles='0:180' (or 0:360) for evenly spaced views, or a text file in degrees
    """
    if not isinstance(scan.geometry, ParallelBeam) or scan.n_views < 3:
        return
    angles, counts = np.unique(scan.geometry.angles.round(9), return_counts=True)
    most = int(counts.argmax())
    if counts[most] > max(3, 4 * np.median(counts)) or (len(angles) == 1 and scan.n_views > 3):
        raise GeometryError(
            f"every view must have its angle, got {np.rad2deg(angles[most]):g} degrees for {counts[most]} of "
            f"{scan.n_views} views; the list seems incomplete: pass --angles 0:180 (or 0:360) for evenly spaced views, "
            "or a text file in degrees"
        )


def doubted_layout(scan: Scan, settings: Correction) -> None:
    """Raise if the axes of the stack are clearly not views, rows and columns, unless the user has stated them.

    Raises
    ------
    GeometryError
        The axes are different.
    """
    beam = scan.geometry
    if (
        not isinstance(beam, ParallelBeam)
        or scan.provenance.get("order")
        or scan.detectors is not None
        or scan.n_cols < _FEWEST
        or scan.n_rows < _FEWEST
        or scan.n_views < 2
    ):
        return
    chosen = np.unique(np.linspace(0, scan.n_views - 1, min(_LOOKED_AT, scan.n_views)).round().astype(int))
    lines = line_integrals(scan, chosen, settings)
    if lines is None:
        return
    if scan.n_views >= _FEWEST and beam.turns >= 1 and _axis_along_a_row(lines):
        raise GeometryError(
            "the rotation axis must be parallel to the columns of the radiographs, got one parallel to the rows; pass "
            "--rotate 90, or --order view if it is not"
        )
    if _rows_are_views(lines):
        raise GeometryError(
            f"the first axis of the stack must be the views, got {scan.n_views} images that look like sinograms (row, "
            "view, col); pass --order sinogram, or --order view if they are not"
        )


def line_integrals(scan: Scan, chosen: np.ndarray, settings: Correction) -> Float[np.ndarray, "view row col"] | None:
    """Return whole views as line integrals; None if that is not possible."""
    rows, cols = (slice(None, None, max(1, size // _FINEST)) for size in (scan.n_rows, scan.n_cols))
    counts = np.concatenate([scan.read(rows, slice(int(one), int(one) + 1))[:, :, cols] for one in chosen])
    if not np.isfinite(counts).all():
        return None
    if not settings.line_integrals:
        dark = 0.0 if scan.darks is None else np.asarray(scan.darks[0:1, rows], np.float32)[:, :, cols]
        counts = counts - dark
        if scan.flats is not None:
            flat = np.mean(np.asarray(scan.flats[0:8, rows], np.float32)[:, :, cols], axis=0) - dark
            good = flat > 0.1 * np.percentile(flat, 90)
            counts = np.where(good, counts / np.where(good, flat, 1), 1)
        counts = -np.log(np.clip(counts, 1e-3, None))
    return np.asarray(counts, np.float32)


def _axis_along_a_row(lines: Float[np.ndarray, "view row col"]) -> bool:
    """Return whether sums over columns stay constant between views, while sums over rows change."""
    noise = lines[0].size * robust_sd(np.diff(lines, axis=2).ravel()) ** 2 / 2
    rows, cols = lines.sum(axis=2), lines.sum(axis=1)
    across, along = (float(sums.var(axis=0).sum() - noise) for sums in (rows, cols))
    return across > 0.003 * float((rows**2).sum(axis=1).mean()) and along < 0.1 * across


def _rows_are_views(lines: Float[np.ndarray, "image row col"]) -> bool:
    """Return whether the rows of an image, rather than the images, are the views of one slice.

    If so, every row has the same sum, and rows half a turn apart are mirror images of each other about the same column
    in all images: the first and the last row, or for a full turn the first and the middle row.
    """
    mass = lines.sum(axis=2)
    strong = mass.mean(axis=1) > 0.2 * mass.mean(axis=1).max()
    if mass.max() <= 0 or float((mass.std(axis=1) / mass.mean(axis=1))[strong].mean()) > 0.05:
        return False
    lines = lines[strong]
    first, step = lines[:, 0], float(((lines[:, 0] - lines[:, 1]) ** 2).sum())
    for other, end in ((lines[:, -1], None), (lines[:, lines.shape[1] // 2], lines[:, -1])):
        apart = float(((first - other) ** 2).sum())
        if apart < 3 * step or (end is not None and float(((first - end) ** 2).sum()) > 2 * step):
            continue
        n = 2 * lines.shape[2]
        alike = np.fft.irfft((np.fft.rfft(first, n) * np.fft.rfft(other, n)).sum(axis=0), n).max()
        mirrored = float((first**2).sum() + (other**2).sum() - 2 * alike)
        if mirrored < 1.5 * step + 0.2 * apart:
            return True
    return False
