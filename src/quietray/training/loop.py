"""The training loop."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from quietray.brief import brief
from quietray.metrics.noreference import Judgement
from quietray.running.precision import precision
from quietray.running.settings import Training
from quietray.splits.base import Network, Split
from quietray.training.pace import Pace
from quietray.training.sharing import alone_on, fabric_on, found_by_first, mean, require_shares, shared_loss
from quietray.training.start import Known
from quietray.training.state import Progress, best, copy_weights, follow, halvings, restore, save, start
from quietray.types import Samples

__all__ = ["Fitted", "Progress", "Training", "TrainingData", "fit", "judge_held_out"]

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the precision is recorded in the metrics

_WARM_UP, _SHORT_WARM_UP = 30, 8  # warm-up in steps for a network that is already trained
_POWERS: dict[str, Callable[[Tensor], Tensor]] = {"mse": torch.square, "mae": torch.abs}
_MOST_THREADS = 4  # a single patch is too small to occupy more


@runtime_checkable
class TrainingData(Protocol):
    """Base class of training data."""

    def draw(self, batch: int, patch: int, generator: torch.Generator) -> tuple[Samples, Tensor]:
        """Return random samples and the weight of their targets."""

    def on(self, device: torch.device, room: int | None = None) -> TrainingData:
        """Return data whose samples are drawn on a device, from as many of them as fit into `room` bytes there."""

    def at(self, step: int, n_steps: int | None) -> float:
        """Tell which step is next, of how many if known; return the fraction of the data that it can be drawn from."""

    def held_out(self, most_pixels: int) -> Iterable[tuple[Samples, Tensor]]:
        """Return samples that are never trained on, and their weights, of at most about `most_pixels`."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """Result of the training.

    Parameters
    ----------
    network
        The network with the weights of the smallest validation error.
    history
        All validations.
    best
        The validation whose weights were kept.
    stopped
        Why the training ended.
    seconds_per_step
        Median time of one step.
    processes
        Number of processes that trained together.
    share
        Fraction of the data that was on the device at a time.
    """

    network: nn.Module
    history: tuple[Progress, ...]
    best: Progress
    stopped: str
    seconds_per_step: float
    processes: int = 1
    share: float = 1.0

    __repr__ = brief


@contextmanager
def _half_the_processors() -> Iterator[None]:
    """Compute on half of the CPUs.

    The operations of a step are so short that losing one CPU to another program stalls all of them.  On two CPUs, a
    step took 18 ms alone and 400 ms beside one busy process; with one thread, 27 ms in both cases.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(min(_MOST_THREADS, max(1, threads // 2)))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_half_the_processors()
def fit(
    split: Split,
    build: Callable[[], nn.Module],
    data: TrainingData,
    settings: Training,
    *,
    seed: int = 0,
    budget: Callable[[float], float] = lambda per_step: 60.0,
    checkpoint: Path | None = None,
    watch: Callable[[int, int | None, Progress | None], None] = lambda step, n_steps, latest: None,
) -> Fitted:
    """Train a network, validate it on held-out data, and keep the best weights.

    In each of the processes of a group (:mod:`quietray.training.group`), all draw the same samples, and each computes
    the gradient of its share.  The first one validates, plans the number of steps and writes the checkpoint.

    Parameters
    ----------
    split
        The method.
    build
        Builds the network on the device where it is trained, with torch's generator seeded.  A :class:`Known` network
        is validated before the first step, whose weights may remain the best ones; it also has a shorter warm-up.
    data
        Source of the training samples and of the held-out ones.
    settings
        Settings of the training loop.
    seed
        Seed of weights and samples.
    budget
        Computes the time for training in seconds from the duration of a step, if ``settings.steps`` is None.
    checkpoint
        File in which the state is stored at every validation; if it exists, the training is resumed from there.
    watch
        Called after every step with the step, the planned number of steps if known, and the latest validation.

    Returns
    -------
    Fitted
        The network with its best weights, and the run's history.
    """
    state = start(build, settings.learning_rate, settings.steps, seed, split.teacher)
    device = next(state.network.parameters()).device
    arithmetic = precision(settings.precision, device)
    fabric = fabric_on(device, arithmetic)
    if checkpoint is not None and checkpoint.exists():
        restore(state, checkpoint)
    network, optimizer = fabric.setup(state.network, state.optimizer)
    average = alone_on(device, arithmetic).setup_module(state.average)

    pace, good = Pace(settings.steps, budget, state.seconds), isinstance(build, Known)
    warm_up = _SHORT_WARM_UP if good else _WARM_UP
    if settings.steps is not None:
        warm_up = max(1, min(warm_up, settings.steps // 10))
    if good and state.step == 0:
        judged = found_by_first(fabric, lambda: judge_held_out(split, average, data, device))
        state.history.append(
            Progress(0, settings.steps or 0, 0.0, judged.error, judged.error, judged.noise, judged.correlation)
        )
    losses: list[Tensor] = []
    there = data.at(state.step, state.n_steps)
    power, begun = _POWERS[settings.loss], state.step
    while state.n_steps is None or state.step < state.n_steps:
        if settings.plateau:
            share = schedule(state.step, None, warm_up) * 0.5 ** halvings(state.history, settings.plateau)
        else:
            share = schedule(state.step, state.n_steps, warm_up)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * share
        data.at(state.step, state.n_steps)
        samples, weight = data.draw(settings.batch, settings.patch, state.generator)
        pair = split.draw(samples, state.generator)
        if fabric.world_size == 1:
            loss = pair.to(device).loss(network, weight.to(device), power)
        else:
            if state.step == begun:
                require_shares(fabric, state.network, pair, weight, power)
            loss = shared_loss(fabric, network, pair, weight, power)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        fabric.clip_gradients(network, optimizer, max_norm=settings.clip)
        optimizer.step()
        state.step += 1
        follow(state.average, state.network, min(settings.average, (1 + state.step) / (10 + state.step)))
        if state.teacher is not None:
            state.teacher.learn(state.network, state.step)
        losses.append(loss.detach())
        pace.tick()

        if state.n_steps is None:
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # time the steps, not only their submission
            state.n_steps = found_by_first(fabric, partial(pace.first_plan, state.step))
        if state.n_steps is not None and due(state.step, state.n_steps, settings.judgements):
            mean_loss = mean(fabric, torch.stack(losses).mean())
            losses.clear()
            judged = found_by_first(fabric, lambda: judge_held_out(split, average, data, device))
            pace.tick(step=False)
            state.seconds = found_by_first(fabric, lambda: pace.seconds)
            state.history.append(
                Progress(
                    state.step,
                    state.n_steps,
                    state.seconds,
                    mean_loss,
                    judged.error,
                    judged.noise,
                    judged.correlation,
                )
            )
            if best(state.history) is state.history[-1]:
                state.best_weights = copy_weights(state.average)
            state.n_steps = found_by_first(fabric, partial(pace.next_plan, state.step, state.n_steps))
            # the estimate fluctuates while the learning rate is high; only the second half can show convergence
            since = max(best(state.history).step, state.n_steps // 2)
            if state.step - since > settings.patience * state.n_steps:
                reason = (
                    "the held-out estimate had not improved" if state.history[-1].white else "residuals were not white"
                )
                state.stopped = f"{reason} for {settings.patience:.0%} of the run"
                state.n_steps = state.step
            if checkpoint is not None and fabric.is_global_zero:
                save(state, checkpoint)
        watch(state.step, state.n_steps, state.history[-1] if state.history else None)

    state.average.load_state_dict(state.best_weights)
    kept = best(state.history)
    return Fitted(state.average.eval(), tuple(state.history), kept, state.stopped, pace.per_step, share=there)


def schedule(step: int, n_steps: int | None, warm_up: int) -> float:
    """Return the learning rate relative to its peak: a linear rise, then half a cosine down to zero.

    Examples
    --------
    >>> schedule(0, 100, 10), schedule(10, 100, 10), round(schedule(55, 100, 10), 3)
    (0.1, 1.0, 0.5)
    """
    if step < warm_up:
        return (step + 1) / warm_up
    if n_steps is None:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, n_steps - warm_up))))


def due(step: int, n_steps: int, judgements: int) -> bool:
    """Return whether there is a validation after this step; the last step always has one.

    Examples
    --------
    >>> [step for step in range(1, 11) if due(step, 10, 3)]
    [4, 7, 10]
    """
    return step >= n_steps or (step * judgements) // n_steps > ((step - 1) * judgements) // n_steps


@torch.no_grad()
def judge_held_out(
    split: Split, network: Network, data: TrainingData, device: torch.device, most_pixels: int = 2**17
) -> Judgement:
    """Return the method's estimate of its own error on the held-out data.

    Parameters
    ----------
    split
        The method; its :meth:`~quietray.splits.base.Split.judge` makes the estimate.
    network
        The network to validate.
    data
        Source of held-out samples.
    device
        Device for the computation.
    most_pixels
        Number of pixels to use; always the same ones, so that estimates within a run have the same statistical error.
    """
    held_out = data.held_out(most_pixels)
    return Judgement.pooled(split.judge(network, samples.to(device), weight.to(device)) for samples, weight in held_out)
