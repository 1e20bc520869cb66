"""Volumes that were reconstructed before: slices as a series of images, written back as the volume that they were."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError, QuietrayError
from quietray.geometry import VolumeGrid
from quietray.images import ImageSeries
from quietray.io.containers import open_container
from quietray.io.images.base import ImageFormat
from quietray.io.volumes import StoredVolume, VolumeFormat, VolumeWriter, new_volume, read_volume
from quietray.io.zarr import is_zarr
from quietray.types import Volume

__all__ = ["LazySlices", "VolumeFile", "VolumeSlices"]


class VolumeSlices(ImageFormat):
    """A volume whose file says the unit of its values: what quietray writes, and files that are made like that."""

    called = "volume"

    def recognises(self, path: Path) -> bool:
        """Return whether a file or folder is such a volume, and no scan."""
        return _format_of(path) is not None

    def holds(self, path: Path) -> bool:
        """Return whether a path is such a volume, or a folder with one in it and nothing else but its numbers."""
        return _place_of(path) is not None

    def read(self, path: Path) -> ImageSeries:
        """Read the slices.

        Raises
        ------
        FormatError
            It is a series of volumes, or damaged.
        """
        place = _place_of(path)
        if place is None:
            raise FormatError(f"{path} must be a volume whose file states its unit, got none; read it as an array")
        found, format = read_volume(place), _format_of(place)
        assert format is not None
        if len(found.shape) != 3:
            raise FormatError(
                f"{place} must be one volume (z, y, x), got a series of shape {found.shape}; give one step of it"
            )
        images = LazySlices(found)
        size = found.voxel_size
        spacing = float(found.facts.get("spacing") or 0) or size
        n_z, n_y, n_x = images.shape
        grid = VolumeGrid((n_z, n_y, n_x), voxel_size=size, spacing=spacing, values=found.unit)
        series = ImageSeries(
            images,
            VolumeFile(place.name, format, grid),
            str(place),
            unit=found.unit or "raw",
            modality="CT",
            spacing=None if size is None else (size, size),
            step=spacing or 1.0,
            provenance={"format": f"volume, {format}"},
        )
        others = sum(int((~np.isfinite(block)).sum()) for block in series.blocks())
        if others:
            raise FormatError(f"{place} must hold finite values, got {others} NaN or infinite ones; correct them")
        return series


class LazySlices:
    """The slices of a stored volume as float32; only what is requested is read.

    Parameters
    ----------
    stored
        A volume ``(z, y, x)``.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, stored: StoredVolume) -> None:
        self._stored = stored

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``(z, y, x)``."""
        return self._stored.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.asarray(self._stored.frames[key], np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


@dataclass(frozen=True)
class VolumeFile:
    """The file of a volume.

    Parameters
    ----------
    name
        Its name.
    kind
        Its format.
    grid
        Its voxels.
    """

    name: str
    kind: str
    grid: VolumeGrid

    @property
    def format(self) -> str:
        """Name of the format."""
        return f"volume, {self.kind}"

    def opened(self, folder: Path, made_by: str) -> AbstractContextManager[VolumeWriter]:
        """Return a context with a writer of a volume of the same name, format, unit and voxels."""
        return new_volume(folder / self.name, self.grid, {"made_by": made_by}, format=self.kind)

    def write(self, folder: Path, images: Volume, made_by: str) -> None:
        """Write such a volume in one piece."""
        with self.opened(folder, made_by) as writer:
            writer.write(0, np.ascontiguousarray(images, np.float32))


def _place_of(path: Path) -> Path | None:
    """Return where the volume is: the path itself, or the only volume in a folder."""
    if _format_of(path) is not None:
        return path
    if not path.is_dir() or is_zarr(path):
        return None
    inside = [one for one in sorted(path.iterdir()) if not one.name.startswith(".")]
    found = [one for one in inside[:3] if _format_of(one) is not None]
    return found[0] if len(inside) <= 2 and len(found) == 1 else None  # a header and its numbers are two


def _format_of(path: Path) -> str | None:
    """Return the name of the format of a volume that says the unit of its values; None where there is none."""
    kinds = VolumeFormat.registry.items()
    try:
        name = next((name for name, kind in kinds if kind().recognises(path)), None)
        if name is None or _is_scan(path):
            return None
        found = read_volume(path)
    except (QuietrayError, OSError):
        return None
    if name == "tiff" and path.is_file():
        name = "bigtiff"
    return name if _says_its_unit(found) else None


def _says_its_unit(found: StoredVolume) -> bool:
    return bool(found.unit) and found.unit not in ("counts", "raw")


def _is_scan(path: Path) -> bool:
    """Return whether a container holds projections, whatever truth lies beside them."""
    container = open_container(path)
    if container is None:
        return False
    return any(container.array(name) is not None for name in ("exchange/theta", "truth/volume"))
