"""Training in several processes, one for each GPU: started, followed, and ended together.

The process of the run prepares everything, starts the others, and waits for them: none of them is the run itself, so
one that dies or hangs never takes it along.  Each member runs :func:`~quietray.training.loop.fit`
(:mod:`quietray.training.member`).
"""

from __future__ import annotations

import io
import json
import mmap
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from quietray.errors import ResourceError, SettingsError
from quietray.running.device import training_memory
from quietray.running.settings import Training
from quietray.running.shared import Piece, shared_empty, shared_piece
from quietray.splits.base import Split
from quietray.training.loop import Fitted, Progress, TrainingData, fit
from quietray.training.start import Known
from quietray.training.state import start

__all__ = ["Done", "Failed", "Group", "Order", "built_on", "unpacked"]

_GRACE = 5.0  # seconds in which the others may tell what happened, after the first failure
_FROM_OTHERS = ("gloo", "NCCL", "nccl", "Connection closed", "Connection reset", "Broken pipe")  # in their messages


@dataclass(frozen=True, eq=False)
class Order:
    """What every process of a group is told, besides its number.

    Parameters
    ----------
    split, build, data, settings, seed, checkpoint
        As for :func:`~quietray.training.loop.fit`; `build` builds the network on the CPU.
    devices
        Device of each process.
    memory
        Largest GPU memory for the data, such as ``8G``; None for most of what is free.
    threads
        Number of CPU threads for all processes together.
    meeting
        File through which the processes find each other.
    """

    split: Split
    build: Callable[[], nn.Module]
    data: TrainingData
    settings: Training
    seed: int
    checkpoint: Path | None
    devices: tuple[torch.device, ...]
    memory: str | None
    threads: int
    meeting: Path


@dataclass(frozen=True, eq=False)
class Done:
    """What a process has found: the same in all of them, so that only the first one tells weights and its teacher."""

    weights: dict[str, Tensor]
    teacher: dict[str, Tensor]
    history: tuple[Progress, ...]
    best: Progress
    stopped: str
    seconds_per_step: float
    share: float


@dataclass(frozen=True, eq=False)
class Failed:
    """An error of a process, where it was raised, and when, on the clock that all processes share."""

    error: BaseException
    where: str
    when: float

    @property
    def by_others(self) -> bool:
        """Whether the error only says that another process has ended."""
        return isinstance(self.error, RuntimeError) and any(word in str(self.error) for word in _FROM_OTHERS)


@dataclass(frozen=True)
class Group:
    """The processes that train one network together.

    Parameters
    ----------
    devices
        Device of each process; for a single one, no other process is started.
    memory
        Largest GPU memory for the data of each, such as ``8G``; None for most of what is free.
    """

    devices: tuple[torch.device, ...]
    memory: str | None = None

    def fit(
        self,
        split: Split,
        build: Callable[[], nn.Module],
        data: TrainingData,
        settings: Training,
        *,
        seed: int,
        budget: Callable[[float], float],
        checkpoint: Path | None,
        watch: Callable[[int, int | None, Progress | None], None],
    ) -> Fitted:
        """Train a network like :func:`~quietray.training.loop.fit`, to the same result, up to rounding.

        Parameters
        ----------
        build
            Builds the network on the CPU.
        split, data, settings, seed, budget, checkpoint, watch
            As there.

        Raises
        ------
        SettingsError
            The method or the network cannot be handed to other processes.
        ResourceError
            One of the processes was ended.
        """
        device = self.devices[0]
        if len(self.devices) == 1:
            here = data.on(device, training_memory(device, self.memory))
            there = built_on(build, device)
            return fit(split, there, here, settings, seed=seed, budget=budget, checkpoint=checkpoint, watch=watch)
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="quietray-") as folder:
            meeting, threads = Path(folder) / "meeting", torch.get_num_threads()
            order = Order(split, build, data, settings, seed, checkpoint, self.devices, self.memory, threads, meeting)
            with _members(order, len(self.devices)) as channels:
                done = _followed(
                    channels, lambda per_step, ready: budget(per_step) - (ready - begun), watch, checkpoint
                )
        network = start(build, settings.learning_rate, None, seed).network
        network.load_state_dict(done.weights)
        if split.teacher is not None:
            split.teacher.network.load_state_dict(done.teacher)
        network, count = network.to(device).eval(), len(self.devices)
        return Fitted(network, done.history, done.best, done.stopped, done.seconds_per_step, count, done.share)


def built_on(build: Callable[[], nn.Module], device: torch.device) -> Callable[[], nn.Module]:
    """Return a function that builds the same network on a device.

    Examples
    --------
    >>> isinstance(built_on(Known(lambda: nn.Linear(1, 1)), torch.device("cpu")), Known)
    True
    """

    def built() -> nn.Module:
        return build().to(device)

    return Known(built) if isinstance(build, Known) else built


# --- handing over --------------------------------------------------------------------------------------------------


class _Packer(pickle.Pickler):
    """Pickles for another process of this machine; what is on a GPU is put on the GPU of that process."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, (type, FunctionType)) and value.__module__ == "__main__":
            raise SettingsError(
                f"methods and networks for several --gpus must be defined in a module, got {value.__qualname__} of the "
                "main program; move it to its own file and import it, or leave --gpus out"
            )
        if type(value) is Tensor and value.is_cuda:
            return Tensor.cuda, (value.cpu(),)
        return NotImplemented


@contextmanager
def packed(value: Any) -> Iterator[tuple[Piece, ...]]:
    """Return the places in files in memory of a value, for other processes; none of its arrays is pickled.

    Arrays made by :func:`~quietray.running.shared.shared_empty` stay where they are, others are copied once.

    Raises
    ------
    SettingsError
        The value cannot be handed to another process.
    """
    text, arrays = io.BytesIO(), list[pickle.PickleBuffer]()
    try:
        _Packer(text, protocol=5, buffer_callback=arrays.append).dump(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise SettingsError(
            f"methods and networks for several --gpus must be picklable, got: {error}; define them at the top of a "
            "module, or leave --gpus out"
        ) from error
    everything = [memoryview(text.getbuffer()), *(array.raw() for array in arrays)]
    pieces = [shared_piece(values) for values in everything]
    sizes = [0 if there else -(-len(values) // 64) * 64 for values, there in zip(everything, pieces, strict=True)]
    copies = shared_empty((sum(sizes) // 4,)).data.cast("B")
    for number, end in enumerate(accumulate(sizes)):
        if pieces[number] is None:
            copy = copies[end - sizes[number] :][: len(everything[number])]
            copy[:] = everything[number]
            pieces[number] = shared_piece(copy)
    yield tuple(there for there in pieces if there is not None)


def unpacked(pieces: Sequence[Piece]) -> Any:
    """Return a value from its places; its arrays share the memory of the files.

    Examples
    --------
    >>> import numpy as np
    >>> with packed({"parts": np.arange(3.0)}) as pieces:
    ...     unpacked(pieces)["parts"].tolist()
    [0.0, 1.0, 2.0]
    """
    files = {piece.file for piece in pieces}
    memory = {file: memoryview(mmap.mmap(file, 0, flags=mmap.MAP_PRIVATE)) for file in files}  # changes stay here
    text, *arrays = (memory[file][offset : offset + size] for file, offset, size in pieces)
    return pickle.loads(text, buffers=arrays)


# --- starting, following, ending -----------------------------------------------------------------------------------


@contextmanager
def _members(order: Order, count: int) -> Iterator[list[tuple[Connection, subprocess.Popen[bytes]]]]:
    """Start the processes, and end them when the context is left, however that happens."""
    if order.devices[0].type == "cuda":
        torch.cuda.empty_cache()  # the first process shares its GPU with this one
    here = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(place or os.getcwd() for place in sys.path)}
    with ExitStack() as stack:
        pieces = stack.enter_context(packed(order))
        files, told = {piece.file for piece in pieces}, json.dumps(pieces)
        members = []
        for number in range(count):
            ours, theirs = Pipe()
            stack.callback(ours.close)
            command = [sys.executable, "-P", "-m", "quietray.training.member"]  # what lies beside is not imported
            member = subprocess.Popen(
                [*command, str(number), str(theirs.fileno()), told],
                stdin=subprocess.PIPE,  # closed when this process ends, which ends the other one
                stdout=subprocess.DEVNULL,  # which is for the figures of this process
                pass_fds=(*files, theirs.fileno()),
                env=here | {"LOCAL_RANK": str(number), "NODE_RANK": "0"},
                process_group=0,  # Ctrl-C is for this process, which ends the others
            )
            theirs.close()
            stack.callback(_ended, member)
            members.append((ours, member))
        yield members


def _ended(member: subprocess.Popen[bytes]) -> None:
    member.kill()
    member.wait()
    assert member.stdin is not None
    member.stdin.close()


def _followed(
    members: Sequence[tuple[Connection, subprocess.Popen[bytes]]],
    budget: Callable[[float, float], float],
    watch: Callable[[int, int | None, Progress | None], None],
    checkpoint: Path | None,
) -> Done:
    """Pass on progress and questions about the budget until all processes are done; return what they have found.

    Raises
    ------
    Exception
        That of a process.
    ResourceError
        A process has ended without an error.
    """
    running = {channel: number for number, (channel, _) in enumerate(members)}
    results: dict[int, Done] = {}
    failures: list[tuple[float, int, Failed | None]] = []
    ready = time.monotonic()
    while running and len(results) < len(members) and not (failures and time.monotonic() > min(failures)[0] + _GRACE):
        for channel in wait(list(running), timeout=_GRACE if failures else None):
            assert isinstance(channel, Connection)
            number = running[channel]
            try:
                told = pickle.loads(channel.recv_bytes())
            except (EOFError, ConnectionResetError):
                del running[channel]
                if number not in results and number not in {one for _, one, _ in failures}:
                    failures.append((time.monotonic(), number, None))
                continue
            match told:
                case "ready":
                    ready = time.monotonic()
                case float(per_step):
                    channel.send_bytes(pickle.dumps(budget(per_step, ready)))
                case Done():
                    results[number] = told
                case Failed():
                    failures.append((told.when, number, told))
                case step, n_steps, latest:
                    watch(step, n_steps, latest)
    if failures:
        raise _cause(failures, [member for _, member in members], checkpoint)
    return results[0]


def _cause(
    failures: Sequence[tuple[float, int, Failed | None]],
    members: Sequence[subprocess.Popen[bytes]],
    checkpoint: Path | None,
) -> BaseException:
    """Return the error to raise: the first one that is not only about the end of another process."""
    _, number, failed = min(failures, key=lambda one: (one[2] is not None and one[2].by_others, one[:2]))
    if failed is not None:
        failed.error.add_note(f"in process {number} of {len(members)} that train:\n{failed.where}")
        return failed.error
    try:
        code = members[number].wait(_GRACE)
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    except subprocess.TimeoutExpired:
        how = "that does not answer"
    kept = "start again"
    if checkpoint is not None and checkpoint.exists():
        kept = "the training up to the last estimate is kept, continue with --resume"
    return ResourceError(
        f"all {len(members)} processes that train must run to the end, got one {how}, as happens if memory runs out; "
        f"{kept}, and give fewer --gpus if it happens again"
    )
