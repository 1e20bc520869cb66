"""Settings are frozen dataclasses; this module converts them to TOML and back, strictly.

An unknown key is an error that names the nearest known one, because a setting that is silently ignored can cost a night
of computing.  A value of another type is also an error and never converted, except that an integer may stand for a
float and a text for a path.

A field that may hold one of several dataclasses is a table whose ``name`` selects the class (its ``called``, or its
name in lower case).  The name alone, as a text, selects the class with its defaults.

TOML has no null.  A field whose default is None is left out of the file if it is None; any other field that may be None
is written and read as the text ``"none"``.  Such a field cannot hold that text itself.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from quietray.errors import FormatError, SettingsError, nearest
from quietray.registry import Registered, called

__all__ = ["called", "from_dict", "parse_bytes", "parse_seconds", "read_toml", "to_dict", "typed", "write_toml"]

T = TypeVar("T")

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_NONE = "none"

# Allowed types of a value, with an example in TOML syntax.
_SCALARS: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "true"),
    int: ("an integer", "3"),
    float: ("a number", "0.5"),
    str: ("a text", '"text"'),
    Path: ("a path", '"folder/file"'),
    NoneType: (f'"{_NONE}"', f'"{_NONE}"'),
}


def parse_seconds(text: str) -> float:
    """Return the seconds in ``90s``, ``10m``, ``1.5h``, ``2d`` or plain ``90``; case is ignored.

    Raises
    ------
    SettingsError
        The text is not a positive duration.

    Examples
    --------
    >>> parse_seconds("10m")
    600.0
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([smhd]?)\s*", text.lower())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < seconds < math.inf:
        raise SettingsError(
            f"a duration must be positive, got '{text}'; write a number and s, m, h or d, like 90s, 10m or 1.5h"
        )
    return seconds


def parse_bytes(text: str) -> int:
    """Return the bytes in ``8G``, ``500M`` or a plain number.

    Raises
    ------
    SettingsError
        The text is not a positive amount of memory.

    Examples
    --------
    >>> parse_bytes("2G") == 2 * 1024**3
    True
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kmgt]?)(?:i?b)?\s*", text.lower())
    n_bytes = float(match[1]) * _BYTES[match[2]] if match else 0.0
    if not 1 <= n_bytes < math.inf:
        raise SettingsError(
            f"an amount of memory must be a byte or more, got '{text}'; write a number and K, M, G or T, like 8G"
        )
    return int(n_bytes)


def to_dict(settings: Any) -> dict[str, Any]:
    """Return `settings` as plain nested dictionaries, ready for TOML or JSON.

    None is left out if it is the default, and written as the text ``"none"`` otherwise.

    Raises
    ------
    SettingsError
        A field that may be None holds the text ``"none"``, which would be read back as None.

    Examples
    --------
    >>> @dataclasses.dataclass(frozen=True)
    ... class Limit:
    ...     memory: str | None = "8G"
    ...     seed: int | None = None
    >>> to_dict(Limit(memory=None))
    {'memory': 'none'}
    """
    if not dataclasses.is_dataclass(settings) and vars(settings):
        raise SettingsError(
            f"{type(settings).__name__} must be a frozen dataclass, so that its settings can be written down and read "
            f"again, got a plain class with {', '.join(vars(settings))}; put @dataclass(frozen=True) over it"
        )
    hints = get_type_hints(type(settings))
    out: dict[str, Any] = {}
    for entry in _entries(settings):
        value = getattr(settings, entry.name)
        plain = _plain(value)
        if isinstance(plain, dict) and len(_tables(hints[entry.name])) > 1:
            plain = {"name": called(type(value)), **plain}
        if value is not None and plain == _NONE and NoneType in get_args(hints[entry.name]):
            raise SettingsError(
                f"'{entry.name}' must not be a text that means None, got '{_NONE}'; use None or another text"
            )
        if value is not None or entry.default is not None:
            out[entry.name] = plain
    return out


def from_dict(kind: type[T], table: Any, where: str = "") -> T:
    """Build the dataclass `kind` from nested dictionaries; `where` names the table in messages.

    Fields may be bool, int, float, str, Path, Literal, tuples and unions of these, and other dataclasses.

    Raises
    ------
    SettingsError
        A key is unknown (the message gives the nearest known one) or missing, or a value has the wrong type.

    Examples
    --------
    >>> @dataclasses.dataclass(frozen=True)
    ... class Run:
    ...     seed: int = 0
    >>> from_dict(Run, {"sed": 1})
    Traceback (most recent call last):
    quietray.errors.SettingsError: 'sed' must be a known setting, got 'sed' (did you mean 'seed'?); known here: seed
    """
    if not isinstance(table, Mapping):
        raise SettingsError(f"'{where}' must be settings by name, got {str(table)[:60]}; write name = value")
    hints = get_type_hints(kind)
    entries = {entry.name: entry for entry in _entries(kind)}
    prefix = f"{where}." if where else ""
    for key in table:
        if key not in entries:
            raise SettingsError(
                f"'{prefix}{key}' must be a known setting, got '{key}'{nearest(key, entries)}; "
                f"known here: {', '.join(entries)}"
            )
    for key, entry in entries.items():
        if key not in table and entry.default is entry.default_factory is dataclasses.MISSING:
            rule, example = _expected(hints[key])
            raise SettingsError(f"'{prefix}{key}' must be {rule}, got nothing; add for example {key} = {example}")
    return kind(
        **{key: _value(value, hints[key], f"{prefix}{key}", _usual(entries[key])) for key, value in table.items()}
    )


def typed(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of a dataclass given in Python, after checking their types.

    A dictionary stands for a dataclass; objects that a registry knows are looked at by whoever takes them.

    Raises
    ------
    SettingsError
        A field has the wrong type.

    Examples
    --------
    >>> @dataclasses.dataclass(frozen=True)
    ... class Run:
    ...     seed: int = 0
    >>> typed(Run, {"seed": "three"})
    Traceback (most recent call last):
    quietray.errors.SettingsError: 'seed' must be an integer, got 'three'; write for example 3
    """
    hints, out = get_type_hints(kind), {}
    for name, value in given.items():
        parts = [part for part in get_args(hints[name]) or (hints[name],) if isinstance(part, type)]
        registered = any(issubclass(part, Registered) for part in parts)
        if not registered and not any(dataclasses.is_dataclass(part) and isinstance(value, part) for part in parts):
            value = _value(value, hints[name], name)
        out[name] = value
    return out


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file into nested dictionaries.

    Raises
    ------
    FormatError
        The file is missing, cannot be read or is not TOML.
    """
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError:
        raise FormatError(f"the settings file must exist, got {path}; check the path") from None
    except OSError as error:
        raise FormatError(f"the settings must be a readable file, got {error}; check the path") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or nested too deeply
        raise FormatError(f"{path} must be TOML, got: {error}; correct the file or name another") from None


def write_toml(settings: Any) -> str:
    """Return `settings` as the text of a TOML file."""
    return tomli_w.dumps(to_dict(settings))


def _entries(settings: Any) -> list[dataclasses.Field[Any]]:
    if not dataclasses.is_dataclass(settings):
        return []  # a user-defined class without settings is represented by its name
    return [entry for entry in dataclasses.fields(settings) if entry.init]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) or isinstance(value, Registered):
        return to_dict(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return _NONE if value is None else value


def _usual(entry: dataclasses.Field[Any]) -> type | None:
    """Return the class of a field's default, if it has one."""
    made = entry.default_factory() if entry.default_factory is not dataclasses.MISSING else entry.default
    return None if made is dataclasses.MISSING else type(made)


def _tables(hint: Any) -> dict[str, type]:
    """Return the classes a table may represent, by name: the dataclasses of a union, or members of a registry."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for part in parts:
        if isinstance(part, type) and issubclass(part, Registered) and "registry" in part.__dict__:
            return dict(part.registry)
    return {called(part): part for part in parts if dataclasses.is_dataclass(part) and isinstance(part, type)}


def _value(value: Any, hint: Any, place: str, usual: type | None = None) -> Any:
    """Return `value` as the type `hint`; only differences due to TOML syntax are converted.

    A table without a name represents the default class.
    """
    if getattr(value, "shape", None) == ():  # a number of NumPy's
        value = value.item()
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return from_dict(hint, value, place)
    origin, parts = get_origin(hint), get_args(hint)
    if any(isinstance(part, type) and issubclass(part, Registered) for part in parts or (hint,)):
        return _named(value, _tables(hint), place, usual)
    if origin in (Union, UnionType):
        return _one_of(value, hint, place, usual)
    if origin is tuple and isinstance(value, (list, tuple)):
        items = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        if len(items) == len(value):
            pairs = zip(value, items, strict=True)
            return tuple(_value(item, part, f"{place}[{index}]") for index, (item, part) in enumerate(pairs))
    if origin is Literal and any(type(value) is type(choice) and value == choice for choice in parts):
        return value
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    if hint is float and type(value) is int and abs(value) < 2**1023:
        return float(value)
    if hint in (bool, int, float, str) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise _refused(value, hint, place)


def _one_of(value: Any, hint: Any, place: str, usual: type | None) -> Any:
    parts = [part for part in get_args(hint) if part is not NoneType]
    tables = _tables(hint)
    if NoneType in get_args(hint) and value in (None, _NONE):
        return None
    if isinstance(value, dict) and len(tables) == 1:
        return from_dict(next(iter(tables.values())), value, place)
    if len(tables) > 1 and (isinstance(value, dict) or str not in parts):
        return _named(value, tables, place, usual)
    if len(parts) == 1:
        return _value(value, parts[0], place)
    for part in parts:
        try:
            return _value(value, part, place)
        except SettingsError:
            continue
    raise _refused(value, hint, place)


def _named(value: Any, tables: dict[str, type], place: str, usual: type | None) -> Any:
    """Return the dataclass selected by a table's ``name``, or by a text."""
    table = {"name": value} if isinstance(value, str) else value
    if not isinstance(table, dict):
        raise SettingsError(f"'{place}' must be a table or a name, got {value!r}; write for example {place} = 'name'")
    name = table.get("name", called(usual) if usual is not None and usual in tables.values() else None)
    if not isinstance(name, str) or name not in tables:
        raise SettingsError(
            f"'{place}' must be one of {', '.join(tables)}, got {name!r}{nearest(str(name), tables)}; "
            f'write name = "..." in [{place}]'
        )
    return from_dict(tables[name], {key: item for key, item in table.items() if key != "name"}, place)


def _refused(value: Any, hint: Any, place: str) -> SettingsError:
    rule, example = _expected(hint)
    meant = nearest(str(value), map(str, get_args(hint))) if get_origin(hint) is Literal else ""
    return SettingsError(f"'{place}' must be {rule}, got {value!r}{meant or f'; write for example {example}'}")


def _expected(hint: Any) -> tuple[str, str]:
    """Return a description of the values of type `hint`, and how to write them in TOML."""
    origin, parts = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return "a table", "{name = value}"
    if len(_tables(hint)) > 1:
        return f"one of {', '.join(_tables(hint))}", f"{next(iter(_tables(hint)))!r}"
    if origin is Literal:
        return f"one of {', '.join(map(repr, parts))}", repr(parts[0])
    if origin is tuple:
        items = parts[:1] * 2 if parts[-1] is Ellipsis else parts
        n_items = "" if parts[-1] is Ellipsis else f" of {len(parts)}"
        return f"a list{n_items}", f"[{', '.join(_expected(item)[1] for item in items)}]"
    if origin in (Union, UnionType):
        rules, examples = zip(*map(_expected, parts), strict=True)
        return " or ".join(rules), examples[0]
    if hint in _SCALARS:
        return _SCALARS[hint]
    raise TypeError(f"a setting must be a scalar, a Literal, a tuple, a union or a dataclass, got {hint}")
