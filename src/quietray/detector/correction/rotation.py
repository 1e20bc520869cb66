"""Position of the rotation axis, measured from radiographs with several methods that check each other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage

from quietray.detector.correction.correct import Calibration, correct_rows
from quietray.detector.correction.frames import robust_sd
from quietray.detector.correction.mirror import axis_of_opposite_views
from quietray.detector.correction.wedge import axis_of_double_wedge
from quietray.errors import GeometryError
from quietray.geometry import require_parallel
from quietray.scan import Scan
from quietray.types import Sinograms
from quietray.wording import Doubt

__all__ = ["RotationAxis", "find_rotation_axis"]

_SAMPLES = 2**25  # samples of the selected rows, over all views
_ROWS = 12
_FEWEST_VIEWS = 8
_ARC = 90.0  # angular range in degrees over which the centre of mass must be seen to move
_ARC_OF_MASS = np.radians(170)  # for smaller ranges, second-order waves cannot be separated from the mean
_PARTS = 6  # fraction of the scan in which the object must be equally visible
_LITTLE_OVERLAP = 0.02  # smallest overlap of opposite views of a half acquisition, as a fraction of the columns
_SURE = 0.15  # fraction of the columns; the axis is less certain if the overlap is smaller
_EDGE = 0.1  # fraction of the largest attenuation above which the object is taken to extend beyond an edge


@dataclass(frozen=True)
class RotationAxis:
    """The rotation axis of a scan.

    Parameters
    ----------
    column
        Column that the axis projects to (0-based, pixel centres at integers).
    method
        Method whose result was used: "opposite views", "centre of mass", "Vo's metric", or "middle of the detector".
    spread
        Disagreement in pixels between methods, or between rows if only one method applies; NaN if unknown.
    notes
        Notes for the user.

    Examples
    --------
    >>> RotationAxis(399.2, "opposite views", 0.1).column
    399.2
    """

    column: float
    method: str
    spread: float
    notes: tuple[str, ...] = ()


def find_rotation_axis(scan: Scan, calibration: Calibration, device: torch.device | str | None = None) -> RotationAxis:
    """Find the rotation axis from up to twelve rows that contain the object.

    Three methods are used.  Opposite views are mirror images about the axis.  The centre of mass moves on a sinusoid
    about it, if the whole object is in the field of view.  For half turns, Vo's metric evaluates the double wedge in
    the Fourier transform of the sinogram (Vo et al. 2014, https://doi.org/10.1364/OE.22.019078).  For a full turn or
    more, opposite views decide, as they need no assumptions; for half a turn, the median of the results is used.  If
    the object extends beyond one edge of the detector in all views (a half acquisition), only opposite views can be
    used.

    Parameters
    ----------
    scan
        A parallel-beam scan.
    calibration
        Its calibration.
    device
        Device for correcting the rows and for Vo's metric; the CPU by default.

    Returns
    -------
    RotationAxis
        The axis.  With fewer than 8 views or without an object, it is the middle of the detector, with a note.  The
        same holds for less than half a turn if the centre of mass, the only applicable method, fails.

    Raises
    ------
    GeometryError
        The axis lies outside the detector, or it cannot be determined for a half acquisition or an aborted scan.

    Examples
    --------
    >>> from quietray.detector.correction.correct import Correction, calibrate
    >>> from quietray.geometry import ParallelBeam
    >>> angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    >>> away = np.arange(80) - 37.3 - 9 * np.cos(angles)[:, None]
    >>> counts = 1000 * np.exp(-np.sqrt(np.maximum(400 - away**2, 0)) / 20)[:, None].astype(np.float32)
    >>> scan = Scan(counts, ParallelBeam(angles, 1, 80), flats=np.full((3, 1, 80), 1000.0))
    >>> round(find_rotation_axis(scan, calibrate(scan, Correction(rings="none"))).column, 1)
    37.3
    """
    beam = require_parallel(scan.geometry, "finding the rotation axis")
    turns = beam.turns
    if scan.n_views < _FEWEST_VIEWS:
        return _middle(scan, f"there are only {scan.n_views} views")
    covered = float(np.degrees(scan.geometry.coverage))
    if covered < _ARC:
        return _middle(scan, f"the views cover {covered:.0f} degrees, less than half a turn")
    rows = _rows_with_object(scan, calibration)
    if rows is None:
        return _middle(scan, "no object stands out of the beam")
    sinograms, _ = correct_rows(scan.read(rows), calibration, rows, device)
    sinograms = np.ascontiguousarray(sinograms[:, calibration.order])
    angles = scan.geometry.angles[calibration.order]
    angles = np.mod(angles - scan.geometry.angles.min(), 2 * np.pi)
    found: dict[str, tuple[float, float]] = {}
    half = turns >= 2 and (beam.half or (beam.half is None and _over_one_edge(sinograms)))
    opposite = axis_of_opposite_views(sinograms, angles) if turns >= 1 else None
    if half and not opposite:
        opposite = axis_of_opposite_views(sinograms, angles, _LITTLE_OVERLAP)
    if opposite:
        found["opposite views"] = opposite
    elif half:
        raise GeometryError(
            "opposite views of a half acquisition must overlap at the rotation axis, got none that mirror each other; "
            "give the axis with --rotation-axis"
        )
    if not half and (moment := _from_centre_of_mass(sinograms, angles, calibration.air_columns)):
        found["centre of mass"] = moment
    if turns < 1 and not found:
        return _middle(
            scan,
            f"the views cover {covered:.0f} degrees, less than half a turn, and do not show the whole object with air "
            "beside it",
        )
    if turns >= 1 and not (turns >= 2 and opposite):
        start = float(np.median([column for column, _ in found.values()])) if found else None
        if vo := _from_vo(sinograms, angles, start, device):
            found["Vo's metric"] = vo
    if not found:
        return _middle(scan, "no method found a symmetric sinogram")
    axis = _choose(scan, found, full_turn=turns >= 2)
    overlap = 2 * min(axis.column, scan.n_cols - 1 - axis.column) + 1
    if half and overlap < _SURE * scan.n_cols:
        axis = replace(
            axis,
            notes=(
                *axis.notes,
                f"Opposite views overlap by only {overlap:.0f} columns, so the axis may be off by a pixel: check it in "
                "the preview, and give it with --rotation-axis if it is known.",
            ),
        )
    return axis


def _over_one_edge(sinograms: Sinograms) -> bool:
    """Return whether the mean object extends beyond exactly one edge of the detector."""
    profile = sinograms.mean(axis=(0, 1), dtype=np.float64)
    edge = max(2, profile.size // 40)
    left, right = (bool(side.mean() > _EDGE * profile.max()) for side in (profile[:edge], profile[-edge:]))
    return left != right


def _middle(scan: Scan, why: str) -> RotationAxis:
    if lost := scan.provenance.get("cut_short"):
        raise GeometryError(
            f"the rotation axis must be known or found, got a scan that was cut short: {why}. {lost} Give the axis "
            "with --rotation-axis to continue with the rest"
        )
    middle = (scan.n_cols - 1) / 2
    note = (
        f"The rotation axis was assumed at the detector's middle ({middle:g}): {why}; give it with --rotation-axis if "
        "it is known."
    )
    return RotationAxis(middle, "middle of the detector", float("nan"), (note,))


def _choose(scan: Scan, found: dict[str, tuple[float, float]], full_turn: bool) -> RotationAxis:
    """Choose one of the results, each (column, spread over rows), and report how much they disagree."""
    if full_turn and "opposite views" in found:
        method = "opposite views"
    else:
        method = sorted(found, key=lambda name: found[name][0])[(len(found) - 1) // 2]
        if len(found) == 2:
            method = min(found, key=lambda name: found[name][1])
    column = found[method][0]
    others = [abs(value - column) for value, _ in found.values()]
    spread = float(sorted(others)[1]) if len(others) > 1 else found[method][1]
    if not -0.5 <= column <= scan.n_cols - 0.5:
        raise GeometryError(
            f"the rotation axis must project onto the detector (0 to {scan.n_cols - 1}), got {column:.1f} from "
            f"{method}; give it with --rotation-axis, or check the angles"
        )
    listed = ", ".join(f"{name} {value:.2f}" for name, (value, _) in found.items())
    notes = [f"The rotation axis is at column {column:.2f}, from {method} ({listed})."]
    if spread > 1:
        notes.append(Doubt(f"The methods disagree by {spread:.1f} pixels or more: check the axis in the preview."))
    return RotationAxis(float(np.clip(column, 0, scan.n_cols - 1)), method, spread, tuple(notes))


def _rows_with_object(scan: Scan, calibration: Calibration) -> slice | None:
    """Return up to twelve evenly spaced rows that contain the object; None if nothing exceeds the noise.

    The object is detected by the variation of the attenuation across the columns, smoothed over a 32nd of them.
    """
    views = np.unique(np.linspace(0, scan.n_views - 1, min(6, scan.n_views)).round().astype(int))
    size = max(3, scan.n_cols // 32)
    strength, noise = np.zeros(scan.n_rows), np.zeros(scan.n_rows)
    for view in views:
        counts = scan.read(slice(0, scan.n_rows), slice(int(view), int(view) + 1))[0]
        own = calibration.of_view(int(view))
        seen = counts
        if not calibration.settings.line_integrals:
            seen = (counts - own.dark) / (own.flat * calibration.air_factors[view])
            seen = -np.log(np.maximum(np.where(calibration.bad, 1, seen), calibration.floor))
        noise += 1.05 * np.median(np.abs(np.diff(seen, axis=1)), axis=1) / np.sqrt(size) / len(views)
        seen = ndimage.median_filter(seen, size=(1, 5), mode="nearest")
        strength += ndimage.uniform_filter1d(seen, size, axis=1, mode="nearest").std(axis=1) / len(views)
    strength[calibration.bad.all(axis=1) | (strength < 3 * noise)] = 0
    if strength.max() < 1e-4 and not (calibration.settings.line_integrals and strength.max() > 0):
        return None
    band = _longest_run(np.flatnonzero(strength > 0.5 * strength.max()))
    at_most = max(1, min(_ROWS, _SAMPLES // (scan.n_views * scan.n_cols)))
    step = -(-len(band) // at_most)
    return slice(int(band[0]) + min(step // 2, len(band) - 1), int(band[-1]) + 1, step)


def _longest_run(numbers: np.ndarray) -> np.ndarray:
    """Return the longest run of consecutive numbers."""
    return max(np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1), key=len)


def _from_centre_of_mass(
    sinograms: Sinograms, angles: Float[np.ndarray, " view"], air: tuple[tuple[int, int], ...]
) -> tuple[float, float] | None:
    """Return the mean of the sinusoid of the centre of mass; None if the object leaves the detector.

    The beam beside the object is taken to be a straight line between the two edges: the same for all views if air
    columns have been used to normalise them, else one for each view.
    """
    n_rows, _, n = sinograms.shape
    beside = _beside(sinograms, air)
    inner = sinograms - beside
    if np.abs(beside[:, 0] - beside[:, -1]).max() > 0.1 * inner.mean(axis=0).max():
        return None
    whole = float(np.ptp(angles)) > _ARC_OF_MASS
    waves = np.stack([np.ones_like(angles), np.cos(angles), np.sin(angles)], axis=1)
    wobble = np.concatenate([waves, np.cos(2 * angles)[:, None], np.sin(2 * angles)[:, None]], axis=1)
    found = []
    for part in [inner.mean(axis=0), *inner]:
        mass = part.sum(axis=1)
        steady = np.linalg.lstsq(wobble, mass, rcond=None)[0] if whole else _level(mass)
        if steady[0] <= 0 or np.abs(steady[1:]).max() > 0.02 * steady[0] or np.abs(mass).min() < 0.5 * steady[0]:
            continue
        fit = np.linalg.lstsq(waves, part @ np.arange(n) / mass, rcond=None)[0]
        found.append(float(fit[0]))
    if 2 * len(found) < n_rows + 1 or not found:
        return None
    return found[0], robust_sd(np.array(found)) if n_rows > 1 else 0.0


def _level(mass: Float[np.ndarray, " view"]) -> Float[np.ndarray, " _"]:
    """Return the mean of a quantity that should be the same in all views, and how much parts of the scan deviate."""
    parts = np.array([part.mean() for part in np.array_split(mass, _PARTS)])
    return np.concatenate([[mass.mean()], parts - mass.mean()])


def _beside(sinograms: Sinograms, air: tuple[tuple[int, int], ...]) -> Float[np.ndarray, "view col"]:
    """Return the apparent attenuation of the beam beside the object, as a line across the columns."""
    n = sinograms.shape[2]
    edge = max(2, n // 40)
    parts = air if air else ((0, edge), (n - edge, n))
    middles = [(start + stop - 1) / 2 for start, stop in parts]
    levels = [sinograms[:, :, start:stop].mean(axis=(0, 2)) for start, stop in parts]
    if air:
        levels = [np.full_like(level, level.mean()) for level in levels]
    levels = [ndimage.median_filter(level, 9, mode="nearest") for level in levels]
    slope = (levels[-1] - levels[0]) / (middles[-1] - middles[0]) if len(parts) > 1 else np.zeros_like(levels[0])
    line = levels[0][:, None] + slope[:, None] * (np.arange(n) - middles[0])
    return np.asarray(line, dtype=np.float32)


def _from_vo(
    sinograms: Sinograms, angles: Float[np.ndarray, " view"], start: float | None, device: torch.device | str | None
) -> tuple[float, float] | None:
    """Return the axis from Vo's metric on half a turn, searched near `start` or in the middle half of the detector."""
    half = np.flatnonzero(angles <= angles[0] + np.pi + 1e-6)
    n = sinograms.shape[2]
    if len(half) < 30 or n < 64:
        return None
    low, high = (n / 4, 3 * n / 4) if start is None else (start - n / 32 - 4, start + n / 32 + 4)
    chosen = sinograms[np.unique(np.linspace(0, len(sinograms) - 1, 3).round().astype(int))][:, half]
    searched = max(8, int(low)), min(n - 9, int(high))
    answers = [axis_of_double_wedge(sinogram, *searched, device) for sinogram in chosen]
    columns = [answer for answer in answers if answer is not None]
    if not columns:
        return None
    column, spread = float(np.median(columns)), robust_sd(np.array(columns))
    if start is None and (
        spread > 2 or not low + 5 < column < high - 5
    ):  # without another result, this one must be clear
        return None
    return column, max(spread, 0.25)
