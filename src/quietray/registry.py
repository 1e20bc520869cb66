"""Look-up by name of methods, networks, filters, algorithms, readers and writers.

A class registers itself when it is defined, if it derives from a base that has a :class:`Registry`.  Other packages
declare their classes as Python entry points, which are imported when a name is first looked up.  A name in a file never
imports anything.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, ClassVar, Generic, TypeVar

from quietray.errors import SettingsError, nearest

__all__ = ["Registered", "Registry", "called"]

T = TypeVar("T", covariant=True)


def called(kind: type) -> str:
    """Return the name of a class in files and on the command line: its ``called``, or its name in lower case.

    Examples
    --------
    >>> called(int)
    'int'
    """
    return str(kind.__dict__.get("called", kind.__name__.lower()))


class Registry(Mapping[str, type[T]], Generic[T]):
    """Classes by name, in the order in which they were defined.

    Parameters
    ----------
    what
        What a member is, for messages.
    groups
        Groups of entry points through which other packages add theirs.

    Examples
    --------
    >>> class Shape(Registered):
    ...     registry = Registry("shape")
    >>> class Disc(Shape): ...
    >>> Shape.registry["disc"] is Disc, Shape.registry.made("disc").__class__ is Disc
    (True, True)
    >>> Shape.registry["dics"]
    Traceback (most recent call last):
    quietray.errors.SettingsError: the shape must be one of disc, got 'dics' (did you mean 'disc'?)
    """

    def __init__(self, what: str, *groups: str) -> None:
        self.what = what
        self._groups = list(groups)
        self._kinds: dict[str, type[T]] = {}

    def add(self, kind: type[Any]) -> None:
        """Register a class under its name, unless another class has it; a redefined class replaces the old one."""
        known = self._kinds.get(called(kind))
        if known is None or (known.__module__, known.__qualname__) == (kind.__module__, kind.__qualname__):
            self._kinds[called(kind)] = kind

    def require(self, found: Any, base: type[Any]) -> None:
        """Raise unless an object is of this kind, and the name of its class leads back to this class.

        Raises
        ------
        SettingsError
            It is of another kind, or another class has that name.
        """
        kind = type(found)
        if not isinstance(found, base):
            raise SettingsError(
                f"the {self.what} must be one of {', '.join(self)}, or a {base.__name__}, got {found!r}"
                f"{nearest(called(kind), self)}"
            )
        known = self[called(kind)]
        if known is not kind:
            raise SettingsError(
                f"the {self.what} {kind.__module__}.{kind.__qualname__} must have a name of its own, got "
                f"'{called(kind)}', which is that of {known.__module__}.{known.__qualname__}; give it another one, "
                f"such as called = 'my-{called(kind)}'"
            )

    def made(self, value: Any) -> Any:
        """Return an object unchanged; for a name, an instance of that class with default settings.

        Raises
        ------
        SettingsError
            The name is unknown, or the class has required settings.
        """
        if not isinstance(value, str):
            return value
        kind = self[value]
        try:
            return kind()
        except TypeError as error:
            raise SettingsError(
                f"the {self.what} '{value}' must be given its settings, got only its name ({error}); "
                f"give an object: {kind.__name__}(...)"
            ) from None

    def under(self, base: type[Any]) -> Mapping[str, Any]:
        """Return the live view of all members that derive from one base.

        Examples
        --------
        >>> class Shape(Registered):
        ...     registry = Registry("shape")
        >>> class Round(Shape): ...
        >>> class Disc(Round): ...
        >>> class Square(Shape): ...
        >>> list(Shape.registry.under(Round))
        ['round', 'disc']
        """
        return _Under(self, base)

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._kinds:
            self._load()
        found = self._kinds.get(name)
        if found is None or _hidden(found):
            raise SettingsError(
                f"the {self.what} must be one of {', '.join(self)}, got {name!r}{nearest(str(name), self)}"
            )
        return found

    def get(self, name: str, default: Any = None) -> Any:
        """Return the class of this name, or `default`."""
        return self[name] if name in self else default

    def __contains__(self, name: object) -> bool:
        return name in tuple(self)

    def __iter__(self) -> Iterator[str]:
        self._load()
        return (name for name, kind in self._kinds.items() if not _hidden(kind))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _load(self) -> None:
        """Import entry points of other packages, once; those that fail are reported and left out."""
        while self._groups:
            for entry in entry_points(group=self._groups.pop()):
                try:
                    entry.load()
                except Exception as error:  # modules of other packages can raise anything
                    warnings.warn(f"the {self.what} {entry.name} of {entry.value} was left out: {error}", stacklevel=2)


class _Under(Mapping[str, Any]):
    """The members of a registry that derive from one base."""

    def __init__(self, whole: Registry[Any], base: type[Any]) -> None:
        self._whole, self._base = whole, base

    def __getitem__(self, name: str) -> Any:
        found = self._whole[name]
        if not issubclass(found, self._base):
            raise SettingsError(
                f"the {self._whole.what} must be one of {', '.join(self)}, got {name!r}{nearest(str(name), self)}"
            )
        return found

    def __contains__(self, name: object) -> bool:
        return name in tuple(self)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._whole if issubclass(self._whole[name], self._base))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Registered:
    """A base class whose concrete subclasses can be found by name in its :attr:`registry`."""

    registry: ClassVar[Registry[Any]]

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "registry" not in cls.__dict__:
            cls.registry.add(cls)


def _hidden(kind: type) -> bool:
    """Return whether a class only serves as a base of others."""
    return inspect.isabstract(kind) or kind.__name__.startswith("_")
