"""Denoising of image series without reconstruction: CT slices, radiographs, other images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from quietray.assessment.evidence import Evidence
from quietray.assessment.figures import ImageFacts, ImageMetrics, Memory, NoiseFacts
from quietray.assessment.halves import Halves
from quietray.assessment.image_warnings import image_warnings
from quietray.assessment.withheld import Reason, SeemingNoise, UnknownNoise
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
from quietray.images import ImageSeries, SlabOrigin
from quietray.images import require_alike as require_same_size
from quietray.inference.denoiser import Denoiser, Scale
from quietray.io import read_images
from quietray.metrics.surroundings import ObjectMask
from quietray.networks import Architecture
from quietray.preparation.alike import require_alike
from quietray.result import Gathered, Judged, Result, figures, gather, histogram_edges
from quietray.running.facts import peak_memory, versions
from quietray.running.ledger import SlabRecord
from quietray.running.plan import Plan, plan_images, resident_memory
from quietray.running.planes import Planes
from quietray.running.run import Run
from quietray.running.slabs import Advance, Finished, Slab, SlabTask, Staged
from quietray.settings import called, parse_bytes
from quietray.splits.base import Split
from quietray.splits.served import WINDOW
from quietray.training.batches import TrainingVolume
from quietray.training.learn import Recipe, Subject, learn, tuned
from quietray.training.loop import Fitted, TrainingData, judge_held_out
from quietray.training.start import DEFAULT, start_of
from quietray.types import Parts, Volume

__all__ = ["TILE", "DenoiseImages", "ImageDomain", "ImageFiles", "facts_of_images", "plan_of"]

TILE = 1024
_AIR = -1000.0  # in HU
_VARIANCE = 0.1  # relative error of the noise power measured on a single image, even where all parts are alike
_TUNED_ON = 2**18  # in pixels, of whole images
_SLICES = (
    "These are slices of a reconstructed volume. Their noise is correlated between neighbouring pixels and along "
    "streaks, and there are no projections to separate it from the object: methods that need projections, such as "
    "noise2inverse, cannot be used. These can be used: recorrupted, which takes the measured correlation into account; "
    "the filters; and noise2noise with a second reconstruction, such as of the other half of the views (--repeats). If "
    "you still have the projections, denoise them instead: the result is better."
)
_DOMAINS = {
    "left-out parts": "held-out images, each compared with the measurements that it was not computed from",
    "Stein's estimate": "held-out images, by Stein's estimate with the measured auto-covariance of the noise",
    "hidden pixels": "hidden pixels, each compared with its measured value, which is valid for white noise",
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
    plan
        Which images are trained on, and which are denoised at a time.
    """

    stacks: Sequence[ImageSeries]
    data: TrainingVolume
    scale: Scale
    noise: FlatNoise | None
    why: str
    model: Denoiser | None
    plan: Plan

    @classmethod
    def bound(cls, run: Run, scans: Sequence[ImageSeries]) -> Split:
        """Return the method for such images; for a filter, the method that estimates its error."""
        return cls.prepare(run, scans).split

    @classmethod
    def prepare(
        cls, run: Run, scans: Sequence[ImageSeries], split: Split | None = None, taught: bool = True
    ) -> ImageDomain:
        """Scale the images, measure their noise, and hold data out; choose the split if none is given."""
        series, settings = scans[0], run.settings
        require_same_size(scans)
        _require_one_scene(scans)
        start = None if settings.start == DEFAULT else start_of(settings.start, settings.method, settings.network)
        model = None if start is None or start.shipped else start.model
        if settings.method.needs_start and len(scans) > 1:
            raise SettingsError(
                f"{called(type(settings.method))} must have one measurement of the images, got {len(scans)}; leave "
                "--repeats out"
            )
        slices, said = _slices_of(run, series)
        plan = plan_of(run, scans, min(slices, getattr(settings.method, "slices", None) or WINDOW))
        parts = ImageFiles(tuple(scans)).chosen(plan.windows)
        scale = Scale.of(parts.mean(axis=0), series.weight) if model is None else scale_of_model(model, series)
        noise = noise_of(scans, slices > 1)
        found, why = _split_of(run, scans, noise, scale, model, slices)
        split = split or found
        targets = plan.targets(split.neighbourhood.slices // 2)
        data = TrainingVolume.with_held_out(scale.apply(parts), split, series.weight, targets)
        if not settings.method.trained:  # the held-out band of a few images may lack the edges that are blurred
            data = dataclasses.replace(data, held_out_band=None)
        told = (*series.notes, *((said,) if said else ()))
        told += () if plan.in_one_piece else (f"The images are read slab by slab. Plan: {plan.describe()}.",)
        scans = [dataclasses.replace(series, notes=told), *scans[1:]]
        return cls(run, split, facts_of_images(series, noise, scale), scans, data, scale, noise, why, model, plan)

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
        subject, run = Subject(self.scale, (n, height, width), self.plan.tile, self.facts), self.run
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
        return dataclasses.replace(denoiser, tile=self.plan.tile)

    def judge(self, denoiser: Denoiser, share: float = 1.0) -> Evidence:
        """Estimate the error with the method, and for a single measurement, the error of the noise power.

        Parameters
        ----------
        denoiser
            Denoiser with the method for the estimate.
        share
            Fraction of the images it was applied to; the others were left unchanged.
        """
        # for a single measurement, the noise is not known well enough for the object: docs/judging.md
        air = _AIR if self.series.unit == "HU" and denoiser.split.judged_by == "left-out parts" else None
        found = Evidence.measure(denoiser, self.data, air)
        if denoiser.split.judged_by != "left-out parts":
            found = found.widened(math.hypot(_VARIANCE, 0.0 if self.noise is None else self.noise.unlike))
        return found.shared(share)

    def unknown(self, judge: Split) -> Reason | None:
        """Return why this method cannot estimate the error here, or only underestimate it; None if it can."""
        noise, hidden = self.noise, judge.judged_by == "hidden pixels"
        if judge.judged_by == "left-out parts":
            return None
        if noise is None or not noise.uniform:
            kind = UnknownNoise if noise is None or hidden else SeemingNoise
            return kind("the images have too few uniform regions to measure their noise in, without structure")
        if hidden and noise.reach > getattr(judge, "noise_reach", 0):
            return UnknownNoise(
                f"the noise of neighbouring pixels correlates by {noise.neighbours:+.2f}, so that hidden pixels can be "
                "predicted with their noise"
            )
        return None

    def gains(self, evidence: Evidence) -> bool:
        """Return whether to apply the denoiser: also if it is not known at all whether it gains anything."""
        unknown = self.unknown(self.split)
        return (unknown is not None and not unknown.most) or super().gains(evidence)

    def apply(self, denoiser: Denoiser, fitted: Fitted) -> Result:
        """Denoise the images; padding remains unchanged."""
        evidence = self.judge(denoiser)
        back = not self.gains(evidence)
        kind = GivenBackImages if back else DenoiseImages
        work = kind(self.series, denoiser, histogram_edges(self.scale), evidence.mask)
        return self.told(denoiser, fitted, *self.made(work), evidence, denoiser.split, given_back=back or None)

    def made(self, work: DenoiseImages) -> tuple[Any, Gathered]:
        """Denoise all images, write them as they were read, and return them with the combined records.

        Volumes that do not fit into memory are written slab by slab, and returned lazily.
        """
        plan, output, origin, series = self.plan, self.run.output, self.series.origin, self.series
        made_by, edges = work.made_by, work.edges
        records: list[SlabRecord] = []
        here = dataclasses.replace(self.run, executor=Staged())  # all records are collected in this process

        def fill(write: Callable[[int, Volume], None]) -> None:
            task = SlabTask(ImageFiles(tuple(self.stacks)), work, Filled(write, records))
            here.over(plan.slabs, task, "denoising")

        if not _kept_in_memory(self.run, series) and not plan.in_one_piece:
            assert isinstance(origin, SlabOrigin)
            assert output.folder is not None

            def written(place: Path) -> None:
                with origin.opened(place, made_by) as writer:
                    fill(writer.write)

            output.keep_folder("series", written)
            return read_images(output.folder / "series").images, gather(records, edges)
        clean = np.empty(series.images.shape, np.float32)

        def copied(first: int, slab: Volume) -> None:
            clean[first : first + len(slab)] = slab

        fill(copied)
        if origin is not None:
            output.keep_folder("series", lambda place: origin.write(place, clean, made_by))
        return clean, gather(records, edges)

    def told(
        self,
        denoiser: Denoiser,
        fitted: Fitted,
        clean: Any,
        gathered: Gathered,
        evidence: Evidence,
        judge: Split,
        given_back: bool | None = None,
    ) -> Result:
        """Collect what is to be reported.

        Parameters
        ----------
        denoiser, fitted
            The denoiser, and the record of its training.
        clean, gathered
            The denoised images and their records, from :meth:`made`.
        evidence
            Estimated quality.
        judge
            Method that estimated the error.
        given_back
            True if `clean` are the images without denoising.
        """
        series, run = self.series, self.run
        gathered = _planes(gathered, series)
        span = "0.5 to 99.5 percentile of the denoised images"
        judged = Judged(_DOMAINS[judge.judged_by], data_range_is=span, unknown=self.unknown(judge))
        halves = None
        if len(self.stacks) > 1 and not given_back:
            halves = Halves.of_parts(denoiser, self.data).figures(series.pixel_size)
        metrics = ImageMetrics(
            **figures(evidence, gathered, fitted, judged),
            **self._circumstances(denoiser),
            evidence=halves,
            given_back=given_back,
        )
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
            "memory": Memory(self.plan.memory, self.plan.peak, peak_memory(), len(self.plan.slabs)),
            "versions": versions(),
        }


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Reads bands of one or several measurements of the same images.

    Parameters
    ----------
    stacks
        The measurements.
    """

    stacks: tuple[ImageSeries, ...]

    def __call__(self, band: slice) -> Parts:
        """Return these images of all measurements, ``(part, z, y, x)``."""
        return np.stack([np.asarray(stack.images[band], np.float32) for stack in self.stacks])

    def chosen(self, bands: Sequence[Slab]) -> Parts:
        """Return the images in all these bands, one band after the other along z."""
        first = self.stacks[0].images
        found = np.empty((len(self.stacks), sum(stop - start for start, stop in bands), *first.shape[1:]), np.float32)
        for part, stack in zip(found, self.stacks, strict=True):
            begin = 0
            for start, stop in bands:
                part[begin : begin + stop - start] = stack.images[start:stop]
                begin += stop - start
        return found

    def ahead(self, band: slice) -> Ahead:
        """Return a source with these images in memory."""
        return Ahead(band, self(band))


@dataclass(frozen=True, eq=False)
class Ahead:
    """A band of images that was read ahead."""

    band: slice
    parts: Parts

    def __call__(self, band: slice) -> Parts:
        """Return the band."""
        assert band == self.band
        return self.parts


@dataclass(frozen=True, eq=False)
class DenoiseImages:
    """Denoises slabs of images; padding remains unchanged.

    Parameters
    ----------
    series
        The images.
    denoiser
        Trained or tuned denoiser.
    edges
        Bin edges of the histograms.
    mask
        Mask of the object.
    """

    series: ImageSeries
    denoiser: Denoiser
    edges: Float[np.ndarray, " edge"]
    mask: ObjectMask | None

    def places(self, slab: Slab) -> list[Slab]:
        """Return the images of the slab."""
        return [slab]

    def needs(self, slab: Slab) -> slice:
        """Return the images of a slab, and those around it that the network sees."""
        reach = self.denoiser.reach
        return slice(max(0, slab[0] - reach), min(self.series.n_images, slab[1] + reach))

    def __call__(self, source: ImageFiles | Ahead, slab: Slab, advance: Advance) -> Iterator[Finished]:
        """Denoise a slab."""
        (first, last), needed, series = slab, self.needs(slab), self.series
        parts, low = source(needed), needed.start
        clean = self.cleaned(parts, (first - low, last - low), low, advance)
        if series.padding is not None:
            here = series.padding[first:last]
            clean[here] = parts[0, first - low : last - low][here]
        noisy, weight = parts[:, first - low : last - low].mean(axis=0), series.weight
        planes = Planes((series.n_images, *weight.shape))
        record = SlabRecord.of(first, planes, noisy, clean, weight, self.edges, RowCounts())
        yield Finished(first, clean, record.seen_through(self.mask, noisy, clean, weight, planes.middle))

    def cleaned(self, parts: Parts, band: Slab, begin: int, advance: Advance) -> Float[np.ndarray, "slab y x"]:
        """Return the denoised images of a band of `parts`, which begin with the image of this number."""
        return self.denoiser.slab(parts, *band, advance)

    @property
    def made_by(self) -> str:
        """Who made the images, for their file."""
        what = self.denoiser.split if self.denoiser.trained else self.denoiser.architecture
        return f"quietray {called(type(what))}"


class GivenBackImages(DenoiseImages):
    """Returns images without denoising: the mean of all measurements."""

    def cleaned(self, parts: Parts, band: Slab, begin: int, advance: Advance) -> Volume:
        """Return the mean of the measurements."""
        advance(band[1] - band[0])
        return np.asarray(parts[:, slice(*band)].mean(axis=0, dtype=np.float32))

    @property
    def made_by(self) -> str:
        """Who made the images, for their file."""
        return "quietray, not denoised"


@dataclass(frozen=True, eq=False)
class Filled:
    """Stores slabs with a function, and collects their records."""

    write: Callable[[int, Volume], None]
    records: list[SlabRecord]

    def done(self, first: int, last: int) -> bool:
        """Return False: all slabs are denoised, also those of an interrupted run."""
        return False

    def take(self, finished: Finished) -> None:
        """Store a slab."""
        assert finished.record is not None
        self.write(finished.first, finished.voxels)
        self.records.append(finished.record)


def _kept_in_memory(run: Run, series: ImageSeries) -> bool:
    """Return whether a result that does not fit is needed in memory; only files of volumes are written in slabs."""
    return run.output.folder is None or not isinstance(series.origin, SlabOrigin)


def plan_of(run: Run, stacks: Sequence[ImageSeries], slices: int, network: Architecture | None = None) -> Plan:
    """Return the memory plan of a run on images, the same one if it is resumed."""
    settings, series = run.settings, stacks[0]

    def choose() -> dict[str, Any]:
        memory = None if settings.max_memory is None else parse_bytes(settings.max_memory)
        n, height, width = series.images.shape
        return dataclasses.asdict(
            plan_images(
                (n, height, width),
                parts=len(stacks),
                n_slices=slices,
                network=network or settings.network,
                memory=memory,
                base=resident_memory(),
                kept=_kept_in_memory(run, series),
            )
        )

    kept = run.output.decide("plan", choose)
    ranges = {name: tuple((first, last) for first, last in kept[name]) for name in ("slabs", "windows")}
    return Plan(**{**kept, **ranges})


def _split_of(
    run: Run,
    stacks: Sequence[ImageSeries],
    noise: FlatNoise | None,
    scale: Scale,
    model: Denoiser | None,
    slices: int,
) -> tuple[Split, str]:
    """Return the adapted method, and the reason."""
    method: Any = run.settings.method
    if method.needs_start:
        return pseudo_ct(method, model, noise_models(run.settings.start), noise, stacks[0])
    return image_split(method, len(stacks), noise, scale, slices)


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
