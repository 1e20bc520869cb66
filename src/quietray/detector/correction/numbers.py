"""Checks of the stored numbers: integer overflow, and special values that are not counts."""

from __future__ import annotations

import numpy as np

from quietray.detector.correction.glance import Glance, glance
from quietray.scan import Scan
from quietray.types import PixelMask

__all__ = ["masked_pixels", "true_type"]

_FEW = 8  # number of whole frames that are read


def true_type(scan: Scan, views: Glance) -> tuple[np.dtype[np.generic] | None, str]:
    """Return the true type of the numbers and a sentence; None if it is the type in the file.

    If unsigned numbers are stored as signed ones, counts above half of the range become negative.  If signed numbers
    are stored as unsigned ones, negative counts (after dark subtraction) become huge.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> rng = np.random.default_rng(0)
    >>> bright = rng.poisson(33000, (9, 4, 40)).astype(np.uint16).view(np.int16)
    >>> scan = Scan(bright, ParallelBeam(np.linspace(0, 3, 9), 4, 40))
    >>> true_type(scan, glance(scan.projections))[0]
    dtype('uint16')
    """
    kind = np.dtype(scan.projections.dtype)
    if kind.kind not in "iu" or kind.itemsize > 4:
        return None, ""
    stacks = [views.samples]
    darks = None if scan.darks is None else glance(scan.darks).samples
    if scan.flats is not None and np.dtype(scan.flats.dtype) == kind:
        stacks.append(glance(scan.flats).samples)
    moving = [part for part in (stack[:, (stack != stack[:1]).any(axis=0)] for stack in stacks) if part.size]
    if not moving:
        return None, ""
    other, bits = np.dtype(f"{'u' if kind.kind == 'i' else 'i'}{kind.itemsize}"), 8 * kind.itemsize
    if kind.kind == "i":
        wrapped = max(float((part < -(2 ** (bits - 5))).mean()) for part in moving) > 2e-3
        level = 0.0 if darks is None else float(np.median(darks))
        wrapped |= float(np.median(moving[-1])) < -20 and level > -5
        said = f"Counts above {2 ** (bits - 1) - 1} had overflowed to negative numbers: they were read as {other}."
        return (other, said) if wrapped else (None, "")
    top, half = 15 * 2 ** (bits - 4), 2 ** (bits - 1)
    under = darks is not None and bool(np.median(darks) < 2 ** (bits - 4) or np.median(darks) >= top)
    if darks is not None and under and 1e-3 < float((darks >= top).mean()) and (darks < 2 ** (bits - 4)).any():
        between = max(float(((part >= half) & (part < top)).mean()) for part in moving)
        if between == 0:
            return other, f"Counts below zero had wrapped to huge numbers: they were read as {other}."
    return None, ""


def masked_pixels(scan: Scan, views: np.ndarray) -> tuple[PixelMask, str]:
    """Return pixels with a constant out-of-range value in all frames, which detectors write for gaps.

    Parameters
    ----------
    scan
        A scan.
    views
        Numbers of views to look at.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> counts = np.random.default_rng(0).poisson(90, (9, 4, 40)).astype(np.uint16)
    >>> counts[:, :, 7] = 65535
    >>> masked, said = masked_pixels(Scan(counts, ParallelBeam(np.linspace(0, 3, 9), 4, 40)), np.arange(9))
    >>> int(masked.sum()), said
    (4, '4 pixels hold no counts (65535 in every frame) and are taken as bad.')
    """
    chosen = views[np.unique(np.linspace(0, len(views) - 1, min(_FEW, len(views))).round().astype(int))]
    frames = [np.asarray(scan.projections[int(view) : int(view) + 1])[0] for view in chosen]
    if scan.flats is not None:
        n_flats = int(scan.flats.shape[0])
        some = np.unique(np.linspace(0, n_flats - 1, min(4, n_flats)).round().astype(int))
        frames += [np.asarray(scan.flats[int(flat) : int(flat) + 1])[0] for flat in some]
    first, none = frames[0], np.zeros(frames[0].shape, bool)
    steady, low, high = ~none, np.full(first.shape, np.inf), np.full(first.shape, -np.inf)
    for frame in frames:
        steady &= (frame == first) | (np.isnan(frame) & np.isnan(first))
        low, high = np.fmin(low, frame), np.fmax(high, frame)
    if steady.all() or len(frames) < 3 or steady.mean() > 0.9:
        return none, ""
    least, most = float(np.percentile(low[~steady], 0.1)), float(np.percentile(high[~steady], 99.9))
    span = max(most - least, 1.0)
    if scan.flats is None:
        steady &= first != 1  # for transmissions: noise-free air
    masked = steady & (np.isnan(first) | (first > most + 0.02 * span) | ((first < 0) & (first < least)))
    values = np.unique(first[masked])[:4]
    told = ", ".join(f"{value:g}" if abs(value) < 1e5 else f"{value:.0f}" for value in values.tolist())
    return masked, f"{int(masked.sum())} pixels hold no counts ({told} in every frame) and are taken as bad."
