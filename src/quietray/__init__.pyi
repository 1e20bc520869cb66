"""The public names, explicit for editors and type checkers; __init__.py looks them up when they are first used."""

from quietray.assessment.against import evaluate_images, evaluate_volumes
from quietray.batch import batch
from quietray.detector.correction.calibration import Correction
from quietray.detector.correction.phase import Phase
from quietray.detector.response.decorrelate import decorrelate, reblur
from quietray.detector.response.prf import estimate_point_response
from quietray.diagnose import Diagnosis, diagnose
from quietray.errors import (
    FormatError,
    GeometryError,
    MissingExtra,
    NoiseError,
    QuietrayError,
    ResourceError,
    SettingsError,
)
from quietray.evaluate import evaluate
from quietray.filters import (
    BilateralFilter,
    Filter,
    GaussianFilter,
    MedianFilter,
    NonLocalMeans,
    TotalVariation,
    Wavelet,
)
from quietray.geometry import ConeBeam, FanBeam, ParallelBeam, VolumeGrid
from quietray.image_workflows import apply_images, denoise_images, train_images
from quietray.inference.denoiser import Denoiser
from quietray.io import (
    ImagePairs,
    ImageSeries,
    StoredVolume,
    open_volume_writer,
    read,
    read_images,
    read_pairs,
    read_volume,
    volume_format,
    write_scan,
)
from quietray.networks import MSD, REDCNN, Architecture, DnCNN, LehtinenUNet, UNet
from quietray.operators.astra import ParallelProjector
from quietray.operators.beams import projector
from quietray.reconstruct import CGLS, FBP, FDK, SIRT, TV
from quietray.result import Result
from quietray.running.cluster import on_cluster
from quietray.running.describe import describe
from quietray.running.settings import Auto, Training
from quietray.running.watch import Watch
from quietray.scan import Scan
from quietray.simulate.acquire import Exposure, acquire
from quietray.simulate.foam_scan import FoamScan
from quietray.simulate.noise import Scintillator
from quietray.simulate.phantom import Foam
from quietray.splits import (
    APBSN,
    Noise2Clean,
    Noise2Inverse,
    Noise2Noise,
    Noise2Projection,
    Noise2Self,
    Noise2Void,
    Noisier2Noise,
    PseudoCT,
    Recorrupted,
)
from quietray.splits.base import Split
from quietray.workflows import Settings, apply, compare, denoise, reconstruct, train

__version__: str

__all__ = [
    "APBSN",
    "CGLS",
    "FBP",
    "FDK",
    "MSD",
    "REDCNN",
    "SIRT",
    "TV",
    "Architecture",
    "Auto",
    "BilateralFilter",
    "ConeBeam",
    "Correction",
    "Denoiser",
    "Diagnosis",
    "DnCNN",
    "Exposure",
    "FanBeam",
    "Filter",
    "Foam",
    "FoamScan",
    "FormatError",
    "GaussianFilter",
    "GeometryError",
    "ImagePairs",
    "ImageSeries",
    "LehtinenUNet",
    "MedianFilter",
    "MissingExtra",
    "Noise2Clean",
    "Noise2Inverse",
    "Noise2Noise",
    "Noise2Projection",
    "Noise2Self",
    "Noise2Void",
    "NoiseError",
    "Noisier2Noise",
    "NonLocalMeans",
    "ParallelBeam",
    "ParallelProjector",
    "Phase",
    "PseudoCT",
    "QuietrayError",
    "Recorrupted",
    "ResourceError",
    "Result",
    "Scan",
    "Scintillator",
    "Settings",
    "SettingsError",
    "Split",
    "StoredVolume",
    "TotalVariation",
    "Training",
    "UNet",
    "VolumeGrid",
    "Watch",
    "Wavelet",
    "__version__",
    "acquire",
    "apply",
    "apply_images",
    "batch",
    "compare",
    "decorrelate",
    "denoise",
    "denoise_images",
    "describe",
    "diagnose",
    "estimate_point_response",
    "evaluate",
    "evaluate_images",
    "evaluate_volumes",
    "on_cluster",
    "open_volume_writer",
    "projector",
    "read",
    "read_images",
    "read_pairs",
    "read_volume",
    "reblur",
    "reconstruct",
    "train",
    "train_images",
    "volume_format",
    "write_scan",
]
