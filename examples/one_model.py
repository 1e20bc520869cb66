"""One model for many scans: train on one, apply to another of the same kind.

python examples/one_model.py
"""

import tempfile
from pathlib import Path

import quietray


def main(seed: int = 0) -> float:
    """Return by how many decibels the second scan, which was never trained on, came nearer to the truth."""
    foam = {"views": 120, "rows": 8, "cols": 48, "photons": 200, "spheres": 20, "largest": 0.3}
    trained_on, other = (quietray.FoamScan(**foam, seed=seed).acquire() for seed in (1, 2))
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        quietray.train(
            [trained_on],
            model,
            method="noise2inverse",
            start="prior",  # the shipped one, for this is short
            training=quietray.Training(steps=20, precision="fp32"),
            seed=seed,
        )
        result = quietray.apply(model, other, symmetries=1)
    print(result)
    before = quietray.evaluate(quietray.reconstruct(other), other)
    after = quietray.evaluate(result, other)
    print(f"{before['psnr_db']:.1f} dB before, {after['psnr_db']:.1f} dB after")
    return after["psnr_db"] - before["psnr_db"]


if __name__ == "__main__":
    main()
