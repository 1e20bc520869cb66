"""Radiographs: whitened, corrected, denoised one by one, and written as a separate scan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from quietray.detector.correction.correct import Correction, RowCounts, calibrate, correct_rows
from quietray.detector.response.decorrelate import decorrelate
from quietray.detector.response.decorrelate import reblur as undone
from quietray.detector.response.prf import PointResponse
from quietray.inference.denoiser import Denoiser
from quietray.io.disk import array_on_disk
from quietray.preparation.prepare import Prepared
from quietray.running.watch import Watch
from quietray.scan import Scan
from quietray.settings import called
from quietray.types import Radiographs

__all__ = ["DenoisedRadiographs", "as_scan", "log_radiographs"]

_BYTES_AT_ONCE = 2**28


def log_radiographs(
    prepared: Prepared, response: PointResponse | None, place: Path | None, watch: Watch
) -> tuple[Float[np.ndarray, "1 view row col"], float]:
    """Return whitened line integrals of the chosen rows, and the fraction of samples raised to the floor.

    Whitened counts may be negative; like all samples without light, they are raised to a floor before the logarithm.
    NaN marks bad pixels.

    Parameters
    ----------
    prepared
        The prepared scan.
    response
        Point response to deconvolve; None leaves the noise unchanged.
    place
        File to store them in, to save memory; None keeps them in memory.
    watch
        Receives the progress.
    """
    known, settings = prepared.calibration, prepared.calibration.settings
    scan, correction = prepared.scan, dataclasses.replace(settings, rings="none")
    if response is not None:
        # zingers and bad pixels were replaced before they could spread
        scan = decorrelate(scan, response, known, zingers=settings.zingers and max(settings.zingers, 8.0))
        correction = dataclasses.replace(correction, zingers=0.0, bad_pixels=False)
    calibration = calibrate(scan, correction)
    rows = prepared.detector_rows
    shape = (1, scan.n_views, len(rows), scan.n_cols)
    out: Any = np.empty(shape, np.float32) if place is None else array_on_disk(place, shape)
    step = max(1, _BYTES_AT_ONCE // (scan.n_views * scan.n_cols * 12))
    changed = RowCounts()
    with watch.stage("whitening" if response is not None else "correcting", len(rows)) as advance:
        for first in range(rows.start, rows.stop, step):
            band = slice(first, min(first + step, rows.stop))
            sinograms, some = correct_rows(scan.read(band), calibration, band)
            changed += some
            sinograms[np.broadcast_to(known.bad[band][:, None], sinograms.shape)] = np.nan
            out[0, :, first - rows.start : band.stop - rows.start] = np.swapaxes(sinograms, 0, 1)
            advance(band.stop - first)
    return np.asarray(out) if place is None else out, changed.floored / max(1, changed.total)


@dataclass(frozen=True, eq=False)
class DenoisedRadiographs:
    """Transmissions ``(view, row, col)``, or line integrals if those were measured, denoised when read.

    Parameters
    ----------
    noisy
        Line integrals ``(1, view, row, col)``.
    denoiser
        Denoiser trained on them.
    told
        Called with the number of views done.
    line_integrals
        Whether the projections were line integrals; the result then is, too.
    """

    noisy: Float[np.ndarray, "1 view row col"]
    denoiser: Denoiser
    told: Callable[[int], None]
    line_integrals: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``(n_views, n_rows, n_cols)``."""
        return tuple(self.noisy.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Single precision."""
        return np.dtype(np.float32)

    def __getitem__(self, key: Any) -> Radiographs:
        first, *rest = key if isinstance(key, tuple) else (key,)
        chosen = range(self.shape[0])[first] if isinstance(first, slice) else [int(first)]
        out = np.empty((len(chosen), *self.shape[1:]), np.float32)
        for index, view in enumerate(chosen):
            clean = self.denoiser.slice(self.noisy, view)[0]
            out[index] = clean if self.line_integrals else np.exp(-clean)
            self.told(1)
        return np.asarray(out[(slice(None), *rest)])


def as_scan(prepared: Prepared, frames: DenoisedRadiographs, response: PointResponse | None, reblur: bool) -> Scan:
    """Return the denoised radiographs as a scan; with `reblur`, at the original resolution of the detector.

    Parameters
    ----------
    prepared
        The prepared scan.
    frames
        Frames that are denoised when they are read.
    response
        The response that was deconvolved; stored in the provenance.
    reblur
        Whether to convolve with the response again.
    """
    record = {} if response is None else {"point_response": response.record(), "reblurred": reblur}
    scan = Scan(
        frames,
        prepared.scan.geometry.rows(len(prepared.detector_rows)),
        exposure=prepared.scan.exposure,
        source=prepared.scan.source,
        provenance={**prepared.scan.provenance, **record, "denoised": called(type(frames.denoiser.split))},
        detectors=prepared.scan.detectors,
    )
    if not reblur or response is None:
        return scan
    return dataclasses.replace(scan, projections=undone(scan, response).projections)


def finished_correction(settings: Correction) -> Correction:
    """Return the correction for denoised radiographs: only rings."""
    return dataclasses.replace(settings, zingers=0.0, bad_pixels=False, air="none", floor=1e-6)
