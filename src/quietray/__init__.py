"""quietray removes the noise from X-ray radiographs and CT volumes without any clean data.

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

# Threads that wait for work must sleep: those that spin take the processors from other programs, and wait for them.
# OpenMP asks for this when torch is loaded; what the user says stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Maps of a network are tens of megabytes each: the system hands them out sooner in large pages.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

# The public names by the modules that they live in.  They are looked up when they are first used: `quietray --help`
# must not wait for torch.  What editors and type checkers read is __init__.pyi; a test keeps the two alike.
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
    "quietray.io": ("ImagePairs", "ImageSeries", "read", "read_images", "read_pairs", "read_volume", "write_scan"),
    "quietray.networks": ("Architecture", "DnCNN", "LehtinenUNet", "MSD", "REDCNN", "UNet"),
    "quietray.operators.astra": ("ParallelProjector",),
    "quietray.operators.beams": ("projector",),
    "quietray.reconstruct": ("CGLS", "FBP", "FDK", "SIRT", "TV"),
    "quietray.result": ("Result",),
    "quietray.running.cluster": ("on_cluster",),
    "quietray.running.describe": ("describe",),
    "quietray.running.settings": ("Auto", "Training"),
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
    """Keeps the functions that are called like the module that they come from, such as ``quietray.reconstruct``."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):  # as the import of a submodule does
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
