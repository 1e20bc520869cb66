"""The same story for images that nothing is reconstructed from: denoise them, train on them, apply a model to them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quietray.checkpoint import replace_file
from quietray.domains.image_methods import NOISE
from quietray.domains.image_models import apply_to_images, train_on_images
from quietray.domains.images import denoise_images as run_on_images
from quietray.inference.denoiser import Denoiser
from quietray.io import ImagePairs, ImageSeries, read_images
from quietray.io.disk import disk_errors, remove
from quietray.result import Result
from quietray.running.output import Output
from quietray.running.settings import Settings, as_method
from quietray.running.watch import Watch
from quietray.settings import write_toml
from quietray.workflows import finish, require_free

__all__ = ["apply_images", "denoise_images", "train_images"]


def denoise_images(
    series: ImageSeries,
    out: str | Path | None = None,
    settings: Settings = Settings(),
    *,
    resume: bool = False,
    overwrite: bool = False,
    repeats: Sequence[ImageSeries] = (),
    watch: Watch | None = None,
) -> Result:
    """Denoise images that nothing is reconstructed from, such as CT slices, without clean data.

    Parameters
    ----------
    series
        From :func:`quietray.read_images`.
    out
        Output folder, with the images in the format that they were read in, in ``series``; None keeps them in memory.
    settings
        Of the run.  ``method``, ``network``, ``training``, ``budget``, ``seed``, ``symmetries`` and ``start`` are used.
    resume, overwrite
        As in :func:`denoise`.
    repeats
        Further measurements of the same images, for Noise2Noise.
    watch
        Told how the run proceeds.

    Returns
    -------
    Result
        The images ``(image, row, col)`` as its volume, the denoiser, and what was measured.

    Raises
    ------
    QuietrayError
        The images, the settings or the disk do not allow the run.

    Examples
    --------
    >>> import quietray
    >>> series = quietray.read_images("slices/")  # doctest: +SKIP
    >>> result = quietray.denoise_images(series, "out/slices")  # doctest: +SKIP
    """
    watch, started = watch or Watch(), time.monotonic()
    identity = {"images": [_identity(one) for one in (series, *repeats)]}
    with Output(out, settings, identity, settings.format, resume=resume, overwrite=overwrite) as output:
        if output.complete and output.folder is not None:
            watch.note(f"The run in {output.folder} is complete: there is nothing left to do.")
            return Result.load(output.folder, read_images(output.folder / "series").images)
        result = run_on_images([series, *repeats], settings, output, watch)
        result.metrics["seconds"] = time.monotonic() - started
        finish(result, series, settings, output)
        return result


def train_images(
    pairs: Sequence[ImagePairs],
    out: str | Path,
    settings: Settings = Settings(),
    *,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Denoiser:
    """Train one model on the images of one subject or several.

    Parameters
    ----------
    pairs
        From :func:`quietray.read_pairs`, one for each subject.
    out
        Folder of the model; models of the noise, with ``settings.noise_models``, go into ``noise`` in it.
    settings
        Of the run.
    overwrite
        Replace a model in `out`.
    watch
        Told how the run proceeds.

    Returns
    -------
    Denoiser
        The model, which knows the noise, its correlation and the pixel size of its images.

    Raises
    ------
    QuietrayError
        The images or the settings do not allow it.

    Examples
    --------
    >>> import quietray
    >>> pairs = quietray.read_pairs("pairs/")  # doctest: +SKIP
    >>> model = quietray.train_images([pairs], "model/")  # doctest: +SKIP
    """
    out = Path(out)
    require_free(out, "model", overwrite)
    found = train_on_images(pairs, settings, watch or Watch())
    training = dataclasses.replace(settings.training, steps=found.fitted.history[-1].n_steps)
    with disk_errors(out):
        for place in (out / NOISE).glob("*/model.json"):  # of a model that is replaced
            remove(place.parent)
        found.denoiser.save(out)
        for number, model in enumerate(found.noise, 1):
            model.save(out / NOISE / f"{number:03d}")
        resolved = dataclasses.replace(settings, method=as_method(found.denoiser.split), training=training)
        replace_file(out / "run.toml", write_toml(resolved).encode())
    return found.denoiser


def apply_images(
    model: str | Path,
    series: ImageSeries,
    out: str | Path | None = None,
    settings: Settings = Settings(),
    *,
    strict: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Result:
    """Denoise images with a trained model, unless it would make them worse.

    Parameters
    ----------
    model
        Folder of the model.
    series
        From :func:`quietray.read_images`.
    out
        Output folder; None keeps the images in memory.
    settings
        Of the run; its method and network are the model's.
    strict
        Refuse images that are unlike those that the model was trained on, instead of warning.
    overwrite
        Replace a run in `out`.
    watch
        Told how the run proceeds.

    Returns
    -------
    Result
        The images ``(image, row, col)`` as its volume, and what was measured on them.

    Raises
    ------
    QuietrayError
        The model, the images or the disk do not allow it.
    """
    denoiser, started = Denoiser.load(Path(model)), time.monotonic()
    settings = dataclasses.replace(settings, method=as_method(denoiser.split), start=str(model))
    with Output(out, settings, {"images": [_identity(series)]}, settings.format, overwrite=overwrite) as output:
        result = apply_to_images(denoiser, series, settings, output, watch or Watch(), strict)
        result.metrics["seconds"] = time.monotonic() - started
        finish(result, series, settings, output)
        return result


def _identity(series: ImageSeries) -> dict[str, Any]:
    total = float(series.images.sum(dtype=np.float64))
    return {"source": str(Path(series.source).absolute()), "shape": list(series.images.shape), "sum": total}
