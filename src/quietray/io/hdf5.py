"""HDF5 files as containers: opened once, with links followed and a suitable chunk cache."""

from __future__ import annotations

import errno
import glob
import re
from collections import deque
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from quietray.errors import FormatError
from quietray.io.frames import OnDisk

__all__ = ["Hdf5Container", "is_hdf5", "open_dataset", "open_hdf5"]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_DEEPEST = 12
_CACHE_BYTES = (2**20, 2**28)
_KNOWN_FILTERS = {32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd", 32026: "blosc2"}


def is_hdf5(path: Path) -> bool:
    """Return whether a file starts like HDF5 (possibly after a user block of up to 4096 bytes)."""
    with path.open("rb") as stream:
        for offset in (0, 512, 1024, 2048, 4096):
            stream.seek(offset)
            if stream.read(len(_SIGNATURE)) == _SIGNATURE:
                return True
    return False


def open_hdf5(path: Path) -> Hdf5Container:
    """Open an HDF5 file for reading, with the compression plugins loaded.

    Raises
    ------
    FormatError
        The file is truncated, damaged, locked or not readable by this user.
    """
    return Hdf5Container(path, _open_file(path))


def open_dataset(path: Path, name: str, cache: int | None) -> h5py.Dataset:
    """Open one dataset of a file.

    Parameters
    ----------
    path, name
        Path of the file, and name of the dataset in it.
    cache
        Size of the chunk cache in bytes; None for HDF5's default.  It is fixed when a dataset is first opened.

    Raises
    ------
    FormatError
        The file cannot be read, holds no such dataset, or nothing was ever written to it.
    """
    file = _open_file(path)
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    if cache is not None:
        access.set_chunk_cache(10007, cache, 1.0)
    try:
        found = h5py.Dataset(h5py.h5d.open(file.id, name.encode(), access))
    except KeyError as error:
        raise FormatError(f"{path} must hold the dataset {name}, got none of that name; copy the file again") from error
    elsewhere = found.is_virtual or found.external
    if found.size and not elsewhere and not found.id.get_storage_size():
        raise FormatError(
            f"{path} must hold values in {name}, got a dataset {found.shape} that was never written; copy the file "
            "again from where it was measured"
        )
    return found


def _open_file(path: Path) -> h5py.File:
    import hdf5plugin  # noqa: F401 (the import registers the compression filters)

    try:
        return h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        reason = str(error)
        if error.errno in (errno.EACCES, errno.EPERM):
            advice = "ask for permission to read it"
        elif "truncated" in reason or "eof" in reason:
            advice = "it is truncated: copy it again from where it was measured"
        elif "already open for" in reason or "consistency flags" in reason:
            advice = (
                "another program is writing it, or was killed while writing: wait until it has ended, or clear its "
                f"flag with: h5clear -s {path}"
            )
        elif "lock" in reason:
            advice = "another program is writing it: wait, or set HDF5_USE_FILE_LOCKING=FALSE"
        else:
            advice = "it may be damaged: copy it again from where it was measured"
        raise FormatError(f"{path} must be a complete HDF5 file, got: {reason}; {advice}") from error


class Hdf5Container:
    """An open HDF5 file; it stays open as long as a stack in it is in use.

    Parameters
    ----------
    path
        Path of the file.
    file
        The same file, open for reading.
    """

    kind = "HDF5"

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self.file = file

    def array(self, name: str) -> h5py.Dataset | None:
        """Return the dataset called `name`, or None."""
        found = self._get(name)
        return found if isinstance(found, h5py.Dataset) and found.shape is not None else None

    def frames(self, name: str) -> OnDisk:
        """Return the existing dataset of that name, with a chunk cache suited to reading bands of rows."""
        found = self._get(name)
        place = Path(found.file.filename), str(found.name), _cache_size(found)  # a link may point to another file
        del found  # it must be closed everywhere before its cache can be set
        return OnDisk(open_dataset, *place)

    def attributes(self, name: str) -> Mapping[str, Any]:
        """Return the attributes of a dataset or group."""
        found = self._get(name)
        return {} if found is None else _readable_attributes(found)

    def listing(self) -> Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Return shape and dtype of every dataset, by path, shallowest first."""
        return self._walked[0]

    def broken_links(self) -> tuple[str, ...]:
        """Return sentences about broken links."""
        return self._walked[1]

    def check_readable(self, name: str) -> None:
        """Raise unless the required filters and linked files are available.

        Raises
        ------
        FormatError
            Something is missing.
        """
        dataset = self._get(name)
        _check_filters(dataset, f"{self.path}:/{name.strip('/')}")
        if dataset.is_virtual:
            for source in sorted({entry.file_name for entry in dataset.virtual_sources()} - {"."}):
                if not _found(Path(dataset.file.filename), source):
                    raise FormatError(
                        f"{self.path}:/{name.strip('/')} must find the file that it points to, got no {source}; "
                        "copy that file next to it (HDF5 would silently read zeros)"
                    )

    def _get(self, name: str) -> Any:
        try:
            return self.file.get(name.strip("/") or "/")
        except (KeyError, OSError, RuntimeError, ValueError):
            return None

    @cached_property
    def _walked(self) -> tuple[dict[str, tuple[tuple[int, ...], np.dtype[Any]]], tuple[str, ...]]:
        found: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        broken: list[str] = []
        for path, entry in _walk(self.file):
            if isinstance(entry, h5py.Dataset):
                if entry.shape is not None:
                    found[path] = (entry.shape, entry.dtype)
            else:
                broken.append(f"{path} links to {entry}, which is missing")
        return found, tuple(broken)


def _found(master: Path, source: str) -> bool:
    """Return whether HDF5 finds a part of a virtual dataset, beside the file or beside the target of a link to it.

    In a printf-style name such as ``part_%b.h5``, ``%b`` stands for the number of the block.
    """
    pattern = re.sub(r"%\d*b", "*", glob.escape(source)).replace("%%", "%")
    places = (master.parent, master.resolve().parent, Path())
    return any(glob.glob(str(Path(glob.escape(str(place))) / pattern)) for place in places)


def _walk(file: h5py.File) -> Iterator[tuple[str, Any]]:
    """Yield datasets, and the targets of broken links as text, breadth first; links are followed, but not cycles."""
    queue = deque([("", file["/"])])
    seen = {_identity(file["/"])}
    while queue:
        prefix, group = queue.popleft()
        for name in group:
            path = f"{prefix}/{name}"
            try:
                entry = group[name]
            except (KeyError, OSError, RuntimeError):
                link = group.get(name, getlink=True)
                yield path, f"{getattr(link, 'filename', '')}:{getattr(link, 'path', '?')}".lstrip(":")
                continue
            if isinstance(entry, h5py.Dataset):
                yield path, entry
            elif isinstance(entry, h5py.Group) and path.count("/") < _DEEPEST and _identity(entry) not in seen:
                seen.add(_identity(entry))
                queue.append((path, entry))


def _identity(entry: Any) -> tuple[int, int]:
    info = h5py.h5o.get_info(entry.id)
    return int(info.fileno), int(info.addr)


def _readable_attributes(entry: Any) -> dict[str, Any]:
    out = {}
    for key in entry.attrs:
        try:
            out[key] = entry.attrs[key]
        except (OSError, TypeError, KeyError):
            continue
    return out


def _cache_size(dataset: h5py.Dataset) -> int | None:
    """Return the chunk cache in bytes suited to reading bands of rows; None if it has no effect.

    For compressed chunks: twice the size of the chunks of one frame, so that neighbouring frames are decompressed only
    once.  For plain chunks: no cache, because HDF5 then reads only the requested rows and not whole chunks.
    """
    if dataset.chunks is None or len(dataset.shape) != 3:
        return None
    if not dataset.id.get_create_plist().get_nfilters():
        return 0
    frame_bytes = int(np.prod(dataset.shape[1:], dtype=np.int64)) * dataset.dtype.itemsize
    return int(np.clip(2 * dataset.chunks[0] * frame_bytes, *_CACHE_BYTES))


def _check_filters(dataset: h5py.Dataset, place: str) -> None:
    if dataset.chunks is None or 0 in dataset.shape:
        return
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(number) for number in range(settings.get_nfilters())]
    for position, (code, _, _, label) in enumerate(filters):
        if h5py.h5z.filter_avail(code) or _is_skipped(dataset, position):
            continue
        name = _KNOWN_FILTERS.get(code) or label.decode("utf-8", "replace") or "unknown"
        raise FormatError(
            f"{place} must be stored with a filter that is installed here, got HDF5 filter {code} ({name}); update "
            "hdf5plugin (pip install -U hdf5plugin), or repack the file with h5repack on a machine that can read it"
        )


def _is_skipped(dataset: h5py.Dataset, position: int) -> bool:
    """Return whether the first chunk was written without this filter, or not at all."""
    try:
        info = dataset.id.get_chunk_info_by_coord((0,) * len(dataset.shape))
    except (RuntimeError, ValueError, OSError):
        return False
    return info.byte_offset is None or bool(info.filter_mask >> position & 1)
