"""Train the priors that are shipped: what any network must know before it sees a scan.

    python experiments/prior.py volume|radiographs|images --out out/prior [--minutes 60 | --steps N] [--seed 0]

Every sample is simulated from a seed: an object of a random kind (quietray.simulate.objects), its line integrals, a
detector and a dose.  For `volume`, the angular subsets are reconstructed; for `radiographs`, there are single views
with white noise, in which pixels are hidden; for `images`, slices and radiographs with correlated noise.  A pool of
samples is renewed one by one while the network learns from it, so that nothing is on disk and nothing is seen often.
The state is saved at every judgement; `--pack` turns the averaged weights of any moment into the file and the card that
are shipped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

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
from quietray.simulate.objects import FINE_KINDS, KINDS, random_object
from quietray.splits import Noise2Inverse, Noise2Self, Noise2Void, Recorrupted
from quietray.splits.base import Network, Pair, Split
from quietray.training.loop import Progress, fit
from quietray.training.start import Known, save_prior, shipped_prior
from quietray.types import Parts, Samples, Volume

ROWS, POOL, EVERY, JUDGED = 12, 48, 150, 20  # slices, volumes at a time, steps after which one is renewed, held out
FEWEST = 0.2  # views of a subset per column, as Noise2Inverse.on_scan has it
LAST = 2**40  # seeds from here on are held out
DETAILED = 2 * 10**9  # seeds of volumes from here on have fine detail and few views more often
EDGES = (16, 32, 64)  # of the patches of single images: a scan of few rows has small ones
VIEWS = 8  # in a sample of radiographs
PRIORS = Path(quietray.__file__).parent / "training" / "priors"


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


def kind_of(seed: int) -> str:
    """Return the kind of object of a seed."""
    kinds = [*KINDS, *FINE_KINDS, *FINE_KINDS] if DETAILED <= seed < LAST else list(KINDS)
    return kinds[seed % len(kinds)]


def measured(seed: int) -> Parts:
    """Return the scan of a seed: ``(part, z, y, x)`` of its angular subsets, and last without noise, scaled."""
    rng = np.random.default_rng([20_261_128, seed])
    kind = kind_of(seed)
    n_cols = 8 * int(rng.integers(12, 25))
    views = max(16, round(n_cols * log_uniform(rng, 0.2, 2.0)))
    if DETAILED <= seed < LAST and rng.random() < 0.2:
        views = round(log_uniform(rng, 16, 64))
    turn = np.pi * (2 if rng.random() < 0.3 else 1)
    offset = rng.uniform(-0.04, 0.04) * n_cols if rng.random() < 0.5 else 0.0
    beam = ParallelBeam(np.linspace(0, turn, views, endpoint=False), ROWS, n_cols, (n_cols - 1) / 2 + offset)
    lines = projected(random_object(kind, (ROWS, 2 * n_cols, 2 * n_cols), rng), beam)
    lines *= np.float32(attenuation_for(float(rng.uniform(0.1, 0.9)), lines[:: max(1, views // 16)]))
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
    return np.asarray(parts * seen, np.float32)


def shadows(seed: int) -> Parts:
    """Return some radiographs of a seed: line integrals ``(part, view, row, col)`` with white noise, and without.

    Line integrals are not scaled where a scan is denoised, but images are.
    """
    rng = np.random.default_rng([20_261_129, seed])
    kinds = [*KINDS, *FINE_KINDS]
    n_rows, n_cols = int(rng.choice(EDGES)), 8 * int(rng.integers(8, 15))
    angles = np.sort(rng.uniform(0, 2 * np.pi, VIEWS))
    beam = ParallelBeam(angles, n_rows, n_cols, (n_cols - 1) / 2 + rng.uniform(-0.2, 0.2) * n_cols)
    lines = projected(random_object(kinds[seed % len(kinds)], (n_rows, 2 * n_cols, 2 * n_cols), rng), beam)
    lines *= np.float32(attenuation_for(float(rng.uniform(0.1, 0.95)), lines))
    photons = log_uniform(rng, 5, 5000)
    read = rng.uniform(0, 0.5) * photons**0.5 if rng.random() < 0.5 else 0.0
    detector = Scintillator(gain=1.0, dark=0.0, read_noise=read, response_width=0.0)
    light, floor = np.float32(photons) * np.exp(-lines), float(np.clip(max(1.0, read) / photons, 1e-4, 0.1))
    noisy = attenuated(detector.sample(light, rng), photons, floor)
    clean = expected(detector, light, photons, floor)
    if rng.random() < 0.3:  # what the flats leave: the same in every view
        size = log_uniform(rng, 0.02, 0.3) * float(np.std(noisy - clean))
        left = (size * rng.standard_normal((n_rows, n_cols))).astype(np.float32)
        noisy, clean = noisy + left, clean + left
    parts = np.stack([noisy, clean]).astype(np.float32)
    return scaled(parts, rng) if rng.random() < 0.4 else parts


def scaled(parts: Parts, rng: np.random.Generator) -> Parts:
    """Return parts in about the scale of the network."""
    scale = Scale.of(parts[:-1].mean(axis=0), np.ones(parts.shape[-2:], np.float32))
    span = scale.high - scale.low
    low = scale.low + span * rng.uniform(-0.15, 0.15)
    return Scale(low, low + span * log_uniform(rng, 0.75, 1.33)).apply(parts)


def coloured(seed: int) -> Parts:
    """Return images of a seed, ``(part, z, y, x)``, with correlated noise and without.

    They are slices with the noise of filtered backprojection, or slices and radiographs with noise of a random
    spectrum.
    """
    rng = np.random.default_rng([20_261_130, seed])
    if rng.random() < 0.6:
        parts = measured(DETAILED + seed)
        noisy, clean = parts[:-1].mean(axis=0), parts[-1]
    else:
        noisy = clean = shadows(seed)[1]
    if noisy is clean or rng.random() < 0.4:
        span = float(np.subtract(*np.percentile(clean, (98, 2))))
        noisy = clean + np.float32(max(span, 1e-3) * log_uniform(rng, 0.03, 1.0)) * colour(clean.shape, rng)
    return scaled(np.stack([noisy, clean]).astype(np.float32), rng)


def colour(shape: tuple[int, ...], rng: np.random.Generator) -> Volume:
    """Return noise ``(z, y, x)`` of standard deviation 1: blurred, and stronger or weaker at high frequencies."""
    fy, fx = np.fft.fftfreq(shape[-2])[:, None], np.fft.fftfreq(shape[-1])[None]
    wide = rng.uniform(0.0, 1.5) * np.exp(rng.uniform(-0.3, 0.3, 2))
    power = np.exp(-2 * np.pi**2 * ((wide[0] * fy) ** 2 + (wide[1] * fx) ** 2))
    amplitude = power * (np.hypot(fy, fx) + 0.02) ** rng.uniform(-0.4, 1.0)
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal(shape)) * amplitude).real
    return (field / field.std()).astype(np.float32)


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
        share = share_of(given, clean)
        return Pair(given, share * wanted, torch.ones(1, 1, 1, 1), measure=lambda x: share * x)

    def judge(self, network: Network, samples: Samples, weight: Tensor) -> Judgement:
        """Return the true error of the mean of the outputs, relative to that of the data."""
        noisy, clean, middle = samples[:, :-1], samples[:, -1], self.slices // 2
        total, truth = noisy.sum(dim=1), clean[:, middle : middle + 1]
        outputs = [network((total - one) / (noisy.shape[1] - 1)).float() for one in noisy.unbind(1)]
        noise = total[:, middle : middle + 1] / noisy.shape[1] - truth
        return relative(torch.stack(outputs).mean(dim=0) - truth, noise, weight)


def relative(error: Tensor, noise: Tensor, weight: Tensor) -> Judgement:
    """Return errors relative to those of the data, so that every sample counts alike."""
    power = float((noise.square() * weight).sum() / weight.expand_as(noise).sum())
    return averaged(error.square() / power, noise.square() / power, weight)


def share_of(given: Tensor, clean: Tensor) -> float:
    """Return the factor by which errors are multiplied, so that low noise counts as well."""
    return float((0.05 / ((given - clean).square().mean() + 1e-3)).sqrt())


@dataclass(frozen=True)
class TaughtHidden(Noise2Self):
    """Noise2Self and Noise2Void, whose target is the noise-free image; what stays visible counts a little."""

    ways: ClassVar[tuple[Split, ...]] = (Noise2Self(), Noise2Self(), Noise2Void(), Noise2Self.hiding(1))

    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Draw hidden pixels."""
        noisy, clean = samples[:, :1], samples[:, 1]
        way = self.ways[int(torch.randint(len(self.ways), (), generator=generator))]
        pair, share = way.draw(noisy, generator), share_of(noisy[:, 0], clean)
        return Pair(pair.input, share * clean, pair.weight + 0.1, measure=lambda x: share * x)

    def judge(self, network: Network, samples: Samples, weight: Tensor) -> Judgement:
        """Return the true error at hidden pixels, relative to that of the data."""
        noisy, clean = samples[:, 0], samples[:, 1]
        given, hidden = self.phase(noisy, self.n_phases // 2)
        return relative(network(given).float() - clean, noisy - clean, weight * hidden)


@dataclass(frozen=True)
class TaughtColour(Recorrupted):
    """Recorrupted, whose target is the noise-free image, and whose input is the noisy one as it is."""

    def draw(self, samples: Samples, generator: torch.Generator) -> Pair:
        """Return the images."""
        noisy, clean = samples[:, 0], samples[:, 1]
        share = share_of(noisy, clean)
        return Pair(noisy, share * clean, torch.ones(1, 1, 1, 1), measure=lambda x: share * x)

    def judge(self, network: Network, samples: Samples, weight: Tensor) -> Judgement:
        """Return the true error, relative to that of the data."""
        noisy, clean = samples[:, 0], samples[:, 1]
        return relative(network(noisy).float() - clean, noisy - clean, weight)


@dataclass(frozen=True)
class Lesson:
    """What is needed to train one prior.

    Parameters
    ----------
    taught, split
        Method that trains it, and the one that it is shipped for.
    sample
        Returns the sample of a seed, ``(part, z, y, x)``, of which the last part is without noise.
    version
        Version of the prior.
    told
        Entries of its card: what it is for, its corpus, and its known failures.
    most
        Number of steps from which random initial weights are as good or better, by the benchmarks; None if never.
    """

    taught: Any
    split: Split
    sample: Callable[[int], Parts]
    version: int
    told: dict[str, str]
    most: int | None = None


@dataclass(eq=False)
class Pool:
    """Samples to learn from, one of which is renewed every so many steps; all from seeds, in their order."""

    lesson: Lesson
    first: int
    drawn: int = 0
    volumes: list[Parts] = field(default_factory=list)
    next: int = 0

    def draw(self, batch: int, patch: int, generator: torch.Generator) -> tuple[Samples, Tensor]:
        """Cut `batch` patches of one volume, or more of small images, turned and mirrored at random."""
        while len(self.volumes) < POOL:
            self.volumes.append(self._new())
        if self.drawn and self.drawn % EVERY == 0:
            self.volumes[(self.drawn // EVERY) % POOL] = self._new()
        self.drawn += 1

        def number(n: int) -> int:
            return int(torch.randint(n, (), generator=generator))

        volume = torch.from_numpy(self.volumes[number(len(self.volumes))])
        size, reach = min(patch, *volume.shape[-2:]), self.lesson.split.n_slices // 2
        if reach == 0:
            size = min(EDGES[number(len(EDGES))], size)
            batch *= max(1, (EDGES[-1] // size) ** 2)
        cut = []
        for _ in range(batch):
            depth = volume.shape[1]
            z = number(depth)
            rows = [_mirrored(k, depth) for k in range(z - reach, z + reach + 1)]
            y, x = number(volume.shape[-2] - size + 1), number(volume.shape[-1] - size + 1)
            sample = torch.rot90(volume[:, rows, y : y + size, x : x + size], number(4), (-2, -1))
            sample = sample.flip(-1) if number(2) else sample
            cut.append(sample.flip(1) if number(2) else sample)
        samples = torch.stack(cut)
        return samples, torch.ones(batch, 1, size, size)

    def _new(self) -> Parts:
        self.next += 1
        return self.lesson.sample(self.first + self.next - 1)

    def on(self, device: torch.device, room: int | None = None) -> Pool:
        """Return itself: patches follow one by one."""
        return self

    def at(self, step: int, n_steps: int | None) -> float:
        """Return 1: the whole pool can be drawn from."""
        return 1.0

    def held_out(self, most_pixels: int) -> Iterator[tuple[Samples, Tensor]]:
        """Yield the middle slices of samples that are never learned from."""
        reach = self.lesson.split.n_slices // 2
        for number in range(JUDGED):
            parts = _held_out(self.lesson.sample, LAST + number)
            middle = parts.shape[1] // 2
            sample = torch.from_numpy(parts[:, middle - reach : middle + reach + 1])[None]
            yield sample, torch.ones(1, 1, *sample.shape[-2:])


@cache
def _held_out(sample: Callable[[int], Parts], seed: int) -> Parts:
    return sample(seed)


def _mirrored(k: int, n: int) -> int:
    k %= 2 * (n - 1)
    return min(k, 2 * (n - 1) - k)


_SIMULATED = (
    f"simulated only: {', '.join(KINDS)}; one to four materials; 5 to 5000 photons; 10 to 90 % absorption; "
    "0.2 to 2 views per column; 96 to 192 columns; point responses from none to 1.2 pixels; read noise; rings; "
    "half and full turns; axes off the middle; 2 and 4 subsets"
)
_FINE = f"; {', '.join(FINE_KINDS)}, whose details are one to some pixels wide"
LESSONS = {
    "volume": Lesson(
        Taught(),
        Noise2Inverse(),
        measured,
        2,
        {
            "for": "Noise2Inverse on volumes reconstructed by filtered backprojection",
            "corpus": f"{_SIMULATED}; in the continued training also{_FINE[1:]}, and a fifth with 16 to 64 views",
            "failures": (
                "Objects cut off by the field of view, cone beams, scans with fewer than 16 views and noise correlated "
                "over more than about 2 pixels were not in the corpus.  Applied without a step the means of materials "
                "may be off by some percent: a run measures that and corrects it.  On the foam of the benchmarks, "
                "random weights are as good after some 300 steps.  With fewer views than a fifth of the columns in a "
                "subset, training makes it worse, so that the learning rate is a tenth there."
            ),
        },
        most=250,
    ),
    "radiographs": Lesson(
        TaughtHidden(),
        Noise2Self(),
        shadows,
        1,
        {
            "for": "Noise2Self and Noise2Void on radiographs whose noise is white or was whitened, and on such images",
            "corpus": (
                f"simulated only: {', '.join(KINDS)}{_FINE}; single views of 16 to 64 rows and 64 to 112 columns; one "
                "to four materials; 5 to 5000 photons; 10 to 95 % absorption; read noise; remains of flats; line "
                "integrals, two fifths of them scaled like images"
            ),
            "failures": (
                "Only white noise was in the corpus: where whitening leaves correlation, or is left out, it was not "
                "trained for that.  Zingers, dead pixels and phase contrast were not in it either."
            ),
        },
    ),
    "images": Lesson(
        TaughtColour(),
        Recorrupted(),
        coloured,
        1,
        {
            "for": "Recorrupted on single images with correlated noise",
            "corpus": (
                f"simulated only: {', '.join(KINDS)}{_FINE}; slices with the noise of filtered backprojection, of the "
                "conditions of the prior for volumes, and slices and radiographs with Gaussian noise of a random "
                "spectrum, 3 to 100 % of the contrast"
            ),
            "failures": (
                "It saw one image at a time: of neighbouring slices, only the middle one contributes at first.  Noise "
                "correlated over more than some pixels (phase retrieval) was hardly in the corpus.  Where nothing is "
                "uniform, as in a foam, the noise of images is overestimated, and training then spoils what the prior "
                "knew: from 15.2 dB before the first step to 12.9 dB after three."
            ),
        },
        most=250,
    ),
}


def packed(told: argparse.Namespace) -> None:
    """Write the averaged weights of the latest or the best judgement as the prior that is shipped, with its card."""
    tensors, facts = load_tensors(told.out / "state.safetensors")
    lesson = LESSONS[told.prior]
    network = UNet().build(lesson.split.n_slices)
    prefix = f"{told.weights}."
    network.load_state_dict(
        {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    )
    ahead = min(facts["history"], key=lambda entry: entry["error"])["step"]
    PRIORS.mkdir(parents=True, exist_ok=True)
    continued = shipped_prior(told.prior).facts if told.go_on else None
    command = f"python experiments/prior.py {told.prior} --steps {facts['n_steps']} --seed {told.seed}"
    command += f" --rate {told.rate:g} --batch {told.batch}" + (" --go-on" if told.go_on else "")
    card = {
        "prior": f"{told.prior}-{lesson.version}",
        **lesson.told,
        "target": told.target,
        "seeds": f"weights and samples {told.seed}; objects from {told.seed * 10**6} on, held-out ones from {LAST} on",
        "weights": "averaged, at the last step" if told.weights == "average" else "averaged, at the best judgement",
        "steps": facts["step"] if told.weights == "average" else ahead,
        "steps_planned": facts["n_steps"],
        "seconds": round(facts["seconds"]),
        "machine": told.pack,
        "command": command,
        "repeatable": (
            "a run with --steps is, to the last bit; one that filled --minutes planned its steps anew as the machine "
            "slowed down, so that --steps repeats it but for the learning rate on the way"
        ),
        "gain_db": gains(lesson, network),
        "most_steps": lesson.most,
    }
    if continued is not None:
        card["repeatable"] += "; --go-on needs the prior that this one was continued from as the one that is shipped"
        card["continued_from"] = {
            name: continued[name] for name in ("prior", "steps", "command", "seconds", "seeds", "sha256")
        }
    save_prior(PRIORS, told.prior, network, UNet(), lesson.split, card)


def gains(lesson: Lesson, network: torch.nn.Module) -> dict[str, float]:
    """Return the mean gain in PSNR on held-out samples in dB, without a step of training."""
    pool = Pool(lesson, 0)
    with torch.no_grad():
        errors = [lesson.taught.judge(network.eval(), samples, weight).error for samples, weight in pool.held_out(0)]
    return {"all": round(float(np.mean(-10 * np.log10(errors))), 2), "of": len(errors)}


def targets(steps: int, seed: int) -> None:
    """Print the mean gain with the noise-free and with the noisy target, on the same few volumes."""
    volumes, lesson = [measured(5000 + number) for number in range(20)], LESSONS["volume"]
    for target in ("clean", "noisy"):
        pool, split = Pool(lesson, 0, volumes=[*volumes, *volumes, *volumes][:POOL]), Taught(target=target)
        training = Training(steps=steps, average=0.98, judgements=1, patience=10.0)
        network = fit(split, lambda: UNet().build(7), pool, training, seed=seed).network
        print(f"{target} target: {gains(lesson, network)['all']:.2f} dB", flush=True)


def main() -> None:
    """Train, keeping the state."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("prior", choices=tuple(LESSONS))
    parser.add_argument("--out", type=Path, default=Path("out/prior"))
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--target", choices=("clean", "noisy"), default="clean", help="of the prior for volumes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rate", type=float, default=2e-3, help="peak of the learning rate")
    parser.add_argument("--judgements", type=int, default=40)
    parser.add_argument("--targets", type=int, metavar="STEPS", help="compare both targets after so many steps")
    parser.add_argument("--go-on", action="store_true", help="from the prior that is shipped, not from random weights")
    parser.add_argument(
        "--weights", choices=("average", "best"), default="average", help="to pack: the latest, or best"
    )
    parser.add_argument("--pack", metavar="MACHINE", help="ship what was learned so far; on what, in words")
    told = parser.parse_args()
    if told.targets:
        targets(told.targets, told.seed)
        return
    if told.pack:
        packed(told)
        return
    told.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    lesson = LESSONS[told.prior]
    split = Taught(target=told.target) if told.prior == "volume" else lesson.taught
    pool, started = Pool(lesson, first=told.seed * 10**6), time.monotonic()
    training = Training(
        steps=told.steps,
        batch=told.batch,
        average=0.998,
        judgements=told.judgements,
        patience=1.0,
        learning_rate=told.rate,
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
        Known(lambda: shipped_prior(told.prior).network.train())
        if told.go_on
        else lambda: UNet().build(lesson.split.n_slices),
        pool,
        training,
        seed=told.seed,
        budget=lambda per_step: told.minutes * 60,
        checkpoint=told.out / "state.safetensors",
        watch=show,
    )


if __name__ == "__main__":
    main()
