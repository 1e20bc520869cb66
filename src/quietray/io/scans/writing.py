"""Writing of scans, in blocks, so that a file is complete or does not exist."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from quietray.errors import FormatError, ResourceError
from quietray.io.disk import check_space, disk_errors, remove, sync_path
from quietray.io.lock import Lock
from quietray.io.scans.base import ScanWriter
from quietray.scan import Scan

__all__ = ["write_scan"]

_FRAMES = ("projections", "flats", "darks")
_USUAL = "dxchange"


def write_scan(path: str | os.PathLike[str], scan: Scan, *, overwrite: bool = False) -> Path:
    """Write a scan block by block as HDF5: NXtomo if the name ends in ``.nx`` or ``.nxs``, else DXchange.

    Angles are in degrees.  DXchange keeps the type of the counts; in NXtomo, radiographs, flats and darks have a common
    type.  Detector numbers, and fan or cone beams, are stored in groups that docs/scan-file.md describes.

    Until it is complete, the file has a hidden name in the same folder.  Arrays are contiguous, so that a band of rows
    can be read on its own.

    Parameters
    ----------
    path
        The new file; missing folders are created.
    scan
        The scan; its arrays may be lazy.
    overwrite
        Whether to replace an existing file.

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
    >>> import h5py, tempfile
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
        lock = Lock(target.parent / f".{target.name}.lock", target)
        unfinished = target.parent / f".{target.name}.partial"
        try:
            remove(unfinished)  # which a kill may have left
            check_space(target, needed)
            _writer(target.suffix.lower()).write(unfinished, scan)
            os.replace(unfinished, target)
            sync_path(target.parent)
        finally:
            remove(unfinished)
            lock.release()
    return target


def _writer(ending: str) -> ScanWriter:
    """Return the writer that belongs to a file name ending."""
    kinds = ScanWriter.registry
    asked = (name for name, kind in kinds.items() if ending in kind.endings)
    found: ScanWriter = kinds.made(next(asked, _USUAL))
    return found


def _checked_size(scan: Scan) -> int:
    """Return the total size of all arrays in bytes; raise unless they hold real numbers."""
    size = 0
    stacks = [stack for name in _FRAMES if (stack := getattr(scan, name)) is not None]
    widest = np.result_type(*(np.dtype(stack.dtype) for stack in stacks)).itemsize  # common type
    for name in (*_FRAMES, "truth", "clean"):
        frames = getattr(scan, name)
        if frames is None:
            continue
        dtype = np.dtype(frames.dtype)
        if dtype.kind not in "iuf":
            raise FormatError(f"the {name} of a scan must be real numbers, got type {dtype}; convert them")
        size += int(np.prod(frames.shape, dtype=np.int64)) * max(dtype.itemsize, widest if name in _FRAMES else 0)
    return size
