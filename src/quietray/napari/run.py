"""A run as the window starts it: in a thread, told to somebody, stopped when asked."""

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

_EVERY = 0.1  # seconds, between two looks at the progress


class StoppedError(BaseException):
    """The run was asked to stop; no handler of errors on the way may keep it going."""


@dataclass(frozen=True)
class Progress:
    """How far a stage is.

    Parameters
    ----------
    stage
        Its name.
    share
        Done of it, 0 to 1; None where that is not known.
    text
        What it says of itself.
    """

    stage: str
    share: float | None
    text: str = ""


@dataclass(frozen=True, eq=False)
class Preview:
    """A held-out slice ``(y, x)`` while the network learns.

    Parameters
    ----------
    before, after
        The slice as it is, and denoised.
    step, steps
        Of the training.
    """

    before: np.ndarray
    after: np.ndarray
    step: int
    steps: int | None


Told = Progress | Preview | str
"""What the window hears: how far it is, what it looks like, a sentence."""


class WindowWatch(quietray.Watch):
    """Tells the window how a run proceeds, and ends it when it was asked to stop.

    Parameters
    ----------
    tell
        Given what there is to tell; called in the thread of the run.
    stopped
        Whether to stop; asked whenever the run tells something.
    """

    previews = True

    def __init__(self, tell: Callable[[Told], None], stopped: Callable[[], bool]) -> None:
        self._tell, self._stopped = tell, stopped

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[..., None]]:
        """Tell the share that is done, a few times a second."""
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
        """Pass a sentence on."""
        self._go_on()
        self._tell(text)

    def _go_on(self) -> None:
        if self._stopped():
            raise StoppedError


@dataclass(frozen=True, eq=False)
class Done:
    """What a run leaves.

    Parameters
    ----------
    result
        Of the run.
    noisy
        The volume as it is without denoising, ``(z, y, x)``.
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
    """What is to be done.

    Parameters
    ----------
    scan
        To be denoised.
    folder
        Output folder.
    changes
        Settings by name, such as ``{"budget": "4m"}``.
    model
        Folder of a trained model to apply instead of training one.
    resume
        Go on with what the folder holds.
    """

    scan: quietray.Scan
    folder: Path
    changes: Mapping[str, Any] = field(default_factory=dict)
    model: Path | None = None
    resume: bool = False

    def __call__(self, watch: WindowWatch) -> Done | None:
        """Do it; None when it was stopped."""
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
    """Return the names of the methods that one scan is enough for.

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
