"""Identity of the input of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quietray.images import ImageSeries
from quietray.scan import Scan

__all__ = ["identity_of"]


def identity_of(data: Scan | ImageSeries, repeats: Sequence[Any] = (), series: Sequence[Scan] = ()) -> dict[str, Any]:
    """Return the facts that identify the input of a run."""
    if isinstance(data, ImageSeries):
        return {"images": [_of_images(one) for one in (data, *repeats)]}
    return _of_scan(data) | ({"series": [_of_scan(other)["scan"] for other in series]} if series else {})


def _of_images(images: ImageSeries) -> dict[str, Any]:
    total = sum(float(block.sum(dtype=np.float64)) for block in images.blocks())
    return {"source": str(Path(images.source).absolute()), "shape": list(images.images.shape), "sum": total}


def _of_scan(scan: Scan) -> dict[str, Any]:
    frames = {"projections": scan.projections, "flats": scan.flats, "darks": scan.darks}
    shapes = {name: None if stack is None else [int(size) for size in stack.shape] for name, stack in frames.items()}
    geometry = {"angles": float(scan.geometry.angles.sum()), "pixel_size": scan.geometry.pixel_size}
    return {"scan": {"source": str(Path(scan.source).absolute()), **shapes, **geometry}}
