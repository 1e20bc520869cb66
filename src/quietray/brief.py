"""Short representations of objects, which never print arrays, networks or long lists."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

__all__ = ["brief", "changes"]

_LINE = 110  # in characters; longer representations get a line for each field
_VALUE, _ENTRIES = 80, 6  # largest number of characters of a value, and of entries of a list


def brief(record: Any) -> str:
    """Return a dataclass in one line, or with a line for each field: arrays as shapes, long values as types.

    To be used as a ``__repr__``.

    Examples
    --------
    >>> import numpy as np
    >>> @dataclasses.dataclass
    ... class Measured:
    ...     frames: np.ndarray
    ...     gain: float
    ...     history: list[int]
    ...     __repr__ = brief
    >>> Measured(np.zeros((100, 50)), 1 / 3, list(range(1000)))
    Measured(frames=<float64 (100, 50)>, gain=0.333333, history=<list of 1000>)
    """
    name = type(record).__name__
    fields = [(entry, getattr(record, entry.name)) for entry in dataclasses.fields(record) if entry.repr]
    shown = [entry.name for entry, value in fields if value is not None or entry.default is not None]
    told = [f"{entry}={_told(getattr(record, entry))}" for entry in shown]
    line = f"{name}({', '.join(told)})"
    return line if len(line) <= _LINE else "\n  ".join([name, *(entry.replace("=", ": ", 1) for entry in told)])


def changes(settings: Any) -> str:
    """Return the settings that differ from their defaults, as Python code unless a list is long.

    Examples
    --------
    >>> @dataclasses.dataclass(frozen=True)
    ... class Limits:
    ...     memory: str = "8G"
    ...     hours: int = 4
    ...     __repr__ = changes
    >>> Limits(), Limits(hours=5)
    (Limits(), Limits(hours=5))
    """
    told = []
    for entry in (one for one in dataclasses.fields(settings) if one.init and one.repr):
        usual = entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory()
        value = getattr(settings, entry.name)
        if usual is dataclasses.MISSING or type(value) is not type(usual) or value != usual:
            plain = dataclasses.is_dataclass(value) and not isinstance(value, type)
            text = changes(value) if plain else repr(value)
            told.append(f"{entry.name}={text if plain or len(text) <= _VALUE else _told(value)}")
    return f"{type(settings).__name__}({', '.join(told)})"


def _told(value: Any) -> str:
    """Return a value as text of limited length."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, type):
        shape = tuple(value.shape)
        return f"<{value.dtype} {shape}>" if shape else _cut(str(value))
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return _cut(repr(value))
    if isinstance(value, Mapping) and type(value).__repr__ is dict.__repr__:
        told = [f"{key!r}: {_told(item)}" for key, item in value.items()] if len(value) <= _ENTRIES else []
        return _within("{" + ", ".join(told) + "}", value, bool(told) or not value)
    if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
        told = [_told(item) for item in value] if len(value) <= _ENTRIES else []
        comma = "," if len(told) == 1 and isinstance(value, tuple) else ""
        text = f"({', '.join(told)}{comma})" if isinstance(value, tuple) else f"[{', '.join(told)}]"
        return _within(text, value, bool(told) or not value)
    if isinstance(value, (bool, int)) or value is None:
        return repr(value)
    text = "" if type(value).__module__.startswith("torch") else repr(value)  # the text of a network fills a page
    return text if 0 < len(text) <= _VALUE and "\n" not in text else f"<{type(value).__name__}>"


def _within(text: str, value: Any, whole: bool) -> str:
    return text if whole and len(text) <= _VALUE else f"<{type(value).__name__} of {len(value)}>"


def _cut(text: str) -> str:
    return text if len(text) <= _VALUE else f"{text[: _VALUE - 4]}...{text[-1]}"
