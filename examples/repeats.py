"""Two scans of one object: each is the target of the other.

python examples/repeats.py
"""

import numpy as np

import quietray


def main(seed: int = 0) -> float:
    """Return by how many decibels the volume is nearer to the truth than the mean of both scans."""
    foam = quietray.Foam.packed(20, 0.35, np.random.default_rng(1), largest=0.3)
    beam = quietray.ParallelBeam(np.linspace(0, np.pi, 120, endpoint=False), 8, 48, rotation_axis=23.5)
    first, second = (quietray.acquire(foam, beam, photons=200, seed=chance) for chance in (1, 2))  # one object

    result = quietray.denoise(
        first,
        repeats=[second],
        method="noise2noise",
        network=quietray.UNet((8, 16, 32)),  # small, so that this takes seconds
        training=quietray.Training(steps=200, precision="fp32"),  # or budget="10m"
        seed=seed,
        symmetries=1,
    )
    print(result)

    both = (np.asarray(quietray.reconstruct(first)) + np.asarray(quietray.reconstruct(second))) / 2
    before, after = quietray.evaluate(both, first), quietray.evaluate(result, first)
    print(f"{before['psnr_db']:.1f} dB for the mean of both, {after['psnr_db']:.1f} dB denoised")
    return after["psnr_db"] - before["psnr_db"]


if __name__ == "__main__":
    main()
