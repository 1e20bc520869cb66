"""Training and tuning within a time budget."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
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
from quietray.running.output import Output
from quietray.running.precision import precision
from quietray.running.run import Run
from quietray.running.settings import Training
from quietray.settings import called, from_dict, parse_seconds, to_dict
from quietray.splits.base import Split
from quietray.training.batches import TrainingVolume
from quietray.training.group import Group
from quietray.training.loop import Fitted, Progress, TrainingData, judge_held_out
from quietray.training.start import DEFAULT, RANDOM, SCRATCH, Known, Start, began_at_random, start_of
from quietray.training.state import load_average

__all__ = ["TUNED_ON", "Recipe", "Subject", "learn", "tuned"]

_VOXELS_A_PATCH = 2**16  # pixels of a volume per patch of a batch
TUNED_ON = (4, 2**15)  # numbers of slices and of pixels
_JUDGED, _JUDGED_PIXELS = 6, 2**17  # passes over the held-out data for the final validation
_REPORT = 3.0  # in seconds
_OVER = 1.5  # factor by which a filter may exceed the remaining time before it is refused


@dataclass(frozen=True)
class Recipe:
    """Settings of the training, independent of the data.

    Parameters
    ----------
    network, training
        Settings of the network and of the training loop.
    seed
        Seed of weights and samples.
    budget
        Time in seconds for training and everything after it.
    symmetries
        Number of symmetries for test-time augmentation; 0 uses as many as 15 % of the budget allow.
    start
        Trained network to start from; None for random initial weights.
    fresh
        Description of random initial weights, with the reason if another start was intended.
    most
        Number of steps from which random initial weights are used instead of `start`.
    rate
        Factor for the learning rate if `start` is used.
    """

    network: Architecture
    training: Training
    seed: int
    budget: float
    symmetries: Literal[0, 1, 2, 4, 8]
    start: Start | None = None
    fresh: str = RANDOM
    most: float = math.inf
    rate: float = 1.0

    @classmethod
    def of(cls, run: Run, facts: Mapping[str, Any] | None = None) -> Recipe:
        """Return the recipe that follows from the settings of a run, with the remaining time of its budget.

        `facts` describes the scan and is used to choose among stored models.
        """
        settings = run.settings
        start = start_of(settings.start, settings.method, settings.network, facts)
        recipe = cls(settings.network, settings.training, settings.seed, run.left, settings.symmetries, start)
        if start is None and settings.start not in (None, SCRATCH):
            lacking = f"{RANDOM}, since no prior is shipped for this method and network"
            recipe = dataclasses.replace(recipe, fresh=lacking)
        return dataclasses.replace(recipe, most=start.most) if start and settings.start == DEFAULT else recipe

    def build(self, split: Split) -> nn.Module:
        """Return the network to be trained.

        Raises
        ------
        SettingsError
            The model to start from has a different network.
        """
        if self.start is None:
            return self.network.build(split.n_slices, split.n_outputs)
        return self.start.network(self.network, split)

    def as_begun(self, denoiser: Denoiser) -> Recipe:
        """Return the recipe for further networks, which start like a trained one did."""
        start = None if began_at_random(denoiser.facts) else self.start
        return dataclasses.replace(self, start=start, most=math.inf)

    def begin(
        self, split: Split, data: TrainingData, run: Run, steps: Callable[[float], float]
    ) -> tuple[Callable[[], nn.Module], str]:
        """Return a function that builds the network on the CPU, and a description; a resumed run starts as before.

        If the network to start from does not improve the scan, it was trained on too different data, and random initial
        weights are better.  They are also used if there is time for more than `most` steps; `steps` returns that
        number, given the duration of a validation in seconds.
        """
        if self.start is None:
            return partial(self.build, split), self.fresh

        known, said = Known(partial(self.build, split)), self.start.said

        def tried() -> dict[str, Any]:
            network = known().to(run.device).eval()
            judge_held_out(split, network, data, run.device)  # the first pass is slower than later ones
            begun = time.monotonic()
            judged = judge_held_out(split, network, data, run.device)
            many = steps(time.monotonic() - begun)
            return {"error": judged.error, "noise": judged.noise, "from": said, "steps": many}

        found = _decided(run.output, said, tried)
        if found["error"] >= found["noise"]:
            why = f"since {found['from']} made this scan worse"
        elif found.get("steps", 0) > self.most:
            why = f"since there is time for about {found['steps']:.0f} steps, after which they are as good or better"
        else:
            return known, found["from"]
        return dataclasses.replace(self, start=None).begin(split, data, run, steps)[0], f"{RANDOM}, {why}"


@dataclass(frozen=True, eq=False)
class Subject:
    """The data that are to be denoised.

    Parameters
    ----------
    scale
        Scale of the data that the network sees.
    images
        Number, height and width of the images.
    tile
        Edge of the tiles for inference.
    facts
        Facts to store with the model.
    after
        Time in seconds needed besides applying the network, such as for the reconstruction.
    """

    scale: Scale
    images: tuple[int, int, int]
    tile: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    after: float = 0.0


def learn(data: TrainingData, split: Split, recipe: Recipe, subject: Subject, run: Run) -> tuple[Denoiser, Fitted]:
    """Train within the budget, leaving time for what follows; small images give larger batches.

    Parameters
    ----------
    data
        Scaled samples.
    split
        The method.
    recipe
        Settings of network and training, seed, budget.
    subject
        The data that will be denoised.
    run
        Its output stores the state of the training and its decisions.
    """
    output, images, scale = run.output, subject.images, subject.scale
    size = min(recipe.training.patch, *images[1:])
    enlarged = min(8, max(1, recipe.training.patch**2 // size**2))
    batch, devices = _shared_batch(batch_for(recipe.training.batch, run.device, images), enlarged, run)
    training = dataclasses.replace(recipe.training, batch=batch * enlarged)
    at_once = len(devices)  # patches are learned from, while whatever follows is done by one process
    budget, told = recipe.budget, False

    def inference(per_step: float, pixels: float = float(np.prod(images))) -> float:
        """Return the time of one pass over the images in seconds; a training step costs about three passes."""
        return (split.n_parts - split.n_clean) * pixels / (training.batch * size**2) * at_once * per_step / 3

    def symmetries(per_step: float) -> Literal[1, 2, 4, 8]:
        if recipe.symmetries:
            return recipe.symmetries
        choices: tuple[Literal[1, 2, 4, 8], ...] = (8, 4, 2)
        return next((n for n in choices if n * inference(per_step) <= 0.15 * budget), 1)

    def closing(per_step: float) -> float:
        """Return the time from the last step to the end of the run in seconds."""
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

    kept = "The training so far is kept; continue with --resume"
    with run.watch.stage("training", 1000) as advance, disk_errors(output.folder or Path(), kept):
        shown = 0

        def show(step: int, n_steps: int | None, latest: Progress | None) -> None:
            nonlocal shown
            now = int(1000 * step / n_steps) if n_steps else 0
            advance(now - shown, _how_far(step, n_steps, latest))
            shown = now
            if run.watch.previews and latest is not None and latest.step == step and output.checkpoint is not None:
                average = recipe.network.build(split.n_slices, split.n_outputs)
                load_average(average, output.checkpoint)
                run.watch.judged(_look(average.eval(), split, scale, data), step, n_steps, latest)

        def steps(judgement: float) -> float:
            """Return the approximate number of steps; a validation passes over held-out data, a step takes three."""
            judged = sum(float(x.shape[0] * x.shape[-2] * x.shape[-1]) for x, _ in data.held_out(_JUDGED_PIXELS))
            per_step = 3 * judgement * training.batch * size**2 / ((split.n_parts - split.n_clean) * judged * at_once)
            return float(training.steps or max(0.3 * budget, budget - closing(per_step)) / per_step)

        build, begun = recipe.begin(split, data, run, steps)
        if begun != RANDOM:
            run.watch.note(f"Training starts from {begun}.")
        rate = training.learning_rate * (recipe.rate if isinstance(build, Known) else 1.0)
        fitted = Group(devices, run.settings.device_memory).fit(
            split,
            build,
            data,
            dataclasses.replace(training, learning_rate=rate),
            seed=recipe.seed,
            budget=for_training,
            checkpoint=output.checkpoint,
            watch=show,
        )
    if fitted.share < 1:
        run.watch.note(
            "The data did not fit into the memory of the device: samples were drawn from a window of "
            f"{fitted.share:.0%} of the rows, exchanged while training; a larger --device-memory avoids this."
        )
    pace = fitted.seconds_per_step or fitted.history[-1].seconds / fitted.history[-1].step  # in a resumed run
    chosen = output.decide("inference", lambda: {"symmetries": symmetries(pace)})
    if recipe.training.steps is not None and chosen["symmetries"] > 1:
        run.watch.note(
            f"Denoising is averaged over {chosen['symmetries']} symmetries of the square, which takes about "
            f"{chosen['symmetries'] * inference(pace):.0f} s in addition to the {recipe.training.steps} requested "
            "steps; symmetries = 1 in the settings switches it off."
        )
    known = {
        "steps": fitted.history[-1].step,
        "batch": batch,
        **({"processes": len(devices)} if len(devices) > 1 else {}),
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


def _decided(output: Output, said: str, tried: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the recorded validation of the initial weights, or a new one.

    A resumed run that has not trained yet may have been begun with other weights, such as the prior of another version.
    """
    noted, again = output.noted("start"), "start-again"
    trained = output.checkpoint is not None and output.checkpoint.exists()
    others = noted is not None and noted["from"] != said and not (trained and output.noted(again) is None)
    return output.decide(again if others else "start", tried)


def _shared_batch(batch: int, enlarged: int, run: Run) -> tuple[int, tuple[torch.device, ...]]:
    """Return the batch size, with a patch at least for each process, and the devices of the processes.

    A run that is resumed keeps its batch size, whatever its number of processes.
    """
    devices = run.devices
    count = len(devices)
    kept = int(run.output.decide("batch", lambda: {"batch": max(batch, -(-count // enlarged))})["batch"])
    devices = devices[: kept * enlarged]
    if kept != batch:
        run.watch.note(f"The batch size is {kept} instead of {batch}, so that every process has a patch.")
    if len(devices) < count:
        run.watch.note(
            f"Only {len(devices)} processes train: this run was started with {kept * enlarged} patches in every step."
        )
    if kept * enlarged % len(devices):
        run.watch.note(
            f"{kept * enlarged} patches cannot be divided evenly among {len(devices)} processes: some have one more, "
            "for which the others wait; a divisible batch size takes less time for each patch."
        )
    return kept, devices


def _times(run: Run, training: float, closing: float) -> str:
    """Return a sentence on how the budget is spent, and whether it can be kept."""
    budget, spent = run.settings.budget, run.elapsed
    said = f"Of the {budget}, {spent:.0f} s have passed, {training:.0f} s go into training, and about {closing:.0f} s "
    said += "into denoising, estimating the error and the report."
    if spent + training + closing > 1.05 * parse_seconds(budget):
        said += (
            " That is more than the budget, of which at least three tenths are for training; give a longer --budget."
        )
    return said


def batch_for(stated: int, device: torch.device, images: tuple[int, int, int]) -> int:
    """Return the batch size: as set, but on a GPU as many patches as take the time of one.

    For small volumes, large batches lead to overfitting: for foam of 32 x 128 x 128 voxels, batches of 8 gave 22.6 dB
    after 20 s, and batches of 32 gave 16.6 dB after 40 s.

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
    amount: tuple[int, int] = TUNED_ON,
    seconds: float | None = None,
) -> tuple[Denoiser, Fitted]:
    """Find the filter setting with the smallest estimated error, on slices not used for validation.

    If `data` have nothing else to tune on, some of the validation slices are used; one or two parameters cannot
    overfit.

    Parameters
    ----------
    data
        Scaled samples.
    split
        Makes the independent views of the data.
    start
        Filter to start from.
    subject
        The data that will be filtered.
    run
        Reports the progress and stores the setting.
    amount
        Numbers of slices to tune on, and of pixels in total.
    seconds
        Time for the search, after which the best setting so far is used; by default what the budget leaves besides the
        filtering itself.

    Raises
    ------
    ResourceError
        The run must keep its budget, and filtering all slices does not fit into it.
    """
    here, cpu, began, trials = data.to_tune_on(amount[0]), torch.device("cpu"), time.monotonic(), 0
    left = run.left
    passes = float(np.prod(subject.images)) / amount[1]  # time to filter all slices, in units of one trial

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


def _how_far(step: int, n_steps: int | None, latest: Progress | None) -> str:
    """Return the step, and the loss and estimated gain of the latest validation."""
    told = [f"step {step}" + (f" of {n_steps}" if n_steps else "")]
    if latest is not None and latest.step > 0:
        told.append(f"loss {latest.loss:.3g}")
    if latest is not None and latest.error > 0 and latest.noise > 0:
        told.append(f"gain on a sample of the held-out data {10 * np.log10(latest.noise / latest.error):+.1f} dB")
    return ", ".join(told)
