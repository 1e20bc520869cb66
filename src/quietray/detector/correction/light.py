"""Checks of the light in the views: no beam, another exposure, no object, or impossible values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from quietray.detector.correction.calibration import Correction
from quietray.detector.correction.frames import robust_sd
from quietray.detector.correction.glance import Glance
from quietray.detector.correction.kinds import binned, good_frames, saturated
from quietray.detector.correction.sides import Side, noise_of
from quietray.errors import NoiseError
from quietray.scan import Scan

__all__ = ["judge_light"]

_DARK = 0.05  # of the usual light; a frame with less was taken without beam
_NO_LIGHT = 0.002  # of the flats, behind which nothing was measured
_JUMP = 0.4  # in the logarithm of the light, between consecutive views
_WIDELY = 95  # percent of the columns; fewer may be brighter than air because of fringes
_MOST = 0.25  # largest fraction of views to leave out for their brightness; more indicate a change of the beam


def judge_light(
    scan: Scan,
    views: Glance,
    sides: dict[str, Side],
    settings: Correction,
    reasons: dict[str, Bool[np.ndarray, " frame"]],
) -> None:
    """Add the views without beam, with another exposure, with saturation, or without the object.

    Raises
    ------
    NoiseError
        No view has any light, too many views have different light, by an unknown factor, or the darks or flats cannot
        belong to the views.
    """
    if not settings.line_integrals:
        _require_light(views, sides)
    written = good_frames(reasons, len(views.samples))
    used = views.varying(written) if written.any() else written
    if not used.any() or written.sum() < 4:
        return
    if not settings.line_integrals:
        reasons["are saturated"] = saturated(views, used) & written
    dark = sides["darks"].mean if "darks" in sides else np.zeros(used.shape, np.float32)
    level = views.levels(used) - float(dark[used].mean())
    usual = float(np.percentile(level[written], 90))
    if not usual > 0:
        return
    without = written & (level < _DARK * usual)
    without &= _abrupt(without, level, lambda near, own: near > max(0.2 * usual, 3 * own))
    if settings.line_integrals:
        reasons["show nothing of the object"] = without
        return
    reasons["are dark, as without beam"] = without
    rest = np.flatnonzero(good_frames(reasons, len(written)))
    if settings.air == "auto" and len(rest) >= 8:
        odd = np.zeros(len(level), bool)
        odd[rest] = _of_other_light(level[rest])
        if odd.mean() > _MOST:
            at = views.numbers[np.flatnonzero(odd)[[0, -1]]]
            raise NoiseError(
                f"the intensity of the beam must not jump, got {odd.sum()} views from {at[0]} to {at[1]} that differ "
                "from the rest; name columns beside the object with --air (such as --air 0:20), to scale the views to "
                "each other, or leave these views out"
            )
        reasons["have a different exposure from the rest"] = odd
    _compared_with_sides(views, sides, dark, written & ~without, settings, reasons)


def _require_light(views: Glance, sides: dict[str, Side]) -> None:
    """Raise if no view is brighter than the darks: never written, or taken with a closed shutter."""
    if "flats" not in sides:
        return
    dark = sides["darks"].mean if "darks" in sides else np.zeros_like(sides["flats"].mean)
    light = float(np.median(sides["flats"].mean - dark))
    brightest = float(np.percentile(views.samples.mean(axis=0) - dark, 99))
    if 0 < light and brightest < _NO_LIGHT * light:
        raise NoiseError(
            f"projections must show the beam, got at most {max(brightest, 0.0) / light:.2%} of the flats' intensity in "
            f"all {views.total} views: they were never written, or the shutter was closed; name the right dataset with "
            "--data"
        )


def _of_other_light(level: Float[np.ndarray, " view"]) -> Bool[np.ndarray, " view"]:
    """Return the views between jumps of the light, if most views have none; a rotating object causes no jumps."""
    change = np.diff(np.log(np.maximum(level, 1e-9)))
    sized = np.pad(change, 1)
    gradual = np.maximum(sized[:-2] * np.sign(change), sized[2:] * np.sign(change)) > 0.25 * np.abs(change)
    jumps = np.where((np.abs(change) > _JUMP) & ~gradual, change, 0)  # a plate seen edge-on darkens gradually
    state = np.concatenate([[0.0], np.cumsum(jumps)])
    near = np.abs(state[:, None] - np.unique(state.round(9))[None]) < _JUMP / 2
    usual = near[:, near.sum(axis=0).argmax()]
    return np.asarray(~usual)


def _compared_with_sides(
    views: Glance,
    sides: dict[str, Side],
    dark: Float[np.ndarray, "row col"],
    good: Bool[np.ndarray, " view"],
    settings: Correction,
    reasons: dict[str, Bool[np.ndarray, " frame"]],
) -> None:
    """Add the views that show no object; raise if darks or flats are of another scan, or hold light or the object.

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
    noise = noise_of(sides)
    if high < 3 * noise:
        return  # reported where the flats are measured
    usable, seen = flat > 0.1 * high, views.samples[good].astype(np.float32)
    below = (seen[:, usable] < (dark - 0.03 * high - 6 * noise)[usable]).mean()
    if below > 0.01:
        raise NoiseError(
            f"darks must not be brighter than the views, got {below:.0%} of the samples of the views below them: the "
            "beam was on; give others with --darks, or the dark level as a number, such as --darks 100"
        )
    if "darks" in sides and (leak := _leak(dark, sides["flats"].mean)) > _DARK:
        raise NoiseError(
            f"darks must not show the beam, got {leak:.0%} of the flats' intensity, in their pattern: the shutter "
            "leaked; give others with --darks, or the dark level as a number, such as --darks 100"
        )
    ratio = binned(np.where(usable, (seen - dark) / np.where(usable, flat, 1), 1))
    if ratio.shape[1] < 8:
        return
    ratio = ndimage.median_filter(ratio, (1, 3), mode="nearest")
    bright, edges = ratio.max(axis=1), ratio[:, [0, -1]].mean(axis=1)
    air = float(np.median(edges))
    beside = np.abs(ratio[:, [0, -1]] - 1).max() < 0.08
    widely = float(np.median(np.percentile(ratio, _WIDELY, axis=1)))  # phase-contrast fringes are also bright
    if beside and widely > 1.08 * air:
        raise NoiseError(
            f"flats must show nothing but the beam, got views that are {widely / air:.2f} times as bright at the "
            "object as beside it: the object was in the flats; give others with --flats"
        )
    if settings.air == "auto" and float(np.median(bright)) > 1.5:
        raise NoiseError(
            f"views must not be brighter than the flats, got {np.median(bright):.2f} times their intensity: the flats "
            "have another exposure, or part of the beam was blocked; give others with --flats, or name columns beside "
            "the object with --air, to scale the views to the flats"
        )
    _without_object(ratio, good, reasons)


def _leak(dark: Float[np.ndarray, "row col"], flat: Float[np.ndarray, "row col"]) -> float:
    """Return the fraction of the flats' pattern that is in the darks; 0 if there is none."""
    dark, flat = (ndimage.median_filter(one, 3) for one in (dark, flat))
    if dark.std() == 0 or flat.std() == 0 or float(np.corrcoef(dark.ravel(), flat.ravel())[0, 1]) < 0.9:
        return 0.0
    return float(np.polyfit(flat.ravel(), dark.ravel(), 1)[0])


def _without_object(
    ratio: Float[np.ndarray, "seen bin"],
    good: Bool[np.ndarray, " view"],
    reasons: dict[str, Bool[np.ndarray, " frame"]],
) -> None:
    """Add the views that are as uniform as flats while the views around them are not."""
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
        reasons["show the beam without the object, as flats do"] = even & good_frames(reasons, len(good))


def _abrupt(
    flagged: Bool[np.ndarray, " view"], values: Float[np.ndarray, " view"], jumps: Callable[[float, float], bool]
) -> Bool[np.ndarray, " view"]:
    """Return the runs of flagged views whose value jumps on one side, which a rotating object cannot cause."""
    out = np.zeros_like(flagged)
    ends = np.flatnonzero(np.diff(np.concatenate([[False], flagged, [False]]).astype(np.int8)))
    for start, stop in ends.reshape(-1, 2):
        sides = [(values[start - 1], values[start])] if start > 0 else []
        sides += [(values[stop], values[stop - 1])] if stop < len(values) else []
        out[start:stop] = any(jumps(near, own) for near, own in sides)
    return out
