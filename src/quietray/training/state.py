"""State of the training: everything needed to resume it exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from quietray.checkpoint import load_tensors, save_tensors
from quietray.splits.base import Teacher

__all__ = [
    "NOT_WHITE",
    "Progress",
    "State",
    "best",
    "copy_weights",
    "follow",
    "halvings",
    "load_average",
    "restore",
    "save",
    "seeded",
    "start",
]

NOT_WHITE = 0.15  # largest correlation of neighbouring residuals


@dataclass(frozen=True)
class Progress:
    """One validation during the training.

    Parameters
    ----------
    step, n_steps
        Number of steps done and planned.
    seconds
        Time spent training.
    loss
        Mean training loss since the last validation; for a validation before the first step, its error.
    error, noise
        Estimated mean squared error after and before denoising on held-out data, in the scale of the data.
    correlation
        Correlation of the residuals of neighbouring pixels, for methods that need white noise; far from 0, the network
        is fitting the correlated part of the noise.
    """

    step: int
    n_steps: int
    seconds: float
    loss: float
    error: float
    noise: float
    correlation: float = 0.0

    @property
    def white(self) -> bool:
        """Whether the residuals are as white as methods that hide pixels require."""
        return abs(self.correlation) <= NOT_WHITE


@dataclass
class State:
    """Everything needed to resume the training exactly."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: nn.Module
    best_weights: dict[str, Tensor]
    generator: torch.Generator
    step: int = 0
    n_steps: int | None = None
    seconds: float = 0.0
    history: list[Progress] = field(default_factory=list)
    stopped: str = "the planned steps were done"
    teacher: Teacher | None = None


def seeded(seed: int, name: str) -> torch.Generator:
    """Return the random generator called `name` of a run with this seed; different names give independent streams.

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


def start(
    build: Callable[[], nn.Module],
    learning_rate: float,
    n_steps: int | None,
    seed: int,
    teacher: Teacher | None = None,
) -> State:
    """Return the state before the first step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeded(seed, "weights").initial_seed())
        network = build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)
    samples = seeded(seed, "samples")
    return State(network, optimizer, average, copy_weights(average), samples, n_steps=n_steps, teacher=teacher)


def copy_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the present weights."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Update the exponential moving average of the weights."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)


def best(history: list[Progress]) -> Progress:
    """Return the validation with the smallest error, among those with white residuals if there are any."""
    return min(history, key=lambda progress: (not progress.white, progress.error))


def halvings(history: list[Progress], patience: int) -> int:
    """Return how many times `patience` validations in a row have brought no improvement.

    Examples
    --------
    >>> errors = (4.0, 3.0, 3.0, 5.0, 2.0, 2.0, 2.0, 2.0, 2.0)
    >>> found = [Progress(step, 9, 0.0, 0.0, error, 1.0) for step, error in enumerate(errors)]
    >>> [halvings(found[:n], 2) for n in range(1, 10)]
    [0, 0, 0, 1, 1, 1, 2, 2, 3]
    """
    count = row = 0
    lowest = float("inf")
    for progress in history:
        row = 0 if progress.error < lowest else row + 1
        lowest = min(lowest, progress.error)
        if row == patience:
            count, row = count + 1, 0
    return count


def save(state: State, path: Path) -> None:
    """Write the state to one file, atomically."""
    tensors: dict[str, Tensor] = {"generator": state.generator.get_state()}
    modules = [("network", state.network), ("average", state.average)]
    if state.teacher is not None:
        modules.append(("teacher", state.teacher.network))
    for prefix, module in modules:
        tensors |= {f"{prefix}.{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in state.best_weights.items()}
    for index, slots in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    facts = {
        "step": state.step,
        "n_steps": state.n_steps,
        "seconds": state.seconds,
        "stopped": state.stopped,
        "history": [vars(progress) for progress in state.history],
    }
    save_tensors(path, tensors, facts)


def load_average(network: nn.Module, path: Path) -> None:
    """Load the averaged weights of a stored state into a network."""
    tensors, _ = load_tensors(path)
    prefix = "average."
    network.load_state_dict({name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)})


def restore(state: State, path: Path) -> None:
    """Set the state to the content of a file.

    Raises
    ------
    FormatError
        The file is damaged.
    """
    tensors, facts = load_tensors(path)
    groups: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        prefix, _, rest = name.partition(".")
        groups.setdefault(prefix, {})[rest] = value
    state.network.load_state_dict(groups["network"])
    state.average.load_state_dict(groups["average"])
    if state.teacher is not None:
        state.teacher.network.load_state_dict(groups["teacher"])
    state.best_weights = groups["best"]
    state.generator.set_state(tensors["generator"])
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in groups.get("optimizer", {}).items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = value
    parameters = state.optimizer.param_groups[0]["params"]
    for number, moments in slots.items():  # the fused step requires moments in the same memory layout as the weights
        for slot, value in moments.items():
            if value.shape == parameters[number].shape:
                moments[slot] = torch.empty_like(parameters[number]).copy_(value)
    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": slots})
    state.step, state.n_steps, state.seconds = facts["step"], facts["n_steps"], facts["seconds"]
    state.stopped = facts["stopped"]
    state.history = [Progress(**entry) for entry in facts["history"]]
