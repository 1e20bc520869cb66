"""One run per folder: a lock that identifies its owner and ends with that process.

The lock is held by the kernel (``flock``, which on Linux also works over NFS), so there is nothing to clean up after a
kill, and no clock is involved.  The content of the file only identifies the owner, and is decisive only on file systems
without locks.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from quietray.errors import ResourceError

__all__ = ["Lock", "alone"]

_HELD = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)


class Lock:
    """A folder, or a file that is being written, locked by this process until :meth:`release` or its end.

    Parameters
    ----------
    place
        Lock file, which is created and removed again.
    what
        Description of what is locked, for messages.

    Raises
    ------
    ResourceError
        Another run holds it.
    OSError
        The disk does not permit it.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / ".lock"
    >>> lock = Lock(place, place.parent)
    >>> place.exists(), lock.release(), place.exists()
    (True, None, False)
    """

    def __init__(self, place: Path, what: Path) -> None:
        self.place = place
        self._owner = os.getpid()
        self._descriptor: int | None = None
        while self._descriptor is None:
            self._descriptor = _taken(place, what)
        content = json.dumps(_me()).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)

    def release(self) -> None:
        """Release the lock; in a forked process, only the inherited handle."""
        if self._descriptor is None:
            return
        if os.getpid() == self._owner:
            with suppress(OSError):
                self.place.unlink()
        os.close(self._descriptor)
        self._descriptor = None

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.release()


def _taken(place: Path, what: Path) -> int | None:
    """Return the open and locked file; None if its last owner has just removed it."""
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = _owner_in(descriptor)
            if error.errno in _HELD:
                raise _in_use(what, place, owner, "wait until it has ended, or give another name") from None
            if _lives(owner):  # the file system has no locks
                advice = f"wait until it has ended, or remove {place} if that run is dead"
                raise _in_use(what, place, owner, advice) from None
        there, mine = place.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    if (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
        os.close(descriptor)
        return None
    return descriptor


def _in_use(what: Path, place: Path, owner: dict[str, Any], advice: str) -> ResourceError:
    who = f"process {owner.get('pid', '?')} on {owner.get('host', 'an unknown host')}"
    return ResourceError(f"{what} must be used by one run at a time, got another one in it ({who}); {advice}")


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "boot": _boot(), "began": _began(os.getpid())}


def _owner_in(descriptor: int) -> dict[str, Any]:
    with suppress(ValueError):
        found = json.loads(os.pread(descriptor, 4096, 0))
        return found if isinstance(found, dict) else {}
    return {}


def _lives(owner: dict[str, Any]) -> bool:
    """Return whether an owner may be alive: always assumed for other machines, checked on this one."""
    if not owner:
        return False
    if owner.get("host") != socket.gethostname():
        return True
    pid = owner.get("pid")
    return isinstance(pid, int) and owner.get("boot") == _boot() and owner.get("began") == _began(pid) is not None


def _boot() -> str | None:
    """Return an identifier of the present boot of this machine, if available."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None


def _began(pid: int) -> str | None:
    """Return the start time of a process, to tell it from later ones with the same number; None if there is none."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    with suppress(OSError):
        os.kill(pid, 0)
        return "unknown"
    return None


@contextmanager
def alone(out: Path | None) -> Iterator[None]:
    """Lock a new file or folder while a context lasts, with a lock file beside it; nothing is locked if it is None.

    If no lock can be created, the context goes on, and what writes there reports that it cannot.

    Raises
    ------
    ResourceError
        Another run holds the lock.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "new.h5"
    >>> with alone(place):
    ...     [one.name for one in place.parent.iterdir()]
    ['.new.h5.lock']
    """
    lock = None
    if out is not None:
        place = out.absolute()
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            lock = Lock(place.parent / f".{place.name}.lock", out)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
