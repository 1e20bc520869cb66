"""The runs that the workflows are made of: in the volume, on radiographs, on repeated frames, and compared."""
