"""Repeated measurements of one object: train one noisy realisation against another, or against a clean image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from quietray.errors import SettingsError
from quietray.metrics.noreference import Judgement, averaged, judge_left_out
from quietray.splits.base import ImageNoise, Network, Pair, Parts, ScanShape, Split, require_odd
from quietray.splits.neighbourhood import middle
from quietray.types import Channels, Samples

__all__ = ["Noise2Clean", "Noise2Noise"]


@dataclass(frozen=True)
class _Realisations(Split):
    """Base class of methods that use several noisy realisations.

    Parameters
    ----------
    realisations
        Number of noisy measurements of one object in a training sample, N.
    slices
        Number of adjacent slices in the input (odd); None for the default.
    """

    realisations: int = 2
    slices: int | None = None

    def __post_init__(self) -> None:
        if self.realisations < self._fewest:
            raise SettingsError(f"realisations must be at least {self._fewest}, got {self.realisations}")
        require_odd(self.slices)

    @property
    def _fewest(self) -> int:
        return 1

    @property
    def n_slices(self) -> int:
        """Number of slices in a sample."""
        return self.slices or 1

    def infer(self, network: Network, samples: Samples) -> Channels:
        """Return the mean of the network's outputs over the realisations; one realisation is enough."""
        return torch.stack([network(noisy).float() for noisy in samples.unbind(1)]).mean(dim=0)

    def _middle(self, x: Tensor) -> Tensor:
        """Return the middle slice along the third axis from the end."""
        return middle(x)


@dataclass(frozen=True)
class Noise2Noise(_Realisations):
    """Noise2Noise: train the network to predict one noisy realisation from another.

    All N (N - 1) ordered pairs of realisations are equally likely.

    Parameters
    ----------
    realisations
        Number of noisy measurements of one object in a sample, N; their noise must be independent.
    slices
        Number of adjacent slices in the input (odd); 1 for 2-D, more for 2.5-D. None is the default: several for slices
        of a volume that are given as images, otherwise 1.

    Notes
    -----
    Lehtinen et al. (2018), arXiv:1803.04189; for X-ray and CT: Gnudi et al. (2020).

    Examples
    --------
    >>> samples = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1, 1)
    >>> pair = Noise2Noise(3).draw(samples, torch.Generator().manual_seed(0))
    >>> pair.input.item() != pair.target.item()
    True
    >>> Noise2Noise(3).infer(lambda x: 2 * x, samples).item()
    4.0
    """

    takes_repeats: ClassVar[bool] = True
    parts_are: ClassVar[Parts] = "measurements"

    @property
    def _fewest(self) -> int:
        return 2

    @property
    def n_parts(self) -> int:
        """Number of realisations in a sample."""
        return self.realisations

    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Draw an ordered pair of realisations for each sample."""
        batch = torch.arange(samples.shape[0])
        seen = torch.randint(self.realisations, batch.shape, generator=generator)
        further = torch.randint(1, self.realisations, batch.shape, generator=generator)
        met = (seen + further) % self.realisations
        return Pair(samples[batch, seen], self._middle(samples[batch, met]), torch.ones(1, 1, 1, 1))

    def judge(self, network: Network, samples: Samples, weight: Tensor) -> Judgement:
        """Estimate the error of the mean output, comparing each output with the realisations it has not seen."""
        outputs = torch.stack([network(noisy).float() for noisy in samples.unbind(1)])
        seen = self._middle(samples).movedim(1, 0)
        others = (seen.sum(dim=0) - seen) / (self.realisations - 1)
        return judge_left_out(outputs, others, seen, weight, self.realisations - 1, self.realisations)

    def on_scan(self, shape: ScanShape) -> Noise2Noise:
        """Return the method for this number of scans, with no more slices than the scan has rows.

        Raises
        ------
        SettingsError
            There is only one scan.
        """
        if shape.scans < 2:
            raise SettingsError(
                "noise2noise must have two or more measurements of one object, got one scan; give the others with "
                "--repeats, or use noise2inverse"
            )
        return replace(self, realisations=shape.scans, slices=min(self.n_slices, shape.odd_rows))

    def on_images(self, noise: ImageNoise) -> tuple[Noise2Noise, str]:
        """Return the method for this number of measurements.

        Raises
        ------
        SettingsError
            There is only one measurement.
        """
        if noise.measurements < 2:
            raise SettingsError(
                "noise2noise must have two or more measurements of the same images, got one; give the others "
                "(--repeats, or 'noisy2' in a folder of pairs), or use noise2void or noise2self"
            )
        slices, seen = noise.window(self.slices, alone=False)
        said = f"The error is estimated from {noise.measurements} independent measurements of the same images. {seen}"
        return replace(self, realisations=noise.measurements, slices=slices), said.strip()

    def as_served(self, bound: Split) -> Noise2Noise:
        """Return the method with the number of slices that the network saw."""
        return replace(self, slices=getattr(bound, "slices", None))


@dataclass(frozen=True)
class Noise2Clean(_Realisations):
    """Noise2Clean: supervised training, in which the network predicts a clean image from a noisy realisation.

    Samples for training and validation hold the noisy parts followed by the clean one.

    Parameters
    ----------
    realisations
        Number of noisy measurements of one object in a training sample; :meth:`infer` takes any number of them, without
        a clean image.
    slices
        Number of adjacent slices in the input (odd); 1 for 2-D, more for 2.5-D; None for 1.

    Notes
    -----
    Supervised learning as in Gnudi et al.  (2020); a reference for the other methods.

    Examples
    --------
    >>> samples = torch.tensor([1.0, 3.0, 2.5]).reshape(1, 3, 1, 1, 1)
    >>> split = Noise2Clean(2)
    >>> split.draw(samples, torch.Generator().manual_seed(0)).target.item()
    2.5
    >>> split.infer(lambda x: x, samples[:, :2]).item()
    2.0
    """

    domain: ClassVar[str] = "clean"
    whole: ClassVar[bool] = True

    realisations: int = 1

    @property
    def n_parts(self) -> int:
        """The realisations and the clean image."""
        return self.realisations + 1

    @property
    def n_clean(self) -> int:
        """One: the last part."""
        return 1

    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Draw one realisation for each sample."""
        batch = torch.arange(samples.shape[0])
        seen = torch.randint(self.realisations, batch.shape, generator=generator)
        return Pair(samples[batch, seen], self._middle(samples[:, -1]), torch.ones(1, 1, 1, 1))

    def judge(self, network: Network, samples: Samples, weight: Tensor) -> Judgement:
        """Return the true error of the mean output, and that of the mean of the noisy parts."""
        noisy, clean = samples[:, :-1], self._middle(samples[:, -1]).double()
        error = (self.infer(network, noisy) - clean).square()
        noise = (self._middle(noisy).mean(dim=1) - clean).square()
        return averaged(error, noise, weight)

    def on_scan(self, shape: ScanShape) -> Noise2Clean:
        """Return the method, with no more slices than the scan has rows.

        Raises
        ------
        SettingsError
            The method cannot be used for a single scan, or not with this network.
        """
        super().on_scan(shape)
        split = self
        if split.realisations != 1:
            raise SettingsError(
                f"noise2clean must have 1 realisation of a scan, got {split.realisations}; leave it out"
            )
        if shape.dimensions == 3:
            raise SettingsError("noise2clean must have a 2-D network, got a 3-D one; give it more --slices instead")
        return replace(split, slices=min(split.n_slices, shape.odd_rows))
