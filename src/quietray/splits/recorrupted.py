"""Recorrupted-to-Recorrupted: for single images with correlated noise of known auto-covariance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quietray.errors import NoiseError, SettingsError
from quietray.metrics.noreference import Judgement, averaged
from quietray.splits.base import ImageNoise, Judge, Neighbourhood, Network, Pair, Split, require_odd
from quietray.splits.neighbourhood import among, middle
from quietray.splits.noisier import seed_of
from quietray.types import Channels, Samples

__all__ = ["Recorrupted"]

_STEP = 0.1  # step of the numerical derivative, in standard deviations of the noise
_PROBES = 2


@dataclass(frozen=True)
class Recorrupted(Split):
    """Recorrupted-to-Recorrupted: noise like the measured one is added to the input and subtracted from the target.

    From ``y = x + n`` and noise ``n'`` with the covariance of ``n``, it makes ``z = y + a n'`` and ``w = y - n' / a``.
    The noise of ``z`` and ``w`` is uncorrelated, since ``cov(n + a n', n - n' / a) = C - C = 0``, and independent if it
    is Gaussian.  A network trained to map ``z`` to ``w`` therefore learns the mean of ``x``, whether or not the noise
    of neighbours is correlated.

    The error is estimated with Stein's identity for correlated noise, ``E |f(y) - x|^2 = E |f(y) - y|^2 - tr C + 2 tr(C
    df/dy)``, where the last trace is computed from the change of the output along random noise of covariance ``C``.

    The noise must be close to Gaussian and the same everywhere.  If the assumed variance is wrong by some fraction, the
    error estimate is wrong by that fraction of the noise; the ranking of two results hardly changes.

    Parameters
    ----------
    covariance
        Auto-covariance of the noise ``(dy, dx)``, in the scale of the images, with lag zero in the middle; None until
        it is measured, see :meth:`measured`.
    strength
        Standard deviation of the added noise, relative to that of the measured noise; ``a`` above.
    passes
        Number of noise realisations to average over at inference, as in the paper. 0 applies the network once to the
        measured image, which is as good and faster.
    slices
        Number of adjacent slices of a volume in the input, odd, whose noise must be independent; None for the default.
        Noise is added to the middle one only.

    Notes
    -----
    Pang, Zheng, Quan & Ji (2021), doi:10.1109/CVPR46437.2021.00208.  Stein (1981),
    doi:10.1214/aos/1176345632; with random probes: Ramani, Blu & Unser (2008), doi:10.1109/TIP.2008.2001404.

    Examples
    --------
    >>> split = Recorrupted(((0.04,),))
    >>> pair = split.draw(torch.zeros(1, 1, 1, 64, 64), torch.Generator().manual_seed(0))
    >>> round(float(pair.input.std()), 1), round(float(pair.target.std()), 1)
    (0.1, 0.4)
    """

    domain: ClassVar[str] = "images"
    of_images: ClassVar[bool] = True
    judged_by: ClassVar[Judge] = "Stein's estimate"
    prior: ClassVar[str | None] = "images"

    covariance: tuple[tuple[float, ...], ...] = ()
    strength: float = 0.5
    passes: int = 0
    slices: int | None = None

    def __post_init__(self) -> None:
        require_odd(self.slices)
        if self.passes < 0:
            raise SettingsError(f"passes must be 0 or more, got {self.passes}")
        if not self.strength > 0:
            raise SettingsError(f"strength must be positive, got {self.strength}")
        sizes = {len(row) for row in self.covariance}
        if self.covariance and (len(self.covariance) % 2 == 0 or sizes != {len(self.covariance)}):
            raise SettingsError(
                f"the covariance must be a square of odd size, lag zero in its middle, got {len(self.covariance)} rows "
                f"of {', '.join(map(str, sorted(sizes)))}"
            )

    def measured(self, covariance: Float[np.ndarray, "dy dx"]) -> Recorrupted:
        """Return the method with the given auto-covariance of the noise, unless it is already known."""
        if self.covariance:
            return self
        return replace(self, covariance=tuple(tuple(float(value) for value in row) for row in covariance))

    @property
    def n_parts(self) -> int:
        """One: a single measurement is enough."""
        return 1

    @property
    def n_slices(self) -> int:
        """Number of slices in a sample: one, unless the images are slices of a volume."""
        return self.slices or 1

    @property
    def neighbourhood(self) -> Neighbourhood:
        """Which slices make up one sample; the middle one is never its own neighbour."""
        return Neighbourhood(self.n_slices, apart=True)

    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Draw the noise to add and to subtract."""
        image = middle(samples[:, 0])
        noise = self.noise(image, generator)
        given = among(samples[:, 0], image + self.strength * noise)
        return Pair(given, image - noise / self.strength, torch.ones(1, 1, 1, 1))

    def infer(self, network: Network, samples: Samples) -> Channels:
        """Return the denoised image, averaged over all passes; the same image always gets the same noise."""
        image = middle(samples[:, 0])
        added = self._added(image, torch.Generator().manual_seed(seed_of(image)))
        return self._mean(network, samples, image, added).float()

    def judge(self, network: Network, samples: Samples, weight: Tensor) -> Judgement:
        """Estimate the error of :meth:`infer` with Stein's identity; the same image always gets the same probes."""
        image = middle(samples[:, 0])
        generator = torch.Generator().manual_seed(seed_of(image))
        added = self._added(image, generator)
        output = self._mean(network, samples, image, added).double()
        along = torch.zeros_like(output)
        for _ in range(_PROBES):
            probe = self.noise(image, generator)
            moved = self._mean(network, samples, image + _STEP * probe, added).double()
            along += probe * (moved - output) / (_STEP * _PROBES)
        noise = torch.full_like(output, self._middle)
        return averaged((output - image).square() - noise + 2 * along, noise, weight)

    def _added(self, image: Tensor, generator: torch.Generator) -> list[Tensor]:
        return [self.strength * self.noise(image, generator) for _ in range(self.passes)]

    def _mean(self, network: Network, samples: Samples, image: Tensor, added: list[Tensor]) -> Tensor:
        """Return the mean output for noisier versions of the image, seen among its neighbours."""
        noisier = [image + noise for noise in added] or [image]
        return torch.stack([network(among(samples[:, 0], one)) for one in noisier]).mean(dim=0)

    def noise(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Return noise with the known covariance in the shape of `image`.

        Raises
        ------
        SettingsError
            The covariance is not known.
        """
        if not self.covariance:
            raise SettingsError("the covariance of the noise must be known, got none; call measured() first")
        lags = torch.tensor(self.covariance, dtype=torch.float64)
        reach, (height, width) = len(lags) // 2, image.shape[-2:]
        # larger than the image, so that the part that wraps around can be cropped
        field = torch.zeros(height + 2 * reach, width + 2 * reach, dtype=torch.float64)
        field[: len(lags), : len(lags)] = lags
        power = torch.fft.fft2(field.roll((-reach, -reach), (0, 1))).real.clamp_min(0)
        power *= lags[reach, reach] / power.mean().clamp_min(1e-30)  # clamped, as sampling may leave < 0
        white = torch.randn((*image.shape[:-2], *field.shape), generator=generator, dtype=torch.float64)
        coloured = torch.fft.ifft2(torch.fft.fft2(white) * power.sqrt()).real
        cut: Tensor = coloured[..., :height, :width].to(image)
        return cut

    def on_images(self, noise: ImageNoise) -> tuple[Recorrupted, str]:
        """Return the method with the noise covariance of the images, unless it is already known.

        Raises
        ------
        NoiseError
            The covariance could not be measured.
        """
        super().on_images(noise)
        slices, seen = noise.window(self.slices, alone=True)
        split = replace(self, slices=slices)
        if self.covariance:
            return split, f"The covariance of the noise was given. {seen}".strip()
        if noise.found is None:
            raise NoiseError(
                "the noise is measured in uniform regions of the images, got too few of them; use noise2void, or give "
                "further measurements with --repeats"
            )
        said = f"{noise.described} The error is estimated with Stein's identity and that correlation. {seen}".strip()
        return split.measured(noise.covariance), said

    def as_served(self, bound: Split) -> Recorrupted:
        """Return the method with the number of slices that the network saw."""
        return replace(self, slices=getattr(bound, "slices", None))

    @property
    def _middle(self) -> float:
        return self.covariance[len(self.covariance) // 2][len(self.covariance) // 2]
