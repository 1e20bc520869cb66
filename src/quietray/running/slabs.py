"""The loop over slabs, which are computed from a source and written to a sink, one or several at a time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from quietray.errors import SettingsError
from quietray.running.ledger import SlabRecord
from quietray.types import Volume

__all__ = [
    "Advance",
    "Crew",
    "Executor",
    "Finished",
    "Serial",
    "Sink",
    "Slab",
    "SlabTask",
    "Staged",
    "Team",
    "Threads",
    "Work",
    "executor_here",
    "height",
    "run_slabs",
    "running_on",
]

Slab = tuple[int, int]  # half-open range of detector rows, or of slices of a cone beam's volume
Advance = Callable[..., None]  # called with the number of slices just done, and possibly a message


@dataclass(frozen=True, eq=False)
class Finished:
    """A piece of the volume.

    Parameters
    ----------
    first
        Its first slice.
    voxels
        ``(z, y, x)`` attenuation.
    record
        Data for the report; None if there will be no report.
    trust
        Standard deviation of the error of `voxels`; None if there is no uncertainty map.
    """

    first: int
    voxels: Volume
    record: SlabRecord | None = None
    trust: Volume | None = None


@runtime_checkable
class Work(Protocol):
    """Computes slabs from a source; must support pickling, and not contain data that only training needs."""

    def places(self, slab: Slab) -> Sequence[Slab]:
        """Return the ranges of slices of the volume that are computed from a slab."""

    def __call__(self, source: Any, slab: Slab, advance: Advance) -> Iterable[Finished]:
        """Compute a slab, and call `advance` with the number of slices done."""


@runtime_checkable
class Sink(Protocol):
    """Stores slabs, in any order and from several threads."""

    def done(self, first: int, last: int) -> bool:
        """Return whether the slices ``first:last`` are already stored."""

    def take(self, finished: Finished) -> None:
        """Store a slab, completely when this returns."""


@dataclass(frozen=True, eq=False)
class SlabTask:
    """Everything needed to compute and store a slab. It supports pickling: source and sink reopen their files.

    Parameters
    ----------
    source
        Provides the measured data.
    work
        Computes the slab from the data.
    sink
        Stores the slab.
    """

    source: Any
    work: Work
    sink: Sink

    def __call__(self, slab: Slab, advance: Advance = lambda slices: None) -> None:
        """Compute and store a slab."""
        for finished in self.work(self.source, slab, advance):
            self.sink.take(finished)

    def done(self, slab: Slab) -> bool:
        """Return whether a slab is already stored completely."""
        return all(self.sink.done(*place) for place in self.work.places(slab))


@dataclass(frozen=True)
class Crew:
    """Resources of the workers that compute slabs outside of this process.

    Parameters
    ----------
    count
        Number of slabs that are computed at the same time.
    memory
        Bytes that a process may use for one slab.
    base
        Bytes that a process uses before its first slab.
    """

    count: int
    memory: int
    base: int


@runtime_checkable
class Executor(Protocol):
    """Runs a task on slabs; the results do not depend on the executor."""

    @property
    def crew(self) -> Crew | None:
        """Workers outside of this process, for which a plan provides enough slabs; None if there are none."""

    def each(self, task: SlabTask, slabs: Sequence[Slab], advance: Advance) -> None:
        """Run the task on every slab; stop at the first error."""


@runtime_checkable
class Team(Executor, Protocol):
    """An executor whose workers can also do other work."""

    def all(
        self, work: Callable[[Any], Any], items: Sequence[Any], take: Callable[[int, Any], None], say: Advance
    ) -> None:
        """Process every item on some worker; `take` is called with its number and result, in any order."""


@dataclass(frozen=True)
class Serial:
    """One slab after the other."""

    crew: ClassVar[Crew | None] = None

    def each(self, task: SlabTask, slabs: Sequence[Slab], advance: Advance) -> None:
        """Run the task on every slab, in order."""
        for slab in slabs:
            task(slab, advance)


@dataclass(frozen=True)
class Staged:
    """One slab after the other, while the next one is read and the previous one is written.

    One slab is read ahead, if the work has ``needs(slab)``, which returns detector rows, and the source has
    ``ahead(rows)``, which returns a source with these rows in memory.
    """

    crew: ClassVar[Crew | None] = None

    def each(self, task: SlabTask, slabs: Sequence[Slab], advance: Advance) -> None:
        """Run the task on every slab, in order; stop at the first error of any stage."""
        took = {"reading": 0.0, "computing": 0.0, "writing": 0.0}  # seconds that the other stages waited for each
        can = hasattr(task.source, "ahead") and hasattr(task.work, "needs")

        def ahead(slab: Slab) -> Any:
            return task.source.ahead(task.work.needs(slab)) if can else task.source  # type: ignore[attr-defined]

        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            read = [reader.submit(ahead, slab) for slab in slabs[:1]]
            written: Future[None] | None = None
            for slab, following in itertools.zip_longest(slabs, slabs[1:]):
                begun = time.monotonic()
                source = read.pop().result()
                took["reading"] += time.monotonic() - begun
                if following is not None:
                    read.append(reader.submit(ahead, following))
                begun, waited = time.monotonic(), 0.0
                for finished in task.work(source, slab, advance):
                    now = time.monotonic()
                    if written is not None:
                        written.result()
                    waited += time.monotonic() - now
                    written = writer.submit(task.sink.take, finished)
                took["computing"] += time.monotonic() - begun - waited
                took["writing"] += waited
                if len(slabs) > 1:
                    advance(0, f"{max(took, key=lambda name: took[name])} takes longest")
            if written is not None:
                written.result()


@dataclass(frozen=True)
class Threads:
    """Several slabs at a time, each of which needs the memory planned for one slab.

    Parameters
    ----------
    count
        Number of slabs at a time.
    """

    crew: ClassVar[Crew | None] = None
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise SettingsError(f"the number of threads must be at least 1, got {self.count}")

    def each(self, task: SlabTask, slabs: Sequence[Slab], advance: Advance) -> None:
        """Run the task on every slab; after an error, no further slab is started."""
        with ThreadPoolExecutor(self.count) as pool:
            running = [pool.submit(task, slab, advance) for slab in slabs]
            try:
                for one in running:
                    one.result()
            except BaseException:
                for one in running:
                    one.cancel()
                raise


_HERE: ContextVar[Executor | None] = ContextVar("executor", default=None)


@contextmanager
def running_on(executor: Executor) -> Iterator[None]:
    """Use an executor for the slabs of all runs started in this context.

    Examples
    --------
    >>> with running_on(Serial()):
    ...     executor_here()
    Serial()
    """
    token = _HERE.set(executor)
    try:
        yield
    finally:
        _HERE.reset(token)


def executor_here() -> Executor:
    """Return the executor of slabs, unless a run has its own.

    Examples
    --------
    >>> executor_here()
    Staged()
    """
    return _HERE.get() or Staged()


def run_slabs(
    slabs: Sequence[Slab],
    task: SlabTask,
    executor: Executor,
    stage: Callable[[int], Any],
) -> None:
    """Run a task on the slabs that are not done yet.

    Parameters
    ----------
    slabs
        Slabs of the plan.
    task
        Source, work and sink.
    executor
        Runs the task on the slabs.
    stage
        Called with the number of slices to do; returns a context that gives a function to call with the slices done,
        such as a stage of :class:`~quietray.running.watch.Watch`.

    Examples
    --------
    >>> import numpy as np
    >>> from contextlib import nullcontext
    >>> class Double:
    ...     def places(self, slab): return [slab]
    ...     def __call__(self, source, slab, advance):
    ...         yield Finished(slab[0], 2 * source[slice(*slab)])
    >>> class Kept(dict):
    ...     def done(self, first, last): return first in self
    ...     def take(self, finished): self[finished.first] = finished.voxels.ravel().tolist()
    >>> kept = Kept({0: "there already"})
    >>> task = SlabTask(np.arange(3.0).reshape(3, 1, 1), Double(), kept)
    >>> run_slabs([(0, 2), (2, 3)], task, Serial(), lambda total: nullcontext(lambda slices: None))
    >>> kept
    {0: 'there already', 2: [4.0]}
    """
    with stage(sum(height(task.work, slab) for slab in slabs)) as advance:
        executor.each(task, tuple(_left(task, slabs, advance)), advance)


def height(work: Work, slab: Slab) -> int:
    """Return the number of slices of the volume that are computed from a slab."""
    return sum(last - first for first, last in work.places(slab))


def _left(task: SlabTask, slabs: Iterable[Slab], advance: Advance) -> Iterator[Slab]:
    for slab in slabs:
        if task.done(slab):
            advance(height(task.work, slab))
        else:
            yield slab
