"""Start of the waiting time: a budget covers everything from then on, and not only the training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["waiting", "waiting_since"]

_SINCE: ContextVar[float | None] = ContextVar("since", default=None)


@contextmanager
def waiting() -> Iterator[None]:
    """Count the time from now on for everything that starts inside; commands enter this before heavy imports."""
    token = _SINCE.set(time.monotonic())
    try:
        yield
    finally:
        _SINCE.reset(token)


def waiting_since() -> float:
    """Return the start of the waiting time on the monotonic clock; now, if none was set.

    Examples
    --------
    >>> with waiting():
    ...     waiting_since() == waiting_since()
    True
    """
    since = _SINCE.get()
    return time.monotonic() if since is None else since
