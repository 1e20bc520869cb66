"""Crash-safe writing: plain writes at known offsets, fsync, and one clear message for disk errors.

HDF5 only creates the layout of a file, with contiguous arrays; the numbers are then written by plain system calls.
HDF5's own writes lose the error number of a full disk, fail a second time when the file is closed, and can crash the
interpreter.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import h5py
import numpy as np

from quietray.errors import ResourceError

__all__ = [
    "allocate",
    "array_on_disk",
    "check_space",
    "disk_errors",
    "generator_name",
    "remove",
    "sync_path",
    "write_at",
]

_ADVICE = {
    errno.ENOSPC: "free some space or give another folder",
    errno.EDQUOT: "your quota is used up: free some space or give another folder",
    errno.EFBIG: "the disk allows no file of this size: give another folder or --format zarr",
    errno.EROFS: "the disk is read-only: give another folder",
    errno.EACCES: "you may not write there: give another folder",
    errno.EPERM: "you may not write there: give another folder",
    errno.ENOTDIR: "a part of the path is a file: give another folder",
    errno.EIO: "the disk failed: give another folder",
}


@contextmanager
def disk_errors(path: Path, kept: str = "") -> Iterator[None]:
    """Convert a disk error into a ResourceError about `path`; `kept` is a sentence on what has been kept.

    Raises
    ------
    ResourceError
        The disk is full or read-only, or the user may not write to it.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        code = _error_number(error)
        if code is None:
            raise
        reason = os.strerror(code)
        advice = _ADVICE.get(code, "check the folder")
        raise ResourceError(f"{path} must be writable, got: {reason}; {advice}{f'. {kept}' if kept else ''}") from error


def array_on_disk(place: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return a float32 array stored in a file; its space is allocated at once, so that a full disk fails early."""
    with disk_errors(place):
        out = np.lib.format.open_memmap(place, mode="w+", dtype=np.float32, shape=shape)
        with place.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, place.stat().st_size)
    return out


def _error_number(error: Exception) -> int | None:
    """Return the error number of the system, which HDF5 hides in its message."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    return next((code for code in _ADVICE if f"errno = {code}," in str(error)), None)


def check_space(path: Path, needed: int) -> None:
    """Raise unless `needed` bytes are free where `path` will be.

    Raises
    ------
    ResourceError
        There is not enough space.

    Examples
    --------
    >>> check_space(Path("."), 1)
    """
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ResourceError(
            f"{path} must have {needed / 2**30:.3g} GiB of free space, got {free / 2**30:.3g} GiB in {folder}; "
            "free some space or give another folder"
        )


def allocate(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype) -> tuple[h5py.Dataset, int]:
    """Create a contiguous, unwritten array; return it and the offset of its first byte in the file."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_layout(h5py.h5d.CONTIGUOUS)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    settings.set_obj_track_times(False)  # no times, so that the same volume gives the same bytes
    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    dataset = h5py.Dataset(h5py.h5d.create(group.id, name.encode(), kind, h5py.h5s.create_simple(shape), settings))
    return dataset, int(dataset.id.get_offset())


def write_at(descriptor: int, block: np.ndarray, offset: int) -> None:
    """Write all bytes of an array at an offset in an open file."""
    rest = memoryview(np.ascontiguousarray(block).view(np.uint8).reshape(-1).data)
    while len(rest):
        done = os.pwrite(descriptor, rest[: 2**30], offset)
        rest, offset = rest[done:], offset + done


def sync_path(path: Path) -> None:
    """Wait until a file or the entries of a folder are on the disk, as far as the file system supports that."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EACCES):
            raise
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def generator_name() -> str:
    """Return ``quietray`` and its version, which is stored in all files."""
    try:
        return f"quietray {metadata.version('quietray')}"
    except metadata.PackageNotFoundError:
        return "quietray (not installed)"
