"""What is known about a scan before any row is corrected: flat, dark, bad pixels, beam, whether there are rings."""

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

RINGS_RATIO = 3.0  # stripes above so many times what noise leaves in the mean over the views are removed
RINGS_LEAST = 1e-3  # attenuation; weaker stripes are never worth a filter


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
    line_integrals
        The projections are line integrals already, of the attenuation or of anything else (XRD-CT, fluorescence): no
        flat, no dark and no logarithm, and only the rings that are asked for are removed.
    own_flats
        Whether every angular subset is corrected with flats and darks of its own, so that a network unlearns their
        noise like any other; None does so where the noise of shared flats would show.  With fewer flats than subsets
        they are shared.

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
    detectors, parts
        ``(view,)`` detector of each view, and what is known about each detector, where there are several: then the
        parts correct the views, and what is said here holds for all detectors together (flat and dark: on average).
    subsets
        What corrects the views ``j::K`` where each of the K angular subsets has flats of its own; else empty.
    apart
        Of an angular subset: ``(row, col)`` float32, the logarithm of its flat over that of all; the mean over the
        subsets is zero.  None where it would not be the same in all views, or is changed by a ring filter.
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
        """Return what is known about some of the views, which `scan` holds alone, with the stripes as in all of them.

        Raises
        ------
        SettingsError
            Several detectors took turns.
        """
        if self.detectors is not None:
            raise SettingsError(
                f"views to be told apart in time must be from one detector, got {len(self.parts)}; split the file"
            )
        order, reach = _order(scan)
        return replace(self, air_factors=self.air_factors[views], order=order, reach=reach, subsets=())

    def of_part(self, scan: Scan, views: slice, fields: Mapping[int, tuple[Frame, Frame]]) -> Calibration:
        """Return what corrects an angular subset with flats and darks of its own.

        Bad pixels, brightness of the beam, floor and ring removal stay those of all views.

        Parameters
        ----------
        scan
            Of this subset alone.
        views
            Which of all views it holds.
        fields
            Flat minus dark, and dark, ``(row, col)``, by detector; 0 where there is only one.
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
        """Return what is known about the detector that took a view."""
        return self if self.detectors is None else self.parts[int(self.detectors[view])]


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A scan of which everything global was measured.

    Parameters
    ----------
    scan
        With its rotation axis.
    calibration
        Flat, dark, bad pixels, beam.
    notes
        What was found on the way.
    flats
        What was decided about flats of their own for angular subsets, and why; None where there was nothing to decide.
    """

    scan: Scan
    calibration: Calibration
    notes: tuple[str, ...]
    flats: Mapping[str, Any] | None = None

    __repr__ = brief


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
            f"The beam went from {between[0]:.3f} to {between[-1]:.3f} of the mean of the flats: interpolated between "
            "those before and after.",
        )
    notes += _beam_notes(settings, survey, columns, factors, drifts) if between is None else ()
    rings, note = _rings(settings, survey)
    order, reach = _order(scan)
    return Calibration(
        flat, dark, bad, factors, columns, rings, floor, quantum, read_noise, order, reach, settings, (*notes, note)
    )


def _of_line_integrals(scan: Scan, settings: Correction) -> Calibration:
    """Return the calibration of projections that need none."""
    if scan.flats is not None:
        raise SettingsError(
            f"a scan of line integrals must have no flats, got {scan.flats.shape[0]} frames; leave --line-integrals out"
        )
    survey_views(scan)  # refuses what is not finite
    ones = np.ones((scan.n_rows, scan.n_cols), np.float32)
    rings = "none" if settings.rings == "auto" else settings.rings
    note = f"The projections were taken as line integrals: no logarithm, ring removal '{rings}'."
    beam = np.ones(scan.n_views, np.float32)
    return Calibration(ones, 0 * ones, ones < 0, beam, (), rings, 0.0, 0.0, 0.0, *_order(scan), settings, (note,))


def _together(
    scan: Scan, detectors: Int[np.ndarray, " view"], parts: Mapping[int, Calibration], settings: Correction
) -> Calibration:
    """Return the calibration of a scan of several detectors: bad is what is bad in any, air what is air in all."""
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
    notes = [f"Detector {number}: {note}" for number, part in parts.items() for note in part.notes]
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
