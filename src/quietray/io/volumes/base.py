"""The interface of volume formats: names, writing, recognising and reading."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from quietray.io.frames import LazyFrames
from quietray.io.volumes.writer import VolumeWriter
from quietray.registry import Registered, Registry, called

__all__ = ["StoredVolume", "VolumeFormat", "told_of_file"]


@dataclass(frozen=True, eq=False)
class StoredVolume:
    """A volume ``(z, y, x)``, or a series ``(step, z, y, x)``, on disk; index it to read a part.

    Parameters
    ----------
    frames
        The slices, still on disk.
    path
        Path from which it was read.
    unit
        Unit of the attenuation (``1/mm`` or ``1/pixel``); None if not in the file.
    voxel_size
        Edge of a voxel in mm; None if not in the file.
    facts
        Other information stored with it.
    coarser
        Levels of a pyramid for viewers, the finest first; empty if there is no pyramid.

    Examples
    --------
    >>> volume = StoredVolume(LazyFrames(np.zeros((2, 4, 4), np.float32)), Path("here"), "1/pixel")
    >>> volume.shape, float(volume[0].max())
    ((2, 4, 4), 0.0)
    """

    frames: LazyFrames
    path: Path
    unit: str | None = None
    voxel_size: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    coarser: tuple[LazyFrames, ...] = ()

    def __repr__(self) -> str:
        size = "" if self.voxel_size is None else f", voxels of {self.voxel_size:g} mm"
        shape = " x ".join(map(str, self.shape))
        return f"StoredVolume({shape}, {self.dtype}, {self.unit or 'unit not stated'}{size}, from {self.path})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``(n_z, n_y, n_x)``, preceded by the number of steps or channels for a series."""
        return self.frames.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a voxel."""
        return self.frames.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that all voxels take."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: Any) -> Any:
        return self.frames[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.frames[:], dtype=dtype)


def told_of_file(told: Any) -> tuple[dict[str, Any], str | None, float | None]:
    """Return the facts in a file, with unit and voxel size; values of the wrong type are left out.

    Examples
    --------
    >>> told_of_file({"unit": "1/mm", "voxel_size": "large"})
    ({'unit': '1/mm', 'voxel_size': 'large'}, '1/mm', None)
    """
    facts = dict(told) if isinstance(told, Mapping) else {}
    unit, size = facts.get("unit"), facts.get("voxel_size")
    sized = isinstance(size, (int, float, np.number)) and math.isfinite(size) and size > 0
    return facts, unit if isinstance(unit, str) else None, float(size) if size is not None and sized else None


class VolumeFormat(Registered, ABC):
    """A format in which volumes are written and read.

    Subclasses become choices of ``--format`` when they are defined; in other packages, they are entry points of the
    group ``quietray.volumes``.  Attributes that are not set follow from the name of the format: a format called ``mrc``
    writes ``volume.mrc``.
    """

    registry: ClassVar[Registry[VolumeFormat]] = Registry("format of a volume", "quietray.volumes")

    writer: ClassVar[type[VolumeWriter]]
    """Writer class, which writes slab by slab."""
    files: ClassVar[str]
    """Description of the files, for the error if a path cannot be read."""
    endings: ClassVar[tuple[str, ...]]
    """File name endings that select this format, in lower case; an empty text for a folder without an ending."""
    volume: ClassVar[str]
    """Name of the volume in the folder of a run."""
    trust: ClassVar[str]
    """Name of the uncertainty map in the folder of a run."""
    beside: ClassVar[tuple[str, ...]] = ()
    """Names of further files that belong to both, if any."""

    def __init_subclass__(cls, **more: Any) -> None:
        name = called(cls)
        usual = {"files": name, "endings": (f".{name}",), "volume": f"volume.{name}", "trust": f"trust.{name}"}
        for attribute, value in usual.items():
            if attribute not in cls.__dict__:
                setattr(cls, attribute, value)
        super().__init_subclass__(**more)

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Return whether an existing path holds such a volume, from its content; must be fast."""

    @abstractmethod
    def read(self, path: Path) -> StoredVolume:
        """Open a volume that :meth:`recognises` has accepted; slices stay on disk.

        Raises
        ------
        FormatError
            There is no volume, or it is damaged.
        """
