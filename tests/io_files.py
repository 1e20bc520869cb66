"""Small scan files, written with the libraries themselves and with values that tell where each pixel came from."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile


def counts(n_frames: int, n_rows: int = 4, n_cols: int = 5, start: int = 0, dtype: Any = np.uint16) -> np.ndarray:
    """Return ``(frame, row, col)`` where every pixel is different: 100 per frame, 10 per row, 1 per column."""
    frame, row, col = np.ogrid[start : start + n_frames, :n_rows, :n_cols]
    return (100 * frame + 10 * row + col).astype(dtype)


def write_exchange(
    path: Path, data: np.ndarray, theta: Any, flats: Any = None, darks: Any = None, **kwargs: Any
) -> Path:
    """Write DXchange with h5py; `kwargs` go to the data (chunks, compression)."""
    with h5py.File(path, "w") as file:
        file.create_dataset("exchange/data", data=data, **kwargs)
        for name, value in (("theta", theta), ("data_white", flats), ("data_dark", darks)):
            if value is not None:
                file[f"exchange/{name}"] = value
    return path


def write_esrf(path: Path, data: np.ndarray, keys: Any, angles: Any, entries: tuple[str, ...] = ("entry0000",)) -> Path:
    """Write NXtomo with the nxtomo package: 6.5 um pixels, 50 ms per frame."""
    import pint
    from nxtomo import NXtomo

    unit = pint.get_application_registry()
    scan = NXtomo()
    scan.instrument.detector.data = data
    scan.instrument.detector.image_key_control = list(keys)
    scan.instrument.detector.x_pixel_size = scan.instrument.detector.y_pixel_size = 6.5 * unit.um
    scan.instrument.detector.count_time = np.full(len(data), 0.05) * unit.s
    scan.sample.rotation_angle = np.asarray(angles) * unit.degree
    scan.sample.name = "rock"
    for entry in entries:
        scan.save(str(path), data_path=entry, overwrite=entry == entries[0])
    return path


def write_diamond(path: Path, data: np.ndarray, keys: Any, angles: Any, links: bool = True) -> Path:
    """Write NXtomo as Diamond does: a tomo_entry whose data group links to the detector."""
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry1/tomo_entry")
        entry["definition"] = "NXtomo"
        where = "entry1/tomo_entry/instrument/detector" if links else "entry1/tomo_entry/data"
        file[f"{where}/data"] = data
        file[f"{where}/image_key"] = np.asarray(keys, np.int64)
        file["entry1/tomo_entry/sample/rotation_angle"] = np.asarray(angles, float)
        file["entry1/tomo_entry/sample/rotation_angle"].attrs["units"] = "degrees"
        if links:
            file["entry1/tomo_entry/data/data"] = h5py.SoftLink(f"/{where}/data")
            file["entry1/tomo_entry/data/rotation_angle"] = h5py.SoftLink("/entry1/tomo_entry/sample/rotation_angle")
    return path


def write_tiffs(folder: Path, data: np.ndarray, name: str = "view_{}.tif", **kwargs: Any) -> Path:
    """Write one TIFF per frame."""
    folder.mkdir(exist_ok=True)
    for number, frame in enumerate(data):
        tifffile.imwrite(folder / name.format(number), frame, **kwargs)
    return folder
