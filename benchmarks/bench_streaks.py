"""Where few views hide errors from the estimate: is the measured share of streaks a guide?

Simulated objects, a TV filter, and the gain told and true, inside the object and in the field of view:

    python benchmarks/bench_streaks.py
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from bench_calibration import METHODS, Case, Run, VolumeDomain, measured, settings_of

from quietray.assessment.withheld import too_few_views
from quietray.metrics.noreference import streaks_of_halves

OBJECTS, SIZES, PHOTONS = ("foam", "grains", "rods"), ((48, 64), (96, 64), (64, 96), (96, 96), (160, 96)), (100.0, 1e3)


def main() -> None:
    """Print a line per scan and region, and the errors of those that are told and those that are withheld."""
    torch.set_num_threads(1)
    errors: dict[bool, list[float]] = {True: [], False: []}
    for number, (thing, (views, columns), photons) in enumerate(itertools.product(OBJECTS, SIZES, PHOTONS)):
        case = Case("volume", thing, "tv", photons, views, columns, 8, "white", 200, 9000 + number)
        scan, _, expected = measured(case)
        run = Run.in_memory(settings_of(case, METHODS["tv"]))
        domain = VolumeDomain.prepare(run, [scan], VolumeDomain.bound(run, [scan]))
        denoiser, _ = domain.learn()
        evidence = domain.judge(denoiser)
        subsets, _ = domain.prepared.source(8)(slice(0, case.rows))
        streaks = streaks_of_halves(subsets, domain.prepared.weight)
        parts = domain.measured()
        noisy, clean = parts.mean(axis=0), denoiser.slab(parts, 0, case.rows)
        view = np.broadcast_to(domain.prepared.weight > 0, clean.shape)
        regions = [("field of view", evidence, view)]
        if evidence.inside is not None and evidence.mask is not None:
            inside = np.stack([evidence.mask.of(one, domain.prepared.weight) for one in clean]) > 0
            regions.append(("object", evidence.inside, inside))
        for name, found, where in regions:
            true = 10 * np.log10(np.square(noisy - expected)[where].mean() / np.square(clean - expected)[where].mean())
            left = max(0.0, found.error / found.noise)
            withheld = bool(too_few_views(views, columns, where.sum() / view.sum(), streaks, left))
            errors[withheld].append(found.gain - true)
            told = "withheld" if withheld else "told"
            print(
                f"{thing:6} {views:3} views {columns} columns {photons:4.0f} photons  {name:13}  "
                f"streaks {streaks:6.3f}  gain {found.gain:+5.1f}, true {true:+5.1f} dB  {told}",
                flush=True,
            )
    for withheld, all_of_them in errors.items():
        some = np.array([error for error in all_of_them if np.isfinite(error)])
        print(
            f"{'withheld' if withheld else 'told'}: {len(all_of_them)}, mean error {some.mean():+.2f} dB, "
            f"{(np.abs(some) <= 0.7).sum()} within 0.7 dB, largest {some.max():+.2f} dB"
        )


if __name__ == "__main__":
    main()
