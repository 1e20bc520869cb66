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
    "filtered_rings",
    "gain_text",
    "headline",
    "means_text",
    "metrics_of",
    "psnr_text",
    "too_few_views",
    "too_wide",
    "withheld",
]

NEAR = 0.7  # in dB: a gain is one figure where its 90 % interval reaches no further to either side
_HALF = 1.0  # views in half of the data that a region needs, per pixel of its width
_MISTAKEN = 0.15  # largest fraction of the error that streaks may hide: 0.7 dB of the gain
_LEFT = 0.03  # usual squared error after denoising, as a fraction of the noise: a gain of 15 dB


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


def means_text(training: Mapping[str, Any]) -> str:
    """Return how many processes trained, and from how much at a time, to follow the number of steps; mostly empty.

    Examples
    --------
    >>> means_text({"steps": 10}), means_text({"steps": 10, "processes": 4})
    ('', ' of 4 processes')
    >>> means_text({"steps": 10, "share": 0.25})
    ' from a window of 25% of the rows'
    """
    together = f" of {training['processes']} processes" if training.get("processes") else ""
    return together + (f" from a window of {training['share']:.0%} of the rows" if training.get("share") else "")


def headline(estimate: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the figures to report: those inside the object, or in the field of view if there is no air.

    Parameters
    ----------
    estimate
        Table ``estimate`` of the figures.
    """
    found: Mapping[str, Any] = estimate.get("object") or estimate
    return found


def too_few_views(
    views: float, columns: int, share: float = 1.0, streaks: float | None = None, left: float | None = None
) -> str:
    """Return in words that half of the views are too few for a region to tell its noise from streaks; else nothing.

    Views that are fewer than the pixels of the region may still be enough, as the object or the detector may be
    blurred.  Therefore measured streaks decide, if they are known.

    Parameters
    ----------
    views
        Number of views in half a turn.
    columns
        Number of detector columns.
    share
        Fraction of the field of view that the region covers.
    streaks
        Streaks that half of the views have, as a fraction of the noise, at most; None if not measured.
    left
        Squared error after denoising, as a fraction of the noise, which streaks make seem smaller; None for that of a
        gain of 15 dB.

    Examples
    --------
    >>> too_few_views(48.0, 64)
    'half of the 48 views are too few for a width of about 62 columns: their noise cannot be distinguished from streaks'
    >>> too_few_views(64.0, 64, 0.25)
    ''
    >>> too_few_views(48.0, 64, streaks=0.002, left=0.05)
    ''
    """
    width = 0.97 * columns * share**0.5
    if views / 2 >= _HALF * width or (streaks is not None and streaks < _MISTAKEN * (_LEFT if left is None else left)):
        return ""
    return (
        f"half of the {views:.0f} views are too few for a width of about {width:.0f} columns: their noise cannot be "
        "distinguished from streaks"
    )


def filtered_rings(rings: str) -> str:
    """Return in words that a ring filter hides errors from held-out views; nothing if there was none.

    Examples
    --------
    >>> filtered_rings("all")
    "the ring filter 'all' acts on all views alike, so what it took from the object is not known"
    >>> filtered_rings("none")
    ''
    """
    if rings == "none":
        return ""
    return f"the ring filter '{rings}' acts on all views alike, so what it took from the object is not known"


def withheld(gain: float, interval: tuple[float, float]) -> str:
    """Return in words why a gain is told by its interval alone; nothing if it is known to 0.7 dB.

    The estimate of an error is the difference of two larger numbers.  Where it is small beside its uncertainty, its
    logarithm is not only uncertain, but too large on average.

    Examples
    --------
    >>> withheld(9.5, (9.0, 10.1)), withheld(9.5, (7.9, 12.0))
    ('', 'too little was held out to know the gain to 0.7 dB')
    """
    low, high = interval
    near = gain - low <= NEAR and high - gain <= NEAR  # also not if any of them is not a number
    return "" if near else f"too little was held out to know the gain to {NEAR} dB"


def gain_text(estimate: Mapping[str, Any]) -> str:
    """Return the estimated gain as text, with its interval or lower bound; inside the object, if known.

    Parameters
    ----------
    estimate
        Table ``estimate`` of the figures.

    Examples
    --------
    >>> air = {"psnr_gain_db": 17.31, "psnr_gain_db_at_least": 16.94, "psnr_gain_db_at_most": 17.8}
    >>> gain_text(air)
    '+17.3 dB (16.9 to 17.8)'
    >>> inside = {"psnr_gain_db": None, "psnr_gain_db_at_least": 14.94, "psnr_gain_db_at_most": None}
    >>> gain_text({**air, "object": {**inside, "share_of_field_of_view": 0.52}})
    'at least +14.9 dB inside the object, 52 % of the field of view; +17.3 dB (16.9 to 17.8) over the whole field'
    >>> vague = {**air, "psnr_gain_db": None}
    >>> gain_text(vague), gain_text({**vague, "psnr_gain_db_at_least": None})
    ('+16.9 to +17.8 dB', 'at most +17.8 dB')
    """
    inside = estimate.get("object")
    if not inside:
        return _gain(estimate)
    share = f"{100 * inside['share_of_field_of_view']:.0f} %"
    return f"{_gain(inside)} inside the object, {share} of the field of view; {_gain(estimate)} over the whole field"


def psnr_text(told: Mapping[str, Any]) -> str:
    """Return the estimated PSNR after denoising as text, or what is known of it: an interval or a bound.

    Parameters
    ----------
    told
        From :func:`headline`.

    Examples
    --------
    >>> told = {"psnr_noisy_db": 21.5, "psnr_db": None, "psnr_gain_db_at_least": 13.4, "psnr_gain_db_at_most": None}
    >>> psnr_text(told), psnr_text({**told, "psnr_gain_db_at_most": 17.0})
    ('at least 34.9 dB', '34.9 to 38.5 dB')
    >>> psnr_text({**told, "psnr_gain_db_at_least": None, "psnr_gain_db_at_most": 17.0})
    'at most 38.5 dB'
    """
    if told["psnr_db"] is not None:
        return f"{told['psnr_db']:.1f} dB"
    noisy, least, most = (told[name] for name in ("psnr_noisy_db", "psnr_gain_db_at_least", "psnr_gain_db_at_most"))
    if noisy is not None and least is None and most is not None:
        return f"at most {noisy + most:.1f} dB"
    if noisy is None or least is None or (most is None and least < 0):
        return "not known"
    return f"at least {noisy + least:.1f} dB" if most is None else f"{noisy + least:.1f} to {noisy + most:.1f} dB"


def too_wide(told: Mapping[str, Any], units: str, count: int | None) -> list[str]:
    """Return a warning if the interval of a gain is wider than the gain, and what would halve it.

    Parameters
    ----------
    told
        Figures from :func:`headline`.
    units
        What the width of the interval depends on.
    count
        Their number; None if unknown.

    Examples
    --------
    >>> wide = {"psnr_gain_db": 2.0, "psnr_gain_db_at_least": 0.5, "psnr_gain_db_at_most": 4.0}
    >>> too_wide(wide, "detector rows", 12)[0][-53:]
    'Four times as many detector rows (48) would halve it.'
    >>> too_wide({**wide, "psnr_gain_db_at_most": 2.4}, "detector rows", 12)
    []
    """
    gain, least, most = (told.get(f"psnr_gain_db{end}") for end in ("", "_at_least", "_at_most"))
    if gain is None and least is not None and most is not None:
        gain = (least + most) / 2
    if gain is None or least is None:
        return []
    width = 2 * (gain - least) if most is None else most - least
    if width <= abs(gain):
        return []
    many = "" if count is None else f" ({4 * count})"
    upwards = "up" if most is None else f"to {most:.1f}"
    return [
        f"The interval of the gain, from {least:.1f} dB {upwards}, is wider than the gain itself: too little was held "
        f"out. Four times as many {units}{many} would halve it."
    ]


def _gain(estimate: Mapping[str, Any]) -> str:
    gain, least, most = (estimate[f"psnr_gain_db{end}"] for end in ("", "_at_least", "_at_most"))
    if least is None:
        if gain is None:
            return "not known" if most is None else f"at most {most:+.1f} dB"
        return f"{gain:+.1f} dB"
    if gain is None and most is not None:
        return f"{least:+.1f} to {most:+.1f} dB"
    if gain is None and least < 0:  # no gain worth mentioning
        return f"not known ({least:+.1f} dB or more)"
    if gain is not None and most is None:
        return f"{gain:+.1f} dB ({least:.1f} or more)"
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
    """Return a value from a file, as a record if its type hint says so."""
    kinds = [one for one in (hint, *get_args(hint)) if isinstance(one, type) and issubclass(one, Record)]
    if isinstance(value, Mapping) and kinds:
        fitting = [kind for kind in kinds if {entry.name for entry in dataclasses.fields(kind)} >= set(value)]  # type: ignore[arg-type]
        return (fitting or kinds)[0].of(value)
    return value
