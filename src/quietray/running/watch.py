"""Who is told how a run proceeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from quietray.types import Slice

__all__ = ["Watch"]


class Watch:
    """Told how a run proceeds; this one keeps silent."""

    previews: bool = False
    """Whether it wants to see a slice at every judgement."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[..., None]]:
        """Enter a stage of `total` units; the function that it gives takes units just done, and a text."""
        yield lambda done, text="": None

    def judged(self, look: tuple[Slice, Slice], step: int, n_steps: int | None, judgement: Any) -> None:
        """See a held-out slice, before and after, with the judgement at a step of training."""

    def note(self, text: str) -> None:
        """Hear a sentence that the user should know."""
