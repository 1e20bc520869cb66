"""Noise2Inverse as in Hendriksen's talk of 2021 and the papers behind it, with quietray's own interface.

    python experiments/hendriksen.py --scale small            # pieces a to d and f, then the page
    python experiments/hendriksen.py --scale small --only e   # the setting of the paper, on a slab
    python experiments/hendriksen.py --scale full             # for a GPU

a  static foam: recipes, filters, the variational rival, the three orders, photons and absorption
b  dynamic foam: interlaced angles, neighbours in time
c  XRD-CT: 3 slices, 11 channels
d  angles against exposure at constant dose
e  100 000 spheres, 1024 angles, 10 photons, 512 x 512 slices
f  few flats, shared by the subsets or dealt to them

A stopped run goes on where it stopped.  PSNR is against the FBP (Ram-Lak) of noise-free views: `psnr` over a disc of
0.97 half-widths with the range inside it, `psnr_whole` as in the reference code, over all pixels with their range.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hendriksen_page import write_page
from hendriksen_scans import (
    FLAT_SCANS,
    MORE,
    N_CHANNELS,
    SIZES,
    TIMES,
    Measured,
    Size,
    beam_of,
    foam_of,
    half_turn,
    ideal_lines,
    interlaced,
    judged,
    own_beam,
    own_slab,
    patterns,
    phases,
    sinograms_of,
)
from tables import Notebook

import quietray
from quietray import FBP, Correction, Foam, Noise2Inverse, Noise2Self, ParallelBeam, ParallelProjector, Scan
from quietray.filters import FILTERS, TotalVariation
from quietray.inference.denoiser import Denoiser, Scale
from quietray.operators.sparse import many_slices
from quietray.reconstruct import TV
from quietray.reconstruct.choose import chosen
from quietray.running.precision import precision
from quietray.running.run import Run
from quietray.running.settings import Training
from quietray.splits import Noise2Clean
from quietray.splits.base import Split
from quietray.training.batches import TrainingVolume
from quietray.training.learn import Subject, tuned
from quietray.training.loop import fit
from quietray.types import Parts, Radiographs, Sinograms, Volume
from quietray.workflows import Settings

FEW_FLATS = 4  # one for each of four subsets

RECIPES = {
    "Noise2Inverse K=4 X:1": Noise2Inverse(slices=1),
    "Noise2Inverse K=4 1:X": Noise2Inverse(slices=1, input="1:X"),
    "Noise2Inverse K=2": Noise2Inverse(2, slices=1),
    "Noise2Inverse K=8 X:1": Noise2Inverse(8, slices=1),
    "Noise2Inverse K=4 X:1, 2.5-D": Noise2Inverse(),
    "Noise2Self on radiographs, then FBP": Noise2Self(),
    "Noise2Clean": Noise2Clean(slices=1),
}


def settings_of(size: Size, method: Any, network: Any = None, rate: float = 2e-3, line: bool = False) -> Settings:
    """Return the settings of a run: so many steps, no average over symmetries."""
    return Settings(
        method=method,
        network=network or size.unet,
        symmetries=1,
        correction=Correction(line_integrals=line),
        training=Training(size.steps, size.batch, size.patch, rate, patience=1.0),
    )


def tv(sinograms: Sinograms, beam: ParallelBeam) -> tuple[Volume, float]:
    """Return the reconstruction of least total variation, and its weight, chosen on held-out views."""
    beam = beam.rows(len(sinograms))
    best = chosen(TV(), lambda views: many_slices(ParallelProjector(beam[views])), sinograms)
    assert isinstance(best, TV)
    assert best.weight is not None
    return best(many_slices(ParallelProjector(beam)), sinograms), best.weight


def tv_row(here: Measured, n_rows: int) -> tuple[dict[str, Any], np.ndarray]:
    """Return the row of total variation in the middle rows, of all of which there may be too many for it."""
    n_rows = min(n_rows, here.scan.n_rows)
    first = (here.scan.n_rows - n_rows) // 2
    some = slice(first, first + n_rows)
    volume, weight = tv(here.sinograms[some], here.beam)
    return judged(volume, here.clean[some]) | {"weight": weight, "rows": n_rows}, volume[n_rows // 2]


def tv_by_truth(here: Measured, n_rows: int, weight: float) -> tuple[dict[str, Any], np.ndarray]:
    """Return the best row of total variation with weights from that one on, told by the truth: what it could do."""
    n_rows = min(n_rows, here.scan.n_rows)
    first = (here.scan.n_rows - n_rows) // 2
    some, A = slice(first, first + n_rows), many_slices(ParallelProjector(here.beam.rows(n_rows)))
    y = np.ascontiguousarray(here.sinograms[some])
    tried = []
    for factor in (2**0.5, 2.0, 2 * 2**0.5):
        volume = TV(factor * weight)(A, y)
        found = judged(volume, here.clean[some]) | {"weight": factor * weight, "rows": n_rows}
        tried.append((found, volume[n_rows // 2]))
    return max(tried, key=lambda each: each[0]["psnr"])


def trained(
    parts: Parts, split: Split, network: Any, training: Training, symmetries: int = 1, checkpoint: Path | None = None
) -> Volume:
    """Return all slices of parts, denoised by a network that was trained on them."""
    weight = np.ones(parts.shape[2:], np.float32)
    scale = Scale.of(parts.mean(axis=0), weight)
    data = TrainingVolume.with_held_out(scale.apply(parts.copy()), split, weight)
    fitted = fit(split, lambda: network.build(split.n_slices), data, training, checkpoint=checkpoint)
    arithmetic = precision(training.precision)
    denoiser = Denoiser(fitted.network, network, split, scale, symmetries, arithmetic)  # type: ignore[arg-type]
    return denoiser.slab(parts, 0, parts.shape[1])


def static(size: Size, note: Notebook) -> None:
    """Piece a."""
    foam = foam_of(size)
    here = Measured.of(foam, beam_of(size, half_turn(size.views)), size.photons)

    def add(name: str, told: Settings) -> None:
        def work() -> tuple[dict[str, Any], np.ndarray]:
            result = quietray.denoise(here.scan, None, told)
            return here.row(np.asarray(result.volume), estimated=result.metrics["estimate"]["psnr_db"])

        note.row(name, work)

    note.row("noise-free views, FBP", lambda: ({}, here.clean[size.rows // 2]))
    note.row("FBP", lambda: here.row(here.fbp()))
    for name, kind in FILTERS.items():
        add(f"filter: {name}", settings_of(size, kind()))
    chosen_weight = note.row("TV", lambda: tv_row(here, size.tv_rows))["weight"]
    note.row("TV, weight by the truth", lambda: tv_by_truth(here, size.tv_rows, chosen_weight))
    for name, method in RECIPES.items():
        add(name, settings_of(size, method))
    add("Noise2Inverse K=4 X:1, MS-D", settings_of(size, Noise2Inverse(slices=1), size.msd, 1e-3))
    for name, factor in (("", 1.0), (", a quarter of the steps", 0.25), (MORE, 4.0)):
        other = dataclasses.replace(size, steps=max(1, int(factor * size.steps)))
        training = settings_of(other, Noise2Self()).training
        if factor != 1:
            add(f"Noise2Inverse K=4 X:1{name}", settings_of(other, Noise2Inverse(slices=1)))
        if factor > 1:
            add(f"Noise2Self on radiographs, then FBP{name}", settings_of(other, Noise2Self()))
        if factor >= 1:
            note.row(
                f"FBP, then Noise2Self on slices{name}",
                lambda training=training: here.row(trained(here.fbp()[None], Noise2Self(), size.unet, training)),
            )
    for photons, absorption in ((10.0, 0.5), (1000.0, 0.5), (size.photons, 0.1), (size.photons, 0.9)):
        level(size, note, foam, photons, absorption)


def level(size: Size, note: Notebook, foam: Foam, photons: float, absorption: float) -> None:
    """Add FBP, TV and Noise2Inverse at another exposure or absorption; TV only at another exposure."""
    here = Measured.of(foam, beam_of(size, half_turn(size.views)), photons, absorption)
    about = f"{photons:g} photons, {absorption:.0%}"
    note.row(f"{about}: FBP", lambda: here.row(here.fbp()))
    if photons != size.photons:
        note.row(f"{about}: TV", lambda: tv_row(here, size.tv_rows))
    told = settings_of(size, Noise2Inverse(slices=1))
    note.row(f"{about}: Noise2Inverse", lambda: here.row(np.asarray(quietray.denoise(here.scan, None, told).volume)))


def dynamic(size: Size, note: Notebook, growth: float = 0.2) -> None:
    """Piece b: voids that grow; each step is compared with what all its views, without noise, would give."""
    foam, steps = foam_of(size), []
    for k, angles in enumerate(interlaced(size)):
        share = np.array([1, 1, 1, 1 - growth * (size.time_steps - 1 - k) / (size.time_steps - 1)])
        grown = dataclasses.replace(foam, spheres=foam.spheres * share)
        whole = beam_of(size, half_turn(size.views))
        step = Measured.of(grown, beam_of(size, angles), size.photons, seed=k)
        ideal = FBP()(ParallelProjector(whole), sinograms_of(ideal_lines(grown, whole)))
        steps.append(dataclasses.replace(step, clean=ideal))
    middle = len(steps) // 2

    def row(volumes: list[Volume]) -> tuple[dict[str, Any], np.ndarray]:
        each = [judged(v, step.clean) for v, step in zip(volumes, steps, strict=True)]
        return mean_of(each) | {"psnr_middle": each[middle]["psnr"]}, volumes[middle][size.rows // 2]

    note.row("noise-free views, FBP", lambda: ({}, steps[middle].clean[size.rows // 2]))
    noisy = [step.fbp() for step in steps]
    note.row("FBP", lambda: row(noisy))
    around = [noisy[max(k - 1, 0) : k + 2] for k in range(len(steps))]
    note.row("FBP of 3 steps together", lambda: row([np.mean(some, axis=0) for some in around]))
    note.row("TV, the middle step", lambda: tv_row(steps[middle], size.tv_rows))
    scans = [step.scan for step in steps]
    for times in (1, 3, 5):
        told = settings_of(size, Noise2Inverse(2, slices=1, times=times))
        if times <= size.time_steps:
            note.row(
                f"Noise2Inverse, {times} steps",
                lambda told=told: row(list(quietray.denoise(scans[0], None, told, series=scans[1:]).volume)),
            )


def mean_of(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Return the mean of every figure."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def diffraction(size: Size, note: Notebook) -> None:
    """Piece c: every channel is a tomogram of line integrals, measured by counting."""
    foam, beam = foam_of(size, seed=1), beam_of(size, half_turn(size.spectral_views), rows=3)
    paths = phases(foam, beam)
    lines = np.einsum("cp,pvrx->cvrx", patterns(), paths).astype(np.float32)
    clean = [FBP()(ParallelProjector(beam), sinograms_of(channel)) for channel in lines]
    counts = np.float32(200.0 / lines.mean())  # in the mean pixel in the full time
    shown = patterns()[:, 1].argmax()  # a channel in which the first grains are brightest

    def row(volumes: list[Volume]) -> tuple[dict[str, Any], np.ndarray]:
        return mean_of([judged(v, c) for v, c in zip(volumes, clean, strict=True)]), volumes[shown][1]

    note.row("noise-free, FBP", lambda: ({}, clean[shown][1]))
    for time in TIMES:
        rng = np.random.default_rng(round(100 * time))
        noisy = [(rng.poisson(time * counts * c) / (time * counts)).astype(np.float32) for c in lines]
        scans = [Scan(channel, beam, source=f"channel {k}") for k, channel in enumerate(noisy)]
        note.row(f"{time:.0%}: FBP", lambda n=noisy: row([FBP()(ParallelProjector(beam), sinograms_of(c)) for c in n]))
        note.row(f"{time:.0%}: TV", lambda n=noisy: row(tv_of_channels(n, beam, shown)))
        for name, method in (
            ("each channel alone", Noise2Inverse(slices=1)),
            ("all channels", Noise2Inverse(slices=1, channels=N_CHANNELS)),
        ):
            told = settings_of(size, method, line=True)
            note.row(
                f"{time:.0%}: Noise2Inverse, {name}",
                lambda s=scans, t=told: row(list(quietray.denoise(s[0], None, t, series=s[1:]).volume)),
            )


def tv_of_channels(channels: list[Radiographs], beam: ParallelBeam, best: int) -> list[Volume]:
    """Return every channel's reconstruction of least total variation, all with the weight chosen for channel `best`."""
    _, weight = tv(sinograms_of(channels[best]), beam)
    stacked = np.concatenate([sinograms_of(channel) for channel in channels])
    volumes = TV(weight)(many_slices(ParallelProjector(beam.rows(len(stacked)))), stacked)
    return np.split(np.asarray(volumes), len(channels))


def dose(size: Size, note: Notebook) -> None:
    """Piece d: the same photons in all, dealt to few views or to many; one reference for all."""
    foam, whole = foam_of(size), beam_of(size, half_turn(2 * size.views))
    clean = FBP()(ParallelProjector(whole), sinograms_of(ideal_lines(foam, whole)))
    note.row("noise-free views, FBP", lambda: ({}, clean[size.rows // 2]))
    for factor in (0.25, 0.5, 1.0, 2.0):
        views, photons = int(size.views * factor), size.photons / factor
        here = Measured.of(foam, beam_of(size, half_turn(views)), photons)
        here = dataclasses.replace(here, clean=clean)
        told = settings_of(size, Noise2Inverse(2, slices=1))
        facts = {"views": views, "photons": photons}
        note.row(f"{views} views: FBP", lambda h=here, f=facts: h.row(h.fbp(), **f))
        note.row(
            f"{views} views: Noise2Inverse",
            lambda h=here, f=facts, t=told: h.row(np.asarray(quietray.denoise(h.scan, None, t).volume), **f),
        )


def flats(size: Size, note: Notebook) -> None:
    """Piece f: few flats, shared by the subsets or dealt to them; means over scans of other noise."""
    foam, beam = foam_of(size), beam_of(size, half_turn(size.views))
    scans = [Measured.of(foam, beam, size.photons, seed=seed) for seed in range(FLAT_SCANS)]

    def row(own: bool) -> tuple[dict[str, Any], np.ndarray]:
        told = dataclasses.replace(
            settings_of(size, Noise2Inverse(slices=1)), correction=Correction(own_flats=own, rings="none")
        )
        volumes = []
        for seed, here in enumerate(scans):
            scan = dataclasses.replace(here.scan, flats=np.asarray(here.scan.flats)[:FEW_FLATS])
            volumes.append(np.asarray(quietray.denoise(scan, None, told, seed=seed).volume))
        found = mean_of([judged(volume, here.clean) for volume, here in zip(volumes, scans, strict=True)])
        return found, volumes[0][size.rows // 2]

    note.row("noise-free views, FBP", lambda: ({}, scans[0].clean[size.rows // 2]))
    for name, own in (("shared", False), ("their own", True)):
        note.row(f"{FEW_FLATS} flats, {name}: Noise2Inverse", lambda own=own: row(own))


def own_setting(size: Size, note: Notebook) -> None:
    """Piece e."""
    own = size.own
    slab = own_slab(own, note.folder)
    parts, clean = slab["parts"], slab["clean"]

    def row(volume: Volume) -> tuple[dict[str, Any], np.ndarray]:
        return judged(volume, clean), volume[len(volume) // 2]

    note.row("noise-free views, FBP", lambda: ({}, clean[len(clean) // 2]))
    note.row("FBP", lambda: row(parts.mean(axis=0)))
    training = Training(own.steps, own.batch, own.patch, patience=1.0, judgements=5)
    kept = note.folder / "e-2.5-D.safetensors"
    note.row(
        "Noise2Inverse, 2.5-D",
        lambda: row(trained(parts, Noise2Inverse(), own.unet, training, own.symmetries, kept)),
    )
    note.row("filter: total-variation", lambda: row(filtered(parts)))


def filtered(parts: Parts) -> Volume:
    """Return the slices after a filter of total variation, tuned without the truth."""
    weight = np.ones(parts.shape[2:], np.float32)
    split, scale = Noise2Inverse(slices=1), Scale.of(parts.mean(axis=0), weight)
    data = TrainingVolume.with_held_out(scale.apply(parts.copy()), split, weight)
    subject = Subject(scale, parts.shape[1:], 1024)
    denoiser, _ = tuned(data, split, TotalVariation(), subject, Run.in_memory(Settings()))
    return denoiser.slab(parts, 0, parts.shape[1])


def own_tv(size: Size, note: Notebook) -> None:
    """Piece t: total variation in the setting of e, on one slice; the weight is chosen with eight views as one.

    Eight neighbouring views as one have an eighth of the squared residuals, so that the weight counts eight times
    with all of them.
    """
    own = size.own
    slab = own_slab(own, note.folder)
    (beam, region), together = own_beam(own), 8
    beam = beam.rows(1)

    def work() -> tuple[dict[str, Any], np.ndarray]:
        angles = beam.angles.reshape(-1, together).mean(axis=1)
        y = slab["sinograms"].reshape(1, -1, together, beam.n_cols).mean(axis=2)
        few = dataclasses.replace(beam, angles=angles)
        found = chosen(TV(iterations=15), lambda views: ParallelProjector(few[views], few.grid(region)), y)
        assert isinstance(found, TV)
        assert found.weight is not None
        start = TV(found.weight, 30)(ParallelProjector(few, few.grid(region)), y)
        whole = ParallelProjector(beam, beam.grid(region))
        volume = TV(together * found.weight, own.iterations)(whole, slab["sinograms"], start=start)
        return judged(volume, slab["clean"][:1]) | {"weight": together * found.weight}, volume[0]

    note.row("TV, one slice", work)


PIECES: dict[str, Callable[[Size, Notebook], None]] = {
    "a": static,
    "b": dynamic,
    "c": diffraction,
    "d": dose,
    "e": own_setting,
    "f": flats,
    "t": own_tv,
}


def main(arguments: list[str] | None = None) -> None:
    """Run the pieces that were asked for and write the page."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--scale", choices=list(SIZES), default="small")
    flags.add_argument("--only", help="pieces, such as a,b; a to d and f by default, and all of them at full scale")
    flags.add_argument("--out", type=Path, default=Path("out/hendriksen"), help="folder of figures and slices")
    flags.add_argument("--docs", type=Path, help="folder that the page is written to; docs at small scale")
    asked = flags.parse_args(arguments)
    chosen_pieces = (asked.only or ("a,b,c,d,e,f,t" if asked.scale == "full" else "a,b,c,d,f")).split(",")
    if unknown := set(chosen_pieces) - set(PIECES):
        flags.error(f"pieces must be some of {', '.join(PIECES)}, got {', '.join(sorted(unknown))}")
    size = SIZES[asked.scale]
    docs = asked.docs or (Path("docs") if asked.scale == "small" else asked.out)
    notes = {piece: Notebook(asked.out, piece, asked.scale) for piece in PIECES}
    for piece in chosen_pieces:
        PIECES[piece](size, notes[piece])
        print(f"wrote {write_page(docs, notes, asked.scale, size)}", flush=True)


if __name__ == "__main__":
    main()
