"""The command line.  Nothing heavy is imported before a command runs."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, get_args

import tyro

from quietray.clock import waiting
from quietray.commands.files import Check, Demo, Evaluate, Info, Simulate
from quietray.commands.flags import check_at_once
from quietray.commands.images import Filter
from quietray.commands.models import Models
from quietray.commands.noise import Decorrelate, Diagnose
from quietray.commands.runs import Apply, Compare, Denoise, Reconstruct, Train
from quietray.errors import QuietrayError, SettingsError, nearest
from quietray.wording import flags_spoken

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["main"]


def _finite(value: Any) -> Any:
    """Return figures with None, which JSON knows, in place of infinities and NaN, which it does not."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Info, tyro.conf.subcommand("info")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Diagnose, tyro.conf.subcommand("diagnose")]
    | Annotated[Denoise, tyro.conf.subcommand("denoise")]
    | Annotated[Filter, tyro.conf.subcommand("filter")]
    | Annotated[Decorrelate, tyro.conf.subcommand("decorrelate")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Apply, tyro.conf.subcommand("apply")]
    | Annotated[Models, tyro.conf.subcommand("models")]
    | Annotated[Reconstruct, tyro.conf.subcommand("reconstruct")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Simulate, tyro.conf.subcommand("simulate")]
)
_KINDS: dict[str, type] = {kind.__origin__.__name__.lower(): kind.__origin__ for kind in get_args(_Command)}


def _check_flags(arguments: list[str]) -> None:
    """Refuse an unknown flag by its name; else the argument after it, its value or the scan, would seem to be missing.

    Raises
    ------
    SettingsError
        A flag is unknown.
    """
    kind = _KINDS.get(arguments[0]) if arguments else None
    if kind is None:
        return  # which is told better where commands are told apart
    known = [f"--{entry.name.strip('_').replace('_', '-')}" for entry in dataclasses.fields(kind)] + ["--help"]
    for argument in arguments[1:]:
        flag = argument.split("=")[0]
        if flag.startswith("--") and flag.replace("_", "-") not in known:
            raise SettingsError(
                f"{flag} must be a flag of quietray {arguments[0]}, got an unknown one{nearest(flag, known)}; "
                f"see quietray {arguments[0]} --help"
            )


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with 0, 2 (something that the user can mend) or 1 (our fault)."""
    with waiting(), _stoppable(), flags_spoken():
        _main(arguments)


class _TerminatedError(BaseException):
    """The system asked the process to end."""


@contextmanager
def _stoppable() -> Iterator[None]:
    """End like a keyboard's interrupt when the system asks for it, as a scheduler does before it kills."""

    def stop(*_: object) -> None:
        raise _TerminatedError

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _main(arguments: list[str] | None) -> None:
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it reports the precision that we chose
    command = None
    try:
        _check_flags(sys.argv[1:] if arguments is None else arguments)
        command = tyro.cli(
            _Command,
            prog="quietray",
            description="Remove the noise from X-ray radiographs and CT volumes, without any clean data.",
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes,),
        )
        check_at_once(command)
        figures = command.run(_console())
    except QuietrayError as error:
        from rich.markup import escape

        _console().print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except MemoryError:
        _console().print(
            "[red]error:[/red] the machine ran out of memory; give a smaller --max-memory", highlight=False
        )
        sys.exit(2)
    except (KeyboardInterrupt, _TerminatedError) as stop:
        told = sys.argv[1:] if arguments is None else arguments
        again = shlex.join(["quietray", *told, *([] if "--resume" in told else ["--resume"])])
        kept = f"; what was learned and written is kept, go on with:\n{again}" if isinstance(command, Denoise) else ""
        _console().print(f"stopped{kept}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(130 if isinstance(stop, KeyboardInterrupt) else 143)
    except BrokenPipeError:  # such as of `quietray denoise --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python closes it without a word
        sys.exit(141)
    except Exception:
        traceback.print_exc()
        _console().print("[red]this is a fault of quietray, not yours:[/red] please report it with the lines above")
        sys.exit(1)
    if getattr(command, "json", False):
        print(json.dumps(_finite(figures), indent=2, default=str, allow_nan=False))


if __name__ == "__main__":
    main()
