"""Error estimates without ground truth, from measurements that the result has not seen."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from quietray.metrics.blocks import block_sums, error_by_chance, error_of_mean, student_interval
from quietray.types import Slice

__all__ = [
    "Judgement",
    "averaged",
    "blocks_of",
    "judge_left_out",
    "judge_subsets",
    "neighbour_correlation",
    "residual_correlation",
    "streaks_of_halves",
    "strongest_correlation",
]

_BLOCK = 16  # in pixels; the noise of a reconstruction is correlated over a few
_UPPER = 1.645  # standard errors from the middle of a normal distribution to the end of its 90 % interval
_SLICES = 8  # slices needed to measure the variation between slices
_TOGETHER = 3  # slices in a row, beyond which their noise is independent


@dataclass(frozen=True, eq=False)
class Judgement:
    """Estimated error of a result.

    Parameters
    ----------
    error
        Estimated mean squared error of the result; unbiased, so it may be negative if the true error is tiny.
    noise
        Estimated mean squared error before denoising, of the average of all measurements.
    weight
        Sum of the weights of the pixels, for averaging several estimates.
    blocks
        Error, noise, weight and `subtracted` of each block of pixels, or of each slice if there are many, ``(block,
        4)``; used by :meth:`interval`, and may be empty.
    correlation
        Correlation between residuals of neighbouring pixels, if the method needs white noise; else 0.
    pixels
        Squared error of each pixel, ``(batch, 1, y, x)``, unbiased and very noisy; None if it was not kept.
    subtracted
        Noise that was subtracted from the squared difference between result and measurement, less twice what they
        share, if it was estimated from differences of measurements, independently of the noise of their mean; else NaN.
    """

    error: float
    noise: float
    weight: float
    blocks: Float[np.ndarray, "block 4"] = field(default_factory=lambda: np.empty((0, 4)))
    correlation: float = 0.0
    pixels: Tensor | None = None
    subtracted: float = math.nan

    @classmethod
    def pooled(cls, judgements: Iterable[Judgement]) -> Judgement:
        """Return the weighted mean of estimates with all their blocks; from eight slices on, each is a block.

        The noise of neighbouring slices is correlated if the detector blurs.  If there are many slices, up to three in
        a row are therefore one block.
        """
        found = list(judgements)
        total = sum(one.weight for one in found)
        error, noise, correlation, subtracted = (
            sum(getattr(one, name) * one.weight for one in found) / max(total, 1e-12)
            for name in ("error", "noise", "correlation", "subtracted")
        )
        slices = [(one.error, one.noise, one.weight, one.subtracted) for one in found if one.weight > 0]
        blocks = _grouped(np.array(slices).reshape(-1, 4))
        if len(slices) < _SLICES:
            blocks = np.concatenate([np.empty((0, 4)), *(one.blocks for one in found)])
        return cls(error, noise, total, blocks, correlation, subtracted=subtracted)

    def interval(self, more: float = 0.0) -> tuple[float, float]:
        """Return the 90 % confidence interval of the error, from blocks larger than the correlation length.

        Parameters
        ----------
        more
            Additional standard error that does not show up in the differences between blocks.
        """
        return student_interval(self.blocks[:, 0], self.blocks[:, 2], more=more)

    def ratio(self, more: float = 0.0) -> tuple[float, float]:
        """Return the 90 % confidence interval of the ratio of error and noise, from the same blocks.

        Parameters
        ----------
        more
            Additional standard error of the ratio that does not show up in the differences between blocks.

        Notes
        -----
        Let s be the fraction of the noise n that the result keeps.  What was subtracted, :math:`(1 - 2 s) a^2`, depends
        on other noise a, as large as n.  Apart from that, the estimated ratio is wrong by :math:`D (n^2 - a^2)`, with
        ``D = (1 - 2 s + error / n^2) / n^2``, which has twice the variance of :math:`D a^2`.  The scatter of the
        estimate between blocks shows less than that if a filter keeps much of the noise, since it is then that of a
        alone.  What it lacks is added.
        """
        if not self.noise > 0:
            return -math.inf, math.inf
        error, noise, weight, subtracted = self.blocks.T
        share = self.error / self.noise
        of_error = error - share * noise
        if math.isfinite(self.subtracted):
            seen = error_of_mean(of_error / self.noise, weight)[1]
            wrong = error_by_chance((subtracted + share * noise) / self.noise, weight)
            more = math.sqrt(more**2 + max(0.0, 2 * wrong**2 - seen**2))
        low, high = student_interval(of_error / self.noise, weight, more=more)
        return share + low, share + high


def _grouped(slices: Float[np.ndarray, "slice 4"]) -> Float[np.ndarray, "block 4"]:
    """Return the means over up to three slices in a row, as long as eight blocks are left."""
    size = min(_TOGETHER, max(1, len(slices) // _SLICES))
    starts = np.arange(0, len(slices) - size + 1, size)
    if size == 1:
        return slices
    weight = np.add.reduceat(slices[:, 2], starts)
    means = np.add.reduceat(slices * slices[:, 2:3], starts, axis=0) / weight[:, None]
    means[:, 2] = weight
    return means


def averaged(error: Tensor, noise: Tensor, weight: Tensor, correlation: float = 0.0) -> Judgement:
    """Return the estimate that results from maps of squared errors.

    Parameters
    ----------
    error, noise
        Squared errors of the result and of the data before denoising, ``(batch, 1, y, x)``; finite even where the
        weight is 0.
    weight
        Weight of each pixel, broadcastable.
    correlation
        Correlation between neighbouring residuals.

    Examples
    --------
    >>> error = torch.tensor([1.0, 9.0]).reshape(1, 1, 1, 2)
    >>> round(averaged(error, error + 1, torch.tensor([3.0, 1.0])).error, 6)
    3.0
    """
    weight = weight.expand_as(error).double()
    total = float(weight.sum())
    means = [float((weight * x.double()).sum()) / max(total, 1e-12) for x in (error, noise)]
    return Judgement(means[0], means[1], total, blocks_of(error.double(), noise.double(), weight), correlation)


def judge_left_out(
    outputs: Tensor, targets: Tensor, inputs: Tensor, weight: Tensor, parts_in_target: int, parts: int
) -> Judgement:
    """Estimate the error of the mean of K outputs, each computed without the measurement it is compared with.

    With independent zero-mean noise, ``E (f_j - b_j)^2 = MSE(f_j) + var(b_j)``.  The input ``a_j`` and the target
    ``b_j`` together contain each of the K parts once, so ``E (b_j - a_j)^2`` gives the variance of one part, and with
    it ``var(b_j)``.  The error of the mean of the outputs is smaller than that of a single output by exactly their
    variance: ``mean_j (f_j - x)^2 = (f - x)^2 + mean_j (f_j - f)^2``.

    Parameters
    ----------
    outputs, targets, inputs
        ``(choice, batch, 1, y, x)``: the outputs of the network, the measurements it has not seen, and those it has.
    weight
        Weight of each pixel, broadcastable to the shape of one choice.
    parts_in_target, parts
        Number of the K equally noisy parts whose mean is the target, and K.

    Returns
    -------
    Judgement
        Estimate for the mean of the outputs, including pixels; `noise` is that of the mean of all parts.
    """
    weight = weight.expand_as(outputs[0]).double()
    parts_in_input = parts - parts_in_target
    variance = (targets - inputs).double().square().mean(0) / (1 / parts_in_target + 1 / parts_in_input)
    against_target = (outputs - targets).double().square().mean(0)
    spread = (outputs - outputs.mean(0)).double().square().mean(0)
    error, noise = against_target - variance / parts_in_target - spread, variance / parts
    total = float(weight.sum())

    def mean(x: Tensor) -> float:
        return float((weight * x).sum()) / max(total, 1e-12)

    centred = [(each - each.mean(0)).double() for each in (outputs, targets)]
    subtracted = variance / parts_in_target + (2 * centred[0] * centred[1] - centred[1].square()).mean(0)
    blocks = blocks_of(error, noise, weight, subtracted)
    return Judgement(mean(error), mean(noise), total, blocks, pixels=error, subtracted=mean(subtracted))


def judge_subsets(outputs: Tensor, subsets: Tensor, weight: Tensor, alone: bool = False) -> Judgement:
    r"""Estimate the error of the mean of K outputs from interleaved angular subsets.

    Such subsets differ by noise and by streaks, which cancel in the sum over all subsets.  With the means f of the
    outputs and b of the subsets, the error is :math:`(f - b)^2` minus the noise of b plus twice the noise that f and b
    share.  Let F and P be the Fourier transforms over the subsets.  Noise is :math:`|P_k|^2 / K^2` at every k.  If each
    output was computed from all subsets but one, the shared noise is :math:`-(K - 1) F_k P_k^* / K^2` at every k > 0;
    if it was computed from one subset alone, :math:`F_k P_k^* / K^2`.  Streaks have hardly any power at the highest k,
    which is therefore used: for an even K, the difference between the even and the odd subsets.  What remains of the
    streaks in the outputs is thus not counted either, so that leaving everything as it is gains exactly nothing.

    Parameters
    ----------
    outputs, subsets
        ``(choice, batch, 1, y, x)``: the outputs of the network, and for each of them, in the same order, the subset it
        has not seen, or the only one it has seen.
    weight
        Weight of each pixel, broadcastable to the shape of one choice.
    alone
        Whether each output was computed from its subset alone; by default, from all others.

    Returns
    -------
    Judgement
        Estimate for the mean of the outputs, including pixels; `noise` is that of the mean of all subsets.

    Examples
    --------
    >>> noise = 0.9 * torch.randn(4, 1, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    >>> streak = torch.tensor([1.0, 0.0, -1.0, 0.0]).reshape(4, 1, 1, 1, 1)
    >>> found = judge_subsets(torch.full_like(noise, 0.6), noise + streak, torch.ones(1))
    >>> round(found.error, 1), round(found.noise, 1)  # 0.6 squared, and a quarter of the noise of a subset
    (0.4, 0.2)
    """
    n = len(outputs)
    weight = weight.expand_as(outputs[0]).double()
    turns = 2 * math.pi * (n // 2) / n * torch.arange(n, dtype=torch.float64, device=outputs.device)
    waves = torch.stack([turns.cos(), turns.sin()])
    of_outputs, of_subsets = (torch.einsum("wj,j...->w...", waves, each.double()) for each in (outputs, subsets))
    noise = of_subsets.square().sum(0) / n**2
    shared = (of_outputs * of_subsets).sum(0) / n**2 * (1 if alone else 1 - n)
    error = (outputs.double().mean(0) - subsets.double().mean(0)).square() - noise + 2 * shared
    total = float(weight.sum())
    subtracted = noise - 2 * shared
    means = [float((weight * x).sum()) / max(total, 1e-12) for x in (error, noise, subtracted)]
    blocks = blocks_of(error, noise, weight, subtracted)
    return Judgement(means[0], means[1], total, blocks, pixels=error, subtracted=means[2])


def streaks_of_halves(subsets: Float[np.ndarray, "8 z y x"], weight: Slice) -> float:
    """Return how much streaks the difference of the even and the odd views has, as a fraction of its noise, at most.

    With the Fourier transform P over eight subsets, this difference is :math:`P_4`.  Noise has the same power at
    every k; the power of streaks falls towards :math:`P_4` and is level there.  What :math:`P_3` has more than
    :math:`P_4` is therefore about as much as the streaks of :math:`P_4` themselves, or more.  Returned is the upper end
    of its 90 % interval, from blocks of 16 x 16 pixels.

    Parameters
    ----------
    subsets
        Reconstructions of the views ``j::8``.
    weight
        Weight of each pixel of a slice.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(0, 1, (8, 4, 96, 96))
    >>> f"{streaks_of_halves(noise, np.ones((96, 96))):.1f}"
    '0.0'
    >>> streak = 3 * np.cos(np.arange(8) * 6 * np.pi / 8).reshape(-1, 1, 1, 1)
    >>> streaks_of_halves(noise + streak, np.ones((96, 96))) > 1
    True
    """
    third, fourth = (_power(subsets, k) for k in (3, 4))
    third -= fourth
    more, noise = (block_sums(weight * power, _BLOCK).ravel().astype(np.float64) for power in (third, fourth))
    error = float(np.sqrt(np.square(more - more.sum() * noise / noise.sum()).sum()))
    return float((more.sum() + _UPPER * error) / max(noise.sum(), 1e-300))


def _power(subsets: Float[np.ndarray, "8 z y x"], k: int) -> Float[np.ndarray, "z y x"]:
    """Return the power of the k-th harmonic over eight subsets, with room for a few subsets only."""
    power: np.ndarray = np.zeros(subsets.shape[1:], np.float32)
    for turned in (np.cos, np.sin):
        summed = np.zeros_like(power)
        for j, subset in enumerate(subsets):
            summed += np.float32(turned(2 * np.pi * k * j / 8)) * subset
        power += np.square(summed, out=summed)
    return power


def blocks_of(
    error: Tensor, noise: Tensor, weight: Tensor, subtracted: Tensor | None = None
) -> Float[np.ndarray, "block 4"]:
    """Return means of error and noise, weight, and mean of `subtracted` of blocks of 16 x 16 pixels, if not empty.

    Parameters
    ----------
    error, noise, weight, subtracted
        Maps ``(batch, 1, y, x)``; without the last one, its means are NaN.
    """
    maps = (error * weight, noise * weight, weight, *([] if subtracted is None else [subtracted * weight]))
    sums = [functional.avg_pool2d(x, _BLOCK, ceil_mode=True, divisor_override=1).flatten() for x in maps]
    table = torch.stack(sums if subtracted is not None else [*sums, torch.full_like(sums[0], math.nan)], dim=1)
    table = table[table[:, 2] > 0]
    table[:, [0, 1, 3]] /= table[:, 2:3]
    return table.cpu().numpy()


def residual_correlation(residuals: Tensor, weight: Tensor) -> float:
    """Return the mean Pearson correlation between the residuals of pairs of parts.

    Independent noise gives 0.  Errors common to all parts (rings) give a positive value; differences beyond noise
    (streaks from few views) give a negative one.

    Parameters
    ----------
    residuals
        Each part minus the denoised slice, ``(batch, part, y, x)``.
    weight
        Weight of each pixel, ``(batch, y, x)``.

    Examples
    --------
    >>> import torch
    >>> noise = torch.randn(1, 3, 200, 200, generator=torch.Generator().manual_seed(0))
    >>> abs(residual_correlation(noise, torch.ones(1, 200, 200))) < 0.02
    True
    """
    parts = residuals.shape[1]
    inside = residuals.double().movedim(1, 0).reshape(parts, -1)[:, weight.reshape(-1) > 0]
    if inside.shape[1] < 2:
        return 0.0
    inside = inside - inside.mean(dim=1, keepdim=True)
    norms = inside.square().sum(dim=1).sqrt().clamp_min(1e-150)  # avoids underflow of their product
    correlation = (inside @ inside.T) / (norms[:, None] * norms[None])
    return float((correlation.sum() - correlation.diagonal().sum()) / (parts * (parts - 1)))


def neighbour_correlation(residuals: Tensor, weight: Tensor) -> float:
    """Return the mean correlation between the residuals of direct neighbours, horizontally and vertically.

    Parameters
    ----------
    residuals
        The measured image minus the denoised one, ``(batch, 1, y, x)``; NaN where nothing was measured.
    weight
        Weight of each pixel, ``(batch, y, x)``.

    Examples
    --------
    >>> noise = torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    >>> abs(neighbour_correlation(noise, torch.ones(1, 200, 200))) < 0.02
    True
    """
    image = residuals[:, 0].double()
    use = torch.isfinite(image) & (weight > 0)
    if int(use.sum()) < 4:
        return 0.0
    centred = torch.where(use, image - image[use].mean(), torch.zeros_like(image))
    variance = float(centred.square().sum() / use.sum())
    found = []
    for axis in (-1, -2):
        n = image.shape[axis] - 1
        pairs = (use.narrow(axis, 0, n) & use.narrow(axis, 1, n)).sum()
        product = (centred.narrow(axis, 0, n) * centred.narrow(axis, 1, n)).sum()
        found.append(float(product / pairs.clamp_min(1)) / max(variance, 1e-300))
    return sum(found) / 2


def strongest_correlation(residuals: Tensor, weight: Tensor, reach: int) -> float:
    """Return the correlation, of largest magnitude, between the residuals of pixels up to `reach` apart.

    Parameters
    ----------
    residuals
        The measured image minus the denoised one, ``(batch, 1, y, x)``; NaN where nothing was measured.
    weight
        Weight of each pixel, ``(batch, y, x)``.
    reach
        Largest lag along rows and columns, such as the half-width of a point response.

    Examples
    --------
    >>> noise = torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    >>> shared = noise - 0.5 * noise.roll((3, 1), (2, 3))
    >>> round(strongest_correlation(shared, torch.ones(1, 200, 200), 3), 1)
    -0.4
    """
    image = residuals[:, 0].double()
    use = torch.isfinite(image) & (weight > 0)
    if int(use.sum()) < 4:
        return 0.0
    centred = torch.where(use, image - image[use].mean(), torch.zeros_like(image))
    variance = float(centred.square().sum() / use.sum())
    height, width = image.shape[1:]
    found = [0.0]
    for dy in range(min(reach, height - 1) + 1):
        for dx in range(-min(reach, width - 1), min(reach, width - 1) + 1):
            if (dy, dx) <= (0, 0):
                continue
            one = (slice(None), slice(0, height - dy), slice(max(0, -dx), width - max(0, dx)))
            other = (slice(None), slice(dy, height), slice(max(0, dx), width - max(0, -dx)))
            pairs = int((use[one] & use[other]).sum())
            found.append(float((centred[one] * centred[other]).sum()) / max(pairs, 1) / max(variance, 1e-300))
    return max(found, key=abs)
