"""Auto-correlation of noise by FFT against rolling and multiplying, and the memory of a long stack.

Run with ``python benchmarks/bench_correlation.py``; ``--long`` measures 1000 frames of 1548 x 550 (some minutes).
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from quietray.detector.noise.correlation import measure_correlation
from quietray.detector.noise.lags import autocorrelation
from quietray.detector.noise.static import NoiseSource, survey_frames
from quietray.simulate.noise import Scintillator

FRAMES, ROWS, COLS, RADIUS = 100, 774, 275, 6


def rolled(residuals: np.ndarray, good: np.ndarray, radius: int) -> np.ndarray:
    """Roll all frames by every lag, multiply, crop the border and average: the direct way."""
    out = np.empty((2 * radius + 1, 2 * radius + 1))
    inner = slice(radius, -radius)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            product = residuals * np.roll(residuals, (-dy, -dx), axis=(1, 2))
            out[dy + radius, dx + radius] = product[:, inner, inner].mean()
    return out


def best_of(times: int, call: Callable[..., np.ndarray], *args: Any) -> tuple[float, np.ndarray]:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        result = call(*args)
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


class Drawn:
    """Frames that are made when they are read: a stack larger than memory."""

    shape, dtype = (1000, 1548, 550), np.dtype(np.uint16)

    def __init__(self) -> None:
        light = np.full((4, *self.shape[1:]), 400.0, np.float32)
        counts = Scintillator(response_width=0.5, gain=10).sample(light, np.random.default_rng(0))
        self.some = np.rint(counts).astype(np.uint16)

    def __getitem__(self, key: slice) -> np.ndarray:
        numbers = range(self.shape[0])[key]
        return np.stack([np.roll(self.some[i % 4], (7 * i, 13 * i), axis=(0, 1)) for i in numbers])


def main() -> None:
    rng = np.random.default_rng(0)
    frames = Scintillator(response_width=0.5).sample(np.full((FRAMES, ROWS, COLS), 400.0, np.float32), rng)
    residuals = (frames - frames.mean(axis=0)) / frames.std(axis=0)
    good = np.ones((ROWS, COLS), bool)
    fast, by_fft = best_of(5, autocorrelation, residuals, good, RADIUS)
    slow, by_rolling = best_of(1, rolled, residuals, good, RADIUS)
    print(f"{2 * RADIUS + 1} x {2 * RADIUS + 1} lags, {FRAMES} frames of {ROWS} x {COLS}")
    print(f"  roll and multiply {slow:8.3f} s")
    print(f"  FFT               {fast:8.3f} s   {slow / fast:.0f} times faster, one thread each")
    print(f"  largest difference {np.abs(by_fft - by_rolling).max():.1e} (the border is cropped on one side only)")
    start = time.perf_counter()
    measure_correlation(survey_frames(NoiseSource("static frames", frames)))
    print(f"  whole measurement, two passes: {time.perf_counter() - start:.2f} s")


def long() -> None:
    start = time.perf_counter()
    source = NoiseSource("static frames", Drawn())
    found = measure_correlation(survey_frames(source))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{source.n_frames} frames of {source.shape[0]} x {source.shape[1]}: {time.perf_counter() - start:.0f} s")
    print(f"  peak memory {peak:.2f} GiB, summed correlation {found.summed:.3f} +- {found.summed_error:.3f}")


if __name__ == "__main__":
    long() if "--long" in sys.argv else main()
