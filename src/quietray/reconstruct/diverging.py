"""Filtered backprojection of diverging beams: FDK for circular cone beams, and its central plane for fan beams."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quietray.errors import GeometryError
from quietray.geometry import ConeBeam, FanBeam, Geometry, VolumeGrid
from quietray.geometry.half import share
from quietray.operators.backprojection import ConeRays, FanRays, sampled
from quietray.operators.nufft import Views
from quietray.reconstruct.base import Algorithm
from quietray.reconstruct.ramp import RampFilter, padded_width, ramp_filtered, ramp_response, require_filter
from quietray.types import Volume

__all__ = ["FDK", "fan_backprojection", "require_turn", "turn_weights"]

_CPU = torch.device("cpu")
_TILT = math.radians(2.0)  # largest tilt of the detector
_ROUND = 1e-3  # largest deviation of the source from its circle, relative to the radius
_GAP = 4.0  # factor by which a step must exceed the others to be taken for the gap between end and start of the scan


@dataclass(frozen=True)
class FDK(Algorithm):
    r"""Filtered backprojection of a circular cone beam, after Feldkamp, Davis and Kress.

    .. math:: x = \sum_i \frac{R D \, \Delta\beta_i}{d_i^2 \, \Delta u} \, h * \frac{w_i D y_i}{\sqrt{D^2 + u^2 + v^2}}

    with the distances R and D from the source to the axis and to the detector, the depth d of a voxel as seen from the
    source, the ramp filter h along the rows, and w = 1/2 for a full turn.  For shorter scans, w are Parker's weights.
    The result is exact in the plane of the source and an approximation elsewhere.

    Parameters
    ----------
    filter
        ``ram-lak`` (the ramp alone), ``shepp-logan`` (times a sinc) or ``hann`` (times a raised cosine).

    Notes
    -----
    Feldkamp, Davis & Kress (1984), doi:10.1364/JOSAA.1.000612; short scans: Parker (1982),
    doi:10.1118/1.595078, for the actual angular range.  Shifts of the detector in its plane are treated exactly.  Tilts
    of up to 2 degrees are treated exactly in the backprojection but neglected in the filter.

    Examples
    --------
    A ball of attenuation 1 is reconstructed as 1:

    >>> from quietray.simulate.bodies import Bodies
    >>> angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    >>> beam = ConeBeam.circular(angles, 9, 33, source_axis=100.0, source_detector=150.0)
    >>> ball = Bodies.balls(np.array([[0.0, 0.0, 0.0, 10.0]]), 1.0)
    >>> y = ball.project(beam, 1.0, supersampling=3).swapaxes(0, 1)
    >>> volume = FDK()(ConeRays(beam, beam.grid()), y)
    >>> bool(abs(volume[4, 12:21, 12:21].mean() - 1) < 0.02)
    True
    """

    iterates: ClassVar[bool] = False

    filter: RampFilter = "ram-lak"

    def __post_init__(self) -> None:
        require_filter(self.filter)

    @property
    def linear(self) -> bool:
        """Whether the result depends linearly on the data, as Noise2Inverse requires."""
        return True

    def for_beam(self, geometry: Geometry) -> Algorithm:
        """Return the algorithm if this is a cone beam with a sufficient angular range."""
        if not isinstance(geometry, ConeBeam):
            raise GeometryError(f"FDK must have a cone beam, got {type(geometry).__name__}; use fbp")
        require_turn(geometry)
        return self

    def __call__(self, A: Any, y: Views) -> Volume:
        """Reconstruct a volume.

        Parameters
        ----------
        A
            Projector of a circular cone beam, or the :class:`~quietray.operators.backprojection.ConeRays` of some rows.
        y
            Line integrals ``(row, view, col)``, dimensionless; may already be on the device of the rays.

        Returns
        -------
        Volume
            Attenuation ``(z, y, x)`` in 1/mm, or 1/pixel if the pixel size is unknown.

        Raises
        ------
        GeometryError
            The sinograms do not match the projector, the source is not on a circle, or the views cover too small an
            angle.
        """
        if not isinstance(A.geometry, ConeBeam):
            raise GeometryError(
                f"FDK must have a cone beam, got {type(A.geometry).__name__}; use fbp for parallel and fan beams"
            )
        rays = A if isinstance(A, ConeRays) else ConeRays(A.geometry, A.grid)
        if tuple(y.shape) != rays.range_shape:
            raise GeometryError(f"sinograms must have shape {rays.range_shape} (row, view, col), got {tuple(y.shape)}")
        scan, wide = _Circle.of(rays.geometry), _widened(rays.geometry)
        filtered = scan.filtered(y, rays.band, self.filter, rays.device)
        rays = dataclasses.replace(rays, geometry=wide)
        return rays.backproject(filtered, scan.factors(rays.edge, rays.grid))


def fan_backprojection(rays: FanRays, y: Views, window: RampFilter) -> Volume:
    """Return the filtered backprojection of a fan beam with a flat detector, slice by slice: FDK in its central plane.

    Parameters
    ----------
    rays
        Rays of the beam.
    y
        Line integrals ``(row, view, col)``, dimensionless; may already be on the device of the rays.
    window
        Window of the ramp filter.

    Raises
    ------
    GeometryError
        The views cover less than half a turn plus the fan angle.

    Examples
    --------
    >>> from quietray.simulate.bodies import Bodies
    >>> beam = FanBeam(np.linspace(0, 2 * np.pi, 90, endpoint=False), 1, 33, source_axis=100.0, source_detector=150.0)
    >>> y = Bodies.cylinder(10.0).project(beam, 1.0, supersampling=3).swapaxes(0, 1)
    >>> bool(abs(fan_backprojection(FanRays(beam, beam.grid()), y, "ram-lak")[0, 12:21, 12:21].mean() - 1) < 0.02)
    True
    """
    line = rays.geometry.as_cone()
    one, scan = ConeRays(_widened(line), rays.grid.with_slices(1)), _Circle.of(line)
    factors = scan.factors(one.edge, rays.grid)
    every = range(1)  # each slice is the central plane of its own
    if rays.device is None:
        filtered = (scan.filtered(row[None], every, window, None) for row in np.asarray(y))
        return np.concatenate([one.backproject(row, factors) for row in filtered])
    there = torch.as_tensor(y).to(rays.device)
    images = torch.stack([scan.filtered(row[None], every, window, rays.device) for row in there])
    return np.asarray(sampled(one, images, factors)[:, 0].cpu().numpy())


def _missing(beam: ConeBeam) -> tuple[int, int]:
    """Return the number of columns missing on either side of a half acquisition to have the axis in the middle."""
    if not beam.half:
        return 0, 0
    more = round(2 * beam.axis - (beam.n_cols - 1))
    return max(0, -more), max(0, more)


def _widened(beam: ConeBeam) -> ConeBeam:
    """Return the beam with a detector widened to the whole half acquisition: filtered views extend that far."""
    before, after = _missing(beam)
    moved = (after - before) / 2
    return dataclasses.replace(beam, n_cols=beam.n_cols + before + after, centres=beam.centres + moved * beam.us)


def require_turn(geometry: FanBeam | ConeBeam) -> None:
    """Raise unless filtered backprojection can reconstruct this beam.

    Raises
    ------
    GeometryError
        The source is not on a circle, or covers too small an angle.

    Examples
    --------
    >>> require_turn(FanBeam(np.linspace(0, 1, 9), 1, 33, source_axis=100.0, source_detector=150.0))
    Traceback (most recent call last):
    quietray.errors.GeometryError: the views of a diverging beam must cover a full turn, or half a turn plus the fan
    angle (192 degrees), got 64; use sirt, cgls or tv
    """
    _Circle.of(geometry.as_cone() if isinstance(geometry, FanBeam) else geometry)


@dataclass(frozen=True, eq=False)
class _Circle:
    """A source on a circle around the z axis, and the weights of its rays.

    Parameters
    ----------
    beam
        The beam of that source.
    foot
        Detector row and column at the foot of the normal through the source, ``(view, 2)``.
    weights
        Weights in radians, ``(view, col)``: the angular step of each view, shared with rays in the opposite direction.
    """

    beam: ConeBeam
    foot: Float[np.ndarray, "view 2"]
    weights: Float[np.ndarray, "view col"]

    @classmethod
    def of(cls, beam: ConeBeam) -> _Circle:
        """Return the circle of a circular scan.

        Raises
        ------
        GeometryError
            The scan is not circular.
        """
        radius = np.hypot(*beam.sources[:, :2].T)
        inward = -beam.sources[:, :2] / radius[:, None]
        u, v = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (beam.us, beam.vs))
        across = np.stack([inward[:, 1], -inward[:, 0]], axis=1)
        straight = np.minimum(np.abs(np.einsum("vi,vi->v", u[:, :2], across)), np.abs(v[:, 2]))
        off = max(np.ptp(radius), np.abs(beam.sources[:, 2]).max()) / radius.mean()
        if off > _ROUND or straight.min() < math.cos(_TILT):
            tilt = math.degrees(math.acos(min(1.0, float(straight.min()))))
            raise GeometryError(
                "FDK must have a source on a circle around the axis and an upright detector, got a source "
                f"{off:.2%} of the radius off its circle and a detector tilted by {tilt:.1f} degrees; use sirt, cgls "
                "or tv, which take any cone beam"
            )
        du, distance = np.linalg.norm(beam.us, axis=1), beam.reach[:, 1]
        normal = np.cross(u, v)
        normal *= np.sign(np.einsum("vi,vi->v", normal, beam.centres - beam.sources))[:, None]
        aside = beam.sources + distance[:, None] * normal - beam.centres
        steps = [np.einsum("vi,vi->v", aside, one) / np.linalg.norm(one, axis=1) ** 2 for one in (beam.vs, beam.us)]
        foot = np.stack(steps, axis=1) + np.array([beam.n_rows - 1, beam.n_cols - 1]) / 2
        columns = np.arange(beam.n_cols)[None] - foot[:, 1:]
        middle = beam.shadow(np.zeros(3))[:, 1:] - foot[:, 1:]
        scale = (du / distance)[:, None]
        rays = np.arctan(columns * scale) - np.arctan(middle * scale)
        rays *= np.sign(np.einsum("vi,vi->v", u[:, :2], across))[:, None]  # the detector is mirrored
        edges = np.arctan((np.array([-0.5, beam.n_cols - 0.5]) - foot[:, 1:]) * scale) - np.arctan(middle * scale)
        angles = np.arctan2(-inward[:, 0], inward[:, 1])
        return cls(beam, foot, turn_weights(angles, rays, np.abs(edges) if beam.half else None))

    def filtered(self, y: Views, rows: range, window: RampFilter, device: torch.device | None) -> Any:
        """Return weighted, filtered views ``(row, view, wide)``, with the columns of the widened detector.

        Parameters
        ----------
        y
            Line integrals ``(row, view, col)``.
        rows
            Detector rows of `y`.
        window
            Window of the ramp filter.
        device
            Device of the result, a tensor; None for an array, computed on the CPU one row at a time.
        """
        n_wide = self.beam.n_cols + sum(_missing(self.beam))
        if device is None:
            out = np.empty((*y.shape[:2], n_wide), np.float32)
            for each, sinogram, row in zip(out, np.asarray(y), rows, strict=True):
                weighted = np.asarray(sinogram * self._cosines(row).numpy(), np.float32)
                each[:] = ramp_filtered(np.pad(weighted, ((0, 0), _missing(self.beam)))[None], window)[0]
            return out
        there, width = torch.as_tensor(y).to(device, torch.float32), padded_width(n_wide)
        response = torch.from_numpy(ramp_response(window, width)).to(device)
        found = torch.empty((*y.shape[:2], n_wide), dtype=torch.float32, device=device)
        for some, views, row in zip(found, there, rows, strict=True):
            weighted = views * self._cosines(row, device).float()
            wide = torch.nn.functional.pad(weighted, _missing(self.beam))
            some.copy_(torch.fft.irfft(torch.fft.rfft(wide, width) * response, width)[:, :n_wide])
        return found

    def _cosines(self, row: int, device: torch.device = _CPU) -> Float[Tensor, "view col"]:
        """Return the weights of the rays of one row times the cosine of each ray with the detector normal."""
        beam = self.beam
        foot, weights, reach, us, vs = (
            torch.tensor(each, device=device) for each in (self.foot, self.weights, beam.reach, beam.us, beam.vs)
        )
        distance, across, down = reach[:, 1:], us.norm(dim=1, keepdim=True), vs.norm(dim=1, keepdim=True)
        columns = torch.arange(beam.n_cols, dtype=torch.float64, device=device)
        u, v = (columns - foot[:, 1:]) * across, (row - foot[:, :1]) * down
        return weights * distance / torch.sqrt(distance**2 + u**2 + v**2)

    def factors(self, edge: float, grid: VolumeGrid) -> Float[np.ndarray, " view"]:
        """Return the factor of each view at depth 1 that gives the result in the unit of the grid."""
        to_axis, to_detector = self.beam.reach.T
        steps = np.linalg.norm(self.beam.us, axis=1)
        return np.asarray(to_axis * to_detector / steps * (edge / (grid.voxel_size or 1.0)))


def turn_weights(
    angles: Float[np.ndarray, " view"],
    rays: Float[np.ndarray, "view col"],
    edges: Float[np.ndarray, "view 2"] | None = None,
) -> Float[np.ndarray, "view col"]:
    """Return the angular step of each view in radians, times the weight of each ray that is measured more than once.

    Parameters
    ----------
    angles
        Angles of the source in radians, in any order.
    rays
        Angle of each ray with the central ray, positive for detector columns in the direction of rotation.
    edges
        Magnitude of the ray angle at both ends of the detector, for a half acquisition: rays that no other view sees
        count twice.  None if all views see the whole object.

    Raises
    ------
    GeometryError
        Some lines are measured in neither direction.

    Examples
    --------
    >>> turn_weights(np.deg2rad([0.0, 90.0, 180.0, 270.0]), np.zeros((4, 1)))[:, 0].round(3).tolist()
    [0.785, 0.785, 0.785, 0.785]
    """
    turned = np.mod(angles, 2 * np.pi).round(9) % (2 * np.pi)
    known, place, count = np.unique(turned, return_inverse=True, return_counts=True)
    gaps = np.diff(known, append=known[0] + 2 * np.pi)  # the gap after each direction
    last = int(np.argmax(gaps))
    others = np.delete(gaps, last)
    typical = float(np.median(others)) if others.size else 0.0
    if gaps[last] <= _GAP * typical:
        steps = (gaps + np.roll(gaps, 1)) / 2
        each = (steps / count)[place][:, None]
        if edges is None:
            return np.repeat(0.5 * each, rays.shape[1], axis=1)
        farther = np.sign(rays[np.arange(len(rays)), np.abs(rays).argmax(axis=1)])[:, None]
        return np.asarray(each * share(rays * farther, edges.min(axis=1, keepdims=True)))
    swept, fan = 2 * np.pi - gaps[last] + typical, 2 * float(np.abs(rays).max())
    if swept < np.pi + fan - 0.5 * typical:
        raise GeometryError(
            "the views of a diverging beam must cover a full turn, or half a turn plus the fan angle "
            f"({180 + math.degrees(fan):.0f} degrees), got {math.degrees(swept):.0f}; use sirt, cgls or tv"
        )
    begin = (last + 1) % len(known)
    before, after = np.roll(gaps, 1).copy(), gaps.copy()
    before[begin], after[last] = after[begin], before[last]  # there is only one neighbour at the ends
    since = np.mod(known - known[begin], 2 * np.pi) + typical / 2
    steps = (before + after) / 2 / count
    parker = _parker(since[place][:, None], -rays, (swept - np.pi) / 2)
    return np.asarray(steps[place][:, None] * parker)


def _parker(
    beta: Float[np.ndarray, "view 1"], gamma: Float[np.ndarray, "view col"], delta: float
) -> Float[np.ndarray, "view col"]:
    """Return Parker's weights; those of ``(beta, gamma)`` and ``(beta + pi + 2 gamma, -gamma)`` add up to 1."""
    rising = np.sin(np.pi / 4 * beta / np.maximum(delta - gamma, 1e-9)) ** 2
    falling = np.sin(np.pi / 4 * (np.pi + 2 * delta - beta) / np.maximum(delta + gamma, 1e-9)) ** 2
    share = np.where(beta > np.pi - 2 * gamma, falling, 1.0)
    return np.asarray(np.where(beta < 2 * (delta - gamma), rising, share))
