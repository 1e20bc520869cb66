"""Warnings about denoised images, each with advice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quietray.assessment.evidence import few_steps
from quietray.assessment.gains import headline, too_wide
from quietray.assessment.withheld import Reason

__all__ = ["image_warnings"]

_WHITE = 0.05
_MOVED = 0.01  # fraction of the range
_BLIND = ("noise2self", "noise2void", "apbsn")


def image_warnings(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Return warnings about denoised images, each with advice.

    Parameters
    ----------
    metrics
        Figures of the run, as in ``metrics.json``.
    """
    if metrics.get("given_back"):
        return ()
    estimate, method, noise = metrics["estimate"], metrics["method"], metrics["noise"]
    steps, gain = metrics["training"]["steps"], headline(estimate)["psnr_gain_db_at_least"]
    longer = "give a longer --budget" if method["parameters"] else "try another filter"
    if method["parameters"] and steps == 0:
        longer = "train on images like these, or fine-tune the model with --from"
    found = []
    if few_steps(metrics) and method["name"] != "pseudo-ct":  # which was trained before
        found.append(f"The network was trained for only {steps} steps, too few to learn more than a blur; {longer}.")
    shared = noise is not None and abs(noise["neighbour_correlation"]) > _WHITE
    if shared and method["name"] in _BLIND:
        found.append(
            f"The noise of neighbouring pixels correlates by {noise['neighbour_correlation']:+.2f}, as it does in "
            f"every CT image: {method['name']} predicts part of a hidden pixel's noise from its neighbours and keeps "
            "it, and its estimated error counts this as signal. Use recorrupted or a filter, which take the "
            "correlation into account; better, a second measurement with --repeats, or denoise the projections."
        )
    if shared and method["name"] == "noisier2noise":
        found.append(
            "Noisier2Noise adds white noise, and the noise of these images is not white: its correlated part stays in "
            "the result. Use recorrupted instead."
        )
    if noise is None and method["measurements"] == 1:
        found.append(
            "The images have too few uniform regions to tell whether their noise is white; if it is not, part of it "
            "stays in the result and the estimated gain is wrong."
        )
    why = headline(estimate).get("withheld")
    if isinstance(why, Reason) and why.advice:
        found.append(f"The gain is not estimated: {why}{why.advice}")
    elif gain is None or gain < 0.5:
        found.append(
            "The held-out data show no clear gain from denoising: look at the pictures before using the result, and "
            f"{longer}."
        )
    found += too_wide(headline(estimate), "images", metrics["scan"].get("images"))
    volume = estimate.get("object") or metrics["volume"]
    moved = volume["mean"] - volume["mean_noisy"]
    if abs(moved) > _MOVED * estimate["data_range"]:
        found.append(
            f"Denoising changed the mean of the images by {moved:+.3g} {metrics['scan']['unit']}: {longer} before "
            "measuring anything."
        )
    return tuple(found)
