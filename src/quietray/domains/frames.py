"""Repeated frames of one static scene: Noise2Noise."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from quietray.assessment.evidence import Evidence
from quietray.assessment.halves import Halves
from quietray.detector.correction.correct import RowCounts
from quietray.domains.common import method_facts, recipe_of, result_of
from quietray.geometry import VolumeGrid
from quietray.inference.denoiser import Denoiser, Scale
from quietray.result import Result, figures, gather, histogram_edges
from quietray.running.facts import peak_memory, versions
from quietray.running.output import Output
from quietray.running.plan import available_memory
from quietray.running.settings import Settings
from quietray.running.slabs import SlabRecord
from quietray.running.watch import Watch
from quietray.scan import Scan
from quietray.settings import called
from quietray.splits import Noise2Noise
from quietray.training.batches import TrainingVolume
from quietray.training.learn import learn
from quietray.types import Parts

__all__ = ["denoise_frames"]

_TILE = 1024


def denoise_frames(scan: Scan, settings: Settings, output: Output, watch: Watch) -> Result:
    """Train each repeated frame against the others, and return the one image that they all show.

    Parameters
    ----------
    scan
        Its projections are frames of one static scene; where it has flats the result is a transmission, else counts.
    settings, output, watch
        Of the run.

    Raises
    ------
    SettingsError
        There are fewer than two frames.
    """
    assert isinstance(settings.method, Noise2Noise)
    split = dataclasses.replace(settings.method, realisations=scan.n_views, slices=1)  # refuses a single frame
    parts, unit = _frames(scan)
    weight = np.ones(parts.shape[2:], np.float32)
    scale = Scale.of(parts.mean(axis=0), weight)
    parts = scale.apply(parts)
    data = TrainingVolume.with_held_out(parts, split, weight)
    facts = {"source": str(scan.source), "unit": unit, "voxel_size_mm": scan.geometry.pixel_size}
    images = (1, scan.n_rows, scan.n_cols)
    denoiser, fitted = learn(data, scale, split, recipe_of(settings), images, _TILE, facts, output, watch)
    evidence, halves = Evidence.measure(denoiser, data), Halves.of_parts(denoiser, data)

    grid = VolumeGrid((1, scan.n_rows, scan.n_cols), voxel_size=scan.geometry.pixel_size)
    output.open_volume(grid, {"source": scan.source, "method": called(type(split))})
    edges = histogram_edges(scale)
    parts = scale.undo(parts)
    with watch.stage("denoising", 1) as advance:
        if not output.done(0, 1):
            clean = denoiser.slab(parts, 0, 1, advance)
            output.write(clean, SlabRecord.of(0, 0, parts.mean(axis=0), clean, weight, edges, RowCounts()))
    gathered = gather(output.records(((0, 1),)), edges)
    metrics = figures(evidence, gathered, fitted) | _circumstances(scan, denoiser, unit)
    metrics["evidence"] = halves.figures(scan.geometry.pixel_size)
    return result_of(output, denoiser, metrics, scan.notes, gathered, fitted)


def _frames(scan: Scan) -> tuple[Parts, str]:
    """Return the frames as parts ``(part, 1, y, x)``, corrected as far as the scan allows, and their unit."""
    frames = scan.read(slice(None))
    if scan.darks is not None:
        frames -= np.asarray(scan.darks[:], np.float32).mean(axis=0)
    if scan.flats is None:
        return frames[:, None], "counts"
    flat = np.asarray(scan.flats[:], np.float32).mean(axis=0)
    if scan.darks is not None:
        flat -= np.asarray(scan.darks[:], np.float32).mean(axis=0)
    return (frames / np.maximum(flat, 1e-3 * flat.mean()))[:, None], "transmission"


def _circumstances(scan: Scan, denoiser: Denoiser, unit: str) -> dict[str, Any]:
    memory = available_memory()
    return {
        "log_bias": None,
        "scan": {
            "source": str(scan.source),
            "views": scan.n_views,
            "rows": [0, scan.n_rows],
            "columns": scan.n_cols,
            "covered_degrees": 180.0,
            "rotation_axis": None,
            "unit": unit,
            "voxel_size_mm": scan.geometry.pixel_size,
        },
        "method": method_facts(denoiser),
        "memory": {"limit": memory, "planned_peak": memory, "peak": peak_memory(), "slabs": 1},
        "versions": versions(),
    }
