"""The point response of a detector, its inverse, and how it is stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import fft

from quietray.brief import brief
from quietray.detector.noise.lags import GRID, Lags, Region, spectrum
from quietray.detector.response.roots import Kernel
from quietray.errors import NoiseError, SettingsError

__all__ = ["FLOOR", "PointResponse"]

FLOOR = 0.005  # smallest |F| that may be divided by
_FINE = 256  # points per direction for the inverse
_TAIL = 1e-5  # fraction of the inverse that is cut off


@dataclass(frozen=True, eq=False)
class PointResponse:
    """How a detector spreads the light of a photon, as far as its noise shows: symmetric and uniform.

    Parameters
    ----------
    kernel
        Kernel ``(i, j)`` of odd sizes and sum 1, with the photon in the centre.
    errors
        Standard errors of `kernel`; None if unknown.
    lags
        Noise correlation ``(dy, dx)`` from which it was estimated; None if the response was given.
    method
        Estimator and square root, such as ``"differences, spectrum"``.
    floor
        Smallest modulus of the Fourier transform that may be divided by.
    regions
        Responses of regions of the detector, ``(region, kernel)``, if they differ.
    blend
        Whether neighbouring regions blend into each other (an uneven scintillator), or have sharp borders (modules).
    facts
        Additional information: source of the noise, frames, summed correlation.
    detectors
        Responses by detector number, if a scan was taken by several detectors; `kernel` is then that of the first.

    Examples
    --------
    >>> response = PointResponse(np.array([[0.0, 0.1, 0.0], [0.1, 0.6, 0.1], [0.0, 0.1, 0.0]]))
    >>> round(response.least, 3), round(response.condition, 3)
    (0.2, 5.0)
    """

    kernel: Kernel
    errors: Kernel | None = None
    lags: Lags | None = None
    method: str = "given"
    floor: float = FLOOR
    regions: tuple[tuple[Region, Kernel], ...] = ()
    blend: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)
    detectors: Mapping[int, PointResponse] = field(default_factory=dict)

    __repr__ = brief

    def __post_init__(self) -> None:
        for kernel in (self.kernel, *(kernel for _, kernel in self.regions)):
            _check_kernel(kernel)
        if not 0 < self.floor < 1:
            raise SettingsError(f"the floor of the transfer function must lie between 0 and 1, got {self.floor}")

    @staticmethod
    def together(detectors: Mapping[int, PointResponse]) -> PointResponse:
        """Return the responses of the detectors of one scan as a single object.

        Examples
        --------
        >>> ideal, wide = PointResponse(np.ones((1, 1))), PointResponse(np.array([[0.1, 0.8, 0.1]]))
        >>> both = PointResponse.together({0: ideal, 1: wide})
        >>> both.of(1) is wide, len(both.kernels)
        (True, 2)
        """
        return dataclasses.replace(next(iter(detectors.values())), detectors=dict(detectors))

    def of(self, detector: int) -> PointResponse:
        """Return the response of one detector; a single response holds for all detectors.

        Raises
        ------
        NoiseError
            There are only responses of other detectors.
        """
        if self.detectors and detector not in self.detectors:
            raise NoiseError(
                f"every detector of the scan must have a point response, got none for detector {detector} "
                f"(there are {', '.join(map(str, self.detectors))}); measure it with this scan's own flats"
            )
        return self.detectors.get(detector, self)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernel, or those of all regions; for all detectors."""
        if self.detectors:
            return tuple(kernel for response in self.detectors.values() for kernel in response.kernels)
        return tuple(kernel for _, kernel in self.regions) or (self.kernel,)

    @property
    def least(self) -> float:
        """Smallest modulus of the Fourier transform over all kernels; 1 for an ideal detector."""
        return min(float(np.abs(_transfer(kernel)).min()) for kernel in self.kernels)

    @property
    def condition(self) -> float:
        """Largest over smallest modulus: how much more whitening amplifies the finest details than the coarsest."""
        return max(float(np.abs(f).max() / max(np.abs(f).min(), 1e-12)) for f in map(_transfer, self.kernels))

    @property
    def white_gain(self) -> float:
        """Factor by which whitening multiplies the variance of white noise, such as readout noise."""
        return max(float((1 / np.maximum(np.abs(_transfer(kernel)), 1e-6) ** 2).mean()) for kernel in self.kernels)

    @property
    def variance_gain(self) -> float:
        """Factor by which whitening multiplies the variance of the noise that was measured."""
        if self.detectors:
            return max(response.variance_gain for response in self.detectors.values())
        power = np.abs(_transfer(self.kernel, GRID)) ** 2
        measured = power if self.lags is None else np.maximum(spectrum(self.lags), 0)
        return float((measured / np.maximum(power, 1e-12)).mean() / measured.mean())

    def inverse(self, kernel: Kernel | None = None) -> Kernel:
        """Return the kernel of the inverse, ``F^-1(1 / F(h))``, truncated where 1e-5 of it is left; sum 1.

        Raises
        ------
        NoiseError
            The transform falls below the floor; dividing by it would only amplify noise.
        """
        h = self.kernel if kernel is None else kernel
        transfer = _transfer(h)
        least = float(np.abs(transfer).min())
        if least < self.floor:
            raise NoiseError(
                f"the transform of the point response must stay above {self.floor:g} to be divided by, got "
                f"{least:.2g}; use structured blind spots instead of decorrelation, or measure it with more frames"
            )
        whole = fft.fftshift(fft.ifft2(1 / transfer).real)
        c = _FINE // 2
        y, x = np.abs(np.arange(_FINE) - c)[:, None], np.abs(np.arange(_FINE) - c)[None]
        ring = np.broadcast_to(np.maximum(y, x), whole.shape)
        left = np.abs(whole).sum() - np.cumsum(np.bincount(ring.ravel(), np.abs(whole).ravel()))
        radius = int(np.clip(np.argmax(left < _TAIL * np.abs(whole).sum()), 1, c - 1))
        cut = whole[c - radius : c + radius + 1, c - radius : c + radius + 1]
        return np.asarray(cut / cut.sum())

    def record(self) -> dict[str, Any]:
        """Return a JSON record to store with whitened data; `from_record` restores the response."""
        regions = [
            {"rows": [r.start, r.stop], "cols": [c.start, c.stop], "kernel": np.round(kernel, 7).tolist()}
            for (r, c), kernel in self.regions
        ]
        several = {"detectors": {str(number): one.record() for number, one in self.detectors.items()}}
        return {
            "kernel": np.round(self.kernel, 7).tolist(),
            "method": self.method,
            "floor": self.floor,
            "regions": regions,
            "blend": self.blend,
            **dict(self.facts),
            **(several if self.detectors else {}),
        }

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> PointResponse:
        """Return the response from a record.

        Raises
        ------
        NoiseError
            The record holds no response.

        Examples
        --------
        >>> response = PointResponse(np.ones((1, 1)))
        >>> PointResponse.from_record(response.record()).kernel.tolist()
        [[1.0]]
        """
        if "kernel" not in record:
            raise NoiseError(f"the record of a point response must hold its kernel, got {sorted(record)}")
        regions = tuple(
            ((slice(*part["rows"]), slice(*part["cols"])), np.asarray(part["kernel"], dtype=np.float64))
            for part in record.get("regions", [])
        )
        several = record.get("detectors", {}).items()
        known = ("kernel", "method", "floor", "regions", "blend", "detectors")
        return PointResponse(
            np.asarray(record["kernel"], dtype=np.float64),
            method=str(record.get("method", "given")),
            floor=float(record.get("floor", FLOOR)),
            regions=regions,
            blend=bool(record.get("blend", True)),
            facts={key: value for key, value in record.items() if key not in known},
            detectors={int(number): PointResponse.from_record(one) for number, one in several},
        )


def _check_kernel(kernel: Kernel) -> None:
    if kernel.ndim != 2 or kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
        raise NoiseError(
            f"the kernel of a point response must have odd sizes, got {kernel.shape}; "
            "an even kernel shifts the image and has zeros in its spectrum: add or drop a row and a column"
        )
    if not np.isfinite(kernel).all() or abs(float(kernel.sum()) - 1) > 1e-3:
        raise NoiseError(f"the kernel of a point response must be finite with sum 1, got sum {kernel.sum():.4g}")
    if not np.allclose(kernel, kernel[::-1, ::-1], atol=1e-6):
        raise NoiseError(
            "the kernel of a point response must be symmetric, got one that is not; average it with itself"
        )


def _transfer(kernel: Kernel, size: int = _FINE) -> Float[np.ndarray, "ky kx"]:
    """Return the real Fourier transform of a symmetric odd kernel."""
    return spectrum(kernel, size)
