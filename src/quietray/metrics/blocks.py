"""Means of values whose neighbours are not independent, with standard errors from blocks larger than noise reaches."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

__all__ = ["block_sums", "mean_over_blocks"]


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
