"""The interface of scan formats: recognising, reading and writing."""

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
    """A path that may hold a scan, as seen by readers.

    Parameters
    ----------
    path
        An existing file or folder.

    Examples
    --------
    >>> Source(Path(".")).container is None
    True
    """

    path: Path

    @cached_property
    def container(self) -> Container | None:
        """The HDF5 or Zarr container at the path, opened once for all readers; None if it is neither."""
        return open_container(self.path)

    @property
    def opened(self) -> Container:
        """The same container, for a reader that has recognised it."""
        assert self.container is not None
        return self.container


class ScanReader(Registered, ABC):
    """A scan format that can be read.

    Subclasses are tried in the order in which they are defined.  Readers of other packages, entry points of the group
    ``quietray.readers``, come last.
    """

    registry: ClassVar[Registry[ScanReader]] = Registry("scan reader", "quietray.readers")

    files: ClassVar[tuple[str, ...]]
    """Description of the files, for the error if a path cannot be read; the name of the format by default."""

    def __init_subclass__(cls, **more: Any) -> None:
        if "files" not in cls.__dict__:
            cls.files = (called(cls),)
        super().__init_subclass__(**more)

    @abstractmethod
    def recognises(self, source: Source, flags: Flags) -> bool:
        """Return whether the path holds such a scan, from its content rather than its name; must be fast.

        Parameters
        ----------
        source
            An existing path that is not an empty file.
        flags
            What the user has said about the parts of the scan.
        """

    @abstractmethod
    def read(self, source: Source, flags: Flags) -> RawScan:
        """Read a scan that :meth:`recognises` has accepted; frames stay on disk.

        Raises
        ------
        FormatError, GeometryError
            A part is missing or does not match the others.
        """


class ScanWriter(Registered, ABC):
    """A scan format that can be written; in other packages, an entry point of the group ``quietray.writers``."""

    registry: ClassVar[Registry[ScanWriter]] = Registry("scan writer", "quietray.writers")

    endings: ClassVar[tuple[str, ...]] = ()
    """File name endings that select this format, in lower case."""

    @abstractmethod
    def write(self, path: Path, scan: Scan) -> None:
        """Write a scan block by block to a new file, which gets its name when it is complete and on disk.

        Raises
        ------
        FormatError
            The scan cannot be read.
        OSError
            The disk is full or not writable.
        """
