"""Checks of output paths and existing files, made before large libraries are imported, and again by the run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from quietray.errors import ResourceError

__all__ = ["OURS", "named_after", "require_free", "require_new", "require_no_other_run"]

OURS = ("run.toml", "radiographs.h5", "series", "model", "metrics.json", "report.html", "preview.png", ".work")
"""Names in the output folder of a run, beside its volumes."""


def named_after(given: Path, ending: str) -> Path:
    """Return the path of an output in the current folder, named after the input.

    Examples
    --------
    >>> str(named_after(Path("data/rock.h5"), "-denoised"))
    'rock-denoised'
    """
    place = given if given.name not in ("", "..") else given.resolve()
    name = place.name.removesuffix(".zarr") if place.is_dir() else place.stem
    return Path(f"{name or 'scan'}{ending}")


def require_no_other_run(folder: Path, there: Sequence[str] = OURS, *, resumable: bool = True) -> None:
    """Raise if the output folder contains another run.

    Parameters
    ----------
    folder
        ``OUT``.
    there
        Names in it that only a run creates.
    resumable
        Whether the command has a flag to resume it.

    Raises
    ------
    ResourceError
        One of them exists.

    Examples
    --------
    >>> require_no_other_run(Path("nowhere"))
    """
    found = [name for name in there if (folder / name).exists()]
    if found:
        resume = "go on with --resume, " if resumable else ""
        raise ResourceError(
            f"the output folder {folder} must not hold another run, got {', '.join(found)}; "
            f"give another folder, {resume}or replace it with --overwrite"
        )


def require_free(out: Path, what: str, overwrite: bool) -> None:
    """Raise unless a folder can be written and nothing would be overwritten.

    Raises
    ------
    ResourceError
        The folder cannot be written, or is not empty.

    Examples
    --------
    >>> require_free(Path("nowhere"), "output", overwrite=False)
    """
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ResourceError(f"the {what} folder {out} must be a folder that can be written, got {there}; give another")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise ResourceError(
            f"the {what} folder {out} must be empty; give another folder, or replace it with --overwrite"
        )


def require_new(what: str, out: Path, overwrite: bool) -> None:
    """Raise if the path already exists.

    Raises
    ------
    ResourceError
        The path exists.

    Examples
    --------
    >>> require_new("volume", Path("nowhere.zarr"), overwrite=False)
    """
    if out.exists() and not overwrite:
        raise ResourceError(f"the {what} {out} must not exist yet; give another name, or replace it with --overwrite")
