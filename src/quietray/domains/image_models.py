"""Image models: trained on pairs, repeated measurements or noisy series, and applied to other images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from quietray.assessment.figures import ImageMetrics
from quietray.detector.noise.calm import FlatNoise
from quietray.domains.image_methods import (
    as_volume,
    image_split,
    judge_of,
    noise_of,
    scale_of_model,
    together,
    told_noise,
)
from quietray.domains.images import TILE, DenoiseImages, ImageDomain, ImageFiles, facts_of_images, plan_of
from quietray.domains.models import unlike
from quietray.errors import SettingsError
from quietray.images import ImageSeries
from quietray.inference.denoiser import Denoiser, Scale
from quietray.inference.guard import guarded
from quietray.io.pairs import ImagePairs
from quietray.networks import UNet
from quietray.result import Result, histogram_edges
from quietray.running.run import Run
from quietray.running.settings import Auto, Settings
from quietray.running.slabs import Advance, Slab
from quietray.settings import called, parse_seconds
from quietray.splits import Noise2Clean
from quietray.splits.base import Split
from quietray.splits.neighbourhood import neighbours
from quietray.training.batches import TrainingSet, TrainingVolume
from quietray.training.learn import Recipe, Subject, learn
from quietray.training.loop import Fitted
from quietray.types import Parts, Volume

__all__ = ["ImageModel", "ModelOnImages", "train_on_images"]

_LEFT = 0.5  # fraction of the budget for the denoiser if noise models are trained, too


@dataclass(frozen=True, eq=False)
class ImageModel:
    """Result of training on images.

    Parameters
    ----------
    denoiser
        The model.
    fitted
        Record of the training.
    noise
        Noise models, one for each pair of series, if requested.
    """

    denoiser: Denoiser
    fitted: Fitted
    noise: tuple[Denoiser, ...] = ()


def train_on_images(pairs: Sequence[ImagePairs], run: Run) -> ImageModel:
    """Train one network on the images of one or several subjects, all in the same scale.

    Parameters
    ----------
    pairs
        For each subject, as many measurements as the method needs, and clean images for noise2clean.
    run
        Of its settings ``method``, ``network``, ``training``, ``budget``, ``seed``, ``symmetries``, ``start`` and
        ``noise_models`` are used.  :class:`Auto` uses noise2clean if there are clean images, else noise2noise if there
        are several measurements, else a method that the noise permits.

    Raises
    ------
    SettingsError
        The method cannot be trained on these images, or their units differ.
    """
    settings = run.settings
    if not pairs:
        raise SettingsError("a model must be trained on images, got none; give at least one series")
    first = pairs[0].noisy[0]
    for pair in pairs:
        if pair.noisy[0].unit != first.unit:
            raise SettingsError(
                f"all images of one model must have one unit, got {first.unit} in {first.source} and "
                f"{pair.noisy[0].unit} in {pair.noisy[0].source}"
            )
    recipe = Recipe.of(run)
    known = None if recipe.start is None or recipe.start.shipped else recipe.start.model
    scale = _scale_of(pairs) if known is None else scale_of_model(known, first)
    split, why = _split_of(pairs, settings, scale)
    run.watch.note(why)
    noises = [noise_of(pair.noisy[:1]) for pair in pairs]  # measured as in the images that the model will be applied to
    facts = [facts_of_images(pair.noisy[0], noise, scale) for pair, noise in zip(pairs, noises, strict=True)]
    share = _LEFT if settings.noise_models else 1.0
    recipe = dataclasses.replace(recipe, budget=share * recipe.budget)
    sets = TrainingSet(tuple(_data(pair, split, scale) for pair in pairs))
    subject = Subject(scale, _shape(first), TILE, {**facts[0], "trained_on": facts})
    denoiser, fitted = learn(sets, split, recipe, subject, run)
    if not settings.noise_models:
        return ImageModel(denoiser, fitted)
    return ImageModel(denoiser, fitted, tuple(_noise_model(pair, len(pairs), run, scale) for pair in pairs))


@dataclass(frozen=True, eq=False)
class ModelOnImages(ImageDomain):
    """Images that a trained model is applied to; images that it would make worse are returned unchanged.

    Parameters
    ----------
    judged_with
        Method that estimates the error of the model on images it was not trained on.
    differences
        Differences between these images and those it was trained on.
    """

    judged_with: Split | None = None
    differences: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: Run, series: ImageSeries, denoiser: Denoiser, strict: bool) -> ModelOnImages:
        """Check whether the images are similar to those the model was trained on.

        Raises
        ------
        SettingsError
            The model is not one for such images; with `strict`, they differ from its training images.
        """
        window = denoiser.split.n_slices
        slices, _ = as_volume(series, Auto())
        if slices < window:
            raise SettingsError(
                f"the model must be given {window} or more slices of one volume, as it sees neighbouring ones, got "
                f"{series.n_images} images that may be unrelated; train a model with slices = 1"
            )
        scale, noise = scale_of_model(denoiser, series), told_noise(noise_of([series], window > 1), series)
        facts = facts_of_images(series, noise, scale)
        differences = unlike(denoiser.facts, facts)
        if window > 1 and not noise.apart:
            differences.append(
                f"the noise of neighbouring slices correlates by {noise.between:+.2f}, and the model takes correlated "
                "noise for the object"
            )
        if differences and strict:
            raise SettingsError(
                f"the images must be like those that the model was trained on, got {'; '.join(differences)}; train on "
                "images like them, fine-tune with --from, or leave --strict out"
            )
        network = denoiser.trained_architecture if denoiser.trained else None
        judge, plan = judge_of(denoiser.split, noise, scale), plan_of(run, [series], window, network)
        parts, targets = ImageFiles((series,)).chosen(plan.windows), plan.targets(judge.neighbourhood.slices // 2)
        data = TrainingVolume.with_held_out(scale.apply(parts), judge, series.weight, targets)
        data = dataclasses.replace(data, held_out_band=None)
        why, told = "The model was trained on other images.", tuple(differences)
        return cls(run, denoiser.split, facts, [series], data, scale, noise, why, denoiser, plan, judge, told)

    def apply(self, denoiser: Denoiser, fitted: Fitted) -> Result:
        """Denoise all images except those that the model would probably make worse, given their noise."""
        series, noise, judge, plan = self.series, self.noise, self.judged_with, self.plan
        assert noise is not None
        assert judge is not None
        helped: list[int] = []
        made = self.made(GuardedImages(series, denoiser, histogram_edges(self.scale), None, noise, helped))
        known = [z for start, stop in plan.windows for z in range(start, stop)]  # no network was trained on any of them
        targets = plan.targets(judge.neighbourhood.slices // 2) or range(len(known))
        judged = tuple(place for place in targets if known[place] in set(helped)) or tuple(targets)
        share, kept = len(helped) / series.n_images, series.n_images - len(helped)
        domain = dataclasses.replace(self, data=dataclasses.replace(self.data, held_out_rows=judged))
        evidence = domain.judge(dataclasses.replace(denoiser, split=judge), share)
        result = domain.told(denoiser, fitted, *made, evidence, judge)
        assert isinstance(result.metrics, ImageMetrics)
        guard = {"images": series.n_images, "left_as_they_were": kept}
        told = [f"The model was trained on other images: {difference}." for difference in self.differences]
        if kept:
            told.append(
                f"{kept} of {series.n_images} images were left unchanged: their noise is hardly stronger than the "
                "error that the model would leave, or weaker."
            )
        metrics = dataclasses.replace(result.metrics, guard=guard)
        return dataclasses.replace(result, metrics=metrics, warnings=(*told, *result.warnings))


@dataclass(frozen=True, eq=False)
class GuardedImages(DenoiseImages):
    """Denoises slabs of images, and leaves those as they are that the model would make worse.

    Parameters
    ----------
    noise
        Noise of the images.
    helped
        Collects the numbers of the images that were denoised.
    """

    noise: FlatNoise
    helped: list[int]

    def cleaned(self, parts: Parts, band: Slab, begin: int, advance: Advance) -> Float[np.ndarray, "slab y x"]:
        """Return the images of a band, denoised where that helps."""
        (first, last), noise, padding = band, self.noise, self.series.padding
        clean = np.empty((last - first, *parts.shape[2:]), np.float32)
        for z in range(first, last):
            seen = None if padding is None else np.asarray(~padding[begin + z], np.float32)
            around = neighbours(parts, z, self.denoiser.split.neighbourhood)[0]
            safe = guarded(self.denoiser, parts[0, z], noise.sd, lags=noise.lags, weight=seen, around=around)
            clean[z - first] = safe.image
            self.helped.extend([begin + z] * safe.helped)
            advance(1)
        return clean


def _split_of(pairs: Sequence[ImagePairs], settings: Settings, scale: Scale) -> tuple[Split, str]:
    """Return the method, adapted to these images, and the reason.

    Raises
    ------
    SettingsError
        It cannot be trained on them.
    """
    method: Any = settings.method
    counts = {len(pair.noisy) for pair in pairs}
    cleans = [pair.clean is not None for pair in pairs]
    if not method.trained or method.needs_start:
        raise SettingsError(
            f"the method to train must have a network that needs no pretraining, got {called(type(method))}; use "
            "noise2clean, noise2noise or noise2void"
        )
    learns_clean = method.domain == "clean"
    if (learns_clean or method.takes_repeats or method.of_images) and getattr(method, "slices", None) not in (None, 1):
        raise SettingsError(f"slices must be 1 for images, which are processed one by one, got {method.slices}")
    if settings.noise_models and not all(cleans):
        raise SettingsError("models of the noise must be trained on clean images; leave --noise-models out")
    if learns_clean or (method.decides and all(cleans)):
        if not all(cleans):
            raise SettingsError(
                "noise2clean must have clean images, got none for some pairs; put them in a folder 'clean' beside "
                "'noisy', or give them with --clean"
            )
        few = min(counts)
        return Noise2Clean(few), f"The targets are clean images, with {few} measurement{'s' * (few > 1)} of each."
    several = method.takes_repeats or (method.decides and min(counts) > 1)
    n_measured = min(counts) if several else 1
    noise = together([noise_of(pair.noisy[:n_measured]) for pair in pairs])
    return image_split(method, n_measured, noise, scale)


def _shape(series: ImageSeries) -> tuple[int, int, int]:
    n, height, width = series.images.shape
    return n, height, width


def _scale_of(pairs: Sequence[ImagePairs]) -> Scale:
    """Return one scale for all subjects, as pixel values mean the same in each."""
    scales = [Scale.of(pair.noisy[0].array, pair.noisy[0].weight) for pair in pairs]
    return Scale(min(one.low for one in scales), max(one.high for one in scales))


def _data(pair: ImagePairs, split: Split, scale: Scale) -> TrainingVolume:
    """Return the parts that a split requires: measurements, followed by clean images."""
    chosen = [stack.array for stack in pair.noisy[: split.n_parts - split.n_clean]]
    if split.n_clean:
        assert pair.clean is not None
        chosen.append(pair.clean.array)
    return TrainingVolume.with_held_out(scale.apply(np.stack(chosen)), split, pair.weight)


def _noise_model(pair: ImagePairs, n_models: int, run: Run, scale: Scale) -> Denoiser:
    """Train a default U-Net to predict the noise of one subject: noisy minus clean images."""
    assert pair.clean is not None
    settings, series, split = run.settings, pair.noisy[0], Noise2Clean()
    noise: Volume = (series.array - pair.clean.array) / np.float32(scale.high - scale.low)
    parts = np.stack([scale.apply(series.array.copy()), noise])
    data = TrainingVolume.with_held_out(parts, split, pair.weight)
    budget = (1 - _LEFT) * parse_seconds(settings.budget) / n_models
    training = dataclasses.replace(settings.training, loss="mae")
    recipe = dataclasses.replace(
        Recipe.of(run), network=UNet(), training=training, budget=budget, symmetries=1, start=None
    )
    facts = {"domain": "noise", "source": series.source, "unit": series.unit}
    return learn(data, split, recipe, Subject(scale, _shape(series), TILE, facts), run.alone())[0]
