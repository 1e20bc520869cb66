"""Training within a time budget, and the denoiser that comes out of it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from quietray.errors import ResourceError
from quietray.filters import Filter, tune
from quietray.inference.denoiser import Denoiser, Scale
from quietray.io.disk import disk_errors
from quietray.networks import Architecture
from quietray.running.facts import versions
from quietray.running.precision import precision
from quietray.running.run import Run
from quietray.running.settings import Training
from quietray.settings import called, from_dict, parse_seconds, to_dict
from quietray.splits.base import Split
from quietray.training.batches import TrainingVolume
from quietray.training.loop import Fitted, Progress, TrainingData, fit, judge_held_out
from quietray.training.start import DEFAULT, RANDOM, SCRATCH, Known, Start, began_at_random, start_of
from quietray.training.state import load_average

__all__ = ["Recipe", "Subject", "learn", "tuned"]

_VOXELS_A_PATCH = 2**16  # of a volume, for each patch in a batch
_TUNED_ON = (4, 2**15)  # slices, and pixels of them together
_JUDGED, _JUDGED_PIXELS = 6, 2**17  # passes over what was held out, by which the result is judged at the end
_REPORT = 3.0  # seconds
_FEW = 250.0  # steps, after which random weights do as well as the shipped prior (docs/prior.md)
_OVER = 1.5  # times what is left, that a filter may take before it is refused


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
        Seconds for training and all that comes after it.
    symmetries
        To average over at inference; 0 takes as many as 15 % of the budget allow.
    start
        A trained network to start from; None for random weights.
    fresh
        What random weights are called: with the reason, where there was to be something else.
    most
        Steps; where there is time for more, random weights are taken in place of `start`.
    """

    network: Architecture
    training: Training
    seed: int
    budget: float
    symmetries: Literal[0, 1, 2, 4, 8]
    start: Start | None = None
    fresh: str = RANDOM
    most: float = math.inf

    @classmethod
    def of(cls, run: Run, facts: Mapping[str, Any] | None = None) -> Recipe:
        """Return what the settings of a run say, with the time that is left of its budget.

        The facts of the scan choose among the models that are kept.
        """
        settings = run.settings
        start = start_of(settings.start, settings.method, settings.network, facts)
        recipe = cls(settings.network, settings.training, settings.seed, run.left, settings.symmetries, start)
        if start is None and settings.start not in (None, SCRATCH):
            lacking = f"{RANDOM}, since no prior is shipped for this method and network"
            recipe = dataclasses.replace(recipe, fresh=lacking)
        return dataclasses.replace(recipe, most=_FEW) if settings.start == DEFAULT else recipe

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

    def as_begun(self, denoiser: Denoiser) -> Recipe:
        """Return the recipe for further networks, which begin as a trained one did."""
        start = None if began_at_random(denoiser.facts) else self.start
        return dataclasses.replace(self, start=start, most=math.inf)

    def begin(
        self, split: Split, data: TrainingData, run: Run, steps: Callable[[float], float]
    ) -> tuple[Callable[[], nn.Module], str]:
        """Return what makes the network, and in words what it is; a resumed run begins as it did.

        What gains nothing on the scan as it is has learned from something else: then random weights are better.  So
        they are where there is time for more than `most` steps; `steps` tells how many, given the seconds of a
        judgement.
        """
        if self.start is None:
            return lambda: self.build(split).to(run.device), self.fresh

        known, said = Known(lambda: self.build(split).to(run.device)), self.start.said

        def tried() -> dict[str, Any]:
            network = known().eval()
            judge_held_out(split, network, data, run.device)  # the first time is not what it takes
            begun = time.monotonic()
            judged = judge_held_out(split, network, data, run.device)
            many = steps(time.monotonic() - begun)
            return {"error": judged.error, "noise": judged.noise, "from": said, "steps": many}

        found = run.output.decide("start", tried)
        if found["error"] >= found["noise"]:
            why = f"since {found['from']} made this scan worse"
        elif found.get("steps", 0) > self.most:
            why = f"for with time for about {found['steps']:.0f} steps they end as good as {found['from']} or better"
        else:
            return known, found["from"]
        return dataclasses.replace(self, start=None).begin(split, data, run, steps)[0], f"{RANDOM}, {why}"


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
    after
        Seconds that its domain needs once the network has been applied, or while: such as for reconstructing.
    """

    scale: Scale
    images: tuple[int, int, int]
    tile: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    after: float = 0.0


def learn(data: TrainingData, split: Split, recipe: Recipe, subject: Subject, run: Run) -> tuple[Denoiser, Fitted]:
    """Train within the budget, leaving time for what comes after; small images make larger batches.

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
    budget, told = recipe.budget, False

    def inference(per_step: float, pixels: float = float(np.prod(images))) -> float:
        """Return the seconds that one pass over the images takes: a training step costs about three passes."""
        return (split.n_parts - split.n_clean) * pixels / (training.batch * size**2) * per_step / 3

    def symmetries(per_step: float) -> Literal[1, 2, 4, 8]:
        if recipe.symmetries:
            return recipe.symmetries
        choices: tuple[Literal[1, 2, 4, 8], ...] = (8, 4, 2)
        return next((n for n in choices if n * inference(per_step) <= 0.15 * budget), 1)

    def closing(per_step: float) -> float:
        """Return the seconds from the last step to the end of the run."""
        judging = _JUDGED * inference(per_step, min(_JUDGED_PIXELS, 0.2 * np.prod(images)))
        files = 0.0 if output.folder is None else _REPORT
        return symmetries(per_step) * (inference(per_step) + judging) + subject.after + files

    def for_training(per_step: float) -> float:
        nonlocal told
        rest = closing(per_step)
        seconds = max(0.3 * budget, budget - rest)
        if not told:
            run.watch.note(_times(run, seconds, rest))
        told = True
        return seconds

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

        def steps(judgement: float) -> float:
            """Return about how many there will be: a judgement is passes over what is held out, a step takes three."""
            judged = sum(float(x.shape[0] * x.shape[-2] * x.shape[-1]) for x, _ in here.held_out(_JUDGED_PIXELS))
            per_step = 3 * judgement * training.batch * size**2 / ((split.n_parts - split.n_clean) * judged)
            return float(training.steps or max(0.3 * budget, budget - closing(per_step)) / per_step)

        build, begun = recipe.begin(split, here, run, steps)
        if begun != RANDOM:
            run.watch.note(f"Training starts from {begun}.")
        fitted = fit(
            split,
            build,
            here,
            training,
            seed=recipe.seed,
            budget=for_training,
            checkpoint=output.checkpoint,
            watch=show,
        )
    pace = fitted.seconds_per_step or fitted.history[-1].seconds / fitted.history[-1].step  # of a resumed run
    chosen = output.decide("inference", lambda: {"symmetries": symmetries(pace)})
    if recipe.training.steps is not None and chosen["symmetries"] > 1:
        run.watch.note(
            f"Denoising is averaged over {chosen['symmetries']} symmetries of the square, which takes about "
            f"{chosen['symmetries'] * inference(pace):.0f} s beside the {recipe.training.steps} steps that were asked "
            "for; symmetries = 1 in the settings leaves it out."
        )
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


def _times(run: Run, training: float, closing: float) -> str:
    """Return how the budget is spent, in a sentence, and whether it is kept."""
    budget, spent = run.settings.budget, run.elapsed
    said = f"Of the {budget}, {spent:.0f} s are gone, {training:.0f} s go into training, and about {closing:.0f} s "
    said += "into denoising, judging and the report."
    if spent + training + closing > 1.05 * parse_seconds(budget):
        said += (
            " That is more than the budget, of which three tenths at least are for learning; give a longer --budget."
        )
    return said


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
    run: Run,
    amount: tuple[int, int] = _TUNED_ON,
    seconds: float | None = None,
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
    run
        Told the progress; it keeps the setting.
    amount
        Slices to tune on, and pixels of them together.
    seconds
        For trying settings, after which the best one so far is taken; by default what the budget leaves beside
        filtering everything.

    Raises
    ------
    ResourceError
        The run must keep its budget, and filtering everything does not fit into it.
    """
    here, cpu, began, trials = data.to_tune_on(amount[0]), torch.device("cpu"), time.monotonic(), 0
    left = run.left
    passes = float(np.prod(subject.images)) / amount[1]  # of filtering everything, in trials

    def denoiser(candidate: Filter) -> Denoiser:
        network = candidate.build(split.n_slices, split.n_outputs)
        facts = {"versions": versions(), **subject.facts}
        return Denoiser(network, candidate, split, subject.scale, tile=subject.tile, facts=facts)

    with run.watch.stage("tuning") as advance:

        def error(candidate: Filter) -> float:
            nonlocal trials
            trials += 1
            advance(1)
            return judge_held_out(split, denoiser(candidate).evaluate, here, cpu, amount[1]).error

        def enough() -> bool:
            spent = time.monotonic() - began
            if run.trial and spent / trials * passes > _OVER * left:
                raise ResourceError(
                    f"{called(type(start))} must fit into its share of the time, {left:.0f} s, and would take about "
                    f"{spent / trials * passes:.0f} s on these rows; give a longer --budget or fewer --rows"
                )
            return spent > (left - subject.after - spent / trials * passes if seconds is None else seconds)

        def search() -> dict[str, Any]:
            found = tune(start, error, enough)
            cut = ", all that the budget allowed" if found.cut else ""
            return {"filter": to_dict(found.filter), "why": f"tuned over {len(found.tried)} settings{cut}"}

        found = run.output.decide(f"tuned {called(type(start))}", search)
    chosen = denoiser(from_dict(type(start), found["filter"]))
    judged = judge_held_out(split, chosen.evaluate, data, cpu)
    best = Progress(0, 0, 0.0, 0.0, judged.error, judged.noise)
    return chosen, Fitted(chosen.network, (), best, found["why"], 0.0)


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
