"""MetaImage: a short text header with the type and place of the numbers, as used by ITK and VTK."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError

__all__ = ["Header", "is_metaimage", "read_header"]

_TYPES = {"CHAR": "i1", "UCHAR": "u1", "SHORT": "i2", "USHORT": "u2", "INT": "i4", "UINT": "u4"}
_TYPES |= {"FLOAT": "f4", "DOUBLE": "f8"}
_NAMES = {kind: f"MET_{name}" for name, kind in _TYPES.items()}


@dataclass(frozen=True, eq=False)
class Header:
    """Content of a header.

    Parameters
    ----------
    data
        File with the numbers.
    offset
        Offset of the first number in bytes.
    shape
        Shape, slowest axis first.
    dtype
        Type of a number, including byte order.
    spacing
        Distances along the axes in mm, slowest first.
    comment
        Free text.

    Examples
    --------
    >>> head = Header(Path("v.raw"), 0, (2, 3, 4), np.dtype("<u2"), (0.2, 0.1, 0.1), "")
    >>> head.text().splitlines()[-3:]
    ['ElementSpacing = 0.1 0.1 0.2', 'ElementType = MET_USHORT', 'ElementDataFile = v.raw']
    """

    data: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    spacing: tuple[float, ...]
    comment: str

    def text(self) -> str:
        """Return the text of the header, for a file of numbers with offset 0."""
        lines = {
            "ObjectType": "Image",
            "NDims": str(len(self.shape)),
            "Comment": self.comment,
            "BinaryData": "True",
            "BinaryDataByteOrderMSB": "False",
            "CompressedData": "False",
            "DimSize": " ".join(map(str, self.shape[::-1])),
            "ElementSpacing": " ".join(f"{step:.9g}" for step in self.spacing[::-1]),
            "ElementType": _NAMES[self.dtype.newbyteorder("=").str[1:]],
            "ElementDataFile": self.data.name,
        }
        return "".join(f"{name} = {value}\n" for name, value in lines.items() if value)


def is_metaimage(path: Path) -> bool:
    """Return whether a file has the name and the beginning of a MetaImage."""
    if path.suffix.lower() not in (".mhd", ".mha") or not path.is_file():
        return False
    with path.open("rb") as stream:
        return b"NDims" in stream.read(4096)


def read_header(path: Path) -> Header:
    """Read the header of a MetaImage.

    Raises
    ------
    FormatError
        An entry is missing, or the numbers are compressed, have several channels, or are spread over many files.
    """
    told, begin = {}, 0
    with path.open("rb") as stream:
        for line in iter(stream.readline, b""):
            name, _, value = line.decode("latin-1").partition("=")
            told[name.strip().lower()] = value.strip()
            if name.strip().lower() == "elementdatafile":
                begin = stream.tell()
                break

    def needed(name: str) -> str:
        if name.lower() not in told:
            raise FormatError(f"{path} must state {name}, got none; write it there")
        return told[name.lower()]

    place, kind = needed("ElementDataFile"), needed("ElementType").upper().removeprefix("MET_")
    channels = told.get("elementnumberofchannels", "1")
    if told.get("compresseddata", "False").lower() == "true" or kind not in _TYPES or channels != "1" or " " in place:
        raise FormatError(
            f"{path} must be of plain numbers in one file, got {kind}, {channels} channels, compressed "
            f"{told.get('compresseddata', 'False')}, in {place}; write it again"
        )
    big = told.get("binarydatabyteordermsb", told.get("elementbyteordermsb", "False")).lower() == "true"
    try:
        shape = tuple(int(size) for size in needed("DimSize").split())[::-1]
        spacing = tuple(float(step) for step in told.get("elementspacing", "1 " * len(shape)).split())[::-1]
        skipped = int(told.get("headersize", "0"))
    except ValueError as error:
        raise FormatError(f"{path} must state sizes as numbers, got: {error}; correct it") from error
    local = place.upper() == "LOCAL"
    data, dtype = path if local else path.parent / place, np.dtype(_TYPES[kind]).newbyteorder(">" if big else "<")
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if not data.is_file() or (not local and skipped >= 0 and data.stat().st_size < skipped + size):
        got = f"{data.stat().st_size}" if data.is_file() else "no"
        raise FormatError(f"{data} must hold {size} bytes, as {path.name} says, got {got}; copy it again")
    offset = data.stat().st_size - size if skipped < 0 else skipped
    return Header(data, begin if local else offset, shape, dtype, spacing, told.get("comment", ""))
