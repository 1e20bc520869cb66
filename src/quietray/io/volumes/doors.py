"""Writing of volumes by name of the format, and reading by content of the path."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quietray.errors import ResourceError, SettingsError
from quietray.geometry import VolumeGrid
from quietray.io.disk import disk_errors, remove
from quietray.io.doors import readable, unknown
from quietray.io.volumes.base import StoredVolume, VolumeFormat
from quietray.io.volumes.stored import Stored
from quietray.io.volumes.writer import SeriesAxis, VolumeWriter

__all__ = ["new_volume", "open_volume_writer", "read_volume", "require_stored", "volume_format"]


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


@contextmanager
def new_volume(
    place: Path,
    grid: VolumeGrid,
    facts: Mapping[str, Any],
    *,
    format: str | None = None,
    series: SeriesAxis | None = None,
    stored: Stored = Stored(),
    overwrite: bool = False,
) -> Iterator[VolumeWriter]:
    """Open a writer of a volume that appears under its name when all of it is written, and not at all otherwise.

    Parameters
    ----------
    place
        Its name; None for `format` takes the format that its ending asks for.
    grid, facts, format, series, stored
        As for :func:`open_volume_writer`.
    overwrite
        Replace a volume of that name, when the new one is complete.

    Raises
    ------
    ResourceError
        There is something of that name, or the disk is full.
    SettingsError
        No format has that ending, or it stores float32 only.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> place = Path(tempfile.mkdtemp()) / "volume.tif"
    >>> with new_volume(place, VolumeGrid((2, 4, 4), values="HU"), {}) as writer:
    ...     writer.write(0, np.ones((2, 4, 4), np.float32))
    >>> read_volume(place).unit
    'HU'
    """
    kind = format or volume_format(place)
    if kind is None:
        endings = [ending for one in VolumeFormat.registry.values() for ending in one.endings if ending]
        raise SettingsError(
            f"the name of a volume must end in {', '.join(endings)}, or in nothing for a folder of TIFF slices, got "
            f"{place}; give another ending"
        )
    if place.exists() and not overwrite:
        raise ResourceError(f"the volume {place} must not exist yet; give another name, or replace it with --overwrite")
    unfinished = place.with_name(f".new-{place.name}")
    with disk_errors(place):
        remove(unfinished)  # a kill may have left it
    writer = open_volume_writer(unfinished, grid, format=kind, extra=facts, series=series, stored=stored)
    try:
        with writer:
            yield writer
            writer.finish()
        with disk_errors(place):
            writer.rename(unfinished, place)
    finally:
        writer.discard()


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
