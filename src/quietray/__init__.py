"""quietray removes the noise from X-ray radiographs and CT volumes without any clean data.

>>> import quietray
>>> scan = quietray.read("scan.h5")  # doctest: +SKIP
>>> result = quietray.denoise(scan)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Any

__version__ = version("quietray")

# Names are looked up when they are first used: `quietray --help` must not wait for torch.
_HOME = {
    "Correction": "quietray.detector.correct",
    "Denoiser": "quietray.inference.denoiser",
    "FBP": "quietray.reconstruct.analytic",
    "FormatError": "quietray.errors",
    "Foam": "quietray.simulate.phantom",
    "GeometryError": "quietray.errors",
    "MissingExtra": "quietray.errors",
    "Noise2Inverse": "quietray.splits.inverse",
    "NoiseError": "quietray.errors",
    "ParallelBeam": "quietray.geometry",
    "ParallelProjector": "quietray.operators.astra",
    "QuietrayError": "quietray.errors",
    "ResourceError": "quietray.errors",
    "Scan": "quietray.scan",
    "Scintillator": "quietray.simulate.noise",
    "Settings": "quietray.workflows",
    "SettingsError": "quietray.errors",
    "Training": "quietray.training.loop",
    "UNet": "quietray.networks.unet",
    "VolumeGrid": "quietray.geometry",
    "acquire": "quietray.simulate.acquire",
    "denoise": "quietray.workflows",
    "read": "quietray.io",
    "read_volume": "quietray.io",
    "reconstruct": "quietray.workflows",
    "write_scan": "quietray.io",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'quietray' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
