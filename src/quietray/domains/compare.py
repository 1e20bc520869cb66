"""Comparison of all methods that the noise permits, and all filters, on the same views and held-out views."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from quietray.assessment.comparison import Comparison, Standing
from quietray.detector.correction.correct import Correction, calibrate, correct_rows
from quietray.detector.noise.photon_transfer import log_variance
from quietray.diagnose import Diagnosis, diagnose
from quietray.domains import domain_of
from quietray.errors import NoiseError, QuietrayError
from quietray.filters import FILTERS, GaussianFilter
from quietray.geometry import require_parallel
from quietray.metrics.heldout import HeldOut, adjacent_views_suffice, held_out_views
from quietray.metrics.image import disc
from quietray.metrics.stitched import Stitched, Whole
from quietray.metrics.surroundings import ObjectMask
from quietray.preparation.prepare import calibrated, chosen_rows, prepare
from quietray.running.run import Run
from quietray.running.settings import Settings
from quietray.running.slabs import Staged, Team
from quietray.scan import Scan
from quietray.settings import parse_seconds
from quietray.splits import SPLITS, Noise2Inverse
from quietray.training.learn import TUNED_ON
from quietray.training.start import DEFAULT, PRIOR
from quietray.types import Volume

__all__ = ["FEWEST_ROWS", "Comparison", "Standing", "affordable_rows", "compared", "measured"]

_LEARNING = 0.6  # fraction of the time
_FILTERING = 2.5e-6  # seconds in which all filters together do one pass over a pixel
_TRIALS = 20  # passes over the pixels that a filter is tuned on
_SHORTEST = 0.5  # seconds per method
_BEYOND = "the object reaches beyond the field of view, and what views show of it there counts as error of every method"
FEWEST_ROWS = 8  # with fewer rows, networks see few neighbours, and those of radiographs too little
_SHARE = 0.2  # one view in this many is held out, so that the rest forms four even subsets


def compared(scan: Scan, run: Run, rows: int, seconds: float) -> tuple[Comparison, Run]:
    """Run every method that the noise permits, and every filter, and rank them by held-out views.

    Parameters
    ----------
    scan
        The measured scan.
    run
        Its method is replaced by each candidate in turn; nothing is written.
    rows
        Detector rows to compare on, around the middle of the chosen ones.
    seconds
        Total time.  Networks get six tenths of it and filters the rest; unused time is passed on, and filters that do
        not fit are left out.  If the settings give a number of steps, every network trains for that many.

    Returns
    -------
    comparison, run
        The comparison, and the run with what was measured on the scan.

    Raises
    ------
    QuietrayError
        The scan has too few views to hold some out, or no method could be run.
    """
    require_parallel(scan.geometry, "comparing methods")
    ends = time.monotonic() + seconds
    settings, run = run.settings, measured(scan, run)
    assert run.calibrated is not None
    assert run.diagnosis is not None
    done = settings
    if settings.phase is not None:  # already retrieved
        done = dataclasses.replace(settings, phase=None, correction=run.calibrated.calibration.settings)
    held = _Held.out_of(_part(run.calibrated.scan, done, rows), done.correction if settings.phase else Correction())
    candidates, left_out = _candidates(done, run.diagnosis, held.rest.n_rows)
    volumes: dict[str, Volume] = {}
    took: dict[str, float] = {}
    ran: dict[str, Settings] = {}
    trial, left = _Trial(held.rest), max(0.5 * seconds, ends - time.monotonic())
    to_come = {trained: sum(one.method.trained == trained for _, one in candidates) for trained in (True, False)}
    shares = {True: _LEARNING * left, False: (1 - _LEARNING) * left}

    def keep(number: int, found: _Tried) -> None:
        name, _ = candidates[number]
        took[name] = found.seconds
        if found.volume is None or found.settings is None:
            left_out.append((name, found.error))
        else:
            volumes[name], ran[name] = found.volume, found.settings
        advance(1, name)

    team = run.executor if isinstance(run.executor, Team) else None
    with run.watch.stage("comparing", len(candidates)) as advance:
        if team is not None and team.crew is not None:  # methods at the same time: each has as much more of it
            each = {kind: min(left, team.crew.count * shares[kind] / max(1, to_come[kind])) for kind in shares}
            team.all(trial, [(one, each[one.method.trained]) for _, one in candidates], keep, advance)
            volumes = {name: volumes[name] for name, _ in candidates if name in volumes}  # simplest first
        else:
            for number, (name, candidate) in enumerate(candidates):
                kind = candidate.method.trained  # what one leaves is for those after it
                keep(number, trial((candidate, shares[kind] / to_come[kind])))
                shares[kind] -= took[name]
                to_come[kind] -= 1
    return _ranked(held, volumes, ran, took, left_out, settings), run


@dataclass(frozen=True, eq=False)
class _Tried:
    """What came of a method: its volume and what was settled, or why there is none."""

    seconds: float
    volume: Volume | None = None
    settings: Settings | None = None
    error: str = ""


@dataclass(frozen=True, eq=False)
class _Trial:
    """Runs a method on a scan, here or on a worker, in so many seconds where no number of steps is asked for."""

    scan: Scan

    def __call__(self, item: tuple[Settings, float]) -> _Tried:
        candidate, budget = item
        begun = time.monotonic()
        try:
            volume, ran = _volume(self.scan, dataclasses.replace(candidate, budget=f"{max(_SHORTEST, budget):.3f}s"))
        except QuietrayError as error:
            return _Tried(time.monotonic() - begun, error=str(error))
        return _Tried(time.monotonic() - begun, volume, ran)


def measured(scan: Scan, run: Run) -> Run:
    """Return the run with the calibrated scan and the diagnosis of its noise."""
    known = run.calibrated
    if known is None:
        known = calibrated(scan, run)
    found = run.diagnosis
    if found is None:
        with run.watch.stage("measuring the noise"):
            if run.settings.phase is not None:  # which spreads noise
                found = diagnose(scan).after_retrieval()
            else:
                found = diagnose(known.scan, calibration=known.calibration)
    return dataclasses.replace(run, calibrated=known, diagnosis=found)


def affordable_rows(scan: Scan, most: int, seconds: float) -> int:
    """Return the number of rows, at most `most`, on which the filters fit into four tenths of the time; or 0."""
    (slices, pixels), (_, n_y, n_x) = TUNED_ON, scan.geometry.grid().shape
    parts = Noise2Inverse().fitting(int((1 - _SHARE) * scan.n_views), n_x).parts  # filters are applied to each
    left = (1 - _LEARNING) * seconds / (_FILTERING * parts) - _TRIALS * min(pixels, slices * n_y * n_x)
    return min(most, scan.n_rows, max(0, int(left / (n_y * n_x))))


@dataclass(frozen=True, eq=False)
class _Held:
    """A scan without the held-out views, and these views for the ranking."""

    rest: Scan
    judge: HeldOut

    @classmethod
    def out_of(cls, scan: Scan, correction: Correction) -> _Held:
        """Hold out every fifth view; if views are too sparse, the variance of the noise is measured, too."""
        beam = require_parallel(scan.geometry, "comparing methods")
        calibration = calibrate(scan, dataclasses.replace(correction, rings="none"))
        middle = scan.n_rows // 2
        some, _ = correct_rows(scan.read(slice(middle, middle + 1)), calibration, slice(middle, middle + 1))
        seen = Stitched.of(beam) if beam.half else Whole(beam)
        dense = adjacent_views_suffice(seen.views(some), seen.beam)
        _, held = held_out_views(seen.beam, _SHARE)
        rows = slice(0, scan.n_rows)
        sinograms, _ = correct_rows(scan.read(rows), calibration, rows)
        variance = None if dense else seen.variance(log_variance(sinograms, calibration, rows))[:, held]
        rest = np.setdiff1d(np.arange(scan.n_views), seen.measured(held))
        return cls(scan[rest], HeldOut(seen.views(sinograms), seen.beam, held, variance))


def _part(scan: Scan, settings: Settings, n_rows: int) -> Scan:
    """Return the rows around the middle of the chosen ones, in memory."""
    chosen = chosen_rows(settings.rows, scan.n_rows)
    first = max(chosen.start, chosen.start + (len(chosen) - n_rows) // 2)
    rows = slice(first, min(first + n_rows, chosen.stop))

    def cropped(frames: Any) -> Any:
        return None if frames is None else np.asarray(frames[:, rows], np.float32)

    return dataclasses.replace(
        scan,
        projections=scan.read(rows),
        geometry=scan.geometry.rows(rows.stop - rows.start),
        flats=cropped(scan.flats),
        darks=cropped(scan.darks),
        truth=None,
        clean=None,
    )


def _candidates(
    settings: Settings, found: Diagnosis, n_rows: int
) -> tuple[list[tuple[str, Settings]], list[tuple[str, str]]]:
    """Return the methods to run, simplest first, and those excluded by the diagnosis or few rows, with reasons."""
    common = dataclasses.replace(
        settings,
        rows=None,
        region=None,
        symmetries=1,
        reblur=True,
        start=settings.start if settings.start in (PRIOR, DEFAULT) else None,  # each if there is one that fits
        trust=0.0,
        max_memory=None,
    )
    few = n_rows < FEWEST_ROWS
    allowed: list[tuple[str, Settings]] = [("fbp", dataclasses.replace(common, method=GaussianFilter(0.0)))]
    allowed += [(name, dataclasses.replace(common, method=kind())) for name, kind in FILTERS.items()]
    left_out: list[tuple[str, str]] = []
    for kind in SPLITS.values():
        for name, method in kind.candidates().items():
            judged = [found.verdict(verdict) for verdict in method.verdicts]
            if method.needs_linear and not settings.reconstruction.linear:
                left_out.append((name, "The reconstruction is not linear, so its subsets share more than the object."))
            elif few and (method.domain == "radiographs" or name != list(kind.candidates())[-1]):
                reason = f"It needs more than the {n_rows} rows compared; give a longer --budget, or more --rows."
                left_out.append((name, reason))
            elif any(verdict.answer != "not valid" for verdict in judged) or not judged:
                allowed.append((name, dataclasses.replace(common, method=method)))
            else:
                left_out.append((name, judged[-1].reason))
    return allowed, left_out


def _volume(scan: Scan, settings: Settings) -> tuple[Volume, Settings]:
    """Run one method in memory; return the volume and the settings, including those tuned or chosen."""
    run, method = dataclasses.replace(Run.in_memory(settings), trial=True, executor=Staged()), settings.method
    if method == GaussianFilter(0.0):  # no tuning needed
        prepared = prepare(scan, run)
        parts, _ = prepared.source()(slice(0, scan.n_rows))
        return parts[0] * prepared.weight, settings
    with run.output:
        result = domain_of(method).denoise(run, [scan])
    method = run.split.as_served(result.denoiser.split) if result.denoiser.trained else result.denoiser.filter
    return np.asarray(result.volume), dataclasses.replace(settings, method=method)


def _ranked(
    held: _Held,
    volumes: dict[str, Volume],
    ran: dict[str, Settings],
    took: dict[str, float],
    left_out: list[tuple[str, str]],
    settings: Settings,
) -> Comparison:
    """Estimate the errors of the volumes, and make a recommendation."""
    if not volumes:
        raise NoiseError(f"at least one method must run on this scan, got none: {left_out[0][1]}")
    inside = _object_in(volumes) if held.judge.variance is None else None
    found = dataclasses.replace(held.judge, inside=inside).judge(volumes)
    best = found.best
    standings = tuple(
        Standing(
            name,
            ran[name],
            error,
            found.interval(name),
            found.difference(name, best)[1:],
            took[name],
            volumes[name],
        )
        for name, error in found.errors.items()
    )
    near = [standing.name for standing in standings if standing.behind[0] <= 0]
    recommended = next(name for name in volumes if name in near)  # they were run simplest first
    trained = [name for name in near if ran[name].method.trained]
    pick = best if best in trained or not trained else trained[0]
    shown = volumes[best] if found.domain == "volume" else held.judge.sinograms[:]
    span = float(np.subtract(*np.percentile(shown, (99.5, 0.5))))
    picked = dataclasses.replace(settings, method=ran[pick].method)
    why = (
        f"{best} has the smallest estimated error on {len(held.judge.held)} held-out views"
        + ("" if recommended == best else f"; {recommended} is simpler and not clearly behind")
        + ("." if pick == best else f". {pick} is not clearly behind either and improves with training: it was chosen.")
    )
    networks = [name for name in ran if ran[name].method.trained]
    if networks and best not in networks:
        steps = settings.training.steps
        had, more = (
            (f"{parse_seconds(ran[networks[0]].budget):.0f} s", "a longer budget")
            if steps is None
            else (f"{steps} steps", "more steps")
        )
        why += f" The networks had only {had} each: with {more} they may come first."
    beyond = _BEYOND if found.domain == "volume" and held.judge.overflows else ""
    return Comparison(standings, tuple(left_out), recommended, span, found.domain, picked, why, inside, beyond)


def _object_in(volumes: Mapping[str, Volume]) -> Bool[np.ndarray, "y x"] | None:
    """Return the mask of the object in any slice, from the mean of all volumes; None without air around it."""
    mean = np.zeros_like(next(iter(volumes.values())))
    for volume in volumes.values():
        mean += volume / np.float32(len(volumes))
    n_y, n_x = mean.shape[1:]
    weight = (disc(n_y, n_x) & (mean != 0).any(axis=0)).astype(np.float32)
    mask = ObjectMask.found(mean, weight, air=0.0)
    return None if mask is None else np.logical_or.reduce([mask.of(one, weight) for one in mean])
