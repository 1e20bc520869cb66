"""Noise2Inverse: split the views, reconstruct each subset, and train one reconstruction against the others."""

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

_FEWEST_VIEWS = 0.2  # views of a subset, per detector column
_DEPTH = 16  # slices of a sample for 3-D networks


@dataclass(frozen=True)
class Noise2Inverse(Split):
    """Noise2Inverse on reconstructed slices.

    The views are split into `parts` angular subsets, ``j::parts``, and each subset is reconstructed separately.  The
    noise of a radiograph enters only one subset, so the reconstructions have independent noise, although the noise
    within each of them is correlated.

    Parameters
    ----------
    parts
        Number of angular subsets, K.  :func:`quietray.denoise` reduces the default of 4 to 2 if a subset would have
        fewer views than a fifth of the number of detector columns.
    input
        ``X:1``: the input is the mean of K - 1 reconstructions and the target is the remaining one.  ``1:X``: the
        reverse.
    slices
        Number of adjacent slices in the input (odd); 1 for 2-D, more for 2.5-D.
    volume
        Whether the network is three-dimensional: it takes and returns all `slices` slices, and their number may be
        even.
    times
        Number of time steps in the input (odd): the step that is denoised and its neighbours.  The neighbours were
        measured separately, so all of their subsets are used.
    channels
        Number of channels of a spectral series; the network takes and returns all of them, each scaled separately.

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
    _dealt: ClassVar[bool] = False  # set per instance; not a setting, because it depends on the scan

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
        """Number of angular subsets in a sample."""
        return self.parts

    @property
    def n_slices(self) -> int:
        """Number of slices in a sample."""
        return self.neighbourhood.size

    @property
    def n_outputs(self) -> int:
        """The middle slice of every channel, or all slices of a volume."""
        return self.slices if self.volume else self.channels

    @property
    def neighbourhood(self) -> Neighbourhood:
        """Neighbouring slices, time steps and all channels."""
        return Neighbourhood(self.slices, self.times, self.channels)

    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Draw, for each sample, which subset stands alone."""
        alone = torch.randint(self.parts, (samples.shape[0],), generator=generator)
        given, wanted = self._views(samples.sum(dim=1), samples[torch.arange(samples.shape[0]), alone])
        return Pair(given, wanted, torch.ones(1, 1, 1, 1))

    def choices(self, samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all K pairs of the samples: input ``(batch, slice, y, x)`` and target ``(batch, output, y, x)``."""
        total = samples.sum(dim=1)
        for part in range(self.parts):
            yield self._views(total, samples[:, part])

    def unseen(self, samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the same pairs: no target is part of its input."""
        return self.choices(samples)

    def infer(self, network: Network, samples: Samples) -> Channels:
        """Return the mean of the network's K outputs."""
        outputs = [network(given).float() for given, _ in self.choices(samples)]
        return torch.stack(outputs).mean(dim=0)

    def judge(self, network: Network, samples: Samples, weight: Tensor) -> Judgement:
        """Estimate the error of the mean of the K outputs, comparing each output with the subset it has not seen."""
        choices = list(self.choices(samples))
        outputs = torch.stack([network(given).float() for given, _ in choices])
        targets = torch.stack([wanted for _, wanted in choices])
        inputs = torch.stack([given[:, self._outputs] for given, _ in choices])
        if not self.streaky:
            return judge_alternating(outputs, targets, weight)
        parts_in_target = 1 if self.input == "X:1" else self.parts - 1
        return judge_left_out(outputs, targets, inputs, weight, parts_in_target, self.parts)

    @property
    def own_flats(self) -> bool:
        """Whether each subset has its own flats, because shared ones would leave rings."""
        return self._dealt

    @property
    def streaky(self) -> bool:
        """Whether streaks count as noise; not if the noise is estimated from even and odd subsets.

        Even and odd subsets cannot be used if each subset has its own flats: part of the noise of the flats then
        becomes streaks that cancel in the sum over the subsets.  In six scans with one flat per subset, PSNR estimates
        from them were 1.0 dB too high on average, with a spread of 1.2 dB; those of :func:`judge_left_out` were 0.8 dB
        too high, with a spread of 0.8 dB.
        """
        return self._dealt or self.input != "X:1" or self.parts % 2 == 1

    @property
    def _outputs(self) -> slice:
        """Return the positions of the network's output slices within a sample."""
        if self.volume:
            return slice(None)
        first = self.times // 2 * self.slices + self.slices // 2
        return slice(first, None, self.slices) if self.channels > 1 else slice(first, first + 1)

    def _views(self, total: Tensor, single: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input and the target of the network if the subset `single` stands alone."""
        others = (total - single) / (self.parts - 1)
        given, wanted = (others, single) if self.input == "X:1" else (single, others)
        if self.times > 1:
            now = self.times // 2 * self.slices
            before, _, after = (total / self.parts).split((now, self.slices, now), dim=1)
            given = torch.cat((before, given[:, now : now + self.slices], after), dim=1)
        return given, wanted[:, self._outputs]

    def half(self, parts: Samples) -> Sequence[Tensor]:
        """Return the mean of the parts if the network takes the mean of several subsets, else each part."""
        return [parts.mean(dim=1)] if self.input == "X:1" else parts.unbind(1)

    def on_scan(self, shape: ScanShape) -> Noise2Inverse:
        """Return the method, with no more slices than the scan has rows, and fewer subsets if they would be too sparse.

        The streaks of sparse subsets cancel in their sum, so the streaks of the input are the negative of those of the
        target.  The network then learns to invert them, together with the noise of the same spatial frequencies: for
        375 views and 835 columns, noise with a period of 10 pixels was inverted in air (correlation -0.6) unless only
        two subsets were used.

        Raises
        ------
        GeometryError
            There are too few views.
        SettingsError
            There are several scans, or the method is set up for a series.
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
        """Return the method with the number of subsets that was used."""
        return replace(self, parts=bound.n_parts)

    @classmethod
    def candidates(cls) -> dict[str, Split]:
        """Return the variants with single and with neighbouring slices."""
        return {"noise2inverse 2-D": cls(slices=1), "noise2inverse 2.5-D": cls()}
