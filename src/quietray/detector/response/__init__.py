"""The point response of a detector: estimated, undone, applied again."""
