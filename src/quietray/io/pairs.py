"""Pairs to learn from: measurements of the same images, and the clean ones where there are any."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from quietray.errors import FormatError
from quietray.io.images import ImageSeries, require_alike
from quietray.io.series import image_format, read_images

__all__ = ["ImagePairs", "is_pairs", "read_pairs"]

_NOISY, _CLEAN = "noisy", "clean"


@dataclass(frozen=True, eq=False)
class ImagePairs:
    """Measurements of the same images, image by image, and the clean ones if they are known.

    Parameters
    ----------
    noisy
        One measurement or more, whose noise is independent of each other.
    clean
        The same images of a normal dose, or without noise.

    Raises
    ------
    GeometryError
        They differ in number, size or unit.
    """

    noisy: tuple[ImageSeries, ...]
    clean: ImageSeries | None = None

    def __post_init__(self) -> None:
        require_alike((*self.noisy, *([] if self.clean is None else [self.clean])))


def is_pairs(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds pairs: something called ``noisy`` that images can be read from.

    Examples
    --------
    >>> is_pairs("nowhere")
    False
    """
    place = Path(path)
    return place.is_dir() and any(entry.stem.startswith(_NOISY) and image_format(entry) for entry in place.iterdir())


def read_pairs(path: str | os.PathLike[str]) -> ImagePairs:
    """Read a folder of pairs.

    Parameters
    ----------
    path
        Folder with ``noisy``, further measurements ``noisy2``, ``noisy3`` and so on, and ``clean``; each is a file
        (``noisy.npy``) or the folder of a series.  None but the first need be there.

    Raises
    ------
    FormatError
        There is no such folder, or no images in it.
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
    place = Path(path)
    entries = sorted(place.iterdir()) if place.is_dir() else []
    noisy = [entry for entry in entries if entry.stem.startswith(_NOISY)]
    clean = [entry for entry in entries if entry.stem == _CLEAN]
    if not noisy or len(clean) > 1:
        found = ", ".join(entry.name for entry in entries[:6]) or "nothing"
        raise FormatError(
            f"the pairs {place} must be a folder with 'noisy', perhaps 'noisy2' and more, and at most one 'clean', "
            f"each a file or the folder of a series, got {found}"
        )
    return ImagePairs(tuple(map(read_images, noisy)), read_images(clean[0]) if clean else None)
