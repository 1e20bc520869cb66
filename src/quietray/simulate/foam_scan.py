"""A simulated scan as settings, which are the flags of a command: nothing heavy is imported before it is acquired."""

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
    """A scan of a foam in any beam, the truth included.

    Parameters
    ----------
    views
        Radiographs.
    rows
        Detector rows.
    cols
        Detector columns.
    beam
        Parallel, as at a synchrotron; fan, a slice for each row; or cone, as in a laboratory.
    source_axis
        Distance from the source to the rotation axis, in mm, without a pixel size in pixels (default: 4 widths of the
        detector).
    source_detector
        Distance from the source to the detector (default: 1.5 times that to the axis).
    pairs
        Source-detector pairs around the object that take the views in turn, each with a detector of its own.
    degrees
        Range of the views, half open; 0 where nothing turns (default: 180, of a fan or cone beam 360).
    photons
        Expected photons per pixel and view in the open beam.
    absorption
        Mean absorption of the rays that hit the object.
    spheres
        Voids in the foam, in a height of 0.7 detector half-widths or the detector's, whichever is more.
    largest
        Radius of the largest voids, in half-widths of the detector.
    rotation_axis
        Column of the rotation axis (default: the middle).
    pixel_size
        Edge of a pixel in mm (default: unknown: attenuation in 1/pixel).
    flats
        Open-beam frames.
    darks
        Beam-off frames.
    gain
        Counts per photon (default: 10, less where 16 bits would overflow).
    dark_level
        Counts without beam.
    read_noise
        Standard deviation of the readout, in counts.
    read_noise_spread
        Relative spread of the read noise from pixel to pixel.
    response_width
        Decay length of the scintillator's Laplace point response in pixels, one for all pairs or one for each; 0.5
        gives about 390 % correlation.
    response_shape
        Shape of the point response; the width of the Gaussian one is its standard deviation.
    excess
        Excess (Swank) factor of the light per photon.
    flicker
        Relative sd of the beam from frame to frame.
    drift
        Relative change of the beam over 1000 frames.
    row_noise
        Sd in counts of an offset common to a row.
    gain_spread
        Relative spread of the gain from pixel to pixel.
    afterglow
        Share of the previous frame's light that is seen again.
    dead
        Share of dead pixels.
    hot
        Share of hot pixels.
    stuck
        Share of pixels that read one and the same number of counts.
    unstable
        Share of pixels that flicker by themselves.
    zingers
        Share of samples hit by a zinger.
    seed
        Seed of phantom and noise.

    Raises
    ------
    SettingsError
        Something that must be positive is not, or there are not as many widths as pairs.

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
        """The beam: pairs take turns, each from its own direction."""
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
            There is no such beam, foam or detector.
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
        """Write the scan: NXtomo where the name ends in ``.nx`` or ``.nxs``, else DXchange HDF5.

        Parameters
        ----------
        path
            The new scan.
        overwrite
            Replace a file of that name.

        Returns
        -------
        dict
            What was simulated; JSON.

        Raises
        ------
        QuietrayError
            It cannot be simulated, or the file cannot be written.
        """
        from quietray.io import write_scan

        scan = self.acquire()
        return {"scan": str(write_scan(path, scan, overwrite=overwrite)), **scan.provenance}
