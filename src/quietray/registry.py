"""What can be had by its name: methods, networks, filters, algorithms, readers, writers.

A class registers itself when it is defined: it derives from a base that has a :class:`Registry`.  Packages of other
people name theirs as Python entry points, which are imported when a name is first looked for; a name in a file never
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
    """Return the name of a class in files and on the command line: its own ``called``, or its name in lower case.

    Examples
    --------
    >>> called(int)
    'int'
    """
    return str(kind.__dict__.get("called", kind.__name__.lower()))


class Registry(Mapping[str, type[T]], Generic[T]):
    """Classes by their names, in the order in which they were defined.

    Parameters
    ----------
    what
        What one of them is, for messages.
    groups
        Entry points through which other packages name theirs.

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
        """Register a class under its name, unless another has it; one that is defined anew takes its own place."""
        known = self._kinds.get(called(kind))
        if known is None or (known.__module__, known.__qualname__) == (kind.__module__, kind.__qualname__):
            self._kinds[called(kind)] = kind

    def require(self, found: Any, base: type[Any]) -> None:
        """Raise unless an object is of this kind and would be found again by the name of its class.

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
        """Return an object as it is; for a name, one of that class, as it is by default.

        Raises
        ------
        SettingsError
            There is no such name, or the class needs settings.
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
        """Return those that derive from one base, as they are at any time.

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
        """Return what has this name, or `default`."""
        return self[name] if name in self else default

    def __contains__(self, name: object) -> bool:
        return name in tuple(self)

    def __iter__(self) -> Iterator[str]:
        self._load()
        return (name for name, kind in self._kinds.items() if not _hidden(kind))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _load(self) -> None:
        """Import what other packages offer, once; one that cannot be imported is told of and left out."""
        while self._groups:
            for entry in entry_points(group=self._groups.pop()):
                try:
                    entry.load()
                except Exception as error:  # whatever a stranger's module raises
                    warnings.warn(f"the {self.what} {entry.name} of {entry.value} was left out: {error}", stacklevel=2)


class _Under(Mapping[str, Any]):
    """The part of a registry that derives from one base."""

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
    """A base whose concrete subclasses can be had by their names, through its :attr:`registry`."""

    registry: ClassVar[Registry[Any]]

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "registry" not in cls.__dict__:
            cls.registry.add(cls)


def _hidden(kind: type) -> bool:
    """Return whether a class is only a base of others."""
    return inspect.isabstract(kind) or kind.__name__.startswith("_")
