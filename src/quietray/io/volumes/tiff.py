"""Volumes in TIFF: one file per slice, with folders for the entries of a series; or one file for the whole stack."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError
from quietray.geometry import VolumeGrid
from quietray.io.disk import generator_name, remove, sync_path, write_at
from quietray.io.frames import LazyFrames, OnDisk, check_stack
from quietray.io.mapped import mapped
from quietray.io.tiff import TiffFolder, TiffPages, is_tiff, series_folders, tiff_files
from quietray.io.volumes.base import StoredVolume, VolumeFormat, told_of_file
from quietray.io.volumes.one_file import OneFileWriter
from quietray.io.volumes.stored import Scale, values_of
from quietray.io.volumes.writer import VolumeWriter
from quietray.types import Frames

__all__ = ["TiffStack", "TiffStackWriter", "TiffVolume", "TiffVolumeWriter"]


def tifffile() -> Any:
    """Import tifffile on first use, as this is slow."""
    import tifffile

    return tifffile


def told_of(writer: VolumeWriter, scale: Scale | None) -> dict[str, Any]:
    """Return the description for a TIFF file of a volume."""
    grid = writer.grid  # not "shape", which tifffile would use as the shape of the file
    told = {"unit": grid.unit, "voxel_size": grid.voxel_size, "volume_shape": writer.shape}
    told |= {"spacing": grid.spacing} if grid.spacing else {}
    return told | ({} if scale is None else scale.record()) | {"generator": generator_name()}


def tags_of(grid: VolumeGrid) -> dict[str, Any]:
    """Return the TIFF tags for slices of a grid."""
    size = grid.voxel_size
    resolution = {"resolution": (10 / size, 10 / size), "resolutionunit": "CENTIMETER"} if size else {}
    return {"photometric": "minisblack", "metadata": None, **resolution}


def _head(path: Path) -> tuple[dict[str, Any], np.dtype[Any]]:
    """Return the content of a file's description, and the type of its pixels."""
    with tifffile().TiffFile(path) as file:
        page = file.pages.first
        try:
            told = json.loads(page.description)
        except ValueError:
            told = {}
        return told if isinstance(told, dict) else {}, np.dtype(page.dtype)


class TiffVolumeWriter(VolumeWriter):
    """A folder with ``slice_00000.tif`` and so on, or one folder per entry of a series; each file states its unit."""

    apart = True
    integers = True

    def _create(self) -> None:
        self.partial.mkdir()
        for number in range(0 if self.series is None else self.series.size):
            self._folder(number).mkdir()
        sync_path(self.partial.parent)

    def _reopen(self) -> None:
        try:
            for path in sorted(self._folder(0).glob("slice_*.tif"))[:1]:
                told, dtype = _head(path)
                self._check_found(tuple(told["volume_shape"]), dtype)
        except (OSError, KeyError, ValueError) as error:
            raise self._not_resumable(error) from error

    def _open(self) -> None:
        """Do nothing: every slice is a separate file."""

    def _store(self, z0: int, block: np.ndarray) -> None:
        n_z = self.grid.shape[0]
        for place, frame in enumerate(block, z0):
            self._write(place, frame, self.scale)
        for number in range(z0 // n_z, (z0 + len(block) - 1) // n_z + 1):
            sync_path(self._folder(number))

    def _write(self, place: int, frame: np.ndarray, scale: Scale | None) -> None:
        """Write a slice, numbered through the whole series."""
        number, z = divmod(place, self.grid.shape[0])
        told = told_of(self, scale) | {"z": z} | ({} if self.series is None else {self.series.name: number})
        told |= self._extra if z == 0 else {}
        encoded = BytesIO()
        tifffile().imwrite(encoded, frame, description=json.dumps(told), **tags_of(self.grid))
        self._replace(self._slice(place), encoded.getbuffer())

    def _complete(self) -> None:
        """Convert float32 to integers, if their window depends on the whole volume.

        The window is stored before the first slice is converted, so that the conversion can be resumed if the process
        is killed.
        """
        if not self.stored.whole or self.scale is not None:
            return
        note, n_slices = self.place / ".window", int(np.prod(self.shape[:-2]))
        if note.exists():
            window = json.loads(note.read_text())
        elif all(_head(self._slice(place))[1].kind == "u" for place in range(n_slices)):
            return  # the process was killed after the last conversion
        else:
            ends = [(float(np.nanmin(one)), float(np.nanmax(one))) for one in map(self._values, range(n_slices))]
            window = [min(low for low, _ in ends), max(high for _, high in ends)]
            self._replace(note, memoryview(json.dumps(window).encode()))
            sync_path(self.place)
        scale = Scale(self.stored.dtype, *window)
        for place in range(n_slices):
            if Scale.told(_head(self._slice(place))[0]) != scale:
                self._write(place, scale.numbers(self._values(place)), scale)
        remove(note)
        for number in range(1 if self.series is None else self.series.size):
            sync_path(self._folder(number))

    def _values(self, place: int) -> np.ndarray:
        """Return the values of a slice, whether or not it has already been converted."""
        path = self._slice(place)
        return np.asarray(values_of(tifffile().imread(path)[None], _head(path)[0])[0])

    def _slice(self, place: int) -> Path:
        number, z = divmod(place, self.grid.shape[0])
        return self._folder(number) / f"slice_{z:05d}.tif"

    def _folder(self, number: int) -> Path:
        return self.place if self.series is None else self.place / self.series.folder(number)

    def _replace(self, path: Path, content: memoryview) -> None:
        """Write a file atomically; tifffile itself ignores incomplete writes to a full disk."""
        unfinished = path.with_name(f".{path.name}.partial")
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                write_at(descriptor, np.frombuffer(content, np.uint8), 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(unfinished, path)
        finally:
            remove(unfinished)

    def close(self) -> None:
        """Do nothing: no file stays open between slices."""


class TiffVolume(VolumeFormat):
    """A folder of slices, or of the entries of a series, or a stack in one file."""

    called, files, endings, volume, trust = "tiff", "TIFF", ("",), "tiff", "trust"
    writer = TiffVolumeWriter

    def recognises(self, path: Path) -> bool:
        """Return whether the file, or some in the folder, start like a TIFF."""
        return bool(tiff_files(path) or series_folders(path)) if path.is_dir() else is_tiff(path)

    def read(self, path: Path) -> StoredVolume:
        """Open the slices."""
        folders = series_folders(path)
        files = tiff_files(folders[0] if folders else path) if path.is_dir() else [path]
        stack: Frames = TiffFolder(files) if path.is_dir() else OnDisk(TiffPages, files[0])
        check_stack(stack, "a volume", str(path))
        if folders:
            stack = _TiffSeries([TiffFolder(tiff_files(folder)) for folder in folders])
        head, dtype = _head(files[0])
        told, unit, size = told_of_file(head)
        shape = _shape_told(told)
        if path.is_file() and len(shape) == 4 and int(np.prod(shape)) == int(np.prod(stack.shape)):
            stack = OnDisk(mapped, path, dtype.str, _offset(path), shape)
        return StoredVolume(LazyFrames(values_of(stack, told), place=str(path)), path, unit, size, told)


def _offset(path: Path) -> int:
    """Return the offset of the voxels of a contiguous stack."""
    with tifffile().TiffFile(path) as file:
        return int(file.pages.first.dataoffsets[0])


def _shape_told(told: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of a series stated in a file; empty if it is missing or impossible."""
    shape = told.get("volume_shape")
    can_be = isinstance(shape, list) and all(isinstance(size, int) and size > 0 for size in shape)
    return tuple(shape) if shape is not None and can_be else ()


class TiffStackWriter(OneFileWriter):
    """A BigTIFF with all slices as consecutive pages; the first states unit, size and scale."""

    def _lay_out(self, place: Path, dtype: np.dtype[Any], scale: Scale | None) -> int:
        shape = (int(np.prod(self.shape[:-2])), *self.shape[-2:])
        told = json.dumps(told_of(self, scale) | self._extra)
        with tifffile().TiffWriter(place, bigtiff=True) as file:
            file.write(None, shape=shape, dtype=dtype.newbyteorder("<"), description=told, **tags_of(self.grid))
        return _offset(place)

    def _found(self, place: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
        told, dtype = _head(place)
        return tuple(told["volume_shape"]), dtype, _offset(place)


class TiffStack(VolumeFormat):
    """All slices in one BigTIFF; read like any other TIFF."""

    called, files, endings, volume, trust = "bigtiff", "TIFF", (".tif", ".tiff"), "volume.tif", "trust.tif"
    writer = TiffStackWriter

    def recognises(self, path: Path) -> bool:
        """Return False: it is read like any other TIFF."""
        return False

    def read(self, path: Path) -> StoredVolume:
        """Open the slices."""
        return TiffVolume().read(path)


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
        """Shape ``(n_steps, n_z, n_y, n_x)``."""
        return (len(self._steps), *self._steps[0].shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a voxel."""
        return self._steps[0].dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        inner = tuple(rest) or (slice(None),)
        if isinstance(first, int):
            return self._steps[first][inner]
        numbers = range(*first.indices(len(self._steps)))
        return np.stack([self._steps[number][inner] for number in numbers])
