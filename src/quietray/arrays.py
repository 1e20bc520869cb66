"""Arrays given as a measurement: checked, but not read if they are lazy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from quietray.errors import FormatError, GeometryError, NoiseError
from quietray.types import Frames

__all__ = ["open_frames", "projection_frames", "radians"]

_BLOCK = 2**24  # pixels checked at a time
_NEAR = 0.07  # relative deviation from 180 or 360 degrees


def projection_frames(stack: Any) -> Frames:
    """Return projections as frames ``(view, row, col)``; data that are not in memory are not read.

    Parameters
    ----------
    stack
        ``(view, row, col)``, or ``(view, col)`` for one row: NumPy, a memory map, HDF5, Zarr, Dask, or any other object
        with a shape, a dtype and slicing.

    Raises
    ------
    FormatError
        The stack has another number of axes, is empty, or is not of real numbers.
    NoiseError
        Data in memory contain NaN or infinity.

    Examples
    --------
    >>> projection_frames(np.ones((4, 5))).shape
    (4, 1, 5)
    >>> projection_frames(np.ones((4, 5), complex))
    Traceback (most recent call last):
    quietray.errors.FormatError: projections must be real numbers, got complex128; give counts, such as
    abs(projections)
    """
    shape = _checked("projections", stack)
    if len(shape) not in (2, 3):
        raise FormatError(
            f"projections must be a stack (view, row, col), or (view, col) of one row, got shape {shape}; give one scan"
        )
    return stack if len(shape) == 3 else _of_one_row(stack)


def open_frames(what: str, stack: Any, *, one_row: bool) -> Frames | None:
    """Return flats or darks as frames ``(frame, row, col)``; None if there are none.

    Parameters
    ----------
    what
        Name of the parameter, for messages.
    stack
        ``(frame, row, col)``, or a single frame ``(row, col)``; may be lazy.
    one_row
        Whether the projections were given as ``(view, col)``: then the stack is ``(frame, col)`` or ``(col,)``.

    Raises
    ------
    FormatError
        The stack has another number of axes, is empty, or is not of real numbers.
    NoiseError
        Data in memory contain NaN or infinity.

    Examples
    --------
    >>> open_frames("flats", np.ones((4, 5)), one_row=False).shape, open_frames("darks", np.ones(5), one_row=True).shape
    ((1, 4, 5), (1, 1, 5))
    """
    if stack is None:
        return None
    shape, axes = _checked(what, stack), ("col",) if one_row else ("row", "col")
    if len(shape) == len(axes):
        stack = np.asarray(stack[...])[None]
    elif len(shape) != len(axes) + 1:
        raise FormatError(
            f"{what} must be frames ({', '.join(('frame', *axes))}) or one frame ({', '.join(axes)}), as for the "
            f"projections, got shape {shape}; give both in one layout"
        )
    return _of_one_row(stack) if one_row else stack


def radians(angles: Any, shape: tuple[int, ...], *, degrees: bool) -> Float[np.ndarray, " view"]:
    """Return the angles of projections in radians.

    Parameters
    ----------
    angles
        ``(view,)``, a list or an array.
    shape
        Shape of the projections, views first.
    degrees
        Whether the angles are in degrees; radians otherwise.

    Raises
    ------
    GeometryError
        The angles are not one finite number for each view, or seem to be in the other unit.

    Examples
    --------
    >>> radians([0, 90], (2, 4, 5), degrees=True).round(3).tolist()
    [0.0, 1.571]
    >>> radians(np.linspace(0, np.pi, 90), (90, 4, 5), degrees=True)
    Traceback (most recent call last):
    quietray.errors.GeometryError: angles must be in degrees, got 90 from 0 to 3.14159, which look like radians; give
    degrees=False, or if they are degrees geometry=ParallelBeam(np.deg2rad(angles), n_rows, n_cols)
    """
    n_views = shape[0]
    try:
        values = np.asarray(angles)
    except ValueError as error:
        raise GeometryError(f"angles must be one list of numbers, got {repr(angles)[:40]}; correct the list") from error
    if values.dtype.kind not in "iuf":
        got = values.dtype if values.ndim else repr(angles)[:40]
        raise GeometryError(f"angles must be one real number for each of the {n_views} views, got {got}; give a list")
    if values.ndim != 1:
        raise GeometryError(f"angles must be a list (view,), got shape {values.shape}; give one for each view")
    if values.size != n_views:
        raise GeometryError(
            f"angles must be one for each of the {n_views} views of projections, got {values.size} angles; "
            + _other_order(values.size, shape)
        )
    values = values.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise GeometryError(
            f"angles must be finite numbers, got {values[bad[0]]} at view {bad[0]} ({bad.size} of {n_views}); correct "
            "the list"
        )
    _check_unit(values, degrees)
    return np.deg2rad(values) if degrees else values


def _check_unit(values: Float[np.ndarray, " view"], degrees: bool) -> None:
    """Refuse radians given as degrees, and degrees given as radians; a geometry given instead is not checked."""
    swept, few = float(np.ptp(values)), values.size < 3
    if swept == 0 or few:
        return
    covered = swept * values.size / (values.size - 1)  # including the step after the last view
    wholes = (math.pi, 2 * math.pi) if degrees else (180.0, 360.0)
    apart = min(abs(width / whole - 1) for whole in wholes for width in (covered, swept))
    other = apart < (_NEAR if values.size >= 8 else 1e-3)
    if degrees:
        other |= values.size >= 8 and swept < 2 * math.pi * 1.05
    if other:
        unit, wrong = ("degrees", "radians") if degrees else ("radians", "degrees")
        beam = "np.deg2rad(angles)" if degrees else "angles"
        raise GeometryError(
            f"angles must be in {unit}, got {values.size} from {values[0]:.6g} to {values[-1]:.6g}, which look like "
            f"{wrong}; give degrees={not degrees}, or if they are {unit} geometry=ParallelBeam({beam}, n_rows, n_cols)"
        )


def _other_order(n_angles: int, shape: tuple[int, ...]) -> str:
    """Return advice for the case that the numbers of views and angles differ."""
    if len(shape) == 3 and n_angles in shape[1:]:
        axis = shape.index(n_angles, 1)
        return f"if axis {axis} is that of the views, give np.moveaxis(projections, {axis}, 0), else the right list"
    return "give the right list"


def _checked(what: str, stack: Any) -> tuple[int, ...]:
    """Return the shape of a stack; raise unless it is of real numbers and not empty."""
    if not all(hasattr(stack, name) for name in ("shape", "dtype", "__getitem__")):
        raise FormatError(
            f"{what} must be an array with a shape, a dtype and slices, got {type(stack).__name__}; "
            f"give np.asarray({what})"
        )
    try:
        dtype = np.dtype(stack.dtype)
    except TypeError:
        raise FormatError(
            f"{what} must be an array of a NumPy type, got {stack.dtype}; give np.asarray({what})"
        ) from None
    if dtype.kind not in "iuf":
        advice = f"such as abs({what})" if dtype.kind == "c" else f"such as {what}.astype(np.float32)"
        raise FormatError(f"{what} must be real numbers, got {dtype}; give counts, {advice}")
    shape = tuple(stack.shape)
    if not all(isinstance(size, int | np.integer) for size in shape):
        raise FormatError(f"{what} must have a known shape, got {shape}; call {what}.compute_chunk_sizes()")
    if 0 in shape:
        raise FormatError(f"{what} must hold pixels, got shape {shape}; check the slicing")
    if np.ma.is_masked(stack):
        raise FormatError(f"{what} must hold a number in every pixel, got masked pixels; give {what}.filled(value)")
    if dtype.kind == "f" and isinstance(stack, np.ndarray) and not isinstance(stack, np.memmap):
        _check_finite(what, stack)
    return tuple(int(size) for size in shape)


def _check_finite(what: str, stack: np.ndarray) -> None:
    """Raise if numbers in memory are NaN or infinite; lazy data are checked when they are read."""
    step = max(1, _BLOCK // max(1, math.prod(stack.shape[1:])))
    for start in range(0, len(stack), step):
        block = stack[start : start + step]
        with np.errstate(invalid="ignore"):
            if np.isfinite(block.sum(dtype=np.float64)):  # fast, and finite only if every number is finite
                continue
        bad = ~np.isfinite(block)
        if bad.any():
            kind = "view" if what == "projections" else "frame"
            frame = start + int(np.flatnonzero(bad.reshape(len(block), -1).any(axis=1))[0])
            raise NoiseError(
                f"{what} must be finite counts, got NaN or infinity, first in {kind} {frame}; leave such frames out, "
                "or correct them"
            )


def _of_one_row(stack: Any) -> Frames:
    """Return ``(frame, col)`` as ``(frame, 1, col)``."""
    return stack[:, None] if isinstance(stack, np.ndarray) else _OneRow(stack)


@dataclass(frozen=True, eq=False)
class _OneRow:
    """A lazy stack ``(frame, col)`` as frames of one row."""

    stored: Frames

    @property
    def shape(self) -> tuple[int, ...]:
        n_frames, n_cols = self.stored.shape
        return (int(n_frames), 1, int(n_cols))

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.stored.dtype)

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) else (key,)
        block = np.asarray(self.stored[first])[..., None, :]
        return block[(*[slice(None)] * (block.ndim - 2), *rest)]
