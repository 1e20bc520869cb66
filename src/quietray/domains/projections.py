"""Train in the projection domain, for few views: Noise2Projection."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import uniform_filter

from quietray.assessment.evidence import Evidence
from quietray.detector.correction.correct import RowCounts, correct_rows
from quietray.detector.noise.photon_transfer import log_variance
from quietray.domains.common import circumstances, prepared_for, recipe_of, result_of
from quietray.errors import GeometryError, ResourceError, SettingsError
from quietray.geometry import ParallelBeam, field_of_view
from quietray.inference.denoiser import Denoiser, Scale
from quietray.operators.astra import ParallelProjector
from quietray.preparation.prepare import Prepared, chosen_region
from quietray.reconstruct.analytic import FBP
from quietray.result import Result, figures, gather, histogram_edges
from quietray.running.output import Output
from quietray.running.settings import Settings
from quietray.running.slabs import SlabRecord
from quietray.running.watch import Watch
from quietray.scan import Scan
from quietray.settings import called
from quietray.splits import Noise2Projection
from quietray.training.learn import Recipe, learn
from quietray.training.loop import Fitted, judge_held_out
from quietray.training.sinograms import TrainingSinograms
from quietray.types import Sinograms, Volume

__all__ = ["Projected", "applied_to_views", "denoise_projected", "learned_from_views", "projected"]

_ROWS_AT_ONCE = 4
_SMOOTH = 5  # views and columns: the variance changes slowly, the counts that tell it do not
_SCALED_BY = 8  # rows that the range of the attenuation is taken from
_STEP = 3  # times what a network holds when it is applied, that it holds in a step of training
_DOMAIN = "views of held-out rows, each predicted by a result that it was no part of: line integrals, not the volume"


@dataclass(frozen=True, eq=False)
class Projected:
    """What training in the projection domain starts from.

    Parameters
    ----------
    prepared
        The scan.
    split
        The method, bound to the scan.
    scale
        A factor, without an offset.
    data
        Sinograms of the training windows, scaled, rows held out.
    facts
        Of the scan, for a model to keep.
    said
        What is known of the noise, in a sentence.
    """

    prepared: Prepared
    split: Noise2Projection
    scale: Scale
    data: TrainingSinograms
    facts: dict[str, Any]
    said: str


def denoise_projected(scan: Scan, settings: Settings, output: Output, watch: Watch) -> Result:
    """Train on whole sinograms, against views that were left out, and denoise the volume row by row."""
    assert isinstance(settings.method, Noise2Projection)
    start = projected(scan, settings.method, settings, output, watch)
    denoiser, fitted = learned_from_views(start, settings, output, watch)
    return applied_to_views(start, denoiser, fitted, settings, output, watch)


def projected(scan: Scan, split: Noise2Projection, settings: Settings, output: Output, watch: Watch) -> Projected:
    """Correct the sinograms to train on, measure their noise, scale them, hold rows out.

    Raises
    ------
    SettingsError
        The network is one of three dimensions.
    GeometryError
        The beam is not parallel.
    ResourceError
        A training step, which needs whole slices, does not fit into memory.
    """
    if settings.network.dimensions == 3:
        raise SettingsError("noise2projection must have a network of 2 dimensions, got 3; rows are seen one at a time")
    if not isinstance(scan.geometry, ParallelBeam):
        raise GeometryError(
            f"noise2projection must have a parallel beam, got {type(scan.geometry).__name__}; use noise2inverse"
        )
    prepared = prepared_for(scan, settings, 2, 1, output, watch)
    _require_memory(prepared, split, settings)
    sinograms, variance = _measured(prepared, watch)
    geometry = prepared.scan.geometry
    assert isinstance(geometry, ParallelBeam)
    some = sinograms[:: max(1, len(sinograms) // _SCALED_BY)]
    images = FBP()(ParallelProjector(geometry.rows(len(some))), np.ascontiguousarray(some))
    n, axis = geometry.n_cols, geometry.axis
    scale = Scale(0.0, Scale.of(images, field_of_view(n, n, min(axis, n - 1 - axis) + 0.5, (0.0, 0.0))).high)
    known = None if variance is None else torch.from_numpy(variance / np.float32(scale.high**2))
    split = split.on(geometry.rows(1), known)
    data = TrainingSinograms.with_held_out(scale.apply(sinograms))
    said = (
        "Views count by the variance of their noise, from the counts per quantum."
        if variance is not None
        else "The counts per quantum are not known: all views count alike, and their noise is taken for white."
    )
    watch.note(said)
    noise = judge_held_out(split, lambda x: x, data, torch.device("cpu")).noise
    grid = prepared.grid
    facts = {
        "source": str(scan.source),
        "unit": grid.unit,
        "voxel_size_mm": grid.voxel_size,
        "noise_level": math.sqrt(max(0.0, noise)),
        "correlation": None,
    }
    return Projected(prepared, split, scale, data, facts, said)


def learned_from_views(start: Projected, settings: Settings, output: Output, watch: Watch) -> tuple[Denoiser, Fitted]:
    """Train the network, on as many whole slices in a step as hold the pixels of a patch, and at least one."""
    n_z, n = len(start.prepared.rows), start.prepared.scan.n_cols
    passes = (start.split.parts * n_z, n, n)  # the network is applied once for each choice of views
    tile = start.prepared.plan.tile
    return learn(start.data, start.scale, start.split, _recipe(settings, n), passes, tile, start.facts, output, watch)


def applied_to_views(
    start: Projected, denoiser: Denoiser, fitted: Fitted, settings: Settings, output: Output, watch: Watch
) -> Result:
    """Judge the denoiser by held-out rows, in the projection domain, and denoise the volume slab by slab."""
    prepared, weight = start.prepared, start.prepared.weight
    evidence = Evidence.judged(denoiser, start.data)
    output.open_volume(prepared.grid, {"source": prepared.scan.source, "method": called(type(start.split))})
    edges, middle = histogram_edges(start.scale), len(prepared.rows) // 2
    with watch.stage("denoising", len(prepared.rows)) as advance:
        for (first, last), (z0, z1) in zip(prepared.plan.slabs, prepared.slabs, strict=True):
            if not output.done(z0, z1):
                before, clean, changed = _slab(start, denoiser, settings, range(first, last), advance)
                clean *= weight
                output.write(clean, SlabRecord.of(z0, middle, before, clean, weight, edges, changed))
    gathered = gather(output.records(prepared.slabs), edges)
    span = float(np.subtract(*np.percentile(start.data.sinograms, (99.5, 0.5)))) * start.scale.high
    metrics = figures(evidence, gathered, fitted, span) | circumstances(prepared, denoiser)
    metrics["estimate"]["domain"] = _DOMAIN
    return result_of(output, denoiser, metrics, (*prepared.notes, start.said), gathered, fitted)


def _recipe(settings: Settings, n_cols: int) -> Recipe:
    """Return the recipe with whole slices for patches, as many as hold the pixels of a patch."""
    recipe, training = recipe_of(settings), settings.training
    together = min(8, max(1, training.patch**2 // n_cols**2))
    whole = dataclasses.replace(training, patch=n_cols, batch=training.batch * together)
    return dataclasses.replace(recipe, training=whole)


def _require_memory(prepared: Prepared, split: Noise2Projection, settings: Settings) -> None:
    n, memory = prepared.scan.n_cols, prepared.plan.memory
    training = _recipe(dataclasses.replace(settings, start=None), n).training
    times = 2 if split.equivariance else 1  # the network is applied to the turned object, too
    needed = _STEP * times * training.batch * n * n * settings.network.bytes_per_pixel
    if needed > memory:
        raise ResourceError(
            f"a training step of noise2projection, of whole slices of {n} x {n} pixels, must fit into memory and needs "
            f"{needed / 2**30:.2f} GiB, got a limit of {memory / 2**30:.2f} GiB; give --max-memory more, take a "
            "smaller --network, or use noise2inverse"
        )


def _measured(prepared: Prepared, watch: Watch) -> tuple[Sinograms, Float[np.ndarray, "view col"] | None]:
    """Return the sinograms of the training windows, and the variance of their noise where it is known."""
    windows, calibration = prepared.plan.windows, prepared.calibration
    total = sum(stop - start for start, stop in windows)
    scan = prepared.scan
    out = np.empty((total, scan.n_views, scan.n_cols), np.float32)
    variance = np.zeros(out.shape[1:], np.float64)
    done = 0
    with watch.stage("correcting", total) as advance:
        for start, stop in windows:
            for band in _bands(range(start, stop)):
                some, _ = correct_rows(scan.read(band), calibration, band)
                out[done : done + len(some)] = some
                if calibration.quantum > 0:
                    variance += log_variance(some, calibration, band).sum(axis=0)
                done += len(some)
                advance(len(some))
    if calibration.quantum <= 0:
        return out, None
    return out, uniform_filter(variance / total, _SMOOTH, mode="nearest").astype(np.float32)


def _bands(rows: range) -> list[slice]:
    return [slice(z, min(z + _ROWS_AT_ONCE, rows.stop)) for z in range(rows.start, rows.stop, _ROWS_AT_ONCE)]


def _slab(
    start: Projected, denoiser: Denoiser, settings: Settings, rows: range, advance: Callable[..., None]
) -> tuple[Volume, Volume, RowCounts]:
    """Return the reconstruction of detector rows, the same denoised, and what correcting changed."""
    prepared, changed = start.prepared, RowCounts()
    scan, grid, beam = prepared.scan, prepared.grid, start.split.geometry
    assert beam is not None
    y0, y1, x0, x1 = chosen_region(settings.region) or (0, scan.n_cols, 0, scan.n_cols)
    before, clean = (np.empty((len(rows), *grid.shape[1:]), np.float32) for _ in range(2))
    for band in _bands(rows):
        sinograms, some = correct_rows(scan.read(band), prepared.calibration, band)
        changed += some
        n, first = len(sinograms), band.start - rows.start
        A = ParallelProjector(beam.rows(n), grid.with_slices(n))
        before[first : first + n] = prepared.algorithm(A, sinograms)
        for place, scaled in enumerate(start.scale.apply(sinograms), start=first):
            samples = torch.from_numpy(scaled)[None, None, None]
            with torch.no_grad():
                image = start.split.infer(denoiser.evaluate, samples)[0, 0].numpy()
            clean[place] = start.scale.undo(image)[y0:y1, x0:x1]
            advance(1)
    return before, clean, changed
