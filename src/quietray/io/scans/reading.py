"""Reading of scans: the content of the path decides which registered reader is used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Unpack

from quietray.errors import FormatError, QuietrayError
from quietray.io.containers import require_array
from quietray.io.doors import readable, unknown
from quietray.io.scans.base import ScanReader, Source
from quietray.io.scans.datasets import unknown_layout
from quietray.io.scans.raw import Flags, Stated
from quietray.scan import Scan

__all__ = ["read"]


def read(path: str | os.PathLike[str], **stated: Unpack[Stated]) -> Scan:
    """Open a scan without reading its radiographs.

    DXchange and NXtomo in HDF5, DXchange in Zarr, any other HDF5 or Zarr layout with `data` and related keywords, TIFF
    stacks and folders with `flats`, `darks` and `angles`, and formats of other packages.  Keywords override the file.

    Parameters
    ----------
    path
        HDF5 file, TIFF file, folder of TIFF frames, or Zarr folder.
    data
        Dataset path of the radiographs, or of the group of one scan among several; in a TIFF folder, a pattern of
        file names.
    flats, darks
        Dataset path; another HDF5 or Zarr file, with ``:/dataset`` if it holds several; TIFF file, folder or pattern;
        npy file; or a number, the level of all pixels.
    angles
        Dataset path, another HDF5 file, text, csv or npy file, or ``start:stop`` for evenly spaced views without the
        end point; in degrees unless a units attribute or `angle_unit` says otherwise.
    image_key
        Path of a dataset with the kind of each frame (0 projection, 1 flat, 2 dark, 3 invalid, -1 alignment).
    pixel_size
        Edge of a pixel at the object, in mm.
    rotation_axis
        Column that the rotation axis projects to.
    angle_unit
        ``deg`` or ``rad``.
    order
        ``sinogram`` for a stack ``(row, view, col)`` or a single sinogram, ``view`` for ``(view, row, col)``; `view`
        also disables the check of the axes.
    rotate
        90 or 270 degrees by which radiographs are rotated, so that the rotation axis is parallel to their columns.
    source_axis, source_detector
        Distances of a fan or cone beam, in mm.
    raw
        For a raw binary file: ``TYPE:VIEWSxROWSxCOLS``, such as ``uint16:1500x2048x2048``, preceded by ``>`` for
        big-endian numbers and followed by ``+BYTES`` for a header.
    ignore_scanner
        Whether to read images as if there were no file of a laboratory scanner beside them.

    Returns
    -------
    Scan
        Scan with lazy projections ``(view, row, col)`` in counts, flats and darks; angles in radians.

    Raises
    ------
    FormatError
        The path cannot be read as a scan.
    GeometryError
        Angles are missing, or their number does not match the radiographs.
    SettingsError
        `angle_unit` is unknown.
    TypeError
        A keyword is unknown; the message gives the nearest one.

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
    flags, source = Flags.told(stated), Source(Path(path))
    with readable(source.path):
        readers = (kind() for kind in ScanReader.registry.values())
        reader = next((one for one in readers if one.recognises(source, flags)), None)
        if reader is None:
            raise _unread(source, flags)
        return reader.read(source, flags).finish(str(source.path), flags)


def _unread(source: Source, flags: Flags) -> QuietrayError:
    """Return the error for a path that no reader recognises."""
    if source.path.suffix.lower() in (".raw", ".bin", ".dat", ".img", ".vol") and source.path.is_file():
        return FormatError(
            f"{source.path} must come with a description of its numbers, got neither {source.path.stem}.mhd nor "
            f"{source.path.stem}.json beside it; pass --raw TYPE:VIEWSxROWSxCOLS, such as uint16:1500x2048x2048, and "
            "--angles"
        )
    if source.container is None:
        return unknown(source.path, (name for kind in ScanReader.registry.values() for name in kind.files))
    if flags.data is not None:
        require_array(source.container, flags.data, "--data")
    return unknown_layout(source.container)
