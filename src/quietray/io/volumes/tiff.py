"""Volumes in TIFF: a file for each slice, in folders of their own for a series; stacks are read as well."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError
from quietray.io.disk import generator_name, remove, sync_path, write_at
from quietray.io.frames import LazyFrames, OnDisk, check_stack
from quietray.io.tiff import TiffFolder, TiffPages, is_tiff, series_folders, tiff_files
from quietray.io.volumes.base import StoredVolume, VolumeFormat
from quietray.io.volumes.writer import VolumeWriter
from quietray.types import Frames, Volume

__all__ = ["TiffVolume", "TiffVolumeWriter"]


class TiffVolumeWriter(VolumeWriter):
    """A folder with ``slice_00000.tif`` and so on, in folders of their own for a series; each says its unit."""

    def _create(self) -> None:
        self.partial.mkdir()
        for number in range(0 if self.series is None else self.series.size):
            self._folder(number).mkdir()
        sync_path(self.partial.parent)

    def _reopen(self) -> None:
        import tifffile

        try:
            for path in sorted(self._folder(0).glob("slice_*.tif"))[:1]:
                with tifffile.TiffFile(path) as file:
                    page = file.pages.first
                    self._check_found(tuple(json.loads(page.description)["volume_shape"]), page.dtype)
        except (OSError, KeyError, ValueError) as error:
            raise self._not_resumable(error) from error

    def _open(self) -> None:
        """Do nothing: every slice is a file of its own."""

    def _store(self, z0: int, block: Volume) -> None:
        import tifffile

        size, n_z = self.grid.voxel_size, self.grid.shape[0]
        for place, frame in enumerate(block, z0):
            number, z = divmod(place, n_z)
            # Not "shape": tifffile would take that for the shape of this one file.
            told = {"unit": self.grid.unit, "voxel_size": size, "volume_shape": self.shape, "z": z}
            told |= {"spacing": self.grid.spacing} if self.grid.spacing else {}
            told |= {} if self.series is None else {self.series.name: number}
            told |= {"generator": generator_name()} | (self._extra if z == 0 else {})
            encoded = BytesIO()
            tifffile.imwrite(
                encoded,
                frame,
                photometric="minisblack",
                description=json.dumps(told),
                metadata=None,
                resolution=(10 / size, 10 / size) if size else None,
                resolutionunit="CENTIMETER" if size else None,
            )
            self._replace(self._folder(number) / f"slice_{z:05d}.tif", encoded.getbuffer())
        for number in range(z0 // n_z, (z0 + len(block) - 1) // n_z + 1):
            sync_path(self._folder(number))

    def _folder(self, number: int) -> Path:
        return self.place if self.series is None else self.place / self.series.folder(number)

    def _replace(self, path: Path, content: memoryview) -> None:
        """Write a file whole or not at all; tifffile itself passes over a disk that takes only a part."""
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
    """A folder of slices, or of the steps of a series, or a stack in one file."""

    called, files, endings, volume, trust = "tiff", "TIFF", ("",), "tiff", "trust"
    writer = TiffVolumeWriter

    def recognises(self, path: Path) -> bool:
        """Return whether the file, or some in the folder, start like a TIFF."""
        return bool(tiff_files(path) or series_folders(path)) if path.is_dir() else is_tiff(path)

    def read(self, path: Path) -> StoredVolume:
        """Open the slices."""
        import tifffile

        folders = series_folders(path)
        files = tiff_files(folders[0] if folders else path) if path.is_dir() else [path]
        stack: Frames = TiffFolder(files) if path.is_dir() else OnDisk(TiffPages, files[0])
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
