"""quietray removes the noise from X-ray radiographs and CT volumes without any clean data.

>>> import quietray
>>> scan = quietray.read("scan.h5")  # doctest: +SKIP
>>> result = quietray.denoise(scan)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version
from types import ModuleType
from typing import Any

__version__ = version("quietray")

# Names are looked up when they are first used: `quietray --help` must not wait for torch.
_HOME = {
    "Correction": "quietray.detector.correction.correct",
    "Denoiser": "quietray.inference.denoiser",
    "FBP": "quietray.reconstruct.analytic",
    "FormatError": "quietray.errors",
    "ImagePairs": "quietray.io",
    "ImageSeries": "quietray.io",
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
    "Training": "quietray.running.settings",
    "UNet": "quietray.networks.unet",
    "MSD": "quietray.networks.msd",
    "DnCNN": "quietray.networks.dncnn",
    "LehtinenUNet": "quietray.networks.lehtinen",
    "REDCNN": "quietray.networks.redcnn",
    "Noise2Noise": "quietray.splits.paired",
    "Noisier2Noise": "quietray.splits.noisier",
    "APBSN": "quietray.splits.shuffled",
    "VolumeGrid": "quietray.geometry",
    "Diagnosis": "quietray.diagnose",
    "Noise2Self": "quietray.splits.masked",
    "Noise2Void": "quietray.splits.masked",
    "apply": "quietray.workflows",
    "compare": "quietray.workflows",
    "train": "quietray.workflows",
    "acquire": "quietray.simulate.acquire",
    "decorrelate": "quietray.detector.response.decorrelate",
    "denoise": "quietray.workflows",
    "apply_images": "quietray.image_workflows",
    "denoise_images": "quietray.image_workflows",
    "train_images": "quietray.image_workflows",
    "diagnose": "quietray.diagnose",
    "estimate_point_response": "quietray.detector.response.prf",
    "read": "quietray.io",
    "read_images": "quietray.io",
    "read_pairs": "quietray.io",
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


class _Package(ModuleType):
    """Keeps the functions that are called like the module that they come from, such as ``quietray.reconstruct``."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):  # as the import of a submodule does
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
