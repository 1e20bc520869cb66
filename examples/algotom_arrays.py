"""From algotom (or tomopy) to quietray and back: arrays, angles in radians.

python examples/algotom_arrays.py [BUDGET]
"""

import sys

import numpy as np
from algotom.prep.removal import remove_stripe_based_sorting

import quietray
from quietray.adapters import from_tomopy

# What a pipeline of algotom or tomopy holds: here a simulated scan, corrected by its flats, and its logarithm.
scan = quietray.FoamScan(views=120, rows=10, cols=48, spheres=40, largest=0.25, flats=40).acquire()
theta = scan.geometry.angles
projections, flats, darks = (np.asarray(frames[:], np.float32) for frames in (scan.projections, scan.flats, scan.darks))
dark = darks.mean(axis=0)
counts = np.maximum(projections - dark, 0.5)  # a pixel without light has no logarithm
sinograms = -np.log(counts / (flats.mean(axis=0) - dark)).swapaxes(0, 1)  # (row, view, col)
sinograms = np.stack([remove_stripe_based_sorting(one, size=21) for one in sinograms])

noise2inverse = from_tomopy(sinograms, theta, order="sinogram", log=True)
result = quietray.denoise(noise2inverse, method="noise2inverse", budget=sys.argv[1] if len(sys.argv) > 1 else "4m")
volume = np.asarray(result.volume)  # (z, y, x), attenuation per pixel: what a reconstruction of theirs would be
print(f"volume {volume.shape}, gain {result.gain}")
