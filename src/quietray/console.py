"""Output on the terminal: progress bars with the remaining time, messages and tables, all on standard error."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
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

from quietray.detector.findings import amplification, shared_noise
from quietray.detector.noise.correlation import Correlation
from quietray.diagnose import Diagnosis
from quietray.running.facts import peak_memory
from quietray.running.plan import resident_memory
from quietray.running.watch import Watch
from quietray.telling import Teller

__all__ = ["TerminalWatch", "show_comparison", "show_diagnosis", "show_table", "show_tissues", "show_verdict"]

_EVERY = 30.0  # seconds between two lines if there is no terminal
_LINES = 200  # number kept for `quietray watch`


class TerminalWatch(Watch):
    """Shows the progress of a run.

    Parameters
    ----------
    console
        Console to write to.  If it is a file, not a terminal, a line is written every half minute instead of a bar; the
        same holds for the log of a :class:`~quietray.telling.Teller`.
    previews
        Whether to write a preview whenever the error is estimated.
    folder
        Output folder; during a run, the progress is stored there for `quietray watch`.
    """

    def __init__(self, console: Console, previews: bool = False, folder: Path | None = None) -> None:
        self.console, self.previews = console, previews
        self._kept = _Kept(folder)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[..., None]]:
        """Show a bar with the remaining time, and a line when the stage is done."""
        begun = said = time.monotonic()
        count, latest = 0, ""
        self._kept.stage(name)
        with self._bar(name, total) as move:

            def advance(done: int, text: str = "") -> None:
                nonlocal said, count, latest
                move(done, text)
                count, latest, now = count + done, text or latest, time.monotonic()
                spent, share = now - begun, count / total if total else None
                left = spent * (1 - share) / share if share else None
                self._kept.moved(spent, share, left, latest)
                if now - said >= _EVERY:
                    said = now
                    far = "" if share is None else f"{share:.0%}"
                    far += "" if left is None else f", about {left:.0f} s left"
                    self._line(", ".join(part for part in (f"{name} for {spent:.0f} s", far, latest) if part))

            yield advance
        spent = time.monotonic() - begun
        self._line(", ".join(part for part in (f"{name} took {spent:.1f} s", latest, self._memory()) if part))

    @contextmanager
    def _bar(self, name: str, total: int | None) -> Iterator[Callable[[int, str], None]]:
        """Show a bar on a terminal."""
        if not self.console.is_terminal:
            yield lambda done, text: None
            return
        columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description:<14}")]
        if total is not None:
            columns += [BarColumn(), MofNCompleteColumn() if total != 1000 else TextColumn("{task.percentage:>3.0f} %")]
        columns += [TimeElapsedColumn()]
        if total is not None:
            columns += [TextColumn("left"), TimeRemainingColumn()]
        columns.append(TextColumn("{task.fields[text]}"))
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(name, total=total, text="")

            def move(done: int, text: str) -> None:
                progress.update(task, advance=done)
                if text:
                    progress.update(task, text=text)

            yield move
            if total is not None:
                progress.update(task, completed=total)

    def _memory(self) -> str:
        """Return the memory of the process as text, in verbose mode."""
        if not (isinstance(self.console, Teller) and self.console.verbose):
            return ""
        return f"memory {resident_memory() / 2**30:.2f} GiB, at most {peak_memory() / 2**30:.2f} GiB so far"

    def _line(self, text: str) -> None:
        """Write a line to the log, and to the console if it shows no bar."""
        self._kept.told(text)
        teller = self.console if isinstance(self.console, Teller) else None
        if not self.console.is_terminal:
            self.console.print(f"{time.strftime('%H:%M:%S')} {escape(text)}", highlight=False, soft_wrap=True)
        elif teller is not None and teller.verbose:
            teller.detail(text)
        elif teller is not None:
            teller.note_down(text)

    def note(self, text: str) -> None:
        """Show a message."""
        self._kept.told(text)
        here = self.console.is_terminal
        mark = "·" if here else time.strftime("%H:%M:%S")
        self.console.print(f"[dim]{mark}[/dim] {escape(text)}", highlight=False, soft_wrap=not here)


def show_verdict(console: Console, verdict: Mapping[str, str]) -> None:
    """Show the verdict on a result, which is one of its figures."""
    colour = {"Use it": "green", "Do not use it": "red"}.get(verdict["kind"], "yellow")
    console.print(f"[bold {colour}]{escape(verdict['kind'])}:[/] {escape(verdict['reason'])}", highlight=False)


class _Kept:
    """Progress of a run, in ``OUT/.work/progress.json`` while that folder exists; removed when the run is done.

    Parameters
    ----------
    folder
        ``OUT``; None stores nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._work = None if folder is None else folder / ".work"
        self._lines: list[str] = []
        self._now: dict[str, Any] = {}
        self._written = 0.0

    def stage(self, name: str) -> None:
        """Start a stage."""
        self._now = {"stage": name}
        self._write()

    def moved(self, seconds: float, share: float | None, left: float | None, text: str) -> None:
        """Store the progress of the stage, of which the fraction `share` is done."""
        self._now |= {"seconds": seconds, "share": share, "seconds_left": left, "text": text}
        if time.monotonic() - self._written >= 1:
            self._write()

    def told(self, line: str) -> None:
        """Store a line; only the latest lines are kept."""
        self._lines = [*self._lines[-_LINES:], f"{time.strftime('%H:%M:%S')} {line}"]
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        if self._work is not None and self._work.is_dir():
            record = {"time": time.time(), "pid": os.getpid(), **self._now, "lines": self._lines}
            partial = self._work / ".progress.partial"
            with suppress(OSError):  # a full disk must not stop the run here
                partial.write_text(json.dumps(record))
                partial.replace(self._work / "progress.json")


def show_table(console: Console, title: str, rows: Mapping[str, Any]) -> None:
    """Show a table of names and values."""
    table = Table(title=escape(title), title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, escape(str(value)))
    console.print(table)


def show_tissues(console: Console, tissues: Sequence[Mapping[str, Any]], how: str) -> None:
    """Show records of :class:`quietray.metrics.tissue.TissueBias`, and how the tissues were chosen."""
    table = Table(title="Bias by tissue, in HU", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("tissue", "in the reference", "pixels", "difference", "standard error", "sd"):
        table.add_column(heading, justify="left" if heading in ("tissue", "in the reference") else "right")
    for one in tissues:
        error = f"{one['error']:.2g}" if math.isfinite(one["error"]) else "not known"
        figures = (f"{one['pixels']}", f"{one['bias']:+.2f}", error, f"{one['sd']:.2f}")
        table.add_row(escape(one["tissue"]), escape(one["band"]), *figures)
    console.print(table)
    found = "" if tissues else "no tissue found; "
    console.print(f"[dim]{escape(found + how)}[/dim]", highlight=False)


def show_comparison(console: Console, record: Mapping[str, Any], relative: bool = False) -> None:
    """Show the methods of a comparison, best first; with `relative`, only the differences from the best."""
    from quietray.report.comparison import board_of  # imports matplotlib, which no other table needs

    board = board_of(record, relative=relative)
    table = Table(title="Methods, best first", title_justify="left", box=None, padding=(0, 2, 0, 0))
    psnr = ("PSNR relative to the best",) if relative else ("PSNR", "interval")
    for heading in ("method", *psnr, "", "time", "setting"):
        table.add_column(heading, justify="right" if heading in (psnr[0], "time") else "left", overflow="fold")
    for row in board.rows:
        marks = ", ".join(row.marks)
        told = f"[bold green]{marks}[/]" if marks else row.behind
        style = "dim" if row.behind == "clearly behind" else ""
        figures = (row.psnr,) if relative else (row.psnr, row.interval)
        table.add_row(escape(row.method), *figures, told, row.seconds, escape(row.setting), style=style)
    console.print(table)
    console.print(escape(board.why), highlight=False)
    console.print(f"[dim]{escape(board.of)}[/dim]", highlight=False)
    for method, reason in board.left_out:
        console.print(f"[dim]left out:[/dim] {escape(method)}: {escape(reason)}", highlight=False)


def show_diagnosis(console: Console, found: Diagnosis) -> None:
    """Show the properties of the noise, and the verdicts."""
    for number, one in found.detectors.items():
        show_table(console, f"Noise of detector {number}", _noise_rows(one))
    if not found.detectors:
        show_table(console, "Noise", _noise_rows(found))
    table = Table("method", "verdict", "measured", "what to do", title="Methods", title_justify="left", show_lines=True)
    colours = {"valid": "green", "valid with a warning": "yellow", "not valid": "red"}
    for verdict in found.verdicts:
        colour = colours[verdict.answer]
        table.add_row(verdict.method, f"[{colour}]{verdict.answer}[/]", escape(verdict.reason), escape(verdict.advice))
    console.print(table)
    console.print(f"recommended: [bold]{found.recommended}[/bold]", highlight=False)
    for warning in found.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", highlight=False)


def _noise_rows(found: Diagnosis) -> dict[str, str]:
    rows = {
        "noise": found.label,
        "measured on": f"{found.source}: {found.source_why}",
        "summed correlation": _summed(found.before),
    }
    if found.after is not None:
        rows["whitened"] = _summed(found.after)
    if found.response is not None and found.after is not None:
        rows["whitening"] = amplification(found.response)
    if found.transfer is not None:
        rows["gain"] = (
            f"{found.transfer.gain:.4g} counts per quantum, read noise {found.transfer.read_noise:.3g} counts"
        )
        if found.transfer.excess is not None:
            rows["gain"] += f", excess factor {found.transfer.excess:.3g}"
    if len(exposures := found.figures["exposures"]) > 1:
        rows["exposures"] = ", ".join(f"{one['mean']:.4g} counts: {one['summed']:.2f}" for one in exposures)
    if (darks := found.figures["darks"]) is not None:
        rows["darks"] = f"summed correlation {darks['summed']:.3f} +- {darks['summed_error']:.3f}"
    return rows | shared_noise(found.figures)


def _summed(seen: Correlation) -> str:
    return f"{seen.summed:.3f} +- {seen.summed_error:.3f} (over {' x '.join(map(str, seen.lags.shape))} lags)"
