"""Denoising of image series without reconstruction: CT slices, radiographs, other images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quietray.assessment.evidence import Evidence
from quietray.assessment.figures import ImageFacts, ImageMetrics, Memory, NoiseFacts
from quietray.assessment.halves import Halves
from quietray.assessment.image_warnings import image_warnings
from quietray.detector.correction.correct import RowCounts
from quietray.detector.noise.calm import FlatNoise
from quietray.domains.base import Domain, settled
from quietray.domains.common import method_facts
from quietray.domains.image_methods import (
    FINE_TUNING,
    as_volume,
    image_split,
    noise_models,
    noise_of,
    pseudo_ct,
    scale_of_model,
)
from quietray.errors import SettingsError
from quietray.images import ImageSeries
from quietray.images import require_alike as require_same_size
from quietray.inference.denoiser import Denoiser, Scale
from quietray.preparation.alike import require_alike
from quietray.result import Gathered, Judged, Result, figures, gather, histogram_edges
from quietray.running.facts import peak_memory, versions
from quietray.running.ledger import SlabRecord
from quietray.running.plan import available_memory
from quietray.running.planes import Planes
from quietray.running.run import Run
from quietray.settings import called
from quietray.splits.base import Split
from quietray.training.batches import TrainingVolume
from quietray.training.learn import Recipe, Subject, learn, tuned
from quietray.training.loop import Fitted, TrainingData, judge_held_out
from quietray.training.start import DEFAULT, start_of
from quietray.types import Volume

__all__ = ["TILE", "ImageDomain", "facts_of_images"]

TILE = 1024
_AIR = -1000.0  # in HU
_VARIANCE = 0.1  # relative error of the noise power measured on a single image: 9 % for a simulated CT
_TUNED_ON = 2**18  # in pixels, of whole images
_SLICES = (
    "These are slices of a reconstructed volume. Their noise is correlated between neighbouring pixels and along "
    "streaks, and there are no projections to separate it from the object: methods that need projections, such as "
    "noise2inverse, cannot be used. Possible are recorrupted, which takes the measured correlation into account; the "
    "filters; and noise2noise with a second reconstruction, such as of the other half of the views (--repeats). If you "
    "still have the projections, denoise them instead: the result is better."
)
_DOMAINS = {
    "left-out parts": "held-out images, each judged by the measurements that it was not computed from",
    "Stein's estimate": "held-out images, by Stein's estimate with the measured auto-covariance of the noise",
    "hidden pixels": "hidden pixels, each judged by what was measured there, which is right where noise is white",
}


@dataclass(frozen=True, eq=False)
class ImageDomain(Domain):
    """Data for denoising images; the method is adapted to the number of measurements and to their noise.

    Parameters
    ----------
    stacks
        The series, and further measurements of the same images.
    data
        Scaled data, partly held out.
    scale
        Scale of the data.
    noise
        Measured noise.
    why
        Description of how the error is estimated, and why.
    model
        The trained model that the run starts from.
    """

    stacks: Sequence[ImageSeries]
    data: TrainingVolume
    scale: Scale
    noise: FlatNoise | None
    why: str
    model: Denoiser | None = None

    @classmethod
    def bound(cls, run: Run, scans: Sequence[ImageSeries]) -> Split:
        """Return the method for such images; for a filter, the method that estimates its error."""
        return _bound(run, scans)[0]

    @classmethod
    def prepare(
        cls, run: Run, scans: Sequence[ImageSeries], split: Split | None = None, taught: bool = True
    ) -> ImageDomain:
        """Scale the images, measure their noise, and hold data out; choose the split if none is given."""
        found, why, noise, scale, model, said = _bound(run, scans)
        scans = [dataclasses.replace(scans[0], notes=(*scans[0].notes, *said)), *scans[1:]]
        split = split or found
        parts, weight = np.stack([stack.images for stack in scans]), scans[0].weight
        data = TrainingVolume.with_held_out(scale.apply(parts), split, weight)
        if not run.settings.method.trained:  # the held-out band of a few images may lack the edges that are blurred
            data = dataclasses.replace(data, held_out_band=None)
        facts = facts_of_images(scans[0], noise, scale)
        return cls(run, split, facts, scans, data, scale, noise, why, model)

    @classmethod
    def denoise(cls, run: Run, scans: Sequence[ImageSeries]) -> Result:
        """Prepare, learn, apply."""
        series = scans[0]
        if series.modality == "CT" and series.step is not None and not series.projections and len(scans) == 1:
            scans = [dataclasses.replace(series, notes=(_SLICES, *series.notes))]
        start = cls.prepare(run, scans)
        for note in (*start.series.notes, start.why):
            run.watch.note(note)
        return start.apply(*start.learn())

    @property
    def series(self) -> ImageSeries:
        """The first measurement, whose format is used for the result."""
        return self.stacks[0]

    @property
    def taught_by(self) -> TrainingVolume | None:
        """The training data."""
        return self.data

    def learn(self, data: TrainingData | None = None) -> tuple[Denoiser, Fitted]:
        """Train the network, or tune the filter."""
        n, height, width = self.series.images.shape
        subject, run = Subject(self.scale, (n, height, width), TILE, self.facts), self.run
        if not run.settings.method.trained:
            count = max(1, min(4, _TUNED_ON // (height * width)))
            amount = count, min(_TUNED_ON, count * height * width)
            return tuned(self.data, self.split, run.filter, subject, run, amount)
        if self.split.needs_start:
            return self._learned_on(subject)
        return learn(data or self.data, self.split, Recipe.of(run), subject, run)

    def _learned_on(self, subject: Subject) -> tuple[Denoiser, Fitted]:
        """Fine-tune a trained model; the original weights are kept if it does not improve."""
        model, training, facts = self.model, self.run.settings.training, dict(self.facts)
        assert model is not None
        gentle = dataclasses.replace(training, learning_rate=min(training.learning_rate, FINE_TUNING))
        recipe = dataclasses.replace(Recipe.of(self.run), network=model.trained_architecture, training=gentle)
        facts |= {"trained_on": [*model.facts.get("trained_on", [dict(model.facts)]), dict(facts)]}
        denoiser, fitted = learn(self.data, self.split, recipe, dataclasses.replace(subject, facts=facts), self.run)
        before = judge_held_out(self.split, dataclasses.replace(model, symmetries=1).evaluate, self.data, model.device)
        if before.error <= fitted.best.error:
            self.run.watch.note(
                "Training on its own output did not improve the model, so its original weights were kept."
            )
            denoiser.network.load_state_dict(model.network.state_dict())
        return denoiser, fitted

    def adopted(self, denoiser: Denoiser) -> Denoiser:
        """Return a trained model with its own scale, as pixel values mean the same everywhere."""
        return dataclasses.replace(denoiser, tile=TILE)

    def judge(self, denoiser: Denoiser, share: float = 1.0) -> Evidence:
        """Estimate the error with the method; Stein's estimate also includes an error of the noise power.

        Parameters
        ----------
        denoiser
            Denoiser with the method for the estimate.
        share
            Fraction of the images it was applied to; the others were left unchanged.
        """
        # for a single measurement, the noise is not known well enough for the object: docs/judging.md
        air = _AIR if self.series.unit == "HU" and denoiser.split.judged_by == "left-out parts" else None
        found = Evidence.measure(denoiser, self.data, air).shared(share)
        return found.raised(0.0, _VARIANCE if denoiser.split.judged_by == "Stein's estimate" else 0.0)

    def apply(self, denoiser: Denoiser, fitted: Fitted) -> Result:
        """Denoise the images; padding remains unchanged."""
        series = self.series
        parts = self.scale.undo(self.data.parts.copy())
        with self.run.watch.stage("denoising", series.n_images) as advance:
            clean = denoiser.slab(parts, 0, series.n_images, advance)
        if series.padding is not None:
            clean[series.padding] = series.images[series.padding]
        return self.told(denoiser, fitted, np.asarray(clean), self.judge(denoiser), denoiser.split)

    def told(self, denoiser: Denoiser, fitted: Fitted, clean: Volume, evidence: Evidence, judge: Split) -> Result:
        """Write the images, and collect what is to be reported.

        Parameters
        ----------
        denoiser, fitted
            The denoiser, and the record of its training.
        clean
            The denoised images.
        evidence
            Estimated quality.
        judge
            Method that estimated the error.
        """
        edges, series, run = histogram_edges(self.scale), self.series, self.run
        noisy = np.asarray(np.mean([stack.images for stack in self.stacks], axis=0, dtype=np.float32))
        planes = Planes((series.n_images, *series.weight.shape))
        record = SlabRecord.of(0, planes, noisy, clean, series.weight, edges, RowCounts())
        record = record.seen_through(evidence.mask, noisy, clean, series.weight, planes.middle)
        gathered = _planes(gather([record], edges), series)
        judged = Judged(_DOMAINS[judge.judged_by], None, "0.5 to 99.5 percentile of the denoised images")
        several = len(self.stacks) > 1
        metrics = ImageMetrics(
            **figures(evidence, gathered, fitted, judged),
            **self._circumstances(denoiser),
            evidence=Halves.of_parts(denoiser, self.data).figures(series.pixel_size) if several else None,
        )
        origin, what = series.origin, denoiser.split if denoiser.trained else denoiser.architecture
        if origin is not None:
            run.output.keep_folder("series", lambda place: origin.write(place, clean, f"quietray {called(type(what))}"))
        settings = dataclasses.replace(settled(run.settings, denoiser, fitted), rotation_axis=None)
        warnings, notes = image_warnings(metrics), (*series.notes, self.why)
        return Result(
            clean, denoiser, metrics, warnings, notes, gathered, fitted.history, run.output.folder, settings=settings
        )

    def _circumstances(self, denoiser: Denoiser) -> dict[str, Any]:
        series, noise = self.series, self.noise
        n, height, width = series.images.shape
        found = None
        if noise is not None:
            between = noise.between if noise.across else None
            found = NoiseFacts(noise.sd, noise.neighbours, noise.reach, noise.source, between)
        return {
            "scan": ImageFacts(
                source=series.source,
                modality=series.modality,
                images=n,
                rows=height,
                columns=width,
                unit=series.unit,
                pixel_size_mm=series.pixel_size,
                window=None if series.window is None else list(series.window),
                spacing_mm=series.step,
            ),
            "noise": found,
            "method": method_facts(denoiser, "images", len(self.stacks)),
            "memory": Memory(available_memory(), None, peak_memory(), 1),
            "versions": versions(),
        }


def _bound(
    run: Run, stacks: Sequence[ImageSeries]
) -> tuple[Split, str, FlatNoise | None, Scale, Denoiser | None, tuple[str, ...]]:
    """Return the adapted method with the reason, the noise of the images, their scale, the initial model, and notes."""
    settings, series = run.settings, stacks[0]
    method: Any = settings.method
    require_same_size(stacks)
    _require_one_scene(stacks)
    start = None if settings.start == DEFAULT else start_of(settings.start, method, settings.network)
    model = None if start is None else start.model
    slices, said = _slices_of(run, series)
    scale = _scale_of(stacks) if model is None else scale_of_model(model, series)
    noise = noise_of(stacks, slices > 1)
    if method.needs_start and len(stacks) > 1:
        raise SettingsError(
            f"{called(type(method))} must have one measurement of the images, got {len(stacks)}; leave --repeats out"
        )
    split: Split
    if method.needs_start:
        split, why = pseudo_ct(method, model, noise_models(settings.start), noise, series)
    else:
        split, why = image_split(method, len(stacks), noise, scale, slices)
    return split, why, noise, scale, model, (said,) if said else ()


def _slices_of(run: Run, series: ImageSeries) -> tuple[int, str]:
    """Return how many neighbouring slices a network may see at most, and what was decided; see :func:`as_volume`."""
    output = run.output
    if run.settings.network.dimensions == 3:
        return 1, ""
    if (
        output.resumed
        and output.noted("slices") is None
        and output.checkpoint is not None
        and output.checkpoint.exists()
    ):
        return 1, ""  # begun by a version without neighbouring slices
    slices, said = as_volume(series, run.settings.method)
    return int(output.decide("slices", lambda: {"slices": slices})["slices"]), said


def _require_one_scene(stacks: Sequence[ImageSeries]) -> None:
    """Raise if repeated measurements show different images, or the same measurement twice."""
    middle = stacks[0].n_images // 2
    for number, other in enumerate(stacks[1:], 1):
        require_alike(
            stacks[0].images[middle],
            other.images[middle],
            f"image {middle} of the series and of repeat {number}",
            "give measurements of the same images, or denoise each series by itself",
        )


def _scale_of(stacks: Sequence[ImageSeries]) -> Scale:
    return Scale.of(np.stack([stack.images for stack in stacks]).mean(axis=0), stacks[0].weight)


def facts_of_images(series: ImageSeries, noise: FlatNoise | None, scale: Scale) -> dict[str, Any]:
    """Return the facts to store with a model about the images it was trained on."""
    return {
        "domain": "images",
        "source": series.source,
        "unit": series.unit,
        "voxel_size_mm": series.pixel_size,
        "noise_level": None if noise is None else noise.sd / (scale.high - scale.low),
        "correlation": None if noise is None else noise.neighbours,
    }


def _planes(gathered: Gathered, series: ImageSeries) -> Gathered:
    """Leave out cuts across images that are not slices of one volume."""
    if series.step is not None:
        return gathered
    stacks = {name: one for name, one in gathered.stacks.items() if name == "axial"}
    return dataclasses.replace(gathered, cuts={"axial": gathered.cuts["axial"]}, stacks=stacks)
