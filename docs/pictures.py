"""Draw the pictures of the page on the neutron scan, from its folder of TIFF files and from its run.

    quietray denoise 04_ct5s375_128lines --data 'ct5s_*.tif' --flats 'ob_*.tif' --darks 'dc_*.tif' \
        --angles 0:360.96 --rows 64:96 --budget 4m --out out/rods
    python docs/pictures.py out/rods docs/images/neutron.png

Prints the noise in the air left of the tube, in single slices, before and after.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import quietray
from quietray.settings import from_dict, read_toml

AIR = (slice(330, 500), slice(60, 180))  # left of the tube
TUBE = (slice(170, 650), slice(230, 700))
RODS = (slice(300, 420), slice(400, 520))
Z = 16  # of the slices of the run


def main(run: Path, picture: Path) -> None:
    """Reconstruct the slice as it was measured, and draw both."""
    settings = from_dict(quietray.Settings, read_toml(run / "run.toml"))
    scan = quietray.read(
        sys.argv[3] if len(sys.argv) > 3 else "04_ct5s375_128lines",
        data="ct5s_*.tif",
        flats="ob_*.tif",
        darks="dc_*.tif",
        angles="0:360.96",
    )
    first = int((settings.rows or "0:").split(":")[0]) + Z
    axis = quietray.Result.load(run, None).metrics["scan"]["rotation_axis"]
    noisy = np.asarray(quietray.reconstruct(scan, rows=f"{first}:{first + 1}", rotation_axis=axis)[0])
    clean = np.asarray(quietray.read_volume(run / "volume.zarr")[Z])
    sds = [float(one[AIR].std()) for one in (noisy, clean)]
    print(f"noise in air: {sds[0]:.3g} before, {sds[1]:.3g} after, per pixel; {sds[0] / sds[1]:.1f} times less")
    low, high = np.percentile(clean[TUBE], (0.5, 99.7))
    figure, axes = plt.subplots(2, 2, figsize=(6, 6.2), layout="constrained")
    for column, (image, title) in enumerate(((noisy, "filtered backprojection"), (clean, "quietray"))):
        for axis, part in zip(axes[:, column], (TUBE, RODS), strict=True):
            axis.imshow(image[part], cmap="gray", vmin=low, vmax=high)
            axis.axis("off")
        axes[0, column].set_title(title)
    figure.savefig(picture, dpi=72)
    Image.open(picture).convert("L").save(picture, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
