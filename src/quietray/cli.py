"""The command line.  Large libraries are imported only when a command runs."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import math
import os
import re
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from functools import reduce
from importlib.metadata import version
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import tyro

from quietray.clock import waiting, waiting_since
from quietray.commands.flags import OutFlags, check_at_once
from quietray.commands.runs import Denoise
from quietray.commands.table import COMMAND_GROUPS, COMMANDS
from quietray.errors import QuietrayError, SettingsError, nearest
from quietray.wording import flags_spoken

if TYPE_CHECKING:
    from quietray.telling import Teller

__all__ = ["main"]


def _finite(value: Any) -> Any:
    """Return figures with infinities and NaN, which JSON does not support, replaced by None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_HELP = ("--help", "-h", "--help-all")


def _check_flags(arguments: list[str]) -> None:
    """Refuse an unknown flag by name; otherwise the error would be that the argument after it is missing.

    Raises
    ------
    SettingsError
        A flag is unknown.
    """
    kind = COMMANDS.get(arguments[0]) if arguments else None
    if kind is None:
        return  # the parser of commands has a better message
    known = [f"--{entry.name.strip('_').replace('_', '-')}" for entry in dataclasses.fields(kind)]
    for argument in arguments[1:]:
        flag = argument.split("=")[0]
        if flag.startswith("--") and flag.replace("_", "-") not in known:
            raise SettingsError(
                f"{flag} must be a flag of quietray {arguments[0]}, got an unknown one{nearest(flag, known)}; "
                f"see quietray {arguments[0]} --help"
            )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the exit codes are listed in docs/command-line.md."""
    with waiting(), _stoppable(), flags_spoken():
        try:
            _main(sys.argv[1:] if arguments is None else list(arguments))
        except BrokenPipeError:  # the reader has stopped, as in `quietray denoise --help | head`
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in (sys.stdout, sys.stderr):
                os.dup2(nowhere, stream.fileno())  # so that Python closes it without a message
            sys.exit(128 + signal.SIGPIPE)


class _AskedError(BaseException):
    """The process received this signal to terminate."""


@contextmanager
def _stoppable() -> Iterator[None]:
    """Stop as after Ctrl-C if a scheduler sends a signal before it kills the process, or if the terminal is closed."""

    def stop(number: int, _: object) -> None:
        raise _AskedError(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        one: signal.signal(one, stop)
        for one in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(one) != signal.SIG_IGN  # nohup ignores the signal
    }
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _main(told: list[str]) -> None:
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # otherwise it reports the precision
    if told[:1] == ["--version"]:
        print(f"quietray {version('quietray')}", flush=True)
        return
    if not told or any(one in told for one in _HELP):
        print(_help(told), flush=True)
        sys.exit(0 if told else 2)
    run = _Run(told)
    try:
        run.run()
    except QuietrayError as error:
        run.fail(2, type(error).__name__, str(error), facts=error.facts)
    except MemoryError:
        run.fail(2, "MemoryError", "the machine ran out of memory; give a smaller --max-memory")
    except KeyboardInterrupt:
        run.stopped(signal.SIGINT)
    except _AskedError as asked:
        run.stopped(signal.Signals(asked.args[0]))
    except BrokenPipeError:
        raise
    except Exception as error:
        run.fault(error)


def _help(told: list[str]) -> str:
    from quietray.commands.manual import manual, overview

    kind = COMMANDS.get(told[0]) if told else None
    return overview(COMMAND_GROUPS) if kind is None else manual(told[0], kind, whole="--help-all" in told)


def _parsed(told: list[str]) -> Any:
    """Return the command; with --json, a mistake is raised, so that it can be printed as JSON.

    Raises
    ------
    SettingsError
        The arguments cannot be parsed.
    """
    words, quiet = io.StringIO(), "--json" in told
    kinds: Any = reduce(or_, (Annotated[kind, tyro.conf.subcommand(name)] for name, kind in COMMANDS.items()))
    try:
        with redirect_stderr(words) if quiet else nullcontext():
            return tyro.cli(kinds, prog="quietray", args=told, config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit as left:
        if quiet and left.code:
            sentence = " ".join(re.sub("[\u2500-\u257f]", " ", words.getvalue()).split())
            raise SettingsError(re.sub(r" *For full helptext,? (see|run) .*", "", sentence)) from None
        raise


class _Run:
    """A command from its start to its exit code.

    Parameters
    ----------
    told
        Arguments of the command line.
    """

    def __init__(self, told: list[str]) -> None:
        self.told = told
        self.json = "--json" in told
        self.command: Any = None
        self._teller: Teller | None = None

    @property
    def teller(self) -> Teller:
        """Output of messages; rich is imported with the first message."""
        if self._teller is None:
            from quietray.telling import Teller

            given = self.command
            self._teller = Teller() if given is None else Teller(given.log, quiet=given.quiet, verbose=given.verbose)
        return self._teller

    def run(self) -> None:
        """Run the command, and print its figures with --json."""
        _check_flags(self.told)
        self.command = command = _parsed(self.told)
        if command.log is not None:
            self.teller.note_down(f"quietray {version('quietray')}: {self._line(self.told)}")
        check_at_once(command)
        if isinstance(command, OutFlags) and command.out is None:
            self.teller.print(f"output: {command.place}", highlight=False, markup=False, soft_wrap=True)
        figures = command.run(self.teller)
        if self.teller.verbose:
            from quietray.running.facts import peak_memory

            spent = time.monotonic() - waiting_since()
            self.teller.detail(f"{self.told[0]} took {spent:.1f} s and at most {peak_memory() / 2**30:.2f} GiB")
        if command.quiet:
            self.teller.insist(command.last_line(figures), markup=False)
        if command.json:
            self._print(figures)

    def fail(self, code: int, kind: str, message: str, **more: Any) -> NoReturn:
        """Show an error, and exit."""
        self._say(f"[red]error:[/red] {_escaped(message)}")
        self._leave(code, kind, message, **more)

    def stopped(self, by: signal.Signals) -> NoReturn:
        """Show how to continue, and exit with the code that a shell uses for a program ended by this signal."""
        again = None
        if isinstance(self.command, Denoise):
            again = self._line([*self.told, *([] if "--resume" in self.told else ["--resume"])])
        kept = f"; what was learned and written is kept; continue with:\n{_escaped(again)}" if again else ""
        self._say(f"stopped{kept}")
        self._leave(128 + by, "Stopped", f"stopped by {by.name}", resume=again)

    def fault(self, error: Exception) -> NoReturn:
        """Show an internal error with its traceback, and exit."""
        self._say(_escaped(traceback.format_exc()))
        self._say("[red]this is a fault of quietray, not yours:[/red] please report it with the lines above")
        self._leave(1, type(error).__name__, str(error))

    def _say(self, text: str) -> None:
        try:
            self.teller.insist(text)
        except QuietrayError as error:  # the log may be what failed
            self.command = None
            self._teller = None
            self.teller.insist(f"[red]error:[/red] {_escaped(str(error))}")

    def _leave(self, code: int, kind: str, message: str, **more: Any) -> NoReturn:
        if self.json:
            self._print({"error": {"kind": kind, "message": message, "exit_code": code, **more}})
        sys.exit(code)

    def _line(self, words: list[str]) -> str:
        return shlex.join(["quietray", *words])

    def _print(self, document: Any) -> None:
        print(json.dumps(_finite(document), indent=2, default=str, allow_nan=False), flush=True)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
