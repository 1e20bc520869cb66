"""Provenance of a result: time, host, command and input files."""

from __future__ import annotations

import hashlib
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["checksum", "provenance"]

_WHOLE = 2**30  # bytes that are hashed in one or two seconds; of larger files, only the beginning is hashed
_BEGINNING = 2**28


def provenance(source: str) -> dict[str, Any]:
    """Return time, host and command of this process, and the checksum of its input, as JSON types.

    Parameters
    ----------
    source
        Path of the input; a text that is not a path, such as the name of an array, has no checksum.

    Examples
    --------
    >>> sorted(provenance("an array"))
    ['command', 'date', 'host', 'source', 'system']
    """
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    facts: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "host": platform.node(),
        "system": platform.platform(),
        "command": shlex.join(["quietray" if program == "cli.py" else program, *sys.argv[1:]]),
        "source": source,
    }
    try:
        return facts | {"input": checksum(Path(source))} if source and Path(source).exists() else facts
    except OSError:  # the file was removed during the run
        return facts


def checksum(path: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file, or of its beginning if it is large; for a folder, of its listing.

    Parameters
    ----------
    path
        Existing file or folder.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     checksum(Path(file.name))["sha256"][:8]
    'e3b0c442'
    """
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file())
        listing = "".join(f"{one.relative_to(path).as_posix()} {one.stat().st_size}\n" for one in files)
        total = sum(one.stat().st_size for one in files)
        digest = hashlib.sha256(listing.encode("utf-8", errors="surrogateescape")).hexdigest()
        return {"files": len(files), "size_bytes": total, "sha256_of_names_and_sizes": digest}
    size, summed = path.stat().st_size, hashlib.sha256()
    left = size if size <= _WHOLE else _BEGINNING
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 2**22))):
            summed.update(block)
            left -= len(block)
    name = "sha256" if size <= _WHOLE else f"sha256_of_the_first_{_BEGINNING // 2**20}_MiB"
    return {"size_bytes": size, name: summed.hexdigest()}
