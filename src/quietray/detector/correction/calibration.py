"""Global properties of a scan, measured before any row is corrected: flat, dark, bad pixels, beam, rings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from quietray.brief import brief
from quietray.detector.correction.between import beam_between_flats
from quietray.detector.correction.fields import measure_fields, noise_of_frames, without_holes
from quietray.detector.correction.monitor import BeamSurvey, air_factors, find_air, parse_columns, survey_beam
from quietray.detector.correction.survey import BadPixels, find_bad_pixels, survey_views
from quietray.errors import NoiseError, SettingsError
from quietray.scan import Scan
from quietray.types import Frame, PixelMask

__all__ = ["Calibrated", "Calibration", "Correction", "calibrate"]

RINGS_RATIO = 3.0  # stripes are removed if they exceed this multiple of the noise in the mean over the views
RINGS_LEAST = 1e-3  # in attenuation; weaker stripes are never filtered


@dataclass(frozen=True)
class Correction:
    """Settings of the correction of radiographs.

    Parameters
    ----------
    zingers
        Samples that exceed the previous and next views by this many standard deviations of the noise are replaced; 0
        keeps all.
    bad_pixels
        Whether dead, hot, stuck and unstable pixels are detected and interpolated.
    air
        Columns that see the open beam in every view, such as ``"0:90,745:835"``; ``"auto"`` searches the edges,
        ``"none"`` assumes a constant beam.
    rings
        Stripe removal in the sinogram: ``"none"``, ``"sorting"`` (thin rings), ``"large"``, ``"all"``; ``"auto"`` uses
        sorting if stripes exceed the noise.
    floor
        Smallest transmission before the log; 0 uses one detected quantum or one standard deviation of the dark,
        whichever is larger.
    line_integrals
        The projections are already line integrals, of the attenuation or of another quantity (XRD-CT, fluorescence).
        No flats, darks or logarithm are applied, and rings are only removed on request.
    own_flats
        Whether every angular subset is corrected with its own flats and darks, so that their noise is independent and
        is removed as well.  None does so if the noise of shared flats would be visible.  If there are fewer flats than
        subsets, they are shared.

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
    line_integrals: bool = False
    own_flats: bool | None = None

    def __post_init__(self) -> None:
        if self.zingers != 0 and not 2 <= self.zingers < np.inf:
            raise SettingsError(
                f"zingers must be 0 (off) or at least 2 (standard deviations), got {self.zingers}; 6 is usual"
            )
        if not 0 <= self.floor < 1:
            raise SettingsError(f"floor must be a transmission from 0 to below 1, got {self.floor}; 0 chooses it")
        if self.rings not in ("auto", "none", "sorting", "large", "all"):
            raise SettingsError(f"rings must be one of auto, none, sorting, large, all, got '{self.rings}'")
        if self.air not in ("auto", "none"):
            parse_columns(self.air, 2**62)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Everything that `correct_rows` needs to know about a scan, measured once.

    Parameters
    ----------
    flat, dark
        ``(row, col)`` float32: mean flat minus dark (bad pixels filled from neighbours), and mean dark, in counts.
    bad
        Mask of pixels that are interpolated, ``(row, col)``.
    air_factors
        Beam intensity of each view relative to the flats, ``(view,)`` float32.
    air_columns
        Ranges of columns in which the beam was measured, end exclusive; empty if it was not.
    remove_rings
        Stripe removal to apply: "none", "sorting", "large" or "all".
    floor
        Smallest transmission before the log.
    quantum, read_noise
        Counts per detected quantum, and standard deviation of the dark in counts; 0 if unknown.
    order, reach
        Views in the order of their angles, ``(view,)``, and number of columns that a detail can move between
        consecutive views.
    settings
        The requested settings.
    notes
        Notes for the user.
    detectors, parts
        Detector number of each view, ``(view,)``, and the calibration of each detector, if there are several.  Views
        are then corrected with the parts; the other fields refer to all detectors together (flat and dark are
        averages).
    subsets
        Calibrations of the views ``j::K`` if each of the K angular subsets has its own flats; else empty.
    apart
        For an angular subset: logarithm of its flat relative to the flat of all, ``(row, col)`` float32, with zero mean
        over the subsets.  None if it differs between views or is changed by a ring filter.
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
    detectors: Int[np.ndarray, " view"] | None = None
    parts: Mapping[int, Calibration] = field(default_factory=dict)
    subsets: tuple[Calibration, ...] = ()
    apart: Frame | None = None

    __repr__ = brief

    def of_views(self, scan: Scan, views: slice) -> Calibration:
        """Return the calibration of some of the views, which `scan` contains alone, with the stripes of all views.

        Raises
        ------
        SettingsError
            The scan was taken by several detectors in turn.
        """
        if self.detectors is not None:
            raise SettingsError(
                f"views to be distinguished in time must be from one detector, got {len(self.parts)}; split the file"
            )
        order, reach = _order(scan)
        return replace(self, air_factors=self.air_factors[views], order=order, reach=reach, subsets=())

    def of_part(self, scan: Scan, views: slice, fields: Mapping[int, tuple[Frame, Frame]]) -> Calibration:
        """Return the calibration of an angular subset with its own flats and darks.

        Bad pixels, beam intensity, floor and ring removal are those of all views.

        Parameters
        ----------
        scan
            Scan that contains only this subset.
        views
            Indices of the views of the subset.
        fields
            Flat minus dark, and dark, each ``(row, col)``, by detector number; the number is 0 for a single detector.
        """
        order, reach = _order(scan)
        here = replace(self, air_factors=self.air_factors[views], order=order, reach=reach, subsets=(), detectors=None)
        if self.detectors is None:
            flat, dark = fields[0]
            return replace(here, flat=flat, dark=dark)
        parts = {}
        for number, one in scan.by_detector().items():
            own = np.isin(np.flatnonzero(self.detectors == number), np.arange(len(self.detectors))[views])
            order, reach = _order(one)
            part = self.parts[number]
            flat, dark = fields[number]
            factors = part.air_factors[own]
            parts[number] = replace(part, order=order, reach=reach, air_factors=factors, flat=flat, dark=dark)
        flat, dark = (np.mean([getattr(part, name) for part in parts.values()], axis=0) for name in ("flat", "dark"))
        return replace(here, flat=flat, dark=dark, detectors=self.detectors[views], parts=parts)

    def of_view(self, view: int) -> Calibration:
        """Return the calibration of the detector that took a view."""
        return self if self.detectors is None else self.parts[int(self.detectors[view])]


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A scan whose global properties have been measured.

    Parameters
    ----------
    scan
        The scan with its rotation axis.
    calibration
        Flat, dark, bad pixels and beam intensity.
    notes
        Findings to report.
    flats
        What was decided about separate flats for angular subsets, and why; None if there was nothing to decide.
    """

    scan: Scan
    calibration: Calibration
    notes: tuple[str, ...]
    flats: Mapping[str, Any] | None = None

    __repr__ = brief


def calibrate(scan: Scan, settings: Correction = Correction()) -> Calibration:
    """Measure flat, dark, bad pixels, beam and stripes of a scan, which is read in blocks.

    Raises
    ------
    NoiseError
        Frames are saturated or contain NaN, the flats are not brighter than the darks, or flats are missing and the
        projections do not look like transmissions.
    SettingsError
        The air columns are outside the detector.

    Examples
    --------
    >>> from quietray.detector.correction.correct import correct_rows
    >>> from quietray.geometry import ParallelBeam
    >>> counts, beam = np.full((20, 2, 30), 50.0, np.float32), ParallelBeam(np.linspace(0, 3, 20), 2, 30)
    >>> scan = Scan(counts, beam, flats=np.full((3, 2, 30), 100.0))
    >>> calibration = calibrate(scan)
    >>> sinograms, changed = correct_rows(scan.read(slice(0, 2)), calibration, slice(0, 2))
    >>> bool(np.allclose(sinograms, np.log(2))), changed.total
    (True, 1200)
    """
    if settings.line_integrals:
        return _of_line_integrals(scan, settings)
    if scan.detectors is not None:
        parts = {number: calibrate(part, settings) for number, part in scan.by_detector().items()}
        return _together(scan, scan.detectors, parts, settings)
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
    between = beam_between_flats(scan, dark) if not columns and settings.air == "auto" else None
    if between is not None:
        factors = between
        notes += (
            f"The beam went from {between[0]:.3f} to {between[-1]:.3f} of the mean of the flats: it was interpolated "
            "between the flats before and after.",
        )
    notes += _beam_notes(settings, survey, columns, factors, drifts) if between is None else ()
    rings, note = _rings(settings, survey)
    order, reach = _order(scan)
    return Calibration(
        flat, dark, bad, factors, columns, rings, floor, quantum, read_noise, order, reach, settings, (*notes, note)
    )


def _of_line_integrals(scan: Scan, settings: Correction) -> Calibration:
    """Return a calibration for projections that need no correction."""
    if scan.flats is not None:
        raise SettingsError(
            f"a scan of line integrals must have no flats, got {scan.flats.shape[0]} frames; leave --line-integrals out"
        )
    survey_views(scan)  # rejects values that are not finite
    ones = np.ones((scan.n_rows, scan.n_cols), np.float32)
    rings = "none" if settings.rings == "auto" else settings.rings
    note = f"The projections were taken as line integrals: no logarithm, ring removal '{rings}'."
    beam = np.ones(scan.n_views, np.float32)
    return Calibration(ones, 0 * ones, ones < 0, beam, (), rings, 0.0, 0.0, 0.0, *_order(scan), settings, (note,))


def _together(
    scan: Scan, detectors: Int[np.ndarray, " view"], parts: Mapping[int, Calibration], settings: Correction
) -> Calibration:
    """Return the calibration of several detectors: pixels bad in any are bad, columns air in all are air."""
    every = tuple(parts.values())
    factors, air = np.ones(scan.n_views, np.float32), np.ones(scan.n_cols, bool)
    for number, part in parts.items():
        factors[detectors == number] = part.air_factors
        own = np.zeros(scan.n_cols, bool)
        for start, stop in part.air_columns:
            own[start:stop] = True
        air &= own
    ends = np.flatnonzero(np.diff(np.concatenate([[0], air, [0]])))
    removal = next((part.remove_rings for part in every if part.remove_rings != "none"), "none")
    notes = [type(note)(f"Detector {number}: {note}") for number, part in parts.items() for note in part.notes]
    return Calibration(
        np.mean([part.flat for part in every], axis=0),
        np.mean([part.dark for part in every], axis=0),
        np.any([part.bad for part in every], axis=0),
        factors,
        tuple((int(start), int(stop)) for start, stop in ends.reshape(-1, 2)),
        removal,
        max(part.floor for part in every),
        float(np.mean([part.quantum for part in every])),
        float(np.mean([part.read_noise for part in every])),
        *_order(scan),
        settings,
        tuple(notes),
        detectors,
        parts,
    )


def _floor(scan: Scan, flat: Frame, quantum: float, read_noise: float) -> float:
    step = 1.0 if np.issubdtype(np.dtype(scan.projections.dtype), np.integer) else 0.0
    return float(np.clip(max(step, quantum, read_noise) / float(np.median(flat)), 1e-4, 0.1))


def _order(scan: Scan) -> tuple[Int[np.ndarray, " view"], int]:
    """Return the views sorted by angle, and how far a detail at the edge moves between two (at most 64 columns)."""
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
    return (note, f"{lost} detector rows have no good pixel: they are set to zero.") if lost else (note,)


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
            f"No air was found beside the object (the edges transmit {edge:.2f}), so the beam was assumed to be "
            "steady; if there is air, name its columns with --air.",
        )
    where = ", ".join(f"{start}:{stop}" for start, stop in columns)
    if not drifts:
        return (f"The beam is steady at {factors[0]:.4f} of the flats (air columns {where}).",)
    return (f"The beam varies from {factors.min():.4f} to {factors.max():.4f} of the flats (air columns {where}).",)


def _rings(settings: Correction, survey: BeamSurvey) -> tuple[str, str]:
    """Return the stripe removal to use, and a sentence with the reason."""
    measured = f"stripes of sd {survey.stripes:.2g} in the attenuation, {survey.stripe_ratio:.1f} times the noise"
    if settings.rings != "auto":
        return settings.rings, f"Ring removal '{settings.rings}' as requested ({measured})."
    if survey.stripe_ratio > RINGS_RATIO and survey.stripes > RINGS_LEAST:
        return "sorting", f"Rings found and removed by sorting: {measured} left in the mean over the views."
    return "none", f"No rings to remove: {measured} left in the mean over the views."
