"""Output of messages: standard error, and optionally a log file."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.control import Control
from rich.markup import escape

from quietray.errors import ResourceError

__all__ = ["Teller"]

_WIDE = 160  # width of a table in a log


class Teller(Console):
    """A console on standard error that also keeps a log.

    Parameters
    ----------
    log
        File to which all messages are appended, in plain text with the time of each line.
    quiet
        Whether to show only errors and the last line.
    verbose
        Whether to show what is passed to :meth:`detail`.

    Raises
    ------
    ResourceError
        The log cannot be written.

    Examples
    --------
    >>> teller = Teller(quiet=True)
    >>> teller.print("[bold]not shown[/]")
    """

    def __init__(self, log: Path | None = None, *, quiet: bool = False, verbose: bool = False) -> None:
        super().__init__(stderr=True, quiet=quiet)
        self.verbose = verbose
        self._log = None
        if log is not None:
            try:
                self._log = log.open("a", encoding="utf-8")
            except OSError as error:
                raise ResourceError(
                    f"the log {log} must be a file that can be written, got: {error.strerror}; give --log another name"
                ) from error

    def print(self, *objects: Any, **how: Any) -> None:
        """Print to the console and to the log."""
        super().print(*objects, **how)
        if self._log is not None and not all(isinstance(one, Control) for one in objects):
            self._write(*objects, **how)

    def note_down(self, text: str) -> None:
        """Write a line to the log only, for example progress that a bar shows on the console."""
        if self._log is not None:
            self._write(text, markup=False)

    def detail(self, text: str) -> None:
        """Show a detail, only in verbose mode."""
        if self.verbose:
            self.print(f"[dim]{escape(text)}[/]", highlight=False, soft_wrap=True)

    def insist(self, text: str, **how: Any) -> None:
        """Show a message even in quiet mode."""
        quiet, self.quiet = self.quiet, False
        self.print(text, **{"highlight": False, "soft_wrap": True, **how})
        self.quiet = quiet

    def on_broken_pipe(self) -> None:
        """Leave a broken pipe to the caller."""
        raise BrokenPipeError

    def _write(self, *objects: Any, **how: Any) -> None:
        plain = Console(file=io.StringIO(), width=_WIDE, color_system=None, force_terminal=False, emoji=False)
        alone = all(isinstance(one, str) for one in objects)
        plain.print(*objects, **{**how, "soft_wrap": alone})
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        assert isinstance(plain.file, io.StringIO)
        assert self._log is not None
        try:
            self._log.writelines(f"{now} {line.rstrip()}\n" for line in plain.file.getvalue().splitlines())
            self._log.flush()
        except OSError as error:
            self._log = None  # otherwise, the error message would fail as well
            raise ResourceError(f"the log must be written, got: {error.strerror}; free its disk") from error
