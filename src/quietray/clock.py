"""Since when the user waits: a budget is for everything from then on, not for training alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["waiting", "waiting_since"]

_SINCE: ContextVar[float | None] = ContextVar("since", default=None)


@contextmanager
def waiting() -> Iterator[None]:
    """Count whatever is begun inside from now on; a command enters this first, before it imports anything heavy."""
    token = _SINCE.set(time.monotonic())
    try:
        yield
    finally:
        _SINCE.reset(token)


def waiting_since() -> float:
    """Return the time, on the monotonic clock, when the user began to wait: now, if nobody said so.

    Examples
    --------
    >>> with waiting():
    ...     waiting_since() == waiting_since()
    True
    """
    since = _SINCE.get()
    return time.monotonic() if since is None else since
