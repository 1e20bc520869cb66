"""Judging a result without ground truth, from measurements that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from quietray.metrics.blocks import student_interval
from quietray.types import Parts, Slice

__all__ = [
    "Judgement",
    "averaged",
    "blocks_of",
    "judge_alternating",
    "judge_left_out",
    "neighbour_correlation",
    "residual_correlation",
    "streaks",
    "strongest_correlation",
]

_VOXELS = 2**22  # enough to tell the power of streaks
_BLOCK = 16  # pixels; the noise of a reconstruction is correlated over a few
_SLICES = 8  # that tell how much slices differ


@dataclass(frozen=True, eq=False)
class Judgement:
    """An estimate of how far a result is from the truth.

    Parameters
    ----------
    error
        Estimated mean squared error of the result; unbiased, so that it may come out negative when it is tiny.
    noise
        Estimated mean squared error of the plain average of all measurements, without any denoising.
    weight
        Sum of the pixels' weights, for averaging judgements.
    blocks
        ``(block, 3)``: error, noise and weight of each block of pixels, or of each of many slices, for
        :meth:`interval`; may be empty.
    correlation
        Of the residuals of neighbouring pixels, where the method needs white noise; else 0.
    pixels
        ``(batch, 1, y, x)``: the squared error of each pixel, unbiased and very noisy; None where it was not kept.
    """

    error: float
    noise: float
    weight: float
    blocks: Float[np.ndarray, "block 3"] = field(default_factory=lambda: np.empty((0, 3)))
    correlation: float = 0.0
    pixels: Tensor | None = None

    @classmethod
    def pooled(cls, judgements: Iterable[Judgement]) -> Judgement:
        """Return the weighted mean of judgements, with all their blocks; of eight slices or more, each is a block."""
        found = list(judgements)
        total = sum(one.weight for one in found)
        error, noise, correlation = (
            sum(getattr(one, name) * one.weight for one in found) / max(total, 1e-12)
            for name in ("error", "noise", "correlation")
        )
        whole = np.array([(one.error, one.noise, one.weight) for one in found if one.weight > 0]).reshape(-1, 3)
        blocks = np.concatenate([np.empty((0, 3)), *(one.blocks for one in found)]) if len(whole) < _SLICES else whole
        return cls(error, noise, total, blocks, correlation)

    def interval(self, more: float = 0.0) -> tuple[float, float]:
        """Return the 90 % interval of the error; blocks hold what is correlated in space.

        Parameters
        ----------
        more
            Standard error that the blocks do not tell of.
        """
        return student_interval(self.blocks[:, 0], self.blocks[:, 2], more=more)

    def ratio(self, more: float = 0.0) -> tuple[float, float]:
        """Return the 90 % interval of the error over the noise, both of which the same blocks tell.

        Parameters
        ----------
        more
            Standard error that the blocks do not tell of, of the ratio.
        """
        if not self.noise > 0:
            return -math.inf, math.inf
        error, noise, weight = self.blocks.T
        share = self.error / self.noise
        low, high = student_interval((error - share * noise) / self.noise, weight, more=more)
        return share + low, share + high


def averaged(error: Tensor, noise: Tensor, weight: Tensor, correlation: float = 0.0) -> Judgement:
    """Return the judgement of maps of estimated squared errors.

    Parameters
    ----------
    error, noise
        Of the result, and of the data without denoising, ``(batch, 1, y, x)``; finite, also where they do not count.
    weight
        Of each pixel, broadcastable.
    correlation
        Of neighbouring residuals.

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
    """Estimate the error of the mean of K outputs, each computed without the measurement that judges it.

    With independent zero-mean noise, ``E (f_j - b_j)^2 = MSE(f_j) + var(b_j)``.  The input ``a_j`` and the target
    ``b_j`` together hold all K parts once, so that ``E (b_j - a_j)^2`` gives the variance of one part, and with it
    ``var(b_j)``.  The mean of the outputs is better than each of them by exactly their spread:
    ``mean_j (f_j - x)^2 = (f - x)^2 + mean_j (f_j - f)^2``.

    Parameters
    ----------
    outputs, targets, inputs
        ``(choice, batch, 1, y, x)``: what the network returned, the measurement it did not see, the one it did.
    weight
        Weight of each pixel, broadcastable to one choice.
    parts_in_target, parts
        How many of the K equally noisy parts each target is the mean of, and K.

    Returns
    -------
    Judgement
        Of the mean of the outputs, with its pixels; `noise` is that of the mean of all parts.
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

    return Judgement(mean(error), mean(noise), total, blocks_of(error, noise, weight), pixels=error)


def judge_alternating(outputs: Tensor, targets: Tensor, weight: Tensor) -> Judgement:
    r"""Estimate the error of the mean of an even number of outputs, each computed without the subset that judges it.

    Interleaved angular subsets differ by noise, and by streaks that add up to nothing over all of them.  By Parseval's
    theorem over the subsets, with the transforms F of the outputs and P of the subsets,
    :math:`\mathrm{mean}_j (f_j - b_j)^2` less the spread of the outputs is
    :math:`(f - b)^2 + \sum_{k > 0} (|P_k|^2 - 2 F_k P_k^*) / K^2`.  Noise has the same power, and the same product with
    the outputs, at all k; streaks hardly any at the highest one, which is the difference between the even and the odd
    subsets and stands for all.  Unlike the measured power of streaks, which :func:`streaks` tells, it also knows how
    many of them the outputs have kept.

    Parameters
    ----------
    outputs, targets
        ``(choice, batch, 1, y, x)``: what the network returned, and the subset that it did not see, in their order.
    weight
        Weight of each pixel, broadcastable to one choice.

    Returns
    -------
    Judgement
        Of the mean of the outputs, with its pixels; `noise` is that of the mean of all subsets.

    Examples
    --------
    >>> noise = 0.9 * torch.randn(4, 1, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    >>> streak = torch.tensor([1.0, 0.0, -1.0, 0.0]).reshape(4, 1, 1, 1, 1)
    >>> found = judge_alternating(torch.full_like(noise, 0.6), noise + streak, torch.ones(1))
    >>> round(found.error, 1), round(found.noise, 1)  # 0.6 squared, and a quarter of the noise of a subset
    (0.4, 0.2)
    """
    n = len(outputs)
    weight = weight.expand_as(outputs[0]).double()
    signs = torch.ones(n, dtype=torch.float64, device=outputs.device)
    signs[1::2] = -1
    highest = [torch.einsum("j,j...->...", signs, each.double()) for each in (outputs, targets)]
    noise = highest[1].square() / n**2
    off = outputs.double().mean(0) - targets.double().mean(0)
    error = off.square() - noise - 2 * (n - 1) * highest[0] * highest[1] / n**2
    total = float(weight.sum())
    means = [float((weight * x).sum()) / max(total, 1e-12) for x in (error, noise)]
    return Judgement(means[0], means[1], total, blocks_of(error, noise, weight), pixels=error)


def blocks_of(error: Tensor, noise: Tensor, weight: Tensor) -> Float[np.ndarray, "block 3"]:
    """Return the mean error and noise, and the weight, of blocks of 16 x 16 pixels, without empty ones.

    Parameters
    ----------
    error, noise, weight
        ``(batch, 1, y, x)``.
    """
    sums = [
        functional.avg_pool2d(x, _BLOCK, ceil_mode=True, divisor_override=1)
        for x in (error * weight, noise * weight, weight)
    ]
    table = torch.stack([x.flatten() for x in sums], dim=1)
    table = table[table[:, 2] > 0]
    table[:, :2] /= table[:, 2:]
    return table.cpu().numpy()


def residual_correlation(residuals: Tensor, weight: Tensor) -> float:
    """Return the mean Pearson correlation between the residuals of any two parts.

    Independent noise gives 0; what is common to all parts (rings) a positive value, what differs by more than noise
    (streaks from few views) a negative one.

    Parameters
    ----------
    residuals
        ``(batch, part, y, x)``: each part minus the denoised slice.
    weight
        ``(batch, y, x)``.

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
    norms = inside.square().sum(dim=1).sqrt().clamp_min(1e-150)  # their product must not underflow
    correlation = (inside @ inside.T) / (norms[:, None] * norms[None])
    return float((correlation.sum() - correlation.diagonal().sum()) / (parts * (parts - 1)))


def neighbour_correlation(residuals: Tensor, weight: Tensor) -> float:
    """Return the mean correlation between the residuals of direct neighbours, across and down.

    Parameters
    ----------
    residuals
        ``(batch, 1, y, x)``: the measured image minus the denoised one; NaN where nothing was measured.
    weight
        ``(batch, y, x)``.

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
    """Return the correlation between the residuals of pixels up to `reach` apart that is furthest from zero.

    Parameters
    ----------
    residuals
        ``(batch, 1, y, x)``: the measured image minus the denoised one; NaN where nothing was measured.
    weight
        ``(batch, y, x)``.
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


def streaks(parts: Parts, weight: Slice) -> float:
    """Return by how much the left-out measurements underestimate squared errors because angular subsets have streaks.

    The subsets ``j::K`` differ by noise, and by streaks that add up to nothing over all of them.  What differs is taken
    for noise, so that more noise is taken away from the estimate than there is.  The Fourier transform over j tells
    them apart: noise has the same power at all frequencies, streaks hardly any at the highest one, which is the
    difference between the even and the odd views.  With two or three subsets nothing can be told: 0.

    Parameters
    ----------
    parts
        ``(part, z, y, x)``.
    weight
        ``(y, x)``, zero outside the field of view.

    Examples
    --------
    >>> streak = np.full((1, 8, 8), 1.0)
    >>> parts = np.stack([streak, 0 * streak, -streak, 0 * streak])
    >>> round(streaks(parts, np.ones((8, 8))), 6)  # of which a third is taken away too much
    0.166667
    """
    n_parts, n_z = parts.shape[:2]
    every = max(1, n_z * int((weight > 0).sum()) // _VOXELS)
    power = np.zeros(n_parts)
    slices = range(min(every // 2, n_z - 1), n_z, every)
    for z in slices:
        power += np.square(np.abs(np.fft.fft(parts[:, z][:, weight > 0].astype(np.float64), axis=0))).mean(axis=1)
    excess = power[1:] - power[n_parts // 2]
    return max(0.0, float(excess.sum() / (len(slices) * n_parts**2 * (n_parts - 1))))
