"""Trial whitening: the point response, and the noise correlation that remains."""

from __future__ import annotations

from typing import Literal

from quietray.detector.correction.calibration import Calibration
from quietray.detector.noise.correlation import Correlation, measure_correlation
from quietray.detector.noise.sources import ViewDifferences
from quietray.detector.noise.static import NoiseSource, survey_frames
from quietray.detector.response.decorrelate import decorrelate
from quietray.detector.response.prf import point_response
from quietray.detector.response.response import PointResponse
from quietray.detector.response.whitened import WhitenedFrames
from quietray.detector.verdicts import SUMMED
from quietray.errors import NoiseError
from quietray.scan import Scan
from quietray.types import Frames

__all__ = ["response_of_noise", "try_whitening"]

_CHECK_SAMPLES = 10**7


def response_of_noise(before: Correlation, source: str) -> tuple[PointResponse | None, str]:
    """Return the point response, and a reason if it cannot be inverted (else an empty string)."""
    try:
        response = point_response(before, facts={"source": source})
    except NoiseError as error:
        return None, _sentence(error)
    try:
        for kernel in response.kernels:
            response.inverse(kernel)
    except NoiseError as error:
        return response, _sentence(error)
    return response, ""


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[0].upper()}{text[1:]}."


def try_whitening(
    scan: Scan,
    response: PointResponse,
    known: Calibration,
    sources: tuple[NoiseSource, ...],
    method: Literal["differences", "mean"],
) -> Correlation:
    """Whiten frames that were not used for the response, if there are any, and measure their correlation again."""
    after = _whitened(scan, response, known, sources[-1], method)
    if len(sources) > 1 and after.summed_error > SUMMED:  # the strip of air is too narrow
        after = _whitened(scan, response, known, sources[0], method)
    return after


def _whitened(
    scan: Scan,
    response: PointResponse,
    known: Calibration,
    source: NoiseSource,
    method: Literal["differences", "mean"],
) -> Correlation:
    """Whiten frames of a source and measure their correlation."""
    white = decorrelate(scan, response, known)
    most = max(16, _CHECK_SAMPLES // (scan.n_rows * scan.n_cols))
    frames: Frames
    if source.name in ("static frames", "flats"):
        noise = known.quantum or 1.0, known.read_noise**2
        frames = WhitenedFrames(source.frames, response, source.offset, known.bad, 6.0, noise, reach=1)
    elif source.name == "air columns":
        frames = white.projections
    else:
        frames = ViewDifferences(white.projections)
    return measure_correlation(survey_frames(source.replaced(frames, most)), method)
