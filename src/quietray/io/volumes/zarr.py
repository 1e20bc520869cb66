"""Volumes in Zarr: OME-NGFF 0.5 written, 0.4 and plain arrays read as well."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quietray.io.containers import Container
from quietray.io.disk import generator_name, sync_path
from quietray.io.volumes.base import StoredVolume, VolumeFormat
from quietray.io.volumes.containers import volume_in
from quietray.io.volumes.writer import VolumeWriter
from quietray.io.zarr import is_zarr, open_zarr
from quietray.types import Volume

__all__ = ["ZarrVolume", "ZarrVolumeWriter"]

_LARGEST_TILE = 1024


class ZarrVolumeWriter(VolumeWriter):
    """OME-NGFF 0.5 with one resolution level.

    A chunk holds one slice: slabs of any height then never share a chunk, and no write can damage another slab.
    """

    share_of_size = 0.5  # noise compresses badly, a masked volume well
    _handles = ("_array",)
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
        size, steps = self.grid.voxel_size, self.grid.steps or (1.0, 1.0, 1.0)
        axis = {"type": "space", "unit": "millimeter"} if size else {"type": "space"}
        first = {"t": [{"name": "t", "type": "time"}], "c": [{"name": "c", "type": "channel"}]}.get(self.axes[0], [])
        scale = {"type": "scale", "scale": [1.0] * len(first) + list(steps)}
        multiscale = {
            "name": self.path.name.removeprefix(".new-").removesuffix(".zarr"),
            "axes": [*first, *({"name": name, **axis} for name in "zyx")],
            "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
        }
        told = {
            "unit": self.grid.unit,
            "voxel_size": size,
            "spacing": self.grid.spacing,
            "generator": generator_name(),
            **self._extra,
        }
        return {"ome": {"version": "0.5", "multiscales": [multiscale]}, "quietray": told}


class ZarrVolume(VolumeFormat):
    """An OME-Zarr image, or a Zarr array."""

    called, files = "zarr", "Zarr"
    writer = ZarrVolumeWriter

    def recognises(self, path: Path) -> bool:
        """Return whether a folder carries the metadata of Zarr."""
        return is_zarr(path)

    def read(self, path: Path) -> StoredVolume:
        """Open the array of full resolution."""
        container = open_zarr(path)
        return volume_in(container, _first_level(container), _ome_size(container))


def _first_level(container: Container) -> str | None:
    """Return the array of full resolution: as OME-NGFF 0.5 or 0.4 tells, or the only array there is."""
    multiscale = _multiscale(container)
    if multiscale is not None:
        path = str(multiscale.get("datasets", [{}])[0].get("path", ""))
        return path if container.array(path) is not None else None
    stacks = [name for name, (shape, _) in container.listing().items() if len(shape) == 3]
    return stacks[0] if len(stacks) == 1 else None


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
