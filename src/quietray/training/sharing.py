"""What the training loop needs where several processes share the samples of every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, distributed, nn

from quietray.errors import SettingsError
from quietray.splits.base import Pair

__all__ = ["alone_on", "fabric_on", "found_by_first", "mean", "require_shares", "shared_loss"]

_AGREEMENT = 1e-2  # relative: a GPU multiplies with 10 bits; dropout changes gradients by tens of percent

Found = TypeVar("Found")


def fabric_on(device: torch.device, precision: Literal["bf16-mixed", "32-true"]) -> Fabric:
    """Return the Fabric of this process: of one in a group if it has joined one, else of a single process.

    Examples
    --------
    >>> fabric_on(torch.device("cpu"), "32-true").world_size
    1
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return alone_on(device, precision)
    count = distributed.get_world_size()
    fabric = Fabric(
        accelerator=device.type,
        devices=count if device.type == "cpu" else list(range(count)),
        strategy=DDPStrategy(),
        precision=precision,
        plugins=LightningEnvironment(),
    )
    fabric.launch()
    return fabric


def alone_on(device: torch.device, precision: Literal["bf16-mixed", "32-true"]) -> Fabric:
    """Return the Fabric of a single process, for what it does while the others of its group wait.

    Examples
    --------
    >>> alone_on(torch.device("cpu"), "32-true").is_global_zero
    True
    """
    return Fabric(
        accelerator=device.type,
        devices=1 if device.type == "cpu" else [device.index or 0],
        precision=precision,
        plugins=LightningEnvironment(),  # one process, also inside a job of a batch system
    )


def found_by_first(fabric: Fabric, find: Callable[[], Found]) -> Found:
    """Return in every process what the first one finds.

    Examples
    --------
    >>> found_by_first(fabric_on(torch.device("cpu"), "32-true"), lambda: 3)
    3
    """
    found = find() if fabric.is_global_zero else None
    return fabric.broadcast(found)  # type: ignore[return-value]


def mean(fabric: Fabric, value: Tensor) -> float:
    """Return the mean of a scalar over the processes.

    Examples
    --------
    >>> mean(fabric_on(torch.device("cpu"), "32-true"), torch.tensor(3.0))
    3.0
    """
    return float(torch.as_tensor(fabric.all_reduce(value, reduce_op="mean")))


def shared_loss(
    fabric: Fabric, network: nn.Module, pair: Pair, weight: Tensor, power: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the loss of the share of this process, such that its mean over the processes is the loss of all samples.

    Parameters
    ----------
    fabric
        That of this process.
    network
        The network to train.
    pair, weight, power
        All samples of a step; see :meth:`~quietray.splits.base.Pair.loss`.
    """
    own, weight, fraction = pair.share(weight, fabric.global_rank, fabric.world_size)
    loss = own.to(fabric.device).loss(network, weight.to(fabric.device), power)
    return fabric.world_size * fraction.to(fabric.device) * loss


def require_shares(
    fabric: Fabric, network: nn.Module, pair: Pair, weight: Tensor, power: Callable[[Tensor], Tensor]
) -> None:
    """Raise unless the shares have the gradient of all samples: several processes must learn what one would.

    Parameters
    ----------
    fabric, pair, weight, power
        As for :func:`shared_loss`.
    network
        The network itself, in float32.

    Raises
    ------
    SettingsError
        The gradients differ.
    """
    device = fabric.device
    mine = _gradient(shared_loss(fabric, network, pair, weight, power), network)
    shares = torch.as_tensor(fabric.all_reduce(mine, reduce_op="mean"))

    def distance() -> float:
        whole = _gradient(pair.to(device).loss(network, weight.to(device), power), network)
        return float((shares - whole).norm() / whole.norm().clamp_min(1e-12))

    off = found_by_first(fabric, distance)
    if not off <= _AGREEMENT:
        raise SettingsError(
            "--gpus 1 must be given for this method and network, whose samples depend on each other or on chance (as "
            f"with dropout or batch normalisation): the gradient of {fabric.world_size} processes together is "
            f"{off:.0%} off that of one"
        )


def _gradient(loss: Tensor, network: nn.Module) -> Tensor:
    """Return the gradient of all weights, one after the other."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    found = torch.autograd.grad(loss, weights, materialize_grads=True, allow_unused=True)
    return torch.cat([one.flatten() for one in found])
