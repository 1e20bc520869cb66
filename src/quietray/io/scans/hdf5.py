"""Scans in HDF5, created by h5py and filled by plain writes; with ground truth and provenance in our own groups."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from quietray.io.disk import generator_name
from quietray.io.scans.base import ScanWriter
from quietray.io.stacks import Stack, lay_out_stack
from quietray.scan import Scan

__all__ = ["Hdf5ScanWriter"]

_LARGEST_ATTRIBUTE = 60_000  # HDF5 does not accept attributes of 64 KiB
_ELSEWHERE = ("truth", "format", "data", "angles", "image_key")  # provenance stored elsewhere


class Hdf5ScanWriter(ScanWriter):
    """An HDF5 layout: where the parts of a scan are stored."""

    @abstractmethod
    def lay_out(self, file: h5py.File, scan: Scan) -> list[Stack]:
        """Write everything except the frames; return where these belong."""

    def write(self, path: Path, scan: Scan) -> None:
        """Write a scan block by block."""
        with h5py.File(path, "w", locking="best-effort") as file:
            file.attrs["generator"] = generator_name()
            file.attrs["provenance"] = _provenance(scan)
            stacks = self.lay_out(file, scan)
            if scan.truth is not None:
                stacks += lay_out_stack(file.require_group("truth"), "volume", [scan.truth], scan.geometry.grid().unit)
                _describe_truth(file["truth/volume"], scan)
            if scan.clean is not None:
                stacks += lay_out_stack(file.require_group("truth"), "line_integrals", [scan.clean], "1")
        descriptor = os.open(path, os.O_WRONLY)
        try:
            for stack in stacks:
                stack.copy_to(descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _describe_truth(dataset: h5py.Dataset, scan: Scan) -> None:
    known = scan.provenance.get("truth")
    known = known if isinstance(known, Mapping) else {}
    unit = known.get("unit") or scan.geometry.grid().unit
    voxel_size = known.get("voxel_size") or scan.geometry.grid().voxel_size
    dataset.attrs["unit"] = dataset.attrs["units"] = unit
    if voxel_size is not None:
        dataset.attrs["voxel_size"] = float(voxel_size)


def _provenance(scan: Scan) -> str:
    """Return the provenance of the scan as JSON, without what the file stores elsewhere."""
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
