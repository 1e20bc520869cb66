"""Who is told how a run proceeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Watch"]


class Watch:
    """Told how a run proceeds; this one keeps silent."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[..., None]]:
        """Enter a stage of `total` units; the function that it gives takes units just done, and a text."""
        yield lambda done, text="": None

    def note(self, text: str) -> None:
        """Hear a sentence that the user should know."""
