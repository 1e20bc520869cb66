"""The context of a run: settings, output, progress, and earlier measurements."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from quietray.detector.correction.calibration import Calibrated
from quietray.diagnose import Diagnosis
from quietray.filters import Filter
from quietray.running.device import chosen_device, chosen_devices
from quietray.running.output import Output
from quietray.running.settings import Settings
from quietray.running.slabs import Executor, Slab, SlabTask, executor_here, run_slabs
from quietray.running.watch import Watch
from quietray.settings import parse_seconds
from quietray.splits.base import Split

__all__ = ["Run"]

_LEAST = 0.3  # fraction of the budget


@dataclass(frozen=True, eq=False)
class Run:
    """The context of a run.

    Parameters
    ----------
    settings
        Settings of the run.
    output
        Output folder, and recorded decisions.
    watch
        Receives the progress.
    executor
        Runs the slabs.
    calibrated
        The scan of the run after calibration, if that is done already.
    diagnosis
        Diagnosis of its noise, if that is done already.
    started
        Start of the command on the monotonic clock in seconds; the budget includes everything since then.
    trial
        Whether the run is part of a comparison: filters that do not fit into the budget are refused, and figures that
        only a report shows are not measured.
    chosen
        Whether the method is chosen automatically: if it gains nothing, the input is given back.

    Examples
    --------
    >>> Run.in_memory(Settings(seed=3)).having(budget="1m").settings.budget
    '1m'
    """

    settings: Settings
    output: Output
    watch: Watch = field(default_factory=Watch)
    executor: Executor = field(default_factory=executor_here)
    calibrated: Calibrated | None = None
    diagnosis: Diagnosis | None = None
    started: float = field(default_factory=time.monotonic)
    trial: bool = False
    chosen: bool = False

    @classmethod
    def in_memory(cls, settings: Settings, watch: Watch | None = None) -> Run:
        """Return a run that writes nothing."""
        return cls(settings, Output(None, settings, {}, settings.format), watch or Watch())

    @property
    def device(self) -> torch.device:
        """Device on which networks are trained and applied."""
        return chosen_device(self.settings.device or "auto")

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Devices on which networks are trained, one for each process; a comparison trains in one, for seconds."""
        return chosen_devices(self.settings.device or "auto", 1 if self.trial else self.settings.gpus or 1)

    @property
    def elapsed(self) -> float:
        """Seconds since the start of the command."""
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Seconds of the budget that are left; at least 30 % of it, because with less, training is useless."""
        budget = parse_seconds(self.settings.budget)
        return max(_LEAST * budget, budget - self.elapsed)

    @property
    def split(self) -> Split:
        """The method, if it is one that trains a network."""
        assert isinstance(self.settings.method, Split)
        return self.settings.method

    @property
    def filter(self) -> Filter:
        """The method, if it is a filter."""
        assert isinstance(self.settings.method, Filter)
        return self.settings.method

    def having(self, **settings: Any) -> Run:
        """Return the run with changed settings."""
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, **settings))

    def over(self, slabs: Sequence[Slab], task: SlabTask, stage: str) -> None:
        """Run a task on all slabs that are not done yet, as a stage with this name."""
        run_slabs(slabs, task, self.executor, lambda total: self.watch.stage(stage, total))

    def alone(self) -> Run:
        """Return the run without output and without recorded decisions."""
        return dataclasses.replace(self, output=Output(None, self.settings, {}, self.settings.format))
