"""The interface of domains: prepare, learn, judge, apply."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from quietray.assessment.evidence import Evidence, warnings_of
from quietray.assessment.figures import Metrics, ScanMetrics
from quietray.assessment.verdict import nothing_gained
from quietray.domains.common import circumstances
from quietray.domains.plain import AsMeasured
from quietray.inference.denoiser import Denoiser
from quietray.preparation.prepare import Prepared
from quietray.result import Gathered, Judged, Result, figures, gather
from quietray.running.run import Run
from quietray.running.settings import Settings
from quietray.running.slabs import SlabTask
from quietray.splits.base import Split
from quietray.training.batches import TrainingSet, TrainingVolume
from quietray.training.loop import Fitted, TrainingData
from quietray.training.sinograms import TrainingSinograms
from quietray.training.start import DEFAULT, PRIOR, SCRATCH, began_at_random

__all__ = ["Domain", "settled"]


@dataclass(frozen=True, eq=False)
class Domain(ABC):
    """One or several scans, or image series, prepared for a method of this domain.

    Parameters
    ----------
    run
        Context of the run.
    split
        The method, adapted to the scan.
    facts
        Facts of the scan to store with a model: ``source``, ``unit``, ``voxel_size_mm``, ``noise_level``,
        ``correlation``.
    """

    maps_errors: ClassVar[bool] = False
    """Whether an uncertainty map can be made."""

    learns_from_several: ClassVar[bool] = True
    """Whether one network can be trained on several scans."""

    run: Run
    split: Split
    facts: Mapping[str, Any]

    @classmethod
    @abstractmethod
    def bound(cls, run: Run, scans: Sequence[Any]) -> Split:
        """Return the method of the run, adapted to the scans.

        Raises
        ------
        QuietrayError
            The method cannot be used for these scans.
        """

    @classmethod
    @abstractmethod
    def prepare(cls, run: Run, scans: Sequence[Any], split: Split, taught: bool = True) -> Domain:
        """Measure the required quantities, and make the training data.

        Parameters
        ----------
        run
            Context of the run.
        scans
            One scan, several measurements of one object, or image series.
        split
            Method from :meth:`bound`, or that of a trained model.
        taught
            Whether training data are required; not if a trained model is applied.

        Raises
        ------
        QuietrayError
            The scans, the settings or the memory do not permit it.
        """

    @property
    @abstractmethod
    def taught_by(self) -> TrainingVolume | TrainingSinograms | None:
        """The training data."""

    def together(self, starts: Sequence[Domain]) -> TrainingData:
        """Return the training data of several scans."""
        return TrainingSet(tuple(one for start in starts if isinstance(one := start.taught_by, TrainingVolume)))

    @abstractmethod
    def learn(self, data: TrainingData | None = None) -> tuple[Denoiser, Fitted]:
        """Train the network, or tune the filter.

        Parameters
        ----------
        data
            Training data of several scans; None for those of this scan.
        """

    @abstractmethod
    def adopted(self, denoiser: Denoiser) -> Denoiser:
        """Return a trained model with the scale and tile size of this scan."""

    @abstractmethod
    def judge(self, denoiser: Denoiser) -> Evidence:
        """Estimate the error of a denoiser on held-out data."""

    @abstractmethod
    def apply(self, denoiser: Denoiser, fitted: Fitted) -> Result:
        """Denoise everything, and collect what is to be reported."""

    @classmethod
    def denoise(cls, run: Run, scans: Sequence[Any]) -> Result:
        """Prepare, learn, apply."""
        start = cls.prepare(run, scans, cls.bound(run, scans))
        return start.apply(*start.learn())

    def gains(self, evidence: Evidence) -> bool:
        """Return whether to apply the denoiser; one chosen automatically that gains nothing is not."""
        gain = (evidence.inside or evidence).gain
        none = self.run.chosen and nothing_gained(gain)
        found: bool = self.run.output.decide("gains", lambda: {"gains": not none})["gains"]
        return found

    def given_back(
        self,
        prepared: Prepared,
        denoiser: Denoiser,
        fitted: Fitted,
        evidence: Evidence,
        judged: Judged,
        edges: Float[np.ndarray, " edge"],
        notes: Sequence[str],
    ) -> Result:
        """Reconstruct all views without denoising, and collect what is to be reported.

        Parameters
        ----------
        prepared, denoiser, fitted
            The scan, and what was learned in vain.
        evidence, judged
            Its estimated quality, and what that refers to.
        edges
            Bin edges of the histogram.
        notes
            Notes in addition to those from the preparation.
        """
        output = self.run.output
        output.open_volume(prepared.grid, {"source": prepared.scan.source, "method": "none"})
        work = AsMeasured(prepared.rows, prepared.weight, (edges,))
        self.run.over(prepared.plan.slabs, SlabTask(prepared.whole(), work, output), "reconstructing")
        gathered = gather(output.records(prepared.slabs), edges)
        found, told = figures(evidence, gathered, fitted, judged), circumstances(prepared, denoiser)
        metrics = ScanMetrics(**found, **told, given_back=True)
        return self.result(denoiser, fitted, metrics, gathered, prepared=prepared, notes=notes)

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
        """Close the volume and return all results.

        Parameters
        ----------
        denoiser, fitted, metrics, gathered
            Parts of the result.
        prepared
            The final reconstruction; None if there was none.
        notes
            Notes in addition to those from the preparation.
        trust
            Uncertainty map.
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
    """Return the settings of a run with everything that was chosen: filter or network, start, steps, symmetries."""
    training, method, network, start = settings.training, settings.method, settings.network, settings.start
    if start == DEFAULT:  # which depends on the available time
        start = SCRATCH if began_at_random(denoiser.facts) else PRIOR
    if fitted.history:  # planned steps: training that stopped early will stop again
        training = dataclasses.replace(training, steps=fitted.history[-1].n_steps)
    if not denoiser.trained:
        method = denoiser.filter
    else:  # that of the model, if one was applied or fine-tuned
        network = denoiser.trained_architecture
        method = method.as_served(denoiser.split)
    return dataclasses.replace(
        settings, method=method, training=training, network=network, start=start, symmetries=denoiser.symmetries
    )
