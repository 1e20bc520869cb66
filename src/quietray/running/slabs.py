"""The one loop over slabs: computed from a source, written to a sink, one by one or several at a time."""

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
Advance = Callable[..., None]  # told the slices just done, and a text if there is something to say


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
        What the report needs of it; None where there will be no report.
    trust
        Standard deviation of the error of `voxels`, if there is a map of it.
    """

    first: int
    voxels: Volume
    record: SlabRecord | None = None
    trust: Volume | None = None


@runtime_checkable
class Work(Protocol):
    """Computes slabs from a source; to be pickled, and free of what only training needs."""

    def places(self, slab: Slab) -> Sequence[Slab]:
        """Return the ranges of slices of the volume that a slab becomes."""

    def __call__(self, source: Any, slab: Slab, advance: Advance) -> Iterable[Finished]:
        """Compute a slab, telling `advance` the slices done."""


@runtime_checkable
class Sink(Protocol):
    """Takes slabs, in any order and from several threads."""

    def done(self, first: int, last: int) -> bool:
        """Return whether the slices ``first:last`` are safe already."""

    def take(self, finished: Finished) -> None:
        """Write a slab; it is safe when this returns."""


@dataclass(frozen=True, eq=False)
class SlabTask:
    """All that computing and keeping a slab needs.  It can be pickled: source and sink open their files anew.

    Parameters
    ----------
    source
        Gives the measured part.
    work
        Makes the slab of it.
    sink
        Keeps it.
    """

    source: Any
    work: Work
    sink: Sink

    def __call__(self, slab: Slab, advance: Advance = lambda slices: None) -> None:
        """Compute a slab, and keep it."""
        for finished in self.work(self.source, slab, advance):
            self.sink.take(finished)

    def done(self, slab: Slab) -> bool:
        """Return whether all of a slab is kept already."""
        return all(self.sink.done(*place) for place in self.work.places(slab))


@dataclass(frozen=True)
class Crew:
    """Who computes slabs outside of this process.

    Parameters
    ----------
    count
        Slabs that are computed at the same time.
    memory
        Bytes that a process may use for one of them.
    base
        Bytes that it holds before it has any.
    """

    count: int
    memory: int
    base: int


@runtime_checkable
class Executor(Protocol):
    """Runs the slabs of a task; the results do not depend on which one does."""

    @property
    def crew(self) -> Crew | None:
        """Who computes the slabs, where it is not this process: a plan has slabs for each of them."""

    def each(self, task: SlabTask, slabs: Sequence[Slab], advance: Advance) -> None:
        """Run the task on every slab; the first error ends it."""


@runtime_checkable
class Team(Executor, Protocol):
    """An executor whose workers do other work than slabs, too."""

    def all(
        self, work: Callable[[Any], Any], items: Sequence[Any], take: Callable[[int, Any], None], say: Advance
    ) -> None:
        """Have every item done by some worker; `take` is given its number and what came of it, in any order."""


@dataclass(frozen=True)
class Serial:
    """One slab after the other."""

    crew: ClassVar[Crew | None] = None

    def each(self, task: SlabTask, slabs: Sequence[Slab], advance: Advance) -> None:
        """Run the task on every slab, in their order."""
        for slab in slabs:
            task(slab, advance)


@dataclass(frozen=True)
class Staged:
    """One slab after the other, while the next one is read and the last one is written.

    What is read ahead is one slab, where the work says what it needs of the source (``needs(slab)``, detector rows) and
    the source can have that read: ``ahead(rows)`` returns a source that has.
    """

    crew: ClassVar[Crew | None] = None

    def each(self, task: SlabTask, slabs: Sequence[Slab], advance: Advance) -> None:
        """Run the task on every slab, in their order; the first error of any stage ends it."""
        took = {"reading": 0.0, "computing": 0.0, "writing": 0.0}  # seconds that the others waited for each
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
    """Several slabs at a time, each of which takes the memory that is planned for one.

    Parameters
    ----------
    count
        How many.
    """

    crew: ClassVar[Crew | None] = None
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise SettingsError(f"the number of threads must be at least 1, got {self.count}")

    def each(self, task: SlabTask, slabs: Sequence[Slab], advance: Advance) -> None:
        """Run the task on every slab; after an error no further one is begun."""
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
    """Have the slabs of all runs that begin inside run by an executor.

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
    """Return what runs slabs, unless a run says otherwise.

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
        Of the plan.
    task
        Source, work and sink.
    executor
        Runs them.
    stage
        Given the number of slices that are to be done, a context in which a function is told those done, such as a
        stage of :class:`~quietray.running.watch.Watch`.

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
    """Return how many slices of the volume a slab becomes."""
    return sum(last - first for first, last in work.places(slab))


def _left(task: SlabTask, slabs: Iterable[Slab], advance: Advance) -> Iterator[Slab]:
    for slab in slabs:
        if task.done(slab):
            advance(height(task.work, slab))
        else:
            yield slab
