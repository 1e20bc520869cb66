"""The point response: how well it is recovered, what whitening leaves, and what measured scans say.

Run with ``python benchmarks/bench_detector.py [psi.h5]``.
"""

from __future__ import annotations

import sys

import numpy as np

import quietray
from quietray.detector.noise.correlation import measure_correlation
from quietray.detector.noise.lags import infill_correlation
from quietray.detector.noise.static import NoiseSource, survey_frames
from quietray.detector.response.decorrelate import whiten
from quietray.detector.response.prf import estimate_point_response
from quietray.detector.response.response import PointResponse
from quietray.simulate.noise import Scintillator
from quietray.types import Frames

FRAMES, ROWS, COLS, PHOTONS = 40, 275, 774, 400.0
DETECTOR = Scintillator(response_width=0.5)


def left_over(frames: Frames) -> str:
    """Return the summed correlation of frames, and that of a pixel with its infill."""
    found = measure_correlation(survey_frames(NoiseSource("static frames", frames)))
    return f"sum {found.summed:7.4f} +- {found.summed_error:.4f}   infill {infill_correlation(found.lags):7.4f}"


def squared(response: PointResponse) -> PointResponse:
    """Return the kernel whose transform is the square: dividing by it is the formula of the slide."""
    n, k = 255, response.kernel.shape[0]
    field = np.zeros((n, n))
    field[:k, :k] = response.kernel
    whole = np.fft.fftshift(np.fft.ifft2(np.abs(np.fft.fft2(field)) ** 2).real)
    c, r = n // 2, 2 * (k // 2)
    kernel = whole[c - r : c + r + 1, c - r : c + r + 1]
    return PointResponse((kernel + kernel[::-1, ::-1]) / 2 / kernel.sum(), floor=1e-4)


def simulated() -> None:
    rng = np.random.default_rng(0)
    light = np.full((FRAMES, ROWS, COLS), PHOTONS, np.float32)
    frames, fresh = DETECTOR.sample(light, rng), DETECTOR.sample(light, rng)
    print(f"{FRAMES} frames of {ROWS} x {COLS}, {PHOTONS:g} photons, Laplace 0.5 pixel, no read noise")
    truth = DETECTOR.response
    response = estimate_point_response(frames, method="mean")
    for method in ("mean", "differences"):
        for root in ("spectrum", "covariance"):
            kernel = estimate_point_response(frames, method=method, root=root).kernel
            r = min(kernel.shape[0], truth.shape[0]) // 2
            c, t = kernel.shape[0] // 2, truth.shape[0] // 2
            apart = kernel[c - r : c + r + 1, c - r : c + r + 1] - truth[t - r : t + r + 1, t - r : t + r + 1]
            print(f"  largest error of the kernel, {method}, {root:10} {np.abs(apart).max():.1e}")
    print(f"  fresh frames, as measured   {left_over(fresh)}")
    print(f"  divided by F                {left_over(whiten(fresh, response))}")
    print(f"  divided by |F|^2            {left_over(whiten(fresh, squared(response)))}")


def measured(path: str) -> None:
    found = quietray.diagnose(quietray.read(path))
    print(path)
    print(f"  {found.source}: {found.before.summed:.3f} +- {found.before.summed_error:.3f}")
    second = found.figures["second"]
    print(f"  {second['source']}: {second['summed']:.3f} +- {second['summed_error']:.3f}")
    windows = ", ".join(f"{size} {value:.2f}" for size, value in found.figures["summed_by_window"].items())
    print(f"  {found.source} by window of lags: {windows}")
    if found.after is not None:
        print(f"  {found.figures['checked_on']}, whitened: {found.after.summed:.3f} +- {found.after.summed_error:.3f}")


if __name__ == "__main__":
    simulated()
    for path in sys.argv[1:]:
        measured(path)
