"""The judge that needs no ground truth, beside the ground truth: every method and filter on three simulated scans.

    python benchmarks/bench_judge.py [BUDGET]     # 4m for each scan by default: about 15 minutes on 2 cores

`quietray compare` on a foam seen by a detector with white noise, by one whose point response correlates it, and in 32
views only.  The judge sees neither the foam nor the noise-free views; both columns have the judge's own data range.
With 32 views it judges the projections of the volumes onto the held-out views, and so does the truth beside it.
"""

from __future__ import annotations

import sys

import numpy as np
from foam import Foam
from scipy.stats import spearmanr

import quietray
from quietray.assessment.comparison import Comparison
from quietray.domains.compare import compared
from quietray.metrics.heldout import held_out_views
from quietray.metrics.image import psnr
from quietray.running.run import Run
from quietray.settings import parse_seconds
from quietray.simulate.noise import Scintillator
from quietray.types import Volume
from quietray.workflows import Settings

SHARE = 0.2  # of the views, as `compare` holds them out
SCANS = {
    "white, 256 views": Foam(rows=16, photons=400.0),
    "correlated detector, 256 views": Foam(
        rows=16, photons=400.0, detector=Scintillator(gain=10.0, dark=100.0, response_width=0.5)
    ),
    "white, 32 views": Foam(rows=16, views=32, photons=400.0),
}


def true_error(foam: Foam, found: Comparison, volume: Volume) -> float:
    """Return the true mean squared error in the domain that was judged."""
    if found.domain == "volume":
        return float(np.square(volume - foam.clean)[:, foam.mask].mean())
    _, held = held_out_views(foam.scan.geometry, SHARE)
    A = quietray.ParallelProjector(foam.scan.geometry[held])
    inside = volume * foam.mask  # what lies beyond the field of view is not judged
    return float(np.square(A(inside) - foam.sinograms[:, held]).mean())


def main() -> None:
    """Print a table for each scan."""
    budget = sys.argv[1] if len(sys.argv) > 1 else "4m"
    for name, foam in SCANS.items():
        found = compared(foam.scan, Run.in_memory(Settings(budget=budget)), foam.rows, parse_seconds(budget))[0]
        rows = [(each, true_error(foam, found, each.volume)) for each in found.standings]
        print(f"\n{name}, 16 x 128 x 128, 400 photons; judged: the {found.domain}\n")
        print(
            "| method | estimated PSNR (90 %) | true PSNR | difference | seconds |\n|---|---|---|---|---|", flush=True
        )
        differences = []
        for each, truth in rows:
            high, low = (psnr(max(end, 1e-30), found.data_range) for end in each.interval)
            estimate, true = psnr(each.error, found.data_range), psnr(truth, found.data_range)
            differences.append(estimate - true)
            print(
                f"| {each.name} | {estimate:.2f} ({low:.2f} to {high:.2f}) | {true:.2f} | {differences[-1]:+.2f} "
                f"| {each.seconds:.0f} |"
            )
        rank = spearmanr([each.error for each, _ in rows], [truth for _, truth in rows]).statistic
        print(
            f"\nrank correlation {rank:.3f} over {len(rows)}; differences: median "
            f"{np.median(np.abs(differences)):.2f}, largest "
            f"{max(differences, key=abs):+.2f} dB; recommended: {found.recommended}",
            flush=True,
        )


if __name__ == "__main__":
    main()
