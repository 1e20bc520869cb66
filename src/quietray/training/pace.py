"""Number of training steps: as requested, or as many as fit into a time budget."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Pace"]

_FEWEST = 12  # steps to time before planning; the first ones fill caches and do not count
_COLD = 4


class Pace:
    """Measures the duration of steps and plans their number.

    A plan is only changed if it is wrong by more than a tenth of the remaining steps, so on a machine with constant
    load there is a single plan.

    Parameters
    ----------
    n_steps
        The number of steps, or None to fill a budget.
    budget
        Computes the time for training in seconds from the duration of a step.
    seconds
        Time spent in seconds before this run was resumed.
    """

    def __init__(self, n_steps: int | None, budget: Callable[[float], float], seconds: float = 0.0) -> None:
        self._fixed = n_steps
        self._budget = budget
        self.seconds = seconds
        self._last = time.monotonic()
        self._steps: list[float] = []
        self._since: tuple[int, float] | None = None

    @property
    def per_step(self) -> float:
        """Median duration of the latest steps in seconds."""
        recent = sorted(self._steps[_COLD:][-100:])
        return recent[len(recent) // 2] if recent else 0.0

    def tick(self, step: bool = True) -> None:
        """Count the time since the last tick, which for a training step also counts towards its duration."""
        now = time.monotonic()
        if step:
            self._steps.append(now - self._last)
        self.seconds += now - self._last
        self._last = now

    def first_plan(self, step: int) -> int | None:
        """Return the planned number of steps once enough steps have been timed."""
        if len(self._steps) < _FEWEST + _COLD:
            return None
        self._since = (step, self.seconds)
        return step + max(1, int(self._left() / max(self.per_step, 1e-6)))

    def next_plan(self, step: int, n_steps: int) -> int:
        """Return the number of steps after a validation, whose duration is included in the plan."""
        if self._fixed is not None or step >= n_steps:
            return n_steps
        before, self._since = self._since, (step, self.seconds)
        if before is None or step <= before[0]:
            return n_steps
        pace = (self.seconds - before[1]) / (step - before[0])
        fresh = step + max(1, int(self._left() / max(pace, 1e-6)))
        return fresh if abs(fresh - n_steps) > 0.1 * (n_steps - step) else n_steps

    def _left(self) -> float:
        return self._budget(self.per_step) - self.seconds
