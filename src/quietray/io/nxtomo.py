"""Where an NXtomo file keeps the parts of a scan; what the standard has no place for is in a group of our own."""

from __future__ import annotations

import h5py
import numpy as np

from quietray.geometry import ConeBeam, FanBeam, Geometry, ParallelBeam
from quietray.io.beams import write_beam
from quietray.io.stacks import Stack, lay_out_stack, write_number
from quietray.scan import Scan

__all__ = ["lay_out_nxtomo"]


def lay_out_nxtomo(file: h5py.File, scan: Scan) -> list[Stack]:
    """Write everything but the frames: darks, flats and radiographs share one stack, told apart by an image key.

    Distances and pixels are where NXtomo has them.  ``/entry/geometry`` tells the same beam in full, see
    docs/scan-file.md: NXtomo has no words for a fan of several rows, a tilted detector or several pairs.

    Examples
    --------
    >>> beam = FanBeam(np.zeros(2), 2, 8, 100.0, 150.0, pixel_size=0.3)
    >>> with h5py.File("none.nx", "w", driver="core", backing_store=False) as file:
    ...     stacks = lay_out_nxtomo(file, Scan(np.ones((2, 2, 8)), beam, darks=np.ones((1, 2, 8))))
    ...     file["entry/instrument/detector/image_key"][:].tolist()
    [2, 0, 0]
    """
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
    for name in ("x_pixel_size", "y_pixel_size"):
        write_number(detector, name, scan.geometry.pixel_size, "mm")
    write_number(detector, "count_time", None if scan.exposure is None else np.full(len(keys), scan.exposure), "s")
    if isinstance(scan.provenance.get("sample"), str):
        sample["name"] = scan.provenance["sample"]
    data = _group(entry, "data", "NXdata")
    data.attrs["signal"] = "data"
    for name, where in (("data", detector), ("image_key", detector), ("rotation_angle", sample)):
        data[name] = h5py.SoftLink(f"{where.name}/{name}")
    _distances(source, detector, scan.geometry)
    _in_full(entry, scan, keys)
    return stacks


def _group(parent: h5py.Group, name: str, kind: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group


def _distances(source: h5py.Group, detector: h5py.Group, geometry: Geometry) -> None:
    """Write the distances of a diverging beam, if they are known and those of every view."""
    if isinstance(geometry, ParallelBeam) or geometry.pixel_size is None:
        return
    if isinstance(geometry, FanBeam):
        reach = np.array([[geometry.source_axis, geometry.source_detector]])
    else:
        reach = geometry.reach
    if np.ptp(reach, axis=0).max() > 1e-6 * reach.max():
        return
    to_axis, to_detector = reach.mean(axis=0)
    write_number(source, "distance", -to_axis, "mm")  # NeXus counts along the beam, from the sample
    write_number(detector, "distance", to_detector - to_axis, "mm")
    write_number(detector, "x_rotation_axis_pixel_position", geometry.axis, "pixel")


def _in_full(entry: h5py.Group, scan: Scan, keys: np.ndarray) -> None:
    """Write the beam, the rotation axis and which source-detector pair took each frame; -1 belongs to all."""
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
