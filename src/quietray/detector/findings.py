"""Results of a noise diagnosis as numbers, sentences and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from quietray.detector.noise.correlation import Correlation
from quietray.detector.noise.lags import error_of, infill_correlation, noise_power_spectrum, spectrum
from quietray.detector.noise.memory import Memory
from quietray.detector.noise.photon_transfer import PhotonTransfer
from quietray.detector.noise.rings import Rings
from quietray.detector.noise.static import NoiseSource, StaticFrames
from quietray.detector.response.prf import unevenness
from quietray.detector.response.response import PointResponse
from quietray.detector.response.roots import root_by_covariance
from quietray.detector.verdicts import Findings
from quietray.scan import Scan

__all__ = ["amplification", "arrays_of", "figures_beside", "figures_of", "findings_of", "shared_noise", "warnings_of"]

_MISMATCH = 0.3  # largest difference of the summed correlation between two sources


def findings_of(
    scan: Scan,
    before: Correlation,
    second: tuple[StaticFrames, Correlation] | None,
    memory: Memory | None,
    rings: Rings | None,
    repeated: bool,
) -> Findings:
    """Return the figures that the rules use, before whitening; views are preferred to flats."""
    c = before.lags.shape[0] // 2, before.lags.shape[1] // 2
    weights = np.zeros(before.lags.shape)
    near = tuple(slice(middle - 1, middle + 2) for middle in c)
    norm = infill_correlation(before.lags)
    if min(c) >= 1:
        weights[near] += np.array([[0.5, 1, 0.5], [1, 0, 1], [0.5, 1, 0.5]]) / math.sqrt(6)
    weights[c] -= norm
    error = math.hypot(error_of(weights, before.lags, before.samples), before.unsure)
    successive = next(
        (seen.successive for seen in ((second[1], before) if second else (before,)) if seen.successive is not None),
        None,
    )
    return Findings(
        summed=before.summed,
        summed_error=before.summed_error,
        infill=norm,
        infill_error=error,
        window=before.lags.shape,
        row_share=before.row_share,
        column_share=before.column_share,
        successive=None if successive is None else successive[0],
        successive_error=0.0 if successive is None else successive[1],
        memory=memory,
        rings=rings,
        n_flats=0 if scan.flats is None else int(scan.flats.shape[0]),
        n_views=scan.n_views,
        repeated=repeated,
    )


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
    """Return the numbers of a diagnosis, ready for JSON."""
    out: dict[str, Any] = asdict(found) | {
        "estimator": before.method,
        "frames": before.n_frames,
        "effective_frames": before.effective_frames,
        "bad_pixels": int(np.count_nonzero(~surveyed.good & (True if sources[0].use is None else sources[0].use))),
        "zingers": surveyed.zingers,
        "flicker": surveyed.flicker,
        "long_range": before.long_range,
        "null_sd": before.null_sd,
        "window": list(found.window),
        "summed_by_window": {f"{n} x {n}": before.summed_in(n) for n in range(3, max(found.window) + 1, 2)},
        "memory": None if found.memory is None else _memory(found.memory),
        "subsets": [asdict(one) for one in found.subsets],
        "map_mean": _mean(before.neighbours),
        "map_mean_after": None if after is None else _mean(after.neighbours),
    }
    if second is not None:
        other = {"source": sources[1].name, "frames": second[1].n_frames}
        out["second"] = other | {"summed": second[1].summed, "summed_error": second[1].summed_error}
        out["second"]["window"] = list(second[1].lags.shape)
    if after is not None:
        out["after_window"] = list(after.lags.shape)
        out["checked_on"] = sources[0].name if second is None else sources[1].name
    if transfer is not None:
        keys = "gain gain_error apparent_gain read_noise read_noise_from photons excess nonlinearity".split()
        out |= {key: getattr(transfer, key) for key in keys}
    if response is not None:
        out |= {"least": response.least, "variance_gain": response.variance_gain}
        out |= {"uneven_sd": unevenness(before)[0], "kernel_middle": float(response.kernel.max())}
        out["roots_differ"] = _roots_differ(response)
    return out


def figures_beside(
    transfer: PhotonTransfer | None,
    darks: tuple[StaticFrames, Correlation] | None,
    exposures: Sequence[tuple[StaticFrames, Correlation]],
) -> dict[str, Any]:
    """Return how the noise depends on the signal, by pixel and by exposure, and the noise without light.

    Parameters
    ----------
    transfer
        Mean and variance.
    darks
        Frames without light and their correlation, which is that of the readout.
    exposures
        Frames with light, of one or several exposures.
    """
    names = ("mean", "variance", "summed", "pixels")
    dark = None
    if darks is not None:
        frames, seen = darks
        dark = _level(frames, seen) | {"row_share": seen.row_share, "column_share": seen.column_share}
    return {
        "darks": dark,
        "exposures": [_level(frames, seen) for frames, seen in exposures],
        "signal": None if transfer is None else dict(zip(names, transfer.curve.tolist(), strict=True)),
    }


def _level(frames: StaticFrames, seen: Correlation) -> dict[str, Any]:
    """Return mean, variance and correlation of frames of one brightness."""
    return {
        "frames": seen.n_frames,
        "mean": float(frames.brightness[frames.good].mean()),
        "variance": float(frames.variance[frames.good].mean()),
        "summed": seen.summed,
        "summed_error": seen.summed_error,
    }


def amplification(response: PointResponse) -> str:
    """Return in words how deconvolving a response amplifies the noise.

    Examples
    --------
    >>> amplification(PointResponse(np.ones((1, 1))))
    'raises the variance 1.00-fold (of white readout noise 1.00-fold), the finest details 1.0-fold'
    """
    return (
        f"raises the variance {response.variance_gain:.2f}-fold (of white readout noise {response.white_gain:.2f}-fold)"
        f", the finest details {response.condition:.1f}-fold"
    )


def _memory(memory: Memory) -> dict[str, Any]:
    return {
        "correlations": list(memory.correlations),
        "errors": list(memory.errors),
        "source": memory.source,
        "frames": memory.frames,
    }


def shared_noise(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return how much noise neighbouring views, all views, and subsets of the views share, as sentences by name."""
    rows, memory, rings = {}, figures["memory"], figures["rings"]
    if memory is not None:
        near = f"{memory['correlations'][0]:.4f} +- {memory['errors'][0]:.4f}"
        rows["next view"] = f"correlates by {near} (measured on {memory['source']})"
    if rings is not None:
        of_flats = "" if rings["over_flats"] is None else f", {rings['over_flats']:.2f} times the flats' own noise"
        share = f"{rings['share']:.1%} +- {rings['share_error']:.1%}"
        rows["rings"] = f"{share} of the variance is the same in all views{of_flats} (measured on {rings['source']})"
    rows["subsets of views"] = ", ".join(
        f"{one['parts']} correlate by {one['correlation']:.3f} +- {one['error']:.3f}" for one in figures["subsets"]
    )
    return rows


def _mean(map_: np.ndarray) -> float | None:
    return float(np.nanmean(map_)) if np.isfinite(map_).any() else None


def _roots_differ(response: PointResponse) -> float | None:
    """Return the largest difference between the two square roots of the same auto-correlation."""
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
    """Return sentences that the user should know in addition to the verdicts."""
    out = []
    if second is not None:
        apart = abs(second[1].summed - before.summed)
        if apart > max(_MISMATCH, 4 * math.hypot(second[1].summed_error, before.summed_error)):
            out.append(
                f"The noise of the {sources[0].name} ({before.summed:.0%}) and of the {sources[1].name} "
                f"({second[1].summed:.0%}) differ: their spectra differ, or the detector changed. Measure static "
                "frames with the object in place."
            )
    if sources[0].name == "neighbouring views":
        out.append("The noise was measured with the object moving: its changes from view to view count as noise.")
    if response is not None and response.regions:
        out.append("One point response does not fit the whole detector; each tile was given its own.")
    if darks is None:
        out.append("There are no usable darks: the read noise is not known, and part of it counts as photon noise.")
    if transfer is not None and transfer.share_of_read_noise > 0.3:
        out.append(
            f"Read noise is {transfer.share_of_read_noise:.0%} of the photon noise: it is not blurred, so the "
            "whitening response is narrower than that of the light."
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
    """Return images and curves; the reference for `after` is called ``check``."""
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
