"""Array types with named axes, which are checked in the test suite.

Radiographs are ``(view, row, col)``, sinograms ``(row, view, col)``, volumes ``(z, y, x)``.  Training samples are
``(part, slice, y, x)``: *parts* are statistically independent measurements of one object, *slices* are neighbours that
the network sees together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

Radiographs = Float[np.ndarray, "view row col"]
Sinograms = Float[np.ndarray, "row view col"]
Volume = Float[np.ndarray, "z y x"]
Parts = Float[np.ndarray, "part z y x"]
Frame = Float[np.ndarray, "row col"]
PixelMask = Bool[np.ndarray, "row col"]
Slice = Float[np.ndarray, "y x"]
_TENSORS = {"Samples": "batch part slice y x", "Channels": "batch channel y x"}

if TYPE_CHECKING:
    from torch import Tensor

    Samples = Float[Tensor, "batch part slice y x"]
    Channels = Float[Tensor, "batch channel y x"]


@runtime_checkable
class Frames(Protocol):
    """A stack of frames ``(frame, row, col)``, possibly on disk: numpy, HDF5, Zarr or a lazy view of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``(n_frames, n_rows, n_cols)``."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""

    def __getitem__(self, key: Any) -> Any:
        """Read ``[frames, rows]`` or ``[frames, rows, cols]``; only what is requested is read."""


def __getattr__(name: str) -> Any:
    """Return a type of tensors; importing torch takes seconds, and reading a scan does not need it."""
    if name not in _TENSORS:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from torch import Tensor

    return Float[Tensor, _TENSORS[name]]
