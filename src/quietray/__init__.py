"""quietray removes noise from X-ray and neutron radiographs and CT volumes, without any clean data.

>>> import quietray
>>> scan = quietray.read("scan.h5")  # doctest: +SKIP
>>> result = quietray.denoise(scan)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

# Waiting threads must sleep: spinning threads take CPUs from other programs, and in turn wait for them.
# OpenMP reads this when torch is loaded; a value set by the user is kept.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Feature maps of a network are tens of megabytes each; large pages make their allocation faster.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

# Public names by module. They are imported on first use, because `quietray --help`
# must not wait for torch. Editors and type checkers read __init__.pyi; a test keeps both the same.
_NAMES = {
    "quietray.assessment.against": ("evaluate_images", "evaluate_volumes"),
    "quietray.batch": ("batch",),
    "quietray.detector.correction.calibration": ("Correction",),
    "quietray.detector.correction.phase": ("Phase",),
    "quietray.detector.response.decorrelate": ("decorrelate", "reblur"),
    "quietray.detector.response.prf": ("estimate_point_response",),
    "quietray.diagnose": ("Diagnosis", "diagnose"),
    "quietray.errors": (
        "FormatError",
        "GeometryError",
        "MissingExtra",
        "NoiseError",
        "QuietrayError",
        "ResourceError",
        "SettingsError",
    ),
    "quietray.evaluate": ("evaluate",),
    "quietray.filters": (
        "BilateralFilter",
        "Filter",
        "GaussianFilter",
        "MedianFilter",
        "NonLocalMeans",
        "TotalVariation",
        "Wavelet",
    ),
    "quietray.geometry": ("ConeBeam", "FanBeam", "ParallelBeam", "VolumeGrid"),
    "quietray.image_workflows": ("apply_images", "denoise_images", "train_images"),
    "quietray.inference.denoiser": ("Denoiser",),
    "quietray.io": (
        "ImagePairs",
        "ImageSeries",
        "StoredVolume",
        "open_volume_writer",
        "read",
        "read_images",
        "read_pairs",
        "read_volume",
        "volume_format",
        "write_scan",
    ),
    "quietray.networks": ("Architecture", "DnCNN", "LehtinenUNet", "MSD", "REDCNN", "UNet"),
    "quietray.operators.astra": ("ParallelProjector",),
    "quietray.operators.beams": ("projector",),
    "quietray.reconstruct": ("CGLS", "FBP", "FDK", "SIRT", "TV"),
    "quietray.result": ("Result",),
    "quietray.running.cluster": ("on_cluster",),
    "quietray.running.describe": ("describe",),
    "quietray.running.settings": ("Auto", "Training"),
    "quietray.running.watch": ("Watch",),
    "quietray.scan": ("Scan",),
    "quietray.simulate.acquire": ("Exposure", "acquire"),
    "quietray.simulate.foam_scan": ("FoamScan",),
    "quietray.simulate.noise": ("Scintillator",),
    "quietray.simulate.phantom": ("Foam",),
    "quietray.splits": (
        "APBSN",
        "Noise2Clean",
        "Noise2Inverse",
        "Noise2Noise",
        "Noise2Projection",
        "Noise2Self",
        "Noise2Void",
        "Noisier2Noise",
        "PseudoCT",
        "Recorrupted",
    ),
    "quietray.splits.base": ("Split",),
    "quietray.workflows": ("Settings", "apply", "compare", "denoise", "reconstruct", "train"),
}
_HOME = {name: home for home, names in _NAMES.items() for name in names}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("quietray")
    if name not in _HOME:
        raise AttributeError(f"module 'quietray' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """Keeps functions that have the name of their module accessible, such as ``quietray.reconstruct``."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):  # as the import of a submodule does
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
