"""What a format of images has to say: how it is recognised and read; what it read can be written back alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from quietray.images import ImageSeries
from quietray.io.paths import visible_files
from quietray.registry import Registered, Registry

__all__ = ["ImageFormat"]

_LOOKED_AT = 8  # files of a folder, at most


class ImageFormat(Registered, ABC):
    """A format of images that are no views of a scan; of other packages, an entry point of ``quietray.images``."""

    registry: ClassVar[Registry[ImageFormat]] = Registry("format of images", "quietray.images")

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Return whether a file is such an image: by its content, and quickly."""

    @abstractmethod
    def read(self, path: Path) -> ImageSeries:
        """Read a file or folder that :meth:`holds` such images as one series, whose `origin` writes them back.

        Raises
        ------
        FormatError
            They are damaged, or not of one series.
        """

    def holds(self, path: Path) -> bool:
        """Return whether a file or folder holds such images: whether the first file that is an image is one of them."""
        kinds = [kind() for kind in self.registry.values()]
        for file in visible_files(path)[:_LOOKED_AT]:
            found = next((kind for kind in kinds if kind.recognises(file)), None)
            if found is not None:
                return type(found) is type(self)
        return False
