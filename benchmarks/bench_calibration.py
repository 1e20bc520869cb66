"""Whether a run's own estimates are right: what it tells of itself in a hundred simulated runs, and the truth.

    python benchmarks/bench_calibration.py calibration.jsonl            # what is not in the file yet, then the tables
    python benchmarks/bench_calibration.py calibration.jsonl --tables   # the tables alone
    python benchmarks/bench_calibration.py compare.jsonl --compare      # more comparisons of methods, in ten minutes
    python benchmarks/bench_calibration.py filters.jsonl --filters      # more scans, by filters alone
    python benchmarks/bench_calibration.py shared.jsonl --shared    # few flats that all views share
    python benchmarks/bench_calibration.py fixed.jsonl --fixed      # filters of fixed strength

Small scans of foams, grains and rods, 48 or 64 columns wide, by methods of each kind, for few steps: what is tried is
not how good the results are but whether their estimates are true.  The truth of a volume is the FBP (Ram-Lak) of the
noise-free views, blurred where the detector blurs; for errors, gains and means of regions it is that of the mean of
many noisy views, because no denoising changes the bias of the logarithm, which a run tells separately; of images, the
images without noise.  Such a mean has noise of its own; squared errors are products of the differences to two of them,
which have no noise in common.  Seconds to a minute and a half for each on a busy core; a study that is stopped goes on
where it was.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.restoration import denoise_tv_chambolle

import quietray
from quietray.assessment.evidence import Evidence
from quietray.assessment.uncertainty import BAND, steps_of_each, trusted
from quietray.assessment.withheld import too_few_views, too_little
from quietray.domains.compare import _object_in, compared
from quietray.domains.volume import VolumeDomain
from quietray.filters import NonLocalMeans, TotalVariation
from quietray.metrics.heldout import HeldOut, held_out_views
from quietray.metrics.image import disc, psnr
from quietray.metrics.spectrum import region_bias
from quietray.running.run import Run
from quietray.simulate.noise import NoiseModel, Poisson, Scintillator
from quietray.training.learn import Recipe, Subject
from quietray.types import Volume

METHODS: dict[str, Any] = {
    "noise2inverse": quietray.Noise2Inverse(slices=3),
    "tv": TotalVariation(),
    "nlm": NonLocalMeans(),
}
IMAGE_METHODS: dict[str, Any] = {"recorrupted": "recorrupted", "noise2void": "noise2void", "tv of images": "tv"}
STEPS = 120
DRAWS = 100


@dataclass(frozen=True)
class Case:
    """One run."""

    kind: str  # volume, images, compare
    thing: str
    method: str
    photons: float
    views: int
    cols: int
    rows: int
    detector: str
    flats: int
    seed: int

    @property
    def name(self) -> str:
        """Its key in the file."""
        return " ".join(str(value) for value in asdict(self).values())


def cases() -> Iterator[Case]:
    """Yield all runs, those of every condition among the first ones."""
    seed = itertools.count()
    rounds = []
    for repeat in range(3):
        each = itertools.product(("foam", "grains", "rods", "filled"), ("white", "correlated"), METHODS)
        for thing, detector, method in each:
            number = next(seed)
            views = (48, 96, 160)[(number + number // 3 + repeat) % 3]
            photons = (100.0, 1000.0)[(number // 2 + number // 5) % 2]
            cols, rows = ((64, 12), (48, 24))[(number // 3 + repeat) % 2]
            flats = 10 if number % 8 == 5 else 200
            rounds.append(Case("volume", thing, method, photons, views, cols, rows, detector, flats, number))
        for thing, detector, method in itertools.product(("foam", "rods"), ("white", "correlated"), IMAGE_METHODS):
            rounds.append(Case("images", thing, method, 100.0, 0, (160, 64, 160)[repeat], 12, detector, 0, next(seed)))
        for thing, detector in (("foam", "white"), ("grains", "correlated")):
            number = next(seed)
            rounds.append(
                Case("compare", thing, "compare", (150.0, 1000.0)[repeat % 2], 96, 48, 12, detector, 200, number)
            )
    yield from rounds


def comparisons() -> Iterator[Case]:
    """Yield more scans on which all methods are compared."""
    for number in range(32):
        thing, detector = ("foam", "grains", "rods", "filled")[number % 4], number + number // 4
        rest = (number // 2 + number // 4) % 2, (number // 4) % 2, (number // 8) % 2
        photons, views, rows = (150.0, 1000.0)[rest[0]], (96, 160)[rest[1]], (12, 24)[rest[2]]
        noise = ("white", "correlated")[detector % 2]
        yield Case("compare", thing, "compare", photons, views, 48, rows, noise, 200, 5000 + number)


def filtered() -> Iterator[Case]:
    """Yield more scans with enough views, half of them of rods and three quarters with correlated noise, by filters."""
    for number in range(64):
        thing = ("rods", "foam", "rods", "grains")[number % 4]
        noise = "white" if number // 4 % 4 == 3 else "correlated"
        views, photons = (96, 160)[number // 4 % 2], (100.0, 1000.0)[number // 8 % 2]
        method = ("tv", "nlm")[number // 2 % 2 ^ number // 16 % 2]
        yield Case("volume", thing, method, photons, views, 48, 24, noise, 200, 6000 + number)


def shared() -> Iterator[Case]:
    """Yield scans with 10 or 40 flats that all views share, without a ring filter."""
    for number in range(36):
        thing, noise = ("foam", "grains", "rods")[number % 3], ("white", "correlated")[number // 3 % 2]
        method = tuple(METHODS)[(number + number // 3) % 3]
        photons, flats = (100.0, 1000.0)[number // 6 % 2], (10, 40)[number // 12 % 2]
        yield Case("shared", thing, method, photons, (96, 160)[number // 2 % 2], 48, 24, noise, flats, 7000 + number)


def fixed() -> Iterator[Case]:
    """Yield scans for a comparison of filters of fixed strength."""
    for number in range(36):
        thing, noise = ("foam", "grains", "rods")[number % 3], ("white", "correlated")[number % 2]
        photons, views, rows = (150.0, 1000.0)[number // 2 % 2], (96, 160)[number // 4 % 2], (12, 24)[number // 8 % 2]
        yield Case("fixed", thing, "fixed", photons, views, 48, rows, noise, 200, 9000 + number)


def phantom(thing: str, cols: int, rows: int, seed: int) -> Volume:
    """Return ``(z, y, x)`` attenuation, a central ray losing about half; with air around, but for ``filled``."""
    rng, fine = np.random.default_rng(seed), 2 * cols
    z, y, x = np.meshgrid(
        np.arange(rows), *2 * [(np.arange(fine) - (fine - 1) / 2) / (fine / 2)], indexing="ij", sparse=True
    )
    z = (z - (rows - 1) / 2) / (cols / 2)
    radius = 1.0 if thing == "filled" else 0.62

    def spheres(number: int, small: float, large: float) -> Iterator[np.ndarray]:
        for _ in range(number):
            r, angle, away = rng.uniform(small, large), rng.uniform(0, 2 * np.pi), radius * np.sqrt(rng.uniform(0, 1))
            centre = (rng.uniform(z.min(), z.max()), away * np.sin(angle), away * np.cos(angle))
            yield sum((axis - c) ** 2 for axis, c in zip((z, y, x), centre, strict=True)) < r**2  # type: ignore[misc]

    volume = np.zeros(np.broadcast_shapes(z.shape, y.shape, x.shape), np.float32)
    if thing in ("foam", "filled"):
        volume[:] = np.hypot(y, x) < radius
        for hole in spheres(int(150 * radius), 0.03, 0.12):
            volume[hole] = 0.0 if thing == "foam" else 0.5
    elif thing == "grains":
        for grain in spheres(90, 0.06, 0.16):
            volume[grain] = rng.uniform(0.5, 1.3)
    else:
        volume[:] = 0.3 * (np.hypot(y, x) < radius)
        for _ in range(12):
            angle, away, r = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, radius - 0.1), rng.uniform(0.03, 0.1)
            rod = np.hypot(y - away * np.sin(angle), x - away * np.cos(angle)) < r
            volume[np.broadcast_to(rod, volume.shape)] = 1.0
    seen = volume.reshape(rows, cols, 2, cols, 2).mean(axis=(2, 4))
    return np.asarray(seen * (0.9 / (radius * cols * max(0.3, float(seen.max()) * 0.6))), np.float32)


def measured(case: Case) -> tuple[quietray.Scan, Volume, Volume]:
    """Return the scan, the FBP of its noise-free views, and the mean of those of many noisy ones.

    The last two differ by the bias of the logarithm, which denoising neither adds nor removes.
    """
    beam = quietray.ParallelBeam(np.linspace(0, np.pi, case.views, endpoint=False), case.rows, case.cols)
    A = quietray.ParallelProjector(beam, beam.grid().with_slices(case.rows))
    light = np.exp(-A(phantom(case.thing, case.cols, case.rows, case.seed))).swapaxes(0, 1)
    detector: NoiseModel = Poisson()
    if case.detector == "correlated":
        detector = Scintillator(response_width=0.5)
    rng, open_beam = (
        np.random.default_rng(case.seed + 1000),
        np.full((case.flats, *light.shape[1:]), case.photons, np.float32),
    )
    counts, flats = (detector.sample(seen, rng) for seen in ((case.photons * light).astype(np.float32), open_beam))
    seen, flat = (detector.mean(one) for one in ((case.photons * light).astype(np.float32), open_beam[:1]))
    lines = np.ascontiguousarray(-np.log(seen / flat).swapaxes(0, 1), np.float32)
    scan = quietray.Scan(counts, beam, flats, np.zeros_like(open_beam[:2]))
    means = np.zeros((2, *light.shape))
    for number in range(DRAWS):
        drawn = detector.sample((case.photons * light).astype(np.float32), rng)
        means[number % 2] -= np.log(np.maximum(drawn, 1.0) / flat) / (DRAWS / 2)
    expected = [quietray.FBP()(A, np.ascontiguousarray(mean.swapaxes(0, 1), np.float32)) for mean in means]
    return scan, quietray.FBP()(A, lines), np.stack(expected)


def squared(volume: Volume, expected: np.ndarray) -> Volume:
    """Return the squared error of each voxel, free of the noise of either truth on average."""
    return (volume - expected[0]) * (volume - expected[1])


def settings_of(case: Case, method: Any) -> quietray.Settings:
    """Return the settings of a short run."""
    training = quietray.Training(steps=STEPS, batch=1, learning_rate=4e-3, judgements=4, precision="fp32")
    return quietray.Settings(
        seed=case.seed,
        symmetries=1,
        method=method,
        network=quietray.UNet((12, 24)),
        training=training,
        rotation_axis=(case.cols - 1) / 2 if case.views else None,
        trust=0.5 if case.method == "noise2inverse" else 0.0,
        correction=quietray.Correction(rings="none", own_flats=False)
        if case.kind == "shared"
        else quietray.Correction(),
        whiten="never" if case.views else "auto",
    )


def told(evidence: Evidence, few: str | None, noisy: float, clean: float) -> dict[str, Any]:
    """Return a gain and its interval as they are told and as they were estimated, and the true gain, in dB."""
    low, high = evidence.gain_interval
    point = float("nan") if few or too_little(evidence.gain, (low, high)) else evidence.gain
    found = {"gain": point, "low": float("nan") if few else low, "high": high, "true": 10 * math.log10(noisy / clean)}
    found |= {"estimated gain": evidence.gain, "estimated low": low}
    return {"few": bool(few)} | {name: float(value) if np.isfinite(value) else None for name, value in found.items()}


def of_volume(case: Case) -> dict[str, Any]:
    """Run one method on a scan."""
    scan, truth, expected = measured(case)
    run = Run.in_memory(settings_of(case, METHODS[case.method]))
    start = VolumeDomain.prepare(run, [scan], VolumeDomain.bound(run, [scan]))
    denoiser, fitted = start.learn()
    evidence, weight = start.judge(denoiser), start.prepared.weight
    halves, trust, found = start.halves(denoiser), None, {}
    if run.settings.trust:
        training = replace(run.settings.training, steps=steps_of_each(fitted, run.settings.trust))
        recipe = replace(Recipe.of(run, start.facts).as_begun(denoiser), training=training)
        subject = Subject(denoiser.scale, truth.shape, denoiser.tile)
        trust = trusted(start.data, denoiser, recipe, subject, run).beside(evidence.common)
    held = list(start.data.held_out_rows)
    parts = start.measured()
    clean, noisy = denoiser.slab(parts, 0, case.rows), parts.mean(axis=0)
    inside = np.broadcast_to(weight > 0, clean.shape)
    errors = [squared(one, expected) for one in (noisy, clean)]
    few = too_few_views(float(case.views), case.cols)
    for name, rows in (("field of view", slice(None)), ("field of view, held-out rows", held)):
        found[name] = told(evidence, few, *(float(error[rows][inside[rows]].mean()) for error in errors))
    if evidence.inside is not None and evidence.mask is not None:
        where = np.stack([evidence.mask.of(one, weight) for one in clean])
        found["object share"] = float(where.sum() / inside.sum())
        few = too_few_views(float(case.views), case.cols, found["object share"])
        for name, rows in (("object", slice(None)), ("object, held-out rows", held)):
            found[name] = told(evidence.inside, few, *(float(error[rows][where[rows]].mean()) for error in errors))
    found["regions"] = [
        {"bias": one.bias, "error": one.error, "true": other.bias}
        for one, other in zip(
            *(
                region_bias(halves.clean, seen, halves.after, halves.weight > 0, classes=2, common=halves.common)
                for seen in (halves.before, np.stack(2 * [expected.mean(axis=0)[held]]))
            ),
            strict=True,
        )
    ]
    found["correlation"], found["parts"] = evidence.correlation, start.split.n_parts
    figures = halves.figures(None, evidence.mask)
    found["resolution"] = {k: v for k, v in (figures["resolution"] or {}).items() if k != "curve"}
    if trust is not None:
        sd = trust.sd(parts, clean, 0)
        slope = np.stack([ndimage.gaussian_gradient_magnitude(one, 1.0) for one in truth])
        fine = np.abs(truth - np.stack([ndimage.gaussian_filter(one, 3.0) for one in truth]))
        off = np.abs(clean - truth) / sd
        places = {
            "all": inside,
            "edges": inside & (slope > np.quantile(slope[inside], 0.9)),
            "details": inside & (fine > np.quantile(fine[inside], 0.95)),
        } | ({} if evidence.mask is None else {"object": where})
        found["trust"] = {name: float((off[place] < BAND).mean()) for name, place in places.items()}
        found["trust"]["few"] = found["field of view"]["few"]
        found["trust needs"] = {name: float(np.quantile(off[place], 0.9)) for name, place in places.items()}
        found["trust rms"] = {name: float(np.sqrt(np.square(off[place]).mean())) for name, place in places.items()}
    return found


def of_images(case: Case) -> dict[str, Any]:
    """Denoise noisy images, which nothing is reconstructed from."""
    truth = phantom(case.thing, case.cols, case.rows, case.seed)
    truth = (truth * (1000 / truth.max()) - 1000).astype(np.float32)
    noise = np.random.default_rng(case.seed).normal(0, 1, truth.shape)
    if case.detector == "correlated":
        noise = ndimage.gaussian_filter(noise, (0, 0.7, 0.7), mode="wrap")
    noisy = (truth + 150 * noise / noise.std()).astype(np.float32)
    series = quietray.ImageSeries(noisy, None, "images", unit="HU")
    result = quietray.denoise(series, settings=settings_of(case, IMAGE_METHODS[case.method]))
    estimate, clean = result.metrics["estimate"], np.asarray(result.volume)
    errors = [np.square(one - truth) for one in (noisy, clean)]

    held = [case.rows // 2] if case.method != "noise2void" else list(range(case.rows))

    def beside(figures: Any, where: np.ndarray) -> dict[str, float | None]:
        before, after = (float(error[where].mean()) for error in errors)
        ends = {"gain": "psnr_gain_db", "low": "psnr_gain_db_at_least", "high": "psnr_gain_db_at_most"}
        return {**{name: figures[key] for name, key in ends.items()}, "true": psnr(after, 1.0) - psnr(before, 1.0)}

    def on_held_out(where: np.ndarray) -> np.ndarray:
        return where & np.isin(np.arange(case.rows), held)[:, None, None]

    everywhere = np.ones(truth.shape, bool)
    found: dict[str, Any] = {"field of view": beside(estimate, everywhere)}
    found["field of view, held-out rows"] = beside(estimate, on_held_out(everywhere))
    if "object" in estimate and result.gathered is not None:
        from quietray.metrics.surroundings import ObjectMask

        everything = np.ones(truth.shape[1:], np.float32)
        mask = ObjectMask.found(clean, everything, -1000.0)
        assert mask is not None
        where = np.stack([mask.of(one, everything) for one in clean])
        found["object"] = beside(estimate["object"], where)
        found["object, held-out rows"] = beside(estimate["object"], on_held_out(where))
    return found


def of_comparison(case: Case) -> dict[str, Any]:
    """Compare all methods on a scan."""
    scan, _, truth = measured(case)
    settings = replace(settings_of(case, quietray.Noise2Inverse()), trust=0.0)
    settings = replace(settings, training=replace(settings.training, steps=30))
    comparison, _ = compared(scan, Run.in_memory(settings), case.rows, 15.0)
    y, x = np.mgrid[: case.cols, : case.cols] - (case.cols - 1) / 2
    inside = np.hypot(y, x) <= 0.97 * case.cols / 2
    if comparison.inside is not None:
        inside = comparison.inside
    errors = {one.name: float(squared(one.volume, truth)[:, inside].mean()) for one in comparison.standings}
    best = comparison.standings[0].name
    rows = [
        {
            "method": one.name,
            "error": one.error,
            "low": one.interval[0],
            "high": one.interval[1],
            "true": errors[one.name],
            "behind": [float(end) for end in one.behind],
            "truly behind": errors[one.name] - errors[best],
        }
        for one in comparison.standings
    ]
    told = {"recommended": comparison.recommended, "domain": comparison.domain, "withheld": comparison.withheld}
    return {"methods": rows, **told}


def of_fixed(case: Case) -> dict[str, Any]:
    """Compare a raw reconstruction and filters of fixed strength by held-out views."""
    scan, _, truth = measured(case)
    beam, flat = scan.geometry, np.asarray(scan.flats).mean(axis=0)
    lines = -np.log(np.maximum(scan.read(slice(None)), 0.5) / flat).swapaxes(0, 1).astype(np.float32)
    used, held = held_out_views(beam, 0.2)
    A = quietray.ParallelProjector(beam[used], beam.grid().with_slices(case.rows))
    raw = quietray.FBP()(A, np.ascontiguousarray(lines[:, used]))
    weight = 1.5 * float(np.std(raw - ndimage.gaussian_filter(raw, 1)))
    volumes = {
        "fbp": raw,
        "gaussian 0.8": ndimage.gaussian_filter(raw, (0.5, 0.8, 0.8)),
        "gaussian 1.5": ndimage.gaussian_filter(raw, (1, 1.5, 1.5)),
        "median": ndimage.median_filter(raw, 3),
        "tv": denoise_tv_chambolle(raw, weight).astype(np.float32),
    }
    volumes = {name: volume * disc(case.cols, case.cols) for name, volume in volumes.items()}
    inside = _object_in(volumes)
    found = HeldOut(lines, beam, held, inside=inside).judge(volumes)
    mask = disc(case.cols, case.cols, 0.97) & (True if inside is None else inside)
    true = {name: float(squared(volume, truth)[:, mask].mean()) for name, volume in volumes.items()}
    rows = []
    for name, error in found.errors.items():
        (low, high), behind = found.interval(name), [0.0, 0.0] if name == "tv" else found.difference(name, "tv")[1:]
        ends = {"low": low, "high": high, "behind": list(behind)}
        rows.append(
            {"method": name, "error": error, **ends, "true": true[name], "truly behind": true[name] - true["tv"]}
        )
    return {"methods": rows}


RUNS: dict[str, Callable[[Case], dict[str, Any]]] = {
    "volume": of_volume,
    "shared": of_volume,
    "images": of_images,
    "compare": of_comparison,
    "fixed": of_fixed,
}


def covered(entries: Iterable[dict[str, Any]]) -> tuple[int, int, int, float, int]:
    """Return the number of gains and of those in their interval; of single figures, their mean error, and those near.

    Near is within 0.7 dB.
    """
    rows = list(entries)
    inside = [
        (one["low"] is None or one["low"] <= one["true"]) and (one["high"] is None or one["true"] <= one["high"])
        for one in rows
    ]
    off = np.array([one["gain"] - one["true"] for one in rows if one["gain"] is not None])
    return len(rows), sum(inside), len(off), float(off.mean()) if off.size else np.nan, int((np.abs(off) <= 0.7).sum())


def _cell(entries: list[dict[str, Any]], few: bool = False) -> str:
    """Return a cell of a table of gains, of those for which there were too few views, or of the others."""
    some = [one for one in entries if one.get("few", False) == few]
    if not some:
        return "-"
    n, inside, points, bias, near = covered(some)
    off = [one["estimated gain"] - one["true"] for one in some if one.get("estimated gain") is not None]
    estimated = f"; {np.mean(off):+.2f}" if off else ""
    return f"{n}: {inside}; {points}" + (f": {bias:+.2f}, {near}" if points else "") + estimated


def tables(records: list[dict[str, Any]]) -> None:
    """Print coverage by condition."""
    volumes = [one for one in records if one["case"]["kind"] in ("volume", "shared")]
    keys = ("method", "thing", "detector", "photons", "views", "cols", "flats")
    places = ("object", "field of view")
    groups: list[tuple[str, bool, list[dict[str, Any]]]] = [("enough views", False, volumes)]
    groups.append(("too few views", True, volumes))
    for key in keys:
        for value in sorted({one["case"][key] for one in volumes}, key=str):
            groups.append((f"{key} {value}", False, [one for one in volumes if one["case"][key] == value]))
    print(f"\n{len(records)} runs, {len(volumes)} of them on scans.  Gains: runs, intervals that contain the truth;")
    print("single figures, their mean error (dB), those within 0.7 dB; mean error of what was estimated (dB).")
    print("\n| condition | " + " | ".join(places) + " |\n|---|" + "---|" * len(places))
    for name, few, some in groups:
        cells = [_cell([one["found"][place] for one in some if place in one["found"]], few) for place in places]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(
        "\nRegion means: intervals, and how many contain the truth.  Trust: maps, and the share of voxels in the band."
    )
    print("\n| condition | region means | trust: all, object, edges, details |\n|---|---|---|")
    for name, few, some in groups:
        some = (
            some
            if name not in ("enough views", "too few views")
            else [one for one in some if one["found"]["field of view"]["few"] == few]
        )
        means = [
            abs(one["bias"] - one["true"]) < BAND * one["error"] for each in some for one in each["found"]["regions"]
        ]
        maps = [each["found"]["trust"] for each in some if each["found"].get("trust")]
        maps = [one for one in maps if few or not one.get("few")]
        told_of = {key: [one[key] for one in maps if key in one] for key in ("all", "object", "edges", "details")}
        shares = ", ".join(f"{100 * np.mean(one):.0f}" if one else "-" for one in told_of.values())
        print(f"| {name} | {len(means)}: {sum(means)} | {len(maps)}: {shares} |")
    images = [one for one in records if one["case"]["kind"] == "images"]
    print("\n| images | field of view | object |\n|---|---|---|")
    for method in IMAGE_METHODS:
        for detector in ("white", "correlated"):
            some = [
                one["found"] for one in images if (one["case"]["method"], one["case"]["detector"]) == (method, detector)
            ]
            cells = []
            for place in ("field of view", "object"):
                cells.append(_cell([one[place] for one in some if place in one]))
            print(f"| {method}, {detector} noise | " + " | ".join(cells) + " |")
    _comparisons([one for one in records if one["case"]["kind"] in ("compare", "fixed")])


def _comparisons(records: list[dict[str, Any]]) -> None:
    """Print how many errors and differences between methods are in their intervals, by condition."""
    rows = [(one, row) for one in records for row in one["found"]["methods"]]
    groups: list[tuple[str, list[tuple[dict[str, Any], dict[str, Any]]]]] = [("all", rows)]
    for key in ("thing", "detector", "photons", "views", "rows"):
        for value in sorted({one["case"][key] for one in records}, key=str):
            groups.append((f"{key} {value}", [(one, row) for one, row in rows if one["case"][key] == value]))
    for name in sorted({row["method"] for _, row in rows}):
        groups.append((name, [(one, row) for one, row in rows if row["method"] == name]))
    print("\nCompare: scans; errors told, those in their interval, mean error (dB); differences to the best, those in")
    print("their interval; methods called clearly behind, and those that are not behind.")
    print("\n| condition | scans | errors | differences | clearly behind |\n|---|---|---|---|---|")
    for name, some in groups:
        told = [row for one, row in some if not one["found"].get("withheld")]
        inside = sum(row["low"] <= row["true"] <= row["high"] for row in told)
        off = np.mean([10 * np.log10(row["true"] / max(row["error"], 1e-12)) for row in told]) if told else np.nan
        apart = [row for _, row in some if row["behind"] != [0.0, 0.0]]
        known = sum(row["behind"][0] <= row["truly behind"] <= row["behind"][1] for row in apart)
        clear = [row for row in apart if row["behind"][0] > 0]
        false = sum(row["truly behind"] < 0 for row in clear)
        scans = len({one["name"] for one, _ in some})
        errors = f"{len(told)}: {inside}; {off:+.2f}" if told else "-"
        print(f"| {name} | {scans} | {errors} | {len(apart)}: {known} | {len(clear)}: {false} |")


def main() -> None:
    """Run what is missing, one JSON line each, and print the tables."""
    place = Path(sys.argv[1] if len(sys.argv) > 1 else "calibration.jsonl")
    records = [json.loads(line) for line in place.read_text().splitlines()] if place.exists() else []
    done = {one["name"] for one in records}
    only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else ""
    studies = {"--compare": comparisons, "--filters": filtered, "--shared": shared, "--fixed": fixed}
    chosen = next((study for flag, study in studies.items() if flag in sys.argv), cases)
    for case in chosen():
        if "--tables" in sys.argv or case.name in done or only not in case.kind:
            continue
        begun = time.monotonic()
        record = {"name": case.name, "case": asdict(case), "found": RUNS[case.kind](case)}
        record["seconds"] = time.monotonic() - begun
        records.append(record)
        with place.open("a") as file:
            file.write(json.dumps(record) + "\n")
    tables(records)


if __name__ == "__main__":
    main()
