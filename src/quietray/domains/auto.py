"""Automatic choice of the method, which passes on what was measured for it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quietray.detector.verdicts import Verdict
from quietray.domains import VolumeDomain, domain_of
from quietray.domains.compare import FEWEST_ROWS, affordable_rows, compared, measured
from quietray.errors import NoiseError, SettingsError
from quietray.filters import FILTERS, Filter
from quietray.geometry import ParallelBeam
from quietray.method import Auto
from quietray.result import Result
from quietray.running.run import Run
from quietray.running.settings import Settings
from quietray.scan import Scan
from quietray.settings import called, from_dict, parse_seconds, to_dict
from quietray.splits import Noise2Inverse, Noise2Noise, Noise2Self
from quietray.splits.base import Split

__all__ = ["Decision", "decided", "denoise_scans"]


@dataclass(frozen=True, eq=False)
class Decision:
    """Result of the automatic choice.

    Parameters
    ----------
    run
        The run with the chosen method, the remaining time, and what was measured.
    why
        A sentence with the reason; empty if there was no choice.
    rivals
        Filters, the best of which replaces the network if it is better after training.
    seconds
        Time for tuning these filters, in seconds.
    comparison
        Figures of the methods, if they were compared.
    """

    run: Run
    why: str = ""
    rivals: tuple[Filter, ...] = ()
    seconds: float = math.inf
    comparison: dict[str, Any] | None = None


def denoise_scans(run: Run, scans: Sequence[Scan]) -> Result:
    """Denoise a scan, or several measurements of one object, in the domain of the method.

    Raises
    ------
    QuietrayError
        The scans, the settings, the memory or the disk do not permit it.
    """
    method = run.settings.method
    if method.decides:
        return _as_decided(decided(run, scans), scans)
    domain = domain_of(method, len(scans))
    if run.settings.clean and method.domain != "clean":
        raise SettingsError(f"a clean volume must go with noise2clean, got {called(type(method))}; leave --clean out")
    if run.settings.trust and not (domain.maps_errors and method.trained):
        run.watch.note(f"No uncertainty map was made: {called(type(method))} has none.")
    return domain.denoise(run, scans)


def _as_decided(found: Decision, scans: Sequence[Scan]) -> Result:
    if found.rivals:
        result = VolumeDomain.denoise(found.run, scans, found.rivals, found.seconds)
    else:
        result = denoise_scans(found.run, scans)
    if found.comparison is not None:
        result = dataclasses.replace(result, metrics=dataclasses.replace(result.metrics, comparison=found.comparison))
    return dataclasses.replace(result, notes=(*result.notes, found.why)) if found.why else result


def decided(run: Run, scans: Sequence[Scan]) -> Decision:
    """Return the automatic choice: by a comparison on some of the rows if affordable, else from the noise."""
    settings, scan = run.settings, scans[0]
    parallel = isinstance(scan.geometry, ParallelBeam)
    if settings.correction.line_integrals and len(scans) == 1 and parallel:
        run.watch.note(
            "Noise2Inverse was used: the noise of line integrals, which might rule it out, cannot be measured."
        )
        return Decision(run.having(method=Noise2Inverse()))
    if len(scans) > 1:  # for repeated measurements, no other method has as much data to learn from
        return Decision(run.having(method=Noise2Noise()))
    auto, budget = settings.method, parse_seconds(settings.budget)
    assert isinstance(auto, Auto)
    rows = affordable_rows(scan, auto.rows, auto.share * budget)
    if rows < 1 or not settings.reconstruction.linear or not parallel:
        return _with_rivals(_recommended(run, scan), auto.share * budget)
    try:
        if rows < FEWEST_ROWS:
            run = measured(scan, run)
            assert run.diagnosis is not None
            if run.diagnosis.verdict("noise2inverse").answer == "not valid":  # so few rows show no other network enough
                return _with_rivals(_recommended(run, scan), auto.share * budget)
        return _by_comparison(run, scan, rows, auto.share * budget)
    except NoiseError as error:
        why = f"The methods could not be compared on held-out views, so Noise2Inverse was used: {error}"
        return _with_rivals(Decision(run.having(method=Noise2Inverse()), why), auto.share * budget)


def _with_rivals(found: Decision, seconds: float) -> Decision:
    """Report a choice without a comparison; filters will be judged beside a network in the volume domain."""
    found.run.watch.note(found.why)
    if found.run.settings.method.domain != "volume":
        return found
    return dataclasses.replace(found, rivals=tuple(kind() for kind in FILTERS.values()), seconds=seconds)


def _by_comparison(run: Run, scan: Scan, rows: int, seconds: float) -> Decision:
    """Compare methods, and use the rest of the budget for the chosen one."""
    started, known = time.monotonic(), run
    training = run.settings.training

    def choose() -> dict[str, Any]:
        nonlocal known
        found, known = compared(scan, run.having(training=dataclasses.replace(training, steps=None)), rows, seconds)
        known = known.having(training=training)
        picked, rival = (one and dataclasses.replace(one, training=training) for one in found.to_learn())
        return {
            "settings": to_dict(picked),
            "rival": rival and to_dict(rival),
            "comparison": found.record(),
            "seconds": time.monotonic() - started,
        }

    kept = run.output.decide("comparison", choose)
    picked = dataclasses.replace(from_dict(Settings, kept["settings"]), budget=run.settings.budget)
    rival: Any = from_dict(Settings, kept["rival"]).method if kept["rival"] else None
    run.watch.note(kept["comparison"]["why"])
    run = dataclasses.replace(known, settings=picked)
    late = [one["method"] for one in kept["comparison"]["left_out"] if one["method"] in FILTERS]  # for lack of time
    rivals = () if rival is None else (rival, *(FILTERS[name]() for name in late))
    return Decision(run, kept["comparison"]["why"], rivals, comparison=kept["comparison"])


def _recommended(run: Run, scan: Scan) -> Decision:
    """Return the method that follows from the reconstruction and the diagnosis, without a comparison."""
    algorithm = run.settings.reconstruction

    def taken(method: Split, why: str, run: Run = run) -> Decision:
        return Decision(run.having(method=method), why)

    if run.settings.phase is not None:
        return taken(
            Noise2Inverse(),
            "Noise2Inverse was used: phase retrieval spreads noise over pixels, which no blind spot hides, but not "
            "over views.",
        )
    if not isinstance(scan.geometry, ParallelBeam):
        return taken(
            Noise2Self(),
            "Noise2Self was used, which denoises radiographs of any beam: methods are compared, and the error of a "
            "volume is estimated, for parallel beams only. Choose another method with --method.",
        )
    if not algorithm.linear:
        return taken(
            Noise2Self(),
            "Noise2Self was used, which denoises the radiographs: Noise2Inverse must have a linear reconstruction, and "
            f"{called(type(algorithm))} as set is not linear.",
        )
    said = (
        "A comparison of all methods on held-out views would take more than its share of the budget (quietray compare "
        "makes it), so the filters are tuned and compared on the same slices as the network"
    )
    try:
        known = measured(scan, run)
    except NoiseError as error:
        why = f"{said}, and the noise could not be measured ({error}): Noise2Inverse was used."
        return taken(Noise2Inverse(), why)
    assert known.diagnosis is not None
    verdict: Verdict = known.diagnosis.verdict("noise2inverse")
    if verdict.answer == "not valid" and known.diagnosis.recommended.startswith("noise2self"):
        why = f"{said}; Noise2Self was used, because Noise2Inverse is not valid here: {verdict.reason}"
        return taken(Noise2Self(), why, known)
    return taken(Noise2Inverse(), f"{said}; Noise2Inverse was used ({verdict.answer}): {verdict.reason}", known)
