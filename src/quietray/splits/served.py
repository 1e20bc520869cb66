"""What a method may ask of what it is to serve: the shape of a scan, the noise of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quietray.detector.noise.calm import FlatNoise
from quietray.detector.noise.lags import Lags

__all__ = ["ImageNoise", "ScanShape"]


@dataclass(frozen=True)
class ScanShape:
    """What a method may ask of the scan that it is to serve.

    Parameters
    ----------
    views, rows, columns
        Of the scan, as far as they are to be used.
    scans
        Measurements of the same object.
    dimensions
        Of the network.
    """

    views: int
    rows: int
    columns: int
    scans: int = 1
    dimensions: int = 2

    @property
    def odd_rows(self) -> int:
        """Most rows that a sample can have around a middle one."""
        return self.rows - (self.rows + 1) % 2


@dataclass(frozen=True, eq=False)
class ImageNoise:
    """What a method may ask of the images that it is to serve: how often they were measured, and their noise.

    Parameters
    ----------
    measurements
        Of the same images.
    found
        The noise as it was measured; None where there was nothing to read it from.
    span
        What is 1 in the scale of the network, in the unit of the images.
    """

    measurements: int
    found: FlatNoise | None
    span: float

    @property
    def variance(self) -> float:
        """Of the noise, in the scale of the network."""
        return 0.0 if self.found is None else float((self.found.sd / self.span) ** 2)

    @property
    def covariance(self) -> Lags:
        """Auto-covariance of the noise, in the scale of the network."""
        assert self.found is not None
        return np.asarray(self.found.lags * (self.found.sd / self.span) ** 2)

    @property
    def described(self) -> str:
        """What was found, in a sentence."""
        if self.found is None:
            return "The images have too few calm parts to tell the correlation of their noise."
        shared = f"shared up to {self.found.reach} pixels away"
        kind = "white" if self.found.reach == 0 else shared
        correlation = f"{self.found.neighbours:+.2f} (in {self.found.source})"
        return f"The noise of neighbouring pixels correlates by {correlation}: it is {kind}."
