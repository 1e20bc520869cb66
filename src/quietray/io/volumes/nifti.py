"""Volumes as uncompressed single-file NIfTI; needs the extra ``nifti``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from quietray.errors import FormatError, require
from quietray.io.frames import LazyFrames, OnDisk, check_stack
from quietray.io.mapped import mapped
from quietray.io.volumes.base import StoredVolume, VolumeFormat
from quietray.io.volumes.one_file import OneFileWriter
from quietray.io.volumes.stored import Scale, Scaled

__all__ = ["Nifti", "NiftiWriter"]

_LARGEST = 2**15 - 1  # largest size of an axis in NIfTI-1


class NiftiWriter(OneFileWriter):
    """Writer of a header followed by the voxels, x fastest; y and z decrease from the largest, as in slices."""

    def _lay_out(self, place: Path, dtype: np.dtype[Any], scale: Scale | None) -> int:
        nibabel = require("nibabel", "nifti")
        header = (nibabel.Nifti1Header if max(self.shape) <= _LARGEST else nibabel.Nifti2Header)()
        *outer, n_z, n_y, n_x = self.shape
        header.set_data_dtype(dtype)
        header.set_data_shape((n_x, n_y, n_z, *outer))
        z, y, x = self.grid.steps or (1.0, 1.0, 1.0)
        to_mm = np.diag([x, -y, -z, 1.0])
        to_mm[:3, 3] = [-x * (n_x - 1) / 2, y * (n_y - 1) / 2, z * (n_z - 1) / 2]
        header.set_sform(to_mm, code="scanner")
        header.set_qform(to_mm, code="scanner")
        header.set_xyzt_units("mm" if self.grid.steps else "unknown", "unknown")
        header.set_slope_inter(*((scale.slope, scale.low) if scale is not None else (1.0, 0.0)))
        header["descrip"] = self.grid.unit
        header["magic"] = header.single_magic
        offset = int(header.single_vox_offset)
        header["vox_offset"] = offset
        place.write_bytes(header.binaryblock.ljust(offset, b"\0"))
        return offset

    def _found(self, place: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
        header = _header(place)
        return tuple(header.get_data_shape())[::-1], header.get_data_dtype(), int(header["vox_offset"])


def _header(path: Path) -> Any:
    nibabel = require("nibabel", "nifti")
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(4), "little")
    kind = nibabel.Nifti2Header if size == 540 else nibabel.Nifti1Header
    with path.open("rb") as stream:
        return kind.from_fileobj(stream)


class Nifti(VolumeFormat):
    """A ``.nii`` file."""

    called, files, endings, volume, trust = "nii", "NIfTI", (".nii",), "volume.nii", "trust.nii"
    writer = NiftiWriter

    def recognises(self, path: Path) -> bool:
        """Return whether a file has the name and the beginning of a NIfTI file."""
        if path.suffix.lower() != ".nii" or not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(4) in [size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big")]

    def read(self, path: Path) -> StoredVolume:
        """Open the voxels."""
        header = _header(path)
        slope, intercept = header.get_slope_inter()
        shape, dtype, offset = tuple(header.get_data_shape())[::-1], header.get_data_dtype(), int(header["vox_offset"])
        if path.stat().st_size < offset + dtype.itemsize * int(np.prod(shape)):
            raise FormatError(f"{path} must be a complete NIfTI file, got {path.stat().st_size} bytes; copy it again")
        stack: Any = OnDisk(mapped, path, dtype.str, offset, shape)
        check_stack(stack, "volume", str(path))
        if slope is not None and (slope, intercept) != (1.0, 0.0):
            stack = Scaled(stack, float(slope), float(intercept))
        unit = header["descrip"].item().decode("latin-1").strip("\0 ") or None
        size = float(header.get_zooms()[0]) if header.get_xyzt_units()[0] == "mm" else None
        facts: dict[str, Any] = {"spacing": float(header.get_zooms()[2])}
        if dtype.kind == "u" and slope is not None:
            facts |= Scale(dtype.name, float(intercept), float(intercept + slope * np.iinfo(dtype).max)).record()
        return StoredVolume(LazyFrames(stack, place=str(path)), path, unit, size, facts)
