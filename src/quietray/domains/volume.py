"""Reconstruction before denoising: Noise2Inverse, repeated scans, and classical filters."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from quietray.assessment.common_noise import CommonNoise, common_noise
from quietray.assessment.evidence import Evidence
from quietray.assessment.figures import ScanMetrics
from quietray.assessment.halves import Halves
from quietray.assessment.tone import tone_of
from quietray.assessment.uncertainty import Trust, shares, steps_of_each, trusted
from quietray.assessment.withheld import too_few_views
from quietray.detector.correction.calibration import Calibrated
from quietray.detector.correction.correct import RowCounts
from quietray.domains.base import Domain
from quietray.domains.common import circumstances, facts_of
from quietray.domains.plain import AsMeasured
from quietray.errors import GeometryError, SettingsError
from quietray.filters import Filter
from quietray.geometry import Geometry
from quietray.inference.denoiser import Denoiser, Scale
from quietray.io import SeriesAxis
from quietray.metrics.noreference import streaks_of_halves
from quietray.metrics.surroundings import ObjectMask
from quietray.pictures import shrink
from quietray.preparation.alike import require_alike
from quietray.preparation.prepare import Prepared, calibrated, chosen_rows, prepare, reconstruct_windows
from quietray.preparation.sources import Held, Reconstruction, RepeatedReconstruction
from quietray.result import Judged, Result, figures, gather, histogram_edges
from quietray.running.ledger import SlabRecord
from quietray.running.plan import FLATS_VOXELS, flats_rows, streak_rows
from quietray.running.planes import Planes, spread
from quietray.running.run import Run
from quietray.running.slabs import Advance, Finished, Slab, SlabTask, Work
from quietray.scan import Scan
from quietray.settings import called
from quietray.splits import Noise2Inverse, Noise2Noise
from quietray.splits.base import ScanShape, Split
from quietray.training.batches import SHARE, TrainingVolume, held_out_share
from quietray.training.learn import Recipe, Subject, learn, tuned
from quietray.training.loop import Fitted, TrainingData
from quietray.training.start import RANDOM, began_at_random
from quietray.types import Parts, Slice, Volume

__all__ = ["DenoiseParts", "VolumeDomain", "shape_of"]

_GLIMPSES = 12  # steps that a report shows beside each other
_JUDGED_BY = 2**20  # size of a filter slab in voxels
_OWN_FLATS = (
    0.5  # half of the interval of the error, as a fraction of it: rings of few flats are few independent values
)
_VIEWS = 32  # views in half a turn for streaks to be measured
_FEW_VIEWS = 0.2  # views of a subset per column: with fewer, subsets share streaks that training takes for the object
_CAREFUL = 0.1  # factor for the learning rate with so few views, if the network already knows objects


@dataclass(frozen=True, eq=False)
class VolumeDomain(Domain):
    """Data for denoising in the volume domain.

    Parameters
    ----------
    prepared
        The prepared scan; for repeated scans, the first.
    source
        Reconstructs the parts of any band of rows.
    changed
        Counts of what the correction changed in the training rows.
    scale
        Scale of the network.
    data
        Reconstructions ``(part, z, y, x)`` of the training windows, in the network's scale, with slices held out.
    scales
        Scale of every channel of a spectral series, whose middle channel has `scale`; else empty.
    a_row
        Time in seconds to reconstruct a detector row.
    """

    maps_errors = True

    prepared: Prepared
    source: Reconstruction
    changed: RowCounts
    scale: Scale
    data: TrainingVolume
    scales: tuple[Scale, ...] = ()
    a_row: float = 0.0

    @classmethod
    def bound(cls, run: Run, scans: Sequence[Scan]) -> Split:
        """Return the method; for a filter, the method that estimates its error."""
        shape = shape_of(run, scans)
        _require_same(scans)
        if run.settings.method.trained:
            return run.split.on_scan(shape)
        judge = Noise2Noise() if len(scans) > 1 else Noise2Inverse(slices=1)
        return judge.on_scan(dataclasses.replace(shape, dimensions=2))

    @classmethod
    def prepare(cls, run: Run, scans: Sequence[Scan], split: Split, taught: bool = True) -> VolumeDomain:
        """Calibrate, find the axis, reconstruct the training data, scale them, and hold out slices."""
        if split.neighbourhood.times * split.neighbourhood.channels > 1:
            raise SettingsError("a model of a series must be given a series, got one scan; train on single scans")
        known: Sequence[Scan | Calibrated] = scans
        if run.calibrated is not None and len(scans) == 1:
            known = [run.calibrated]
        n_subsets = split.n_subsets if taught or run.settings.correction.own_flats else 1
        each = [prepare(scan, run, split.n_parts, split.neighbourhood.slices, n_subsets) for scan in known]
        source: Reconstruction = each[0].source(split.n_parts)
        if len(each) > 1:
            source = RepeatedReconstruction(tuple(replace(one, grid=each[0].grid).source() for one in each))
        begun = cls.begun(run, each[0], source, split)
        if len(each) > 1:
            begun._require_one_object()
        return begun

    def _require_one_object(self) -> None:
        """Raise if repeated scans show different objects, and report if one has moved."""
        middle = self.data.parts.shape[1] // 2
        parts = self.data.parts[:, middle : middle + 1] * self.prepared.weight
        for number in range(1, len(parts)):
            here = require_alike(
                parts[0, 0],
                parts[number, 0],
                f"scan 0 and scan {number} of the repeats",
                "give scans of the same object in the same place, or denoise each by itself",
            )
            if not here:
                self.run.watch.note(
                    f"Scan 0 and scan {number} differ by more than noise: the object moved or changed between them, or "
                    "the axis did. The differences are blurred, and the estimated gain is too low; denoise each by "
                    "itself to compare."
                )

    @classmethod
    def begun(cls, run: Run, prepared: Prepared, source: Reconstruction, split: Split) -> VolumeDomain:
        """Reconstruct the training data, scale them, and hold out slices."""
        began = time.monotonic()
        parts, changed = reconstruct_windows(prepared, source, run)
        a_row = (time.monotonic() - began) / sum(last - first for first, last in prepared.plan.windows)
        n_channels = split.neighbourhood.channels
        scales = tuple(Scale.of(one.mean(axis=0), prepared.weight) for one in np.split(parts, n_channels, axis=1))
        targets = prepared.plan.targets(split.neighbourhood.slices // 2)
        _each_channel(parts, scales, Scale.apply)
        old = run.output.resumed and run.output.noted("held-out") is None  # begun by a version that held out less
        n_slices = parts.shape[1] // len(source.steps) if targets is None else len(targets)
        share = SHARE if old else held_out_share(n_slices, int(np.count_nonzero(prepared.weight)))
        share = run.output.decide("held-out", lambda: {"share": share})["share"]
        data = TrainingVolume.with_held_out(parts, split, prepared.weight, targets, len(source.steps), share)
        facts, own = facts_of(prepared, data, split), scales if n_channels > 1 else ()
        return cls(run, split, facts, prepared, source, changed, scales[n_channels // 2], data, own, a_row)

    @classmethod
    def denoise(
        cls, run: Run, scans: Sequence[Scan], rivals: Sequence[Filter] = (), seconds: float = math.inf
    ) -> Result:
        """Prepare, learn and apply, with an uncertainty map if requested.

        The filters in `rivals` are tuned first, for `seconds` in total.  The best of them replaces the network if its
        estimated error on data held out from all is smaller.
        """
        settings = run.settings
        if run.calibrated is None and len(scans) == 1:  # the axis tells how many views there are
            known = calibrated(scans[0], run)
            run = dataclasses.replace(run, calibrated=known)
        start = cls.prepare(run, scans, cls.bound(run, scans))
        said: list[str] = []
        blind, work = start.judged().blind(), run.output.work
        begun = work is not None and (work / "half-1").exists()  # a map that was begun is finished
        if settings.trust and blind and not begun:  # the map would promise too much
            run = run.having(trust=0.0)
            said.append(f"No uncertainty map was made: {blind}.")
            run.watch.note(said[-1])
            start, settings = dataclasses.replace(start, run=run), run.settings
        filters = start.tuned(rivals, seconds)
        found = start.learn()
        if filters:
            found, chosen = _first([found, *filters])
            said.append(chosen)
            run.watch.note(chosen)
        denoiser, fitted = found
        trust = None
        evidence = start.judge(start.toned(denoiser, fitted)[0]) if settings.trust and denoiser.trained else None
        if evidence is not None and start.gains(evidence):
            training = dataclasses.replace(settings.training, steps=steps_of_each(fitted, settings.trust))
            recipe = dataclasses.replace(start._recipe(run).as_begun(denoiser), training=training)
            subject = Subject(denoiser.scale, start.prepared.grid.shape, denoiser.tile)
            trust = trusted(start.data, denoiser, recipe, subject, run).beside(evidence.common)
        result = start.apply(denoiser, fitted, trust)
        return dataclasses.replace(result, notes=(*result.notes, *said))

    @property
    def taught_by(self) -> TrainingVolume | None:
        """The training data."""
        return self.data

    @property
    def axis(self) -> SeriesAxis | None:
        """First axis of the volume of a series."""
        if self.data.n_series == 1:
            return None
        return SeriesAxis("c" if self.split.neighbourhood.channels > 1 else "t", self.data.n_series)

    def slabs(self, step: int) -> tuple[Slab, ...]:
        """Return the slabs of the plan as ranges of slices of the volume, for a step or channel of a series."""
        begin = step * len(self.prepared.rows)
        return tuple((begin + first, begin + last) for first, last in self.prepared.slabs)

    def scale_of(self, step: int) -> Scale:
        """Return the scale of a step or channel."""
        return self.scales[step] if self.scales else self.scale

    def measured(self) -> Parts:
        """Return the parts of `data` in attenuation; they are modified to save memory."""
        _each_channel(self.data.parts, self.scales or (self.scale,), Scale.undo)
        return self.data.parts

    def learn(self, data: TrainingData | None = None) -> tuple[Denoiser, Fitted]:
        """Train the network, or tune the filter on this scan."""
        settings = self.run.settings
        if not settings.method.trained:
            return tuned(self.data, self.split, self.run.filter, self._subject(), self.run)
        recipe = self._recipe(self.run)
        if self.maps_errors and data is None:  # two more networks will follow
            recipe = replace(recipe, budget=(1 - settings.trust) * recipe.budget)
        denoiser, fitted = learn(data or self.data, self.split, recipe, self._subject(), self.run)
        return replace(denoiser, scales=self.scales), fitted

    def _recipe(self, run: Run) -> Recipe:
        """Return the recipe of a run; from few views, a network that knows objects must not learn their streaks."""
        recipe, scan = Recipe.of(run, self.facts), self.prepared.scan
        sparse = self.split.angular and scan.n_views < self.split.n_subsets * _FEW_VIEWS * scan.n_cols
        return replace(recipe, rate=_CAREFUL) if sparse else recipe

    def tuned(self, rivals: Sequence[Filter], seconds: float) -> list[tuple[Denoiser, Fitted]]:
        """Tune filters on this scan, within this total time in seconds."""
        each, subject = seconds / max(1, len(rivals)), self._subject()
        return [tuned(self.data, self.split, rival, subject, self.run, seconds=each) for rival in rivals]

    def _subject(self) -> Subject:
        prepared, channels = self.prepared, self.split.neighbourhood.channels
        n_images = prepared.grid.shape[0] * (self.data.n_series if channels == 1 else 1)
        again = 0.0 if prepared.plan.in_one_piece else self.a_row * len(prepared.rows)
        return Subject(self.scale, (n_images, *prepared.grid.shape[1:]), prepared.plan.tile, self.facts, again)

    def adopted(self, denoiser: Denoiser) -> Denoiser:
        """Return a trained model with the scale of this scan."""
        return dataclasses.replace(denoiser, tile=self.prepared.plan.tile, scale=self.scale)

    def judge(self, denoiser: Denoiser) -> Evidence:
        """Estimate the error on held-out rows; filters cannot overfit, so as many rows as affordable are used."""
        data = self.data if denoiser.trained or self.run.trial else self.data.widely_held_out(_JUDGED_BY)
        found = Evidence.measure(denoiser, data, air=0.0)
        return self.widened(found.beside(self.common_noise(denoiser, found.mask)))

    def common_noise(self, denoiser: Denoiser, mask: ObjectMask | None = None) -> CommonNoise | None:
        """Return the noise of flats that all parts share, and what denoising keeps of it; None if it is not known.

        That of channels is in the unit of the middle one, like the errors that are estimated for all together.
        """
        each = self.each_common_noise(denoiser, mask)
        if self.scales and each is not None:
            spans = [scale.high - scale.low for scale in self.scales]
            each = [one.scaled((spans[len(spans) // 2] / span) ** 2) for one, span in zip(each, spans, strict=True)]
        return None if each is None else CommonNoise.of_all(each)

    def each_common_noise(self, denoiser: Denoiser, mask: ObjectMask | None = None) -> list[CommonNoise] | None:
        """Return the same for every step or channel, in attenuation."""
        if self.noise_of_flats is None:
            return None
        rows, noise = self.noise_of_flats
        count = rows.stop - rows.start
        around = min(denoiser.reach, (count - 1) // 2)
        core = min(count - 2 * around, max(1, FLATS_VOXELS // self.prepared.grid.n_pixels))
        return common_noise(
            denoiser,
            self.training_rows(rows),
            noise,
            self.prepared.weight,
            mask,
            self.data.n_series,
            rows=range(around, around + core),
            shown=len(self.scales) // 2 if self.scales else None,
        )

    @functools.cached_property
    def noise_of_flats(self) -> tuple[slice, Volume] | None:
        """Some rows of the training windows, and noise ``(z, y, x)`` like that which flats left there in all parts."""
        if self.run.trial:
            return None
        windows, n_pixels = self.prepared.plan.windows, self.prepared.grid.n_pixels
        middle = len(windows) // 2
        first, last = windows[middle]
        reach = max(self.run.settings.network.depth, self.split.neighbourhood.slices // 2)
        n = flats_rows(last - first, n_pixels, reach)
        begin = (last - first - n) // 2
        noise = self.source.noise_of_flats(slice(first + begin, first + begin + n))
        begin += sum(stop - start for start, stop in windows[:middle])
        return None if noise is None else (slice(begin, begin + n), noise)

    def training_rows(self, rows: slice) -> Parts:
        """Return some of the reconstructed rows, of every step or channel, as `denoise` sees them, in attenuation."""
        n_series, channels = self.data.n_series, len(self.scales)
        found = [one[:, rows] for one in np.split(self.data.parts, n_series, axis=1)]
        scales = self.scales if channels else (self.scale,) * n_series
        return np.concatenate([scale.undo(one.copy()) for scale, one in zip(scales, found, strict=True)], axis=1)

    def halves(self, denoiser: Denoiser) -> Halves:
        """Return the held-out slices denoised from either half of the parts."""
        common = None
        if self.noise_of_flats is not None:  # of one step or channel; others may have the same
            common = np.split(self.noise_of_flats[1], self.data.n_series)[self.data.n_series // 2]
        return Halves.of_parts(denoiser, self.data, common)

    def widened(self, found: Evidence) -> Evidence:
        """Return an estimate with its uncertainty from separate flats, whose rings are few independent values."""
        if self.prepared.calibration.subsets and found.noise > 0:
            found = found.widened(_OWN_FLATS * max(0.0, found.error / found.noise))
        return found

    def judged(self) -> Judged:
        """Return a description of the validation."""
        if not self.split.angular:
            return Judged()
        return Judged(seen_by=self._seen_by, streaks=self._streaks, rings=self.prepared.calibration.remove_rings)

    @functools.cached_property
    def _streaks(self) -> float | None:
        """Streaks of half of the views as a fraction of the noise, at most; None if not needed or not known."""
        prepared = self.prepared
        views, _ = self._seen_by
        unknown = self.run.trial or prepared.algorithm.iterates or bool(prepared.calibration.subsets)
        if unknown or views < _VIEWS or not too_few_views(*self._seen_by):
            return None
        first, last = prepared.plan.windows[len(prepared.plan.windows) // 2]
        n = streak_rows(last - first, prepared.grid.n_pixels)
        middle = (first + last - n) // 2

        def measure() -> dict[str, float]:
            subsets, _ = prepared.source(8)(slice(middle, middle + n))
            return {"share": streaks_of_halves(subsets, prepared.weight)}

        found: float = self.run.output.decide("streaks", measure)["share"]
        return found

    @property
    def _seen_by(self) -> tuple[float, int]:
        """Numbers of views in half a turn, and of detector columns."""
        return seen_by(self.prepared.scan.geometry)

    def apply(self, denoiser: Denoiser, fitted: Fitted, trust: Trust | None = None) -> Result:
        """Denoise the volume slab by slab, with its uncertainty map if requested."""
        prepared, plan, output = self.prepared, self.prepared.plan, self.run.output
        denoiser, said = self.toned(denoiser, fitted)
        evidence = self.judge(denoiser)
        gains = self.gains(evidence)
        alone = self.data.parts.shape[0] < 2 or self.run.trial or not gains
        halves = None if alone else self.halves(denoiser)
        source: Reconstruction | Held = self.source
        if not gains:
            source = self.whole()
            if self.run.settings.trust:
                self.run.watch.note("No uncertainty map was made: nothing was denoised.")
        elif plan.in_one_piece:
            source = Held(self.measured(), self.changed, prepared.rows)
        facts = {"source": prepared.scan.source, "method": called(type(denoiser.split)) if gains else "none"}
        output.open_volume(prepared.grid, facts, trust is not None, self.axis)
        steps = range(self.data.n_series)
        edges = tuple(histogram_edges(self.scale_of(step)) for step in steps)
        scales = () if plan.in_one_piece else self.scales or (self.scale,)
        work: Work = DenoiseParts(denoiser, prepared.rows, prepared.weight, edges, trust, evidence.mask, scales)
        if not gains:
            work = AsMeasured(prepared.rows, prepared.weight, edges, evidence.mask)
        self.run.over(plan.slabs, SlabTask(source, work, output), "denoising" if gains else "reconstructing")
        shown = len(steps) // 2
        gathered = gather(output.records(self.slabs(shown)), edges[shown])
        if len(steps) > 1:
            gathered = dataclasses.replace(gathered, steps=self._glimpses())
        found = output.finish_trust()
        metrics = ScanMetrics(
            **figures(evidence, gathered, fitted, self.judged()),
            **circumstances(prepared, denoiser),
            evidence=None if halves is None else halves.figures(prepared.grid.voxel_size, evidence.mask),
            trust=None if trust is None else {**shares(found, prepared.weight), **trust.figures()},
            given_back=None if gains else True,
        )
        return self.result(denoiser, fitted, metrics, gathered, prepared=prepared, notes=said, trust=found)

    def whole(self) -> Reconstruction:
        """Return the source of the volume without denoising: all views together, of every repeated scan."""
        return self.source if isinstance(self.source, RepeatedReconstruction) else self.prepared.whole()

    def _glimpses(self) -> dict[int, tuple[Slice, Slice]]:
        """Return the middle slice of evenly spaced steps or of channels, noisy and denoised, as wide as a screen."""
        factor, found = Planes(self.prepared.grid.shape).factor, {}
        for step in spread(self.data.n_series, _GLIMPSES):
            records = self.run.output.records(self.slabs(step))
            seen = next(one for one in records if "axial" in one.before)
            found[step] = shrink(seen.before["axial"], factor), shrink(seen.after["axial"], factor)
        return found

    def toned(self, denoiser: Denoiser, fitted: Fitted) -> tuple[Denoiser, tuple[str, ...]]:
        """Return a network pretrained on other scans, corrected to the means of this one, and a note."""
        begun = denoiser.facts.get("started_from") or RANDOM
        said = (f"Training started from {begun}.",) if fitted.history and begun != RANDOM else ()
        if not denoiser.trained or (fitted.history and began_at_random(denoiser.facts)):
            return denoiser, said
        plain = dataclasses.replace(denoiser, tone=(1.0, 0.0))
        tone = self.run.output.decide("tone", lambda: {"tone": tone_of(plain, self.data)})["tone"]
        gain, offset = tone
        if (gain, offset) == (1.0, 0.0):
            return plain, said
        shown = offset * (self.scale.high - self.scale.low) + (1 - gain) * self.scale.low
        return dataclasses.replace(plain, tone=(gain, offset)), (
            *said,
            "The grey values of the network were corrected to the mean of the measurement, from the held-out rows: "
            f"times {gain:.4f}, plus {shown:.3g} {self.prepared.grid.unit}.",
        )


@dataclass(frozen=True, eq=False)
class DenoiseParts:
    """Denoises slabs of reconstructed parts.

    Parameters
    ----------
    denoiser
        Trained or tuned denoiser.
    rows
        Detector rows of the whole volume.
    weight
        Weight ``(y, x)``, one in the field of view; outside, the result is zero.
    edges
        Bin edges of the histograms for every step or channel of a series.
    trust
        Computes the uncertainty map.
    mask
        Mask of the object.
    scales
        Scale of every channel, where parts are reconstructed again: scaled there and back like those of training, they
        are the same to the last bit.
    """

    denoiser: Denoiser
    rows: range
    weight: Slice
    edges: tuple[np.ndarray, ...]
    trust: Trust | None = None
    mask: ObjectMask | None = None
    scales: tuple[Scale, ...] = ()

    def places(self, slab: Slab) -> list[Slab]:
        """Return the slices of the slab, in every step or channel."""
        begins = [step * len(self.rows) - self.rows.start for step in range(len(self.edges))]
        return [(begin + slab[0], begin + slab[1]) for begin in begins]

    def needs(self, slab: Slab) -> slice:
        """Return the detector rows of a slab, and those around it that the network sees."""
        reach = self.denoiser.reach
        return slice(max(self.rows.start, slab[0] - reach), min(self.rows.stop, slab[1] + reach))

    def __call__(self, source: Reconstruction | Held, slab: Slab, advance: Advance) -> Iterator[Finished]:
        """Denoise the detector rows of a slab."""
        (first, last), n_series, needed = slab, len(self.edges), self.needs(slab)
        low, (parts, changed) = needed.start, source(needed)
        if self.scales:
            for change in (Scale.apply, Scale.undo):
                _each_channel(parts, self.scales, change)
        clean = self.denoiser.slab(parts, first - low, last - low, advance, n_series)
        for step, (z0, _) in enumerate(self.places(slab)):
            seen, own = np.split(parts, n_series, axis=1)[step], np.split(clean, n_series)[step]
            sd = None if self.trust is None else self.trust.sd(seen, own, first - low) * self.weight
            own *= self.weight
            noisy = seen[:, first - low : last - low].mean(axis=0)
            planes = Planes((len(self.rows), *self.weight.shape), step * len(self.rows))
            if step != n_series // 2:  # of the others only the middle slice is shown
                planes = dataclasses.replace(planes, room=0)
            record = SlabRecord.of(z0, planes, noisy, own, self.weight, self.edges[step], changed)
            yield Finished(z0, own, record.seen_through(self.mask, noisy, own, self.weight, planes.middle), sd)


def seen_by(beam: Geometry) -> tuple[float, int]:
    """Return the numbers of views in half a turn, and of detector columns."""
    return beam.n_views * np.pi / max(np.pi, float(beam.coverage)), beam.n_cols


def shape_of(run: Run, scans: Sequence[Scan]) -> ScanShape:
    """Return the shape of the scans of a run, as a method needs it."""
    scan, settings = run.calibrated.scan if run.calibrated else scans[0], run.settings
    rows, geometry = len(chosen_rows(settings.rows, scan.n_rows)), scan.geometry
    views = scan.n_views // 2 if geometry.half else scan.n_views  # in a half acquisition, two views show a slice
    return ScanShape(views, rows, geometry.grid().shape[-1], len(scans), settings.network.dimensions)


def _first(found: Sequence[tuple[Denoiser, Fitted]]) -> tuple[tuple[Denoiser, Fitted], str]:
    """Return the method with the smallest error on data held out from all, and report it."""
    first, *rest = sorted(found, key=lambda one: one[1].best.error)
    smallest = first[1].best.error
    names = [called(type(one.split if one.trained else one.filter)) for one, _ in (first, *rest)]
    if smallest > 0:
        behind = [f"{name} {one[1].best.error / smallest - 1:+.0%}" for name, one in zip(names[1:], rest, strict=True)]
    else:
        behind = names[1:]
    return first, f"On data held out from all, {names[0]} did better than {', '.join(behind)}, and was used."


def _require_same(scans: Sequence[Scan]) -> None:
    """Raise unless several measurements of one object have the same detector and pixel size."""
    first = scans[0]
    for number, scan in enumerate(scans[1:], 1):
        for what, wanted, got in (
            ("detector size", (first.n_rows, first.n_cols), (scan.n_rows, scan.n_cols)),
            ("pixel size", first.geometry.pixel_size, scan.geometry.pixel_size),
        ):
            if got != wanted:
                raise GeometryError(
                    f"repeated scans must have one {what}, got {wanted} in scan 0 and {got} in scan {number} "
                    f"({scan.source}); give measurements of the same object with the same detector"
                )


def _each_channel(parts: Parts, scales: tuple[Scale, ...], change: Callable[[Scale, np.ndarray], np.ndarray]) -> None:
    for one, scale in zip(np.split(parts, len(scales), axis=1), scales, strict=True):
        change(scale, one)
