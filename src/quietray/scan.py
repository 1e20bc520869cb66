"""One measurement: radiographs, flats, darks, geometry and where it all came from.  Arrays may be lazy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from quietray.errors import FormatError, GeometryError
from quietray.geometry import ParallelBeam
from quietray.types import Frames

__all__ = ["Scan"]


@dataclass(frozen=True, eq=False)
class Scan:
    """A raw scan.

    Parameters
    ----------
    projections
        Radiographs ``(view, row, col)`` in counts; may be lazy.
    geometry
        Beam with one angle per view.
    flats, darks
        Open-beam and beam-off frames ``(frame, row, col)`` in counts.  A scan without darks has a dark level of zero.
        None for `flats` means that the projections already are transmissions.
    exposure
        Seconds per view, when known.
    source
        The file or folder that was read.
    provenance
        Facts worth keeping with a result: format, dataset paths, sample name.
    notes
        Sentences that the user should see, such as a repeated last view that was dropped.
    truth, clean
        The true volume ``(z, y, x)`` and the noise-free line integrals ``(view, row, col)``, in simulated scans only.

    Examples
    --------
    >>> beam = ParallelBeam(np.linspace(0, np.pi, 4, endpoint=False), n_rows=3, n_cols=5)
    >>> scan = Scan(np.ones((4, 3, 5), np.float32), beam)
    >>> scan[::2].n_views, scan.read(slice(0, 2)).shape
    (2, (4, 2, 5))
    """

    projections: Frames
    geometry: ParallelBeam
    flats: Frames | None = None
    darks: Frames | None = None
    exposure: float | None = None
    source: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    truth: Frames | None = None
    clean: Frames | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.projections.shape)
        if len(shape) != 3:
            raise FormatError(f"projections must be a stack (view, row, col), got shape {shape}")
        wanted = (self.geometry.n_views, self.geometry.n_rows, self.geometry.n_cols)
        if shape[0] != wanted[0]:
            raise GeometryError(
                f"there must be one angle per view, got {wanted[0]} angles for {shape[0]} views; "
                "give the right list with --angles"
            )
        if shape != wanted:
            raise GeometryError(f"the detector of the geometry must fit the projections {shape}, got {wanted}")
        for name in ("flats", "darks"):
            frames = getattr(self, name)
            if frames is None:
                continue
            if len(frames.shape) != 3 or frames.shape[0] < 1 or tuple(frames.shape[1:]) != shape[1:]:
                raise FormatError(
                    f"{name} must be frames of the projections' size {shape[1:]}, got shape {tuple(frames.shape)}"
                )

    def __getitem__(self, views: slice) -> Scan:
        chosen = range(self.n_views)[views]
        return dataclasses.replace(
            self,
            projections=_ViewRange(self.projections, chosen),
            clean=None if self.clean is None else _ViewRange(self.clean, chosen),
            geometry=self.geometry[views],
        )

    @property
    def n_views(self) -> int:
        """Number of views."""
        return self.geometry.n_views

    @property
    def n_rows(self) -> int:
        """Number of detector rows."""
        return self.geometry.n_rows

    @property
    def n_cols(self) -> int:
        """Number of detector columns."""
        return self.geometry.n_cols

    @property
    def nbytes(self) -> int:
        """Size of the projections as stored, uncompressed, in bytes."""
        return int(np.prod(self.projections.shape, dtype=np.int64)) * int(np.dtype(self.projections.dtype).itemsize)

    def read(self, rows: slice, views: slice = slice(None)) -> Float[np.ndarray, "view row col"]:
        """Read a band of detector rows of some views, as float32 counts ``(view, row, col)``.

        Raises
        ------
        FormatError
            The file cannot be read (truncated, or a compression filter is missing).
        """
        try:
            return np.asarray(self.projections[views, rows], dtype=np.float32)
        except OSError as error:
            raise FormatError(
                f"the projections of {self.source or 'this scan'} must be readable, got: {error}; "
                "the file may be truncated: copy it again from where it was measured"
            ) from error

    def with_axis(self, rotation_axis: float) -> Scan:
        """Return the same scan with its rotation axis at column `rotation_axis`."""
        return dataclasses.replace(self, geometry=self.geometry.with_axis(rotation_axis))

    def with_note(self, note: str) -> Scan:
        """Return the same scan with one more note."""
        return dataclasses.replace(self, notes=(*self.notes, note))


@dataclass(frozen=True, eq=False)
class _ViewRange:
    """A range of the frames of a stack, still on disk."""

    frames: Frames
    chosen: range

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.chosen), *self.frames.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.frames.dtype)

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) else (key,)
        inner = self.chosen[first]
        if isinstance(inner, int):
            return self.frames[(inner, *rest)]
        if not inner:
            return self.frames[(slice(0, 0), *rest)]
        if inner.step > 0:
            return self.frames[(slice(inner.start, inner.stop, inner.step), *rest)]
        return self.frames[(slice(inner[-1], inner[0] + 1, -inner.step), *rest)][::-1]
