"""Flat and dark fields of a scan: measured from its frames, checked, and filled at bad pixels."""

from __future__ import annotations

import math

import numpy as np

from quietray.detector.correction.frames import FrameStatistics, frame_statistics, robust_sd, typical_variance
from quietray.detector.correction.survey import ViewSurvey, local_median
from quietray.errors import NoiseError
from quietray.scan import Scan
from quietray.types import Frame, PixelMask
from quietray.wording import Doubt

__all__ = ["measure_fields", "noise_of_frames", "without_holes"]


def measure_fields(
    scan: Scan, views: ViewSurvey
) -> tuple[Frame, Frame, FrameStatistics | None, FrameStatistics | None, tuple[str, ...]]:
    """Return flat minus dark, the dark, the statistics of both, and notes."""
    dark, darks, flats, notes = np.zeros((scan.n_rows, scan.n_cols), np.float32), None, None, list[str]()
    if scan.flats is None:
        _require_transmissions(scan, views)
        notes.append("There are no flats: the projections were assumed to be transmissions.")
        return np.ones_like(dark), dark, None, None, tuple(notes)
    if scan.darks is None:
        notes.append("There are no darks: a dark level of zero was assumed, which is wrong for most cameras.")
    else:
        darks = frame_statistics(scan.darks, "darks")
        dark = darks.mean
    flats = frame_statistics(scan.flats, "flats", dark, drift=True)
    if darks is not None and min(flats.n_frames, darks.n_frames) > 1 and flats.mean.max() > 0:
        if float(flats.constant.mean()) > 0.5 and float(darks.constant.mean()) < 0.5:
            raise NoiseError(
                f"flats must not be saturated, got {flats.constant.mean():.0%} of the pixels with one value in all of "
                "them, while the darks are noisy; expose shorter, or give others with --flats"
            )
    flat = flats.mean if flats.n_frames > 1 else _without_spots(flats.mean, views.mean - dark)
    views.top.check("projections", noisy=flats.n_frames > 1 and float(flats.constant.mean()) < 0.5)
    bright = float(np.percentile(flat, 90))
    noise = robust_sd(darks.spread) if darks is not None and darks.spread is not None else 0.0
    if bright <= max(3 * noise, 1e-6 * max(1.0, float(np.abs(dark).max()))):
        raise NoiseError(
            f"flats must be brighter than the darks, got {bright:.4g} counts above them in the brightest tenth; "
            "check that the beam was on for the flats, and that flats and darks are not swapped"
        )
    if flats.n_frames < 5 and float(np.ptp(flats.mean + dark)) > 0:
        one = flats.n_frames == 1
        few = "is only 1 flat: its" if one else f"are only {flats.n_frames} flats: their"
        notes.append(Doubt(f"There {few} noise becomes rings."))
    return flat, dark, flats, darks, tuple(notes)


def _require_transmissions(scan: Scan, views: ViewSurvey) -> None:
    """Raise unless projections without flats look like transmissions: fractions, with air at about 1."""
    kind = np.dtype(scan.projections.dtype)
    across = views.mean.mean(axis=0)
    n_edge = max(1, len(across) // 20)
    ends, middle = (float(across[:n_edge].mean()), float(across[-n_edge:].mean())), float(across.max())
    edge, air = sum(ends) / 2, max(ends)
    if 0.85 < air < 1.15 and air > 0.9 * middle:
        pass  # air at one edge is enough: the other edge may be inside the object
    elif len(across) >= 16 and edge < 0.75 * middle and (edge < 0.2 or middle - edge > 0.3):
        raise NoiseError(
            f"projections without flats must be transmissions (air about 1, the object darker), got {kind} values of "
            f"about {edge:.2g} at the edges and {middle:.4g} between; if they are line integrals, pass "
            "--line-integrals; if they are counts, give the open-beam frames, or their level, with --flats"
        )
    bright = float(np.percentile(views.mean, 99))
    if not (np.issubdtype(kind, np.floating) and 0.5 < bright < 1.5 and views.mean.min() > -0.2):
        raise NoiseError(
            f"projections without flats must be transmissions (fractions, air about 1), got {kind} values up to about "
            f"{bright:.4g}; give the open-beam frames, or their level (such as --flats 60000), with --flats; if they "
            "are line integrals, pass --line-integrals"
        )


def _without_spots(flat: Frame, light: Frame) -> Frame:
    """Return a single flat without zingers, which are bright spots that the views do not show."""
    around = local_median(flat, flat > 0)
    seen, around_seen = light / np.maximum(flat, 1e-6), light / np.maximum(around, 1e-6)
    limit = np.maximum(6 * robust_sd(flat - around), 0.05 * around)
    expected = local_median(seen.astype(np.float32), flat > 0)
    spots = (flat - around > limit) & (np.abs(around_seen - expected) < np.abs(seen - expected))
    return np.where(spots, around, flat)


def without_holes(flat: Frame, bad: PixelMask) -> Frame:
    """Return a flat without zeros, safe to divide by; the filled pixels are interpolated later."""
    filled = np.where(bad, local_median(flat, ~bad), flat)
    usable = filled[filled > 0]
    return np.where(filled > 0, filled, np.median(usable) if usable.size else 1).astype(np.float32)


def noise_of_frames(
    flat: Frame, flats: FrameStatistics | None, darks: FrameStatistics | None, bad: PixelMask
) -> tuple[float, float]:
    """Return counts per quantum, from the variance and mean of the flats, and the noise of the dark."""
    good = ~bad
    read_noise = 0.0
    if darks and darks.spread is not None and good.any():
        read_noise = float(np.median(darks.spread[good])) / math.sqrt(typical_variance(darks.n_frames))
    if flats is None or flats.spread is None or not good.any():
        return 0.0, read_noise
    variance = float(np.median(flats.spread[good] ** 2 / flat[good])) / typical_variance(flats.n_frames)
    return max(variance - read_noise**2 / float(np.median(flat[good])), 0.0), read_noise
