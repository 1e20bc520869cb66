"""One door for every scan: the content of the path decides which reader opens it."""

from __future__ import annotations

import os
from pathlib import Path

from quietray.errors import FormatError, require_path
from quietray.io.angles import check_unit
from quietray.io.containers import Container, require_array
from quietray.io.hdf5 import is_hdf5, open_hdf5
from quietray.io.layouts import is_exchange, read_exchange, read_plain, unknown_layout
from quietray.io.nexus import find_entries, read_nxtomo
from quietray.io.raw import Flags, RawScan
from quietray.io.tiff import is_tiff, read_tiff, series_folders, tiff_files
from quietray.io.zarr import is_zarr, open_zarr
from quietray.scan import Scan

__all__ = ["open_container", "read"]

_Place = str | os.PathLike[str]


def read(
    path: _Place,
    *,
    data: str | None = None,
    flats: _Place | None = None,
    darks: _Place | None = None,
    angles: _Place | None = None,
    image_key: str | None = None,
    pixel_size: float | None = None,
    rotation_axis: float | None = None,
    angle_unit: str | None = None,
) -> Scan:
    """Open a scan without reading its radiographs.

    DXchange and NXtomo in HDF5, DXchange in Zarr, and any other HDF5 or Zarr layout through `data` and its
    companions; TIFF stacks and folders with `flats`, `darks` and `angles`.  What the user says overrules the file.

    Parameters
    ----------
    path
        HDF5 file, TIFF file, folder of TIFF frames, or Zarr folder.
    data
        Dataset path of the radiographs, or of the group of one scan among several; in a TIFF folder, a pattern of
        file names.
    flats, darks
        Dataset path, or TIFF file, folder or pattern.
    angles
        Dataset path, text, csv or npy file, or ``start:stop`` for evenly spaced views over the half-open range;
        degrees unless a units attribute or `angle_unit` says otherwise.
    image_key
        Dataset path of the kind of each frame (0 projection, 1 flat, 2 dark, 3 invalid, -1 alignment).
    pixel_size
        Edge of a pixel at the object, in mm.
    rotation_axis
        Column that the rotation axis projects to.
    angle_unit
        ``deg`` or ``rad``.

    Returns
    -------
    Scan
        With lazy projections ``(view, row, col)`` in counts, flats and darks; angles in radians.

    Raises
    ------
    FormatError
        The path cannot be read as a scan.
    GeometryError
        Angles are missing, or disagree with the radiographs.
    SettingsError
        `angle_unit` is unknown.

    Examples
    --------
    >>> import h5py, tempfile
    >>> import numpy as np
    >>> path = Path(tempfile.mkdtemp()) / "scan.h5"
    >>> with h5py.File(path, "w") as file:
    ...     file["exchange/data"] = np.full((4, 2, 3), 7, np.uint16)
    ...     file["exchange/theta"] = [0.0, 45.0, 90.0, 135.0]
    >>> scan = read(path)
    >>> scan.read(slice(0, 1)).max(), scan.geometry.angles[2].round(3)
    (np.float32(7.0), np.float64(1.571))
    """
    check_unit(angle_unit)
    place = Path(path)
    flags = Flags(data, _text(flats), _text(darks), _text(angles), image_key, angle_unit)
    container = open_container(place)
    raw = read_tiff(place, flags) if container is None else _read_container(container, flags)
    return raw.finish(str(place), pixel_size, rotation_axis)


def open_container(path: Path) -> Container | None:
    """Open an HDF5 file or Zarr folder; None for TIFF.

    Raises
    ------
    FormatError
        There is nothing at `path`, or nothing that can be read.
    """
    require_path("scan", path)
    try:
        if path.is_dir():
            return _open_folder(path)
        if path.stat().st_size == 0:
            raise FormatError(f"{path} must hold a scan, got an empty file; copy it again from where it was measured")
        if is_hdf5(path):
            return open_hdf5(path)
    except PermissionError as error:
        raise FormatError(f"{path} must be readable by you, got: {error.strerror}; ask its owner") from error
    if is_tiff(path):
        return None
    _refuse_images(path)
    with path.open("rb") as stream:
        start = stream.read(8)
    raise FormatError(
        f"{path} must be HDF5, TIFF or Zarr, got a file that starts with {start!r}; "
        "give the raw scan, or convert it to one of these"
    )


def _open_folder(path: Path) -> Container | None:
    if is_zarr(path):
        return open_zarr(path)
    if tiff_files(path) or series_folders(path):
        return None
    _refuse_images(path)
    inside = sorted(entry.name for entry in path.iterdir())
    advice = "give one of the files in it" if inside else "the folder is empty"
    some = ", ".join(inside[:6]) + (", ..." if len(inside) > 6 else "")
    raise FormatError(f"the folder {path} must hold TIFF images or Zarr, got: {some or 'nothing'}; {advice}")


def _refuse_images(path: Path) -> None:
    """Raise where the path holds images that are no views of a scan."""
    from quietray.io.images import image_format

    kind = image_format(path)
    if kind is not None:
        raise FormatError(
            f"{path} must hold a scan, got a series of images ({kind.upper()}), from which nothing can be "
            "reconstructed; denoise them with quietray denoise or quietray filter"
        )


def _read_container(container: Container, flags: Flags) -> RawScan:
    if flags.data is not None:
        if container.array(flags.data) is not None:
            return read_plain(container, flags)
        group = "/" + flags.data.strip("/")
        if any(name.startswith(f"{group}/") for name in container.listing()):
            return read_nxtomo(container, [group], flags)
        require_array(container, flags.data, "--data")
    if is_exchange(container):
        return read_exchange(container, flags)
    entries = find_entries(container, flags)
    if entries:
        return read_nxtomo(container, entries, flags)
    if list(container.listing()) == ["/"]:
        return read_plain(container, Flags("/", flags.flats, flags.darks, flags.angles, None, flags.angle_unit))
    raise unknown_layout(container)


def _text(place: _Place | None) -> str | None:
    return None if place is None else os.fspath(place)
