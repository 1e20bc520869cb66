"""The two halves of a run: one model from many scans, and a model applied to another scan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from quietray.domains.clean import applied_with_clean, clean_split, learned_from_clean, paired
from quietray.domains.common import facts_of
from quietray.domains.projections import applied_to_views, learned_from_views, projected
from quietray.domains.radiographs import applied_to_radiographs, learned_from, measured
from quietray.domains.volume import applied, learned, reconstructed, volume_split
from quietray.errors import SettingsError
from quietray.filters import Filter
from quietray.inference.denoiser import Denoiser
from quietray.result import Result
from quietray.running.output import Output
from quietray.running.settings import Auto, Network, Settings, of_radiographs
from quietray.running.watch import Watch
from quietray.scan import Scan
from quietray.splits import Noise2Clean, Noise2Inverse, Noise2Projection
from quietray.splits.base import Split
from quietray.training.batches import TrainingSet
from quietray.training.loop import Fitted, Progress

__all__ = ["apply_model", "train_model", "unlike"]

_NOISE, _CORRELATION, _VOXEL = 1.5, 0.15, 1.25  # how far from what a model was trained on it may be used


def train_model(scans: Sequence[Scan], settings: Settings, watch: Watch) -> tuple[Denoiser, Fitted]:
    """Train one network on several scans, each in a scale of its own.

    Raises
    ------
    SettingsError
        The method is a filter, which has nothing to train, or the scans need different numbers of subsets.
    """
    method = Noise2Inverse() if isinstance(settings.method, Auto) else settings.method
    if isinstance(method, Filter):
        raise SettingsError(f"the method to train must be a network's, got the filter {method}; use noise2inverse")
    settings, output = dataclasses.replace(settings, method=method), Output(None, settings, {}, settings.format)
    if isinstance(method, Noise2Projection):
        if len(scans) > 1:
            raise SettingsError(
                f"a model of noise2projection must be trained on one scan, got {len(scans)}; leave --more"
            )
        start = projected(scans[0], method, settings, output, watch)
        denoiser, fitted = learned_from_views(start, settings, output, watch)
        facts = [start.facts]
    elif isinstance(method, Noise2Clean):
        denoiser, fitted, facts = _learned_from_clean(scans, settings, output, watch)
    elif of_radiographs(method):
        starts = [measured(scan, method, settings, output, watch) for scan in scans]
        _must_agree([start.split for start in starts])
        data = TrainingSet(tuple(start.data for start in starts))
        denoiser, fitted = learned_from(starts[0], data, settings, output, watch)
        facts = [facts_of(start.prepared, start.data, start.split) for start in starts]
    else:
        splits = [volume_split([scan], settings) for scan in scans]
        _must_agree(splits)
        volumes = [reconstructed([scan], splits[0], settings, output, watch) for scan in scans]
        data = TrainingSet(tuple(start.data for start in volumes))
        denoiser, fitted = learned(volumes[0], data, settings, output, watch)
        facts = [facts_of(start.prepared, start.data, start.split) for start in volumes]
    return dataclasses.replace(denoiser, facts={**denoiser.facts, "trained_on": facts}), fitted


def _learned_from_clean(
    scans: Sequence[Scan], settings: Settings, output: Output, watch: Watch
) -> tuple[Denoiser, Fitted, list[dict[str, Any]]]:
    """Train on scans that each hold their truth, or on one with the clean volume that was given."""
    if settings.clean and len(scans) > 1:
        raise SettingsError(
            f"a clean volume must go with one scan, got {len(scans)}; leave --clean out, if each scan holds its truth"
        )
    splits = [clean_split(scan, settings) for scan in scans]
    _must_agree(splits)
    pairs = [paired(scan, splits[0], settings, output, watch) for scan in scans]
    data = TrainingSet(tuple(pair.data for pair in pairs if pair.data is not None))
    return *learned_from_clean(pairs[0], data, settings, output, watch), [pair.facts for pair in pairs]


def apply_model(
    denoiser: Denoiser, scan: Scan, settings: Settings, output: Output, watch: Watch, strict: bool
) -> Result:
    """Apply a trained model to a scan, after measuring whether it is one that the model knows.

    Raises
    ------
    SettingsError
        The model is one of images; with `strict`, the scan is unlike those that the model was trained on.
    """
    split = denoiser.split
    if denoiser.facts.get("domain") == "images":
        raise SettingsError(
            f"the model must have been trained on scans to be applied to {scan.source or 'one'}, got one of images in "
            f"{denoiser.facts['unit']}; train one with `quietray train` on a scan like it"
        )
    if isinstance(denoiser.architecture, Network):
        settings = dataclasses.replace(settings, network=denoiser.architecture)  # whose memory is planned
    finish: Callable[[Denoiser, Fitted], Result]
    changes: dict[str, Any] = {}
    if isinstance(split, Noise2Projection):
        views = projected(scan, split, settings, output, watch)
        prepared, facts = views.prepared, views.facts
        changes = {"split": views.split, "scale": views.scale}
        finish = partial(applied_to_views, views, settings=settings, output=output, watch=watch)
    elif isinstance(split, Noise2Clean):
        pair = paired(scan, split, settings, output, watch, needed=False)
        prepared, facts = pair.start.prepared, pair.facts
        changes = {"scale": pair.start.scale}
        finish = partial(applied_with_clean, pair, output=output, watch=watch)
    elif of_radiographs(split):
        start = measured(scan, split, settings, output, watch)
        prepared, facts = start.prepared, facts_of(start.prepared, start.data, split)
        finish = partial(applied_to_radiographs, start, settings=settings, output=output, watch=watch)
    else:
        volume = reconstructed([scan], split, settings, output, watch)
        prepared, facts = volume.prepared, facts_of(volume.prepared, volume.data, split)
        changes = {"scale": volume.scale}
        finish = partial(applied, volume, output=output, watch=watch)
    denoiser = dataclasses.replace(denoiser, tile=prepared.plan.tile, **changes)
    differences = unlike(denoiser.facts, facts)
    if differences and strict:
        raise SettingsError(
            f"the scan must be like those that the model was trained on, got {'; '.join(differences)}; "
            "train on a scan like it, fine-tune with --from, or leave --strict out"
        )
    judged = Progress(0, 0, 0.0, 0.0, 0.0, facts["noise_level"] ** 2)
    result = finish(denoiser, Fitted(denoiser.network, (), judged, "a trained model was applied", 0.0))
    told = tuple(f"The model was trained on other scans: {difference}." for difference in differences)
    return dataclasses.replace(result, warnings=(*told, *result.warnings))


def unlike(model: Mapping[str, Any], scan: Mapping[str, Any]) -> list[str]:
    """Return in what a scan is outside the range of those that a model was trained on.

    Parameters
    ----------
    model
        Facts of the model.
    scan
        Facts of the scan, measured the same way.

    Examples
    --------
    >>> known = {"noise_level": 0.2, "correlation": 0.0, "voxel_size_mm": None}
    >>> unlike(known, {**known, "noise_level": 0.5})
    ['its noise is 0.5 of the contrast, not 0.2 to 0.2']
    """
    scans = model.get("trained_on", [model])
    found = []
    for name, what, factor in (
        ("noise_level", "noise is {:.2g} of the contrast", _NOISE),
        ("voxel_size_mm", "voxels are {:.3g} mm", _VOXEL),
    ):
        known = [one[name] for one in scans if one.get(name)]
        value = scan.get(name)
        if known and value and not min(known) / factor <= value <= max(known) * factor:
            found.append(f"its {what.format(value)}, not {min(known):.2g} to {max(known):.2g}")
    known = [one["correlation"] for one in scans if one.get("correlation") is not None]
    value = scan.get("correlation")
    if known and value is not None and not min(known) - _CORRELATION <= value <= max(known) + _CORRELATION:
        found.append(
            f"the noise of its neighbouring voxels correlates by {value:.2f}, not {min(known):.2f} to {max(known):.2f}"
        )
    return found


def _must_agree(splits: Sequence[Split]) -> None:
    if any(split != splits[0] for split in splits):
        raise SettingsError(
            f"the scans of one model must allow the same split, got {', '.join(map(str, splits))}; give --parts 2, or "
            "train on scans with as many views for their width"
        )
