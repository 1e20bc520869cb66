"""Slices without projections: a filter whose strength is chosen without ground truth.

python examples/slices.py
"""

import tempfile
from pathlib import Path

import numpy as np

import quietray


def main(seed: int = 1) -> float:
    """Return how many times nearer the filtered images are to the clean ones."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    disc = (np.hypot(y - 32, x - 32) < 24).astype(np.float32)
    pores = np.hypot(y - 28, x - 26) < 5
    clean = np.stack([disc * np.where(pores, 0.3, 1.0)] * 6).astype(np.float32)
    noisy = clean + rng.normal(0, 0.2, clean.shape).astype(np.float32)

    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "slices.npy", noisy)  # or a folder of TIFF, PNG or DICOM files
        result = quietray.denoise(quietray.read_images(Path(folder) / "slices.npy"), method="nlm")
    print(result)

    errors = [float(np.sqrt(np.mean((np.asarray(images) - clean) ** 2))) for images in (noisy, result.volume)]
    print(f"error {errors[0]:.3f} before, {errors[1]:.3f} after")
    return errors[0] / errors[1]


if __name__ == "__main__":
    main()
