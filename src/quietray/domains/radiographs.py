"""Denoise first: whiten, hide pixels in the log domain, then reconstruct."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from quietray.assessment.evidence import Evidence
from quietray.assessment.halves import Halves
from quietray.assessment.open_beam import with_dependency
from quietray.detector.correction.correct import calibrate
from quietray.detector.findings import amplification
from quietray.detector.response.prf import PointResponse
from quietray.diagnose import diagnose
from quietray.domains.common import circumstances, facts_of, prepared_for, recipe_of, reconstruction_facts, result_of
from quietray.domains.log_radiographs import DenoisedRadiographs, as_scan, finished_correction, log_radiographs
from quietray.errors import NoiseError
from quietray.inference.denoiser import Denoiser, Scale
from quietray.preparation.prepare import Prepared, usable, with_choices
from quietray.reconstruct.choose import suited
from quietray.result import Result, figures, gather, histogram_edges
from quietray.running.output import Output
from quietray.running.settings import Settings
from quietray.running.slabs import SlabRecord
from quietray.running.watch import Watch
from quietray.scan import Scan
from quietray.settings import called
from quietray.splits import Noise2Self, Noise2Void, Noisier2Noise
from quietray.splits.base import Split
from quietray.training.batches import TrainingVolume
from quietray.training.learn import learn
from quietray.training.loop import Fitted, TrainingData

__all__ = ["Measured", "applied_to_radiographs", "denoise_radiographs", "learned_from", "measured"]


@dataclass(frozen=True, eq=False)
class Measured:
    """What denoising radiographs starts from.

    Parameters
    ----------
    prepared
        The scan.
    response
        Point response that was undone, if any.
    split
        The method; it hides more where noise is shared and could not be made white.
    noisy
        Line integrals ``(1, view, row, col)``; NaN where a pixel is bad.
    data
        `noisy`, with pixels held out.
    why
        What was done about the correlation, in a sentence.
    floored
        Share of the samples that were raised to a floor before the logarithm.
    """

    prepared: Prepared
    response: PointResponse | None
    split: Split
    noisy: Float[np.ndarray, "1 view row col"]
    data: TrainingVolume
    why: str
    floored: float


def denoise_radiographs(scan: Scan, settings: Settings, output: Output, watch: Watch) -> Result:
    """Whiten the radiographs, train on hidden pixels, denoise them and reconstruct."""
    assert isinstance(settings.method, Split)
    start = measured(scan, settings.method, settings, output, watch)
    denoiser, fitted = learned_from(start, start.data, settings, output, watch)
    return applied_to_radiographs(start, denoiser, fitted, settings, output, watch)


def measured(scan: Scan, split: Split, settings: Settings, output: Output, watch: Watch) -> Measured:
    """Calibrate, undo the point response where it is called for, take the logarithm, hold pixels out."""
    prepared = prepared_for(scan, settings, 1, 1, output, watch)
    response, split, why = _against_correlation(prepared, settings.whiten, split)
    watch.note(why)
    noisy, floored = log_radiographs(prepared, response, output.work and output.work / "radiographs.npy", watch)
    if isinstance(split, Noisier2Noise):
        some = np.array(noisy[0, :: max(1, scan.n_views // 8), None])
        split = split.measured(torch.from_numpy(some))
    data = TrainingVolume.with_held_out(noisy, split, np.isfinite(noisy[0, 0]).astype(np.float32))
    return Measured(prepared, response, split, noisy, data, why, floored)


def learned_from(
    start: Measured, data: TrainingData, settings: Settings, output: Output, watch: Watch
) -> tuple[Denoiser, Fitted]:
    """Train the network on `data`."""
    prepared, scale = start.prepared, Scale(0.0, 1.0)
    images = (start.noisy.shape[1], start.noisy.shape[2], start.noisy.shape[3])
    tile, facts = prepared.plan.tile, facts_of(prepared, start.data, start.split)
    return learn(data, scale, start.split, recipe_of(settings), images, tile, facts, output, watch)


def applied_to_radiographs(
    start: Measured, denoiser: Denoiser, fitted: Fitted, settings: Settings, output: Output, watch: Watch
) -> Result:
    """Judge the denoiser on what was held out, denoise the radiographs and reconstruct them."""
    prepared, response, noisy, split, why = start.prepared, start.response, start.noisy, start.split, start.why
    scan = prepared.scan
    evidence = Evidence.measure(denoiser, start.data)
    with watch.stage("denoising", scan.n_views) as advance:
        frames = DenoisedRadiographs(noisy, denoiser, advance)
        clean = output.keep_scan("radiographs.h5", as_scan(prepared, frames, response, settings.reblur))

    after = dataclasses.replace(
        prepared,
        scan=clean,
        calibration=calibrate(clean, usable(finished_correction(settings.correction), clean)[0]),
        rows=prepared.rows if len(prepared.detector_rows) == scan.n_rows else range(len(prepared.rows)),
        algorithm=suited(settings.reconstruction, clean.geometry),
    )
    after = with_choices(after, output, watch, "denoised")  # with less noise there is more to be had from them
    sources = prepared.source(), after.source()
    output.open_volume(prepared.grid, {"source": scan.source, "method": called(type(split))})
    edges = None
    with watch.stage("reconstructing", len(prepared.rows)) as advance:
        for (first, last), (z0, z1) in zip(prepared.plan.slabs, prepared.slabs, strict=True):
            before, changed = sources[0](slice(first, last))
            if edges is None:
                edges = histogram_edges(Scale.of(before[0], prepared.weight))
            if not output.done(z0, z1):
                slab = sources[1](slice(after.rows.start + z0, after.rows.start + z1))[0][0]
                middle, weight = len(prepared.rows) // 2, prepared.weight
                output.write(slab, SlabRecord.of(z0, middle, before[0], slab, weight, edges, changed))
            advance(last - first)
    assert edges is not None
    gathered = gather(output.records(prepared.slabs), edges)
    some = noisy[0, :: max(1, scan.n_views // 16)]
    span = float(np.subtract(*np.nanpercentile(some, (99.5, 0.5))))
    metrics = figures(evidence, gathered, fitted, span) | circumstances(prepared, denoiser)
    metrics |= reconstruction_facts(after)
    metrics["correction"] |= {"floored": start.floored}  # of what was learned from: whitened counts may be negative
    halves = Halves.of_views(prepared, after)
    metrics["evidence"] = with_dependency(halves.figures(prepared.grid.voxel_size), prepared, response, denoiser)
    return result_of(output, denoiser, metrics, (*prepared.notes, why), gathered, fitted)


def _against_correlation(prepared: Prepared, whiten: str, split: Split) -> tuple[PointResponse | None, Split, str]:
    """Return the point response to undo before pixels are hidden, if any, the split to use, and why.

    Where the response cannot be undone, Noise2Self hides as many neighbours as share their noise.
    """
    if whiten == "never":
        return None, split, "The radiographs were not whitened, as asked."
    found = diagnose(prepared.scan, calibration=prepared.calibration)
    plain = found.verdict("noise2self")
    if whiten == "auto" and plain.answer == "valid":
        return None, split, f"The radiographs were not whitened: {plain.reason}"
    verdict = found.verdict("noise2self after decorrelation")
    if found.response is not None and verdict.answer != "not valid":
        said = f"The radiographs were whitened ({amplification(found.response)}): {verdict.reason}"
        return found.response, _watching(split, found.response), said
    if whiten == "always":
        raise NoiseError(f"the radiographs must have a point response that can be undone: {verdict.reason}")
    reach = correlated_reach(found.before.lags)
    if isinstance(split, Noise2Self) and split.footprint == 0 and plain.answer == "not valid" and reach:
        wider = Noise2Self.hiding(reach, split.inference)
        said = (
            f"The radiographs were not whitened: {verdict.reason} Instead, the {2 * reach + 1} x {2 * reach + 1} "
            "pixels around each target were hidden, which share its noise."
        )
        return None, wider, said
    return None, split, f"The radiographs were not whitened, and should not be: {verdict.reason} {verdict.advice}"


def _watching(split: Split, response: PointResponse) -> Split:
    """Return the split that watches its residuals at all lags of the response: there, correlation may be left."""
    if not isinstance(split, Noise2Self | Noise2Void) or split.watched > 1:
        return split
    return dataclasses.replace(split, watched=max(1, max(max(kernel.shape) // 2 for kernel in response.kernels)))


_LITTLE = 0.02  # correlation that a blind spot may leave visible


def correlated_reach(lags: Float[np.ndarray, "_ _"]) -> int:
    """Return how many pixels away noise is still shared.

    Parameters
    ----------
    lags
        Auto-correlation; lag 0 in the middle.

    Examples
    --------
    >>> correlated_reach(np.array([[0.0, 0.1, 0.0], [0.1, 1.0, 0.1], [0.0, 0.1, 0.0]]))
    1
    """
    middle = np.array(lags.shape) // 2
    strong = np.argwhere(np.abs(lags / lags[tuple(middle)]) > _LITTLE) - middle
    return int(np.abs(strong).max())
