"""Sources of slabs: any slices of a scan, reconstructed directly from the file, for any beam."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quietray.detector.correction.correct import Calibration, RowCounts, stored
from quietray.detector.correction.own_flats import corrected_dealt, noise_of_flats
from quietray.geometry import ConeBeam, VolumeGrid
from quietray.operators.backprojection import ConeRays
from quietray.operators.beams import projector, rays
from quietray.operators.nufft import ParallelRays
from quietray.operators.sparse import SparseProjector
from quietray.reconstruct import Algorithm
from quietray.running.device import device_memory
from quietray.running.plan import rows_at_once
from quietray.scan import Scan
from quietray.types import Parts, Volume

__all__ = [
    "ConeReconstruction",
    "Held",
    "PartReconstruction",
    "Reconstruction",
    "RepeatedReconstruction",
    "SeriesReconstruction",
    "reconstruction_of",
]

_PROCESSORS = torch.device("cpu")
_ON_GPU = 32  # rows per filtered backprojection
_ITERATING = 2**28  # memory in bytes for iterations, at about ten numbers per voxel
_ITERATING_THERE = 2**32  # the same on a GPU


@dataclass(frozen=True, eq=False)
class PartReconstruction:
    """Reconstructs the angular subsets ``j::n_parts`` of any band of rows, directly from the file.

    Parameters
    ----------
    scan, calibration
        The scan, with a known axis, and its calibration.
    algorithm
        Filtered backprojection, or an iterative algorithm.
    grid
        Voxel grid of a slice; the number of slices follows from the rows.
    n_parts
        Number of subsets; 1 for a plain reconstruction.
    device
        Device for filtering and backprojection; None is the CPU.
    """

    scan: Scan
    calibration: Calibration
    algorithm: Algorithm
    grid: VolumeGrid
    n_parts: int = 1
    device: torch.device | None = None

    @property
    def steps(self) -> tuple[PartReconstruction | RepeatedReconstruction, ...]:
        """The sources that follow one another along z: only this one."""
        return (self,)

    def __call__(self, rows: slice) -> tuple[Parts, RowCounts]:
        """Return the reconstructions ``(part, z, y, x)`` of rows ``start:stop``, and counts of corrected values."""
        out = np.empty((self.n_parts, rows.stop - rows.start, *self.grid.shape[1:]), np.float32)
        return out, self.into(out, rows)

    def ahead(self, rows: slice) -> PartReconstruction:
        """Return the same source with the counts of some rows already read."""
        other = copy.copy(self)
        other.__dict__["_prepared"] = self._prepared  # needed by the transforms for all rows
        other.__dict__["_read"] = (rows, self.scan.read(rows))
        return other

    def noise_of_flats(self, rows: slice) -> Volume | None:
        """Return the noise that shared flats would add to all parts ``(z, y, x)`` if they were taken again.

        It is as large as what the parts contain, and independent of it.  None if it is not known, or if the views do
        not share their flats, or if it does not simply add up.
        """
        if self.calibration.remove_rings != "none" or self.algorithm.iterates:
            return None
        seen = self._detector_rows(rows)
        found = noise_of_flats(self.scan, self.calibration, slice(seen.start, seen.stop))
        if found is None:
            return None
        views = torch.from_numpy(found).to(self.device or _PROCESSORS).expand(len(seen), self.scan.n_views, -1)
        return self._of_views(views, rows)

    def _detector_rows(self, rows: slice) -> range:
        return range(rows.start, rows.stop)

    def _of_views(self, views: Float[Tensor, "row view col"], rows: slice) -> Volume:
        return self._reconstructed(self.rays_of(None, len(views)), views)

    def into(self, out: Parts, rows: slice, advance: Callable[[int], None] = lambda rows: None) -> RowCounts:
        """Reconstruct rows ``start:stop`` into `out`, reading the band once; `advance` is called with the rows done."""
        known, counts = self.__dict__.get("_read", (None, None))
        counts, there = counts if known == rows else self.scan.read(rows), self.device or _PROCESSORS
        at_once = rows_at_once() if there.type == "cpu" else _ON_GPU
        if self.algorithm.iterates:
            room = _ITERATING if there.type == "cpu" else _ITERATING_THERE
            at_once = max(1, room // (40 * self.grid.n_pixels))
        changed = RowCounts()
        for first in range(0, rows.stop - rows.start, at_once):
            last = min(first + at_once, rows.stop - rows.start)
            band = slice(rows.start + first, rows.start + last)
            sinograms, some = corrected_dealt(stored(counts[:, first:last]).to(there), self.calibration, band)
            changed += some
            for part in range(self.n_parts):
                views, rays = sinograms[:, part :: self.n_parts].contiguous(), self.rays_of(part, last - first)
                found = self._apart(part, range(band.start, band.stop))
                apart = None if found is None else torch.from_numpy(found).to(there)
                if apart is not None:
                    views -= apart
                out[part, first:last] = self._reconstructed(rays, views)
                if apart is not None:
                    every = self.rays_of(None, last - first)
                    out[part, first:last] += self._reconstructed(every, apart.expand(every.range_shape))
            advance(last - first)
        return changed

    def _reconstructed(self, A: Any, views: Float[Tensor, "row view col"]) -> Volume:
        """Return the volume of some views; they are copied to the host unless `A` works on their device."""
        stay = getattr(A, "device", None) == views.device != _PROCESSORS
        found = self.algorithm(A, views if stay else views.cpu().numpy())
        return np.asarray(found.cpu() if isinstance(found, Tensor) else found)

    def _apart(self, part: int, rows: range) -> Float[np.ndarray, "row 1 col"] | None:
        """Return how the logarithm of a subset's flat differs from that of all flats, to be applied to all views.

        The difference is the same in every view of the subset.  Backprojected from these views only, it would cause
        streaks instead of rings beyond the radius ``n_views / (2 K)``.  Backprojected from all views, it causes rings
        everywhere, with a fraction of the noise.
        """
        subsets = self.calibration.subsets
        apart = subsets[part].apart if len(subsets) == self.n_parts else None
        return None if apart is None or self.algorithm.iterates else apart[rows.start : rows.stop, None]

    def rays_of(self, part: int | None, n_rows: int) -> Any:
        """Return the rays or the projector of a subset of the views, or of all; prepared data is kept for further rows.

        Parameters
        ----------
        part
            Number of the subset; None for all views.
        n_rows
            Number of rows per call.
        """
        if part in self._prepared:
            return self._prepared[part].with_slices(n_rows)
        views = slice(None) if part is None else slice(part, None, self.n_parts)
        geometry, grid = self.scan.geometry[views].rows(n_rows), self.grid.with_slices(n_rows)
        if self.algorithm.iterates:
            exact = self.algorithm.needs_adjoint
            found: Any = projector(geometry, grid, many=True, device=self.device, matched=exact)
        else:
            found = rays(geometry, grid, self.device)
        if isinstance(found, (SparseProjector, ParallelRays)):
            self._prepared[part] = found
        return found

    @cached_property
    def _prepared(self) -> dict[int | None, SparseProjector | ParallelRays]:
        return {}


@dataclass(frozen=True, eq=False)
class ConeReconstruction(PartReconstruction):
    """Reconstructs the angular subsets ``j::n_parts`` of slices of a cone beam's volume, directly from the file.

    FDK reads only the detector rows that the slices project to.  Iterative algorithms always need the whole volume.

    Parameters
    ----------
    scan, calibration
        The scan and its calibration.
    algorithm
        FDK, or an iterative algorithm.
    grid
        Voxel grid of the slices; the whole volume has as many slices as the detector has rows.
    n_parts
        Number of subsets; 1 for a plain reconstruction.
    """

    def ahead(self, rows: slice) -> PartReconstruction:
        """Return this object unchanged: the detector rows are only known when the slices are due."""
        return self

    def into(self, out: Parts, rows: slice, advance: Callable[[int], None] = lambda rows: None) -> RowCounts:
        """Reconstruct slices ``start:stop`` into `out`; `advance` is called with the slices done."""
        whole = self.algorithm.iterates
        geometry = self.scan.geometry
        assert isinstance(geometry, ConeBeam)
        grid = geometry.tall_grid(self._whole) if whole else self._slab(rows)
        above = (grid.shape[0] - geometry.n_rows) // 2
        seen = range(self.scan.n_rows) if whole else ConeRays(geometry, grid).seen
        sinograms, changed = self._sinograms(seen)
        for part in range(self.n_parts):
            subset = geometry[part :: self.n_parts]
            A: Any = projector(subset, grid, device=self.device) if whole else self._rays(subset, grid, seen)
            views, apart = sinograms[:, part :: self.n_parts].contiguous(), self._apart(part, seen)
            if apart is None:
                volume = self._reconstructed(A, views)
            else:
                same = torch.from_numpy(apart).to(views.device)
                volume = self._reconstructed(A, views - same)
                every = same.expand(len(seen), geometry.n_views, geometry.n_cols)
                volume += self._reconstructed(self._rays(geometry, grid, seen), every)
            out[part] = volume[above + rows.start : above + rows.stop] if whole else volume
        advance(rows.stop - rows.start)
        return changed

    def _detector_rows(self, rows: slice) -> range:
        assert isinstance(self.scan.geometry, ConeBeam)
        return ConeRays(self.scan.geometry, self._slab(rows)).seen

    def _of_views(self, views: Float[Tensor, "row view col"], rows: slice) -> Volume:
        geometry = self.scan.geometry
        assert isinstance(geometry, ConeBeam)
        return self._reconstructed(self._rays(geometry, self._slab(rows), self._detector_rows(rows)), views)

    @property
    def _whole(self) -> VolumeGrid:
        return dataclasses.replace(self.grid, shape=(self.scan.geometry.n_rows, *self.grid.shape[1:]), z=0.0)

    def _slab(self, rows: slice) -> VolumeGrid:
        return self._whole.slab(rows.start, rows.stop)

    def _rays(self, geometry: ConeBeam, grid: VolumeGrid, rows: range) -> ConeRays:
        return ConeRays(geometry, grid, rows, self.device if self.device != _PROCESSORS else None)

    def _sinograms(self, rows: range) -> tuple[Float[Tensor, "row view col"], RowCounts]:
        """Return the line integrals of detector rows, corrected a few at a time, on the device if they fit there."""
        there, shape = self.device or _PROCESSORS, (len(rows), self.scan.n_views, self.scan.n_cols)
        free = device_memory(there)
        fits = free is None or 4 * 4 * math.prod(shape) < free  # the views, those of a subset, and filtered ones
        out, changed = torch.empty(shape, device=there if fits else _PROCESSORS), RowCounts()
        at_once = rows_at_once() if there.type == "cpu" else _ON_GPU
        for first in range(rows.start, rows.stop, at_once):
            band = slice(first, min(first + at_once, rows.stop))
            some, counted = corrected_dealt(stored(self.scan.read(band)).to(there), self.calibration, band)
            out[band.start - rows.start : band.stop - rows.start] = some
            changed += counted
        return out, changed


@dataclass(frozen=True, eq=False)
class RepeatedReconstruction:
    """Reconstructs any band of rows of several scans of one object, each as a separate part.

    Parameters
    ----------
    sources
        One source per scan.
    """

    sources: tuple[PartReconstruction, ...]

    @property
    def n_parts(self) -> int:
        """Number of scans."""
        return len(self.sources)

    @property
    def steps(self) -> tuple[PartReconstruction | RepeatedReconstruction, ...]:
        """The sources that follow one another along z: only this one."""
        return (self,)

    def __call__(self, rows: slice) -> tuple[Parts, RowCounts]:
        """Return the reconstructions ``(part, z, y, x)`` of rows ``start:stop``, and counts of corrected values."""
        out = np.empty((self.n_parts, rows.stop - rows.start, *self.sources[0].grid.shape[1:]), np.float32)
        return out, self.into(out, rows)

    def ahead(self, rows: slice) -> RepeatedReconstruction:
        """Return the same source with the counts of some rows already read."""
        return dataclasses.replace(self, sources=tuple(source.ahead(rows) for source in self.sources))

    def noise_of_flats(self, rows: slice) -> Volume | None:
        """Return the noise that the same flats would add to all scans, as in `PartReconstruction`."""
        scans, middle = [source.scan for source in self.sources], slice(rows.start, rows.start + 1)
        firsts = {b"" if one.flats is None else np.asarray(one.flats[:1, middle]).tobytes() for one in scans}
        return self.sources[0].noise_of_flats(rows) if len(firsts) == 1 else None

    def into(self, out: Parts, rows: slice, advance: Callable[[int], None] = lambda rows: None) -> RowCounts:
        """Reconstruct rows ``start:stop`` of every scan into `out`; `advance` is called with the rows done."""
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
        One source per scan of the series.
    """

    steps: tuple[PartReconstruction, ...]

    @property
    def n_parts(self) -> int:
        """Number of subsets of each scan."""
        return self.steps[0].n_parts

    def ahead(self, rows: slice) -> SeriesReconstruction:
        """Return the same source with the counts of some rows already read."""
        return dataclasses.replace(self, steps=tuple(step.ahead(rows) for step in self.steps))

    def noise_of_flats(self, rows: slice) -> Volume | None:
        """Return the noise that shared flats would add to every step or channel, as in `PartReconstruction`."""
        each = [step.noise_of_flats(rows) for step in self.steps]
        known = [one for one in each if one is not None]
        return np.concatenate(known) if len(known) == len(each) else None

    def __call__(self, rows: slice) -> tuple[Parts, RowCounts]:
        """Return the reconstructions ``(part, z, y, x)`` of rows ``start:stop`` of every step, and corrected counts."""
        out = np.empty(
            (self.n_parts, len(self.steps) * (rows.stop - rows.start), *self.steps[0].grid.shape[1:]), np.float32
        )
        changed = RowCounts()
        for own, source in zip(np.split(out, len(self.steps), axis=1), self.steps, strict=True):
            changed += source.into(own, rows)
        return out, changed


@dataclass(frozen=True, eq=False)
class Held:
    """Reconstructions that are already in memory, for volumes that are processed in one piece.

    Parameters
    ----------
    parts
        Reconstructions ``(part, z, y, x)``.
    changed
        Counts of what the correction changed.
    rows
        Rows that they cover.
    """

    parts: Parts
    changed: RowCounts
    rows: range

    def __call__(self, rows: slice) -> tuple[Parts, RowCounts]:
        """Return all reconstructions, for the whole range of rows."""
        assert (rows.start, rows.stop) == (self.rows.start, self.rows.stop), "there is only one piece"
        return self.parts, self.changed


def reconstruction_of(
    scan: Scan,
    calibration: Calibration,
    algorithm: Algorithm,
    grid: VolumeGrid,
    n_parts: int = 1,
    device: torch.device | None = None,
) -> PartReconstruction:
    """Return a source for slices of this scan, whatever its beam; parameters as for :class:`PartReconstruction`."""
    kind = ConeReconstruction if isinstance(scan.geometry, ConeBeam) else PartReconstruction
    return kind(scan, calibration, algorithm, grid, n_parts, device)


Reconstruction = PartReconstruction | RepeatedReconstruction | SeriesReconstruction
