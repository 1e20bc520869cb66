"""Slabs on the workers of a Dask cluster: on this machine, at an address, or as jobs of a batch system."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import math
import os
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from quietray.errors import QuietrayError, ResourceError, SettingsError
from quietray.running.cluster_file import Place, place_of
from quietray.running.plan import available_memory, resident_memory
from quietray.running.slabs import Advance, Crew, Finished, Slab, SlabTask, Staged, height, running_on
from quietray.settings import parse_bytes

__all__ = ["Cluster", "hired", "on_cluster"]

_OURS_OF_LIMIT = 0.75  # Dask stops giving a worker work at 0.8 of its limit
_OF_FREE = 0.6  # as for a run without a cluster
_OF_FREE_BESIDE = 0.3  # on the machine of the run, which uses the other part
_AHEAD = 2  # slabs submitted for each one being computed, so that no worker waits for the next
_LOOK = 1.0  # seconds between checks for late slabs
_FETCH = 600.0  # seconds until the result of a worker must have arrived
_SEEN = 90.0  # seconds until files written by another machine must be visible on a shared disk
_GO_ON = "and continue with --resume if there is an output folder"
_NODE = (ResourceError, OSError, MemoryError)  # errors that may be due to one machine


@dataclass(frozen=True)
class _Outcome:
    """Outcome of an item on a worker: its value, an error, or `unequipped` if the worker needs the task first."""

    worker: str
    host: str
    value: Any = None
    error: Exception | None = None
    unequipped: bool = False


@dataclass(frozen=True)
class _Patience:
    """Limits for giving up.

    Parameters
    ----------
    alone
        Seconds without any worker, or without the scheduler.
    late
        Seconds that an item may always take.
    times
        After that, limit as a multiple of the time of the slowest item so far.
    tries
        Maximum number of times that an item is submitted.
    """

    alone: float = 600.0
    late: float = 120.0
    times: float = 10.0
    tries: int = 4


@dataclass(eq=False)
class Cluster:
    """Runs slabs on the workers of a Dask cluster, with the same results as in one process.

    A slab is a task that opens its files itself. If slabs share no file, each worker writes and records its own;
    otherwise slabs are sent back and written here. A slab is given to another worker if its worker is lost, cannot
    write, or takes more than ten times as long as the slowest slab so far.

    Parameters
    ----------
    client
        Client connected to the scheduler.
    crew
        Resources of the workers.
    again
        Reconnects if the scheduler was lost; None if the scheduler ends with this process.
    patience
        Limits for giving up.
    """

    client: Any
    crew: Crew | None
    again: Callable[[], Any] | None = None
    patience: _Patience = field(default_factory=_Patience)

    def each(self, task: SlabTask, slabs: Sequence[Slab], advance: Advance) -> None:
        """Run the task on every slab; stop at an error that is not due to a single worker."""
        if len(slabs) < 2:
            Staged().each(task, slabs, advance)
            return
        apart = getattr(task.sink, "apart", False)

        def take(number: int, found: Sequence[Finished]) -> None:
            for finished in found:
                task.sink.take(finished)
            advance(height(task.work, slabs[number]))

        work = _Written(task) if apart else _Sent(task.source, task.work)
        _Round(self, work, slabs, take, advance, alike=True).run()
        if apart:
            _wait_until_seen(task, slabs)

    def all(
        self, work: Callable[[Any], Any], items: Sequence[Any], take: Callable[[int, Any], None], say: Advance
    ) -> None:
        """Process every item on some worker.

        Parameters
        ----------
        work
            Function called with an item on a worker; must support pickling.
        items
            Small objects.
        take
            Called with the number of an item and its result, in any order, in this thread.
        say
            Called with messages for the user.
        """
        _Round(self, work, items, take, say, alike=False).run()


@dataclass(frozen=True, eq=False)
class _Written:
    """Computes and writes a slab."""

    task: SlabTask

    def __call__(self, slab: Slab) -> tuple[()]:
        if not self.task.done(slab):  # by a worker that was lost afterwards
            self.task(slab)
        return ()


@dataclass(frozen=True, eq=False)
class _Sent:
    """Computes a slab, which is written elsewhere."""

    source: Any
    work: Any

    def __call__(self, slab: Slab) -> list[Finished]:
        return list(self.work(self.source, slab, lambda slices, text="": None))


class _Round:
    """The processing of a list of items."""

    def __init__(
        self,
        cluster: Cluster,
        work: Callable[[Any], Any],
        items: Sequence[Any],
        take: Callable[[int, Any], None],
        say: Advance,
        alike: bool,
    ) -> None:
        import cloudpickle

        self.alike = alike  # else there is no time limit for an item
        self.cluster, self.items, self.take, self.say = cluster, items, take, say
        self.patience, self.payload = cluster.patience, cloudpickle.dumps(work)
        self.name = f"quietray-{hashlib.sha256(self.payload).hexdigest()[:16]}"
        self.left = deque(range(len(items)))
        self.flying: dict[Any, tuple[int, float]] = {}
        self.arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.tried = [0] * len(items)
        self.failed: dict[str, str] = {}  # workers that failed, and why
        self.slowest, self.alone_since, self.told = 0.0, time.monotonic(), ""

    def run(self) -> None:
        try:
            while self.left or self.flying:
                self._give()
                try:
                    future = self.arrived.get(timeout=_LOOK)
                except queue.Empty:
                    self._look()
                    continue
                self._arrived(future)
        finally:
            for future in self.flying:
                future.cancel(force=True)
            self.flying.clear()

    def _give(self) -> None:
        """Submit enough items to keep all workers busy."""
        slots = self._slots()
        if not slots:
            self._wait_for_workers()
            return
        self.alone_since, able = time.monotonic(), [one for one in slots if one not in self.failed]
        if not able:
            raise ResourceError(
                f"at least one worker must be able to do its part, got: {'; '.join(self.failed.values())}"
            )
        while self.left and len(self.flying) < _AHEAD * sum(slots[one] for one in able):
            number = self.left.popleft()
            self.tried[number] += 1
            if self.tried[number] > self.patience.tries:
                raise ResourceError(
                    f"part {number} must be done after {self.patience.tries} tries, got no result from any worker; "
                    f"look at the workers' messages, {_GO_ON}"
                )
            self._submit(number, able if self.failed else None)

    def _submit(self, number: int, workers: list[str] | None, payload: bytes | None = None) -> None:
        """Submit an item, preferably to these workers; `payload` is the pickled task for a worker that lacks it."""
        future = self.cluster.client.submit(
            _perform, self.name, self.items[number], payload,
            key=f"{self.name}-{number}-{self.tried[number]}{'-equipped' if payload else ''}", pure=False,
            workers=workers, allow_other_workers=workers is not None,
        )  # fmt: skip
        self.flying[future] = number, time.monotonic()
        future.add_done_callback(self.arrived.put)

    def _slots(self) -> dict[str, int]:
        """Return how many items each worker processes at the same time."""
        client = self._client()
        try:
            workers = client.scheduler_info(n_workers=-1)["workers"]
        except (OSError, TimeoutError):
            return {}
        return {address: int(one["nthreads"]) for address, one in workers.items()}

    def _client(self) -> Any:
        """Return a connected client, after reconnecting if necessary."""
        cluster, since = self.cluster, time.monotonic()
        while cluster.client.status != "running":
            if time.monotonic() - since > self.patience.alone or (
                cluster.client.status == "closed" and cluster.again is None
            ):
                raise ResourceError(
                    f"the scheduler of the cluster must be reachable, got none any more; start it again, {_GO_ON}"
                )
            self._say("waiting for the scheduler")
            if cluster.client.status == "closed" and cluster.again is not None:
                try:
                    cluster.client = cluster.again()
                except (OSError, TimeoutError):
                    time.sleep(_LOOK)
            else:
                time.sleep(0.1)
        return cluster.client

    def _wait_for_workers(self) -> None:
        self._say("waiting for workers")
        if time.monotonic() - self.alone_since > self.patience.alone:
            raise ResourceError(
                f"the cluster must have a worker, got none for {self.patience.alone:.0f} s; start some, {_GO_ON}"
            )
        time.sleep(0.1)

    def _say(self, text: str) -> None:
        if text != self.told:
            self.told = text
            self.say(0, text)

    def _arrived(self, future: Any) -> None:
        """Take the result of an item, or queue the item again."""
        from distributed.scheduler import KilledWorker

        if future not in self.flying:
            return
        number, since = self.flying.pop(future)
        if future.status in ("cancelled", "lost"):  # lost with the scheduler or its last worker
            self.tried[number] -= 1
            self.left.appendleft(number)
            return
        try:
            outcome = future.result(timeout=min(_FETCH, self._limit()))
        except KilledWorker as error:
            raise ResourceError(
                f"no part may kill its worker, got one that killed {error.allowed_failures + 1} of them; they may have "
                f"had too little memory: give a smaller --max-memory, {_GO_ON}"
            ) from None
        except (OSError, TimeoutError):  # the worker that has the result is lost, or hangs
            self.left.appendleft(number)
            with suppress(OSError, TimeoutError, CancelledError):  # the scheduler may be lost as well
                self._restart(self.cluster.client.who_has([future]).get(future.key, ()))
            return
        except CancelledError:  # the scheduler was lost since
            self.tried[number] -= 1
            self.left.appendleft(number)
            return
        finally:
            future.release()
        if outcome.unequipped:  # not sent with every task, or the scheduler would store it many times
            self._submit(number, [outcome.worker], self.payload)
            return
        if outcome.error is None:
            self.slowest = max(self.slowest, time.monotonic() - since)
            self.take(number, outcome.value)
            return
        if not isinstance(outcome.error, _NODE):
            raise outcome.error
        self.failed[outcome.worker] = f"{outcome.error} (on {outcome.host})"
        self._say(f"a worker on {outcome.host} failed, the others continue: {outcome.error}")
        self.left.appendleft(number)

    def _look(self) -> None:
        """Restart workers whose items are late; Dask gives the items to others."""
        client, now, limit = self.cluster.client, time.monotonic(), self._limit()
        late = {future.key: future for future, (_, since) in self.flying.items() if now - since > limit}
        if not late or not self.slowest or client.status != "running":
            return
        running = {address: late.keys() & set(map(str, keys)) for address, keys in client.processing().items()}
        for key, future in late.items():
            number, _ = self.flying[future]
            self.flying[future] = number, now  # its time starts again
            self.tried[number] += any(key in keys for keys in running.values())  # otherwise it is still queued
            if self.tried[number] > self.patience.tries:
                raise ResourceError(
                    f"part {number} must be done in {limit:.0f} s, {self.patience.times:.0f} times what the slowest "
                    f"other one took, got no result in {self.patience.tries} tries; look at why it hangs, {_GO_ON}"
                )
        hung = [address for address, keys in running.items() if keys]
        for address in self._restart(hung):
            for future in [late[key] for key in running[address] if late[key] in self.flying]:
                number, _ = self.flying.pop(future)
                future.cancel(force=True)
                self.left.appendleft(number)

    def _limit(self) -> float:
        """Return how many seconds an item may take."""
        return max(self.patience.late, self.patience.times * self.slowest) if self.alike else math.inf

    def _restart(self, workers: Iterable[str]) -> list[str]:
        """Restart workers through their nannies; return workers without a nanny, which get no more items."""
        known = self.cluster.client.scheduler_info(n_workers=-1)["workers"]
        hung = [address for address in workers if address in known]
        watched = [address for address in hung if known[address]["nanny"]]
        if hung:
            self._say(f"{len(hung)} workers hang" + (" and are started again" if watched else ""))
        if watched:
            self.cluster.client.restart_workers(watched, timeout=30, raise_for_error=False)
        alone = [address for address in hung if address not in watched]
        self.failed |= {address: f"{known[address]['name']} hangs (on {known[address]['host']})" for address in alone}
        return alone


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_MAPPED, _KEPT = 2**25, 2**30  # bytes; the first is the largest that is accepted

_LATEST: dict[str, Callable[[Any], Any]] = {}
_LOCK = threading.Lock()


def _perform(name: str, item: Any, payload: bytes | None) -> _Outcome:
    """Process an item, on a worker."""
    from distributed import get_worker

    _keep_memory()
    here = get_worker().address, socket.gethostname()
    if payload is None and name not in _LATEST:
        return _Outcome(*here, unequipped=True)
    try:
        return _Outcome(*here, value=_equipped(name, payload)(item))
    except (QuietrayError, OSError, MemoryError) as error:
        return _Outcome(*here, error=_told(error))


@cache
def _keep_memory() -> bool:
    """Keep freed memory in the process for the next feature maps, and return whether the C library can.

    Dask sets ``MALLOC_TRIM_THRESHOLD_`` for its workers, so that every map of a network would be requested from the
    system and cleared again: half as much time again. Only glibc has the option.
    """
    try:
        option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return all([option(_M_MMAP_THRESHOLD, _MAPPED), option(_M_TRIM_THRESHOLD, _KEPT)])


def _equipped(name: str, payload: bytes | None) -> Callable[[Any], Any]:
    """Return the task, which is unpickled once per process, so that its preparations are reused."""
    import cloudpickle

    with _LOCK:
        if name not in _LATEST:
            assert payload is not None
            for other in list(_LATEST)[:-1]:  # two runs may alternate on a cluster
                del _LATEST[other]
            try:
                _LATEST[name] = cloudpickle.loads(payload)
            except RuntimeError as error:
                if "CUDA" not in str(error):
                    raise
                raise ResourceError(
                    f"workers must have a GPU if the process that starts the run has one, got: {error}; give --device "
                    "cpu, or workers with GPUs"
                ) from None
        return _LATEST[name]


def _told(error: Exception) -> Exception:
    """Return an error with a message for the user; errors of libraries may not support pickling."""
    if isinstance(error, QuietrayError):
        return error
    if isinstance(error, MemoryError):
        return ResourceError("a worker ran out of memory; give a smaller --max-memory, or workers with more")
    return ResourceError(f"a worker must be able to read and write the files of the run, got: {error}")


def _wait_until_seen(task: SlabTask, slabs: Sequence[Slab]) -> None:
    """Wait until the records of workers are visible on a shared disk; there are none if the run cannot be resumed."""
    until = time.monotonic() + _SEEN
    while any(seen := [task.done(slab) for slab in slabs]) and not all(seen):
        if time.monotonic() > until:
            raise ResourceError(
                "files of the workers must be visible here, got some that are not; give an --out on a disk that all "
                f"share, {_GO_ON}"
            )
        time.sleep(0.5)


# ---- the workers


@contextmanager
def hired(place: Place, memory: int | None, tell: Callable[[str], None]) -> Iterator[Cluster]:
    """Connect to a cluster, which is started if necessary, and measure the resources of its workers.

    Parameters
    ----------
    place
        Address of the cluster, or how it is started.
    memory
        Bytes that a process may use; None for the available memory.
    tell
        Called with messages on the workers and the address of the dashboard.

    Raises
    ------
    QuietrayError
        The cluster cannot be reached, or has no workers.
    """
    with place.started() as (client, again, patience):
        limits = _Patience(alone=patience)
        since = time.monotonic()
        while not (rooms := client.run(_room)):
            if time.monotonic() - since > limits.alone:
                raise ResourceError(
                    f"the cluster {place.told} must have a worker, got none for {limits.alone:.0f} s; start some"
                )
            tell(f"waiting for the first worker of {place.told}") if time.monotonic() - since < _LOOK else None
            time.sleep(0.5)
        _must_be_alike(rooms)
        workers = client.scheduler_info(n_workers=-1)["workers"]
        crew = _crew({address: int(workers[address]["nthreads"]) for address in rooms if address in workers}, rooms)
        if memory is not None:
            crew = Crew(crew.count, memory, crew.base)
        tell(
            f"Cluster {place.told}: {len(rooms)} workers, {crew.count} slabs at a time, "
            f"{crew.memory / 2**30:.1f} GiB for each; dashboard: {place.dashboard(client)}"
        )
        yield Cluster(client, crew, again, limits)


@contextmanager
def on_cluster(
    place: str | os.PathLike[str], *, max_memory: str | None = None, tell: Callable[[str], None] = print
) -> Iterator[None]:
    """Compute the slabs of all runs started in this context on a Dask cluster.

    Parameters
    ----------
    place
        ``local:4`` for four processes on this machine, ``tcp://HOST:8786`` for a running scheduler, or a TOML file that
        describes how SLURM, PBS, LSF or SGE start workers.
    max_memory
        Memory of each process, such as ``8G``; None for the limits of its machine and the scheduler.
    tell
        Called with messages on the workers and the address of the dashboard.

    Raises
    ------
    QuietrayError
        The cluster cannot be reached, or has no workers.

    Examples
    --------
    >>> import quietray
    >>> with quietray.on_cluster("local:4"):  # doctest: +SKIP
    ...     quietray.denoise(quietray.read("scan.h5"), "out/scan")
    """
    memory = None if max_memory is None else parse_bytes(max_memory)
    with hired(place_of(place), memory, tell) as cluster, running_on(cluster):
        yield


@dataclass(frozen=True)
class _Room:
    """Resources of a worker: its host, version of quietray, and memory in bytes."""

    host: str
    version: str
    limit: int | None
    free: int
    base: int


def _room(dask_worker: Any) -> _Room:
    """Measure the resources, on a worker, after importing everything that a run needs."""
    from quietray.running.facts import versions

    importlib.import_module("quietray.workflows")  # imports everything that a run needs
    limit = dask_worker.memory_manager.memory_limit
    return _Room(socket.gethostname(), versions()["quietray"], limit, available_memory(), resident_memory())


def _must_be_alike(rooms: dict[str, _Room]) -> None:
    from quietray.running.facts import versions

    here = versions()["quietray"]
    other = next((room for room in rooms.values() if room.version != here), None)
    if other is not None:
        raise SettingsError(
            f"workers must run quietray {here} as this process, got {other.version} on {other.host}; install the same "
            "version there"
        )


def _crew(slots: dict[str, int], rooms: dict[str, _Room]) -> Crew:
    """Return the resources of all workers, with the memory for a slab of the worker that has least."""
    here, least = socket.gethostname(), []
    for address, count in slots.items():
        room = rooms[address]
        beside = sum(number for other, number in slots.items() if rooms[other].host == room.host)
        share = _OF_FREE_BESIDE if room.host == here else _OF_FREE
        free = room.base + int(share * room.free / beside)
        least.append(free if room.limit is None else min(free, int(_OURS_OF_LIMIT * room.limit / count)))
    return Crew(sum(slots.values()), min(least), max(room.base for room in rooms.values()))
