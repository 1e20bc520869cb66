"""Progress of runs started from Python: shown in a notebook, on a terminal, or not at all."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from quietray.console import TerminalWatch
from quietray.running.watch import Watch
from quietray.types import Slice
from quietray.wording import told

__all__ = ["NotebookWatch", "watching"]

_PAGE = '<pre style="white-space:pre-wrap;line-height:normal">{code}</pre>'
_EVERY, _WIDTH = 0.25, 100  # seconds between updates; width in characters


def watching(watch: Watch | None = None, progress: bool | None = None) -> Watch:
    """Return the object that receives the progress of a run.

    Parameters
    ----------
    watch
        Used if it is given.
    progress
        False shows nothing; None shows progress in notebooks and terminals; True also in files that a script writes to.

    Examples
    --------
    >>> class Heard(Watch):
    ...     def note(self, text):
    ...         print(text)
    >>> watching(Heard()).note("give a longer --budget")
    give a longer budget=
    """
    if watch is None:
        watch, console = Watch(), Console(stderr=True)
        if progress is not False and _in_notebook():
            watch = NotebookWatch()
        elif progress or (progress is None and console.is_terminal):
            watch = TerminalWatch(console)
    return watch if isinstance(watch, _Worded) else _Worded(watch)


class _Worded(Watch):
    """Passes everything on, with parameters instead of flags in messages for users of Python."""

    def __init__(self, other: Watch) -> None:
        self.other, self.previews = other, other.previews

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[..., None]]:
        with self.other.stage(name, total) as advance:
            yield advance

    def judged(self, look: tuple[Slice, Slice], step: int, n_steps: int | None, judgement: Any) -> None:
        self.other.judged(look, step, n_steps, judgement)

    def note(self, text: str) -> None:
        self.other.note(told(text))


def _in_notebook() -> bool:
    """Return whether the code runs in a notebook; nothing is imported to find out."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ not in ("NoneType", "TerminalInteractiveShell")


class NotebookWatch(Watch):
    """Shows progress bars and messages below the cell, rendered by rich; needs no widgets.

    Parameters
    ----------
    show
        Called with HTML that replaces the previous one; None displays it below the cell.

    Examples
    --------
    >>> shown = []
    >>> watch = NotebookWatch(shown.append)
    >>> with watch.stage("training", 10) as advance:
    ...     advance(4, "step 4")
    >>> "training" in shown[-1] and "100 %" in shown[-1]
    True
    """

    def __init__(self, show: Callable[[str], None] | None = None) -> None:
        columns: list[ProgressColumn] = [TextColumn("{task.description:<14}"), BarColumn(finished_style="bar.complete")]
        columns += [TextColumn("{task.fields[far]}"), TimeElapsedColumn(), TimeRemainingColumn()]
        columns += [TextColumn("{task.fields[text]}")]
        self._bars, self._said, self._shown = Progress(*columns, auto_refresh=False), Text(), 0.0
        self._show = show or _below_the_cell()

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[..., None]]:
        """Show a bar with the remaining time, which stays when the stage is done."""
        task = self._bars.add_task(escape(name), total=total, text="", far="")

        def advance(done: int, text: str = "") -> None:
            self._bars.update(task, advance=done)
            if text:
                self._bars.update(task, text=escape(text))
            if total:
                self._bars.update(task, far=f"{self._bars.tasks[task].percentage:.0f} %")
            self._draw()

        self._draw(now=True)
        yield advance
        whole = total or 1
        self._bars.update(task, total=whole, completed=whole, far="100 %")
        self._draw(now=True)

    def note(self, text: str) -> None:
        """Show a message."""
        self._said.append(f"· {text}\n", style="dim")
        self._draw(now=True)

    def _draw(self, now: bool = False) -> None:
        """Redraw everything, at most a few times per second."""
        if not now and time.monotonic() - self._shown < _EVERY:
            return
        paper = Console(file=io.StringIO(), record=True, width=_WIDTH, force_terminal=True, force_jupyter=False)
        paper.print(self._said, end="", soft_wrap=True)  # the browser breaks lines
        paper.print(self._bars)
        self._show(paper.export_html(inline_styles=True, code_format=_PAGE))
        self._shown = time.monotonic()


def _below_the_cell() -> Callable[[str], None]:
    """Return a function that displays HTML below the cell, always in the same place."""
    from IPython.display import HTML, display

    place: list[Any] = []

    def show(page: str) -> None:
        if place:
            place[0].update(HTML(page))
        else:
            place.append(display(HTML(page), display_id=True))

    return show
