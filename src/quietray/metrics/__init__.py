"""Image quality with a reference, without one, and diagnostics of the residual."""
