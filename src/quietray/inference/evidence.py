"""What the held-out rows say about a result, and what the user should be warned of."""

from __future__ import annotations

from dataclasses import dataclass

from quietray.detector.correct import RowCounts
from quietray.inference.denoiser import Denoiser
from quietray.metrics.image import psnr
from quietray.metrics.noreference import residual_correlation
from quietray.training.batches import TrainingVolume
from quietray.training.loop import judge_held_out

__all__ = ["Evidence", "warnings_of"]


@dataclass(frozen=True)
class Evidence:
    """What the held-out rows say, in attenuation.

    Parameters
    ----------
    error, noise
        Estimated mean squared error of the result, and of the reconstruction without denoising.
    correlation
        Mean correlation between the residuals of two parts; 0 when they are independent, as the method needs.
    """

    error: float
    noise: float
    correlation: float

    @classmethod
    def measure(cls, denoiser: Denoiser, data: TrainingVolume) -> Evidence:
        """Judge a denoiser on the held-out rows of scaled data, with all that it does at inference."""
        span = (denoiser.scale.high - denoiser.scale.low) ** 2
        device = next(denoiser.network.parameters()).device
        judged = judge_held_out(denoiser.split, denoiser.evaluate, data, device)
        total = weights = 0.0
        for samples, weight in data.held_out():
            middle = samples[:, :, samples.shape[2] // 2]
            clean = denoiser.split.infer(denoiser.evaluate, samples.to(device)).cpu()
            pixels = float(weight.sum())
            total += residual_correlation(middle - clean, weight[:, 0]) * pixels
            weights += pixels
        return cls(judged.error * span, judged.noise * span, total / max(weights, 1e-12))

    @property
    def gain(self) -> float:
        """Estimated gain in PSNR, in dB."""
        return psnr(self.error, 1.0) - psnr(self.noise, 1.0)


def warnings_of(
    evidence: Evidence, changed: RowCounts, log_bias: tuple[float, float] | None, mean: float, views_per_part: float
) -> tuple[str, ...]:
    """Return what may be wrong with a result, each with what to do.

    Parameters
    ----------
    evidence
        From the held-out rows.
    changed
        What correcting changed.
    log_bias
        Worst and mean bias of the logarithm, and
    mean
        the mean line integral that it adds to.
    views_per_part
        Views in each angular subset per detector column.
    """
    found = []
    if not evidence.gain > 0.5:
        found.append(
            f"The held-out estimate sees a gain of only {evidence.gain:.1f} dB: the scan may be limited by something "
            "other than noise. Look at the pictures before using the result."
        )
    if evidence.correlation > 0.1:
        found.append(
            f"The angular subsets are not independent (residual correlation {evidence.correlation:+.2f}): rings, "
            "a wrong rotation axis or noisy flats are in all of them alike and stay in the result. "
            "Take more flats, or try --rings all."
        )
    if evidence.correlation < -0.05:
        found.append(
            f"The angular subsets differ by more than noise (residual correlation {evidence.correlation:+.2f}, "
            f"{views_per_part:.2f} views per subset and column): with so few views each subset has streaks of its "
            "own. The estimated gain is too high, and fine detail may be smoothed; use fewer parts (--parts 2) or "
            "more views."
        )
    share = changed.floored / max(1, changed.total)
    if share > 1e-3:
        found.append(
            f"{share:.2%} of the samples had fewer counts than one quantum or dark noise and were raised to the floor "
            "before the logarithm: attenuation is underestimated along those rays."
        )
    if log_bias is not None and mean > 0 and log_bias[1] > 0.01 * mean:
        found.append(
            f"The logarithm of so few counts overestimates the line integrals by {log_bias[1]:.3g} on average "
            f"({log_bias[1] / mean:.1%}), at worst {log_bias[0]:.3g}; no self-supervised method removes this bias."
        )
    return tuple(found)
