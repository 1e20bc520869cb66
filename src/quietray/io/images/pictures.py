"""PNG, TIFF and NPY images: a file, which may contain many images, or a folder of files."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from quietray.errors import FormatError
from quietray.images import ImageSeries
from quietray.io.damage import damage_told
from quietray.io.images.base import ImageFormat
from quietray.io.paths import visible_files
from quietray.io.tiff import is_tiff
from quietray.registry import called
from quietray.types import Volume

__all__ = ["Npy", "PictureFiles", "Pictures", "Png", "Tiff"]


_NUMBER = re.compile(r"(\d+)")


class Pictures(ImageFormat):
    """Image files of one format, size and type, without metadata that matters."""

    stacks = True
    """Whether a file may contain several images."""

    @abstractmethod
    def decode(self, path: Path) -> np.ndarray:
        """Return the image ``(y, x)`` or the stack in a file."""

    @abstractmethod
    def encode(self, path: Path, images: np.ndarray, like: Path) -> None:
        """Write an image or a stack to a new file, with the metadata of the file `like`."""

    def read(self, path: Path) -> ImageSeries:
        """Read a file or a folder of files, all of one format, size and type.

        Raises
        ------
        FormatError
            A file is damaged, has another format, size or type, is in colour, or contains values that are not finite.

        Examples
        --------
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "image.npy"
        >>> np.save(path, np.full((4, 5), 7, np.uint16))
        >>> Npy().read(path).images.shape
        (1, 4, 5)
        """
        files = visible_files(path)
        kinds = {_kind_of(one) for one in files}
        if len(kinds) != 1 or None in kinds:
            others = [one.name for one in files if _kind_of(one) is None]
            got = f"also {', '.join(others[:3])}" if others else " and ".join(sorted(map(str, kinds)))
            raise FormatError(f"{path} must hold PNG, TIFF or NPY images of one kind and nothing else, got {got}")
        stacks = [self._image(one) for one in files]
        for one, stack in zip(files, stacks, strict=True):
            if (stack.shape[-2:], stack.dtype) != (stacks[0].shape[-2:], stacks[0].dtype):
                raise FormatError(
                    f"all images of a series must have one size and type, got {stack.shape[-2:]} {stack.dtype} in "
                    f"{one.name} and {stacks[0].shape[-2:]} {stacks[0].dtype} in {files[0].name}; move the others "
                    "elsewhere"
                )
        images = np.concatenate([stack.reshape(-1, *stack.shape[-2:]) for stack in stacks]).astype(np.float32)
        counts = tuple(len(stack) if stack.ndim == 3 else 0 for stack in stacks)
        origin = PictureFiles(tuple(files), counts, stacks[0].dtype, self)
        numbered = len(images) > 1 and (len(files) == 1 or _numbered(files))
        return ImageSeries(images, origin, str(path), provenance={"format": origin.format}, numbered=numbered)

    def _image(self, path: Path) -> np.ndarray:
        """Return the image or the stack in a file."""
        try:
            found = self.decode(path)
        except Exception as error:  # codecs raise many types of exceptions
            raise FormatError(
                f"{path} must be a readable image, got: {type(error).__name__}: {error}; copy it again"
            ) from error
        if (
            found.ndim not in (2, 3)
            or (found.ndim == 3 and not self.stacks)
            or (isinstance(self, Tiff) and found.shape[-1] in (3, 4))
        ):
            raise FormatError(
                f"{path} must be a grey image (y, x) or a stack of them, got shape {found.shape}; "
                "a colour image has no noise of an X-ray detector: give the measured values"
            )
        if found.dtype.kind not in "iuf":
            raise FormatError(f"{path} must hold integers or floats, got {found.dtype}; convert it")
        if not np.isfinite(found).all():
            raise FormatError(f"{path} must hold finite values, got {int((~np.isfinite(found)).sum())} NaN or infinite")
        return found


class Png(Pictures):
    """PNG with 8 or 16 bits."""

    stacks = False

    def recognises(self, path: Path) -> bool:
        """Return whether a file starts like PNG."""
        return _start(path) == b"\x89PNG\r\n\x1a\n"

    def decode(self, path: Path) -> np.ndarray:
        """Return the image in a file."""
        return np.asarray(imagecodecs.png_decode(path.read_bytes()))

    def encode(self, path: Path, images: np.ndarray, like: Path) -> None:
        """Write an image."""
        path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(images)))


class Tiff(Pictures):
    """TIFF, written back with its resolution."""

    def recognises(self, path: Path) -> bool:
        """Return whether a file starts like TIFF."""
        return is_tiff(path)

    def decode(self, path: Path) -> np.ndarray:
        """Return the image or the stack in a file."""
        import tifffile

        return np.asarray(tifffile.imread(path))

    def encode(self, path: Path, images: np.ndarray, like: Path) -> None:
        """Write an image or a stack."""
        import tifffile

        with tifffile.TiffFile(like) as file:
            tags: dict[str, Any] = {tag.name: tag.value for tag in file.pages.first.tags}
        resolution = None
        if "XResolution" in tags and "YResolution" in tags:
            resolution = tuple(tags[name][0] / max(1, tags[name][1]) for name in ("XResolution", "YResolution"))
        unit = tags.get("ResolutionUnit")
        unit = unit if unit in (1, 2, 3) else None  # a damaged one is not worth a run
        tifffile.imwrite(path, images, photometric="minisblack", resolution=resolution, resolutionunit=unit)


class Npy(Pictures):
    """Arrays saved by numpy."""

    def recognises(self, path: Path) -> bool:
        """Return whether a file starts like NPY."""
        return _start(path).startswith(b"\x93NUMPY")

    def decode(self, path: Path) -> np.ndarray:
        """Return the image or the stack in a file."""
        return np.asarray(np.load(path, allow_pickle=False))

    def encode(self, path: Path, images: np.ndarray, like: Path) -> None:
        """Write an image or a stack."""
        np.save(path, images)


@dataclass(frozen=True)
class PictureFiles:
    """The files of a series of pictures.

    Parameters
    ----------
    files
        Files in the order of the images.
    counts
        Number of images in each file; 0 for a single image that is not a stack.
    dtype
        Type of a pixel.
    kind
        Format of the files.
    """

    files: tuple[Path, ...]
    counts: tuple[int, ...]
    dtype: np.dtype[Any]
    kind: Pictures

    @property
    def format(self) -> str:
        """Name of the format."""
        return f"{called(type(self.kind)).upper()}, {self.dtype}"

    def write(self, folder: Path, images: Volume, made_by: str) -> None:
        """Write images to files of the same names, with pixels of the same type; integers are rounded."""
        done = 0
        for path, count in zip(self.files, self.counts, strict=True):
            stack = _as_type(images[done : done + max(1, count)], self.dtype)
            done += max(1, count)
            with damage_told(path):  # what it says of itself is written again
                self.kind.encode(folder / path.name, stack if count else stack[0], path)


def _numbered(files: Sequence[Path]) -> bool:
    """Return whether the names of files differ only by consecutive numbers."""
    pieces = [_NUMBER.split(one.stem) for one in files]
    if len({len(one) for one in pieces}) != 1:
        return False
    places = [place for place, found in enumerate(zip(*pieces, strict=True)) if len(set(found)) > 1]
    if len(places) != 1 or places[0] % 2 == 0:  # text and numbers alternate
        return False
    numbers = [int(one[places[0]]) for one in pieces]
    return all(after == before + 1 for before, after in pairwise(numbers))


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(8)
    except OSError:
        return b""


def _kind_of(path: Path) -> str | None:
    """Return the name of the format of a picture, or None."""
    kinds = ((name, kind) for name, kind in ImageFormat.registry.items() if issubclass(kind, Pictures))
    return next((name for name, kind in kinds if kind().recognises(path)), None)


def _as_type(images: Volume, dtype: np.dtype[Any]) -> np.ndarray:
    """Return pixels of this type; integers are rounded and clipped to its range."""
    if dtype.kind == "f":
        return images.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(images.astype(np.float64)), limits.min, limits.max).astype(dtype)
