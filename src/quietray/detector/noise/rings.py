"""Rings: the part of the noise of corrected sinograms that is the same in all views, and whether flats explain it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from quietray.detector.correction.correct import Calibration, correct_rows
from quietray.detector.correction.frames import robust_sd, sampled_rows
from quietray.detector.noise.lags import Lags
from quietray.detector.noise.memory import Memory
from quietray.scan import Scan
from quietray.types import Frames

__all__ = ["EXPLAINED", "Rings", "measure_rings"]

EXPLAINED = 1.5  # largest ratio to the variance of the flats' noise for which the flats explain the rings

_WIDTH = 31  # in columns; slower variations are attributed to the beam
_ROWS, _SAMPLES = 64, 2**25  # largest numbers of rows and of samples used
_FEWEST = 256  # in pixels


@dataclass(frozen=True)
class Rings:
    """The noise of corrected sinograms that is the same in all views, before any ring removal.

    Parameters
    ----------
    share, share_error
        Fraction of the noise variance of a view (including the rings) that is due to rings, and its standard error.
    over_flats, over_flats_error
        Variance of the rings relative to that caused by the noise of the mean flat, and its standard error; 1 if the
        flats explain the rings.  None for fewer than two flats.
    sd
        Standard deviation over the pixels, in attenuation.
    source
        Columns that were used: ``"air columns"``, or ``"all columns"`` if there is no air.  In the latter case,
        structures of the object common to all views, such as a tube around the axis, count as well.

    Examples
    --------
    >>> Rings(0.1, 0.01, 1.0, 0.05, 0.003, "air columns").source
    'air columns'
    """

    share: float
    share_error: float
    over_flats: float | None
    over_flats_error: float | None
    sd: float
    source: str


def measure_rings(scan: Scan, calibration: Calibration, lags: Lags, memory: Memory | None = None) -> Rings | None:
    """Measure the rings of the corrected sinograms of one detector, on up to 64 rows; None if it is too small.

    The common part of two halves of the views, each of two quarters, is the ring; the difference between even and odd
    views is noise.  The noise of the mean flat is measured from the first and last half of the flats.  All three are
    high-pass filtered in the same way.

    Parameters
    ----------
    scan, calibration
        The scan and its calibration.
    lags
        Correlation of the noise of neighbouring pixels, which determines the number of independent samples.
    memory
        Memory of the views: if neighbours share noise, the difference between even and odd views has less of it.

    Examples
    --------
    >>> from quietray.detector.correction.correct import calibrate
    >>> from quietray.geometry import ParallelBeam
    >>> rng = np.random.default_rng(0)
    >>> beam = ParallelBeam(np.linspace(0, 3, 40, endpoint=False), 32, 80)
    >>> scan = Scan(rng.poisson(900, (40, 32, 80)), beam, rng.poisson(900, (9, 32, 80)), np.zeros((3, 32, 80)))
    >>> white = np.zeros((3, 3)); white[1, 1] = 1.0
    >>> found = measure_rings(scan, calibrate(scan), white)
    >>> abs(found.share - 0.1) < 4 * found.share_error < 0.05
    True
    """
    rows = sampled_rows(scan.n_rows, max(1, min(_ROWS, _SAMPLES // (scan.n_views * scan.n_cols))))
    good = ~calibration.bad[rows]
    air = np.zeros(scan.n_cols, bool)
    for start, stop in calibration.air_columns:
        air[start:stop] = True
    use = good & air if np.count_nonzero(good & air) >= _FEWEST else good
    if scan.n_views < 8 or np.count_nonzero(use) < _FEWEST:
        return None
    sinograms, _ = correct_rows(scan.read(rows), dataclasses.replace(calibration, remove_rings="none"), rows)
    quarters = [part.mean(axis=1) for part in np.array_split(sinograms, 4, axis=1)]
    parities = [sinograms[:, parity::2].mean(axis=1) for parity in (0, 1)]
    counts = np.array([(scan.n_views + 1) // 2, scan.n_views // 2])
    ring = _clipped(_high_pass((quarters[0] + quarters[2]) / 2, use), use)
    ring *= _clipped(_high_pass((quarters[1] + quarters[3]) / 2, use), use)
    apart = _clipped(_high_pass(parities[0] - parities[1], use), use)
    noise = float((apart**2).mean() / (1 / counts).sum()) / (1.0 if memory is None else memory.alternating)
    step = rows.step or 1
    clumps = float((lags[lags.shape[0] // 2 % step :: step] ** 2).sum())
    error = float(ring.std() * np.sqrt(clumps / ring.size))
    relative = float(np.sqrt(2 * clumps / ring.size))  # relative to a variance
    variance = float(ring.mean())
    whole = noise + max(variance, 0.0)
    share_error = float(np.hypot(noise * error, variance * noise * relative) / whole**2)
    flats = None if scan.flats is None else _noise_of_mean(scan.flats, calibration, rows, use)
    over = None if not flats else variance / flats
    over_error = None if not flats else float(np.hypot(error / flats, variance / flats * relative))
    source = "air columns" if use is not good else "all columns"
    return Rings(variance / whole, share_error, over, over_error, float(np.sqrt(max(variance, 0.0))), source)


def _noise_of_mean(frames: Frames, calibration: Calibration, rows: slice, use: Bool[np.ndarray, "row col"]) -> float:
    """Return the relative variance of the mean flat, without zingers and high-pass filtered; 0 for a single flat."""
    n_frames = int(frames.shape[0])
    if n_frames < 2:
        return 0.0
    halves = np.zeros((2, *use.shape))
    for index in range(n_frames):
        seen = (np.asarray(frames[index : index + 1, rows])[0] - calibration.dark[rows]) / calibration.flat[rows]
        seen = seen / np.median(seen[use]) - 1
        halves[2 * index // n_frames] += np.where(np.abs(seen) < 6 * robust_sd(seen[use]), seen, 0)
    counts = np.array([(n_frames + 1) // 2, n_frames // 2])
    apart = _clipped(_high_pass(halves[0] / counts[0] - halves[1] / counts[1], use), use)
    return float((apart**2).mean() / (1 / counts).sum() / n_frames)


def _high_pass(values: Float[np.ndarray, "row col"], use: Bool[np.ndarray, "row col"]) -> Float[np.ndarray, "row col"]:
    """Return values minus the mean over the used columns around them."""
    width = min(_WIDTH, use.shape[1] // 2 * 2 - 1)
    near, share = (ndimage.uniform_filter1d(part, width, axis=1, mode="constant") for part in (values * use, use * 1.0))
    return np.asarray(values - near / np.maximum(share, 1e-9))


def _clipped(values: Float[np.ndarray, "row col"], use: Bool[np.ndarray, "row col"]) -> Float[np.ndarray, " pixel"]:
    """Return the used values, clipped at four standard deviations."""
    limit = 4 * robust_sd(values[use])
    return np.asarray(np.clip(values[use], -limit, limit))
