"""Train the prior that is shipped: what any network must know before it sees a scan.

    python experiments/prior.py --out out/prior [--minutes 60 | --steps N] [--target clean|noisy] [--seed 0]

Every volume is simulated from a seed: an object of a random kind (quietray.simulate.objects), its line integrals, a
detector and a dose, and the reconstructions of its angular subsets.  A pool of volumes is renewed one by one while the
network learns from it, so that nothing is on disk and nothing is seen often.  The state is saved at every judgement;
`--pack` turns the averaged weights of any moment into the file and the card that are shipped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import quietray
from quietray.checkpoint import load_tensors
from quietray.geometry import ParallelBeam
from quietray.inference.denoiser import Scale
from quietray.metrics.noreference import Judgement, averaged
from quietray.networks import UNet
from quietray.operators.nufft import ParallelRays
from quietray.reconstruct import FBP
from quietray.running.settings import Training
from quietray.simulate.acquire import attenuation_for
from quietray.simulate.noise import Scintillator
from quietray.simulate.objects import KINDS, random_object
from quietray.splits import Noise2Inverse
from quietray.splits.base import Network, Pair
from quietray.training.loop import Progress, fit
from quietray.training.start import Known, save_prior, shipped_prior
from quietray.types import Parts, Samples, Volume

ROWS, POOL, EVERY, JUDGED = 12, 48, 150, 20  # slices, volumes at a time, steps after which one is renewed, held out
FEWEST = 0.2  # views of a subset per column, as Noise2Inverse.on_scan has it
LAST = 2**40  # seeds from here on are held out
VERSION = 1
PRIORS = Path(quietray.__file__).parent / "training" / "priors"


@dataclass(frozen=True)
class Measured:
    """A simulated scan: the reconstructions ``(part, z, y, x)`` of its subsets, the last one without noise, scaled."""

    parts: Parts
    conditions: dict[str, Any]


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a number between `low` and `high`, as often in every octave."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def projected(volume: Volume, beam: ParallelBeam) -> np.ndarray:
    """Return the line integrals ``(view, row, col)`` of an object of twice as many voxels across, in pixels."""
    fine = ParallelBeam(beam.angles, volume.shape[0], 2 * beam.n_cols, 2 * beam.axis + 0.5)
    rays = ParallelRays(fine, threads=1)
    lines = rays.project(volume, np.ones(rays.width // 2 + 1, np.float32), np.ones(beam.n_views))
    halves = lines.reshape(*lines.shape[:2], beam.n_cols, 2).mean(axis=-1) / 2
    return np.ascontiguousarray(np.swapaxes(halves, 0, 1).clip(0))


def measured(seed: int) -> Measured:
    """Return the scan of a seed."""
    rng = np.random.default_rng([20_261_128, seed])
    kind = list(KINDS)[seed % len(KINDS)]
    n_cols = 8 * int(rng.integers(12, 25))
    views = max(16, round(n_cols * log_uniform(rng, 0.2, 2.0)))
    turn = np.pi * (2 if rng.random() < 0.3 else 1)
    offset = rng.uniform(-0.04, 0.04) * n_cols if rng.random() < 0.5 else 0.0
    beam = ParallelBeam(np.linspace(0, turn, views, endpoint=False), ROWS, n_cols, (n_cols - 1) / 2 + offset)
    lines = projected(random_object(kind, (ROWS, 2 * n_cols, 2 * n_cols), rng), beam)
    absorption = float(rng.uniform(0.1, 0.9))
    lines *= np.float32(attenuation_for(absorption, lines[:: max(1, views // 16)]))
    photons = log_uniform(rng, 5, 5000)
    response = rng.uniform(0.2, 1.2) if rng.random() < 0.3 else 0.0
    read = rng.uniform(0, 0.3) * photons**0.5 if rng.random() < 0.4 else 0.0
    detector = Scintillator(
        gain=1.0,
        dark=0.0,
        read_noise=read,
        response_width=response,
        response_shape="laplace" if rng.random() < 0.5 else "gaussian",
    )
    light = np.float32(photons) * np.exp(-lines)
    floor = float(np.clip(max(1.0, read) / photons, 1e-4, 0.1))
    noisy = attenuated(detector.sample(light, rng), photons, floor)
    clean = expected(detector, detector.mean(light), photons, floor)
    if rng.random() < 0.3:  # rings left over: all views have them, so that no method may learn them away
        size = log_uniform(rng, 0.02, 0.3) * float(np.std(noisy - clean))
        rings = (size * rng.standard_normal((ROWS, n_cols))).astype(np.float32)
        noisy, clean = noisy + rings, clean + rings
    dealt = 4 if views >= 4 * FEWEST * n_cols else 2
    if rng.random() < 0.2:
        dealt = 2
    parts = np.empty((dealt + 1, ROWS, n_cols, n_cols), np.float32)
    for part in range(dealt):
        parts[part] = reconstructed(noisy[part::dealt], beam[part::dealt])
    parts[dealt] = reconstructed(clean, beam)
    y, x = np.mgrid[:n_cols, :n_cols] - (n_cols - 1) / 2
    seen = (np.hypot(y, x) <= n_cols / 2 - abs(offset)).astype(np.float32)
    scale = Scale.of(parts[:dealt].mean(axis=0), seen)
    span = scale.high - scale.low
    low = scale.low + span * rng.uniform(-0.15, 0.15)  # what a region or another scan would be scaled by
    Scale(low, low + span * log_uniform(rng, 0.75, 1.33)).apply(parts)
    conditions = {"kind": kind, "columns": n_cols, "views": views, "photons": photons, "absorption": absorption}
    return Measured(parts * seen, conditions | {"parts": dealt, "response": response, "read_noise": read})


def attenuated(counts: np.ndarray, photons: float, floor: float) -> np.ndarray:
    """Return line integrals; what is darker than the floor counts as the floor."""
    return np.asarray(-np.log(np.maximum(counts / np.float32(photons), np.float32(floor))))


def expected(detector: Scintillator, light: np.ndarray, photons: float, floor: float) -> np.ndarray:
    """Return the mean of the noisy line integrals, which at few photons is not that of the light.

    Independent subsets agree on it, so that it is what Noise2Inverse finds, and what a held-out estimate calls right.
    """
    levels = np.geomspace(max(float(light.min()), 1e-3), photons * 1.01, 48).astype(np.float32)
    frames = np.broadcast_to(levels[:, None, None], (48, 64, 64)).copy()
    means = attenuated(detector.sample(frames, np.random.default_rng(0)), photons, floor).mean(axis=(1, 2))
    return np.interp(np.log(np.maximum(light, levels[0])), np.log(levels), means).astype(np.float32)


def reconstructed(lines: np.ndarray, beam: ParallelBeam) -> Volume:
    """Return the filtered backprojection of ``(view, row, col)``."""
    rays = ParallelRays(beam, threads=1)
    return FBP()(rays, np.ascontiguousarray(np.swapaxes(lines, 0, 1), dtype=np.float32))


@dataclass(frozen=True)
class Taught(Noise2Inverse):
    """Noise2Inverse with any number of subsets, whose target is the noise-free reconstruction, or a noisy subset.

    Parameters
    ----------
    target
        ``clean`` or ``noisy``.
    """

    target: str = "clean"

    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Draw a subset to be left out; errors are weighed by the noise, so that low noise counts as well."""
        noisy, clean, middle = samples[:, :-1], samples[:, -1], self.slices // 2
        alone = int(torch.randint(noisy.shape[1], (), generator=generator))
        given = (noisy.sum(dim=1) - noisy[:, alone]) / (noisy.shape[1] - 1)
        wanted = (clean if self.target == "clean" else noisy[:, alone])[:, middle : middle + 1]
        power = (given - clean).square().mean()
        share = float((0.05 / (power + 1e-3)).sqrt())
        return Pair(given, share * wanted, torch.ones(1, 1, 1, 1), measure=lambda x: share * x)

    def judge(self, network: Network, samples: Samples, weight: Tensor) -> Judgement:
        """Return the true error of the mean of the outputs, relative to that of the data."""
        noisy, clean, middle = samples[:, :-1], samples[:, -1], self.slices // 2
        total, truth = noisy.sum(dim=1), clean[:, middle : middle + 1]
        outputs = [network((total - one) / (noisy.shape[1] - 1)).float() for one in noisy.unbind(1)]
        error = (torch.stack(outputs).mean(dim=0) - truth).square()
        noise = (total[:, middle : middle + 1] / noisy.shape[1] - truth).square()
        power = float((noise * weight).sum() / weight.sum())
        return averaged(error / power, noise / power, weight)


@dataclass(eq=False)
class Pool:
    """Volumes to learn from, one of which is renewed every so many steps; all from seeds, in their order."""

    first: int
    drawn: int = 0
    volumes: list[Parts] = field(default_factory=list)
    next: int = 0

    def draw(self, batch: int, patch: int, generator: torch.Generator) -> tuple[Samples, Tensor]:
        """Cut `batch` patches of one volume, turned and mirrored at random."""
        while len(self.volumes) < POOL:
            self.volumes.append(self._new())
        if self.drawn and self.drawn % EVERY == 0:
            self.volumes[(self.drawn // EVERY) % POOL] = self._new()
        self.drawn += 1

        def number(n: int) -> int:
            return int(torch.randint(n, (), generator=generator))

        volume = torch.from_numpy(self.volumes[number(len(self.volumes))])
        size = min(patch, volume.shape[-1])
        cut = []
        for _ in range(batch):
            z = number(ROWS)
            rows = [_mirrored(k) for k in range(z - 3, z + 4)]
            y, x = number(volume.shape[-2] - size + 1), number(volume.shape[-1] - size + 1)
            sample = torch.rot90(volume[:, rows, y : y + size, x : x + size], number(4), (-2, -1))
            sample = sample.flip(-1) if number(2) else sample
            cut.append(sample.flip(1) if number(2) else sample)
        samples = torch.stack(cut)
        return samples, torch.ones(batch, 1, size, size)

    def _new(self) -> Parts:
        self.next += 1
        return measured(self.first + self.next - 1).parts

    def on(self, device: torch.device, room: int | None = None) -> Pool:
        """Return itself: patches follow one by one."""
        return self

    def at(self, step: int, n_steps: int | None) -> float:
        """Return 1: the whole pool can be drawn from."""
        return 1.0

    def held_out(self, most_pixels: int) -> Iterator[tuple[Samples, Tensor]]:
        """Yield the middle slices of volumes that are never learned from."""
        for parts in _held_out():
            sample = torch.from_numpy(parts[:, ROWS // 2 - 3 : ROWS // 2 + 4])[None]
            yield sample, torch.ones(1, 1, *sample.shape[-2:])


_HELD: list[Parts] = []


def _held_out() -> list[Parts]:
    while len(_HELD) < JUDGED:
        _HELD.append(measured(LAST + len(_HELD)).parts)
    return _HELD


def _mirrored(k: int) -> int:
    k %= 2 * (ROWS - 1)
    return min(k, 2 * (ROWS - 1) - k)


def packed(out: Path, target: str, seed: int, took: str) -> None:
    """Write the averaged weights of the latest judgement as the prior that is shipped, with its card."""
    tensors, facts = load_tensors(out / "state.safetensors")
    split = Noise2Inverse()
    network = UNet().build(split.slices)
    network.load_state_dict(
        {name.removeprefix("average."): value for name, value in tensors.items() if name.startswith("average.")}
    )
    PRIORS.mkdir(parents=True, exist_ok=True)
    card = {
        "prior": f"volume-{VERSION}",
        "for": "Noise2Inverse on volumes reconstructed by filtered backprojection",
        "corpus": (
            f"simulated only: {', '.join(KINDS)}; one to four materials; 5 to 5000 photons; 10 to 90 % absorption; "
            "0.2 to 2 views per column; 96 to 192 columns; point responses from none to 1.2 pixels; read noise; rings; "
            "half and full turns; axes off the middle; 2 and 4 subsets"
        ),
        "target": target,
        "seeds": f"weights and samples {seed}; volumes from {seed * 10**6} on, held-out ones from {LAST} on",
        "steps": facts["step"],
        "steps_planned": facts["n_steps"],
        "seconds": round(facts["seconds"]),
        "machine": took,
        "command": f"python experiments/prior.py --steps {facts['n_steps']} --target {target} --seed {seed}",
        "repeatable": (
            "a run with --steps is, to the last bit; one that filled --minutes planned its steps anew as the machine "
            "slowed down, so that --steps repeats it but for the learning rate on the way"
        ),
        "gain_db": gains(network),
        "failures": (
            "Objects cut off by the field of view, cone beams, scans with fewer than 16 views and noise correlated "
            "over more than about 2 pixels were not in the corpus.  Applied without a step the means of materials may "
            "be off by some percent: a run measures that and corrects it.  Of details of few pixels there is little in "
            "the corpus: on a fine foam and on letters it is ahead in seconds, and behind random weights by up to "
            "0.5 dB after some hundred steps; on 32 views by 1 dB."
        ),
    }
    save_prior(PRIORS, "volume", network, UNet(), split, card)


def gains(network: torch.nn.Module) -> dict[str, float]:
    """Return the mean gain in PSNR on the held-out volumes, of all and of each kind, without a step of training."""
    found: dict[str, list[float]] = {}
    with torch.no_grad():
        for place, (samples, weight) in enumerate(Pool(0).held_out(0)):
            judged = Taught().judge(network.eval(), samples, weight)
            for name in ("all", list(KINDS)[(LAST + place) % len(KINDS)]):
                found.setdefault(name, []).append(-10 * np.log10(judged.error))
    return {name: round(float(np.mean(values)), 2) for name, values in found.items()}


def targets(steps: int, seed: int) -> None:
    """Print the mean gain with the noise-free and with the noisy target, on the same few volumes."""
    volumes = [measured(5000 + number).parts for number in range(20)]
    for target in ("clean", "noisy"):
        pool, split = Pool(0, volumes=[*volumes, *volumes, *volumes][:POOL]), Taught(target=target)
        training = Training(steps=steps, average=0.98, judgements=1, patience=10.0)
        network = fit(split, lambda: UNet().build(7), pool, training, seed=seed).network
        print(f"{target} target: {gains(network)['all']:.2f} dB", flush=True)


def main() -> None:
    """Train, keeping the state."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/prior"))
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--target", choices=("clean", "noisy"), default="clean")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--judgements", type=int, default=40)
    parser.add_argument("--targets", type=int, metavar="STEPS", help="compare both targets after so many steps")
    parser.add_argument("--go-on", action="store_true", help="from the prior that is shipped, not from random weights")
    parser.add_argument("--pack", metavar="MACHINE", help="ship what was learned so far; on what, in words")
    told = parser.parse_args()
    if told.targets:
        targets(told.targets, told.seed)
        return
    if told.pack:
        packed(told.out, told.target, told.seed, told.pack)
        return
    told.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    pool, split, started = Pool(first=told.seed * 10**6), Taught(target=told.target), time.monotonic()
    training = Training(
        steps=told.steps, batch=told.batch, average=0.998, judgements=told.judgements, patience=1.0, learning_rate=2e-3
    )

    def show(step: int, n_steps: int | None, latest: Progress | None) -> None:
        if latest is not None and latest.step == step:
            gain = -10 * np.log10(latest.error)
            record = dataclasses.asdict(latest) | {"volumes": pool.next, "gain_db": gain}
            with (told.out / "history.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(f"{step} of {n_steps}: {gain:.2f} dB, {time.monotonic() - started:.0f} s", flush=True)

    fit(
        split,
        Known(lambda: shipped_prior("volume").network.train()) if told.go_on else lambda: UNet().build(split.slices),
        pool,
        training,
        seed=told.seed,
        budget=lambda per_step: told.minutes * 60,
        checkpoint=told.out / "state.safetensors",
        watch=show,
    )


if __name__ == "__main__":
    main()
