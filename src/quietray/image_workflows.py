"""Workflows for images under their old names; :mod:`quietray.workflows` handles both scans and images."""

from quietray.workflows import apply as apply_images
from quietray.workflows import denoise as denoise_images
from quietray.workflows import train as train_images

__all__ = ["apply_images", "denoise_images", "train_images"]
