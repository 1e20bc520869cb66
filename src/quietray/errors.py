"""The error tree.  Every message says what must be, what was given, and what to do."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from quietray.wording import told

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
    """An error that the user can mend: the command line prints it without a traceback and exits with 2.

    Its text names flags on the command line, and parameters in Python.
    """

    def __str__(self) -> str:
        return told(super().__str__())


class FormatError(QuietrayError):
    """A file is missing, damaged, or not laid out as one of the readers expects."""


class GeometryError(QuietrayError):
    """Angles, shapes or regions disagree with each other or with the detector."""


class NoiseError(QuietrayError):
    """The counts do not allow what was asked: saturated flats, NaN, a response that cannot be inverted."""


class SettingsError(QuietrayError):
    """A setting is unknown or out of range."""


class ResourceError(QuietrayError):
    """Memory, disk or the output folder does not allow the run."""


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
    """Raise :class:`FormatError` where there is nothing at `path`, with the nearest name that there is.

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
    """Import `module` or raise :class:`MissingExtra` naming the pip extra that brings it.

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
