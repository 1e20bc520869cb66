"""From arrays of counts to a denoised volume.

    python examples/raw_scan.py

Replace the three arrays by yours: radiographs (view, row, column), open-beam and beam-off frames (frame, row, column).
"""

import numpy as np

import quietray


def main(seed: int = 0) -> float:
    """Return by how many decibels the volume came nearer to the truth, which a simulated scan knows."""
    simulated = quietray.FoamScan(views=120, rows=8, cols=48, photons=200, spheres=20, largest=0.3, seed=1).acquire()
    projections = np.asarray(simulated.projections[:])
    flats, darks = np.asarray(simulated.flats[:]), np.asarray(simulated.darks[:])
    angles = np.rad2deg(simulated.geometry.angles)

    scan = quietray.Scan.from_arrays(projections, angles, flats=flats, darks=darks)
    result = quietray.denoise(
        scan,
        method="noise2inverse",
        training=quietray.Training(steps=20, precision="fp32"),  # or budget="10m"
        seed=seed,
        symmetries=1,
    )
    print(result)
    print(f"volume {result.volume.shape}, {result.metrics.scan.unit}")

    before = quietray.evaluate(quietray.reconstruct(scan), simulated)
    after = quietray.evaluate(result, simulated)
    print(f"{before['psnr_db']:.1f} dB before, {after['psnr_db']:.1f} dB after")
    return after["psnr_db"] - before["psnr_db"]


if __name__ == "__main__":
    main()
