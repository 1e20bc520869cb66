"""Trained denoisers, applied to scans of any size in tiles and slabs."""
