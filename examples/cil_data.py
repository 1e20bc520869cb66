"""From CIL to quietray and back: an AcquisitionData goes in, an ImageData on the same grid comes out.

python examples/cil_data.py [BUDGET]
"""

import sys

import numpy as np
from cil.framework import AcquisitionData, AcquisitionGeometry

import quietray
from quietray.adapters import from_cil, to_cil

# What CIL reads from a scanner: here a simulated cone beam, its rows upwards and its angles reversed, as CIL has them.
foam = quietray.FoamScan(views=120, rows=12, cols=48, beam="cone", pixel_size=0.05, spheres=40, largest=0.25, flats=40)
scan = foam.acquire()
to_axis, to_detector = scan.geometry.reach[0]
geometry = AcquisitionGeometry.create_Cone3D([0, -to_axis, 0], [0, to_detector - to_axis, 0], units="mm")
geometry.set_panel((scan.n_cols, scan.n_rows), (scan.geometry.pixel_size,) * 2)
geometry.set_angles(-np.rad2deg(scan.geometry.angles))
data = AcquisitionData(scan.projections[:, ::-1].astype(np.float32), geometry=geometry)
flats, darks = (frames[:, ::-1] for frames in (scan.flats, scan.darks))

result = quietray.denoise(
    from_cil(data, flats, darks), method="noise2inverse", budget=sys.argv[1] if len(sys.argv) > 1 else "4m"
)
image = to_cil(result.volume, data)  # a cil.framework.ImageData, for CIL's viewers, filters and solvers
print(f"image {image.shape}, gain {result.gain}")
