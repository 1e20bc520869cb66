"""Files in natural order."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["natural_key", "visible_files"]


def natural_key(path: Path) -> list[tuple[int, str]]:
    """Return a sorting key that puts ``frame_2`` before ``frame_10``.

    Examples
    --------
    >>> [path.name for path in sorted([Path("f10"), Path("f9")], key=natural_key)]
    ['f9', 'f10']
    """
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), part) if part.isdigit() else (-1, part) for part in parts]


def visible_files(path: Path) -> list[Path]:
    """Return the file itself, or the files of a folder in natural order, without hidden ones."""
    if not path.is_dir():
        return [path]
    return sorted((one for one in path.iterdir() if one.is_file() and not one.name.startswith(".")), key=natural_key)
