"""NXtomo as written by ESRF and Diamond, found by content; reading and writing.

Data that the standard does not cover are in a group of our own.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from jaxtyping import Int

from quietray.errors import FormatError, GeometryError
from quietray.geometry import ConeBeam, FanBeam, Geometry, ParallelBeam
from quietray.io.containers import (
    Container,
    energy_kev,
    length_factor,
    length_mm,
    number,
    open_frames,
    seconds,
)
from quietray.io.frames import LazyFrames
from quietray.io.scans.angles import AngleList
from quietray.io.scans.base import ScanReader, Source
from quietray.io.scans.beams import pixel_edges, read_beam, write_beam
from quietray.io.scans.entries import entries_of, keyed_stacks, rotation_angles
from quietray.io.scans.hdf5 import Hdf5ScanWriter
from quietray.io.scans.keys import split_by_key
from quietray.io.scans.lookup import (
    angles_from,
    detector_numbers,
    first_length,
    is_half,
    is_own,
    read_recorded,
    side_frames,
    text_at,
)
from quietray.io.scans.raw import Flags, RawScan
from quietray.io.scans.stated import Distances, FileBeam, is_parallel
from quietray.io.stacks import Stack, lay_out_stack, write_number
from quietray.scan import Scan
from quietray.types import Frames

__all__ = ["NXtomo", "NXtomoWriter"]

_ENERGIES = ("incident_energy", "energy")


class NXtomo(ScanReader):
    """A group with a detector stack, its image key and its angles; the first of several, or the one named."""

    files = ("HDF5", "Zarr")

    def recognises(self, source: Source, flags: Flags) -> bool:
        """Return whether there is such a group, or the user has named a group."""
        return source.container is not None and bool(entries_of(source.container, flags))

    def read(self, source: Source, flags: Flags) -> RawScan:
        """Read the scan."""
        container = source.opened
        entries = entries_of(container, flags)
        entry = entries[0]
        data_path, key_path = _stack(container, entry, flags)
        data = open_frames(container, data_path, "data")
        frames = split_by_key(np.asarray(container.array(key_path)).ravel(), len(data), f"{container.path}:{key_path}")
        if flags.order == "sinogram":
            raise FormatError("--order must be view for NXtomo, whose image key marks the frames; leave it out")
        angles = _angles(container, entry, flags, frames.projections, data)
        detector = data_path.rpartition("/")[0]
        pixel_size, remark = _pixel_size(container, entry, detector)
        notes = [*frames.notes, *([remark] if remark else [])]
        beam, at_detector, axis, said = _beam(container, entry, detector, data.shape)
        notes += [*said, *_motion(container, entry, frames.projections, len(data), at_detector or pixel_size)]
        if len(entries) > 1:
            notes.append(
                f"The file holds {len(entries)} scans; {entry} was read. Pass --data {entries[1]} for the next."
            )
        recorded, _, truth, clean = read_recorded(container) if is_own(container) else ({}, None, None, None)
        numbers = _pairs(container, entry, len(data))
        told = {"energy_kev": _energy(container, entry), "propagation_mm": _propagation(container, entry, detector)}
        facts: dict[str, Any] = {
            "format": f"NXtomo in {container.kind}",
            "data": data_path,
            "image_key": key_path,
            "angles": angles.place,
            "sample": _near(container, entry, "sample/name"),
            **told,
        }
        return RawScan(
            flags.views(data.pick(frames.projections)),
            angles.radians(flags.angle_unit),
            flats=_chosen(container, flags.flats, "flats", data, frames.flats),
            darks=_chosen(container, flags.darks, "darks", data, frames.darks),
            pixel_size=at_detector if beam else pixel_size,
            row_height=_row_height(container, entry, detector),
            rotation_axis=axis,
            beam=beam,
            half=is_half(container, f"{detector}/field_of_view"),
            exposure=_exposure(container, entry, detector),
            provenance={**recorded, **{key: fact for key, fact in facts.items() if fact}},
            notes=tuple(notes),
            truth=truth,
            clean=clean,
            taken=frames.projections,
            flats_taken=None if flags.flats or not frames.flats.size else frames.flats,
            detectors=_of(numbers, frames.projections),
            flat_detectors=None if flags.flats else _of(numbers, frames.flats),
            dark_detectors=None if flags.darks else _of(numbers, frames.darks),
        )


class NXtomoWriter(Hdf5ScanWriter):
    """Writer of NXtomo, with darks, flats and radiographs in one stack, identified by an image key.

    Distances and pixel sizes are stored as in NXtomo.  ``/entry/geometry`` describes the same beam in full (see
    docs/scan-file.md), because NXtomo cannot describe a fan beam with several rows, a tilted detector or several pairs.

    Examples
    --------
    >>> beam = FanBeam(np.zeros(2), 2, 8, 100.0, 150.0, pixel_size=0.3)
    >>> with h5py.File("none.nx", "w", driver="core", backing_store=False) as file:
    ...     stacks = NXtomoWriter().lay_out(file, Scan(np.ones((2, 2, 8)), beam, darks=np.ones((1, 2, 8))))
    ...     file["entry/instrument/detector/image_key"][:].tolist()
    [2, 0, 0]
    """

    called = "nxtomo"
    endings = (".nx", ".nxs")

    def lay_out(self, file: h5py.File, scan: Scan) -> list[Stack]:
        """Write everything except the frames; return where these belong."""
        file.attrs["NX_class"], file.attrs["default"] = "NXroot", "entry"
        entry = _group(file, "entry", "NXentry")
        entry["definition"] = "NXtomo"
        entry.attrs["default"] = "data"
        instrument, sample = _group(entry, "instrument", "NXinstrument"), _group(entry, "sample", "NXsample")
        detector, source = _group(instrument, "detector", "NXdetector"), _group(instrument, "source", "NXsource")
        kinds = {2: scan.darks, 1: scan.flats, 0: scan.projections}
        parts = {key: frames for key, frames in kinds.items() if frames is not None}
        stacks = lay_out_stack(detector, "data", list(parts.values()), "counts")
        keys = np.repeat(list(parts), [int(frames.shape[0]) for frames in parts.values()])
        detector["image_key"] = detector["image_key_control"] = keys
        degrees = np.full(len(keys), np.rad2deg(scan.geometry.angles[0]))
        degrees[keys == 0] = np.rad2deg(scan.geometry.angles)
        write_number(sample, "rotation_angle", degrees, "degree")
        for name, size in zip(("x_pixel_size", "y_pixel_size"), pixel_edges(scan.geometry), strict=True):
            write_number(detector, name, size, "mm")
        write_number(detector, "count_time", None if scan.exposure is None else np.full(len(keys), scan.exposure), "s")
        if scan.geometry.half is not None:
            detector["field_of_view"] = "Half" if scan.geometry.half else "Full"
        if isinstance(scan.provenance.get("sample"), str):
            sample["name"] = scan.provenance["sample"]
        data = _group(entry, "data", "NXdata")
        data.attrs["signal"] = "data"
        for name, where in (("data", detector), ("image_key", detector), ("rotation_angle", sample)):
            data[name] = h5py.SoftLink(f"{where.name}/{name}")
        _distances(source, detector, scan.geometry)
        _in_full(entry, scan, keys)
        return stacks


def _stack(container: Container, entry: str, flags: Flags) -> tuple[str, str]:
    """Return the paths of an entry's detector stack and of its image key."""
    stacks = keyed_stacks(container, entry)
    if not stacks:
        links = "; ".join(container.broken_links()[:3])
        raise FormatError(
            f"{container.path}:{entry} must hold a detector stack and its image_key, got neither"
            f"{f' ({links})' if links else ''}; copy the linked raw data beside this file, or pass --data PATH"
        )
    data_path, key_path = stacks[0]
    key_path = flags.image_key or key_path
    if container.array(key_path) is None:
        raise FormatError(f"--image-key must name a dataset in {container.path}, got '{key_path}'")
    return data_path, key_path


def _angles(container: Container, entry: str, flags: Flags, chosen: np.ndarray, data: LazyFrames) -> AngleList:
    n_frames = len(data)
    if flags.angles:
        return angles_from(container, flags.angles, None, chosen, data)
    candidates = rotation_angles(container, entry)
    fitting = [path for path in candidates if container.listing()[path][0][0] in (n_frames, len(chosen))]
    if not candidates:
        raise GeometryError(
            f"the scan {container.path}:{entry} must come with one angle for each of its {len(chosen)} views, "
            "got no rotation_angle; pass --angles 0:180 (or 0:360) for evenly spaced views, a dataset path, "
            "or a text file in degrees"
        )
    return angles_from(container, None, (fitting or candidates)[0].strip("/"), chosen, data)


def _pixel_size(container: Container, entry: str, detector: str) -> tuple[float | None, str | None]:
    groups = [f"{entry}/sample", detector, f"{entry}/instrument/detector"]
    return first_length(container, [f"{group}/x_pixel_size" for group in groups])


def _row_height(container: Container, entry: str, detector: str) -> float | None:
    """Return the height of a pixel, from the group in which its width was found."""
    for group in (f"{entry}/sample", detector, f"{entry}/instrument/detector"):
        if length_mm(container, f"{group}/x_pixel_size")[0] is not None:
            return length_mm(container, f"{group}/y_pixel_size")[0]
    return None


def _beam(
    container: Container, entry: str, detector: str, shape: tuple[int, ...]
) -> tuple[FileBeam | None, float | None, float | None, list[str]]:
    """Return the diverging beam, its pixel size at the detector and the column of its axis; None if parallel.

    It is read from our own group, or else from the distances.  In NeXus, a source in front of the sample has a negative
    distance, but not all writers follow this.  If the source is so far away that rays are parallel to within a pixel,
    as at a synchrotron, the beam is parallel.
    """
    groups = (detector, f"{entry}/instrument/detector")
    pixel, _ = first_length(container, [f"{group}/x_pixel_size" for group in groups])
    told = container.attributes(f"{entry}/geometry")
    if "beam" in told:
        axis = float(told["rotation_axis"]) if "rotation_axis" in told else None
        return read_beam(container, f"{entry}/geometry".strip("/")), pixel, axis, []
    before = _distance(container, [f"{entry}/instrument/source/distance", f"{entry}/source/distance"])
    behind = _distance(container, [f"{group}/distance" for group in groups])
    if pixel is None or before is None or behind is None:
        return None, None, None, []
    _, n_rows, n_cols = shape
    if is_parallel(pixel, before + behind, n_cols):
        return None, None, None, []
    notes = [
        f"The source is {before:g} mm before and the detector {behind:g} mm behind the axis: a "
        f"{'fan' if n_rows == 1 else 'cone'} beam."
    ]
    beam = Distances("fan" if n_rows == 1 else "cone", before, before + behind)
    return beam, pixel, _axis(container, detector, n_cols), notes


def _pairs(container: Container, entry: str, n_frames: int) -> Int[np.ndarray, " frame"] | None:
    """Return the source-detector pair of each frame of the stack, -1 for frames of all pairs; None for one pair."""
    place = f"{entry}/geometry/pair".strip("/")
    numbers = detector_numbers(container, place)
    if numbers is not None and len(numbers) != n_frames:
        raise FormatError(
            f"{container.path}:/{place} must have one number for each of the {n_frames} frames, got {len(numbers)}; "
            "correct it"
        )
    return numbers


def _of(numbers: Int[np.ndarray, " frame"] | None, chosen: np.ndarray) -> Int[np.ndarray, " chosen"] | None:
    return None if numbers is None or (numbers[chosen] < 0).all() else numbers[chosen]


def _distance(container: Container, names: list[str]) -> float | None:
    for name in names:
        value, factor = number(container, name), length_factor(container, name) or 1e3  # NeXus uses metres
        if value:
            return abs(value) * factor
    return None


def _energy(container: Container, entry: str) -> float | None:
    names = (f"{entry}/{place}/{name}" for place in ("instrument/beam", "beam") for name in _ENERGIES)
    return next((value for name in names if (value := energy_kev(container, name))), None)


def _propagation(container: Container, entry: str, detector: str) -> float | None:
    places = [f"{group}/distance" for group in (detector, f"{entry}/instrument/detector")]
    return _distance(container, [f"{entry}/sample/propagation_distance", *places])


def _motion(container: Container, entry: str, chosen: np.ndarray, n_frames: int, pixel: float | None) -> list[str]:
    """Return a note on a sample that was moved during the scan."""
    moved = []
    for axis in "xyz":
        name = f"{entry}/sample/{axis}_translation"
        array = container.array(name)
        if array is None or len(array.shape) != 1:
            continue
        values = np.asarray(array[()], np.float64) * (length_factor(container, name) or 1e3)
        values = values[chosen] if values.size == n_frames else values
        if (way := float(np.ptp(values))) > 0.5 * (pixel or 0.0) and way > 0:
            moved.append(f"{axis} ({way:.3g} mm{f', {way / pixel:.0f} pixels' if pixel else ''})")
    if not moved:
        return []
    return [
        f"The sample moved along {' and '.join(moved)} during the scan. This was ignored, as beamlines differ in these "
        "directions: if the views moved with it, the volume is blurred. Align them first, or write the vectors of "
        "every view of a cone beam (docs/scan-file.md)."
    ]


def _axis(container: Container, detector: str, n_cols: int) -> float | None:
    """Return the column of the rotation axis if a plausible one is given; some writers count from the middle."""
    value = number(container, f"{detector}/x_rotation_axis_pixel_position")
    return value if value is not None and n_cols / 4 < value < 3 * n_cols / 4 else None


def _exposure(container: Container, entry: str, detector: str) -> float | None:
    for group in (detector, f"{entry}/instrument/detector"):
        for name in ("count_time", "exposure_time"):
            found = seconds(container, f"{group}/{name}")
            if found is not None:
                return found
    return None


def _near(container: Container, entry: str, name: str) -> str:
    for parent in (entry, entry.rpartition("/")[0]):
        text = text_at(container, f"{parent}/{name}")
        if text:
            return text
    return ""


def _chosen(
    container: Container, flag: str | None, what: str, data: LazyFrames, index: np.ndarray
) -> Frames | float | None:
    if flag:
        return side_frames(container, flag, None, what)
    return data.pick(index) if index.size else None


def _group(parent: h5py.Group, name: str, kind: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group


def _distances(source: h5py.Group, detector: h5py.Group, geometry: Geometry) -> None:
    """Write the distances of a diverging beam, if they are known and the same for all views."""
    if isinstance(geometry, ParallelBeam) or geometry.pixel_size is None:
        return
    if isinstance(geometry, FanBeam):
        reach = np.array([[geometry.source_axis, geometry.source_detector]])
    else:
        reach = geometry.reach
    if np.ptp(reach, axis=0).max() > 1e-6 * reach.max():
        return
    to_axis, to_detector = reach.mean(axis=0)
    write_number(source, "distance", -to_axis, "mm")  # NeXus measures along the beam, from the sample
    write_number(detector, "distance", to_detector - to_axis, "mm")
    write_number(detector, "x_rotation_axis_pixel_position", geometry.axis, "pixel")


def _in_full(entry: h5py.Group, scan: Scan, keys: np.ndarray) -> None:
    """Write the beam, the rotation axis and the source-detector pair of each frame; -1 stands for all pairs."""
    write_beam(entry, scan.geometry)
    axis = None if isinstance(scan.geometry, ConeBeam) else scan.geometry.rotation_axis
    if axis is None and scan.detectors is None and isinstance(scan.geometry, ParallelBeam):
        return
    group = entry.require_group("geometry")
    group.attrs["NX_class"] = "NXcollection"
    group.attrs.setdefault("beam", "parallel")
    if axis is not None:
        group.attrs["rotation_axis"] = axis
    if scan.detectors is not None:
        pairs = np.full(len(keys), -1, np.int32)
        for key, numbers in ((0, scan.detectors), (1, scan.flat_detectors), (2, scan.dark_detectors)):
            if numbers is not None:
                pairs[keys == key] = numbers
        group["pair"] = pairs
        group["pair"].attrs["description"] = "number of the source-detector pair that took each frame, -1 for all"
