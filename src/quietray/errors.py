"""Exceptions.  Every message says what is required, what was given, and what to do."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = [
    "FormatError",
    "GeometryError",
    "MissingExtra",
    "NoiseError",
    "QuietrayError",
    "ResourceError",
    "SettingsError",
    "nearest",
    "require",
    "require_path",
]


class QuietrayError(Exception):
    """An error that the user can fix: the command line prints it without a traceback and exits with status 2."""

    facts: Mapping[str, Any] | None = None
    """Facts found before the error was raised, if they are useful."""


class FormatError(QuietrayError):
    """A file is missing, damaged, or not in the layout that a reader expects."""


class GeometryError(QuietrayError):
    """Angles, shapes or regions do not match each other or the detector."""


class NoiseError(QuietrayError):
    """The counts do not permit the operation: saturated flats, NaN, a response that cannot be inverted."""


class SettingsError(QuietrayError):
    """A setting is unknown or out of range."""


class ResourceError(QuietrayError):
    """Memory, disk or the output folder does not permit the run."""


class MissingExtra(QuietrayError):
    """An optional dependency is not installed."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the known word nearest to `word`, or an empty string.

    Examples
    --------
    >>> nearest("buget", ["budget", "seed"])
    " (did you mean 'budget'?)"
    """
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{found[0]}'?)" if found else ""


def require_path(what: str, path: Path) -> None:
    """Raise :class:`FormatError` if nothing exists at `path`, with the nearest existing name.

    Raises
    ------
    FormatError
        There is no such file or folder.

    Examples
    --------
    >>> require_path("scan", Path("nowhere.h5"))
    Traceback (most recent call last):
    quietray.errors.FormatError: the scan must exist, got nowhere.h5; check the path
    """
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FormatError(f"the {what} must exist, got {path}{nearest(path.name, siblings)}; check the path")


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise :class:`MissingExtra` with the name of the pip extra that installs it.

    Raises
    ------
    MissingExtra
        The module is not installed.

    Examples
    --------
    >>> require("math", "never").pi > 3
    True
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{module} must be installed for this, got {error}; run: pip install 'quietray[{extra}]'"
        ) from error
