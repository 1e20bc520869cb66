"""Search for the best setting of a filter, by its true error or by an estimate without ground truth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from quietray.errors import NoiseError
from quietray.filters.base import Filter

__all__ = ["Tuned", "tune"]


@dataclass(frozen=True)
class Tuned:
    """Result of the search for the best setting of a filter.

    Parameters
    ----------
    filter
        The filter with the smallest error.
    error
        Error of that filter.
    tried
        Every ``(filter, error)``, in the order in which they were tried.
    cut
        Whether the search was stopped early.
    """

    filter: Filter
    error: float
    tried: tuple[tuple[Filter, float], ...]
    cut: bool = False


def tune(start: Filter, error: Callable[[Filter], float], enough: Callable[[], bool] = lambda: False) -> Tuned:
    """Find the setting of a filter with the smallest error.

    First, all values of :attr:`Filter.search`, which include no filtering, are tried for one parameter after the other.
    Then each parameter is refined within its range, with steps that are the square root and the fourth root of the
    ratio between search values; integers are not refined.

    Parameters
    ----------
    start
        Where the search begins; it also sets the parameters that are not searched.
    error
        Returns the error of a filter, which may be an estimate and may be negative.  Among equals, the first is kept.
    enough
        Called after every trial; the search ends if it returns True.

    Returns
    -------
    Tuned
        Never worse than `start`; after 6 to about 30 trials.

    Raises
    ------
    NoiseError
        An error is not a number.

    Notes
    -----
    Direct search: Hooke & Jeeves (1961), doi:10.1145/321062.321069.

    Examples
    --------
    >>> from quietray.filters import GaussianFilter
    >>> tuned = tune(GaussianFilter(), lambda candidate: abs(candidate.sigma - 3.4))
    >>> round(tuned.filter.sigma, 2), len(tuned.tried)
    (3.33, 11)
    """
    trials = _Trials(error, enough)
    try:
        best = start
        for name, values in start.search.items():
            best = min([best, *(dataclasses.replace(best, **{name: value}) for value in values)], key=trials)
            if not getattr(best, name):
                break
        for root in (2, 4):
            for name, values in start.search.items():
                if isinstance(values[-1], float):
                    best = _downhill(best, name, (values[-1] / values[-2]) ** (1 / root), trials)
    except _Enough:
        pass
    best = min(trials.errors, key=trials.errors.__getitem__)
    return Tuned(best, trials.errors[best], tuple(trials.errors.items()), trials.cut)


class _Enough(Exception):
    """Raised to end the search."""


class _Trials:
    """Computes the error of each filter once and remembers it."""

    def __init__(self, error: Callable[[Filter], float], enough: Callable[[], bool]) -> None:
        self.error, self.enough, self.cut = error, enough, False
        self.errors: dict[Filter, float] = {}

    def __call__(self, candidate: Filter) -> float:
        if candidate not in self.errors:
            error = float(self.error(candidate))
            if math.isnan(error):
                raise NoiseError(
                    f"the error of a filter must be a number, got {error} for {candidate}; look for pixels that are "
                    "not finite"
                )
            self.errors[candidate] = error
            self.cut = self.enough()
            if self.cut:
                raise _Enough
        return self.errors[candidate]


def _downhill(best: Filter, name: str, ratio: float, trials: _Trials) -> Filter:
    """Multiply or divide a parameter by `ratio` as long as the error decreases."""
    values = [value for value in best.search[name] if value]
    for step in (ratio, 1 / ratio):
        moved = False
        while values[0] <= (value := getattr(best, name) * step) <= values[-1]:
            candidate = dataclasses.replace(best, **{name: value})
            if trials(candidate) >= trials(best):
                break
            best, moved = candidate, True
        if moved:
            break
    return best
