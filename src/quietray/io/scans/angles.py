"""Angles: lists in text, NumPy or HDF5 files, ranges, and their units."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from quietray.errors import FormatError, GeometryError, SettingsError

__all__ = ["AngleList", "angle_range", "check_unit", "read_angle_file", "unit_of", "unwrapped"]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_TELLING_COLUMNS = ("angle", "theta", "rotation")


@dataclass(frozen=True, eq=False)
class AngleList:
    """Angles as given in a file.

    Parameters
    ----------
    values
        Values ``(n,)`` in the unit of the file.
    declared
        ``deg`` or ``rad`` if the file states a unit, else None.
    place
        Where they come from, for messages.

    Examples
    --------
    >>> AngleList(np.array([0.0, 90.0]), None, "here").radians(None).round(3).tolist()
    [0.0, 1.571]
    """

    values: Float[np.ndarray, " angle"]
    declared: str | None
    place: str

    def radians(self, angle_unit: str | None) -> Float[np.ndarray, " angle"]:
        """Return the angles in radians; `angle_unit` (``deg`` or ``rad``) overrides the unit of the file.

        Raises
        ------
        GeometryError
            An angle is not finite, or the values contradict the unit.
        """
        bad = np.flatnonzero(~np.isfinite(self.values))
        if bad.size:
            raise GeometryError(
                f"angles must be finite numbers, got {self.values[bad[0]]} at view {bad[0]} ({bad.size} of "
                f"{self.values.size}) in {self.place}; give a corrected list with --angles"
            )
        if self.values.size > 2 and np.ptp(self.values) == 0:
            raise GeometryError(
                f"there must be an angle for each view, got {self.values[0]:g} for all {self.values.size} in "
                f"{self.place}; pass --angles 0:180 (or 0:360) for evenly spaced views, or a text file in degrees"
            )
        if angle_unit is None:
            self._check_plausible()
        unit = angle_unit or self.declared or "deg"
        return unwrapped(np.deg2rad(self.values) if unit == "deg" else self.values.astype(np.float64))

    def _check_plausible(self) -> None:
        """Raise if radians are taken for degrees or vice versa, unless the user has stated the unit."""
        if self.values.size < 8:
            return
        swept = float(np.ptp(self.values))
        covered = swept * self.values.size / (self.values.size - 1)
        near_turn = any(abs(covered / whole - 1) < 0.07 for whole in (math.pi, 2 * math.pi))
        if self.declared != "rad" and (near_turn or (self.declared is None and swept < 2 * math.pi * 1.05)):
            raise GeometryError(
                f"the angles must be in degrees, got {self.values.size} views within {swept:.4g} in {self.place}, "
                "which look like radians; pass --angle-unit rad if they are, --angle-unit deg if they are not"
            )
        if self.declared == "rad" and any(abs(covered / whole - 1) < 0.07 for whole in (180.0, 360.0)):
            raise GeometryError(
                f"the angles must be in radians as the file says, got a range of {swept:.4g} in {self.place}, "
                "which looks like degrees; pass --angle-unit deg if they are, --angle-unit rad if they are not"
            )

    def for_frames(self, chosen: np.ndarray, n_frames: int, n_rows: int = 0) -> AngleList:
        """Return the angles of the `chosen` of `n_frames` frames; the list is for all frames or for the chosen ones.

        Raises
        ------
        GeometryError
            The length of the list matches neither.  If it matches the `n_rows` rows of a frame, the stack seems to hold
            sinograms.
        """
        if self.values.size == len(chosen):
            return self
        if self.values.size == n_frames:
            return AngleList(self.values[chosen], self.declared, self.place)
        other = f" (or one for each of the {n_frames} frames)" if n_frames != len(chosen) else ""
        advice = "give the right list with --angles"
        if self.values.size == n_rows:
            advice = "as many as a frame has rows: if the stack holds sinograms (row, view, col), pass --order sinogram"
        raise GeometryError(
            f"there must be one angle per view, got {self.values.size} angles in {self.place} "
            f"for {len(chosen)} views{other}; {advice}"
        )


def unwrapped(angles: Float[np.ndarray, " view"]) -> Float[np.ndarray, " view"]:
    """Return angles without jumps by a full turn, in radians.

    This is only done if all steps are small and in the same direction; interlaced and golden-angle views are left
    unchanged.

    Examples
    --------
    >>> np.rad2deg(unwrapped(np.deg2rad([270.0, 315.0, 0.0, 45.0]))).round(1).tolist()
    [270.0, 315.0, 360.0, 405.0]
    """
    steps = np.diff(angles)
    small = np.mod(steps + math.pi, 2 * math.pi) - math.pi
    one_way = (small > -1e-6).all() or (small < 1e-6).all()
    if not (np.abs(steps) > math.pi).any() or not one_way or np.abs(small).max() > math.pi / 3:
        return angles
    return np.asarray(np.concatenate([angles[:1], angles[0] + np.cumsum(small)]))


def check_unit(angle_unit: str | None) -> None:
    """Raise unless a unit given by the user is known.

    Raises
    ------
    SettingsError
        It is neither ``deg`` nor ``rad``.
    """
    if angle_unit not in (None, "deg", "rad"):
        raise SettingsError(f"angle_unit must be 'deg' or 'rad', got '{angle_unit}'")


def unit_of(text: str | None) -> str | None:
    """Return ``deg`` or ``rad`` for the units attribute of a dataset, or None if it is neither.

    Examples
    --------
    >>> unit_of("degrees"), unit_of("Radian"), unit_of("")
    ('deg', 'rad', None)
    """
    word = (text or "").strip().lower()
    if word.startswith("rad"):
        return "rad"
    return "deg" if word.startswith("deg") or word == "°" else None


def angle_range(text: str, n_views: int) -> AngleList | None:
    """Return `n_views` angles over the range ``start:stop``, end exclusive; None if `text` is not a range.

    Examples
    --------
    >>> angle_range("0:360", 4).values.tolist()
    [0.0, 90.0, 180.0, 270.0]
    """
    match = re.fullmatch(rf"\s*({_NUMBER})\s*:\s*({_NUMBER})\s*", text)
    if match is None:
        return None
    start, stop = float(match[1]), float(match[2])
    if start == stop:
        raise GeometryError(f"the range of angles must not be empty, got '{text}'; write for example 0:180")
    return AngleList(start + (stop - start) * np.arange(n_views) / n_views, None, f"the range {text.strip()}")


def read_angle_file(path: Path) -> AngleList:
    """Read angles from a text file, a table (csv) or an ``.npy`` file.

    Text files hold one number per view; tables may have several columns if one of them has the name of an angle.

    Raises
    ------
    FormatError
        The file does not contain a single list of numbers.
    """
    try:
        content = path.read_bytes()
        if content.startswith(b"\x93NUMPY"):
            values = np.load(path, allow_pickle=False)
            if values.dtype.kind not in "iuf" or values.size != max(values.shape, default=0):
                raise FormatError(
                    f"{path} must hold one list of numbers, got {values.dtype} of shape {values.shape}; "
                    "save the angles alone"
                )
            return AngleList(values.astype(np.float64).ravel(), None, str(path))
        return AngleList(_parse_table(content.decode("utf-8-sig"), path), None, str(path))
    except (OSError, EOFError, ValueError) as error:
        raise FormatError(
            f"the angles file {path} must be text, csv or npy, got: {error}; write one number per line"
        ) from error


def _parse_table(text: str, path: Path) -> Float[np.ndarray, " angle"]:
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    rows = [[cell.strip() for cell in _split(line)] for line in lines]
    header = rows.pop(0) if rows and not _is_number(rows[0][0]) else []
    widths = {len(row) for row in rows}
    if not rows or len(widths) > 1:
        raise FormatError(f"{path} must hold one angle per line, got {len(rows)} lines of unequal width")
    column = 0
    if widths != {1} and len(rows) > 1:
        telling = [spot for spot, name in enumerate(header) if any(word in name.lower() for word in _TELLING_COLUMNS)]
        if len(telling) != 1:
            raise FormatError(
                f"{path} must hold one angle per line, got {widths.pop()} columns; "
                "keep only the angles, or name their column 'angle'"
            )
        column = telling[0]
    cells = rows[0] if len(rows) == 1 else [row[column] for row in rows]
    wrong = [cell for cell in cells if not _is_number(cell)]
    if wrong:
        raise FormatError(f"{path} must hold numbers only, got '{wrong[0]}'; correct that line")
    return np.array([float(cell) for cell in cells], dtype=np.float64)


def _split(line: str) -> list[str]:
    for separator in (",", ";", "\t"):
        if separator in line:
            return [cell for cell in next(csv.reader([line], delimiter=separator)) if cell.strip()]
    return line.split()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
