"""Contiguous arrays in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["mapped"]


def mapped(path: Path, dtype: str, offset: int, shape: tuple[int, ...]) -> np.ndarray:
    """Map a contiguous array in a file, from a byte offset; at module level, so that other processes can."""
    return np.memmap(path, np.dtype(dtype), "r", offset, shape)
