"""Training in the projection domain, for few views: Noise2Projection."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import uniform_filter

from quietray.assessment.common_noise import STEP, CommonNoise
from quietray.assessment.evidence import Evidence
from quietray.assessment.figures import ScanMetrics
from quietray.detector.correction.correct import RowCounts
from quietray.detector.correction.own_flats import correct_dealt, noise_of_flats
from quietray.detector.noise.photon_transfer import log_variance
from quietray.domains.base import Domain
from quietray.domains.common import circumstances
from quietray.domains.volume import shape_of
from quietray.errors import GeometryError, ResourceError, SettingsError
from quietray.geometry import ParallelBeam, field_of_view, require_parallel
from quietray.inference.denoiser import Denoiser, Scale
from quietray.operators.nufft import ParallelRays
from quietray.preparation.prepare import Prepared, chosen_region, prepare
from quietray.preparation.sources import PartReconstruction
from quietray.reconstruct.analytic import FBP
from quietray.result import Judged, Result, figures, gather, histogram_edges
from quietray.running.ledger import SlabRecord
from quietray.running.plan import FLATS_VOXELS
from quietray.running.planes import Planes
from quietray.running.run import Run
from quietray.running.settings import Settings, Training
from quietray.running.slabs import Advance, Finished, Slab, SlabTask
from quietray.running.watch import Watch
from quietray.scan import Scan
from quietray.settings import called
from quietray.splits.base import Split
from quietray.training.learn import Recipe, Subject, learn
from quietray.training.loop import Fitted, TrainingData, judge_held_out
from quietray.training.sinograms import TrainingSinograms
from quietray.types import Sinograms, Slice

__all__ = ["DenoiseSinograms", "ProjectionDomain"]

_ROWS_AT_ONCE = 4
_SMOOTH = 5  # views and columns for smoothing: the variance changes slowly, but the counts are noisy
_SCALED_BY = 8  # rows for determining the range of the attenuation
_FLATS_ROWS = 8  # largest number of rows in which the noise of flats is followed
_STEP = 3  # memory of a training step relative to inference
_DOMAIN = "views of held-out rows, each predicted by a result computed without it: line integrals, not the volume"
_RANGE = "0.5 to 99.5 percentile of the measured line integrals"


@dataclass(frozen=True, eq=False)
class ProjectionDomain(Domain):
    """Data for training in the projection domain; the method is adapted to the beam and the noise.

    Parameters
    ----------
    prepared
        The prepared scan.
    scale
        Scale, a factor without an offset.
    data
        Scaled sinograms of the training windows, with rows held out.
    said
        A sentence on the noise.
    """

    learns_from_several = False

    prepared: Prepared
    scale: Scale
    data: TrainingSinograms
    said: str

    @classmethod
    def bound(cls, run: Run, scans: Sequence[Scan]) -> Split:
        """Return the method for a single scan with a parallel beam.

        Raises
        ------
        SettingsError
            The network is three-dimensional.
        GeometryError
            The beam is not parallel.
        """
        return run.split.on_scan(shape_of(run, scans))

    @classmethod
    def prepare(cls, run: Run, scans: Sequence[Scan], split: Split, taught: bool = True) -> ProjectionDomain:
        """Correct the training sinograms, measure their noise, scale them, and hold out rows.

        Raises
        ------
        SettingsError
            The network is three-dimensional.
        GeometryError
            The beam is not parallel.
        ResourceError
            A training step, which needs whole slices, does not fit into memory.
        """
        (scan,), settings = scans, run.settings
        name = called(type(split))
        if settings.network.dimensions == 3:
            raise SettingsError(f"{name} must have a network of 2 dimensions, got 3; its input is one row")
        if not isinstance(scan.geometry, ParallelBeam):
            raise GeometryError(
                f"{name} must have a parallel beam, got {type(scan.geometry).__name__}; use noise2inverse"
            )
        n_subsets = split.n_subsets if taught or settings.correction.own_flats else 1
        prepared = prepare(run.calibrated or scan, run, 2, n_subsets=n_subsets)
        _require_memory(prepared, split, settings)
        sinograms, variance = _measured(prepared, run.watch)
        geometry = require_parallel(prepared.scan.geometry, name)
        scale = _scale_of(geometry, sinograms)
        known = None if variance is None else torch.from_numpy(variance / np.float32(scale.high**2))
        split = split.on_sinograms(geometry.rows(1), known)
        data = TrainingSinograms.with_held_out(scale.apply(sinograms))
        said = (
            "Views are weighted by the inverse variance of their noise, from the counts per quantum."
            if variance is not None
            else "The counts per quantum are not known: views have equal weight, and their noise is assumed white."
        )
        run.watch.note(said)
        noise = judge_held_out(split, lambda x: x, data, torch.device("cpu")).noise
        facts = {
            "source": str(scan.source),
            "unit": prepared.grid.unit,
            "voxel_size_mm": prepared.grid.voxel_size,
            "noise_level": math.sqrt(max(0.0, noise)),
            "correlation": None,
        }
        return cls(run, split, facts, prepared, scale, data, said)

    @property
    def taught_by(self) -> TrainingSinograms:
        """The training data."""
        return self.data

    def together(self, starts: Sequence[Domain]) -> TrainingData:
        """Return the training data, which come from a single scan."""
        return self.data

    def learn(self, data: TrainingData | None = None) -> tuple[Denoiser, Fitted]:
        """Train the network with whole slices, as many per step as correspond to the pixels of the patches."""
        n_z, n = len(self.prepared.rows), self.prepared.scan.geometry.grid().shape[-1]
        passes = (self.split.n_passes * n_z, n, n)  # the network is applied once for each choice of views
        subject = Subject(self.scale, passes, self.prepared.plan.tile, self.facts)
        recipe = Recipe.of(self.run)
        recipe = dataclasses.replace(recipe, training=_whole_slices(recipe.training, n))
        return learn(data or self.data, self.split, recipe, subject, self.run)

    def adopted(self, denoiser: Denoiser) -> Denoiser:
        """Return a trained model for this beam, with the scale of this scan."""
        return dataclasses.replace(denoiser, tile=self.prepared.plan.tile, split=self.split, scale=self.scale)

    def judge(self, denoiser: Denoiser) -> Evidence:
        """Estimate the error on held-out rows, in the projection domain."""
        return Evidence.judged(denoiser, self.data).beside(self._common_noise(denoiser))

    @torch.no_grad()
    def _common_noise(self, denoiser: Denoiser) -> CommonNoise | None:
        """Return the noise of flats that all views share, and what predicted views contain of it; None if unknown."""
        prepared = self.prepared
        first, last = prepared.plan.windows[0]
        n = min(last - first, _FLATS_ROWS, max(1, FLATS_VOXELS // prepared.grid.n_pixels))
        if self.run.trial or prepared.calibration.remove_rings != "none":
            return None
        found = noise_of_flats(prepared.scan, prepared.calibration, slice(first, first + n))
        if found is None:
            return None
        split: Any = self.split  # the only kind for this domain
        step, size, products = float(STEP), 0.0, [0.0, 0.0]
        for row in range(n):  # one at a time, as in `judge`: whole slices take much memory in the network
            samples = torch.from_numpy(self.data.sinograms[row, None, None, None]).to(denoiser.device)
            noise = torch.from_numpy(found[row, None, None, None] / np.float32(self.scale.high)).to(samples)
            noise = noise.expand_as(samples)
            size += float(noise.double().square().mean()) * self.scale.high**2 / n
            for place, network in enumerate((denoiser.evaluate, lambda x: x)):
                before, after = (split.predict(network, one) for one in (samples, samples + step * noise))
                left = (after - before) / step
                products[place] += float((left * noise[:, 0]).double().mean()) * self.scale.high**2 / n
        return CommonNoise(size, products[0], values=float(n * found.shape[-1]), kept_before=products[1])

    def apply(self, denoiser: Denoiser, fitted: Fitted) -> Result:
        """Denoise the volume slab by slab."""
        prepared, output, evidence = self.prepared, self.run.output, self.judge(denoiser)
        span = float(np.subtract(*np.percentile(self.data.sinograms, (99.5, 0.5)))) * self.scale.high
        edges, judged = histogram_edges(self.scale), Judged(_DOMAIN, span, _RANGE)
        if not self.gains(evidence):
            return self.given_back(prepared, denoiser, fitted, evidence, judged, edges, (self.said,))
        output.open_volume(prepared.grid, {"source": prepared.scan.source, "method": called(type(self.split))})
        region = chosen_region(self.run.settings.region)
        work = DenoiseSinograms(denoiser, self.split, self.scale, prepared.rows, prepared.weight, edges, region)
        self.run.over(prepared.plan.slabs, SlabTask(prepared.source(), work, output), "denoising")
        gathered = gather(output.records(prepared.slabs), edges)
        metrics = ScanMetrics(
            **figures(evidence, gathered, fitted, judged),
            **circumstances(prepared, denoiser),
        )
        return self.result(denoiser, fitted, metrics, gathered, prepared=prepared, notes=(self.said,))


@dataclass(frozen=True, eq=False)
class DenoiseSinograms:
    """Denoises slabs of the volume, row by row from whole sinograms.

    Parameters
    ----------
    denoiser
        Trained or tuned denoiser.
    split
        The method, adapted to the beam.
    scale
        Scale of the sinograms.
    rows
        Detector rows of the whole volume.
    weight
        Weight ``(y, x)``, one in the field of view.
    edges
        Bin edges of the histogram.
    region
        Region of the slices, ``(y0, y1, x0, x1)``; None for all.
    """

    denoiser: Denoiser
    split: Split
    scale: Scale
    rows: range
    weight: Slice
    edges: np.ndarray
    region: tuple[int, int, int, int] | None

    def places(self, slab: Slab) -> list[Slab]:
        """Return the slices of the slab."""
        return [(slab[0] - self.rows.start, slab[1] - self.rows.start)]

    def __call__(self, source: PartReconstruction, slab: Slab, advance: Advance) -> Iterator[Finished]:
        """Denoise the detector rows of a slab, and also reconstruct them without denoising."""
        scan, grid, changed, rows = source.scan, source.grid, RowCounts(), range(*slab)
        _, n_y, n_x = scan.geometry.grid().shape
        y0, y1, x0, x1 = self.region or (0, n_y, 0, n_x)
        before, clean = (np.empty((len(rows), *grid.shape[1:]), np.float32) for _ in range(2))
        for band in _bands(rows):
            sinograms, some = correct_dealt(scan.read(band), source.calibration, band)
            changed += some
            n, first = len(sinograms), band.start - rows.start
            before[first : first + n] = source.algorithm(source.rays_of(0, n), sinograms)
            for place, scaled in enumerate(self.scale.apply(sinograms), start=first):
                samples = torch.from_numpy(scaled)[None, None, None].to(self.denoiser.device)
                with torch.no_grad():
                    image = self.split.infer(self.denoiser.evaluate, samples)[0, 0].cpu().numpy()
                clean[place] = self.scale.undo(image)[y0:y1, x0:x1]
                advance(1)
        clean *= self.weight
        ((z0, _),) = self.places(slab)
        planes = Planes((len(self.rows), *self.weight.shape))
        yield Finished(z0, clean, SlabRecord.of(z0, planes, before, clean, self.weight, self.edges, changed))


def _scale_of(geometry: ParallelBeam, sinograms: Sinograms) -> Scale:
    """Return the factor that scales the attenuation to about one, from some of the rows."""
    some = sinograms[:: max(1, len(sinograms) // _SCALED_BY)]
    images = FBP()(ParallelRays(geometry.rows(len(some))), some)
    n = geometry.across
    return Scale(0.0, Scale.of(images, field_of_view(n, n, geometry.seen_radius, (0.0, 0.0))).high)


def _whole_slices(training: Training, across: int) -> Training:
    """Return settings with whole slices as patches, as many as correspond to the pixels of the patches."""
    together = min(8, max(1, training.patch**2 // across**2))
    return dataclasses.replace(training, patch=across, batch=training.batch * together)


def _require_memory(prepared: Prepared, split: Split, settings: Settings) -> None:
    n, memory = prepared.scan.geometry.grid().shape[-1], prepared.plan.memory
    training = _whole_slices(settings.training, n)
    needed = _STEP * split.applied * training.batch * n * n * settings.network.bytes_per_pixel
    if needed > memory:
        raise ResourceError(
            f"a training step of {called(type(split))}, of whole slices of {n} x {n} pixels, must fit into memory and "
            f"needs {needed / 2**30:.2f} GiB, got a limit of {memory / 2**30:.2f} GiB; give a larger --max-memory, use "
            "a smaller --network, or use noise2inverse"
        )


def _measured(prepared: Prepared, watch: Watch) -> tuple[Sinograms, Float[np.ndarray, "view col"] | None]:
    """Return the sinograms of the training windows, and the variance of their noise, if known."""
    windows, calibration = prepared.plan.windows, prepared.calibration
    total = sum(stop - start for start, stop in windows)
    scan = prepared.scan
    out = np.empty((total, scan.n_views, scan.n_cols), np.float32)
    variance = np.zeros(out.shape[1:], np.float64)
    done = 0
    with watch.stage("correcting", total) as advance:
        for start, stop in windows:
            for band in _bands(range(start, stop)):
                some, _ = correct_dealt(scan.read(band), calibration, band)
                out[done : done + len(some)] = some
                if calibration.quantum > 0:
                    variance += log_variance(some, calibration, band).sum(axis=0)
                done += len(some)
                advance(len(some))
    if calibration.quantum <= 0:
        return out, None
    return out, uniform_filter(variance / total, _SMOOTH, mode="nearest").astype(np.float32)


def _bands(rows: range) -> list[slice]:
    return [slice(z, min(z + _ROWS_AT_ONCE, rows.stop)) for z in range(rows.start, rows.stop, _ROWS_AT_ONCE)]
