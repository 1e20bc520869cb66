"""Memory that other processes of this machine can read without a copy."""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

__all__ = ["Piece", "shared_empty", "shared_piece"]


class Piece(NamedTuple):
    """A range of bytes of a file in memory, by its descriptor."""

    file: int
    offset: int
    size: int


_FILES: dict[int, Piece] = {}  # by the address of the first byte


def shared_empty(shape: Sequence[int]) -> Float[np.ndarray, ...]:
    """Return an array of float32 that other processes can read without a copy; it is freed like any other.

    Examples
    --------
    >>> array = shared_empty((2, 3))
    >>> array[:] = 7
    >>> shared_piece(memoryview(array[1]).cast("B")).offset
    12
    """
    size = 4 * math.prod(shape)
    file = os.memfd_create("quietray")
    try:
        os.truncate(file, max(1, size))
        memory = mmap.mmap(file, max(1, size))
    except OSError:
        os.close(file)
        raise
    array = np.frombuffer(memory, np.float32, size // 4)
    address = array.ctypes.data
    _FILES[address] = Piece(file, 0, size)
    weakref.finalize(memory, _freed, address)
    return array.reshape(shape)


def shared_piece(values: memoryview[Any]) -> Piece | None:
    """Return the place of contiguous bytes in an array made by :func:`shared_empty`; None if they are elsewhere."""
    address = np.frombuffer(values, np.uint8).ctypes.data
    for first, piece in _FILES.items():
        if first <= address and address + len(values) <= first + piece.size:
            return Piece(piece.file, address - first, len(values))
    return None


def _freed(address: int) -> None:
    os.close(_FILES.pop(address).file)
