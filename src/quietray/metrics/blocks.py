"""Means of correlated values, with standard errors from blocks larger than the correlation length."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats

__all__ = ["block_sums", "error_by_chance", "error_of_mean", "mean_over_blocks", "student_interval"]


def block_sums(values: np.ndarray, block: int) -> np.ndarray:
    """Return sums over blocks of `block` pixels along every axis; blocks at the upper border may be smaller.

    Examples
    --------
    >>> block_sums(np.ones((4, 5)), 2).tolist()
    [[4.0, 4.0, 2.0], [4.0, 4.0, 2.0]]
    """
    for axis, size in enumerate(values.shape):
        values = np.add.reduceat(values, np.arange(0, size, block), axis=axis)
    return values


def mean_over_blocks(sums: Float[np.ndarray, " block"], counts: Float[np.ndarray, " block"]) -> tuple[float, float]:
    """Return the mean over all pixels and its standard error, as a ratio of two sums over independent blocks.

    Parameters
    ----------
    sums
        Sum of the values in each block.
    counts
        Number of pixels in each block; at least one.

    Returns
    -------
    tuple of float
        Mean and standard error; the latter is NaN for a single block.

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
    """Return the Student's t interval of a weighted mean over independent blocks.

    There are few blocks, some dozens for two slices, for which bootstrapping or a normal approximation would give
    intervals that are too narrow.  For unequal weights, the effective number of blocks is used.

    Parameters
    ----------
    values, weights
        Value and weight of each block.
    share
        Confidence level.
    more
        Additional standard error that does not show up in the differences between blocks.

    Returns
    -------
    tuple of float
        Lower and upper end; infinite for fewer than two blocks.

    Examples
    --------
    >>> low, high = student_interval(np.array([1.0, 2.0, 3.0]), np.ones(3))
    >>> round(low, 3), round(high, 3)
    (0.314, 3.686)
    """
    mean, error, n = error_of_mean(values, weights)
    if not np.isfinite(error):
        return -np.inf, np.inf
    half = float(stats.t.ppf((1 + share) / 2, n - 1)) * float(np.hypot(error, more))
    return mean - half, mean + half


def error_of_mean(
    values: Float[np.ndarray, " block"], weights: Float[np.ndarray, " block"]
) -> tuple[float, float, float]:
    """Return a weighted mean over independent blocks, its standard error, and the effective number of blocks.

    Parameters
    ----------
    values, weights
        Value and weight of each block.

    Returns
    -------
    tuple of float
        The standard error is infinite for fewer than two blocks.

    Examples
    --------
    >>> error_of_mean(np.array([1.0, 3.0]), np.ones(2))
    (2.0, 1.0, 2.0)
    """
    total = float(weights.sum())
    n = total**2 / max(float(np.square(weights).sum()), 1e-300)
    mean = float(weights @ values) / total if total else float("nan")
    if len(values) < 2 or n < 1.5:
        return mean, float("inf"), n
    return mean, float(np.sqrt(np.square(weights * (values - mean)).sum() * n / (n - 1))) / total, n


def error_by_chance(values: Float[np.ndarray, " block"], weights: Float[np.ndarray, " block"]) -> float:
    """Return the standard error of a weighted mean from the differences between neighbouring blocks.

    What varies slowly from block to block, such as the strength of the noise, is not counted.

    Parameters
    ----------
    values, weights
        Value and weight of each block, in their order; 0 is returned for a single block.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> f"{error_by_chance(rng.normal(np.linspace(0, 9, 400), 1), np.ones(400)):.2f}"  # 1 / sqrt(400)
    '0.05'
    """
    if len(values) < 2:
        return 0.0
    steps = np.diff(values) * (weights[1:] + weights[:-1]) / 2
    return float(np.sqrt(np.square(steps).mean() / 2 * len(values))) / float(weights.sum())
