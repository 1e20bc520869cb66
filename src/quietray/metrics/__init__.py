"""Image quality with and without ground truth, and diagnostics of residuals."""
