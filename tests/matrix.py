"""Every implementation that the laws hold for.  A new one is one new row here."""

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from scipy.signal import correlate2d

from checks import SD, Case
from quietray.geometry import ConeBeam, FanBeam, ParallelBeam
from quietray.networks import MSD, REDCNN, Architecture, DnCNN, LehtinenUNet, UNet
from quietray.operators.astra import FanProjector, ParallelProjector, SliceProjector
from quietray.operators.linear import LinearOperator
from quietray.simulate.noise import Gaussian, NoiseModel, Poisson, Scintillator
from quietray.splits.inverse import Noise2Inverse
from quietray.splits.masked import Noise2Self, Noise2Void
from quietray.splits.noisier import Noisier2Noise
from quietray.splits.paired import Noise2Clean, Noise2Noise
from quietray.splits.projected import Noise2Projection
from quietray.splits.pseudo import EnsembleNoise, ModelNoise, PseudoCT
from quietray.splits.recorrupted import Recorrupted
from quietray.splits.shuffled import APBSN


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


def fan(n_views: int = 7, n_rows: int = 1, n_cols: int = 16, **kwargs: Any) -> FanBeam:
    """Return a fan beam over a full turn."""
    return FanBeam(np.linspace(0, 2 * math.pi, n_views, endpoint=False), n_rows, n_cols, 60.0, 90.0, **kwargs)


def cone(n_views: int = 7, n_rows: int = 12, n_cols: int = 16, **kwargs: Any) -> ConeBeam:
    """Return a circular cone beam over a full turn."""
    angles = np.linspace(0, 2 * math.pi, n_views, endpoint=False)
    return ConeBeam.circular(angles, n_rows, n_cols, source_axis=60.0, source_detector=90.0, **kwargs)


FANS: dict[str, SliceProjector] = {
    "fan": FanProjector(fan()),
    "fan-three-rows": FanProjector(fan(n_rows=3), threads=2),
    "fan-shifted-axis": FanProjector(fan(rotation_axis=5.3, pixel_size=0.8)),
    "fan-region": FanProjector(fan(n_cols=20), fan(n_cols=20).grid((3, 14, 5, 19))),
}

CONES: dict[str, ConeBeam] = {  # their projector needs an extra
    "cone": cone(),
    "cone-shifted": cone(rotation_axis=5.3, source_row=3.7, pixel_size=0.8),
    "cone-tilted": cone(pixel_size=0.8).tilted(0.1, 0.15, -0.2),
    "cone-pairs": ConeBeam.joined([cone(3), ConeBeam.circular(np.array([1.0]), 12, 16, 50.0, 70.0)]),
}

OPERATORS: dict[str, LinearOperator] = (
    PROJECTORS
    | FANS
    | {
        "adjoint": ParallelProjector(beam(n_rows=2, pixel_size=0.5)).T,
        "adjoint-twice": ParallelProjector(beam()).T.T,
    }
)


class Smooth(torch.nn.Module):
    """A teacher of no great skill."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class Moved(torch.nn.Module):
    """A model of the noise: what the teacher took away, from elsewhere in the image."""

    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - Smooth()(x)).roll(self.by, -1)


def _splits() -> dict[str, Case]:
    taught = PseudoCT(period=3).on(Smooth(), EnsembleNoise(tuple(ModelNoise(Moved(by)) for by in range(1, 9))))
    masked, void, apart = (
        Noise2Self("masked", grid=3),
        Noise2Void("masked", 1 / 9),
        APBSN(2, 2, 2, "masked", refinements=0),
    )
    sharing = np.array([[1, 0.6], [0.4, 0]])  # how the laws share noise among neighbours
    recorrupted = Recorrupted().measured(SD**2 * correlate2d(sharing, sharing))
    as_trained = dataclasses.replace(recorrupted, passes=8)
    projection = Noise2Projection(3).on(beam(16, n_cols=16))
    weighted = Noise2Projection(4).on(beam(16, n_cols=16), torch.full((16, 16), SD**2))
    return {
        f"noise2inverse-{direction.replace(':', 'to')}-{parts}-{slices}": Case(Noise2Inverse(parts, direction, slices))
        for direction in ("X:1", "1:X")
        for parts, slices in ((2, 1), (3, 3), (4, 1), (5, 1))
    } | {
        "noise2inverse-times": Case(Noise2Inverse(3, slices=1, times=3)),
        "noise2inverse-times-slices": Case(Noise2Inverse(2, "1:X", slices=3, times=3)),
        "noise2inverse-channels": Case(Noise2Inverse(3, slices=1, channels=2)),
        "noise2inverse-channels-slices": Case(Noise2Inverse(2, slices=3, channels=2)),
        "noise2inverse-volume": Case(Noise2Inverse(2, slices=4, volume=True)),
        "noise2noise-2": Case(Noise2Noise()),
        "noise2noise-4-3": Case(Noise2Noise(4, slices=3)),
        "noise2clean-1": Case(Noise2Clean()),
        "noise2clean-3-3": Case(Noise2Clean(3, slices=3)),
        "noise2self": Case(Noise2Self(grid=3), white=True, inference=masked),
        "noise2self-masked": Case(masked, white=True),
        "noise2self-footprint": Case(Noise2Self("masked", grid=4, footprint=1)),
        "noise2void": Case(Noise2Void(share=1 / 9), white=True, inference=void),
        "noise2void-masked": Case(void, white=True),
        "noisier2noise": Case(Noisier2Noise(gaussian=SD**2, passes=8), white=True, recorrupted=True),
        "noisier2noise-half": Case(Noisier2Noise(gaussian=SD**2, strength=0.5), white=True, recorrupted=True),
        "recorrupted": Case(recorrupted, recorrupted=True, inference=as_trained, judged=recorrupted.infer),
        "recorrupted-passes": Case(as_trained, recorrupted=True),
        "recorrupted-white": Case(Recorrupted(((SD**2,),), 1.0, passes=4), white=True, recorrupted=True),
        "pseudo-ct": Case(taught, recorrupted=True, taught=True),
        "apbsn": Case(APBSN(2, 1, 2, refinements=2), inference=apart),
        "apbsn-as-trained": Case(apart),
        "noise2projection": Case(projection, white=True, judged=projection.predict, size=16),
        "noise2projection-weighted": Case(weighted, white=True, judged=weighted.predict, size=16),
    }


SPLITS: dict[str, Case] = _splits()

NETWORKS: dict[str, Architecture] = {
    "unet-1-level": UNet((4,)),
    "unet-2-levels": UNet((4, 6)),
    "unet-3-levels": UNet((3, 5, 4)),
    "unet-default": UNet(),
    "unet-volume-1-level": UNet((4,), dimensions=3),
    "unet-volume-3-levels": UNet((3, 5, 4), dimensions=3),
    "lehtinen": LehtinenUNet(),
    "msd-1-layer": MSD(layers=1),
    "msd-12-layers": MSD(layers=12),
    "msd-wide": MSD(layers=9, width=3, dilations=(3, 1, 4, 2)),
    "msd-volume": MSD(layers=9, width=2, dilations=(2, 1, 3), dimensions=3),
    "msd-default": MSD(),
    "redcnn": REDCNN(),
    "redcnn-rectified": REDCNN(maps=8, rectified=True),
    "dncnn": DnCNN(),
    "dncnn-bias-free": DnCNN(layers=3, maps=8, bias=False),
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
