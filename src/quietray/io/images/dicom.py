"""DICOM series of X-ray images: CT slices, radiographs, and projections of a CT scan.

When a series is written back, only the pixels and the entries that depend on them change.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError
from quietray.images import ImageSeries
from quietray.io.damage import damage_told
from quietray.io.disk import generator_name
from quietray.io.images.base import ImageFormat
from quietray.io.images.ct_pd import is_projection, projection_facts
from quietray.io.images.dicom_headers import (
    check_kind,
    check_one_series,
    group,
    number_in,
    orientation_of,
    position_of,
    read_headers,
    spacing_of,
    unit_of,
    window_of,
)
from quietray.io.images.dicom_pixels import StoredImage, decoded, padding_of, quiet_pydicom, whole_file
from quietray.io.paths import visible_files
from quietray.types import Slice, Volume

__all__ = ["Dicom", "DicomFiles"]

_SUFFIXES = (".dcm", ".ima", ".dicom")
_PARALLEL = 1e-3  # in the direction cosines
_GAP = 1.5  # distance, in typical distances of slices, beyond which a slice is missing
_SAME = 0.01  # relative to the typical distance
_LONGEST = 64  # longest series description
_VOID = ("DigitalSignaturesSequence", "MACParametersSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")


_DEPTH = 4  # depth of nested folders, such as PATIENT/STUDY/SERIES
_FOLDERS = 1000  # largest number of folders


class Dicom(ImageFormat):
    """A folder with one series, or a file, which may contain many frames.

    Values are rescaled to HU or to their own unit.  Slices are sorted by position along the normal, other images by
    number.
    """

    def recognises(self, path: Path) -> bool:
        """Return whether a file is DICOM, by its magic number or, for old files without one, by its name."""
        try:
            with path.open("rb") as stream:
                start = stream.read(132)
        except OSError:
            return False
        if path.name.upper() == "DICOMDIR":  # a DICOMDIR only lists files
            return False
        return start[128:] == b"DICM" or (path.suffix.lower() in _SUFFIXES and len(start) > 8)

    def holds(self, path: Path) -> bool:
        """Return whether any file is DICOM."""
        return bool(self._files(path))

    def read(self, path: Path) -> ImageSeries:
        """Read the series.

        Raises
        ------
        FormatError
            The files belong to several series, are of another modality, in colour, damaged, of several sizes or
            directions, have text burned in, or slices are missing.
        """
        files = self._files(path)
        if not files:
            raise FormatError(f"{path} must hold DICOM images, got none; give the folder of one series")
        folders = sorted({file.parent for file in files})
        if len(folders) > 1:
            some = ", ".join(str(folder.relative_to(path)) for folder in folders[:6])
            raise FormatError(
                f"the folder {path} must hold one series, got {len(folders)} folders of DICOM images: {some}"
                f"{', ...' if len(folders) > 6 else ''}; give one of them"
            )
        with quiet_pydicom():
            headers, notes = read_headers(files)
            check_one_series(headers, path)
            for file, header in headers.items():
                check_kind(file, header)
            found = [image for file, header in headers.items() for image in _images(file, header)]
            _check_alike(found, headers)
            found, step, said = _sorted(found, headers)
            first = headers[found[0].path]
            images, padding = _pixels(found, headers)
        projections = {}
        if is_projection(first):
            projections = projection_facts([headers[image.path] for image in found])
        modality = str(first.Modality)
        return ImageSeries(
            images,
            DicomFiles(tuple(found)),
            str(path),
            unit=unit_of(first, bool(projections)),
            modality=modality,
            spacing=spacing_of(first),
            step=step,
            window=window_of(first),
            padding=padding if padding.any() else None,
            projections=projections,
            provenance=_provenance(first, found),
            notes=(*notes, *said),
        )

    def _files(self, path: Path) -> list[Path]:
        """Return the DICOM files: the file itself, those of a folder, or of its subfolders, such as STUDY/SERIES."""
        found = [one for one in visible_files(path) if self.recognises(one)]
        if found or not path.is_dir():
            return found
        level = [path]
        for _ in range(_DEPTH):
            inner = (one for folder in level if os.access(folder, os.R_OK) for one in sorted(folder.iterdir()))
            level = [one for one in inner if one.is_dir() and not one.name.startswith(".")][:_FOLDERS]
            found = [one for folder in level for one in visible_files(folder) if self.recognises(one)]
            if found:
                break
        return found


@dataclass(frozen=True)
class DicomFiles:
    """The files of a DICOM series.

    Parameters
    ----------
    images
        Images in the order of the series.
    """

    images: tuple[StoredImage, ...]

    @property
    def format(self) -> str:
        """Name of the format."""
        return "DICOM"

    def write(self, folder: Path, images: Volume, made_by: str) -> None:
        """Write the series with other pixels, as a new series.

        The identifiers of series and instances are derived from the pixels, so the same run writes the same bytes.
        Unchanged pixels, including padding, keep their stored number; others are rounded to the nearest number that the
        bits allow.  Compressed files are written uncompressed.

        Parameters
        ----------
        folder
            An empty folder.
        images
            Images ``(image, row, col)`` in the unit in which they were read.
        made_by
            Program that made them, for the description of the series.

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
                with damage_told(path):  # its header may hold what can be read but not written
                    self._write_one(path, indices, folder / path.name, images, made_by, digest)

    def _write_one(self, path: Path, indices: list[int], new: Path, images: Volume, made_by: str, digest: str) -> None:
        stored = decoded(path)
        dataset = whole_file(path)
        for index in indices:
            frame = self.images[index].frame
            stored[frame] = self._merged(index, stored[frame], images[index], dataset)
        _put(dataset, stored)
        _rename(dataset, made_by, digest)
        dataset.save_as(new, enforce_file_format=True)

    def _merged(self, index: int, stored: np.ndarray, values: Slice, dataset: Any) -> np.ndarray:
        """Return the numbers to store: the old ones for unchanged pixels and padding."""
        bits, signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        image = self.images[index]
        kept = (image.rescaled(stored) == values) | padding_of(stored, dataset)
        return np.where(kept, stored, np.clip(image.stored(values), low, high).astype(stored.dtype))


def _images(file: Path, header: Any) -> list[StoredImage]:
    """Return the images in a file, with their position and scale."""
    count = int(number_in(header, "NumberOfFrames") or 1)
    found = []
    for frame in range(count):
        scale = group(header, frame, "PixelValueTransformationSequence")
        slope, intercept = number_in(scale, "RescaleSlope", 1.0), number_in(scale, "RescaleIntercept", 0.0)
        if not slope or intercept is None:
            raise FormatError(f"{file} must have a rescale slope that is not zero, got {slope}; correct the header")
        found.append(StoredImage(file, frame, slope, intercept))
    return found


def _check_alike(found: Sequence[StoredImage], headers: dict[Path, Any]) -> None:
    """Raise unless all images have the same size, pixel size and direction."""
    for name, of in (
        ("size", lambda image: (headers[image.path].Rows, headers[image.path].Columns)),
        ("pixel spacing", lambda image: spacing_of(headers[image.path], image.frame)),
        ("direction", lambda image: _rounded(orientation_of(headers[image.path], image.frame))),
    ):
        kinds = Counter(of(image) for image in found)
        if len(kinds) > 1:
            (usual, _), (other, count) = kinds.most_common(2)
            example = next(image for image in found if of(image) == other)
            raise FormatError(
                f"all images of a series must have one {name}, got {other} in {count} such as {example.path.name}, and "
                f"{usual} in the others; copy those of one kind, without localizers, to a folder of their own"
            )


def _sorted(
    found: list[StoredImage], headers: dict[Path, Any]
) -> tuple[list[StoredImage], float | None, tuple[str, ...]]:
    """Return the images in order, the distance between them, and notes."""
    places = [position_of(headers[image.path], image.frame) for image in found]
    numbered = [
        (number_in(headers[image.path], "InstanceNumber") or 0.0, image.path.name, image.frame) for image in found
    ]
    first = headers[found[0].path]
    if None in places or first.Modality != "CT" or is_projection(first):
        order = sorted(range(len(found)), key=numbered.__getitem__)
        sliced = first.Modality == "CT" and not is_projection(first) and len(found) > 1
        said = ("The slices have no positions: they were sorted by number, and missing ones would go unnoticed.",)
        return [found[index] for index in order], None, said if sliced else ()
    known = [float(place) for place in places if place is not None]
    order = sorted(range(len(found)), key=known.__getitem__)
    ordered, at = [found[index] for index in order], np.array([known[index] for index in order])
    if len(at) == 1:
        return ordered, None, ()
    steps = np.diff(at)
    typical = float(np.sort(steps)[(len(steps) - 1) // 2])  # the lower median, because one of two steps may be a gap
    for index, step in enumerate(steps):
        one, other = (f"{image.path.name}" for image in ordered[index : index + 2])
        if step <= _SAME * max(typical, 1e-6):
            raise FormatError(
                f"a series must have one slice at each position, got two at {at[index]:g} mm ({one} and {other}); "
                "copy each phase or repetition to a folder of its own"
            )
        if step > _GAP * typical:
            missing = max(1, round(step / typical) - 1)
            raise FormatError(
                f"the slices must lie {typical:g} mm apart, got a gap of {step:g} mm between {one} and {other}, where "
                f"{missing} {'is' if missing == 1 else 'are'} missing; copy the whole series, or a part without gaps"
            )
    return ordered, typical, ()


def _rounded(direction: tuple[float, ...] | None) -> tuple[float, ...] | None:
    return None if direction is None else tuple(round(value / _PARALLEL) * _PARALLEL + 0.0 for value in direction)


def _pixels(found: Sequence[StoredImage], headers: dict[Path, Any]) -> tuple[Volume, np.ndarray]:
    """Return the rescaled images, and the mask of padding, which is set to the lowest measured value."""
    header = headers[found[0].path]
    images = np.empty((len(found), header.Rows, header.Columns), np.float32)
    padding = np.zeros(images.shape, bool)
    where: dict[Path, list[int]] = {}
    for index, image in enumerate(found):
        where.setdefault(image.path, []).append(index)
    for path, indices in where.items():
        stored = decoded(path)
        for index in indices:
            values = stored[found[index].frame]
            images[index] = found[index].rescaled(values)
            padding[index] = padding_of(values, headers[path])
    if padding.any() and not padding.all():
        images[padding] = images[~padding].min()
    return images, padding


def _provenance(header: Any, found: Sequence[StoredImage]) -> dict[str, Any]:
    """Return how the images were measured, for the report, without any patient data."""
    names = ("Modality", "Manufacturer", "ManufacturerModelName", "KVP", "ConvolutionKernel", "SliceThickness")
    told = {name: str(header[name].value) for name in names if name in header and header[name].value is not None}
    return {"format": "DICOM", "files": len({image.path for image in found}), "images": len(found), **told}


def _put(dataset: Any, stored: np.ndarray) -> None:
    """Set the pixels of a dataset, uncompressed, and the entries that depend on them."""
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
    """Make a dataset part of a new, derived series."""
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
