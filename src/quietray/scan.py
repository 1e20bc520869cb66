"""A measurement: radiographs, flats, darks, geometry and provenance.  Arrays may be lazy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from quietray.arrays import open_frames, projection_frames, radians
from quietray.errors import FormatError, GeometryError, SettingsError
from quietray.geometry import Geometry, ParallelBeam, angles_told, beam_told, field_told
from quietray.lazy import chosen_frames, interleaved
from quietray.types import Frames
from quietray.wording import told

__all__ = ["Scan", "chosen_frames", "interleaved"]

# Not shown in descriptions.
_UNSAID = {
    "field of view": "full",
    "detectors": "one",
    "exposure": "not known",
    "energy": "not known",
    "distance": "not known",
    "sample": "not known",
    "truth": "none, as usual",
}


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
        Open-beam and beam-off frames ``(frame, row, col)`` in counts.  Without darks, the dark level is zero.  Without
        flats, the projections must be transmissions.
    exposure
        Exposure time per view in seconds, if known.
    source
        The file or folder that was read.
    provenance
        Facts to store with a result: format, dataset paths, sample name.
    notes
        Notes for the user, for example about a repeated last view that was dropped.
    truth, clean
        The true volume ``(z, y, x)`` and the noise-free line integrals ``(view, row, col)``; only for simulated scans.
    detectors
        Number of the detector that took each view, ``(view,)``, if there were several (two or three source-detector
        pairs).  Each detector then has its own flats, darks, bad pixels and point response.  None for a single
        detector.
    flat_detectors, dark_detectors
        The same for flats and darks, ``(frame,)``; None if they belong to all detectors.
    taken, flats_taken
        Acquisition times of views, ``(view,)``, and of flats, ``(flat,)``, in numbers of frames; None if unknown.

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
    taken: Int[np.ndarray, " view"] | None = None
    flats_taken: Int[np.ndarray, " flat"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "notes", tuple(map(told, self.notes)))
        shape = tuple(self.projections.shape)
        if len(shape) != 3:
            raise FormatError(f"projections must be a stack (view, row, col), got shape {shape}")
        wanted = (self.geometry.n_views, self.geometry.n_rows, self.geometry.n_cols)
        if shape[0] != wanted[0]:
            raise GeometryError(
                f"there must be one angle per view, got {wanted[0]} angles for {shape[0]} views; give the right list"
            )
        if shape != wanted:
            raise GeometryError(
                f"the detector of the geometry must fit the projections {shape}, got {wanted}; correct n_rows and "
                "n_cols"
            )
        for name in ("flats", "darks"):
            frames = getattr(self, name)
            if frames is None:
                continue
            if len(frames.shape) != 3 or frames.shape[0] < 1 or tuple(frames.shape[1:]) != shape[1:]:
                raise FormatError(
                    f"{name} must be frames of the projections' size {shape[1:]}, got shape {tuple(frames.shape)}; "
                    "crop or bin both in the same way"
                )
        for what, frames, times in (("views", self.projections, self.taken), ("flats", self.flats, self.flats_taken)):
            if times is not None and (frames is None or times.shape != (int(frames.shape[0]),)):
                raise FormatError(f"there must be one time for each of the {what}, got {times.shape}; leave them out")
        for what, frames, numbers in (
            ("views", self.projections, self.detectors),
            ("flats", self.flats, self.flat_detectors),
            ("darks", self.darks, self.dark_detectors),
        ):
            if numbers is not None:
                _check_numbers(what, frames, numbers, self.detectors)

    @classmethod
    def from_arrays(
        cls,
        projections: Any,
        angles: Any = None,
        *,
        flats: Any = None,
        darks: Any = None,
        degrees: bool = True,
        pixel_size: float | None = None,
        rotation_axis: float | None = None,
        geometry: Geometry | None = None,
    ) -> Scan:
        """Return a scan from arrays, which may be lazy (NumPy, memory maps, h5py, Zarr, Dask); none is loaded whole.

        This takes what :func:`quietray.read` finds in a file, and checks it.  Other properties, such as the exposure,
        can be added with ``dataclasses.replace``.

        Parameters
        ----------
        projections
            Radiographs ``(view, row, col)`` in counts; ``(view, col)`` for a single row.
        angles
            Angles of a parallel beam in degrees, ``(view,)``.
        flats, darks
            Open-beam and beam-off frames ``(frame, row, col)`` in counts, or one frame ``(row, col)``; for projections
            without rows, likewise without rows.  Without flats, the projections must be transmissions.
        degrees
            Whether `angles` are in degrees; False for radians.
        pixel_size
            Edge of a pixel in mm, at the object.
        rotation_axis
            Column that the rotation axis projects to; measured if not given.
        geometry
            Any beam, instead of `angles`, `pixel_size` and `rotation_axis`.

        Raises
        ------
        FormatError
            An array does not have the layout described above.
        GeometryError
            The angles or the geometry do not match the projections.
        NoiseError
            An array in memory contains NaN or infinity.
        SettingsError
            A geometry is given together with parameters that it contains.

        Examples
        --------
        >>> counts = np.full((180, 4, 6), 700, np.uint16)
        >>> Scan.from_arrays(counts, np.arange(180), flats=np.full((4, 6), 1000, np.uint16), pixel_size=0.05)
        Scan of 180 views of 4 x 6, uint16, 0.0 MB
          beam: parallel
          angles: 0.000 to 179.000 degrees, step 1, covering 180.0
          flats: 1 frames, uint16
          darks: none
          pixel size: 0.05 mm
          rotation axis: to be found
        >>> Scan.from_arrays(counts, np.arange(181))
        Traceback (most recent call last):
        quietray.errors.GeometryError: angles must be one for each of the 180 views of projections, got 181 angles; give
        the right list
        """
        stack = projection_frames(projections)
        n_views, n_rows, n_cols = stack.shape
        if geometry is None:
            if angles is None:
                raise GeometryError(
                    f"angles must be given, one for each of the {n_views} views, got none; give a list in degrees, or "
                    "a geometry"
                )
            beam = radians(angles, tuple(projections.shape), degrees=degrees)
            geometry = ParallelBeam(beam, int(n_rows), int(n_cols), rotation_axis, pixel_size)
        elif not (angles is None and pixel_size is None and rotation_axis is None):
            raise SettingsError(
                "angles, pixel_size and rotation_axis must be left out with a geometry, got both; give one of them"
            )
        one_row = len(projections.shape) == 2
        return cls(
            stack,
            geometry,
            open_frames("flats", flats, one_row=one_row),
            open_frames("darks", darks, one_row=one_row),
            provenance={"format": "arrays"},
        )

    def __repr__(self) -> str:
        facts = self.describe()
        _, views = facts.pop("format"), facts.pop("projections")
        origin = f" from {self.source}" if self.source else ""
        told = [f"{name}: {fact}" for name, fact in facts.items() if fact != _UNSAID.get(name)]
        return "\n  ".join([f"Scan of {views}{origin}", *told])

    def describe(self) -> dict[str, str]:
        """Return the content of the scan as text by name, from geometry and shapes only."""
        geometry = self.geometry
        axis = "to be found" if geometry.rotation_axis is None else f"column {geometry.rotation_axis:.2f}"

        def frames(stack: Frames | None) -> str:
            return "none" if stack is None else f"{stack.shape[0]} frames, {np.dtype(stack.dtype)}"

        def told(name: str, unit: str) -> str:
            value = self.provenance.get(name)
            return f"{value:g} {unit}" if isinstance(value, float) else "not known"

        return {
            "format": str(self.provenance.get("format", "not known")),
            "projections": f"{self.n_views} views of {self.n_rows} x {self.n_cols}, "
            f"{np.dtype(self.projections.dtype)}, {self.nbytes / 1e6:.1f} MB",
            "beam": beam_told(geometry),
            "angles": angles_told(geometry),
            "flats": frames(self.flats),
            "darks": frames(self.darks),
            "pixel size": _pixel_told(geometry),
            "detectors": "one" if self.detectors is None else str(len(np.unique(self.detectors))),
            "energy": told("energy_kev", "keV"),
            "distance": told("propagation_mm", "mm"),
            "exposure": "not known" if self.exposure is None else f"{self.exposure:g} s",
            "rotation axis": axis,
            "field of view": field_told(geometry),
            "sample": str(self.provenance.get("sample", "not known")),
            "truth": "included" if self.truth is not None else "none, as usual",
        }

    def __getitem__(self, views: slice | np.ndarray) -> Scan:
        chosen = np.arange(self.n_views)[views] if isinstance(views, slice) else _checked(views, self.n_views)
        return dataclasses.replace(
            self,
            projections=chosen_frames(self.projections, chosen),
            clean=None if self.clean is None else chosen_frames(self.clean, chosen),
            geometry=self.geometry[chosen],
            detectors=None if self.detectors is None else self.detectors[chosen],
            taken=None if self.taken is None else self.taken[chosen],
        )

    def by_detector(self) -> dict[int, Scan]:
        """Return the data of each detector as a separate scan, by number; without numbers, all belong to detector 0."""
        if self.detectors is None:
            return {0: self}
        return {number: self._of(self.detectors, number) for number in np.unique(self.detectors).tolist()}

    def _of(self, detectors: Int[np.ndarray, " view"], number: int) -> Scan:
        def own(frames: Frames | None, numbers: Int[np.ndarray, " frame"] | None) -> Frames | None:
            return (
                frames
                if frames is None or numbers is None
                else chosen_frames(frames, np.flatnonzero(numbers == number))
            )

        return dataclasses.replace(
            self[np.flatnonzero(detectors == number)],
            flats=own(self.flats, self.flat_detectors),
            darks=own(self.darks, self.dark_detectors),
            detectors=None,
            flat_detectors=None,
            dark_detectors=None,
            flats_taken=None,
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
        """Return the same scan with the rotation axis at column `rotation_axis`."""
        return dataclasses.replace(self, geometry=self.geometry.with_axis(rotation_axis))

    def with_note(self, note: str) -> Scan:
        """Return the same scan with one more note."""
        return dataclasses.replace(self, notes=(*self.notes, note))


def _pixel_told(geometry: Geometry) -> str:
    if geometry.pixel_size is None:
        return "not known"
    if isinstance(geometry, ParallelBeam) and geometry.row_height is not None:
        return f"{geometry.pixel_size:g} mm wide, {geometry.row_height:g} mm high"
    return f"{geometry.pixel_size:g} mm"


def _check_numbers(
    what: str, frames: Frames | None, numbers: Int[np.ndarray, " frame"], views: Int[np.ndarray, " view"] | None
) -> None:
    """Raise unless every frame has a detector number, and every detector of the views has frames."""
    count = 0 if frames is None else int(frames.shape[0])
    if numbers.shape != (count,) or numbers.min(initial=0) < 0:
        raise FormatError(
            f"the detector numbers of the {what} must be {count}, one for each, none negative, got {numbers.size} from "
            f"{numbers.min(initial=0)}; correct the list"
        )
    if views is None:
        raise FormatError(f"the views must have detector numbers when the {what} have, got none; number them, too")
    lacking = sorted(set(views.tolist()) - set(numbers.tolist()))
    if lacking and count:
        raise FormatError(
            f"every detector must have {what} of its own when they are numbered, got none for detector {lacking[0]}; "
            f"leave the {what} without numbers if they belong to all"
        )


def _checked(views: np.ndarray, n_views: int) -> Int[np.ndarray, " view"]:
    """Return the numbers of the chosen views."""
    chosen = np.flatnonzero(views) if views.dtype == bool and views.shape == (n_views,) else views
    if (
        chosen.ndim != 1
        or chosen.dtype.kind not in "iu"
        or (chosen.size and not 0 <= chosen.min() <= chosen.max() < n_views)
    ):
        raise GeometryError(f"views must be chosen by numbers from 0 to {n_views - 1}, got {views!r}")
    return chosen.astype(np.intp)
