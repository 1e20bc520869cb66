"""Common errors: a path must exist, be readable, and hold a format that some reader recognises."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from quietray.errors import FormatError, require_path
from quietray.io.damage import damage_told
from quietray.io.images import image_format

__all__ = ["readable", "unknown"]


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Open a path: it must exist, be readable and complete, and not be empty.

    Raises
    ------
    FormatError
        One of these conditions is not met.
    """
    require_path("scan", path)
    with damage_told(path):
        try:
            if not path.is_dir() and path.stat().st_size == 0:
                raise FormatError(
                    f"{path} must hold a scan, got an empty file; copy it again from where it was measured"
                )
            yield
        except PermissionError as error:
            raise FormatError(f"{path} must be readable by you, got: {error.strerror}; ask its owner") from error


def unknown(path: Path, kinds: Iterable[str]) -> FormatError:
    """Return the error for a path that no reader recognises.

    Parameters
    ----------
    path
        An existing file or folder.
    kinds
        Names of the files that can be read.
    """
    images = image_format(path)
    if images is not None:
        if images == "npy":
            return FormatError(
                f"{path} must come with angles if it holds radiographs (view, row, col), got none; pass --angles 0:180 "
                "(or 0:360); images alone are denoised with quietray denoise or quietray filter"
            )
        return FormatError(
            f"{path} must hold a scan, got a series of images ({images.upper()}), from which nothing can be "
            "reconstructed; denoise them with quietray denoise or quietray filter"
        )
    if not path.is_dir():
        *most, last = sorted(set(kinds))
        with path.open("rb") as stream:
            start = stream.read(8)
        return FormatError(
            f"{path} must be {', '.join(most)} or {last}, got a file that starts with {start!r}; "
            "give the raw scan, or convert it to one of these"
        )
    inside = sorted(entry.name for entry in path.iterdir())
    advice = "give one of the files in it" if inside else "the folder is empty"
    folders = [entry for entry in sorted(path.iterdir()) if entry.is_dir()]
    some = ", ".join(inside[:6]) + (", ..." if len(inside) > 6 else "")
    kinds = {kind for entry in folders if (kind := image_format(entry)) is not None}
    if kinds:
        return FormatError(
            f"the folder {path} must hold one series, got {len(folders)} folders, of "
            f"{', '.join(sorted(kinds)).upper()} images: {some}; give one of them"
        )
    return FormatError(f"the folder {path} must hold TIFF images or Zarr, got: {some or 'nothing'}; {advice}")
