"""HDF5 or Zarr datasets in any layout, named by the user; a Zarr array needs no name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from quietray.errors import FormatError
from quietray.io.containers import Container, open_frames, require_array
from quietray.io.frames import LazyFrames
from quietray.io.scans.base import ScanReader, Source
from quietray.io.scans.keys import split_by_key
from quietray.io.scans.lookup import angles_from, side_frames
from quietray.io.scans.raw import Flags, RawScan

__all__ = ["Datasets", "unknown_layout"]


class Datasets(ScanReader):
    """Datasets that the user names; flats and darks may be in the same stack, identified by an image key."""

    files = ("HDF5", "Zarr")

    def recognises(self, source: Source, flags: Flags) -> bool:
        """Return whether the radiographs are a named dataset, or an unnamed Zarr array."""
        if source.container is None:
            return False
        if flags.data is not None:
            return source.container.array(flags.data) is not None
        return list(source.container.listing()) == ["/"]

    def read(self, source: Source, flags: Flags) -> RawScan:
        """Read the scan."""
        if flags.data is None:
            flags = dataclasses.replace(flags, data="/", image_key=None)
        return _read_named(source.opened, flags)


def unknown_layout(container: Container) -> FormatError:
    """Return the error for a file of unknown layout: its content, and the flags that would read it."""
    listing: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]] = container.listing()
    stacks = [f"{path} {shape} {dtype}" for path, (shape, dtype) in listing.items() if len(shape) == 3]
    links = "".join(f"; {sentence}" for sentence in container.broken_links()[:3])
    if not stacks:
        return FormatError(
            f"{container.path} must hold a stack of radiographs (view, row, col), got no three-dimensional dataset"
            f"{links}; give the file that holds the raw data"
        )
    lists = [path for path, (shape, _) in listing.items() if len(shape) == 1 and shape[0] > 1]
    return FormatError(
        f"{container.path} must be laid out as DXchange or NXtomo, got these stacks: {', '.join(stacks[:12])}{links}; "
        "pass --data PATH --angles PATH with --flats PATH --darks PATH, or with --image-key PATH when flats and darks "
        f"lie in the same stack (lists in the file: {', '.join(lists[:12]) or 'none'})"
    )


def _read_named(container: Container, flags: Flags) -> RawScan:
    assert flags.data is not None
    data = open_frames(container, flags.data, "data")
    key_name = flags.image_key or _sibling_key(container, flags.data, len(data))
    notes: tuple[str, ...] = ()
    chosen = np.arange(len(data))
    flats: LazyFrames | None = None
    darks: LazyFrames | None = None
    taken: np.ndarray | None = None
    flats_taken: np.ndarray | None = None
    if key_name:
        if flags.order == "sinogram":
            raise FormatError(f"--order must be left out if {key_name} marks the frames; pass flats with --flats")
        keys = np.asarray(require_array(container, key_name, "--image-key")[()]).ravel()
        sorted_frames = split_by_key(keys, len(data), f"{container.path}:/{key_name.strip('/')}")
        chosen, notes = sorted_frames.projections, sorted_frames.notes
        taken = sorted_frames.projections
        flats_taken = None if flags.flats or not sorted_frames.flats.size else sorted_frames.flats
        flats = data.pick(sorted_frames.flats) if sorted_frames.flats.size else None
        darks = data.pick(sorted_frames.darks) if sorted_frames.darks.size else None
    else:
        data = flags.views(data)
        chosen = np.arange(len(data))
    projections = flags.views(data.pick(chosen)) if key_name else data
    angles = angles_from(container, flags.angles, None, chosen, data)
    facts = {
        "format": f"datasets in {container.kind}",
        "data": flags.data,
        "image_key": key_name,
        "angles": angles.place,
    }
    return RawScan(
        projections,
        angles.radians(flags.angle_unit),
        flats=side_frames(container, flags.flats, None, "flats") if flags.flats else flats,
        darks=side_frames(container, flags.darks, None, "darks") if flags.darks else darks,
        provenance={key: fact for key, fact in facts.items() if fact},
        notes=notes,
        taken=taken,
        flats_taken=flats_taken,
    )


def _sibling_key(container: Container, data: str, n_frames: int) -> str | None:
    """Return the image key next to the data, so that flats are not taken for views."""
    group = data.strip("/").rpartition("/")[0]
    for name in ("image_key_control", "image_key"):
        path = f"{group}/{name}".strip("/")
        array = container.array(path)
        if array is not None and tuple(array.shape) == (n_frames,):
            return path
    return None
