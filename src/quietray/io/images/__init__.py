"""Image formats: one module each; format classes register themselves."""

from __future__ import annotations

from quietray.io.images import dicom, pictures
from quietray.io.images.base import ImageFormat
from quietray.io.images.reading import image_format, read_images

__all__ = ["ImageFormat", "dicom", "image_format", "pictures", "read_images"]
