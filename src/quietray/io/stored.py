"""Volumes from disk: lazy, with their unit and voxel size."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError
from quietray.io.containers import Container, as_text, open_frames
from quietray.io.frames import LazyFrames
from quietray.io.raw import check_stack
from quietray.io.read import open_container
from quietray.io.tiff import TiffFolder, TiffPages, series_folders, tiff_files
from quietray.types import Frames

__all__ = ["StoredVolume", "read_volume"]


@dataclass(frozen=True, eq=False)
class StoredVolume:
    """A volume ``(z, y, x)``, or a series ``(step, z, y, x)``, on disk; index it to read a part.

    Parameters
    ----------
    frames
        The slices, still on disk.
    path
        Where it was read.
    unit
        Unit of the attenuation (``1/mm`` or ``1/pixel``); None when the file does not say.
    voxel_size
        Edge of a voxel in mm; None when the file does not say.
    facts
        What else was stored with it.

    Examples
    --------
    >>> volume = StoredVolume(LazyFrames(np.zeros((2, 4, 4), np.float32)), Path("here"), "1/pixel")
    >>> volume.shape, float(volume[0].max())
    ((2, 4, 4), 0.0)
    """

    frames: LazyFrames
    path: Path
    unit: str | None = None
    voxel_size: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_z, n_y, n_x)``, with the steps or channels of a series first."""
        return self.frames.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one voxel."""
        return self.frames.dtype

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: Any) -> Any:
        return self.frames[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.frames[:], dtype=dtype)


def read_volume(path: str | os.PathLike[str]) -> StoredVolume:
    """Open a volume without reading it: Zarr, HDF5, TIFF, or the truth of a simulated scan.

    Parameters
    ----------
    path
        What :func:`quietray.io.open_volume_writer` wrote, series included, an OME-Zarr image, a Zarr array, an HDF5
        file with ``/exchange/data``, a TIFF stack or a folder of TIFF slices, or a scan with ``/truth/volume``.

    Returns
    -------
    StoredVolume
        ``(z, y, x)``, or ``(step, z, y, x)`` of a series.

    Raises
    ------
    FormatError
        There is no volume.

    Examples
    --------
    >>> import tempfile, tifffile
    >>> path = Path(tempfile.mkdtemp()) / "volume.tif"
    >>> tifffile.imwrite(path, np.full((3, 4, 5), 0.5, np.float32), photometric="minisblack")
    >>> float(read_volume(path)[1].mean())
    0.5
    """
    place = Path(path)
    container = open_container(place)
    if container is None:
        return _from_tiff(place)
    if container.array("truth/volume") is not None:
        return _stored(container, "truth/volume", {})
    if container.array("exchange/theta") is not None:
        raise FormatError(
            f"{place} must hold a volume, got a scan without /truth/volume; "
            "give a reconstructed volume, or a simulated scan"
        )
    if container.array("exchange/data") is not None:
        return _stored(container, "exchange/data", {})
    level = _first_level(container)
    if level is not None:
        return _stored(container, level, container.attributes("/").get("quietray", {}))
    stacks = [f"{name} {shape}" for name, (shape, _) in container.listing().items() if len(shape) == 3]
    raise FormatError(
        f"{place} must hold a volume in /exchange/data, /truth/volume or as OME-Zarr, "
        f"got: {', '.join(stacks[:8]) or 'no three-dimensional dataset'}; copy the volume to /exchange/data"
    )


def _stored(container: Container, name: str, facts: Mapping[str, Any]) -> StoredVolume:
    frames = open_frames(container, name, "volume")
    attributes = container.attributes(name)
    told = {**container.attributes("/"), **facts} if container.kind == "HDF5" else dict(facts)
    unit = as_text(attributes.get("unit", attributes.get("units", told.get("unit"))))
    size = attributes.get("voxel_size", told.get("voxel_size"))
    return StoredVolume(frames, container.path, unit or None, float(size) if size else _ome_size(container), told)


def _first_level(container: Container) -> str | None:
    """Return the array of full resolution: as OME-NGFF 0.5 or 0.4 tells, or the only array there is."""
    multiscale = _multiscale(container)
    if multiscale is not None:
        path = str(multiscale.get("datasets", [{}])[0].get("path", ""))
        return path if container.array(path) is not None else None
    stacks = [name for name, (shape, _) in container.listing().items() if len(shape) == 3]
    return stacks[0] if len(stacks) == 1 and container.kind == "Zarr" else None


def _multiscale(container: Container) -> Mapping[str, Any] | None:
    attributes = container.attributes("/")
    found = attributes.get("ome", attributes)
    scales = found.get("multiscales") if isinstance(found, Mapping) else None
    return scales[0] if isinstance(scales, list) and scales and isinstance(scales[0], Mapping) else None


def _ome_size(container: Container) -> float | None:
    """Return the voxel edge in mm that OME-NGFF metadata states for isotropic voxels."""
    multiscale = _multiscale(container) or {}
    per_mm = {"millimeter": 1.0, "micrometer": 1e-3, "nanometer": 1e-6, "meter": 1e3}
    axes = multiscale.get("axes", [])
    space = [axis.get("type", "space") == "space" for axis in axes]
    factors = {per_mm.get(str(axis.get("unit"))) for axis, one in zip(axes, space, strict=True) if one}
    steps = multiscale.get("datasets", [{}])[0].get("coordinateTransformations", [{}])[0].get("scale", [])
    steps = [step for step, one in zip(steps, space, strict=False) if one]
    if len(factors) == 1 and None not in factors and len(set(steps)) == 1:
        return float(steps[0]) * float(factors.pop() or 1.0)
    return None


def _from_tiff(path: Path) -> StoredVolume:
    import tifffile

    folders = series_folders(path)
    files = tiff_files(folders[0] if folders else path) if path.is_dir() else [path]
    stack: Frames = TiffFolder(files) if path.is_dir() else TiffPages(files[0])
    check_stack(stack, "a volume", str(path))
    if folders:
        stack = _TiffSeries([TiffFolder(tiff_files(folder)) for folder in folders])
    told: Mapping[str, Any] = {}
    with tifffile.TiffFile(files[0]) as file:
        try:
            told = json.loads(file.pages.first.description)
        except ValueError:
            told = {}
    told = told if isinstance(told, dict) else {}
    unit, size = told.get("unit"), told.get("voxel_size")
    return StoredVolume(LazyFrames(stack, place=str(path)), path, unit, float(size) if size else None, told)


class _TiffSeries:
    """A series ``(step, z, y, x)`` of folders of slices."""

    def __init__(self, steps: list[TiffFolder]) -> None:
        if len({step.shape for step in steps}) > 1:
            raise FormatError(
                f"the steps of a series must have one shape, got {sorted({step.shape for step in steps})}; "
                "copy all slices again"
            )
        self._steps = steps

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_steps, n_z, n_y, n_x)``."""
        return (len(self._steps), *self._steps[0].shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one voxel."""
        return self._steps[0].dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        inner = tuple(rest) or (slice(None),)
        if isinstance(first, int):
            return self._steps[first][inner]
        numbers = range(*first.indices(len(self._steps)))
        return np.stack([self._steps[number][inner] for number in numbers])
