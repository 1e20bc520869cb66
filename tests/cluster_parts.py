"""A task of slabs that take their time and note who did what: imported by workers, so a module of its own."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quietray.checkpoint import replace_file
from quietray.running.slabs import Advance, Finished, Slab, SlabTask


@dataclass(frozen=True)
class Squares:
    """Makes slabs of squares."""

    log: Path
    seconds: float = 0.0

    def places(self, slab: Slab) -> list[Slab]:
        return [slab]

    def __call__(self, source: Any, slab: Slab, advance: Advance) -> Iterator[Finished]:
        note(self.log, "begun", slab[0])
        time.sleep(self.seconds)
        rows = np.arange(*slab, dtype=np.float32)
        yield Finished(slab[0], rows[:, None, None] ** 2)


@dataclass(frozen=True)
class Files:
    """Keeps a file for each slab; what is there is done."""

    folder: Path
    full: str = ""  # what must be in the environment of a worker whose disk is full

    apart = True

    def done(self, first: int, last: int) -> bool:
        return (self.folder / f"{first}.npy").exists()

    def take(self, finished: Finished) -> None:
        if self.full and self.full in os.environ:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace_file(self.folder / f"{finished.first}.npy", finished.voxels.tobytes())
        note(self.folder / "log", "written", finished.first)


def note(log: Path, what: str, first: int) -> None:
    with log.open("a") as stream:
        stream.write(f"{what} {first} {os.getpid()}\n")


def notes(log: Path, what: str) -> list[tuple[int, int]]:
    """Return slabs and processes, in the order in which it happened."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(first), int(pid)) for name, first, pid in map(str.split, lines) if name == what]


def task_in(folder: Path, seconds: float = 0.0, full: str = "") -> SlabTask:
    folder.mkdir(exist_ok=True)
    return SlabTask(None, Squares(folder / "log", seconds), Files(folder, full))


def slabs_of(count: int) -> Sequence[Slab]:
    return [(2 * number, 2 * number + 2) for number in range(count)]


def kept(folder: Path) -> np.ndarray:
    """Return the volume from the files."""
    files = sorted(folder.glob("*.npy"), key=lambda path: int(path.stem))
    return np.concatenate([np.frombuffer(path.read_bytes(), np.float32) for path in files])
