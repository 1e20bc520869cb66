"""From counts to line integrals of the attenuation: flat and dark, beam, bad pixels, zingers, rings.

All that is global is measured once, in `calibrate`.  All that `correct_rows` does acts on the sinogram of one detector
row, so the result is bit-identical however the rows are cut into slabs.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from quietray.detector.correction.calibration import Calibration, Correction, calibrate
from quietray.detector.correction.zingers import find_zingers, replace_zingers
from quietray.errors import GeometryError, NoiseError
from quietray.types import Radiographs, Sinograms

__all__ = ["Calibration", "Correction", "RowCounts", "calibrate", "correct_rows"]

Sinogram = Float[np.ndarray, "view col"]


@dataclass(frozen=True)
class RowCounts:
    """How many samples were changed.

    Examples
    --------
    >>> RowCounts(zingers=1, total=10) + RowCounts(floored=2, total=10)
    RowCounts(zingers=1, bad=0, floored=2, total=20)
    """

    zingers: int = 0
    bad: int = 0
    floored: int = 0
    total: int = 0

    def __add__(self, other: RowCounts) -> RowCounts:
        return RowCounts(
            self.zingers + other.zingers,
            self.bad + other.bad,
            self.floored + other.floored,
            self.total + other.total,
        )


def correct_rows(counts: Radiographs, calibration: Calibration, rows: slice) -> tuple[Sinograms, RowCounts]:
    """Turn the counts of a band of rows, all views, into line integrals of the attenuation.

    ``p = -log(max((counts - dark) / (flat * beam), floor))`` after bad pixels and zingers are replaced, then rings.

    Parameters
    ----------
    counts
        ``(view, row, col)`` as read, float32.
    calibration
        Of the scan that the rows belong to.
    rows
        Which detector rows these are.

    Returns
    -------
    sinograms, changed
        ``(row, view, col)`` float32, dimensionless; and the numbers of samples changed.

    Raises
    ------
    NoiseError
        NaN or infinity in the counts.
    GeometryError
        The counts do not fit the calibration.

    Examples
    --------
    See `calibrate`.
    """
    numbers = range(len(calibration.flat))[rows]
    wanted = (len(calibration.air_factors), len(numbers), calibration.flat.shape[1])
    if counts.shape != wanted:
        raise GeometryError(
            f"the counts of rows {rows.start}:{rows.stop} must be all views of them {wanted}, got {counts.shape}"
        )
    if n_bad := int(np.count_nonzero(~np.isfinite(counts))):
        raise NoiseError(
            f"projections must be finite counts, got {n_bad} NaN or infinite samples in rows "
            f"{rows.start}:{rows.stop}; mend the file or leave those views out"
        )
    if calibration.detectors is not None:
        return _by_detector(counts, calibration, calibration.detectors, rows)

    def one(index: int) -> tuple[Sinogram, RowCounts]:
        return _correct_row(np.array(counts[:, index], dtype=np.float32, order="C"), calibration, numbers[index])

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1, max(1, len(numbers)))) as pool:
        done = list(pool.map(one, range(len(numbers))))
    out = np.empty((wanted[1], wanted[0], wanted[2]), np.float32)
    changed = RowCounts()
    for index, (sinogram, one_changed) in enumerate(done):
        out[index] = sinogram
        changed += one_changed
    return out, changed


def _by_detector(
    counts: Radiographs, calibration: Calibration, detectors: Int[np.ndarray, " view"], rows: slice
) -> tuple[Sinograms, RowCounts]:
    """Correct the views of each detector by themselves: zingers and rings are those of one detector."""
    out = np.empty((counts.shape[1], counts.shape[0], counts.shape[2]), np.float32)
    changed = RowCounts()
    for number, part in calibration.parts.items():
        views = np.flatnonzero(detectors == number)
        out[:, views], one_changed = correct_rows(counts[views], part, rows)
        changed += one_changed
    return out, changed


def _correct_row(counts: Sinogram, calibration: Calibration, row: int) -> tuple[Sinogram, RowCounts]:
    """Correct the sinogram of one row; nothing but this row and the calibration enters."""
    if calibration.settings.line_integrals:
        return _without_stripes(counts, calibration.remove_rings), RowCounts(total=counts.size)
    flat, bad = calibration.flat[row], calibration.bad[row]
    seen = (counts - calibration.dark[row]) / (flat * calibration.air_factors[:, None])
    seen = _interpolated(seen, bad)
    seen, n_zingers = _without_zingers(seen, calibration, bad, float(np.mean(flat)))
    low = seen < calibration.floor
    low[:, bad] = False
    out = -np.log(np.maximum(seen, np.float32(calibration.floor)))
    out = _without_stripes(out, calibration.remove_rings)
    changed = RowCounts(n_zingers, int(bad.sum()) * len(counts), int(np.count_nonzero(low)), counts.size)
    return np.ascontiguousarray(out, dtype=np.float32), changed


def _interpolated(seen: Sinogram, bad: Bool[np.ndarray, " col"]) -> Sinogram:
    """Return the transmissions with bad columns interpolated between good ones; 1 when there is no good one."""
    if not bad.any():
        return seen
    if bad.all():
        return np.ones_like(seen)
    columns = np.arange(len(bad))
    position = np.interp(columns[bad], columns[~bad], np.arange(np.count_nonzero(~bad)))
    left = np.floor(position).astype(np.intp)
    right, share = np.ceil(position).astype(np.intp), (position - left).astype(np.float32)
    good = seen[:, ~bad]
    out = seen.copy()
    out[:, bad] = good[:, left] * (1 - share) + good[:, right] * share
    return out


def _without_zingers(seen: Sinogram, calibration: Calibration, bad: np.ndarray, scale: float) -> tuple[Sinogram, int]:
    """Return the transmissions without zingers, and how many good samples were replaced."""
    threshold, order = calibration.settings.zingers, calibration.order
    if threshold == 0 or bad.all():
        return seen, 0
    ordered = seen[order]
    quantum, read_noise = calibration.quantum, calibration.read_noise
    found = find_zingers(ordered * np.float32(scale), threshold, calibration.reach, quantum, read_noise)
    if not found.any():
        return seen, 0
    out = np.empty_like(seen)
    out[order] = replace_zingers(ordered, found)
    return _interpolated(out, bad), int(np.count_nonzero(found[:, ~bad]))


def _without_stripes(sinogram: Sinogram, algorithm: str) -> Sinogram:
    """Remove stripes from the sinogram of one row with algotom; where it cannot work, the sinogram is kept."""
    n_views, n_cols = sinogram.shape
    if algorithm == "none" or n_views < 8 or n_cols < 9:
        return sinogram
    from algotom.prep import removal

    small, large = min(21, max(5, n_cols // 32 | 1)), min(51, max(9, n_cols // 12 | 1))
    try:
        with np.errstate(all="ignore"):  # columns without signal; what is not finite is put back below
            if algorithm == "sorting":
                out = removal.remove_stripe_based_sorting(sinogram, size=small)
            elif algorithm == "large":
                out = removal.remove_large_stripe(sinogram, snr=3.0, size=large, norm=False)
            else:
                out = removal.remove_all_stripe(sinogram, snr=3.0, la_size=large, sm_size=small)
    except ValueError:  # algotom refuses sinograms without noise, where it cannot tell a stripe
        return sinogram
    out = np.asarray(out, dtype=np.float32)
    return np.where(np.isfinite(out), out, sinogram)
