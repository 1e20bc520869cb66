"""Reconstruct first, denoise the volume: Noise2Inverse, repeated scans, and the classical filters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from quietray.assessment.evidence import Evidence
from quietray.assessment.halves import Halves
from quietray.assessment.uncertainty import Trust, shares, steps_of_each, trusted
from quietray.detector.correction.correct import RowCounts
from quietray.domains.common import circumstances, facts_of, prepared_for, recipe_of, result_of
from quietray.errors import GeometryError, SettingsError
from quietray.filters import Filter
from quietray.inference.denoiser import Denoiser, Scale
from quietray.io import SeriesAxis
from quietray.preparation.prepare import Prepared, chosen_rows, reconstruct_windows
from quietray.preparation.sources import Reconstruction, RepeatedReconstruction
from quietray.result import Result, figures, gather, histogram_edges
from quietray.running.output import Output
from quietray.running.settings import Auto, Settings, as_method, of_radiographs
from quietray.running.slabs import SlabRecord
from quietray.running.watch import Watch
from quietray.scan import Scan
from quietray.settings import called, parse_seconds
from quietray.splits import Noise2Inverse, Noise2Noise
from quietray.splits.base import Split
from quietray.splits.pseudo import PseudoCT
from quietray.splits.recorrupted import Recorrupted
from quietray.training.batches import TrainingVolume
from quietray.training.learn import learn, tuned
from quietray.training.loop import Fitted, TrainingData
from quietray.types import Parts

__all__ = ["Reconstructed", "applied", "begun", "denoise_volume", "learned", "reconstructed", "volume_split"]

_FEWEST_VIEWS = 0.2  # in a subset, per detector column
_DEPTH = 16  # slices of a sample for networks of three dimensions


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """What denoising in the volume starts from.

    Parameters
    ----------
    prepared
        The scan; of repeated ones the first.
    source
        Reconstructs the parts of any band of rows.
    parts
        Reconstructions ``(part, z, y, x)`` of the training windows, in the network's scale.
    changed
        What correcting changed in them.
    scale
        The network's.
    data
        `parts`, with slices held out.
    split
        The method.
    scales
        Of every channel of a spectral series, whose middle one has `scale`; else empty.
    """

    prepared: Prepared
    source: Reconstruction
    parts: Parts
    changed: RowCounts
    scale: Scale
    data: TrainingVolume
    split: Split
    scales: tuple[Scale, ...] = ()

    @property
    def axis(self) -> SeriesAxis | None:
        """What the volume's first axis is, in a series."""
        if self.data.n_series == 1:
            return None
        return SeriesAxis("c" if self.split.window.channels > 1 else "t", self.data.n_series)

    def slabs(self, step: int) -> tuple[tuple[int, int], ...]:
        """Return the plan's slabs as ranges of slices of the volume, in a step or channel of a series."""
        begin = step * len(self.prepared.rows)
        return tuple((begin + first, begin + last) for first, last in self.prepared.slabs)

    def scale_of(self, step: int) -> Scale:
        """Return the scale of a step or channel."""
        return self.scales[step] if self.scales else self.scale

    def measured(self) -> Parts:
        """Return `parts` in attenuation; they are changed, to spare memory."""
        _each_channel(self.parts, self.scales or (self.scale,), Scale.undo)
        return self.parts


def denoise_volume(
    scans: Sequence[Scan], settings: Settings, output: Output, watch: Watch, rival: Filter | None = None
) -> Result:
    """Reconstruct first: Noise2Inverse on one scan, Noise2Noise on repeated ones, a filter on either.

    A `rival` takes the network's place where its estimated error, on what was held out of both, is the smaller one.
    """
    start = reconstructed(scans, volume_split(scans, settings), settings, output, watch)
    main = dataclasses.replace(settings, budget=f"{parse_seconds(settings.budget) * (1 - settings.trust)}s")
    denoiser, fitted = learned(start, start.data, main, output, watch)
    said: tuple[str, ...] = ()
    if rival is not None:
        found = learned(start, start.data, dataclasses.replace(main, method=as_method(rival)), output, watch)
        ahead = found[1].best.error < fitted.best.error
        name, other = called(type(rival)), called(type(denoiser.split))
        if ahead:
            denoiser, fitted, name, other = *found, other, name
        said = (f"On what was held out of both, {other} did better than {name}, and was taken.",)
        watch.note(said[0])
    trust = None
    if settings.trust and denoiser.trained:
        training = dataclasses.replace(settings.training, steps=steps_of_each(fitted, settings.trust))
        recipe = dataclasses.replace(recipe_of(settings), training=training)
        trust = trusted(start.data, denoiser, recipe, start.prepared.grid.shape, output, watch)
    result = applied(start, denoiser, fitted, output, watch, trust)
    return dataclasses.replace(result, notes=(*result.notes, *said))


def volume_split(scans: Sequence[Scan], settings: Settings) -> Split:
    """Return the split, with no more slices than there are rows, and fewer subsets where they would be too sparse.

    Streaks of sparse subsets add up to nothing, so that the input's are the negative of the target's.  The network
    learns to turn them round, and the noise of that band with them: on 375 views of 835 columns, air came out with the
    noise of 10 pixels' period inverted (correlation -0.6) until there were two subsets.

    Raises
    ------
    GeometryError
        There are too few views.
    SettingsError
        Repeated scans are missing, or given to a method for one scan; or the method is one for images.
    """
    scan, method = scans[0], settings.method
    assert not isinstance(method, Auto)
    assert not of_radiographs(method)
    if isinstance(method, (Recorrupted, PseudoCT)):
        raise SettingsError(f"{called(type(method))} must be given images, got a scan; use noise2inverse or noise2self")
    n_rows = len(chosen_rows(settings.rows, scan.n_rows))
    if isinstance(method, Noise2Noise) or (isinstance(method, Filter) and len(scans) > 1):
        if len(scans) < 2:
            raise SettingsError(
                "noise2noise must have two or more measurements of one object, got one scan; give the others with "
                "--repeats, or use noise2inverse"
            )
        slices = method.slices if isinstance(method, Noise2Noise) else 1
        return Noise2Noise(len(scans), min(slices, n_rows - (n_rows + 1) % 2))
    if len(scans) > 1:
        raise SettingsError(f"{called(type(method))} must have one scan, got {len(scans)}; use noise2noise")
    split = method if isinstance(method, Noise2Inverse) else Noise2Inverse(slices=1)
    if split.times * split.channels > 1:
        raise SettingsError(
            f"times and channels must be 1 for a single scan, got {split.times} and {split.channels}; name the other "
            "scans with --series or --channels, or cut one acquisition into steps with --views-per-step"
        )
    if split.parts == 4 and scan.n_views < 4 * _FEWEST_VIEWS * scan.n_cols:
        split = dataclasses.replace(split, parts=2)
    if scan.n_views < 2 * split.parts:
        raise GeometryError(
            f"Noise2Inverse with {split.parts} parts must have at least {2 * split.parts} views, got {scan.n_views}; "
            "use fewer parts"
        )
    if isinstance(method, Noise2Inverse) and settings.network.dimensions == 3:
        return dataclasses.replace(split, volume=True, slices=min(_DEPTH, n_rows))
    return dataclasses.replace(split, slices=min(split.slices, n_rows - (n_rows + 1) % 2))


def reconstructed(
    scans: Sequence[Scan], split: Split, settings: Settings, output: Output, watch: Watch
) -> Reconstructed:
    """Calibrate, find the axis, reconstruct the parts to train on, scale them, hold slices out.

    Raises
    ------
    SettingsError
        The split is one for series.
    """
    if split.window.times * split.window.channels > 1:
        raise SettingsError("a model of a series must be given a series, got one scan; train on single scans")
    each = [prepared_for(scan, settings, split.n_parts, split.window.slices, output, watch) for scan in scans]
    prepared = each[0]
    source: Reconstruction = prepared.source(split.n_parts)
    if len(each) > 1:
        source = RepeatedReconstruction(tuple(one.source() for one in each))
    return begun(prepared, source, split, watch)


def begun(prepared: Prepared, source: Reconstruction, split: Split, watch: Watch) -> Reconstructed:
    """Reconstruct the parts to train on, scale them, hold slices out."""
    parts, changed = reconstruct_windows(prepared, source, watch)
    n_channels = split.window.channels
    scales = tuple(Scale.of(one.mean(axis=0), prepared.weight) for one in np.split(parts, n_channels, axis=1))
    targets = None
    if not prepared.plan.in_one_piece:  # rows were left out: only slices with their true neighbours are targets
        reach, begin = split.window.slices // 2, 0
        inner: list[int] = []
        for start, stop in prepared.plan.windows:
            inner += range(begin + reach, begin + stop - start - reach)
            begin += stop - start
        targets = tuple(inner)
    _each_channel(parts, scales, Scale.apply)
    data = TrainingVolume.with_held_out(parts, split, prepared.weight, targets, len(source.steps))
    own = scales if n_channels > 1 else ()
    return Reconstructed(prepared, source, parts, changed, scales[n_channels // 2], data, split, own)


def _each_channel(parts: Parts, scales: tuple[Scale, ...], change: Callable[[Scale, np.ndarray], np.ndarray]) -> None:
    for one, scale in zip(np.split(parts, len(scales), axis=1), scales, strict=True):
        change(scale, one)


def learned(
    start: Reconstructed, data: TrainingData, settings: Settings, output: Output, watch: Watch
) -> tuple[Denoiser, Fitted]:
    """Train the network on `data`, or tune the filter on what `start` holds."""
    prepared, facts = start.prepared, facts_of(start.prepared, start.data, start.split)
    if isinstance(settings.method, Filter):
        return tuned(start.data, start.scale, start.split, settings.method, prepared.plan.tile, facts, watch)
    n_images = prepared.grid.shape[0] * (start.data.n_series if start.split.window.channels == 1 else 1)
    denoiser, fitted = learn(
        data,
        start.scale,
        start.split,
        recipe_of(settings),
        (n_images, *prepared.grid.shape[1:]),
        prepared.plan.tile,
        facts,
        output,
        watch,
    )
    return dataclasses.replace(denoiser, scales=start.scales), fitted


def applied(
    start: Reconstructed,
    denoiser: Denoiser,
    fitted: Fitted,
    output: Output,
    watch: Watch,
    trust: Trust | None = None,
    evidence: Evidence | None = None,
) -> Result:
    """Judge the denoiser on what was held out, and denoise the volume slab by slab, with its map of trust if any."""
    prepared, plan = start.prepared, start.prepared.plan
    evidence, halves = evidence or Evidence.measure(denoiser, start.data), Halves.of_parts(denoiser, start.data)
    whole = start.measured() if plan.in_one_piece else None
    facts = {"source": prepared.scan.source, "method": called(type(denoiser.split))}
    output.open_volume(prepared.grid, facts, trust is not None, start.axis)
    steps = range(start.data.n_series)
    with watch.stage("denoising", len(steps) * len(prepared.rows)) as advance:
        for number, slab in enumerate(plan.slabs):
            if not all(output.done(*start.slabs(step)[number]) for step in steps):
                _denoise_slab(start, slab, denoiser, trust, whole, output, advance)
    shown = len(steps) // 2
    gathered = gather(output.records(start.slabs(shown)), histogram_edges(start.scale_of(shown)))
    metrics = figures(evidence, gathered, fitted) | circumstances(prepared, denoiser)
    metrics["evidence"] = halves.figures(prepared.grid.voxel_size)
    found = output.finish_trust()
    if trust is not None:
        metrics["trust"] = {**shares(found, prepared.weight), **trust.figures()}
    return dataclasses.replace(result_of(output, denoiser, metrics, prepared.notes, gathered, fitted), trust=found)


def _denoise_slab(
    start: Reconstructed,
    slab: tuple[int, int],
    denoiser: Denoiser,
    trust: Trust | None,
    parts: Parts | None,
    output: Output,
    advance: Callable[..., None],
) -> None:
    """Denoise the detector rows of a slab, from `parts` if they hold the whole volume, else from the file."""
    rows, weight = start.prepared.rows, start.prepared.weight  # outside the field of view nothing was learned: zero
    (first, last), n_series, changed = slab, start.data.n_series, start.changed
    low, high = max(rows.start, first - denoiser.reach), min(rows.stop, last + denoiser.reach)
    if parts is None:
        parts, changed = start.source(slice(low, high))
    clean = denoiser.slab(parts, first - low, last - low, advance, n_series)
    for step, (seen, own) in enumerate(zip(np.split(parts, n_series, axis=1), np.split(clean, n_series), strict=True)):
        sd = None if trust is None else trust.sd(seen, own, first - low) * weight
        own *= weight
        noisy = seen[:, first - low : last - low].mean(axis=0)
        z0, middle = step * len(rows) + first - rows.start, step * len(rows) + len(rows) // 2
        edges = histogram_edges(start.scale_of(step))
        output.write(own, SlabRecord.of(z0, middle, noisy, own, weight, edges, changed), sd)
