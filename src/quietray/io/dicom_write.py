"""DICOM images as they are stored, and written back with nothing changed but the pixels and what follows from them."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError
from quietray.io.dicom_codecs import register
from quietray.io.disk import generator_name
from quietray.types import Slice, Volume

__all__ = ["DicomFiles", "StoredImage", "decoded", "padding_of", "quiet_pydicom"]

_LONGEST = 64  # characters of a series description
_VOID = ("DigitalSignaturesSequence", "MACParametersSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")


@dataclass(frozen=True)
class StoredImage:
    """One image of a series: where it is stored, and how its numbers become values.

    Parameters
    ----------
    path
        Of the file.
    frame
        Within it.
    slope, intercept
        A value is ``slope * stored + intercept``.

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
        """Return the whole numbers nearest to values."""
        return np.asarray(np.rint((values.astype(np.float64) - self.intercept) / self.slope))


def decoded(path: Path) -> np.ndarray:
    """Return the stored numbers ``(frame, row, col)`` of a DICOM file.

    Raises
    ------
    FormatError
        They cannot be decoded.
    """
    dataset = _dataset(path)
    try:
        found = np.asarray(dataset.pixel_array)
    except Exception as error:  # pydicom and its plug-ins raise many kinds
        name = getattr(dataset.file_meta.get("TransferSyntaxUID"), "name", "unknown")
        reason = " ".join(str(error).split())[:200]
        raise FormatError(
            f"{path} must have pixel data that can be decoded ({name}), got: {type(error).__name__}: {reason}; "
            "copy it again, or export it uncompressed"
        ) from error
    return found.reshape(-1, dataset.Rows, dataset.Columns)


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom's remarks on headers to itself: what matters is an error of ours."""
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
    """Return where stored numbers say that nothing was measured."""
    value, limit = (header.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None:
        return np.zeros(stored.shape, bool)
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return np.asarray((stored >= low) & (stored <= high))


def _dataset(path: Path) -> Any:
    """Return the whole of a file, with the transfer syntax that it was read by where it names none."""
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


@dataclass(frozen=True)
class DicomFiles:
    """The files of a DICOM series.

    Parameters
    ----------
    images
        In the order of the series.
    """

    images: tuple[StoredImage, ...]

    @property
    def format(self) -> str:
        """Name of the format."""
        return "DICOM"

    def write(self, folder: Path, images: Volume, made_by: str) -> None:
        """Write the series with other pixels, as a series of its own.

        Series and instances get identifiers that follow from the pixels, so that the same run writes the same bytes.
        Pixels that are what was read keep their stored number, padding as well; others are rounded to the nearest one
        that the bits allow.  Compressed files are written uncompressed.

        Parameters
        ----------
        folder
            Empty.
        images
            ``(image, row, col)`` in the unit that they were read in.
        made_by
            What made them, for the description of the series.

        Raises
        ------
        FormatError
            A file has changed since it was read.
        """
        digest = hashlib.sha256(images.tobytes()).hexdigest()
        where: dict[Path, list[int]] = {}
        for index, image in enumerate(self.images):
            where.setdefault(image.path, []).append(index)
        with quiet_pydicom():
            for path, indices in where.items():
                stored = decoded(path)
                dataset = _dataset(path)
                for index in indices:
                    frame = self.images[index].frame
                    stored[frame] = self._merged(index, stored[frame], images[index], dataset)
                _put(dataset, stored)
                _rename(dataset, made_by, digest)
                dataset.save_as(folder / path.name, enforce_file_format=True)

    def _merged(self, index: int, stored: np.ndarray, values: Slice, dataset: Any) -> np.ndarray:
        """Return the numbers to store: the old ones where nothing was changed, and in the padding."""
        bits, signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        image = self.images[index]
        kept = (image.rescaled(stored) == values) | padding_of(stored, dataset)
        return np.where(kept, stored, np.clip(image.stored(values), low, high).astype(stored.dtype))


def _put(dataset: Any, stored: np.ndarray) -> None:
    """Put pixels into a dataset, uncompressed, and what follows from them."""
    import pydicom

    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not syntax.is_deflated:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    little = dataset.file_meta.TransferSyntaxUID.is_little_endian
    content = stored.astype(stored.dtype.newbyteorder("<" if little else ">")).tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 else "OW"
    dataset["PixelData"].is_undefined_length = False
    for name, value in (("SmallestImagePixelValue", stored.min()), ("LargestImagePixelValue", stored.max())):
        if name in dataset:
            setattr(dataset, name, int(value))


def _rename(dataset: Any, made_by: str, digest: str) -> None:
    """Make a dataset one of a new, derived series."""
    from pydicom.uid import generate_uid

    series = str(dataset.get("SeriesInstanceUID", ""))
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[series, made_by, digest])
    instance = str(dataset.get("SOPInstanceUID", ""))
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[instance, made_by, digest])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    before = str(dataset.get("SeriesDescription", "") or "")
    room = _LONGEST - len(made_by) - 1
    dataset.SeriesDescription = f"{before[:room]} {made_by}".strip()[:_LONGEST]
    dataset.DerivationDescription = f"{made_by} by {generator_name()}"
    kind = dataset.get("ImageType")
    dataset.ImageType = ["DERIVED", *(list(kind)[1:] if kind and not isinstance(kind, str) else ["PRIMARY"])]
    for name in _VOID:
        if name in dataset:
            del dataset[name]
