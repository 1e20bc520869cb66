"""Training within a time budget, and the denoiser that comes out of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from quietray.filters import Filter, tune
from quietray.inference.denoiser import Denoiser, Scale
from quietray.io.disk import disk_errors
from quietray.networks import Architecture
from quietray.running.facts import versions
from quietray.running.precision import precision
from quietray.running.run import Run
from quietray.running.settings import Settings, Training
from quietray.running.watch import Watch
from quietray.settings import parse_seconds
from quietray.splits.base import Split
from quietray.training.batches import TrainingVolume
from quietray.training.loop import Fitted, Progress, TrainingData, fit, judge_held_out
from quietray.training.start import RANDOM, SCRATCH, Known, Start, start_of
from quietray.training.state import load_average

__all__ = ["Recipe", "Subject", "learn", "tuned"]

_VOXELS_A_PATCH = 2**16  # of a volume, for each patch in a batch
_TUNED_ON = (4, 2**15)  # slices, and pixels of them together


@dataclass(frozen=True)
class Recipe:
    """What training needs to know beside the data.

    Parameters
    ----------
    network, training
        Settings.
    seed
        Of weights and samples.
    budget
        Seconds for training and inference together.
    symmetries
        To average over at inference; 0 takes as many as 15 % of the budget allow.
    start
        A trained network to start from; None for random weights.
    fresh
        What random weights are called: with the reason, where there was to be something else.
    """

    network: Architecture
    training: Training
    seed: int
    budget: float
    symmetries: Literal[0, 1, 2, 4, 8]
    start: Start | None = None
    fresh: str = RANDOM

    @classmethod
    def of(cls, settings: Settings, facts: Mapping[str, Any] | None = None) -> Recipe:
        """Return what the settings of a run say; the facts of the scan choose among the models that are kept."""
        start = start_of(settings.start, settings.method, settings.network, facts)
        budget = parse_seconds(settings.budget)
        recipe = cls(settings.network, settings.training, settings.seed, budget, settings.symmetries, start)
        if start is None and settings.start not in (None, SCRATCH):
            lacking = f"{RANDOM}, since no prior is shipped for this method and network"
            recipe = dataclasses.replace(recipe, fresh=lacking)
        return recipe

    def build(self, split: Split) -> nn.Module:
        """Return the network to be trained.

        Raises
        ------
        SettingsError
            The model to start from has another network.
        """
        if self.start is None:
            return self.network.build(split.n_slices, split.n_outputs)
        return self.start.network(self.network, split)

    def begin(self, split: Split, data: TrainingData, run: Run) -> tuple[Callable[[], nn.Module], str]:
        """Return what makes the network, and in words what it is; a resumed run begins as it did.

        What gains nothing on the scan as it is has learned from something else: then random weights are better.
        """

        def build() -> nn.Module:
            return self.build(split).to(run.device)

        if self.start is None:
            return build, self.fresh

        said = self.start.said

        def tried() -> dict[str, Any]:
            judged = judge_held_out(split, build().eval(), data, run.device)
            return {"error": judged.error, "noise": judged.noise, "from": said}

        found = run.output.decide("start", tried)
        if found["error"] < found["noise"]:
            return Known(build), found["from"]
        fresh = dataclasses.replace(self, start=None)
        return fresh.begin(split, data, run)[0], f"{RANDOM}, since {found['from']} made this scan worse"


@dataclass(frozen=True, eq=False)
class Subject:
    """What is to be denoised.

    Parameters
    ----------
    scale
        Of the data that the network sees.
    images
        Number, height and width of the images.
    tile
        Edge of the tiles that they are denoised in.
    facts
        To keep with the model.
    """

    scale: Scale
    images: tuple[int, int, int]
    tile: int
    facts: Mapping[str, Any] = field(default_factory=dict)


def learn(data: TrainingData, split: Split, recipe: Recipe, subject: Subject, run: Run) -> tuple[Denoiser, Fitted]:
    """Train within the budget, leaving time for inference; small images make larger batches.

    Parameters
    ----------
    data
        Scaled samples.
    split
        The method.
    recipe
        Network, training, seed, budget.
    subject
        What will be denoised.
    run
        Its output keeps the state of the training and its decisions.
    """
    output, images, scale = run.output, subject.images, subject.scale
    size = min(recipe.training.patch, *images[1:])
    enlarged = min(8, max(1, recipe.training.patch**2 // size**2))
    batch = batch_for(recipe.training.batch, run.device, images)
    training = dataclasses.replace(recipe.training, batch=batch * enlarged)
    budget = recipe.budget

    def inference(per_step: float) -> float:
        """Return the seconds that one pass over the images takes: a training step costs about three passes."""
        passes = (split.n_parts - split.n_clean) * images[0] * images[1] * images[2] / (training.batch * size**2)
        return passes * per_step / 3

    def symmetries(per_step: float) -> Literal[1, 2, 4, 8]:
        if recipe.symmetries:
            return recipe.symmetries
        choices: tuple[Literal[1, 2, 4, 8], ...] = (8, 4, 2)
        return next((n for n in choices if n * inference(per_step) <= 0.15 * budget), 1)

    kept = "What was learned so far is kept; go on with --resume"
    with run.watch.stage("training", 1000) as advance, disk_errors(output.folder or Path(), kept):
        shown = 0

        def show(step: int, n_steps: int | None, latest: Progress | None) -> None:
            nonlocal shown
            now = int(1000 * step / n_steps) if n_steps else 0
            advance(now - shown, _gain(latest))
            shown = now
            if run.watch.previews and latest is not None and latest.step == step and output.checkpoint is not None:
                average = recipe.network.build(split.n_slices, split.n_outputs)
                load_average(average, output.checkpoint)
                run.watch.judged(_look(average.eval(), split, scale, data), step, n_steps, latest)

        here = data.on(run.device, run.device_memory)
        build, begun = recipe.begin(split, here, run)
        if begun != RANDOM:
            run.watch.note(f"Training starts from {begun}.")
        fitted = fit(
            split,
            build,
            here,
            training,
            seed=recipe.seed,
            budget=lambda per_step: max(0.3 * budget, budget - symmetries(per_step) * inference(per_step)),
            checkpoint=output.checkpoint,
            watch=show,
        )
    pace = fitted.seconds_per_step or fitted.history[-1].seconds / fitted.history[-1].step  # of a resumed run
    chosen = output.decide("inference", lambda: {"symmetries": symmetries(pace)})
    known = {
        "steps": fitted.history[-1].step,
        "batch": batch,
        "started_from": begun,
        "noise_sd": float(max(fitted.best.noise, 0.0) ** 0.5 * (scale.high - scale.low)),
        "versions": versions(),
        **subject.facts,
    }
    denoiser = Denoiser(
        fitted.network,
        recipe.network,
        split,
        scale,
        chosen["symmetries"],
        precision(training.precision, run.device),
        subject.tile,
        known,
    )
    return denoiser, fitted


def batch_for(stated: int, device: torch.device, images: tuple[int, int, int]) -> int:
    """Return how many patches make a step: as stated, but on a GPU as many as it takes in the time of one.

    A small volume is learned by heart with large batches, noise included: of foam of 32 x 128 x 128 voxels, batches of
    8 made 22.6 dB in 20 s, and 32 made 16.6 dB in 40 s.

    Examples
    --------
    >>> batch_for(1, torch.device("cpu"), (64, 768, 768))
    1
    >>> [batch_for(1, torch.device("cuda"), shape) for shape in ((32, 128, 128), (64, 256, 256), (64, 768, 768))]
    [8, 64, 64]
    """
    if device.type == "cpu" or stated != 1:
        return stated
    return int(np.clip(np.prod(images, dtype=float) // _VOXELS_A_PATCH, 8, 64))


def tuned(
    data: TrainingVolume,
    split: Split,
    start: Filter,
    subject: Subject,
    watch: Watch,
    amount: tuple[int, int] = _TUNED_ON,
) -> tuple[Denoiser, Fitted]:
    """Find the filter's setting with the smallest estimated error, on slices that it will not be judged on.

    Where `data` hold nothing out, some of the slices that it is judged on serve: one or two numbers learn nothing by
    heart.

    Parameters
    ----------
    data
        Scaled samples.
    split
        What makes independent views of them.
    start
        The filter.
    subject
        What will be filtered.
    watch
        Told the progress.
    amount
        Slices to tune on, and pixels of them together.
    """
    here, cpu = data.to_tune_on(amount[0]), torch.device("cpu")

    def denoiser(candidate: Filter) -> Denoiser:
        network = candidate.build(split.n_slices, split.n_outputs)
        facts = {"versions": versions(), **subject.facts}
        return Denoiser(network, candidate, split, subject.scale, tile=subject.tile, facts=facts)

    with watch.stage("tuning") as advance:

        def error(candidate: Filter) -> float:
            advance(1)
            return judge_held_out(split, denoiser(candidate).evaluate, here, cpu, amount[1]).error

        found = tune(start, error)
    chosen = denoiser(found.filter)
    judged = judge_held_out(split, chosen.evaluate, data, cpu)
    best = Progress(0, 0, 0.0, 0.0, judged.error, judged.noise)
    return chosen, Fitted(chosen.network, (), best, f"tuned over {len(found.tried)} settings", 0.0)


@torch.no_grad()
def _look(network: nn.Module, split: Split, scale: Scale, data: TrainingData) -> tuple[np.ndarray, np.ndarray]:
    """Return a held-out slice before and after, in the unit of the data."""
    samples, _ = next(iter(data.held_out(2**17)))
    noisy = samples[:, : split.n_parts - split.n_clean].mean(dim=1)[0, samples.shape[2] // 2]
    clean = split.infer(network, samples)[0]
    before, after = noisy.cpu().numpy().copy(), clean[len(clean) // 2].cpu().numpy().copy()
    return scale.undo(before), scale.undo(after)


def _gain(latest: Progress | None) -> str:
    if latest is None or not (latest.error > 0 and latest.noise > 0):
        return ""
    return f"estimated gain {10 * np.log10(latest.noise / latest.error):.1f} dB"
