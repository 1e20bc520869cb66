"""Zeiss (Xradia) scanners: ``.txrm`` files, and ``.xrm`` files with single images; needs the extra ``zeiss``."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError, GeometryError, require
from quietray.io.frames import LazyFrames, OnDisk
from quietray.io.scans.angles import AngleList
from quietray.io.scans.base import ScanReader, Source
from quietray.io.scans.raw import Flags, RawScan
from quietray.io.scans.scanner import Beam, scan_of_scanner
from quietray.types import Frames

__all__ = ["Zeiss", "ZeissImages"]

_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # an OLE compound file
_TYPES: dict[int, np.dtype[Any]] = {3: np.dtype("u1"), 5: np.dtype("<u2"), 10: np.dtype("<f4")}
_PER_FOLDER = 100  # images per storage of the file
_SHIFTED = 0.05  # smallest shift of views, in pixels, that is corrected


class Zeiss(ScanReader):
    """A ``.txrm`` file: views, angles, distances, a reference image, and the shift of each view."""

    files = ("Zeiss txrm",)

    def recognises(self, source: Source, flags: Flags) -> bool:
        """Return whether the path is an OLE file with one of these endings."""
        if source.path.suffix.lower() not in (".txrm", ".xrm") or not source.path.is_file():
            return False
        with source.path.open("rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC

    def read(self, source: Source, flags: Flags) -> RawScan:
        """Read the scan."""
        path = source.path
        frames = LazyFrames(OnDisk(_images, path), place=str(path))
        with _opened(path) as ole:
            n_views, n_rows, n_cols = frames.shape
            degrees = _numbers(ole, "ImageInfo/Angles", n_views)
            if n_views < 2 or degrees is None:
                raise GeometryError(
                    f"a scan must have at least 2 views and their angles, got {n_views} in {path}; an .xrm file is one "
                    "image, such as a reference: give the .txrm file"
                )
            white, notes = _white(ole, path, (n_rows, n_cols))
            beam, said = _beam(ole, path, n_views, n_cols)
            moved = [one for one in "XYZ" if _wanders(_numbers(ole, f"ImageInfo/{one}Position", n_views), beam)]
        if moved:
            notes.append(f"The sample moved along {', '.join(moved)} during the scan, which was ignored.")
        return scan_of_scanner(
            frames,
            AngleList(degrees, "deg", str(path)),
            beam,
            flags,
            sides={"flats": white},
            provenance={"format": "Zeiss txrm", "data": str(path)},
            notes=(*said, *notes),
        )


class ZeissImages:
    """The images of a ``.txrm`` file, read one by one.

    Parameters
    ----------
    path
        Path of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._ole = _opened(path)
        count, width, height, kind = (
            _needed(self._ole, path, f"ImageInfo/{name}")
            for name in ("NoOfImages", "ImageWidth", "ImageHeight", "DataType")
        )
        if kind not in _TYPES:
            raise FormatError(f"{path} must hold images of type {sorted(_TYPES)}, got {kind}; export them as TIFF")
        self.shape, self.dtype = (count, height, width), _TYPES[kind]

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, int):
            return np.asarray(self._image(first)[tuple(rest)])
        numbers = range(*first.indices(self.shape[0]))
        images = [self._image(number)[tuple(rest)] for number in numbers]
        return np.stack(images) if images else np.empty(self.shape, self.dtype)[(slice(0, 0), *rest)]

    def _image(self, number: int) -> np.ndarray:
        name = f"ImageData{number // _PER_FOLDER + 1}/Image{number + 1}"
        with self._lock:
            content = _stream(self._ole, name)
        return _as_image(content, self.dtype, self.shape[1:], f"{self._path}:{name}")


def _images(path: Path) -> Frames:
    return ZeissImages(path)


def _opened(path: Path) -> Any:
    olefile = require("olefile", "zeiss")
    try:
        return olefile.OleFileIO(path)
    except OSError as error:
        raise FormatError(f"{path} must be a complete OLE file, got: {error}; copy it again") from error


def _stream(ole: Any, name: str) -> bytes:
    return bytes(ole.openstream(name).read()) if ole.exists(name) else b""


def _numbers(ole: Any, name: str, count: int) -> np.ndarray | None:
    """Return the first numbers of a stream; None if it is missing or too short."""
    found = _stream(ole, name)
    return np.frombuffer(found[: 4 * count], "<f4").astype(np.float64) if len(found) >= 4 * count else None


def _whole(ole: Any, name: str) -> int | None:
    found = _stream(ole, name)
    return int(np.frombuffer(found[:4], "<i4")[0]) if len(found) >= 4 else None


def _needed(ole: Any, path: Path, name: str) -> int:
    found = _whole(ole, name)
    if found is None:
        raise FormatError(f"{path} must state {name}, got none; export the scan again")
    return found


def _as_image(content: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], place: str) -> np.ndarray:
    size = int(np.prod(shape))
    if len(content) < size * dtype.itemsize:
        raise FormatError(
            f"{place} must hold an image of {shape}, got {len(content)} bytes; the scan was not finished, or the file "
            "was cut: copy it again"
        )
    return np.frombuffer(content, dtype, size).reshape(shape)


def _white(ole: Any, path: Path, shape: tuple[int, int]) -> tuple[np.ndarray | None, list[str]]:
    """Return the reference images."""
    folder = next((one for one in ("ReferenceData", "MultiReferenceData") if ole.exists(one)), None)
    if folder is None:
        return None, []
    kind = _whole(ole, f"{folder}/DataType") or _whole(ole, "ImageInfo/DataType") or 0
    names = [
        one for one in ole.listdir() if one[0] == folder and one[-1].startswith("Image") and one[-1] != "ImageInfo"
    ]
    images = [
        _as_image(_stream(ole, "/".join(name)), _TYPES[kind], shape, f"{path}:{'/'.join(name)}")
        for name in sorted(names, key=lambda name: (len(name[-1]), name))
        if kind in _TYPES and ole.get_size(name) >= shape[0] * shape[1] * _TYPES[kind].itemsize
    ]
    return (
        (np.stack(images), []) if images else (None, [f"The reference in {path} could not be read and was not used."])
    )


def _beam(ole: Any, path: Path, n_views: int, n_cols: int) -> tuple[Beam, list[str]]:
    """Return source and detector; the pixel size on the detector is that at the object times the magnification."""
    to_axis, behind = (
        None if (found := _numbers(ole, f"ImageInfo/{one}toRADistance", 1)) is None else abs(float(found[0]))
        for one in "SD"
    )
    at_object = _numbers(ole, "ImageInfo/PixelSize", 1)
    if not to_axis or not behind or at_object is None:
        raise GeometryError(
            f"{path} must state the distances of source and detector and the size of a pixel, got none; export "
            "the images as TIFF, and pass --angles, --source-axis, --source-detector and --pixel-size"
        )
    shift = next(
        (
            found[0]
            for one in ("AutoRecon", "ReconSettings")
            if (found := _numbers(ole, f"{one}/CenterShift", 1)) is not None
        ),
        None,
    )
    moved = [_numbers(ole, f"alignment/{one}-shifts", n_views) for one in "yx"]
    shifts = None if any(one is None for one in moved) else np.stack([one for one in moved if one is not None], axis=1)
    said = []
    if shifts is not None and np.abs(shifts).max() < _SHIFTED:
        shifts = None
    if shifts is not None:
        said.append(f"Views were moved by up to {np.abs(shifts).max():.2g} pixels, as the file says.")
    if shift is not None:
        said.append(f"The rotation axis is {shift:g} columns from the middle, as the file says.")
    axis = (n_cols - 1) / 2 + float(shift) if shift is not None else None
    pixel = float(at_object[0]) / 1000 * (to_axis + behind) / to_axis
    parallel = _whole(ole, "ImageInfo/XrayGeometry") not in (None, 1)
    return Beam(to_axis, to_axis + behind, pixel, axis=axis, shifts=shifts, parallel=parallel), said


def _wanders(positions: np.ndarray | None, beam: Beam) -> bool:
    """Return whether positions, in um, deviate from the first by more than half a pixel at the object."""
    at_object = 1000 * beam.pixel * beam.source_axis / beam.source_detector
    return positions is not None and bool(np.abs(positions - positions[0]).max() > at_object / 2)
