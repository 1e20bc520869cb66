"""One door for every series of images: the content of the path decides who reads it."""

from __future__ import annotations

import os
from pathlib import Path

from quietray.errors import FormatError, require_path
from quietray.images import ImageSeries
from quietray.io.pictures import picture_kind, read_pictures, visible_files

__all__ = ["image_format", "read_images"]


def image_format(path: str | os.PathLike[str]) -> str | None:
    """Return ``dicom``, ``png``, ``tiff`` or ``npy`` for images in a file or folder; None for anything else.

    Examples
    --------
    >>> image_format("nowhere") is None
    True
    """
    from quietray.io.dicom import dicom_files

    place = Path(path)
    if not place.exists():
        return None
    if dicom_files(place):
        return "dicom"
    return next((kind for one in visible_files(place)[:8] if (kind := picture_kind(one)) is not None), None)


def read_images(path: str | os.PathLike[str]) -> ImageSeries:
    """Read a series of images: DICOM, PNG, TIFF or NPY, one file or a folder of them.

    Parameters
    ----------
    path
        File or folder.

    Returns
    -------
    ImageSeries
        In HU or in the file's own unit; CT slices are sorted by position.

    Raises
    ------
    FormatError
        There is nothing at `path`, or nothing that can be read as one series of X-ray images.

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
    from quietray.io.dicom import read_dicom

    place = Path(path)
    require_path("images", place)
    kind = image_format(place)
    if kind == "dicom":
        return read_dicom(place)
    if kind is None:
        inside = sorted(entry.name for entry in place.iterdir())[:4] if place.is_dir() else ["a file of another kind"]
        raise FormatError(
            f"{place} must hold DICOM, PNG, TIFF or NPY images, got {', '.join(inside) or 'an empty folder'}; "
            "give a file, or the folder of one series"
        )
    return read_pictures(place)
