"""Whether angular subsets get flats of their own, and whether a ring filter is then still needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from quietray.detector.correction.calibration import Calibrated, Calibration
from quietray.detector.correction.own_flats import RINGS_SHARE, Prediction, fewest_flats, predict, with_own_flats
from quietray.detector.noise.rings import EXPLAINED, measure_rings
from quietray.running.run import Run
from quietray.scan import Scan

__all__ = ["dealt", "dealt_in"]

_WHITE = np.array([[1.0]])


def dealt(known: Calibrated, n_subsets: int, shared_by: str = "") -> Calibrated:
    """Give each angular subset its own flats if requested or advantageous, and note what was decided.

    Parameters
    ----------
    known
        The calibrated scan.
    n_subsets
        Number K of subsets ``j::K`` whose noise must be independent; with fewer than 2, nothing is done.
    shared_by
        Another use of the same flats, because of which separate flats would not make anything independent.

    Examples
    --------
    >>> from quietray.detector.correction.calibration import calibrate
    >>> from quietray.geometry import ParallelBeam
    >>> beam, rng = ParallelBeam(np.linspace(0, 3, 100), 2, 40), np.random.default_rng(0)
    >>> scan = Scan(rng.poisson(900, (100, 2, 40)), beam, rng.poisson(900, (2, 2, 40)))
    >>> print(dealt(Calibrated(scan, calibrate(scan), ()), 4).notes[0])
    The angular subsets share their flats, whose noise stays as rings: there are 2 for 4 subsets.
    """
    scan, calibration = known.scan, known.calibration
    asked = calibration.settings.own_flats
    if n_subsets < 2 or scan.flats is None or calibration.settings.line_integrals:
        return known
    found = predict(scan, calibration, n_subsets)
    kept = _kept_shared(scan, n_subsets, found, asked, shared_by)
    facts = {
        "own": not kept,
        "subsets": n_subsets,
        "flats": int(scan.flats.shape[0]),
        "flats_of_a_subset": fewest_flats(scan, n_subsets),
        **dataclasses.asdict(found),
    }
    if kept:
        note = f"The angular subsets share their flats{kept}"
        return replace(known, notes=(*known.notes, note), flats=facts)
    calibration, said = _without_explained(scan, calibration)
    note = (
        f"Each of the {n_subsets} angular subsets has its own flats, {facts['flats_of_a_subset']} of {facts['flats']}: "
        f"shared ones would leave rings of {found.rings_share:.1%} of the noise in a slice.{said}"
    )
    return replace(
        known, calibration=with_own_flats(scan, calibration, n_subsets), notes=(*known.notes, note), flats=facts
    )


def dealt_in(run: Run, known: Calibrated, n_subsets: int, shared_by: str = "") -> Calibrated:
    """Return the result of :func:`dealt`, unless the run was started by a version that only knew shared flats."""
    output = run.output
    new = output.decide("flats", lambda: {"new": output.noted("plan") is None})["new"]
    return dealt(known, n_subsets, shared_by if new else "the run was started with shared ones")


def _kept_shared(scan: Scan, n_subsets: int, found: Prediction, asked: bool | None, shared_by: str) -> str:
    """Return why flats stay shared, to follow 'share their flats'; empty if they do not."""
    rings = ", whose noise stays as rings: "
    if asked is False:
        return ", as requested."
    if fewest_flats(scan, n_subsets) < 1:
        assert scan.flats is not None
        return f"{rings}there are {scan.flats.shape[0]} for {n_subsets} subsets."
    if shared_by:
        return f"{rings}{shared_by}."
    if asked or found.worth_it:
        return ""
    if not found.enough_light:
        return f"{rings}those of a subset would hold {found.quanta:.0f} quanta in a pixel, too few for a logarithm."
    return f": they leave rings of {found.rings_share:.2%} of the noise in a slice, under {RINGS_SHARE:.1%}."


def _without_explained(scan: Scan, calibration: Calibration) -> tuple[Calibration, str]:
    """Return the calibration without a ring filter if the noise of the flats explains the rings, and a note on that."""
    if calibration.settings.rings != "auto" or calibration.remove_rings == "none":
        return calibration, ""
    if calibration.detectors is None:
        over = _over_flats(scan, calibration)
        removed = "none" if over is not None and over < EXPLAINED else calibration.remove_rings
        return replace(calibration, remove_rings=removed), _told(over, removed)
    scans: Mapping[int, Scan] = scan.by_detector()
    done: dict[int, Any] = {number: _without_explained(scans[number], own) for number, own in calibration.parts.items()}
    parts = {number: own for number, (own, _) in done.items()}
    removed = next((own.remove_rings for own in parts.values() if own.remove_rings != "none"), "none")
    said = "".join(f" Detector {number}:{told}" for number, (_, told) in done.items() if told)
    return replace(calibration, parts=parts, remove_rings=removed), said


def _over_flats(scan: Scan, calibration: Calibration) -> float | None:
    """Return the variance of rings in air relative to what the noise of all flats explains; None if unknown.

    Outside the air, features of the object that are common to all views count as well.
    """
    found = measure_rings(scan, calibration, _WHITE)
    return found.over_flats if found is not None and found.source == "air columns" else None


def _told(over: float | None, removed: str) -> str:
    if over is None:
        return f" Rings are removed by {removed}: there is no air to check whether the flats explain them."
    times = f"the rings have {over:.1f} times the variance of the flats' noise"
    if removed == "none":
        return f" No ring filter is needed for them: {times}."
    return f" Rings are removed by {removed}, too: {times}."
