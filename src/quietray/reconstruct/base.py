"""What the rest of quietray knows of an algorithm that reconstructs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from quietray.geometry import Geometry
from quietray.registry import Registered, Registry
from quietray.types import Sinograms

__all__ = ["ALGORITHMS", "Algorithm"]

ALGORITHMS: Registry[Algorithm] = Registry("algorithm", "quietray.algorithms")


class Algorithm(Registered, ABC):
    """Settings of an algorithm, with ``__call__(A, y)``; a subclass is a frozen dataclass."""

    registry = ALGORITHMS

    iterates: ClassVar[bool] = True
    """Whether it needs a projector and the whole volume; what filters and projects back needs neither."""

    chosen_by_views: ClassVar[str] = ""
    """Setting that held-out views choose where it is None; none where it is empty."""

    held: ClassVar[tuple[int, int]] = (15, 7)
    """Volumes and stacks of views that it holds at its peak, where it iterates on a whole volume.

    Measured as the peak of a process of its own beyond its libraries, fitted to three iterations on 48^3 and 96^3
    voxels of 12 views and 96^3 of 96 (glibc gives freed arrays back at once, as it does those of real size): 5.0 and
    4.9 for SIRT, 5.7 and 4.1 for CGLS, 13.8 and 5.0 for TV.  Choosing on held-out views holds one more volume and two
    more stacks.
    """

    @property
    @abstractmethod
    def linear(self) -> bool:
        """Whether the result depends linearly on the data, as Noise2Inverse needs."""

    @property
    def open(self) -> bool:
        """Whether something is still to be chosen on held-out views."""
        return bool(self.chosen_by_views) and getattr(self, self.chosen_by_views) is None

    def for_beam(self, geometry: Geometry) -> Algorithm:
        """Return the algorithm for this beam.

        Raises
        ------
        GeometryError
            It is not for this beam, or the views do not turn far enough for it.
        """
        return self

    def chosen(self, A: Any, y: Sinograms, missed: Callable[[Any], float]) -> Algorithm:
        """Return the algorithm with what is open chosen so that held-out views are missed least.

        Parameters
        ----------
        A
            Projector of the other views.
        y
            Line integrals of these, ``(row, view, col)``.
        missed
            Mean squared error of the prediction of the held-out views, of a volume.
        """
        return self

    @abstractmethod
    def __call__(self, A: Any, y: Any) -> Any:
        """Reconstruct the line integrals `y`, in the range of the projector `A`."""
