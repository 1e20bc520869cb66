"""Whitening of scans with the inverse point response, frame by frame as they are read; and the reverse."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from quietray.detector.correction.correct import Calibration, Correction, calibrate
from quietray.detector.response.response import PointResponse
from quietray.detector.response.whitened import WhitenedFrames
from quietray.errors import NoiseError
from quietray.scan import Scan, interleaved
from quietray.types import Frames

__all__ = ["blur", "decorrelate", "reblur", "response_of", "whiten"]

_PRESENT = "point_response"


def whiten(frames: Frames, response: PointResponse, **more: Any) -> WhitenedFrames:
    """Return frames that are whitened when they are read; keywords are those of `WhitenedFrames`.

    Raises
    ------
    NoiseError
        The response cannot be inverted.

    Examples
    --------
    >>> flat = np.full((2, 8, 9), 7.0, np.float32)
    >>> bool(np.allclose(whiten(flat, PointResponse(np.full((1, 3), [0.1, 0.8, 0.1])))[:], 7))
    True
    """
    return WhitenedFrames(frames, response, **more)


def blur(frames: Frames, response: PointResponse) -> WhitenedFrames:
    """Return frames that are convolved with the point response when they are read, which undoes `whiten`.

    Examples
    --------
    >>> response = PointResponse(np.full((1, 3), [0.1, 0.8, 0.1]))
    >>> frames = np.random.default_rng(0).random((1, 8, 40)).astype(np.float32)
    >>> bool(np.abs(blur(whiten(frames, response), response)[:] - frames).max() < 1e-3)
    True
    """
    return WhitenedFrames(frames, response, inverse=False)


def decorrelate(
    scan: Scan, response: PointResponse, calibration: Calibration | None = None, *, zingers: float = 6.0
) -> Scan:
    """Return the scan with whitened noise in radiographs, flats and darks, frame by frame as they are read.

    The mean dark is subtracted first, so the new darks are noise around zero.  Bad pixels and zingers are filled from
    their neighbours first, because they would spread.  Each of several detectors is whitened with its own response.
    The response is stored in ``provenance["point_response"]``.

    Parameters
    ----------
    scan
        The measured scan.
    response
        Point response of its detector.
    calibration
        Dark, bad pixels and beam intensity, if already known.
    zingers
        Samples that exceed both neighbouring frames by this many standard deviations of the noise are replaced; 0 keeps
        all.

    Raises
    ------
    NoiseError
        The response cannot be inverted, or the scan has already been whitened.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> rng = np.random.default_rng(0)
    >>> beam = ParallelBeam(np.linspace(0, 3, 9), 8, 30)
    >>> scan = Scan(rng.poisson(90, (9, 8, 30)), beam, rng.poisson(90, (6, 8, 30)))
    >>> white = decorrelate(scan, PointResponse(np.full((1, 3), [0.1, 0.8, 0.1])))
    >>> white.projections[0:2].shape, white.provenance["point_response"]["kernel"]
    ((2, 8, 30), [[0.1, 0.8, 0.1]])
    """
    if _PRESENT in scan.provenance:
        raise NoiseError(
            "a scan must be whitened only once, got one that was whitened before; start from the measured scan"
        )
    known = calibration or calibrate(scan, Correction(rings="none", air="none"))
    if scan.detectors is not None:
        parts = scan.by_detector()
        white = {n: decorrelate(part, response.of(n), known.parts[n], zingers=zingers) for n, part in parts.items()}
        return _together(scan, white, {**scan.provenance, _PRESENT: response.record()})
    dark = known.dark if scan.darks is not None else None
    noise = (known.quantum or 1.0, known.read_noise**2)

    def whitened(frames: Frames | None, order: np.ndarray | None, reach: int) -> WhitenedFrames | None:
        if frames is None:
            return None
        return WhitenedFrames(frames, response, dark, known.bad, zingers, noise, order, reach)

    projections = whitened(scan.projections, known.order, known.reach)
    assert projections is not None
    note = (
        f"The noise was whitened: its variance grows {response.variance_gain:.2f}-fold (that of white readout noise "
        f"{response.white_gain:.2f}-fold), the finest details were amplified {response.condition:.1f}-fold."
    )
    return dataclasses.replace(
        scan,
        projections=projections,
        flats=whitened(scan.flats, None, 1),
        darks=whitened(scan.darks, None, 1),
        provenance={**scan.provenance, _PRESENT: response.record()},
        notes=(*scan.notes, note),
    )


def _together(scan: Scan, parts: Mapping[int, Scan], provenance: Mapping[str, Any]) -> Scan:
    """Return the frames of all detectors as one scan; shared flats become one set per detector."""
    flats, flat_detectors = _frames_together({n: part.flats for n, part in parts.items()}, scan.flat_detectors)
    darks, dark_detectors = _frames_together({n: part.darks for n, part in parts.items()}, scan.dark_detectors)
    assert scan.detectors is not None
    new = [type(note)(f"Detector {n}: {note}") for n, part in parts.items() for note in part.notes[len(scan.notes) :]]
    return dataclasses.replace(
        scan,
        projections=interleaved({n: part.projections for n, part in parts.items()}, scan.detectors),
        flats=flats,
        flats_taken=None,
        darks=darks,
        flat_detectors=flat_detectors,
        dark_detectors=dark_detectors,
        provenance=provenance,
        notes=(*scan.notes, *new),
    )


def _frames_together(
    parts: Mapping[int, Frames | None], numbers: Int[np.ndarray, " frame"] | None
) -> tuple[Frames | None, Int[np.ndarray, " frame"] | None]:
    frames = {number: part for number, part in parts.items() if part is not None}
    if not frames:
        return None, None
    if numbers is None:
        numbers = np.repeat(np.array(list(frames)), [part.shape[0] for part in frames.values()])
    return interleaved(frames, numbers), numbers


def response_of(scan: Scan) -> PointResponse | None:
    """Return the response that a scan was whitened with; None for a measured scan.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> response_of(Scan(np.ones((1, 2, 3), np.float32), ParallelBeam(np.zeros(1), 2, 3))) is None
    True
    """
    record = scan.provenance.get(_PRESENT)
    return None if record is None else PointResponse.from_record(record)


def reblur(scan: Scan, response: PointResponse | None = None) -> Scan:
    """Return a whitened (and denoised) scan at the original resolution of the detector.

    Parameters
    ----------
    scan
        Scan with whitened radiographs.
    response
        Response to apply; by default the one stored with the scan.

    Raises
    ------
    NoiseError
        The scan was not whitened, and no response is given.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> scan = Scan(np.ones((2, 8, 30), np.float32), ParallelBeam(np.arange(2.0), 8, 30))
    >>> bool(np.allclose(reblur(scan, PointResponse(np.full((1, 3), [0.1, 0.8, 0.1]))).projections[:], 1))
    True
    """
    chosen = response or response_of(scan)
    if chosen is None:
        raise NoiseError("a scan must have been whitened to be blurred back, got one without a response; give one")
    kept = {key: value for key, value in scan.provenance.items() if key != _PRESENT}
    if scan.detectors is not None:
        return _together(scan, {n: reblur(part, chosen.of(n)) for n, part in scan.by_detector().items()}, kept)
    return dataclasses.replace(
        scan,
        projections=blur(scan.projections, chosen),
        flats=None if scan.flats is None else blur(scan.flats, chosen),
        darks=None if scan.darks is None else blur(scan.darks, chosen),
        provenance=kept,
    )
