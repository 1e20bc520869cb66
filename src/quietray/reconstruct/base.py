"""The interface of reconstruction algorithms."""

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
    """Settings of an algorithm, with ``__call__(A, y)``; subclasses are frozen dataclasses."""

    registry = ALGORITHMS

    iterates: ClassVar[bool] = True
    """Whether the algorithm needs a projector and the whole volume, unlike filtered backprojection."""

    needs_adjoint: ClassVar[bool] = False
    """Whether it converges only with the exact adjoint of the projector; if not, an approximate one serves on a GPU."""

    chosen_by_views: ClassVar[str] = ""
    """The setting that is chosen on held-out views if it is None; empty if there is no such setting."""

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
        """Whether the result depends linearly on the data, as Noise2Inverse requires."""

    @property
    def open(self) -> bool:
        """Whether a setting is still to be chosen on held-out views."""
        return bool(self.chosen_by_views) and getattr(self, self.chosen_by_views) is None

    def for_beam(self, geometry: Geometry) -> Algorithm:
        """Return the algorithm for this beam.

        Raises
        ------
        GeometryError
            The algorithm does not support this beam, or the views cover too small an angle.
        """
        return self

    def chosen(self, A: Any, y: Sinograms, missed: Callable[[Any], float]) -> Algorithm:
        """Return the algorithm with its open setting chosen so that held-out views are predicted best.

        Parameters
        ----------
        A
            Projector of the views that are not held out.
        y
            Line integrals of these views, ``(row, view, col)``.
        missed
            Returns the mean squared error with which a volume predicts the held-out views.
        """
        return self

    @abstractmethod
    def __call__(self, A: Any, y: Any) -> Any:
        """Reconstruct a volume from line integrals `y` in the range of the projector `A`."""
