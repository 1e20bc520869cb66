"""Learn from a clean volume, where there is one: Noise2Clean."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from quietray.assessment.evidence import Evidence
from quietray.domains.common import facts_of, prepared_for, recipe_of
from quietray.domains.volume import Reconstructed, applied, begun
from quietray.errors import FormatError, GeometryError, SettingsError
from quietray.inference.denoiser import Denoiser
from quietray.io import read_volume
from quietray.preparation.prepare import Prepared, chosen_region, chosen_rows, reconstruct_windows
from quietray.reconstruct import Analytic
from quietray.result import Result
from quietray.running.output import Output
from quietray.running.settings import Settings
from quietray.running.watch import Watch
from quietray.scan import Scan
from quietray.splits import Noise2Clean, Noise2Inverse
from quietray.training.batches import TrainingVolume
from quietray.training.learn import learn
from quietray.training.loop import Fitted, TrainingData
from quietray.types import Frames, Slice, Volume

__all__ = ["Paired", "applied_with_clean", "clean_split", "denoise_with_clean", "learned_from_clean", "paired"]

_ALIKE = 0.25  # of the contrast of the clean volume, that even a smooth reconstruction has; and the other way round
_TRUE = "held-out rows of the volume, judged by the clean volume: true errors, not estimates"
_HALVES = "held-out rows of the volume, of which each half of the views was denoised alone and judged by the other half"


@dataclass(frozen=True, eq=False)
class Paired:
    """What learning from a clean volume starts from.

    Parameters
    ----------
    start
        The reconstruction of all views; its `data` are those of even and odd views, which tell the noise and judge
        where there is nothing clean.
    data
        The reconstruction of all views and the clean volume, with slices held out; None where there is nothing clean.
    facts
        Of the scan, for a model to keep.
    """

    start: Reconstructed
    data: TrainingVolume | None
    facts: dict[str, Any]


def denoise_with_clean(scan: Scan, settings: Settings, output: Output, watch: Watch) -> Result:
    """Reconstruct, train on the clean volume, denoise all of the scan, and judge by the clean volume."""
    pair = paired(scan, clean_split(scan, settings), settings, output, watch)
    assert pair.data is not None
    denoiser, fitted = learned_from_clean(pair, pair.data, settings, output, watch)
    return applied_with_clean(pair, denoiser, fitted, output, watch)


def clean_split(scan: Scan, settings: Settings) -> Noise2Clean:
    """Return the split, with no more slices than there are rows.

    Raises
    ------
    SettingsError
        It cannot be run on one scan, or not with the network.
    """
    method = settings.method
    assert isinstance(method, Noise2Clean)
    if method.realisations != 1:
        raise SettingsError(f"noise2clean must have 1 realisation of a scan, got {method.realisations}; leave it out")
    if settings.network.dimensions == 3:
        raise SettingsError("noise2clean must have a network of 2 dimensions, got 3; give it more --slices instead")
    n_rows = len(chosen_rows(settings.rows, scan.n_rows))
    return dataclasses.replace(method, slices=min(method.slices, n_rows - (n_rows + 1) % 2))


def paired(
    scan: Scan, split: Noise2Clean, settings: Settings, output: Output, watch: Watch, needed: bool = True
) -> Paired:
    """Reconstruct the rows to train on and put the clean slices beside them.

    Parameters
    ----------
    scan
        The scan; its `truth` is the clean volume, unless ``settings.clean`` names another.
    split
        The method.
    settings, output, watch
        Of the run.
    needed
        Whether there must be a clean volume.

    Raises
    ------
    SettingsError
        There is none.
    GeometryError
        It is not on the grid of the scan, or shows something else.
    """
    frames, name = _clean(scan, settings)
    if frames is None and needed:
        raise SettingsError(
            f"noise2clean must have a clean volume, got none, and {scan.source or 'the scan'} holds no truth; give one "
            "with --clean, or take a method that needs none, such as noise2inverse"
        )
    prepared = prepared_for(scan, settings, 4, split.slices, output, watch)
    halves = begun(prepared, prepared.source(2), Noise2Inverse(2, slices=split.slices), watch)
    noisy = _whole(prepared, halves, watch)
    data = None
    if frames is not None:
        clean = halves.scale.apply(_on_grid(frames, name, prepared, settings))
        _require_alike(clean, noisy, prepared.weight, name, prepared.grid.unit)
        data = dataclasses.replace(halves.data, parts=np.stack([noisy, clean]))
    start = dataclasses.replace(halves, source=prepared.source(), parts=noisy[None], split=split)
    return Paired(start, data, facts_of(prepared, halves.data, halves.split))


def learned_from_clean(
    pair: Paired, data: TrainingData, settings: Settings, output: Output, watch: Watch
) -> tuple[Denoiser, Fitted]:
    """Train the network on `data`: the pair's, or those of several scans."""
    start = pair.start
    tile, shape = start.prepared.plan.tile, start.prepared.grid.shape
    return learn(data, start.scale, start.split, recipe_of(settings), shape, tile, pair.facts, output, watch)


def applied_with_clean(pair: Paired, denoiser: Denoiser, fitted: Fitted, output: Output, watch: Watch) -> Result:
    """Judge the denoiser by the clean volume, or by halves of the views where there is none, and denoise the volume."""
    start = pair.start
    if pair.data is not None:
        evidence, domain = Evidence.judged(denoiser, pair.data), _TRUE
    else:
        by_halves = Noise2Inverse(2, slices=start.split.n_slices)
        evidence, domain = Evidence.measure(dataclasses.replace(denoiser, split=by_halves), start.data), _HALVES
    result = applied(start, denoiser, fitted, output, watch, evidence=evidence)
    result.metrics["estimate"]["domain"] = domain
    return result


def _whole(prepared: Prepared, halves: Reconstructed, watch: Watch) -> Volume:
    """Return the reconstruction of all views in the training windows, scaled: where it is linear, from the halves."""
    if not isinstance(prepared.algorithm, Analytic):
        return halves.scale.apply(reconstruct_windows(prepared, prepared.source(), watch)[0][0])
    sizes = [len(range(first, prepared.scan.n_views, 2)) for first in range(2)]
    together = np.average(halves.parts, axis=0, weights=np.array(sizes, np.float32))
    return np.asarray(together, np.float32)


def _clean(scan: Scan, settings: Settings) -> tuple[Frames | None, str]:
    """Return the clean volume, lazily, and its name; None where there is none.

    Raises
    ------
    GeometryError
        It has another unit or voxel size than the scan will be reconstructed in.
    """
    if settings.clean is None:
        return scan.truth, f"in {scan.source}"
    try:
        found = read_volume(settings.clean)
    except OSError as error:
        raise FormatError(f"the clean volume {settings.clean} must be readable, got: {error}") from None
    grid = scan.geometry.grid()
    if found.unit and found.unit != grid.unit:
        raise GeometryError(
            f"the clean volume {settings.clean} must be in {grid.unit}, as the reconstruction of the scan, got "
            f"{found.unit}; state the pixel size of the scan with --pixel-size"
        )
    if found.voxel_size and grid.voxel_size and abs(found.voxel_size / grid.voxel_size - 1) > 0.01:
        raise GeometryError(
            f"the clean volume {settings.clean} must have the voxels of the scan, {grid.voxel_size:g} mm, got "
            f"{found.voxel_size:g} mm; resample it"
        )
    return found.frames, settings.clean


def _on_grid(frames: Frames, name: str, prepared: Prepared, settings: Settings) -> Volume:
    """Return the clean slices of the training windows, one after the other."""
    rows, scan, (n_y, n_x) = prepared.rows, prepared.scan, prepared.grid.shape[1:]
    whole, part = (scan.n_cols, scan.n_cols), (n_y, n_x)
    shape = tuple(frames.shape)
    if len(shape) != 3 or shape[0] not in (scan.n_rows, len(rows)) or shape[1:] not in (whole, part):
        raise GeometryError(
            f"the clean volume {name} must be on the grid of the scan, {(scan.n_rows, *whole)} (z, y, x) or the rows "
            f"and the region to be denoised, {(len(rows), *part)}, got {shape}; resample it, or choose --rows"
        )
    y0, y1, x0, x1 = chosen_region(settings.region if shape[1:] == whole else None) or (0, shape[1], 0, shape[2])
    above = 0 if shape[0] == scan.n_rows else rows.start
    found = [frames[start - above : stop - above, y0:y1, x0:x1] for start, stop in prepared.plan.windows]
    return np.concatenate([np.array(one, np.float32) for one in found])


def _require_alike(clean: Volume, noisy: Volume, weight: Slice, name: str, unit: str) -> None:
    """Raise unless the clean volume shows what the reconstruction does; noise does not count."""
    inside = weight > 0
    one, other = (volume[:, inside] - volume[:, inside].mean() for volume in (clean, noisy))
    spread = float((one * one).mean())
    slope = float((one * other).mean()) / spread if spread > 0 else 0.0
    if not np.isfinite(slope) or not _ALIKE < slope < 1 / _ALIKE:
        raise GeometryError(
            f"the clean volume {name} must show what the scan shows, in {unit}, got one of whose contrast the "
            f"reconstruction has {slope:.2g} times; give the volume of this object, on the grid of this scan"
        )
