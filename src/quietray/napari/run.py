"""A run started by the window: in a thread, with progress, stopped on request."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import quietray

__all__ = ["Done", "Job", "Preview", "Progress", "StoppedError", "Told", "WindowWatch", "methods"]

_EVERY = 0.1  # seconds between updates of the progress


class StoppedError(BaseException):
    """The run was asked to stop; error handlers must not catch this."""


@dataclass(frozen=True)
class Progress:
    """Progress of a stage.

    Parameters
    ----------
    stage
        Name of the stage.
    share
        Fraction that is done, 0 to 1; None if unknown.
    text
        Its message.
    """

    stage: str
    share: float | None
    text: str = ""


@dataclass(frozen=True, eq=False)
class Preview:
    """A held-out slice ``(y, x)`` during training.

    Parameters
    ----------
    before, after
        The slice before and after denoising.
    step, steps
        Training step, and number of steps.
    """

    before: np.ndarray
    after: np.ndarray
    step: int
    steps: int | None


Told = Progress | Preview | str
"""What the window receives: progress, a preview, or a message."""


class WindowWatch(quietray.Watch):
    """Passes the progress of a run to the window, and ends the run on request.

    Parameters
    ----------
    tell
        Receives the progress; called in the thread of the run.
    stopped
        Whether to stop; called whenever the run reports something.
    """

    previews = True

    def __init__(self, tell: Callable[[Told], None], stopped: Callable[[], bool]) -> None:
        self._tell, self._stopped = tell, stopped

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[..., None]]:
        """Report the fraction that is done, a few times per second."""
        done, said, latest = 0, 0.0, ""

        def advance(units: int, text: str = "") -> None:
            nonlocal done, said, latest
            self._go_on()
            done, latest, now = done + units, text or latest, time.monotonic()
            if now - said >= _EVERY:
                said = now
                self._tell(Progress(name, min(1.0, done / total) if total else None, latest))

        self._go_on()
        self._tell(Progress(name, 0.0 if total else None))
        yield advance

    def judged(self, look: tuple[np.ndarray, np.ndarray], step: int, n_steps: int | None, judgement: Any) -> None:
        """Show the slice."""
        self._go_on()
        self._tell(Preview(*look, step, n_steps))

    def note(self, text: str) -> None:
        """Pass a message on."""
        self._go_on()
        self._tell(text)

    def _go_on(self) -> None:
        if self._stopped():
            raise StoppedError


@dataclass(frozen=True, eq=False)
class Done:
    """Result of a run.

    Parameters
    ----------
    result
        The result.
    noisy
        The volume without denoising, ``(z, y, x)``.
    """

    result: quietray.Result
    noisy: Any

    @property
    def said(self) -> str:
        """The verdict, if there is one, and the gain."""
        verdict = self.result.metrics.get("verdict")
        told = [f"{verdict['kind']}: {verdict['reason']}"] if verdict else []
        return "\n".join([*told, f"estimated gain {self.result.gain}"])


@dataclass(frozen=True, eq=False)
class Job:
    """A run to be done.

    Parameters
    ----------
    scan
        Scan to denoise.
    folder
        Output folder.
    changes
        Settings by name, such as ``{"budget": "4m"}``.
    model
        Folder of a trained model to apply instead of training one.
    resume
        Whether to resume the run in the folder.
    """

    scan: quietray.Scan
    folder: Path
    changes: Mapping[str, Any] = field(default_factory=dict)
    model: Path | None = None
    resume: bool = False

    def __call__(self, watch: WindowWatch) -> Done | None:
        """Run it; return None if it was stopped."""
        changes: Any = dict(self.changes)
        try:
            if self.model is not None:
                result = quietray.apply(self.model, self.scan, self.folder, watch=watch, **changes)
            else:
                result = quietray.denoise(self.scan, self.folder, resume=self.resume, watch=watch, **changes)
            place = self.folder / "noisy.zarr"
            settings = dataclasses.replace(result.settings, format="zarr", dtype=None, window=None)
            quietray.reconstruct(self.scan, place, settings, overwrite=True, watch=watch)
        except StoppedError:
            return None
        return Done(result, quietray.read_volume(place))


def methods() -> list[str]:
    """Return the names of methods that work with a single scan.

    Examples
    --------
    >>> "noise2inverse" in methods(), "noise2noise" in methods()
    (True, False)
    """
    kinds = quietray.Settings().method.registry.items()
    return [
        name
        for name, kind in kinds
        if kind.domain not in ("images", "clean") and not (kind.takes_repeats or kind.needs_start)
    ]
