"""The receiver of the progress of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from quietray.types import Slice

__all__ = ["Watch"]


class Watch:
    """Receives the progress of a run; this base class shows nothing."""

    previews: bool = False
    """Whether to receive a slice whenever the error is estimated."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[..., None]]:
        """Start a stage of `total` units; gives a function to call with the units just done and a text."""
        yield lambda done, text="": None

    def judged(self, look: tuple[Slice, Slice], step: int, n_steps: int | None, judgement: Any) -> None:
        """Receive a held-out slice, before and after, with the error estimated at a step of training."""

    def note(self, text: str) -> None:
        """Receive a message for the user."""
