"""The output folder of a run: started, resumed, finished, and protected from other runs."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from quietray.checkpoint import replace_file, write_json
from quietray.errors import ResourceError, SettingsError
from quietray.geometry import VolumeGrid
from quietray.io import SeriesAxis, Stored, VolumeFormat, open_volume_writer, read, read_volume, write_scan
from quietray.io.disk import disk_errors, remove
from quietray.io.lock import Lock
from quietray.running.ledger import Ledger, SlabRecord
from quietray.running.places import OURS, require_no_other_run
from quietray.running.slabs import Finished
from quietray.scan import Scan
from quietray.settings import to_dict, write_toml
from quietray.types import Volume

__all__ = ["Output", "noted_start"]

_FREE = ("gpus",)  # settings that a resumed run may change: its result is the same, up to rounding
_CHECKPOINT, _RUN, _REPLACED, _LOCK = "training.safetensors", "run.json", "replaces.json", ".lock"


class Output:
    """Output of a run; with `folder` None, the volume stays in memory and nothing is written.

    Files of a replaced run are kept until the new volume is created; a run that fails earlier leaves the folder
    unchanged.

    Parameters
    ----------
    folder
        ``OUT``; created if it does not exist.
    settings
        Settings of the run, any settings dataclass; a resumed run must have the same.
    identity
        Facts that identify the input.
    format
        Format of the volume, a name in :attr:`quietray.io.VolumeFormat.registry`.
    resume, overwrite
        Continue the run in the folder; replace it.

    Raises
    ------
    ResourceError
        The folder cannot be written, or contains another run.
    SettingsError
        The run to resume had other settings or another scan.
    """

    def __init__(
        self,
        folder: str | Path | None,
        settings: Any,
        identity: Mapping[str, Any],
        format: str,
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.settings = settings
        self.format = format
        self._records: dict[int, SlabRecord] = {}
        self._volume: Volume | None = None
        self._series: SeriesAxis | None = None
        self._writer: Any = None
        self._trust: Volume | None = None
        self._trust_writer: Any = None
        self._known = _plain({"settings": to_dict(settings), "identity": dict(identity)})
        self._lock: Lock | None = None
        self._made = self.folder is not None and not self.folder.exists()
        self._copied = False
        self.resumed = False
        if self.folder is None:
            return
        with disk_errors(self.folder):
            self.resumed = self._claim(self.folder, resume, overwrite)

    @property
    def work(self) -> Path | None:
        """Folder of the files that a resumed run needs; removed at the end."""
        return None if self.folder is None else self.folder / ".work"

    @property
    def checkpoint(self) -> Path | None:
        """File with the state of training."""
        return None if self.work is None else self.work / _CHECKPOINT

    @property
    def volume_path(self) -> Path | None:
        """Final path of the volume."""
        return None if self.folder is None else self.folder / VolumeFormat.registry[self.format].volume

    @property
    def begun(self) -> bool:
        """Whether the folder contains slabs of an unfinished run."""
        return self.work is not None and any(self.work.glob("slab-*.npz"))

    @property
    def complete(self) -> bool:
        """Whether the run in the folder is finished."""
        return self.folder is not None and _finished(self.folder)

    def decide(self, name: str, choose: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a decision of the run: the recorded one, or else a new one, which is recorded."""
        found = self.noted(name)
        if found is None:
            found = choose()
            if self.work is not None:
                with disk_errors(self.work):
                    Ledger(self.work).note(name, found)
        return found

    def noted(self, name: str) -> dict[str, Any] | None:
        """Return a recorded decision of the run, or None."""
        return None if self.work is None else Ledger(self.work).noted(name)

    def open_volume(
        self, grid: VolumeGrid, facts: Mapping[str, Any], trust: bool = False, series: SeriesAxis | None = None
    ) -> None:
        """Create the volume and, if requested, the uncertainty map, or reopen them in a resumed run.

        Parameters
        ----------
        grid
            Grid of the volume, or of every entry of `series`; slices are numbered across entries.
        facts
            Facts to store with the volume.
        trust
            Whether there will be an uncertainty map.
        series
            First axis of a series, for a volume with four axes.
        """
        self._series = series
        if self.folder is None or self.volume_path is None or self.work is None:
            size = 1 if series is None else series.size
            self._volume = np.empty((size * grid.shape[0], *grid.shape[1:]), np.float32)
            self._trust = np.empty(grid.shape, np.float32) if trust else None
        else:
            self._remove_replaced()
            begun = Ledger(self.work).noted("volume") is not None  # else a killed run may have left half a file
            self._writer = open_volume_writer(
                self.volume_path,
                grid,
                format=self.format,
                resume=begun,
                extra=facts,
                series=series,
                stored=getattr(self.settings, "stored", Stored()),
            )
            if trust:
                place, told = (
                    self.folder / VolumeFormat.registry[self.format].trust,
                    {"is": "standard deviation of the error", **facts},
                )
                self._trust_writer = open_volume_writer(place, grid, format=self.format, resume=begun, extra=told)
            self.decide("volume", lambda: {"format": self.format})

    def done(self, first: int, last: int) -> bool:
        """Return whether the slices ``first:last`` are written and recorded."""
        return self.work is not None and Ledger(self.work).done(first, last)

    def write(self, slab: Volume, record: SlabRecord, trust: Volume | None = None) -> None:
        """Write a slab, its uncertainty map if there is one, and then its record."""
        self._must_be_there()
        if trust is not None and self._trust is not None:
            self._trust[record.first : record.last] = trust
        elif trust is not None:
            self._trust_writer.write(record.first, trust)
        if self._volume is not None:
            self._volume[record.first : record.last] = slab
            self._records[record.first] = record
            return
        assert self.work is not None
        self._writer.write(record.first, slab)
        with disk_errors(self.work, "the slabs written so far are kept; continue with --resume"):
            Ledger(self.work).record(record)

    def take(self, finished: Finished) -> None:
        """Write a slab with its record; called by the loop over slabs."""
        assert finished.record is not None
        self.write(finished.voxels, finished.record, finished.trust)

    @property
    def apart(self) -> bool:
        """Whether slabs are separate files, so that several machines can write them at the same time."""
        return self._writer is not None and self._writer.apart

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a copy in another process; the lock stays with the process that started the run."""
        folder = None if self.folder is None else self.folder.absolute()
        return {**vars(self), "folder": folder, "_copied": True, "_lock": None}

    def records(self, slabs: tuple[tuple[int, int], ...]) -> list[SlabRecord]:
        """Return the records of all slabs, in the order of their slices."""
        if self.work is None:
            return [self._records[first] for first, _ in slabs]
        return [Ledger(self.work).load(first) for first, _ in slabs]

    def keep_scan(self, name: str, scan: Scan) -> Scan:
        """Write a scan to the folder unless it exists, and return it as read; without a folder, in memory."""
        if self.folder is None:
            return dataclasses.replace(scan, projections=np.asarray(scan.projections[:]))
        self._remove_replaced()  # otherwise radiographs of the replaced run would be used
        place = self.folder / name
        if not place.exists():
            unfinished = self.folder / ".work" / name  # if the process is killed, it is removed with that folder
            write_scan(unfinished, scan, overwrite=True)
            os.replace(unfinished, place)
        return dataclasses.replace(read(place), geometry=scan.geometry)

    def keep_folder(self, name: str, write: Callable[[Path], None]) -> None:
        """Write a folder of files, completely or not at all; without an output folder, do nothing."""
        if self.folder is None:
            return
        with disk_errors(self.folder):
            self._remove_replaced()
            unfinished = self.folder / ".work" / name  # if the process is killed, it is removed with that folder
            remove(unfinished)
            unfinished.mkdir()
            write(unfinished)
            remove(self.folder / name)
            os.replace(unfinished, self.folder / name)

    def finish_volume(self) -> Any:
        """Give the volume its final name; return it, lazily if it is on disk."""
        if self.volume_path is None:
            if self._series is None or self._volume is None:
                return self._volume
            return self._volume.reshape(self._series.size, -1, *self._volume.shape[1:])
        self._writer.finish()
        return read_volume(self.volume_path)

    def finish_trust(self) -> Any:
        """Give the uncertainty map its final name; return it like the volume, or None if there is none."""
        if self._trust_writer is None:
            return self._trust
        return read_volume(self._trust_writer.finish())

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Write the figures, which marks the run as complete."""
        if self.folder is not None:
            with disk_errors(self.folder):
                write_json(self.folder / "metrics.json", {**metrics, "run": self._known})
                (self.folder / ".work" / _RUN).unlink()
            shutil.rmtree(self.folder / ".work", ignore_errors=True)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._trust_writer is not None:
            self._trust_writer.close()
        if self._writer is not None:
            self._writer.close()
        elif error is not None and self.checkpoint is not None and not self.resumed and not self.checkpoint.exists():
            self._leave()
        self._let_go()

    def _must_be_there(self) -> None:
        """Raise if a copy in another process does not find the run, because of another disk or after its end."""
        if self._copied and self.work is not None and not (self.work / _RUN).exists():
            raise ResourceError(
                f"the output folder {self.folder} must be visible to all workers during the run, got none on "
                f"{socket.gethostname()}; give an --out on a disk that they share"
            )

    def _claim(self, folder: Path, resume: bool, overwrite: bool) -> bool:
        """Reserve the folder for this run; return whether a run is resumed."""
        if folder.exists() and not folder.is_dir():
            raise ResourceError(f"the output folder {folder} must be a folder, got a file; give another name")
        done = resume and _finished(folder)
        if folder.exists() and not done:
            _must_be_writable(folder)
        try:
            with suppress(*(OSError,) if done else ()):  # a finished run may be in a read-only folder
                if folder.exists():
                    self._hold(folder)
            return self._claimed(folder, resume, overwrite)
        except BaseException:
            self._let_go()
            raise

    def _hold(self, folder: Path) -> None:
        """Lock the folder for as long as this process uses it."""
        if self._lock is None:
            self._lock = Lock(folder / _LOCK, folder)

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _claimed(self, folder: Path, resume: bool, overwrite: bool) -> bool:
        there = [name for name in (*OURS, *_volumes()) if (folder / name).exists()]
        if there and resume:
            if not _finished(folder):
                _refuse_links(folder)
            self._check_same(folder)
            return True
        if not overwrite:
            require_no_other_run(folder, there)
        folder.mkdir(parents=True, exist_ok=True)
        _must_be_writable(folder)
        self._hold(folder)
        try:
            self._begin(folder, there)
        except OSError:
            self._leave()
            raise
        return False

    def _begin(self, folder: Path, there: list[str]) -> None:
        """Record the start of the run; existing files of another run are only listed, to be replaced later."""
        for name in (".work", *(f".{name}.partial" for name in _volumes())):
            remove(folder / name)
        work = folder / ".work"
        work.mkdir()
        if set(there) <= {".work", "run.toml"} and there != ["run.toml"]:
            replace_file(folder / "run.toml", write_toml(self.settings).encode())
        else:
            replace_file(work / _REPLACED, json.dumps(there).encode())
        replace_file(work / _RUN, json.dumps(self._known).encode())

    def _check_same(self, folder: Path) -> None:
        if _finished(folder):
            shutil.rmtree(folder / ".work", ignore_errors=True)  # a killed process may have left parts of it
            before = _noted_in(folder / "metrics.json").get("run", self._known)
        elif (folder / ".work" / _RUN).exists():
            before = _noted_in(folder / ".work" / _RUN)
        else:
            raise ResourceError(f"{folder} must hold an unfinished run to resume, got none; start with --overwrite")
        differing = sorted(place for place in _differences(before, self._known) if place not in _FREE)
        if differing:
            raise SettingsError(
                f"a resumed run must have the settings and the scan that it was started with, got changes in "
                f"{', '.join(differing)}; leave them as they were, or start anew with --overwrite"
            )

    def _remove_replaced(self) -> None:
        """Remove the run that this one replaces; if killed, this is completed when the run is resumed."""
        assert self.folder is not None
        listing = self.folder / ".work" / _REPLACED
        if listing.exists():
            with disk_errors(self.folder):
                noted = json.loads(listing.read_text())
                for name in (*OURS, *_volumes()):  # no other names that the file may contain
                    if name in noted and name != ".work":
                        remove(self.folder / name)
                replace_file(self.folder / "run.toml", write_toml(self.settings).encode())
                listing.unlink()

    def _leave(self) -> None:
        """Restore the folder to its state before the run."""
        assert self.folder is not None
        if not (self.folder / ".work" / _REPLACED).exists():
            remove(self.folder / "run.toml")
        shutil.rmtree(self.folder / ".work", ignore_errors=True)
        self._let_go()
        if self._made and not any(self.folder.iterdir()):
            self.folder.rmdir()


def noted_start(folder: Path) -> str | None:
    """Return the setting for initial weights of the run in a folder, finished or not; None if there is none.

    Examples
    --------
    >>> noted_start(Path("nowhere")) is None
    True
    """
    for place in (folder / ".work" / _RUN, folder / "metrics.json"):
        try:
            noted = json.loads(place.read_text())
            found = noted.get("run", noted).get("settings", {}).get("start")
        except (OSError, ValueError, AttributeError):
            continue
        return None if found is None else str(found)
    return None


def _volumes() -> list[str]:
    """Return the possible names of the volume and the uncertainty map, in all formats."""
    return [name for kind in VolumeFormat.registry.values() for name in (kind.volume, kind.trust, *kind.beside)]


def _finished(folder: Path) -> bool:
    """Return whether a run is finished: its figures, written last, exist, and no other run has started."""
    return (folder / "metrics.json").exists() and not (folder / ".work" / _RUN).exists()


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            where = key if place in ("", "settings", "identity") else f"{place}.{key}"
            yield from _differences(one.get(key), other.get(key), where)
    elif one != other:
        yield place


def _noted_in(place: Path) -> dict[str, Any]:
    """Return the record that a run has written.

    Raises
    ------
    ResourceError
        The file is damaged.
    """
    try:
        found = json.loads(place.read_text())
        if isinstance(found, dict):
            return found
        reason = f"a {type(found).__name__}"
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error)
    raise ResourceError(f"{place} must be a run's own record, got: {reason}; start anew with --overwrite")


def _refuse_links(folder: Path) -> None:
    """Refuse to resume a run whose folder contains links, because files would be written to wherever they point.

    Raises
    ------
    ResourceError
        A file or folder of the run is a link.
    """
    names = (*OURS, *_volumes(), *(f".{name}.partial" for name in _volumes()))
    for ours in (folder / name for name in names):
        for place in (ours, *(ours.rglob("*") if ours.is_dir() and not ours.is_symlink() else ())):
            if place.is_symlink():
                raise ResourceError(
                    f"{place} must not be a link, as the run writes there, got one to {os.readlink(place)}; replace it "
                    "by its target, or start anew in another folder"
                )


def _must_be_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK):
        raise ResourceError(f"the output folder {folder} must be writable, got a read-only one; give another folder")
