"""Means of values whose neighbours are not independent, with standard errors from blocks larger than noise reaches."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats

__all__ = ["block_sums", "mean_over_blocks", "student_interval"]


def block_sums(values: np.ndarray, block: int) -> np.ndarray:
    """Return the sums over blocks of `block` pixels along every axis; the last ones may be smaller.

    Examples
    --------
    >>> block_sums(np.ones((4, 5)), 2).tolist()
    [[4.0, 4.0, 2.0], [4.0, 4.0, 2.0]]
    """
    for axis, size in enumerate(values.shape):
        values = np.add.reduceat(values, np.arange(0, size, block), axis=axis)
    return values


def mean_over_blocks(sums: Float[np.ndarray, " block"], counts: Float[np.ndarray, " block"]) -> tuple[float, float]:
    """Return the mean of all pixels and its standard error, of the ratio of two sums over independent blocks.

    Parameters
    ----------
    sums
        Of the values of each block's pixels.
    counts
        How many pixels those are; more than none.

    Returns
    -------
    tuple of float
        The standard error is not a number where there is a single block.

    Examples
    --------
    >>> mean_over_blocks(np.array([10.0, 30.0]), np.array([10.0, 10.0]))
    (2.0, 1.0)
    """
    total, n = float(counts.sum()), len(counts)
    mean = float(sums.sum()) / total
    if n < 2:
        return mean, float("nan")
    spread = float(((sums - mean * counts) ** 2).sum()) * n / (n - 1)
    return mean, float(np.sqrt(spread)) / total


def student_interval(
    values: Float[np.ndarray, " block"], weights: Float[np.ndarray, " block"], share: float = 0.9, more: float = 0.0
) -> tuple[float, float]:
    """Return Student's interval of a weighted mean over independent blocks.

    Blocks are few: two slices hold some dozens, and resampling them, or taking their mean for normal, makes intervals
    that are too narrow.  Blocks of unequal weight count as so many of equal weight as tell as much.

    Parameters
    ----------
    values, weights
        Of the blocks.
    share
        Confidence.
    more
        Standard error that the blocks do not tell of.

    Returns
    -------
    tuple of float
        Infinite ends where there are under two blocks.

    Examples
    --------
    >>> low, high = student_interval(np.array([1.0, 2.0, 3.0]), np.ones(3))
    >>> round(low, 3), round(high, 3)
    (0.314, 3.686)
    """
    total = float(weights.sum())
    n = total**2 / max(float(np.square(weights).sum()), 1e-300)
    if len(values) < 2 or n < 1.5:
        return -np.inf, np.inf
    mean = float(weights @ values) / total
    error = float(np.sqrt(np.square(weights * (values - mean)).sum() * n / (n - 1))) / total
    half = float(stats.t.ppf((1 + share) / 2, n - 1)) * float(np.hypot(error, more))
    return mean - half, mean + half
