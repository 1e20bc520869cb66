"""The figures of a run: immutable records, whose names are the keys of ``metrics.json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, get_args, get_type_hints

from quietray.brief import brief

__all__ = [
    "Change",
    "Corrected",
    "Estimate",
    "ImageFacts",
    "ImageMetrics",
    "LogBias",
    "Memory",
    "MethodFacts",
    "Metrics",
    "NoiseFacts",
    "ObjectEstimate",
    "Reconstructed",
    "Record",
    "ScanFacts",
    "ScanMetrics",
    "Trained",
    "metrics_of",
]


class Record(dict[str, Any]):
    """Immutable figures by name, which can be read as attributes or as a dictionary ready for JSON.

    Subclasses are frozen dataclasses.  Optional fields that are None are left out of the dictionary.

    Examples
    --------
    >>> shares = Corrected(zingers=0.1, bad=0.0, floored=0.0)
    >>> shares.zingers, shares["zingers"], dict(shares)
    (0.1, 0.1, {'zingers': 0.1, 'bad': 0.0, 'floored': 0.0})
    >>> shares["bad"] = 1.0
    Traceback (most recent call last):
    TypeError: figures do not change once they are made
    """

    __repr__ = brief

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, entry.name)
            if value is not None or not entry.metadata.get("optional"):
                super().__setitem__(entry.name, value)

    def record(self) -> dict[str, Any]:
        """Return plain dictionaries, lists and numbers."""
        return {name: _plain(value) for name, value in self.items()}

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("figures do not change once they are made")

    __setitem__ = __delitem__ = __ior__ = update = pop = popitem = clear = setdefault = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (type(self), dict(vars(self)))

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Any:
        """Return the record from a mapping such as ``metrics.json``; unknown entries are ignored.

        Raises
        ------
        KeyError
            A required figure is missing.
        """
        hints = _hints(cls)
        values: dict[str, Any] = {}
        for entry in dataclasses.fields(cls):  # type: ignore[arg-type]
            if entry.name in found:
                values[entry.name] = _read(found[entry.name], hints[entry.name])
            elif entry.default is entry.default_factory is dataclasses.MISSING:
                raise KeyError(entry.name)
        return cls(**values)


_OPTIONAL = {"optional": True}


@dataclass(frozen=True, eq=False, repr=False)
class ObjectEstimate(Record):
    """Quality of a result inside the object, without the surrounding air; None for what is unknown.

    Parameters
    ----------
    psnr_noisy_db, psnr_db, psnr_gain_db, psnr_gain_db_at_least, psnr_gain_db_at_most, rmse_noisy, rmse
        See :class:`Estimate`.
    share_of_field_of_view
        Fraction of the field of view covered by the object.
    mean_noisy, mean, relative_change_of_mean
        See :class:`Change`.
    found
        Description of how the object was separated from the air.
    withheld
        Why there is no single figure, or not even a lower bound; see :class:`Estimate`.
    """

    psnr_noisy_db: float | None
    psnr_db: float | None
    psnr_gain_db: float | None
    psnr_gain_db_at_least: float | None
    psnr_gain_db_at_most: float | None
    rmse_noisy: float | None
    rmse: float | None
    share_of_field_of_view: float
    mean_noisy: float
    mean: float
    relative_change_of_mean: float | None
    found: str
    withheld: str | None = field(default=None, metadata=_OPTIONAL)


@dataclass(frozen=True, eq=False, repr=False)
class Estimate(Record):
    """Quality of a result, estimated without ground truth; None for what is unknown.

    Parameters
    ----------
    psnr_noisy_db, psnr_db, psnr_gain_db
        PSNR before and after, and its gain; the latter two are None where the gain is not known to 0.7 dB.
    psnr_gain_db_at_least, psnr_gain_db_at_most, interval
        Confidence interval of the gain, and a description of it.
    rmse_noisy, rmse
        Root of the mean squared error before and after, in the unit of the data.
    data_range, data_range_is
        Range for PSNR, and its definition.
    domain
        Description of what the error refers to, and of how it was estimated.
    residual_correlation
        Correlation of residuals that should be independent.
    object
        The same inside the object, which is reported first; left out if there is no air around it.
    withheld
        Why there is no single figure, or not even a lower bound; left out if there is.
    share_of_noise_from_flats, share_of_flat_noise_kept
        Fraction of the noise power before denoising that is the noise of flats, which all views share, and the fraction
        of its amplitude that denoising keeps (its regression, which may be negative or above 1); contained in the
        figures above.  Left out if flats are not shared, if their noise is not known, and for errors of views.
    """

    psnr_noisy_db: float | None
    psnr_db: float | None
    psnr_gain_db: float | None
    psnr_gain_db_at_least: float | None
    psnr_gain_db_at_most: float | None
    interval: str
    rmse_noisy: float | None
    rmse: float | None
    data_range: float
    data_range_is: str
    domain: str
    residual_correlation: float
    object: ObjectEstimate | None = field(default=None, metadata=_OPTIONAL)
    withheld: str | None = field(default=None, metadata=_OPTIONAL)
    share_of_noise_from_flats: float | None = field(default=None, metadata=_OPTIONAL)
    share_of_flat_noise_kept: float | None = field(default=None, metadata=_OPTIONAL)


@dataclass(frozen=True, eq=False, repr=False)
class Change(Record):
    """Mean values inside the field of view, before and after."""

    mean_noisy: float
    mean: float
    relative_change_of_mean: float | None


@dataclass(frozen=True, eq=False, repr=False)
class Corrected(Record):
    """Fractions of the samples that the correction replaced or raised to the floor."""

    zingers: float
    bad: float
    floored: float


@dataclass(frozen=True, eq=False, repr=False)
class Trained(Record):
    """How the network was trained; filters have no history.

    Parameters
    ----------
    steps, best_step
        Number of steps, and step of the weights that were kept.
    seconds, seconds_per_step
        Training time, and time per step.
    stopped
        Why the training ended.
    history
        All validations, each as a mapping.
    offset_of_judgements
        Squared error due to chance that all validations have in common.
    processes
        Number of processes that trained, each on a device of its own, if there were several.
    share
        Fraction of the rows that samples were drawn from at a time, if not all fit into the memory of the device.
    """

    steps: int
    best_step: int
    seconds: float
    seconds_per_step: float
    stopped: str
    history: list[dict[str, Any]]
    offset_of_judgements: float
    processes: int | None = field(default=None, metadata=_OPTIONAL)
    share: float | None = field(default=None, metadata=_OPTIONAL)


@dataclass(frozen=True, eq=False, repr=False)
class LogBias(Record):
    """Bias of the line integrals due to the logarithm of few counts, and their mean."""

    worst: float
    mean: float
    mean_line_integral: float


@dataclass(frozen=True, eq=False, repr=False)
class ScanFacts(Record):
    """Properties of the scan."""

    source: str
    views: int
    rows: list[int]
    columns: int
    covered_degrees: float
    rotation_axis: float | None
    unit: str
    voxel_size_mm: float | None
    spacing_mm: float | None = field(default=None, metadata=_OPTIONAL)


@dataclass(frozen=True, eq=False, repr=False)
class ImageFacts(Record):
    """Properties of a series of images that are not reconstructed."""

    source: str
    modality: str | None
    images: int
    rows: int
    columns: int
    unit: str
    pixel_size_mm: float | None
    window: list[float] | None
    spacing_mm: float | None = field(default=None, metadata=_OPTIONAL)


@dataclass(frozen=True, eq=False, repr=False)
class NoiseFacts(Record):
    """Properties of the noise of images."""

    sd: float
    neighbour_correlation: float
    shared_pixels_away: int
    read_from: str
    slice_correlation: float | None = field(default=None, metadata=_OPTIONAL)


@dataclass(frozen=True, eq=False, repr=False)
class MethodFacts(Record):
    """The method that was used.

    Parameters
    ----------
    name, settings
        Name and settings of the method or filter.
    domain
        ``volume``, ``radiographs`` or ``images``.
    slices, parts
        Numbers of slices and of parts in a sample.
    network, parameters
        Name of the network, and number of its weights.
    symmetries, arithmetic, device
        Number of symmetries for test-time augmentation, precision, and device.
    measurements
        Number of measurements of the same images.
    """

    name: str
    domain: str
    slices: int
    parts: int
    network: str
    settings: Mapping[str, Any]
    symmetries: int
    arithmetic: str
    parameters: int
    measurements: int | None = field(default=None, metadata=_OPTIONAL)
    device: str = "cpu"


@dataclass(frozen=True, eq=False, repr=False)
class Reconstructed(Record):
    """The reconstruction algorithm: whether it is linear, its name and its settings."""

    linear: bool
    settings: Mapping[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class Memory(Record):
    """Memory in bytes: limit, plan and actual use."""

    limit: int
    planned_peak: int | None
    peak: int
    slabs: int


@dataclass(frozen=True, eq=False, repr=False)
class Metrics(Record):
    """All figures of a run.

    Parameters
    ----------
    estimate, volume, correction, training, scan, method, memory
        See the respective classes.
    versions
        Versions of everything that affects the result.
    reconstruction
        The reconstruction algorithm, if there was one.
    evidence
        Agreement of two halves of the data with independent noise.
    trust
        Figures of the uncertainty map.
    series
        Figures of every step or channel.
    comparison
        Figures of the compared methods, if they were compared.
    flats
        Whether angular subsets had separate flats, and the predicted effect of shared ones.
    seconds
        Run time in seconds.
    verdict
        Whether to use the result (``kind``), and the one ``reason``; see :mod:`quietray.assessment.verdict`.
    given_back
        True if the volume or the images are the input, without denoising, since nothing was gained.
    """

    estimate: Estimate
    volume: Change
    correction: Corrected
    training: Trained
    scan: ScanFacts | ImageFacts
    method: MethodFacts
    memory: Memory
    versions: Mapping[str, str]
    reconstruction: Reconstructed | None = field(default=None, metadata=_OPTIONAL)
    evidence: Mapping[str, Any] | None = field(default=None, metadata=_OPTIONAL)
    trust: Mapping[str, Any] | None = field(default=None, metadata=_OPTIONAL)
    series: Mapping[str, Any] | None = field(default=None, metadata=_OPTIONAL)
    comparison: Mapping[str, Any] | None = field(default=None, metadata=_OPTIONAL)
    flats: Mapping[str, Any] | None = field(default=None, metadata=_OPTIONAL)
    seconds: float | None = field(default=None, metadata=_OPTIONAL)
    verdict: Mapping[str, str] | None = field(default=None, metadata=_OPTIONAL)
    given_back: bool | None = field(default=None, metadata=_OPTIONAL)


@dataclass(frozen=True, eq=False, repr=False)
class ScanMetrics(Metrics):
    """Figures of a run on a scan; `log_bias` is None if unknown."""

    log_bias: LogBias | None = None


@dataclass(frozen=True, eq=False, repr=False)
class ImageMetrics(Metrics):
    """Figures of a run on images, including their `noise`, and how many images the `guard` left unchanged."""

    noise: NoiseFacts | None = None
    guard: Mapping[str, Any] | None = field(default=None, metadata=_OPTIONAL)


def metrics_of(found: Mapping[str, Any]) -> Metrics:
    """Return the figures from a mapping such as ``metrics.json``, of a scan or of images.

    Raises
    ------
    KeyError
        A figure is missing.
    """
    kind: type[Metrics] = ImageMetrics if found["method"]["domain"] == "images" else ScanMetrics
    metrics: Metrics = kind.of(found)
    return metrics


def _made(kind: type[Any], values: dict[str, Any]) -> Any:
    return kind(**values)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.record()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _read(value: Any, hint: Any) -> Any:
    """Return a value from a file, as a record if its type hint says so."""
    kinds = [one for one in (hint, *get_args(hint)) if isinstance(one, type) and issubclass(one, Record)]
    if isinstance(value, Mapping) and kinds:
        fitting = [kind for kind in kinds if {entry.name for entry in dataclasses.fields(kind)} >= set(value)]  # type: ignore[arg-type]
        return (fitting or kinds)[0].of(value)
    return value
