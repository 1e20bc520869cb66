"""Scans to DXchange files: written in blocks, complete or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from quietray.errors import FormatError, ResourceError
from quietray.geometry import ConeBeam
from quietray.io.beams import write_beam
from quietray.io.disk import allocate, check_space, disk_errors, generator_name, remove, sync_path, write_at
from quietray.scan import Scan
from quietray.types import Frames

__all__ = ["DETECTORS", "write_scan"]

DETECTORS = ("detector", "detector_white", "detector_dark")  # in /exchange: whose are the views, flats and darks

_BLOCK_BYTES = 2**25
_LARGEST_ATTRIBUTE = 60_000  # HDF5 refuses attributes of 64 KiB


def write_scan(path: str | os.PathLike[str], scan: Scan, *, overwrite: bool = False) -> Path:
    """Write a scan as DXchange HDF5, block by block, with angles in degrees and the type of the counts kept.

    A scan of several detectors says which one took each frame in ``/exchange/detector`` (views), ``detector_white`` and
    ``detector_dark``: whole numbers from 0.  A fan or cone beam is told in ``/exchange/geometry``; the whole layout is
    described in docs/scan-file.md.

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
    stacks = _stacks(scan)
    if target.is_dir():
        raise ResourceError(f"{target} must be a file name, got a folder; add a name such as scan.h5")
    if target.exists() and not overwrite:
        raise ResourceError(f"{target} must not exist yet; give another name, or allow it to be overwritten")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        check_space(target, sum(_nbytes(frames) for frames in stacks.values()))
        unfinished = target.parent / f".{target.name}.{os.getpid()}.partial"
        try:
            offsets = _lay_out(unfinished, scan, stacks)
            descriptor = os.open(unfinished, os.O_WRONLY)
            try:
                for name, frames in stacks.items():
                    _copy(frames, descriptor, offsets[name])
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(unfinished, target)
            sync_path(target.parent)
        finally:
            remove(unfinished)
    return target


def _stacks(scan: Scan) -> dict[str, Frames]:
    parts = {
        "exchange/data": scan.projections,
        "exchange/data_white": scan.flats,
        "exchange/data_dark": scan.darks,
        "truth/volume": scan.truth,
        "truth/line_integrals": scan.clean,
    }
    stacks = {name: frames for name, frames in parts.items() if frames is not None}
    for name, frames in stacks.items():
        if np.dtype(frames.dtype).kind not in "iuf":
            raise FormatError(f"/{name} must be real numbers, got type {np.dtype(frames.dtype)}; convert it")
    return stacks


def _nbytes(frames: Frames) -> int:
    return int(np.prod(frames.shape, dtype=np.int64)) * np.dtype(frames.dtype).itemsize


def _lay_out(path: Path, scan: Scan, stacks: Mapping[str, Frames]) -> dict[str, int]:
    """Write everything but the stacks; return where in the file each stack begins."""
    with h5py.File(path, "w", locking="best-effort") as file:
        file.attrs["generator"] = generator_name()
        file.attrs["provenance"] = _provenance(scan)
        file["implements"] = "exchange:measurement"
        exchange = file.create_group("exchange")
        offsets = {}
        for name, frames in stacks.items():
            group, _, leaf = name.partition("/")
            shape = tuple(int(size) for size in frames.shape)
            dataset, offsets[name] = allocate(file.require_group(group), leaf, shape, np.dtype(frames.dtype))
            dataset.attrs["units"] = {"truth/volume": scan.geometry.grid().unit, "truth/line_integrals": "1"}.get(
                name, "counts"
            )
        exchange["theta"] = np.rad2deg(scan.geometry.angles)
        exchange["theta"].attrs["units"] = "degrees"
        for leaf, numbers in zip(DETECTORS, (scan.detectors, scan.flat_detectors, scan.dark_detectors), strict=True):
            if numbers is not None:
                exchange[leaf] = numbers.astype(np.int32)
                exchange[leaf].attrs["description"] = "number of the detector that took each frame"
        write_beam(file, scan.geometry)
        if scan.geometry.rotation_axis is not None and not isinstance(scan.geometry, ConeBeam):
            exchange.attrs["rotation_axis"] = scan.geometry.rotation_axis
        detector = file.create_group("measurement/instrument/detector")
        _number(detector, "pixel_size_x", scan.geometry.pixel_size, "mm")
        _number(detector, "pixel_size_y", scan.geometry.pixel_size, "mm")
        _number(detector, "exposure_time", scan.exposure, "s")
        if isinstance(scan.provenance.get("sample"), str):
            file["measurement/sample/name"] = scan.provenance["sample"]
        if scan.truth is not None:
            _describe_truth(file["truth/volume"], scan)
    return offsets


def _number(group: h5py.Group, name: str, value: float | None, unit: str) -> None:
    if value is not None:
        group[name] = value
        group[name].attrs["units"] = unit


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
    record = {key: value for key, value in scan.provenance.items() if key not in ("truth", "format", "data", "angles")}
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


def _copy(frames: Frames, descriptor: int, offset: int) -> None:
    """Copy a stack in blocks of frames, in its own type."""
    n_frames = int(frames.shape[0])
    frame_bytes = max(_nbytes(frames) // n_frames, 1)
    step = max(1, _BLOCK_BYTES // frame_bytes)
    for start in range(0, n_frames, step):
        try:
            block = np.asarray(frames[start : start + step], dtype=frames.dtype)
        except (OSError, RuntimeError) as error:
            raise FormatError(f"the scan must be readable to be written again, got: {error}") from error
        write_at(descriptor, block, offset + start * frame_bytes)
