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
from quietray.pictures import shrink
from quietray.running.settings import Method
from quietray.splits import Noise2Noise, Noise2Self, PseudoCT
from quietray.splits.base import ImageNoise, Split
from quietray.splits.pseudo import EnsembleNoise, MeasuredNoise, ModelNoise
from quietray.splits.recorrupted import Recorrupted
from quietray.splits.served import WINDOW

__all__ = [
    "FINE_TUNING",
    "NOISE",
    "as_volume",
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
_ALIKE = 0.5  # correlation of neighbouring images, beyond their noise, above which they show one object
_BLOCK = 8  # in pixels


def as_volume(series: ImageSeries, method: Method) -> tuple[int, str]:
    """Return the largest number of neighbouring slices, odd, or 1 if the images are unrelated; and what was decided.

    Parameters
    ----------
    series
        The images.
    method
        Method of the run; if it is to see several slices, the images are taken as such.

    Examples
    --------
    >>> import numpy as np
    >>> from quietray.splits import Noise2Void
    >>> pictures = ImageSeries(np.zeros((4, 8, 8), np.float32), None, "here")
    >>> as_volume(pictures, Noise2Void())[0], as_volume(pictures, Noise2Void(slices=5))[0]
    (1, 3)
    """
    most, asked = series.n_images - (series.n_images + 1) % 2, getattr(method, "slices", None)
    if not method.trained or most == 1:
        return 1, ""
    if series.step is not None:
        return most, ""
    if asked is not None:
        return (most, "The images were treated as slices of one volume, as requested.") if asked > 1 else (1, "")
    if series.numbered and _alike(series):
        return most, (
            "The images were treated as slices of one volume: they are numbered, and neighbouring ones are alike. With "
            "slices = 1, each is denoised by itself."
        )
    return 1, f"The images were treated as unrelated. If they are slices of one volume, set slices = {WINDOW}."


def _alike(series: ImageSeries) -> bool:
    """Return whether neighbouring images show the same, from the means of blocks, which hold little noise."""
    means = []
    for z in range(0, series.n_images - 1, -(-series.n_images // 8)):
        one, other = (shrink(np.asarray(series.images[k], np.float64), _BLOCK) for k in (z, z + 1))
        if one.std() > 0 and other.std() > 0:
            means.append(float(np.mean((one - one.mean()) * (other - other.mean())) / (one.std() * other.std())))
    return bool(means) and float(np.median(means)) > _ALIKE


def noise_of(stacks: Sequence[ImageSeries], stack: bool = False) -> FlatNoise | None:
    """Measure the noise of a series, from the difference of two measurements or from uniform regions of one.

    Between slices it is measured if the images are a `stack` of them.
    """
    series = stacks[0]
    if len(stacks) > 1:
        return repeated_noise(series.images, stacks[1].images, series.weight)
    return flat_noise(series.images, series.weight, stack)


def image_split(
    method: Method, n_measured: int, noise: FlatNoise | None, scale: Scale, slices: int = 1
) -> tuple[Split, str]:
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
    slices
        Largest number of neighbouring slices, if the images are slices of one volume.

    Raises
    ------
    SettingsError
        The method needs projections, or repeated measurements.
    """
    seen = ImageNoise(n_measured, noise, scale.high - scale.low, slices if method.trained else 1)
    if isinstance(method, Split):
        return method.on_images(seen)
    if n_measured > 1:
        return Noise2Noise().on_images(seen)
    if noise is None or noise.reach == 0:
        window, told = seen.window(None, alone=True)
        said = "It was assumed to be white." if noise is None else "The error is estimated from hidden pixels."
        return Noise2Self(slices=window), f"{seen.described} {said} {told}".strip()
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
        noise = FlatNoise(np.ones((1, 1)), sd, int(np.prod(series.images.shape)), "the quietest blocks")
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
    return split if split.judged_by == "hidden pixels" else _by_stein(noise, scale, split.n_slices)


def _by_stein(noise: FlatNoise, scale: Scale, slices: int | None = None) -> Recorrupted:
    return Recorrupted(slices=slices).measured(ImageNoise(1, noise, scale.high - scale.low).covariance)


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
