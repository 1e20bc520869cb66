"""Slabs: computed from the file, written once, and recorded, so that a killed run goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float, Int

from quietray.checkpoint import replace_file, write_json
from quietray.detector.correct import Calibration, RowCounts, correct_rows
from quietray.errors import FormatError
from quietray.geometry import VolumeGrid, require_parallel
from quietray.operators.astra import ParallelProjector
from quietray.operators.sparse import SparseProjector, many_slices
from quietray.reconstruct import FBP, Algorithm
from quietray.scan import Scan
from quietray.types import Parts, Slice, Volume

__all__ = [
    "Ledger",
    "PartReconstruction",
    "Reconstruction",
    "RepeatedReconstruction",
    "SeriesReconstruction",
    "SlabRecord",
]

_ROWS_AT_ONCE = 4  # of filtered backprojection
_ITERATING = 2**28  # bytes that iterating may take, at about ten numbers per voxel
_Plane = Float[np.ndarray, "_ _"]  # through any two of the axes


@dataclass(frozen=True, eq=False)
class PartReconstruction:
    """Reconstructs the angular subsets ``j::n_parts`` of any band of rows, straight from the file.

    Parameters
    ----------
    scan, calibration
        The scan, its axis known, and its calibration.
    algorithm
        Filtered backprojection, or one that iterates.
    grid
        Slices to reconstruct; the number of slices follows the rows.
    n_parts
        Subsets; 1 is a plain reconstruction.
    """

    scan: Scan
    calibration: Calibration
    algorithm: Algorithm
    grid: VolumeGrid
    n_parts: int = 1

    @property
    def steps(self) -> tuple[PartReconstruction | RepeatedReconstruction, ...]:
        """What stands one after the other along z: only this."""
        return (self,)

    def __call__(self, rows: slice) -> tuple[Parts, RowCounts]:
        """Return the reconstructions ``(part, z, y, x)`` of rows ``start:stop``, and what correcting changed."""
        out = np.empty((self.n_parts, rows.stop - rows.start, *self.grid.shape[1:]), np.float32)
        return out, self.into(out, rows)

    def into(self, out: Parts, rows: slice, advance: Callable[[int], None] = lambda rows: None) -> RowCounts:
        """Reconstruct rows ``start:stop`` into `out`, reading the band once; `advance` is told the rows done."""
        counts, at_once = self.scan.read(rows), _ROWS_AT_ONCE
        if not isinstance(self.algorithm, FBP):
            at_once = max(1, _ITERATING // (40 * self.grid.n_pixels))
        changed = RowCounts()
        for first in range(0, rows.stop - rows.start, at_once):
            last = min(first + at_once, rows.stop - rows.start)
            band = slice(rows.start + first, rows.start + last)
            sinograms, some = correct_rows(counts[:, first:last], self.calibration, band)
            changed += some
            for part in range(self.n_parts):
                views = np.ascontiguousarray(sinograms[:, part :: self.n_parts])
                out[part, first:last] = self.algorithm(self._projector(part, last - first), views)
            advance(last - first)
        return changed

    def _projector(self, part: int, n_rows: int) -> Any:
        """Return the projector of a subset of the views; its matrix is kept for the next rows, if it has one."""
        if part in self._matrices:
            return self._matrices[part].with_slices(n_rows)
        whole = require_parallel(self.scan.geometry, "reconstruction slice by slice")
        beam = whole[part :: self.n_parts].rows(n_rows)
        ray_by_ray = ParallelProjector(beam, self.grid.with_slices(n_rows))
        if isinstance(self.algorithm, FBP):
            return ray_by_ray
        found = many_slices(ray_by_ray)
        if isinstance(found, SparseProjector):
            self._matrices[part] = found
        return found

    @cached_property
    def _matrices(self) -> dict[int, SparseProjector]:
        return {}


@dataclass(frozen=True, eq=False)
class RepeatedReconstruction:
    """Reconstructs any band of rows of several scans of one object, each a part of its own.

    Parameters
    ----------
    sources
        One for each scan.
    """

    sources: tuple[PartReconstruction, ...]

    @property
    def n_parts(self) -> int:
        """Scans."""
        return len(self.sources)

    @property
    def steps(self) -> tuple[PartReconstruction | RepeatedReconstruction, ...]:
        """What stands one after the other along z: only this."""
        return (self,)

    def __call__(self, rows: slice) -> tuple[Parts, RowCounts]:
        """Return the reconstructions ``(part, z, y, x)`` of rows ``start:stop``, and what correcting changed."""
        out = np.empty((self.n_parts, rows.stop - rows.start, *self.sources[0].grid.shape[1:]), np.float32)
        return out, self.into(out, rows)

    def into(self, out: Parts, rows: slice, advance: Callable[[int], None] = lambda rows: None) -> RowCounts:
        """Reconstruct rows ``start:stop`` of every scan into `out`; `advance` is told the rows done."""
        changed = RowCounts()
        for part, source in enumerate(self.sources):
            changed += source.into(out[part : part + 1], rows, advance if part == 0 else lambda rows: None)
        return changed


@dataclass(frozen=True, eq=False)
class SeriesReconstruction:
    """Reconstructs any band of rows of every step or channel of a series, one after the other along z.

    Parameters
    ----------
    steps
        One for each scan of the series.
    """

    steps: tuple[PartReconstruction, ...]

    @property
    def n_parts(self) -> int:
        """Subsets of each scan."""
        return self.steps[0].n_parts

    def __call__(self, rows: slice) -> tuple[Parts, RowCounts]:
        """Return the reconstructions ``(part, z, y, x)`` of rows ``start:stop`` of every step, and what was changed."""
        out = np.empty(
            (self.n_parts, len(self.steps) * (rows.stop - rows.start), *self.steps[0].grid.shape[1:]), np.float32
        )
        changed = RowCounts()
        for own, source in zip(np.split(out, len(self.steps), axis=1), self.steps, strict=True):
            changed += source.into(own, rows)
        return out, changed


Reconstruction = PartReconstruction | RepeatedReconstruction | SeriesReconstruction


@dataclass(frozen=True, eq=False)
class SlabRecord:
    """What the report needs of one slab.

    Parameters
    ----------
    first, last
        Half-open range of slices of the volume.
    before, after
        Cuts through the middle of the noisy and the denoised slab: ``axial`` ``(y, x)`` where the volume's middle
        slice lies in it, ``coronal`` ``(z, x)`` and ``sagittal`` ``(z, y)``.
    counts_before, counts_after
        Histograms inside the field of view.
    changed
        What correcting changed.
    """

    first: int
    last: int
    before: dict[str, _Plane]
    after: dict[str, _Plane]
    counts_before: Int[np.ndarray, " bin"]
    counts_after: Int[np.ndarray, " bin"]
    sums: Float[np.ndarray, 2]
    changed: RowCounts

    @classmethod
    def of(
        cls,
        first: int,
        middle: int,
        before: Volume,
        after: Volume,
        weight: Slice,
        edges: np.ndarray,
        changed: RowCounts,
    ) -> SlabRecord:
        """Measure a slab; `middle` is the volume's middle slice and `edges` those of the histogram."""
        inside = weight > 0

        def cuts(volume: Volume) -> dict[str, _Plane]:
            _, n_y, n_x = volume.shape
            found = {"coronal": volume[:, n_y // 2].copy(), "sagittal": volume[:, :, n_x // 2].copy()}
            if first <= middle < first + len(volume):
                found["axial"] = volume[middle - first].copy()
            return found

        def histogram(volume: Volume) -> np.ndarray:
            return sum(
                (np.histogram(np.clip(one[inside], edges[0], edges[-1]), edges)[0] for one in volume),
                start=np.zeros(len(edges) - 1, np.int64),
            )

        sums = np.array([sum(float(one[inside].sum(dtype=np.float64)) for one in volume) for volume in (before, after)])
        return cls(
            first, first + len(after), cuts(before), cuts(after), histogram(before), histogram(after), sums, changed
        )


class Ledger:
    """The slabs that are done, kept on disk beside what is left to do.

    Parameters
    ----------
    folder
        Working folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, first: int) -> Path:
        return self.folder / f"slab-{first:06d}.npz"

    def record(self, slab: SlabRecord) -> None:
        """Note a slab as done; call it only when its voxels are safe on disk."""
        from io import BytesIO

        buffer = BytesIO()
        arrays: dict[str, Any] = {f"before_{name}": cut for name, cut in slab.before.items()}
        arrays |= {f"after_{name}": cut for name, cut in slab.after.items()}
        facts = json.dumps({"first": slab.first, "last": slab.last, "changed": vars(slab.changed)})
        np.savez(
            buffer,
            **arrays,
            counts_before=slab.counts_before,
            counts_after=slab.counts_after,
            sums=slab.sums,
            facts=np.array(facts),
        )
        replace_file(self._path(slab.first), buffer.getvalue())

    def done(self, first: int, last: int) -> bool:
        """Return whether the slab ``first:last`` is done."""
        return self._path(first).exists() and self.load(first).last == last

    def load(self, first: int) -> SlabRecord:
        """Return the record of a slab.

        Raises
        ------
        FormatError
            The record is damaged.
        """
        try:
            with np.load(self._path(first), allow_pickle=False) as stored:
                facts = json.loads(str(stored["facts"]))
                cuts = {
                    when: {name.split("_")[1]: stored[name] for name in stored.files if name.startswith(f"{when}_")}
                    for when in ("before", "after")
                }
                return SlabRecord(
                    facts["first"],
                    facts["last"],
                    cuts["before"],
                    cuts["after"],
                    stored["counts_before"],
                    stored["counts_after"],
                    stored["sums"],
                    RowCounts(**facts["changed"]),
                )
        except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise FormatError(
                f"{self._path(first)} must be a slab's record, got: {error}; delete it, and the slab is made again"
            ) from error

    def note(self, name: str, facts: dict[str, Any]) -> None:
        """Keep a decision of the run that a resumed run must not take again."""
        write_json(self.folder / f"{name}.json", facts)

    def noted(self, name: str) -> dict[str, Any] | None:
        """Return a decision kept by :meth:`note`, or None."""
        try:
            found: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise FormatError(
                f"{self.folder / name}.json must be JSON, got: {error}; start the run anew with --overwrite"
            ) from None
        return found
