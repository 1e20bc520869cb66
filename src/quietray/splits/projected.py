"""Noise2Projection: train the network to predict measured views that its input was not made from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from quietray.errors import GeometryError, SettingsError
from quietray.geometry import ParallelBeam
from quietray.metrics.noreference import Judgement, averaged
from quietray.operators.astra import ParallelProjector
from quietray.operators.linear import LinearOperator
from quietray.operators.nufft import ParallelRays
from quietray.reconstruct.analytic import FBP
from quietray.splits.base import Network, Pair, Split
from quietray.splits.equivariant import EquivariantPair
from quietray.splits.filling import mean_variance
from quietray.types import Channels

__all__ = ["Noise2Projection"]

Measured = Float[Tensor, "batch part slice view col"]
Views = Int[np.ndarray, " some"]


@dataclass(frozen=True)
class Noise2Projection(Split):
    """Train in the projection domain: the projected output of the network is compared with left-out views.

    The views are split into `parts` angular subsets, ``j::parts``.  One subset is left out, and the network sees the
    reconstruction from the others.  The noise of a view is independent of all other views and cannot be predicted, and
    each view can be weighted by its precision.  Few views leave part of the object undetermined; `equivariance` adds
    information by requiring that rotated objects are recovered as well as the measured one.

    Samples are sinograms of one scan, ``(batch, 1, 1, view, col)``; bind the method to the scan with :meth:`on`.  Scale
    them by a factor that brings the attenuation to about [0, 1], without an offset.  Training uses whole slices, not
    patches, because a view depends on the whole slice.

    Parameters
    ----------
    parts
        Number of angular subsets, K.
    equivariance
        Weight of the mean squared error of rotated objects (in attenuation) relative to that of the views (in line
        integrals over pixels).

    Notes
    -----
    Equivariance: Chen, Tachella & Davies (2021), doi:10.1109/ICCV48922.2021.00434.  With ``R`` a random
    rotation, ``A`` the projection onto the views that are seen and ``f`` the network, the loss has the additional term
    ``|f(FBP(A R f(x))) - R f(x)|^2``.

    Examples
    --------
    >>> beam = ParallelBeam(np.linspace(0, np.pi, 8, endpoint=False), n_rows=1, n_cols=16)
    >>> split = Noise2Projection(parts=4).on(beam)
    >>> pair = split.draw(torch.ones(2, 1, 1, 8, 16), torch.Generator().manual_seed(0))
    >>> tuple(pair.input.shape), tuple(pair.target.shape)
    ((2, 1, 16, 16), (2, 1, 2, 16))
    """

    domain: ClassVar[str] = "projections"

    parts: int = 4
    equivariance: float = 0.0
    geometry: ParallelBeam | None = field(default=None, init=False, repr=False, compare=False)
    variance: Float[Tensor, "view col"] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.parts < 2:
            raise SettingsError(f"parts must be at least 2 (views for input and target), got {self.parts}")
        if not self.equivariance >= 0:
            raise SettingsError(f"equivariance must be at least 0, got {self.equivariance}")

    def on(self, geometry: ParallelBeam, variance: Float[Tensor, "view col"] | None = None) -> Noise2Projection:
        """Return the method bound to a scan.

        Parameters
        ----------
        geometry
            Beam of the sinograms; the number of rows does not matter.
        variance
            Variance of the noise of the sinograms, ``(view, col)``, in their unit squared.  Views are weighted by its
            inverse.  With None, all weights are equal, and :meth:`judge` assumes that the noise is white along each
            row.

        Raises
        ------
        GeometryError
            There are fewer views than parts, or the shape of the variance is wrong.
        """
        if geometry.n_views < self.parts:
            raise GeometryError(
                f"the scan must have at least {self.parts} views, got {geometry.n_views}; use fewer parts"
            )
        size = (geometry.n_views, geometry.n_cols)
        if variance is not None and tuple(variance.shape) != size:
            raise GeometryError(f"the variance must have shape {size} (view, col), got {tuple(variance.shape)}")
        if variance is not None and not bool((variance > 0).all()):
            raise GeometryError(f"the variance must be positive everywhere, got {float(variance.min())}")
        bound = dataclasses.replace(self)
        object.__setattr__(bound, "geometry", geometry)
        object.__setattr__(bound, "variance", variance)
        return bound

    @property
    def n_parts(self) -> int:
        """One: a single scan is enough."""
        return 1

    @property
    def n_subsets(self) -> int:
        """One: a row of sinograms holds all subsets of the views."""
        return self.parts

    @property
    def n_slices(self) -> int:
        """One: rows are processed one at a time."""
        return 1

    @property
    def n_passes(self) -> int:
        """One pass for each subset that is left out."""
        return self.parts

    @property
    def applied(self) -> int:
        """Two if equivariance is used, for the rotated object, else one."""
        return 2 if self.equivariance else 1

    def on_sinograms(self, geometry: ParallelBeam, variance: Tensor | None) -> Noise2Projection:
        """Return the method bound to this beam and noise."""
        return self.on(geometry, variance)

    def draw(self, samples: Measured, generator: torch.Generator) -> Pair:
        """Draw the subset that is left out, the same for the whole batch, and a random rotation for every object."""
        left_out = int(torch.randint(self.parts, (), generator=generator))
        seen, met = self._dealt(left_out)
        sinograms = self._checked(samples)
        weight = torch.ones(1, 1, 1, 1)
        if self.variance is not None:
            weight = (self.variance[met].min() / self.variance[met])[None, None]
        given = self._reconstruct(sinograms[:, :, seen], seen)
        pair = (given, sinograms[:, :, met], weight, partial(self._project, views=met))
        if not self.equivariance:
            return Pair(*pair)
        angles = 2 * math.pi * torch.rand(len(samples), generator=generator)

        def measured_again(image: Tensor) -> Tensor:
            return self._reconstruct(self._project(image, seen), seen)

        strength = self.equivariance * (self._beam.pixel_size or 1.0) ** 2  # as if integrals were taken over pixels
        return EquivariantPair(*pair, strength, angles, measured_again)

    def choices(self, samples: Measured) -> Iterator[tuple[Tensor, Views]]:
        """Yield the K inputs of the network, ``(batch, 1, y, x)``, each with the views that were left out of it."""
        sinograms = self._checked(samples)
        for part in range(self.parts):
            seen, met = self._dealt(part)
            yield self._reconstruct(sinograms[:, :, seen], seen), met

    def infer(self, network: Network, samples: Measured) -> Channels:
        """Return the mean of the network's K outputs."""
        return torch.stack([network(given).float() for given, _ in self.choices(samples)]).mean(dim=0)

    def predict(self, network: Network, samples: Measured) -> Float[Tensor, "batch 1 view col"]:
        """Return, for every view, its prediction from the output that has not seen it, ``(batch, 1, view, col)``."""
        out = torch.empty_like(samples[:, 0])
        for given, met in self.choices(samples):
            out[:, :, met] = self._project(network(given).float(), met)
        return out

    def judge(self, network: Network, samples: Measured, weight: Tensor) -> Judgement:
        """Estimate the error of predicted views in the projection domain, in squared line integrals.

        ``E |predicted - measured|^2`` is the error plus the variance of the measured view, which the output has not
        seen.  The error before denoising is that of views predicted by filtered backprojection alone.  The mean of the
        K outputs cannot be validated this way, because it has seen all views.
        """
        measured = samples[:, 0].double()
        variance = _white_variance(measured) if self.variance is None else self.variance.to(measured)
        error, noise = (
            (self.predict(one, samples).double() - measured).square() - variance for one in (network, lambda x: x)
        )
        return averaged(error, noise, weight)

    def _checked(self, samples: Measured) -> Tensor:
        """Return the sinograms ``(batch, 1, view, col)`` after checking their shape."""
        size = (self._beam.n_views, self._beam.n_cols)
        if tuple(samples.shape[-2:]) != size:
            raise GeometryError(f"sinograms must have shape {size} (view, col), got {tuple(samples.shape[-2:])}")
        return samples[:, 0]

    def _dealt(self, left_out: int) -> tuple[Int[np.ndarray, " seen"], Int[np.ndarray, " left"]]:
        """Return the indices of the views that are seen and of those that are left out."""
        views = np.arange(self._beam.n_views)
        return views[views % self.parts != left_out], views[left_out :: self.parts]

    @property
    def _beam(self) -> ParallelBeam:
        if self.geometry is None:
            raise SettingsError("Noise2Projection must have the scan's geometry, got none; use split.on(geometry)")
        return self.geometry

    def _project(self, image: Tensor, views: Views) -> Tensor:
        """Return projections of images ``(batch, 1, y, x)`` for these views."""
        projector = ParallelProjector(self._beam[views].rows(len(image)))
        return torch.as_tensor(projector(image[:, 0]))[:, None]

    def _reconstruct(self, sinograms: Tensor, views: Views) -> Tensor:
        """Return reconstructions of sinograms ``(batch, 1, view, col)`` from these views."""
        backprojection = _FilteredBackprojection(self._beam[views].rows(len(sinograms)))
        return torch.as_tensor(backprojection(sinograms[:, 0]))[:, None]


class _FilteredBackprojection(LinearOperator):
    """Filtered backprojection as a linear operator with its adjoint."""

    def __init__(self, geometry: ParallelBeam) -> None:
        self._rays = ParallelRays(geometry)

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """Shape of the input, ``(row, view, col)``."""
        return self._rays.range_shape

    @property
    def range_shape(self) -> tuple[int, ...]:
        """Shape of the output, ``(z, y, x)``."""
        return self._rays.domain_shape

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Reconstruct every row."""
        return FBP()(self._rays, x)

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        """Apply the adjoint to every slice."""
        return FBP().adjoint(self._rays, y)


def _white_variance(sinograms: Tensor) -> float:
    """Return the mean noise variance from fourth differences, assuming that the noise is white along the columns.

    The variance of these differences is 1 + 16 + 36 + 16 + 1 times that of the noise.  On a coarse detector, details of
    the object also contribute.
    """
    differences = sinograms.diff(n=4, dim=-1) / 70**0.5
    return mean_variance(differences.flatten(), sinograms.unfold(-1, 5, 1).mean(dim=-1).flatten())
