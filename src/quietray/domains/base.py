"""The one shape of a domain, the place where a method works: prepare, learn, judge, apply."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from quietray.assessment.evidence import Evidence, warnings_of
from quietray.assessment.figures import Metrics
from quietray.inference.denoiser import Denoiser
from quietray.preparation.prepare import Prepared
from quietray.result import Gathered, Result
from quietray.running.run import Run
from quietray.running.settings import Settings
from quietray.splits.base import Split
from quietray.training.batches import TrainingSet, TrainingVolume
from quietray.training.loop import Fitted, TrainingData
from quietray.training.sinograms import TrainingSinograms
from quietray.training.start import DEFAULT, PRIOR, SCRATCH, began_at_random

__all__ = ["Domain", "settled"]


@dataclass(frozen=True, eq=False)
class Domain(ABC):
    """A scan, or several, or series of images, made ready for a method that works here.

    Parameters
    ----------
    run
        The context.
    split
        The method, bound to the scan.
    facts
        Of the scan, for a model to keep: ``source``, ``unit``, ``voxel_size_mm``, ``noise_level``, ``correlation``.
    """

    maps_errors: ClassVar[bool] = False
    """Whether there can be a map of the error."""

    learns_from_several: ClassVar[bool] = True
    """Whether one network can be trained on several scans."""

    run: Run
    split: Split
    facts: Mapping[str, Any]

    @classmethod
    @abstractmethod
    def bound(cls, run: Run, scans: Sequence[Any]) -> Split:
        """Return the method of the run as it can serve the scans.

        Raises
        ------
        QuietrayError
            It cannot.
        """

    @classmethod
    @abstractmethod
    def prepare(cls, run: Run, scans: Sequence[Any], split: Split, taught: bool = True) -> Domain:
        """Measure what must be known, and make the data to learn from.

        Parameters
        ----------
        run
            The context.
        scans
            One, or several measurements of one object; or series of images.
        split
            From :meth:`bound`, or that of a trained model.
        taught
            Whether there must be something to learn from: not where a trained model is applied.

        Raises
        ------
        QuietrayError
            The scans, the settings or the memory do not allow it.
        """

    @property
    @abstractmethod
    def taught_by(self) -> TrainingVolume | TrainingSinograms | None:
        """What there is to learn from."""

    def together(self, starts: Sequence[Domain]) -> TrainingData:
        """Return what there is to learn from in several scans."""
        return TrainingSet(tuple(one for start in starts if isinstance(one := start.taught_by, TrainingVolume)))

    @abstractmethod
    def learn(self, data: TrainingData | None = None) -> tuple[Denoiser, Fitted]:
        """Train the network, or tune the filter.

        Parameters
        ----------
        data
            That of several scans together; None takes this one's own.
        """

    @abstractmethod
    def adopted(self, denoiser: Denoiser) -> Denoiser:
        """Return a trained model with what is this scan's own: its scale, the size of its tiles."""

    @abstractmethod
    def judge(self, denoiser: Denoiser) -> Evidence:
        """Judge a denoiser by what was held out."""

    @abstractmethod
    def apply(self, denoiser: Denoiser, fitted: Fitted) -> Result:
        """Denoise everything, and gather what is to be told of it."""

    @classmethod
    def denoise(cls, run: Run, scans: Sequence[Any]) -> Result:
        """Prepare, learn, apply."""
        start = cls.prepare(run, scans, cls.bound(run, scans))
        return start.apply(*start.learn())

    def result(
        self,
        denoiser: Denoiser,
        fitted: Fitted,
        metrics: Metrics,
        gathered: Gathered,
        *,
        prepared: Prepared | None,
        notes: Sequence[str] = (),
        trust: Any = None,
    ) -> Result:
        """Close the volume and hand everything back.

        Parameters
        ----------
        denoiser, fitted, metrics, gathered
            Of the result.
        prepared
            What was reconstructed at last; None where nothing was.
        notes
            What is to be told beside what was found in preparing.
        trust
            Map of the error.
        """
        output = self.run.output
        volume, settings = output.finish_volume(), settled(self.run.settings, denoiser, fitted)
        if settings.dtype is not None and output.folder is not None:
            window = volume.facts.get("window")
            settings = dataclasses.replace(settings, window=None if window is None else (window[0], window[1]))
        axis, said = None, tuple(notes)
        if prepared is not None:
            axis, said = prepared.scan.geometry.axis, (*prepared.notes, *said)
            settings = dataclasses.replace(settings, reconstruction=prepared.algorithm)
        settings = dataclasses.replace(settings, rotation_axis=axis)
        history, folder = fitted.history, output.folder
        return Result(volume, denoiser, metrics, warnings_of(metrics), said, gathered, history, folder, trust, settings)


def settled(settings: Settings, denoiser: Denoiser, fitted: Fitted) -> Settings:
    """Return the settings of a run with what was settled on the way: filter or network, start, steps, symmetries."""
    training, method, network, start = settings.training, settings.method, settings.network, settings.start
    if start == DEFAULT:  # which hangs on the time that there was
        start = SCRATCH if began_at_random(denoiser.facts) else PRIOR
    if fitted.history:  # steps as planned: training that stops early does so again
        training = dataclasses.replace(training, steps=fitted.history[-1].n_steps)
    if not denoiser.trained:
        method = denoiser.filter
    else:  # that of the model, where one was applied or fine-tuned
        network = denoiser.trained_architecture
        method = method.as_served(denoiser.split)
    return dataclasses.replace(
        settings, method=method, training=training, network=network, start=start, symmetries=denoiser.symmetries
    )
