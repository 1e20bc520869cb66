"""Adaptation of methods to images, and how their error is estimated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from quietray.detector.noise.calm import FlatNoise, flat_noise, repeated_noise
from quietray.errors import NoiseError, SettingsError
from quietray.images import ImageSeries
from quietray.inference.denoiser import Denoiser, Scale
from quietray.inference.guard import quiet_noise
from quietray.running.settings import Method
from quietray.splits import Noise2Noise, Noise2Self, PseudoCT
from quietray.splits.base import ImageNoise, Split
from quietray.splits.pseudo import EnsembleNoise, MeasuredNoise, ModelNoise
from quietray.splits.recorrupted import Recorrupted

__all__ = [
    "FINE_TUNING",
    "NOISE",
    "image_split",
    "judge_of",
    "noise_models",
    "noise_of",
    "pseudo_ct",
    "scale_of_model",
    "together",
    "told_noise",
]

FINE_TUNING = 1e-4  # largest learning rate for a network that is already trained
NOISE = "noise"  # subfolder of a model with its noise models


def noise_of(stacks: Sequence[ImageSeries]) -> FlatNoise | None:
    """Measure the noise of a series, from the difference of two measurements or from uniform regions of one."""
    series = stacks[0]
    if len(stacks) > 1:
        return repeated_noise(series.images, stacks[1].images, series.weight)
    return flat_noise(series.images, series.weight)


def image_split(method: Method, n_measured: int, noise: FlatNoise | None, scale: Scale) -> tuple[Split, str]:
    """Return the split that corresponds to a method on images, and the reason.

    Filters are not trained; their split only determines how the error is estimated.

    Parameters
    ----------
    method
        Method of the run.
    n_measured
        Number of measurements of the same images.
    noise
        Measured noise; None if it could not be measured.
    scale
        Scale of the data.

    Raises
    ------
    SettingsError
        The method needs projections, or repeated measurements.
    """
    seen = ImageNoise(n_measured, noise, scale.high - scale.low)
    if isinstance(method, Split):
        return method.on_images(seen)
    if n_measured > 1:
        return Noise2Noise().on_images(seen)
    if noise is None:
        return Noise2Self(), f"{seen.described} It was assumed to be white."
    if noise.reach == 0:
        return Noise2Self(), f"{seen.described} The error is estimated from hidden pixels."
    return Recorrupted().on_images(seen)


def told_noise(noise: FlatNoise | None, series: ImageSeries) -> FlatNoise:
    """Return the measured noise; if its correlation is unknown, white noise with the power of the quietest blocks.

    Raises
    ------
    NoiseError
        The images are too small to measure their noise, or contain none.
    """
    if noise is None:
        sd = float(np.median([quiet_noise(image) for image in series.images[:: -(-series.n_images // 12)]]))
        noise = FlatNoise(np.ones((1, 1)), sd, series.images.size, "the quietest blocks")
    if not noise.sd > 0:
        raise NoiseError(f"the images must hold noise, got none in {series.source}; there is nothing to denoise")
    return noise


def together(noises: Sequence[FlatNoise | None]) -> FlatNoise | None:
    """Return the mean noise of several subjects; None if none could be measured."""
    known = [noise for noise in noises if noise is not None]
    if not known:
        return None
    lags = np.mean([noise.lags for noise in known], axis=0)
    sd = float(np.sqrt(np.mean([noise.sd**2 for noise in known])))
    return FlatNoise(lags, sd, sum(noise.pixels for noise in known), known[0].source)


def judge_of(split: Split, noise: FlatNoise, scale: Scale) -> Split:
    """Return the method that estimates the error of a trained network on images it was not trained on.

    Methods for single measurements use their own estimate; for others, Stein's estimate with the measured noise is
    used.
    """
    return split if split.judged_by == "hidden pixels" else _by_stein(noise, scale)


def _by_stein(noise: FlatNoise, scale: Scale) -> Recorrupted:
    return Recorrupted().measured(ImageNoise(1, noise, scale.high - scale.low).covariance)


def scale_of_model(model: Denoiser, series: ImageSeries) -> Scale:
    """Return the scale in which a trained model sees images.

    Raises
    ------
    SettingsError
        The model was not trained on images, or on images in another unit.
    """
    if model.facts.get("domain") != "images" or model.facts.get("unit") != series.unit:
        known = f"one of {model.facts.get('domain') or 'scans'} in {model.facts.get('unit') or 'an unknown unit'}"
        raise SettingsError(
            f"the model must have been trained on images in {series.unit}, as those in {series.source}, got {known}; "
            "train one with `quietray train` on such images"
        )
    return model.scale


def noise_models(folder: str | None) -> list[Denoiser]:
    """Return the noise models that were trained with a model; empty if there are none."""
    places = sorted((Path(folder) / NOISE).glob("*/model.json")) if folder else []
    return [Denoiser.load(place.parent) for place in places]


def pseudo_ct(
    method: PseudoCT, start: Denoiser | None, models: Sequence[Denoiser], noise: FlatNoise | None, series: ImageSeries
) -> tuple[PseudoCT, str]:
    """Set the trained network that a method starts from, and its noise models, if there are any.

    Raises
    ------
    SettingsError
        There is no such network, or it is a filter, or takes several slices.
    NoiseError
        The images are too small to measure their noise, or contain none.
    """
    if start is None:
        raise SettingsError(
            "pseudo-ct must start from a trained model, got none; give one with --from, such as `quietray train` makes "
            "with noise2clean, noise2noise or noise2void"
        )
    if not start.trained or start.split.n_slices != 1:
        raise SettingsError(
            "pseudo-ct must start from a network for single images, got "
            + (f"one for {start.split.n_slices} slices" if start.trained else "a filter")
        )
    judge, seen = _by_stein(told_noise(noise, series), start.scale), ImageNoise(1, noise, 1.0)
    if models:
        source = EnsembleNoise(tuple(ModelNoise(model.network) for model in models), method.block)
        said = f"Noise is simulated by {len(models)} models of it."
        return method.on(start.network, source, judge), f"{seen.described} {said}"
    said = "There are no models of the noise, so noise is simulated as measured."
    return method.on(start.network, MeasuredNoise(judge), judge), f"{seen.described} {said}"
