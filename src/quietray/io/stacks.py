"""Contiguous stacks of frames in a file that is being written, copied block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from quietray.io.damage import damage_told
from quietray.io.disk import allocate, write_at
from quietray.types import Frames

__all__ = ["Stack", "lay_out_stack", "write_number"]

_BLOCK_BYTES = 2**25


@dataclass(frozen=True, eq=False)
class Stack:
    """Frames, and where in a file they are to be written.

    Parameters
    ----------
    frames
        Frames ``(frame, row, col)``; may be lazy.
    dtype
        Type in which they are stored.
    offset
        Offset of the first byte.
    """

    frames: Frames
    dtype: np.dtype
    offset: int

    @property
    def nbytes(self) -> int:
        """Size in the file, in bytes."""
        return int(np.prod(self.frames.shape, dtype=np.int64)) * self.dtype.itemsize

    def copy_to(self, descriptor: int) -> None:
        """Write the frames to an open file in blocks.

        Raises
        ------
        FormatError
            The frames cannot be read.
        """
        n_frames = int(self.frames.shape[0])
        frame_bytes = max(self.nbytes // n_frames, 1)
        step = max(1, _BLOCK_BYTES // frame_bytes)
        for start in range(0, n_frames, step):
            with damage_told("the scan that is written"):
                block = np.asarray(self.frames[start : start + step], dtype=self.dtype)
            write_at(descriptor, block, self.offset + start * frame_bytes)


def lay_out_stack(group: h5py.Group, name: str, parts: Sequence[Frames], units: str) -> list[Stack]:
    """Create one array for consecutive stacks, in a type that can hold all of them.

    Examples
    --------
    >>> with h5py.File("none.h5", "w", driver="core", backing_store=False) as file:
    ...     parts = np.ones((2, 3, 4), np.uint16), np.ones((1, 3, 4), np.float32)
    ...     stacks = lay_out_stack(file, "data", parts, "counts")
    ...     file["data"].shape, str(file["data"].dtype), stacks[1].offset - stacks[0].offset
    ((3, 3, 4), 'float32', 96)
    """
    kinds = [np.dtype(part.dtype) for part in parts]
    dtype = kinds[0] if len(set(kinds)) == 1 else np.result_type(*kinds)
    shape = (sum(int(part.shape[0]) for part in parts), *(int(size) for size in parts[0].shape[1:]))
    dataset, offset = allocate(group, name, shape, dtype)
    dataset.attrs["units"] = units
    stacks = []
    for part in parts:
        stacks.append(Stack(part, dtype, offset))
        offset += stacks[-1].nbytes
    return stacks


def write_number(group: h5py.Group, name: str, value: float | np.ndarray | None, unit: str) -> None:
    """Write a number, or one per frame, with its unit; nothing for None."""
    if value is not None:
        group[name] = value
        group[name].attrs["units"] = unit
