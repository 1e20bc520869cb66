"""Checks that every frame is what it claims to be; faulty frames are reported and left out, or the run is refused.

A few rows of every frame are sampled once, for `info`, `check` and runs alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int

from quietray.detector.correction.calibration import Correction
from quietray.detector.correction.glance import Glance, glance
from quietray.detector.correction.kinds import good_frames, left_out, unwritten
from quietray.detector.correction.layout import doubted_angles, doubted_layout
from quietray.detector.correction.light import judge_light
from quietray.detector.correction.numbers import masked_pixels, true_type
from quietray.detector.correction.sides import sides_of
from quietray.detector.correction.sweep import doubted_sweep
from quietray.errors import NoiseError, QuietrayError
from quietray.lazy import chosen_frames, mended_frames
from quietray.scan import Scan

__all__ = ["Claims", "claims_of", "sound"]

_USUAL = Correction()


@dataclass(frozen=True, eq=False)
class Claims:
    """Result of the checks of a scan.

    Parameters
    ----------
    scan
        Scan with only the valid frames, and with the findings added to its notes.
    found
        Sentences about frames and pixels.
    refusal
        Why a run would be refused; None if it would not be.
    looked_at
        Number of views that were examined, and of all views.
    """

    scan: Scan
    found: tuple[str, ...]
    refusal: QuietrayError | None
    looked_at: tuple[int, int]


def sound(scan: Scan, settings: Correction = _USUAL, *, turning: bool = True) -> Scan:
    """Return a scan with only the valid frames; its notes list the others.

    Parameters
    ----------
    scan
        Scan as read from file.
    settings
        Settings of the correction.
    turning
        Whether the object rotates; angles and axes of the stack are then checked, too.

    Raises
    ------
    NoiseError, GeometryError
        The data cannot be used as they are.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> counts = np.random.default_rng(0).poisson(90, (20, 4, 30)).astype(np.uint16)
    >>> counts[4:6] = 0
    >>> scan = sound(Scan(counts, ParallelBeam(np.linspace(0, 3, 20), 4, 30), flats=np.full((1, 4, 30), 90)))
    >>> scan.n_views, scan.notes
    (18, ('Views 4 to 5 (2 of 20) were never written (they hold one value only): left out.',))
    """
    claims = claims_of(scan, settings, turning=turning)
    if claims.refusal is not None:
        raise claims.refusal
    return claims.scan


def claims_of(scan: Scan, settings: Correction = _USUAL, seconds: float = math.inf, *, turning: bool = True) -> Claims:
    """Examine a few rows of every frame, or of as many evenly spaced frames as time permits."""
    views = glance(scan.projections, seconds)
    found: list[str] = []
    refusal: QuietrayError | None = None
    try:
        if scan.detectors is None:
            scan, views, found = _numbers_mended(scan, views, settings)
            scan, sides, more = sides_of(scan)
            found += more
        else:
            sides = {}
        reasons = unwritten(views)
        finite = bool(
            np.isfinite(views.samples[good_frames(reasons, len(views.samples))]).all()
        )  # if so, it is refused later
        if scan.detectors is None and views.known and finite:
            judge_light(scan, views, sides, settings, reasons)
        kept, more = left_out("Views", reasons, views)
        found += more
        if len(kept) < scan.n_views:
            scan = _without(scan, kept, found, turning)
        if turning:
            doubted_angles(scan)
            doubted_layout(scan, settings)
            doubted_sweep(scan, settings)
    except QuietrayError as error:
        refusal = error
    return Claims(replace(scan, notes=(*scan.notes, *found)), tuple(found), refusal, (len(views.numbers), views.total))


def _without(scan: Scan, kept: Int[np.ndarray, " view"], found: list[str], turning: bool) -> Scan:
    if len(kept) < 2:
        raise NoiseError(
            f"a scan must have at least 2 views that show something, got {len(kept)} of {scan.n_views}; "
            f"{' '.join(found)} Give the whole scan"
        )
    rest = scan[kept]
    before, after = (np.rad2deg(one.geometry.coverage) for one in (scan, rest))
    if turning and after < 170 < before:
        rest = replace(rest, provenance={**rest.provenance, "cut_short": " ".join(found)})
    if after < before - 5:
        found.append(f"The remaining views cover {after:.0f} degrees, not {before:.0f}.")
    return rest


def _numbers_mended(scan: Scan, views: Glance, settings: Correction) -> tuple[Scan, Glance, list[str]]:
    """Return the scan with integer overflow undone and mask values marked as bad."""
    found: list[str] = []
    stacks: dict[str, Any] = {"projections": scan.projections}
    stacks |= {name: frames for name in ("flats", "darks") if (frames := getattr(scan, name)) is not None}
    kind, said = true_type(scan, views)
    if kind is not None:
        size = kind.itemsize
        stacks = {
            name: mended_frames(frames, kind=kind) if np.dtype(frames.dtype).itemsize == size else frames
            for name, frames in stacks.items()
        }
        found.append(said)
    scan = replace(scan, **stacks)
    whole = views.numbers[~views.constant()] if views.known else views.numbers
    masked, said = masked_pixels(scan, whole if len(whole) else views.numbers)
    if masked.any() and not settings.line_integrals:
        stacks = {name: mended_frames(frames, masked) for name, frames in stacks.items()}
        scan = replace(scan, **stacks)
        found.append(said)
    return scan, _glance_again(scan, views) if found else views, found


def _glance_again(scan: Scan, views: Glance) -> Glance:
    """Return the same samples from the repaired scan."""
    whole = chosen_frames(scan.projections, views.numbers)
    seen = glance(whole)
    return replace(seen, numbers=views.numbers, total=views.total)
