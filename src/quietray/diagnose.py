"""Diagnosis of the noise of a scan, and of the methods that it permits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from quietray.detector.correction.correct import Calibration, Correction, calibrate
from quietray.detector.findings import arrays_of, figures_beside, figures_of, findings_of, warnings_of
from quietray.detector.noise.correlation import Correlation, measure_correlation, tiles_of
from quietray.detector.noise.exposures import exposures_of
from quietray.detector.noise.lags import infill_correlation
from quietray.detector.noise.memory import memory_of_views
from quietray.detector.noise.photon_transfer import PhotonTransfer, photon_transfer
from quietray.detector.noise.rings import measure_rings
from quietray.detector.noise.sources import find_sources
from quietray.detector.noise.static import NoiseSource, StaticFrames, survey_frames
from quietray.detector.response.response import PointResponse
from quietray.detector.trial import response_of_noise, try_whitening
from quietray.detector.verdicts import Findings, Verdict, after_retrieval, judge
from quietray.errors import NoiseError, SettingsError
from quietray.scan import Scan
from quietray.types import Frames
from quietray.wording import told

__all__ = ["Diagnosis", "diagnose"]


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The noise of a scan, and the methods that it permits.

    Parameters
    ----------
    label
        ``"white"`` or ``"correlated"``, with additions such as ``"white, row noise"``.
    source, source_why
        Description of where the noise was measured, and why there.
    figures
        All numbers by name, ready for JSON.
    verdicts
        One per method.
    recommended
        The recommended method.
    warnings
        Warnings for the user.
    response
        Point response; None if it could not be estimated.
    transfer
        Gain and read noise; None if the frames contain no light.
    before, after
        Noise correlation as measured and after whitening; `after` is None if nothing was whitened.
    detectors
        Diagnosis of each detector by number, if there are several.  `verdicts` are then the least favourable of theirs,
        the response contains those of all, and the rest is that of the detector with the strongest correlation.
    arrays
        Images and curves by name: ``map_``, ``lags_``, ``errors_``, ``spectrum_`` (2-D, zero frequency in the centre)
        and ``radial_`` (frequency, power) of ``before`` (the source), ``check`` (the frames for checking the response,
        as measured) and ``after`` (the same, whitened); ``kernel``, ``kernel_errors``, ``transfer_curve``, ``good``.

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
    detectors: Mapping[int, Diagnosis] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "warnings", tuple(map(told, self.warnings)))

    def __repr__(self) -> str:
        verdicts = [f"{one.method}: {one.answer}" for one in self.verdicts]
        warned = f"{len(self.warnings)}, in .warnings" if self.warnings else "none"
        head = f"Diagnosis: the noise, measured on the {self.source}, is {self.label}"
        return "\n  ".join([head, *verdicts, f"recommended: {self.recommended}", f"warnings: {warned}"])

    def verdict(self, method: str) -> Verdict:
        """Return the verdict on one method."""
        return next(verdict for verdict in self.verdicts if verdict.method == method)

    def after_retrieval(self) -> Diagnosis:
        """Return the diagnosis for the case that the phase is retrieved after the noise was measured."""
        verdicts = after_retrieval(self.verdicts)
        return dataclasses.replace(
            self,
            verdicts=verdicts,
            recommended=_recommended(verdicts),
            detectors={number: one.after_retrieval() for number, one in self.detectors.items()},
        )

    def record(self) -> dict[str, Any]:
        """Return everything except the pictures, ready for JSON."""
        return {
            "noise": self.label,
            "source": self.source,
            "source_why": self.source_why,
            **dict(self.figures),
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "recommended": self.recommended,
            "warnings": list(self.warnings),
            **({"detectors": {str(n): one.record() for n, one in self.detectors.items()}} if self.detectors else {}),
        }


def diagnose(
    scan: Scan,
    static: Frames | Mapping[int, Frames] | None = None,
    *,
    calibration: Calibration | None = None,
    method: Literal["differences", "mean"] = "differences",
    counts_per_photon: float | None = None,
) -> Diagnosis:
    """Measure the noise of a scan, and decide which self-supervised methods it permits.

    Parameters
    ----------
    scan
        The measured scan, not whitened.
    static
        Repeated frames ``(frame, row, col)`` of one static scene, if available; may be lazy.  For several detectors,
        the frames by detector number.  Frames of several exposures, five or more of each, are separated by brightness;
        the gain is then the slope over all of them.
    calibration
        Calibration of the scan, if already known.
    method
        Estimator of the correlation.
    counts_per_photon
        Mean counts per photon, if known; this also gives the excess factor.

    Raises
    ------
    SettingsError
        The static frames have no detector number or that of an unknown detector, or the counts per photon are not
        positive.
    NoiseError
        There are no data to measure the noise from, or the frames are saturated, constant or contain NaN.

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
    if counts_per_photon is not None and not counts_per_photon > 0:
        raise SettingsError(f"the counts per photon must be positive, got {counts_per_photon}; leave them out")
    known = calibration or calibrate(scan, Correction(rings="none"))
    if scan.detectors is None:
        if isinstance(static, Mapping):
            raise SettingsError("static frames must be one stack for a scan of one detector, got several; give one")
        return _diagnosed(scan, static, known, method, counts_per_photon, scan.n_views)
    parts = scan.by_detector()
    if static is not None and not (isinstance(static, Mapping) and set(static) <= set(parts)):
        raise SettingsError(
            f"static frames must be given for each detector ({', '.join(map(str, parts))}) of this scan, got frames of "
            "others, or without numbers; give a scan of static frames with the numbers of their detectors"
        )
    frames = static or {}
    return _together(
        {
            n: _diagnosed(part, frames.get(n), known.parts[n], method, counts_per_photon, scan.n_views)
            for n, part in parts.items()
        }
    )


def _diagnosed(
    scan: Scan,
    static: Frames | None,
    known: Calibration,
    method: Literal["differences", "mean"],
    counts_per_photon: float | None,
    n_views: int,
) -> Diagnosis:
    """Diagnose a scan of one detector; `n_views` is the number of views of all detectors."""
    sources = find_sources(scan, known, static)
    if not sources:
        raise NoiseError(
            "a scan must have two or more flats, or nine or more views, for its noise to be measured, got "
            f"{scan.n_views} views; give repeated frames of a static scene"
        )
    exposures = exposures_of(sources[0]) if sources[0].name in ("static frames", "flats") else sources[:1]
    sources = (exposures[0], *sources[1:])
    surveyed = survey_frames(sources[0])
    before = measure_correlation(surveyed, method, tiles=tiles_of(surveyed.good.shape))
    series = tuple(level for one in exposures[1:] if (level := _measured(one, method)) is not None)
    second = _measured(sources[1], method) if len(sources) > 1 else None
    darks = _darks(scan, known)
    transfer = None
    if float(np.median(surveyed.brightness[surveyed.good])) > 0:
        transfer = photon_transfer(surveyed, before, darks, series=series, counts_per_photon=counts_per_photon)
    memory = memory_of_views(scan, known, sources, before.lags)
    rings = measure_rings(scan, known, before.lags, memory)
    found = findings_of(scan, before, second, memory, rings, static is not None)
    response, refused = response_of_noise(before, sources[0].name)
    found = dataclasses.replace(found, refused=refused, n_views=n_views)
    after = None
    if response is not None and not refused and not found.white:
        after = try_whitening(scan, response, known, sources[: 1 if second is None else 2], method)
        found = dataclasses.replace(
            found,
            after_summed=after.summed,
            after_error=after.summed_error,
            after_infill=infill_correlation(after.lags),
        )
    if response is not None:
        found = dataclasses.replace(
            found, condition=response.condition, white_gain=response.white_gain, uneven=bool(response.regions)
        )
    verdicts = judge(found)
    return Diagnosis(
        _label(found),
        sources[0].name,
        sources[0].why,
        figures_of(found, surveyed, before, second, transfer, response, after, sources)
        | figures_beside(transfer, darks, ((surveyed, before), *series)),
        verdicts,
        _recommended(verdicts),
        warnings_of(found, before, second, response, sources, transfer, darks),
        response,
        transfer,
        before,
        after,
        arrays_of(surveyed, before, second, after, response, transfer),
    )


def _together(found: Mapping[int, Diagnosis]) -> Diagnosis:
    """Return the diagnosis of a scan with several detectors."""
    worst = max(found, key=lambda number: abs(found[number].before.summed))
    responses = {number: one.response for number, one in found.items() if one.response is not None}
    order = ("not valid", "valid with a warning", "valid")
    verdicts = []
    for method in (verdict.method for verdict in found[worst].verdicts):
        number = min(found, key=lambda n: order.index(found[n].verdict(method).answer))
        verdict = found[number].verdict(method)
        verdicts.append(dataclasses.replace(verdict, reason=f"Detector {number}: {verdict.reason}"))
    labels = sorted({one.label for one in found.values()})
    return dataclasses.replace(
        found[worst],
        label=" and ".join(labels),
        source_why=f"Detector {worst}, whose noise is correlated most: {found[worst].source_why}",
        verdicts=tuple(verdicts),
        recommended=_recommended(tuple(verdicts)),
        warnings=tuple(f"Detector {n}: {warning}" for n, one in found.items() for warning in one.warnings),
        response=PointResponse.together(responses) if len(responses) == len(found) else None,
        detectors=dict(found),
    )


def _measured(source: NoiseSource, method: Literal["differences", "mean"]) -> tuple[StaticFrames, Correlation] | None:
    """Return the result from a further source, or None if it gives none."""
    try:
        surveyed = survey_frames(source)
    except NoiseError:
        return None
    return surveyed, measure_correlation(surveyed, method)


def _darks(scan: Scan, known: Calibration) -> tuple[StaticFrames, Correlation] | None:
    """Return the darks as a noise source; None if there are too few or they do not vary."""
    if scan.darks is None or scan.darks.shape[0] < 3:
        return None
    return _measured(NoiseSource("darks", scan.darks, None, ~known.bad, levelled=False), "differences")


def _label(found: Findings) -> str:
    extra = [name for name, share in (("row", found.row_share), ("column", found.column_share)) if share > 0.01]
    return ", ".join(["white" if found.white else "correlated", *(f"{name} noise" for name in extra)])


def _recommended(verdicts: tuple[Verdict, ...]) -> str:
    """Return the first valid method, in the order of usual quality, else the first one with a warning."""
    order = ("noise2noise", "noise2inverse", "noise2self", "noise2self after decorrelation")
    by_name = {verdict.method: verdict.answer for verdict in verdicts}
    for answer in ("valid", "valid with a warning"):
        for name in order:
            if by_name[name] == answer:
                return name
    return "none"
