"""Does `--method auto` pick well?  Every method that it may pick, given the whole budget, beside auto.

    python benchmarks/bench_auto.py [BUDGET]     # 4m by default: about 20 minutes on 2 cores

The foam of bench_foam.py.  PSNR is against the FBP of the noise-free projections.
"""

from __future__ import annotations

import dataclasses
import sys
import time

import numpy as np
from foam import Foam

import quietray
from quietray.filters import FILTERS
from quietray.splits import Noise2Inverse, Noise2Self
from quietray.workflows import Settings


def main() -> None:
    """Print the table."""
    budget = sys.argv[1] if len(sys.argv) > 1 else "4m"
    foam, settings = Foam(), Settings(budget=budget)
    print(f"| --method, --budget {budget} | PSNR (dB) | seconds |\n|---|---|---|", flush=True)

    def row(name: str, settings: Settings) -> float:
        started = time.monotonic()
        result = quietray.denoise(foam.scan, None, settings)
        quality = foam.psnr(np.asarray(result.volume))
        print(f"| {name} | {quality:.2f} | {time.monotonic() - started:.0f} |", flush=True)
        if "comparison" in result.metrics:
            print("\n" + "\n".join(f"* {note}" for note in result.notes))
            for each in result.metrics["comparison"]["methods"]:
                print(
                    f"* {each['method']}: estimated {each['psnr_db'] or float('nan'):.2f} dB, {each['seconds']:.0f} s"
                )
        return quality

    methods = {name: kind() for name, kind in FILTERS.items()}
    methods |= {"noise2self": Noise2Self(), "noise2inverse, 2-D": Noise2Inverse(slices=1)}
    methods["noise2inverse, 2.5-D"] = Noise2Inverse()
    found = {name: row(name, dataclasses.replace(settings, method=method)) for name, method in methods.items()}
    best = max(found, key=lambda name: found[name])
    print(f"\nbest: {best}; auto is {row('auto', settings) - found[best]:+.2f} dB from it")


if __name__ == "__main__":
    main()
