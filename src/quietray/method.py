"""What a run may be told to do: a split that trains a network, a filter that is tuned, or to decide by itself."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import Any, ClassVar

from quietray.errors import SettingsError
from quietray.registry import Registered, Registry

__all__ = ["METHODS", "Auto", "Method"]

METHODS: Registry[Method] = Registry("method", "quietray.splits", "quietray.filters")


class Method(Registered, ABC):
    """A method, which declares what the rest of the program needs to ask of it.

    Nothing else asks which method it is.  A subclass is a frozen dataclass: the object is its settings.
    """

    registry = METHODS

    domain: ClassVar[str] = "volume"
    """Where it works: ``volume``, ``radiographs``, ``projections``, ``clean``, ``images``, or ``auto``."""

    trained: ClassVar[bool] = True
    """Whether a network learns; what has nothing to learn is tuned."""

    of_images: ClassVar[bool] = False
    """Whether it can work on images of which there is one measurement only."""

    decides: ClassVar[bool] = False
    """Whether it only decides upon another method."""

    sees_series: ClassVar[bool] = False
    """Whether it has ``times`` and ``channels`` of a series."""

    needs_start: ClassVar[bool] = False
    """Whether a trained network must be there to start from."""

    prior: ClassVar[str | None] = None
    """Name of the shipped prior that its network may start from."""

    takes_repeats: ClassVar[bool] = False
    """Whether it needs several measurements of one object."""

    def as_served(self, bound: Any) -> Method:
        """Return the method with what was settled when it was bound to a scan, to be run again like that."""
        return self


@dataclass(frozen=True)
class Auto(Method):
    """Let the scan decide: the diagnosis rules methods out, a comparison on a part of the rows picks one of the rest.

    Parameters
    ----------
    share
        Part of the budget that the comparison may take.
    rows
        Detector rows to compare on, at most; where the budget does not allow eight, the diagnosis alone decides.
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
