"""All settings of a run; written to ``run.toml``, so that the run can be repeated."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import quietray.filters
import quietray.splits  # noqa: F401  they register themselves
from quietray.brief import changes
from quietray.detector.correction.correct import Correction
from quietray.detector.correction.phase import Phase
from quietray.errors import SettingsError, nearest
from quietray.geometry import Geometry
from quietray.io import Stored, VolumeFormat, require_stored
from quietray.method import METHODS, Auto, Method
from quietray.networks import NETWORKS, Architecture, UNet
from quietray.reconstruct import ALGORITHMS, FBP, Algorithm
from quietray.registry import Registry
from quietray.running.device import require_device_name, require_gpus
from quietray.settings import parse_bytes, parse_seconds, typed

__all__ = ["METHODS", "Auto", "Changes", "Given", "Method", "Settings", "Training", "changed"]


@dataclass(frozen=True)
class Training:
    """Settings of the training loop.

    Parameters
    ----------
    steps
        Optimisation steps.  None for as many as fit into the time budget; their number is written to run.toml, so that
        the run can be repeated exactly.
    batch, patch
        Number of patches in a step, of all processes together, and their edge in pixels. On a GPU, a batch of 1 becomes
        8 to 64, to use the GPU fully; more for larger volumes, because small ones would lead to overfitting.
    learning_rate
        Peak learning rate of Adam, after a linear warm-up and before a cosine decay.
    average
        Decay per step of the exponential moving average of the weights; the averaged network is evaluated and stored.
    clip
        Largest norm of the gradient.
    judgements
        Number of estimates of the held-out error, evenly spaced over the run.
    patience
        Fraction of the run without a better estimate, in its second half, after which training stops.
    precision
        ``bf16`` computes convolutions in bfloat16 (weights stay float32), ``fp32`` does not; ``auto`` uses bf16 if the
        device supports it.
    loss
        Training loss: ``mse`` estimates the mean of the values that the noise allows, ``mae`` their median.
    plateau
        Number of consecutive estimates without improvement after which the learning rate is halved, instead of the
        cosine decay; 0 for the cosine decay.
    """

    steps: int | None = None
    batch: int = 1
    patch: int = 128
    learning_rate: float = 2e-3
    average: float = 0.99
    clip: float = 1.0
    judgements: int = 20
    patience: float = 0.25
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    loss: Literal["mse", "mae"] = "mse"
    plateau: int = 0

    def __post_init__(self) -> None:
        for name in ("batch", "patch", "judgements", "learning_rate", "clip", "patience"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} must be positive, got {getattr(self, name)}")
        if self.steps is not None and self.steps < 1:
            raise SettingsError(f"steps must be positive, got {self.steps}")
        if not 0 <= self.average < 1:
            raise SettingsError(f"average must be at least 0 and below 1, got {self.average}")
        if self.plateau < 0:
            raise SettingsError(f"plateau must be at least 0, got {self.plateau}; 0 keeps the cosine")


if TYPE_CHECKING:  # a name is replaced by its method when the settings are created
    MethodOrName = Method
    NetworkOrName = Architecture
    AlgorithmOrName = Algorithm
else:
    MethodOrName, NetworkOrName, AlgorithmOrName = Method | str, Architecture | str, Algorithm | str

_BY_NAME: tuple[tuple[str, Registry[Any], type[Any]], ...] = (
    ("method", METHODS, Method),
    ("network", NETWORKS, Architecture),
    ("reconstruction", ALGORITHMS, Algorithm),
)


@dataclass(frozen=True)
class Settings:
    """All settings of a run; written to ``run.toml``, so that the run can be repeated.

    Parameters
    ----------
    method
        A split, a filter, or the name of one. Noise2Inverse, Noise2Projection, Noise2Clean and the filters denoise the
        reconstructed volume; Noise2Self and similar methods denoise the radiographs before reconstruction.
        :class:`Auto` chooses.
    seed
        Seed of everything random.
    budget
        Time for training and inference together, such as ``4m``.
    device
        Where to compute: ``auto`` or None for a GPU if there is one; ``cpu``; ``cuda``, or one of several such as
        ``cuda:1``.
    gpus
        Number of processes that train a network together, each on a GPU of its own, or on the CPU if that is the
        device; they share the samples of every step.  None, or 1, trains in the process of the run.
    max_memory
        Memory that the process may use, such as ``8G``; None is 60 % of the free memory.
    device_memory
        GPU memory for training, such as ``8G``, on each GPU; None is 80 % of the free GPU memory.  Half of it is for
        the data: if they do not fit, for a window of them, which is exchanged while the network is trained.
    rows
        Detector rows to work on, ``start:stop``; None is all.
    region
        Region of interest in the slices, ``y0:y1,x0:x1`` in pixels; None is all.
    rotation_axis
        Column of the rotation axis; None to find it automatically.
    half
        Whether this is a half acquisition; None for what the file states, else decided from the position of the axis.
    symmetries
        Number of symmetries for test-time augmentation, 1, 2, 4 or 8; 0 for as many as fit into 15 % of the budget.
    format
        Format of the volume, by its name: ``zarr``, ``h5``, ``tiff``, ``bigtiff``, ``mhd``, ``nii``, or one that
        another package adds.
    dtype
        Data type of the stored volume: ``uint16`` or ``uint8`` for the values of a window, in formats that support it;
        None is float32.
    window
        Values stored as the smallest and the largest integer; None is the range of the volume.
    whiten
        Whether to deconvolve the detector's point response before radiographs are denoised; ``auto`` does so if their
        noise is not white.
    reblur
        Whether to restore the detector's own resolution in the denoised radiographs.
    start
        Initial weights: None or ``scratch``, random weights; ``prior``, the pretrained network shipped for the method
        and the network, or random weights if there is none; ``auto``, the model of :mod:`quietray.running.models` with
        the most similar noise, else the prior; or the folder of a trained model. ``default``, used by
        :func:`quietray.denoise` and the command line if no settings are given, is the prior if there is time for few
        steps only, else random weights.
    clean
        Clean volume to train Noise2Clean on, on the grid of the scan; None is the ground truth in the file of the scan.
    trust
        Fraction of the budget for two more networks, trained on disjoint halves, whose disagreement gives an
        uncertainty map; 0 for none.
    noise_models
        Whether to train also a model of the noise for each pair of series, for pseudo-ct.
    views_per_step
        Number of views in each step, to divide one acquisition into a time series; 0 for no division.
    network
        Network to train, or its name; filters need none.
    reconstruction
        Reconstruction algorithm, or its name.
    phase
        Phase retrieval for radiographs measured at a distance; None for no retrieval.
    correction, training
        See their classes.
    """

    method: MethodOrName = field(default_factory=Auto)
    seed: int = 0
    budget: str = "4m"
    device: str | None = None
    gpus: int | None = None
    max_memory: str | None = None
    device_memory: str | None = None
    rows: str | None = None
    region: str | None = None
    rotation_axis: float | None = None
    half: bool | None = None
    symmetries: Literal[0, 1, 2, 4, 8] = 0
    format: str = "zarr"
    dtype: Literal["float32", "uint16", "uint8"] | None = None
    window: tuple[float, float] | None = None
    whiten: Literal["auto", "always", "never"] = "auto"
    reblur: bool = False
    start: str | None = None
    clean: str | None = None
    trust: float = 0.0
    noise_models: bool = False
    views_per_step: int = 0
    phase: Phase | None = None
    correction: Correction = field(default_factory=Correction)
    reconstruction: AlgorithmOrName = field(default_factory=FBP)
    network: NetworkOrName = field(default_factory=UNet)
    training: Training = field(default_factory=Training)

    __repr__ = changes

    def __post_init__(self) -> None:
        for name, kinds, base in _BY_NAME:
            object.__setattr__(self, name, kinds.made(getattr(self, name)))
            kinds.require(getattr(self, name), base)
        VolumeFormat.registry[self.format]  # raises if the format does not exist
        require_stored(self.format, self.stored)
        parse_seconds(self.budget)
        require_device_name(self.device or "auto")
        require_gpus(self.device or "auto", 1 if self.gpus is None else self.gpus)
        for size in (self.max_memory, self.device_memory):
            if size is not None:
                parse_bytes(size)
        if self.views_per_step < 0:
            raise SettingsError(f"views_per_step must be positive, or 0 for a single scan, got {self.views_per_step}")
        if not 0 <= self.trust < 1:
            raise SettingsError(f"trust must be at least 0 and below 1, got {self.trust}")

    @property
    def stored(self) -> Stored:
        """Data type and window of the stored volume."""
        return Stored(self.dtype or "float32", self.window)


class Changes(TypedDict, total=False):
    """The fields of :class:`Settings` as keywords."""

    method: Method | str
    seed: int
    budget: str
    device: str | None
    gpus: int | None
    max_memory: str | None
    device_memory: str | None
    rows: str | None
    region: str | None
    rotation_axis: float | None
    half: bool | None
    symmetries: int
    format: str
    dtype: str | None
    window: tuple[float, float] | None
    whiten: str
    reblur: bool
    start: str | None
    clean: str | None
    trust: float
    noise_models: bool
    views_per_step: int
    phase: Phase | None
    correction: Correction
    reconstruction: Algorithm | str
    network: Architecture | str
    training: Training


class Given(Changes, total=False):
    """Keywords of the public functions: settings, data for projections given as arrays, and progress.

    Keywords for arrays are described at :meth:`quietray.Scan.from_arrays`. With ``progress`` False, nothing is shown;
    True shows the progress everywhere, None only in notebooks and terminals.
    """

    angles: Any
    flats: Any
    darks: Any
    degrees: bool
    pixel_size: float | None
    geometry: Geometry | None
    progress: bool | None


_OF_VERBS = ("overwrite", "resume", *sorted(Given.__annotations__.keys() - Changes.__annotations__.keys()))


def changed(settings: Any, changes: Any) -> Settings:
    """Return the settings, with some replaced by name.

    Raises
    ------
    SettingsError
        A name is not that of a setting, or `settings` is not a :class:`Settings`.
    """
    if not (settings is None or isinstance(settings, Settings)):
        raise SettingsError(
            f"settings must be quietray.Settings, got {type(settings).__name__}; give single ones by name, such as "
            "budget='5m', and arrays by theirs: angles=, flats=, darks="
        )
    changes = {name: _as_text(name, value) for name, value in changes.items()}
    known = [entry.name for entry in dataclasses.fields(Settings)]
    for name in changes:
        if name not in known:
            raise SettingsError(
                f"'{name}' must be a known setting, got '{name}'{nearest(name, [*known, *_OF_VERBS])}; known here: "
                f"{', '.join(known)}"
            )
    return dataclasses.replace(settings or Settings(), **typed(Settings, changes))


def _as_text(name: str, value: Any) -> Any:
    """Return a setting as the text used in files: rows as a slice, times in seconds, memory in bytes."""
    if name == "rows" and isinstance(value, slice) and value.step is None and value.stop is not None:
        return f"{value.start or 0}:{value.stop}"
    if name in ("budget", "max_memory", "device_memory") and type(value) in (int, float):
        return f"{value:.0f}" if value >= 10 else f"{value:g}"
    return value
