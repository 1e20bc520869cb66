"""Errors of several methods on the same data, with intervals for each and for the difference of any two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from quietray.errors import SettingsError
from quietray.metrics.blocks import student_interval

__all__ = ["Standings"]


@dataclass(frozen=True, eq=False)
class Standings:
    """How far each of several results is from the truth, as estimated from blocks of data that all were judged by.

    Parameters
    ----------
    names
        Of the methods.
    blocks
        ``(method, block)`` estimates of the mean squared error; unbiased, so that some may be negative.
    weights
        ``(block,)``: how much data is behind each.
    noise
        Mean power of the noise that was taken from the residuals.
    domain
        What the error is of: the ``"volume"`` or the ``"projections"``.

    Examples
    --------
    >>> luck = np.random.default_rng(0).normal(0, 1, 50)
    >>> found = Standings(("a", "b"), np.stack([3 + luck, 4 + luck]), np.ones(50), 1.0, "volume")
    >>> found.best, [round(bound, 3) for bound in found.difference("b", "a")]
    ('a', [1.0, 1.0, 1.0])
    >>> low, high = found.interval("a")
    >>> low < 3 < high
    True
    """

    names: tuple[str, ...]
    blocks: Float[np.ndarray, "method block"]
    weights: Float[np.ndarray, " block"]
    noise: float
    domain: Literal["volume", "projections"]

    @property
    def errors(self) -> Mapping[str, float]:
        """Estimated mean squared error of each method, best first."""
        means = self.blocks @ self.weights / self.weights.sum()
        return {self.names[index]: float(means[index]) for index in np.argsort(means)}

    @property
    def best(self) -> str:
        """The method with the smallest error."""
        return next(iter(self.errors))

    def interval(self, name: str, share: float = 0.9) -> tuple[float, float]:
        """Return the interval of a method's error, by Student's t over blocks.

        Raises
        ------
        SettingsError
            There is no such method.
        """
        return self._bounds(self.blocks[self._index(name)], share)

    def difference(self, one: str, other: str, share: float = 0.9) -> tuple[float, float, float]:
        """Return how much larger the error of `one` is than that of `other`, and the interval of that.

        Both are judged by the same noise, so that this is known far better than either error.

        Raises
        ------
        SettingsError
            There is no such method.
        """
        change = self.blocks[self._index(one)] - self.blocks[self._index(other)]
        return (float(np.average(change, weights=self.weights)), *self._bounds(change, share))

    def _index(self, name: str) -> int:
        if name not in self.names:
            raise SettingsError(f"the method must be one of {', '.join(self.names)}, got '{name}'")
        return self.names.index(name)

    def _bounds(self, values: np.ndarray, share: float) -> tuple[float, float]:
        return student_interval(values, self.weights, share)
