"""What a run can be told to do: train a network with a split, tune a filter, or decide automatically."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import Any, ClassVar

from quietray.errors import SettingsError
from quietray.registry import Registered, Registry

__all__ = ["METHODS", "Auto", "Method"]

METHODS: Registry[Method] = Registry("method", "quietray.splits", "quietray.filters")


class Method(Registered, ABC):
    """Base class of methods, which declares what the rest of the program needs to know about one.

    No other code depends on the type of a method.  Subclasses are frozen dataclasses: an object is a set of settings.
    """

    registry = METHODS

    domain: ClassVar[str] = "volume"
    """Domain in which it works: ``volume``, ``radiographs``, ``projections``, ``clean``, ``images``, or ``auto``."""

    trained: ClassVar[bool] = True
    """Whether a network is trained; otherwise, a filter is tuned."""

    of_images: ClassVar[bool] = False
    """Whether it works on images that were measured only once."""

    decides: ClassVar[bool] = False
    """Whether it only chooses another method."""

    sees_series: ClassVar[bool] = False
    """Whether it has the settings ``times`` and ``channels`` of a series."""

    needs_start: ClassVar[bool] = False
    """Whether it must start from a trained network."""

    prior: ClassVar[str | None] = None
    """Name of the shipped prior that its network may start from."""

    takes_repeats: ClassVar[bool] = False
    """Whether it needs several measurements of one object."""

    def as_served(self, bound: Any) -> Method:
        """Return the method with what was settled when it was bound to a scan, to be run again like that."""
        return self


@dataclass(frozen=True)
class Auto(Method):
    """Choose automatically: the diagnosis excludes methods, and a comparison on some of the rows picks one of the rest.

    Parameters
    ----------
    share
        Fraction of the budget for the comparison.
    rows
        Largest number of detector rows to compare on; if the budget allows fewer than eight, methods for radiographs
        are not compared, and if it does not allow one, only the diagnosis is used.
    """

    domain: ClassVar[str] = "auto"
    decides: ClassVar[bool] = True

    share: float = 0.2
    rows: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise SettingsError(f"share must be between 0 and 1, got {self.share}")
        if self.rows < 1:
            raise SettingsError(f"rows must be at least 1, got {self.rows}")
