"""Denoising before reconstruction: whiten, train with hidden pixels on line integrals, then reconstruct."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from quietray.assessment.evidence import Evidence
from quietray.assessment.figures import ScanMetrics
from quietray.assessment.halves import Halves
from quietray.assessment.open_beam import with_dependency
from quietray.detector.correction.correct import calibrate
from quietray.detector.findings import amplification
from quietray.detector.response.prf import PointResponse
from quietray.diagnose import diagnose
from quietray.domains.base import Domain
from quietray.domains.common import circumstances, facts_of, reconstructed_by
from quietray.domains.log_radiographs import DenoisedRadiographs, as_scan, finished_correction, log_radiographs
from quietray.domains.volume import shape_of
from quietray.errors import NoiseError
from quietray.inference.denoiser import Denoiser, Scale
from quietray.preparation.prepare import Prepared, prepare, usable, with_choices
from quietray.preparation.sources import Held
from quietray.result import Gathered, Judged, Result, figures, gather, histogram_edges
from quietray.running.ledger import SlabRecord
from quietray.running.planes import Planes
from quietray.running.run import Run
from quietray.running.slabs import Advance, Finished, Slab, SlabTask
from quietray.scan import Scan
from quietray.settings import called
from quietray.splits.base import Split
from quietray.training.batches import TrainingVolume
from quietray.training.learn import Recipe, Subject, learn
from quietray.training.loop import Fitted, TrainingData
from quietray.types import Slice

__all__ = ["RadiographDomain", "Reconstruct", "correlated_reach"]

_DOMAIN = "held-out radiographs, each hidden pixel compared with its measured value"
_RANGE = "0.5 to 99.5 percentile of the measured line integrals"


@dataclass(frozen=True, eq=False)
class RadiographDomain(Domain):
    """Data for denoising radiographs.

    If the noise is correlated and could not be whitened, the adapted method hides more pixels than requested.

    Parameters
    ----------
    prepared
        The prepared scan.
    response
        Point response that was deconvolved, if any.
    noisy
        Line integrals ``(1, view, row, col)``; NaN for bad pixels.
    data
        `noisy`, with pixels held out.
    why
        A sentence on how the correlation was treated.
    floored
        Fraction of the samples that were raised to a floor before the logarithm.
    """

    prepared: Prepared
    response: PointResponse | None
    noisy: Float[np.ndarray, "1 view row col"]
    data: TrainingVolume
    why: str
    floored: float

    @classmethod
    def bound(cls, run: Run, scans: Sequence[Scan]) -> Split:
        """Return the method for a single scan."""
        return run.split.on_scan(shape_of(run, scans))

    @classmethod
    def prepare(cls, run: Run, scans: Sequence[Scan], split: Split, taught: bool = True) -> RadiographDomain:
        """Calibrate, deconvolve the point response if necessary, take the logarithm, and hold out pixels."""
        (scan,), output, watch = scans, run.output, run.watch
        prepared = prepare(run.calibrated or scan, run)
        response, split, why = _against_correlation(prepared, run, split)
        watch.note(why)
        noisy, floored = log_radiographs(prepared, response, output.work and output.work / "radiographs.npy", watch)
        some = np.array(noisy[0, :: max(1, scan.n_views // 8), None])
        split = split.on_radiographs(torch.from_numpy(some))
        data = TrainingVolume.with_held_out(noisy, split, np.isfinite(noisy[0, 0]).astype(np.float32))
        facts = facts_of(prepared, data, split)
        return cls(run, split, facts, prepared, response, noisy, data, why, floored)

    @property
    def taught_by(self) -> TrainingVolume | None:
        """The training data."""
        return self.data

    def learn(self, data: TrainingData | None = None) -> tuple[Denoiser, Fitted]:
        """Train the network on hidden pixels."""
        images = (self.noisy.shape[1], self.noisy.shape[2], self.noisy.shape[3])
        subject = Subject(Scale(0.0, 1.0), images, self.prepared.plan.tile, self.facts)
        return learn(data or self.data, self.split, Recipe.of(self.run, self.facts), subject, self.run)

    def adopted(self, denoiser: Denoiser) -> Denoiser:
        """Return a trained model unchanged, as line integrals are not scaled."""
        return dataclasses.replace(denoiser, tile=self.prepared.plan.tile)

    def judge(self, denoiser: Denoiser) -> Evidence:
        """Estimate the error on hidden pixels."""
        return Evidence.measure(denoiser, self.data)

    def apply(self, denoiser: Denoiser, fitted: Fitted) -> Result:
        """Denoise the radiographs, and reconstruct them slab by slab."""
        prepared, output, evidence = self.prepared, self.run.output, self.judge(denoiser)
        before = prepared.source()
        rows = slice(*prepared.plan.slabs[0])
        first, changed = before(rows)
        edges = histogram_edges(Scale.of(first[0], prepared.weight))
        if not self.gains(evidence):
            return self.given_back(prepared, denoiser, fitted, evidence, self._judged(), edges, (self.why,))
        after = self._denoised(denoiser)
        output.open_volume(prepared.grid, {"source": prepared.scan.source, "method": called(type(self.split))})
        held = Held(first, changed, range(rows.start, rows.stop)) if len(prepared.plan.slabs) == 1 else before
        work = Reconstruct(prepared.rows, after.rows.start, prepared.weight, edges)
        self.run.over(prepared.plan.slabs, SlabTask((held, after.source()), work, output), "reconstructing")
        gathered = gather(output.records(prepared.slabs), edges)
        return self._told(denoiser, fitted, evidence, after, gathered)

    def _denoised(self, denoiser: Denoiser) -> Prepared:
        """Return the denoised radiographs, ready for reconstruction."""
        prepared, settings, scan = self.prepared, self.run.settings, self.prepared.scan
        with self.run.watch.stage("denoising", scan.n_views) as advance:
            frames = DenoisedRadiographs(self.noisy, denoiser, advance, settings.correction.line_integrals)
            clean = as_scan(prepared, frames, self.response, settings.reblur)
            clean = self.run.output.keep_scan("radiographs.h5", clean)
        try:
            calibration = calibrate(clean, usable(finished_correction(settings.correction), clean)[0])
        except NoiseError as error:
            raise NoiseError(
                f"the denoised radiographs must be physically possible, got: {error.args[0].split(';')[0]}: "
                "the network has learned too little from this scan; give a longer --budget, or use noise2inverse"
            ) from None
        after = dataclasses.replace(
            prepared,
            scan=clean,
            calibration=calibration,
            rows=prepared.rows if len(prepared.detector_rows) == scan.n_rows else range(len(prepared.rows)),
            algorithm=settings.reconstruction.for_beam(clean.geometry),
        )
        return with_choices(after, self.run, "denoised")  # with less noise, a better reconstruction is possible

    def _judged(self) -> Judged:
        """Return a description of the validation."""
        some = self.noisy[0, :: max(1, self.prepared.scan.n_views // 16)]
        return Judged(_DOMAIN, float(np.subtract(*np.nanpercentile(some, (99.5, 0.5)))), _RANGE)

    def _told(
        self, denoiser: Denoiser, fitted: Fitted, evidence: Evidence, after: Prepared, gathered: Gathered
    ) -> Result:
        """Collect what is to be reported about the volume."""
        prepared = self.prepared
        found = figures(evidence, gathered, fitted, self._judged())
        # in the training data, as whitened counts may be negative
        found["correction"] = dataclasses.replace(found["correction"], floored=self.floored)
        halves = Halves.of_views(prepared, after).figures(prepared.grid.voxel_size)
        metrics = ScanMetrics(
            **found,
            **circumstances(prepared, denoiser) | {"reconstruction": reconstructed_by(after)},
            evidence=with_dependency(halves, prepared, self.response, denoiser),
        )
        told = dataclasses.replace(prepared, algorithm=after.algorithm)
        return self.result(denoiser, fitted, metrics, gathered, prepared=told, notes=(self.why,))


@dataclass(frozen=True, eq=False)
class Reconstruct:
    """Reconstructs slabs of denoised radiographs, and of the measured ones for comparison.

    Parameters
    ----------
    rows
        Detector rows of the volume.
    begin
        Row of the denoised radiographs that corresponds to the first slice.
    weight
        Weight ``(y, x)``, one in the field of view.
    edges
        Bin edges of the histogram.
    """

    rows: range
    begin: int
    weight: Slice
    edges: np.ndarray

    def places(self, slab: Slab) -> list[Slab]:
        """Return the slices of the slab."""
        return [(slab[0] - self.rows.start, slab[1] - self.rows.start)]

    def __call__(self, source: Any, slab: Slab, advance: Advance) -> Iterator[Finished]:
        """Reconstruct a slab from both the measured and the denoised radiographs."""
        measured, denoised = source
        ((z0, z1),) = self.places(slab)
        before, changed = measured(slice(*slab))
        found = denoised(slice(self.begin + z0, self.begin + z1))[0][0]
        planes = Planes((len(self.rows), *self.weight.shape))
        yield Finished(z0, found, SlabRecord.of(z0, planes, before[0], found, self.weight, self.edges, changed))
        advance(z1 - z0)


def _against_correlation(prepared: Prepared, run: Run, split: Split) -> tuple[PointResponse | None, Split, str]:
    """Return the point response to deconvolve first, if any, the split to use, and the reason.

    If the response cannot be inverted, neighbours with correlated noise are hidden, if the method can do so.
    """
    whiten = run.settings.whiten
    if whiten == "never":
        return None, split, "The radiographs were not whitened, as requested."
    found = run.diagnosis or diagnose(prepared.scan, calibration=prepared.calibration)
    plain = found.verdict("noise2self")
    if whiten == "auto" and plain.answer == "valid":
        return None, split, f"The radiographs were not whitened: {plain.reason}"
    verdict = found.verdict("noise2self after decorrelation")
    if found.response is not None and verdict.answer != "not valid":
        said = f"The radiographs were whitened ({amplification(found.response)}): {verdict.reason}"
        reach = max(max(kernel.shape) // 2 for kernel in found.response.kernels)
        return found.response, split.watching(reach), said  # at all of its lags, where correlation may remain
    if whiten == "always":
        raise NoiseError(f"the radiographs must have a point response that can be deconvolved: {verdict.reason}")
    reach = correlated_reach(found.before.lags)
    wider = split.hiding_more(reach) if plain.answer == "not valid" and reach else None
    if wider is not None:
        said = (
            f"The radiographs were not whitened: {verdict.reason} Instead, the {2 * reach + 1} x {2 * reach + 1} "
            "pixels around each target, whose noise is correlated with it, were hidden."
        )
        return None, wider, said
    return None, split, f"The radiographs were not whitened, and should not be: {verdict.reason} {verdict.advice}"


_LITTLE = 0.02  # largest correlation that a blind spot may leave visible


def correlated_reach(lags: Float[np.ndarray, "_ _"]) -> int:
    """Return the distance in pixels up to which noise is correlated.

    Parameters
    ----------
    lags
        Auto-correlation, with lag 0 in the centre.

    Examples
    --------
    >>> correlated_reach(np.array([[0.0, 0.1, 0.0], [0.1, 1.0, 0.1], [0.0, 0.1, 0.0]]))
    1
    """
    middle = np.array(lags.shape) // 2
    strong = np.argwhere(np.abs(lags / lags[tuple(middle)]) > _LITTLE) - middle
    return int(np.abs(strong).max())
