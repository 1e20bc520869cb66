"""Storage types of voxels: float32, or integers over a window of values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from quietray.errors import FormatError, SettingsError
from quietray.types import Frames

__all__ = ["Scale", "Scaled", "Stored", "values_of"]


@dataclass(frozen=True)
class Stored:
    """How a volume is stored.

    Parameters
    ----------
    dtype
        Type of a voxel.
    window
        Smallest and largest value represented by the integers; None for the range of the whole volume, so that nothing
        is clipped.

    Raises
    ------
    SettingsError
        The window is empty, or given for float32.

    Examples
    --------
    >>> Stored("uint8", (0.0, 510.0)).scale.slope
    2.0
    """

    dtype: Literal["float32", "uint16", "uint8"] = "float32"
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.window is not None and not self.whole:
            raise SettingsError("--window must be left out if float32 is stored; pass --dtype uint16 or uint8")
        if self.window is not None and not self.window[0] < self.window[1]:
            raise SettingsError(f"--window must be LOW HIGH with LOW below HIGH, got {self.window}; swap them")

    @property
    def whole(self) -> bool:
        """Whether voxels are integers."""
        return self.dtype != "float32"

    @property
    def scale(self) -> Scale | None:
        """Scale from values to integers, if known in advance; else None."""
        return None if self.window is None else Scale(self.dtype, *map(float, self.window))


@dataclass(frozen=True)
class Scale:
    """Linear scale between values and integers; values outside the window are clipped.

    Parameters
    ----------
    dtype
        ``uint16`` or ``uint8``.
    low, high
        Values that correspond to 0 and to the largest integer.

    Examples
    --------
    >>> Scale("uint8", 0.0, 2.55).numbers(np.array([-1.0, 0.0, 1.004, 9.0], np.float32)).tolist()
    [0, 0, 100, 255]
    """

    dtype: str
    low: float
    high: float

    @property
    def top(self) -> int:
        """The largest integer."""
        return int(np.iinfo(self.dtype).max)

    @property
    def slope(self) -> float:
        """Difference in value between consecutive integers."""
        return (self.high - self.low) / self.top

    def numbers(self, values: np.ndarray) -> np.ndarray:
        """Return the nearest integers; NaN becomes 0."""
        steps = (values.astype(np.float64) - self.low) / (self.slope or 1.0)
        return np.clip(np.rint(np.nan_to_num(steps, nan=0.0)), 0, self.top).astype(
            np.dtype(self.dtype).newbyteorder("<")
        )

    def values(self, numbers: np.ndarray) -> np.ndarray:
        """Return the values of integers as float32."""
        return np.asarray(self.low + self.slope * numbers.astype(np.float64), np.float32)

    def record(self) -> dict[str, Any]:
        """Return the record for files: values are ``intercept + slope * number``."""
        return {"stored": self.dtype, "window": [self.low, self.high], "slope": self.slope, "intercept": self.low}

    @classmethod
    def told(cls, facts: Mapping[str, Any]) -> Scale | None:
        """Return the scale stored in a file; None if there is none."""
        window, dtype = facts.get("window"), facts.get("stored")
        if window is None or dtype is None:
            return None
        can_be = (
            dtype in ("uint16", "uint8") and np.shape(window) == (2,) and np.isfinite(np.asarray(window, float)).all()
        )
        if not can_be:
            raise FormatError(f"integers must come with their window, two values, got {window} of {dtype}; correct it")
        return cls(str(dtype), *map(float, window))


class Scaled:
    """A stored array of integers, read as the values they represent.

    Parameters
    ----------
    stored
        The integers.
    slope, intercept
        Values are ``intercept + slope * number``.

    Examples
    --------
    >>> Scaled(np.array([[[0, 2]]], np.uint16), 0.5, 1.0)[0].tolist()
    [[1.0, 2.0]]
    """

    def __init__(self, stored: Frames, slope: float, intercept: float) -> None:
        self._stored, self._slope, self._intercept = stored, slope, intercept
        self.shape, self.dtype = tuple(stored.shape), np.dtype(np.float32)

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.asarray(self._intercept + self._slope * np.asarray(self._stored[key], np.float64), np.float32)


def values_of(stored: Frames, facts: Mapping[str, Any]) -> Frames:
    """Return the values of an array, according to the metadata stored with it."""
    scale = Scale.told(facts)
    return stored if scale is None else Scaled(stored, scale.slope, scale.low)
