"""The point response of a detector: estimation, deconvolution and convolution."""
