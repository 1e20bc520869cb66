"""The groups that public names are shown in; a name that is in none comes last, so that none is missing."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["api_page"]

_GROUPS: dict[str, tuple[str, ...]] = {
    "Verbs": ("denoise", "compare", "train", "apply", "reconstruct", "evaluate", "diagnose", "decorrelate", "reblur"),
    "Reading and writing": ("read", "read_images", "read_pairs", "read_volume", "write_scan", "describe"),
    "What was measured": ("Scan", "ImageSeries", "ImagePairs", "ParallelBeam", "FanBeam", "ConeBeam", "VolumeGrid"),
    "What comes back": ("Result", "Diagnosis", "Denoiser"),
    "Settings": ("Settings", "Training", "Correction", "Phase"),
    "Methods": (
        "Auto",
        "Noise2Inverse",
        "Noise2Projection",
        "Noise2Self",
        "Noise2Void",
        "APBSN",
        "Noisier2Noise",
        "Noise2Noise",
        "Noise2Clean",
        "Recorrupted",
        "PseudoCT",
        "Split",
    ),
    "Filters": (
        "GaussianFilter",
        "MedianFilter",
        "BilateralFilter",
        "NonLocalMeans",
        "Wavelet",
        "TotalVariation",
        "Filter",
    ),
    "Networks": ("UNet", "MSD", "LehtinenUNet", "REDCNN", "DnCNN", "Architecture"),
    "Reconstruction": ("FBP", "FDK", "SIRT", "CGLS", "TV", "projector", "ParallelProjector"),
    "Detectors and simulation": ("FoamScan", "Foam", "Exposure", "acquire", "Scintillator", "estimate_point_response"),
    "Images": (
        "denoise_images",
        "train_images",
        "apply_images",
        "evaluate_images",
        "evaluate_volumes",
    ),
    "Errors": (
        "QuietrayError",
        "FormatError",
        "GeometryError",
        "NoiseError",
        "SettingsError",
        "ResourceError",
        "MissingExtra",
    ),
}


def api_page(public: Iterable[str]) -> str:
    """Return the page that lists the public names in their groups, with a page for each.

    Examples
    --------
    >>> page = api_page(["FBP", "novelty", "__version__"])
    >>> "Reconstruction" in page, "   novelty" in page, "__version__" in page
    (True, True, False)
    """
    left = {name for name in public if not name.startswith("_")}
    lines = ["Python", "======", "", ".. currentmodule:: quietray", ""]
    for title, names in _GROUPS.items():
        lines += _table(title, [name for name in names if name in left])
        left -= set(names)
    return "\n".join([*lines, *_table("More", sorted(left))])


def _table(title: str, names: list[str]) -> list[str]:
    if not names:
        return []
    listed = [f"   {name}" for name in names]
    return [title, "-" * len(title), "", ".. autosummary::", "   :toctree: api", "   :nosignatures:", "", *listed, ""]
