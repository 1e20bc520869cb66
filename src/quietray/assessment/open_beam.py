"""How much of the noise of radiographs passes a network, measured on repeated flats."""

from __future__ import annotations

from typing import Any

import numpy as np

from quietray.detector.response.decorrelate import decorrelate
from quietray.detector.response.prf import PointResponse
from quietray.inference.denoiser import Denoiser
from quietray.metrics.dependency import neighbourhood_dependency
from quietray.preparation.prepare import Prepared
from quietray.types import Frames, Radiographs

__all__ = ["neighbours_let_through", "with_dependency"]

_PIXELS = 2**20  # number of flats to use
_MOST, _FEWEST = 32, 3  # least number of flats


def with_dependency(
    evidence: dict[str, Any], prepared: Prepared, response: PointResponse | None, denoiser: Denoiser
) -> dict[str, Any]:
    """Return the evidence with the neighbourhood dependency over flats that were processed like radiographs.

    Parameters
    ----------
    evidence
        A table of figures; if the dependency cannot be measured, its table ``left_out`` says why.
    prepared
        The prepared scan.
    response
        Point response that was deconvolved before denoising.
    denoiser
        Denoiser of line integrals.
    """
    scan = prepared.scan
    why = ""
    if scan.flats is None or scan.flats.shape[0] < _FEWEST:
        why = "it needs three repeated frames, and the scan has fewer flats"
    elif scan.detectors is not None:
        why = "it is not measured for scans with several detectors"
    if why:
        return {**evidence, "left_out": {**evidence["left_out"], "dependency": why}}
    frames = _flats_as_radiographs(prepared, response)
    return {**evidence, "dependency": neighbours_let_through(denoiser, frames)}


def _flats_as_radiographs(prepared: Prepared, response: PointResponse | None) -> Radiographs:
    """Return line integrals of flats relative to their mean, ``(flat, row, col)``; NaN for bad pixels."""
    scan, known, rows = prepared.scan, prepared.calibration, prepared.rows
    assert scan.flats is not None
    n = min(scan.flats.shape[0], _MOST)
    height = min(len(rows), max(64, _PIXELS // (n * scan.n_cols)))
    first = rows.start + (len(rows) - height) // 2
    band = slice(first, first + height)
    flats: Frames | None = scan.flats
    if response is not None:
        zingers = known.settings.zingers and max(known.settings.zingers, 8.0)
        flats = decorrelate(scan, response, known, zingers=zingers).flats
    assert flats is not None
    counts = np.asarray(flats[0:n, band], np.float32)
    if response is None:  # whitening subtracts the dark
        counts = counts - known.dark[band]
    bad = known.bad[band] | (counts <= 0).any(axis=0)
    lines = -np.log(np.where(bad, 1, counts) / np.where(bad, 1, counts.mean(axis=0)))
    lines -= lines[:, ~bad].mean(axis=1)[:, None, None]  # flicker of the beam is not pixel noise
    return np.where(bad, np.nan, lines)


def neighbours_let_through(denoiser: Denoiser, frames: Radiographs) -> dict[str, Any]:
    """Return the neighbourhood dependency of repeated frames, before and after denoising, ready for JSON.

    Parameters
    ----------
    denoiser
        Denoiser of such frames.
    frames
        Frames ``(frame, row, col)`` of one scene; NaN for bad pixels.
    """
    bad = np.isnan(frames).any(axis=0)

    def denoised(some: Radiographs) -> Radiographs:
        stack = np.where(bad, np.nan, some).astype(np.float32)[None]
        return np.stack([denoiser.slice(stack, index)[0] for index in range(len(some))])

    known = np.where(bad, 0, frames).astype(np.float32)
    before, after = (neighbourhood_dependency(each, known) for each in (lambda some: some, denoised))
    return {
        "before": before.mean,
        "before_error": before.mean_error,
        "after": after.mean,
        "after_error": after.mean_error,
        "frames": before.n_frames,
        "window_px": 7,
    }
