"""Volumes in HDF5 files and Zarr folders, which share their layouts."""

from __future__ import annotations

from typing import Any

from quietray.errors import FormatError
from quietray.io.containers import Container, as_text, open_frames
from quietray.io.volumes.base import StoredVolume, told_of_file

__all__ = ["volume_in"]


def volume_in(container: Container, level: str | None = None, voxel_size: float | None = None) -> StoredVolume:
    """Return the volume in a container: the truth of a simulated scan, ``/exchange/data``, or a named array.

    Parameters
    ----------
    container
        Container opened for reading.
    level
        Array to use if there is neither.
    voxel_size
        Voxel size in mm, if given neither by the array nor by our own metadata.

    Raises
    ------
    FormatError
        There is no volume.
    """
    if container.array("truth/volume") is not None:
        return _stored(container, "truth/volume", {}, voxel_size)
    if container.array("exchange/theta") is not None:
        raise FormatError(
            f"{container.path} must hold a volume, got a scan without /truth/volume; "
            "give a reconstructed volume, or a simulated scan"
        )
    if container.array("exchange/data") is not None:
        return _stored(container, "exchange/data", {}, voxel_size)
    if level is not None:
        return _stored(container, level, container.attributes("/").get("quietray", {}), voxel_size)
    stacks = [f"{name} {shape}" for name, (shape, _) in container.listing().items() if len(shape) == 3]
    raise FormatError(
        f"{container.path} must hold a volume in /exchange/data, /truth/volume or as OME-Zarr, "
        f"got: {', '.join(stacks[:8]) or 'no three-dimensional dataset'}; copy the volume to /exchange/data"
    )


def _stored(container: Container, name: str, facts: Any, voxel_size: float | None) -> StoredVolume:
    frames = open_frames(container, name, "volume")
    attributes = container.attributes(name)
    facts, *_ = told_of_file(facts)
    told = {**container.attributes("/"), **facts} if container.kind == "HDF5" else facts
    unit = as_text(attributes.get("unit", attributes.get("units", told.get("unit"))))
    *_, size = told_of_file({"voxel_size": attributes.get("voxel_size", told.get("voxel_size"))})
    *_, spacing = told_of_file({"voxel_size": attributes.get("spacing")})
    told |= {"spacing": spacing} if spacing else {}
    return StoredVolume(frames, container.path, unit or None, size or voxel_size, told)
