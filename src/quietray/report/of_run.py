"""Contents of the report of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from quietray.assessment.gains import gain_text, headline, means_text, psnr_text
from quietray.assessment.halves import MEASUREMENTS
from quietray.io import ImageSeries
from quietray.metrics.image import psnr
from quietray.pictures import stated_window
from quietray.report.data import Cut, Histogram, ReportData
from quietray.report.methods import methods_text, references_of
from quietray.report.words import MINUS, NOT_KNOWN, label, value
from quietray.result import Result
from quietray.running.planes import Stack
from quietray.running.provenance import provenance
from quietray.scan import Scan

__all__ = ["report_of"]

_FEWEST_VIEWS = 0.3  # views in a half, per detector column
_AXES = {"axial": ("y", "x"), "coronal": ("z", "x"), "sagittal": ("z", "y")}


def report_of(result: Result, scan: Scan | ImageSeries, settings_toml: str) -> ReportData:
    """Return the contents of the report.

    Parameters
    ----------
    result
        The finished run.
    scan
        Input of the run.
    settings_toml
        Text of ``run.toml``.
    """
    metrics, gathered = result.metrics, result.gathered
    assert gathered is not None, "a finished run has its report"
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
    shown = {
        name: part
        for name, part in metrics.items()
        if name not in ("versions", "training", "evidence", "seconds", "verdict")
    }
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
        metrics=shown,
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


def _labels(middle: str, stack: Stack | None) -> tuple[str, ...]:
    """Return the positions of the slices of a stack, named like the middle one."""
    if stack is None:
        return ()
    if middle.startswith("image"):
        return tuple(f"image {place + 1}" for place in stack.places)
    return tuple(f"{middle[0]} = {place}" for place in stack.places)


def shown_window(series: ImageSeries) -> tuple[float, float] | None:
    """Return the grey values to show: the window in the files, or a soft-tissue window for CT images; None otherwise.

    Examples
    --------
    >>> shown_window(ImageSeries(np.array([[[-1000.0, 40.0]]], np.float32), None, "here", unit="HU"))
    (-160.0, 240.0)
    >>> shown_window(ImageSeries(np.array([[[0.0, 40.0]]], np.float32), None, "here")) is None
    True
    """
    return stated_window(series.window, series.unit)


def _evidence(metrics: Any) -> dict[str, Any]:
    """Return the table of evidence, with a note on half sets of views if there are few views."""
    evidence, scan = dict(metrics.get("evidence", {})), metrics["scan"]
    if not evidence or evidence["halves"] == MEASUREMENTS:
        return evidence
    views = scan["views"] // 2
    if views < _FEWEST_VIEWS * scan["columns"]:
        evidence["sparse"] = (
            f"A half has only {views} views for {scan['columns']} columns: its streaks count as noise and hide detail."
        )
    return evidence


def _decibel(mse: float, data_range: float) -> float | None:
    return psnr(mse, data_range) if mse > 0 else None


def _headline(metrics: Any) -> tuple[tuple[str, str], ...]:
    estimate = metrics["estimate"]
    told, inside = headline(estimate), estimate.get("object")
    change = (inside or metrics["volume"])["relative_change_of_mean"]
    where, gains = "", [("Estimated PSNR gain", gain_text(told))]
    if inside:
        where = " inside the object"
        share = f"{100 * inside['share_of_field_of_view']:.0f} %"
        over = {name: item for name, item in estimate.items() if name != "object"}
        gains = [
            (f"Estimated PSNR gain{where}, {share} of the field of view", gain_text(told)),
            ("Estimated PSNR gain over the whole field", gain_text(over)),
        ]
    first, *others = (*gains, (f"Estimated PSNR{where}", psnr_text(told)))
    known = [first, *(card for card in others if card[1] != NOT_KNOWN)]
    return (
        *((name, text.replace("-", MINUS)) for name, text in known),
        (f"Change of the mean{where}", "not known" if change is None else f"{100 * change:+.2f} %".replace("-", MINUS)),
        _making(metrics),
    )


def _making(metrics: Any) -> tuple[str, str]:
    """Return the time of training, or the setting of the filter, with its label."""
    method, training = metrics["method"], metrics["training"]
    if method["parameters"]:
        return "Trained for", f"{training['seconds']:.0f} s, {training['steps']} steps{means_text(training)}"
    chosen = (f"{label(name).lower()} {value(name, item)}" for name, item in method["settings"].items())
    return f"Filter: {method['name']}", ", ".join(chosen)
