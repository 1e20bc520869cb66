"""The findings of a diagnosis as numbers by name, as sentences, and as pictures."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from quietray.detector.correlation import Correlation
from quietray.detector.lags import noise_power_spectrum, spectrum
from quietray.detector.photon_transfer import PhotonTransfer
from quietray.detector.prf import PointResponse, unevenness
from quietray.detector.roots import root_by_covariance
from quietray.detector.static import NoiseSource, StaticFrames
from quietray.detector.verdicts import Findings

__all__ = ["arrays_of", "figures_of", "warnings_of"]

_MISMATCH = 0.3  # summed correlation by which two sources may differ


def figures_of(
    found: Findings,
    surveyed: StaticFrames,
    before: Correlation,
    second: tuple[StaticFrames, Correlation] | None,
    transfer: PhotonTransfer | None,
    response: PointResponse | None,
    after: Correlation | None,
    sources: tuple[NoiseSource, ...],
) -> dict[str, Any]:
    """Return the numbers of a diagnosis; JSON."""
    out: dict[str, Any] = asdict(found) | {
        "estimator": before.method,
        "frames": before.n_frames,
        "effective_frames": before.effective_frames,
        "bad_pixels": int(np.count_nonzero(~surveyed.good & (True if sources[0].use is None else sources[0].use))),
        "zingers": surveyed.zingers,
        "flicker": surveyed.flicker,
        "long_range": before.long_range,
        "null_sd": before.null_sd,
        "window": list(before.lags.shape),
        "map_mean": _mean(before.neighbours),
        "map_mean_after": None if after is None else _mean(after.neighbours),
    }
    if second is not None:
        other = {"source": sources[1].name, "frames": second[1].n_frames}
        out["second"] = other | {"summed": second[1].summed, "summed_error": second[1].summed_error}
    if after is not None:
        out["checked_on"] = sources[0].name if second is None else sources[1].name
    if transfer is not None:
        keys = "gain gain_error apparent_gain read_noise read_noise_from photons excess nonlinearity".split()
        out |= {key: getattr(transfer, key) for key in keys}
    if response is not None:
        out |= {"least": response.least, "variance_gain": response.variance_gain}
        out |= {"uneven_sd": unevenness(before)[0], "kernel_middle": float(response.kernel.max())}
        out["roots_differ"] = _roots_differ(response)
    return out


def _mean(map_: np.ndarray) -> float | None:
    return float(np.nanmean(map_)) if np.isfinite(map_).any() else None


def _roots_differ(response: PointResponse) -> float | None:
    """Return the largest difference between the two square roots of the same lags."""
    if response.lags is None or response.lags.shape[0] < 9:
        return None
    small = root_by_covariance(response.lags)
    c, r = response.kernel.shape[0] // 2, small.shape[0] // 2
    return float(np.abs(response.kernel[c - r : c + r + 1, c - r : c + r + 1] - small).max())


def warnings_of(
    found: Findings,
    before: Correlation,
    second: tuple[StaticFrames, Correlation] | None,
    response: PointResponse | None,
    sources: tuple[NoiseSource, ...],
    transfer: PhotonTransfer | None,
    darks: tuple[StaticFrames, Correlation] | None,
) -> tuple[str, ...]:
    """Return what the user should know beside the verdicts, as sentences."""
    out = []
    if second is not None:
        apart = abs(second[1].summed - before.summed)
        if apart > max(_MISMATCH, 4 * math.hypot(second[1].summed_error, before.summed_error)):
            out.append(
                f"The noise of the {sources[0].name} ({before.summed:.0%}) and of the {sources[1].name} "
                f"({second[1].summed:.0%}) differ: they see another spectrum or the detector changed. Measure static "
                "frames with the object in place."
            )
    if sources[0].name == "neighbouring views":
        out.append("The noise was read with the object moving: what it changes from view to view counts as noise.")
    if response is not None and response.regions:
        out.append("One point response does not fit the whole detector; each tile was given its own.")
    if darks is None:
        out.append("There are no usable darks: the read noise is not known, and part of it counts as photon noise.")
    if transfer is not None and transfer.share_of_read_noise > 0.3:
        out.append(
            f"Read noise is {transfer.share_of_read_noise:.0%} of the photon noise: it is not blurred, so the "
            "whitening response is narrower than the light's."
        )
    if min(before.lags.shape) < 9:
        out.append(
            f"The detector is small: only lags up to {before.lags.shape[0] // 2} rows and {before.lags.shape[1] // 2} "
            "columns could be measured."
        )
    return tuple(out)


def arrays_of(
    surveyed: StaticFrames,
    before: Correlation,
    second: tuple[StaticFrames, Correlation] | None,
    after: Correlation | None,
    response: PointResponse | None,
    transfer: PhotonTransfer | None,
) -> dict[str, np.ndarray]:
    """Return pictures and curves; what `after` is to be compared with is called ``check``."""
    out: dict[str, np.ndarray] = {"good": surveyed.good}
    check = before if second is None else second[1]
    for name, seen in (("before", before), ("check", check), ("after", after)):
        if seen is not None:
            out[f"map_{name}"], out[f"lags_{name}"], out[f"errors_{name}"] = seen.neighbours, seen.lags, seen.errors
            out[f"spectrum_{name}"] = np.fft.fftshift(spectrum(seen.lags))
            out[f"radial_{name}"] = np.stack(noise_power_spectrum(seen.lags))
    if response is not None:
        out["kernel"] = response.kernel
        if response.errors is not None:
            out["kernel_errors"] = response.errors
    if transfer is not None:
        out["transfer_curve"] = transfer.curve
    return out
