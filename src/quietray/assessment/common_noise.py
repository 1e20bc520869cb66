"""Noise that all measurements have in common, such as that of shared flats, which comparing them does not show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from quietray.inference.denoiser import Denoiser
from quietray.metrics.surroundings import ObjectMask
from quietray.types import Parts, Slice, Volume

__all__ = ["STEP", "CommonNoise", "common_noise"]

STEP = np.float32(0.3)  # of the noise that is added: more of it would itself be taken for the object


@dataclass(frozen=True)
class CommonNoise:
    """Noise that input and target of a comparison have in common.

    Parameters
    ----------
    size
        Its mean square, in the squared unit of the result.
    kept
        Its mean product with what denoising leaves of it; the same as `size` if it is left as it is.
    inside
        The same inside the object.
    values
        Number of independent values that it consists of, as the rings of flats: one for every row and radius.
    kept_before
        Its mean product with what is left of it without denoising; `size` if that is the measurement itself.
    """

    size: float
    kept: float
    inside: CommonNoise | None = None
    values: float = math.inf
    kept_before: float | None = None

    @classmethod
    def of_all(cls, each: Sequence[CommonNoise]) -> CommonNoise:
        """Return the mean of that of several steps or channels, which may be the same; inside the object, if known."""
        insides = [one.inside for one in each if one.inside is not None]
        inside = cls.of_all(insides) if insides and len(insides) == len(each) else None
        size, kept, values = (
            sum(getattr(one, name) for one in each) / len(each) for name in ("size", "kept", "values")
        )
        return cls(size, kept, inside, values)

    def scaled(self, factor: float) -> CommonNoise:
        """Return the same in another unit."""
        inside = None if self.inside is None else self.inside.scaled(factor)
        return replace(self, size=factor * self.size, kept=factor * self.kept, inside=inside)

    @property
    def unseen(self) -> float:
        """Return what is to be added to an error that was estimated by comparison with a measurement.

        Let the measurement contain noise n, of which the result contains s n.  The difference of both is (1 - s) n,
        while the error is s n.  In the mean square, the latter is larger by ``2 s n^2 - n^2``.
        """
        return 2 * self.kept - self.size

    @property
    def unseen_before(self) -> float:
        """Return what is to be added to the error before denoising, in the same way."""
        return self.size if self.kept_before is None else 2 * self.kept_before - self.size

    @property
    def scatter(self) -> float:
        """Return the standard error of `unseen`: the actual common noise differs by chance from what it would be."""
        return self.size * math.sqrt(2 / self.values)


def common_noise(
    denoiser: Denoiser,
    parts: Parts,
    noise: Volume,
    weight: Slice,
    mask: ObjectMask | None = None,
    n_series: int = 1,
    *,
    rows: range | None = None,
    shown: int | None = None,
) -> list[CommonNoise]:
    """Return how large common noise is, and how much of it a denoiser keeps, for every step or channel of a series.

    Parameters
    ----------
    denoiser
        The denoiser, exactly as used at inference.
    parts
        Reconstructions ``(part, z, y, x)`` of some slices; they are modified to save memory.
    noise
        Common noise ``(z, y, x)`` that all parts might contain in addition.
    weight
        Weight ``(y, x)``, zero outside the field of view.
    mask
        Mask of the object; None if it was not separated.
    n_series
        Number of steps or channels, which follow one another along z.
    rows
        Slices of each step that are looked at; the others are their neighbours.  By default all.
    shown
        Step or channel that the mask is made from; by default each has its own.

    Examples
    --------
    >>> from torch import nn
    >>> from quietray.filters import GaussianFilter
    >>> from quietray.inference.denoiser import Scale
    >>> from quietray.splits import Noise2Inverse
    >>> nothing = Denoiser(nn.Identity(), GaussianFilter(0.0), Noise2Inverse(2, slices=1), Scale(0.0, 1.0))
    >>> noise = np.random.default_rng(0).normal(0, 1, (2, 32, 32)).astype(np.float32)
    >>> found = common_noise(nothing, np.zeros((2, *noise.shape), np.float32), noise, np.ones((32, 32), np.float32))
    >>> round(found[0].kept / found[0].size, 3)
    1.0
    """
    count = parts.shape[1] // n_series
    rows = range(count) if rows is None else rows
    before = denoiser.slab(parts, rows.start, rows.stop, n_series=n_series)
    parts += STEP * noise
    left = (denoiser.slab(parts, rows.start, rows.stop, n_series=n_series) - before) / STEP
    masks = None
    if mask is not None:
        own = [np.split(before, n_series)[step if shown is None else shown] for step in range(n_series)]
        masks = [np.stack([mask.of(one, weight) for one in each]) for each in own]
    found = []
    for step in range(n_series):
        added = noise[step * count + rows.start : step * count + rows.stop]
        kept = left[step * len(rows) : (step + 1) * len(rows)]
        view = np.broadcast_to(weight > 0, added.shape)
        rings = len(rows) * added.shape[-1] / 2
        inside = None
        if masks is not None and masks[step].any():
            inside = _over(masks[step], added, kept, rings * float(masks[step].sum() / view.sum()) ** 0.5)
        found.append(replace(_over(view, added, kept, rings), inside=inside))
    return found


def _over(
    where: Bool[np.ndarray, "z y x"],
    noise: Float[np.ndarray, "z y x"],
    left: Float[np.ndarray, "z y x"],
    values: float,
) -> CommonNoise:
    noise, left = noise[where].astype(np.float64), left[where].astype(np.float64)
    return CommonNoise(float(np.square(noise).mean()), float((noise * left).mean()), values=values)
