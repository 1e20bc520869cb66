"""Noisier2Noise: add more noise of the same kind, and train the network to remove part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from quietray.errors import SettingsError
from quietray.metrics.noreference import Judgement, averaged, neighbour_correlation
from quietray.splits.base import ImageNoise, Judge, Network, Pair, Split
from quietray.splits.filling import completed, donut, filled, noise_variance
from quietray.types import Channels, Samples

__all__ = ["Noisier2Noise", "seed_of"]


@dataclass(frozen=True, eq=False)
class _NoisierPair(Pair):
    """A training pair whose network output is corrected for the added noise before it meets the target."""

    strength: float = 1.0

    def distance(self, output: Tensor, weight: Tensor, power: Callable[[Tensor], Tensor] = torch.square) -> Tensor:
        """Return the mean error of the corrected output."""
        return super().distance(_corrected(self.input, output, self.strength), weight, power)


@dataclass(frozen=True)
class Noisier2Noise(Split):
    """Noisier2Noise: add noise of known variance to a measurement, and train the network to undo that.

    To the image ``y = x + n``, noise ``n'`` with `strength` times the standard deviation of ``n`` is added.  A network
    ``f`` trained to map ``z = y + n'`` to ``y`` returns the mean of ``y`` given ``z``, and ``((1 + strength^2) f(z) -
    z) / strength^2`` is then the mean of ``x`` given ``z``.  That is what :meth:`infer` returns, averaged over draws of
    ``n'``.

    The noise must be white, close to Gaussian, with zero mean and variance ``poisson * exp(image) + gaussian``, which
    for line integrals is the variance of photon counting.  If the variance is wrong, too little or too much noise is
    removed.

    Parameters
    ----------
    poisson
        Variance of the counting noise at a line integral of 0: the inverse of the number of photons in the open beam.
        If this and `gaussian` are both 0, the noise is measured; see :meth:`measured`.
    gaussian
        Constant part of the variance.
    strength
        Standard deviation of the added noise, relative to that of the measured noise.
    passes
        Number of noise realisations to average over at inference.

    Notes
    -----
    Moran, Schmidt, Zhong & Coady (2020), arXiv:1910.11908.  In training, the target is the recorrupted
    image of Pang et al.  (2021), doi:10.1109/CVPR46437.2021.00208: ``w = y - n' / strength^2`` has noise independent of
    that of ``z`` if both are Gaussian.  It is compared with the output *after* the correction above, which gives
    Moran's loss times a constant.

    Examples
    --------
    >>> pair = Noisier2Noise(gaussian=0.04).draw(torch.zeros(1, 1, 1, 64, 64), torch.Generator().manual_seed(0))
    >>> bool(torch.allclose(pair.input, -pair.target)), round(float(pair.input.std()), 1)
    (True, 0.2)
    """

    domain: ClassVar[str] = "radiographs"
    of_images: ClassVar[bool] = True
    judged_by: ClassVar[Judge] = "hidden pixels"

    poisson: float = 0.0
    gaussian: float = 0.0
    strength: float = 1.0
    passes: int = 4

    def __post_init__(self) -> None:
        if not (self.poisson >= 0 and self.gaussian >= 0):
            raise SettingsError(
                "the variance of the noise must not be negative, got "
                f"poisson={self.poisson} and gaussian={self.gaussian}; measure it with quietray diagnose"
            )
        if not self.strength > 0:
            raise SettingsError(f"strength must be positive, got {self.strength}")
        if self.passes < 1:
            raise SettingsError(f"passes must be at least 1, got {self.passes}")

    def measured(self, image: Tensor) -> Noisier2Noise:
        """Return the method with the noise measured on an image of line integrals, unless it is already known.

        Parameters
        ----------
        image
            ``(batch, 1, y, x)``; NaN marks pixels that were not measured.

        Examples
        --------
        >>> noise = 0.3 * torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(0))
        >>> round(Noisier2Noise().measured(noise).poisson, 2)
        0.09
        """
        if self.poisson + self.gaussian > 0:
            return self
        return replace(self, poisson=noise_variance(image) / float(image.exp().nanmean()))

    @property
    def n_parts(self) -> int:
        """One: a single measurement is enough."""
        return 1

    @property
    def n_slices(self) -> int:
        """One: images are processed one at a time."""
        return 1

    def variance(self, image: Tensor) -> Tensor:
        """Return the noise variance, from the brightness around each pixel, so that its own noise does not enter."""
        if self.poisson + self.gaussian == 0:
            raise SettingsError(
                "the variance of the noise must be known, got none; call measured() with an image first"
            )
        around = filled(image, donut())
        return self.poisson * around.exp() + self.gaussian

    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Draw the noise to add."""
        image = samples[:, 0]
        given, wanted = self._recorrupted(image, generator)
        return _NoisierPair(given, wanted, torch.isfinite(image).to(image), strength=self.strength)

    def infer(self, network: Network, samples: Samples) -> Channels:
        """Return the mean of the corrected outputs over all passes; the same image always gets the same noise."""
        outputs = [_corrected(given, network(given).float(), self.strength) for given, _ in self._passes(samples[:, 0])]
        return torch.stack(outputs).mean(dim=0)

    def judge(self, network: Network, samples: Samples, weight: Tensor) -> Judgement:
        """Estimate the error of :meth:`infer` by comparison with the recorrupted images.

        ``w`` is independent of ``z``, so that ``E (g(z) - w)^2 = MSE(g) + var(w)``, with ``g`` the corrected output and
        ``var(w) = (1 + 1 / strength^2) var(n)``; averaging over passes reduces the error by their variance.  The
        estimate is unbiased if the noise is Gaussian and has the stated variance.
        """
        image = samples[:, 0]
        views = list(self._passes(image))
        outputs = torch.stack([_corrected(given, network(given).float(), self.strength) for given, _ in views])
        targets = torch.stack([wanted for _, wanted in views])
        result = outputs.mean(dim=0)
        noise = self.variance(image)
        against = (outputs - targets).double().square().mean(dim=0)
        spread = (outputs - result).double().square().mean(dim=0)
        error = against - (1 + 1 / self.strength**2) * noise - spread
        correlation = neighbour_correlation(result - image, torch.ones_like(image[:, 0]))
        return averaged(error, noise, weight * torch.isfinite(image), correlation)

    def on_radiographs(self, some: Tensor) -> Noisier2Noise:
        """Return the method with the noise measured on these line integrals."""
        return self.measured(some)

    def on_images(self, noise: ImageNoise) -> tuple[Noisier2Noise, str]:
        """Return the method with the noise of the images, unless it is already known."""
        _, said = super().on_images(noise)
        if noise.found is None or self.poisson + self.gaussian > 0:
            return self, said
        return replace(self, gaussian=noise.variance), f"The noise was measured in {noise.found.source}."

    def _passes(self, image: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed_of(image))
        for _ in range(self.passes):
            yield self._recorrupted(image, generator)

    def _recorrupted(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the noisier image and the recorrupted one, whose noise is independent; missing pixels are filled."""
        white = torch.randn(image.shape, generator=generator).to(image)
        added = white * (self.strength * self.variance(image).sqrt())
        # filled from the noisier image: noise in the filled values must not be in any target
        return completed(image + added), torch.nan_to_num(image - added / self.strength**2)


def _corrected(given: Tensor, output: Tensor, strength: float) -> Tensor:
    """Return the mean of the clean image, computed from that of the noisy one."""
    square = strength**2
    return ((1 + square) * output - given.to(output.device)) / square


def seed_of(image: Tensor) -> int:
    """Return a seed that depends on every pixel: noise repeated from view to view would cause rings.

    Parameters
    ----------
    image
        An image of any shape.

    Examples
    --------
    >>> seed_of(torch.ones(2, 3)) == seed_of(torch.ones(2, 3)), seed_of(torch.ones(2)) == seed_of(torch.zeros(2))
    (True, False)
    """
    bits = image.detach().cpu().float().nan_to_num().contiguous().view(torch.int32)
    return int(bits.sum(dtype=torch.int64)) % 2**63
