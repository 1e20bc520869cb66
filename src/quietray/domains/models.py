"""The two halves of a run: training one model on many scans, and applying a model to another scan."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from quietray.domains import domain_of
from quietray.domains.base import Domain
from quietray.errors import SettingsError
from quietray.inference.denoiser import Denoiser
from quietray.result import Result
from quietray.running.models import LIMITS
from quietray.running.run import Run
from quietray.scan import Scan
from quietray.settings import called
from quietray.splits.base import Split
from quietray.training.loop import Fitted, Progress

__all__ = ["apply_model", "train_model", "unlike"]


def train_model(domain: type[Domain], scans: Sequence[Scan], run: Run) -> tuple[Denoiser, Fitted]:
    """Train one network on several scans, each in its own scale.

    Raises
    ------
    SettingsError
        The scans require different methods, such as different numbers of subsets.
    """
    if len(scans) > 1 and not domain.learns_from_several:
        raise SettingsError(
            f"a model of {called(type(run.split))} must be trained on one scan, got {len(scans)}; leave --more out"
        )
    if len(scans) > 1 and run.settings.clean:
        raise SettingsError(
            f"a clean volume must go with one scan, got {len(scans)}; leave --clean out, if each scan holds its ground "
            "truth"
        )
    splits = [domain.bound(run, [scan]) for scan in scans]
    _must_agree(splits)
    starts = [domain.prepare(run, [scan], splits[0]) for scan in scans]
    _must_agree([start.split for start in starts])
    denoiser, fitted = starts[0].learn(starts[0].together(starts))
    known = {**denoiser.facts, "trained_on": [dict(start.facts) for start in starts]}
    return dataclasses.replace(denoiser, facts=known), fitted


def apply_model(denoiser: Denoiser, scan: Scan, run: Run, strict: bool) -> Result:
    """Apply a trained model to a scan, after checking whether the scan is similar to its training data.

    Raises
    ------
    SettingsError
        The model is one for images; with `strict`, the scan differs from those the model was trained on.
    """
    if denoiser.facts.get("domain") == "images":
        raise SettingsError(
            f"the model must have been trained on scans to be applied to {scan.source or 'one'}, got one of images in "
            f"{denoiser.facts['unit']}; train one with `quietray train` on a scan like it"
        )
    if denoiser.trained:
        run = run.having(network=denoiser.trained_architecture)  # the memory for it is planned
    domain = domain_of(denoiser.split, 2)  # one scan, regardless of the training data
    start = domain.prepare(run, [scan], denoiser.split, taught=False)
    denoiser = start.adopted(denoiser)
    differences = unlike(denoiser.facts, start.facts)
    if differences and strict:
        raise SettingsError(
            f"the scan must be like those that the model was trained on, got {'; '.join(differences)}; "
            "train on a scan like it, fine-tune with --from, or leave --strict out"
        )
    judged = Progress(0, 0, 0.0, 0.0, 0.0, start.facts["noise_level"] ** 2)
    result = start.apply(denoiser, Fitted(denoiser.network, (), judged, "a trained model was applied", 0.0))
    told = tuple(f"The model was trained on other scans: {difference}." for difference in differences)
    return dataclasses.replace(result, warnings=(*told, *result.warnings))


def unlike(model: Mapping[str, Any], scan: Mapping[str, Any]) -> list[str]:
    """Return how a scan differs from the range of scans that a model was trained on.

    Parameters
    ----------
    model
        Facts of the model.
    scan
        Facts of the scan, measured in the same way.

    Examples
    --------
    >>> known = {"noise_level": 0.2, "correlation": 0.0, "voxel_size_mm": None}
    >>> unlike(known, {**known, "noise_level": 0.5})
    ['its noise is 0.5 of the contrast, not 0.2 to 0.2']
    """
    scans = model.get("trained_on", [model])
    found = []
    for name, what, factor in (
        ("noise_level", "noise is {:.2g} of the contrast", LIMITS["noise_level"]),
        ("voxel_size_mm", "voxels are {:.3g} mm", LIMITS["voxel_size_mm"]),
    ):
        known = [one[name] for one in scans if one.get(name)]
        value = scan.get(name)
        if known and value and not min(known) / factor <= value <= max(known) * factor:
            found.append(f"its {what.format(value)}, not {min(known):.2g} to {max(known):.2g}")
    known = [one["correlation"] for one in scans if one.get("correlation") is not None]
    value, apart = scan.get("correlation"), LIMITS["correlation"]
    if known and value is not None and not min(known) - apart <= value <= max(known) + apart:
        found.append(
            f"the noise of its neighbouring voxels correlates by {value:.2f}, not {min(known):.2f} to {max(known):.2f}"
        )
    return found


def _must_agree(splits: Sequence[Split]) -> None:
    if any(split != splits[0] for split in splits):
        raise SettingsError(
            f"the scans of one model must allow the same split, got {', '.join(map(str, splits))}; give --parts 2, or "
            "train on scans with similar numbers of views for their width"
        )
