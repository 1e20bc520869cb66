"""The command line.  Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
import logging
import math
import sys
import traceback
from typing import Annotated, Any

import tyro

from quietray.commands.files import Demo, Evaluate, Info, Simulate
from quietray.commands.images import Filter
from quietray.commands.noise import Decorrelate, Diagnose
from quietray.commands.runs import Apply, Compare, Denoise, Reconstruct, Train
from quietray.errors import QuietrayError

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
    | Annotated[Diagnose, tyro.conf.subcommand("diagnose")]
    | Annotated[Denoise, tyro.conf.subcommand("denoise")]
    | Annotated[Filter, tyro.conf.subcommand("filter")]
    | Annotated[Decorrelate, tyro.conf.subcommand("decorrelate")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Apply, tyro.conf.subcommand("apply")]
    | Annotated[Reconstruct, tyro.conf.subcommand("reconstruct")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Simulate, tyro.conf.subcommand("simulate")]
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with 0, 2 (something that the user can mend) or 1 (our fault)."""
    command = tyro.cli(
        _Command,
        prog="quietray",
        description="Remove the noise from X-ray radiographs and CT volumes, without any clean data.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it reports the precision that we chose
    try:
        figures = command.run(console)
    except QuietrayError as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except MemoryError:
        console.print("[red]error:[/red] the machine ran out of memory; give a smaller --max-memory", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        kept = "; what was learned and written is kept, go on with --resume" if isinstance(command, Denoise) else ""
        console.print(f"stopped{kept}", highlight=False)
        sys.exit(130)
    except Exception:
        traceback.print_exc()
        console.print("[red]this is a fault of quietray, not yours:[/red] please report it with the lines above")
        sys.exit(1)
    if getattr(command, "json", False):
        print(json.dumps(_finite(figures), indent=2, default=str, allow_nan=False))


if __name__ == "__main__":
    main()
