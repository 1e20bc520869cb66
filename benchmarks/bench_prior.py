"""What the shipped priors are worth: from scratch and from the prior at equal wall time, on scans they never saw.

    python benchmarks/bench_prior.py [--budgets 8s 30s] [--only foam letters ...] [--data FOLDER] [--seeds 0]
    python benchmarks/bench_prior.py --prior radiographs|images --steps 100 300 --seeds 0 1 2
    python benchmarks/bench_prior.py --compare 5m --data FOLDER [--only tooth]

With `--steps`, both take equal numbers of steps, which says more on a machine that is busy with other programs.

Simulated scans are judged by PSNR against the FBP of their noise-free projections, measured ones (where the folder with
the data is given) by the gain that follows from the errors on the held-out rows, also where a run does not tell it.
The prior learned from objects of the same kinds but never from these; letters and measured scans are unlike anything in
its corpus.  One run each: a difference of a few tenths of a dB is chance.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from foam import Foam
from scipy import ndimage

import quietray
from quietray.images import ImageSeries
from quietray.metrics.image import compare, disc
from quietray.operators.nufft import ParallelRays
from quietray.running.settings import Training
from quietray.simulate import anatomy
from quietray.simulate.noise import Scintillator
from quietray.splits import Noise2Inverse, Noise2Self, Recorrupted
from quietray.workflows import Settings

MEASURED = {
    "PSI": ("psi_neutron_ct/psi_ct5s375_128lines.h5", {"rows": "60:76", "region": "200:640,240:680"}),
    "tooth": ("tomopy_tooth/tooth.h5", {}),
    "i12": ("dls_i12_24737_binned/dls_24737.h5", {"rows": "60:76"}),
}


@dataclass(frozen=True)
class Case:
    """A scan, what tells how good a result is, in dB, and its noise-free reconstruction if its detail is to be told."""

    scan: Any
    quality: Callable[[Any], float]
    changes: dict[str, Any]
    clean: np.ndarray | None = None


def foam(**told: Any) -> Case:
    """Return a foam of the benchmarks."""
    made = Foam(**told)
    return Case(made.scan, lambda result: made.psnr(np.asarray(result.volume)), {})


def simulated(volume: np.ndarray, photons: float, views: int, seed: int) -> Case:
    """Return the scan of an attenuation volume ``(z, y, x)``, per pixel."""
    rows, n = volume.shape[0], volume.shape[-1]
    beam = quietray.ParallelBeam(np.linspace(0, np.pi, views, endpoint=False), rows, n, (n - 1) / 2)
    rays = ParallelRays(beam)
    lines = rays.project(volume.astype(np.float32), np.ones(rays.width // 2 + 1, np.float32), np.ones(views))
    counts = np.random.default_rng(seed).poisson(photons * np.exp(-lines.clip(0))).astype(np.uint16)
    flats, darks = np.full((4, rows, n), photons, np.float32), np.zeros((2, rows, n), np.float32)
    scan = quietray.Scan(np.swapaxes(counts, 0, 1), beam, flats=flats, darks=darks, source="simulated")
    clean, mask = quietray.FBP()(rays, lines), disc(n, n, 0.97)
    return Case(
        scan,
        lambda result: compare(np.asarray(result.volume), clean, mask=mask).psnr,
        {},
        clean,
    )


def fidelity(result: Any, clean: np.ndarray) -> float:
    """Return how much of the fine detail of a volume is there: its least-squares gain from 5 to 12 pixels a period."""
    n = clean.shape[-1]
    fy, fx = np.fft.fftfreq(n)[:, None], np.fft.fftfreq(n)[None]
    window = np.hanning(n)[:, None] * np.hanning(n)
    fine = (np.hypot(fy, fx) > 1 / 12) & (np.hypot(fy, fx) < 1 / 5)
    found, wanted = (np.fft.fft2(np.asarray(volume).mean(axis=0) * window)[fine] for volume in (result.volume, clean))
    return float((found * wanted.conj()).real.sum() / (np.abs(wanted) ** 2).sum())


def invented(seed: int, steps: int, prior: str) -> None:
    """Print what is left of pure noise, from scratch and from the prior: its size, and what two scans share.

    Two scans of one uniform cylinder share nothing but its outline; well within it, what the two results have in
    common would be invented.
    """
    y, x = np.mgrid[:128, :128] - 63.5
    plate = np.repeat((np.clip(57 - np.hypot(y, x), 0, 1) * 0.012)[None], 16, axis=0)
    ink = lettering()[28:100, 28:100]
    cut = (slice(None), slice(28, 100), slice(28, 100))
    print(f"pure noise, {steps} steps: what is left / noise, what two scans share, what is like letters (chance)")
    for start in ("scratch", "prior"):
        left = []
        for number in (2 * seed, 2 * seed + 1):
            case = simulated(plate, 150.0, 200, number)
            settings = Settings(
                method=METHODS[prior], start=start, seed=seed, symmetries=1, training=Training(steps=steps)
            )
            result = quietray.denoise(case.scan, None, settings)
            left.append(np.asarray(result.volume)[cut])
        noisy = np.asarray(quietray.reconstruct(case.scan))[cut]
        one, two = (volume - ndimage.gaussian_filter(volume, (0, 12, 12)) for volume in left)
        shared = float((one * two).mean() / (one.std() * two.std()))
        mean = one.mean(axis=0)
        found = [float(np.corrcoef(mean.ravel(), np.roll(ink, move, axis=(0, 1)).ravel())[0, 1]) for move in MOVES]
        told = f"{found[0]:+.3f} ({np.std(found[1:]):.3f})"
        print(f"{start}: {one.std() / noisy.std():.3f}, {shared:+.3f}, {told}", flush=True)


def torso(seed: int) -> Case:
    """Return slices of a torso."""
    body = anatomy.subject(seed)
    grid = quietray.VolumeGrid((16, 160, 160))
    return simulated(body.volume(grid) * anatomy.FIELD / 160, 3000.0, 160, seed)


def images(case: Case, blur: float = 0.0) -> Case:
    """Return the slices of a scan as images, with the noise of their reconstruction, which may be blurred as well."""
    assert case.clean is not None
    noise = ndimage.gaussian_filter(np.asarray(quietray.reconstruct(case.scan)) - case.clean, (0, blur, blur))
    series = ImageSeries((case.clean + noise).astype(np.float32), None, "slices")
    return dataclasses.replace(case, scan=series)


def lettering() -> np.ndarray:
    """Return a text as ink from 0 to 1, ``(y, x)``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(1.28, 1.28), dpi=200)
    for line, text in enumerate(("quiet", "Rays &", "R2D2 x", "edges?")):
        figure.text(0.2, 0.72 - 0.17 * line, text, fontsize=9 - line, family="serif")
    figure.canvas.draw()
    drawn = 1 - np.asarray(figure.canvas.buffer_rgba())[..., 0].astype(np.float32) / 255
    pyplot.close(figure)
    return np.asarray(drawn.reshape(128, 2, 128, 2).mean(axis=(1, 3)))


def letters(seed: int, photons: float = 150.0) -> Case:
    """Return a plate with a text in every slice, which no corpus holds."""
    y, x = np.mgrid[:128, :128] - 63.5
    plate = np.clip(57 - np.hypot(y, x), 0, 1) * (0.012 + 0.012 * lettering())
    return simulated(np.repeat(plate[None], 16, axis=0), photons, 200, seed)


def measured(name: str, folder: Path) -> Case:
    """Return a measured scan, judged by what its held-out rows tell."""
    place, changes = MEASURED[name]

    def gain(result: Any) -> float:
        estimate = result.metrics["estimate"]
        if not estimate["rmse"]:  # too small to be told from zero
            return float("nan") if estimate["psnr_gain_db_at_least"] is None else estimate["psnr_gain_db_at_least"]
        return float(20 * np.log10(estimate["rmse_noisy"] / estimate["rmse"]))

    return Case(quietray.read(folder / place), gain, changes)


def places(name: str, folder: Path, budget: str) -> None:
    """Print how the methods rank on a measured scan, with networks from random weights and from the prior.

    Distances are those of the estimated errors to that of the best filter, in dB; positive is better.
    """
    place, changes = MEASURED[name]
    for start in ("scratch", "prior"):
        settings = Settings(start=start, **changes)
        comparison = quietray.compare(quietray.read(folder / place), budget=budget, settings=settings)
        filters = {one.name: one.error for one in comparison.standings if not one.settings.method.trained}
        best = min(filters, key=filters.__getitem__)
        print(f"{name}, {start}: best filter {best}, recommended {comparison.recommended}")
        for rank, one in enumerate(comparison.standings, 1):
            apart = 10 * np.log10(filters[best] / one.error)
            print(f"| {rank} | {one.name} | {one.error:.4g} | {apart:+.2f} | {one.seconds:.0f} s |", flush=True)


MOVES = [(0, 0), *((int(y), int(x)) for y in (-24, -12, 12, 24) for x in (-24, -12, 0, 12, 24))]  # of the letters
METHODS = {"volume": Noise2Inverse(), "radiographs": Noise2Self(), "images": Recorrupted()}
CORRELATED = Scintillator(gain=10.0, dark=100.0, read_noise=2.0, response_width=0.5)


def cases(prior: str, seed: int, data: Path | None) -> dict[str, Callable[[], Case]]:
    """Return the scans or images for a prior by name."""
    if prior == "images":  # with uniform regions, where the noise can be measured; a foam has none
        return {
            "torso": lambda: images(torso(seed)),
            "torso, blurred": lambda: images(torso(seed), blur=0.7),
            "letters": lambda: images(letters(seed)),
            "letters, 1500 photons": lambda: images(letters(seed, 1500.0)),
        }
    found: dict[str, Callable[[], Case]] = {
        "foam": lambda: foam(seed=seed),
        "foam of 1500": lambda: foam(seed=seed, spheres=1500, largest=0.05),
        "foam, 20 photons": lambda: foam(seed=seed, photons=20.0),
        "foam, 2000 photons": lambda: foam(seed=seed, photons=2000.0),
        "foam, 32 views": lambda: foam(seed=seed, views=32, photons=1000.0),
        "foam, correlated": lambda: foam(seed=seed, detector=CORRELATED),
        "torso": lambda: torso(seed),
        "letters": lambda: letters(seed),
    }
    if data is not None:
        found |= {name: (lambda name=name: measured(name, data)) for name in MEASURED}  # type: ignore[misc]
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prior", choices=tuple(METHODS), default="volume")
    parser.add_argument("--budgets", nargs="+", default=["8s", "30s"])
    parser.add_argument("--steps", nargs="+", type=int, help="equal numbers of steps instead of budgets")
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--noise", type=int, metavar="STEPS", help="only show what is left of pure noise")
    parser.add_argument("--compare", metavar="BUDGET", help="only rank the methods on measured scans, in so much time")
    told = parser.parse_args()
    if told.compare:
        for name in told.only or ("PSI", "tooth"):
            places(name, told.data, told.compare)
        return
    if told.noise:
        for seed in told.seeds:
            invented(seed, told.noise, told.prior)
        return
    runs: dict[str, dict[str, Any]] = {budget: {"budget": budget} for budget in told.budgets}
    if told.steps:
        runs = {f"{n} steps": {"symmetries": 1, "training": Training(steps=n)} for n in told.steps}
    print("| scan | run | scratch (dB) | steps | prior (dB) | steps | prior - scratch |\n|---|---|---|---|---|---|---|")
    ahead: dict[str, list[float]] = {}
    for name in cases(told.prior, 0, told.data):
        if told.only and name not in told.only:
            continue
        for run, changes in runs.items():
            pairs = [
                compared(cases(told.prior, seed, told.data)[name](), told.prior, changes, seed) for seed in told.seeds
            ]
            (scratch, few, _), (prior, steps, _) = np.mean(pairs, axis=0)
            gain = np.array([one[1][0] - one[0][0] for one in pairs])
            spread = f" +- {gain.std(ddof=1) / np.sqrt(len(gain)):.2f}" if len(gain) > 1 else ""
            ahead.setdefault(run, []).append(prior - scratch)
            row = f"| {name} | {run} | {scratch:.2f} | {few:.0f} | {prior:.2f} | {steps:.0f} |"
            print(f"{row} {gain.mean():+.2f}{spread} |{_details(pairs)}", flush=True)
    for run, values in ahead.items():
        print(f"| mean | {run} | | | | | {np.mean(values):+.2f} (worst {min(values):+.2f}) |", flush=True)


def _details(pairs: list[list[tuple[float, int, float]]]) -> str:
    scratch, prior = np.mean([[one[2] for one in pair] for pair in pairs], axis=0)
    return "" if np.isnan(scratch) else f" fine detail {scratch:.2f} and {prior:.2f}"


def compared(case: Case, prior: str, changes: dict[str, Any], seed: int) -> list[tuple[float, int, float]]:
    """Return quality in dB, number of steps, and fine detail if it is told, from scratch and from the prior."""
    found = []
    for start in ("scratch", "prior"):
        settings = Settings(method=METHODS[prior], start=start, seed=seed, **changes, **case.changes)
        result = quietray.denoise(case.scan, None, settings)
        detail = np.nan if case.clean is None else fidelity(result, case.clean)
        found.append((case.quality(result), result.metrics["training"]["steps"], detail))
    return found


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"\n{time.monotonic() - started:.0f} s")
