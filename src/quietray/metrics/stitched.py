"""Stitching of opposite views of a half acquisition into views that see the whole object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import fft

from quietray.geometry import ParallelBeam
from quietray.types import Sinograms

__all__ = ["Stitched", "Whole"]

Wide = Float[np.ndarray, "row pair wide"]


@dataclass(frozen=True, eq=False)
class Whole:
    """Views that already see the whole object: nothing is stitched.

    Parameters
    ----------
    beam
        Beam of all views.
    """

    beam: ParallelBeam

    def measured(self, views: Int[np.ndarray, " some"]) -> Int[np.ndarray, " measured"]:
        """Return the indices of the measured views that make up these views."""
        return views

    def views(self, sinograms: Sinograms) -> Wide:
        """Return the views ``(row, view, col)``."""
        return sinograms

    def variance(self, variance: Sinograms) -> Wide:
        """Return the noise variance of the views, ``(row, view, col)``."""
        return variance


@dataclass(frozen=True, eq=False)
class Stitched(Whole):
    """Half a turn of views as wide as the object, each stitched from two opposite views of a half acquisition.

    Where they overlap, the views are weighted with :attr:`ParallelBeam.redundancy`.  The second is shifted to the
    columns of the first in Fourier space, which preserves the noise level.  If no view is exactly opposite, because a
    full turn has an odd number of views, the nearest one is used, half a step away.

    Parameters
    ----------
    beam
        Beam of the stitched views.
    source
        Beam of the half acquisition.
    pairs
        Indices of the measured views that make up each stitched one, ``(2, view)``.

    Examples
    --------
    >>> beam = ParallelBeam(np.linspace(0, 2 * np.pi, 8, endpoint=False), 1, 16, rotation_axis=3.2, half=True)
    >>> stitched = Stitched.of(beam)
    >>> stitched.beam.n_cols, stitched.pairs.tolist()
    (24, [[0, 1, 2, 3], [4, 5, 6, 7]])
    """

    source: ParallelBeam
    pairs: Int[np.ndarray, "2 view"]

    @classmethod
    def of(cls, beam: ParallelBeam) -> Stitched:
        """Return the pairs of a half acquisition, and the beam of the stitched views."""
        turn = (beam.angles - beam.angles.min()) % (2 * np.pi)
        first = np.flatnonzero(turn < np.pi - 1e-9)
        first = first[np.argsort(turn[first], kind="stable")]
        later = np.setdiff1d(np.arange(beam.n_views), first)
        away = np.abs(turn[later] - turn[first, None] - np.pi - 1e-6)  # at a tie, the later one
        nearest = np.argmin(away, axis=1)
        once = np.unique(nearest, return_index=True)[1]  # no view is used twice, so that the noise stays independent
        first, second = first[once], later[nearest[once]]
        angles = (turn[first] + turn[second] - np.pi) / 2 + beam.angles.min()
        n = beam.across
        axis = (n - 1) / 2
        axis += (beam.axis - axis + 0.5) % 1 - 0.5  # columns coincide with those of the detector
        wide = ParallelBeam(angles, beam.n_rows, n, float(np.clip(axis, 0, n - 1)), beam.pixel_size)
        return cls(wide, beam, np.stack([first, second]))

    def measured(self, views: Int[np.ndarray, " some"]) -> Int[np.ndarray, " measured"]:
        """Return the indices of the measured views that make up these views."""
        return np.unique(self.pairs[:, views])

    def views(self, sinograms: Sinograms) -> Wide:
        """Return the views ``(row, view, col)``."""
        return self._together(sinograms, self.source.redundancy)

    def variance(self, variance: Sinograms) -> Wide:
        """Return the noise variance of the views, ``(row, view, col)``."""
        return np.asarray(np.maximum(self._together(variance, self.source.redundancy**2), 0))

    def _together(self, sinograms: Sinograms, weights: Float[np.ndarray, " col"]) -> Wide:
        weighted = np.asarray(sinograms, np.float32) * weights.astype(np.float32)
        one, other = weighted[:, self.pairs[0]], weighted[:, self.pairs[1], ::-1]
        n = self.source.n_cols
        return np.asarray(self._placed(one, self.source.axis) + self._placed(other, n - 1 - self.source.axis))

    def _placed(self, views: Sinograms, axis: float) -> Wide:
        """Return the views on the wide detector, with the axis in its place."""
        n, wide = views.shape[-1], self.beam.n_cols
        size = int(fft.next_fast_len(wide + 2 * n, real=True))
        moved = self.beam.axis - axis
        whole = round(moved)
        if abs(moved - whole) > 1e-6:
            turned = np.exp(-2j * np.pi * np.fft.rfftfreq(size) * (moved - whole)).astype(np.complex64)
            room = n // 2  # margin for ringing on either side
            spectra = fft.rfft(np.pad(views, ((0, 0), (0, 0), (room, 0))), size, axis=-1)
            views = fft.irfft(spectra * turned, size, axis=-1)[..., : n + 2 * room]
            whole -= room
        out = np.zeros((*views.shape[:2], wide), np.float32)
        first, last = max(0, whole), min(wide, whole + views.shape[-1])
        out[..., first:last] = views[..., first - whole : last - whole]
        return out
