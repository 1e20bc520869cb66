"""What a volume format has to say: its names, how it is written, recognised and read back."""

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

__all__ = ["StoredVolume", "VolumeFormat"]


@dataclass(frozen=True, eq=False)
class StoredVolume:
    """A volume ``(z, y, x)``, or a series ``(step, z, y, x)``, on disk; index it to read a part.

    Parameters
    ----------
    frames
        The slices, still on disk.
    path
        Where it was read.
    unit
        Unit of the attenuation (``1/mm`` or ``1/pixel``); None when the file does not say.
    voxel_size
        Edge of a voxel in mm; None when the file does not say.
    facts
        What else was stored with it.

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

    def __repr__(self) -> str:
        size = "" if self.voxel_size is None else f", voxels of {self.voxel_size:g} mm"
        shape = " x ".join(map(str, self.shape))
        return f"StoredVolume({shape}, {self.dtype}, {self.unit or 'unit not stated'}{size}, from {self.path})"

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_z, n_y, n_x)``, with the steps or channels of a series first."""
        return self.frames.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one voxel."""
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


class VolumeFormat(Registered, ABC):
    """A format that volumes are written to and read from.

    A class that derives from this one is a choice of ``--format`` as soon as it is defined; those of other packages are
    entry points of the group ``quietray.volumes``.  What is not stated follows from the name of the format: a format
    that is called ``mrc`` writes ``volume.mrc``.
    """

    registry: ClassVar[Registry[VolumeFormat]] = Registry("format of a volume", "quietray.volumes")

    writer: ClassVar[type[VolumeWriter]]
    """What writes it, slab by slab."""
    files: ClassVar[str]
    """What its files are called where a path cannot be read."""
    endings: ClassVar[tuple[str, ...]]
    """Endings of names that ask for this format, in lower case; none at all, of a folder, is an empty text."""
    volume: ClassVar[str]
    """Name of the volume in the folder of a run."""
    trust: ClassVar[str]
    """Name of the map of trust beside it."""
    beside: ClassVar[tuple[str, ...]] = ()
    """Names of what lies beside both, where these are not all there is."""

    def __init_subclass__(cls, **more: Any) -> None:
        name = called(cls)
        usual = {"files": name, "endings": (f".{name}",), "volume": f"volume.{name}", "trust": f"trust.{name}"}
        for attribute, value in usual.items():
            if attribute not in cls.__dict__:
                setattr(cls, attribute, value)
        super().__init_subclass__(**more)

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Return whether the path, which is there, holds such a volume: by its content, and quickly."""

    @abstractmethod
    def read(self, path: Path) -> StoredVolume:
        """Open what :meth:`recognises` has recognised; the slices stay on disk.

        Raises
        ------
        FormatError
            There is no volume in it, or it is damaged.
        """
