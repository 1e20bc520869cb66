"""Reading and writing of scans and volumes in napari, and a sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import quietray
from quietray.napari.layers import Layer, scan_layers, volume_layer

__all__ = ["foam", "reader", "voxel", "write"]

_BLOCK = 2**24  # voxels written at a time


def reader(path: str | list[str]) -> Callable[[str], list[Layer]] | None:
    """Return a reader for a path, or None for several paths, as a scan has only one.

    Examples
    --------
    >>> reader(["one.h5", "two.h5"]) is None
    True
    """
    return None if isinstance(path, list) else _read


def _read(path: str) -> list[Layer]:
    """Read a scan, else a volume.

    Raises
    ------
    FormatError
        It is neither; the message gives the reasons for both.
    """
    try:
        return scan_layers(quietray.read(path))
    except quietray.QuietrayError as error:
        no_scan = error
    try:
        return [volume_layer(quietray.read_volume(path))]
    except quietray.QuietrayError as error:
        raise quietray.FormatError(
            f"{path} must be a scan or a volume, got neither. Read as a scan: {no_scan}. Read as a volume: {error}"
        ) from error


def write(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a layer as a volume, in the format of the file name ending.

    Parameters
    ----------
    path
        New file or folder.
    data
        Volume ``(z, y, x)``, or the levels of a pyramid.
    meta
        Metadata of the layer; its scale in mm becomes the voxel size.

    Returns
    -------
    list
        The path.

    Raises
    ------
    QuietrayError
        The format is unknown, the layer is not a volume, or the disk does not permit it.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "new.h5"
    >>> shown = {"scale": (0.02, 0.01, 0.01), "units": ("millimeter",) * 3}
    >>> _ = write(str(place), np.ones((2, 4, 4)), shown)
    >>> quietray.read_volume(place)
    StoredVolume(2 x 4 x 4, float32, 1/mm, voxels of 0.01 mm, from ...new.h5)
    """
    place, whole = Path(path), data[0] if meta.get("multiscale") else data
    if len(whole.shape) != 3:
        raise quietray.FormatError(
            f"a layer to be written must be a volume (z, y, x), got {len(whole.shape)} axes; choose another layer"
        )
    called = quietray.volume_format(place)
    if called is None:
        raise quietray.SettingsError(
            f"the name must end in .zarr, .h5, .tif, .mhd or .nii, got {place.name}; give another name"
        )
    n_z, n_y, n_x = (int(size) for size in whole.shape)
    edge, spacing = voxel(meta)
    grid = quietray.VolumeGrid((n_z, n_y, n_x), voxel_size=edge, spacing=spacing)
    high = max(1, _BLOCK // (n_y * n_x))
    with quietray.open_volume_writer(place, grid, format=called) as writer:
        for first in range(0, n_z, high):
            writer.write(first, np.asarray(whole[first : first + high], np.float32))
        writer.finish()
    return [path]


def foam() -> list[Layer]:
    """Simulate a parallel-beam scan of a foam with few photons and 10 um pixels."""
    scan = quietray.FoamScan(views=180, rows=24, cols=96, spheres=80, largest=0.2, flats=40, pixel_size=0.01).acquire()
    return scan_layers(dataclasses.replace(scan, source="foam"))


def voxel(meta: dict[str, Any]) -> tuple[float | None, float | None]:
    """Return the edge of a voxel and the distance of slices (if different) in mm; None if unknown.

    Parameters
    ----------
    meta
        The ``scale`` and the ``units`` of a layer, z, y, x.

    Raises
    ------
    GeometryError
        A voxel is not square in a slice.

    Examples
    --------
    >>> voxel({"scale": (3, 2, 2), "units": ("um",) * 3}), voxel({"scale": (1, 1, 1), "units": ("pixel",) * 3})
    ((0.002, 0.003), (None, None))
    """
    per_mm = {"millimeter": 1.0, "mm": 1.0, "micrometer": 1e-3, "um": 1e-3, "nanometer": 1e-6, "meter": 1e3}
    factors = {per_mm.get(str(unit)) for unit in meta.get("units") or ()}
    factor = factors.pop() if len(factors) == 1 else None
    if factor is None:
        return None, None
    z, y, x = (float(step) * factor for step in meta["scale"])
    if not np.isclose(y, x):
        raise quietray.GeometryError(f"voxels must be square in a slice, got {y:g} x {x:g} mm; resample the layer")
    return x, None if np.isclose(z, x) else z
