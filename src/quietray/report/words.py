"""Names and numbers as readable text: ``psnr_db: 31.28312`` becomes *PSNR 31.28 dB*."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Section", "duration", "interval", "label", "length", "number", "sections", "size", "value", "with_units"]

NOT_KNOWN = "not known"
THIN = "\u202f"  # narrow no-break space
MINUS = "\u2212"

_NAMES = {
    "bm3d": "BM3D", "ci": "confidence interval", "cpu": "CPU", "ct": "CT", "db": "dB", "fbp": "FBP", "fdk": "FDK",
    "gpu": "GPU", "id": "ID", "lr": "learning rate", "mae": "MAE", "mse": "MSE", "n": "number of", "nrmse": "NRMSE",
    "psnr": "PSNR", "python": "Python", "rmse": "RMSE", "rss": "RSS", "sd": "standard deviation", "sha256": "SHA-256",
    "sirt": "SIRT", "snr": "SNR", "ssim": "SSIM", "tv": "TV", "url": "URL", "utc": "UTC",
}  # fmt: skip
_UNITS = {
    "db": "dB", "mm": "mm", "um": "µm", "px": "px", "percent": "%", "counts": "counts", "photons": "photons",
    "deg": "°", "degrees": "°", "rad": "rad", "kev": "keV", "hz": "Hz",
}  # fmt: skip

_GREY_VALUES = ("rmse", "rmse_noisy", "data_range", "mean", "mean_noisy", "sd", "sd_median")
_SHARES = (
    "relative_change_of_mean",
    "share_of_field_of_view",
    "rings_share",
    "share_of_noise_from_flats",
    "share_of_flat_noise_kept",
)


@dataclass(frozen=True)
class Section:
    """A table with rows of a label and a value."""

    title: str
    rows: tuple[tuple[str, str], ...]


def number(value: float | int, digits: int = 4) -> str:
    """Return `value` with `digits` significant digits, thin spaces between thousands, and a true minus sign.

    Examples
    --------
    >>> number(3.14159), number(0.000012345), number(-0.5), number(1e7) == "10\u202f000\u202f000"
    ('3.142', '1.234e\u22125', '\u22120.5', True)
    >>> number(float("nan"))
    'not known'
    """
    if math.isnan(value):
        return NOT_KNOWN
    if math.isinf(value):
        return "infinite" if value > 0 else f"{MINUS}infinite"
    if float(value).is_integer() and abs(value) < 1e15:
        text = f"{int(value):,}" if abs(value) >= 10_000 else str(int(value))
    elif 1e-3 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{decimals}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return text.replace(",", THIN).replace("-", MINUS)


def interval(low: float | int, high: float | int) -> str:
    """Return both ends of an interval, with decimals that suit its width.

    Examples
    --------
    >>> interval(0.000961, 0.00454), interval(0, 412.3)
    ('0.00096 to 0.00454', '0 to 412')
    """
    if not 1e-6 < high - low < 1e6:
        return f"{number(low, 3)} to {number(high, 3)}"
    decimals = max(0, 2 - math.floor(math.log10(high - low)))
    return " to ".join(f"{end:.{decimals}f}".replace("-", MINUS) for end in (low, high))


def duration(seconds: float | int) -> str:
    """Return a length of time in words.

    Examples
    --------
    >>> duration(0.0123), duration(75), duration(7265)
    ('0.0123 s', '1 min 15 s', '2 h 1 min')
    """
    if not math.isfinite(seconds) or seconds < 60:
        return number(seconds, 3) + ("" if math.isnan(seconds) else " s")
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def size(n_bytes: float | int) -> str:
    """Return an amount of memory.

    Examples
    --------
    >>> size(512), size(13_270_162_636)
    ('512 B', '13.3 GB')
    """
    for power, name in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if abs(n_bytes) >= 1000**power:
            return f"{number(n_bytes / 1000**power, 3)} {name}"
    return f"{number(n_bytes)} B"


def length(mm: float | int) -> str:
    """Return a length in a suitable unit.

    Examples
    --------
    >>> length(0.02), length(5), length(2e-5)
    ('20 µm', '5 mm', '20 nm')
    """
    if mm >= 1:
        return f"{number(mm)} mm"
    return f"{number(mm * 1e3)} µm" if mm >= 1e-3 else f"{number(mm * 1e6)} nm"


def label(key: str) -> str:
    """Return a key of a metrics table as words, without the unit at its end; file names are unchanged.

    Examples
    --------
    >>> label("estimated_psnr_db"), label("n_views"), label("gain_db_at_least"), label("my_scan.h5")
    ('Estimated PSNR', 'Number of views', 'Gain at least', 'my_scan.h5')
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", key):
        return key
    words, bound = _without_bound(_words(key))
    if _unit_word(words):
        words = words[:-1]
    words += bound
    text = " ".join(_NAMES.get(word.lower(), word) for word in words)
    return text[:1].upper() + text[1:]


def value(key: str, item: Any) -> str:
    """Return one value as text, with the unit at the end of its key.

    Examples
    --------
    >>> value("psnr_db", 31.28312), value("fit_seconds", 75.2), value("peak_memory_bytes", 2**31)
    ('31.28 dB', '1 min 15 s', '2.15 GB')
    >>> value("gain", None), value("masked", True), value("shape", [4, 128, 128]), value("psnr_ci_db", [30.12, 31.5])
    ('not known', 'yes', '4, 128, 128', '30.12 to 31.5 dB')
    """
    if item is None:
        return NOT_KNOWN
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, (int, float)):
        return _measured(key, item)
    if isinstance(item, (list, tuple)):
        return _several(key, item)
    return str(item)


def _words(key: str) -> list[str]:
    """Split a key at its underscores and hyphens."""
    return [word for word in re.split(r"[_-]+", key) if word]


def _without_bound(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the words of a key, and separately the *at least* or *at most* at its end."""
    return (words[:-2], words[-2:]) if words[-2:] in (["at", "least"], ["at", "most"]) else (words, [])


def _unit_word(words: list[str]) -> str:
    """Return the last word of a key if it is a unit, else an empty string; ``n_counts`` is a number."""
    last = words[-1].lower() if words else ""
    known = last in _UNITS or last in ("s", "seconds", "bytes")
    return last if known and len(words) > 1 and words[0] != "n" else ""


def _measured(key: str, item: float | int) -> str:
    """Return a number with its unit."""
    if math.isnan(item):
        return NOT_KNOWN
    words, _ = _without_bound(_words(key))
    if words and words[-1].lower() == "seed":
        return str(item)
    unit = _unit_word(words) or (key if key in ("seconds", "bytes") else "")
    if unit in ("s", "seconds"):
        return duration(item)
    if unit == "bytes":
        return size(item)
    name = _UNITS.get(unit, "")
    return number(item) + (name if name == "°" else f" {name}" if name else "")


def _several(key: str, items: Sequence[Any]) -> str:
    """Return a list as text: an interval as its ends, a long list as its range."""
    if not items:
        return "none"
    numeric = all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in items)
    if numeric and len(items) == 2 and not {"ci", "interval", "range", "window"}.isdisjoint(_words(key.lower())):
        return f"{number(items[0])} to {value(key, items[1])}"
    if numeric and len(items) > 12:
        finite = [item for item in items if not math.isnan(item)] or [math.nan]
        return f"{len(items)} values from {value(key, min(finite))} to {value(key, max(finite))}"
    return (", " if numeric else "; ").join(value(key, item) for item in items)


def sections(tree: Mapping[str, Any], title: str) -> tuple[Section, ...]:
    """Return a nested mapping as flat tables, one for each inner mapping, and `title` for single values.

    Examples
    --------
    >>> for section in sections({"seed": 3, "noise": {"gain": 2.5, "read": {"sd_counts": None}}}, "Run"):
    ...     print(section.title, section.rows)
    Run (('Seed', '3'),)
    Noise (('Gain', '2.5'), ('Read: standard deviation', 'not known'))
    """
    loose = tuple(row for key, item in tree.items() if not _nested(item) for row in _rows(str(key), item))
    found = [Section(title, loose)] if loose else []
    for key, item in tree.items():
        if _nested(item):
            rows = tuple(row for name, inner in _children(item) for row in _rows(name, inner))
            found.append(Section(label(str(key)), rows or (("All", "none"),)))
    return tuple(found)


def with_units(metrics: Mapping[str, Any], unit: str) -> dict[str, Any]:
    """Return the figures of a run, as text with unit where the names do not contain the unit.

    Parameters
    ----------
    metrics
        Figures as in ``metrics.json``.
    unit
        Unit of grey values.

    Examples
    --------
    >>> with_units({"volume": {"mean": 0.25}, "memory": {"peak": 13_270_162_636}}, "1/mm")
    {'volume': {'mean': '0.25 1/mm'}, 'memory': {'peak': '13.3 GB'}}
    """
    estimate = metrics.get("estimate")
    judged = estimate.get("data_range_is", "volume") if isinstance(estimate, Mapping) else "volume"
    line_integrals = "volume" not in judged and "images" not in judged

    def told(name: str, item: Any, section: str) -> Any:
        if isinstance(item, Mapping):
            return {key: told(key, one, section) for key, one in item.items()}
        if name == "rows" and isinstance(item, (list, tuple)):
            return f"{item[0]} to {item[1]}"
        if isinstance(item, bool) or not isinstance(item, (int, float)):
            return item
        if section == "memory" and name != "slabs":
            return size(item)
        if name in _GREY_VALUES and section in ("estimate", "volume", "trust", "noise"):
            return number(item) if line_integrals and section == "estimate" else f"{number(item)} {unit}".strip()
        if name in _SHARES or section == "correction":
            return f"{number(100 * item, 3)} %"
        if name in ("columns", "rows") and section == "scan":
            return f"{number(item)} px"
        if name == "rotation_axis":
            return f"column {item:.2f}"
        return duration(item) if name == "seconds_per_step" else item

    return {name: told(name, item, name) for name, item in metrics.items()}


def _nested(item: Any) -> bool:
    """Return whether `item` is a mapping or a list that contains one."""
    if isinstance(item, Mapping):
        return True
    return isinstance(item, (list, tuple)) and any(isinstance(inner, Mapping) for inner in item)


def _children(item: Any) -> list[tuple[str, Any]]:
    """Return the members of a mapping, or of a list with their names or positions."""
    if isinstance(item, Mapping):
        return [(str(key), inner) for key, inner in item.items()]
    return [_named(inner, place) for place, inner in enumerate(item, start=1)]


def _named(item: Any, place: int) -> tuple[str, Any]:
    """Return a member of a list with its own name, or with its position."""
    for key in ("name", "method", "label"):
        if isinstance(item, Mapping) and isinstance(item.get(key), str) and len(item) > 1:
            return item[key], {other: inner for other, inner in item.items() if other != key}
    return str(place), item


def _rows(key: str, item: Any, parents: str = "") -> list[tuple[str, str]]:
    """Return the rows of one entry; labels of nested entries begin with the names of their parents."""
    name = label(key)
    if parents:
        name = f"{parents}: {name if name[1:2].isupper() else name[:1].lower() + name[1:]}"
    if not _nested(item):
        return [(name, value(key, item))]
    return [row for inner, entry in _children(item) for row in _rows(inner, entry, name)]
