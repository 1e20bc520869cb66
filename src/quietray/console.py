"""What the terminal shows: progress bars with the time left, sentences, tables; all on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from quietray.diagnose import Diagnosis
from quietray.inference.output import Watch

__all__ = ["TerminalWatch", "show_diagnosis", "show_table"]


class TerminalWatch(Watch):
    """Shows a run's progress.

    Parameters
    ----------
    console
        Where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[..., None]]:
        """Show a bar with the time left; a line when the stage is done."""
        columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description:<14}")]
        if total is not None:
            columns += [BarColumn(), MofNCompleteColumn() if total != 1000 else TextColumn("{task.percentage:>3.0f} %")]
        columns += [TimeElapsedColumn()]
        if total is not None:
            columns += [TextColumn("left"), TimeRemainingColumn()]
        columns.append(TextColumn("{task.fields[text]}"))
        with Progress(*columns, console=self.console, transient=not self.console.is_terminal) as progress:
            task = progress.add_task(name, total=total, text="")

            def advance(done: int, text: str = "") -> None:
                progress.update(task, advance=done)
                if text:
                    progress.update(task, text=text)

            yield advance
            if total is not None:
                progress.update(task, completed=total)

    def note(self, text: str) -> None:
        """Show a sentence."""
        self.console.print(f"[dim]·[/dim] {escape(text)}", highlight=False)


def show_table(console: Console, title: str, rows: Mapping[str, Any]) -> None:
    """Show names and values."""
    table = Table(title=escape(title), title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, escape(str(value)))
    console.print(table)


def show_diagnosis(console: Console, found: Diagnosis) -> None:
    """Show what the noise is, and the verdicts."""
    before = found.before
    rows: dict[str, Any] = {
        "noise": found.label,
        "read from": f"{found.source}: {found.source_why}",
        "summed correlation": f"{before.summed:.3f} +- {before.summed_error:.3f}",
    }
    if found.after is not None:
        rows["whitened"] = f"{found.after.summed:.3f} +- {found.after.summed_error:.3f}"
    if found.transfer is not None:
        rows["gain"] = (
            f"{found.transfer.gain:.4g} counts per quantum, read noise {found.transfer.read_noise:.3g} counts"
        )
    show_table(console, "Noise", rows)
    table = Table("method", "verdict", "measured", "what to do", title="Methods", title_justify="left", show_lines=True)
    colours = {"valid": "green", "valid with a warning": "yellow", "not valid": "red"}
    for verdict in found.verdicts:
        colour = colours[verdict.answer]
        table.add_row(verdict.method, f"[{colour}]{verdict.answer}[/]", escape(verdict.reason), escape(verdict.advice))
    console.print(table)
    console.print(f"recommended: [bold]{found.recommended}[/bold]", highlight=False)
    for warning in found.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", highlight=False)
