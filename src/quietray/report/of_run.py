"""From a finished run to what its report shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quietray.assessment.figures import gain_text, headline, psnr_text
from quietray.assessment.halves import MEASUREMENTS
from quietray.io import ImageSeries
from quietray.metrics.image import psnr
from quietray.pictures import stated_window
from quietray.report.data import Cut, Histogram, ReportData
from quietray.report.methods import methods_text, references_of
from quietray.report.words import duration, label, number, size, value
from quietray.result import Result
from quietray.running.planes import Stack
from quietray.running.provenance import provenance
from quietray.scan import Scan

__all__ = ["report_of"]

_FEWEST_VIEWS = 0.3  # in a half, per detector column
_GREY_VALUES = ("rmse", "rmse_noisy", "data_range", "mean", "mean_noisy", "sd", "sd_median")
_SHARES = ("relative_change_of_mean", "share_of_field_of_view", "rings_share")
_AXES = {"axial": ("y", "x"), "coronal": ("z", "x"), "sagittal": ("z", "y")}


def report_of(result: Result, scan: Scan | ImageSeries, settings_toml: str) -> ReportData:
    """Return the report's contents.

    Parameters
    ----------
    result
        The finished run.
    scan
        What it was made from.
    settings_toml
        Text of ``run.toml``.
    """
    metrics, gathered = result.metrics, result.gathered
    assert gathered is not None, "a run that was finished before has its report"
    n_z, n_y, n_x = result.volume.shape[-3:]
    series = metrics.get("series")
    where = f" of {series['of']} {series['shown']}" if series else ""
    shown_image = f"z = {n_z // 2}" if isinstance(scan, Scan) or scan.step is not None else f"image {n_z // 2 + 1}"
    places = {"axial": shown_image, "coronal": f"y = {n_y // 2}", "sagittal": f"x = {n_x // 2}"}
    middle = {name: place + where for name, place in places.items()}
    data_range = metrics["estimate"]["data_range"]
    span = result.denoiser.scale.high - result.denoiser.scale.low
    history = tuple(
        {
            "step": progress.step,
            "seconds": progress.seconds,
            "loss": progress.loss,
            "psnr": _decibel(progress.error * span**2 - metrics["training"]["offset_of_judgements"], data_range),
        }
        for progress in result.history
    )
    shown = {name: part for name, part in metrics.items() if name not in ("versions", "training", "evidence")}
    shown["training"] = {
        name: value for name, value in metrics["training"].items() if name not in ("history", "offset_of_judgements")
    }
    if "trust" in metrics:
        shown["trust"] = {name: value for name, value in metrics["trust"].items() if name != "calibration"}
    return ReportData(
        title=Path(str(scan.source)).name or "scan",
        unit=metrics["scan"]["unit"],
        voxel_size=scan.pixel_size if isinstance(scan, ImageSeries) else metrics["scan"]["voxel_size_mm"],
        cuts=tuple(
            Cut(
                f"{name}, {middle[name]}" if len(gathered.cuts) > 1 else middle[name],
                before,
                after,
                _AXES[name],
                gathered.stacks.get(name),
                _labels(middle[name], gathered.stacks.get(name)),
            )
            for name, (before, after) in gathered.cuts.items()
        ),
        histogram=Histogram(gathered.edges, gathered.counts_before, gathered.counts_after),
        history=history,
        metrics=_with_units(shown, metrics),
        headline=_headline(metrics),
        warnings=result.warnings,
        notes=result.notes,
        settings_toml=settings_toml,
        provenance={
            **provenance(str(scan.source)),
            "whole_run_seconds": metrics.get("seconds"),
            "scan": dict(scan.provenance),
            "versions": metrics["versions"],
        },
        methods_text=methods_text(metrics, result.settings),
        references=references_of(metrics),
        evidence=_evidence(metrics),
        trust=None if result.trust is None else np.asarray(result.trust[n_z // 2]),
        window=None if isinstance(scan, Scan) else shown_window(scan),
        images=isinstance(scan, ImageSeries),
        object=gathered.object,
        verdict=metrics.get("verdict"),
        steps={f"{series['of']} {step}": pair for step, pair in gathered.steps.items()} if series else {},
    )


def _with_units(shown: Mapping[str, Any], metrics: Any) -> dict[str, Any]:
    """Return the figures in words where their names do not say what they are of: grey values, shares, memory."""
    unit = metrics["scan"]["unit"]
    of_projections = "volume" not in (where := metrics["estimate"]["data_range_is"]) and "images" not in where

    def told(name: str, item: Any, section: str) -> Any:
        if isinstance(item, Mapping):
            return {key: told(key, one, section) for key, one in item.items()}
        if isinstance(item, bool) or not isinstance(item, (int, float)):
            return f"{item[0]} to {item[1]}" if name == "rows" and isinstance(item, list) else item
        if section == "memory" and name != "slabs":
            return size(item)
        if name in _GREY_VALUES and section in ("estimate", "volume", "trust", "noise"):
            return number(item) if of_projections and section == "estimate" else f"{number(item)} {unit}"
        if name in _SHARES or section == "correction":
            return f"{number(100 * item, 3)} %"
        if name in ("columns", "rows") and section == "scan":
            return f"{number(item)} px"
        if name == "rotation_axis":
            return f"column {item:.2f}"
        return duration(item) if name == "seconds_per_step" else item

    found = {name: told(name, item, name) for name, item in shown.items() if name != "verdict"}
    return found | ({"comparison": shown["comparison"]} if "comparison" in shown else {})


def _labels(middle: str, stack: Stack | None) -> tuple[str, ...]:
    """Return where the planes of a stack lie, as the middle one is called."""
    if stack is None:
        return ()
    if middle.startswith("image"):
        return tuple(f"image {place + 1}" for place in stack.places)
    return tuple(f"{middle[0]} = {place}" for place in stack.places)


def shown_window(series: ImageSeries) -> tuple[float, float] | None:
    """Return the grey values to show: the window in the files, else one for the soft tissue in a CT image.

    Examples
    --------
    >>> shown_window(ImageSeries(np.array([[[-1000.0, 40.0]]], np.float32), None, "here", unit="HU"))
    (-160.0, 240.0)
    >>> shown_window(ImageSeries(np.array([[[0.0, 40.0]]], np.float32), None, "here")) is None
    True
    """
    return stated_window(series.window, series.unit)


def _evidence(metrics: Any) -> dict[str, Any]:
    """Return the table of evidence, with what few views do to halves of the views where there are few."""
    evidence, scan = dict(metrics.get("evidence", {})), metrics["scan"]
    if not evidence or evidence["halves"] == MEASUREMENTS:
        return evidence
    views = scan["views"] // 2
    if views < _FEWEST_VIEWS * scan["columns"]:
        evidence["sparse"] = (
            f"A half has only {views} views for {scan['columns']} columns: streaks of its own count as noise, and hide "
            "detail."
        )
    return evidence


def _decibel(mse: float, data_range: float) -> float | None:
    return psnr(mse, data_range) if mse > 0 else None


def _headline(metrics: Any) -> tuple[tuple[str, str], ...]:
    estimate = metrics["estimate"]
    told, changed = headline(estimate), estimate.get("object") or metrics["volume"]

    def text(value: float | None, form: str) -> str:
        return "not known" if value is None else form.format(value)

    return (
        ("Estimated PSNR gain", gain_text(estimate)),
        ("Estimated PSNR", psnr_text(told)),
        ("Change of the mean", text(changed["relative_change_of_mean"], "{:+.2%}")),
        _making(metrics),
    )


def _making(metrics: Any) -> tuple[str, str]:
    """Return how long the network was trained, or the setting of the filter."""
    method, training = metrics["method"], metrics["training"]
    if method["parameters"]:
        return "Trained for", f"{training['seconds']:.0f} s, {training['steps']} steps"
    chosen = (f"{label(name).lower()} {value(name, item)}" for name, item in method["settings"].items())
    return f"Filter: {method['name']}", ", ".join(chosen)
