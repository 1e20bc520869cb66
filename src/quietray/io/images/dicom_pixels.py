"""Pixels of DICOM images as stored, and whole files."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError
from quietray.types import Slice

__all__ = ["StoredImage", "decoded", "padding_of", "quiet_pydicom", "whole_file"]


@dataclass(frozen=True)
class StoredImage:
    """Where one image of a series is stored, and how its numbers are scaled.

    Parameters
    ----------
    path
        Path of the file.
    frame
        Number of the frame in the file.
    slope, intercept
        Values are ``slope * stored + intercept``.

    Examples
    --------
    >>> image = StoredImage(Path("slice.dcm"), 0, 2.0, -1024.0)
    >>> image.rescaled(np.array([[512]], np.int16)).item(), image.stored(np.array([[1.2]], np.float32)).item()
    (0.0, 513.0)
    """

    path: Path
    frame: int
    slope: float
    intercept: float

    def rescaled(self, stored: np.ndarray) -> Slice:
        """Return the values of stored numbers."""
        return np.asarray(stored * np.float64(self.slope) + self.intercept, np.float32)

    def stored(self, values: Slice) -> np.ndarray:
        """Return the integers nearest to values."""
        return np.asarray(np.rint((values.astype(np.float64) - self.intercept) / self.slope))


def decoded(path: Path) -> np.ndarray:
    """Return the stored numbers ``(frame, row, col)`` of a DICOM file.

    Raises
    ------
    FormatError
        They cannot be decoded.
    """
    dataset = whole_file(path)
    try:
        found = np.asarray(dataset.pixel_array)
    except Exception as error:  # pydicom and its plug-ins raise many types of exceptions
        name = getattr(dataset.file_meta.get("TransferSyntaxUID"), "name", "unknown")
        reason = " ".join(str(error).split())[:200]
        raise FormatError(
            f"{path} must have pixel data that can be decoded ({name}), got: {type(error).__name__}: {reason}; "
            "copy it again, or export it uncompressed"
        ) from error
    return found.reshape(-1, dataset.Rows, dataset.Columns)


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's warnings about headers, as errors are reported by quietray."""
    from quietray.io.images.dicom_codecs import register

    register()
    logger = logging.getLogger("pydicom")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def padding_of(stored: np.ndarray, header: Any) -> np.ndarray:
    """Return the mask of stored numbers that mark padding."""
    value, limit = (header.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None:
        return np.zeros(stored.shape, bool)
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return np.asarray((stored >= low) & (stored <= high))


def whole_file(path: Path) -> Any:
    """Return a whole file, with the transfer syntax that was used for reading if the file names none."""
    import pydicom
    from pydicom.dataset import FileMetaDataset

    dataset = pydicom.dcmread(path, force=True)
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        plain = pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian if implicit else plain
    return dataset
