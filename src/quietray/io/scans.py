"""Scans to files: written in blocks, complete or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from quietray.errors import FormatError, ResourceError
from quietray.io.disk import check_space, disk_errors, generator_name, remove, sync_path
from quietray.io.dxchange import lay_out_exchange
from quietray.io.nxtomo import lay_out_nxtomo
from quietray.io.stacks import Stack, lay_out_stack
from quietray.scan import Scan

__all__ = ["write_scan"]

_FRAMES = ("projections", "flats", "darks")
_NEXUS = (".nx", ".nxs")
_LARGEST_ATTRIBUTE = 60_000  # HDF5 refuses attributes of 64 KiB
_ELSEWHERE = ("truth", "format", "data", "angles", "image_key")  # of the provenance: the file says it in other places


def write_scan(path: str | os.PathLike[str], scan: Scan, *, overwrite: bool = False) -> Path:
    """Write a scan block by block as HDF5: NXtomo where the name ends in ``.nx`` or ``.nxs``, else DXchange.

    Angles are in degrees.  DXchange keeps the type of the counts; in NXtomo radiographs, flats and darks share one.
    Which detector took each frame, where several did, and a fan or cone beam are told in groups that
    docs/scan-file.md describes.

    The file appears under its name when it is complete; before that it is a hidden file in the same folder.  Arrays
    lie in one piece, so that a band of rows is read without its neighbours.

    Parameters
    ----------
    path
        The new file; missing folders are made.
    scan
        The scan; its arrays may be lazy.
    overwrite
        Replace a file of that name.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ResourceError
        The file exists, or the disk is full or not writable.
    FormatError
        The scan cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from quietray.geometry import ParallelBeam
    >>> beam = ParallelBeam(np.linspace(0, np.pi, 4, endpoint=False), n_rows=2, n_cols=3)
    >>> path = write_scan(Path(tempfile.mkdtemp()) / "new.h5", Scan(np.ones((4, 2, 3), np.uint16), beam))
    >>> with h5py.File(path) as file:
    ...     file["exchange/theta"][:].tolist()
    [0.0, 45.0, 90.0, 135.0]
    """
    target = Path(path)
    needed = _checked_size(scan)
    if target.is_dir():
        raise ResourceError(f"{target} must be a file name, got a folder; add a name such as scan.h5")
    if target.exists() and not overwrite:
        raise ResourceError(f"{target} must not exist yet; give another name, or allow it to be overwritten")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        check_space(target, needed)
        unfinished = target.parent / f".{target.name}.{os.getpid()}.partial"
        try:
            stacks = _lay_out(unfinished, scan, nexus=target.suffix.lower() in _NEXUS)
            descriptor = os.open(unfinished, os.O_WRONLY)
            try:
                for stack in stacks:
                    stack.copy_to(descriptor)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(unfinished, target)
            sync_path(target.parent)
        finally:
            remove(unfinished)
    return target


def _checked_size(scan: Scan) -> int:
    """Return the bytes of all arrays, which must be of real numbers."""
    size = 0
    stacks = [stack for name in _FRAMES if (stack := getattr(scan, name)) is not None]
    widest = np.result_type(*(np.dtype(stack.dtype) for stack in stacks)).itemsize  # which NXtomo gives to all
    for name in (*_FRAMES, "truth", "clean"):
        frames = getattr(scan, name)
        if frames is None:
            continue
        dtype = np.dtype(frames.dtype)
        if dtype.kind not in "iuf":
            raise FormatError(f"the {name} of a scan must be real numbers, got type {dtype}; convert them")
        size += int(np.prod(frames.shape, dtype=np.int64)) * max(dtype.itemsize, widest if name in _FRAMES else 0)
    return size


def _lay_out(path: Path, scan: Scan, nexus: bool) -> list[Stack]:
    """Write everything but the frames; return where these belong."""
    with h5py.File(path, "w", locking="best-effort") as file:
        file.attrs["generator"] = generator_name()
        file.attrs["provenance"] = _provenance(scan)
        stacks = (lay_out_nxtomo if nexus else lay_out_exchange)(file, scan)
        if scan.truth is not None:
            stacks += lay_out_stack(file.require_group("truth"), "volume", [scan.truth], scan.geometry.grid().unit)
            _describe_truth(file["truth/volume"], scan)
        if scan.clean is not None:
            stacks += lay_out_stack(file.require_group("truth"), "line_integrals", [scan.clean], "1")
    return stacks


def _describe_truth(dataset: h5py.Dataset, scan: Scan) -> None:
    known = scan.provenance.get("truth")
    known = known if isinstance(known, Mapping) else {}
    unit = known.get("unit") or scan.geometry.grid().unit
    voxel_size = known.get("voxel_size") or scan.geometry.grid().voxel_size
    dataset.attrs["unit"] = dataset.attrs["units"] = unit
    if voxel_size is not None:
        dataset.attrs["voxel_size"] = float(voxel_size)


def _provenance(scan: Scan) -> str:
    """Return where the scan comes from as JSON, without what the file says in other places."""
    record = {key: value for key, value in scan.provenance.items() if key not in _ELSEWHERE}
    record.setdefault("source", scan.source)
    if scan.notes:
        record["notes"] = list(scan.notes)
    text = json.dumps(record, default=_as_json)
    if len(text.encode()) <= _LARGEST_ATTRIBUTE:
        return text
    short = {key: value for key, value in record.items() if len(json.dumps(value, default=_as_json)) < 2000}
    return json.dumps({**short, "left_out": sorted(set(record) - set(short))}, default=_as_json)[:_LARGEST_ATTRIBUTE]


def _as_json(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return dict(value) if isinstance(value, Mapping) else str(value)
