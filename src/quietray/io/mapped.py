"""Contiguous arrays in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["mapped"]


def mapped(path: Path, dtype: str, offset: int, shape: tuple[int, ...]) -> np.ndarray:
    """Map an array that lies in one piece in a file, from a byte on; at module level, so that other processes can."""
    return np.memmap(path, np.dtype(dtype), "r", offset, shape)
