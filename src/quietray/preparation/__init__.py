"""From a raw scan to one that is ready to be reconstructed."""
