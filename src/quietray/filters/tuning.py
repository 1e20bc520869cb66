"""The best setting of a filter, by any measure of its error: the true one, or an estimate without ground truth."""

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
    """The best setting of a filter.

    Parameters
    ----------
    filter
        With the smallest error.
    error
        Of that setting.
    tried
        Every ``(filter, error)``, in the order of trial.
    cut
        Whether the search was ended before it was done.
    """

    filter: Filter
    error: float
    tried: tuple[tuple[Filter, float], ...]
    cut: bool = False


def tune(start: Filter, error: Callable[[Filter], float], enough: Callable[[], bool] = lambda: False) -> Tuned:
    """Find the setting of a filter with the smallest error.

    First one parameter after the other tries all values of its :attr:`Filter.search`, which include no filtering at
    all.  Then each goes downhill in smaller steps, the square and the fourth root of the last step between its values
    and within their range; whole numbers stay where they are.

    Parameters
    ----------
    start
        Where the search begins; it also holds what is not searched.
    error
        Error of a filter; it may be an estimate, and even negative.  Where two are equal, the one found first is kept.
    enough
        Asked after every trial whether to end the search.

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
    """The search is to end."""


class _Trials:
    """The error of each filter, measured once."""

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
    """Multiply or divide a parameter by `ratio` for as long as that lowers the error."""
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
