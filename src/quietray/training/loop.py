"""The one training loop."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor, nn

from quietray.brief import brief
from quietray.metrics.noreference import Judgement
from quietray.running.precision import precision
from quietray.running.settings import Training
from quietray.splits.base import Network, Split
from quietray.training.pace import Pace
from quietray.training.start import Known
from quietray.training.state import Progress, best, copy_weights, follow, halvings, restore, save, start
from quietray.types import Samples

__all__ = ["Fitted", "Progress", "Training", "TrainingData", "fit", "judge_held_out"]

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the precision is in the metrics

_WARM_UP, _SHORT_WARM_UP = 30, 8  # steps; of a network that is good already
_POWERS: dict[str, Callable[[Tensor], Tensor]] = {"mse": torch.square, "mae": torch.abs}
_MOST_THREADS = 4  # a patch is too small to feed more


@runtime_checkable
class TrainingData(Protocol):
    """Where samples come from."""

    def draw(self, batch: int, patch: int, generator: torch.Generator) -> tuple[Samples, Tensor]:
        """Return random samples and the weight of their targets."""

    def on(self, device: torch.device, room: int | None = None) -> TrainingData:
        """Return data whose samples are drawn on a device, where they fit into `room` bytes there."""

    def held_out(self, most_pixels: int) -> Iterable[tuple[Samples, Tensor]]:
        """Return samples that are never trained on, with weights, of at most about `most_pixels`."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """What training leaves behind.

    Parameters
    ----------
    network
        The network with the weights of the best judgement.
    history
        Every judgement.
    best
        The judgement whose weights were kept.
    stopped
        Why the loop ended, in words.
    seconds_per_step
        Median time of one step.
    """

    network: nn.Module
    history: tuple[Progress, ...]
    best: Progress
    stopped: str
    seconds_per_step: float

    __repr__ = brief


@contextmanager
def _half_the_processors() -> Iterator[None]:
    """Compute on half of the processors.

    The operations of a step are so short that one processor lost to another program stalls them all.  Measured on two
    processors: 18 ms a step alone and 400 ms beside one busy process; one thread takes 27 ms either way.
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
    """Train a network by a split, judge it on what was held out, keep the best.

    Parameters
    ----------
    split
        The method.
    build
        Makes the network, on the device where it is to be trained; called with torch's generator seeded.  One that is
        :class:`Known` to be good is judged before the first step, which may stay the best one, warms up shorter, and
        has an average that counts from there on.
    data
        Where samples come from and what is held out.
    settings
        The loop's settings.
    seed
        Seed of the weights and the samples.
    budget
        Seconds of training when ``settings.steps`` is None, given the seconds that one step takes.
    checkpoint
        File that the state is kept in at every judgement; if it exists the run goes on from there.
    watch
        Called after every step with the step, the planned number of steps if known, and the latest judgement.

    Returns
    -------
    Fitted
        The network with its best weights, and the run's history.
    """
    state = start(build, settings.learning_rate, settings.steps, seed, split.teacher)
    device = next(state.network.parameters()).device
    fabric = Fabric(
        accelerator=device.type,
        devices=1 if device.type == "cpu" else [device.index or 0],
        precision=precision(settings.precision, device),
        plugins=LightningEnvironment(),  # one process, also inside a job of a batch system
    )
    if checkpoint is not None and checkpoint.exists():
        restore(state, checkpoint)
    network, optimizer = fabric.setup(state.network, state.optimizer)
    average = fabric.setup_module(state.average)

    pace, good = Pace(settings.steps, budget, state.seconds), isinstance(build, Known)
    warm_up = _SHORT_WARM_UP if good else _WARM_UP
    if settings.steps is not None:
        warm_up = max(1, min(warm_up, settings.steps // 10))
    if good and state.step == 0:
        judged = judge_held_out(split, average, data, fabric.device)
        state.history.append(
            Progress(0, settings.steps or 0, 0.0, judged.error, judged.error, judged.noise, judged.correlation)
        )
    losses: list[Tensor] = []
    while state.n_steps is None or state.step < state.n_steps:
        if settings.plateau:
            share = schedule(state.step, None, warm_up) * 0.5 ** halvings(state.history, settings.plateau)
        else:
            share = schedule(state.step, state.n_steps, warm_up)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * share
        samples, weight = data.draw(settings.batch, settings.patch, state.generator)
        pair = split.draw(samples, state.generator)
        loss = pair.to(fabric.device).loss(network, weight.to(fabric.device), _POWERS[settings.loss])
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        fabric.clip_gradients(network, optimizer, max_norm=settings.clip)
        optimizer.step()
        state.step += 1
        decay = settings.average if good else min(settings.average, (1 + state.step) / (10 + state.step))
        follow(state.average, state.network, decay)
        if state.teacher is not None:
            state.teacher.learn(state.network, state.step)
        losses.append(loss.detach())
        pace.tick()

        if state.n_steps is None:
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # steps are timed, not their orders
            state.n_steps = pace.first_plan(state.step)
        if state.n_steps is not None and due(state.step, state.n_steps, settings.judgements):
            judged = judge_held_out(split, average, data, fabric.device)
            pace.tick(step=False)
            state.seconds = pace.seconds
            state.history.append(
                Progress(
                    state.step,
                    state.n_steps,
                    state.seconds,
                    float(torch.stack(losses).mean()),
                    judged.error,
                    judged.noise,
                    judged.correlation,
                )
            )
            losses.clear()
            if best(state.history) is state.history[-1]:
                state.best_weights = copy_weights(state.average)
            state.n_steps = pace.next_plan(state.step, state.n_steps)
            # while the learning rate is high the estimate wanders; only its second half can say that there is no more
            since = max(best(state.history).step, state.n_steps // 2)
            if state.step - since > settings.patience * state.n_steps:
                reason = (
                    "the held-out estimate had not improved" if state.history[-1].white else "residuals were not white"
                )
                state.stopped = f"{reason} for {settings.patience:.0%} of the run"
                state.n_steps = state.step
            if checkpoint is not None:
                save(state, checkpoint)
        watch(state.step, state.n_steps, state.history[-1] if state.history else None)

    state.average.load_state_dict(state.best_weights)
    return Fitted(state.average.eval(), tuple(state.history), best(state.history), state.stopped, pace.per_step)


def schedule(step: int, n_steps: int | None, warm_up: int) -> float:
    """Return the share of the peak learning rate: a linear rise, then half a cosine down to zero.

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
    """Return whether a judgement falls on this step; the last step always has one.

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
    """Return the split's estimate of its own error, over what was held out.

    Parameters
    ----------
    split
        The method; its :meth:`~quietray.splits.base.Split.judge` makes the estimate.
    network
        The network to judge.
    data
        Held-out samples.
    device
        Where to compute.
    most_pixels
        Pixels to judge by; the same ones every time, so that judgements of one run share the chance in them.
    """
    held_out = data.held_out(most_pixels)
    return Judgement.pooled(split.judge(network, samples.to(device), weight.to(device)) for samples, weight in held_out)
