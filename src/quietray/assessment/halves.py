"""Two halves of a measurement with independent noise: resolution, noise power and shifts of mean values."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from quietray.inference.denoiser import Denoiser
from quietray.metrics.resolution import Criterion, detail_kept, fourier_ring_correlation
from quietray.metrics.spectrum import RegionBias, power_spectrum, region_bias
from quietray.metrics.surroundings import ObjectMask
from quietray.preparation.prepare import Prepared
from quietray.training.batches import TrainingVolume
from quietray.types import Slice, Volume

__all__ = ["MEASUREMENTS", "Halves", "blurred", "moved"]

MEASUREMENTS = "every other measurement"
_PIXELS = 2**19  # number of slices to use
_SMALLEST = 16  # smallest width in pixels for Fourier analysis
_INSIDE = 32  # smallest width in pixels for Fourier analysis inside the object
_APART = 3.5  # distance between two materials, in spreads; the two halves of a bell curve are 2.7 apart
_KEPT = 0.8  # relative to the best linear filter
_SHIFT = 0.01  # of the grey value or the contrast
_CRITERIA: tuple[tuple[Criterion, str], ...] = (("half-bit", "half_bit"), ("one-seventh", "one_seventh"))


@dataclass(frozen=True, eq=False)
class Halves:
    """Some slices of two halves of the data, and of all data, each before and after denoising, in attenuation.

    Parameters
    ----------
    before
        Two reconstructions with independent noise, ``(half, z, y, x)``.
    after
        Each of them denoised without the other.
    noisy, clean
        Reconstruction of all data, and the result, ``(z, y, x)``.
    weight
        Weight ``(y, x)``, zero outside the field of view.
    of
        Description of the halves.
    held_out
        Whether no part of these slices was a training target.
    seconds
        Time taken in seconds.
    common
        Slices ``(slice, y, x)`` with noise like that which both halves have in common; None if there is none.
    """

    before: Float[np.ndarray, "half z y x"]
    after: Float[np.ndarray, "half z y x"]
    noisy: Volume
    clean: Volume
    weight: Slice
    of: str
    held_out: bool
    seconds: float
    common: Float[np.ndarray, "slice y x"] | None = None

    @classmethod
    @torch.no_grad()
    def of_parts(
        cls, denoiser: Denoiser, data: TrainingVolume, common: Float[np.ndarray, "slice y_all x_all"] | None = None
    ) -> Halves:
        """Denoise the even and the odd parts of the held-out slices, each without the other.

        A network that takes the mean of several parts is given the mean of half of the parts, which is noisier than its
        training data: X:1 of K parts averages K - 1 of them, a half only K / 2.  For an odd number of parts, the last
        one is left out.  A method that was trained on whole measurements is given each half as one measurement.

        Parameters
        ----------
        denoiser
            Denoiser trained or tuned on other slices.
        data
            Scaled parts, two or more.
        common
            Slices ``(slice, y, x)`` with noise like that which all parts have in common, in the unit of the result.
        """
        split, started = denoiser.split, time.monotonic()
        seen, shown = data.judged
        found: list[np.ndarray] = []
        for samples, weight in data.held_out(_PIXELS):
            together = samples.to(denoiser.device)
            n = together.shape[1] // 2
            halves = together[:, 0 : 2 * n : 2], together[:, 1 : 2 * n : 2]
            denoised = [
                torch.stack([denoiser.evaluate(x).float() for x in split.half(half)]).mean(dim=0) for half in halves
            ]
            if split.whole:  # trained on whole measurements, of which each part is one
                clean = split.infer(denoiser.evaluate, together.mean(dim=1, keepdim=True))
            elif together.shape[1] == 2:  # each part is a half, and the result is the mean of both
                clean = (denoised[0] + denoised[1]) / 2
            else:
                clean = split.infer(denoiser.evaluate, together)
            before = [half[0, :, seen].mean(dim=0) for half in halves]
            images = torch.stack(
                [*before, *(each[0, shown] for each in denoised), together[0, :, seen].mean(dim=0), clean[0, shown]]
            )
            inside = weight[0].amax(dim=0)
            found.append(images.cpu().numpy()[:, inside.any(dim=1)])
        stack = denoiser.scale.undo(np.stack(found, axis=1))
        of = MEASUREMENTS if split.parts_are == "measurements" else "every other angular subset"
        rows = inside.any(dim=1).numpy()
        kept, took = inside.numpy()[rows].astype(np.float32), time.monotonic() - started
        if common is not None:
            common = common[:, *data.held_out_window(_PIXELS)][:, rows]
        return cls(stack[:2], stack[2:4], stack[4], stack[5], kept, of, True, took, common)

    @classmethod
    def of_views(cls, before: Prepared, after: Prepared) -> Halves:
        """Reconstruct the even and the odd radiographs of rows around the middle, both measured and denoised.

        Parameters
        ----------
        before, after
            The scan, and the denoised radiographs of the requested rows.
        """
        started, (n_z, n_y, n_x) = time.monotonic(), before.grid.shape
        n = min(n_z, max(1, _PIXELS // (n_y * n_x)))
        noisy, clean = (
            each.source(2)(slice(begin + (n_z - n) // 2, begin + (n_z - n) // 2 + n))[0]
            for each, begin in ((before, before.rows.start), (after, after.rows.start))
        )
        took = time.monotonic() - started
        return cls(
            noisy, clean, noisy.mean(axis=0), clean.mean(axis=0), before.weight, "every other radiograph", False, took
        )

    def figures(self, voxel_size: float | None, mask: ObjectMask | None = None) -> dict[str, Any]:
        """Return resolution, noise power and mean values of regions, before and after, ready for JSON.

        Parameters
        ----------
        voxel_size
            Voxel size in mm; None if unknown.
        mask
            Mask of the object: the resolution refers to the largest rectangle inside the object in all slices, if it is
            large enough.
        """
        rows, cols, where = self._looked_at(mask)
        height, width = rows.stop - rows.start, cols.stop - cols.start
        wanting: dict[str, str] = {}
        resolution = noise = sharpness = None
        if min(height, width) < _SMALLEST:
            wanting["resolution"] = f"only {height} x {width} pixels of the slices lie in the field of view, too few"
        else:
            before, after = (pair[:, :, rows, cols] for pair in (self.before, self.after))
            resolution, noise = _resolution(before, after, voxel_size), _noise(before, after)
            sharpness = _sharpness(before, after, resolution)
            if sharpness is None:
                wanting["sharpness"] = "the data show no detail, or only coarse detail"
        regions = _regions(self)
        if not regions:
            wanting["regions"] = "the grey values form no regions that are distinct and large enough"
        return {
            "halves": self.of,
            "held_out": self.held_out,
            "slices": len(self.clean),
            "pixels": [height, width],
            "where": where,
            "seconds": self.seconds,
            "resolution": resolution,
            "noise_power": noise,
            "sharpness": sharpness,
            "regions": regions,
            "left_out": wanting,
        }

    def _looked_at(self, mask: ObjectMask | None) -> tuple[slice, slice, str]:
        """Return the rectangle for the Fourier analysis, and a description of it."""
        if mask is not None:
            objects = np.logical_and.reduce([mask.of(one, self.weight) for one in self.clean])
            if objects.any():
                rows, cols = _rectangle(objects.astype(np.float32))
                if min(rows.stop - rows.start, cols.stop - cols.start) >= _INSIDE:
                    return rows, cols, "the object"
        return *_rectangle(self.weight), "the field of view"


def moved(regions: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the regions whose mean was shifted by 3 standard errors, and by 1 % of the mean or the contrast.

    Parameters
    ----------
    regions
        Regions in the table ``evidence`` of the figures.  The larger of the mean and of the contrast between regions is
        used, because air has a mean of zero.

    Examples
    --------
    >>> air = {"before": 0.001, "after": 0.002, "error": 0.0001}
    >>> moved([air, {"before": 1.0, "after": 0.97, "error": 0.001}])
    [{'before': 1.0, 'after': 0.97, 'error': 0.001}]
    """
    levels = [region["before"] for region in regions]
    contrast = max(levels, default=0.0) - min(levels, default=0.0)
    return [
        region
        for region in regions
        if abs(region["after"] - region["before"])
        > max(3 * region["error"], _SHIFT * max(abs(region["before"]), contrast))
    ]


def blurred(sharpness: Mapping[str, Any]) -> bool:
    """Return whether a result keeps clearly less detail than the best linear filter would: less than 80 %.

    Parameters
    ----------
    sharpness
        Table ``sharpness`` in the table ``evidence`` of the figures.

    Examples
    --------
    >>> blurred({"kept": 0.5, "kept_error": 0.02, "linear_filter": 0.7})
    True
    """
    return bool(sharpness["kept"] + 2 * sharpness["kept_error"] < _KEPT * sharpness["linear_filter"])


def _sharpness(before: np.ndarray, after: np.ndarray, resolution: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fraction kept in the finest octave of the data, and the fraction the best linear filter would keep.

    This is the Wiener filter, which keeps at each frequency the ratio of the signal to signal plus noise, derived from
    the correlation of the measured halves.
    """
    finest = resolution["before_half_bit_px"]
    if finest is None:
        return None
    found, agreed = detail_kept(after, before), np.array(resolution["curve"]["before"])
    low, high = 0.5 / finest, 1 / finest
    some = (found.frequency >= low) & (found.frequency <= high)
    kept, error = found.over(low, high)
    if some.sum() < 2 or not math.isfinite(kept):
        return None
    curve, errors = found.curve
    known = found.sums[1]
    return {
        "from_px": 1 / high,
        "to_px": 1 / low,
        "kept": kept,
        "kept_error": error,
        "linear_filter": float(np.average(np.clip(agreed[some], 0, 1), weights=np.maximum(known[some], 0))),
        "curve": {
            "cycles_per_pixel": found.frequency.tolist(),
            "kept": [one if math.isfinite(one) else None for one in curve.tolist()],
            "error": [one if math.isfinite(one) else None for one in errors.tolist()],
        },
    }


def _resolution(before: np.ndarray, after: np.ndarray, voxel_size: float | None) -> dict[str, Any]:
    """Return Fourier ring correlations and the resolution; None if not even the coarsest ring agrees."""
    curves = [fourier_ring_correlation(one, other, pixel_size=voxel_size) for one, other in (before, after)]
    found: dict[str, Any] = {}
    for when, curve in zip(("before", "after"), curves, strict=True):
        for criterion, name in _CRITERIA:
            pixels = curve.resolution(criterion)
            known = math.isfinite(pixels)
            found[f"{when}_{name}_px"] = pixels if known else None
            found[f"{when}_{name}_mm"] = pixels * voxel_size if known and voxel_size else None
    found["curve"] = {
        "cycles_per_pixel": curves[0].frequency.tolist(),
        "before": curves[0].correlation.tolist(),
        "after": curves[1].correlation.tolist(),
        "half_bit": curves[0].threshold().tolist(),
    }
    return found


def _noise(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Return the noise of the mean of two halves, which is half of their difference, by frequency."""
    spectra = [power_spectrum((one - other) / 2) for one, other in (before, after)]
    (frequency, power), (_, left) = (spectrum.radial() for spectrum in spectra)
    return {
        "before_sd": math.sqrt(spectra[0].variance),
        "after_sd": math.sqrt(spectra[1].variance),
        "power_in": "squared grey value x pixel area",
        "curve": {"cycles_per_pixel": frequency.tolist(), "before": power.tolist(), "after": left.tolist()},
    }


def _regions(halves: Halves) -> list[dict[str, Any]]:
    """Return the means of regions from darkest to brightest: three, or two if three are not clearly separated."""
    inside = halves.weight > 0
    if len(np.unique(halves.clean[:, inside])) < 3:
        return []
    for classes in (3, 2):
        found = region_bias(halves.clean, halves.before, halves.after, inside, classes=classes, common=halves.common)
        names = ("darkest", "middle", "brightest") if len(found) == 3 else ("darkest", "brightest")
        if len(found) > 1 and all(_apart(one, other) for one, other in pairwise(found)):
            return [
                {
                    "region": name,
                    "before": each.level - each.bias,
                    "after": each.level,
                    "error": each.error,
                    "share": each.share,
                }
                for name, each in zip(names, found, strict=True)
            ]
    return []


def _apart(one: RegionBias, other: RegionBias) -> bool:
    return other.level - one.level > _APART * math.sqrt((one.spread**2 + other.spread**2) / 2)


def _rectangle(weight: Slice) -> tuple[slice, slice]:
    """Return a large rectangle in the field of view, by repeatedly moving the edge with the least coverage inwards."""
    y, x = (np.flatnonzero(weight.any(axis=axis)) for axis in (1, 0))
    ends = [int(y[0]), int(y[-1]) + 1, int(x[0]), int(x[-1]) + 1]
    empty = weight == 0
    while empty[ends[0] : ends[1], ends[2] : ends[3]].any():  # an empty rectangle contains nothing to measure
        part = empty[ends[0] : ends[1], ends[2] : ends[3]]
        worst = int(np.argmax([part[0].mean(), part[-1].mean(), part[:, 0].mean(), part[:, -1].mean()]))
        ends[worst] += 1 if worst in (0, 2) else -1
    return slice(ends[0], ends[1]), slice(ends[2], ends[3])
