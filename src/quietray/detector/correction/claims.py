"""Is every frame what it claims to be?  What is not is named, and left out or mended; or the run is refused.

One look at a few rows of every frame serves `info`, `check` and every run alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from quietray.detector.correction.calibration import Correction
from quietray.detector.correction.frames import robust_sd
from quietray.detector.correction.glance import Glance, glance, named
from quietray.detector.correction.layout import doubted_angles, doubted_layout
from quietray.detector.correction.numbers import masked_pixels, true_type
from quietray.errors import NoiseError, QuietrayError
from quietray.lazy import chosen_frames, mended_frames
from quietray.scan import Scan

__all__ = ["Claims", "claims_of", "sound"]

_USUAL = Correction()
_DARK = 0.05  # of the usual light; a frame with less is one without beam
_JUMP = 0.4  # of the logarithm of the light, from one view to the next
_MOST = 0.25  # of the views may be left out for their brightness: more are a state of the beam, not an accident


@dataclass(frozen=True, eq=False)
class Claims:
    """What was found of a scan.

    Parameters
    ----------
    scan
        With only those frames that are what they claim to be, and what was found among its notes.
    found
        Sentences about frames and pixels.
    refusal
        Why a run would be refused, or None.
    looked_at
        Views that were looked at, of how many.
    """

    scan: Scan
    found: tuple[str, ...]
    refusal: QuietrayError | None
    looked_at: tuple[int, int]


def sound(scan: Scan, settings: Correction = _USUAL, *, turning: bool = True) -> Scan:
    """Return a scan with only those frames that are what they claim to be; its notes name the others.

    Parameters
    ----------
    scan
        As read.
    settings
        How it is to be corrected.
    turning
        Whether the object turned: then angles and axes of the stack are looked at, too.

    Raises
    ------
    NoiseError, GeometryError
        What is in the file cannot be used as it is.

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
    """Look at a few rows of every frame; of as many, evenly spread, as there is time for."""
    views = glance(scan.projections, seconds)
    found: list[str] = []
    refusal: QuietrayError | None = None
    try:
        if scan.detectors is None:
            scan, views, found = _numbers_mended(scan, views, settings)
            scan, sides, more = _sides(scan)
            found += more
        else:
            sides = {}
        reasons = _unwritten(views)
        finite = bool(np.isfinite(views.samples[_good(reasons, len(views.samples))]).all())  # else it is refused later
        if scan.detectors is None and not settings.line_integrals and views.known and finite:
            _by_light(scan, views, sides, settings, reasons)
        kept, more = _left_out("Views", reasons, views)
        found += more
        if len(kept) < scan.n_views:
            scan = _without(scan, kept, found)
        if turning:
            doubted_angles(scan)
            doubted_layout(scan, settings)
    except QuietrayError as error:
        refusal = error
    return Claims(replace(scan, notes=(*scan.notes, *found)), tuple(found), refusal, (len(views.numbers), views.total))


def _without(scan: Scan, kept: Int[np.ndarray, " view"], found: list[str]) -> Scan:
    if len(kept) < 2:
        raise NoiseError(
            f"a scan must have at least 2 views that show something, got {len(kept)} of {scan.n_views}; "
            f"{' '.join(found)} Give the whole scan"
        )
    rest = scan[kept]
    before, after = (np.rad2deg(one.geometry.coverage) for one in (scan, rest))
    if after < before - 5:
        found.append(f"The views that are left cover {after:.0f} degrees, not {before:.0f}.")
    return rest


def _numbers_mended(scan: Scan, views: Glance, settings: Correction) -> tuple[Scan, Glance, list[str]]:
    """Return the scan with numbers that wrapped around unwrapped, and mask values out of the way."""
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
    return scan, glance_again(scan, views) if found else views, found


def glance_again(scan: Scan, views: Glance) -> Glance:
    """Return the same samples of a scan that was mended."""
    whole = chosen_frames(scan.projections, views.numbers)
    seen = glance(whole)
    return replace(seen, numbers=views.numbers, total=views.total)


def _unwritten(seen: Glance) -> dict[str, Bool[np.ndarray, " frame"]]:
    """Return which frames hold nothing, by what is said of them; none where all are alike."""
    reasons: dict[str, Bool[np.ndarray, " frame"]] = {}
    if not seen.known:
        return reasons
    empty = seen.constant()
    if empty.all() or not empty.any():
        empty[:] = False
    reasons["were never written (they hold one value only)"] = empty
    torn = seen.torn() & ~empty
    reasons["were written in part only (rows of one value)"] = torn
    again = seen.repeated() & ~empty & ~torn
    if again.mean() < 0.5 and np.issubdtype(seen.samples.dtype, np.integer):
        reasons["are the frame before once more"] = again
    return reasons


def _saturated(seen: Glance, used: Bool[np.ndarray, "row col"]) -> Bool[np.ndarray, " frame"]:
    """Return which frames pile up at the largest value where most do not."""
    samples = seen.samples[:, used]
    top = np.nanmax(samples) if samples.size else 0
    share = (samples == top).mean(axis=1) if top >= 255 else np.zeros(len(samples))
    return np.asarray((share > 0.01) & (np.median(share) < 1e-3))


def _good(reasons: dict[str, Bool[np.ndarray, " frame"]], n: int) -> Bool[np.ndarray, " frame"]:
    return np.asarray(~np.any([np.zeros(n, bool), *reasons.values()], axis=0))


def _left_out(
    what: str, reasons: dict[str, Bool[np.ndarray, " frame"]], seen: Glance
) -> tuple[Int[np.ndarray, " frame"], list[str]]:
    """Return the numbers of the frames to keep, and what is said of the others."""
    found = [
        f"{what} {named(seen.numbers[which])} ({int(which.sum())} of {seen.total}) {reason}: left out."
        for reason, which in reasons.items()
        if which.any()
    ]
    bad = np.concatenate([seen.numbers[which] for which in reasons.values()]) if reasons else np.zeros(0, int)
    return np.setdiff1d(np.arange(seen.total), bad), found


@dataclass(frozen=True, eq=False)
class _Side:
    """Flats or darks: their glance, and which of the frames are good."""

    seen: Glance
    good: Bool[np.ndarray, " frame"]

    @property
    def mean(self) -> Float[np.ndarray, "row col"]:
        return np.asarray(np.median(self.seen.samples[self.good].astype(np.float32), axis=0))


def _sides(scan: Scan) -> tuple[Scan, dict[str, _Side], list[str]]:
    """Return the scan with the flats that show the beam and the darks that do not, and how they look."""
    sides: dict[str, _Side] = {}
    reasons: dict[str, dict[str, Bool[np.ndarray, " frame"]]] = {}
    levels: dict[str, Float[np.ndarray, " frame"]] = {}
    for name in ("darks", "flats"):
        frames = getattr(scan, name)
        if frames is None:
            continue
        seen = glance(frames)
        reasons[name] = _unwritten(seen)
        levels[name] = seen.levels(np.ones(seen.samples.shape[1:], bool))
        sides[name] = _Side(seen, _good(reasons[name], len(seen.samples)))
    if "flats" in sides:
        _closed_and_open(sides, reasons, levels)
        flats = sides["flats"].seen
        reasons["flats"]["are saturated"] = _saturated(flats, flats.varying(sides["flats"].good))
        reasons["flats"]["show more than the beam, such as the sample"] = _with_sample(
            flats, float(np.median(levels["darks"])) if "darks" in levels else 0.0, _good(reasons["flats"], flats.total)
        )
    found: list[str] = []
    for name, side in list(sides.items()):
        good = _good(reasons[name], len(side.good))
        if not good.any():
            continue  # which is told where they are measured
        kept, said = _left_out(name.capitalize(), reasons[name], side.seen)
        found += said
        sides[name] = replace(side, good=good)
        if len(kept) < side.seen.total:
            some: dict[str, Any] = {name: chosen_frames(getattr(scan, name), kept)}
            scan = replace(scan, **some)
    return scan, sides, found


def _closed_and_open(
    sides: dict[str, _Side],
    reasons: dict[str, dict[str, Bool[np.ndarray, " frame"]]],
    levels: dict[str, Float[np.ndarray, " frame"]],
) -> None:
    """Add which flats are dark and which darks are bright, if not all of them."""
    low = float(np.min(levels["darks"][sides["darks"].good], initial=np.inf)) if "darks" in sides else 0.0
    high = float(np.percentile(levels["flats"], 90))
    if not high > low + 3 * _noise(sides):
        return
    closed = levels["flats"] - low < _DARK * (high - low)
    if not closed.all():
        reasons["flats"]["are dark, as with the shutter closed"] = closed
    if "darks" in sides:
        lit = levels["darks"] - low > _DARK * (high - low)
        if not lit.all():
            reasons["darks"]["are bright, as with the shutter open"] = lit


def _noise(sides: dict[str, _Side]) -> float:
    """Return the noise of the darks in counts, 0 where it is not known."""
    if "darks" not in sides:
        return 0.0
    return robust_sd(np.diff(sides["darks"].seen.samples.astype(np.float32), axis=0).ravel())


def _with_sample(flats: Glance, low: float, good: Bool[np.ndarray, " frame"]) -> Bool[np.ndarray, " frame"]:
    """Return which flats are darker than most in some columns."""
    none = np.zeros(len(good), bool)
    if good.sum() < 3 or flats.samples.shape[2] < 32:
        return none
    bins = _binned(flats.samples.astype(np.float32) - low)
    bins /= np.maximum(np.percentile(bins, 90, axis=1, keepdims=True), 1e-6)
    ratio = bins / np.maximum(np.percentile(bins[good], 75, axis=0), 1e-6)
    noise = robust_sd(np.diff(ratio, axis=1).ravel()) / np.sqrt(2)
    lower = ndimage.uniform_filter1d(ratio, 3, axis=1, mode="nearest") < 1 - max(0.08, 6 * noise)
    return np.asarray(good & (lower.mean(axis=1) > 0.05))


def _binned(samples: Float[np.ndarray, "frame row col"]) -> Float[np.ndarray, "frame bin"]:
    """Return the mean over the rows and over up to 32 groups of columns."""
    profile = samples.mean(axis=1)
    n = min(32, profile.shape[1])
    return np.stack([part.mean(axis=1) for part in np.array_split(profile, n, axis=1)], axis=1)


def _by_light(
    scan: Scan,
    views: Glance,
    sides: dict[str, _Side],
    settings: Correction,
    reasons: dict[str, Bool[np.ndarray, " frame"]],
) -> None:
    """Add the views without beam, of another exposure, saturated, or without the object.

    Raises
    ------
    NoiseError
        So many views have other light that it is no accident, and nothing tells how much; or the darks or the flats
        cannot belong to the views.
    """
    written = _good(reasons, len(views.samples))
    used = views.varying(written) if written.any() else written
    if not used.any() or written.sum() < 4:
        return
    reasons["are saturated"] = _saturated(views, used) & written
    dark = sides["darks"].mean if "darks" in sides else np.zeros(used.shape, np.float32)
    level = views.levels(used) - float(dark[used].mean())
    usual = float(np.percentile(level[written], 90))
    if not usual > 0:
        return
    without = written & (level < _DARK * usual)
    without &= _abrupt(without, level, lambda near, own: near > max(0.2 * usual, 3 * own))
    reasons["are dark, as without beam"] = without
    rest = np.flatnonzero(_good(reasons, len(written)))
    if settings.air == "auto" and len(rest) >= 8:
        odd = np.zeros(len(level), bool)
        odd[rest] = _of_other_light(level[rest])
        if odd.mean() > _MOST:
            at = views.numbers[np.flatnonzero(odd)[[0, -1]]]
            raise NoiseError(
                f"the light of the views must not jump, got {odd.sum()} views from {at[0]} to {at[1]} with other light "
                "than the rest; name columns beside the object with --air (such as --air 0:20), by which the views are "
                "made equal, or leave these views out"
            )
        reasons["have other light than the rest"] = odd
    _compared_with_sides(views, sides, dark, written & ~without, settings, reasons)


def _of_other_light(level: Float[np.ndarray, " view"]) -> Bool[np.ndarray, " view"]:
    """Return the views between jumps of the light, where most views are not; an object that turns makes no jumps."""
    change = np.diff(np.log(np.maximum(level, 1e-9)))
    sized = np.pad(change, 1)
    gradual = np.maximum(sized[:-2] * np.sign(change), sized[2:] * np.sign(change)) > 0.25 * np.abs(change)
    jumps = np.where((np.abs(change) > _JUMP) & ~gradual, change, 0)  # a plate seen edge-on darkens by and by
    state = np.concatenate([[0.0], np.cumsum(jumps)])
    near = np.abs(state[:, None] - np.unique(state.round(9))[None]) < _JUMP / 2
    usual = near[:, near.sum(axis=0).argmax()]
    return np.asarray(~usual)


def _compared_with_sides(
    views: Glance,
    sides: dict[str, _Side],
    dark: Float[np.ndarray, "row col"],
    good: Bool[np.ndarray, " view"],
    settings: Correction,
    reasons: dict[str, Bool[np.ndarray, " frame"]],
) -> None:
    """Add the views that show no object; raise where darks or flats are not of this scan, or hold light or the object.

    Raises
    ------
    NoiseError
        The darks are brighter than the views, the views are brighter than the flats, or the flats hold the object.
    """
    if "flats" not in sides or not good.any():
        return
    flat = sides["flats"].mean - dark
    high = float(np.percentile(flat, 90))
    if not high > 0:
        return
    noise = _noise(sides)
    if high < 3 * noise:
        return  # which is told where the flats are measured
    usable, seen = flat > 0.1 * high, views.samples[good].astype(np.float32)
    below = (seen[:, usable] < (dark - 0.03 * high - 6 * noise)[usable]).mean()
    if below > 0.01:
        raise NoiseError(
            f"darks must not be brighter than the views, got {below:.0%} of the samples of the views below them: the "
            "beam was on; give others with --darks, or the dark level as a number, such as --darks 100"
        )
    if "darks" in sides and (leak := _leak(dark, sides["flats"].mean)) > _DARK:
        raise NoiseError(
            f"darks must hold no light, got {leak:.0%} of that of the flats, in their pattern: the shutter leaked; "
            "give others with --darks, or the dark level as a number, such as --darks 100"
        )
    ratio = _binned(np.where(usable, (seen - dark) / np.where(usable, flat, 1), 1))
    if ratio.shape[1] < 8:
        return
    ratio = ndimage.median_filter(ratio, (1, 3), mode="nearest")
    bright, edges = ratio.max(axis=1), ratio[:, [0, -1]].mean(axis=1)
    air = float(np.median(edges))
    beside = np.abs(ratio[:, [0, -1]] - 1).max() < 0.08
    if beside and float(np.median(bright)) > 1.08 * air:
        raise NoiseError(
            f"flats must show nothing but the beam, got views that are {np.median(bright) / air:.2f} times as bright "
            "beside their air: the object was in the flats; give others with --flats"
        )
    if settings.air == "auto" and float(np.median(bright)) > 1.5:
        raise NoiseError(
            f"views must not be brighter than the flats, got {np.median(bright):.2f} times as much light: the flats "
            "are of another exposure, or the beam was not whole; give others with --flats, or name columns beside the "
            "object with --air, by which the views are made equal to the flats"
        )
    _without_object(ratio, good, reasons)


def _leak(dark: Float[np.ndarray, "row col"], flat: Float[np.ndarray, "row col"]) -> float:
    """Return how much of the pattern of the flats is in the darks, 0 where it is not theirs."""
    dark, flat = (ndimage.median_filter(one, 3) for one in (dark, flat))
    if dark.std() == 0 or flat.std() == 0 or float(np.corrcoef(dark.ravel(), flat.ravel())[0, 1]) < 0.9:
        return 0.0
    return float(np.polyfit(flat.ravel(), dark.ravel(), 1)[0])


def _without_object(
    ratio: Float[np.ndarray, "view bin"],
    good: Bool[np.ndarray, " view"],
    reasons: dict[str, Bool[np.ndarray, " frame"]],
) -> None:
    """Add the views that are as even as flats where those around them are not."""
    depth = np.full(len(good), np.nan)
    low, high = np.percentile(ratio, [5, 95], axis=1)
    depth[good] = (high - low) / np.maximum(high, 1e-6)
    usual = float(np.nanmedian(depth))
    noise = robust_sd(np.diff(ratio, axis=1).ravel())
    if usual < max(0.1, 8 * noise):
        return
    depth[~good] = usual
    even = good & (depth < 0.25 * usual)
    even &= _abrupt(even, depth, lambda near, own: near > 0.6 * usual)
    if 0 < even.mean() < _MOST:
        reasons["show the beam without the object, as flats do"] = even & _good(reasons, len(good))


def _abrupt(
    flagged: Bool[np.ndarray, " view"], values: Float[np.ndarray, " view"], jumps: Callable[[float, float], bool]
) -> Bool[np.ndarray, " view"]:
    """Return the runs of flagged views whose value jumps on a side: nothing in an object that turns does."""
    out = np.zeros_like(flagged)
    ends = np.flatnonzero(np.diff(np.concatenate([[False], flagged, [False]]).astype(np.int8)))
    for start, stop in ends.reshape(-1, 2):
        sides = [(values[start - 1], values[start])] if start > 0 else []
        sides += [(values[stop], values[stop - 1])] if stop < len(values) else []
        out[start:stop] = any(jumps(near, own) for near, own in sides)
    return out
