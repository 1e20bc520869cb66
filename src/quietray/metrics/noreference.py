"""Judging a result without ground truth, from measurements that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Judgement", "judge_left_out", "residual_correlation"]


@dataclass(frozen=True)
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
    """

    error: float
    noise: float
    weight: float


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
        Of the mean of the outputs; `noise` is that of the mean of all parts.
    """
    weight = weight.expand_as(outputs[0])
    total = weight.sum().clamp_min(1e-12)

    def mean(x: Tensor) -> float:
        return float((weight * x.double()).sum() / total)

    parts_in_input = parts - parts_in_target
    part_variance = mean((targets - inputs).double().square().mean(0)) / (1 / parts_in_target + 1 / parts_in_input)
    against_target = mean((outputs - targets).double().square().mean(0))
    spread = mean((outputs - outputs.mean(0)).double().square().mean(0))
    return Judgement(
        error=against_target - part_variance / parts_in_target - spread,
        noise=part_variance / parts,
        weight=float(total),
    )


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
    norms = inside.square().sum(dim=1).sqrt().clamp_min(1e-300)
    correlation = (inside @ inside.T) / (norms[:, None] * norms[None])
    return float((correlation.sum() - correlation.diagonal().sum()) / (parts * (parts - 1)))
