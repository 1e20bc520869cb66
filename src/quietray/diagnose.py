"""What the noise of a scan is, and which methods it allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from quietray.detector.correct import Calibration, Correction, calibrate
from quietray.detector.correlation import Correlation, measure_correlation, tiles_of
from quietray.detector.decorrelate import decorrelate
from quietray.detector.findings import arrays_of, figures_of, warnings_of
from quietray.detector.lags import error_of, infill_correlation
from quietray.detector.photon_transfer import PhotonTransfer, photon_transfer
from quietray.detector.prf import PointResponse, point_response
from quietray.detector.sources import ViewDifferences, find_sources
from quietray.detector.static import NoiseSource, StaticFrames, survey_frames
from quietray.detector.verdicts import SUMMED, Findings, Verdict, judge
from quietray.detector.whitened import WhitenedFrames
from quietray.errors import NoiseError
from quietray.scan import Scan
from quietray.types import Frames

__all__ = ["Diagnosis", "diagnose"]

_CHECK_SAMPLES = 10**7


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What the noise of a scan is, and which methods it allows.

    Parameters
    ----------
    label
        ``"white"``, ``"correlated"``, and what else there is: ``"white, row noise"``.
    source, source_why
        Where the noise was read, in words.
    figures
        All numbers, by name; JSON.
    verdicts
        One per method.
    recommended
        The method to use.
    warnings
        Sentences for the user.
    response
        Point response; None where it could not be estimated.
    transfer
        Gain and read noise; None where there is no light in the frames.
    before, after
        Correlation of the noise as measured and whitened; `after` is None where nothing was whitened.
    arrays
        Pictures and curves by name: ``map_``, ``lags_``, ``errors_``, ``spectrum_`` (2-D, zero frequency in the
        middle) and ``radial_`` (frequency, power) of ``before`` (the source), ``check`` (the frames that were whitened
        to check the response, as measured) and ``after`` (the same, whitened); ``kernel``, ``kernel_errors``,
        ``transfer_curve``, ``good``.

    Examples
    --------
    See `diagnose`.
    """

    label: str
    source: str
    source_why: str
    figures: Mapping[str, Any]
    verdicts: tuple[Verdict, ...]
    recommended: str
    warnings: tuple[str, ...]
    response: PointResponse | None
    transfer: PhotonTransfer | None
    before: Correlation
    after: Correlation | None
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    def verdict(self, method: str) -> Verdict:
        """Return the verdict on one method."""
        return next(verdict for verdict in self.verdicts if verdict.method == method)

    def record(self) -> dict[str, Any]:
        """Return everything but the pictures, for JSON."""
        return {
            "noise": self.label,
            "source": self.source,
            "source_why": self.source_why,
            **dict(self.figures),
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "recommended": self.recommended,
            "warnings": list(self.warnings),
        }


def diagnose(
    scan: Scan,
    static: Frames | None = None,
    *,
    calibration: Calibration | None = None,
    method: Literal["differences", "mean"] = "differences",
    counts_per_photon: float | None = None,
) -> Diagnosis:
    """Measure the noise of a scan and judge which self-supervised methods it allows.

    Parameters
    ----------
    scan
        As measured, not whitened.
    static
        ``(frame, row, col)`` repeated frames of one static scene, if there are any; may be lazy.
    calibration
        Of the scan, when it is known already.
    method
        Estimator of the correlation.
    counts_per_photon
        Counts that one photon gives on average, if known: the excess factor then is, too.

    Raises
    ------
    NoiseError
        There is nowhere to read the noise from, or the frames are saturated, constant or hold NaN.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> rng = np.random.default_rng(0)
    >>> beam = ParallelBeam(np.linspace(0, np.pi, 64, endpoint=False), 48, 64)
    >>> scan = Scan(rng.poisson(90, (64, 48, 64)), beam, rng.poisson(90, (20, 48, 64)), np.zeros((5, 48, 64)))
    >>> found = diagnose(scan)
    >>> found.label, found.source, found.verdict("noise2self").answer
    ('white', 'flats', 'valid')
    >>> abs(found.figures["gain"] - 1) < 0.05
    True
    """
    known = calibration or calibrate(scan, Correction(rings="none"))
    sources = find_sources(scan, known, static)
    if not sources:
        raise NoiseError(
            "a scan must have two or more flats, or nine or more views, for its noise to be read, "
            f"got {scan.n_views} views; give repeated frames of a static scene"
        )
    surveyed = survey_frames(sources[0])
    before = measure_correlation(surveyed, method, tiles=tiles_of(surveyed.good.shape))
    second = _measured(sources[1], method) if len(sources) > 1 else None
    darks = _darks(scan, known)
    transfer = None
    if float(np.median(surveyed.brightness[surveyed.good])) > 0:
        transfer = photon_transfer(surveyed, before, darks, counts_per_photon=counts_per_photon)
    findings = _findings(scan, before, second, static is not None)
    response, refused = _response(before, sources[0].name)
    after = None
    if response is not None and not refused and not findings["white"]:
        source = sources[0] if second is None else sources[1]
        after = _after(scan, static, response, known, source, method)
        if source is not sources[0] and after.summed_error > SUMMED:  # too narrow a strip of air to tell
            after = _after(scan, static, response, known, sources[0], method)
        findings |= {"after_summed": after.summed, "after_error": after.summed_error}
        findings |= {"after_infill": infill_correlation(after.lags)}
    findings.pop("white")
    found = Findings(
        **findings,
        refused=refused,
        condition=response.condition if response else 1.0,
        white_gain=response.white_gain if response else 1.0,
        uneven=bool(response and response.regions),
    )
    verdicts = judge(found)
    figures = figures_of(found, surveyed, before, second, transfer, response, after, sources)
    return Diagnosis(
        _label(found),
        sources[0].name,
        sources[0].why,
        figures,
        verdicts,
        _recommended(verdicts),
        warnings_of(found, before, second, response, sources, transfer, darks),
        response,
        transfer,
        before,
        after,
        arrays_of(surveyed, before, second, after, response, transfer),
    )


def _measured(source: NoiseSource, method: Literal["differences", "mean"]) -> tuple[StaticFrames, Correlation] | None:
    """Return what a further source says, or None where it says nothing."""
    try:
        surveyed = survey_frames(source)
    except NoiseError:
        return None
    return surveyed, measure_correlation(surveyed, method)


def _darks(scan: Scan, known: Calibration) -> tuple[StaticFrames, Correlation] | None:
    """Return the darks as a noise source; None where there are too few or they do not vary."""
    if scan.darks is None or scan.darks.shape[0] < 3:
        return None
    return _measured(NoiseSource("darks", scan.darks, None, ~known.bad, levelled=False), "differences")


def _findings(
    scan: Scan, before: Correlation, second: tuple[StaticFrames, Correlation] | None, repeated: bool
) -> dict[str, Any]:
    """Return what the rules look at, before whitening; views tell more about views than flats do."""
    c = before.lags.shape[0] // 2, before.lags.shape[1] // 2
    weights = np.zeros(before.lags.shape)
    near = tuple(slice(middle - 1, middle + 2) for middle in c)
    norm = infill_correlation(before.lags)
    if min(c) >= 1:
        weights[near] += np.array([[0.5, 1, 0.5], [1, 0, 1], [0.5, 1, 0.5]]) / math.sqrt(6)
    weights[c] -= norm
    error = math.hypot(error_of(weights, before.lags, before.samples), before.unsure)
    successive = next(
        (seen.successive for seen in ((second[1], before) if second else (before,)) if seen.successive is not None),
        None,
    )
    out: dict[str, Any] = {
        "summed": before.summed,
        "summed_error": before.summed_error,
        "infill": norm,
        "infill_error": error,
        "row_share": before.row_share,
        "column_share": before.column_share,
        "successive": None if successive is None else successive[0],
        "successive_error": 0.0 if successive is None else successive[1],
        "n_flats": 0 if scan.flats is None else int(scan.flats.shape[0]),
        "n_views": scan.n_views,
        "repeated": repeated,
    }
    return out | {"white": Findings(**out).white}


def _response(before: Correlation, source: str) -> tuple[PointResponse | None, str]:
    """Return the point response, and why it cannot be divided by, or an empty string."""
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


def _after(
    scan: Scan,
    static: Frames | None,
    response: PointResponse,
    known: Calibration,
    source: NoiseSource,
    method: Literal["differences", "mean"],
) -> Correlation:
    """Whiten frames of a source, preferably one that the response does not come from, and measure again."""
    white = decorrelate(scan, response, known)
    most = max(16, _CHECK_SAMPLES // (scan.n_rows * scan.n_cols))
    frames: Frames
    if source.name == "static frames" and static is not None:
        dark = known.dark if scan.darks is not None else None
        frames = WhitenedFrames(static, response, dark, known.bad, 8.0, (known.quantum or 1.0, known.read_noise**2))
    elif source.name == "flats" and white.flats is not None:
        frames = white.flats
    elif source.name == "air columns":
        frames = white.projections
    else:
        frames = ViewDifferences(white.projections)
    return measure_correlation(survey_frames(source.replaced(frames, most)), method)


def _label(found: Findings) -> str:
    extra = [name for name, share in (("row", found.row_share), ("column", found.column_share)) if share > 0.01]
    return ", ".join(["white" if found.white else "correlated", *(f"{name} noise" for name in extra)])


def _recommended(verdicts: tuple[Verdict, ...]) -> str:
    """Return the first valid method in the order of what they usually reach, else the first one with a warning."""
    order = ("noise2noise", "noise2inverse", "noise2self", "noise2self after decorrelation")
    by_name = {verdict.method: verdict.answer for verdict in verdicts}
    for answer in ("valid", "valid with a warning"):
        for name in order:
            if by_name[name] == answer:
                return name
    return "none"
