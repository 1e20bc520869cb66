"""The whole story on one page: a noisy scan in, a clean volume out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from quietray.checkpoint import replace_file
from quietray.detector.correct import Correction, RowCounts, calibrate
from quietray.detector.prf import PointResponse
from quietray.diagnose import diagnose
from quietray.errors import GeometryError, NoiseError, ResourceError
from quietray.inference.denoiser import Denoiser, Scale
from quietray.inference.evidence import Evidence, warnings_of
from quietray.inference.learn import Recipe, learn
from quietray.inference.output import Output, Watch
from quietray.inference.prepare import Prepared, chosen_rows, prepare, reconstruct_windows
from quietray.inference.radiographs import DenoisedRadiographs, as_scan, finished_correction, log_radiographs
from quietray.inference.result import Gathered, Result, figures, gather, histogram_edges, peak_memory, versions
from quietray.inference.slabs import PartReconstruction, SlabRecord
from quietray.io import open_volume_writer
from quietray.io.disk import disk_errors, remove
from quietray.networks.unet import UNet
from quietray.reconstruct.analytic import FBP
from quietray.report import report_of, write_report
from quietray.scan import Scan
from quietray.settings import parse_bytes, parse_seconds, write_toml
from quietray.splits import Noise2Inverse, Noise2Self, Noise2Void
from quietray.splits.base import Split
from quietray.training.batches import TrainingVolume
from quietray.training.loop import Fitted, Training
from quietray.types import Parts

__all__ = ["Settings", "denoise", "reconstruct"]


@dataclass(frozen=True)
class Settings:
    """Everything that shapes a run; written to ``run.toml``, and enough to run it again.

    Parameters
    ----------
    method
        ``noise2inverse`` denoises the reconstructed volume, ``noise2self`` and ``noise2void`` the radiographs before
        they are reconstructed; ``auto`` is ``noise2inverse``.
    seed
        Seed of everything random.
    budget
        Time for training and inference together, such as ``4m``.
    max_memory
        What the process may use, such as ``8G``; None is 60 % of the free memory.
    rows
        Detector rows to work on, ``start:stop``; None is all.
    region
        Part of the slices, ``y0:y1,x0:x1``; None is all.
    rotation_axis
        Column of the rotation axis; None finds it.
    symmetries
        Symmetries averaged over at inference, 1, 2, 4 or 8; 0 takes as many as 15 % of the budget allow.
    format
        Format of the volume.
    whiten
        Whether the detector's point response is undone before radiographs are denoised; ``auto`` does so when their
        noise is not white.
    reblur
        Give denoised radiographs the detector's own resolution again.
    correction, reconstruction, noise2inverse, noise2self, noise2void, network, training
        See the classes.
    """

    method: Literal["auto", "noise2inverse", "noise2self", "noise2void"] = "auto"
    seed: int = 0
    budget: str = "4m"
    max_memory: str | None = None
    rows: str | None = None
    region: str | None = None
    rotation_axis: float | None = None
    symmetries: Literal[0, 1, 2, 4, 8] = 0
    format: Literal["zarr", "h5", "tiff"] = "zarr"
    correction: Correction = field(default_factory=Correction)
    reconstruction: FBP = field(default_factory=FBP)
    whiten: Literal["auto", "always", "never"] = "auto"
    reblur: bool = False
    noise2inverse: Noise2Inverse = field(default_factory=Noise2Inverse)
    noise2self: Noise2Self = field(default_factory=Noise2Self)
    noise2void: Noise2Void = field(default_factory=Noise2Void)
    network: UNet = field(default_factory=UNet)
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        parse_seconds(self.budget)
        if self.max_memory is not None:
            parse_bytes(self.max_memory)


def denoise(
    scan: Scan,
    out: str | Path | None = None,
    settings: Settings = Settings(),
    *,
    resume: bool = False,
    overwrite: bool = False,
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
    watch
        Told how the run proceeds.

    Returns
    -------
    Result
        The volume ``(z, y, x)``, the trained denoiser, and what was measured.

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
    domain = _denoise_radiographs if settings.method in ("noise2self", "noise2void") else _denoise_volume
    with Output(out, settings, _identity(scan), settings.format, resume=resume, overwrite=overwrite) as output:
        if output.complete and output.folder is not None and output.volume_path is not None:
            watch.note(f"The run in {output.folder} is complete: there is nothing left to do.")
            return Result.load(output.folder, output.volume_path)
        result = domain(scan, settings, output, watch)
        result.metrics["seconds"] = time.monotonic() - started
        _write(result, scan, settings, output)
        return result


def _denoise_volume(scan: Scan, settings: Settings, output: Output, watch: Watch) -> Result:
    """Reconstruct first: Noise2Inverse."""
    split = _fitting_split(scan, settings)
    prepared = _prepare(scan, settings, split.parts, split.slices, output, watch)
    source = prepared.source(settings.reconstruction, split.parts)
    parts, changed = reconstruct_windows(prepared, source, watch)
    scale = Scale.of(parts.mean(axis=0), prepared.weight)
    data = _training_volume(scale.apply(parts), split, prepared)
    denoiser, fitted = learn(
        data, scale, split, _recipe(settings), prepared.grid.shape, prepared.plan.tile, _facts(prepared), output, watch
    )
    evidence = Evidence.measure(denoiser, data)
    whole = scale.undo(parts) if prepared.plan.in_one_piece else None
    del parts, data

    output.open_volume(prepared.grid, {"source": scan.source, "method": type(split).__name__})
    edges = histogram_edges(scale)
    with watch.stage("denoising", len(prepared.rows)) as advance:
        for first, last in prepared.plan.slabs:
            if not output.done(first - prepared.rows.start, last - prepared.rows.start):
                _denoise_slab(prepared, first, last, source, denoiser, edges, whole, changed, output, advance)

    gathered = gather(output.records(prepared.slabs), edges)
    metrics = figures(evidence, gathered, fitted) | _circumstances(prepared, denoiser)
    return _result(output, denoiser, metrics, prepared.notes, gathered, fitted)


def _denoise_radiographs(scan: Scan, settings: Settings, output: Output, watch: Watch) -> Result:
    """Denoise first: whiten, blind spots in the log domain, then reconstruct."""
    split: Split = settings.noise2void if settings.method == "noise2void" else settings.noise2self
    prepared = _prepare(scan, settings, 1, 1, output, watch)
    response, why = _response_to_undo(prepared, settings.whiten)
    watch.note(why)
    noisy = log_radiographs(prepared, response, output.work and output.work / "radiographs.npy", watch)
    data = TrainingVolume.with_held_out(noisy, 1, np.isfinite(noisy[0, 0]).astype(np.float32))
    images, scale = (scan.n_views, len(prepared.rows), scan.n_cols), Scale(0.0, 1.0)
    denoiser, fitted = learn(
        data, scale, split, _recipe(settings), images, prepared.plan.tile, _facts(prepared), output, watch
    )
    evidence = Evidence.measure(denoiser, data)
    with watch.stage("denoising", scan.n_views) as advance:
        frames = DenoisedRadiographs(noisy, denoiser, advance)
        clean = output.keep_scan("radiographs.h5", as_scan(prepared, frames, response, settings.reblur))

    after = dataclasses.replace(
        prepared, scan=clean, calibration=calibrate(clean, finished_correction(settings.correction))
    )
    sources = prepared.source(settings.reconstruction), after.source(settings.reconstruction)
    output.open_volume(prepared.grid, {"source": scan.source, "method": type(split).__name__})
    edges = None
    with watch.stage("reconstructing", len(prepared.rows)) as advance:
        for (first, last), (z0, z1) in zip(prepared.plan.slabs, prepared.slabs, strict=True):
            before, changed = sources[0](slice(first, last))
            if edges is None:
                edges = histogram_edges(Scale.of(before[0], prepared.weight))
            if not output.done(z0, z1):
                slab = sources[1](slice(z0, z1))[0][0]
                middle, weight = len(prepared.rows) // 2, prepared.weight
                output.write(slab, SlabRecord.of(z0, middle, before[0], slab, weight, edges, changed))
            advance(last - first)
    assert edges is not None
    gathered = gather(output.records(prepared.slabs), edges)
    measured = noisy[0, :: max(1, scan.n_views // 16)]
    span = float(np.subtract(*np.nanpercentile(measured, (99.5, 0.5))))
    metrics = figures(evidence, gathered, fitted, span) | _circumstances(prepared, denoiser)
    return _result(output, denoiser, metrics, (*prepared.notes, why), gathered, fitted)


def _response_to_undo(prepared: Prepared, whiten: str) -> tuple[PointResponse | None, str]:
    """Return the point response to undo before blind spots are used, if any, and why."""
    if whiten == "never":
        return None, "The radiographs were not whitened, as asked."
    found = diagnose(prepared.scan, calibration=prepared.calibration)
    if whiten == "auto" and found.verdict("noise2self").answer == "valid":
        return None, f"The radiographs were not whitened: {found.verdict('noise2self').reason}"
    verdict = found.verdict("noise2self after decorrelation")
    if found.response is None or verdict.answer == "not valid":
        if whiten == "always":
            raise NoiseError(f"the radiographs must have a point response that can be undone: {verdict.reason}")
        return None, f"The radiographs were not whitened, and should not be: {verdict.reason} {verdict.advice}"
    return found.response, f"The radiographs were whitened: {verdict.reason}"


def _result(
    output: Output,
    denoiser: Denoiser,
    metrics: dict[str, Any],
    notes: tuple[str, ...],
    gathered: Gathered,
    fitted: Fitted,
) -> Result:
    volume = output.finish_volume()
    return Result(volume, denoiser, metrics, warnings_of(metrics), notes, gathered, fitted.history, output.folder)


def _recipe(settings: Settings) -> Recipe:
    return Recipe(
        settings.network, settings.training, settings.seed, parse_seconds(settings.budget), settings.symmetries
    )


def _facts(prepared: Prepared) -> dict[str, Any]:
    grid = prepared.grid
    return {"source": str(prepared.scan.source), "unit": grid.unit, "voxel_size_mm": grid.voxel_size}


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
        ``correction``, ``reconstruction``, ``rows``, ``region``, ``rotation_axis`` and ``max_memory`` are used.
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
    prepared = _prepare(scan, settings, 1, 1, Output(None, settings, {}, settings.format), watch)
    source = prepared.source(settings.reconstruction)
    unfinished = out.with_name(f".new-{out.name}")
    with disk_errors(out):
        remove(unfinished)  # a kill may have left it
    writer = open_volume_writer(unfinished, prepared.grid, format=settings.format, extra={"source": scan.source})
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


_FEWEST_VIEWS = 0.2  # in a subset, per detector column


def _fitting_split(scan: Scan, settings: Settings) -> Noise2Inverse:
    """Return the split with no more slices than there are rows, and two subsets where four would be too sparse.

    Streaks of sparse subsets add up to nothing, so that the input's are the negative of the target's.  The network
    learns to turn them round, and the noise of that band with them: on 375 views of 835 columns, air came out with the
    noise of 10 pixels' period inverted (correlation -0.6) until there were two subsets.
    """
    split = settings.noise2inverse
    if split.parts == 4 and scan.n_views < 4 * _FEWEST_VIEWS * scan.n_cols:
        split = dataclasses.replace(split, parts=2)
    n_rows = len(chosen_rows(settings.rows, scan.n_rows))
    if scan.n_views < 2 * split.parts:
        raise GeometryError(
            f"Noise2Inverse with {split.parts} parts must have at least {2 * split.parts} views, got {scan.n_views}; "
            "use fewer parts"
        )
    return dataclasses.replace(split, slices=min(split.slices, n_rows - (n_rows + 1) % 2))


def _identity(scan: Scan) -> dict[str, Any]:
    frames = {"projections": scan.projections, "flats": scan.flats, "darks": scan.darks}
    shapes = {name: None if stack is None else [int(size) for size in stack.shape] for name, stack in frames.items()}
    geometry = {"angles": float(scan.geometry.angles.sum()), "pixel_size": scan.geometry.pixel_size}
    return {"scan": {"source": str(Path(scan.source).absolute()), **shapes, **geometry}}


def _prepare(scan: Scan, settings: Settings, n_parts: int, n_slices: int, output: Output, watch: Watch) -> Prepared:
    return prepare(
        scan,
        correction=settings.correction,
        rows=settings.rows,
        region=settings.region,
        rotation_axis=settings.rotation_axis,
        memory=parse_bytes(settings.max_memory) if settings.max_memory else None,
        n_parts=n_parts,
        n_slices=n_slices,
        output=output,
        watch=watch,
    )


def _training_volume(scaled: Parts, split: Noise2Inverse, prepared: Prepared) -> TrainingVolume:
    """Return what to train on; where rows were left out, only slices with their true neighbours are targets."""
    targets = None
    if not prepared.plan.in_one_piece:
        reach, begin = split.slices // 2, 0
        inner: list[int] = []
        for start, stop in prepared.plan.windows:
            inner += range(begin + reach, begin + stop - start - reach)
            begin += stop - start
        targets = tuple(inner)
    return TrainingVolume.with_held_out(scaled, split.slices, prepared.weight, targets)


def _denoise_slab(
    prepared: Prepared,
    first: int,
    last: int,
    source: PartReconstruction,
    denoiser: Denoiser,
    edges: np.ndarray,
    parts: Parts | None,
    changed: RowCounts,
    output: Output,
    advance: Callable[..., None],
) -> None:
    """Denoise detector rows ``first:last``, from `parts` if they hold the whole volume, else from the file."""
    rows, weight = prepared.rows, prepared.weight  # outside the field of view nothing was learned: zero
    low, high = max(rows.start, first - denoiser.reach), min(rows.stop, last + denoiser.reach)
    if parts is None:
        parts, changed = source(slice(low, high))
    clean = np.empty((last - first, *parts.shape[2:]), np.float32)
    for index in range(last - first):
        clean[index] = denoiser.slice(parts, first - low + index) * weight
        advance(1)
    noisy = parts[:, first - low : last - low].mean(axis=0)
    z0 = first - rows.start
    output.write(clean, SlabRecord.of(z0, len(rows) // 2, noisy, clean, weight, edges, changed))


def _circumstances(prepared: Prepared, denoiser: Denoiser) -> dict[str, Any]:
    """Return the facts of a run that are not about its result."""
    scan, plan, split = prepared.scan, prepared.plan, denoiser.split
    return {
        "log_bias": prepared.log_bias(),
        "scan": {
            "source": str(scan.source),
            "views": scan.n_views,
            "rows": [prepared.rows.start, prepared.rows.stop],
            "columns": scan.n_cols,
            "covered_degrees": float(np.rad2deg(scan.geometry.coverage)),
            "rotation_axis": scan.geometry.axis,
            "unit": prepared.grid.unit,
            "voxel_size_mm": prepared.grid.voxel_size,
        },
        "method": {
            "name": type(split).__name__,
            "slices": split.n_slices,
            "parts": split.n_parts,
            "symmetries": denoiser.symmetries,
            "arithmetic": denoiser.arithmetic,
            "parameters": sum(weight.numel() for weight in denoiser.network.parameters()),
        },
        "memory": {"limit": plan.memory, "planned_peak": plan.peak, "peak": peak_memory(), "slabs": len(plan.slabs)},
        "versions": versions(),
    }


def _write(result: Result, scan: Scan, settings: Settings, output: Output) -> None:
    """Write model, report, figures and the settings with the number of steps that the budget bought."""
    if output.folder is None:
        return
    steps = result.history[-1].n_steps  # as planned: training that stops early does so again
    resolved = dataclasses.replace(
        settings,
        training=dataclasses.replace(settings.training, steps=steps),
        symmetries=result.denoiser.symmetries,
        rotation_axis=result.metrics["scan"]["rotation_axis"],
    )
    with disk_errors(output.folder):
        result.denoiser.save(output.folder / "model")
        replace_file(output.folder / "run.toml", write_toml(resolved).encode())
        write_report(output.folder / "report.html", report_of(result, scan, write_toml(resolved)))
    output.finish({**result.metrics, "warnings": list(result.warnings), "notes": list(result.notes)})
