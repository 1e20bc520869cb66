"""Application of trained denoisers to scans of any size, in tiles and slabs."""
