"""Settings of a simulated foam scan, also used as command-line flags; heavy imports wait until it is acquired."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from quietray.errors import SettingsError

if TYPE_CHECKING:
    from quietray.geometry import Geometry
    from quietray.scan import Scan
    from quietray.simulate.noise import Scintillator

__all__ = ["FoamScan"]


@dataclass(frozen=True)
class FoamScan:
    """Settings of a simulated foam scan in any beam, with ground truth.

    Parameters
    ----------
    views
        Number of radiographs.
    rows
        Number of detector rows.
    cols
        Number of detector columns.
    beam
        Parallel, as at a synchrotron; fan, with one slice per row; or cone, as in laboratory scanners.
    source_axis
        Distance from the source to the rotation axis in mm, or in pixels if no pixel size is given (default: 4 widths
        of the detector).
    source_detector
        Distance from the source to the detector, in the same unit (default: 1.5 times `source_axis`).
    pairs
        Number of source-detector pairs around the object that take turns over the views, each with its own detector.
    degrees
        Angular range of the views in degrees, without the end point; 0 if nothing rotates (default: 180, for fan and
        cone beams 360).
    photons
        Expected photons per pixel and view in the open beam.
    absorption
        Mean absorption of the rays that hit the object.
    spheres
        Number of voids in the foam, within a height of 0.7 half-widths of the detector or the height of the detector,
        whichever is larger.
    largest
        Radius of the largest voids, in half-widths of the detector.
    rotation_axis
        Column of the rotation axis (default: the middle).
    pixel_size
        Edge of a pixel in mm (default: unknown; attenuation is then in 1/pixel).
    flats
        Number of open-beam frames.
    darks
        Number of beam-off frames.
    gain
        Counts per photon (default: 10, or fewer if 16 bits would overflow).
    dark_level
        Counts without beam.
    read_noise
        Standard deviation of the readout noise in counts.
    read_noise_spread
        Relative standard deviation of the read noise between pixels.
    response_width
        Decay length of the scintillator's Laplace point response in pixels, one for all pairs or one for each; 0.5
        gives about 390 % summed correlation with neighbours.
    response_shape
        Shape of the point response; for a Gaussian, the width is its standard deviation.
    excess
        Excess (Swank) factor of the light per photon.
    flicker
        Relative standard deviation of the beam intensity between frames.
    drift
        Relative change of the beam intensity over 1000 frames.
    row_noise
        Standard deviation in counts of an offset common to a row.
    gain_spread
        Relative standard deviation of the gain between pixels.
    afterglow
        Fraction of the previous frame's light that appears again.
    dead
        Fraction of dead pixels.
    hot
        Fraction of hot pixels.
    stuck
        Fraction of pixels that always read the same number of counts.
    unstable
        Fraction of pixels that flicker on their own.
    zingers
        Fraction of samples hit by a zinger.
    seed
        Random seed of the phantom and the noise.

    Raises
    ------
    SettingsError
        A value that must be positive is not, or the number of response widths does not match the number of pairs.

    Examples
    --------
    >>> scan = FoamScan(views=8, rows=2, cols=16, spheres=3, largest=0.2, flats=2, darks=1).acquire()
    >>> scan.read(slice(0, 1)).shape, scan.truth.shape
    ((8, 1, 16), (2, 16, 16))
    """

    views: int = 256
    rows: int = 32
    cols: int = 128
    beam: Literal["parallel", "fan", "cone"] = "parallel"
    source_axis: float | None = None
    source_detector: float | None = None
    pairs: int = 1
    degrees: float | None = None
    photons: float = 100.0
    absorption: float = 0.5
    spheres: int = 300
    largest: float = 0.08
    rotation_axis: float | None = None
    pixel_size: float | None = None
    flats: int = 400
    darks: int = 20
    gain: float | None = None
    dark_level: float = 100.0
    read_noise: float = 2.0
    read_noise_spread: float = 0.0
    response_width: tuple[float, ...] = (0.0,)
    response_shape: Literal["laplace", "gaussian"] = "laplace"
    excess: float = 1.0
    flicker: float = 0.0
    drift: float = 0.0
    row_noise: float = 0.0
    gain_spread: float = 0.0
    afterglow: float = 0.0
    dead: float = 0.0
    hot: float = 0.0
    stuck: float = 0.0
    unstable: float = 0.0
    zingers: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("views", "rows", "cols", "photons", "pairs"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingsError(f"{name} must be positive, got {getattr(self, name)}")
        if len(self.response_width) not in (1, self.pairs):
            raise SettingsError(
                f"response_width must be one number, or one for each of the {self.pairs} pairs, got "
                f"{len(self.response_width)}"
            )

    @property
    def geometry(self) -> Geometry:
        """The beam; pairs take turns over the views, each from its own direction."""
        import numpy as np

        from quietray.geometry import ConeBeam, FanBeam, ParallelBeam

        whole = (180.0 if self.beam == "parallel" else 360.0) if self.degrees is None else self.degrees
        turn, pair = np.divmod(np.arange(self.views), self.pairs)
        angles = np.deg2rad(whole * turn / -(-self.views // self.pairs) + 360 * pair / self.pairs)
        axis = (self.cols - 1) / 2 if self.rotation_axis is None else self.rotation_axis
        if self.beam == "parallel":
            return ParallelBeam(angles, self.rows, self.cols, axis, self.pixel_size)
        to_axis = 4 * self.cols * (self.pixel_size or 1.0) if self.source_axis is None else self.source_axis
        distances = (to_axis, 1.5 * to_axis if self.source_detector is None else self.source_detector)
        if self.beam == "fan":
            return FanBeam(angles, self.rows, self.cols, *distances, axis, self.pixel_size)
        return ConeBeam.circular(angles, self.rows, self.cols, *distances, self.pixel_size, axis)

    @property
    def detectors(self) -> tuple[Scintillator, ...]:
        """The detector of each pair."""
        from quietray.simulate.noise import Scintillator

        alike: tuple[str, ...] = (
            "read_noise",
            "read_noise_spread",
            "response_shape",
            "excess",
            "flicker",
            "drift",
            "row_noise",
        )
        alike += ("gain_spread", "afterglow", "dead", "hot", "stuck", "unstable", "zingers")
        shared: dict[str, Any] = {name: getattr(self, name) for name in alike}
        shared["gain"] = min(10.0, 40_000 / self.photons) if self.gain is None else self.gain
        shared["dark"] = self.dark_level
        widths = self.response_width * (self.pairs if len(self.response_width) == 1 else 1)
        return tuple(Scintillator(response_width=width, **shared) for width in widths)

    def acquire(self) -> Scan:
        """Return the scan; its frames are drawn when they are read.

        Raises
        ------
        QuietrayError
            The beam, the foam or the detector is impossible.
        """
        import numpy as np

        from quietray.simulate.acquire import acquire
        from quietray.simulate.phantom import Foam

        height = max(0.35, 1.1 * self.rows / self.cols)
        foam = Foam.packed(self.spheres, height, np.random.default_rng(self.seed), largest=self.largest)
        return acquire(
            foam,
            self.geometry,
            photons=self.photons,
            absorption=self.absorption,
            detector=self.detectors,
            n_flats=self.flats,
            n_darks=self.darks,
            seed=self.seed,
        )

    def write(self, path: str | Path, *, overwrite: bool = False) -> dict[str, Any]:
        """Write the scan as NXtomo if the name ends in ``.nx`` or ``.nxs``, else as DXchange HDF5.

        Parameters
        ----------
        path
            The new file.
        overwrite
            Whether to replace an existing file.

        Returns
        -------
        dict
            What was simulated, ready for JSON.

        Raises
        ------
        QuietrayError
            The scan cannot be simulated, or the file cannot be written.
        """
        from quietray.io import write_scan

        scan = self.acquire()
        return {"scan": str(write_scan(path, scan, overwrite=overwrite)), **scan.provenance}
