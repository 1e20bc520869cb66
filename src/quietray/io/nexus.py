"""NXtomo as ESRF and Diamond write it, found by content: a stack beside its image key, and angles somewhere near."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from quietray.errors import FormatError, GeometryError
from quietray.io.angles import AngleList
from quietray.io.beams import read_beam
from quietray.io.containers import Container, as_text, length_factor, number, open_frames, seconds
from quietray.io.frames import LazyFrames
from quietray.io.keys import split_by_key
from quietray.io.layouts import angles_from, detector_numbers, first_length, read_recorded, side_frames, text_at
from quietray.io.raw import Flags, RawScan
from quietray.io.stated import Distances, FileBeam
from quietray.types import Frames

__all__ = ["find_entries", "read_nxtomo"]

_PARALLEL = 1.0  # pixels that the rays at the detector's edge may move aside on their way through the object
_KEYS = ("image_key_control", "image_key")  # the first also tells alignment frames from projections


def find_entries(container: Container, flags: Flags) -> list[str]:
    """Return the groups that hold an NXtomo scan, the shallowest first.

    A group without a definition counts when it holds a stack with an image key, and angles are known.
    """
    listing = container.listing()
    defined = [
        path.rpartition("/")[0]
        for path, (shape, _) in listing.items()
        if path.endswith("/definition")
        and shape in ((), (1,))
        and text_at(container, path).lower() in ("nxtomo", "nxtomophase")
    ]
    if defined:
        return [entry for entry in defined if keyed_stacks(container, entry)] or defined[:1]
    likely = sorted({_top(path) for path, _ in keyed_stacks(container, "")})
    return [entry for entry in likely if flags.angles or _rotation_angles(container, entry)]


def keyed_stacks(container: Container, entry: str) -> list[tuple[str, str]]:
    """Return ``(data, image key)`` paths below `entry`; the detector's own group comes first."""
    listing = container.listing()
    found: list[tuple[str, str]] = []
    for path, (shape, _) in listing.items():
        group, _, name = path.rpartition("/")
        if len(shape) != 3 or not path.startswith(f"{entry}/"):
            continue
        for key in _KEYS:
            if listing.get(f"{group}/{key}", ((), None))[0] == shape[:1]:
                found.append((path, f"{group}/{key}"))
                break
        else:
            lone = [
                other
                for other, (length, _) in listing.items()
                if other.startswith(f"{entry}/") and other.rpartition("/")[2] in _KEYS and length == shape[:1]
            ]
            if lone and name == "data":
                found.append((path, min(lone, key=lambda other: _KEYS.index(other.rpartition("/")[2]))))
    return sorted(found, key=lambda pair: ("/instrument/" not in pair[0], not pair[0].endswith("/data")))


def read_nxtomo(container: Container, entries: list[str], flags: Flags) -> RawScan:
    """Read the first of the entries found by :func:`find_entries`.

    Raises
    ------
    FormatError, GeometryError
        A part is missing or does not fit.
    """
    entry = entries[0]
    stacks = keyed_stacks(container, entry)
    if not stacks:
        links = "; ".join(container.broken_links()[:3])
        raise FormatError(
            f"{container.path}:{entry} must hold a detector stack and its image_key, got neither"
            f"{f' ({links})' if links else ''}; copy the linked raw data beside this file, or pass --data PATH"
        )
    data_path, key_path = stacks[0]
    key_path = flags.image_key or key_path
    data = open_frames(container, data_path, "data")
    keys = container.array(key_path)
    if keys is None:
        raise FormatError(f"--image-key must name a dataset in {container.path}, got '{key_path}'")
    frames = split_by_key(np.asarray(keys[()]).ravel(), len(data), f"{container.path}:{key_path}")
    angles = _angles(container, entry, flags, frames.projections, len(data))
    detector = data_path.rpartition("/")[0]
    pixel_size, remark = _pixel_size(container, entry, detector)
    notes = [*frames.notes, *([remark] if remark else [])]
    beam, at_detector, axis, said = _beam(container, entry, detector, data.shape)
    notes += said
    if len(entries) > 1:
        notes.append(f"The file holds {len(entries)} scans; {entry} was read. Pass --data {entries[1]} for the next.")
    own = as_text(container.attributes("/").get("generator")).startswith("quietray")
    recorded, _, truth, clean = read_recorded(container) if own else ({}, None, None, None)
    numbers = _pairs(container, entry, len(data))
    facts = {
        "format": f"NXtomo in {container.kind}",
        "data": data_path,
        "image_key": key_path,
        "angles": angles.place,
        "sample": _near(container, entry, "sample/name"),
    }
    return RawScan(
        data.pick(frames.projections),
        angles.radians(flags.angle_unit),
        flats=_chosen(container, flags.flats, "flats", data, frames.flats),
        darks=_chosen(container, flags.darks, "darks", data, frames.darks),
        pixel_size=at_detector if beam else pixel_size,
        rotation_axis=axis,
        beam=beam,
        exposure=_exposure(container, entry, detector),
        provenance={**recorded, **{key: fact for key, fact in facts.items() if fact}},
        notes=tuple(notes),
        truth=truth,
        clean=clean,
        detectors=_of(numbers, frames.projections),
        flat_detectors=None if flags.flats else _of(numbers, frames.flats),
        dark_detectors=None if flags.darks else _of(numbers, frames.darks),
    )


def _angles(container: Container, entry: str, flags: Flags, chosen: np.ndarray, n_frames: int) -> AngleList:
    if flags.angles:
        return angles_from(container, flags.angles, None, chosen, n_frames)
    candidates = _rotation_angles(container, entry)
    fitting = [path for path in candidates if container.listing()[path][0][0] in (n_frames, len(chosen))]
    if not candidates:
        raise GeometryError(
            f"the scan {container.path}:{entry} must come with one angle for each of its {len(chosen)} views, "
            "got no rotation_angle; pass --angles 0:180 (or 0:360) for evenly spaced views, a dataset path, "
            "or a text file in degrees"
        )
    return angles_from(container, None, (fitting or candidates)[0].strip("/"), chosen, n_frames)


def _rotation_angles(container: Container, entry: str) -> list[str]:
    found = [
        path
        for path, (shape, dtype) in container.listing().items()
        if path.startswith(f"{entry}/") and path.endswith("/rotation_angle") and len(shape) == 1 and dtype.kind in "iuf"
    ]
    return sorted(found, key=lambda path: "/sample/" not in path)


def _pixel_size(container: Container, entry: str, detector: str) -> tuple[float | None, str | None]:
    groups = [f"{entry}/sample", detector, f"{entry}/instrument/detector"]
    return first_length(container, [f"{group}/x_pixel_size" for group in groups])


def _beam(
    container: Container, entry: str, detector: str, shape: tuple[int, ...]
) -> tuple[FileBeam | None, float | None, float | None, list[str]]:
    """Return the diverging beam, its pixel size at the detector and the column of its axis; None for a parallel one.

    Our own group tells it in full, else the distances do.  NeXus gives the source before the sample a negative
    distance; some writers do not.  A source so far away that the rays are parallel to within a pixel, as at a
    synchrotron, makes no diverging beam.
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
    if n_cols / 2 * pixel / (before + behind) * n_cols < _PARALLEL:
        return None, None, None, []
    notes = [
        f"The source is {before:g} mm before and the detector {behind:g} mm behind the axis: a "
        f"{'fan' if n_rows == 1 else 'cone'} beam."
    ]
    moved = [axis for axis in "xyz" if _moves(container, f"{entry}/sample/{axis}_translation", pixel)]
    if moved:
        notes.append(
            f"The sample moved along {' and '.join(moved)} during the scan, which was not used, for beamlines differ "
            "in what these directions are; write the vectors of every view instead (docs/scan-file.md)."
        )
    beam = Distances("fan" if n_rows == 1 else "cone", before, before + behind)
    return beam, pixel, _axis(container, detector, n_cols), notes


def _pairs(container: Container, entry: str, n_frames: int) -> Int[np.ndarray, " frame"] | None:
    """Return which source-detector pair took each frame of the stack, -1 where it belongs to all; None for one pair."""
    place = f"{entry}/geometry/pair".strip("/")
    numbers = detector_numbers(container, place)
    if numbers is not None and len(numbers) != n_frames:
        raise FormatError(
            f"{container.path}:/{place} must have one number for each of the {n_frames} frames, got {len(numbers)}; "
            "mend it"
        )
    return numbers


def _of(numbers: Int[np.ndarray, " frame"] | None, chosen: np.ndarray) -> Int[np.ndarray, " chosen"] | None:
    return None if numbers is None or (numbers[chosen] < 0).all() else numbers[chosen]


def _distance(container: Container, names: list[str]) -> float | None:
    for name in names:
        value, factor = number(container, name), length_factor(container, name) or 1e3  # NeXus means metres
        if value:
            return abs(value) * factor
    return None


def _moves(container: Container, name: str, pixel: float) -> bool:
    array = container.array(name)
    if array is None or len(array.shape) != 1:
        return False
    values = np.asarray(array[()], np.float64) * (length_factor(container, name) or 1e3)
    return bool(np.ptp(values) > 0.5 * pixel)


def _axis(container: Container, detector: str, n_cols: int) -> float | None:
    """Return the column of the rotation axis, where one is stated that can be; some writers count from the middle."""
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


def _chosen(container: Container, flag: str | None, what: str, data: LazyFrames, index: np.ndarray) -> Frames | None:
    if flag:
        return side_frames(container, flag, None, what)
    return data.pick(index) if index.size else None


def _top(path: str) -> str:
    """Return the group two levels above a stack, or the root: where its angles may be."""
    return "/" + path.strip("/").split("/")[0] if path.count("/") > 1 else ""
