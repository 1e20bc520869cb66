"""Series: time steps or channels, each a separate scan, denoised with one network that sees several at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from quietray.assessment.evidence import Evidence
from quietray.assessment.figures import ScanFacts, ScanMetrics
from quietray.assessment.uncertainty import Trust
from quietray.detector.correction.calibration import Calibrated
from quietray.domains.volume import VolumeDomain, seen_by
from quietray.errors import GeometryError, SettingsError
from quietray.filters import Filter
from quietray.geometry import ParallelBeam
from quietray.inference.denoiser import Denoiser
from quietray.preparation.flats import dealt_in
from quietray.preparation.prepare import calibrated, chosen_rows, prepare
from quietray.preparation.sources import SeriesReconstruction, reconstruction_of
from quietray.result import Result, gather, histogram_edges, percentile, quality
from quietray.running.run import Run
from quietray.running.settings import Settings
from quietray.scan import Scan
from quietray.settings import called
from quietray.splits import Noise2Inverse
from quietray.splits.base import ScanShape, Split
from quietray.training.loop import Fitted

__all__ = ["SeriesDomain", "series_method", "steps_of"]

_SAME_AXIS = 1.0  # largest difference in columns between the axes found in several scans that count as the same


def series_method(settings: Settings, n_scans: int) -> Split:
    """Return the method for a series: as set, or for auto Noise2Inverse with 3 time steps.

    Parameters
    ----------
    settings
        Settings of the run.
    n_scans
        Number of steps or channels given as scans; 1 if one scan is to be divided.

    Raises
    ------
    SettingsError
        The method is for single scans, or the series does not have as many scans as the method needs.

    Examples
    --------
    >>> series_method(Settings(), 5).times
    3
    """
    method: Any = settings.method
    if method.decides:
        method = Noise2Inverse(times=1 if settings.network.dimensions == 3 else 3)
    if not method.sees_series:
        raise SettingsError(
            f"a series must be denoised by noise2inverse, got {called(type(method))}; leave --method out, or denoise "
            "its scans one by one"
        )
    if settings.views_per_step and n_scans > 1:
        raise SettingsError(
            f"a scan to be cut into steps must be the only one, got {n_scans}; give --series or --views-per-step"
        )
    channels = method.neighbourhood.channels
    if channels > 1 and (settings.views_per_step or channels != n_scans):
        raise SettingsError(
            f"a method for {channels} channels must be given a scan of each, got {n_scans}; name all the others with "
            "--channels"
        )
    found: Split = method
    return found


def steps_of(scan: Scan, views: int) -> tuple[list[slice], int]:
    """Return the views of each step of a continuous acquisition, and how many are left over at the end.

    Parameters
    ----------
    scan
        Scan in the order of acquisition.
    views
        Number of views per step.

    Raises
    ------
    GeometryError
        There are fewer than two steps.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> scan = Scan(np.ones((7, 1, 4), np.float32), ParallelBeam(np.arange(7.0), 1, 4))
    >>> steps_of(scan, 3)
    ([slice(0, 3, None), slice(3, 6, None)], 1)
    """
    count = scan.n_views // views
    if count < 2:
        raise GeometryError(
            f"views per step must be at most half of the {scan.n_views} views, so that there are two steps, got {views}"
        )
    return [slice(k * views, (k + 1) * views) for k in range(count)], scan.n_views - count * views


@dataclass(frozen=True, eq=False)
class SeriesDomain(VolumeDomain):
    """Steps or channels, reconstructed one by one, with one network for all of them.

    The volume is ``(step or channel, z, y, x)``; the figures include a table ``series`` with an entry for each.

    Parameters
    ----------
    each
        The calibrated steps, in order, or channels.
    said
        Description of how they were made.
    """

    maps_errors = False

    each: tuple[Calibrated, ...] = ()
    said: str = ""

    @classmethod
    def bound(cls, run: Run, scans: Sequence[Scan]) -> Split:
        """Return the method for the series, not yet adapted to its scans."""
        return series_method(run.settings, len(scans))

    @classmethod
    def prepare(cls, run: Run, scans: Sequence[Scan], split: Split, taught: bool = True) -> SeriesDomain:
        """Calibrate the steps or channels, or divide one acquisition into steps; reconstruct the training data.

        Raises
        ------
        QuietrayError
            The scans do not belong together, or the settings or the memory do not permit the run.
        """
        run = run.having(method=split)
        each, said = _cut(scans[0], run) if run.settings.views_per_step else _apart(scans, run)
        n_series, window = len(each), split.neighbourhood
        if window.times > n_series + 1:
            raise SettingsError(
                f"times must be at most {n_series + 1 - n_series % 2} for a series of {n_series} steps, got "
                f"{window.times}"
            )
        split = _bound(split, run, min((one.scan for one in each), key=lambda scan: scan.n_views))
        n_subsets = split.n_subsets if taught or run.settings.correction.own_flats else 1
        shared_by = _seen_by_neighbours(each) if split.neighbourhood.times > 1 else ""
        each = [dealt_in(run, one, n_subsets, shared_by) for one in each]
        # every row is stored and denoised for all subsets of all steps
        prepared = prepare(each[n_series // 2], run, n_series * (split.n_parts + 1), split.neighbourhood.slices)
        sources = tuple(
            reconstruction_of(
                one.scan, one.calibration, prepared.algorithm, prepared.grid, split.n_parts, prepared.device
            )
            for one in each
        )
        begun = VolumeDomain.begun(run, prepared, SeriesReconstruction(sources), split)
        return cls(
            **{entry.name: getattr(begun, entry.name) for entry in dataclasses.fields(begun)},
            each=tuple(each),
            said=said,
        )

    @classmethod
    def denoise(
        cls, run: Run, scans: Sequence[Scan], rivals: Sequence[Filter] = (), seconds: float = math.inf
    ) -> Result:
        """Reconstruct every step or channel, train one network on all of them, denoise all."""
        if run.settings.trust:
            run.watch.note("No uncertainty map was made: there is none for series.")
        start = cls.prepare(run, scans, cls.bound(run, scans))
        run.watch.note(start.note)
        return start.apply(*start.learn())

    def whole(self) -> SeriesReconstruction:
        """Return the source of the series without denoising."""
        return SeriesReconstruction(
            tuple(replace(self.prepared, scan=one.scan, calibration=one.calibration).whole() for one in self.each)
        )

    @property
    def note(self) -> str:
        """Description of what was done."""
        axis, window = self.axis, self.split.neighbourhood
        assert axis is not None
        sees = f"{min(window.times, axis.size)} of {axis.size} steps"
        if window.channels > 1:
            sees = f"all {axis.size} channels"
        return (
            f"{self.said} Noise2Inverse was used; its network receives {sees} at once. Figures and pictures are of "
            f"{axis.kind} {axis.size // 2}, counted from 0; the estimated gain is of all of them."
        )

    def apply(self, denoiser: Denoiser, fitted: Fitted, trust: Trust | None = None) -> Result:
        """Denoise everything, and estimate the error of each step or channel."""
        judged, axis = self._judged(denoiser), self.axis
        assert axis is not None
        result = super().apply(denoiser, fitted)
        metrics, settings = result.metrics, result.settings
        assert isinstance(metrics, ScanMetrics)
        if len({one.scan.geometry.axis for one in self.each}) > 1:  # there is no map
            assert isinstance(metrics.scan, ScanFacts)
            metrics = dataclasses.replace(metrics, scan=dataclasses.replace(metrics.scan, rotation_axis=None))
            settings = dataclasses.replace(settings, rotation_axis=None)
        series = {"of": axis.kind, "shown": axis.size // 2, "each": self._figures(judged)}
        metrics = dataclasses.replace(metrics, series=series)
        return dataclasses.replace(result, metrics=metrics, settings=settings, notes=(*result.notes, self.note))

    def _judged(self, denoiser: Denoiser) -> list[Evidence]:
        """Return the estimated error of every step or channel, in attenuation."""
        common, found = self.each_common_noise(denoiser), []
        for step in range(self.data.n_series):
            evidence = Evidence.judged(replace(denoiser, scale=self.scale_of(step)), self.data.of_step(step))
            found.append(self.widened(evidence if common is None else evidence.beside(common[step])))
        return found

    def _figures(self, judged: Sequence[Evidence]) -> list[dict[str, Any]]:
        """Return the figures of every step or channel, ready for JSON; withheld by the same rules as those of all."""
        found, judge = [], self.judged()
        for step, (one, evidence) in enumerate(zip(self.each, judged, strict=True)):
            gathered = gather(self.run.output.records(self.slabs(step)), histogram_edges(self.scale_of(step)))
            low, high = (percentile(gathered.counts_after, gathered.edges, share) for share in (0.005, 0.995))
            before, after = (float(value) for value in gathered.sums / max(1, gathered.counts_after.sum()))
            blind = replace(judge, seen_by=judge.seen_by and seen_by(one.scan.geometry)).blind(evidence=evidence)
            found.append(
                {
                    "source": str(one.scan.source),
                    "views": one.scan.n_views,
                    "rotation_axis": one.scan.geometry.axis,
                    **quality(evidence, high - low, blind),
                    "data_range": high - low,
                    "mean_noisy": before,
                    "mean": after,
                }
            )
        return found


def _bound(split: Split, run: Run, fewest: Scan) -> Split:
    """Return the method, adapted to the scan with the fewest views, for the whole series."""
    alone: Any = split
    rows, window = len(chosen_rows(run.settings.rows, fewest.n_rows)), split.neighbourhood
    shape = ScanShape(fewest.n_views, rows, fewest.n_cols, 1, run.settings.network.dimensions)
    bound: Any = dataclasses.replace(alone, times=1, channels=1).on_scan(shape)
    together: Split = dataclasses.replace(bound, times=window.times, channels=window.channels)
    return together


def _seen_by_neighbours(each: Sequence[Calibrated]) -> str:
    """Return a note if steps share the same flats, so that neighbouring steps have the same flat noise."""
    flats = [one.scan.flats for one in each if one.scan.flats is not None]
    row = each[0].scan.n_rows // 2
    firsts = {np.asarray(frames[:1, row : row + 1]).tobytes() for frames in flats}
    return "steps that enter the network together share flats" if len(firsts) < len(flats) else ""


def _apart(scans: Sequence[Scan], run: Run) -> tuple[list[Calibrated], str]:
    """Calibrate scans that were taken separately, and use a common axis if possible."""
    settings = run.settings
    if len(scans) < 2:
        raise SettingsError("a series must have two or more scans, got one; name the others with --series")
    first = scans[0]
    for number, scan in enumerate(scans):
        for what, wanted, got in (
            ("detector size", (first.n_rows, first.n_cols), (scan.n_rows, scan.n_cols)),
            ("pixel size", first.geometry.pixel_size, scan.geometry.pixel_size),
        ):
            if got != wanted:
                raise GeometryError(
                    f"the scans of a series must have one {what}, got {wanted} in scan 0 and {got} in scan {number} "
                    f"({scan.source}); resample them to one grid"
                )
    each = [calibrated(scan, run) for scan in scans]
    said = f"A series of {len(each)} scans."
    open_ones = [k for k, scan in enumerate(scans) if scan.geometry.rotation_axis is None]
    if settings.rotation_axis is not None or not open_ones:
        return each, said
    columns = np.array([each[k].scan.geometry.axis for k in open_ones])
    if np.ptp(columns) > _SAME_AXIS:
        where = f"from column {columns.min():.2f} to {columns.max():.2f}"
        return each, f"{said} The rotation axes found lie {where}, so each scan keeps its own: check them."
    column = float(np.median(columns))
    for k in open_ones:
        each[k] = dataclasses.replace(each[k], scan=each[k].scan.with_axis(column))
    return each, f"{said} Their rotation axis was set to column {column:.2f}, the median of those found."


def _cut(scan: Scan, run: Run) -> tuple[list[Calibrated], str]:
    """Calibrate one acquisition and find its axis as a whole, then divide it into steps with their own angles."""
    settings = run.settings
    views = settings.views_per_step or 1
    steps, rest = steps_of(scan, views)
    whole = calibrated(scan, run)
    beam = whole.scan.geometry
    if isinstance(beam, ParallelBeam) and beam.half and any(beam[step].turns < 2 for step in steps):
        raise SettingsError(
            f"each step of a half acquisition must make a full turn, got steps of {views} views; set --views-per-step "
            "to the number that makes one, or use --half no if it is none"
        )
    each = [
        Calibrated(whole.scan[step], whole.calibration.of_views(whole.scan[step], step), whole.notes) for step in steps
    ]
    left = f"; the last {rest} views, too few for a step, were left out" if rest else ""
    return each, f"The acquisition was split into {len(steps)} steps of {views} views, each with its own angles{left}."
