"""DICOM series of X-ray images: CT slices, radiographs, and the projections of a CT scan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError
from quietray.images import ImageSeries
from quietray.io.ct_pd import is_projection, projection_facts
from quietray.io.dicom_write import DicomFiles, StoredImage, decoded, padding_of, quiet_pydicom
from quietray.io.pictures import visible_files
from quietray.types import Volume

__all__ = ["dicom_files", "is_dicom", "read_dicom"]

_XRAY = {
    "CT": "CT slices",
    "CR": "computed radiographs",
    "DX": "digital radiographs",
    "MG": "mammograms",
    "PX": "panoramic radiographs",
    "IO": "intra-oral radiographs",
    "RF": "fluoroscopy",
    "XA": "angiography",
}
_SUFFIXES = (".dcm", ".ima", ".dicom")
_PARALLEL = 1e-3  # of the direction cosines
_GAP = 1.5  # typical distances of slices, beyond which one is missing
_SAME = 0.01  # of the typical distance


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM: by its magic, or by its name where it has none, as in old files."""
    try:
        with path.open("rb") as stream:
            start = stream.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or (path.suffix.lower() in _SUFFIXES and len(start) > 8)


def dicom_files(path: Path) -> list[Path]:
    """Return the DICOM files: the file itself, or those of a folder, without its directory."""
    return [one for one in visible_files(path) if one.name.upper() != "DICOMDIR" and is_dicom(one)]


def read_dicom(path: Path) -> ImageSeries:
    """Read a DICOM series of X-ray images, a folder or one file, rescaled to HU or to its own unit.

    Slices are sorted by their position along the normal, other images by their number.

    Parameters
    ----------
    path
        Folder of one series, or a file, which may hold many frames.

    Raises
    ------
    FormatError
        The files are of several series, of another modality, in colour, with texts burned in, of several sizes or
        directions, damaged, or slices are missing.
    """
    files = dicom_files(path)
    if not files:
        raise FormatError(f"{path} must hold DICOM images, got none; give the folder of one series")
    with quiet_pydicom():
        headers, notes = _headers(files)
        _check_one_series(headers, path)
        for file, header in headers.items():
            _check_kind(file, header)
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
        unit=_unit(first, bool(projections)),
        modality=modality,
        spacing=_spacing(first),
        step=step,
        window=_window(first),
        padding=padding if padding.any() else None,
        projections=projections,
        provenance=_provenance(first, found),
        notes=(*notes, *said),
    )


def _headers(files: Sequence[Path]) -> tuple[dict[Path, Any], list[str]]:
    """Return the headers of all images, and what was left out."""
    import pydicom

    headers, others = {}, []
    for file in files:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            known = "SOPClassUID" in header or "Modality" in header
        except Exception as error:  # pydicom raises many kinds
            raise FormatError(
                f"{file} must be a DICOM file, got: {type(error).__name__}: {error}; copy it again"
            ) from error
        if not known:
            raise FormatError(f"{file} must be a DICOM file, got one that names no kind of image; copy it again")
        if "Rows" in header and "BitsAllocated" in header:
            headers[file] = header
        else:
            others.append(f"{file.name} ({header.get('Modality', 'no modality')})")
    if not headers:
        raise FormatError(f"{files[0].parent} must hold DICOM images, got only {', '.join(others[:3])}; give images")
    if others:
        return headers, [f"Files without an image were left out: {', '.join(others[:3])}{', ...' * (len(others) > 3)}."]
    return headers, []


def _check_one_series(headers: dict[Path, Any], path: Path) -> None:
    """Raise unless all files are of one series."""
    series = Counter(str(header.get("SeriesInstanceUID", "")) for header in headers.values())
    if len(series) == 1:
        return
    told = []
    for uid, count in series.most_common(4):
        one = next(header for header in headers.values() if str(header.get("SeriesInstanceUID", "")) == uid)
        told.append(f"{count} x {one.get('Modality', '?')} '{one.get('SeriesDescription', 'no description')}'")
    raise FormatError(
        f"the folder {path} must hold one series, got {len(series)}: {', '.join(told)}; "
        "copy each series to a folder of its own"
    )


def _check_kind(file: Path, header: Any) -> None:
    """Raise unless the pixels are the grey values of an X-ray image."""
    modality = str(header.get("Modality", "none"))
    if modality not in _XRAY:
        known = ", ".join(_XRAY)
        raise FormatError(
            f"{file} must be an X-ray image ({known}), got modality {modality}; its noise is of another kind"
        )
    photometric = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
    if header.get("SamplesPerPixel", 1) != 1 or not photometric.startswith("MONOCHROME"):
        raise FormatError(
            f"{file} must have one grey value for each pixel, got {header.get('SamplesPerPixel')} samples "
            f"({photometric}); a colour image, such as a screen capture, is no measurement"
        )
    if str(header.get("BurnedInAnnotation", "NO")).upper() == "YES":
        raise FormatError(
            f"{file} must show nothing but what was measured, got texts burned into its pixels (BurnedInAnnotation "
            "YES), which may name the patient and would be learned from; export the series without them"
        )
    if header.BitsAllocated not in (8, 16, 32) or header.get("HighBit", header.BitsStored - 1) != header.BitsStored - 1:
        raise FormatError(
            f"{file} must have pixels of 8, 16 or 32 bits, the lowest of which are used, got {header.BitsStored} bits "
            f"of {header.BitsAllocated} below bit {header.get('HighBit', '?')}; convert it"
        )


def _images(file: Path, header: Any) -> list[StoredImage]:
    """Return the images in a file, with what places and scales each of them."""
    count = int(header.get("NumberOfFrames", 1) or 1)
    found = []
    for frame in range(count):
        scale = _group(header, frame, "PixelValueTransformationSequence")
        slope, intercept = (
            float(scale.get(name, usual) if scale.get(name) is not None else usual)
            for name, usual in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
        )
        if slope == 0:
            raise FormatError(f"{file} must have a rescale slope that is not zero, got {slope}; mend the header")
        found.append(StoredImage(file, frame, slope, intercept))
    return found


def _group(header: Any, frame: int, name: str) -> Any:
    """Return the macro of a frame in an enhanced multi-frame image: its own, the shared one, or else the header."""
    for groups, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = header.get(groups) or ()
        if len(items) > index and name in items[index] and len(items[index][name].value):
            return items[index][name][0]
    return header


def _check_alike(found: Sequence[StoredImage], headers: dict[Path, Any]) -> None:
    """Raise unless all images have one size, pixel and direction."""
    for name, of in (
        ("size", lambda image: (headers[image.path].Rows, headers[image.path].Columns)),
        ("pixel spacing", lambda image: _spacing(headers[image.path], image.frame)),
        ("direction", lambda image: _rounded(_orientation(headers[image.path], image.frame))),
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
    """Return the images in their order, the distance between them, and what is to be said about it."""
    places = [_position(headers[image.path], image.frame) for image in found]
    numbered = [
        (float(headers[image.path].get("InstanceNumber") or 0), image.path.name, image.frame) for image in found
    ]
    first = headers[found[0].path]
    if None in places or first.Modality != "CT" or is_projection(first):
        order = sorted(range(len(found)), key=numbered.__getitem__)
        sliced = first.Modality == "CT" and not is_projection(first) and len(found) > 1
        said = ("The slices do not say where they lie: they were sorted by number, missing ones would go unseen.",)
        return [found[index] for index in order], None, said if sliced else ()
    known = [float(place) for place in places if place is not None]
    order = sorted(range(len(found)), key=known.__getitem__)
    ordered, at = [found[index] for index in order], np.array([known[index] for index in order])
    if len(at) == 1:
        return ordered, None, ()
    steps = np.diff(at)
    typical = float(np.sort(steps)[(len(steps) - 1) // 2])  # the lower median: one of two steps may be a gap
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


def _position(header: Any, frame: int) -> float | None:
    """Return where an image lies along its normal, in mm."""
    place = _group(header, frame, "PlanePositionSequence").get("ImagePositionPatient")
    direction = _orientation(header, frame)
    if not place or direction is None:
        return None
    row, col = direction[:3], direction[3:]
    return float(np.dot(np.cross(row, col), [float(value) for value in place]))


def _orientation(header: Any, frame: int) -> tuple[float, ...] | None:
    found = _group(header, frame, "PlaneOrientationSequence").get("ImageOrientationPatient")
    return tuple(float(value) for value in found) if found and len(found) == 6 else None


def _rounded(direction: tuple[float, ...] | None) -> tuple[float, ...] | None:
    return None if direction is None else tuple(round(value / _PARALLEL) * _PARALLEL + 0.0 for value in direction)


def _spacing(header: Any, frame: int = 0) -> tuple[float, float] | None:
    group = _group(header, frame, "PixelMeasuresSequence")
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        found = group.get(name)
        if found and len(found) == 2 and all(float(value) > 0 for value in found):
            return float(found[0]), float(found[1])
    return None


def _window(header: Any) -> tuple[float, float] | None:
    group = _group(header, 0, "FrameVOILUTSequence")
    centre, width = (group.get(name) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None
    centre, width = (float(np.ravel(one)[0]) for one in (centre, width))
    return (centre - width / 2, centre + width / 2) if width > 0 else None


def _unit(header: Any, projections: bool) -> str:
    if projections:
        return "line integral"
    kind = str(_group(header, 0, "PixelValueTransformationSequence").get("RescaleType", "") or "")
    if header.Modality == "CT":
        return "HU" if kind in ("", "HU", "US") else kind
    return "raw"


def _pixels(found: Sequence[StoredImage], headers: dict[Path, Any]) -> tuple[Volume, np.ndarray]:
    """Return the rescaled images, and where they are padding, which gets the lowest value that was measured."""
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
    """Return what the report may tell: how it was measured, never of whom."""
    names = ("Modality", "Manufacturer", "ManufacturerModelName", "KVP", "ConvolutionKernel", "SliceThickness")
    told = {name: str(header[name].value) for name in names if name in header and header[name].value is not None}
    return {"format": "DICOM", "files": len({image.path for image in found}), "images": len(found), **told}
