"""Beam intensity between flats, interpolated in time if the file gives the times."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from quietray.detector.correction.frames import SAMPLES, sampled_rows
from quietray.scan import Scan
from quietray.types import Frame

__all__ = ["beam_between_flats"]

_LEAST = 0.005  # smallest relative change of the beam worth correcting


def beam_between_flats(scan: Scan, dark: Frame) -> Float[np.ndarray, " view"] | None:
    """Return the beam intensity of each view relative to the mean of the flats; None if it is unknown.

    Consecutive flats count as one measurement; the beam intensity is interpolated linearly between measurements.

    Parameters
    ----------
    scan
        Scan with the times of views and flats.
    dark
        Mean dark in counts, ``(row, col)``.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> flats = np.ones((2, 4, 6), np.float32) * np.array([90, 110], np.float32)[:, None, None]
    >>> beam = ParallelBeam(np.linspace(0, 3, 3), 4, 6)
    >>> scan = Scan(np.ones((3, 4, 6)), beam, flats, taken=np.array([1, 2, 3]), flats_taken=np.array([0, 4]))
    >>> beam_between_flats(scan, np.zeros((4, 6), np.float32)).astype(float).round(3).tolist()
    [0.95, 1.0, 1.05]
    """
    if scan.flats is None or scan.flats_taken is None or scan.taken is None:
        return None
    group = np.searchsorted(np.sort(scan.taken), scan.flats_taken)  # number of views before each flat
    if np.ptp(group) == 0:
        return None
    n_flats, n_rows, n_cols = (int(size) for size in scan.flats.shape)
    rows = sampled_rows(n_rows, max(1, min(64, SAMPLES // (n_flats * n_cols))))
    counts = np.asarray(scan.flats[:, rows], np.float32) - dark[rows]
    levels = np.median(counts.reshape(n_flats, -1), axis=1)
    mean = float(levels.mean())
    if mean <= 0:
        return None
    members = [group == one for one in np.unique(group)]
    times = [float(scan.flats_taken[which].mean()) for which in members]
    each = np.array([float(levels[which].mean()) for which in members]) / mean
    if np.ptp(each) < _LEAST:
        return None
    return np.asarray(np.interp(scan.taken, times, each), np.float32)
