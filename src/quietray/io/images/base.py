"""The interface of image formats: recognising, reading and writing back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from quietray.images import ImageSeries
from quietray.io.paths import visible_files
from quietray.registry import Registered, Registry

__all__ = ["ImageFormat"]

_LOOKED_AT = 8  # largest number of files checked in a folder


class ImageFormat(Registered, ABC):
    """A format of images that are not views of a scan; in other packages, an entry point of ``quietray.images``."""

    registry: ClassVar[Registry[ImageFormat]] = Registry("format of images", "quietray.images")

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Return whether a file is such an image, from its content; must be fast."""

    @abstractmethod
    def read(self, path: Path) -> ImageSeries:
        """Read such a file or folder (see :meth:`holds`) as one series, whose `origin` can write it back.

        Raises
        ------
        FormatError
            The images are damaged, or belong to several series.
        """

    def holds(self, path: Path) -> bool:
        """Return whether a file or folder holds such images, from the first file that is an image."""
        kinds = [kind() for kind in self.registry.values()]
        for file in visible_files(path)[:_LOOKED_AT]:
            found = next((kind for kind in kinds if kind.recognises(file)), None)
            if found is not None:
                return type(found) is type(self)
        return False
