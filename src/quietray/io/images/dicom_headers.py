"""Headers of DICOM images: kind of image, position, pixel size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError

__all__ = [
    "check_kind",
    "check_one_series",
    "group",
    "number_in",
    "orientation_of",
    "position_of",
    "read_headers",
    "spacing_of",
    "unit_of",
    "window_of",
]

_SINGLE = (
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "NumberOfFrames",
    "InstanceNumber",
)
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


def read_headers(files: Sequence[Path]) -> tuple[dict[Path, Any], list[str]]:
    """Return the headers of all images, and notes on files that were left out."""
    import pydicom

    headers, others = {}, []
    for file in files:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            known = "SOPClassUID" in header or "Modality" in header
        except Exception as error:  # pydicom raises many types of exceptions
            raise FormatError(
                f"{file} must be a DICOM file, got: {type(error).__name__}: {error}; copy it again"
            ) from error
        if not known:
            raise FormatError(f"{file} must be a DICOM file, got one without an image type; copy it again")
        if "Rows" in header and "BitsAllocated" in header:
            headers[file] = header
        else:
            others.append(f"{file.name} ({header.get('Modality', 'no modality')})")
    if not headers:
        raise FormatError(f"{files[0].parent} must hold DICOM images, got only {', '.join(others[:3])}; give images")
    if others:
        return headers, [f"Files without an image were left out: {', '.join(others[:3])}{', ...' * (len(others) > 3)}."]
    return headers, []


def check_one_series(headers: dict[Path, Any], path: Path) -> None:
    """Raise unless all files belong to one series."""
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


def check_kind(file: Path, header: Any) -> None:
    """Raise unless the pixels are grey values of an X-ray image."""
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
            f"{file} must show only what was measured, got text burned into its pixels (BurnedInAnnotation YES), which "
            "may name the patient and would be learned; export the series without them"
        )
    for name in _SINGLE:
        number_in(header, name)
    if header.BitsAllocated not in (8, 16, 32) or header.get("HighBit", header.BitsStored - 1) != header.BitsStored - 1:
        raise FormatError(
            f"{file} must have pixels of 8, 16 or 32 bits that use the lowest bits, got {header.BitsStored} of "
            f"{header.BitsAllocated} bits with high bit {header.get('HighBit', '?')}; convert it"
        )


def group(header: Any, frame: int, name: str) -> Any:
    """Return the macro of a frame in an enhanced multi-frame image: its own or the shared one; else the header."""
    for groups, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = header.get(groups) or ()
        if len(items) > index and name in items[index] and len(items[index][name].value):
            return items[index][name][0]
    return header


def number_in(header: Any, name: str, usual: float | None = None) -> float | None:
    """Return the number that a header states; `usual` if it states none.

    Raises
    ------
    FormatError
        It is not a single number, as in a damaged header.

    Examples
    --------
    >>> number_in({"RescaleSlope": 2}, "RescaleSlope"), number_in({}, "RescaleSlope", 1.0)
    (2.0, 1.0)
    >>> number_in({"RescaleSlope": [1, 2]}, "RescaleSlope")
    Traceback (most recent call last):
    quietray.errors.FormatError: RescaleSlope in a DICOM header must be a number, got [1, 2]; correct the header
    """
    value = header.get(name)
    return usual if value is None or value == "" else _number(header, name, value)


def _numbers(header: Any, name: str, count: int) -> tuple[float, ...] | None:
    """Return so many numbers that a header states, or None."""
    value = header.get(name)
    if value is None or isinstance(value, str) or not hasattr(value, "__len__") or len(value) != count:
        return None
    return tuple(_number(header, name, one) for one in value)


def _number(header: Any, name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        place = getattr(header, "filename", None) or "a DICOM header"
        raise FormatError(f"{name} in {place} must be a number, got {str(value)[:60]}; correct the header") from None


def position_of(header: Any, frame: int) -> float | None:
    """Return the position of an image along its normal in mm."""
    place = _numbers(group(header, frame, "PlanePositionSequence"), "ImagePositionPatient", 3)
    direction = orientation_of(header, frame)
    if place is None or direction is None:
        return None
    return float(np.dot(np.cross(direction[:3], direction[3:]), place))


def orientation_of(header: Any, frame: int) -> tuple[float, ...] | None:
    """Return the directions of rows and columns of an image, three numbers each, or None."""
    return _numbers(group(header, frame, "PlaneOrientationSequence"), "ImageOrientationPatient", 6)


def spacing_of(header: Any, frame: int = 0) -> tuple[float, float] | None:
    """Return the edges of a pixel in mm, along rows and along columns, or None."""
    macro = group(header, frame, "PixelMeasuresSequence")
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        found = _numbers(macro, name, 2)
        if found is not None and min(found) > 0:
            return found[0], found[1]
    return None


def window_of(header: Any) -> tuple[float, float] | None:
    """Return the grey values displayed as black and white, or None."""
    macro = group(header, 0, "FrameVOILUTSequence")
    names = ("WindowCenter", "WindowWidth")
    told = [np.ravel(value) for name in names if (value := macro.get(name)) is not None]
    if len(told) < 2 or not all(len(values) for values in told):
        return None
    centre, width = (_number(macro, name, values[0]) for name, values in zip(names, told, strict=True))
    return (centre - width / 2, centre + width / 2) if width > 0 else None


def unit_of(header: Any, projections: bool) -> str:
    """Return the unit of the rescaled values."""
    if projections:
        return "line integral"
    kind = str(group(header, 0, "PixelValueTransformationSequence").get("RescaleType", "") or "")
    if header.Modality == "CT":
        return "HU" if kind in ("", "HU", "US") else kind
    return "raw"
