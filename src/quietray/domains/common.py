"""What runs in either domain share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quietray.assessment.evidence import warnings_of
from quietray.filters import Filter
from quietray.inference.denoiser import Denoiser
from quietray.metrics.noreference import neighbour_correlation
from quietray.networks import UNet
from quietray.preparation.prepare import Calibrated, Prepared, prepare
from quietray.result import Gathered, Result
from quietray.running.facts import peak_memory, versions
from quietray.running.output import Output
from quietray.running.settings import Settings, of_radiographs
from quietray.running.watch import Watch
from quietray.scan import Scan
from quietray.settings import called, parse_bytes, parse_seconds, to_dict
from quietray.splits.base import Split
from quietray.training.batches import TrainingVolume
from quietray.training.learn import Recipe
from quietray.training.loop import Fitted, judge_held_out

__all__ = [
    "circumstances",
    "facts_of",
    "method_facts",
    "noise_level",
    "prepared_for",
    "recipe_of",
    "reconstruction_facts",
    "result_of",
]


def prepared_for(
    scan: Scan | Calibrated, settings: Settings, n_parts: int, n_slices: int, output: Output, watch: Watch
) -> Prepared:
    """Return a scan calibrated, its axis known and its memory planned, after the settings of a run."""
    return prepare(
        scan,
        correction=settings.correction,
        rows=settings.rows,
        region=settings.region,
        rotation_axis=settings.rotation_axis,
        memory=parse_bytes(settings.max_memory) if settings.max_memory else None,
        n_parts=n_parts,
        n_slices=n_slices,
        network=UNet() if isinstance(settings.method, Filter) else settings.network,  # no filter takes as much
        algorithm=settings.reconstruction,
        output=output,
        watch=watch,
    )


def recipe_of(settings: Settings) -> Recipe:
    """Return what training needs to know beside the data."""
    start = None if settings.start is None else Denoiser.load(Path(settings.start))
    return Recipe(
        settings.network, settings.training, settings.seed, parse_seconds(settings.budget), settings.symmetries, start
    )


def facts_of(prepared: Prepared, data: TrainingVolume, split: Split) -> dict[str, Any]:
    """Return what a model keeps of the scan that it was trained on."""
    grid = prepared.grid
    return {
        "source": str(prepared.scan.source),
        "unit": grid.unit,
        "voxel_size_mm": grid.voxel_size,
        "noise_level": noise_level(data, split),
        "correlation": noise_correlation(data),
    }


def noise_level(data: TrainingVolume, split: Split) -> float:
    """Return the sd of the noise before denoising, in the network's scale."""

    def as_it_is(x: torch.Tensor) -> torch.Tensor:
        return x[:, :1].expand(-1, split.n_outputs, -1, -1)  # what is returned does not matter here

    return math.sqrt(max(0.0, judge_held_out(split, as_it_is, data, torch.device("cpu")).noise))


def noise_correlation(data: TrainingVolume) -> float | None:
    """Return the correlation of neighbouring pixels' noise; None where there is one measurement only."""
    if data.parts.shape[0] < 2:
        return None
    rows = list(data.held_out_rows[:4])
    difference = torch.from_numpy(data.parts[0, rows] - data.parts[1, rows])[:, None]
    return neighbour_correlation(difference, torch.from_numpy(data.weight).expand(len(rows), -1, -1))


def result_of(
    output: Output,
    denoiser: Denoiser,
    metrics: dict[str, Any],
    notes: tuple[str, ...],
    gathered: Gathered,
    fitted: Fitted,
) -> Result:
    """Close the volume and hand everything back."""
    volume = output.finish_volume()
    return Result(volume, denoiser, metrics, warnings_of(metrics), notes, gathered, fitted.history, output.folder)


def circumstances(prepared: Prepared, denoiser: Denoiser) -> dict[str, Any]:
    """Return the facts of a run that are not about its result."""
    scan, plan = prepared.scan, prepared.plan
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
        "method": method_facts(denoiser),
        **reconstruction_facts(prepared),
        "memory": {"limit": plan.memory, "planned_peak": plan.peak, "peak": peak_memory(), "slabs": len(plan.slabs)},
        "versions": versions(),
    }


def reconstruction_facts(prepared: Prepared) -> dict[str, Any]:
    """Return what reconstructed, for the figures."""
    algorithm = prepared.algorithm
    settings = {"name": called(type(algorithm)), **to_dict(algorithm)}
    return {"reconstruction": {"linear": algorithm.linear, "settings": settings}}


def method_facts(denoiser: Denoiser) -> dict[str, Any]:
    """Return what was done, for the figures."""
    split = denoiser.split
    return {
        "name": called(type(split if denoiser.trained else denoiser.architecture)),
        "domain": "radiographs" if of_radiographs(split) else "volume",
        "slices": split.n_slices,
        "parts": split.n_parts,
        "network": called(type(denoiser.architecture)),
        "settings": to_dict(split if denoiser.trained else denoiser.architecture),
        "symmetries": denoiser.symmetries,
        "arithmetic": denoiser.arithmetic,
        "parameters": sum(weight.numel() for weight in denoiser.network.parameters()),
    }
