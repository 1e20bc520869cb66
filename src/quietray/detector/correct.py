"""From counts to line integrals of the attenuation: flat and dark, beam, bad pixels, zingers, rings.

All that is global is measured once, in `calibrate`.  All that `correct_rows` does acts on the sinogram of one detector
row, so the result is bit-identical however the rows are cut into slabs.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from quietray.detector.beam import BeamSurvey, air_factors, find_air, parse_columns, survey_beam
from quietray.detector.fields import measure_fields, noise_of_frames, without_holes
from quietray.detector.survey import BadPixels, find_bad_pixels, survey_views
from quietray.detector.zingers import find_zingers, replace_zingers
from quietray.errors import GeometryError, NoiseError, SettingsError
from quietray.scan import Scan
from quietray.types import Frame, PixelMask, Radiographs, Sinograms

__all__ = ["Calibration", "Correction", "RowCounts", "calibrate", "correct_rows"]

RINGS_RATIO = 3.0  # stripes above so many times what noise leaves in the mean over the views are removed
RINGS_LEAST = 1e-3  # attenuation; weaker stripes are never worth a filter

Sinogram = Float[np.ndarray, "view col"]


@dataclass(frozen=True)
class Correction:
    """How radiographs are corrected.

    Parameters
    ----------
    zingers
        Samples this many noise sds brighter than the views before and after are replaced; 0 keeps all.
    bad_pixels
        Whether dead, hot, stuck and unstable pixels are found and interpolated.
    air
        Columns that see the open beam in every view, such as ``"0:90,745:835"``; ``"auto"`` looks at the
        edges, ``"none"`` takes the beam as steady.
    rings
        Stripe removal in the sinogram: ``"none"``, ``"sorting"`` (thin rings), ``"large"``, ``"all"``; ``"auto"`` uses
        sorting when stripes stand out of the noise.
    floor
        Smallest transmission before the log; 0 chooses one detected quantum or one dark sd, whichever is more.

    Examples
    --------
    >>> Correction(air="0:90,745:835").rings
    'auto'
    """

    zingers: float = 6.0
    bad_pixels: bool = True
    air: str = "auto"
    rings: Literal["auto", "none", "sorting", "large", "all"] = "auto"
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.zingers != 0 and not 2 <= self.zingers < np.inf:
            raise SettingsError(f"zingers must be 0 (off) or at least 2 noise sds, got {self.zingers}; 6 is usual")
        if not 0 <= self.floor < 1:
            raise SettingsError(f"floor must be a transmission from 0 to below 1, got {self.floor}; 0 chooses it")
        if self.rings not in ("auto", "none", "sorting", "large", "all"):
            raise SettingsError(f"rings must be one of auto, none, sorting, large, all, got '{self.rings}'")
        if self.air not in ("auto", "none"):
            parse_columns(self.air, 2**62)


@dataclass(frozen=True, eq=False)
class Calibration:
    """All that `correct_rows` needs to know about a scan, measured once.

    Parameters
    ----------
    flat, dark
        ``(row, col)`` float32: mean flat minus dark (bad pixels filled from neighbours), and mean dark, in counts.
    bad
        ``(row, col)`` pixels that are interpolated.
    air_factors
        ``(view,)`` float32: brightness of the beam relative to the flats.
    air_columns
        Half-open ranges of columns where it was measured; empty when it was not.
    remove_rings
        Stripe removal to apply: "none", "sorting", "large" or "all".
    floor
        Smallest transmission before the log.
    quantum, read_noise
        Counts per detected quantum and sd of the dark in counts; 0 when unknown.
    order, reach
        ``(view,)`` views in the order of their angles, and columns that a detail can move between two of them.
    settings
        What was asked for.
    notes
        Sentences for the user.
    """

    flat: Frame
    dark: Frame
    bad: PixelMask
    air_factors: Float[np.ndarray, " view"]
    air_columns: tuple[tuple[int, int], ...]
    remove_rings: str
    floor: float
    quantum: float
    read_noise: float
    order: Int[np.ndarray, " view"]
    reach: int
    settings: Correction
    notes: tuple[str, ...] = ()


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


def calibrate(scan: Scan, settings: Correction = Correction()) -> Calibration:
    """Measure flat, dark, bad pixels, beam and stripes of a scan, reading it in blocks.

    Raises
    ------
    NoiseError
        Frames are saturated, hold NaN, or the flats are not brighter than the darks; flats are missing and the
        projections do not look like transmissions.
    SettingsError
        The air columns leave the detector.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> counts, beam = np.full((20, 2, 30), 50.0, np.float32), ParallelBeam(np.linspace(0, 3, 20), 2, 30)
    >>> scan = Scan(counts, beam, flats=np.full((3, 2, 30), 100.0))
    >>> calibration = calibrate(scan)
    >>> sinograms, changed = correct_rows(scan.read(slice(0, 2)), calibration, slice(0, 2))
    >>> bool(np.allclose(sinograms, np.log(2))), changed.total
    (True, 1200)
    """
    asked = None if settings.air in ("auto", "none") else parse_columns(settings.air, scan.n_cols)
    views = survey_views(scan)
    flat, dark, flats, darks, notes = measure_fields(scan, views)
    found = find_bad_pixels(flat, flats, darks, views)
    bad = found.mask if settings.bad_pixels else flat <= 0
    notes += _pixel_notes(found, bad)
    flat = without_holes(flat, bad)
    quantum, read_noise = noise_of_frames(flat, flats, darks, bad)
    floor = settings.floor or _floor(scan, flat, quantum, read_noise)
    survey = survey_beam(scan, flat, dark, bad, floor)
    columns = asked if asked is not None else () if settings.air == "none" else find_air(survey.profile)
    factors, drifts = np.ones(scan.n_views, np.float32), False
    if columns:
        factors, drifts = air_factors(scan, flat, dark, bad, columns)
        if factors.min() <= 0.01:
            dim = int(np.argmin(factors))
            raise NoiseError(
                f"every view must have beam in its air columns, got {factors[dim]:.3g} of the flats in view {dim}; "
                "leave that view out, or set --air none"
            )
    notes += _beam_notes(settings, survey, columns, factors, drifts)
    rings, note = _rings(settings, survey)
    order, reach = _order(scan)
    return Calibration(
        flat, dark, bad, factors, columns, rings, floor, quantum, read_noise, order, reach, settings, (*notes, note)
    )


def _floor(scan: Scan, flat: Frame, quantum: float, read_noise: float) -> float:
    step = 1.0 if np.issubdtype(np.dtype(scan.projections.dtype), np.integer) else 0.0
    return float(np.clip(max(step, quantum, read_noise) / float(np.median(flat)), 1e-4, 0.1))


def _order(scan: Scan) -> tuple[Int[np.ndarray, " view"], int]:
    """Return the views by angle, and how many columns a detail at the edge moves between two of them (64 at most)."""
    turned = np.mod(scan.geometry.angles - scan.geometry.angles.min(), 2 * np.pi)
    order = np.argsort(turned, kind="stable")
    if scan.n_views < 2:
        return order, 1
    step = float(np.median(np.diff(turned[order])))
    return order, int(np.clip(np.ceil(step * scan.n_cols / 2), 1, 64)) + 1


def _pixel_notes(found: BadPixels, bad: PixelMask) -> tuple[str, ...]:
    if not bad.any():
        return ()
    kinds = {name: int(np.count_nonzero(getattr(found, name) & bad)) for name in ("dead", "hot", "stuck", "unstable")}
    listed = ", ".join(f"{count} {name}" for name, count in kinds.items() if count)
    note = f"{int(bad.sum())} of {bad.size} pixels ({bad.mean():.2%}) are bad and were interpolated: {listed}."
    lost = int(np.count_nonzero(bad.all(axis=1)))
    return (note, f"{lost} detector rows hold no good pixel: they come out as zero.") if lost else (note,)


def _beam_notes(
    settings: Correction,
    survey: BeamSurvey,
    columns: tuple[tuple[int, int], ...],
    factors: Float[np.ndarray, " view"],
    drifts: bool,
) -> tuple[str, ...]:
    if settings.air == "none":
        return ()
    if not columns:
        edge = float(np.median(survey.profile[:, [0, -1]]))
        return (
            f"No air was found beside the object (the edges transmit {edge:.2f}), so the beam was taken as steady; "
            "if there is air, name its columns with --air.",
        )
    where = ", ".join(f"{start}:{stop}" for start, stop in columns)
    if not drifts:
        return (f"The beam is steady at {factors[0]:.4f} of the flats (air columns {where}).",)
    return (f"The beam varies from {factors.min():.4f} to {factors.max():.4f} of the flats (air columns {where}).",)


def _rings(settings: Correction, survey: BeamSurvey) -> tuple[str, str]:
    """Return the stripe removal to use, and the sentence that says why."""
    measured = f"stripes of sd {survey.stripes:.2g} in the attenuation, {survey.stripe_ratio:.1f} times the noise"
    if settings.rings != "auto":
        return settings.rings, f"Ring removal '{settings.rings}' as asked ({measured})."
    if survey.stripe_ratio > RINGS_RATIO and survey.stripes > RINGS_LEAST:
        return "sorting", f"Rings found and removed by sorting: {measured} left in the mean over the views."
    return "none", f"No rings to remove: {measured} left in the mean over the views."


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


def _correct_row(counts: Sinogram, calibration: Calibration, row: int) -> tuple[Sinogram, RowCounts]:
    """Correct the sinogram of one row; nothing but this row and the calibration enters."""
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
