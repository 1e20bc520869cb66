"""Image formats: one module each; format classes register themselves."""

from __future__ import annotations

# isort: off
from quietray.io.images import dicom
from quietray.io.images import volumes  # before pictures: TIFF files of a volume are one
from quietray.io.images import pictures

# isort: on
from quietray.io.images.base import ImageFormat
from quietray.io.images.reading import image_format, read_images

__all__ = ["ImageFormat", "dicom", "image_format", "pictures", "read_images", "volumes"]
