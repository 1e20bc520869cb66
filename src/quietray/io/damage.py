"""A guard around all reads, which reports errors of libraries on damaged bytes as errors in the file.

Libraries raise many types of exceptions for a damaged byte, some of them long after the file was opened.  The guard
separates them from bugs of this package by where they were raised: exceptions from other packages concern the file;
those from this package only if they are caused by values, such as a number that is out of range.
"""

from __future__ import annotations

import errno
import logging
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quietray.errors import FormatError, QuietrayError

__all__ = ["damage_told", "is_of_file"]

_OURS = str(Path(__file__).resolve().parent.parent)
_OF_VALUES = (OSError, EOFError, ValueError, ArithmeticError, RuntimeError, MemoryError, struct.error, zlib.error)
_OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # only when writing
_CHECKERS = ("jaxtyping", "beartype")  # of arguments, in tests
_LONGEST = 300  # longest reason, in characters
_MOST_COMPLAINTS = 100


class _Complaints(logging.Filter):
    """Ends the reading of a damaged TIFF, in which tifffile goes from one page of noise to the next for minutes.

    tifffile logs each value of a header that it cannot read. Within the guard, such lines are not shown; after a
    hundred of them, reading ends with an error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.here = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to show a line; raise if there were too many."""
        count = getattr(self.here, "count", None)
        if count is None or record.levelno < logging.WARNING:
            return True
        self.here.count = count + 1
        if self.here.count > _MOST_COMPLAINTS:
            raise ValueError(f"more than {_MOST_COMPLAINTS} values in its header are damaged")
        return False

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count from zero for some time, in this thread."""
        before, self.here.count = getattr(self.here, "count", None), 0
        try:
            yield
        finally:
            self.here.count = before


_COMPLAINTS = _Complaints()
logging.getLogger("tifffile").addFilter(_COMPLAINTS)


@contextmanager
def damage_told(place: object) -> Iterator[None]:
    """Convert exceptions caused by damaged bytes to a FormatError.

    Parameters
    ----------
    place
        What is read, for the message: a path, or a dataset in a file, such as ``scan.h5:/exchange/data``.

    Raises
    ------
    FormatError
        The bytes at `place` cannot be read.

    Examples
    --------
    >>> with damage_told("scan.raw"):
    ...     struct.unpack("<i", b"no")
    Traceback (most recent call last):
    quietray.errors.FormatError: scan.raw must be readable, got: error: unpack requires a buffer of 4 bytes; it may be
    damaged: copy it again from where it was measured
    """
    try:
        with _COMPLAINTS.counted():
            yield
    except QuietrayError:
        raise
    except Exception as error:
        if not is_of_file(error):
            raise
        raise FormatError(f"{place} must be readable, got: {_reason(error)}; {_advice(error)}") from error


def is_of_file(error: Exception) -> bool:
    """Return whether an exception raised while reading concerns the file, and not this package.

    Examples
    --------
    >>> is_of_file(EOFError()), is_of_file(AttributeError()), is_of_file(OSError(errno.ENOSPC, "No space left"))
    (True, True, False)
    """
    if isinstance(error, OSError) and error.errno in _OF_DISK:
        return False
    if type(error).__module__.split(".")[0] in _CHECKERS:
        return False
    return isinstance(error, _OF_VALUES) or not _raised_by_us(error)


def _raised_by_us(error: Exception) -> bool:
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename.startswith(_OURS)


def _reason(error: Exception) -> str:
    """Return an exception as one line."""
    said = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"a size that fits into no memory ({said})" if said else "a size that fits into no memory"
    if isinstance(error, OSError) and error.strerror and error.errno:
        return error.strerror
    kind = type(error).__name__
    return f"{kind}: {said}"[:_LONGEST] if said else kind


def _advice(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "ask its owner"
    return "it may be damaged: copy it again from where it was measured"
