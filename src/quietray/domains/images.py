"""Series of images that nothing is reconstructed from: CT slices, radiographs, any pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quietray.assessment.evidence import Evidence
from quietray.assessment.halves import Halves
from quietray.assessment.image_warnings import image_warnings
from quietray.detector.correction.correct import RowCounts
from quietray.detector.noise.calm import FlatNoise
from quietray.domains.common import method_facts, recipe_of
from quietray.domains.image_methods import (
    FINE_TUNING,
    image_split,
    noise_models,
    noise_of,
    pseudo_ct,
    scale_of_model,
)
from quietray.errors import SettingsError
from quietray.filters import Filter
from quietray.images import ImageSeries, require_alike
from quietray.inference.denoiser import Denoiser, Scale
from quietray.result import Gathered, Result, figures, gather, histogram_edges
from quietray.running.facts import peak_memory, versions
from quietray.running.output import Output
from quietray.running.plan import available_memory
from quietray.running.settings import Settings
from quietray.running.slabs import SlabRecord
from quietray.running.watch import Watch
from quietray.settings import called
from quietray.splits import Noise2Noise, PseudoCT
from quietray.splits.base import Split
from quietray.splits.recorrupted import Recorrupted
from quietray.training.batches import TrainingVolume
from quietray.training.learn import learn, tuned
from quietray.training.loop import Fitted, judge_held_out
from quietray.types import Volume

__all__ = ["TILE", "ImageRun", "denoise_images", "facts_of_images", "finished"]

TILE = 1024
_VARIANCE = 0.1  # by which the power of noise may be wrong, read from one image: 9 % in a simulated CT
_TUNED_ON = 2**18  # pixels, of whole images
_LEFT_OUT = "held-out images, each judged by the measurements that it was not computed from"
_STEIN = "held-out images, by Stein's estimate with the measured auto-covariance of the noise"
_HIDDEN = "hidden pixels, each judged by what was measured there, which is right where noise is white"


@dataclass(frozen=True, eq=False)
class ImageRun:
    """What a run on images has to work with.

    Parameters
    ----------
    stacks
        The series, and further measurements of the same images.
    data
        Scaled, with something held out.
    scale
        Of the data.
    split
        The method.
    noise
        What was measured of it.
    why
        Why the method is judged as it is, in words.
    model
        The trained model that the run starts from.
    """

    stacks: Sequence[ImageSeries]
    data: TrainingVolume
    scale: Scale
    split: Split
    noise: FlatNoise | None
    why: str
    model: Denoiser | None = None

    @property
    def series(self) -> ImageSeries:
        """The first measurement, whose files the result is written like."""
        return self.stacks[0]


def denoise_images(stacks: Sequence[ImageSeries], settings: Settings, output: Output, watch: Watch) -> Result:
    """Train a network, or tune a filter, on a series of images, and denoise them.

    Parameters
    ----------
    stacks
        The series, and further measurements of the same images.
    settings, output, watch
        Of the run.

    Raises
    ------
    QuietrayError
        The method is not one for images, or the measurements differ in size.
    """
    run = _started(stacks, settings)
    watch.note(run.why)
    denoiser, fitted = _learned(run, settings, output, watch)
    return finished(run, denoiser, fitted, _applied(run, denoiser, watch), output)


def finished(
    run: ImageRun,
    denoiser: Denoiser,
    fitted: Fitted,
    clean: Volume,
    output: Output,
    judge: Split | None = None,
    share: float = 1.0,
) -> Result:
    """Judge a denoiser, write the images, and gather what is to be told of them.

    Parameters
    ----------
    run
        What it had to work with.
    denoiser, fitted
        What was trained or tuned.
    clean
        The denoised images.
    output
        Where they are written.
    judge
        Judges the denoiser, if not its own method.
    share
        Of the images, those that it was applied to; the others are as they were.
    """
    judge = judge or denoiser.split
    evidence = Evidence.measure(dataclasses.replace(denoiser, split=judge), run.data).shared(share)
    by_stein = isinstance(judge, (Recorrupted, PseudoCT))
    if by_stein:
        low, high = evidence.interval
        evidence = dataclasses.replace(
            evidence, interval=(low - _VARIANCE * evidence.noise, high + _VARIANCE * evidence.noise)
        )
    edges, series = histogram_edges(run.scale), run.series
    noisy = np.asarray(np.mean([stack.images for stack in run.stacks], axis=0, dtype=np.float32))
    record = SlabRecord.of(0, series.n_images // 2, noisy, clean, series.weight, edges, RowCounts())
    gathered = _planes(gather([record], edges), series)
    metrics = figures(evidence, gathered, fitted) | _circumstances(run, denoiser)
    metrics["estimate"]["domain"] = _STEIN if by_stein else _LEFT_OUT if isinstance(judge, Noise2Noise) else _HIDDEN
    metrics["estimate"]["data_range_is"] = "0.5 to 99.5 percentile of the denoised images"
    if len(run.stacks) > 1:
        metrics["evidence"] = Halves.of_parts(denoiser, run.data).figures(series.pixel_size)
    origin, what = series.origin, denoiser.split if denoiser.trained else denoiser.architecture
    if origin is not None:
        output.keep_folder("series", lambda folder: origin.write(folder, clean, f"quietray {called(type(what))}"))
    warnings, notes = image_warnings(metrics), (*series.notes, run.why)
    return Result(clean, denoiser, metrics, warnings, notes, gathered, fitted.history, output.folder)


def facts_of_images(series: ImageSeries, noise: FlatNoise | None, scale: Scale) -> dict[str, Any]:
    """Return what a model keeps of the images that it was trained on."""
    return {
        "domain": "images",
        "source": series.source,
        "unit": series.unit,
        "voxel_size_mm": series.pixel_size,
        "noise_level": None if noise is None else noise.sd / (scale.high - scale.low),
        "correlation": None if noise is None else noise.neighbours,
    }


def _started(stacks: Sequence[ImageSeries], settings: Settings) -> ImageRun:
    """Scale the images, choose the split, hold something out."""
    method, series, weight = settings.method, stacks[0], stacks[0].weight
    require_alike(stacks)
    parts = np.stack([stack.images for stack in stacks])
    model = None if settings.start is None else Denoiser.load(Path(settings.start))
    scale = Scale.of(parts.mean(axis=0), weight) if model is None else scale_of_model(model, series)
    noise = noise_of(stacks)
    split: Split
    if isinstance(method, PseudoCT) and len(stacks) > 1:
        raise SettingsError(
            f"pseudo-ct must have one measurement of the images, got {len(stacks)}; leave --repeats out"
        )
    if isinstance(method, PseudoCT):
        split, why = pseudo_ct(method, model, noise_models(settings.start), noise, series)
    else:
        split, why = image_split(method, len(stacks), noise, scale)
    data = TrainingVolume.with_held_out(scale.apply(parts), split, weight)
    if isinstance(method, Filter):  # what is left of few images, a band, need not have the edges that a filter blurs
        data = dataclasses.replace(data, held_out_band=None)
    return ImageRun(stacks, data, scale, split, noise, why, model)


def _learned(run: ImageRun, settings: Settings, output: Output, watch: Watch) -> tuple[Denoiser, Fitted]:
    """Train the network, or tune the filter."""
    facts = facts_of_images(run.series, run.noise, run.scale)
    n, height, width = run.series.images.shape
    if isinstance(settings.method, Filter):
        count = max(1, min(4, _TUNED_ON // (height * width)))
        amount = count, min(_TUNED_ON, count * height * width)
        return tuned(run.data, run.scale, run.split, settings.method, TILE, facts, watch, amount)
    recipe = recipe_of(settings)
    if not isinstance(run.split, PseudoCT):
        return learn(run.data, run.scale, run.split, recipe, (n, height, width), TILE, facts, output, watch)
    model, training = run.model, settings.training
    assert model is not None
    assert not isinstance(model.architecture, Filter)
    gentle = dataclasses.replace(training, learning_rate=min(training.learning_rate, FINE_TUNING))
    recipe = dataclasses.replace(recipe, network=model.architecture, training=gentle)
    facts |= {"trained_on": [*model.facts.get("trained_on", [dict(model.facts)]), dict(facts)]}
    denoiser, fitted = learn(run.data, run.scale, run.split, recipe, (n, height, width), TILE, facts, output, watch)
    before = judge_held_out(run.split, dataclasses.replace(model, symmetries=1).evaluate, run.data, model.device)
    if before.error <= fitted.best.error:
        watch.note("Training on its own output made the model no better, so that its weights were left as they were.")
        denoiser.network.load_state_dict(model.network.state_dict())
    return denoiser, fitted


def _applied(run: ImageRun, denoiser: Denoiser, watch: Watch) -> Volume:
    """Return the denoised images; padding stays as it was."""
    series = run.series
    parts = run.scale.undo(run.data.parts.copy())
    with watch.stage("denoising", series.n_images) as advance:
        clean = denoiser.slab(parts, 0, series.n_images, advance)
    if series.padding is not None:
        clean[series.padding] = series.images[series.padding]
    return np.asarray(clean)


def _planes(gathered: Gathered, series: ImageSeries) -> Gathered:
    """Leave out cuts across images that do not lie on top of each other."""
    if series.step is not None:
        return gathered
    return dataclasses.replace(gathered, cuts={"axial": gathered.cuts["axial"]})


def _circumstances(run: ImageRun, denoiser: Denoiser) -> dict[str, Any]:
    series, noise = run.series, run.noise
    n, height, width = series.images.shape
    found = None
    if noise is not None:
        found = {
            "sd": noise.sd,
            "neighbour_correlation": noise.neighbours,
            "shared_pixels_away": noise.reach,
            "read_from": noise.source,
        }
    return {
        "scan": {
            "source": series.source,
            "modality": series.modality,
            "images": n,
            "rows": height,
            "columns": width,
            "unit": series.unit,
            "pixel_size_mm": series.pixel_size,
            "window": None if series.window is None else list(series.window),
        },
        "noise": found,
        "method": {**method_facts(denoiser), "domain": "images", "measurements": len(run.stacks)},
        "memory": {"limit": available_memory(), "planned_peak": None, "peak": peak_memory(), "slabs": 1},
        "versions": versions(),
    }
