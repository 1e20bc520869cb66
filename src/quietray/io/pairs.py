"""Training pairs: several measurements of the same images, and clean images if available."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quietray.brief import brief
from quietray.errors import FormatError, GeometryError
from quietray.images import ImageSeries, require_alike
from quietray.io.images import image_format, read_images
from quietray.io.paths import natural_key
from quietray.types import Slice

__all__ = ["ImagePairs", "is_pairs", "read_pairs"]

_NOISY, _CLEAN = re.compile(r"noisy\d*"), "clean"


@dataclass(frozen=True, eq=False)
class ImagePairs:
    """Several measurements of the same images, and clean images if available.

    Parameters
    ----------
    noisy
        One or more measurements, with independent noise.
    clean
        The same images at normal dose, or without noise.

    Raises
    ------
    GeometryError
        There are no measurements, or they differ in number, size or unit.
    """

    noisy: tuple[ImageSeries, ...]
    clean: ImageSeries | None = None

    __repr__ = brief

    def __post_init__(self) -> None:
        if not self.noisy:
            raise GeometryError("pairs must have a noisy measurement, got none")
        require_alike(self._all)

    @property
    def _all(self) -> tuple[ImageSeries, ...]:
        return self.noisy if self.clean is None else (*self.noisy, self.clean)

    @property
    def weight(self) -> Slice:
        """Weight ``(y, x)``: 1 for pixels measured in all of them, else 0."""
        return np.asarray(np.prod([series.weight for series in self._all], axis=0), np.float32)


def is_pairs(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds pairs: an image file or a subfolder of images called ``noisy`` or ``noisy2``.

    Examples
    --------
    >>> is_pairs("nowhere")
    False
    """
    return any(_NOISY.fullmatch(entry.stem) and (entry.is_dir() or image_format(entry)) for entry in _entries(path))


def read_pairs(path: str | os.PathLike[str]) -> ImagePairs:
    """Read a folder of pairs.

    Parameters
    ----------
    path
        Folder with ``noisy``, further measurements ``noisy2``, ``noisy3`` and so on, and ``clean``; each is a file
        (``noisy.npy``) or a folder with a series.  Only the first is required.

    Raises
    ------
    FormatError
        The folder does not exist, or contains no images.
    GeometryError
        The series differ in size or unit.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("noisy", "noisy2", "clean"):
    ...     np.save(folder / f"{name}.npy", np.zeros((3, 4, 5), np.float32))
    >>> pairs = read_pairs(folder)
    >>> len(pairs.noisy), pairs.clean is None
    (2, False)
    """
    place, entries = Path(path), _entries(path)
    noisy = [entry for entry in entries if _NOISY.fullmatch(entry.stem)]
    clean = [entry for entry in entries if entry.stem == _CLEAN]
    if not noisy or len(clean) > 1 or len({entry.stem for entry in noisy}) < len(noisy):
        found = ", ".join(entry.name for entry in entries[:6]) or "nothing"
        raise FormatError(
            f"the pairs {place} must be a folder with one 'noisy', perhaps one 'noisy2' and more, and at most one "
            f"'clean', each a file or the folder of a series, got {found}"
        )
    return ImagePairs(tuple(map(read_images, noisy)), read_images(clean[0]) if clean else None)


def _entries(path: str | os.PathLike[str]) -> list[Path]:
    """Return the entries of a folder in natural order, without hidden files; empty if there is no folder."""
    place = Path(path)
    found = [entry for entry in place.iterdir() if not entry.name.startswith(".")] if place.is_dir() else []
    return sorted(found, key=lambda entry: natural_key(Path(entry.stem)))
