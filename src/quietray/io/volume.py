"""Volumes to disk, slab by slab: what is written stays written, and the name appears when all of it is there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from quietray.errors import SettingsError
from quietray.geometry import VolumeGrid
from quietray.io.disk import allocate, generator_name, remove, sync_path, write_at
from quietray.io.writer import SeriesAxis, VolumeWriter
from quietray.types import Volume

__all__ = ["SeriesAxis", "VolumeFormat", "VolumeWriter", "open_volume_writer"]

VolumeFormat = Literal["zarr", "h5", "tiff"]
_LARGEST_TILE = 1024


def open_volume_writer(
    path: str | os.PathLike[str],
    grid: VolumeGrid,
    *,
    format: VolumeFormat,
    resume: bool = False,
    extra: Mapping[str, Any] | None = None,
    series: SeriesAxis | None = None,
) -> VolumeWriter:
    """Start, or take up again, a volume on disk.

    Parameters
    ----------
    path
        Final name: a Zarr folder, an HDF5 file, or a folder of TIFF slices.  Until :meth:`VolumeWriter.finish` the
        volume has a hidden name in the same folder (``.volume.zarr.partial``).
    grid
        Shape ``(z, y, x)`` and voxel size in mm; they set the unit of the attenuation.
    format
        ``zarr`` (OME-NGFF 0.5), ``h5`` (``/exchange/data``) or ``tiff`` (one file per slice).
    resume
        Keep slabs of an unfinished (or finished) volume of that name; otherwise start anew.
    extra
        Facts to store with the volume; must be JSON.
    series
        Of a volume ``(t or c, z, y, x)``, whose entries each have that grid; its slices are counted on from one entry
        to the next.  In TIFF, each entry has a folder.

    Raises
    ------
    ResourceError
        A finished volume is in the way, or the disk is full or not writable.
    FormatError
        The volume to take up again has another shape.
    SettingsError
        The format is unknown.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "volume.h5"
    >>> with open_volume_writer(path, VolumeGrid((2, 4, 4), voxel_size=0.01), format="h5") as writer:
    ...     writer.write(0, np.ones((2, 4, 4), np.float32))
    ...     writer.finish().name
    'volume.h5'
    """
    if format not in _WRITERS:
        raise SettingsError(f"the format of a volume must be one of {', '.join(_WRITERS)}, got '{format}'")
    return _WRITERS[format](Path(path), grid, resume=resume, extra=dict(extra or {}), series=series)


class Hdf5VolumeWriter(VolumeWriter):
    """``/exchange/data`` in one piece: a kill at any moment leaves a file that opens."""

    _descriptor: int | None = None
    _offset = 0

    def _create(self) -> None:
        with h5py.File(self.partial, "w", locking="best-effort") as file:
            file.attrs["generator"] = generator_name()
            for key, value in self._extra.items():
                file.attrs[key] = value if isinstance(value, (str, int, float)) else json.dumps(value)
            group = file.create_group("exchange")
            dataset, self._offset = allocate(group, "data", self.shape, np.dtype("<f4"))
            dataset.attrs["units"] = dataset.attrs["unit"] = self.grid.unit
            dataset.attrs["axes"] = ":".join(self.axes)
            dataset.attrs["voxel_size"] = self.grid.voxel_size or 0.0
        os.truncate(self.partial, max(self.partial.stat().st_size, self._offset + 4 * int(np.prod(self.shape))))
        sync_path(self.partial)
        sync_path(self.partial.parent)

    def _reopen(self) -> None:
        try:
            with h5py.File(self.place, "r", locking="best-effort") as file:
                dataset = file["exchange/data"]
                self._check_found(dataset.shape, dataset.dtype)
                self._offset = int(dataset.id.get_offset())
        except (OSError, KeyError, TypeError) as error:
            raise self._not_resumable(error) from error

    def _open(self) -> None:
        if self._descriptor is None:
            self._descriptor = os.open(self.place, os.O_WRONLY)

    def _store(self, z0: int, block: Volume) -> None:
        assert self._descriptor is not None
        write_at(self._descriptor, block, self._offset + 4 * self.grid.n_pixels * z0)
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Release the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


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


class ZarrVolumeWriter(VolumeWriter):
    """OME-NGFF 0.5 with one resolution level.

    A chunk holds one slice: slabs of any height then never share a chunk, and no write can damage another slab.
    """

    share_of_size = 0.5  # noise compresses badly, a masked volume well
    _array: Any = None

    def _create(self) -> None:
        import zarr
        from zarr.codecs import BloscCodec

        *outer, n_y, n_x = self.shape
        group = zarr.create_group(store=str(self.partial), zarr_format=3, attributes=self._attributes())
        self._array = group.create_array(
            "0",
            shape=self.shape,
            dtype="float32",
            chunks=(*[1] * len(outer), min(n_y, _LARGEST_TILE), min(n_x, _LARGEST_TILE)),
            compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
            dimension_names=tuple(self.axes),
            fill_value=0.0,
        )
        for name in ("zarr.json", "0/zarr.json", "0", "."):
            sync_path(self.partial / name)
        sync_path(self.partial.parent)

    def _reopen(self) -> None:
        import zarr

        try:
            self._array = zarr.open_array(store=str(self.place), path="0", mode="r+")
        except Exception as error:  # zarr raises many kinds
            raise self._not_resumable(error) from error
        self._check_found(self._array.shape, self._array.dtype)

    def _open(self) -> None:
        if self._array is None:
            self._reopen()

    def _store(self, z0: int, block: Volume) -> None:
        chunks, n_z, done = self.place / "0" / "c", self.grid.shape[0], 0
        while done < len(block):
            number, first = divmod(z0 + done, n_z)
            some = block[done : done + n_z - first]
            entry = () if self.series is None else (number,)
            self._array[(*entry, slice(first, first + len(some)))] = some
            above = chunks.joinpath(*map(str, entry))
            for z in range(first, first + len(some)):
                for folder, _, files in os.walk(above / str(z)):
                    for name in files:
                        sync_path(Path(folder) / name)
                    sync_path(Path(folder))
            for outer in {above, chunks}:
                if outer.exists():
                    sync_path(outer)
            done += len(some)

    def close(self) -> None:
        """Forget the array; its folder may be renamed now."""
        self._array = None

    def _attributes(self) -> dict[str, Any]:
        size = self.grid.voxel_size
        axis = {"type": "space", "unit": "millimeter"} if size else {"type": "space"}
        first = {"t": [{"name": "t", "type": "time"}], "c": [{"name": "c", "type": "channel"}]}.get(self.axes[0], [])
        scale = {"type": "scale", "scale": [1.0] * len(first) + [size or 1.0] * 3}
        multiscale = {
            "name": self.path.name.removesuffix(".zarr"),
            "axes": [*first, *({"name": name, **axis} for name in "zyx")],
            "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
        }
        told = {"unit": self.grid.unit, "voxel_size": size, "generator": generator_name(), **self._extra}
        return {"ome": {"version": "0.5", "multiscales": [multiscale]}, "quietray": told}


_WRITERS: dict[str, type[VolumeWriter]] = {
    "zarr": ZarrVolumeWriter,
    "h5": Hdf5VolumeWriter,
    "tiff": TiffVolumeWriter,
}
