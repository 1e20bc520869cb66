"""Denoising of many scans: one folder each, a model that is trained once, an overview page, failures at the end."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from quietray.assessment.gains import gain_text
from quietray.checkpoint import write_json
from quietray.domains import domain_of
from quietray.errors import QuietrayError, ResourceError, SettingsError
from quietray.inference.denoiser import Denoiser
from quietray.io import read
from quietray.io.disk import disk_errors
from quietray.preparation.prepare import chosen_rows
from quietray.progress import watching
from quietray.report import write_batch
from quietray.running.models import distance
from quietray.running.run import Run
from quietray.running.settings import Given, Settings, changed
from quietray.running.slabs import Team, executor_here
from quietray.running.watch import Watch
from quietray.scan import Scan
from quietray.workflows import apply, denoise

__all__ = ["Entry", "batch"]

_LIST, _PAGE = "batch.json", "index.html"
_ROWS = 16  # rows in the middle, for comparing the noise


@dataclass(frozen=True)
class Entry:
    """Result of one scan of a batch.

    Parameters
    ----------
    name
        Name of its folder within that of the batch.
    scan
        Path of the scan.
    error
        Why there is no result; empty if there is one.
    model
        Scan whose model was applied; empty if a model was trained for this scan.
    verdict
        ``Use it``, ``Look at this first``, ``Do not use it`` or ``Nothing gained``, as in the report; ``failed`` if
        there is no result.
    gain, warnings
        As in the report.
    seconds
        Run time in seconds.
    """

    name: str
    scan: str
    error: str = ""
    model: str = ""
    verdict: str = "failed"
    gain: str = ""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0


def batch(
    scans: Sequence[str | Path],
    out: str | Path,
    settings: Settings | None = None,
    *,
    reuse: bool = True,
    overwrite: bool = False,
    open: Callable[[Path], Scan] = read,
    watch: Watch | None = None,
    **changes: Unpack[Given],
) -> tuple[Entry, ...]:
    """Denoise many scans, each into its own folder; scans that are already done are skipped.

    The first scan is denoised alone.  Its model is applied to scans with similar measured noise
    (:func:`quietray.running.models.distance` below 1); the others train their own.  On a cluster (see
    :func:`quietray.on_cluster`) the slabs of the first scan are shared, and then each worker takes whole scans.

    Parameters
    ----------
    scans
        Paths of the scans.
    out
        Output folder, with a folder for each scan, ``batch.json``, and ``index.html`` with a row and a link for each.
    settings
        Settings of all runs.
    reuse
        Whether models are applied to other scans.
    overwrite
        Whether to repeat finished scans.
    open
        Opens a scan.
    watch
        Receives the progress; notebooks and terminals show it by themselves, unless ``progress=False``.
    **changes
        Settings by name, such as ``budget="10m"``.

    Returns
    -------
    tuple
        An :class:`Entry` for each scan, in order; those that failed give the reason.

    Raises
    ------
    QuietrayError
        The folder cannot be written.

    Examples
    --------
    >>> import quietray
    >>> entries = quietray.batch(["one.h5", "two.h5"], "out/night", budget="10m")  # doctest: +SKIP
    """
    watch = watching(watch, changes.pop("progress", None))
    settings, out = changed(settings, changes), Path(out).absolute()
    there = _Kept(out, [Path(scan) for scan in scans])
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Entry] = {} if overwrite else there.done()
    for name in found:
        watch.note(f"{name}: finished already.")
    job = _Job(settings, open, out, reuse, overwrite)
    left = [(name, scan) for name, scan in there.names.items() if name not in found]

    def keep(entry: Entry) -> None:
        found[entry.name] = entry
        there.write(found)
        watch.note(f"{entry.name}: {entry.verdict}{f', {entry.error}' if entry.error else ''}")

    while left and not (reuse and job.models(found)):  # until there is a model
        keep(job.one(*left.pop(0), found, watch))
    cluster = executor_here()
    if left and isinstance(cluster, Team) and cluster.crew is not None:
        known = dict(found)

        def take(number: int, entry: Entry) -> None:
            keep(entry)
            advance(1)

        with watch.stage("scans", len(left)) as advance:
            cluster.all(_Remote(job.beside(cluster.crew.memory), known), left, take, advance)
    else:
        for name, scan in left:
            keep(job.one(name, scan, found, watch))
    there.write(found)
    return tuple(found[name] for name in there.names)


@dataclass(frozen=True)
class _Kept:
    """The list of a batch."""

    out: Path
    scans: Sequence[Path]

    @property
    def names(self) -> dict[str, Path]:
        """A name for each scan, with a number if several have the same."""
        found: dict[str, Path] = {}
        for scan in self.scans:
            numbered = (scan.stem if not number else f"{scan.stem}-{number + 1}" for number in range(len(self.scans)))
            found[next(name for name in numbered if name not in found)] = scan
        return found

    def done(self) -> dict[str, Entry]:
        """Return the finished entries of these scans."""
        try:
            told = json.loads((self.out / _LIST).read_text())["entries"]
            entries = [Entry(**{**one, "warnings": tuple(one["warnings"])}) for one in told]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResourceError(
                f"{self.out / _LIST} must be the list of a batch, got: {error}; give another folder, or --overwrite"
            ) from None
        names = self.names
        for one in entries:
            if one.name in names and Path(one.scan) != names[one.name].absolute():
                raise SettingsError(
                    f"the folder {self.out / one.name} must be free for {names[one.name]}, got the result of "
                    f"{one.scan}; give another --out"
                )
        complete = [one for one in entries if not one.error and (self.out / one.name / "metrics.json").exists()]
        return {one.name: one for one in complete if one.name in names}

    def write(self, found: Mapping[str, Entry]) -> None:
        """Write the list and the page."""
        entries = [found[name] for name in self.names if name in found]
        with disk_errors(self.out):
            write_json(self.out / _LIST, {"entries": [dataclasses.asdict(one) for one in entries]})
            write_batch(self.out / _PAGE, entries, len(self.names))


@dataclass(frozen=True)
class _Job:
    """How to denoise a scan."""

    settings: Settings
    open: Callable[[Path], Scan]
    out: Path
    reuse: bool
    overwrite: bool
    resume: bool = True

    def beside(self, memory: int) -> _Job:
        """Return the job for a process with this much memory in bytes and one GPU, which restarts unfinished runs."""
        memory_each = self.settings.max_memory or f"{memory // 2**20}M"
        settings = dataclasses.replace(self.settings, max_memory=memory_each, gpus=None)
        return dataclasses.replace(self, settings=settings, resume=False)

    def models(self, found: Mapping[str, Entry]) -> list[str]:
        """Return the scans for which there is a trained model that gained something."""
        gained = [one for one in found.values() if not one.error and one.verdict != "Nothing gained"]
        own = [one.name for one in gained if not one.model]
        return [name for name in own if Denoiser.load(self.out / name / "model").trained]

    def one(self, name: str, path: Path, found: Mapping[str, Entry], watch: Watch) -> Entry:
        """Denoise a scan; an error that the user can fix becomes an entry."""
        since, folder = time.monotonic(), self.out / name
        entry = Entry(name, str(path.absolute()))
        try:
            scan = self.open(path)
            model = self._nearest(scan, found, watch) if self.reuse else None
            if model is not None:
                watch.note(f"{name}: the model of {model} is applied, as the noise is similar.")
                result = apply(self.out / model / "model", scan, folder, self.settings, overwrite=True, watch=watch)
            else:
                begun = (folder / ".work" / "run.json").exists()
                resume = begun and self.resume and not self.overwrite
                anew = not resume and (begun or self.overwrite)
                result = denoise(scan, folder, self.settings, resume=resume, overwrite=anew, watch=watch)
        except (QuietrayError, MemoryError) as error:
            return dataclasses.replace(entry, error=str(error) or "out of memory", seconds=time.monotonic() - since)
        return dataclasses.replace(
            entry,
            model=model or "",
            verdict=result.metrics["verdict"]["kind"],
            gain=gain_text(result.metrics["estimate"]),
            warnings=result.warnings,
            seconds=time.monotonic() - since,
        )

    def _nearest(self, scan: Scan, found: Mapping[str, Entry], watch: Watch) -> str | None:
        """Return the scan whose model was trained on similar noise, measured on rows in the middle."""
        best: tuple[float, str] | None = None
        for name in self.models(found):
            denoiser = Denoiser.load(self.out / name / "model")
            far, _ = distance(denoiser.facts, _facts(scan, self.settings, denoiser))
            if far < 1 and (best is None or far < best[0]):
                best = far, name
        return None if best is None else best[1]


@dataclass(frozen=True)
class _Remote:
    """Denoises a scan on a worker, without reporting progress."""

    job: _Job
    found: Mapping[str, Entry]

    def __call__(self, item: tuple[str, Path]) -> Entry:
        return self.job.one(*item, self.found, Watch())


def _facts(scan: Scan, settings: Settings, denoiser: Denoiser) -> Mapping[str, Any]:
    """Measure the noise of a scan in the same way as for the scan that a model was trained on."""
    rows = chosen_rows(settings.rows, scan.n_rows)
    first = rows.start + max(0, len(rows) - _ROWS) // 2
    some = dataclasses.replace(
        settings, rows=f"{first}:{min(rows.stop, first + _ROWS)}", method=denoiser.split, start=None,
        network=denoiser.trained_architecture,
    )  # fmt: skip
    run = Run.in_memory(some)
    return domain_of(denoiser.split, 2).prepare(run, [scan], denoiser.split, taught=False).facts


def failures(entries: Iterable[Entry]) -> list[str]:
    """Return a message about the scans that failed.

    Examples
    --------
    >>> failures([Entry("one", "one.h5"), Entry("two", "two.h5", error="it is damaged")])
    ['two: it is damaged']
    """
    return [f"{one.name}: {one.error}" for one in entries if one.error]
