"""Where a DXchange file keeps the parts of a scan."""

from __future__ import annotations

import h5py
import numpy as np

from quietray.geometry import ConeBeam
from quietray.io.beams import write_beam
from quietray.io.stacks import Stack, lay_out_stack, write_number
from quietray.scan import Scan

__all__ = ["lay_out_exchange"]


def lay_out_exchange(file: h5py.File, scan: Scan) -> list[Stack]:
    """Write everything but the frames, with the type of the counts kept.

    A scan of several detectors says which one took each frame in ``/exchange/detector`` (views), ``detector_white`` and
    ``detector_dark``: whole numbers from 0.  A fan or cone beam is told in ``/exchange/geometry``.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> with h5py.File("none.h5", "w", driver="core", backing_store=False) as file:
    ...     stacks = lay_out_exchange(file, Scan(np.ones((2, 3, 4), np.uint16), ParallelBeam(np.arange(2.0), 3, 4)))
    ...     len(stacks), str(file["exchange/data"].dtype)
    (1, 'uint16')
    """
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
    write_number(detector, "pixel_size_x", scan.geometry.pixel_size, "mm")
    write_number(detector, "pixel_size_y", scan.geometry.pixel_size, "mm")
    write_number(detector, "exposure_time", scan.exposure, "s")
    if isinstance(scan.provenance.get("sample"), str):
        file["measurement/sample/name"] = scan.provenance["sample"]
    return stacks
