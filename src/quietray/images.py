"""Image series of any kind, with their origin, so that they can be written back in the same format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from quietray.errors import GeometryError
from quietray.types import Frames, Slice, Volume

__all__ = ["ImageSeries", "Origin", "SlabOrigin", "require_alike"]

_BLOCK = 2**26  # bytes of images that are read at a time


@runtime_checkable
class Origin(Protocol):
    """The files of a series, which can write images back in the same format."""

    @property
    def format(self) -> str:
        """Name of the format."""

    def write(self, folder: Path, images: Volume, made_by: str) -> None:
        """Write `images` to an empty folder, with the same file names and format; `made_by` names the program."""


@runtime_checkable
class SlabOrigin(Origin, Protocol):
    """The file of a volume, which can also be written slab by slab."""

    def opened(self, folder: Path, made_by: str) -> AbstractContextManager[Any]:
        """Return a context with a writer, whose ``write(first, slab)`` writes slices into a file in `folder`."""


@dataclass(frozen=True, eq=False)
class ImageSeries:
    """Images of one kind and size: reconstructed CT slices, radiographs, or other images; not a tomographic scan.

    Parameters
    ----------
    images
        Images ``(image, row, col)`` float32, in `unit`, possibly still on disk; CT slices sorted by position.
    origin
        Files of the series.
    source
        Path from which they were read.
    unit
        ``HU``, or ``raw`` if the values have no unit.
    modality
        ``CT``, ``CR``, ``DX`` and so on as in DICOM; ``image`` if not in the file.
    spacing
        Edge of a pixel in mm, along rows and along columns; None if not in the file.
    step
        Distance between images in mm, if they are slices of one volume.
    window
        Grey values displayed as black and white; None to let the report choose.
    padding
        Mask ``(image, row, col)`` of pixels that were not measured; None if there are none.
    projections
        Header data of projections (DICOM-CT-PD); else empty.
    provenance
        Information on the input for the report and the figures.
    notes
        Notes for the user.
    numbered
        Whether the images follow one another: as pages of one file, or in files with consecutive numbers.

    Raises
    ------
    GeometryError
        There are no pixels, or the padding has another shape.

    Examples
    --------
    >>> series = ImageSeries(np.zeros((3, 4, 5), np.float32), None, "here")
    >>> series.n_images, series.unit, float(series.weight.mean())
    (3, 'raw', 1.0)
    >>> series
    ImageSeries(3 of 4 x 5 pixels, image, raw, from here)
    """

    images: Frames
    origin: Origin | None
    source: str
    unit: str = "raw"
    modality: str = "image"
    spacing: tuple[float, float] | None = None
    step: float | None = None
    window: tuple[float, float] | None = None
    padding: Bool[np.ndarray, "z y x"] | None = None
    projections: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    numbered: bool = False

    def __post_init__(self) -> None:
        if 0 in self.images.shape:
            raise GeometryError(f"a series must have images with pixels, got {self.images.shape}; check {self.source}")

    def __repr__(self) -> str:
        n, height, width = self.images.shape
        kinds = f"{self.modality}, {self.unit}" + (f", from {self.source}" if self.source else "")
        return f"ImageSeries({n} of {height} x {width} pixels, {kinds})"

    def blocks(self) -> Iterator[Volume]:
        """Yield all images in order, a few at a time if they are still on disk.

        Examples
        --------
        >>> [block.shape for block in ImageSeries(np.zeros((3, 4, 5), np.float32), None, "here").blocks()]
        [(3, 4, 5)]
        """
        n, height, width = self.images.shape
        step = max(1, _BLOCK // (4 * height * width))
        for first in range(0, n, step):
            yield np.asarray(self.images[first : first + step], np.float32)

    @property
    def array(self) -> Volume:
        """All images in memory."""
        return np.asarray(self.images[:], np.float32)

    @property
    def n_images(self) -> int:
        """Number of images."""
        return int(self.images.shape[0])

    @property
    def pixel_size(self) -> float | None:
        """Edge of a square pixel in mm; None if unknown or not square."""
        if self.spacing is None or abs(self.spacing[0] - self.spacing[1]) > 1e-3 * self.spacing[0]:
            return None
        return self.spacing[0]

    @property
    def weight(self) -> Slice:
        """Weight ``(y, x)``: 1 for pixels measured in every image, else 0; 1 everywhere if there are no such pixels."""
        if self.padding is None:
            return np.ones(self.images.shape[1:], np.float32)
        inside = np.asarray(~self.padding.any(axis=0))
        return np.asarray(inside if inside.any() else np.ones(inside.shape), np.float32)

    def describe(self) -> dict[str, Any]:
        """Return the content of the series, as text by name."""
        n, height, width = self.images.shape
        ends = [(float(block.min()), float(block.max())) for block in self.blocks()]
        low, high = min(low for low, _ in ends), max(high for _, high in ends)
        pixel = "not known" if self.spacing is None else f"{self.spacing[0]:g} x {self.spacing[1]:g} mm"
        facts = {
            "format": "not known" if self.origin is None else self.origin.format,
            "images": f"{n} of {height} x {width}, {self.modality}, {self.unit}",
            "values": f"{low:g} to {high:g} {self.unit}",
            "pixel": pixel,
            "step": "none" if self.step is None else f"{self.step:g} mm from image to image",
            "padding": "none" if self.padding is None else f"{float(self.padding.mean()):.1%} of the pixels",
            **{f"projections: {name.replace('_', ' ')}": str(value) for name, value in self.projections.items()},
        }
        return facts | {f"note {index}": note for index, note in enumerate(self.notes, 1)}


def require_alike(stacks: Sequence[ImageSeries]) -> None:
    """Raise unless all series can be measurements of the same images.

    Raises
    ------
    GeometryError
        They differ in number, size or unit.
    """
    first = stacks[0]
    for other in stacks[1:]:
        if other.images.shape != first.images.shape or other.unit != first.unit:
            raise GeometryError(
                f"all measurements must have the images' size and unit, {first.images.shape} in {first.unit}, got "
                f"{other.images.shape} in {other.unit} in {other.source}; give series of the same images"
            )
