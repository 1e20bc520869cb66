"""The whole story on one page: a noisy scan in, a clean volume out."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quietray.checkpoint import replace_file, write_json
from quietray.domains.clean import denoise_with_clean
from quietray.domains.common import prepared_for, reconstruction_facts
from quietray.domains.compare import FEWEST_ROWS, Comparison, affordable_rows, compared, recommended_method
from quietray.domains.frames import denoise_frames
from quietray.domains.models import apply_model, train_model
from quietray.domains.projections import denoise_projected
from quietray.domains.radiographs import denoise_radiographs
from quietray.domains.series import denoise_series, series_method
from quietray.domains.volume import denoise_volume
from quietray.errors import NoiseError, ResourceError, SettingsError
from quietray.filters import Filter
from quietray.geometry import ParallelBeam
from quietray.inference.denoiser import Denoiser
from quietray.io import ImageSeries, open_volume_writer, read_volume
from quietray.io.disk import disk_errors, remove
from quietray.preparation.prepare import chosen_rows
from quietray.report import report_of, write_comparison, write_report
from quietray.result import Result
from quietray.running.facts import versions
from quietray.running.output import Output
from quietray.running.settings import Auto, Method, Network, Settings, as_method, of_radiographs
from quietray.running.watch import Watch
from quietray.scan import Scan
from quietray.settings import called, from_dict, parse_seconds, to_dict, write_toml
from quietray.splits import Noise2Clean, Noise2Inverse, Noise2Noise, Noise2Projection

__all__ = ["Settings", "apply", "compare", "denoise", "finish", "reconstruct", "require_free", "train"]


def denoise(
    scan: Scan,
    out: str | Path | None = None,
    settings: Settings = Settings(),
    *,
    resume: bool = False,
    overwrite: bool = False,
    repeats: Sequence[Scan] = (),
    series: Sequence[Scan] = (),
    watch: Watch | None = None,
) -> Result:
    """Denoise a scan without clean data.

    Calibrate, find the axis.  Then either reconstruct angular subsets, train one against the others and denoise the
    volume slab by slab; or whiten the radiographs, train blind spots, denoise them and reconstruct.  Judge on what was
    held out.

    Parameters
    ----------
    scan
        From :func:`quietray.read`.
    out
        Output folder; None keeps the volume in memory.
    settings
        Of the whole run.
    resume
        Go on with an unfinished run in `out`.
    overwrite
        Replace a run in `out`.
    repeats
        Further scans of the same object, for Noise2Noise.
    series
        Its further steps in time, or with ``Noise2Inverse(channels=...)`` its further channels.
    watch
        Told how the run proceeds.

    Returns
    -------
    Result
        The volume ``(z, y, x)``, of a series ``(step or channel, z, y, x)``, the trained denoiser, and what was
        measured.

    Raises
    ------
    QuietrayError
        The scan, the settings, the memory or the disk do not allow the run; nothing already written is lost.

    Examples
    --------
    >>> import quietray
    >>> scan = quietray.read("scan.h5")  # doctest: +SKIP
    >>> result = quietray.denoise(scan, "out/scan")  # doctest: +SKIP
    """
    watch, started = watch or Watch(), time.monotonic()
    identity = _identity(scan) | ({"series": [_identity(other)["scan"] for other in series]} if series else {})
    with Output(out, settings, identity, settings.format, resume=resume, overwrite=overwrite) as output:
        if output.complete and output.folder is not None and output.volume_path is not None:
            watch.note(f"The run in {output.folder} is complete: there is nothing left to do.")
            return Result.load(output.folder, read_volume(output.volume_path))
        if series or settings.views_per_step:
            if repeats:
                raise SettingsError("repeats and a series must not be given together; denoise the series alone")
            method = series_method(settings, 1 + len(series))
            settings = dataclasses.replace(settings, method=method)
            result = denoise_series([scan, *series], settings, output, watch)
        else:
            result, settings = _denoised([scan, *repeats], settings, output, watch)
        result.metrics["seconds"] = time.monotonic() - started
        finish(result, scan, settings, output)
        return result


def reconstruct(
    scan: Scan, out: str | Path, settings: Settings = Settings(), *, overwrite: bool = False, watch: Watch | None = None
) -> Path:
    """Reconstruct a scan as it is, slab by slab, into a volume on disk.

    Parameters
    ----------
    scan
        From :func:`quietray.read`.
    out
        The volume: ``.zarr``, ``.h5``, or a folder of TIFF slices, after ``settings.format``.
    settings
        ``correction``, ``reconstruction``, ``rows``, ``region``, ``rotation_axis`` and ``max_memory`` are used.  What
        the algorithm leaves to be chosen, its iterations or its weight, is chosen on held-out views.
    overwrite
        Replace a volume of that name.
    watch
        Told how the run proceeds.

    Returns
    -------
    Path
        The volume.

    Raises
    ------
    QuietrayError
        The scan, the settings, the memory or the disk do not allow it.
    """
    watch, out = watch or Watch(), Path(out)
    if out.exists() and not overwrite:
        raise ResourceError(f"the volume {out} must not exist yet; give another name, or replace it with --overwrite")
    prepared = prepared_for(scan, settings, 1, 1, Output(None, settings, {}, settings.format), watch)
    source, facts = prepared.source(), reconstruction_facts(prepared)["reconstruction"]["settings"]
    unfinished = out.with_name(f".new-{out.name}")
    with disk_errors(out):
        remove(unfinished)  # a kill may have left it
    facts["source"] = scan.source
    writer = open_volume_writer(unfinished, prepared.grid, format=settings.format, extra=facts)
    try:
        with writer, watch.stage("reconstructing", len(prepared.rows)) as advance:
            for (first, last), (z0, _) in zip(prepared.plan.slabs, prepared.slabs, strict=True):
                slab = np.empty((1, last - first, *prepared.grid.shape[1:]), np.float32)
                source.into(slab, slice(first, last), advance)
                writer.write(z0, slab[0])
            writer.finish()
        with disk_errors(out):
            remove(out)
            unfinished.rename(out)
    finally:
        remove(writer.place)
    return out


def compare(
    scan: Scan,
    out: str | Path,
    settings: Settings = Settings(),
    *,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Comparison:
    """Run every method that the noise allows, and every filter, and rank them without ground truth.

    Every fifth view is held out from all of them and judges them all.

    Parameters
    ----------
    scan
        From :func:`quietray.read`.
    out
        Output folder: ``metrics.json``, ``report.html``, and ``run.toml`` for the method that did best.
    settings
        ``rows`` are compared, or as many around the middle as :class:`Auto` says; ``budget`` is for everything.
    overwrite
        Replace a comparison in `out`.
    watch
        Told how the run proceeds.

    Returns
    -------
    Comparison
        The methods, best first.

    Raises
    ------
    QuietrayError
        The scan does not allow it, or the folder holds something already.
    """
    watch, out = watch or Watch(), Path(out)
    require_free(out, "output", overwrite)
    rows = settings.method.rows if isinstance(settings.method, Auto) else Auto().rows
    if settings.rows is not None:
        rows = len(chosen_rows(settings.rows, scan.n_rows))
    found = compared(scan, settings, rows, parse_seconds(settings.budget), watch)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "metrics.json", {"comparison": found.record(), "versions": versions()})
        replace_file(out / "run.toml", write_toml(found.picked).encode())
        write_comparison(out / "report.html", found, scan, write_toml(found.picked))
    return found


def train(
    scans: Sequence[Scan],
    out: str | Path,
    settings: Settings = Settings(),
    *,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Denoiser:
    """Train one model on several scans.

    Parameters
    ----------
    scans
        Alike in what they show and how they were measured.
    out
        Folder of the model.
    settings
        Of the whole run.
    overwrite
        Replace a model in `out`.
    watch
        Told how the run proceeds.

    Returns
    -------
    Denoiser
        The model, which knows the noise, its correlation and the voxel size of its scans.

    Raises
    ------
    QuietrayError
        The scans or the settings do not allow it.
    """
    out = Path(out)
    require_free(out, "model", overwrite)
    denoiser, fitted = train_model(scans, settings, watch or Watch())
    training = dataclasses.replace(settings.training, steps=fitted.history[-1].n_steps)
    with disk_errors(out):
        denoiser.save(out)
        resolved = dataclasses.replace(settings, method=as_method(denoiser.split), training=training)
        replace_file(out / "run.toml", write_toml(resolved).encode())
    return denoiser


def apply(
    model: str | Path,
    scan: Scan,
    out: str | Path | None = None,
    settings: Settings = Settings(),
    *,
    strict: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Result:
    """Denoise a scan with a trained model, after measuring whether it is one that the model knows.

    Parameters
    ----------
    model
        Folder of the model.
    scan
        From :func:`quietray.read`.
    out
        Output folder; None keeps the volume in memory.
    settings
        Of the run; its method and network are the model's.
    strict
        Refuse a scan that is unlike those that the model was trained on, instead of warning.
    overwrite
        Replace a run in `out`.
    watch
        Told how the run proceeds.

    Returns
    -------
    Result
        The volume, and what was measured on slices of this scan.

    Raises
    ------
    QuietrayError
        The model, the scan or the disk do not allow it.
    """
    denoiser, started = Denoiser.load(Path(model)), time.monotonic()
    settings = dataclasses.replace(settings, method=as_method(denoiser.split), start=str(model))
    with Output(out, settings, _identity(scan), settings.format, overwrite=overwrite) as output:
        result = apply_model(denoiser, scan, settings, output, watch or Watch(), strict)
        result.metrics["seconds"] = time.monotonic() - started
        finish(result, scan, settings, output)
        return result


def finish(result: Result, scan: Scan | ImageSeries, settings: Settings, output: Output) -> None:
    """Write model, report, figures and the settings with the number of steps that the budget bought.

    Parameters
    ----------
    result
        Of the run.
    scan
        What was denoised.
    settings
        Of the run.
    output
        Its folder, if it has one.
    """
    if output.folder is None:
        return
    training, method, network = settings.training, settings.method, settings.network
    if result.history:  # steps as planned: training that stops early does so again
        training = dataclasses.replace(training, steps=result.history[-1].n_steps)
    if isinstance(result.denoiser.architecture, Filter):
        method = as_method(result.denoiser.architecture)
    if isinstance(result.denoiser.architecture, Network):  # that of the model, where one was applied or fine-tuned
        network = result.denoiser.architecture
    reconstruction = settings.reconstruction
    if "reconstruction" in result.metrics:  # with what held-out views chose of it
        table = {"reconstruction": result.metrics["reconstruction"]["settings"]}
        reconstruction = from_dict(Settings, table).reconstruction
    resolved = dataclasses.replace(
        settings,
        method=method,
        training=training,
        network=network,
        reconstruction=reconstruction,
        symmetries=result.denoiser.symmetries,
        rotation_axis=result.metrics["scan"].get("rotation_axis"),
    )
    with disk_errors(output.folder):
        result.denoiser.save(output.folder / "model")
        replace_file(output.folder / "run.toml", write_toml(resolved).encode())
        write_report(output.folder / "report.html", report_of(result, scan, write_toml(resolved)))
    output.finish({**result.metrics, "warnings": list(result.warnings), "notes": list(result.notes)})


def require_free(out: Path, what: str, overwrite: bool) -> None:
    """Raise unless a folder can be written and nothing would be written over.

    Raises
    ------
    ResourceError
        It cannot, or there is something in the folder.
    """
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ResourceError(f"the {what} folder {out} must be a folder that can be written, got {there}; give another")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise ResourceError(
            f"the {what} folder {out} must be empty; give another folder, or replace it with --overwrite"
        )


def _denoised(scans: Sequence[Scan], settings: Settings, output: Output, watch: Watch) -> tuple[Result, Settings]:
    """Run the method in its domain, decided upon first where that is left to the scan; return what was run, too."""
    method = settings.method
    parallel = isinstance(scans[0].geometry, ParallelBeam)
    if isinstance(method, Auto) and settings.correction.line_integrals and len(scans) == 1 and parallel:
        watch.note("Noise2Inverse was taken: of line integrals no noise can be measured that would rule it out.")
        return _denoised(scans, dataclasses.replace(settings, method=Noise2Inverse()), output, watch)
    if isinstance(method, Auto):
        return _decided(scans, settings, method, output, watch)
    if settings.clean and not isinstance(method, Noise2Clean):
        raise SettingsError(f"a clean volume must go with noise2clean, got {called(type(method))}; leave --clean out")
    run = _of_one_scan(method)
    if settings.trust and (run is not None or isinstance(method, Filter)):
        watch.note(f"No map of the error was made: {called(type(method))} has none.")
    if run is not None:
        if len(scans) > 1:
            raise SettingsError(f"{called(type(method))} must have one scan, got {len(scans)}; use noise2noise")
        return run(scans[0], settings, output, watch), settings
    if isinstance(method, Noise2Noise) and len(scans) == 1:
        return denoise_frames(scans[0], settings, output, watch), settings
    return denoise_volume(scans, settings, output, watch), settings


def _of_one_scan(method: Method) -> Callable[[Scan, Settings, Output, Watch], Result] | None:
    """Return what runs a method that takes no more than one scan; None for the others."""
    if isinstance(method, Noise2Clean):
        return denoise_with_clean
    if isinstance(method, Noise2Projection):
        return denoise_projected
    return denoise_radiographs if of_radiographs(method) else None


def _decided(
    scans: Sequence[Scan], settings: Settings, auto: Auto, output: Output, watch: Watch
) -> tuple[Result, Settings]:
    """Compare on a part of the rows, then give the rest of the budget to the method that was picked."""
    budget, started = parse_seconds(settings.budget), time.monotonic()
    if len(scans) > 1:  # measured more than once: nothing else has as much to learn from
        return _denoised(scans, dataclasses.replace(settings, method=Noise2Noise()), output, watch)

    rows = affordable_rows(scans[0], auto.rows, auto.share * budget)
    parallel = isinstance(scans[0].geometry, ParallelBeam)
    if rows < FEWEST_ROWS or not settings.reconstruction.linear or not parallel:
        method, why = recommended_method(scans[0], settings)
        watch.note(why)
        picked = dataclasses.replace(settings, method=method)
        result, _ = _denoised(scans, picked, output, watch)
        return dataclasses.replace(result, notes=(*result.notes, why)), picked

    def choose() -> dict[str, Any]:
        found = compared(scans[0], settings, rows, auto.share * budget, watch)
        picked, rival = found.to_learn()
        return {
            "settings": to_dict(picked),
            "rival": rival and to_dict(rival),
            "comparison": found.record(),
            "seconds": time.monotonic() - started,
        }

    try:
        kept = output.decide("comparison", choose)
    except NoiseError as error:
        watch.note(f"The methods could not be compared, so that Noise2Inverse was taken: {error}")
        return _denoised(scans, dataclasses.replace(settings, method=Noise2Inverse()), output, watch)
    left = max(0.3 * budget, budget - kept["seconds"])
    picked = dataclasses.replace(from_dict(Settings, kept["settings"]), budget=f"{left:.3f}s")
    watch.note(kept["comparison"]["why"])
    if kept["rival"]:
        rival = from_dict(Settings, kept["rival"]).method
        assert isinstance(rival, Filter)
        result = denoise_volume(scans, picked, output, watch, rival)
    else:
        result, _ = _denoised(scans, picked, output, watch)
    result.metrics["comparison"] = kept["comparison"]
    return dataclasses.replace(result, notes=(*result.notes, kept["comparison"]["why"])), picked


def _identity(scan: Scan) -> dict[str, Any]:
    frames = {"projections": scan.projections, "flats": scan.flats, "darks": scan.darks}
    shapes = {name: None if stack is None else [int(size) for size in stack.shape] for name, stack in frames.items()}
    geometry = {"angles": float(scan.geometry.angles.sum()), "pixel_size": scan.geometry.pixel_size}
    return {"scan": {"source": str(Path(scan.source).absolute()), **shapes, **geometry}}
