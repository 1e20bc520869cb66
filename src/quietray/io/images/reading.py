"""Reading of image series: the content of the path decides which registered format is used."""

from __future__ import annotations

import os
from pathlib import Path

from quietray.errors import FormatError, require_path
from quietray.images import ImageSeries
from quietray.io.damage import damage_told
from quietray.io.images.base import ImageFormat

__all__ = ["image_format", "read_images"]


def image_format(path: str | os.PathLike[str]) -> str | None:
    """Return ``dicom``, ``png``, ``tiff``, ``npy`` or another registered name for images in a path, or None.

    Examples
    --------
    >>> image_format("nowhere") is None
    True
    """
    place = Path(path)
    if not place.exists():
        return None
    with damage_told(place):
        return next((name for name, kind in ImageFormat.registry.items() if kind().holds(place)), None)


def read_images(path: str | os.PathLike[str]) -> ImageSeries:
    """Read a series of images: DICOM, PNG, TIFF, NPY or another registered format.

    Parameters
    ----------
    path
        File or folder.

    Returns
    -------
    ImageSeries
        Images in HU or in the unit of the file; CT slices are sorted by position.

    Raises
    ------
    FormatError
        The path does not exist, or cannot be read as one series of X-ray images.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> path = Path(tempfile.mkdtemp())
    >>> for name in ("image_2", "image_10"):
    ...     np.save(path / f"{name}.npy", np.full((4, 5), int(name[6:])))
    >>> read_images(path).images[:, 0, 0].tolist()
    [2.0, 10.0]
    """
    place = Path(path)
    require_path("images", place)
    kind = image_format(place)
    if kind is None:
        inside = sorted(entry.name for entry in place.iterdir())[:4] if place.is_dir() else ["a file of another kind"]
        raise FormatError(
            f"{place} must hold DICOM, PNG, TIFF or NPY images, got {', '.join(inside) or 'an empty folder'}; "
            "give a file, or the folder of one series"
        )
    with damage_told(place):
        series: ImageSeries = ImageFormat.registry.made(kind).read(place)
        return series
