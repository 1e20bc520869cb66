"""One of the processes that train a network together, started by :mod:`quietray.training.group`."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import distributed

from quietray.running.device import training_memory
from quietray.running.shared import Piece
from quietray.training.group import Done, Failed, Order, built_on, unpacked
from quietray.training.loop import Progress, fit
from quietray.training.state import copy_weights

__all__ = ["main"]

_PATIENCE = timedelta(days=1)  # the process that started the group notices when one ends


def main(number: int, descriptor: int, pieces: Sequence[Piece]) -> None:
    """Train as one of the processes of a group, and tell what came of it.

    Parameters
    ----------
    number
        Number of this process, from 0.
    descriptor
        Descriptor of the connection to the process that started this one.
    pieces
        Where the :class:`~quietray.training.group.Order` is.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    channel = Connection(descriptor)

    def tell(what: Any) -> None:
        channel.send_bytes(pickle.dumps(what))

    try:
        done = _trained(unpacked(pieces), number, channel)
    except BaseException as error:
        failed = Failed(error, traceback.format_exc(), time.monotonic())
        try:
            tell(failed)
        except (pickle.PicklingError, AttributeError, TypeError):
            tell(Failed(RuntimeError(f"{type(error).__name__}: {error}"), failed.where, failed.when))
        sys.exit(1)
    tell(done)
    distributed.barrier()  # no process leaves before the others have what they wait for
    distributed.destroy_process_group()


def _trained(order: Order, number: int, channel: Connection) -> Done:
    """Join the group and train."""
    device, count = order.devices[number], len(order.devices)
    torch.set_num_threads(max(1, order.threads // count))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nobody outside this machine belongs to the group
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=order.meeting.as_uri(),
        rank=number,
        world_size=count,
        timeout=_PATIENCE,
        device_id=device if device.type == "cuda" else None,
    )
    first = number == 0

    def budget(per_step: float) -> float:
        if not first:
            return 0.0  # only the first process plans
        channel.send_bytes(pickle.dumps(per_step))
        return float(pickle.loads(channel.recv_bytes()))

    def watch(step: int, n_steps: int | None, latest: Progress | None) -> None:
        if first:
            channel.send_bytes(pickle.dumps((step, n_steps, latest)))

    if first:
        channel.send_bytes(pickle.dumps("ready"))
    fitted = fit(
        order.split,
        built_on(order.build, device),
        order.data.on(device, _least_of_all(training_memory(device, order.memory), device)),
        order.settings,
        seed=order.seed,
        budget=budget,
        checkpoint=order.checkpoint,
        watch=watch,
    )
    teacher = order.split.teacher
    weights, taught = (
        {name: value.cpu() for name, value in copy_weights(network).items()} if first and network is not None else {}
        for network in (fitted.network, None if teacher is None else teacher.network)
    )
    return Done(weights, taught, fitted.history, fitted.best, fitted.stopped, fitted.seconds_per_step, fitted.share)


def _least_of_all(room: int | None, device: torch.device) -> int | None:
    """Return the smallest room of all processes, which must draw the same samples and thus have the same windows."""
    if room is None:
        return None
    least = torch.tensor(room, device=device)
    distributed.all_reduce(least, distributed.ReduceOp.MIN)
    return int(least)


def _end_with_parent() -> None:
    """Wait until the process that started this one ends, however that happens, and end too."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), [Piece(*one) for one in json.loads(sys.argv[3])])
