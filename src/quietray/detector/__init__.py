"""What the detector does to the radiographs, and how it is undone."""
