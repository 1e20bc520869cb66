"""Which split serves a method on images, what judges it, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from quietray.detector.noise.calm import FlatNoise, flat_noise, repeated_noise
from quietray.detector.noise.lags import Lags
from quietray.errors import NoiseError, SettingsError
from quietray.filters import Filter
from quietray.images import ImageSeries
from quietray.inference.denoiser import Denoiser, Scale
from quietray.inference.guard import quiet_noise
from quietray.running.settings import Auto, Method
from quietray.settings import called
from quietray.splits import Noise2Noise, Noise2Projection, Noise2Self, Noisier2Noise, PseudoCT
from quietray.splits.base import Split
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

FINE_TUNING = 1e-4  # learning rate of a network that is trained already, at most
NOISE = "noise"  # folder of a model's own models of the noise


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
            "noise2noise must have two or more measurements of the same images, got one; give the others (--repeats, "
            "or 'noisy2' in a folder of pairs), or use noise2void or noise2self"
        )
    if of_any or isinstance(method, Recorrupted):
        return _for_one(method, noise, scale)
    of_one = isinstance(method, Split) and not isinstance(method, Noise2Projection) and method.n_parts == 1
    if not isinstance(method, Split) or not of_one or method.n_clean:
        raise SettingsError(
            f"the method must be one for images, got {name}, which needs projections or clean images; use noise2void, "
            "noise2self, noisier2noise, apbsn or recorrupted, or noise2noise with further measurements"
        )
    if isinstance(method, Noisier2Noise) and noise is not None and method.poisson + method.gaussian == 0:
        variance = (noise.sd / (scale.high - scale.low)) ** 2
        return dataclasses.replace(method, gaussian=variance), f"The noise was measured in {noise.source}."
    return method, _correlated(noise)


def told_noise(noise: FlatNoise | None, series: ImageSeries) -> FlatNoise:
    """Return the noise that was measured; where its correlation cannot be read, white noise of the quietest blocks.

    Raises
    ------
    NoiseError
        The images are too small to tell their noise, or there is none.
    """
    if noise is None:
        sd = float(np.median([quiet_noise(image) for image in series.images[:: -(-series.n_images // 12)]]))
        noise = FlatNoise(np.ones((1, 1)), sd, series.images.size, "the quietest blocks")
    if not noise.sd > 0:
        raise NoiseError(f"the images must hold noise, got none in {series.source}; there is nothing to denoise")
    return noise


def together(noises: Sequence[FlatNoise | None]) -> FlatNoise | None:
    """Return what several subjects' noise is on average; None where that of none could be measured."""
    known = [noise for noise in noises if noise is not None]
    if not known:
        return None
    lags = np.mean([noise.lags for noise in known], axis=0)
    sd = float(np.sqrt(np.mean([noise.sd**2 for noise in known])))
    return FlatNoise(lags, sd, sum(noise.pixels for noise in known), known[0].source)


def judge_of(split: Split, noise: FlatNoise, scale: Scale) -> Split:
    """Return what judges a trained network on one measurement of images that it was not trained on.

    A method of one measurement judges itself; for the others Stein's estimate does, with the measured noise.
    """
    if split.n_parts == 1 and not isinstance(split, (PseudoCT, Recorrupted)):
        return split
    return Recorrupted().measured(_covariance(noise, scale))


def scale_of_model(model: Denoiser, series: ImageSeries) -> Scale:
    """Return the scale that a trained model sees images in.

    Raises
    ------
    SettingsError
        It is not one of images, or of images in another unit.
    """
    if model.facts.get("domain") != "images" or model.facts.get("unit") != series.unit:
        known = f"one of {model.facts.get('domain') or 'scans'} in {model.facts.get('unit') or 'an unknown unit'}"
        raise SettingsError(
            f"the model must have been trained on images in {series.unit}, as those in {series.source}, got {known}; "
            "train one with `quietray train` on such images"
        )
    return model.scale


def noise_models(folder: str | None) -> list[Denoiser]:
    """Return the models of the noise that were trained with a model; none where there are none."""
    places = sorted((Path(folder) / NOISE).glob("*/model.json")) if folder else []
    return [Denoiser.load(place.parent) for place in places]


def pseudo_ct(
    method: PseudoCT, start: Denoiser | None, models: Sequence[Denoiser], noise: FlatNoise | None, series: ImageSeries
) -> tuple[PseudoCT, str]:
    """Bind the method to what it starts from: a trained network, and models of the noise if it has any.

    Raises
    ------
    SettingsError
        There is no such network, or it is a filter, or sees several slices.
    NoiseError
        The images are too small to tell their noise, or there is none.
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
    judge = judge_of(method, told_noise(noise, series), start.scale)
    assert isinstance(judge, Recorrupted)
    if models:
        source = EnsembleNoise(tuple(ModelNoise(model.network) for model in models), method.block)
        said = f"It is drawn from {len(models)} models of it."
        return method.on(start.network, source, judge), f"{_correlated(noise)} {said}"
    said = "The model has no models of the noise, so that noise is drawn as it was measured."
    return method.on(start.network, MeasuredNoise(judge), judge), f"{_correlated(noise)} {said}"


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
    return split.measured(
        _covariance(noise, scale)
    ), f"{_correlated(noise)} Stein's estimate judges, with that correlation."


def _covariance(noise: FlatNoise, scale: Scale) -> Lags:
    """Return the auto-covariance of noise in a scale."""
    return np.asarray(noise.lags * (noise.sd / (scale.high - scale.low)) ** 2)


def _correlated(noise: FlatNoise | None) -> str:
    if noise is None:
        return "The images have too few calm parts to tell the correlation of their noise."
    kind = "white" if noise.reach == 0 else f"shared up to {noise.reach} pixels away"
    return f"The noise of neighbouring pixels correlates by {noise.neighbours:+.2f} (in {noise.source}): it is {kind}."
