"""Resolution, noise and regions of a run, before and after: a table, two figures, and their limitations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from quietray.assessment.halves import blurred, moved
from quietray.report.plots import agreement_figure, noise_figure
from quietray.report.words import MINUS, NOT_KNOWN, length, number

__all__ = ["Measurement", "ResolutionAndNoise", "resolution_and_noise"]

_NAMES = {
    "resolution": "Resolution and noise power",
    "sharpness": "Detail kept",
    "regions": "Means of regions",
    "dependency": "Noise let through",
}


@dataclass(frozen=True)
class Measurement:
    """A row of the table.

    Parameters
    ----------
    name, before, after, change
        Label and values, as text.
    alarming
        Whether the change requires a warning.
    """

    name: str
    before: str
    after: str
    change: str = ""
    alarming: bool = False


@dataclass(frozen=True)
class ResolutionAndNoise:
    """Contents of the section for the template.

    Parameters
    ----------
    rows
        Rows of the table.
    agreement, noise
        Figures as SVG, or empty strings.
    halves
        Description of the two halves that were compared.
    held_out
        Whether the halves are held out, so that none was a training target.
    let_through
        Whether a row contains how much noise of neighbouring pixels passes the method.
    sparse
        Note on the effect of few views on the halves; may be empty.
    left_out
        What could not be measured, and the reasons.
    """

    rows: tuple[Measurement, ...]
    agreement: Markup
    noise: Markup
    halves: str
    held_out: bool
    let_through: bool
    sparse: str
    left_out: tuple[str, ...]


def resolution_and_noise(evidence: Mapping[str, Any], unit: str) -> ResolutionAndNoise | None:
    """Return the contents of the section, or None if there are none.

    Parameters
    ----------
    evidence
        Table ``evidence`` of the figures of the run.
    unit
        Unit of the grey values.

    Examples
    --------
    >>> region = {"region": "darkest", "before": 1.0, "after": 0.9, "error": 0.01, "share": 0.5}
    >>> evidence = {"halves": "every other view", "held_out": True, "slices": 1, "pixels": [9, 9], "regions": [region]}
    >>> resolution_and_noise(evidence, "1/mm").rows[0].change == "\u221210 % (\u00b11 %)"
    True
    """
    if not evidence:
        return None
    resolution, noise, through = (evidence.get(name) for name in ("resolution", "noise_power", "dependency"))
    height, width = evidence["pixels"]
    n = evidence["slices"]
    sharpness = evidence.get("sharpness")
    rows = [*_resolution(resolution or {}), *_sharpness(sharpness), *_noise(noise, unit)]
    rows += _regions(evidence.get("regions", []), unit)
    if through:
        before, after = (
            f"{number(through[when], 2)} \u00b1 {number(through[f'{when}_error'], 1)}" for when in ("before", "after")
        )
        rows.append(Measurement("Noise let through by the neighbours", before, after))
    return ResolutionAndNoise(
        tuple(rows),
        Markup(agreement_figure(resolution["curve"], (sharpness or {}).get("curve")) if resolution else ""),
        Markup(noise_figure(noise["curve"]) if noise else ""),
        f"{evidence['halves']}, in {n} slice{'s' if n > 1 else ''} of {width} \u00d7 {height} pixels"
        + (f" of {evidence['where']}" if "where" in evidence else ""),
        evidence["held_out"],
        bool(through),
        evidence.get("sparse", ""),
        tuple(f"{_NAMES[name]}: {why}." for name, why in evidence.get("left_out", {}).items()),
    )


def _resolution(found: Mapping[str, Any]) -> list[Measurement]:
    """Return the rows of the resolution by both criteria, in pixels and, if the pixel size is known, in mm."""

    def text(name: str, bound: str = "") -> str:
        pixels, mm = found[f"{name}_px"], found[f"{name}_mm"]
        if pixels is None:
            return NOT_KNOWN
        return f"{bound}{number(pixels, 3)} px" + (f" ({length(float(f'{mm:.3g}'))})" if mm else "")

    named = (("half_bit", "half bit"), ("one_seventh", "1/7"))
    return [
        Measurement(f"Resolution, {words}", text(f"before_{name}"), text(f"after_{name}", "at best "))
        for name, words in named
        if found
    ]


def _sharpness(found: Mapping[str, Any] | None) -> list[Measurement]:
    """Return the row of the preserved detail."""
    if not found:
        return []
    periods = f"{number(found['from_px'], 2)} to {number(found['to_px'], 2)} px"
    return [
        Measurement(
            f"Detail kept, periods of {periods}",
            "all",
            f"{100 * found['kept']:.0f} % (\u00b1{100 * found['kept_error']:.1g} %)",
            f"a linear filter: {100 * found['linear_filter']:.0f} %",
            blurred(found),
        )
    ]


def _noise(found: Mapping[str, Any] | None, unit: str) -> list[Measurement]:
    """Return the row of the noise, measured as the difference between the halves."""
    if not found:
        return []
    before, after = found["before_sd"], found["after_sd"]
    change = f"\u00f7 {number(before / after, 2)}" if after > 0 else ""
    return [Measurement("Noise (sd)", f"{number(before, 2)} {unit}", f"{number(after, 2)} {unit}", change)]


def _regions(regions: list[Mapping[str, Any]], unit: str) -> list[Measurement]:
    """Return the rows of the mean values of regions."""
    alarming = moved(regions)
    faint = 0.1 * max((abs(region["before"]) for region in regions), default=0.0)
    rows = []
    for region in regions:
        before, after, error = (region[name] for name in ("before", "after", "error"))
        decimals = 4 if error <= 0 else max(0, 1 - math.floor(math.log10(error)))
        if abs(before) > faint:
            change = f"{100 * (after - before) / before:+.2g} % (\u00b1{100 * error / abs(before):.1g} %)"
        else:
            change = f"{after - before:+.{decimals}f} (\u00b1{error:.{decimals}f})"
        texts = [f"{mean:.{decimals}f}".replace("-", MINUS) + f" {unit}" for mean in (before, after)]
        name = f"Mean, {region['region']} region ({region['share']:.0%})"
        rows.append(Measurement(name, texts[0], texts[1], change.replace("-", MINUS), region in alarming))
    return rows
