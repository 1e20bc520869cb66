"""The public functions: denoise, reconstruct, compare, train, apply, remember.

Settings can be given as an object, as keywords, or as both.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from quietray.assessment.comparison import Comparison
from quietray.assessment.verdict import verdict_of
from quietray.checkpoint import replace_file, write_json
from quietray.clock import waiting_since
from quietray.detector.correction.claims import sound
from quietray.domains import ImageDomain, SeriesDomain, domain_of
from quietray.domains.auto import denoise_scans
from quietray.domains.common import reconstructed_by
from quietray.domains.compare import FEWEST_ROWS, affordable_rows, compared
from quietray.domains.image_methods import NOISE
from quietray.domains.image_models import ImageModel, ModelOnImages, train_on_images
from quietray.domains.models import apply_model, train_model
from quietray.domains.plain import reconstruct_plainly
from quietray.errors import SettingsError
from quietray.handed import handed
from quietray.images import ImageSeries
from quietray.inference.denoiser import Denoiser
from quietray.io import ImagePairs, new_volume, read_images, read_volume
from quietray.io.disk import disk_errors, remove
from quietray.io.lock import alone
from quietray.io.scans.instrument import instrument_of
from quietray.preparation.prepare import chosen_rows, prepare
from quietray.progress import watching
from quietray.registry import called
from quietray.report import Previewed, report_of, write_comparison, write_report
from quietray.result import Result
from quietray.running.device import chosen_devices
from quietray.running.facts import versions
from quietray.running.identity import identity_of
from quietray.running.models import remember as kept_model
from quietray.running.output import Output, noted_start
from quietray.running.places import require_free, require_new
from quietray.running.run import Run
from quietray.running.settings import Auto, Given, Settings, changed
from quietray.running.watch import Watch
from quietray.scan import Scan
from quietray.settings import parse_seconds, write_toml
from quietray.splits import Noise2Inverse
from quietray.training.loop import Fitted, Progress
from quietray.training.start import DEFAULT
from quietray.wording import listed

__all__ = [
    "Settings",
    "apply",
    "compare",
    "denoise",
    "first_start",
    "reconstruct",
    "remember",
    "train",
]

_OF_NETWORKS = {
    "network": "--network",
    "start": "--from",
    "gpus": "--gpus",
    "trust": "--trust",
}  # settings, and how messages name them


def denoise(
    data: Any,
    out: Any = None,
    settings: Any = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    repeats: Sequence[Any] = (),
    series: Sequence[Scan] = (),
    watch: Watch | None = None,
    **changes: Unpack[Given],
) -> Result:
    """Denoise a scan, or a series of images, without clean data.

    Parameters
    ----------
    data
        A scan, images, or the path of either; or projections ``(view, row, col)``, with ``angles=``, ``flats=``,
        ``darks=`` and more as :meth:`quietray.Scan.from_arrays` takes them.
    out
        Output folder; None keeps the result in memory.  If projections are given: their angles.
    settings
        Settings of the run; the defaults if None.  If projections and their angles are given: the output folder.
    resume, overwrite
        Continue an unfinished run in `out`; replace the run in it.
    repeats
        Further measurements of the same object or images, for Noise2Noise.
    series
        Further steps in time, or with ``Noise2Inverse(channels=...)`` further channels.
    watch
        Receives the progress; by default, it is shown in notebooks and terminals, unless ``progress=False``.
    **changes
        Settings by name, such as ``method="noise2self"`` or ``budget="10m"``; see :class:`quietray.Settings`.

    Returns
    -------
    Result
        Result with the denoised ``volume``: ``(z, y, x)``, ``(step or channel, z, y, x)`` for a series, or ``(image,
        row, col)`` for images.

    Raises
    ------
    QuietrayError
        The data, the settings, the memory or the disk do not allow the run; nothing already written is lost.

    Examples
    --------
    >>> import quietray
    >>> result = quietray.denoise("scan.h5", "out/scan", budget="10m")  # doctest: +SKIP
    >>> result = quietray.denoise(projections, angles, flats=flats, budget="10m")  # doctest: +SKIP
    """
    started, watch = waiting_since(), watching(watch, changes.pop("progress", None))
    data, out, settings = handed(data, out, settings, changes)
    if settings is None and "start" not in changes:
        changes["start"] = first_start(out, resume)
    settings, identity = changed(settings, changes), identity_of(data, repeats, series)
    chosen_devices(settings.device or "auto", settings.gpus or 1)  # if they are not there, better to say so now
    with Output(out, settings, identity, settings.format, resume=resume, overwrite=overwrite) as output:
        if watch.previews and output.folder is not None:
            watch = Previewed(watch, output.folder, data)
        run = Run(settings, output, watch, started=started, chosen=settings.method.decides)
        if output.complete:
            return _finished(run, data)
        if unused := _unused(settings):
            watch.note(unused)
        data = _sound(data, run, turning=bool(repeats) or not settings.method.takes_repeats)
        repeats, series = [_sound(one, run) for one in repeats], [_sound(one, run) for one in series]
        if isinstance(data, ImageSeries):
            result = ImageDomain.denoise(run, [data, *repeats])
        elif series or settings.views_per_step:
            if repeats:
                raise SettingsError("repeats and a series must not be given together; denoise the series alone")
            result = SeriesDomain.denoise(run, [data, *series])
        else:
            result = denoise_scans(run, [data, *repeats])
        return _kept(result, data, run, started)


def _unused(settings: Settings) -> str:
    """Return a sentence on what was asked for and concerns only networks, if the method trains none; else nothing."""
    if settings.method.decides or settings.method.trained:
        return ""
    usual = Settings()
    asked = [
        text for name, text in _OF_NETWORKS.items() if getattr(settings, name) not in (getattr(usual, name), DEFAULT)
    ]
    if settings.training != usual.training:
        asked.append("the settings of the training")
    if not asked:
        return ""
    are = "is" if len(asked) == 1 else "are"
    return f"{called(type(settings.method))} trains no network, so {listed(asked)} {are} not used."


def first_start(out: str | Path | None = None, resume: bool = False) -> str | None:
    """Return the default initial weights of a run: the prior, or those of the run that is resumed.

    Examples
    --------
    >>> first_start()
    'default'
    """
    return noted_start(Path(out)) if resume and out is not None else DEFAULT


def remember(result: Result, data: Scan | ImageSeries, name: str | None = None) -> str:
    """Store the model of a result on this machine, to be found by its noise; see `quietray models`.

    Parameters
    ----------
    result
        Result of a run that trained a network.
    data
        Input of the run; its file describes the instrument.
    name
        Name of the stored model; by default that of the scan.

    Returns
    -------
    str
        Name of the stored model.

    Raises
    ------
    QuietrayError
        The result has no model, the name is taken, or the folder cannot be written.
    """
    if not result.denoiser.trained:
        raise SettingsError("a model to be remembered must be a network, got a filter; there is nothing to keep")
    with tempfile.TemporaryDirectory() as folder:
        result.denoiser.save(Path(folder))
        return kept_model(Path(folder), name, instrument_of(str(data.source))).name


def reconstruct(
    scan: Any,
    out: Any = None,
    settings: Any = None,
    *,
    overwrite: bool = False,
    watch: Watch | None = None,
    **changes: Unpack[Given],
) -> Any:
    """Reconstruct a scan without denoising it, slab by slab.

    Parameters
    ----------
    scan
        As for :func:`denoise`: a scan, its path, or projections.
    out
        Path of the volume: a file or a folder, depending on ``settings.format``; None returns an array. If projections
        are given: their angles.
    settings
        ``correction``, ``reconstruction``, ``rows``, ``region``, ``rotation_axis`` and ``max_memory`` are used. If
        iterations or weight of the algorithm are not given, they are chosen on held-out views.
    overwrite
        Replace an existing volume.
    watch
        Receives the progress.
    **changes
        Settings by name, such as ``reconstruction="sirt"``.

    Returns
    -------
    ndarray or Path
        Attenuation ``(z, y, x)`` in 1/mm or 1/pixel; with `out`, the path of the volume.

    Raises
    ------
    QuietrayError
        The scan, the settings, the memory or the disk do not allow it.
    """
    watch = watching(watch, changes.pop("progress", None))
    scan, out, settings = handed(scan, out, settings, changes)
    if not isinstance(scan, Scan):
        raise SettingsError("what is reconstructed must be a scan, got images, which are reconstructed already")
    run, place = Run.in_memory(changed(settings, changes), watch), None if out is None else Path(out)
    settings = run.settings
    with alone(place):
        if place is not None:
            require_new("volume", place, overwrite)
        prepared = prepare(_sound(scan, run), run)
        if place is None:
            return reconstruct_plainly(prepared, run, None)
        facts = {**reconstructed_by(prepared).record()["settings"], "source": scan.source}
        how: dict[str, Any] = {"format": settings.format, "stored": settings.stored, "overwrite": overwrite}
        with new_volume(place, prepared.grid, facts, **how) as writer:
            reconstruct_plainly(prepared, run, writer)
        return place


def compare(
    scan: Any,
    out: Any = None,
    settings: Any = None,
    *,
    overwrite: bool = False,
    watch: Watch | None = None,
    **changes: Unpack[Given],
) -> Comparison:
    """Run every method that the noise allows, and every filter, and rank them without ground truth.

    Every fifth view is held out from all methods, and used to estimate their errors.

    Parameters
    ----------
    scan
        As for :func:`denoise`: a scan, its path, or projections.
    out
        Output folder: ``metrics.json``, ``report.html``, and ``run.toml`` for the best method; None writes nothing.
        If projections are given: their angles.
    settings
        Settings; ``rows`` are compared, by default the number around the middle that :class:`Auto` uses. ``budget`` is
        for the whole comparison.
    overwrite
        Replace a comparison in `out`.
    watch
        Receives the progress.
    **changes
        Settings by name, such as ``budget="20m"``.

    Returns
    -------
    Comparison
        The methods, best first.

    Raises
    ------
    QuietrayError
        The scan is not suitable, or the folder is not empty.
    """
    if settings is None and "start" not in changes:
        changes["start"] = DEFAULT
    started, watch = waiting_since(), watching(watch, changes.pop("progress", None))
    scan, out, settings = handed(scan, out, settings, changes)
    if not isinstance(scan, Scan):
        raise SettingsError("methods must be compared on a scan, got images; name one: denoise(images, method=...)")
    settings = changed(settings, changes)
    folder = None if out is None else Path(out)
    with alone(folder):
        if folder is not None:
            require_free(folder, "output", overwrite)
        run = dataclasses.replace(Run.in_memory(settings, watch), started=started)
        scan, seconds = _sound(scan, run), parse_seconds(settings.budget)
        if settings.rows is not None:
            rows = len(chosen_rows(settings.rows, scan.n_rows))
        else:
            most = settings.method.rows if isinstance(settings.method, Auto) else Auto().rows
            rows = min(scan.n_rows, max(FEWEST_ROWS, affordable_rows(scan, most, seconds)))
            run.watch.note(f"Methods are compared on {rows} of {scan.n_rows} rows; --rows chooses others.")
        found, _ = compared(scan, run, rows, run.left)
        if folder is None:
            return found
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            figures = {"verdict": found.verdict, "comparison": found.record(), "versions": versions()}
            write_json(folder / "metrics.json", figures)
            replace_file(folder / "run.toml", write_toml(found.picked).encode())
            write_comparison(folder / "report.html", found, scan, write_toml(found.picked))
        return found


def train(
    data: Sequence[Scan] | Sequence[ImagePairs],
    out: str | Path,
    settings: Settings | None = None,
    *,
    overwrite: bool = False,
    watch: Watch | None = None,
    **changes: Unpack[Given],
) -> Denoiser:
    """Train one model on several scans, or on the images of several subjects.

    Parameters
    ----------
    data
        Scans of similar objects, measured in a similar way; or pairs of images from :func:`quietray.read_pairs`, one
        for each subject.
    out
        Folder of the model; with ``settings.noise_models``, models of the noise are written to ``noise`` in it.
    settings
        Settings of the run.
    overwrite
        Replace a model in `out`.
    watch
        Receives the progress.
    **changes
        Settings by name, such as ``budget="1h"``.

    Returns
    -------
    Denoiser
        The model, with the noise, its correlation and the voxel size of the training data.

    Raises
    ------
    QuietrayError
        The data or the settings do not allow it.
    """
    watch = watching(watch, changes.pop("progress", None))
    settings, out, started = changed(settings, changes), Path(out), waiting_since()
    chosen_devices(settings.device or "auto", settings.gpus or 1)
    with alone(out):
        require_free(out, "model", overwrite)
        run = dataclasses.replace(Run.in_memory(settings, watch), started=started)
        if all(isinstance(one, ImagePairs) for one in data):
            found = train_on_images([one for one in data if isinstance(one, ImagePairs)], run)
        else:
            found = _trained_on_scans([_sound(one, run) for one in data if isinstance(one, Scan)], run)
        denoiser = found.denoiser
        training = dataclasses.replace(settings.training, steps=found.fitted.history[-1].n_steps)
        resolved = dataclasses.replace(settings, method=denoiser.split, training=training)
        with disk_errors(out):
            for place in (out / NOISE).glob("*/model.json"):  # of the model that is replaced
                remove(place.parent)
            denoiser.save(out)
            for number, model in enumerate(found.noise, 1):
                model.save(out / NOISE / f"{number:03d}")
            replace_file(out / "run.toml", write_toml(resolved).encode())
        return denoiser


def apply(
    model: str | Path,
    data: Any,
    out: Any = None,
    settings: Any = None,
    *,
    strict: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
    **changes: Unpack[Given],
) -> Result:
    """Denoise a scan or images with a trained model, after measuring whether they are similar to its training data.

    An image is returned unchanged if the model would make it worse, as estimated from its noise.

    Parameters
    ----------
    model
        Folder of the model.
    data
        As for :func:`denoise`: a scan, images, the path of either, or projections.
    out
        Output folder; None keeps the result in memory.  If projections are given: their angles.
    settings
        Settings of the run; method and network are those of the model.
    strict
        Refuse data that differ from the training data, instead of warning.
    overwrite
        Replace a run in `out`.
    watch
        Receives the progress.
    **changes
        Settings by name, such as ``rows="100:200"``.

    Returns
    -------
    Result
        As from :func:`denoise`; the measured figures are those of this scan or these images.

    Raises
    ------
    QuietrayError
        The model, the data or the disk do not allow it.
    """
    denoiser, started = Denoiser.load(Path(model)), waiting_since()
    watch = watching(watch, changes.pop("progress", None))
    data, out, settings = handed(data, out, settings, changes)
    settings = dataclasses.replace(changed(settings, changes), method=denoiser.split, start=str(model))
    with Output(out, settings, identity_of(data), settings.format, overwrite=overwrite) as output:
        run = Run(settings, output, watch, started=started)
        denoiser = denoiser.to(run.device)
        if isinstance(data, ImageSeries):
            fitted = Fitted(
                denoiser.network, (), Progress(0, 0, 0.0, 0.0, 0.0, 0.0), "a trained model was applied", 0.0
            )
            result = ModelOnImages.of(run, data, denoiser, strict).apply(denoiser, fitted)
        else:
            scan: Scan = _sound(data, run)
            result, data = apply_model(denoiser, scan, run, strict), scan
        return _kept(result, data, run, started)


def _sound(data: Any, run: Run, *, turning: bool = True) -> Any:
    """Return a scan without frames that fail the checks; other data unchanged."""
    if not isinstance(data, Scan):
        return data
    axis, half = run.settings.rotation_axis, run.settings.half
    data = data if axis is None else data.with_axis(axis)
    data = data if half is None else dataclasses.replace(data, geometry=dataclasses.replace(data.geometry, half=half))
    return sound(data, run.settings.correction, turning=turning)


def _finished(run: Run, data: Scan | ImageSeries) -> Result:
    """Return the result of a run that is already complete."""
    output = run.output
    assert output.folder is not None
    assert output.volume_path is not None
    run.watch.note(f"The run in {output.folder} is complete: there is nothing left to do.")
    if isinstance(data, ImageSeries):
        return Result.load(output.folder, read_images(output.folder / "series").images)
    return Result.load(output.folder, read_volume(output.volume_path))


def _kept(result: Result, data: Scan | ImageSeries, run: Run, started: float) -> Result:
    """Write model, report, figures and settings, if there is a folder; return the result with the run time."""
    verdict = verdict_of(result.metrics, result.warnings, result.notes).record()
    metrics = dataclasses.replace(result.metrics, seconds=time.monotonic() - started, verdict=verdict)
    result, output = dataclasses.replace(result, metrics=metrics), run.output
    if output.folder is None:
        return result
    toml = write_toml(result.settings)
    if metrics.given_back:
        toml = f"# {verdict['kind']}: {verdict['reason']}  This file denoises all the same.\n{toml}"
    with disk_errors(output.folder):
        result.denoiser.save(output.folder / "model")
        replace_file(output.folder / "run.toml", toml.encode())
        write_report(output.folder / "report.html", report_of(result, data, toml))
    output.finish({**metrics.record(), "warnings": list(result.warnings), "notes": list(result.notes)})
    return result


def _trained_on_scans(scans: Sequence[Scan], run: Run) -> ImageModel:
    """Train on scans; filters are returned untrained."""
    if run.settings.method.decides:
        run = run.having(method=Noise2Inverse())
    method = run.settings.method
    if not method.trained:
        raise SettingsError(f"the method to train must be a network's, got the filter {method}; use noise2inverse")
    return ImageModel(*train_model(domain_of(method, 2), scans, run))
