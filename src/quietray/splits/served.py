"""What a method can ask about its data: the shape of a scan, the noise of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quietray.detector.noise.calm import FlatNoise
from quietray.detector.noise.lags import Lags

__all__ = ["WINDOW", "ImageNoise", "ScanShape"]

WINDOW = 5  # neighbouring slices of a volume that a network sees, unless told otherwise


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
    slices
        Largest number of neighbouring slices, odd, if the images are slices of one volume; 1 if they are not.
    """

    measurements: int
    found: FlatNoise | None
    span: float
    slices: int = 1

    def window(self, asked: int | None, alone: bool) -> tuple[int | None, str]:
        """Return how many neighbouring slices a network may see, and why; what was asked if the images are no slices.

        Parameters
        ----------
        asked
            The number to see; None for the default.
        alone
            Whether a slice is predicted from its neighbours in the same measurement, whose noise must be independent.

        Examples
        --------
        >>> ImageNoise(1, None, 1.0).window(None, alone=True)
        (None, '')
        >>> ImageNoise(2, None, 1.0, slices=3).window(None, alone=False)
        (3, 'The network sees 3 neighbouring slices.')
        """
        if self.slices == 1:
            return asked and 1, ""
        wanted = min(WINDOW if asked is None else asked, self.slices)
        if wanted == 1:
            return 1, ""
        seen = f"The network sees {wanted} neighbouring slices"
        if not alone:
            return wanted, f"{seen}."
        if self.found is None:
            return 1, "The network sees one slice at a time, as it is not known whether neighbouring ones share noise."
        between = f"the noise of neighbouring slices correlates by {self.found.between:+.2f}"
        if self.found.apart:
            return wanted, f"{seen}: {between}, so it is independent."
        return 1, (
            f"The network sees one slice at a time: {between}, which comes from rings, phase retrieval, interpolation "
            "or binning, and neighbours would show it the noise. Two reconstructions of half of the views each "
            "(--repeats) avoid this."
        )

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
