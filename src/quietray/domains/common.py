"""Common parts of runs in all domains."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from quietray.assessment.figures import LogBias, Memory, MethodFacts, Reconstructed, ScanFacts
from quietray.inference.denoiser import Denoiser
from quietray.metrics.noreference import neighbour_correlation
from quietray.preparation.prepare import Prepared
from quietray.running.device import device_name
from quietray.running.facts import peak_memory, versions
from quietray.settings import called, to_dict
from quietray.splits.base import Split
from quietray.training.batches import TrainingVolume
from quietray.training.loop import judge_held_out

__all__ = ["circumstances", "facts_of", "method_facts", "noise_level", "reconstructed_by"]


def facts_of(prepared: Prepared, data: TrainingVolume, split: Split) -> dict[str, Any]:
    """Return the facts of the scan to store with a model that was trained on it."""
    grid = prepared.grid
    return {
        "source": str(prepared.scan.source),
        "unit": grid.unit,
        "voxel_size_mm": grid.voxel_size,
        "noise_level": noise_level(data, split),
        "correlation": noise_correlation(data),
        "gain": prepared.calibration.quantum or None,
        "read_noise": prepared.calibration.read_noise or None,
    }


def noise_level(data: TrainingVolume, split: Split) -> float:
    """Return the standard deviation of the noise before denoising, in the network's scale."""

    def as_it_is(x: torch.Tensor) -> torch.Tensor:
        return x[:, :1].expand(-1, split.n_outputs, -1, -1)  # the result does not matter here

    return math.sqrt(max(0.0, judge_held_out(split, as_it_is, data, torch.device("cpu")).noise))


def noise_correlation(data: TrainingVolume) -> float | None:
    """Return the noise correlation of neighbouring pixels; None if there is only one measurement."""
    if data.parts.shape[0] < 2:
        return None
    rows = list(data.held_out_rows[:4])
    difference = torch.from_numpy(data.parts[0, rows] - data.parts[1, rows])[:, None]
    return neighbour_correlation(difference, torch.from_numpy(data.weight).expand(len(rows), -1, -1))


def circumstances(prepared: Prepared, denoiser: Denoiser) -> dict[str, Any]:
    """Return the figures of a run that do not concern its result, by their names in the metrics."""
    scan, plan, bias = prepared.scan, prepared.plan, prepared.log_bias()
    return {
        "log_bias": None if bias is None else LogBias(**bias),
        "scan": ScanFacts(
            source=str(scan.source),
            views=scan.n_views,
            rows=[prepared.rows.start, prepared.rows.stop],
            columns=scan.n_cols,
            covered_degrees=float(np.rad2deg(scan.geometry.coverage)),
            rotation_axis=scan.geometry.axis,
            unit=prepared.grid.unit,
            voxel_size_mm=prepared.grid.voxel_size,
            spacing_mm=prepared.grid.spacing,
        ),
        "method": method_facts(denoiser),
        "reconstruction": reconstructed_by(prepared),
        "flats": prepared.flats,
        "memory": Memory(plan.memory, plan.peak, peak_memory(), len(plan.slabs)),
        "versions": versions(),
    }


def reconstructed_by(prepared: Prepared) -> Reconstructed:
    """Return a description of the reconstruction."""
    algorithm = prepared.algorithm
    return Reconstructed(algorithm.linear, {"name": called(type(algorithm)), **to_dict(algorithm)})


def method_facts(denoiser: Denoiser, domain: str | None = None, measurements: int | None = None) -> MethodFacts:
    """Return a description of the method; `domain` only if it differs from the method's own."""
    split = denoiser.split
    made_by = split if denoiser.trained else denoiser.architecture
    return MethodFacts(
        name=called(type(made_by)),
        domain=domain or ("radiographs" if split.domain == "radiographs" else "volume"),
        slices=split.n_slices,
        parts=split.n_parts,
        network=called(type(denoiser.architecture)),
        settings=to_dict(made_by),
        symmetries=denoiser.symmetries,
        arithmetic=denoiser.arithmetic,
        device=device_name(denoiser.device),
        parameters=sum(weight.numel() for weight in denoiser.network.parameters()),
        measurements=measurements,
    )
