"""Base class of volume writers."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal

import numpy as np

from quietray.errors import FormatError, ResourceError
from quietray.geometry import VolumeGrid
from quietray.io.disk import check_space, disk_errors, remove, sync_path
from quietray.io.volumes.stored import Stored
from quietray.types import Volume

__all__ = ["SeriesAxis", "VolumeWriter"]


@dataclass(frozen=True)
class SeriesAxis:
    """The first axis of a four-dimensional volume.

    Parameters
    ----------
    name
        ``t`` for steps in time, ``c`` for channels.
    size
        Number of entries.

    Examples
    --------
    >>> SeriesAxis("t", 3).folder(2)
    'step_002'
    """

    name: Literal["t", "c"]
    size: int

    @property
    def kind(self) -> str:
        """Name of an entry of this axis."""
        return "step" if self.name == "t" else "channel"

    def folder(self, number: int) -> str:
        """Return the folder name of an entry, for formats with one folder per entry."""
        return f"{self.kind}_{number:03d}"


class VolumeWriter(ABC):
    """A volume ``(z, y, x)`` under construction, of float32 or of integers over a window.

    Slabs may come in any order and from several threads; a slab is on disk when :meth:`write` returns.  Leaving the
    ``with`` block closes the writer; only :meth:`finish` gives the volume its final name.

    A writer can be pickled: its copy reopens the unfinished volume in another process and writes slabs there.  The
    process that created the volume finishes it.  Subclasses may only keep open what :meth:`_open` opens and
    :meth:`close` releases, in the attributes listed in :attr:`_handles`.

    Parameters
    ----------
    path
        Final name.
    grid
        Shape and voxel size.
    resume
        Whether to keep existing slabs.
    extra
        Additional metadata to store with the volume.
    series
        First axis of a series of volumes on that grid; the whole then has the shape ``(t or c, z, y, x)``, and slices
        are numbered through all entries.
    stored
        How voxels are stored; integers are only possible if :attr:`integers` is true.
    """

    integers: ClassVar[bool] = False
    """Whether voxels can be stored as integers."""
    apart: ClassVar[bool] = False
    """Whether every slab has its own file, so that several machines can write at the same time."""
    share_of_size: ClassVar[float] = 1.0
    """Fraction of the volume's size that must be free on the disk at the start."""
    _handles: ClassVar[tuple[str, ...]] = ()
    """Attributes that are None in another process until they are opened there."""

    def __init__(
        self,
        path: Path,
        grid: VolumeGrid,
        *,
        resume: bool,
        extra: Mapping[str, Any],
        series: SeriesAxis | None = None,
        stored: Stored = Stored(),
    ) -> None:
        self.path = path
        self.stored, self.scale = stored, stored.scale
        self.grid = grid
        self.series = series
        self.partial = path.parent / f".{path.name}.partial"
        self._extra = dict(extra)
        self._locks: dict[int, threading.Lock] = {}
        self._owner: int | None = os.getpid()
        if path.exists() and not resume:
            raise ResourceError(f"the volume {path} must not exist yet; remove it, resume, or give another folder")
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if resume and (path.exists() or self.partial.exists()):
                self._reopen()
            else:
                remove(self.partial)
                check_space(path, int(self.share_of_size * 4 * np.prod(self.shape, dtype=np.int64)))
                self._create()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``(z, y, x)``, or ``(t or c, z, y, x)``."""
        return self.grid.shape if self.series is None else (self.series.size, *self.grid.shape)

    @property
    def axes(self) -> str:
        """Names of the axes, one letter each."""
        return "zyx" if self.series is None else f"{self.series.name}zyx"

    def __getstate__(self) -> dict[str, Any]:
        places = {"path": self.path.absolute(), "partial": self.partial.absolute()}
        return {**vars(self), **places, "_locks": {}, "_owner": None, **dict.fromkeys(self._handles)}

    @property
    def place(self) -> Path:
        """Present path of the volume: the hidden or the final name."""
        return self.path if self._finished else self.partial

    def write(self, z0: int, block: Volume) -> None:
        """Store the slices ``z0, z0 + 1, ...``; they are on disk when this returns.

        Parameters
        ----------
        z0
            Number of the first slice.
        block
            Attenuation ``(n, y, x)`` in the unit of the grid.

        Raises
        ------
        FormatError
            The block does not match the shape of the volume.
        ResourceError
            The disk is full or not writable; slabs written earlier are kept.
        """
        *n_z, n_y, n_x = self.shape
        if block.shape[1:] != (n_y, n_x) or not 0 <= z0 <= z0 + len(block) <= np.prod(n_z):
            raise FormatError(
                f"a slab must fit into the volume {self.shape}, got shape {block.shape} at z = {z0}; "
                "use the grid that the writer was opened with"
            )
        with disk_errors(self.path, f"The slabs written so far are kept in {self.partial.name}: resume later."):
            with self._locks.setdefault(os.getpid(), threading.Lock()):  # a lock held during a fork stays locked
                self._take_up()
                self._unfinish()
                self._open()
            values = np.ascontiguousarray(block, dtype="<f4")
            self._store(z0, values if self.scale is None else self.scale.numbers(values))

    def finish(self) -> Path:
        """Give the volume its final name and return it; to be called when all slabs are written.

        Raises
        ------
        ResourceError
            The disk is full or not writable.
        """
        with disk_errors(self.path, f"The slabs written so far are kept in {self.partial.name}: resume later."):
            self.close()
            if not self._finished:
                self._complete()
                self._name()
                sync_path(self.path.parent)
        return self.path

    def discard(self) -> None:
        """Remove the volume, finished or not."""
        remove(self.place)

    @classmethod
    def rename(cls, path: Path, new: Path) -> None:
        """Rename a finished volume within its folder, replacing any volume of the new name."""
        remove(new)
        path.rename(new)

    @abstractmethod
    def close(self) -> None:
        """Release the files; what was written can be resumed later."""

    def __enter__(self) -> VolumeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _finished(self) -> bool:
        """Whether the volume has its final name, which all processes can see in the folder."""
        return self.path.exists() and not self.partial.exists()

    def _take_up(self) -> None:
        """Open the volume in a process that has not created it: a forked one, or one with a copy of the writer."""
        if self._owner != os.getpid():
            self.close()
            self._reopen()
            self._owner = os.getpid()

    def _unfinish(self) -> None:
        """Hide a finished volume again before rewriting a slab, because the final name stands for a complete volume."""
        if self._finished:
            self.close()
            with suppress(FileNotFoundError):  # another process was faster
                os.replace(self.path, self.partial)

    def _complete(self) -> None:  # noqa: B027 most have nothing to do
        """Do what requires all slabs, before the volume gets its name; repeated in full if the process is killed."""

    def _name(self) -> None:
        """Give the volume its final name."""
        if self.path.exists():
            remove(self.path)
        os.replace(self.partial, self.path)

    def _check_found(self, shape: tuple[int, ...], dtype: Any) -> None:
        allowed = {np.dtype(self.stored.dtype)} | ({np.dtype("<f4")} if self.scale is None else set())
        if tuple(shape) != self.shape or np.dtype(dtype).newbyteorder("=") not in allowed:
            raise FormatError(
                f"the unfinished volume {self.place} must have shape {self.shape} in {self.stored.dtype} to be resumed,"
                f" got {tuple(shape)} in {np.dtype(dtype)}; remove it and start anew"
            )

    def _not_resumable(self, error: Exception) -> FormatError:
        return FormatError(f"{self.place} must be a volume that can be resumed, got: {error}; remove it and start anew")

    @abstractmethod
    def _create(self) -> None:
        """Create an empty volume at the hidden name."""

    @abstractmethod
    def _reopen(self) -> None:
        """Check the volume at :attr:`place`."""

    @abstractmethod
    def _open(self) -> None:
        """Prepare for writing at :attr:`place`; called before every slab."""

    @abstractmethod
    def _store(self, z0: int, block: np.ndarray) -> None:
        """Write a slab at :attr:`place` and wait until it is on disk."""
