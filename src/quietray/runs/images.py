"""Series of images that nothing is reconstructed from: CT slices, radiographs, any pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quietray.detector.correct import RowCounts
from quietray.detector.flat import FlatNoise, flat_noise, repeated_noise
from quietray.errors import GeometryError, NoiseError, SettingsError
from quietray.filters import Filter
from quietray.inference.denoiser import Denoiser, Scale
from quietray.inference.evidence import Evidence
from quietray.inference.halves import Halves
from quietray.inference.learn import learn, tuned
from quietray.inference.output import Output, Watch
from quietray.inference.plan import available_memory
from quietray.inference.result import Gathered, Result, figures, gather, histogram_edges, peak_memory, versions
from quietray.inference.slabs import SlabRecord
from quietray.io.images import ImageSeries
from quietray.runs.common import method_facts, recipe_of
from quietray.runs.image_warnings import image_warnings
from quietray.runs.settings import Auto, Method, Settings
from quietray.settings import called
from quietray.splits import Noise2Noise, Noise2Projection, Noise2Self, Noisier2Noise
from quietray.splits.base import Split
from quietray.splits.recorrupted import Recorrupted
from quietray.training.batches import TrainingVolume
from quietray.training.loop import Fitted
from quietray.types import Volume

__all__ = ["denoise_images", "image_split", "noise_of"]

_TILE = 1024
_VARIANCE = 0.1  # by which the power of noise may be wrong, read from one image: 9 % in a simulated CT
_TUNED_ON = 2**18  # pixels, of whole images
_JUDGED = {
    Noise2Noise: "held-out images, each judged by the measurements that it was not computed from",
    Recorrupted: "held-out images, by Stein's estimate with the measured auto-covariance of the noise",
}
_HIDDEN = "hidden pixels, each judged by what was measured there, which is right where noise is white"


@dataclass(frozen=True, eq=False)
class _Start:
    """What a run starts from: scaled data, the method, and what was measured of the noise."""

    stacks: Sequence[ImageSeries]
    data: TrainingVolume
    scale: Scale
    split: Split
    noise: FlatNoise | None
    why: str

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
    start = _started(stacks, settings.method)
    watch.note(start.why)
    denoiser, fitted = _learned(start, settings, output, watch)
    clean = _applied(start, denoiser, watch)
    evidence = Evidence.measure(denoiser, start.data)
    if isinstance(start.split, Recorrupted):
        low, high = evidence.interval
        evidence = dataclasses.replace(
            evidence, interval=(low - _VARIANCE * evidence.noise, high + _VARIANCE * evidence.noise)
        )
    edges, series = histogram_edges(start.scale), start.series
    noisy = np.asarray(np.mean([stack.images for stack in stacks], axis=0, dtype=np.float32))
    record = SlabRecord.of(0, series.n_images // 2, noisy, clean, series.weight, edges, RowCounts())
    gathered = _planes(gather([record], edges), series)
    metrics = figures(evidence, gathered, fitted) | _circumstances(start, denoiser)
    metrics["estimate"]["domain"] = _JUDGED.get(type(start.split), _HIDDEN)
    metrics["estimate"]["data_range_is"] = "0.5 to 99.5 percentile of the denoised images"
    if len(stacks) > 1:
        metrics["evidence"] = Halves.of_parts(denoiser, start.data).figures(series.pixel_size)
    _write(start, clean, denoiser, output)
    warnings, notes = image_warnings(metrics), (*series.notes, start.why)
    return Result(clean, denoiser, metrics, warnings, notes, gathered, fitted.history, output.folder)


def noise_of(stacks: Sequence[ImageSeries]) -> FlatNoise | None:
    """Measure the noise of a series: from the difference of two measurements, or from the calm parts of one."""
    series = stacks[0]
    if len(stacks) > 1:
        return repeated_noise(series.images, stacks[1].images, series.weight)
    return flat_noise(series.images, series.weight)


def image_split(method: Method | Split, n_measured: int, noise: FlatNoise | None, scale: Scale) -> tuple[Split, str]:
    """Return the split that serves a method on images, and why.

    Filters have no training: their split only says how their error is estimated.

    Parameters
    ----------
    method
        Of the run.
    n_measured
        Measurements of the same images.
    noise
        What was measured of it; None where there was nothing to read it from.
    scale
        Of the data.

    Raises
    ------
    SettingsError
        The method needs projections, or repeated measurements.
    """
    name = called(type(method))
    of_any = isinstance(method, (Filter, Auto))
    if n_measured > 1 and (of_any or isinstance(method, Noise2Noise)):
        found = method if isinstance(method, Noise2Noise) else Noise2Noise()
        said = f"Judged by {n_measured} measurements of the same images, whose noise is independent."
        return dataclasses.replace(found, realisations=n_measured, slices=1), said
    if n_measured > 1:
        raise SettingsError(f"{name} must have one measurement of the images, got {n_measured}; use noise2noise")
    if isinstance(method, Noise2Noise):
        raise SettingsError(
            "noise2noise must have two or more measurements of the same images, got one; give the others with "
            "--repeats, or use noise2void, noise2self or a filter"
        )
    if of_any or isinstance(method, Recorrupted):
        return _for_one(method, noise, scale)
    of_one = isinstance(method, Split) and not isinstance(method, Noise2Projection) and method.n_parts == 1
    if not isinstance(method, Split) or not of_one or method.n_clean:
        raise SettingsError(
            f"the method must be one for images, got {name}, which needs projections or clean images; use noise2void, "
            "noise2self, noisier2noise, apbsn, recorrupted, a filter, or noise2noise with --repeats"
        )
    if isinstance(method, Noisier2Noise) and noise is not None and method.poisson + method.gaussian == 0:
        variance = (noise.sd / (scale.high - scale.low)) ** 2
        return dataclasses.replace(method, gaussian=variance), f"The noise was measured in {noise.source}."
    return method, _correlated(noise)


def _for_one(method: Method | Split, noise: FlatNoise | None, scale: Scale) -> tuple[Split, str]:
    """Return how one measurement judges: by hidden pixels if its noise is white, else by Stein's estimate."""
    if isinstance(method, Recorrupted) and method.covariance:
        return method, "The covariance of the noise was given."
    if noise is None:
        if isinstance(method, Recorrupted):
            raise NoiseError(
                "the noise must be read from calm parts of the images, got too few of them; use noise2void, or give "
                "further measurements with --repeats"
            )
        return Noise2Self(), f"{_correlated(noise)} It was taken to be white."
    if not isinstance(method, Recorrupted) and noise.reach == 0:
        return Noise2Self(), f"{_correlated(noise)} Hidden pixels judge."
    split = method if isinstance(method, Recorrupted) else Recorrupted()
    covariance = noise.lags * (noise.sd / (scale.high - scale.low)) ** 2
    return split.measured(covariance), f"{_correlated(noise)} Stein's estimate judges, with that correlation."


def _correlated(noise: FlatNoise | None) -> str:
    if noise is None:
        return "The images have too few calm parts to tell the correlation of their noise."
    kind = "white" if noise.reach == 0 else f"shared up to {noise.reach} pixels away"
    return f"The noise of neighbouring pixels correlates by {noise.neighbours:+.2f} (in {noise.source}): it is {kind}."


def _started(stacks: Sequence[ImageSeries], method: Method) -> _Start:
    """Scale the images, choose the split, hold something out.

    Raises
    ------
    GeometryError
        The measurements differ in size.
    """
    series, weight = stacks[0], stacks[0].weight
    for other in stacks[1:]:
        if other.images.shape != series.images.shape or other.unit != series.unit:
            raise GeometryError(
                f"all measurements must have the images' size and unit, {series.images.shape} in {series.unit}, got "
                f"{other.images.shape} in {other.unit} in {other.source}; give series of the same images"
            )
    parts = np.stack([stack.images for stack in stacks])
    scale = Scale.of(parts.mean(axis=0), weight)
    noise = noise_of(stacks)
    split, why = image_split(method, len(stacks), noise, scale)
    data = TrainingVolume.with_held_out(scale.apply(parts), split, weight)
    if isinstance(method, Filter):  # what is left of few images, a band, need not have the edges that a filter blurs
        data = dataclasses.replace(data, held_out_band=None)
    return _Start(stacks, data, scale, split, noise, why)


def _learned(start: _Start, settings: Settings, output: Output, watch: Watch) -> tuple[Denoiser, Fitted]:
    """Train the network, or tune the filter."""
    noise, series = start.noise, start.series
    facts = {
        "source": series.source,
        "unit": series.unit,
        "voxel_size_mm": series.pixel_size,
        "noise_level": None if noise is None else noise.sd / (start.scale.high - start.scale.low),
        "correlation": None if noise is None else noise.neighbours,
    }
    n, height, width = series.images.shape
    if isinstance(settings.method, Filter):
        count = max(1, min(4, _TUNED_ON // (height * width)))
        amount = count, min(_TUNED_ON, count * height * width)
        return tuned(start.data, start.scale, start.split, settings.method, _TILE, facts, watch, amount)
    recipe = recipe_of(settings)
    return learn(start.data, start.scale, start.split, recipe, (n, height, width), _TILE, facts, output, watch)


def _applied(start: _Start, denoiser: Denoiser, watch: Watch) -> Volume:
    """Return the denoised images; padding stays as it was."""
    series = start.series
    parts = start.scale.undo(start.data.parts.copy())
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


def _write(start: _Start, clean: Volume, denoiser: Denoiser, output: Output) -> None:
    origin, what = start.series.origin, start.split if denoiser.trained else denoiser.architecture
    if origin is not None:
        output.keep_folder("series", lambda folder: origin.write(folder, clean, f"quietray {called(type(what))}"))


def _circumstances(start: _Start, denoiser: Denoiser) -> dict[str, Any]:
    series, noise = start.series, start.noise
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
        "method": {**method_facts(denoiser), "domain": "images", "measurements": len(start.stacks)},
        "memory": {"limit": available_memory(), "planned_peak": None, "peak": peak_memory(), "slabs": 1},
        "versions": versions(),
    }
