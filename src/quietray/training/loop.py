"""The one training loop."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from quietray.checkpoint import load_tensors, save_tensors
from quietray.errors import SettingsError
from quietray.metrics.noreference import Judgement
from quietray.splits.base import Network, Split
from quietray.types import Samples

__all__ = ["Fitted", "Progress", "Training", "TrainingData", "fit", "judge_held_out", "precision", "seeded"]


@dataclass(frozen=True)
class Training:
    """Settings of the loop.

    Parameters
    ----------
    steps
        Optimisation steps.  None fills a time budget instead; the number that fitted is then written into run.toml,
        so that the run can be repeated exactly.
    batch, patch
        Patches in a step, and their edge in pixels.
    learning_rate
        Peak of a linear warm-up and a cosine decay (Adam).
    average
        Decay per step of the running average of the weights, which is what is judged and kept.
    clip
        Largest norm of the gradient.
    judgements
        How many times the held-out estimate is made, evenly spread over the run.
    patience
        Share of the run without a better estimate after which training stops.
    precision
        ``bf16`` computes convolutions in bfloat16 (weights stay float32), ``fp32`` does not; ``auto`` takes bf16 where
        the processor has instructions for it.
    """

    steps: int | None = None
    batch: int = 1
    patch: int = 128
    learning_rate: float = 2e-3
    average: float = 0.99
    clip: float = 1.0
    judgements: int = 20
    patience: float = 0.4
    precision: Literal["auto", "bf16", "fp32"] = "auto"

    def __post_init__(self) -> None:
        for name in ("batch", "patch", "judgements", "learning_rate", "clip", "patience"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} must be positive, got {getattr(self, name)}")
        if self.steps is not None and self.steps < 1:
            raise SettingsError(f"steps must be positive, got {self.steps}")
        if not 0 <= self.average < 1:
            raise SettingsError(f"average must be at least 0 and below 1, got {self.average}")


@runtime_checkable
class TrainingData(Protocol):
    """Where samples come from."""

    def draw(self, batch: int, patch: int, generator: torch.Generator) -> tuple[Samples, Tensor]:
        """Return random samples and the weight of their targets."""

    def held_out(self) -> Any:
        """Return an iterable of the samples that are never trained on, with weights."""


@dataclass(frozen=True)
class Progress:
    """One judgement of the run so far.

    Parameters
    ----------
    step, n_steps
        Steps done and planned.
    seconds
        Time spent training.
    loss
        Mean training loss since the last judgement.
    error, noise
        Held-out estimates of the mean squared error of the method's result and of the data without denoising, in the
        data's scale.
    """

    step: int
    n_steps: int
    seconds: float
    loss: float
    error: float
    noise: float


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


@dataclass
class _State:
    """Everything that a resumed run needs to go on as if nothing had happened."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: nn.Module
    best_weights: dict[str, Tensor]
    generator: torch.Generator
    step: int = 0
    n_steps: int | None = None
    seconds: float = 0.0
    history: list[Progress] = field(default_factory=list)


def precision(choice: Literal["auto", "bf16", "fp32"]) -> Literal["bf16-mixed", "32-true"]:
    """Return Fabric's name of the precision; ``auto`` asks the processor.

    Examples
    --------
    >>> precision("fp32")
    '32-true'
    """
    if choice == "auto":
        fast = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else _cpu_has_bf16()
        choice = "bf16" if fast else "fp32"
    return "bf16-mixed" if choice == "bf16" else "32-true"


def _cpu_has_bf16() -> bool:
    capabilities = torch.backends.cpu.get_capabilities() if hasattr(torch.backends.cpu, "get_capabilities") else {}
    return bool(
        capabilities.get("amx_bf16", capabilities.get("amx_tile", False)) or torch.cpu._is_avx512_bf16_supported()
    )


def seeded(seed: int, name: str) -> torch.Generator:
    """Return the generator called `name` of a run with this seed; different names give unrelated streams.

    Examples
    --------
    >>> int(torch.randint(100, (), generator=seeded(0, "patches"))) == int(
    ...     torch.randint(100, (), generator=seeded(0, "patches"))
    ... )
    True
    """
    mixed = seed
    for letter in name.encode():
        mixed = (mixed * 1_000_003 + letter) % (2**63 - 1)
    return torch.Generator().manual_seed(mixed)


def fit(
    split: Split,
    build: Callable[[], nn.Module],
    data: TrainingData,
    settings: Training,
    *,
    seed: int = 0,
    budget: Callable[[float], float] | float = 60.0,
    checkpoint: Path | None = None,
    watch: Callable[[int, int | None, Progress | None], None] = lambda step, n_steps, latest: None,
) -> Fitted:
    """Train a network by a split, judge it on what was held out, keep the best.

    Parameters
    ----------
    split
        The method.
    build
        Makes the network; called with torch's generator seeded.
    data
        Where samples come from and what is held out.
    settings
        The loop's settings.
    seed
        Seed of the weights and the samples.
    budget
        Seconds of training when ``settings.steps`` is None; a function gets the seconds that one step takes.
    checkpoint
        File that the state is kept in at every judgement; if it exists the run goes on from there.
    watch
        Called after every step with the step, the planned number of steps if known, and the latest judgement.

    Returns
    -------
    Fitted
        The network with its best weights, and the run's history.
    """
    fabric = Fabric(accelerator="auto", devices=1, precision=precision(settings.precision))
    state = _start(build, settings, seed)
    if checkpoint is not None and checkpoint.exists():
        _restore(state, checkpoint)
    network, optimizer = fabric.setup(state.network, state.optimizer)
    average = fabric.setup_module(state.average)

    clock = _Clock(state.seconds)
    losses: list[Tensor] = []
    plan = _Plan(settings, budget)
    stopped = "the planned steps were done"
    while state.n_steps is None or state.step < state.n_steps:
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * schedule(state.step, state.n_steps, plan.warm_up)
        samples, weight = data.draw(settings.batch, settings.patch, state.generator)
        pair = split.draw(samples, state.generator)
        loss = pair.to(fabric.device).loss(network, weight.to(fabric.device))
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        fabric.clip_gradients(network, optimizer, max_norm=settings.clip)
        optimizer.step()
        state.step += 1
        _follow(state.average, state.network, min(settings.average, (1 + state.step) / (10 + state.step)))
        losses.append(loss.detach())
        clock.tick()

        if state.n_steps is None and plan.pace_is_known(state.step, clock.seconds):
            state.n_steps = plan.n_steps(state.step, clock)
        if state.n_steps is not None and due(state.step, state.n_steps, settings.judgements):
            judged = judge_held_out(split, average, data, fabric.device)
            clock.tick(step=False)
            state.seconds = clock.seconds
            state.history.append(
                Progress(
                    state.step,
                    state.n_steps,
                    state.seconds,
                    float(torch.stack(losses).mean()),
                    judged.error,
                    judged.noise,
                )
            )
            losses.clear()
            if _best(state.history) is state.history[-1]:
                state.best_weights = _copy(state.average)
            state.n_steps = plan.again(state, clock)
            if state.step - _best(state.history).step > settings.patience * state.n_steps:
                stopped = f"the held-out estimate had not improved for {settings.patience:.0%} of the run"
                state.n_steps = state.step
            if checkpoint is not None:
                _save(state, checkpoint)
        watch(state.step, state.n_steps, state.history[-1] if state.history else None)

    state.average.load_state_dict(state.best_weights)
    best = _best(state.history)
    return Fitted(state.average.eval(), tuple(state.history), best, stopped, clock.per_step)


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
def judge_held_out(split: Split, network: Network, data: TrainingData, device: torch.device) -> Judgement:
    """Return the split's estimate of its own error, over all that was held out.

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
    """
    error = noise = total = 0.0
    for samples, weight in data.held_out():
        judged = split.judge(network, samples.to(device), weight.to(device))
        error += judged.error * judged.weight
        noise += judged.noise * judged.weight
        total += judged.weight
    return Judgement(error / max(total, 1e-12), noise / max(total, 1e-12), total)


class _Clock:
    """Time spent training and judging, and the pace of the steps."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._last = time.monotonic()
        self._steps: list[float] = []

    def tick(self, step: bool = True) -> None:
        """Count the time since the last tick; that of a step also counts towards the pace."""
        now = time.monotonic()
        if step:
            self._steps.append(now - self._last)
        self.seconds += now - self._last
        self._last = now

    @property
    def per_step(self) -> float:
        """Median time of the latest steps."""
        recent = sorted(self._steps[-50:])
        return recent[len(recent) // 2] if recent else 0.0


class _Plan:
    """How many steps there will be: as told, or as many as fit the budget once the pace is known."""

    def __init__(self, settings: Training, budget: Callable[[float], float] | float) -> None:
        self.fixed = settings.steps
        self.warm_up = 30 if self.fixed is None else max(1, min(30, self.fixed // 10))
        self._budget = budget

    def seconds(self, per_step: float) -> float:
        """Return the seconds that training may take."""
        return self._budget(per_step) if callable(self._budget) else self._budget

    def pace_is_known(self, step: int, seconds: float) -> bool:
        """Return whether enough steps were timed to plan with."""
        return step >= self.warm_up or seconds > 0.1 * self.seconds(seconds / step)

    def n_steps(self, step: int, clock: _Clock) -> int:
        """Return the number of steps that the whole run will have."""
        left = self.seconds(clock.per_step) - clock.seconds
        return step + max(1, int(left / max(clock.per_step, 1e-6)))

    def again(self, state: _State, clock: _Clock) -> int:
        """Return a smaller number of steps if the machine has slowed down so much that the budget would be missed."""
        assert state.n_steps is not None
        if self.fixed is not None or state.step >= state.n_steps:
            return state.n_steps
        pace = clock.seconds / state.step
        if pace * state.n_steps <= 1.1 * self.seconds(clock.per_step):
            return state.n_steps
        left = self.seconds(clock.per_step) - clock.seconds
        return min(state.n_steps, state.step + max(1, int(left / pace)))


def _start(build: Callable[[], nn.Module], settings: Training, seed: int) -> _State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeded(seed, "weights").initial_seed())
        network = build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate, fused=True)
    return _State(network, optimizer, average, _copy(average), seeded(seed, "samples"), n_steps=settings.steps)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the network's."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)


def _best(history: list[Progress]) -> Progress:
    return min(history, key=lambda progress: progress.error)


def _save(state: _State, path: Path) -> None:
    tensors: dict[str, Tensor] = {"generator": state.generator.get_state()}
    for prefix, module in (("network", state.network), ("average", state.average)):
        tensors |= {f"{prefix}.{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in state.best_weights.items()}
    for index, slots in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    facts = {
        "step": state.step,
        "n_steps": state.n_steps,
        "seconds": state.seconds,
        "history": [vars(progress) for progress in state.history],
    }
    save_tensors(path, tensors, facts)


def _restore(state: _State, path: Path) -> None:
    tensors, facts = load_tensors(path)
    groups: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        prefix, _, rest = name.partition(".")
        groups.setdefault(prefix, {})[rest] = value
    state.network.load_state_dict(groups["network"])
    state.average.load_state_dict(groups["average"])
    state.best_weights = groups["best"]
    state.generator.set_state(tensors["generator"])
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in groups.get("optimizer", {}).items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = value
    parameters = state.optimizer.param_groups[0]["params"]
    for number, moments in slots.items():  # the fused step walks through memory: moments must lie as weights do
        for slot, value in moments.items():
            if value.shape == parameters[number].shape:
                moments[slot] = torch.empty_like(parameters[number]).copy_(value)
    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": slots})
    state.step, state.n_steps, state.seconds = facts["step"], facts["n_steps"], facts["seconds"]
    state.history = [Progress(**entry) for entry in facts["history"]]
