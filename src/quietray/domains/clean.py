"""Supervised training on a clean volume, if there is one: Noise2Clean."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quietray.assessment.evidence import Evidence
from quietray.domains.volume import VolumeDomain, shape_of
from quietray.errors import FormatError, GeometryError, SettingsError
from quietray.inference.denoiser import Denoiser
from quietray.io import read_volume
from quietray.preparation.prepare import Prepared, chosen_region, prepare, reconstruct_windows
from quietray.result import Judged
from quietray.running.run import Run
from quietray.running.settings import Settings
from quietray.scan import Scan
from quietray.splits import Noise2Inverse
from quietray.splits.base import Split
from quietray.training.batches import TrainingVolume
from quietray.training.learn import Recipe, Subject, learn
from quietray.training.loop import Fitted, TrainingData
from quietray.types import Frames, Parts, Slice, Volume

__all__ = ["CleanDomain"]

_ALIKE = 0.25  # of the contrast of the clean volume, that even a smooth reconstruction has; and vice versa
_TRUE = "held-out rows of the volume, compared with the clean volume: true errors, not estimates"
_HALVES = "held-out rows of the volume: each half of the views, denoised alone, compared with the other half"


@dataclass(frozen=True, eq=False)
class CleanDomain(VolumeDomain):
    """Data for training on a clean volume.

    Parameters
    ----------
    pairs
        The reconstruction of all views and the clean volume, with slices held out; None without a clean volume.  `data`
        of the base class are the reconstructions of even and odd views, from which the noise is measured, and which are
        used for validation if there is no clean volume.
    noisy
        The reconstruction of all views in the training windows, in the network's scale.
    """

    maps_errors = False

    pairs: TrainingVolume | None = None
    noisy: Volume | None = None

    @classmethod
    def bound(cls, run: Run, scans: Sequence[Scan]) -> Split:
        """Return the method, adapted to the scan."""
        return run.split.on_scan(shape_of(run, scans))

    @classmethod
    def prepare(cls, run: Run, scans: Sequence[Scan], split: Split, taught: bool = True) -> CleanDomain:
        """Reconstruct the training rows and pair them with the clean slices.

        Raises
        ------
        SettingsError
            A clean volume is required, and there is none.
        GeometryError
            The clean volume is not on the grid of the scan, or shows something else.
        """
        (scan,), settings = scans, run.settings
        frames, name = _clean(scan, settings)
        if frames is None and taught:
            raise SettingsError(
                f"noise2clean must have a clean volume, got none, and {scan.source or 'the scan'} holds no ground "
                "truth; give one with --clean, or use a method that needs none, such as noise2inverse"
            )
        prepared = prepare(run.calibrated or scan, run, 4, split.n_slices)
        halves = VolumeDomain.begun(run, prepared, prepared.source(2), Noise2Inverse(2, slices=split.n_slices))
        noisy, pairs = _whole(halves), None
        if frames is not None:
            clean = halves.scale.apply(_on_grid(frames, name, prepared, settings))
            _require_alike(clean, noisy, prepared.weight, name, prepared.grid.unit)
            pairs = dataclasses.replace(halves.data, parts=np.stack([noisy, clean]))
        return cls(
            run, split, halves.facts, prepared, prepared.source(), halves.changed, halves.scale, halves.data, (),
            halves.a_row, pairs, noisy,
        )  # fmt: skip

    @property
    def taught_by(self) -> TrainingVolume | None:
        """The training data."""
        return self.pairs

    def training_rows(self, rows: slice) -> Parts:
        """Return some of the reconstructed rows of all views, in attenuation."""
        assert self.noisy is not None
        return self.scale.undo(self.noisy[rows].copy())[None]

    def measured(self) -> Parts:
        """Return the reconstruction of all views in attenuation; it is modified to save memory."""
        assert self.noisy is not None
        return self.scale.undo(self.noisy)[None]

    def learn(self, data: TrainingData | None = None) -> tuple[Denoiser, Fitted]:
        """Train the network on the pairs, or on those of several scans."""
        tile, shape = self.prepared.plan.tile, self.prepared.grid.shape
        subject, learned = Subject(self.scale, shape, tile, self.facts), data or self.pairs
        assert learned is not None
        return learn(learned, self.split, Recipe.of(self.run), subject, self.run)

    def judge(self, denoiser: Denoiser) -> Evidence:
        """Estimate the error with the clean volume, or else with halves of the views."""
        if self.pairs is not None:
            return Evidence.judged(denoiser, self.pairs)
        by_halves = Noise2Inverse(2, slices=self.split.n_slices)
        found = Evidence.measure(dataclasses.replace(denoiser, split=by_halves), self.data, air=0.0)
        return found.beside(self.common_noise(denoiser, found.mask))

    def judged(self) -> Judged:
        """Return a description of the validation."""
        if self.pairs is not None:
            return Judged(_TRUE)
        return Judged(_HALVES, seen_by=self._seen_by, rings=self.prepared.calibration.remove_rings)


def _whole(halves: VolumeDomain) -> Volume:
    """Return the scaled reconstruction of all views in the training windows; if linear, from the halves."""
    prepared = halves.prepared
    if prepared.algorithm.iterates:
        return halves.scale.apply(reconstruct_windows(prepared, prepared.source(), halves.run)[0][0])
    sizes = [len(range(first, prepared.scan.n_views, 2)) for first in range(2)]
    together = np.average(halves.data.parts, axis=0, weights=np.array(sizes, np.float32))
    return np.asarray(together, np.float32)


def _clean(scan: Scan, settings: Settings) -> tuple[Frames | None, str]:
    """Return the clean volume, lazily, and its name; None if there is none.

    Raises
    ------
    GeometryError
        Its unit or voxel size differs from that of the reconstruction.
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
    """Return the clean slices of the training windows, one after another."""
    rows, scan, (n_y, n_x) = prepared.rows, prepared.scan, prepared.grid.shape[1:]
    whole, part = scan.geometry.grid().shape[1:], (n_y, n_x)
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
    """Raise unless the clean volume shows the same object as the reconstruction, apart from noise."""
    inside = weight > 0
    one, other = (volume[:, inside] - volume[:, inside].mean() for volume in (clean, noisy))
    spread = float((one * one).mean())
    slope = float((one * other).mean()) / spread if spread > 0 else 0.0
    if not np.isfinite(slope) or not _ALIKE < slope < 1 / _ALIKE:
        raise GeometryError(
            f"the clean volume {name} must show what the scan shows, in {unit}, got a reconstruction with {slope:.2g} "
            "times its contrast; give the volume of this object, on the grid of this scan"
        )
