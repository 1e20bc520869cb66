"""Uncertainty of each voxel, from networks trained on disjoint halves and calibrated without ground truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter
from scipy.optimize import nnls

from quietray.assessment.common_noise import CommonNoise
from quietray.inference.denoiser import Denoiser
from quietray.running.run import Run
from quietray.training.batches import TrainingVolume
from quietray.training.learn import Recipe, Subject, learn
from quietray.training.loop import Fitted
from quietray.types import Parts, Slice, Volume

__all__ = [
    "BAND",
    "ErrorModel",
    "Trust",
    "contradiction",
    "disagreement",
    "errors_of",
    "shares",
    "steepness",
    "steps_of_each",
    "trusted",
]

BAND = 1.645  # standard deviations that contain 90 % of a normal distribution
_BINS = 6  # numbers of bins of the disagreement and of the steepness
_PIXELS = 2**20  # data for the calibration from each half
_SMOOTH = 1.5  # in pixels
_DETAIL = 0.7  # in pixels: a detail that a result may have lost
_AROUND = 8.0  # in pixels: where the noise of such a detail is measured
_BEYOND = 2.5  # standard deviations of the noise, beyond which the measurement contradicts a result
_CHUNK = 16  # in slices
_Values = Float[np.ndarray, " _"]  # in voxels
_Seen = Float[np.ndarray, "2 _"]  # disagreement and steepness of voxels
_Slab = Float[np.ndarray, "slice y x"]


@dataclass(frozen=True, eq=False)
class ErrorModel:
    """Variance of the error of a voxel: ``floor + slope * disagreement + steep * steepness``, all at least zero.

    The error is not zero where the networks agree, because all of them see the same noise and have the same
    shortcomings.  In particular, all of them blur edges and small details, where the result is steep.  Three
    coefficients are as many as can be fitted to a small scan; a more flexible curve would follow the noise of the
    estimates.

    Parameters
    ----------
    floor
        Constant part, in squared attenuation.
    slope, steep
        Coefficients: dimensionless, and in squared pixels.
    disagreement, steepness
        Means over each bin of voxels, ``(bin,)``, from :func:`disagreement` and :func:`steepness`.
    error
        Estimated mean squared error of each bin, ``(bin,)``; unbiased, so it may be negative.
    voxels
        Number of voxels in each bin, ``(bin,)``.
    """

    floor: float
    slope: float
    steep: float
    disagreement: Float[np.ndarray, " bin"]
    steepness: Float[np.ndarray, " bin"]
    error: Float[np.ndarray, " bin"]
    voxels: Int[np.ndarray, " bin"]

    @classmethod
    def fitted(cls, crossed: tuple[_Seen, _Values], held_out: tuple[_Seen, _Values]) -> ErrorModel:
        """Fit the coefficients to noisy estimates of squared errors.

        Parameters
        ----------
        crossed
            Disagreement, steepness and squared error of a network for many voxels that it was not trained on.
        held_out
            Disagreement, steepness, and squared error of the result minus the mean squared error of the two networks,
            for few voxels; the noise of the estimates cancels in the difference.

        Examples
        --------
        >>> d = np.stack([np.tile(np.linspace(0, 1, 600), 4), np.repeat(np.linspace(0, 1, 4), 600)])
        >>> found = ErrorModel.fitted((d, 1 + 2 * d[0] + 3 * d[1]), (d, np.full(2400, -0.5)))
        >>> round(found.floor, 6), round(found.slope, 6), round(found.steep, 6)
        (0.5, 2.0, 3.0)
        """
        seen, error = crossed
        edges = [np.quantile(one, np.linspace(0, 1, _BINS + 1)[1:-1]) for one in seen]
        voxels, places, mean = _binned(seen, error, edges)
        n_held, _, gained = _binned(*held_out, edges)
        gained = np.where(n_held > 0, gained, held_out[1].mean())
        there = voxels > 0
        voxels, places, mean = voxels[there], places[:, there], (mean + gained)[there]
        units = np.maximum(np.average(places, axis=1, weights=voxels), 1e-30)
        design = np.sqrt(voxels)[:, None] * np.stack([np.ones(len(mean)), *(places / units[:, None])], axis=1)
        (floor, *slopes), _ = nnls(design, np.sqrt(voxels) * mean)
        if floor == 0 and not any(slopes):  # the true error is not negative: the estimate is wrong by at least its size
            floor = abs(float(np.average(mean, weights=voxels)))
        slope, steep = (float(one / unit) for one, unit in zip(slopes, units, strict=True))
        return cls(float(floor), slope, steep, places[0], places[1], mean, voxels)

    def sd(self, disagreement: np.ndarray, steepness: np.ndarray) -> np.ndarray:
        """Return the standard deviation of the error.

        Examples
        --------
        >>> nothing = np.empty(0), np.empty(0), np.empty(0), np.empty(0, int)
        >>> ErrorModel(1.0, 2.0, 5.0, *nothing).sd(np.array([0.0, 4.0, 2.0]), np.array([0, 0, 4.0])).round(6).tolist()
        [1.0, 3.0, 5.0]
        """
        return np.sqrt(self.floor + self.slope * disagreement + self.steep * steepness)

    def beside(self, common: CommonNoise) -> ErrorModel:
        """Return the same with noise that all measurements have in common.

        Examples
        --------
        >>> nothing = np.empty(0), np.empty(0), np.empty(0), np.empty(0, int)
        >>> ErrorModel(1.0, 2.0, 5.0, *nothing).beside(CommonNoise(4.0, 3.0)).floor
        3.0
        """
        floor, error = max(0.0, self.floor + common.unseen), self.error + common.unseen
        return dataclasses.replace(self, floor=floor, error=error)


@dataclass(frozen=True, eq=False)
class Trust:
    """Two networks trained on disjoint halves, and the relation of their disagreement to the error of a result.

    Parameters
    ----------
    companions
        The two networks.
    errors
        Relation between disagreement and error.
    """

    companions: tuple[Denoiser, Denoiser]
    errors: ErrorModel

    def beside(self, common: CommonNoise | None) -> Trust:
        """Return the same with noise that all measurements have in common, which the calibration does not show."""
        return self if common is None else dataclasses.replace(self, errors=self.errors.beside(common))

    def sd(self, parts: Parts, clean: _Slab, first: int) -> _Slab:
        """Return the standard deviation of the error of `clean`, the slices of `parts` from `first` on, in attenuation.

        Parameters
        ----------
        parts
            Reconstructions ``(part, z, y, x)`` in attenuation, with additional slices around the requested ones.
        clean
            Result ``(slice, y, x)``.
        first
            Slice of `parts` that corresponds to the first slice of `clean`.
        """
        sd = np.empty_like(clean)
        for z in range(0, len(clean), _CHUNK):
            some = clean[z : z + _CHUNK]
            low, high = first + z, first + z + len(some)
            results = [some, *(one.slab(parts, low, high) for one in self.companions)]
            found = self.errors.sd(disagreement(np.stack(results)), steepness(some))
            sd[z : z + _CHUNK] = np.maximum(found, contradiction(parts[:, low:high], some))
        return sd

    def figures(self) -> dict[str, Any]:
        """Return the numbers of the calibration, ready for JSON."""
        found = self.errors
        return {
            "band": f"90 %: +- {BAND} sd",
            "steps": [int(one.facts["steps"]) for one in self.companions],
            "sd_where_all_agree": found.floor**0.5,
            "variance_per_squared_disagreement": found.slope,
            "variance_per_squared_steepness": found.steep,
            "calibration": [
                {
                    "disagreement": float(seen) ** 0.5,
                    "steepness": float(steep) ** 0.5,
                    "sd": float(sd),
                    "mean_squared_error": float(error),
                    "voxels": int(voxels),
                }
                for seen, steep, sd, error, voxels in zip(
                    found.disagreement,
                    found.steepness,
                    found.sd(found.disagreement, found.steepness),
                    found.error,
                    found.voxels,
                    strict=True,
                )
            ],
        }


def disagreement(results: Float[np.ndarray, "network z y x"]) -> Volume:
    """Return the variance of several results, smoothed within each slice because it is estimated from few results.

    Examples
    --------
    >>> disagreement(np.stack([np.zeros((1, 4, 4)), np.full((1, 4, 4), 2.0)])).mean().round(6)
    np.float64(1.0)
    """
    return np.asarray(gaussian_filter(results.var(axis=0), (0, _SMOOTH, _SMOOTH), mode="nearest"))


def contradiction(parts: Parts, result: Float[np.ndarray, "z y x"]) -> Volume:
    """Return by how much the measurement contradicts a result, where it does so by 2.5 standard deviations; else zero.

    All networks lose the same small details, so that neither their disagreement nor the steepness of the result shows
    where these were.  But the mean of all parts still contains them, with noise, which is measured in the difference
    between the even and the odd parts.  Both are smoothed to the size of a detail.

    Parameters
    ----------
    parts
        Reconstructions of the same slices with independent noise; of a single one, nothing is known.
    result
        The denoised slices.

    Examples
    --------
    >>> parts = np.random.default_rng(0).normal(0, 0.1, (4, 1, 64, 64)).astype(np.float32)
    >>> parts[:, :, 30:33, 30:33] += 1.0
    >>> found = contradiction(parts, np.zeros((1, 64, 64), np.float32))
    >>> bool(found[0, 31, 31] > 0.8), bool((found > 0).mean() < 0.05)
    (True, True)
    """
    n = len(parts)
    if n < 2:
        return np.zeros_like(result)
    groups = parts[0::2], parts[1::2]
    even, odd = (group.mean(axis=0) for group in groups)
    noise = (even - odd) * np.float32((sum(1 / len(group) for group in groups) * n) ** -0.5)
    off, chance = (
        gaussian_filter(one, (0, _DETAIL, _DETAIL), mode="nearest") for one in (parts.mean(axis=0) - result, noise)
    )
    sd = np.sqrt(gaussian_filter(np.square(chance), (0, _AROUND, _AROUND), mode="nearest"))
    return np.asarray(np.where(np.abs(off) > _BEYOND * sd, np.abs(off), 0), np.float32)


def steepness(result: Float[np.ndarray, "z y x"]) -> Volume:
    """Return the squared gradient of a result within each slice, per pixel, smoothed like the disagreement.

    Examples
    --------
    >>> ramp = np.broadcast_to(np.arange(12.0), (1, 12, 12))
    >>> steepness(ramp)[0, 6, 6].round(2)
    np.float64(1.0)
    """
    squares = sum(np.square(np.gradient(result, axis=axis)) for axis in (1, 2))
    return np.asarray(gaussian_filter(squares, (0, _SMOOTH, _SMOOTH), mode="nearest"))


def steps_of_each(fitted: Fitted, share: float) -> int:
    """Return the number of steps for each of the two networks, if both together get `share` of the budget.

    Parameters
    ----------
    fitted
        Training of the main network.
    share
        Fraction of the budget for both.
    """
    return max(1, round(fitted.history[-1].n_steps * share / 2 / (1 - share)))


def trusted(data: TrainingVolume, denoiser: Denoiser, recipe: Recipe, subject: Subject, run: Run) -> Trust:
    """Train two networks on disjoint halves of the data and calibrate their disagreement.

    A resumed run reuses a finished network, and trains an unfinished one anew.

    Parameters
    ----------
    data
        Scaled samples that `denoiser` was trained on.
    denoiser
        The main denoiser.
    recipe
        Settings of both networks, including the number of steps.
    subject
        The data that will be denoised.
    run
        Its output stores the networks until it is finished.
    """
    recipe, work = dataclasses.replace(recipe, symmetries=1), run.output.work
    subject, alone = dataclasses.replace(subject, facts={}), run.alone()

    def trained(half: TrainingVolume, number: int) -> Denoiser:
        place = None if work is None else work / f"half-{number}"
        if place is not None and (place / "model.json").exists():
            kept = Denoiser.load(place)
            return dataclasses.replace(kept, network=kept.network.to(denoiser.device))
        seeded = dataclasses.replace(recipe, seed=recipe.seed + number)
        found, _ = learn(half, denoiser.split, seeded, subject, alone)
        if place is not None:
            found.save(place)
        return found

    one, other = data.halves()
    companions = trained(one, 1), trained(other, 2)
    with run.watch.stage("calibrating"):
        return Trust(companions, errors_of(denoiser, companions, data))


def errors_of(denoiser: Denoiser, companions: tuple[Denoiser, Denoiser], data: TrainingVolume) -> ErrorModel:
    """Fit the relation between the disagreement of two companions, trained on halves of the data, and the error.

    Each companion has not been trained on half of the data.  There, and on the data held out from all networks,
    left-out measurements give an unbiased estimate of the companion's squared error for each pixel.  Data held out from
    all networks show how much smaller the error of the result is.

    Parameters
    ----------
    denoiser
        The denoiser of the result.
    companions
        Networks trained on the first and on the second of ``data.halves()``.
    data
        Scaled samples.
    """
    three = (denoiser, *companions)
    crossed = [_looked_at(half, three, (companion,)) for half, companion in zip(data.halves(), companions, strict=True)]
    seen, error = np.concatenate([one for one, _ in crossed], axis=1), np.concatenate([one for _, one in crossed])
    held, errors = _looked_at(data, three, three)
    return ErrorModel.fitted((seen, error[:, 0]), (held, errors[:, 0] - errors[:, 1:].mean(axis=1)))


def shares(trust: Any, inside: Slice) -> dict[str, float]:
    """Return the standard deviations below which 10, 50 and 90 % of the voxels in the field of view lie.

    Parameters
    ----------
    trust
        Uncertainty map ``(z, y, x)``; may be lazy, and is sampled every few slices.
    inside
        Mask ``(y, x)`` of the field of view.

    Examples
    --------
    >>> shares(np.full((3, 2, 2), 0.5, np.float32), np.ones((2, 2), np.float32))
    {'sd_10_percent_below': 0.5, 'sd_median': 0.5, 'sd_90_percent_below': 0.5}
    """
    every = max(1, trust.shape[0] // 64)
    values = np.concatenate([np.asarray(trust[z])[inside > 0] for z in range(every // 2, trust.shape[0], every)])
    names = "sd_10_percent_below", "sd_median", "sd_90_percent_below"
    return {name: float(value) for name, value in zip(names, np.quantile(values, (0.1, 0.5, 0.9)), strict=True)}


@torch.no_grad()
def _looked_at(
    data: TrainingVolume, three: Sequence[Denoiser], judged: Sequence[Denoiser]
) -> tuple[_Seen, Float[np.ndarray, "voxel judged"]]:
    """Return disagreement and steepness of the three networks, and squared errors of some, where `data` is held out."""
    scale, split = three[0].scale, three[0].split
    span = (scale.high - scale.low) ** 2
    seen, errors = [], []
    for held_out, weight in data.held_out(_PIXELS):
        samples, weight = held_out.to(three[0].device), weight.to(three[0].device)
        results = torch.stack([split.infer(one.evaluate, samples)[0] for one in three]).cpu().numpy()
        found = [split.judge(one.evaluate, samples, weight).pixels for one in judged]
        inside = np.broadcast_to(weight[0].cpu().numpy() > 0, results.shape[1:])
        both = disagreement(results), steepness(results[0])
        seen.append(np.stack([one[inside].astype(np.float64) * span for one in both]))
        errors.append(np.stack([pixels[0].cpu().numpy()[inside] for pixels in found if pixels is not None], axis=1))
    return np.concatenate(seen, axis=1), np.concatenate(errors) * span


def _binned(
    seen: _Seen, values: _Values, edges: Sequence[Float[np.ndarray, " edge"]]
) -> tuple[Int[np.ndarray, " bin"], Float[np.ndarray, "2 bin"], Float[np.ndarray, " bin"]]:
    """Return the number of voxels in each bin of `seen`, and the bin means of these and of `values`; zero if empty."""
    sizes = tuple(len(one) + 1 for one in edges)
    place = np.ravel_multi_index(tuple(np.digitize(one, ends) for one, ends in zip(seen, edges, strict=True)), sizes)
    n = int(np.prod(sizes))
    number = np.bincount(place, minlength=n)
    means = [np.bincount(place, of, n) / np.maximum(number, 1) for of in (*seen, values)]
    return number, np.stack(means[:2]), means[2]
