"""How a scan is laid out in a container: DXchange, NXtomo, or wherever the user points."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from quietray.errors import FormatError, GeometryError
from quietray.io.angles import AngleList, angle_range, read_angle_file, unit_of
from quietray.io.beams import read_beam
from quietray.io.containers import Container, as_text, length_mm, open_frames, require_array, seconds
from quietray.io.frames import LazyFrames
from quietray.io.keys import split_by_key
from quietray.io.raw import Flags, RawScan
from quietray.io.tiff import frames_on_disk
from quietray.types import Frames

__all__ = ["angles_from", "detector_numbers", "is_exchange", "read_exchange", "read_plain", "read_recorded"]

_DETECTOR = "measurement/instrument/detector"


def is_exchange(container: Container) -> bool:
    """Return whether the container holds ``/exchange/data``."""
    return container.array("exchange/data") is not None


def read_exchange(container: Container, flags: Flags) -> RawScan:
    """Read the DXchange layout: ``/exchange/data, data_white, data_dark, theta``.

    Where several detectors took the scan, ``/exchange/detector``, ``detector_white`` and ``detector_dark`` say which of
    them took each view, flat and dark: whole numbers from 0.  ``/exchange/geometry`` tells a fan or cone beam.

    Raises
    ------
    FormatError, GeometryError
        A part is missing or does not fit.
    """
    own = as_text(container.attributes("/").get("generator")).startswith("quietray")
    if own and container.array("exchange/theta") is None and "voxel_size" in container.attributes("exchange/data"):
        raise FormatError(
            f"{container.path} must be a scan, got a reconstructed volume; "
            "give the scan that it was made from (evaluate reads volumes)"
        )
    projections = open_frames(container, "exchange/data", "data")
    angles = angles_from(container, flags.angles, "exchange/theta", np.arange(len(projections)), len(projections))
    pixel_size, pixel_note = first_length(
        container, [f"{_DETECTOR}/{name}" for name in ("pixel_size_x", "x_pixel_size", "pixel_size")]
    )
    recorded, rotation_axis, truth, clean = read_recorded(container) if own else ({}, None, None, None)
    facts = {
        "format": f"DXchange in {container.kind}",
        "data": "/exchange/data",
        "angles": angles.place,
        "sample": text_at(container, "measurement/sample/name"),
    }
    return RawScan(
        projections,
        angles.radians(flags.angle_unit),
        flats=side_frames(container, flags.flats, "exchange/data_white", "flats"),
        darks=side_frames(container, flags.darks, "exchange/data_dark", "darks"),
        pixel_size=pixel_size,
        beam=read_beam(container),
        exposure=seconds(container, f"{_DETECTOR}/exposure_time"),
        rotation_axis=rotation_axis,
        provenance={**recorded, **{key: fact for key, fact in facts.items() if fact}},
        notes=(pixel_note,) if pixel_note else (),
        truth=truth,
        clean=clean,
        detectors=detector_numbers(container, "exchange/detector"),
        flat_detectors=None if flags.flats else detector_numbers(container, "exchange/detector_white"),
        dark_detectors=None if flags.darks else detector_numbers(container, "exchange/detector_dark"),
    )


def detector_numbers(container: Container, name: str) -> Int[np.ndarray, " frame"] | None:
    """Return which detector took each frame, or None where the file does not say."""
    array = container.array(name)
    if array is None or np.dtype(array.dtype).kind not in "iuf" or len(array.shape) != 1:
        return None
    values = np.asarray(array[()])
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        raise FormatError(f"{container.path}:/{name} must hold whole numbers of detectors, got {values[:4]}; mend it")
    return values.astype(np.int64)


def read_recorded(container: Container) -> tuple[dict[str, Any], float | None, Frames | None, LazyFrames | None]:
    """Return what only our own files hold: provenance, rotation axis, the true volume, the noise-free radiographs."""
    try:
        recorded = json.loads(as_text(container.attributes("/").get("provenance")) or "{}")
    except ValueError:
        recorded = {}
    truth = open_frames(container, "truth/volume", "truth") if container.array("truth/volume") is not None else None
    if truth is not None:
        attributes = container.attributes("truth/volume")
        recorded["truth"] = {
            "unit": as_text(attributes.get("unit")) or "1/pixel",
            "voxel_size": float(attributes["voxel_size"]) if "voxel_size" in attributes else None,
        }
    name = "truth/line_integrals"
    clean = open_frames(container, name, "truth") if container.array(name) is not None else None
    axis = container.attributes("exchange").get("rotation_axis")
    return recorded, None if axis is None else float(axis), truth, clean


def read_plain(container: Container, flags: Flags) -> RawScan:
    """Read the datasets that the flags name; flats and darks may lie among the data, told apart by an image key.

    Raises
    ------
    FormatError, GeometryError
        A part is missing or does not fit.
    """
    assert flags.data is not None
    data = open_frames(container, flags.data, "data")
    key_name = flags.image_key or _sibling_key(container, flags.data, len(data))
    notes: tuple[str, ...] = ()
    chosen = np.arange(len(data))
    flats: LazyFrames | None = None
    darks: LazyFrames | None = None
    if key_name:
        keys = np.asarray(require_array(container, key_name, "--image-key")[()]).ravel()
        sorted_frames = split_by_key(keys, len(data), f"{container.path}:/{key_name.strip('/')}")
        chosen, notes = sorted_frames.projections, sorted_frames.notes
        flats = data.pick(sorted_frames.flats) if sorted_frames.flats.size else None
        darks = data.pick(sorted_frames.darks) if sorted_frames.darks.size else None
    angles = angles_from(container, flags.angles, None, chosen, len(data))
    facts = {
        "format": f"datasets in {container.kind}",
        "data": flags.data,
        "image_key": key_name,
        "angles": angles.place,
    }
    return RawScan(
        data.pick(chosen),
        angles.radians(flags.angle_unit),
        flats=side_frames(container, flags.flats, None, "flats") if flags.flats else flats,
        darks=side_frames(container, flags.darks, None, "darks") if flags.darks else darks,
        provenance={key: fact for key, fact in facts.items() if fact},
        notes=notes,
    )


def angles_from(
    container: Container, flag: str | None, default: str | None, chosen: np.ndarray, n_frames: int
) -> AngleList:
    """Return one angle for each of the `chosen` of `n_frames` frames.

    Parameters
    ----------
    flag
        What the user gave: a range, a dataset in the container, or a file; None for the `default` dataset.

    Raises
    ------
    FormatError, GeometryError
        There are no angles, or not the right number.
    """
    spread = angle_range(flag, len(chosen)) if flag else None
    if spread is not None:
        return spread
    name = flag or default
    array = container.array(name) if name else None
    if array is None and flag:
        if Path(flag).is_file():
            return read_angle_file(Path(flag)).for_frames(chosen, n_frames)
        array = require_array(container, flag, "--angles")
    if array is None or name is None:
        where = f"no /{default}" if default else "none named"
        raise GeometryError(
            f"the scan {container.path} must come with one angle for each of its {len(chosen)} views, got {where}; "
            "pass --angles 0:180 (or 0:360) for evenly spaced views, a dataset path, or a text file in degrees"
        )
    place = f"{container.path}:/{name.strip('/')}"
    if np.dtype(array.dtype).kind not in "iuf":
        raise FormatError(f"angles must be numbers, got type {array.dtype} in {place}; name another dataset")
    declared = unit_of(as_text(container.attributes(name).get("units", container.attributes(name).get("unit"))))
    values = np.asarray(array[()], dtype=np.float64).ravel()
    return AngleList(values, declared, place).for_frames(chosen, n_frames)


def side_frames(container: Container, flag: str | None, default: str | None, what: str) -> Frames | None:
    """Return flats or darks: what the flag names (in the container, or on disk), else the default, else None."""
    if flag and container.array(flag) is None and (outside := frames_on_disk(flag, what, container.path.parent)):
        return outside
    if flag:
        return open_frames(container, flag, f"--{what}")
    present = default is not None and container.array(default) is not None
    return open_frames(container, default, what) if present and default else None


def first_length(container: Container, names: list[str]) -> tuple[float | None, str | None]:
    """Return the first length that is stated in full, in mm, else a sentence about the first that is not."""
    found = [length_mm(container, name) for name in names]
    known = [value for value, _ in found if value is not None]
    remarks = [remark for _, remark in found if remark is not None]
    return (known[0], None) if known else (None, remarks[0] if remarks else None)


def text_at(container: Container, name: str) -> str:
    """Return a text dataset, or an empty string."""
    array = container.array(name)
    return as_text(array[()]) if array is not None and array.shape in ((), (1,)) else ""


def unknown_layout(container: Container) -> FormatError:
    """Return the error for a file that no layout fits: what is in it, and which flags would read it."""
    listing: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]] = container.listing()
    stacks = [f"{path} {shape} {dtype}" for path, (shape, dtype) in listing.items() if len(shape) == 3]
    links = "".join(f"; {sentence}" for sentence in container.broken_links()[:3])
    if not stacks:
        return FormatError(
            f"{container.path} must hold a stack of radiographs (view, row, col), got no three-dimensional dataset"
            f"{links}; give the file that holds the raw data"
        )
    lists = [path for path, (shape, _) in listing.items() if len(shape) == 1 and shape[0] > 1]
    return FormatError(
        f"{container.path} must be laid out as DXchange or NXtomo, got these stacks: {', '.join(stacks[:12])}{links}; "
        "pass --data PATH --angles PATH with --flats PATH --darks PATH, or with --image-key PATH when flats and darks "
        f"lie in the same stack (lists in the file: {', '.join(lists[:12]) or 'none'})"
    )


def _sibling_key(container: Container, data: str, n_frames: int) -> str | None:
    """Return the image key beside the data, so that flats are never taken for views."""
    group = data.strip("/").rpartition("/")[0]
    for name in ("image_key_control", "image_key"):
        path = f"{group}/{name}".strip("/")
        array = container.array(path)
        if array is not None and tuple(array.shape) == (n_frames,):
            return path
    return None
