"""Scans and volumes as layers: lazy, in mm if sizes are known, with suitable contrast limits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quietray import Scan

__all__ = ["Layer", "limits", "named", "picture", "scan_layers", "volume_layer"]

Layer = tuple[Any, dict[str, Any], str]
"""A layer for napari: its data, keyword arguments, and type."""


def scan_layers(scan: Scan) -> list[Layer]:
    """Return the layers of a scan: its projections, and hidden below them its flats and darks.

    The distance between views is that between rows, so that one slider moves through the views and, for volumes opened
    beside them, the slices.

    Parameters
    ----------
    scan
        Scan from :func:`quietray.read`; the layer of the projections stores it under ``metadata["scan"]``.

    Examples
    --------
    >>> scan = Scan.from_arrays(np.ones((3, 4, 5)), [0, 60, 120], flats=np.ones((2, 4, 5)), pixel_size=0.5)
    >>> [(meta["name"], meta["scale"]) for _, meta, _ in scan_layers(scan)]
    [('scan flats', (0.5, 0.5, 0.5)), ('scan', (0.5, 0.5, 0.5))]
    """
    width = scan.geometry.pixel_size
    height = getattr(scan.geometry, "row_height", None) or width
    steps = (height, height, width) if height and width else None
    shown = []
    for what, frames in (("darks", scan.darks), ("flats", scan.flats), ("", scan.projections)):
        if frames is None:
            continue
        meta = {
            **_placed(3, steps, ("frame" if what else "view", "row", "col")),
            "name": f"{named(scan)} {what}".strip(),
            "visible": not what,
            "metadata": {} if what else {"scan": scan},
            **_shades(frames[int(frames.shape[0]) // 2]),
        }
        shown.append((_lazy(frames), meta, "image"))
    return shown


def volume_layer(volume: Any, name: str | None = None, **more: Any) -> Layer:
    """Return the layer of a volume, with the levels of its pyramid if there is one.

    Parameters
    ----------
    volume
        Volume ``(z, y, x)`` or ``(step, z, y, x)``, from :func:`quietray.read_volume`.
    name
        Name of the layer; None for that of the file.
    **more
        Further arguments for napari.

    Examples
    --------
    >>> data, meta, _ = volume_layer(np.eye(4, dtype=np.float32)[None], "unit")
    >>> data.shape, meta["name"], meta["scale"]
    ((1, 4, 4), 'unit', (1.0, 1.0, 1.0))
    """
    edge, facts = getattr(volume, "voxel_size", None), getattr(volume, "facts", {})
    levels = [volume, *getattr(volume, "coarser", ())]
    meta = {
        **_placed(len(volume.shape), (facts.get("spacing") or edge, edge, edge) if edge else None, ("step", *"zyx")),
        "name": name or Path(volume.path).stem,
        "metadata": {"unit": getattr(volume, "unit", None)},
        **_shades(_middle(levels[-1])),
        **more,
    }
    data = [_lazy(level) for level in levels]
    return (data, meta | {"multiscale": True}, "image") if len(data) > 1 else (data[0], meta, "image")


def picture(image: np.ndarray, name: str, edge: float | None, aside: int = 0) -> Layer:
    """Return the layer of one slice ``(y, x)`` of a preview, shifted by `aside` widths to the right."""
    meta = _placed(2, (edge, edge) if edge else None, ("y", "x"))
    step = meta["scale"][1]
    return image, meta | {"name": name, "translate": (0.0, aside * 1.05 * image.shape[1] * step)}, "image"


def named(scan: Scan) -> str:
    """Return the name of a scan in the list of layers."""
    return Path(str(scan.source)).stem if scan.source else "scan"


def limits(image: np.ndarray) -> tuple[float, float] | None:
    """Return the values displayed as black and white; None if all are equal.

    Examples
    --------
    >>> limits(np.arange(1001.0)), limits(np.zeros(5))
    ((5.0, 995.0), None)
    """
    known = image[np.isfinite(image)]
    low, high = np.percentile(known, (0.5, 99.5)).tolist() if known.size else (0.0, 0.0)
    return (low, high) if high > low else None


def _shades(image: Any) -> dict[str, Any]:
    found = limits(np.asarray(image))
    return {"colormap": "gray"} if found is None else {"colormap": "gray", "contrast_limits": found}


def _placed(n_axes: int, steps: Sequence[float] | None, labels: Sequence[str]) -> dict[str, Any]:
    """Return the scale of a layer, in mm for its last axes if `steps` are known, and the names of its axes."""
    known = [float(step) for step in steps or ()]
    others = n_axes - len(known)
    return {
        "scale": (1.0,) * others + tuple(known),
        "units": ("pixel",) * others + ("mm",) * len(known),
        "axis_labels": tuple(labels)[-n_axes:],
    }


def _middle(volume: Any) -> np.ndarray:
    """Return the middle slice of a volume; for a series, of the middle entry."""
    return np.asarray(volume[tuple(int(size) // 2 for size in volume.shape[:-2])])


def _lazy(frames: Any) -> Any:
    """Return an array that is read frame by frame, when it is displayed."""
    if isinstance(frames, np.ndarray):
        return frames
    from dask.array import from_array  # a dependency of napari

    shape = tuple(int(size) for size in frames.shape)
    chunks = (*[1] * (len(shape) - 2), *shape[-2:])
    return from_array(frames, chunks=chunks, name=False, lock=True, meta=np.empty((0,) * len(shape), frames.dtype))
