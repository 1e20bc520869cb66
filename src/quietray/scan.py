"""One measurement: radiographs, flats, darks, geometry and where it all came from.  Arrays may be lazy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from quietray.errors import FormatError, GeometryError
from quietray.geometry import Geometry
from quietray.types import Frames

__all__ = ["Scan", "chosen_frames", "interleaved"]


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
    detectors
        ``(view,)`` number of the detector that took each view, where several did (two or three source-detector pairs):
        each then has flats, darks, bad pixels and a point response of its own.  None for a single detector.
    flat_detectors, dark_detectors
        ``(frame,)`` the same for flats and darks; None where they belong to all detectors.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> beam = ParallelBeam(np.linspace(0, np.pi, 4, endpoint=False), n_rows=3, n_cols=5)
    >>> scan = Scan(np.ones((4, 3, 5), np.float32), beam)
    >>> scan[::2].n_views, scan.read(slice(0, 2)).shape
    (2, (4, 2, 5))
    >>> pairs = dataclasses.replace(scan, detectors=np.array([0, 1, 0, 1]))
    >>> {number: part.n_views for number, part in pairs.by_detector().items()}
    {0: 2, 1: 2}
    """

    projections: Frames
    geometry: Geometry
    flats: Frames | None = None
    darks: Frames | None = None
    exposure: float | None = None
    source: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    truth: Frames | None = None
    clean: Frames | None = None
    detectors: Int[np.ndarray, " view"] | None = None
    flat_detectors: Int[np.ndarray, " flat"] | None = None
    dark_detectors: Int[np.ndarray, " dark"] | None = None

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
        for what, frames, numbers in (
            ("views", self.projections, self.detectors),
            ("flats", self.flats, self.flat_detectors),
            ("darks", self.darks, self.dark_detectors),
        ):
            if numbers is not None:
                _check_numbers(what, frames, numbers, self.detectors)

    def __getitem__(self, views: slice | np.ndarray) -> Scan:
        chosen = np.arange(self.n_views)[views] if isinstance(views, slice) else _checked(views, self.n_views)
        return dataclasses.replace(
            self,
            projections=_Chosen(self.projections, chosen),
            clean=None if self.clean is None else _Chosen(self.clean, chosen),
            geometry=self.geometry[chosen],
            detectors=None if self.detectors is None else self.detectors[chosen],
        )

    def by_detector(self) -> dict[int, Scan]:
        """Return what each detector measured as a scan of its own, by number; a scan without numbers is detector 0."""
        if self.detectors is None:
            return {0: self}
        return {number: self._of(self.detectors, number) for number in np.unique(self.detectors).tolist()}

    def _of(self, detectors: Int[np.ndarray, " view"], number: int) -> Scan:
        def own(frames: Frames | None, numbers: Int[np.ndarray, " frame"] | None) -> Frames | None:
            return frames if frames is None or numbers is None else _Chosen(frames, np.flatnonzero(numbers == number))

        return dataclasses.replace(
            self[np.flatnonzero(detectors == number)],
            flats=own(self.flats, self.flat_detectors),
            darks=own(self.darks, self.dark_detectors),
            detectors=None,
            flat_detectors=None,
            dark_detectors=None,
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


def interleaved(parts: Mapping[int, Frames], numbers: Int[np.ndarray, " frame"]) -> Frames:
    """Return frames of several detectors as one stack, still on disk: what `Scan.by_detector` took apart.

    Parameters
    ----------
    parts
        Frames ``(frame, row, col)`` of each detector, in order.
    numbers
        ``(frame,)`` which detector each frame of the stack is of.

    Examples
    --------
    >>> parts = {0: np.zeros((2, 1, 3)), 1: np.ones((2, 1, 3))}
    >>> interleaved(parts, np.array([0, 1, 1, 0]))[1:, 0, 0].tolist()
    [1.0, 1.0, 0.0]
    """
    return _Interleaved(dict(parts), numbers)


def chosen_frames(frames: Frames, chosen: Int[np.ndarray, " frame"]) -> Frames:
    """Return some of the frames of a stack, still on disk.

    Examples
    --------
    >>> chosen_frames(np.arange(4.0)[:, None, None], np.array([3, 0]))[:, 0, 0].tolist()
    [3.0, 0.0]
    """
    return _Chosen(frames, chosen)


def _check_numbers(
    what: str, frames: Frames | None, numbers: Int[np.ndarray, " frame"], views: Int[np.ndarray, " view"] | None
) -> None:
    """Raise unless every frame has the number of a detector, and every detector of the views has frames."""
    count = 0 if frames is None else int(frames.shape[0])
    if numbers.shape != (count,) or numbers.min(initial=0) < 0:
        raise FormatError(
            f"the detector numbers of the {what} must be {count}, one for each, none negative, got {numbers.size} "
            f"from {numbers.min(initial=0)}; mend the list"
        )
    if views is None:
        raise FormatError(f"the views must have detector numbers when the {what} have, got none; number them, too")
    lacking = sorted(set(views.tolist()) - set(numbers.tolist()))
    if lacking and count:
        raise FormatError(
            f"every detector must have {what} of its own when they are numbered, got none for detector {lacking[0]}; "
            f"leave the {what} without numbers where they belong to all"
        )


def _checked(views: np.ndarray, n_views: int) -> Int[np.ndarray, " view"]:
    """Return the numbers of chosen views."""
    chosen = np.flatnonzero(views) if views.dtype == bool and views.shape == (n_views,) else views
    if (
        chosen.ndim != 1
        or chosen.dtype.kind not in "iu"
        or (chosen.size and not 0 <= chosen.min() <= chosen.max() < n_views)
    ):
        raise GeometryError(f"views must be chosen by numbers from 0 to {n_views - 1}, got {views!r}")
    return chosen.astype(np.intp)


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Some of the frames of a stack, still on disk."""

    frames: Frames
    chosen: Int[np.ndarray, " frame"]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.chosen), *self.frames.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.frames.dtype)

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) else (key,)
        inner = self.chosen[first]
        return self.frames[(int(inner), *rest)] if np.ndim(inner) == 0 else _picked(self.frames, inner, rest)


@dataclass(frozen=True, eq=False)
class _Interleaved:
    """Frames of several stacks in turn."""

    parts: dict[int, Frames]
    numbers: Int[np.ndarray, " frame"]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.numbers), *next(iter(self.parts.values())).shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.result_type(*(np.dtype(frames.dtype) for frames in self.parts.values()))

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) else (key,)
        chosen = np.arange(len(self.numbers))[first]
        if np.ndim(chosen) == 0:
            return self[(slice(int(chosen), int(chosen) + 1), *rest)][0]
        out = np.empty(0, self.dtype)
        for number, frames in self.parts.items():
            mine = self.numbers[chosen] == number
            rank = np.cumsum(self.numbers == number) - 1  # frames of the same detector before each
            block = _picked(frames, rank[chosen[mine]], rest)
            out = out if out.ndim > 1 else np.empty((len(chosen), *block.shape[1:]), self.dtype)
            out[mine] = block
        return out


def _picked(frames: Frames, index: Int[np.ndarray, " frame"], rest: list[Any]) -> Any:
    """Read some frames, with one slice where they are evenly spread."""
    step = int(index[1] - index[0]) if len(index) > 1 else 1
    if len(index) == 0:
        return frames[(slice(0, 0), *rest)]
    if step == 0 or (np.diff(index) != step).any():
        return np.stack([np.asarray(frames[(slice(int(one), int(one) + 1), *rest)])[0] for one in index])
    if step > 0:
        return frames[(slice(int(index[0]), int(index[-1]) + 1, step), *rest)]
    return frames[(slice(int(index[-1]), int(index[0]) + 1, -step), *rest)][::-1]
