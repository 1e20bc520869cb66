"""Writing of volumes by name of the format, and reading by content of the path."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quietray.errors import SettingsError
from quietray.geometry import VolumeGrid
from quietray.io.doors import readable, unknown
from quietray.io.volumes.base import StoredVolume, VolumeFormat
from quietray.io.volumes.stored import Stored
from quietray.io.volumes.writer import SeriesAxis, VolumeWriter

__all__ = ["open_volume_writer", "read_volume", "require_stored", "volume_format"]


def open_volume_writer(
    path: str | os.PathLike[str],
    grid: VolumeGrid,
    *,
    format: str,
    resume: bool = False,
    extra: Mapping[str, Any] | None = None,
    series: SeriesAxis | None = None,
    stored: Stored = Stored(),
) -> VolumeWriter:
    """Create a volume on disk, or resume an unfinished one.

    Parameters
    ----------
    path
        Final name: a Zarr folder, an HDF5 file, or a folder of TIFF slices.  Until :meth:`VolumeWriter.finish` is
        called, the volume has a hidden name in the same folder (``.volume.zarr.partial``).
    grid
        Shape ``(z, y, x)`` and voxel size in mm, which also determine the unit of the attenuation.
    format
        ``zarr`` (OME-NGFF 0.5), ``h5`` (``/exchange/data``), ``tiff`` (one file per slice), ``bigtiff`` (one file),
        ``mhd`` (MetaImage, with a ``.raw`` beside it), ``nii`` (NIfTI), or another registered format.
    resume
        Whether to keep the slabs of an existing volume of that name; otherwise, start anew.
    extra
        Additional metadata to store with the volume; must be serialisable to JSON.
    series
        First axis of a series ``(t or c, z, y, x)``, each entry of which has the shape of the grid; slices are numbered
        through all entries.  In TIFF, each entry has its own folder.
    stored
        How voxels are stored: float32, or integers over a window.

    Raises
    ------
    ResourceError
        A finished volume already exists, or the disk is full or not writable.
    FormatError
        The volume to resume has another shape.
    SettingsError
        The format is unknown, or can only store float32.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> path = Path(tempfile.mkdtemp()) / "volume.h5"
    >>> with open_volume_writer(path, VolumeGrid((2, 4, 4), voxel_size=0.01), format="h5") as writer:
    ...     writer.write(0, np.ones((2, 4, 4), np.float32))
    ...     writer.finish().name
    'volume.h5'
    """
    require_stored(format, stored)
    writer = VolumeFormat.registry[format].writer
    more = {"stored": stored} if stored.whole else {}  # writers of other packages need not know this argument
    return writer(Path(path), grid, resume=resume, extra=dict(extra or {}), series=series, **more)


def require_stored(format: str, stored: Stored) -> None:
    """Raise unless a format can store voxels in this way.

    Raises
    ------
    SettingsError
        It can only store float32.
    """
    if stored.whole and not VolumeFormat.registry[format].writer.integers:
        able = [name for name, kind in VolumeFormat.registry.items() if kind.writer.integers]
        raise SettingsError(
            f"--dtype must be float32 for --format {format}, got {stored.dtype}; use --format {', '.join(able)}"
        )


def read_volume(path: str | os.PathLike[str]) -> StoredVolume:
    """Open a volume without reading it: Zarr, HDF5, TIFF, the truth of a simulated scan, or a registered format.

    Parameters
    ----------
    path
        What :func:`quietray.io.open_volume_writer` wrote, series included, an OME-Zarr image, a Zarr array, an HDF5
        file with ``/exchange/data``, a TIFF stack or a folder of TIFF slices, or a scan with ``/truth/volume``.

    Returns
    -------
    StoredVolume
        Volume ``(z, y, x)``, or series ``(step, z, y, x)``.

    Raises
    ------
    FormatError
        There is no volume.

    Examples
    --------
    >>> import tempfile, tifffile
    >>> import numpy as np
    >>> path = Path(tempfile.mkdtemp()) / "volume.tif"
    >>> tifffile.imwrite(path, np.full((3, 4, 5), 0.5, np.float32), photometric="minisblack")
    >>> float(read_volume(path)[1].mean())
    0.5
    """
    place = Path(path)
    with readable(place):
        formats = (kind() for kind in VolumeFormat.registry.values())
        found = next((one for one in formats if one.recognises(place)), None)
        if found is None:
            raise unknown(place, (kind.files for kind in VolumeFormat.registry.values()))
        return found.read(place)


def volume_format(path: Path) -> str | None:
    """Return the name of the format that belongs to a file name ending, or None.

    Examples
    --------
    >>> volume_format(Path("new.hdf5")), volume_format(Path("slices")), volume_format(Path("new.xyz"))
    ('h5', 'tiff', None)
    """
    kinds = VolumeFormat.registry.items()
    return next((name for name, kind in kinds if path.suffix.lower() in kind.endings), None)
