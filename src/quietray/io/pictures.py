"""PNG, TIFF and NPY images: one file, which may hold many, or a folder of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from quietray.errors import FormatError
from quietray.images import ImageSeries
from quietray.io.tiff import is_tiff, natural_key
from quietray.types import Volume

__all__ = ["PictureFiles", "picture_kind", "read_pictures", "visible_files"]

_NAMES = {"png": "PNG", "tiff": "TIFF", "npy": "NPY"}


def picture_kind(path: Path) -> str | None:
    """Return ``png``, ``tiff`` or ``npy`` by how a file starts, else None."""
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
    except OSError:
        return None
    if start == b"\x89PNG\r\n\x1a\n":
        return "png"
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    return "tiff" if is_tiff(path) else None


def visible_files(path: Path) -> list[Path]:
    """Return the file itself, or the files of a folder in natural order, without hidden ones."""
    if not path.is_dir():
        return [path]
    return sorted((one for one in path.iterdir() if one.is_file() and not one.name.startswith(".")), key=natural_key)


@dataclass(frozen=True)
class PictureFiles:
    """The files of a series of pictures.

    Parameters
    ----------
    files
        In the order of the images.
    counts
        Images in each; 0 is one image that is no stack.
    dtype
        Type of one pixel.
    kind
        ``png``, ``tiff`` or ``npy``.
    """

    files: tuple[Path, ...]
    counts: tuple[int, ...]
    dtype: np.dtype[Any]
    kind: str

    @property
    def format(self) -> str:
        """Name of the format."""
        return f"{_NAMES[self.kind]}, {self.dtype}"

    def write(self, folder: Path, images: Volume, made_by: str) -> None:
        """Write images in files of the same names, with pixels of the same type; whole numbers are rounded."""
        done = 0
        for path, count in zip(self.files, self.counts, strict=True):
            stack = _as_type(images[done : done + max(1, count)], self.dtype)
            done += max(1, count)
            _WRITERS[self.kind](folder / path.name, stack if count else stack[0], path)


def read_pictures(path: Path) -> ImageSeries:
    """Read a PNG, TIFF or NPY file or a folder of such files, all of one kind, size and type.

    Parameters
    ----------
    path
        File or folder.

    Raises
    ------
    FormatError
        A file is damaged, is of another kind, size or type, has colours, or values that are not finite.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "image.npy"
    >>> np.save(path, np.full((4, 5), 7, np.uint16))
    >>> read_pictures(path).images.shape
    (1, 4, 5)
    """
    files = visible_files(path)
    kinds = {picture_kind(one) for one in files}
    if len(kinds) != 1 or None in kinds:
        others = [one.name for one in files if picture_kind(one) is None]
        got = f"also {', '.join(others[:3])}" if others else " and ".join(sorted(map(str, kinds)))
        raise FormatError(f"{path} must hold PNG, TIFF or NPY images of one kind and nothing else, got {got}")
    kind = str(next(iter(kinds)))
    stacks = [_read(one, kind) for one in files]
    for one, stack in zip(files, stacks, strict=True):
        if (stack.shape[-2:], stack.dtype) != (stacks[0].shape[-2:], stacks[0].dtype):
            raise FormatError(
                f"all images of a series must have one size and type, got {stack.shape[-2:]} {stack.dtype} in "
                f"{one.name} and {stacks[0].shape[-2:]} {stacks[0].dtype} in {files[0].name}; put others elsewhere"
            )
    images = np.concatenate([stack.reshape(-1, *stack.shape[-2:]) for stack in stacks]).astype(np.float32)
    counts = tuple(len(stack) if stack.ndim == 3 else 0 for stack in stacks)
    origin = PictureFiles(tuple(files), counts, stacks[0].dtype, kind)
    return ImageSeries(images, origin, str(path), provenance={"format": origin.format})


def _read(path: Path, kind: str) -> np.ndarray:
    """Return the image, or the stack, in a file."""
    try:
        found = _READERS[kind](path)
    except Exception as error:  # codecs raise many kinds
        raise FormatError(
            f"{path} must be a readable image, got: {type(error).__name__}: {error}; copy it again"
        ) from error
    if (
        found.ndim not in (2, 3)
        or (found.ndim == 3 and kind == "png")
        or (kind == "tiff" and found.shape[-1] in (3, 4))
    ):
        raise FormatError(
            f"{path} must be a grey image (y, x) or a stack of them, got shape {found.shape}; "
            "a colour image has no noise of an X-ray detector: give the measured values"
        )
    if found.dtype.kind not in "iuf":
        raise FormatError(f"{path} must hold whole numbers or floats, got {found.dtype}; convert it")
    if not np.isfinite(found).all():
        raise FormatError(f"{path} must hold finite values, got {int((~np.isfinite(found)).sum())} NaN or infinite")
    return found


def _read_tiff(path: Path) -> np.ndarray:
    import tifffile

    return np.asarray(tifffile.imread(path))


def _write_tiff(path: Path, image: np.ndarray, like: Path) -> None:
    """Write a TIFF with the resolution of another."""
    import tifffile

    with tifffile.TiffFile(like) as file:
        tags: dict[str, Any] = {tag.name: tag.value for tag in file.pages.first.tags}
    resolution = None
    if "XResolution" in tags and "YResolution" in tags:
        resolution = tuple(tags[name][0] / max(1, tags[name][1]) for name in ("XResolution", "YResolution"))
    unit = tags.get("ResolutionUnit")
    tifffile.imwrite(path, image, photometric="minisblack", resolution=resolution, resolutionunit=unit)


def _as_type(images: Volume, dtype: np.dtype[Any]) -> np.ndarray:
    """Return pixels of a type, whole numbers rounded and within its range."""
    if dtype.kind == "f":
        return images.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(images.astype(np.float64)), limits.min, limits.max).astype(dtype)


_READERS: dict[str, Callable[[Path], np.ndarray]] = {
    "png": lambda path: np.asarray(imagecodecs.png_decode(path.read_bytes())),
    "tiff": _read_tiff,
    "npy": lambda path: np.asarray(np.load(path, allow_pickle=False)),
}
_WRITERS: dict[str, Callable[[Path, np.ndarray, Path], Any]] = {
    "png": lambda path, image, like: path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(image))),
    "tiff": _write_tiff,
    "npy": lambda path, image, like: np.save(path, image),
}
