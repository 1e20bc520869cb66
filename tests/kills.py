"""Power cuts: every command is killed at a random moment, given again, and must end as if nothing had happened.

    python tests/kills.py 20                    # so many kills of each command and format
    python tests/kills.py 20 --names denoise-h5 # of some of them
    python tests/kills.py 20 --faults           # a disk that is full, read-only or broken, from a random write on

What is killed is a forked process, with SIGKILL.  What resumes is resumed, the rest is given again with --overwrite, as
a user would.  The files that hold results must be the same bytes as those of a run that nobody disturbed, and nothing
of the killed one may lie about.  A disk that fails must be told with code 2, and the command given again ends alike.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import io
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

_NOT_RESULTS = ("metrics.json", "report.html", "preview.png", ".lock", "run.log", "model.json")  # they tell times


@dataclasses.dataclass(frozen=True)
class Job:
    """A command that writes to ``out``, a path below a folder of its own."""

    command: tuple[str, ...]
    out: str
    resume: str = "--overwrite"


def jobs(folder: Path) -> dict[str, Job]:
    """Return all commands, on tiny inputs that are written into a folder."""
    from dicom_files import phantom, write_series
    from quietray.settings import write_toml
    from quietray.splits import Noise2Self
    from scans import disc_scan, quick

    scan = str(shutil.copy(disc_scan(), folder / "scan.h5"))
    images = str(write_series(folder / "series", phantom(3, 24)))
    np.save(folder / "stack.npy", phantom(3, 24))
    (folder / "config.toml").write_text(write_toml(quick(steps=8)))
    (folder / "self.toml").write_text(write_toml(quick(steps=8, method=Noise2Self())))
    alone = ("denoise", scan, "--config", str(folder / "self.toml"), "--max-memory", "4G")
    learned = ("--config", str(folder / "config.toml"), "--max-memory", "4G")
    model = str(folder / "model")
    found = {
        "train": Job(("train", scan, *learned), "model"),
        "apply": Job(("apply", model, scan, "--rotation-axis", "11.5", "--max-memory", "4G"), "out"),
        "compare": Job(("compare", scan, "--rotation-axis", "11.5", "--budget", "4s", "--rows", "4:8"), "out"),
        "decorrelate": Job(("decorrelate", scan), "white.h5"),
        "filter-dicom": Job(("filter", images, "--filter", "gaussian"), "out"),
        "filter-npy": Job(("filter", str(folder / "stack.npy"), "--filter", "gaussian"), "out"),
        "denoise-radiographs": Job(alone, "out", "--resume"),
    }
    for format in ("zarr", "h5", "tiff", "bigtiff", "mhd", "nii"):
        ending = {"tiff": "", "bigtiff": ".tif"}.get(format, f".{format}")
        found[f"denoise-{format}"] = Job(("denoise", scan, *learned, "--format", format), "out", "--resume")
        found[f"reconstruct-{format}"] = Job(
            ("reconstruct", scan, "--rotation-axis", "11.5", "--format", format), f"volume{ending}"
        )
    for format in ("tiff", "mhd"):
        whole = ("--format", format, "--dtype", "uint16")
        found[f"denoise-{format}-uint16"] = Job(("denoise", scan, *learned, *whole), "out", "--resume")
    return found


def _run(job: Job, out: Path, *more: str) -> None:
    from quietray.cli import main

    with contextlib.suppress(SystemExit):
        main([*job.command, "--out", str(out), *more])


class Disk:
    """Lets what changes a folder fail from the n-th time on, or just then; counts how often something does.

    Parameters
    ----------
    folder
        The folder, and all below it.
    number
        Of the first change that fails; None lets all of them be.
    code
        Number of the error.
    lasting
        Whether those after it fail as well.
    """

    def __init__(self, folder: Path, number: int | None = None, code: int = errno.ENOSPC, lasting: bool = True) -> None:
        self.folder, self.number, self.code, self.lasting = os.path.realpath(folder), number, code, lasting
        self.count = 0

    def begin(self) -> None:
        """Watch this process, for the rest of its life."""
        for name in ("pwrite", "fsync", "posix_fallocate", "ftruncate"):
            setattr(os, name, self._failing(getattr(os, name)))
        sys.addaudithook(self._hook)

    def _failing(self, function: Any) -> Any:
        def call(descriptor: int, *arguments: Any) -> Any:
            self._changed(os.readlink(f"/proc/self/fd/{descriptor}"))
            return function(descriptor, *arguments)

        return call

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in ("os.rename", "os.mkdir")) and isinstance(arguments[0], (str, os.PathLike)):
            self._changed(os.path.realpath(arguments[0]))

    def _changed(self, path: str) -> None:
        if not path.startswith(self.folder):
            return
        self.count += 1
        if self.number is not None and (self.count == self.number or (self.lasting and self.count > self.number)):
            raise OSError(self.code, os.strerror(self.code), path)


def in_child(
    job: Job, out: Path, *more: str, after: float | None = None, disk: Disk | None = None
) -> tuple[int, float, str]:
    """Run a command in a forked process, killed after so many seconds; return its status, its time and what it said."""
    said = tempfile.TemporaryFile()
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 3
        try:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            sys.stdout, sys.stderr = (open(one, "w", buffering=1, closefd=False) for one in (1, 2))  # not pytest's own
            from quietray.cli import main

            if disk is not None:
                disk.begin()
            try:
                main([*job.command, "--out", str(out), *more])
                code = 0
            except SystemExit as left:
                code = int(left.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            if disk is not None:
                os.write(1, f"\nchanges: {disk.count}\n".encode())
            os._exit(code)
    if after is not None:
        with contextlib.suppress(ProcessLookupError):
            while (
                time.monotonic() - begun < after
                and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
            ):
                time.sleep(0.002)
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    took = time.monotonic() - begun
    said.seek(0)
    return os.waitstatus_to_exitcode(status), took, said.read().decode("utf-8", "replace")


def results(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file that is a result, by its path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in _NOT_RESULTS:
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def _same(job: Job, one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Return the files that differ; a comparison and run.toml tell times."""
    timed = job.command[0] == "compare"
    names = one.keys() | other.keys()
    return sorted(
        name
        for name in names
        if (name not in one or name not in other)
        or (one[name] != other[name] and not timed and Path(name).name != "run.toml" and not _alike(name, one, other))
    )


def _alike(name: str, one: dict[str, bytes], other: dict[str, bytes]) -> bool:
    """Return whether two HDF5 files hold the same arrays: what they tell of their making has a time in it."""
    if not name.endswith((".h5", ".nx")) or len(one[name]) != len(other[name]):
        return False
    import h5py

    def arrays(content: bytes) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        with h5py.File(io.BytesIO(content)) as file:
            file.visititems(
                lambda path, entry: kept.update({path: entry[()]}) if isinstance(entry, h5py.Dataset) else None
            )
        return kept

    first, second = arrays(one[name]), arrays(other[name])
    return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


def kill_and_repeat(job: Job, folder: Path, whole: dict[str, bytes], after: float) -> str:
    """Kill a command, give it again; return what came of it, ``same`` where all is well."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    out = folder / job.out
    code, _, said = in_child(job, out, after=after)
    if code not in (0, -signal.SIGKILL):
        return f"left with {code} before it was killed: {said[-600:]}"
    left = results(folder)
    more = (job.resume,) if job.resume == "--resume" or out.exists() else ()
    code, _, said = in_child(job, out, *more)
    if code != 0 and "--resume" in more and "must hold an unfinished run" in said:
        code, _, said = in_child(job, out, "--overwrite")
    if code != 0:
        return f"given again, left with {code}: {said[-1500:]}; there was {sorted(left)[:20]}"
    differing = _same(job, results(folder), whole)
    return "same" if not differing else f"differs in {differing[:5]}"


_CODES = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EACCES)


def fail_and_repeat(job: Job, folder: Path, whole: dict[str, bytes], disk: Disk) -> str:
    """Let the disk fail, give the command again on a sound one; return what came of it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    out = folder / job.out
    code, _, said = in_child(job, out, disk=disk)
    what = f"{'lasting ' * disk.lasting}{errno.errorcode[disk.code]} at change {disk.number}"
    if code not in (0, 2) or "Traceback" in said:
        return f"{what} left with {code}: {said[-1500:]}"
    if code == 0:
        differing = _same(job, results(folder), whole)
        return f"{what} passed over, differs in {differing}" if differing else "same"
    more = ("--resume",) if job.resume == "--resume" and (out / ".work").exists() else ()
    code, _, said = in_child(job, out, *(more or (("--overwrite",) if out.exists() else ())))
    if code != 0:
        return f"{what}, given again, left with {code}: {said[-1500:]}"
    differing = _same(job, results(folder), whole)
    return f"{what}, given again, differs in {differing[:5]}" if differing else "same"


def run(names: list[str], count: int, seed: int, folder: Path, faults: bool = False) -> dict[str, Counter[str]]:
    """Kill each command so often, or let its disk fail; return what came of it."""
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    every = jobs(folder)
    _run(every["train"], folder / "model")
    found: dict[str, Counter[str]] = {}
    for name in names or every:
        job, place = every[name], folder / "work"
        reference = folder / "whole" / name
        reference.mkdir(parents=True)
        code, took, said = in_child(job, reference / job.out)
        assert code == 0, said
        whole = results(reference)
        again = folder / "again"
        shutil.rmtree(again, ignore_errors=True)
        again.mkdir()
        in_child(job, again / job.out)
        undisturbed = _same(job, results(again), whole)
        assert not undisturbed, f"{name} is not repeatable in {undisturbed}"
        if faults:
            _, _, said = in_child(job, reference / f"counted-{job.out}", disk=Disk(folder))
            n_changes = int(said.rpartition("changes: ")[2])
            found[name] = Counter()
            for _ in range(count):
                number, code = int(rng.integers(1, n_changes + 1)), int(rng.choice(_CODES))
                disk = Disk(folder, number, code, bool(rng.random() < 0.5))
                found[name][fail_and_repeat(job, place, whole, disk)] += 1
        else:
            moments = rng.uniform(0.05, 1.0, count) * took
            found[name] = Counter(kill_and_repeat(job, place, whole, after) for after in moments)
        print(f"{name:24s} {took:5.1f} s  {dict(found[name])}", flush=True)
    return found


def main() -> None:
    """Kill and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--names", nargs="*", default=[])
    parser.add_argument("--faults", action="store_true")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(told.names, told.count, told.seed, Path(folder), told.faults)
    bad = sum(n for one in found.values() for was, n in one.items() if was != "same")
    total = sum(sum(one.values()) for one in found.values())
    print(f"{total} {'faults' if told.faults else 'kills'}, {total - bad} ended as if nothing had happened")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
