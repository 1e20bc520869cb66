"""Errors of volumes from any method, estimated from views of the scan that were held out.

Every method gets the same views and returns a volume; the remaining views are held out.  Nothing needs to be known
about the method nor, if there are many views, about the noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from quietray.errors import GeometryError, NoiseError, SettingsError
from quietray.geometry import ParallelBeam
from quietray.metrics.companion import Companion, Neighbours, object_radius, ramp
from quietray.metrics.gaps import Everywhere, Plain, beyond_views, kept, noise_like
from quietray.metrics.image import disc
from quietray.metrics.slices import FourierSlices
from quietray.metrics.standings import Standings
from quietray.operators.astra import n_threads
from quietray.types import Frame, Frames, Sinograms

__all__ = ["HeldOut", "adjacent_views_suffice", "held_out_views"]

_BANDS = 16  # bands of spatial frequency, up to 0.5 cycles per pixel
_ROWS = 16  # of a block, so that correlated errors stay together
_VIEWS = 4  # also of a block
_AIR = 0.05  # largest line integral of air, as a fraction of the largest of the mean over all views
_LEAST = 0.3  # smallest correlation between the errors of adjacent views that is divided by


def held_out_views(
    geometry: ParallelBeam, share: float = 0.25
) -> tuple[Int[np.ndarray, " view"], Int[np.ndarray, " held"]]:
    """Choose single held-out views at even distances.

    With a share of ``1 / (K + 1)``, the remaining views form K evenly spaced subsets ``j::K``.  Taken together, they
    have gaps, so filtered backprojection should weight each view by the angle it represents.

    Parameters
    ----------
    geometry
        Beam of the whole scan; its angles may be in any order.
    share
        Fraction of the views that is held out, at most a quarter.

    Returns
    -------
    tuple of ndarray
        Indices of the views to use and of the held-out views, both in the order of the scan.

    Raises
    ------
    SettingsError
        The share is out of range, or leaves no views for validation.

    Examples
    --------
    >>> beam = ParallelBeam(np.linspace(0, np.pi, 12, endpoint=False), n_rows=1, n_cols=8)
    >>> training, held = held_out_views(beam)
    >>> held.tolist(), training.tolist()
    ([1, 5, 9], [0, 2, 3, 4, 6, 7, 8, 10, 11])
    """
    n = geometry.n_views
    count = int(n * share + 1e-9)
    if not (0 < share <= 0.25 and count > 0):
        raise SettingsError(
            f"the held-out share must be at most 0.25 and hold a view, got {share:g} of {n} views; give another share"
        )
    held = np.sort(_by_angle(geometry)[(np.arange(count) * n / count).astype(int) + 1])
    return np.setdiff1d(np.arange(n), held), held


def _by_angle(geometry: ParallelBeam) -> Int[np.ndarray, " view"]:
    return np.argsort((geometry.angles - geometry.angles.min()) % (2 * np.pi), kind="stable")


def adjacent_views_suffice(sinograms: Sinograms, geometry: ParallelBeam) -> bool:
    """Return whether the noise can be measured from adjacent views: at least one view per column in half a turn.

    The columns are those of the object.  With fewer views, :class:`HeldOut` needs the variance of the noise.

    Parameters
    ----------
    sinograms
        Line integrals ``(row, view, col)`` of any rows and views, from which the width of the object is taken.
    geometry
        Beam of the whole scan.

    Examples
    --------
    >>> chord = np.sqrt(np.clip(48.0**2 - (np.arange(128) - 63.5) ** 2, 0, None))[None, None]
    >>> beams = [ParallelBeam(np.linspace(0, np.pi, n, endpoint=False), n_rows=1, n_cols=128) for n in (80, 100)]
    >>> [adjacent_views_suffice(chord, beam) for beam in beams]
    [False, True]
    """
    steps = np.diff(geometry.angles[_by_angle(geometry)])
    step = float(np.median(np.abs(steps))) if steps.size else np.pi
    return _suffice(object_radius(sinograms.mean(axis=(0, 1), dtype=np.float64), geometry), step)


def _suffice(radius: float, step: float) -> bool:
    return 2 * radius * step < 1.001 * np.pi


@dataclass(frozen=True, eq=False)
class HeldOut:
    r"""Held-out views, and the error of volumes with respect to them.

    Projected onto a held-out view i and filtered by ``W``, the square root of the ramp, a volume with the error ``e``
    gives the residual :math:`r_i = W A_i e - n_i`, and by Parseval :math:`\sum e^2 = \pi \langle |W A_i e|^2 \rangle_i
    = \pi \langle |r_i|^2 - |n_i|^2 \rangle_i`.

    The noise is measured with an additional reconstruction, the :class:`~quietray.metrics.companion.Companion`.  It has
    seen neither the held-out views nor their neighbours.  Its residuals in adjacent views thus have independent noise
    but the same error up to a known factor :math:`\rho(k)`, and :math:`\langle r_i r_{i+1}^* \rangle / \rho` is its
    error without noise.  Other volumes are compared with it through the power of their residuals, in which the noise
    cancels.

    If the views are too sparse for that, the error is estimated in the projection domain, as the mean square of ``A_i f
    - y_i`` minus the variance of the noise, which must be known.

    Parameters
    ----------
    sinograms
        Line integrals ``(row, view, col)`` of all views of the scan; may be lazy.
    geometry
        Beam of all views, evenly spaced over at least half a turn.
    held
        Indices of the held-out views; their neighbours must not be held out.
    variance
        Noise variance of the held-out line integrals, ``(row, held, col)``.  If it is given, the error is estimated in
        the projection domain.
    field_of_view
        Radius of the disc in which errors are estimated, in half-widths of the part that all views see; outside there
        must be air.
    inside
        Mask ``(y, x)`` that further restricts this region; outside there must be air, too.  None for the whole disc.

    Raises
    ------
    GeometryError
        Shapes do not match, or neighbouring views are held out.
    NoiseError
        Adjacent views are too far apart, and no variance is given.

    Notes
    -----
    The error of a volume is its distance from the filtered backprojection (without a window) of noise-free
    views, which is slightly smoother than the object, because voxels are averages and views are interpolated; measured
    views are smoothed in the same way before the comparison.  Errors common to all views (rings, a wrong rotation axis)
    count as part of the object.

    The held-out views lie in gaps between the views that were used, where there is less noise of these views, and more
    of the object is missing.  Both are simulated for a plain reconstruction
    (:class:`~quietray.metrics.gaps.Everywhere`); the share of its error that a volume has kept follows from the product
    of their residuals.  What a volume has at frequencies that no view shows is counted as error, too.  On 36 simulated
    scans of foams, grains and rods, this raised the number of 90 % intervals that contain the truth from 25 to 30 for
    the error of raw reconstructions, and from 28 to 36 for its difference to total variation.  An error in the
    projection domain refers to directions between the views that were used, and says little about noise and streaks
    along these views.

    Examples
    --------
    >>> beam = ParallelBeam(np.linspace(0, np.pi, 64, endpoint=False), n_rows=1, n_cols=32)
    >>> training, held = held_out_views(beam)
    >>> noise = np.random.default_rng(0).normal(0, 1, (1, 64, 32)).astype(np.float32)
    >>> volumes = {"nothing": np.zeros((1, 32, 32), np.float32), "noise": np.ones((1, 32, 32), np.float32)}
    >>> found = HeldOut(noise, beam, held).judge(volumes)
    >>> found.best, found.domain
    ('nothing', 'volume')
    """

    sinograms: Frames
    geometry: ParallelBeam
    held: Int[np.ndarray, " held"]
    variance: Sinograms | None = None
    field_of_view: float = 0.97
    inside: Bool[np.ndarray, "y x"] | None = None

    def __post_init__(self) -> None:
        shape = (self.geometry.n_rows, self.geometry.n_views, self.geometry.n_cols)
        wanted = {"sinograms": (self.sinograms, shape)}
        if self.variance is not None:
            wanted["variance"] = (self.variance, (shape[0], len(self.held), shape[2]))
        for name, (given, size) in wanted.items():
            if tuple(given.shape) != size:
                raise GeometryError(f"the {name} must have shape {size} (row, view, col), got {tuple(given.shape)}")
        if not 0 < self.field_of_view <= 1:
            raise SettingsError(f"field_of_view must be above 0 and at most 1, got {self.field_of_view}")
        if self.variance is None and not _suffice(self._radius, self._neighbours.step):
            raise NoiseError(
                f"adjacent views must be at most {np.degrees(np.pi / 2 / self._radius):.2g} degrees apart for an "
                f"object of this width, got {np.degrees(self._neighbours.step):.2g}; give the variance of their noise"
            )

    @cached_property
    def _neighbours(self) -> Neighbours:
        return Neighbours.of(self.geometry, _by_angle(self.geometry), self.held)

    @cached_property
    def _profile(self) -> Float[np.ndarray, " col"]:
        some = np.unique(np.linspace(0, self.geometry.n_rows - 1, _ROWS).astype(int))
        profiles = [np.asarray(self.sinograms[row : row + 1]).mean(axis=(0, 1), dtype=np.float64) for row in some]
        return np.asarray(np.mean(profiles, axis=0))

    @property
    def _radius(self) -> float:
        return object_radius(self._profile, self.geometry)

    @property
    def overflows(self) -> bool:
        """Whether views show more than air beyond the field of view, which then counts as error of every volume."""
        n, axis = self.geometry.n_cols, self.geometry.axis
        away = np.abs(np.arange(n) - axis)
        edge = min(self.field_of_view * min(axis + 0.5, n - 0.5 - axis), float(away.max()))
        return bool(self._profile[away >= edge].mean() > _AIR * self._profile.max())

    def judge(self, volumes: Mapping[str, Frames]) -> Standings:
        """Estimate the error of each volume.

        Parameters
        ----------
        volumes
            Slices ``(z, y, x)`` by name, for the rows of `sinograms`, as wide as the detector, in 1/mm (1/pixel if the
            pixel size is unknown); may be lazy.

        Returns
        -------
        Standings
            Errors in the squared unit of the volumes, or of line integrals.

        Raises
        ------
        GeometryError
            A volume does not have one slice as wide as the detector for each row.
        NoiseError
            Line integrals or voxels are not finite.
        SettingsError
            There are no volumes.
        """
        n_rows, n = self.geometry.n_rows, self.geometry.n_cols
        if not volumes:
            raise SettingsError("at least one volume must be given, got none; name one")
        for name, volume in volumes.items():
            if tuple(volume.shape) != (n_rows, n, n):
                raise GeometryError(
                    f"the volume '{name}' must have shape {(n_rows, n, n)}, one slice as wide as the detector for each "
                    f"row, got {tuple(volume.shape)}; reconstruct without a region"
                )
        compare, tables, weights = _Judging(self), [], []
        starts = np.arange(0, len(self.held), _VIEWS)
        views_of = np.diff(starts, append=len(self.held)).astype(np.float64)
        with ThreadPoolExecutor(n_threads()) as pool:
            for first in range(0, n_rows, _ROWS):
                band = slice(first, min(first + _ROWS, n_rows))
                views = np.asarray(self.sinograms[band], np.float32)
                slices = [np.asarray(volume[band], np.float32) for volume in volumes.values()]
                found = list(pool.map(compare.row, range(band.start, band.stop), views, zip(*slices, strict=True)))
                tables.append(np.add.reduceat(np.mean(found, axis=0), starts, axis=1) / views_of[:, None])
                weights.append(len(found) * views_of)
        return self._standings(tuple(volumes), np.concatenate(tables, axis=1), np.concatenate(weights), compare)

    def _standings(
        self, names: tuple[str, ...], tables: np.ndarray, weights: np.ndarray, compare: _Judging
    ) -> Standings:
        """Subtract the noise from the power of residuals ``(method, block, band)``; the last entry gives the noise."""
        n = len(names)
        power = tables[:n].sum(axis=-1)
        if compare.companion is None:
            noise = tables[-1, :, 0]
            return Standings(names, power - noise, weights, float(np.average(noise, weights=weights)), "projections")
        together, plain, beyond, products = tables[n : 2 * n], tables[2 * n], tables[2 * n + 1 : -6], tables[-6:]
        assert compare.everywhere is not None
        by_band = compare.companion.noise(products, weights, compare.rho)
        share = kept(together - by_band, plain - by_band, weights)
        hidden = (share[:, None] * compare.everywhere.more(plain - by_band, by_band)).sum(axis=-1)
        noise, unit = by_band.sum(axis=-1), (self.geometry.pixel_size or 1.0) ** 2
        errors = power - noise + hidden + beyond[..., 0]
        return Standings(names, errors / unit, weights, float(np.average(noise, weights=weights)) / unit, "volume")


class _Judging:
    """Data common to all rows: interpolation of slices, weights of the frequencies, field of view."""

    def __init__(self, held: HeldOut) -> None:
        beam, n = held.geometry, held.geometry.n_cols
        seen = 2 * min(beam.axis + 0.5, n - 0.5 - beam.axis) / n
        self.mask = disc(n, n, held.field_of_view * seen)
        if held.inside is not None:
            self.mask = self.mask & held.inside
        self.held, self.pixel = held, np.float32(beam.pixel_size or 1.0)
        self.companion = Companion(beam, held._neighbours, self.mask) if held.variance is None else None
        self.plain = Plain(beam, held.held, self.mask)
        self.views = held.held if self.companion is None else held._neighbours.views[1]
        self.slices = FourierSlices(beam[self.views]) if self.companion is None else self.companion.slices[0]
        k, n_padded = self.slices.frequencies, self.slices.n_padded
        edges = np.minimum((k * 2 * _BANDS).astype(int), _BANDS - 1)
        self.starts = np.flatnonzero(np.diff(edges, prepend=-1))
        twice = np.where((k > 0) & (k < 0.5), 2.0, 1.0) / n_padded
        flat, filtered = twice / n, twice * ramp(n_padded) * (np.pi / np.count_nonzero(self.mask))
        self.weights = flat if self.companion is None else filtered
        self.rho = np.ones(len(self.starts))
        self.everywhere: Everywhere | None = None
        if self.companion is not None:
            middle = np.asarray(held.sinograms[beam.n_rows // 2 : beam.n_rows // 2 + 1], np.float32)[0]
            noise = noise_like(middle, beam.angles)
            self.rho = np.maximum(self.companion.correlation(noise, self._bands), _LEAST)
            self.everywhere = Everywhere.simulated(self.plain, noise, self.views, self._bands)

    def _bands(self, spectra: np.ndarray) -> np.ndarray:
        return np.asarray(np.add.reduceat(spectra * self.weights, self.starts, axis=-1))

    def row(self, row: int, views: Frame, images: tuple[np.ndarray, ...]) -> np.ndarray:
        """Return the power of the methods' residuals, then the data for the noise power, ``(method, held, band)``.

        In the volume domain, these are the products of the residuals with those of the plain reconstruction, its power,
        the power of the methods beyond the views, and six products of the companion.
        """
        measured, seen = self.slices.of_views(views[self.views]), self.mask * self.pixel
        if self.companion is not None:
            measured = measured * self.slices.smoothing
        errors = [self.slices.of_image(image * seen) - measured for image in images]
        power = [self._bands(np.abs(error) ** 2) for error in errors]
        if not np.isfinite(power).all():
            raise NoiseError(
                f"line integrals and voxels must be finite, got NaN or infinity in row {row}; leave that row out"
            )
        if self.companion is not None:
            plain = self.slices.of_image(self.plain.reconstruct(views)) - measured
            together = [self._bands((error * plain.conj()).real) for error in (*errors, plain)]
            beyond = [np.full_like(power[0], beyond_views(image * seen, self.mask)) for image in images]
            products = [self._bands(each) for each in self.companion.products(views)]
            return np.stack([*power, *together, *beyond, *products])
        variance = np.zeros_like(power[0])
        variance[:, 0] = np.asarray(self.held.variance)[row].mean(axis=-1)
        return np.stack([*power, variance])
