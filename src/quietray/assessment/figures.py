"""The figures of a run: frozen records, built once, whose names are the keys of ``metrics.json``."""

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
    "gain_text",
    "headline",
    "metrics_of",
    "too_wide",
]


class Record(dict[str, Any]):
    """Figures by name, which do not change: read as attributes, or as a dictionary, which JSON knows.

    A subclass is a frozen dataclass.  What is optional and None is not in the dictionary.

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
        """Return the record in a mapping such as ``metrics.json``; what it does not know is left out.

        Raises
        ------
        KeyError
            A figure that must be there is missing.
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
    """How good a result is inside the object, without the air around it; None where the data do not tell.

    Parameters
    ----------
    psnr_noisy_db, psnr_db, psnr_gain_db, psnr_gain_db_at_least, psnr_gain_db_at_most, rmse_noisy, rmse
        As in :class:`Estimate`.
    share_of_field_of_view
        That the object has.
    mean_noisy, mean, relative_change_of_mean
        As in :class:`Change`.
    found
        How the object was told from the air, in words.
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


@dataclass(frozen=True, eq=False, repr=False)
class Estimate(Record):
    """How good a result is, told without ground truth; None where the data do not tell.

    Parameters
    ----------
    psnr_noisy_db, psnr_db, psnr_gain_db
        PSNR before and after, and its gain.
    psnr_gain_db_at_least, psnr_gain_db_at_most, interval
        Ends of the interval of the gain, and what interval it is.
    rmse_noisy, rmse
        Root of the mean squared error before and after, in the unit of the data.
    data_range, data_range_is
        That PSNR is given for, and what it is.
    domain
        What was judged, and by what.
    residual_correlation
        Of the residuals that should be independent.
    object
        The same inside the object, which is what is told first; left out where there is no air around it.
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


@dataclass(frozen=True, eq=False, repr=False)
class Change(Record):
    """Means inside the field of view, before and after."""

    mean_noisy: float
    mean: float
    relative_change_of_mean: float | None


@dataclass(frozen=True, eq=False, repr=False)
class Corrected(Record):
    """Shares of the samples that correcting replaced or raised to a floor."""

    zingers: float
    bad: float
    floored: float


@dataclass(frozen=True, eq=False, repr=False)
class Trained(Record):
    """How the network was trained; a filter has no history.

    Parameters
    ----------
    steps, best_step
        Taken, and that of the weights that were kept.
    seconds, seconds_per_step
        That it took.
    stopped
        Why it ended.
    history
        Every judgement, each a mapping.
    offset_of_judgements
        Squared error that they have in common by chance.
    """

    steps: int
    best_step: int
    seconds: float
    seconds_per_step: float
    stopped: str
    history: list[dict[str, Any]]
    offset_of_judgements: float


@dataclass(frozen=True, eq=False, repr=False)
class LogBias(Record):
    """By how much the logarithm of few counts overestimates line integrals, and their mean."""

    worst: float
    mean: float
    mean_line_integral: float


@dataclass(frozen=True, eq=False, repr=False)
class ScanFacts(Record):
    """The scan."""

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
    """A series of images that nothing is reconstructed from."""

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
    """The noise of images."""

    sd: float
    neighbour_correlation: float
    shared_pixels_away: int
    read_from: str


@dataclass(frozen=True, eq=False, repr=False)
class MethodFacts(Record):
    """What was done.

    Parameters
    ----------
    name, settings
        Of the method, or of the filter.
    domain
        ``volume``, ``radiographs`` or ``images``.
    slices, parts
        Of a sample.
    network, parameters
        Its name, and how many weights it has.
    symmetries, arithmetic, device
        Averaged over at inference, its precision, and where.
    measurements
        Of the same images.
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
    """What reconstructed: whether it is linear, and its settings with its name."""

    linear: bool
    settings: Mapping[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class Memory(Record):
    """Bytes: allowed, planned and taken."""

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
        See the classes.
    versions
        Of everything that the result depends on.
    reconstruction
        What reconstructed, where something did.
    evidence
        What two halves of the data that share no noise agree on.
    trust
        Of the map of the error.
    series
        Of every step or channel.
    comparison
        Of the methods, where they were compared.
    flats
        Whether the angular subsets had flats of their own, and what was predicted of shared ones.
    seconds
        That the run took.
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


@dataclass(frozen=True, eq=False, repr=False)
class ScanMetrics(Metrics):
    """Figures of a run on a scan; `log_bias` is None where none can be told."""

    log_bias: LogBias | None = None


@dataclass(frozen=True, eq=False, repr=False)
class ImageMetrics(Metrics):
    """Figures of a run on images: also of their `noise`, and of how many a `guard` left as they were."""

    noise: NoiseFacts | None = None
    guard: Mapping[str, Any] | None = field(default=None, metadata=_OPTIONAL)


def metrics_of(found: Mapping[str, Any]) -> Metrics:
    """Return the figures in a mapping such as ``metrics.json``, of a scan or of images.

    Raises
    ------
    KeyError
        One is missing.
    """
    kind: type[Metrics] = ImageMetrics if found["method"]["domain"] == "images" else ScanMetrics
    metrics: Metrics = kind.of(found)
    return metrics


def headline(estimate: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the figures to speak of: those inside the object, or of the field of view where there is no air.

    Parameters
    ----------
    estimate
        The table ``estimate`` of the figures.
    """
    found: Mapping[str, Any] = estimate.get("object") or estimate
    return found


def gain_text(estimate: Mapping[str, Any]) -> str:
    """Return the estimated gain in words: with its interval, or at least how much; inside the object, if that is told.

    Parameters
    ----------
    estimate
        The table ``estimate`` of the figures.

    Examples
    --------
    >>> air = {"psnr_gain_db": 17.31, "psnr_gain_db_at_least": 16.94, "psnr_gain_db_at_most": 17.8}
    >>> gain_text(air)
    '+17.3 dB (16.9 to 17.8)'
    >>> inside = {"psnr_gain_db": None, "psnr_gain_db_at_least": 14.94, "psnr_gain_db_at_most": None}
    >>> gain_text({**air, "object": {**inside, "share_of_field_of_view": 0.52}})
    'at least +14.9 dB inside the object, 52 % of the field of view; +17.3 dB (16.9 to 17.8) over all of that'
    """
    inside = estimate.get("object")
    if not inside:
        return _gain(estimate)
    share = f"{100 * inside['share_of_field_of_view']:.0f} %"
    return f"{_gain(inside)} inside the object, {share} of the field of view; {_gain(estimate)} over all of that"


def too_wide(told: Mapping[str, Any], units: str, count: int | None) -> list[str]:
    """Return a warning if the interval of a gain is wider than the gain, with what would halve it.

    Parameters
    ----------
    told
        From :func:`headline`.
    units
        What the interval comes from more or less of.
    count
        How many there were; None where that is not known.

    Examples
    --------
    >>> wide = {"psnr_gain_db": 2.0, "psnr_gain_db_at_least": 0.5, "psnr_gain_db_at_most": 4.0}
    >>> too_wide(wide, "detector rows", 12)[0][-59:]
    'It takes four times as many detector rows (48) to halve it.'
    >>> too_wide({**wide, "psnr_gain_db_at_most": 2.4}, "detector rows", 12)
    []
    """
    gain, least, most = (told.get(f"psnr_gain_db{end}") for end in ("", "_at_least", "_at_most"))
    if gain is None or least is None:
        return []
    width = 2 * (gain - least) if most is None else most - least
    if width <= abs(gain):
        return []
    many = "" if count is None else f" ({4 * count})"
    upwards = "up" if most is None else f"to {most:.1f}"
    return [
        f"The interval of the gain, from {least:.1f} dB {upwards}, is wider than the gain of {gain:+.1f} dB: what was "
        f"held out is too little to tell. It takes four times as many {units}{many} to halve it."
    ]


def _gain(estimate: Mapping[str, Any]) -> str:
    gain, least, most = (estimate[f"psnr_gain_db{end}"] for end in ("", "_at_least", "_at_most"))
    if least is None:
        return "not known" if gain is None else f"{gain:+.1f} dB"
    if gain is None or most is None:
        return f"at least {least:+.1f} dB"
    return f"{gain:+.1f} dB ({least:.1f} to {most:.1f})"


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
    """Return a value of a file, as a record where its hint says so."""
    kinds = [one for one in (hint, *get_args(hint)) if isinstance(one, type) and issubclass(one, Record)]
    if isinstance(value, Mapping) and kinds:
        fitting = [kind for kind in kinds if {entry.name for entry in dataclasses.fields(kind)} >= set(value)]  # type: ignore[arg-type]
        return (fitting or kinds)[0].of(value)
    return value
