"""Estimated quality of a result from held-out rows, and warnings for the user."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from quietray.assessment.common_noise import CommonNoise
from quietray.assessment.gains import headline, too_wide
from quietray.assessment.halves import blurred, moved
from quietray.assessment.withheld import Reason
from quietray.inference.denoiser import Denoiser
from quietray.method import METHODS, Method
from quietray.metrics.image import psnr
from quietray.metrics.noreference import Judgement, neighbour_correlation, residual_correlation
from quietray.metrics.surroundings import ObjectMask
from quietray.splits.base import Network
from quietray.training.batches import TrainingVolume
from quietray.training.loop import TrainingData, judge_held_out
from quietray.training.state import NOT_WHITE

__all__ = ["Evidence", "few_steps", "remedy", "warnings_of"]

_FEW_STEPS = 200
_NAMES = {"noise2inverse": "Noise2Inverse"}  # spelled as in the papers
_PIXELS = 2**21  # data for the validation of the finished denoiser
_FEW_SLICES = 8
_STUDENT = 1.7  # approximate number of standard errors in a 90 % interval
_COARSER = 1.25  # ratio of the resolution after and before denoising that causes a warning


@dataclass(frozen=True)
class Evidence:
    """Estimates from the held-out rows, in attenuation.

    Parameters
    ----------
    error, noise
        Estimated mean squared error of the result, and of the reconstruction before denoising.
    interval
        90 % confidence interval of `error`, from blocks of pixels.
    correlation
        Correlation between the residuals of two parts, or for a single part, of neighbouring pixels; 0 if the noise is
        independent, as the method requires.
    offset
        Statistical error common to all validations during the training, which used fewer pixels; to be subtracted from
        them.
    inside
        The same estimates inside the object; None if there is no air around it.
    mask
        Mask of the object.
    ratio
        90 % confidence interval of the ratio of `error` and `noise`, which is known more precisely than either; None if
        the noise is taken to be known exactly.
    common
        Noise that all measurements have in common, as contained in the other figures; None if it is not known.
    """

    error: float
    noise: float
    interval: tuple[float, float]
    correlation: float
    offset: float = 0.0
    inside: Evidence | None = None
    mask: ObjectMask | None = None
    ratio: tuple[float, float] | None = None
    common: CommonNoise | None = None

    @classmethod
    def measure(cls, denoiser: Denoiser, data: TrainingVolume, air: float | None = None) -> Evidence:
        """Estimate the error of a denoiser, exactly as used at inference, on the held-out rows of scaled data.

        Parameters
        ----------
        denoiser, data
            The denoiser, and the data for validation.
        air
            Grey value of air, in the unit of the result; None if there is no air, so that the object cannot be
            separated.
        """
        once, device = _Once(denoiser.evaluate), denoiser.device
        many, offset = _judged(denoiser, once, data)
        (seen, shown), total, weights = data.judged, 0.0, 0.0
        for samples, weight in data.held_out():
            clean = denoiser.split.infer(once, samples.to(device)).cpu()
            pixels = float(weight.sum())
            total += _correlation(samples[:, :, seen] - clean[:, shown : shown + 1], weight) * pixels
            weights += pixels
        correlation = total / max(weights, 1e-12)
        mask, within = (None, None) if air is None else _of_object(denoiser, once, data, air)
        scatter = _scatter(denoiser, data, (None, mask) if mask else (None,))
        found = replace(_evidence(many, denoiser, scatter[0]), offset=offset, correlation=correlation)
        if within is None:
            return found
        inside = replace(_evidence(within, denoiser, scatter[1]), correlation=correlation)
        return replace(found, inside=inside, mask=mask)

    def widened(self, unsure: float) -> Evidence:
        """Return the same with intervals widened at both ends by a fraction of the noise, which is not known exactly.

        Examples
        --------
        >>> Evidence(1.0, 4.0, (0.5, 2.0), 0.0).widened(0.25).interval
        (-0.5, 3.0)
        """
        (low, high), more, ratio = self.interval, unsure * self.noise, self.ratio
        return replace(
            self,
            interval=(low - more, high + more),
            ratio=None if ratio is None else (ratio[0] - unsure, ratio[1] + unsure),
            inside=None if self.inside is None else self.inside.widened(unsure),
        )

    def beside(self, common: CommonNoise | None) -> Evidence:
        """Return the same with noise that all measurements have in common, which comparing them does not show.

        Examples
        --------
        >>> found = Evidence(1.0, 4.0, (0.5, 2.0), 0.0).beside(CommonNoise(2.0, 1.5))
        >>> found.error, found.noise, found.interval
        (2.0, 6.0, (1.5, 3.0))
        """
        if common is None or not (self.noise > 0 and self.noise + common.unseen_before > 0):
            return self
        noise, unseen, ratio = self.noise + common.unseen_before, common.unseen, self.ratio
        more = _STUDENT * common.scatter / noise
        low, high = self.interval
        if ratio is not None:
            middle, ends = (self.error + unseen) / noise, [(end * self.noise + unseen) / noise for end in ratio]
            ratio = middle - math.hypot(middle - ends[0], more), middle + math.hypot(ends[1] - middle, more)
        return replace(
            self,
            error=self.error + unseen,
            noise=noise,
            interval=(low + unseen, high + unseen),
            ratio=ratio,
            inside=self.inside and self.inside.beside(common.inside or common),
            common=common,
        )

    @classmethod
    def judged(cls, denoiser: Denoiser, data: TrainingData) -> Evidence:
        """Estimate the error of a denoiser on held-out samples, with its method alone."""
        many, offset = _judged(denoiser, denoiser.evaluate, data)
        scatter = _scatter(denoiser, data)[0] if isinstance(data, TrainingVolume) else 0.0
        return replace(_evidence(many, denoiser, scatter), offset=offset)

    def shared(self, share: float) -> Evidence:
        """Return the evidence for a result of which only a fraction was denoised; the rest keeps its error.

        Examples
        --------
        >>> Evidence(1.0, 4.0, (0.5, 2.0), 0.0).shared(0.5).error
        2.5
        """
        error, low, high = (share * one + (1 - share) * self.noise for one in (self.error, *self.interval))
        inside = None if self.inside is None else self.inside.shared(share)
        ratio = None
        if self.ratio is not None:
            ratio = share * self.ratio[0] + 1 - share, share * self.ratio[1] + 1 - share
        return replace(self, error=error, interval=(low, high), inside=inside, ratio=ratio)

    @property
    def gain(self) -> float:
        """Estimated gain in PSNR in dB; NaN if the error cannot be distinguished from zero."""
        return psnr(self.error, 1.0) - psnr(self.noise, 1.0)

    @property
    def gain_interval(self) -> tuple[float, float]:
        """90 % confidence interval of the gain in dB; the upper end is infinite if the error may be zero.

        A true error cannot be negative.  A negative estimate is therefore wrong by at least its size, which then serves
        as an upper bound of the error.
        """
        low, high = self.ratio or (end / self.noise if self.noise > 0 else math.nan for end in self.interval)
        high = max(high, -low)

        def gain(share: float) -> float:
            return psnr(share, 1.0) if share > 0 else math.inf

        return gain(high), gain(low)


class _Once:
    """A network that is applied only once to the same samples, which several estimates are made of.

    On a GPU it is applied again, as that is quicker there than to find out.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._known: dict[tuple[bytes, torch.Size], Tensor] = {}

    def __call__(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return self._network(x)
        given: Any = x.contiguous().numpy()
        key = hashlib.sha256(given).digest(), x.shape
        if key not in self._known:
            self._known[key] = self._network(x)
        return self._known[key].clone()


def _judged(denoiser: Denoiser, network: Network, data: TrainingData) -> tuple[Judgement, float]:
    """Return the estimate from many held-out pixels, and by how much more that from few is, in the result's unit."""
    few, many = (judge_held_out(denoiser.split, network, data, denoiser.device, pixels) for pixels in (2**17, _PIXELS))
    return many, (few.error - many.error) * (denoiser.scale.high - denoiser.scale.low) ** 2


def _of_object(
    denoiser: Denoiser, network: Network, data: TrainingVolume, air: float
) -> tuple[ObjectMask | None, Judgement | None]:
    """Return the mask of the object, and the estimate inside it, from whole held-out slices; None without air."""
    _, shown = data.judged
    split, device, slices = denoiser.split, denoiser.device, list(data.held_out_slices(_PIXELS))
    clean = np.stack([split.infer(network, samples.to(device))[0, shown].cpu().numpy() for samples, _ in slices])
    clean = denoiser.scale.undo(clean.astype(np.float32))
    mask = ObjectMask.found(clean, data.weight, air)
    if mask is None:
        return None, None
    judgements = []
    for (samples, weight), image in zip(slices, clean, strict=True):
        used = weight * torch.from_numpy(mask.of(image, data.weight))
        judgements.append(split.judge(network, samples.to(device), used.to(device)))
    return mask, Judgement.pooled(judgements)


def _evidence(judged: Judgement, denoiser: Denoiser, scatter: float) -> Evidence:
    """Return an estimate in the result's unit; `scatter` is the standard error of ``error / noise`` over slices."""
    span = (denoiser.scale.high - denoiser.scale.low) ** 2
    low, high = judged.interval(scatter * judged.noise)
    return Evidence(
        judged.error * span, judged.noise * span, (low * span, high * span), 0.0, ratio=judged.ratio(scatter)
    )


def _scatter(
    denoiser: Denoiser, data: TrainingVolume, masks: Sequence[ObjectMask | None] = (None,)
) -> tuple[float, ...]:
    """Return the standard error of the ratio of error and noise due to the small number of held-out slices.

    It is measured on training slices: their errors are underestimated, but vary as much.  It is 0 if many slices, which
    show the variation themselves, or a part of every slice are held out.  There is one value for each mask.
    """
    held, others = data.held_out_rows, data.training_rows
    if data.held_out_band is not None or data.reserved is not None or len(held) >= _FEW_SLICES or len(others) < 3:
        return (0.0,) * len(masks)
    some = others[:: -(-len(others) // _FEW_SLICES)]
    _, shown = data.judged
    found: list[list[Judgement]] = [[] for _ in masks]
    for samples, weight in replace(data, held_out_rows=some).held_out_slices(_PIXELS):
        once, samples = _Once(denoiser.evaluate), samples.to(denoiser.device)
        for mask, judgements in zip(masks, found, strict=True):
            used = weight
            if mask is not None:
                image = denoiser.split.infer(once, samples)[0, shown].cpu().numpy()
                used = weight * torch.from_numpy(mask.of(denoiser.scale.undo(image.astype(np.float32)), data.weight))
            judgements.append(denoiser.split.judge(once, samples, used.to(denoiser.device)))
    share = (1 - len(held) / (len(held) + len(others))) / len(held)
    return tuple(math.sqrt(share * _variance(judgements)) for judgements in found)


def _variance(judgements: Sequence[Judgement]) -> float:
    """Return the variance of the ratio of error and noise between slices, without that by chance within them."""
    ratios, chance = [], []
    for judged in judgements:
        low, high = judged.ratio()
        if judged.noise > 0 and math.isfinite(high):
            ratios.append(judged.error / judged.noise)
            chance.append(((high - low) / (2 * _STUDENT)) ** 2)
    if len(ratios) < 3:
        return 0.0
    return max(0.0, float(np.var(ratios, ddof=1)) - float(np.mean(chance)))


def _correlation(residuals: Tensor, weight: Tensor) -> float:
    """Return the correlation of residuals between parts, of pixels or of 4 x 4 blocks, whichever is larger.

    Streaks from few views are coarser than the noise of single pixels, which would hide them.
    """
    if residuals.shape[1] == 1:  # also of pixels that were not held out, as single pixels have no neighbours
        return neighbour_correlation(residuals, torch.ones_like(weight[:, 0]))
    weight = weight.amax(dim=1, keepdim=True)
    coarse = functional.avg_pool2d(residuals, 4), (functional.avg_pool2d(weight, 4) == 1).to(weight)
    found = [residual_correlation(each, used[:, 0]) for each, used in ((residuals, weight), coarse)]
    return max(found, key=abs)


def warnings_of(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Return warnings about a result, each with advice; the most serious first.

    Parameters
    ----------
    metrics
        Figures of the run, as in ``metrics.json``.
    """
    return (*([] if metrics.get("given_back") else _of_denoising(metrics)), *_of_scan(metrics))


def _of_denoising(metrics: Mapping[str, Any]) -> list[str]:
    """Return warnings about what denoising did."""
    estimate, scan = metrics["estimate"], metrics["scan"]
    told, correlation = headline(estimate), estimate["residual_correlation"]
    gain = told["psnr_gain_db_at_least"]
    change = (estimate.get("object") or metrics["volume"])["relative_change_of_mean"] or 0.0
    parts, name, better = metrics["method"]["parts"], metrics["method"]["name"], remedy(metrics)
    method, split = METHODS.get(name, Method), metrics["method"]["domain"] == "volume"
    taught = method.domain == "clean"  # from an estimate without this bias: grey values may change
    why = told.get("withheld")
    blind = isinstance(why, Reason) and not why.least
    found = []
    if getattr(method, "needs_linear", False) and not metrics.get("reconstruction", {}).get("linear", True):
        found.append(
            f"{_NAMES.get(name, name)} was run on a reconstruction that is not linear, where the noise of an angular "
            "subset is no longer independent of what the subset shows: streaks and lost detail are learned as if they "
            "were the object. Denoise the radiographs (noise2self) or use noise2projection instead."
        )
    if (gain is None and not blind) or (gain is not None and gain < 0.5):
        found.append(
            "The held-out rows show no clear gain from denoising: the scan may be limited by something other than "
            "noise. Look at the pictures before using the result; `quietray reconstruct` gives the volume without "
            "denoising."
        )
    if split and correlation > 0.1:
        found.append(
            f"The angular subsets are not independent (residual correlation {correlation:+.2f}): rings, a wrong "
            "rotation axis or noisy flats are the same in all of them and stay in the result. Take more flats, or try "
            "--own-flats yes or --rings all."
        )
    if not split and abs(correlation) > NOT_WHITE:
        found.append(
            f"The removed noise is not white (residuals of neighbouring pixels correlate by {correlation:+.2f}): the "
            "point response was not deconvolved completely, or the network has begun to fit the noise. Run "
            "`quietray diagnose`."
        )
    found += _of_halves(metrics.get("evidence") or {}, better)
    if abs(change) > 0.02 and not taught:
        learned = (
            "the network has not learned the grey values well" if metrics["method"]["parameters"] else "it is biased"
        )
        found.append(
            f"Denoising changed the mean attenuation by {change:+.1%}: {learned}. {better} before measuring anything."
        )
    if few_steps(metrics):
        found.append(
            f"The network was trained for only {metrics['training']['steps']} steps, too few to learn more than a "
            f"blur; {better[0].lower()}{better[1:]}."
        )
    if split and correlation < -0.05:
        found.append(
            f"The angular subsets differ by more than noise (residual correlation {correlation:+.2f}; "
            f"{scan['views'] / parts:.0f} views each for {scan['columns']} columns): with so few views each subset has "
            "its own streaks, and fine detail may be smoothed; "
            + ("use fewer parts (--parts 2), or more views." if parts > 2 else "measure more views.")
        )
    if gain is not None and gain >= 0.5:
        found += too_wide(told, "detector rows", scan["rows"][1] - scan["rows"][0] if "rows" in scan else None)
    if isinstance(why, Reason) and why.advice:
        found.append(f"The gain is not estimated: {why}{why.advice}")
    return found


def _of_scan(metrics: Mapping[str, Any]) -> list[str]:
    """Return warnings about the scan, which concern the volume without denoising, too."""
    scan, floored, bias, found = metrics["scan"], metrics["correction"]["floored"], metrics["log_bias"], []
    taught = METHODS.get(metrics["method"]["name"], Method).domain == "clean"
    if scan["covered_degrees"] < 170:
        found.append(
            f"The views cover only {scan['covered_degrees']:.0f} degrees, less than half a turn: edges along the "
            "missing directions are not in the data, and denoising does not bring them back."
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
    return found


def remedy(metrics: Mapping[str, Any]) -> str:
    """Return advice for a better result that fits the command that was used.

    Examples
    --------
    >>> remedy({"method": {"parameters": 1000}, "training": {"steps": 0}})
    'Train on scans like this one, or fine-tune the model with --from'
    """
    if not metrics["method"]["parameters"]:
        return "Use a weaker filter"
    if metrics["training"]["steps"]:
        return "Give a longer --budget"
    return "Train on scans like this one, or fine-tune the model with --from"


def few_steps(metrics: Mapping[str, Any]) -> bool:
    """Return whether a network with random initial weights was trained for too few steps.

    Examples
    --------
    >>> few_steps({"method": {"parameters": 1000}, "training": {"steps": 20}})
    True
    """
    history = metrics["training"].get("history", ())
    known = any(entry["step"] == 0 for entry in history)  # it was already good before the first step
    return bool(metrics["method"]["parameters"] and 0 < metrics["training"]["steps"] < _FEW_STEPS and not known)


def _of_halves(evidence: Mapping[str, Any], better: str) -> list[str]:
    """Return warnings that follow from the resolution and from the means of regions."""
    found = []
    for region in moved(evidence.get("regions") or []):
        before, after, error = (region[name] for name in ("before", "after", "error"))
        found.append(
            f"Denoising moved the mean of the {region['region']} region from {before:.4g} to {after:.4g}, which is "
            f"{abs(after - before) / max(error, 1e-12):.0f} standard errors: attenuation measured there is wrong by as "
            f"much. {better}, or measure in the volume before denoising."
        )
    sharpness = evidence.get("sharpness")
    if sharpness and blurred(sharpness):
        found.append(
            f"Of details of {sharpness['from_px']:.1f} to {sharpness['to_px']:.1f} pixels, which the data show, "
            f"denoising half of the data keeps {sharpness['kept']:.0%} (standard error {sharpness['kept_error']:.0%}); "
            f"the best linear filter would keep {sharpness['linear_filter']:.0%}: the result is blurred. {better}."
        )
    resolution = evidence.get("resolution") or {}
    before, after = (resolution.get(f"{when}_half_bit_px") for when in ("before", "after"))
    if before is not None and (after is None or after > _COARSER * before):
        agreed = "nothing" if after is None else f"details down to {after:.1f} pixels"
        found.append(
            f"Denoised separately, two halves of the data agree on {agreed}; as measured they agreed on details down "
            f"to {before:.1f} pixels: detail was lost. {better}."
        )
    return found
