"""What the counts say about the photons behind them."""

from __future__ import annotations

import numpy as np

from quietray.detector.correct import Calibration
from quietray.types import Sinograms

__all__ = ["log_bias"]


def log_bias(sinograms: Sinograms, calibration: Calibration, rows: slice) -> tuple[float, float] | None:
    """Return the bias that the logarithm of noisy counts adds to the line integrals.

    ``E[-log(counts)]`` lies above ``-log E[counts]`` by about ``1 / (2 n)`` at n detected quanta.  The bias is in every
    subset of the views alike, so that no self-supervised method removes it.

    Parameters
    ----------
    sinograms
        Line integrals ``(row, view, col)``.
    calibration
        With the counts per quantum.
    rows
        Which detector rows these are.

    Returns
    -------
    tuple of float, or None
        The largest bias of a column's mean over the views and the mean bias, both dimensionless; None when the counts
        per quantum are unknown.

    Examples
    --------
    >>> from quietray.detector.correct import Correction, calibrate
    >>> from quietray.geometry import ParallelBeam
    >>> from quietray.scan import Scan
    >>> rng = np.random.default_rng(0)
    >>> beam = ParallelBeam(np.linspace(0, 3, 16), 2, 40)
    >>> scan = Scan(rng.poisson(50, (16, 2, 40)), beam, rng.poisson(100, (50, 2, 40)), np.zeros((5, 2, 40)))
    >>> calibration = calibrate(scan)
    >>> worst, mean = log_bias(np.full((2, 16, 40), np.log(2), np.float32), calibration, slice(0, 2))
    >>> 0.007 < mean < 0.013
    True
    """
    if calibration.quantum <= 0:
        return None
    quanta = np.exp(-sinograms) * (calibration.flat[rows, None] / calibration.quantum)
    bias = 0.5 / np.maximum(quanta, 0.5)
    return float(bias.mean(axis=1).max()), float(bias.mean())
