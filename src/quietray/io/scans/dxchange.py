"""DXchange, in HDF5 or Zarr: reading and writing."""

from __future__ import annotations

import h5py
import numpy as np

from quietray.errors import FormatError
from quietray.geometry import ConeBeam
from quietray.io.containers import Container, energy_kev, number, open_frames, seconds
from quietray.io.frames import LazyFrames
from quietray.io.scans.angles import AngleList
from quietray.io.scans.base import ScanReader, Source
from quietray.io.scans.beams import pixel_edges, read_beam, write_beam
from quietray.io.scans.hdf5 import Hdf5ScanWriter
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
from quietray.io.stacks import Stack, lay_out_stack, write_number
from quietray.scan import Scan
from quietray.types import Frames

__all__ = ["DXchange", "DXchangeWriter"]

_DETECTOR = "measurement/instrument/detector"
_SETUP = "measurement/instrument/camera_motor_stack/setup"
_ROTATION = "process/acquisition/rotation"
_LEVELS = {
    "flats": ("data_white", "flat_fields/flat_field_value"),
    "darks": ("data_dark", "dark_fields/dark_field_value"),
}


class DXchange(ScanReader):
    """The layout ``/exchange/data, data_white, data_dark, theta``.

    If several detectors took the scan, ``/exchange/detector``, ``detector_white`` and ``detector_dark`` give the
    detector of each view, flat and dark, numbered from 0.  ``/exchange/geometry`` describes a fan or cone beam.
    """

    files = ("HDF5", "Zarr")

    def recognises(self, source: Source, flags: Flags) -> bool:
        """Return whether the container holds ``/exchange/data``, and the user has named nothing else."""
        return (
            source.container is not None and flags.data is None and source.container.array("exchange/data") is not None
        )

    def read(self, source: Source, flags: Flags) -> RawScan:
        """Read the scan."""
        container, own = source.opened, is_own(source.opened)
        if own and container.array("exchange/theta") is None and "voxel_size" in container.attributes("exchange/data"):
            raise FormatError(
                f"{container.path} must be a scan, got a reconstructed volume; "
                "give the scan that it was made from (evaluate reads volumes)"
            )
        projections = flags.views(open_frames(container, "exchange/data", "data"))
        angles = _angles(container, flags, projections)
        pixel_size, pixel_note = first_length(
            container, [f"{_DETECTOR}/{name}" for name in ("pixel_size_x", "x_pixel_size", "pixel_size")]
        )
        recorded, rotation_axis, truth, clean = read_recorded(container) if own else ({}, None, None, None)
        facts = {
            "format": f"DXchange in {container.kind}",
            "data": "/exchange/data",
            "angles": angles.place,
            "sample": text_at(container, "measurement/sample/name"),
            "energy_kev": energy_kev(container, "measurement/instrument/monochromator/energy"),
            "propagation_mm": first_length(container, [f"{_DETECTOR}/distance", f"{_SETUP}/camera_distance"])[0],
        }
        flats = _side(container, flags.flats, "flats")
        return RawScan(
            projections,
            angles.radians(flags.angle_unit),
            flats=flats,
            taken=np.arange(len(projections)),
            flats_taken=None if flags.flats else _flats_taken(container, flats, len(projections)),
            darks=_side(container, flags.darks, "darks"),
            pixel_size=pixel_size,
            row_height=first_length(container, [f"{_DETECTOR}/pixel_size_y", f"{_DETECTOR}/y_pixel_size"])[0],
            beam=read_beam(container),
            exposure=seconds(container, f"{_DETECTOR}/exposure_time"),
            rotation_axis=rotation_axis,
            half=is_half(container, f"{_DETECTOR}/field_of_view"),
            provenance={**recorded, **{key: fact for key, fact in facts.items() if fact}},
            notes=(pixel_note,) if pixel_note else (),
            truth=truth,
            clean=clean,
            detectors=detector_numbers(container, "exchange/detector"),
            flat_detectors=None if flags.flats else detector_numbers(container, "exchange/detector_white"),
            dark_detectors=None if flags.darks else detector_numbers(container, "exchange/detector_dark"),
        )


def _angles(container: Container, flags: Flags, projections: LazyFrames) -> AngleList:
    """Return the angles; if there is no list, from the start and step of the rotation."""
    n_views = len(projections)
    start, step = (number(container, f"{_ROTATION}/rotation_{name}") for name in ("start", "step"))
    if not flags.angles and container.array("exchange/theta") is None and start is not None and step:
        return AngleList(start + step * np.arange(n_views), "deg", f"{container.path}:/{_ROTATION}")
    return angles_from(container, flags.angles, "exchange/theta", np.arange(n_views), projections)


def _flats_taken(container: Container, flats: Frames | float | None, n_views: int) -> np.ndarray | None:
    """Return when flats were taken, if the file says that half of them precede the views and half follow."""
    mode = text_at(container, "process/acquisition/flat_fields/flat_field_mode").lower()
    if mode != "both" or flats is None or isinstance(flats, float) or flats.shape[0] % 2:
        return None
    return np.repeat([-1, n_views], int(flats.shape[0]) // 2)


def _side(container: Container, flag: str | None, what: str) -> Frames | float | None:
    """Return flats or darks; a single frame of zeros beside a level in the file, or no frame, stands for it."""
    name, told = _LEVELS[what]
    frames = side_frames(container, flag, f"exchange/{name}", what)
    level = None if flag else number(container, f"process/acquisition/{told}")
    if level is None or not (frames is None or isinstance(frames, float) or frames.shape[0] == 1):
        return frames
    empty = frames is None or isinstance(frames, float) or not np.any(frames[0:1])
    return level if empty else frames


class DXchangeWriter(Hdf5ScanWriter):
    """Writer of the same layout, which keeps the type of the counts.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> with h5py.File("none.h5", "w", driver="core", backing_store=False) as file:
    ...     scan = Scan(np.ones((2, 3, 4), np.uint16), ParallelBeam(np.arange(2.0), 3, 4))
    ...     stacks = DXchangeWriter().lay_out(file, scan)
    ...     len(stacks), str(file["exchange/data"].dtype)
    (1, 'uint16')
    """

    called = "dxchange"
    endings = (".h5", ".hdf5", ".hdf")

    def lay_out(self, file: h5py.File, scan: Scan) -> list[Stack]:
        """Write everything except the frames; return where these belong."""
        file["implements"] = "exchange:measurement"
        exchange = file.create_group("exchange")
        stacks: list[Stack] = []
        for leaf, frames in (("data", scan.projections), ("data_white", scan.flats), ("data_dark", scan.darks)):
            if frames is not None:
                stacks += lay_out_stack(exchange, leaf, [frames], "counts")
        write_number(exchange, "theta", np.rad2deg(scan.geometry.angles), "degrees")
        for leaf, numbers in (
            ("detector", scan.detectors),
            ("detector_white", scan.flat_detectors),
            ("detector_dark", scan.dark_detectors),
        ):
            if numbers is not None:
                exchange[leaf] = numbers.astype(np.int32)
                exchange[leaf].attrs["description"] = "number of the detector that took each frame"
        write_beam(exchange, scan.geometry)
        if scan.geometry.rotation_axis is not None and not isinstance(scan.geometry, ConeBeam):
            exchange.attrs["rotation_axis"] = scan.geometry.rotation_axis
        detector = file.create_group("measurement/instrument/detector")
        for name, size in zip(("pixel_size_x", "pixel_size_y"), pixel_edges(scan.geometry), strict=True):
            write_number(detector, name, size, "mm")
        write_number(detector, "exposure_time", scan.exposure, "s")
        if scan.geometry.half is not None:
            detector["field_of_view"] = "Half" if scan.geometry.half else "Full"
        if isinstance(scan.provenance.get("sample"), str):
            file["measurement/sample/name"] = scan.provenance["sample"]
        return stacks
