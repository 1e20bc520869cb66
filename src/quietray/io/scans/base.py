"""What a scan format has to say: how it is recognised and read, how it is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from quietray.io.containers import Container, open_container
from quietray.io.scans.raw import Flags, RawScan
from quietray.registry import Registered, Registry, called
from quietray.scan import Scan

__all__ = ["ScanReader", "ScanWriter", "Source"]


@dataclass(frozen=True, eq=False)
class Source:
    """A path that may hold a scan, as its readers see it.

    Parameters
    ----------
    path
        Of a file or folder that is there.

    Examples
    --------
    >>> Source(Path(".")).container is None
    True
    """

    path: Path

    @cached_property
    def container(self) -> Container | None:
        """The tree of arrays in it, opened once for all readers; None where it is neither HDF5 nor Zarr."""
        return open_container(self.path)

    @property
    def opened(self) -> Container:
        """The same, for a reader that has recognised it."""
        assert self.container is not None
        return self.container


class ScanReader(Registered, ABC):
    """A scan format that can be read.

    A class that derives from this one is asked as soon as it is defined, after those before it; the readers of other
    packages, named as entry points of the group ``quietray.readers``, come last.
    """

    registry: ClassVar[Registry[ScanReader]] = Registry("scan reader", "quietray.readers")

    files: ClassVar[tuple[str, ...]]
    """What its files are called where a path cannot be read; the name of the format where nothing is stated."""

    def __init_subclass__(cls, **more: Any) -> None:
        if "files" not in cls.__dict__:
            cls.files = (called(cls),)
        super().__init_subclass__(**more)

    @abstractmethod
    def recognises(self, source: Source, flags: Flags) -> bool:
        """Return whether the path holds such a scan: by its content rather than its name, and quickly.

        Parameters
        ----------
        source
            The path, which is there and not an empty file.
        flags
            Where the user says that the parts are.
        """

    @abstractmethod
    def read(self, source: Source, flags: Flags) -> RawScan:
        """Read what :meth:`recognises` has recognised; the frames stay on disk.

        Raises
        ------
        FormatError, GeometryError
            A part is missing or does not fit.
        """


class ScanWriter(Registered, ABC):
    """A scan format that can be written; of other packages, an entry point of the group ``quietray.writers``."""

    registry: ClassVar[Registry[ScanWriter]] = Registry("scan writer", "quietray.writers")

    endings: ClassVar[tuple[str, ...]] = ()
    """Endings of names that ask for this format, in lower case."""

    @abstractmethod
    def write(self, path: Path, scan: Scan) -> None:
        """Write a scan, block by block, to a new file, which gets its name when it is complete and on the disk.

        Raises
        ------
        FormatError
            The scan cannot be read.
        OSError
            The disk is full or not writable.
        """
