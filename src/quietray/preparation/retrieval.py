"""Correction and phase retrieval of radiographs, frame by frame, before reconstruction.

Phase retrieval needs whole frames.  The retrieved frames are kept in the folder of the run, in memory, or in a
temporary file.  Later stages get transmissions that need no further correction, and need not know about the phase.
"""

from __future__ import annotations

import tempfile
import zlib
from dataclasses import replace
from typing import Any

import numpy as np

from quietray.detector.correction.calibration import Calibration
from quietray.detector.correction.correct import RowCounts, correct_rows
from quietray.detector.correction.phase import Phase, alpha_of, reach_of, retrieve
from quietray.errors import SettingsError
from quietray.geometry import ConeBeam
from quietray.io.disk import array_on_disk
from quietray.lazy import banded_frames
from quietray.preparation.rows import chosen_rows
from quietray.registry import called
from quietray.running.plan import available_memory
from quietray.running.run import Run
from quietray.scan import Scan
from quietray.settings import parse_bytes

__all__ = ["retrieved"]

_BYTES_AT_ONCE = 2**27
_IN_MEMORY = 0.25  # fraction of the memory that retrieved frames may take
_FLOOR = 1e-6  # in transmission: values at or below zero, caused by noise, carry no information


def retrieved(scan: Scan, known: Calibration, run: Run) -> tuple[Scan, Calibration]:
    """Return the scan without propagation effects, and a calibration that applies no further correction.

    Parameters
    ----------
    scan
        The measured scan.
    known
        Its calibration.
    run
        Its settings control the retrieval; its output stores the frames, so that a resumed run can reuse them.

    Raises
    ------
    SettingsError
        The method relies on the noise of single pixels, the projections are line integrals, or a parameter is unknown.
    """
    phase, settings = run.settings.phase, run.settings
    assert phase is not None
    _require_whole(run)
    if settings.correction.line_integrals:
        raise SettingsError("phase retrieval must have transmissions, got line integrals; leave --line-integrals out")
    alpha, source = alpha_of(phase, scan)
    band = _band(scan, settings.rows, reach_of(alpha))
    shape = (scan.n_views, len(band), scan.n_cols)

    def make(out: Any) -> dict[str, Any]:
        changed = _corrected(out, scan, known, run, band)
        _filtered(out, alpha, phase, run)
        return {"zingers": changed.zingers}

    if run.output.work is not None:
        name = (
            f"retrieved-{zlib.crc32(repr((str(scan.source), shape, float(scan.geometry.angles.sum()))).encode()):08x}"
            + (f"-{band.start}" if len(band) < scan.n_rows else "")
        )
        place = run.output.work / f"{name}.npy"
        found = run.output.decide(name, lambda: make(array_on_disk(place, shape)))
        frames: Any = np.load(place, mmap_mode="r")
    else:
        limit = parse_bytes(settings.max_memory) if settings.max_memory else available_memory()
        small = 4 * float(np.prod(shape)) < _IN_MEMORY * limit
        frames = (
            np.empty(shape, np.float32) if small else np.memmap(tempfile.TemporaryFile(), np.float32, "w+", 0, shape)
        )
        found = make(frames)
    stack = frames if len(band) == scan.n_rows else banded_frames(frames, band.start, scan.n_rows, 1.0)
    note = (
        f"Phase retrieved by {'the generalised form of ' if phase.retrieval == 'generalised' else ''}Paganin's filter "
        f"({source}), which smooths over about {alpha**0.5:.3g} pixels: noise is spread over pixels, not over views. "
        f"{found['zingers']} zingers were replaced first."
    )
    if len(band) < scan.n_rows:
        note += (
            f" The phase was retrieved only in rows {band.start} to {band.stop - 1}: those requested, and those within "
            "reach of the filter."
        )
    after = replace(settings.correction, zingers=0.0, bad_pixels=False, air="none", floor=_FLOOR)
    plain = replace(
        known,
        flat=np.ones_like(known.flat),
        dark=np.zeros_like(known.dark),
        bad=np.zeros_like(known.bad),
        air_factors=np.ones_like(known.air_factors),
        floor=_FLOOR,
        quantum=0.0,
        read_noise=0.0,
        settings=after,
        notes=(*known.notes, note),
        detectors=None,
        parts={},
    )
    return replace(scan, projections=stack, flats=None, darks=None, flat_detectors=None, dark_detectors=None), plain


def _require_whole(run: Run) -> None:
    """Raise if the method assumes that the noise of pixels is independent."""
    method = run.settings.method
    if method.domain in ("radiographs", "projections"):
        raise SettingsError(
            "the method must not need independent noise in every pixel when the phase is retrieved, which spreads "
            f"it over pixels, got {called(type(method))}; use noise2inverse or a filter, or denoise the radiographs "
            "without --delta-beta and then reconstruct OUT/radiographs.h5 with it"
        )


def _band(scan: Scan, rows: str | None, reach: int) -> range:
    """Return the rows that affect those requested; for a cone beam all rows, as rays cross slices."""
    if isinstance(scan.geometry, ConeBeam):
        return range(scan.n_rows)
    chosen = chosen_rows(rows, scan.n_rows)
    return range(max(0, chosen.start - reach), min(scan.n_rows, chosen.stop + reach))


def _corrected(out: Any, scan: Scan, known: Calibration, run: Run, rows: range) -> RowCounts:
    """Write the transmissions of some rows, corrected except for rings; return counts of what was changed."""
    plain = {number: replace(part, remove_rings="none", floor=_FLOOR) for number, part in known.parts.items()}
    calibration = replace(known, remove_rings="none", floor=_FLOOR, parts=plain)
    step, changed = max(1, _BYTES_AT_ONCE // (12 * scan.n_views * scan.n_cols)), RowCounts()
    with run.watch.stage("correcting", len(rows)) as advance:
        for first in range(rows.start, rows.stop, step):
            band = slice(first, min(first + step, rows.stop))
            sinograms, some = correct_rows(scan.read(band), calibration, band)
            out[:, band.start - rows.start : band.stop - rows.start] = np.exp(-sinograms).swapaxes(0, 1)
            changed += some
            advance(band.stop - first)
    return changed


def _filtered(out: Any, alpha: float, phase: Phase, run: Run) -> None:
    """Retrieve the phase of every frame, in place."""
    n_views, n_rows, n_cols = out.shape
    step = max(1, _BYTES_AT_ONCE // (64 * n_rows * n_cols))
    with run.watch.stage("retrieving the phase", n_views) as advance:
        for first in range(0, n_views, step):
            views = slice(first, min(first + step, n_views))
            out[views] = retrieve(out[views], alpha, phase.retrieval, run.device)
            advance(views.stop - first)
