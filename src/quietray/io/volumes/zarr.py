"""Volumes in Zarr: writes OME-NGFF 0.5; reads 0.5, 0.4 and plain arrays."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from quietray.io.containers import Container, open_frames
from quietray.io.disk import generator_name, remove, sync_path
from quietray.io.frames import LazyFrames
from quietray.io.volumes.base import StoredVolume, VolumeFormat
from quietray.io.volumes.containers import volume_in
from quietray.io.volumes.writer import VolumeWriter
from quietray.io.zarr import is_zarr, open_zarr
from quietray.types import Volume

__all__ = ["ZarrVolume", "ZarrVolumeWriter"]

_LARGEST_TILE = 1024
_SMALL = 256  # largest width of the slices of the last level
_CUBE = (32, 64, 64)  # chunk size of the levels
_SHARD = (32, 512, 512)  # voxels of a level per file


class ZarrVolumeWriter(VolumeWriter):
    """OME-NGFF 0.5: the volume and levels of successively half the size, for viewers.

    Each chunk of the volume holds one slice, so slabs never share a chunk and no write can damage another slab.  The
    levels are written when the volume is complete: means of up to 2 x 2 x 2 voxels, in cubic chunks for viewers, many
    of which share a file.
    """

    apart = True
    share_of_size = 0.5  # noise hardly compresses, a masked volume compresses well
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
        except Exception as error:  # zarr raises many types of exceptions
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

    def _complete(self) -> None:
        """Write the levels; incomplete ones from a killed process are removed."""
        for level in range(1, len(self._levels)):
            remove(self.place / str(level))
            self._halve(level)

    def _halve(self, level: int) -> None:
        import zarr
        from zarr.codecs import BloscCodec

        group = zarr.open_group(str(self.place), mode="r+")
        finer: Any = group[str(level - 1)]
        shape = self._levels[level]
        outer = [1] * (len(shape) - 3)
        coarser = group.create_array(
            str(level),
            shape=shape,
            dtype="float32",
            chunks=(*outer, *_CUBE),
            shards=(*outer, *_SHARD),
            compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
            dimension_names=tuple(self.axes),
            fill_value=0.0,
        )
        steps = [range(0, size, step) for size, step in zip(shape, (*outer, *_SHARD), strict=True)]
        for first in itertools.product(*steps):
            to = [slice(one, one + step) for one, step in zip(first, (*outer, *_SHARD), strict=True)]
            fine = [slice(2 * one.start, 2 * one.stop) for one in to[-3:]]
            block = np.asarray(finer[(*to[:-3], *fine)])
            coarser[tuple(to)] = halved(block)
        for folder, _, files in os.walk(self.place / str(level)):
            for name in files:
                sync_path(Path(folder) / name)
            sync_path(Path(folder))

    @property
    def _levels(self) -> list[tuple[int, ...]]:
        """Return the shapes of the volume and of its levels, which are halved until slices are small."""
        found = [self.shape]
        while max(found[-1][-2:]) > _SMALL:
            found.append((*self.shape[:-3], *((size + 1) // 2 for size in found[-1][-3:])))
        return found

    def close(self) -> None:
        """Drop the array, as its folder may be renamed now."""
        self._array = None

    def _attributes(self) -> dict[str, Any]:
        size, steps = self.grid.voxel_size, self.grid.steps or (1.0, 1.0, 1.0)
        axis = {"type": "space", "unit": "millimeter"} if size else {"type": "space"}
        first = {"t": [{"name": "t", "type": "time"}], "c": [{"name": "c", "type": "channel"}]}.get(self.axes[0], [])
        levels = []
        for level in range(len(self._levels)):
            scale, middle = 2.0**level, (2.0**level - 1) / 2  # centre of a block
            changes: list[dict[str, Any]] = [
                {"type": "scale", "scale": [1.0] * len(first) + [scale * n for n in steps]}
            ]
            if level:
                changes.append({"type": "translation", "translation": [0.0] * len(first) + [middle * n for n in steps]})
            levels.append({"path": str(level), "coordinateTransformations": changes})
        multiscale = {
            "name": self.path.name.removeprefix(".new-").removesuffix(".zarr"),
            "axes": [*first, *({"name": name, **axis} for name in "zyx")],
            "datasets": levels,
        }
        told = {
            "unit": self.grid.unit,
            "voxel_size": size,
            "spacing": self.grid.spacing,
            "generator": generator_name(),
            **self._extra,
        }
        return {"ome": {"version": "0.5", "multiscales": [multiscale]}, "quietray": told}


def halved(block: Float[np.ndarray, "*fine"]) -> Float[np.ndarray, "*coarse"]:
    """Return means of 2 x 2 x 2 voxels along the last three axes; at odd ends, of the existing voxels.

    Examples
    --------
    >>> halved(np.arange(6, dtype=np.float32).reshape(1, 2, 3)).tolist()
    [[[2.0, 3.5]]]
    """
    out = block.astype(np.float64)
    for axis in (-3, -2, -1):
        n = out.shape[axis]
        even = np.add.reduceat(out, np.arange(0, n, 2), axis=axis)
        counts = np.full((n + 1) // 2, 2.0)
        counts[-1] -= n % 2
        out = even / counts.reshape(-1, *[1] * (-axis - 1))
    return out.astype(np.float32)


class ZarrVolume(VolumeFormat):
    """An OME-Zarr image, or a Zarr array."""

    called, files = "zarr", "Zarr"
    writer = ZarrVolumeWriter

    def recognises(self, path: Path) -> bool:
        """Return whether a folder contains Zarr metadata."""
        return is_zarr(path)

    def read(self, path: Path) -> StoredVolume:
        """Open the array of full resolution and the other levels."""
        container = open_zarr(path)
        *spacing, size = _ome_steps(container) or (None,)
        found = volume_in(container, _first_level(container), size)
        facts = {"spacing": spacing[0], **found.facts} if spacing and spacing[0] != size else found.facts
        return dataclasses.replace(found, facts=facts, coarser=_coarser(container, len(found.shape)))


def _first_level(container: Container) -> str | None:
    """Return the array of full resolution, according to OME-NGFF 0.5 or 0.4, or the only array."""
    multiscale = _multiscale(container)
    if multiscale is not None:
        path = str(_first_of(multiscale, "datasets").get("path", ""))
        return path if container.array(path) is not None else None
    stacks = [name for name, (shape, _) in container.listing().items() if len(shape) == 3]
    return stacks[0] if len(stacks) == 1 else None


def _coarser(container: Container, n_axes: int) -> tuple[LazyFrames, ...]:
    """Return the coarser levels of an OME-Zarr image that exist."""
    levels = (_multiscale(container) or {}).get("datasets")
    levels = levels[1:] if isinstance(levels, list) else []
    names = [str(level.get("path", "")) if isinstance(level, Mapping) else "" for level in levels]
    found = [(name, container.array(name)) for name in names]
    kept = itertools.takewhile(lambda level: level[1] is not None and len(level[1].shape) == n_axes, found)
    return tuple(open_frames(container, name, "volume") for name, _ in kept)


def _multiscale(container: Container) -> Mapping[str, Any] | None:
    attributes = container.attributes("/")
    found = attributes.get("ome", attributes)
    scales = found.get("multiscales") if isinstance(found, Mapping) else None
    return scales[0] if isinstance(scales, list) and scales and isinstance(scales[0], Mapping) else None


def _first_of(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the first table of a list of tables; an empty table if there is no such list."""
    found = told.get(name)
    return found[0] if isinstance(found, list) and found and isinstance(found[0], Mapping) else {}


def _ome_steps(container: Container) -> tuple[float, float] | None:
    """Return slice distance and voxel edge in mm, from OME-NGFF metadata with square voxels."""
    multiscale = _multiscale(container) or {}
    per_mm = {"millimeter": 1.0, "micrometer": 1e-3, "nanometer": 1e-6, "meter": 1e3}
    told = multiscale.get("axes")
    axes = [one if isinstance(one, Mapping) else {} for one in told] if isinstance(told, list) else []
    space = [axis.get("type", "space") == "space" for axis in axes]
    factors = {per_mm.get(str(axis.get("unit"))) for axis, one in zip(axes, space, strict=True) if one}
    scale = _first_of(_first_of(multiscale, "datasets"), "coordinateTransformations").get("scale")
    numbers = scale if isinstance(scale, list) and all(isinstance(step, (int, float)) for step in scale) else []
    steps = [step for step, one in zip(numbers, space, strict=False) if one]
    factor = factors.pop() if len(factors) == 1 else None
    if factor is None or len(steps) < 2 or steps[-1] != steps[-2]:
        return None
    return float(steps[0]) * factor, float(steps[-1]) * factor
