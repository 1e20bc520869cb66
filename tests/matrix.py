"""Every implementation that the laws hold for.  A new one is one new row here."""

import math
from typing import Any

import numpy as np

from quietray.geometry import ParallelBeam
from quietray.networks.unet import UNet
from quietray.operators.astra import ParallelProjector
from quietray.operators.linear import LinearOperator
from quietray.simulate.noise import Gaussian, NoiseModel, Poisson, Scintillator
from quietray.splits.base import Split
from quietray.splits.inverse import Noise2Inverse


def beam(n_views: int = 7, n_rows: int = 1, n_cols: int = 16, turn: float = math.pi, **kwargs: Any) -> ParallelBeam:
    """Return a beam with evenly spread views."""
    return ParallelBeam(np.linspace(0, turn, n_views, endpoint=False), n_rows, n_cols, **kwargs)


def _region() -> ParallelProjector:
    geometry = beam(5, 2, 20, rotation_axis=8.25)
    return ParallelProjector(geometry, geometry.grid((3, 14, 5, 19)))


PROJECTORS: dict[str, ParallelProjector] = {
    "linear": ParallelProjector(beam()),
    "line": ParallelProjector(beam(), interpolation="line"),
    "strip": ParallelProjector(beam(), interpolation="strip"),
    "odd-detector": ParallelProjector(beam(n_cols=15)),
    "three-rows": ParallelProjector(beam(n_rows=3), threads=2),
    "shifted-axis": ParallelProjector(beam(rotation_axis=5.3)),
    "pixel-size": ParallelProjector(beam(pixel_size=0.05)),
    "full-turn": ParallelProjector(beam(9, turn=2 * math.pi)),
    "region": _region(),
    "one-view": ParallelProjector(beam(1)),
    "one-pixel": ParallelProjector(beam(3, n_cols=1)),
}

OPERATORS: dict[str, LinearOperator] = PROJECTORS | {
    "adjoint": ParallelProjector(beam(n_rows=2, pixel_size=0.5)).T,
    "adjoint-twice": ParallelProjector(beam()).T.T,
}

SPLITS: dict[str, Split] = {
    f"noise2inverse-{direction.replace(':', 'to')}-{parts}-{slices}": Noise2Inverse(parts, direction, slices)
    for direction in ("X:1", "1:X")
    for parts, slices in ((2, 1), (3, 3), (4, 1), (5, 1))
}

NETWORKS: dict[str, UNet] = {
    "unet-1-level": UNet((4,)),
    "unet-2-levels": UNet((4, 6)),
    "unet-3-levels": UNet((3, 5, 4)),
    "unet-default": UNet(),
}

NOISE: dict[str, NoiseModel] = {
    "poisson": Poisson(),
    "gaussian": Gaussian(3.0),
    "scintillator": Scintillator(),
    "scintillator-gain-dark": Scintillator(gain=4.0, dark=100.0),
    "scintillator-read-noise": Scintillator(read_noise=5.0),
    "scintillator-response": Scintillator(response_width=0.5),
    "scintillator-wide-response": Scintillator(response_width=0.8),
    "scintillator-excess": Scintillator(excess=1.8),
    "scintillator-row-noise": Scintillator(row_noise=3.0),
    "scintillator-afterglow": Scintillator(afterglow=0.3),
    "scintillator-together": Scintillator(
        gain=2.5, dark=50.0, read_noise=4.0, response_width=0.5, excess=1.4, row_noise=2.0, afterglow=0.2
    ),
}
