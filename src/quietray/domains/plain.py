"""Plain reconstruction without denoising, slab by slab, into memory, a file, or the output of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from quietray.io import VolumeWriter
from quietray.metrics.surroundings import ObjectMask
from quietray.preparation.prepare import Prepared
from quietray.preparation.sources import PartReconstruction, Reconstruction
from quietray.running.ledger import SlabRecord
from quietray.running.planes import Planes
from quietray.running.run import Run
from quietray.running.slabs import Advance, Finished, Slab, SlabTask
from quietray.types import Slice, Volume

__all__ = ["AsMeasured", "reconstruct_plainly"]


@dataclass(frozen=True)
class Plain:
    """Reconstructs slabs without denoising.

    Parameters
    ----------
    begin
        Detector row of the first slice.
    """

    begin: int

    def places(self, slab: Slab) -> list[Slab]:
        """Return the slices of the slab."""
        return [(slab[0] - self.begin, slab[1] - self.begin)]

    def needs(self, slab: Slab) -> slice:
        """Return the detector rows of the slab."""
        return slice(*slab)

    def __call__(self, source: PartReconstruction, slab: Slab, advance: Advance) -> Iterator[Finished]:
        """Reconstruct a slab."""
        found = np.empty((1, slab[1] - slab[0], *source.grid.shape[1:]), np.float32)
        source.into(found, slice(*slab), advance)
        yield Finished(slab[0] - self.begin, found[0])


@dataclass(frozen=True, eq=False)
class AsMeasured:
    """Reconstructs the slabs of a run that gives the input back, with their records.

    Parameters
    ----------
    rows
        Detector rows of the whole volume.
    weight
        Weight ``(y, x)``, one in the field of view.
    edges
        Bin edges of the histograms for every step or channel of a series.
    mask
        Mask of the object.
    """

    rows: range
    weight: Slice
    edges: tuple[np.ndarray, ...]
    mask: ObjectMask | None = None

    def places(self, slab: Slab) -> list[Slab]:
        """Return the slices of the slab, in every step or channel."""
        begins = [step * len(self.rows) - self.rows.start for step in range(len(self.edges))]
        return [(begin + slab[0], begin + slab[1]) for begin in begins]

    def needs(self, slab: Slab) -> slice:
        """Return the detector rows of the slab."""
        return slice(*slab)

    def __call__(self, source: Reconstruction, slab: Slab, advance: Advance) -> Iterator[Finished]:
        """Reconstruct a slab; the mean of repeated scans."""
        parts, changed = source(self.needs(slab))
        steps = np.split(parts.mean(axis=0), len(self.edges))
        for step, ((z0, z1), own) in enumerate(zip(self.places(slab), steps, strict=True)):
            planes = Planes((len(self.rows), *self.weight.shape), step * len(self.rows))
            if step != len(self.edges) // 2:  # of the others only the middle slice is shown
                planes = dataclasses.replace(planes, room=0)
            record = SlabRecord.of(z0, planes, own, own, self.weight, self.edges[step], changed)
            yield Finished(z0, own, record.seen_through(self.mask, own, own, self.weight, planes.middle))
            advance(z1 - z0)


@dataclass(frozen=True, eq=False)
class InMemory:
    """Stores slabs in an array ``(z, y, x)``."""

    voxels: Volume

    def done(self, first: int, last: int) -> bool:
        """Return False: no slabs exist yet."""
        return False

    def take(self, finished: Finished) -> None:
        """Store a slab."""
        self.voxels[finished.first : finished.first + len(finished.voxels)] = finished.voxels


@dataclass(frozen=True, eq=False)
class InFile:
    """Writes slabs to a file."""

    writer: VolumeWriter

    @property
    def apart(self) -> bool:
        """Whether every slab has its own file."""
        return self.writer.apart

    def done(self, first: int, last: int) -> bool:
        """Return False: every slab is written."""
        return False

    def take(self, finished: Finished) -> None:
        """Write a slab."""
        self.writer.write(finished.first, finished.voxels)


def reconstruct_plainly(prepared: Prepared, run: Run, writer: VolumeWriter | None) -> Volume | None:
    """Reconstruct slab by slab; return the volume if there is no writer for it."""
    sink = InMemory(np.empty(prepared.grid.shape, np.float32)) if writer is None else InFile(writer)
    task = SlabTask(prepared.source(), Plain(prepared.rows.start), sink)
    run.over(prepared.plan.slabs, task, "reconstructing")
    return sink.voxels if isinstance(sink, InMemory) else None
