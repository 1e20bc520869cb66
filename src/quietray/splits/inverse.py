"""Noise2Inverse: split the angles, reconstruct each part, train one part against the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from quietray.errors import GeometryError, SettingsError
from quietray.metrics.noreference import Judgement, judge_alternating, judge_left_out
from quietray.splits.base import Neighbourhood, Network, Pair, ScanShape, Split
from quietray.types import Channels, Samples

__all__ = ["Noise2Inverse"]

_FEWEST_VIEWS = 0.2  # in a subset, per detector column
_DEPTH = 16  # slices of a sample for networks of three dimensions


@dataclass(frozen=True)
class Noise2Inverse(Split):
    """Noise2Inverse on reconstructed slices.

    The views are dealt to `parts` subsets, ``j::parts``, and each subset is reconstructed on its own.  The noise of a
    radiograph ends up in one subset only, so the reconstructions are independent although the noise within each of
    them is not.

    Parameters
    ----------
    parts
        Number of angular subsets, K.  :func:`quietray.denoise` makes the default of 4 a 2 where a subset would have
        less than a fifth as many views as the detector has columns.
    input
        ``X:1``: the network sees the mean of K - 1 reconstructions and meets the last one.  ``1:X``: the reverse.
    slices
        Adjacent slices that the network sees (odd); 1 is 2-D, more is 2.5-D.
    volume
        Whether the network has three dimensions: it sees `slices` slices, even or odd, and returns and meets them all.
    times
        Steps of a series that the network sees (odd): the one to be denoised and its neighbours in time.  Those were
        measured apart, so that all of their subsets are shown.
    channels
        Channels of a spectral series; the network sees and returns them all, each in its own scale.

    Notes
    -----
    Hendriksen, Pelt & Batenburg (2020), doi:10.1109/TCI.2020.3019647.

    Examples
    --------
    >>> split = Noise2Inverse(parts=2, slices=1)
    >>> pair = split.draw(torch.rand(3, 2, 1, 8, 8), torch.Generator().manual_seed(0))
    >>> pair.input.shape == pair.target.shape
    True
    """

    needs_linear: ClassVar[bool] = True
    sees_series: ClassVar[bool] = True
    verdicts: ClassVar[tuple[str, ...]] = ("noise2inverse",)
    prior: ClassVar[str | None] = "volume"
    _dealt: ClassVar[bool] = False  # of an instance: no setting, for the scan decides

    parts: int = 4
    input: Literal["X:1", "1:X"] = "X:1"
    slices: int = 7
    volume: bool = False
    times: int = 1
    channels: int = 1

    def __post_init__(self) -> None:
        if self.parts < 2:
            raise SettingsError(f"parts must be at least 2 (one to see, one to meet), got {self.parts}")
        if self.input not in ("X:1", "1:X"):
            raise SettingsError(f"input must be 'X:1' or '1:X', got '{self.input}'")
        if self.slices < 1 or (self.slices % 2 == 0 and not self.volume):
            raise SettingsError(f"slices must be odd, so that there is a middle one, got {self.slices}")
        if self.times < 1 or self.times % 2 == 0:
            raise SettingsError(f"times must be odd, so that there is a middle one, got {self.times}")
        if self.channels < 1:
            raise SettingsError(f"channels must be at least 1, got {self.channels}")
        if (self.times > 1) + (self.channels > 1) + self.volume > 1:
            raise SettingsError("only one of times, channels and volume must be used at once; leave the others out")

    @property
    def n_parts(self) -> int:
        """Angular subsets in a sample."""
        return self.parts

    @property
    def n_slices(self) -> int:
        """Slices in a sample."""
        return self.neighbourhood.size

    @property
    def n_outputs(self) -> int:
        """The middle slice of every channel, or all slices of a volume."""
        return self.slices if self.volume else self.channels

    @property
    def neighbourhood(self) -> Neighbourhood:
        """Neighbours in space, in time, and all channels."""
        return Neighbourhood(self.slices, self.times, self.channels)

    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Draw, for each sample, the subset that stands alone."""
        alone = torch.randint(self.parts, (samples.shape[0],), generator=generator)
        given, wanted = self._views(samples.sum(dim=1), samples[torch.arange(samples.shape[0]), alone])
        return Pair(given, wanted, torch.ones(1, 1, 1, 1))

    def choices(self, samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the K choices of the samples: input ``(batch, slice, y, x)`` and target ``(batch, output, y, x)``."""
        total = samples.sum(dim=1)
        for part in range(self.parts):
            yield self._views(total, samples[:, part])

    def unseen(self, samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the same: no target is part of its input."""
        return self.choices(samples)

    def infer(self, network: Network, samples: Samples) -> Channels:
        """Return the mean of the network's K outputs."""
        outputs = [network(given).float() for given, _ in self.choices(samples)]
        return torch.stack(outputs).mean(dim=0)

    def judge(self, network: Network, samples: Samples, weight: Tensor) -> Judgement:
        """Estimate the error of the mean of the K outputs from the subset that each of them did not see."""
        choices = list(self.choices(samples))
        outputs = torch.stack([network(given).float() for given, _ in choices])
        targets = torch.stack([wanted for _, wanted in choices])
        inputs = torch.stack([given[:, self._outputs] for given, _ in choices])
        if not self.streaky:
            return judge_alternating(outputs, targets, weight)
        parts_in_target = 1 if self.input == "X:1" else self.parts - 1
        return judge_left_out(outputs, targets, inputs, weight, parts_in_target, self.parts)

    @property
    def streaky(self) -> bool:
        """Whether streaks are taken for noise: not where the even and the odd subsets tell the noise.

        They do not tell that of flats of their own, a part of which is streaks that add up to zero over the subsets: in
        six scans with one flat to a subset estimates were 1.0 dB too high on average, those of :func:`judge_left_out`
        0.8 dB, and scattered by 1.2 and 0.8 dB.
        """
        return self._dealt or self.input != "X:1" or self.parts % 2 == 1

    @property
    def _outputs(self) -> slice:
        """Return where in a sample the slices stand that the network returns."""
        if self.volume:
            return slice(None)
        first = self.times // 2 * self.slices + self.slices // 2
        return slice(first, None, self.slices) if self.channels > 1 else slice(first, first + 1)

    def _views(self, total: Tensor, single: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the network sees and what it meets when the subset `single` stands alone."""
        others = (total - single) / (self.parts - 1)
        given, wanted = (others, single) if self.input == "X:1" else (single, others)
        if self.times > 1:
            now = self.times // 2 * self.slices
            before, _, after = (total / self.parts).split((now, self.slices, now), dim=1)
            given = torch.cat((before, given[:, now : now + self.slices], after), dim=1)
        return given, wanted[:, self._outputs]

    def half(self, parts: Samples) -> Sequence[Tensor]:
        """Return their mean where the network sees the mean of several, else each of them."""
        return [parts.mean(dim=1)] if self.input == "X:1" else parts.unbind(1)

    def on_scan(self, shape: ScanShape) -> Noise2Inverse:
        """Return the method with no more slices than there are rows, and fewer subsets where they would be too sparse.

        Streaks of sparse subsets add up to nothing, so that the input's are the negative of the target's.  The network
        learns to turn them round, and the noise of that band with them: on 375 views of 835 columns, air came out with
        the noise of 10 pixels' period inverted (correlation -0.6) until there were two subsets.

        Raises
        ------
        GeometryError
            There are too few views.
        SettingsError
            There are several scans, or it is set up for a series.
        """
        split = self
        super().on_scan(shape)
        if split.times * split.channels > 1:
            raise SettingsError(
                f"times and channels must be 1 for a single scan, got {split.times} and {split.channels}; name the "
                "other scans with --series or --channels, or cut one acquisition into steps with --views-per-step"
            )
        if split.parts == 4 and shape.views < 4 * _FEWEST_VIEWS * shape.columns:
            split = replace(split, parts=2)
        if shape.views < 2 * split.parts:
            raise GeometryError(
                f"Noise2Inverse with {split.parts} parts must have at least {2 * split.parts} views, got "
                f"{shape.views}; use fewer parts"
            )
        if shape.dimensions == 3:
            return replace(split, volume=True, slices=min(_DEPTH, shape.rows))
        return replace(split, slices=min(split.slices, shape.odd_rows))

    def with_own_flats(self) -> Noise2Inverse:
        """Return the method for subsets that have flats of their own."""
        found = replace(self)
        object.__setattr__(found, "_dealt", True)
        return found

    def as_served(self, bound: Split) -> Noise2Inverse:
        """Return the method with the subsets that it was given."""
        return replace(self, parts=bound.n_parts)

    @classmethod
    def candidates(cls) -> dict[str, Split]:
        """Return it on single slices and on neighbouring ones."""
        return {"noise2inverse 2-D": cls(slices=1), "noise2inverse 2.5-D": cls()}
