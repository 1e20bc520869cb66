"""Reasons for leaving frames out (empty, duplicate or saturated), and how they are reported."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from quietray.detector.correction.glance import Glance, named

__all__ = ["binned", "good_frames", "left_out", "saturated", "unwritten"]

_AGAIN = 0.75  # of the frames: each stored up to four times; more are alike because nothing turns, or has no noise


def unwritten(seen: Glance) -> dict[str, Bool[np.ndarray, " frame"]]:
    """Return the frames that hold no data, by reason; none if all frames are alike."""
    reasons: dict[str, Bool[np.ndarray, " frame"]] = {}
    if not seen.known:
        return reasons
    empty = seen.constant()
    if empty.all() or not empty.any():
        empty[:] = False
    reasons["were never written (they hold one value only)"] = empty
    torn = seen.torn() & ~empty
    reasons["have rows of one value only (written in part, or saturated)"] = torn
    again = seen.repeated() & ~empty & ~torn
    if again.mean() <= _AGAIN and np.issubdtype(seen.samples.dtype, np.integer):
        reasons["are identical to the frame before"] = again
    return reasons


def saturated(seen: Glance, used: Bool[np.ndarray, "row col"]) -> Bool[np.ndarray, " frame"]:
    """Return which frames have many samples at their largest value, if most frames do not."""
    samples = seen.samples[:, used]
    if not samples.size:
        return np.zeros(len(samples), bool)
    few = samples.shape[1]
    top = samples.max(axis=1, keepdims=True)
    share = np.where(top[:, 0] >= 255, (samples == top).mean(axis=1), 0)
    return np.asarray((share > max(0.01, 8 / few)) & (np.median(share) < max(1e-3, 3 / few)))


def good_frames(reasons: dict[str, Bool[np.ndarray, " frame"]], n: int) -> Bool[np.ndarray, " frame"]:
    """Return which frames have no reason to be left out."""
    return np.asarray(~np.any([np.zeros(n, bool), *reasons.values()], axis=0))


def left_out(
    what: str, reasons: dict[str, Bool[np.ndarray, " frame"]], seen: Glance
) -> tuple[Int[np.ndarray, " kept"], list[str]]:
    """Return the numbers of the frames to keep, and sentences about the others."""
    found = [
        f"{what} {named(seen.numbers[which])} ({int(which.sum())} of {seen.total}) {reason}: left out."
        for reason, which in reasons.items()
        if which.any()
    ]
    bad = np.concatenate([seen.numbers[which] for which in reasons.values()]) if reasons else np.zeros(0, int)
    return np.setdiff1d(np.arange(seen.total), bad), found


def binned(samples: Float[np.ndarray, "frame row col"]) -> Float[np.ndarray, "frame bin"]:
    """Return the mean over the rows and over up to 32 groups of columns."""
    profile = samples.mean(axis=1)
    n = min(32, profile.shape[1])
    return np.stack([part.mean(axis=1) for part in np.array_split(profile, n, axis=1)], axis=1)
