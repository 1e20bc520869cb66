"""Initial weights: random, a trained model, or the shipped prior; adapted to the slices that the run's network sees."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from quietray.checkpoint import load_tensors
from quietray.errors import FormatError, SettingsError
from quietray.inference.denoiser import Denoiser, Scale
from quietray.method import Method
from quietray.networks import NETWORKS, Architecture
from quietray.running.models import nearest_model
from quietray.settings import called, from_dict, to_dict
from quietray.splits import SPLITS
from quietray.splits.base import Split
from quietray.splits.neighbourhood import Neighbourhood

__all__ = [
    "AUTO",
    "DEFAULT",
    "PRIOR",
    "RANDOM",
    "SCRATCH",
    "Known",
    "Start",
    "adapted",
    "began_at_random",
    "prior_card",
    "prior_for",
    "save_prior",
    "shipped_prior",
    "shipped_priors",
    "start_of",
]

SCRATCH: Final = "scratch"
PRIOR: Final = "prior"
DEFAULT: Final = "default"
AUTO: Final = "auto"
RANDOM: Final = "random weights"
_NEAR = 1.5  # largest distance of a stored model that is used instead of the prior


@dataclass(frozen=True, eq=False)
class Start:
    """A trained network to start from.

    Parameters
    ----------
    model
        The network with its scale and method.
    said
        Description, to follow "started from".
    shipped
        Whether it is a shipped prior, which has no scale and no unit of its own.
    """

    model: Denoiser
    said: str
    shipped: bool = False

    @property
    def most(self) -> float:
        """Number of steps after which random initial weights are as good or better, as measured for a prior."""
        return float(self.model.facts.get("most_steps") or math.inf)

    def network(self, architecture: Architecture, split: Split) -> nn.Module:
        """Return a copy of the network, adapted to the input of a run and ready for training.

        Raises
        ------
        SettingsError
            The run has a different network.
        """
        known = self.model.trained_architecture
        if known != architecture:
            raise SettingsError(
                f"the model to start from must have the network of this run, {architecture}, got {known}; give the "
                "settings that it was trained with, or leave it out"
            )
        before, wanted = self.model.split, split.neighbourhood
        if (before.neighbourhood, before.n_outputs) == (wanted, split.n_outputs):
            return copy.deepcopy(self.model.network).train()
        return adapted(self.model.network, architecture, (before.neighbourhood, before.n_outputs), split).train()


@dataclass(frozen=True, eq=False)
class Known:
    """Builds a network that is already trained: it is validated before the first step, and its warm-up is short.

    Parameters
    ----------
    build
        Builds the network.
    """

    build: Callable[[], nn.Module]

    def __call__(self) -> nn.Module:
        """Return the network."""
        return self.build()


def adapted(
    network: nn.Module, architecture: Architecture, known: tuple[Neighbourhood, int], split: Split
) -> nn.Module:
    """Return a network with the weights of another one that sees different slices.

    Kernels for neighbours that no longer exist are added to those of the outermost remaining neighbours, so identical
    slices give the same output as before.  Kernels for additional neighbours start at zero.  All steps and channels use
    the same kernels, divided evenly among channels; of the steps, only the middle one contributes at first.  All
    outputs start as that of the middle channel.

    Parameters
    ----------
    network
        Trained network.
    architecture
        Architecture of both networks.
    known
        Input slices of the trained network, and number of its outputs.
    split
        Method of the new network.

    Raises
    ------
    SettingsError
        The network cannot be adapted.

    Examples
    --------
    >>> from quietray.networks import UNet
    >>> from quietray.splits import Noise2Inverse
    >>> before = UNet((4,)).build(3)
    >>> flat, x = adapted(before, UNet((4,)), (Neighbourhood(3), 1), Noise2Inverse(slices=1)), torch.rand(1, 1, 8, 8)
    >>> bool(torch.allclose(flat(x), before(x.expand(1, 3, 8, 8)), atol=1e-5))
    True
    """
    seen, outputs = known
    wanted, state = split.neighbourhood, {name: value.clone() for name, value in network.state_dict().items()}
    fresh = architecture.build(split.n_slices, split.n_outputs)
    for name, like in fresh.state_dict().items():
        weight = state[name]
        if weight.shape == like.shape:
            continue
        if weight.ndim == 4 and weight.shape[1] == seen.size and like.shape[1] == wanted.size:
            weight = _inputs(weight, seen, wanted)
        if weight.shape != like.shape and weight.shape[0] == outputs and like.shape[0] == split.n_outputs:
            weight = weight[outputs // 2].expand(like.shape).clone()
        if weight.shape != like.shape:
            raise SettingsError(
                f"the model to start from must take {split.n_slices} slices and return {split.n_outputs}, or be a "
                f"network that can be adapted, got one of {seen.size} and {outputs}; give the settings that it was "
                "trained with, or leave it out"
            )
        state[name] = weight
    fresh.load_state_dict(state)
    return fresh


def _inputs(weight: Tensor, seen: Neighbourhood, wanted: Neighbourhood) -> Tensor:
    """Return the first kernels ``(map, slice, y, x)`` for another input window."""
    middle = seen.times // 2 * seen.channels + seen.channels // 2
    groups = weight.unflatten(1, (seen.times * seen.channels, seen.slices))
    one = groups.sum(dim=1) if seen.channels > 1 else groups[:, middle]
    reach, new = seen.slices // 2, wanted.slices // 2
    kernels = weight.new_zeros((weight.shape[0], wanted.slices, *weight.shape[2:]))
    for offset in range(-reach, seen.slices - reach):
        kernels[:, min(max(offset, -new), wanted.slices - 1 - new) + new] += one[:, offset + reach]
    if wanted.channels > 1:
        return kernels.repeat(1, wanted.channels, 1, 1) / wanted.channels
    out = weight.new_zeros((weight.shape[0], wanted.times, wanted.slices, *weight.shape[2:]))
    out[:, wanted.times // 2] = kernels
    return out.flatten(1, 2)


def start_of(
    text: str | None, method: Method, network: Architecture, facts: Mapping[str, Any] | None = None
) -> Start | None:
    """Return the network that the setting ``start`` refers to; None for random initial weights.

    Parameters
    ----------
    text
        None or ``scratch``; ``prior``, with random initial weights if no prior fits; ``default``, the same, but
        replaced by random weights if there is time for many steps; ``auto``, a stored model with similar noise, else
        the prior; or the folder of a model.
    method, network
        Method and network of the run.
    facts
        Facts of the scan, for ``auto``.
    """
    if text is None or text == SCRATCH:
        return None
    if text in (PRIOR, DEFAULT):
        return prior_for(method, network)
    if text != AUTO:
        return Start(Denoiser.load(Path(text)), f"the model {text}")
    prior = prior_for(method, network)
    found = nearest_model(facts or {}, called(type(method)), called(type(network)), to_dict(network))
    if found is None:
        return prior and replace(prior, said=f"{prior.said} (no model of this method is kept)")
    kept, far, why = found
    if far <= _NEAR or prior is None:
        return Start(Denoiser.load(kept.folder), f"the kept model {kept.name} (distance {far:.2f}: {why})")
    return replace(prior, said=f"{prior.said} (the nearest kept model, {kept.name}, is {far:.2f} away: {why})")


def began_at_random(facts: Mapping[str, Any]) -> bool:
    """Return whether a network with these facts was trained from random initial weights.

    Examples
    --------
    >>> began_at_random({}), began_at_random({"started_from": "the shipped prior volume-1"})
    (True, False)
    """
    return str(facts.get("started_from") or RANDOM).startswith(RANDOM)


def prior_for(method: Method, network: Architecture) -> Start | None:
    """Return the shipped prior of a method, if there is one for this network.

    Examples
    --------
    >>> from quietray.networks import MSD, UNet
    >>> from quietray.splits import Noise2Inverse
    >>> prior_for(Noise2Inverse(), MSD()) is None
    True
    >>> prior_for(Noise2Inverse(), UNet()).said
    'the shipped prior volume-2'
    """
    if method.prior is None or not (_folder() / f"{method.prior}.json").is_file():
        return None
    model = shipped_prior(method.prior)
    if model.architecture != network:
        return None
    return Start(model, f"the shipped prior {model.facts['prior']}", shipped=True)


def shipped_priors() -> tuple[str, ...]:
    """Return the names of the shipped priors.

    Examples
    --------
    >>> "volume" in shipped_priors()
    True
    """
    return tuple(sorted(entry.name[:-5] for entry in _folder().iterdir() if entry.name.endswith(".json")))


def prior_card(name: str) -> dict[str, Any]:
    """Return the card of a prior, without its weights.

    Raises
    ------
    FormatError
        There is no prior of this name, or its card is damaged.

    Examples
    --------
    >>> len(prior_card("volume")["sha256"])
    64
    """
    try:
        card: dict[str, Any] = json.loads((_folder() / f"{name}.json").read_text())
    except (OSError, ValueError) as error:
        there = ", ".join(shipped_priors())
        raise FormatError(f"the prior must be one of {there}, got {name}: {error}; install again") from None
    return card


def shipped_prior(name: str) -> Denoiser:
    """Return a prior with its card as its facts.

    Raises
    ------
    FormatError
        There is no prior of this name, or it is damaged.

    Examples
    --------
    >>> shipped_prior("volume").facts == prior_card("volume")
    True
    """
    card = prior_card(name)
    tensors, _ = load_tensors(Path(str(_folder() / f"{name}.safetensors")))
    split = from_dict(SPLITS[card["method"]], card["split"], "split")
    architecture = from_dict(NETWORKS[card["architecture"]], card["network"], "network")
    network = architecture.build(split.n_slices, split.n_outputs)
    network.load_state_dict({name: value.float() for name, value in tensors.items()})
    return Denoiser(
        network.to(memory_format=torch.channels_last).eval(),  # type: ignore[call-overload]
        architecture,
        split,
        Scale(0.0, 1.0),
        facts=card,
    )


def save_prior(
    folder: Path, name: str, network: nn.Module, architecture: Architecture, split: Split, card: Mapping[str, Any]
) -> None:
    """Write the weights in bfloat16 and their card, as they are shipped.

    Parameters
    ----------
    folder
        Folder to write to.
    name
        Name such as ``volume``.
    network, architecture, split
        The trained network, its architecture and its method.
    card
        Further information, ready for JSON.
    """
    import hashlib

    from quietray.checkpoint import save_tensors, write_json

    place = folder / f"{name}.safetensors"
    save_tensors(place, {key: value.to(torch.bfloat16) for key, value in network.state_dict().items()}, {})
    settings = {
        "method": called(type(split)),
        "split": to_dict(split),
        "architecture": called(type(architecture)),
        "network": to_dict(architecture),
        "sha256": hashlib.sha256(place.read_bytes()).hexdigest(),
    }
    write_json(folder / f"{name}.json", {**card, **settings})


def _folder() -> Any:
    return files("quietray") / "training" / "priors"
