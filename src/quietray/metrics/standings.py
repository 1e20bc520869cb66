"""Errors of several methods on the same data, with confidence intervals of each and of their differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from quietray.errors import SettingsError
from quietray.metrics.blocks import student_interval

__all__ = ["Standings"]

_SIMULATED = 0.04  # standard error due to simulations and interpolation, as a fraction of the error


@dataclass(frozen=True, eq=False)
class Standings:
    """Errors of several results, estimated from the same blocks of data.

    Parameters
    ----------
    names
        Names of the methods.
    blocks
        Estimates of the mean squared error, ``(method, block)``; unbiased, so some may be negative.
    weights
        Amount of data in each block, ``(block,)``.
    noise
        Mean noise power that was subtracted from the residuals.
    domain
        Where the error is measured: ``"volume"`` or ``"projections"``.

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
        """Return the confidence interval of a method's error, by Student's t over blocks.

        The error of a volume rests on simulations and interpolations, which are taken to be wrong by 4 % (standard
        error).  They are the same for all methods, so that differences do not suffer from them.

        Raises
        ------
        SettingsError
            The method is unknown.
        """
        unsure = _SIMULATED * abs(self.errors[name]) if self.domain == "volume" and name in self.names else 0.0
        return self._bounds(self.blocks[self._index(name)], share, unsure)

    def difference(self, one: str, other: str, share: float = 0.9) -> tuple[float, float, float]:
        """Return by how much the error of `one` exceeds that of `other`, and the confidence interval of the difference.

        Both are compared with the same noisy data, so the difference is known far more precisely than either error.

        Raises
        ------
        SettingsError
            The method is unknown.
        """
        change = self.blocks[self._index(one)] - self.blocks[self._index(other)]
        return (float(np.average(change, weights=self.weights)), *self._bounds(change, share))

    def _index(self, name: str) -> int:
        if name not in self.names:
            raise SettingsError(f"the method must be one of {', '.join(self.names)}, got '{name}'")
        return self.names.index(name)

    def _bounds(self, values: np.ndarray, share: float, more: float = 0.0) -> tuple[float, float]:
        return student_interval(values, self.weights, share, more)
