"""Instrument data in a scan's file: energy, exposure, scintillator, serial number, binning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

__all__ = ["instrument_of"]

# Names of datasets in groups called instrument or beam, as in DXchange and NXtomo.
_KNOWN = {
    "energy": "energy",
    "incident_energy": "energy",
    "exposure_time": "exposure",
    "count_time": "exposure",
    "manufacturer": "detector",
    "model": "model",
    "serial_number": "serial number",
    "binning_x": "binning",
    "x_binning": "binning",
    "scintillating_thickness": "scintillator thickness",
    "scintillator": "scintillator",
    "name": "name",
    "current": "current",
}


def instrument_of(path: str | Path) -> dict[str, Any]:
    """Return the instrument data in an HDF5 file; empty if there are none or the file is of another kind.

    Examples
    --------
    >>> instrument_of("nowhere.h5")
    {}
    """
    found: dict[str, Any] = {}

    def look(name: str, item: Any) -> None:
        *groups, last = name.lower().split("/")
        if not isinstance(item, h5py.Dataset) or last not in _KNOWN or item.size != 1:
            return
        if not {"instrument", "beam"} & set(groups):
            return
        value = item[()]
        value = value.decode(errors="replace") if isinstance(value, bytes) else np.asarray(value).ravel()[0]
        value = value.decode(errors="replace") if isinstance(value, bytes) else value
        plain = value if isinstance(value, str) else getattr(value, "item", lambda: value)()
        unit = item.attrs.get("units")
        unit = unit.decode(errors="replace") if isinstance(unit, bytes) else unit
        label = "scintillator" if "scintillator" in groups and last == "name" else _KNOWN[last]
        if label not in found and label != "name":
            found[label] = f"{plain} {unit}" if unit else plain

    place = Path(str(path).split(":")[0])
    if not place.is_file() or not h5py.is_hdf5(place):
        return {}
    try:
        with h5py.File(place, "r") as file:
            file.visititems(look)
    except OSError:
        return {}
    return found
