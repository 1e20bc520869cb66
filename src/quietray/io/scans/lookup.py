"""Common parts of scan layouts: angles, flats and darks, detectors, and our own additions."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from jaxtyping import Int

from quietray.errors import FormatError, GeometryError
from quietray.io.containers import Container, as_text, length_mm, open_frames, require_array
from quietray.io.frames import LazyFrames
from quietray.io.scans.angles import AngleList, angle_range, unit_of
from quietray.io.scans.elsewhere import angles_elsewhere, frames_elsewhere
from quietray.types import Frames

__all__ = [
    "angles_from",
    "detector_numbers",
    "first_length",
    "is_half",
    "is_own",
    "read_recorded",
    "side_frames",
    "text_at",
]


def is_own(container: Container) -> bool:
    """Return whether quietray wrote the file."""
    return as_text(container.attributes("/").get("generator")).startswith("quietray")


def detector_numbers(container: Container, name: str) -> Int[np.ndarray, " frame"] | None:
    """Return the detector number of each frame, or None if the file does not contain it."""
    array = container.array(name)
    if array is None or np.dtype(array.dtype).kind not in "iuf" or len(array.shape) != 1:
        return None
    values = np.asarray(array[()])
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        raise FormatError(f"{container.path}:/{name} must hold integer detector numbers, got {values[:4]}; correct it")
    return values.astype(np.int64)


def is_half(container: Container, name: str) -> bool | None:
    """Return True if the file declares a half acquisition, or False if one of our own files denies it; else None.

    Other programs declare a full field of view whatever the scan, so this is only trusted in our own files.
    """
    said = text_at(container, name).strip().lower()
    return {"half": True, "full": False if is_own(container) else None}.get(said)


def read_recorded(container: Container) -> tuple[dict[str, Any], float | None, Frames | None, LazyFrames | None]:
    """Return what only our own files contain: provenance, rotation axis, true volume, noise-free radiographs."""
    try:
        recorded = json.loads(as_text(container.attributes("/").get("provenance")) or "{}")
    except (ValueError, RecursionError):
        recorded = {}
    recorded = recorded if isinstance(recorded, dict) else {}
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


def angles_from(
    container: Container, flag: str | None, default: str | None, chosen: np.ndarray, frames: LazyFrames
) -> AngleList:
    """Return one angle for each of the `chosen` frames.

    Parameters
    ----------
    flag
        Given by the user: a range, a dataset in the container, or a file; None for the `default` dataset.

    Raises
    ------
    FormatError, GeometryError
        There are no angles, or their number is wrong.
    """
    n_frames, n_rows, _ = frames.shape
    spread = angle_range(flag, len(chosen)) if flag else None
    if spread is not None:
        return spread
    name = flag or default
    array = container.array(name) if name else None
    if array is None and flag:
        if (outside := angles_elsewhere(flag, container.path.parent)) is not None:
            return outside.for_frames(chosen, n_frames, n_rows)
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
    return AngleList(values, declared, place).for_frames(chosen, n_frames, n_rows)


def side_frames(container: Container, flag: str | None, default: str | None, what: str) -> Frames | float | None:
    """Return flats or darks: what the flag names (in the container, on disk, or a level), the default, or None."""
    if flag and container.array(flag) is None:
        outside = frames_elsewhere(flag, what, container.path.parent)
        if outside is not None:
            return outside
    if flag:
        return open_frames(container, flag, f"--{what}")
    present = default is not None and container.array(default) is not None
    return open_frames(container, default, what) if present and default else None


def first_length(container: Container, names: list[str]) -> tuple[float | None, str | None]:
    """Return the first length with a unit in mm, else a sentence about the first length without one."""
    found = [length_mm(container, name) for name in names]
    known = [value for value, _ in found if value is not None]
    remarks = [remark for _, remark in found if remark is not None]
    return (known[0], None) if known else (None, remarks[0] if remarks else None)


def text_at(container: Container, name: str) -> str:
    """Return the text in a dataset, or an empty text."""
    array = container.array(name)
    return as_text(array[()]) if array is not None and array.shape in ((), (1,)) else ""
