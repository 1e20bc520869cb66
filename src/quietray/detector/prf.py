"""The point response of a detector, from the correlation of its noise.

Light that spreads over neighbouring pixels makes their noise alike: the auto-correlation of the noise is the point
response convolved with itself.  Its square root is the symmetric response that whitens the noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy import fft

from quietray.detector.correlation import Correlation, measure_correlation
from quietray.detector.correlation import tiles_of as _tiles_of
from quietray.detector.lags import GRID, Lags, Region, error_of, spectrum
from quietray.detector.roots import Kernel, check_window, kernel_errors, root_by_covariance, root_by_spectrum
from quietray.detector.static import NoiseSource, StaticFrames, survey_frames
from quietray.errors import NoiseError, SettingsError
from quietray.types import Frame, Frames, PixelMask

__all__ = [
    "FLOOR",
    "PointResponse",
    "estimate_point_response",
    "point_response",
    "unevenness",
]

FLOOR = 0.005  # smallest |F| that may be divided by
_FINE = 256  # points per direction of the inverse
_TAIL = 1e-5  # part of the inverse that is cut off


@dataclass(frozen=True, eq=False)
class PointResponse:
    """How a detector spreads the light of one photon, as far as its noise tells: symmetric, and the same everywhere.

    Parameters
    ----------
    kernel
        ``(i, j)`` odd sizes, sum 1, the photon in the middle.
    errors
        Standard errors of `kernel`; None when not known.
    lags
        ``(dy, dx)`` measured correlation of the noise that it comes from; None when it was given.
    method
        Estimator and square root, such as ``"differences, spectrum"``.
    floor
        Smallest modulus of its Fourier transform that may be divided by.
    regions
        Responses of parts of the detector, ``(region, kernel)``: then each part has its own.
    blend
        Whether neighbouring regions fade into each other (an uneven scintillator), or end sharply (separate modules).
    facts
        What else is known: source of the noise, frames, summed correlation.

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

    def __post_init__(self) -> None:
        for kernel in (self.kernel, *(kernel for _, kernel in self.regions)):
            _check_kernel(kernel)
        if not 0 < self.floor < 1:
            raise SettingsError(f"the floor of the transfer function must lie between 0 and 1, got {self.floor}")

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernel, or those of the regions."""
        return tuple(kernel for _, kernel in self.regions) or (self.kernel,)

    @property
    def least(self) -> float:
        """Smallest modulus of the Fourier transform, over all kernels; 1 for an ideal detector."""
        return min(float(np.abs(_transfer(kernel)).min()) for kernel in self.kernels)

    @property
    def condition(self) -> float:
        """Largest over smallest modulus: how much more the finest details are amplified than the coarsest."""
        return max(float(np.abs(f).max() / max(np.abs(f).min(), 1e-12)) for f in map(_transfer, self.kernels))

    @property
    def white_gain(self) -> float:
        """Factor by which whitening multiplies the variance of white noise, such as readout noise."""
        return max(float((1 / np.maximum(np.abs(_transfer(kernel)), 1e-6) ** 2).mean()) for kernel in self.kernels)

    @property
    def variance_gain(self) -> float:
        """Factor by which whitening multiplies the variance of the noise that was measured."""
        power = np.abs(_transfer(self.kernel, GRID)) ** 2
        measured = power if self.lags is None else np.maximum(spectrum(self.lags), 0)
        return float((measured / np.maximum(power, 1e-12)).mean() / measured.mean())

    def inverse(self, kernel: Kernel | None = None) -> Kernel:
        """Return the kernel that undoes the response, ``F^-1(1 / F(h))``, cut where 1e-5 of it is left; sum 1.

        Raises
        ------
        NoiseError
            The transform falls under the floor: dividing by it would give noise only.
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
        """Return what is stored with whitened data, for JSON: `from_record` gives the response back."""
        regions = [
            {"rows": [r.start, r.stop], "cols": [c.start, c.stop], "kernel": np.round(kernel, 7).tolist()}
            for (r, c), kernel in self.regions
        ]
        return {
            "kernel": np.round(self.kernel, 7).tolist(),
            "method": self.method,
            "floor": self.floor,
            "regions": regions,
            "blend": self.blend,
            **dict(self.facts),
        }

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> PointResponse:
        """Return the response that `record` wrote.

        Raises
        ------
        NoiseError
            There is none in it.

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
        known = ("kernel", "method", "floor", "regions", "blend")
        return PointResponse(
            np.asarray(record["kernel"], dtype=np.float64),
            method=str(record.get("method", "given")),
            floor=float(record.get("floor", FLOOR)),
            regions=regions,
            blend=bool(record.get("blend", True)),
            facts={key: value for key, value in record.items() if key not in known},
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


def point_response(
    correlation: Correlation,
    root: Literal["spectrum", "covariance"] = "spectrum",
    window: int | None = None,
    *,
    uneven: bool | None = None,
    blend: bool = True,
    facts: Mapping[str, Any] | None = None,
) -> PointResponse:
    """Return the point response that the measured correlation implies.

    Parameters
    ----------
    correlation
        Of the noise.
    root
        Square root by spectrum, or by small covariance matrix; they agree within their errors.
    window
        Lags to use, 1 mod 4; by default those that were measured.
    uneven
        Whether to give each measured tile its own response; by default where they differ significantly.
    blend
        Whether the tiles fade into each other.
    facts
        Kept with the response.

    Raises
    ------
    NoiseError
        The detector has too few rows or columns for a kernel.

    Examples
    --------
    >>> lags = np.zeros((9, 9)); lags[4, 4] = 1.0
    >>> white = Correlation("mean", lags, 1e6, 1.0, 9, 8.0, np.zeros((3, 3)), 0.0, 0.0, None)
    >>> float(point_response(white).kernel.max())
    1.0
    """
    if root not in ("spectrum", "covariance"):
        raise SettingsError(f"the square root must be by spectrum or by covariance, got '{root}'")
    lags = _cropped(correlation.lags, window)
    rooted = root_by_spectrum if root == "spectrum" else root_by_covariance
    many = (unevenness(correlation)[1] if uneven is None else uneven) and bool(correlation.tiles)
    regions = [(region, rooted(_cropped(tile / tile.max(), window))) for region, tile, _ in correlation.tiles if many]
    kernel = rooted(lags)
    known = {"summed": correlation.summed, "summed_error": correlation.summed_error, "frames": correlation.n_frames}
    errors = correlation.inflation * kernel_errors(lags, kernel.shape, correlation.samples, correlation.unsure)
    return PointResponse(
        kernel,
        errors,
        lags,
        f"{correlation.method}, {root}",
        regions=tuple(regions),
        blend=blend,
        facts={**known, **dict(facts or {})},
    )


def _cropped(lags: Lags, window: int | None) -> Lags:
    """Return the middle of the lags, `window` wide; by default the largest square that is 1 mod 4."""
    most = min(lags.shape)
    size = (most - 1) // 4 * 4 + 1 if window is None else window
    if window is not None:
        check_window(window)
    if size > most or size < 5:
        raise NoiseError(
            f"the detector must be large enough for lags of {max(size, 5)} x {max(size, 5)} pixels, got lags of "
            f"{lags.shape[0]} x {lags.shape[1]}; a kernel needs at least 12 rows and columns"
        )
    cy, cx, r = lags.shape[0] // 2, lags.shape[1] // 2, size // 2
    return lags[cy - r : cy + r + 1, cx - r : cx + r + 1]


def unevenness(correlation: Correlation) -> tuple[float, bool]:
    """Return by how much the summed correlation differs between tiles (sd beyond the errors), and whether it matters.

    Examples
    --------
    >>> lags = np.zeros((9, 9)); lags[4, 4] = 1.0
    >>> unevenness(Correlation("mean", lags, 1e6, 1.0, 9, 8.0, np.zeros((3, 3)), 0.0, 0.0, None))
    (0.0, False)
    """
    if len(correlation.tiles) < 2 or min(samples for _, _, samples in correlation.tiles) <= 0:
        return 0.0, False
    sums = np.array([tile.sum() / tile.max() for _, tile, _ in correlation.tiles])
    error = np.array([_tile_error(tile, samples) for _, tile, samples in correlation.tiles])
    error *= correlation.inflation
    middle = float(np.average(sums, weights=1 / error**2))
    chi, n = float((((sums - middle) / error) ** 2).sum()), len(sums) - 1
    beyond = math.sqrt(max(float(sums.var(ddof=1)) - float((error**2).mean()), 0.0))
    return beyond, chi > n + 4 * math.sqrt(2 * n) and beyond > 0.05 * abs(middle)


def _tile_error(tile: Lags, samples: float) -> float:
    weights = np.ones(tile.shape)
    weights[tile.shape[0] // 2, tile.shape[1] // 2] -= tile.sum() / tile.max()
    return error_of(weights, tile / tile.max(), samples)


def estimate_point_response(
    frames: Frames,
    dark: Frame | None = None,
    *,
    method: Literal["differences", "mean"] = "differences",
    root: Literal["spectrum", "covariance"] = "spectrum",
    window: int | None = None,
    use: PixelMask | None = None,
    tiles: tuple[Region, ...] | Literal["auto", "none"] = "none",
    blend: bool = True,
) -> PointResponse:
    """Estimate the point response of a detector from repeated frames of one static scene.

    Parameters
    ----------
    frames
        ``(frame, row, col)`` counts; may be lazy: they are read in blocks, twice.
    dark
        ``(row, col)`` mean dark, subtracted first; matters for the flicker only.
    method, root, window
        Estimator, square root, and lags to use.
    use
        ``(row, col)`` pixels to use; bad ones are found and left out in any case.
    tiles
        Regions of the detector that get a response of their own: ``"auto"`` cuts it into up to 4 x 4 and keeps them
        only where they differ; modules of a detector can be named as ``((rows, cols), ...)``.
    blend
        Whether tiles fade into each other; False for modules.

    Raises
    ------
    NoiseError
        There are fewer than two frames, they do not vary, or the detector is too small.

    Examples
    --------
    >>> from quietray.simulate.noise import Scintillator
    >>> rng = np.random.default_rng(0)
    >>> frames = Scintillator(response_width=0.5).sample(np.full((40, 96, 96), 400.0), rng)
    >>> kernel = estimate_point_response(frames).kernel
    >>> bool(abs(kernel[6, 6] - 0.3996) < 0.02)
    True
    """
    static: StaticFrames = survey_frames(NoiseSource("static frames", frames, dark, use))
    named = _tiles_of(static.good.shape) if tiles == "auto" else () if tiles == "none" else tuple(tiles)
    correlation = measure_correlation(static, method, tiles=named)
    facts = {"source": "static frames", "bad_pixels": int(np.count_nonzero(~static.good)), "zingers": static.zingers}
    uneven = None if tiles == "auto" else bool(named)
    return point_response(correlation, root, window, uneven=uneven, blend=blend, facts=facts)
