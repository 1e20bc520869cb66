"""Checks of flats and darks: which flats show only the beam, and which darks are dark."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from quietray.detector.correction.frames import robust_sd
from quietray.detector.correction.glance import Glance, glance
from quietray.detector.correction.kinds import binned, good_frames, left_out, saturated, unwritten
from quietray.lazy import chosen_frames
from quietray.scan import Scan

__all__ = ["Side", "noise_of", "sides_of"]

_DARK = 0.05  # of the usual light; a frame with less was taken without beam


@dataclass(frozen=True, eq=False)
class Side:
    """Flats or darks: their samples, and which of the frames are good."""

    seen: Glance
    good: Bool[np.ndarray, " frame"]

    @property
    def mean(self) -> Float[np.ndarray, "row col"]:
        """Median of the good frames, at the samples ``(row, col)``."""
        return np.asarray(np.median(self.seen.samples[self.good].astype(np.float32), axis=0))


def sides_of(scan: Scan) -> tuple[Scan, dict[str, Side], list[str]]:
    """Return the scan with only valid flats and darks, and their samples."""
    sides: dict[str, Side] = {}
    reasons: dict[str, dict[str, Bool[np.ndarray, " frame"]]] = {}
    levels: dict[str, Float[np.ndarray, " frame"]] = {}
    for name in ("darks", "flats"):
        frames = getattr(scan, name)
        if frames is None:
            continue
        seen = glance(frames)
        reasons[name] = unwritten(seen)
        levels[name] = seen.levels(np.ones(seen.samples.shape[1:], bool))
        sides[name] = Side(seen, good_frames(reasons[name], len(seen.samples)))
    if "flats" in sides:
        _closed_and_open(sides, reasons, levels)
        flats, low = sides["flats"].seen, float(np.median(levels["darks"])) if "darks" in levels else 0.0
        reasons["flats"]["are saturated"] = saturated(flats, flats.varying(sides["flats"].good))
        if float(np.median(levels["flats"])) > low + 3 * noise_of(sides):
            reasons["flats"]["show more than the beam, such as the sample"] = _with_sample(
                flats, low, good_frames(reasons["flats"], flats.total)
            )
    found: list[str] = []
    for name, side in list(sides.items()):
        good = good_frames(reasons[name], len(side.good))
        if not good.any():
            continue  # reported where they are measured
        kept, said = left_out(name.capitalize(), reasons[name], side.seen)
        found += said
        sides[name] = replace(side, good=good)
        if len(kept) < side.seen.total:
            some: dict[str, Any] = {name: chosen_frames(getattr(scan, name), kept)}
            if name == "flats" and scan.flats_taken is not None:
                some["flats_taken"] = scan.flats_taken[kept]
            scan = replace(scan, **some)
    return scan, sides, found


def _closed_and_open(
    sides: dict[str, Side],
    reasons: dict[str, dict[str, Bool[np.ndarray, " frame"]]],
    levels: dict[str, Float[np.ndarray, " frame"]],
) -> None:
    """Add flats that are dark and darks that are bright, unless all are."""
    low = float(np.min(levels["darks"][sides["darks"].good], initial=np.inf)) if "darks" in sides else 0.0
    high = float(np.percentile(levels["flats"], 90))
    if not high > low + 3 * noise_of(sides):
        return  # reported where they are measured
    closed = levels["flats"] - low < _DARK * (high - low)
    if not closed.all():
        reasons["flats"]["are dark, as with the shutter closed"] = closed
    if "darks" in sides:
        lit = levels["darks"] - low > _DARK * (high - low)
        if not lit.all():
            reasons["darks"]["are bright, as with the shutter open"] = lit


def noise_of(sides: dict[str, Side]) -> float:
    """Return the noise of the darks in counts; 0 if unknown."""
    if "darks" not in sides:
        return 0.0
    return robust_sd(np.diff(sides["darks"].seen.samples.astype(np.float32), axis=0).ravel())


def _with_sample(flats: Glance, low: float, good: Bool[np.ndarray, " frame"]) -> Bool[np.ndarray, " frame"]:
    """Return which flats are darker than most in some columns."""
    none = np.zeros(len(good), bool)
    if good.sum() < 3 or flats.samples.shape[2] < 32:
        return none
    bins = binned(flats.samples.astype(np.float32) - low)
    bins /= np.maximum(np.percentile(bins, 90, axis=1, keepdims=True), 1e-6)
    ratio = bins / np.maximum(np.percentile(bins[good], 75, axis=0), 1e-6)
    noise = robust_sd(np.diff(ratio, axis=1).ravel()) / np.sqrt(2)
    lower = ndimage.uniform_filter1d(ratio, 3, axis=1, mode="nearest") < 1 - max(0.08, 6 * noise)
    return np.asarray(good & (lower.mean(axis=1) > 0.05))
