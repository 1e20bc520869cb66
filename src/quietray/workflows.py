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
from quietray.detector.correct import Correction, RowCounts
from quietray.errors import GeometryError, ResourceError
from quietray.inference.denoiser import Denoiser, Scale
from quietray.inference.evidence import Evidence, warnings_of
from quietray.inference.output import Output, Watch
from quietray.inference.prepare import Prepared, chosen_rows, prepare, reconstruct_windows
from quietray.inference.result import Result, figures, gather, histogram_edges, peak_memory, versions
from quietray.inference.slabs import PartReconstruction, SlabRecord
from quietray.io import open_volume_writer
from quietray.io.disk import disk_errors, remove
from quietray.networks.unet import UNet
from quietray.reconstruct.analytic import FBP
from quietray.report import report_of, write_report
from quietray.scan import Scan
from quietray.settings import parse_bytes, parse_seconds, write_toml
from quietray.splits.inverse import Noise2Inverse
from quietray.training.batches import TrainingVolume
from quietray.training.loop import Fitted, Progress, Training, fit, precision
from quietray.types import Parts

__all__ = ["Settings", "denoise", "reconstruct"]


@dataclass(frozen=True)
class Settings:
    """Everything that shapes a run; written to ``run.toml``, and enough to run it again.

    Parameters
    ----------
    method
        ``noise2inverse``; ``auto`` chooses among the methods there are.
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
    correction, reconstruction, noise2inverse, network, training
        See the classes.
    """

    method: Literal["auto", "noise2inverse"] = "auto"
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
    noise2inverse: Noise2Inverse = field(default_factory=Noise2Inverse)
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

    Calibrate, find the axis, reconstruct angular subsets, train one against the others, judge on rows that were held
    out, denoise slab by slab.

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
    split = _fitting_split(scan, settings)
    with Output(out, settings, _identity(scan), settings.format, resume=resume, overwrite=overwrite) as output:
        if output.complete and output.folder is not None and output.volume_path is not None:
            watch.note(f"The run in {output.folder} is complete: there is nothing left to do.")
            return Result.load(output.folder, output.volume_path)
        prepared = _prepare(scan, settings, split.parts, split.slices, output, watch)
        source = prepared.source(settings.reconstruction, split.parts)
        parts, changed = reconstruct_windows(prepared, source, watch)
        scale = Scale.of(parts.mean(axis=0), prepared.weight)
        data = _training_volume(scale.apply(parts), split, prepared)
        denoiser, fitted = _train(data, scale, split, settings, prepared, output, watch)
        evidence = Evidence.measure(denoiser, data)
        whole = scale.undo(parts) if prepared.plan.in_one_piece else None
        del parts, data

        output.open_volume(prepared.grid, {"source": scan.source, "method": type(split).__name__})
        edges = histogram_edges(denoiser)
        with watch.stage("denoising", len(prepared.rows)) as advance:
            for first, last in prepared.plan.slabs:
                if not output.done(first - prepared.rows.start, last - prepared.rows.start):
                    _denoise_slab(prepared, first, last, source, denoiser, edges, whole, changed, output, advance)

        gathered = gather(output.records(prepared.slabs), edges)
        volume = output.finish_volume()
        metrics = figures(evidence, gathered, fitted) | _circumstances(prepared, denoiser, started)
        result = Result(
            volume,
            denoiser,
            metrics,
            warnings_of(metrics),
            prepared.notes,
            gathered,
            fitted.history,
            output.folder,
        )
        _write(result, scan, settings, output)
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


def _fitting_split(scan: Scan, settings: Settings) -> Noise2Inverse:
    """Return the split with no more slices than there are rows."""
    split = settings.noise2inverse
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


def _train(
    data: TrainingVolume,
    scale: Scale,
    split: Noise2Inverse,
    settings: Settings,
    prepared: Prepared,
    output: Output,
    watch: Watch,
) -> tuple[Denoiser, Fitted]:
    """Train within the budget, leaving time for inference; small slices make larger batches."""
    size = min(settings.training.patch, *prepared.grid.shape[1:])
    enlarged = min(8, max(1, settings.training.patch**2 // size**2))
    training = dataclasses.replace(settings.training, batch=settings.training.batch * enlarged)
    budget = parse_seconds(settings.budget)

    def inference(per_step: float) -> float:
        """Return the seconds that one pass over the volume takes: a training step costs about three passes."""
        passes = split.parts * prepared.grid.shape[0] * prepared.grid.n_pixels / (training.batch * size**2)
        return passes * per_step / 3

    def symmetries(per_step: float) -> Literal[1, 2, 4, 8]:
        if settings.symmetries:
            return settings.symmetries
        choices: tuple[Literal[1, 2, 4, 8], ...] = (8, 4, 2)
        return next((n for n in choices if n * inference(per_step) <= 0.15 * budget), 1)

    kept = "What was learned so far is kept; go on with --resume"
    with watch.stage("training", 1000) as advance, disk_errors(output.folder or Path(), kept):
        shown = 0

        def show(step: int, n_steps: int | None, latest: Progress | None) -> None:
            nonlocal shown
            now = int(1000 * step / n_steps) if n_steps else 0
            advance(now - shown, _gain(latest))
            shown = now

        fitted = fit(
            split,
            lambda: settings.network.build(split.slices),
            data,
            training,
            seed=settings.seed,
            budget=lambda per_step: max(0.3 * budget, budget - symmetries(per_step) * inference(per_step)),
            checkpoint=output.checkpoint,
            watch=show,
        )
    pace = fitted.seconds_per_step or fitted.history[-1].seconds / fitted.history[-1].step  # of a resumed run
    chosen = output.decide("inference", lambda: {"symmetries": symmetries(pace)})
    facts = {
        "source": str(prepared.scan.source),
        "steps": fitted.history[-1].step,
        "noise_sd": float(max(fitted.best.noise, 0.0) ** 0.5 * (scale.high - scale.low)),
        "unit": prepared.grid.unit,
        "voxel_size_mm": prepared.grid.voxel_size,
        "versions": versions(),
    }
    denoiser = Denoiser(
        fitted.network,
        settings.network,
        split,
        scale,
        chosen["symmetries"],
        precision(settings.training.precision),
        prepared.plan.tile,
        facts,
    )
    return denoiser, fitted


def _gain(latest: Progress | None) -> str:
    if latest is None or not (latest.error > 0 and latest.noise > 0):
        return ""
    return f"estimated gain {10 * np.log10(latest.noise / latest.error):.1f} dB"


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


def _circumstances(prepared: Prepared, denoiser: Denoiser, started: float) -> dict[str, Any]:
    """Return the facts of a run that are not about its result."""
    scan, plan, split = prepared.scan, prepared.plan, denoiser.split
    return {
        "log_bias": prepared.log_bias(),
        "scan": {
            "source": str(scan.source),
            "views": scan.n_views,
            "rows": [prepared.rows.start, prepared.rows.stop],
            "columns": scan.n_cols,
            "rotation_axis": scan.geometry.axis,
            "unit": prepared.grid.unit,
            "voxel_size_mm": prepared.grid.voxel_size,
        },
        "method": {
            "name": type(split).__name__,
            "slices": split.slices,
            "parts": split.parts,
            "symmetries": denoiser.symmetries,
            "arithmetic": denoiser.arithmetic,
            "parameters": sum(weight.numel() for weight in denoiser.network.parameters()),
        },
        "memory": {"limit": plan.memory, "planned_peak": plan.peak, "peak": peak_memory(), "slabs": len(plan.slabs)},
        "seconds": time.monotonic() - started,
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
