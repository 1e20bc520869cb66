"""Radiographs in raw binary files, described by a MetaImage header, a JSON file of the same name, or the user."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError, GeometryError, SettingsError
from quietray.io.frames import LazyFrames, OnDisk, check_stack
from quietray.io.mapped import mapped
from quietray.io.metaimage import is_metaimage, read_header
from quietray.io.scans.angles import angle_range, read_angle_file
from quietray.io.scans.base import ScanReader, Source
from quietray.io.scans.elsewhere import angles_elsewhere, side_elsewhere
from quietray.io.scans.raw import Flags, RawScan
from quietray.types import Frames

__all__ = ["Binary", "Layout"]

_TOLD = re.compile(r"([<>]?)(u?int(?:8|16|32)|float(?:32|64)):(\d+)x(\d+)x(\d+)(?:\+(\d+))?")


@dataclass(frozen=True)
class Layout:
    """Layout of the numbers in a file.

    Parameters
    ----------
    dtype
        Type of a number, including byte order.
    shape
        Shape ``(n_views, n_rows, n_cols)``.
    offset
        Number of bytes before the first number.

    Examples
    --------
    >>> Layout.told("uint16:180x64x96+1024")
    Layout(dtype='<u2', shape=(180, 64, 96), offset=1024)
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int = 0

    @classmethod
    def told(cls, text: str) -> Layout:
        """Return the layout given by the user.

        Raises
        ------
        SettingsError
            The text cannot be understood.
        """
        match = _TOLD.fullmatch(text.replace(" ", ""))
        if match is None:
            raise SettingsError(
                f"--raw must be TYPE:VIEWSxROWSxCOLS, such as uint16:1500x2048x2048 (>uint16 for big-endian numbers, "
                f"+BYTES for a header), got '{text}'"
            )
        dtype = np.dtype(match[2]).newbyteorder(">" if match[1] == ">" else "<").str
        return cls(dtype, tuple(int(match[n]) for n in (3, 4, 5)), int(match[6] or 0))

    @classmethod
    def beside(cls, path: Path) -> Layout | None:
        """Return the layout in a ``.json`` file of the same name: dtype, shape, and optionally offset and byteorder.

        Raises
        ------
        FormatError
            The file does not contain a layout.
        """
        place = path.with_suffix(".json")
        if not place.is_file():
            return None
        try:
            facts = json.loads(place.read_text())
            big = {"little": False, "big": True}[facts.get("byteorder", "little")]
            return cls(
                np.dtype(facts["dtype"]).newbyteorder(">" if big else "<").str,
                tuple(int(size) for size in facts["shape"]),
                int(facts.get("offset", 0)),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(
                f'{place} must describe {path.name}, such as {{"dtype": "uint16", "shape": [180, 64, 96]}}, got: '
                f"{error!r}; correct it, or pass --raw"
            ) from error

    def open(self, path: Path) -> Frames:
        """Return the frames in a file.

        Raises
        ------
        FormatError
            The size of the file does not match.
        """
        size, frame = path.stat().st_size - self.offset, math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize
        if len(self.shape) != 3 or size != self.shape[0] * frame:
            raise FormatError(
                f"{path} must be {self.offset} bytes and {'x'.join(map(str, self.shape))} numbers of "
                f"{np.dtype(self.dtype).name}, got {path.stat().st_size} bytes, which are {size / frame:.6g} such "
                "frames; correct the size, the type or the header"
            )
        return OnDisk(mapped, path, self.dtype, self.offset, self.shape)

    def frames_of(self, path: Path) -> Frames:
        """Return all frames in another file of the same kind."""
        frame = math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize
        count = (path.stat().st_size - self.offset) // max(frame, 1)
        return Layout(self.dtype, (count, *self.shape[1:]), self.offset).open(path)


class Binary(ScanReader):
    """A ``.mhd`` or ``.mha`` file, or a raw binary file described by the user or by a ``.json`` file beside it."""

    files = ("MetaImage",)

    def recognises(self, source: Source, flags: Flags) -> bool:
        """Return whether the path is a MetaImage, or is described."""
        path = source.path
        if source.container is not None or not path.is_file():
            return False
        return flags.raw is not None or is_metaimage(path) or (_plain(path) and path.with_suffix(".json").is_file())

    def read(self, source: Source, flags: Flags) -> RawScan:
        """Read the scan."""
        path = data = source.path
        layout = Layout.told(flags.raw) if flags.raw is not None else None
        if layout is None and is_metaimage(path):
            header = read_header(path)
            data, layout = header.data, Layout(header.dtype.str, header.shape, header.offset)
            stored: Frames = OnDisk(mapped, data, layout.dtype, layout.offset, layout.shape)
        else:
            layout = layout or Layout.beside(path)
            assert layout is not None
            stored = layout.open(path)
        check_stack(stored, "projections", str(path))
        projections = flags.views(LazyFrames(stored, place=str(data)))
        n_views, n_rows, _ = projections.shape
        if not flags.angles:
            raise GeometryError(
                f"the scan {path} must come with one angle for each of its {n_views} views, raw numbers contain none; "
                "pass --angles 0:180 (or 0:360) for evenly spaced views, or a text file in degrees"
            )
        angles = angle_range(flags.angles, n_views)
        if angles is None:
            angles = angles_elsewhere(flags.angles, path.parent) or read_angle_file(path.parent / flags.angles)
            angles = angles.for_frames(np.arange(n_views), n_views, n_rows)
        said = () if flags.source_axis is not None else (
            "The file says nothing about the beam: it was assumed to be parallel. For a cone beam, pass --source-axis "
            "and --source-detector in mm and --pixel-size, that of the detector.",
        )  # fmt: skip
        return RawScan(
            projections,
            angles.radians(flags.angle_unit),
            flats=_side(flags.flats, "flats", path.parent, layout),
            darks=_side(flags.darks, "darks", path.parent, layout),
            provenance={
                "format": "MetaImage" if is_metaimage(path) else "raw",
                "data": str(data),
                "angles": angles.place,
            },
            notes=said,
        )


def _plain(path: Path) -> bool:
    return path.suffix.lower() in (".raw", ".bin", ".dat", ".img", ".vol")


def _side(flag: str | None, what: str, beside: Path, layout: Layout) -> Any:
    """Return flats or darks: a MetaImage, a raw binary file, or a format of other readers."""
    for place in (Path(flag or ""), beside / (flag or "")):
        if flag and is_metaimage(place):
            header = read_header(place)
            stack = OnDisk(mapped, header.data, header.dtype.str, header.offset, header.shape)
            check_stack(stack, what, str(place))
            return LazyFrames(stack, place=str(place))
        if flag and place.is_file() and _plain(place):
            return LazyFrames((Layout.beside(place) or layout).frames_of(place), place=str(place))
    return side_elsewhere(flag, what, beside)
