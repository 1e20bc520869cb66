"""What a method can ask about its data: the shape of a scan, the noise of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quietray.detector.noise.calm import FlatNoise
from quietray.detector.noise.lags import Lags

__all__ = ["ImageNoise", "ScanShape"]


@dataclass(frozen=True)
class ScanShape:
    """The shape of a scan, for the method that is to denoise it.

    Parameters
    ----------
    views, rows, columns
        Numbers of views, detector rows and columns that are used.
    scans
        Number of measurements of the same object.
    dimensions
        Dimensions of the network, 2 or 3.
    """

    views: int
    rows: int
    columns: int
    scans: int = 1
    dimensions: int = 2

    @property
    def odd_rows(self) -> int:
        """Largest odd number of rows in the scan, which limits the rows of a sample."""
        return self.rows - (self.rows + 1) % 2


@dataclass(frozen=True, eq=False)
class ImageNoise:
    """Repeats and noise of a set of images, for the method that is to denoise them.

    Parameters
    ----------
    measurements
        Number of measurements of the same images.
    found
        Measured noise; None if it could not be measured.
    span
        Size of one unit of the network's scale, in the unit of the images.
    """

    measurements: int
    found: FlatNoise | None
    span: float

    @property
    def variance(self) -> float:
        """Variance of the noise, in the network's scale."""
        return 0.0 if self.found is None else float((self.found.sd / self.span) ** 2)

    @property
    def covariance(self) -> Lags:
        """Auto-covariance of the noise, in the network's scale."""
        assert self.found is not None
        return np.asarray(self.found.lags * (self.found.sd / self.span) ** 2)

    @property
    def described(self) -> str:
        """A sentence that describes the noise."""
        if self.found is None:
            return "The images have too few uniform regions to measure the correlation of their noise."
        shared = f"correlated up to {self.found.reach} pixels away"
        kind = "white" if self.found.reach == 0 else shared
        correlation = f"{self.found.neighbours:+.2f} (in {self.found.source})"
        return f"The noise of neighbouring pixels correlates by {correlation}: it is {kind}."
