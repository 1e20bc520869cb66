"""What the held-out rows say about a result, and what the user should be warned of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from quietray.assessment.halves import moved
from quietray.inference.denoiser import Denoiser
from quietray.method import METHODS, Method
from quietray.metrics.image import psnr
from quietray.metrics.noreference import neighbour_correlation, residual_correlation, streaks
from quietray.training.batches import TrainingVolume
from quietray.training.loop import TrainingData, judge_held_out
from quietray.training.state import NOT_WHITE

__all__ = ["Evidence", "warnings_of"]

_FEW_STEPS = 200
_NAMES = {"noise2inverse": "Noise2Inverse"}  # as their papers spell them
_PIXELS = 2**21  # to judge the finished denoiser by
_COARSER = 1.25  # resolution after denoising over that before, to be warned of


@dataclass(frozen=True)
class Evidence:
    """What the held-out rows say, in attenuation.

    Parameters
    ----------
    error, noise
        Estimated mean squared error of the result, and of the reconstruction without denoising.
    interval
        90 % bootstrap interval of `error`, over blocks of pixels.
    correlation
        Of the residuals of two parts, or with one part of neighbouring pixels' residuals; 0 when the noise is
        independent, as the method needs.
    offset
        Chance that the judgements during training had in common, for they saw fewer pixels; to be taken from them.
    """

    error: float
    noise: float
    interval: tuple[float, float]
    correlation: float
    offset: float = 0.0

    @classmethod
    def measure(cls, denoiser: Denoiser, data: TrainingVolume) -> Evidence:
        """Judge a denoiser on the held-out rows of scaled data, with all that it does at inference."""
        judged, device = cls.judged(denoiser, data), denoiser.device
        (seen, shown), total, weights = data.judged, 0.0, 0.0
        for samples, weight in data.held_out():
            clean = denoiser.split.infer(denoiser.evaluate, samples.to(device)).cpu()
            pixels = float(weight.sum())
            total += _correlation(samples[:, :, seen] - clean[:, shown : shown + 1], weight) * pixels
            weights += pixels
        found = replace(judged, correlation=total / max(weights, 1e-12))
        if not denoiser.split.angular:
            return found
        # what subsets differ by beyond noise was taken for noise
        missed = streaks(data.parts, data.weight) * (denoiser.scale.high - denoiser.scale.low) ** 2
        low, high = found.interval
        return replace(
            found, error=found.error + missed, interval=(low + missed, high + missed), offset=found.offset - missed
        )

    @classmethod
    def judged(cls, denoiser: Denoiser, data: TrainingData) -> Evidence:
        """Judge a denoiser on held-out samples, by its method alone."""
        span = (denoiser.scale.high - denoiser.scale.low) ** 2
        few, many = (
            judge_held_out(denoiser.split, denoiser.evaluate, data, denoiser.device, pixels)
            for pixels in (2**17, _PIXELS)
        )
        low, high = many.interval()
        offset = (few.error - many.error) * span
        return cls(many.error * span, many.noise * span, (low * span, high * span), 0.0, offset)

    def shared(self, share: float) -> Evidence:
        """Return what a result has of which only a share was denoised: the rest has the error that it had.

        Examples
        --------
        >>> Evidence(1.0, 4.0, (0.5, 2.0), 0.0).shared(0.5).error
        2.5
        """
        error, low, high = (share * one + (1 - share) * self.noise for one in (self.error, *self.interval))
        return replace(self, error=error, interval=(low, high))

    @property
    def gain(self) -> float:
        """Estimated gain in PSNR, in dB; NaN where the error is too small to be told from none."""
        return psnr(self.error, 1.0) - psnr(self.noise, 1.0)

    @property
    def gain_interval(self) -> tuple[float, float]:
        """90 % interval of the gain, in dB; infinite above where the error may be none at all.

        An error below zero is impossible, so an estimate that comes out there is off by at least as much: its size then
        bounds the error from above.
        """
        low, high = self.interval
        high = max(high, -low)

        def gain(error: float) -> float:
            return psnr(error, 1.0) - psnr(self.noise, 1.0) if error > 0 else math.inf

        return gain(high), gain(low)


def _correlation(residuals: Tensor, weight: Tensor) -> float:
    """Return the correlation of the parts' residuals, of pixels or of blocks of 4 x 4, whichever is further from 0.

    Streaks of few views are coarser than the noise of single pixels, which would hide them.
    """
    if residuals.shape[1] == 1:  # also of pixels that were not held out: single ones have no neighbours
        return neighbour_correlation(residuals, torch.ones_like(weight[:, 0]))
    weight = weight.amax(dim=1, keepdim=True)
    coarse = functional.avg_pool2d(residuals, 4), (functional.avg_pool2d(weight, 4) == 1).to(weight)
    found = [residual_correlation(each, used[:, 0]) for each, used in ((residuals, weight), coarse)]
    return max(found, key=abs)


def warnings_of(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what may be wrong with a result, each with what to do.

    Parameters
    ----------
    metrics
        The figures of the run, as in ``metrics.json``.
    """
    estimate, bias, scan = metrics["estimate"], metrics["log_bias"], metrics["scan"]
    gain, correlation = estimate["psnr_gain_db_at_least"], estimate["residual_correlation"]
    change, floored = metrics["volume"]["relative_change_of_mean"] or 0.0, metrics["correction"]["floored"]
    steps, parts = metrics["training"]["steps"], metrics["method"]["parts"]
    found, name = [], metrics["method"]["name"]
    method = METHODS.get(name, Method)
    if getattr(method, "needs_linear", False) and not metrics.get("reconstruction", {}).get("linear", True):
        found.append(
            f"{_NAMES.get(name, name)} was run on a reconstruction that is not linear, where the noise of an angular "
            "subset is no longer independent of what the subset shows: streaks and lost detail are learned as if they "
            "were the object. Denoise the radiographs (noise2self) or use noise2projection instead."
        )
    history = metrics["training"].get("history", ())
    known = any(entry["step"] == 0 for entry in history)  # it was good before the first step
    if metrics["method"]["parameters"] and 0 < steps < _FEW_STEPS and not known:
        found.append(
            f"The network was trained for only {steps} steps, too few to learn more than a blur; "
            "give a longer --budget."
        )
    if scan["covered_degrees"] < 170:
        found.append(
            f"The views cover only {scan['covered_degrees']:.0f} degrees, less than half a turn: edges along the "
            "missing directions are not in the data, and denoising does not bring them back."
        )
    if gain is None or gain < 0.5:
        found.append(
            "The held-out rows see no clear gain from denoising: the scan may be limited by something other than "
            "noise. Look at the pictures before using the result."
        )
    taught = method.domain == "clean"  # by what has no such bias: grey values may change
    if abs(change) > 0.02 and not taught:
        found.append(
            f"Denoising changed the mean attenuation by {change:+.1%}: the network has not learned the grey values "
            "well. Give a longer --budget before measuring anything."
        )
    split = metrics["method"]["domain"] == "volume"
    if not split and abs(correlation) > NOT_WHITE:
        found.append(
            f"What was taken away is not white (residuals of near pixels correlate by {correlation:+.2f}): the "
            "point response was not undone completely, or the network has begun to fit the noise. See what "
            "`quietray diagnose` says."
        )
    if estimate["psnr_gain_db"] is None and gain is not None:
        found.append(
            f"The error is too small for the held-out rows to tell it from none: the gain is at least {gain:.0f} dB, "
            "how much more is not known."
        )
    if split and correlation > 0.1:
        found.append(
            f"The angular subsets are not independent (residual correlation {correlation:+.2f}): rings, a wrong "
            "rotation axis or noisy flats are in all of them alike and stay in the result. Take more flats, or try "
            "--own-flats yes or --rings all."
        )
    if split and correlation < -0.05:
        found.append(
            f"The angular subsets differ by more than noise (residual correlation {correlation:+.2f}; "
            f"{scan['views'] / parts:.0f} views each for {scan['columns']} columns): with so few views each subset has "
            "streaks of its own. The estimated gain is too high and fine detail may be smoothed; "
            + ("use fewer parts (--parts 2), or more views." if parts > 2 else "measure more views.")
        )
    if floored > 1e-3:
        found.append(
            f"{floored:.2%} of the samples had fewer counts than one quantum or the dark's noise and were raised to "
            "that floor before the logarithm: attenuation is underestimated along those rays."
        )
    if not taught and bias is not None and bias["mean"] > 0.01 * bias["mean_line_integral"] > 0:
        share = bias["mean"] / bias["mean_line_integral"]
        found.append(
            f"The logarithm of so few counts overestimates the line integrals by {bias['mean']:.3g} on average "
            f"({share:.1%}), at worst {bias['worst']:.3g}; no self-supervised method removes this bias."
        )
    return (*found, *_of_halves(metrics.get("evidence") or {}, bool(metrics["method"]["parameters"])))


def _of_halves(evidence: Mapping[str, Any], trained: bool) -> list[str]:
    """Return what the resolution, and the means of regions, warn of."""
    found = []
    longer = "Give a longer --budget" if trained else "Take a weaker filter"
    for region in moved(evidence.get("regions") or []):
        before, after, error = (region[name] for name in ("before", "after", "error"))
        found.append(
            f"Denoising moved the mean of the {region['region']} region from {before:.4g} to {after:.4g}, which is "
            f"{abs(after - before) / max(error, 1e-12):.0f} standard errors: attenuation measured there is off by "
            f"that. {longer}, or measure in the volume before denoising."
        )
    resolution = evidence.get("resolution") or {}
    before, after = (resolution.get(f"{when}_half_bit_px") for when in ("before", "after"))
    if before is not None and (after is None or after > _COARSER * before):
        agreed = "nothing" if after is None else f"details down to {after:.1f} pixels"
        found.append(
            f"Denoised one by one, two halves of the data agree on {agreed}; as measured they agreed on details down "
            f"to {before:.1f} pixels: detail was lost. {longer}."
        )
    return found
