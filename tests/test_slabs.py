"""Three stages at once: what is read, computed and written, in which order, and which error ends it."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from quietray.errors import FormatError
from quietray.running.slabs import Finished, SlabTask, Staged, run_slabs

SLABS = [(0, 2), (2, 4), (4, 6)]


@dataclass
class Counts:
    """Rows of numbers; knows which were read, and by which thread."""

    broken: int = -1
    rows: slice | None = None
    seen: list[tuple[int, str]] = field(default_factory=list)

    def ahead(self, rows: slice) -> Counts:
        if rows.start == self.broken:
            raise FormatError("the file is damaged")
        self.seen.append((rows.start, threading.current_thread().name))
        return Counts(self.broken, rows, self.seen)


class Ones:
    def places(self, slab: Any) -> Any:
        return [slab]

    def needs(self, slab: Any) -> slice:
        return slice(*slab)

    def __call__(self, source: Counts, slab: Any, advance: Any) -> Any:
        assert source.rows == slice(*slab), "what was read ahead is what this slab needs"
        advance(slab[1] - slab[0])
        yield Finished(slab[0], np.full((2, 1, 1), float(slab[0]), np.float32))


@dataclass
class Kept:
    full_at: int = -1
    there: dict[int, float] = field(default_factory=dict)
    by: set[str] = field(default_factory=set)

    def done(self, first: int, last: int) -> bool:
        return first in self.there

    def take(self, finished: Finished) -> None:
        if finished.first == self.full_at:
            raise OSError("no space left")
        self.there[finished.first] = float(finished.voxels[0, 0, 0])
        self.by.add(threading.current_thread().name)


def run(source: Counts, sink: Kept) -> list[tuple[int, str]]:
    told: list[tuple[int, str]] = []
    stage = nullcontext(lambda done, text="": told.append((done, text)))
    run_slabs(SLABS, SlabTask(source, Ones(), sink), Staged(), lambda total: stage)
    return told


def test_one_is_read_while_another_is_computed_and_a_third_is_written() -> None:
    source, sink = Counts(), Kept()
    told = run(source, sink)
    assert sink.there == {0: 0.0, 2: 2.0, 4: 4.0}
    assert [first for first, _ in source.seen] == [0, 2, 4]
    names = {name for _, name in source.seen} | sink.by
    assert len(names) == 2
    assert threading.current_thread().name not in names
    assert sum(done for done, _ in told) == 6
    assert {text for done, text in told if text} <= {
        f"{what} takes longest" for what in ("reading", "computing", "writing")
    }


def test_slabs_that_are_there_are_not_even_read() -> None:
    source = Counts()
    run(source, Kept(there={2: 0.0}))
    assert [first for first, _ in source.seen] == [0, 4]
    run(source, Kept(there={0: 0.0, 2: 0.0, 4: 0.0}))


@pytest.mark.parametrize("first", [0, 2, 4])
def test_an_error_of_any_stage_ends_it(first: int) -> None:
    sink = Kept()
    with pytest.raises(FormatError, match="damaged"):
        run(Counts(broken=first), sink)
    assert set(sink.there) == {each for each in (0, 2, 4) if each < first}, "what came before is safe"
    with pytest.raises(OSError, match="no space"):
        run(Counts(), Kept(full_at=first))
