"""Noise measurements: where noise can be read, its correlation, its gain, and what views have in common."""
