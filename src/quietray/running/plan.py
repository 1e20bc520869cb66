"""The memory plan: number of rows that fit at a time, for training and for slabs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from quietray.detector.correction import correct
from quietray.errors import ResourceError
from quietray.geometry import ConeBeam, Geometry, ParallelBeam, VolumeGrid
from quietray.networks import Architecture, UNet
from quietray.operators import nufft
from quietray.operators.astra import n_threads
from quietray.operators.backprojection import ConeRays
from quietray.reconstruct import Algorithm
from quietray.reconstruct.ramp import padded_width
from quietray.scan import Scan

__all__ = [
    "Plan",
    "available_memory",
    "plan_images",
    "plan_run",
    "plan_whole",
    "resident_memory",
    "rows_at_once",
    "streak_rows",
]

_FIXED = 350 * 2**20  # bytes of libraries, threads and one training step, in addition to those at the start
_WINDOW = 16  # rows of a training window that may be targets, when not all rows fit
_HEADROOM = 1200 / 512  # memory of the process over that of the tensors, measured for the default network
_HALO = 64  # pixels around a tile that are always included
_SMALLEST_TILE, _LARGEST_TILE = 256, 1024
_SLABS_EACH = 4  # for each process, so that the wait for the last one is short
_MEASURED = 40  # images in memory while their noise is measured
_STREAK_ROWS, _STREAK_VOXELS = 8, 2**22  # rows in which streaks are measured at most, and voxels of each subset
_STREAKS = 4 * (8 + 4)  # bytes of a voxel for that: eight subsets, and sums over them
FLATS_VOXELS, _FLATS_ROWS = 2**17, (7, 24)  # in which the noise of flats is followed; least and largest number of rows
_LEAST_ROWS, _HALOS = 4, 8  # size of such a slab: rows, and multiples of the halo


@dataclass(frozen=True)
class Plan:
    """Division of a run into parts that fit into memory.

    Parameters
    ----------
    memory
        Bytes that the whole process may use.
    peak
        Bytes that the process is expected to use.
    slabs
        Half-open ranges of slices, in the order in which they are computed.
    windows
        Half-open ranges of slices that are reconstructed for training.
    tile
        Edge in pixels of the tiles in which slices are denoised.
    divided
        Whether the single slab of a run was divided among several processes.
    """

    memory: int
    peak: int
    slabs: tuple[tuple[int, int], ...]
    windows: tuple[tuple[int, int], ...]
    tile: int
    divided: bool = False

    @property
    def in_one_piece(self) -> bool:
        """Whether all slices are in memory during training."""
        return len(self.slabs) == 1 and self.windows == self.slabs

    @property
    def learns_all(self) -> bool:
        """Whether every slice is a training target; also true if a single slab was divided."""
        return self.in_one_piece or self.divided

    def targets(self, reach: int) -> tuple[int, ...] | None:
        """Return which slices of all windows, one after the other, have their true neighbours up to `reach` there.

        None if every slice may be a training target.

        Examples
        --------
        >>> Plan(2**30, 2**29, ((0, 9), (9, 18)), ((2, 6), (11, 16)), 1024).targets(1)
        (1, 2, 5, 6, 7)
        """
        if self.learns_all:
            return None
        inner: list[int] = []
        begin = 0
        for start, stop in self.windows:
            inner += range(begin + reach, begin + stop - start - reach)
            begin += stop - start
        return tuple(inner)

    def shared(self, theirs: Plan, count: int, halo: int) -> Plan:
        """Return the plan with slabs for several processes; the windows for training stay unchanged.

        Parameters
        ----------
        theirs
            Plan of one of these processes alone, for its memory.
        count
            Number of processes.
        halo
            Number of slices needed on either side of a slab; slabs are large compared with it, so that little is read
            twice.

        Examples
        --------
        >>> alone = Plan(2**30, 2**29, ((0, 64),), ((0, 64),), 1024)
        >>> alone.shared(alone, 2, 1).slabs[:2], alone.shared(alone, 2, 1).learns_all
        (((0, 8), (8, 16)), True)
        """
        first, last = self.slabs[0][0], self.slabs[-1][1]
        rows, tallest = last - first, max(stop - start for start, stop in theirs.slabs)
        busy = min(_SLABS_EACH * count, rows // max(_LEAST_ROWS, _HALOS * halo))
        number = min(rows, max(len(self.slabs), -(-rows // tallest), count, busy))
        cuts = [first + rows * k // number for k in range(number + 1)]
        return replace(self, slabs=tuple(pairwise(cuts)), tile=min(self.tile, theirs.tile), divided=self.learns_all)

    def describe(self) -> str:
        """Return the plan in one sentence."""
        rows = max(stop - start for start, stop in self.slabs)
        trained = sum(stop - start for start, stop in self.windows)
        return (
            f"{len(self.slabs)} slab{'s' if len(self.slabs) > 1 else ''} of up to {rows} rows, trained on {trained} "
            f"rows, tiles of {self.tile} pixels, about {self.peak / 2**30:.1f} of {self.memory / 2**30:.1f} GiB"
        )


def available_memory() -> int:
    """Return the bytes that this process may use without swapping: free memory, or what its control group allows.

    Examples
    --------
    >>> available_memory() > 0
    True
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            with open(limit) as one, open(used) as other:
                free = min(free, max(0, int(one.read()) - int(other.read())))
        except (OSError, ValueError):
            continue
    return free


def resident_memory() -> int:
    """Return the bytes that this process has in memory now.

    Examples
    --------
    >>> resident_memory() > 2**20
    True
    """
    import psutil

    return int(psutil.Process().memory_info().rss)


def rows_at_once() -> int:
    """Return how many rows are corrected and reconstructed at a time: at least 4, and one for each thread.

    Examples
    --------
    >>> rows_at_once() >= 4
    True
    """
    return max(4, n_threads())


def streak_rows(n_rows: int, n_pixels: int) -> int:
    """Return in how many of so many rows streaks are measured, if a slice has so many pixels.

    Examples
    --------
    >>> streak_rows(64, 768**2), streak_rows(64, 128**2), streak_rows(64, 4096**2)
    (7, 8, 1)
    """
    return min(n_rows, _STREAK_ROWS, max(1, _STREAK_VOXELS // n_pixels))


def flats_rows(n_rows: int, n_pixels: int, reach: int) -> int:
    """Return in how many of so many rows the noise of shared flats is looked at, if a slice has so many pixels.

    It is followed through the denoiser in as many rows as make :data:`FLATS_VOXELS`, with `reach` neighbours on either
    side.

    Examples
    --------
    >>> flats_rows(64, 128**2, 3), flats_rows(64, 2048**2, 3), flats_rows(64, 2048**2, 0)
    (14, 7, 7)
    """
    least, most = _FLATS_ROWS
    return min(n_rows, max(least, 1 + 2 * reach, min(most, max(1, FLATS_VOXELS // n_pixels) + 2 * reach)))


def plan_run(
    scan: Scan,
    rows: range,
    grid: VolumeGrid,
    *,
    parts: int,
    n_slices: int,
    memory: int | None = None,
    base: int = 0,
    network: Architecture | None = None,
) -> Plan:
    """Plan a run that reconstructs, splits and denoises.

    Parameters
    ----------
    scan
        The scan; its data are not read.
    rows
        Detector rows to work on.
    grid
        Grid of the volume; its slices correspond to the rows.
    parts
        Reconstructions per slice.
    n_slices
        Slices in the network's input; 1 for a plain reconstruction.
    memory
        Bytes that the whole process may use; 60 % of the free memory by default.
    base
        Bytes that the process already uses.
    network
        Network to train and apply, the default one if None; not included for a plain reconstruction, with one part and
        one slice.

    Returns
    -------
    Plan

    Raises
    ------
    ResourceError
        The smallest slab does not fit.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> beam = ParallelBeam(np.linspace(0, 3, 8), n_rows=20, n_cols=16)
    >>> scan = Scan(np.ones((8, 20, 16), np.uint16), beam)
    >>> plan_run(scan, range(20), beam.grid(), parts=4, n_slices=9, memory=2**30).in_one_piece
    True
    """
    limit = memory if memory is not None else int(0.6 * available_memory())
    network = network or UNet()
    halo = max(n_slices // 2, network.depth)
    itemsize = np.dtype(scan.projections.dtype).itemsize
    own = 4 if isinstance(scan.geometry, ConeBeam) else itemsize if itemsize != 4 else 0  # filtered, or raw
    counts = scan.n_views * (4 * scan.n_cols + own * _filtered(scan))
    volume = grid.n_pixels * 4 * parts
    stretch, spread = rows_of_slices(scan.geometry, grid)
    row = int(stretch * counts) + volume
    ahead = scan.n_views * scan.n_cols * 4 + 4 * grid.n_pixels  # bytes of the next slab, and of the previous one
    working = (
        int(spread * counts)
        + max(_correcting(scan, rows_at_once()), _projecting(scan, grid, parts, rows_at_once()))
        + 8 * scan.n_rows * scan.n_cols * 4
        + max(
            4 * volume,
            _measuring_streaks(scan, grid, len(rows)) if parts > 1 else 0,
            flats_rows(len(rows), grid.n_pixels, halo) * (volume + 8 * grid.n_pixels),  # parts, and their common noise
        )
    )
    tile, around = _LARGEST_TILE, max(_HALO, -(-network.radius // network.stride) * network.stride)
    at_once = min(max(1, 4 * network.depth), len(rows))  # in 3-D networks: slices with their neighbours
    per_pixel = int(_HEADROOM * network.bytes_per_pixel) * at_once
    while (
        tile > _SMALLEST_TILE
        and (tile + 2 * (around - _HALO)) ** 2 * per_pixel > 0.3 * limit
        and (around == _HALO or tile // 2 + 2 * around < max(grid.shape[1:]))  # else they surround it all anyway
    ):
        tile //= 2
    smallest = 2 * halo + 1

    def spent(tile: int) -> tuple[int, int]:
        """Return the bytes of applying the network in tiles, and all bytes that do not depend on the slab."""
        edge = min(tile + 2 * around, max(grid.shape[1:]))
        applied = edge * edge * (per_pixel + 4 * n_slices * parts) if n_slices > 1 or parts > 1 else 0
        return applied, base + _FIXED + working + applied

    while tile > _SMALLEST_TILE and limit - spent(tile)[1] < min(smallest, len(rows)) * (row + ahead):
        tile //= 2
    applied, fixed = spent(tile)
    if (limit - fixed) // row >= len(rows):
        whole = ((rows.start, rows.stop),)
        return Plan(limit, fixed + len(rows) * row, whole, whole, tile)
    room = (limit - fixed) // (row + ahead)
    if room < min(smallest, len(rows)):
        needed = fixed + min(smallest, len(rows)) * (row + ahead)
        raise ResourceError(
            f"the smallest slab ({min(smallest, len(rows))} rows) must fit into memory and needs {needed / 2**30:.2f} "
            f"GiB, got a limit of {limit / 2**30:.2f} GiB; give a larger --max-memory, reconstruct a smaller --region, "
            "or use fewer slices" + (" or another --network" if applied > 0.5 * limit else "")
        )
    height = int(room) - 2 * halo
    count = -(-len(rows) // height)
    slabs = tuple(
        (rows.start + len(rows) * k // count, rows.start + len(rows) * (k + 1) // count) for k in range(count)
    )
    windows = _training_windows(rows, int((limit - fixed) // row), halo)
    counts = row - volume
    tallest = max(stop - start for start, stop in slabs) + 2 * halo
    trained = sum(stop - start for start, stop in windows)
    peak = fixed + max(
        tallest * (row + ahead), trained * volume + max(stop - start for start, stop in windows) * counts
    )
    return Plan(limit, peak, slabs, windows, tile)


def plan_images(
    shape: tuple[int, int, int],
    *,
    parts: int = 1,
    n_slices: int = 1,
    network: Architecture | None = None,
    memory: int | None = None,
    base: int = 0,
    kept: bool = True,
) -> Plan:
    """Plan a run on images, which reads them slab by slab if they do not fit into memory together.

    Parameters
    ----------
    shape
        Number, height and width of the images.
    parts
        Number of measurements of them.
    n_slices, network, memory, base
        As in :func:`plan_run`.
    kept
        Whether the result stays in memory.

    Raises
    ------
    ResourceError
        The smallest slab does not fit.

    Examples
    --------
    >>> plan_images((900, 512, 512), memory=2**32).in_one_piece
    False
    >>> plan_images((90, 512, 512), memory=2**32).slabs
    ((0, 90),)
    """
    limit = memory if memory is not None else int(0.6 * available_memory())
    network, (n, height, width) = network or UNet(), shape
    image, halo, tile = 4 * height * width, max(n_slices // 2, network.depth), _LARGEST_TILE
    around = max(_HALO, -(-network.radius // network.stride) * network.stride)
    per_pixel = int(_HEADROOM * network.bytes_per_pixel) * min(max(1, 4 * network.depth), n)
    smallest = min(n, 2 * halo + 1)
    # to learn from, with copies for the scale; a slab, the next and the previous one, with its noisy mean
    learned, worked = (parts + 3) * image, (2 * parts + 3) * image

    def fixed(tile: int) -> int:
        edge = min(tile + 2 * around, max(height, width))
        return base + _FIXED + min(n, _MEASURED) * image + edge * edge * (per_pixel + 4 * n_slices * parts)

    while tile > _SMALLEST_TILE and limit - fixed(tile) < smallest * (learned + worked):
        tile //= 2
    whole = fixed(tile) + n * (2 * parts + 4) * image
    if whole <= limit:
        return Plan(limit, whole, ((0, n),), ((0, n),), tile)
    spent = fixed(tile) + (n * image if kept else 0)
    room = (limit - spent) // 2
    if room < smallest * max(learned, worked):
        needed = spent + 2 * smallest * max(learned, worked)
        raise ResourceError(
            f"the smallest slab ({smallest} images of {height} x {width}) must fit into memory and needs "
            f"{needed / 2**30:.2f} GiB, got a limit of {limit / 2**30:.2f} GiB; give a larger --max-memory, or fewer "
            "slices"
            + (", or an output folder (--out) for a volume, which is then written slab by slab" if kept else "")
        )
    count = -(-n // max(1, room // worked - 2 * halo))
    cuts = [n * k // count for k in range(count + 1)]
    windows = _training_windows(range(n), min(n, room // learned), halo)
    tallest = min(n, max(stop - start for start, stop in pairwise(cuts)) + 2 * halo)
    trained = sum(stop - start for start, stop in windows)
    return Plan(limit, spent + trained * learned + tallest * worked, tuple(pairwise(cuts)), windows, tile)


def plan_whole(
    scan: Scan,
    rows: range,
    grid: VolumeGrid,
    *,
    algorithm: Algorithm,
    memory: int | None,
    base: int,
    **more: Any,
) -> Plan:
    """Plan a run that iterates on the whole volume, because the slices of a cone beam share rays.

    Parameters
    ----------
    scan, rows, memory, base, more
        As in :func:`plan_run`.
    grid
        Grid of the whole volume.
    algorithm
        Iterative algorithm.

    Raises
    ------
    ResourceError
        The volume does not fit.

    Examples
    --------
    >>> from quietray.reconstruct import TV
    >>> beam = ConeBeam.circular(np.linspace(0, 6, 8), 20, 16, 100.0, 150.0)
    >>> scan = Scan(np.ones((8, 20, 16), np.uint16), beam)
    >>> plan_whole(scan, range(20), beam.grid(), algorithm=TV(), memory=2**30, base=0, parts=1, n_slices=1).slabs
    ((0, 20),)
    """
    limit = memory if memory is not None else int(0.6 * available_memory())
    volumes, stacks = algorithm.held
    held = base + 4 * (volumes * grid.shape[0] * grid.n_pixels + stacks * scan.n_views * scan.n_rows * scan.n_cols)
    try:
        plan = plan_run(scan, rows, grid, memory=limit, base=held, **more)
        if plan.in_one_piece:
            return plan
    except ResourceError:
        pass  # the error below is about the whole volume
    needed = plan_run(scan, rows, grid, memory=2**62, base=held, **more).peak
    raise ResourceError(
        f"the whole volume {grid.shape} and its {scan.n_views} views must fit into memory, because the slices of a "
        f"cone beam share rays, and need {needed / 2**30:.2f} GiB, got a limit of {limit / 2**30:.2f} GiB; give a "
        "larger --max-memory, choose a smaller --region that holds the object, or use fdk, which works in slabs"
        + (", or denoise the radiographs (noise2self)" if more.get("parts", 1) > 1 else "")
    )


def rows_of_slices(geometry: Geometry, grid: VolumeGrid) -> tuple[float, float]:
    """Return the number of detector rows for each further slice, and the additional rows of the first slice.

    Examples
    --------
    >>> beam = ConeBeam.circular(np.linspace(0, 6, 8), 20, 16, 100.0, 150.0)
    >>> [round(number, 2) for number in rows_of_slices(beam, beam.grid())]
    [1.08, 1.92]
    """
    if not isinstance(geometry, ConeBeam):
        return 1.0, 0.0
    n_z = grid.shape[0]
    ends = [len(ConeRays(geometry, grid.slab(z, z + 1)).seen) for z in (0, n_z // 2, n_z - 1)]
    y, x = (abs(middle) + n / 2 for middle, n in zip(grid.centre, grid.shape[1:], strict=True))
    nearest = np.clip(1 - np.hypot(y, x) * geometry.voxel / geometry.reach[:, 0].min(), 1 / geometry.n_rows, 1)
    stretch = float(1 / nearest)
    return stretch, max(0.0, max(ends) - stretch)


def _correcting(scan: Scan, n_rows: int) -> int:
    """Return the bytes needed to correct so many rows, with a copy of their counts and the result."""
    return 8 * n_rows * scan.n_views * scan.n_cols + correct.workspace(scan.n_views, scan.n_cols, n_rows)


def _filtered(scan: Scan) -> int:
    """Return the number of columns of filtered views."""
    return scan.geometry.across if isinstance(scan.geometry, ConeBeam) else scan.n_cols


def _projecting(scan: Scan, grid: VolumeGrid, parts: int, n_rows: int) -> int:
    """Return the bytes needed to filter and backproject so many rows on all threads, without the slices."""
    filtering = 6 * scan.n_views * padded_width(_filtered(scan)) * n_rows  # as many float32 if there are four rows
    if not isinstance(scan.geometry, ParallelBeam):
        return filtering
    kept, each = nufft.workspace(scan.geometry, grid, parts)
    return filtering + kept + n_threads() * each


def _measuring_streaks(scan: Scan, grid: VolumeGrid, n_rows: int) -> int:
    """Return the bytes needed to compare eight subsets of the views, which need transforms of their own."""
    kept = nufft.workspace(scan.geometry, grid, 8)[0] if isinstance(scan.geometry, ParallelBeam) else 0
    return kept + _STREAKS * streak_rows(n_rows, grid.n_pixels) * grid.n_pixels


def _training_windows(rows: range, room: int, halo: int) -> tuple[tuple[int, int], ...]:
    """Return evenly spaced windows of rows, as many as fit with their halos.

    Windows share no rows, because a row could be held out in one and a training target in the other.
    """
    height = min(_WINDOW + 2 * halo, room)
    count = max(1, min(room // height, len(rows) // height))
    edges = [rows.start + len(rows) * k // count for k in range(count + 1)]
    starts = [(low + high - height) // 2 for low, high in pairwise(edges)]
    return tuple((start, start + height) for start in starts)
