"""Detector effects in radiographs: measuring and correcting them."""
