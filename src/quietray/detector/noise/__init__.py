"""What the noise is: where it can be read, its correlation, its gain, what views have in common."""
